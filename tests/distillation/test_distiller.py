"""The Distiller's step, term by term, and what Keras's users expect around it."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TriKD
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.distillation.terms import _number_duplicates
from keras_tkd.losses import (
    DecoupledTargets,
    DistillationLoss,
    Hint,
    LogitRegression,
    SimilarityPreserving,
    SoftTargets,
    TripletDistillation,
)
from keras_tkd.methods import METHODS

CLASSES = 3
# On the models of this file, which have no layers for features; test_every_method.py trains all.
DISTILLING = ["tkd_soft"]
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype("float32")
Y = np.arange(12) % CLASSES
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ACCURACY = keras.metrics.SparseCategoricalAccuracy  # made before the step, which is then traced once


def linear(name, seed, **arguments):
    initializer = keras.initializers.RandomNormal(seed=seed)
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(CLASSES, kernel_initializer=initializer, name="logits", **arguments)],
        name=name,
    )


def deep(name, width=8, dropout=0.2, **arguments):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(width, "relu", name="hidden", **arguments),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(dropout, name="drop"),
            keras.layers.Dense(CLASSES, name="logits", dtype="float32"),
        ],
        name=name,
    )


def compiled(losses, weights=None, student_loss_weight=1.0, student=None, teacher=None, **arguments):
    distiller = Distiller(
        teacher or linear("teacher", 1), student or linear("student", 2), losses, weights, student_loss_weight
    )
    distiller.compile(keras.optimizers.SGD(0.1), LABEL_LOSS, metrics=[ACCURACY("accuracy")], **arguments)
    return distiller


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class TestOneStep:
    """One step of gradient descent, against central differences of a float64 oracle of the total."""

    student_loss_weight, kd_weight, logits_weight, decay = 0.3, 0.8, 0.05, 0.02

    def total(self, kernel, bias, teacher_kernel, sample_weight):
        z_t, z_s = X @ teacher_kernel, X.astype("float64") @ kernel + bias
        p_s = softmax(z_s)
        label = -np.log(p_s[np.arange(len(Y)), Y])
        p_t4, p_s4 = softmax(z_t / 4), softmax(z_s / 4)
        kd = 16 * (p_t4 * (np.log(p_t4) - np.log(p_s4))).sum(-1)
        squared = ((z_s - z_t) ** 2).mean(-1)
        rows = self.student_loss_weight * label + self.kd_weight * kd + self.logits_weight * squared
        return (rows * sample_weight).mean() + self.decay * (kernel**2).sum()

    @pytest.mark.parametrize("weighting", ["none", "sample_weight", "class_weight"])
    def test_total_and_update(self, weighting):
        student = linear("student", 2, kernel_regularizer=keras.regularizers.L2(self.decay))
        distiller = compiled(
            [SoftTargets(4.0), LogitRegression()],
            [self.kd_weight, self.logits_weight],
            self.student_loss_weight,
            student,
        )
        kernel, bias = (w.astype("float64") for w in student.get_weights())
        teacher_kernel = distiller.teacher.get_weights()[0].astype("float64")
        rows, given = np.ones(len(Y)), {}
        if weighting == "sample_weight":
            rows = np.linspace(0, 2, len(Y))
            given = {"sample_weight": rows}
        if weighting == "class_weight":
            rows = np.array([0.5, 1.0, 3.0])[Y]
            given = {"class_weight": {0: 0.5, 1: 1.0, 2: 3.0}}
        history = distiller.fit(X, Y, batch_size=len(Y), shuffle=False, verbose=0, **given).history
        assert history["loss"][0] == pytest.approx(self.total(kernel, bias, teacher_kernel, rows), rel=1e-5)

        gradient = np.zeros_like(kernel)
        for place in np.ndindex(*kernel.shape):
            step = np.zeros_like(kernel)
            step[place] = 1e-5
            up, down = (self.total(kernel + s, bias, teacher_kernel, rows) for s in (step, -step))
            gradient[place] = (up - down) / 2e-5
        np.testing.assert_allclose(student.get_weights()[0], kernel - 0.1 * gradient, rtol=1e-4, atol=1e-6)

    def test_terms_are_tracked_by_name_in_training_and_validation(self):
        student = linear("student", 2, kernel_regularizer=keras.regularizers.L2(self.decay))
        losses = [SoftTargets(), SoftTargets(2.0), TripletDistillation()]
        history = compiled(losses, student=student).fit(X, Y, validation_data=(X, Y), verbose=0).history
        names = {
            "loss",
            "student_loss",
            "kd",
            "kd_2",
            "tkd",
            "regularization",
            "accuracy",
            "agreement",
            "tkd_positive_distance",
            "tkd_negative_distance",
            "tkd_violated",
        }
        assert set(history) == names | {f"val_{name}" for name in names}
        for prefix in ("", "val_"):
            value = {name: history[prefix + name][0] for name in names}
            parts = value["student_loss"] + value["kd"] + value["kd_2"] + value["tkd"] + value["regularization"]
            assert value["loss"] == pytest.approx(parts, rel=1e-5)

    def test_evaluate_counts_every_batch_by_its_size(self):
        distiller = compiled(LogitRegression())
        z_t, z_s = (X @ model.get_weights()[0] for model in (distiller.teacher, distiller.student))
        result = distiller.evaluate(X, Y, batch_size=5, verbose=0, return_dict=True)
        assert result["logits"] == pytest.approx(((z_t - z_s) ** 2).mean(), rel=1e-5)
        assert result["agreement"] == pytest.approx((z_t.argmax(-1) == z_s.argmax(-1)).mean(), rel=1e-6)

    def test_matches_keras_weights_for_the_sum_form(self):
        """Keras weights (1 - w) * sum c_i * term_i + w * student: the same number with weights (1 - w) * c_i."""
        w, c = 0.3, 2.0
        teacher, student = linear("teacher", 1), linear("student", 2)
        theirs = keras.distillation.Distiller(
            teacher,
            student,
            keras.distillation.LogitsDistillation(temperature=2.0, loss=keras.losses.KLDivergence()),
            distillation_loss_weights=[c],
            student_loss_weight=w,
        )
        theirs.compile("sgd", LABEL_LOSS)
        ours = compiled(SoftTargets(2.0), [(1 - w) * c], w, student, teacher)
        label_loss = float(LABEL_LOSS(Y, student(X)))
        kd = float(SoftTargets(2.0)(teacher(X), student(X)))
        expected = w * label_loss + (1 - w) * c * kd
        assert ours.evaluate(X, Y, verbose=0, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-5)
        # One loss alone has no weight at all there: its number is that of c = 1.
        number = theirs.evaluate(X, Y, verbose=0, return_dict=True)["total_loss"]
        assert number == pytest.approx(w * label_loss + (1 - w) * kd, rel=1e-4)


class TestTeacher:
    def test_is_frozen_and_bit_equal_after_training(self):
        teacher = deep("teacher", 16)
        before = [w.copy() for w in teacher.get_weights()]
        compiled(SoftTargets(), teacher=teacher).fit(X, Y, epochs=2, batch_size=4, verbose=0)
        assert not teacher.trainable and not teacher.trainable_variables
        for old, new in zip(before, teacher.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)

    def test_runs_once_in_inference_mode_outside_the_tape(self):
        calls = []

        class Watched(keras.Model):
            def __init__(self):
                super().__init__(name="watched")
                self.logits = keras.layers.Dense(CLASSES)

            def call(self, x, training=None):
                calls.append((training, any(t._recording for t in TAPES)))
                return self.logits(x)

        TAPES = []
        original = tf.GradientTape.__enter__

        def enter(tape):
            TAPES.append(tape)
            return original(tape)

        teacher = Watched()
        teacher(X)
        distiller = compiled(SoftTargets(), teacher=teacher, run_eagerly=True)
        distiller.build((None, 5))
        calls.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tf.GradientTape, "__enter__", enter)
            distiller.fit(X, Y, batch_size=12, verbose=0)
        assert calls == [(False, False)]

    def test_activity_losses_of_the_teacher_do_not_count(self):
        teacher = linear("teacher", 1, activity_regularizer=keras.regularizers.L2(100.0))
        plain = linear("teacher", 1)
        results = [compiled(SoftTargets(), teacher=t).evaluate(X, Y, verbose=0) for t in (teacher, plain)]
        assert results[0] == results[1]

    def test_outputs_in_the_batch_replace_the_teacher(self):
        distiller = compiled(LogitRegression())
        given = RNG.normal(size=(12, CLASSES)).astype("float32")
        z_s = X @ distiller.student.get_weights()[0]
        result = distiller.evaluate({"image": X, "teacher": {"logits": given}}, Y, verbose=0, return_dict=True)
        assert result["logits"] == pytest.approx(((given - z_s) ** 2).mean(), rel=1e-5)

    def test_outputs_of_an_anchor_are_refused(self):
        with pytest.raises(ValueError, match="Outputs of an anchor are read where there is one.*'anchor'"):
            compiled(LogitRegression()).evaluate({"image": X, "anchor": {"logits": X[:, :CLASSES]}}, Y, verbose=0)

    def test_teacher_image_is_seen_by_the_teacher_alone(self):
        distiller = compiled(LogitRegression())
        privileged = RNG.normal(size=X.shape).astype("float32")
        z_t = privileged @ distiller.teacher.get_weights()[0]
        z_s = X @ distiller.student.get_weights()[0]
        result = distiller.evaluate({"image": X, "teacher_image": privileged}, Y, verbose=0, return_dict=True)
        assert result["logits"] == pytest.approx(((z_t - z_s) ** 2).mean(), rel=1e-5)

    def test_models_that_return_a_dict(self):
        """Labels and metrics take the logits, losses whatever they name."""

        class Dictionary(keras.Model):
            def __init__(self, width, name):
                super().__init__(name=name)
                self.hidden, self.last = keras.layers.Dense(width, "tanh"), keras.layers.Dense(CLASSES)

            def call(self, x, training=False):
                hidden = self.hidden(x)
                return {"logits": self.last(hidden), "block": hidden}

        losses = [
            LogitRegression(),
            SimilarityPreserving("block", "block"),
            Hint(teacher_layers="block", student_layers="block"),
        ]
        distiller = compiled(losses, student=Dictionary(4, "s"), teacher=Dictionary(8, "t"))
        distiller.fit(X, Y, verbose=0, validation_data=(X, Y))
        result = distiller.evaluate(X, Y, verbose=0, return_dict=True)
        teacher, student = (model.predict(X, verbose=0) for model in (distiller.teacher, distiller.student))
        z_t, z_s = teacher["logits"], student["logits"]
        assert result["logits"] == pytest.approx(((z_t - z_s) ** 2).mean(), rel=1e-5)
        assert result["accuracy"] == pytest.approx((z_s.argmax(-1) == Y).mean(), rel=1e-6)
        assert result["student_loss"] == pytest.approx(-np.log(softmax(z_s)[np.arange(12), Y]).mean(), rel=1e-5)
        gram_t, gram_s = (block @ block.T for block in (teacher["block"], student["block"]))
        rows = [g / np.linalg.norm(g, axis=1, keepdims=True) for g in (gram_t, gram_s)]
        assert result["sp"] == pytest.approx(((rows[0] - rows[1]) ** 2).sum() / 12**2, rel=1e-4)

    def test_losses_find_the_classes_in_labels_of_several_outputs(self):
        def two_outputs(name):
            x = keras.Input((5,))
            outputs = {"logits": keras.layers.Dense(CLASSES)(x), "emb": keras.layers.Dense(4)(x)}
            return keras.Model(x, outputs, name=name)

        loss = DecoupledTargets()
        distiller = Distiller(two_outputs("teacher"), two_outputs("student"), loss)
        distiller.compile(keras.optimizers.SGD(0.1), {"logits": LABEL_LOSS, "emb": "mse"})
        z_t, z_s = (model.predict(X, verbose=0)["logits"] for model in (distiller.teacher, distiller.student))
        labels = {"logits": Y, "emb": np.zeros((12, 4))}
        result = distiller.evaluate(X, labels, verbose=0, return_dict=True)
        assert result["dkd"] == pytest.approx(float(loss({"logits": z_t, "labels": Y}, z_s)), rel=1e-5)
        # Arrays of weights, one for all outputs or one for each: the images' are those of the logits.
        rows = RNG.uniform(size=12).astype("float32")
        expected = float(loss({"logits": z_t, "labels": Y}, z_s, sample_weight=rows))
        label_loss = (-np.log(softmax(z_s)[np.arange(12), Y]) * rows).mean()
        for weights in (rows, {"logits": rows, "emb": np.ones(12)}):
            result = distiller.evaluate(X, labels, sample_weight=weights, verbose=0, return_dict=True)
            assert result["dkd"] == pytest.approx(expected, rel=1e-5)
            # The embeddings' error is the rest of it.
            assert result["student_loss"] > label_loss
        distiller.fit(X, labels, sample_weight=rows, verbose=0)

    def test_teacher_of_another_input_size_gets_the_image_resized(self):
        """Mean pixels, times 1 and times 2: a resize to half the size leaves the mean of a plane as it is."""

        def mean_pixels(size, factor, name):
            # Flattened, so that images of another size are an error.
            kernel = keras.initializers.Constant(factor / size**2)
            model_layers = [
                keras.Input((size, size, 1)),
                keras.layers.Flatten(),
                keras.layers.Dense(CLASSES, use_bias=False, kernel_initializer=kernel),
            ]
            return keras.Sequential(model_layers, name=name)

        images = np.broadcast_to(np.arange(4.0).reshape(4, 1, 1, 1), (4, 8, 8, 1)).astype("float32")
        labels = np.arange(4) % CLASSES
        for size, image_key in ((4, "image"), (16, "image"), (4, "teacher_image")):
            distiller = compiled(
                LogitRegression(), teacher=mean_pixels(size, 1.0, "t"), student=mean_pixels(8, 2.0, "s")
            )
            batch = {"image": images, image_key: images}
            result = distiller.evaluate(batch, labels, verbose=0, return_dict=True)
            # Mean over the images of (2 v - v)^2, v = 0..3.
            assert result["logits"] == pytest.approx((0 + 1 + 4 + 9) / 4, rel=1e-5)

    def test_teacher_of_other_channels_is_an_error(self):
        def model(channels):
            return keras.Sequential([keras.Input((4, 4, channels)), keras.layers.Flatten(), keras.layers.Dense(3)])

        with pytest.raises(ValueError, match=r"\(None, 4, 4, 1\).*\(None, 4, 4, 3\)"):
            Distiller(model(1), model(3), LogitRegression())
        # Nothing that batches bring would help: there are none yet.
        with pytest.raises(ValueError, match="Put the teacher behind layers that convert the image$"):
            Distiller(model(1), model(3), LogitRegression())

    def test_companions_pass_through_the_student_with_the_image(self):
        """What a loss is handed for each of the images of a batch."""

        class Handed(LogitRegression):
            def inputs(self, teacher, student, labels, index):
                roles = ("positive", "negative", "partner")
                seen.update({role: student[role]["logits"] for role in roles}, same=student["same"])
                return super().inputs(teacher, student, labels, index)

        seen = {}
        distiller = compiled(Handed(), run_eagerly=True)
        batch = {"image": X, "positive": X + 1, "negative": X - 1, "partner": 2 * X, "same": np.ones(12)}
        kernel, bias = distiller.student.get_weights()
        result = distiller.evaluate(batch, Y, batch_size=12, verbose=0, return_dict=True)
        for role, images in (("positive", X + 1), ("negative", X - 1), ("partner", 2 * X)):
            np.testing.assert_allclose(seen[role], images @ kernel + bias, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(seen["same"], np.ones(12))
        z_t = X @ distiller.teacher.get_weights()[0]
        assert result["logits"] == pytest.approx(((z_t - X @ kernel) ** 2).mean(), rel=1e-5)


SHAPES_SEEN = []


class CountingStudent(keras.Model):
    def __init__(self):
        super().__init__(name="student")
        self.logits = keras.layers.Dense(CLASSES)

    def call(self, x, training=None):
        SHAPES_SEEN.append(tuple(x.shape))
        return self.logits(x)


@pytest.mark.parametrize("with_negatives", [False, True])
def test_student_runs_forward_once_per_step(with_negatives):
    losses = [SoftTargets(), TripletDistillation(), LogitRegression()]
    distiller = compiled(losses, student=CountingStudent(), run_eagerly=True)
    batch = {"image": X, "negative": X[::-1].copy()} if with_negatives else X
    distiller.build((None, 5))
    SHAPES_SEEN.clear()
    distiller.fit(batch, Y, batch_size=12, verbose=0)
    assert SHAPES_SEEN == [(24, 5) if with_negatives else (12, 5)]


def test_given_negatives_reach_the_triplet_loss():
    distiller = compiled(TripletDistillation(margin=2.0))
    negative = RNG.normal(size=X.shape).astype("float32")
    z_t = X @ distiller.teacher.get_weights()[0]
    z_p, z_n = (x @ distiller.student.get_weights()[0] for x in (X, negative))
    positive, away = (np.linalg.norm(z_t - z, axis=-1) for z in (z_p, z_n))
    result = distiller.evaluate({"image": X, "negative": negative}, Y, verbose=0, return_dict=True)
    assert result["tkd"] == pytest.approx(np.maximum(positive - away + 2, 0).mean(), rel=1e-5)
    assert result["tkd_positive_distance"] == pytest.approx(positive.mean(), rel=1e-5)
    assert result["tkd_negative_distance"] == pytest.approx(away.mean(), rel=1e-5)


def test_mined_negatives_differ_from_step_to_step_and_repeat_with_the_seed():
    def losses_of_two_steps(seed):
        distiller = compiled(TripletDistillation(seed=seed), student=linear("student", 2))
        distiller.optimizer.learning_rate = 0.0
        return [distiller.train_on_batch(X, Y, return_dict=True)["tkd_negative_distance"] for _ in range(3)]

    first = losses_of_two_steps(seed=3)
    assert len(set(first)) == 3  # the running means of three different draws
    assert losses_of_two_steps(seed=3) == first
    assert losses_of_two_steps(seed=4) != first


@pytest.mark.parametrize(
    "labels", [Y, Y[:, None], np.eye(CLASSES, dtype="float32")[Y]], ids=["ids", "column", "one-hot"]
)
def test_labels_as_ids_or_one_hot(labels):
    distiller = Distiller(linear("teacher", 1), linear("student", 2), TripletDistillation(margin=1.0))
    one_hot = labels.ndim == 2 and labels.shape[1] > 1
    kind = keras.losses.CategoricalCrossentropy if one_hot else keras.losses.SparseCategoricalCrossentropy
    distiller.compile("sgd", kind(from_logits=True))
    reference = Distiller(linear("teacher", 1), linear("student", 2), TripletDistillation(margin=1.0))
    reference.compile("sgd", LABEL_LOSS)
    result, expected = (d.evaluate(X, y, verbose=0) for d, y in ((distiller, labels), (reference, Y)))
    np.testing.assert_allclose(result, expected, rtol=1e-5)


class TestKerasAround:
    def test_predict_is_the_student_on_arrays_and_on_triplets(self):
        distiller = compiled(SoftTargets())
        expected = X @ distiller.student.get_weights()[0]
        for x in (X, {"image": X, "negative": X}, tf.data.Dataset.from_tensor_slices(({"image": X}, Y)).batch(5)):
            np.testing.assert_allclose(distiller.predict(x, verbose=0), expected, rtol=1e-4, atol=1e-6)

    def test_takes_positions_as_keras_does(self):
        # Half of twelve samples are held out; of the rest, in batches of 2, there are three steps.
        history = compiled(SoftTargets()).fit(X, Y, 2, 1, 0, None, 0.5, None, False)
        assert history.params["steps"] == 3 and "val_loss" in history.history
        assert set(compiled(SoftTargets()).evaluate(X, Y, 12, 0, None, None, None, True)) >= {"loss", "kd"}

    def test_fits_a_dataset_of_triplets(self):
        from keras_tkd.data import triplet_dataset

        images = np.repeat(np.arange(24, dtype="uint8"), 5).reshape(24, 5)
        dataset = triplet_dataset(images[:, None, :, None], np.arange(24) % CLASSES, 7, seed=0)
        dataset = dataset.map(
            lambda x, y: ({k: tf.cast(v[:, 0, :, 0] if k != "index" else v, tf.float32) for k, v in x.items()}, y)
        )
        history = compiled(TripletDistillation()).fit(dataset, epochs=2, validation_data=dataset, verbose=0).history
        assert len(history["tkd"]) == len(history["val_tkd"]) == 2

    def test_models_of_several_inputs_get_x_untouched(self):
        def two_inputs(name):
            a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
            return keras.Model({"a": a, "b": b}, keras.layers.Dense(CLASSES)(a + b), name=name)

        distiller = compiled(SoftTargets(), student=two_inputs("student"), teacher=two_inputs("teacher"))
        distiller.fit({"a": X, "b": X}, Y, verbose=0)
        assert distiller.predict({"a": X, "b": X}, verbose=0).shape == (12, CLASSES)

    def test_unbuilt_models_are_built_by_fit(self):
        teacher, student = (keras.Sequential([keras.layers.Dense(CLASSES)], name=n) for n in ("teacher", "student"))
        distiller = compiled(SoftTargets(), student=student, teacher=teacher)
        before = distiller.built
        distiller.fit(X, Y, verbose=0)
        assert not before and distiller.built and len(student.trainable_variables) == 2

    @pytest.mark.parametrize("options", [{"run_eagerly": True}, {"steps_per_execution": 3}], ids=str)
    @pytest.mark.parametrize("method", DISTILLING)
    def test_compile_options_give_the_same_training(self, options, method):
        """XLA is tried with every method in test_every_method.py."""
        histories = [
            compiled(*make_losses(method), **o).fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history
            for o in ({}, options)
        ]
        for name, values in histories[0].items():
            np.testing.assert_allclose(values, histories[1][name], rtol=1e-4, atol=1e-5, err_msg=name)

    def test_weights_and_temperature_act_between_epochs_without_retracing(self):
        traces, traces_of_first_epoch = [], []

        class Traced(SoftTargets):
            def call(self, y_true, y_pred):
                traces.append(1)
                return super().call(y_true, y_pred)

        loss = Traced(1.0)
        distiller = compiled(loss, [0.5])
        distiller.optimizer.learning_rate = 0.0
        z_t, z_s = (X @ m.get_weights()[0] for m in (distiller.teacher, distiller.student))

        def kd(temperature):
            p_t, p_s = softmax(z_t / temperature), softmax(z_s / temperature)
            return temperature**2 * (p_t * np.log(p_t / p_s)).sum(-1).mean()

        def change(epoch, logs):
            traces_of_first_epoch.append(len(traces))
            distiller.distillation_loss_weights = [3.0]
            distiller.student_loss_weight = 0.25
            loss.temperature = 2.5

        callback = keras.callbacks.LambdaCallback(on_epoch_end=change)
        history = distiller.fit(X, Y, epochs=2, batch_size=12, verbose=0, callbacks=[callback]).history
        label = history["student_loss"]
        assert history["loss"][0] == pytest.approx(label[0] + 0.5 * kd(1.0), rel=1e-4)
        assert history["loss"][1] == pytest.approx(0.25 * label[1] + 3.0 * kd(2.5), rel=1e-4)
        assert len(traces) == traces_of_first_epoch[0] == traces_of_first_epoch[1]
        assert distiller.distillation_loss_weights == (3.0,)
        assert distiller.student_loss_weight == 0.25 and loss.temperature == 2.5


class TestSaving:
    def test_round_trip_continues_training(self, tmp_path):
        losses = [SoftTargets(3.0), TripletDistillation(2.0, seed=5)]
        original = Distiller(deep("teacher", 16), deep("student", dropout=0), losses, [0.4, 0.1], 0.6)
        original.compile(keras.optimizers.SGD(0.05, momentum=0.9), LABEL_LOSS, metrics=["accuracy"])
        original.fit(X, Y, batch_size=4, verbose=0)
        original.save(tmp_path / "distiller.keras")
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
        assert loaded.compiled and int(loaded.step.numpy()) == 3
        assert loaded.distillation_loss_weights == (0.4, 0.1) and loaded.student_loss_weight == 0.6
        assert loaded.distillation_losses[0].temperature == 3.0 and loaded.distillation_losses[1].seed == 5
        for mine, theirs in zip(original.optimizer.variables, loaded.optimizer.variables, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
        histories = [d.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history for d in (original, loaded)]
        for name, values in histories[0].items():
            np.testing.assert_allclose(values, histories[1][name], rtol=1e-5, err_msg=name)

    def test_student_file_is_ordinary_keras(self, tmp_path):
        distiller = compiled(SoftTargets(), student=deep("student"))
        distiller.fit(X, Y, verbose=0)
        distiller.student.save(tmp_path / "student.keras")
        loaded = keras.saving.load_model(tmp_path / "student.keras")
        np.testing.assert_allclose(loaded.predict(X, verbose=0), distiller.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
        # Dense 2 weights, BatchNorm 2, Dense 2.
        assert len(loaded.trainable_variables) == 6


class TestPrecision:
    @pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
    @pytest.mark.parametrize("method", DISTILLING)
    def test_every_methods_terms_fall(self, policy, method):
        keras.utils.set_random_seed(0)
        margin = 0.5 if METHODS[method].reads("margin") else None  # in the unit of these models' small logits
        losses, weights = make_losses(method, margin=margin)
        student, teacher = (deep(name, 32, dtype=policy) for name in ("student", "teacher"))
        distiller = compiled(losses, weights, 0.0, student=student, teacher=teacher)
        scaled = isinstance(distiller.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (policy == "mixed_float16")
        history = distiller.fit(X, Y, epochs=40, verbose=0).history
        # Loss scaling starts by skipping steps, and negatives change from step to step; the terms fall in the end.
        for name in [*distiller.term_names, "loss"]:
            assert np.mean(history[name][-5:]) < np.mean(history[name][:5]), name

    def test_step_counts_steps_that_loss_scaling_skips(self):
        distiller = compiled(LogitRegression(), student=deep("student", 32, dtype="mixed_float16"))
        distiller.optimizer.initial_scale = 2.0**30
        distiller.optimizer.build(distiller.trainable_variables)
        distiller.optimizer.dynamic_scale.assign(2.0**120)  # gradients overflow at first
        distiller.fit(X, Y, batch_size=4, epochs=2, verbose=0)
        assert int(distiller.step.numpy()) == 6
        assert int(distiller.optimizer.iterations.numpy()) < 6

    @pytest.mark.parametrize("case", ["skipped", "skipped, a layer built late", "no epoch left"])
    def test_averages_over_no_step_are_the_weights(self, case):
        """Keras ends a `fit` with the averages, which are zeros before the first step that is applied."""

        class Late(Distiller):
            def __init__(self, *arguments):
                super().__init__(*arguments)
                self.late = keras.layers.Dense(1, use_bias=False)

            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return keras.ops.mean(self.late(y_pred))

        kind = Late if "late" in case else Distiller
        student = linear("student", 2, dtype="mixed_float16" if "skipped" in case else "float32")
        # Of weights of 10^9 the gradient, in float16, is infinite at each scale of these steps.
        distiller = kind(linear("teacher", 1), student, LogitRegression(), [1e9])
        distiller.compile(keras.optimizers.SGD(0.1, use_ema=True), LABEL_LOSS)
        before = student.get_weights()
        distiller.fit(X, Y, batch_size=12, epochs=2, initial_epoch=2 if case == "no epoch left" else 0, verbose=0)
        assert int(distiller.optimizer.iterations.numpy()) == 0
        for expected, weight in zip(before, student.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, expected)
        if kind is Late:
            assert np.any(distiller.late.get_weights()[0])

    def test_a_loop_of_ones_own_may_have_its_steps_in_a_function(self, caplog):
        """Without a word of TensorFlow's, which warns of what it cannot read."""
        whole, own = (compiled(SoftTargets(), student=linear("student", 2, dtype="mixed_float16")) for _ in range(2))
        step = tf.function(own.train_step)
        tensorflow = logging.getLogger("tensorflow")
        tensorflow.addHandler(caplog.handler)
        try:
            for _ in range(3):
                step((tf.constant(X), tf.constant(Y)))
        finally:
            tensorflow.removeHandler(caplog.handler)
        assert [message for message in caplog.messages if "AutoGraph" in message] == []
        whole.fit(X, Y, batch_size=12, epochs=3, shuffle=False, verbose=0)
        # Both in graphs, of the same operations.
        for mine, theirs in zip(own.student.get_weights(), whole.student.get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)

    def test_float16_logits_are_compared_in_float32(self):
        """The loss is handed float32, whatever its models compute in."""

        class Constant(DistillationLoss):
            def call(self, y_true, y_pred):
                assert y_true.dtype == y_pred.dtype == "float32"
                return keras.ops.mean(y_pred - y_true, axis=-1) + 1e-4

        student = linear("student", 2, dtype="mixed_float16")
        distiller = Distiller(linear("teacher", 1), student, Constant(name="constant"), student_loss_weight=0.0)
        distiller.compile("sgd", LABEL_LOSS)
        assert np.isfinite(distiller.evaluate(X, Y, verbose=0)).all()


class Poisoned(DistillationLoss):
    """Not finite from a given step on."""

    def __init__(self, step):
        super().__init__(name="poisoned")
        self.step = step

    def inputs(self, teacher, student, labels, index):
        return student["step"], student["logits"]

    def call(self, y_true, y_pred):
        bad = keras.ops.where(y_true >= self.step, np.float32("nan"), np.float32(0.0))
        return keras.ops.mean(y_pred, axis=-1) * bad


class Cut(DistillationLoss):
    """Has a value everywhere, and no derivative where all logits of a row are below 0."""

    def call(self, y_true, y_pred):
        return keras.ops.sqrt(keras.ops.sum(keras.ops.square(keras.ops.relu(y_pred)), axis=-1))


class TestNotFinite:
    def test_skips_the_update_and_names_step_and_loss(self):
        distiller = compiled([SoftTargets(), Poisoned(step=7)])
        weights = []
        watch = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: weights.append(distiller.student.get_weights()[0])
        )
        with pytest.raises(FloatingPointError, match="'poisoned' was not finite at step 7"):
            distiller.fit(X, Y, batch_size=1, epochs=3, verbose=0, callbacks=[watch])
        assert len(weights) == 12  # looked at the end of the epoch
        assert not np.array_equal(weights[5], weights[6])
        for later in weights[7:]:
            np.testing.assert_array_equal(weights[6], later)

    @pytest.mark.parametrize(
        ("broken", "said"),
        [
            ("images", "the images were the first that were not finite; training stopped. Mend them"),
            ("teacher", "the teacher's outputs were the first .*No learning rate mends that: look at the teacher's"),
            ("student", "the student's outputs were the first that were not finite; training stopped. Lower the"),
        ],
    )
    def test_names_what_was_not_finite_first(self, broken, said):
        distiller, x = compiled(SoftTargets()), X.copy()
        if broken == "images":
            x[5] = np.inf
        else:
            model = getattr(distiller, broken)
            model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
        with pytest.raises(FloatingPointError, match=f"was not finite at step 0 .from 0., .*; {said}"):
            distiller.fit(x, Y, batch_size=12, verbose=0)

    def test_says_of_a_frozen_teacher_that_float16_may_be_too_short_for_it(self):
        teacher = linear("teacher", 1, dtype="mixed_float16")
        kernel, bias = teacher.get_weights()
        teacher.set_weights([kernel, bias + 1e5])  # float16 ends at 65,504
        assert np.isinf(teacher(X)).any() and np.isfinite(X @ kernel + bias + 1e5).all()
        said = "look at the teacher's weights, .* if it computes in float16, at whether they are finite in float32"
        with pytest.raises(FloatingPointError, match=said):
            compiled(LogitRegression(), teacher=teacher).fit(X, Y, batch_size=12, verbose=0)

    @pytest.mark.parametrize("given", ["labels", "sample weights"])
    def test_names_what_was_given_and_not_finite(self, given):
        distiller = Distiller(linear("teacher", 1), linear("student", 2), SoftTargets())
        distiller.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
        rows, weights = np.eye(CLASSES, dtype="float32")[Y], np.ones(12, "float32")
        {"labels": rows, "sample weights": weights}[given][5] = np.nan
        said = f"the {given} were the first that were not finite; training stopped. Mend them"
        with pytest.raises(FloatingPointError, match=f"was not finite at step 0 .from 0., .*; {said}"):
            distiller.fit(X, rows, sample_weight=weights, batch_size=12, verbose=0)

    def test_of_what_was_finite_nothing_is_said(self):
        with pytest.raises(FloatingPointError, match="which updated nothing; training stopped. Lower"):
            compiled(Poisoned(step=0)).fit(X, Y, batch_size=12, verbose=0)

    @pytest.mark.parametrize("eager", [False, True])
    def test_a_gradient_alone_updates_nothing(self, eager):
        """The norm of what is below 0, cut off there: 0, and its gradient is 0 times infinity."""
        distiller = compiled(Cut(name="cut"), run_eagerly=eager)
        kernel, bias = distiller.student.get_weights()
        distiller.student.set_weights([0 * kernel, bias - 1])
        (judged,) = [line for line in distiller.check((X, Y)).warnings if "gradient is not finite" in line]
        assert "a step with it updates nothing" in judged
        said = r"The gradient of the losses was not finite at step 0 .from 0., .*nothing; all losses were finite.*sqrt"
        with pytest.raises(FloatingPointError, match=said):
            distiller.fit(X, Y, batch_size=4, verbose=0)
        np.testing.assert_array_equal(distiller.student.get_weights()[0], 0 * kernel)
        np.testing.assert_array_equal(distiller.student.get_weights()[1], bias - 1)

    @pytest.mark.parametrize("eager", [False, True])
    @pytest.mark.parametrize("kind", ["distiller", "trikd"])
    def test_nor_statistics_that_running_the_models_has_moved(self, kind, eager):
        """Of BatchNorm, in the student, in an online teacher, in a loss's own layers: one NaN would stay in them."""

        def norm(name, units=8):
            x = inputs = keras.Input(X.shape[1:])
            x = keras.layers.BatchNormalization()(keras.layers.Dense(units, name="hidden")(x))
            return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x), name=name)

        if kind == "distiller":
            hint = Hint(teacher_layers="hidden", student_layers="hidden")
            model = Distiller(norm("teacher", 6), norm("student"), [SoftTargets(), hint])
        else:
            model = TriKD(norm("teacher", 6), norm("student"))
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=eager)
        model.fit(X, Y, batch_size=12, verbose=0)
        before = [np.array(weight) for weight in model.weights]
        assert sum("moving" in weight.path for weight in model.weights) == 6 - 2 * (kind == "trikd")
        bad = X.copy()
        bad[3] = np.nan
        with pytest.raises(FloatingPointError, match="which updated nothing"):
            model.fit(bad, Y, batch_size=12, verbose=0)
        for weight, value in zip(model.weights, before, strict=True):
            # The number of steps counts this one too.
            if weight.path != model.step.path:
                np.testing.assert_array_equal(weight, value, err_msg=weight.path)
        # And a step that counts moves them.
        model.fit(X, Y, batch_size=12, verbose=0)
        moved = [w.path for w, value in zip(model.weights, before, strict=True) if not np.array_equal(w, value)]
        assert sum("moving" in path for path in moved) == 4

    def test_a_gradient_that_is_not_finite_at_any_scale_ends_a_training_in_float16(self):
        """Keras's scale begins with 2^15, and each step halves it: it is 2^-16 after 31 of them."""
        distiller = compiled(Cut(name="cut"), student=linear("student", 2, dtype="mixed_float16"))
        kernel, bias = distiller.student.get_weights()
        distiller.student.set_weights([0 * kernel, bias - 1])
        distiller.fit(X, Y, batch_size=12, epochs=31, verbose=0)
        assert distiller.optimizer.dynamic_scale.numpy() == 2.0**-16
        with pytest.raises(FloatingPointError, match="gradient of the losses was not finite at step 31 .from 0., "):
            distiller.fit(X, Y, batch_size=12, verbose=0)
        np.testing.assert_array_equal(distiller.student.get_weights()[1], bias - 1)

    def test_names_the_loss_in_a_step_of_an_earlier_trace(self):
        distiller, x = (
            Distiller(linear("teacher", 1), linear("student", 2), [SoftTargets(), LogitRegression()]),
            X.copy(),
        )
        distiller.compile(keras.optimizers.SGD(0.1), LABEL_LOSS)
        x[5] = np.inf
        distiller.fit(X, Y, batch_size=12, verbose=0)
        # Without labels there is one loss less, and the step is traced anew.
        distiller.fit(X, batch_size=12, verbose=0)
        with pytest.raises(FloatingPointError, match="'student_loss' was not finite at step 2"):
            distiller.fit(x, Y, batch_size=12, verbose=0)
        with pytest.raises(FloatingPointError, match="'kd' was not finite at step 3"):
            distiller.fit(x, batch_size=12, verbose=0)

    def test_names_the_step_among_several_of_an_execution(self):
        distiller = compiled([SoftTargets(), Poisoned(step=7)], steps_per_execution=5)
        with pytest.raises(FloatingPointError, match="'poisoned' was not finite at step 7"):
            distiller.fit(X, Y, batch_size=1, epochs=3, verbose=0)

    def test_looks_every_50_steps(self):
        distiller = compiled(Poisoned(step=3))
        x, y = np.tile(X, (20, 1)), np.tile(Y, 20)
        seen = []
        watch = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: seen.append(batch))
        with pytest.raises(FloatingPointError, match="step 3"):
            distiller.fit(x, y, batch_size=1, verbose=0, callbacks=[watch])
        assert len(seen) == 50

    def test_ends_a_fit_with_a_list_of_callbacks_of_keras_too(self):
        distiller = compiled([SoftTargets(), Poisoned(step=2)])
        callbacks = keras.callbacks.CallbackList([keras.callbacks.History()], model=distiller)
        for _ in range(2):
            distiller.fit(X, Y, batch_size=12, verbose=0, callbacks=callbacks)
        # As many as a fit needs, and not two for two.
        assert len({type(callback) for callback in callbacks.callbacks}) == len(callbacks.callbacks) == 4
        with pytest.raises(FloatingPointError, match="'poisoned' was not finite at step 2"):
            distiller.fit(X, Y, batch_size=12, verbose=0, callbacks=callbacks)

    def test_the_note_is_of_one_fit_only(self):
        distiller = compiled(Poisoned(step=0))
        with pytest.raises(FloatingPointError):
            distiller.fit(X, Y, verbose=0)
        distiller.distillation_losses[0].step = 10**6
        distiller.compile(keras.optimizers.SGD(0.1), LABEL_LOSS)
        distiller.fit(X, Y, verbose=0)


def subclassed_softmax():
    class Model(keras.Model):
        def __init__(self):
            super().__init__(name="probabilities")
            self.dense = keras.layers.Dense(CLASSES, "softmax")

        def call(self, x):
            return self.dense(x)

    return Model()


class TestRefusals:
    @pytest.mark.parametrize("built", [True, False])
    def test_models_that_share_a_layer(self, built):
        inputs, shared = [keras.Input((5,))] if built else [], keras.layers.Dense(4)
        teacher, student = (keras.Sequential([*inputs, shared, keras.layers.Dense(CLASSES)]) for _ in range(2))
        with pytest.raises(ValueError, match="`teacher` and `student` must be two models that share no weights"):
            compiled(SoftTargets(), student=student, teacher=teacher).evaluate(X, Y, verbose=0)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Distiller("teacher", linear("s", 1), SoftTargets()), "`teacher` must be a keras.Model"),
            (lambda: (lambda m: Distiller(m, m, SoftTargets()))(linear("one", 1)), "must be two models"),
            (lambda: compiled([]), "`distillation_losses` must"),
            (lambda: compiled([keras.losses.KLDivergence()]), "`distillation_losses` must"),
            (lambda: compiled([SoftTargets()], [1.0, 2.0]), "one weight for each of the 1"),
            (lambda: compiled([SoftTargets()], [-1.0]), "`distillation_loss_weights` must be a number >= 0"),
            (lambda: compiled([SoftTargets()], None, -0.1), "`student_loss_weight` must be a number >= 0"),
            (
                lambda: compiled(SoftTargets(), teacher=linear("t", 1, activation="softmax")),
                "teacher must return logits.*keras_tkd.teachers.logits_model",
            ),
            (
                lambda: compiled(SoftTargets(), student=linear("s", 1, activation="softmax")),
                "student must return logits",
            ),
            (
                lambda: compiled(SoftTargets(), student=keras.Sequential([keras.Input((5,)), keras.layers.Flatten()])),
                "no trainable weights",
            ),
            (
                lambda: compiled(SoftTargets(), teacher=keras.Sequential([keras.Input((5,)), keras.layers.Dense(7)])),
                r"\(None, 7\).*\(None, 3\)",
            ),
            (
                lambda: compiled(SoftTargets(), teacher=keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])),
                r"input.*\(None, 4\).*\(None, 5\)",
            ),
            (lambda: compiled(SoftTargets(teacher_layers="nowhere", student_layers="logits")), "'nowhere'"),
        ],
    )
    def test_before_any_training(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_probabilities_of_a_model_without_a_graph(self):
        with pytest.raises(ValueError, match="teacher must return logits"):
            compiled(SoftTargets(), teacher=subclassed_softmax()).fit(X, Y, verbose=0)

    def test_weights_set_later_are_checked_too(self):
        distiller = compiled(SoftTargets())
        with pytest.raises(ValueError, match="one weight for each"):
            distiller.distillation_loss_weights = [1.0, 2.0]
        with pytest.raises(ValueError, match="student_loss_weight"):
            distiller.student_loss_weight = -1.0

    def test_fit_without_labels_names_what_is_missing(self):
        with pytest.raises(ValueError, match="the data have none"):
            compiled(TripletDistillation()).fit(X, verbose=0)


class TestLayers:
    def test_losses_read_named_layers_from_the_one_pass(self):
        teacher, student = deep("teacher"), deep("student")
        loss = LogitRegression(teacher_layers="hidden", student_layers="hidden")
        distiller = compiled(loss, teacher=teacher, student=student)
        hidden_t, hidden_s = (
            np.maximum(X @ m.get_layer("hidden").get_weights()[0] + m.get_layer("hidden").get_weights()[1], 0)
            for m in (teacher, student)
        )
        result = distiller.evaluate(X, Y, verbose=0, return_dict=True)
        assert result["logits"] == pytest.approx(((hidden_t - hidden_s) ** 2).mean(), rel=1e-4)

    def test_layers_of_different_shape_are_refused_with_both_shapes(self):
        loss = LogitRegression(teacher_layers="hidden", student_layers="hidden")
        with pytest.raises(ValueError, match=r"\(None, 16\).*\(None, 8\)"):
            compiled(loss, teacher=deep("teacher", 16), student=deep("student", 8))


def test_number_duplicates():
    assert _number_duplicates(["kd", "tkd", "kd", "kd", "kd_2"]) == ["kd", "tkd", "kd_2", "kd_3", "kd_2_2"]
