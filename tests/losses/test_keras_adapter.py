"""For people who come from keras.distillation: its losses in our Distiller, its defects, and the page for them."""

import inspect
import pathlib
import re
import warnings

import keras
import numpy as np
import pytest
from keras.distillation import FeatureDistillation, LogitsDistillation

from keras_tkd import Distiller, TeacherEnsemble
from keras_tkd.losses import DistillationLoss, Hint, LogitRegression, SoftTargets
from keras_tkd.losses.keras_adapter import KerasDistillation, _snake_case

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "from_keras_distillation.md").read_text()
CLASSES = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype("float32")
Y = np.arange(12) % CLASSES
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
KL = keras.losses.KLDivergence()


def linear(name, seed=1, units=CLASSES, **arguments):
    initializer = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
    dense = keras.layers.Dense(units, use_bias=False, kernel_initializer=initializer, name="top", **arguments)
    return keras.Sequential([keras.Input((5,)), dense], name=name)


def deep(name, seed=1, width=8, **arguments):
    def dense(units, name, offset=0, **more):
        initializer = keras.initializers.RandomNormal(stddev=1.0, seed=seed + offset)
        return keras.layers.Dense(units, kernel_initializer=initializer, name=name, **more, **arguments)

    norm = keras.layers.BatchNormalization(name="norm", **arguments)
    return keras.Sequential(
        [keras.Input((5,)), dense(width, "hidden", activation="relu"), norm, dense(CLASSES, "top", 1)], name=name
    )


def make(kind, losses, weights=None, student_loss_weight=0.5, teacher=None, student=None, **arguments):
    """A compiled Distiller, `kind` being ours or Keras's."""
    teacher, student = teacher or linear("teacher", 1), student or linear("student", 2)
    distiller = kind(teacher, student, losses, weights, student_loss_weight)
    distiller.compile(keras.optimizers.SGD(0.1), LABEL_LOSS, **arguments)
    return distiller


def ours(*arguments, **more):
    return make(Distiller, *arguments, **more)


def keras_own(*arguments, **more):
    return make(keras.distillation.Distiller, *arguments, **more)


def evaluate(distiller, **arguments):
    return distiller.evaluate(X, Y, batch_size=12, verbose=0, return_dict=True, **arguments)


def kernel(model, layer="top"):
    return model.get_layer(layer).get_weights()[0].astype("float64")


def outputs(distiller):
    return X @ kernel(distiller.teacher), X @ kernel(distiller.student)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def label_loss(z):
    """Crossentropy of each row."""
    return -np.log(softmax(z)[np.arange(len(Y)), Y])


def soft_targets(z_t, z_s, temperature):
    """T^2 KL of each row."""
    p_t, p_s = softmax(z_t / temperature), softmax(z_s / temperature)
    return temperature**2 * (p_t * np.log(p_t / p_s)).sum(-1)


def hidden(model):
    """ReLU features of `deep`."""
    weights, bias = model.get_layer("hidden").get_weights()
    return np.maximum(X @ weights + bias, 0)


def skip_unless(shows, defect):
    """Ends the half of a test that shows a defect of keras.distillation, once Keras has repaired it."""
    if not shows:
        pytest.skip(f"keras {keras.__version__} has repaired: {defect}")


class Difference(keras.distillation.DistillationLoss):
    """A loss as a user of Keras writes it: mean absolute difference, times `factor`."""

    def __init__(self, factor=1.0):
        self.factor = factor

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return self.factor * keras.ops.mean(keras.ops.abs(teacher_outputs - student_outputs))

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class Projected(DistillationLoss):
    """Squared error between the teacher's output and the student's behind a layer of the loss's own."""

    owns_layers = True

    def build(self, teacher_shapes, student_shapes):
        self.projector = keras.layers.Dense(teacher_shapes[-1])
        self.projector.build(student_shapes)
        self.add_layer(self.projector)

    def call(self, y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - self.projector(y_pred)), axis=-1)


class TestDefects:
    """What goes wrong in keras.distillation: first that it does not here, then that it does there."""

    z_t, z_s = 4 * RNG.normal(size=(2, 12, CLASSES))

    def test_default_loss_vanishes_where_all_logits_are_large(self):
        shifted = [keras.ops.convert_to_tensor(z + 100, "float32") for z in (self.z_t, self.z_s)]
        expected = soft_targets(self.z_t, self.z_s, 3.0).mean()
        assert expected > 1
        assert float(SoftTargets(3.0)(*shifted)) == pytest.approx(expected, rel=1e-4)
        skip_unless(float(LogitsDistillation(3.0).compute_loss(*shifted)) == 0, "KL divergence of raw logits")

    def test_default_loss_has_another_gradient(self):
        import tensorflow as tf

        # d/dz_s of T^2 KL(p_t || p_s), p = softmax(z / T), is T (p_s - p_t); the mean is over 12 rows.
        expected = 3.0 * (softmax(self.z_s / 3) - softmax(self.z_t / 3)) / 12
        z_t, z_s = (tf.constant(z, "float32") for z in (self.z_t, self.z_s))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(z_s)
            mine, theirs = SoftTargets(3.0)(z_t, z_s), LogitsDistillation(3.0).compute_loss(z_t, z_s)
        np.testing.assert_allclose(tape.gradient(mine, z_s), expected, rtol=1e-4, atol=1e-6)
        gradient = tape.gradient(theirs, z_s).numpy()
        cosine = (gradient * expected).sum() / np.linalg.norm(gradient) / np.linalg.norm(expected)
        skip_unless(cosine < 0.5, "gradient of the default loss")

    def test_sample_weight_is_ignored(self):
        weights = np.linspace(0, 2, 12)
        distiller = ours(SoftTargets(2.0))
        z_t, z_s = outputs(distiller)
        expected = (weights * (0.5 * label_loss(z_s) + soft_targets(z_t, z_s, 2.0))).mean()
        assert evaluate(distiller, sample_weight=weights)["loss"] == pytest.approx(expected, rel=1e-4)
        theirs = keras_own(LogitsDistillation(2.0, KL))
        weighted, plain = evaluate(theirs, sample_weight=weights), evaluate(theirs)
        skip_unless(weighted["total_loss"] == plain["total_loss"], "sample_weight is ignored")

    def test_class_weight_is_ignored(self):
        def first_loss(distiller, **given):
            distiller.optimizer.learning_rate = 0.0
            return distiller.fit(X, Y, batch_size=12, shuffle=False, verbose=0, **given).history["loss"][0]

        given = {"class_weight": {0: 0.0, 1: 1.0, 2: 5.0}}
        distiller = ours(SoftTargets(2.0))
        z_t, z_s = outputs(distiller)
        rows = np.array([0.0, 1.0, 5.0])[Y]
        expected = (rows * (0.5 * label_loss(z_s) + soft_targets(z_t, z_s, 2.0))).mean()
        assert first_loss(distiller, **given) == pytest.approx(expected, rel=1e-4)
        theirs = keras_own(LogitsDistillation(2.0, KL))
        skip_unless(first_loss(theirs, **given) == first_loss(theirs), "class_weight is ignored")

    def test_regularizers_are_ignored(self):
        def losses(build, loss):
            regularized = linear("student", 2, kernel_regularizer=keras.regularizers.L2(0.1))
            return [evaluate(build(loss, student=student))["loss"] for student in (regularized, linear("student", 2))]

        with_l2, without = losses(ours, SoftTargets(2.0))
        assert with_l2 - without == pytest.approx(0.1 * (kernel(linear("student", 2)) ** 2).sum(), rel=1e-4)
        with_l2, without = losses(keras_own, LogitsDistillation(2.0, KL))
        skip_unless(with_l2 == without, "regularizers are ignored")

    @pytest.mark.parametrize("weights", [[3.0], 3.0], ids=["list", "number"])
    def test_weight_of_a_single_loss_is_ignored(self, weights):
        distiller = ours(SoftTargets(2.0), weights)
        z_t, z_s = outputs(distiller)
        expected = (0.5 * label_loss(z_s) + 3 * soft_targets(z_t, z_s, 2.0)).mean()
        assert evaluate(distiller)["loss"] == pytest.approx(expected, rel=1e-4)
        weighted, plain = (evaluate(keras_own(LogitsDistillation(2.0, KL), w)) for w in (weights, None))
        skip_unless(weighted["total_loss"] == plain["total_loss"], "the weight of a single loss is ignored")

    def test_student_layer_name_alone_is_ignored(self):
        loss, student = FeatureDistillation("mse", student_layer_name="hidden"), deep("student", width=CLASSES)
        distiller = ours(loss, student=student)
        expected = ((X @ kernel(distiller.teacher) - hidden(student)) ** 2).mean()
        assert evaluate(distiller)["feature_distillation"] == pytest.approx(expected, rel=1e-4)
        of_outputs = ((X @ kernel(distiller.teacher) - student.predict(X, verbose=0)) ** 2).mean()
        theirs = evaluate(keras_own(loss, student=student))["distillation_loss"]
        skip_unless(theirs == pytest.approx(of_outputs, rel=1e-4), "student_layer_name alone is ignored")

    def test_student_runs_twice_when_layers_are_read(self):
        class Counting(keras.layers.Layer):
            def call(self, x):
                calls.append(1)
                return x

        def calls_of_one_step(build):
            layers = [keras.layers.Dense(8, name="hidden"), keras.layers.Dense(CLASSES), Counting()]
            student = keras.Sequential([keras.Input((5,)), *layers])
            loss = FeatureDistillation("mse", "hidden", "hidden")
            distiller = build(loss, teacher=deep("teacher"), student=student, run_eagerly=True)
            distiller.train_on_batch(X, Y)
            calls.clear()
            distiller.train_on_batch(X, Y)
            return len(calls)

        calls = []
        assert calls_of_one_step(ours) == 1
        skip_unless(calls_of_one_step(keras_own) == 2, "the student runs forward twice")

    def test_evaluate_moves_batch_norm(self):
        def moved(build):
            student = deep("student")
            before = student.get_weights()
            evaluate(build(FeatureDistillation("mse", "hidden", "hidden"), teacher=deep("teacher"), student=student))
            return any(not np.array_equal(a, b) for a, b in zip(before, student.get_weights(), strict=True))

        assert not moved(ours)
        skip_unless(moved(keras_own), "evaluate() moves BatchNorm's statistics")

    def test_load_model_returns_an_uncompiled_distiller(self, tmp_path):
        def loaded(distiller):
            distiller.fit(X, Y, batch_size=4, verbose=0)
            distiller.save(tmp_path / "distiller.keras")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return keras.saving.load_model(tmp_path / "distiller.keras")

        mine = loaded(ours(SoftTargets()))
        assert mine.compiled and int(mine.optimizer.iterations.numpy()) == 3
        mine.fit(X, Y, batch_size=4, verbose=0)
        assert int(mine.optimizer.iterations.numpy()) == 6
        theirs = loaded(keras_own(LogitsDistillation(2.0, KL)))
        skip_unless(getattr(theirs, "optimizer", None) is None, "loaded without an optimizer")

    def test_the_file_holds_the_teacher(self, tmp_path):
        teacher, file = deep("teacher", width=10_000), tmp_path / "distiller.keras"
        size = 4 * teacher.count_params()
        z_t = X @ kernel(linear("teacher", 1))
        mine = Distiller(None, linear("student", 2), SoftTargets(2.0), student_loss_weight=0.0)
        mine.compile("sgd", LABEL_LOSS)
        given = {"image": X, "teacher": {"logits": z_t}}
        mine.fit(given, Y, batch_size=4, verbose=0)
        mine.save(file)
        assert file.stat().st_size < size / 4
        again = keras.saving.load_model(file)
        z_s = X @ kernel(mine.student)
        result = again.evaluate(given, Y, batch_size=12, verbose=0, return_dict=True)
        assert result["kd"] == pytest.approx(soft_targets(z_t, z_s, 2.0).mean(), rel=1e-4)
        keras_own(LogitsDistillation(2.0, KL), teacher=teacher).save(file)
        skip_unless(file.stat().st_size > size, "the file holds the teacher")

    def test_one_teacher(self):
        teachers = [linear("teacher", seed) for seed in (1, 3)]
        distiller = ours(SoftTargets(2.0), teacher=TeacherEnsemble(teachers, average="losses"))
        z_s = X @ kernel(distiller.student)
        expected = np.mean([soft_targets(X @ kernel(teacher), z_s, 2.0).mean() for teacher in teachers])
        assert evaluate(distiller)["kd"] == pytest.approx(expected, rel=1e-4)
        try:
            keras_own(LogitsDistillation(2.0, KL), teacher=teachers)
            refused = False
        except Exception:
            refused = True
        skip_unless(refused, "one teacher")

    def test_features_of_other_width_have_no_projector(self):
        models = {"teacher": deep("teacher", width=16), "student": deep("student", width=8)}
        distiller = ours(Hint(teacher_layers="hidden", student_layers="hidden"), student_loss_weight=0.0, **models)
        (projector,) = distiller.loss_layers
        before = projector.get_weights()[0]
        assert before.shape == (8, 16)
        history = distiller.fit(X, Y, epochs=20, verbose=0).history
        assert not np.array_equal(before, projector.get_weights()[0])
        assert history["fitnet"][-1] < history["fitnet"][0]
        try:
            keras_own(FeatureDistillation("mse", "hidden", "hidden"), **models).fit(X, Y, verbose=0)
            failed = False
        except Exception:
            failed = True
        skip_unless(failed, "features of different width cannot be compared")

    def test_layers_of_a_loss_are_not_trained(self):
        class WithLayer(Difference):
            def __init__(self):
                super().__init__()
                self.dense = keras.layers.Dense(CLASSES)
                self.dense.build((None, CLASSES))

            def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
                return super().compute_loss(teacher_outputs, self.dense(student_outputs))

        def is_among(variable, distiller):
            return any(variable is other for other in distiller.trainable_variables)

        mine, theirs = Projected(name="projected"), WithLayer()
        distiller = ours(mine)
        assert is_among(mine.projector.kernel, distiller)
        skip_unless(not is_among(theirs.dense.kernel, keras_own(theirs)), "layers of a loss are not trained")

    def test_dimensions_of_size_1_broadcast(self):
        models = {"teacher": deep("teacher", width=1), "student": deep("student", width=8)}
        for loss in (FeatureDistillation("mse", "hidden", "hidden"), LogitRegression("hidden", "hidden")):
            with pytest.raises(ValueError, match=r"equal shape.*\(None, 1\).*\(None, 8\)"):
                ours(loss, **models)
        value = evaluate(keras_own(FeatureDistillation("mse", "hidden", "hidden"), **models))["distillation_loss"]
        broadcast = ((hidden(models["teacher"]) - hidden(models["student"])) ** 2).mean()
        skip_unless(value == pytest.approx(broadcast, rel=1e-4), "size 1 is broadcast")

    def test_student_loss_weight_is_fixed_when_traced(self):
        distiller = ours(SoftTargets(2.0))
        z_t, z_s = outputs(distiller)
        evaluate(distiller)
        distiller.student_loss_weight = 0.1
        expected = (0.1 * label_loss(z_s) + soft_targets(z_t, z_s, 2.0)).mean()
        assert evaluate(distiller)["loss"] == pytest.approx(expected, rel=1e-4)
        theirs = keras_own(LogitsDistillation(2.0, KL))
        before = evaluate(theirs)["total_loss"]
        theirs.student_loss_weight = 0.1
        skip_unless(evaluate(theirs)["total_loss"] == before, "student_loss_weight is fixed when traced")

    def test_temperature_is_fixed_when_traced(self):
        mine, theirs = SoftTargets(2.0), LogitsDistillation(2.0, KL)
        distiller, of_keras = ours(mine), keras_own(theirs)
        before = evaluate(of_keras)["distillation_loss"]
        evaluate(distiller)
        mine.temperature = theirs.temperature = 5.0
        assert evaluate(distiller)["kd"] == pytest.approx(soft_targets(*outputs(distiller), 5.0).mean(), rel=1e-4)
        skip_unless(evaluate(of_keras)["distillation_loss"] == before, "temperature is fixed when traced")

    def test_a_loss_is_given_outputs_only(self):
        class Reading(LogitRegression):
            def inputs(self, teacher, student, labels, index):
                seen["labels"] = labels.numpy()
                return super().inputs(teacher, student, labels, index)

        class Told(Difference):
            def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
                told.append(kwargs)
                return super().compute_loss(teacher_outputs, student_outputs)

        seen, told = {}, []
        evaluate(ours(Reading(), run_eagerly=True))
        np.testing.assert_array_equal(seen["labels"], Y)
        evaluate(keras_own(Told(), run_eagerly=True))
        skip_unless(told == [{}], "a loss gets neither labels nor sample weights")

    def test_default_loss_in_float16_is_infinite(self):
        def first_loss(build, loss):
            models = {name: deep(name, seed, dtype="mixed_float16") for seed, name in ((1, "teacher"), (5, "student"))}
            return build(loss, **models).train_on_batch(X, Y, return_dict=True)["loss"]

        assert np.isfinite(first_loss(ours, SoftTargets(3.0)))
        with pytest.warns(UserWarning, match="raw logits"):
            assert np.isfinite(first_loss(ours, LogitsDistillation(3.0)))
        skip_unless(not np.isfinite(first_loss(keras_own, LogitsDistillation(3.0))), "infinite in float16")

    def test_probabilities_are_taken_for_logits(self):
        models = {"teacher": linear("teacher", 1, activation="softmax"), "student": linear("student", 2)}
        with pytest.raises(ValueError, match="teacher must return logits"):
            ours(LogitsDistillation(2.0, KL), **models)
        value = evaluate(keras_own(LogitsDistillation(2.0, KL), **models))["distillation_loss"]
        z_t, z_s = X @ kernel(models["teacher"]), X @ kernel(models["student"])
        twice = soft_targets(softmax(z_t), z_s, 2.0).mean()
        skip_unless(value == pytest.approx(twice, rel=1e-3), "the softmax is taken twice")


class TestNumbers:
    """A loss of Keras gives in our Distiller what it gives in Keras's, and what NumPy says."""

    def both(self, loss, **models):
        mine = ours(loss, **models)
        return mine, evaluate(mine)[mine.term_names[0]], evaluate(keras_own(loss, **models))["distillation_loss"]

    def test_logits_distillation_by_divergence(self):
        distiller, mine, theirs = self.both(LogitsDistillation(2.0, KL))
        expected = soft_targets(*outputs(distiller), 2.0).mean()
        assert mine == pytest.approx(expected, rel=1e-4) and theirs == pytest.approx(expected, rel=1e-4)

    def test_default_logits_distillation_with_its_defect(self):
        with pytest.warns(UserWarning, match="raw logits to kl_divergence.*SoftTargets"):
            distiller, mine, theirs = self.both(LogitsDistillation(2.0))
        z_t, z_s = (np.clip(z / 2, 1e-7, 1) for z in outputs(distiller))
        expected = (z_t * np.log(z_t / z_s)).sum(-1).mean()
        assert mine == pytest.approx(theirs, rel=1e-5)
        skip_unless(theirs == pytest.approx(expected, rel=1e-4), "KL divergence of raw logits")

    def test_feature_distillation(self):
        models = {"teacher": deep("teacher", 1), "student": deep("student", 5)}
        _, mine, theirs = self.both(FeatureDistillation("mse", "hidden", "hidden"), **models)
        expected = ((hidden(models["teacher"]) - hidden(models["student"])) ** 2).mean()
        assert mine == pytest.approx(expected, rel=1e-4) and theirs == pytest.approx(expected, rel=1e-4)

    def test_own_compute_loss(self):
        distiller, mine, theirs = self.both(Difference(2.0))
        z_t, z_s = outputs(distiller)
        expected = 2 * np.abs(z_t - z_s).mean()
        assert mine == pytest.approx(expected, rel=1e-4) and theirs == pytest.approx(expected, rel=1e-4)

    def test_gradient_reaches_the_student(self):
        distiller = ours(FeatureDistillation("mse"), student_loss_weight=0.0)
        z_t, z_s = outputs(distiller)
        # Mean of 36 squares; the step is 0.1.
        expected = kernel(distiller.student) - 0.1 * X.T @ (2 * (z_s - z_t) / 36)
        distiller.train_on_batch(X, Y)
        np.testing.assert_allclose(kernel(distiller.student), expected, rtol=1e-4, atol=1e-6)

    def test_beside_losses_of_ours(self):
        losses = [LogitsDistillation(2.0, KL), SoftTargets(2.0), Difference(), LogitsDistillation(4.0, KL)]
        distiller = ours(losses, [0.1, 0.2, 0.3, 0.4], 0.7)
        assert distiller.term_names == ["logits_distillation", "kd", "difference", "logits_distillation_2"]
        z_t, z_s = outputs(distiller)
        expected = 0.7 * label_loss(z_s) + (0.1 + 0.2) * soft_targets(z_t, z_s, 2.0)
        expected += 0.3 * np.abs(z_t - z_s).mean() + 0.4 * soft_targets(z_t, z_s, 4.0)
        result = evaluate(distiller)
        assert result["loss"] == pytest.approx(expected.mean(), rel=1e-4)
        assert result["kd"] == pytest.approx(result["logits_distillation"], rel=1e-4)

    def test_training_continues_after_saving_and_loading(self, tmp_path):
        losses = [
            LogitsDistillation(2.0, KL),
            FeatureDistillation("mae", teacher_layer_name="hidden", student_layer_name="hidden"),
            Difference(2.0),
            SoftTargets(3.0),
        ]
        original = ours(losses, [0.1, 0.2, 0.3, 0.4], teacher=deep("teacher", 1), student=deep("student", 5))
        original.fit(X, Y, batch_size=4, verbose=0)
        original.save(tmp_path / "distiller.keras")
        with keras.saving.custom_object_scope({"Difference": Difference}):
            loaded = keras.saving.load_model(tmp_path / "distiller.keras")
        assert loaded.term_names == ["logits_distillation", "feature_distillation", "difference", "kd"]
        assert [type(loss) for loss in loaded._terms.losses[:3]] == [KerasDistillation] * 3
        assert loaded._terms.losses[1].student_layers == "hidden"
        assert loaded._terms.losses[2].loss.factor == 2.0
        assert all(own is loss for own, loss in zip(original.distillation_losses, losses, strict=True))
        for own, loss in zip(loaded.distillation_losses, losses, strict=True):
            assert type(own) is type(loss) and own.get_config() == loss.get_config()
        options = {"batch_size": 4, "shuffle": False, "verbose": 0}
        first, second = (distiller.fit(X, Y, **options).history for distiller in (original, loaded))
        for name, values in first.items():
            np.testing.assert_allclose(values, second[name], rtol=1e-5, err_msg=name)


class Subclassed(keras.Model):
    def __init__(self, seed):
        super().__init__(name=f"subclassed_{seed}")
        self.hidden, _, self.top = deep("layers", seed).layers

    def call(self, x):
        return self.top(self.hidden(x))


def nested(seed):
    backbone = keras.Sequential([keras.Input((5,)), deep("layers", seed).get_layer("hidden")], name="backbone")
    return keras.Sequential([keras.Input((5,)), backbone, keras.layers.Dense(CLASSES)])


class TestLayers:
    @pytest.mark.parametrize(
        ("build", "name"), [(Subclassed, "hidden"), (nested, "backbone/hidden")], ids=["subclassed", "nested"]
    )
    def test_of_models_that_keras_refuses(self, build, name):
        teacher, student = build(1), build(5)
        result = evaluate(ours(FeatureDistillation("mse", name, name), teacher=teacher, student=student))
        features = [
            hidden(model if build is Subclassed else model.get_layer("backbone")) for model in (teacher, student)
        ]
        assert result["feature_distillation"] == pytest.approx(((features[0] - features[1]) ** 2).mean(), rel=1e-4)

    def test_of_the_teacher_alone(self):
        teacher = deep("teacher", width=CLASSES)
        distiller = ours(FeatureDistillation("mse", teacher_layer_name="hidden"), teacher=teacher)
        expected = ((hidden(teacher) - X @ kernel(distiller.student)) ** 2).mean()
        assert evaluate(distiller)["feature_distillation"] == pytest.approx(expected, rel=1e-4)

    def test_that_do_not_exist(self):
        with pytest.raises(ValueError, match="'nowhere'.*'top'"):
            ours(FeatureDistillation("mse", "nowhere", "top"))

    def test_of_different_shape_under_a_computation_of_the_users_own(self):
        """Mean over the width on both sides: 16 against 8 is fine, in a loss function as in a subclass."""

        def of_means(y_true, y_pred):
            return keras.ops.square(keras.ops.mean(y_true, -1) - keras.ops.mean(y_pred, -1))

        class OfMeans(FeatureDistillation):
            def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
                return keras.ops.mean(of_means(teacher_outputs, student_outputs))

        models = {"teacher": deep("teacher", width=16), "student": deep("student", width=8)}
        losses = [FeatureDistillation(of_means, "hidden", "hidden"), OfMeans("mse", "hidden", "hidden")]
        result = evaluate(ours(losses, **models))
        means = [hidden(model).mean(-1) for model in models.values()]
        for name in ("feature_distillation", "of_means"):
            assert result[name] == pytest.approx(((means[0] - means[1]) ** 2).mean(), rel=1e-4)


class TestRefusals:
    @pytest.mark.parametrize("given", [{"sample_weight": np.ones(12)}, {"class_weight": {0: 1.0, 1: 1.0, 2: 1.0}}])
    def test_weights_of_samples(self, given):
        distiller = ours([SoftTargets(), LogitsDistillation(2.0, KL)])
        with pytest.raises(ValueError, match="'logits_distillation'.*cannot be weighted.*Received.*SoftTargets"):
            distiller.fit(X, Y, verbose=0, **given)

    def test_values_per_sample(self):
        class PerSample(Difference):
            def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
                return keras.ops.mean(teacher_outputs - student_outputs, axis=-1)

        with pytest.raises(ValueError, match=r"scalar.*shape \(12,\) from PerSample.*keras_tkd.losses"):
            evaluate(ours(PerSample(), run_eagerly=True))

    def test_a_loss_for_several_outputs(self):
        with pytest.raises(ValueError, match="one output with one output.*LogitsDistillation.*one loss for each"):
            ours(LogitsDistillation(loss=["mse", None]))

    def test_nested_losses_of_a_users_own_are_theirs(self):
        class Two(Difference):
            loss = ["anything", "at all"]

        distiller = ours(Two())
        z_t, z_s = outputs(distiller)
        assert evaluate(distiller)["two"] == pytest.approx(np.abs(z_t - z_s).mean(), rel=1e-4)

    def test_by_the_losss_own_checks(self):
        class Choosy(Difference):
            def validate_model_compatibility(self, teacher, student):
                raise ValueError(f"not {teacher.name} with {student.name}")

        class Strict(Difference):
            def validate_outputs(self, teacher_outputs, student_outputs):
                raise ValueError(f"not outputs of shape {tuple(student_outputs.shape)}")

        with pytest.raises(ValueError, match="not teacher with student"):
            ours(Choosy())
        with pytest.raises(ValueError, match=r"not outputs of shape \(12, 3\)"):
            evaluate(ours(Strict(), run_eagerly=True))

    def test_keywords_for_keras_model(self):
        with pytest.raises(TypeError, match="dtype"):
            Distiller(linear("teacher"), linear("student"), SoftTargets(), dtype="float32")


class TestWarning:
    """Given exactly for those losses of `LogitsDistillation` whose softmax nobody takes."""

    @pytest.mark.parametrize(
        "loss",
        ["kl_divergence", "categorical_crossentropy", keras.losses.CategoricalCrossentropy(from_logits=True), KL],
        ids=["kl_divergence", "crossentropy", "crossentropy from logits", "KLDivergence"],
    )
    def test_where_the_loss_depends_on_a_constant_added_to_all_logits(self, loss):
        loss = LogitsDistillation(2.0, loss)
        z_t, z_s = (keras.ops.convert_to_tensor(z, "float32") for z in 4 * RNG.normal(size=(2, 12, CLASSES)))
        value, shifted = (float(loss.compute_loss(z_t + shift, z_s + shift)) for shift in (0.0, 1.0))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Distiller(linear("teacher"), linear("student"), loss)
        caught = [warning for warning in caught if "raw logits" in str(warning.message)]
        takes_softmax = value == pytest.approx(shifted, rel=1e-4)
        assert bool(caught) != takes_softmax, "the warning of `adapt` no longer fits what Keras computes"
        assert all(warning.filename == __file__ for warning in caught)

    def test_not_for_what_needs_no_softmax(self):
        class OwnComputation(LogitsDistillation):
            def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
                return keras.ops.mean(teacher_outputs - student_outputs)

        def kl_divergence(y_true, y_pred):
            return keras.ops.mean(keras.ops.softmax(y_pred) - keras.ops.softmax(y_true))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ours([LogitsDistillation(2.0, "mse"), LogitsDistillation(2.0, kl_divergence), OwnComputation()])


def test_constructor_takes_the_arguments_of_keras():
    theirs, mine = (inspect.signature(kind).parameters for kind in (keras.distillation.Distiller, Distiller))
    # `gather` is for several devices, on which Keras's own trains by each one's share alone.
    assert [name for name in theirs if name != "kwargs"] == [name for name in mine if name != "gather"]
    assert mine["gather"].kind is inspect.Parameter.KEYWORD_ONLY


def test_names_are_in_snake_case():
    names = {"LogitsDistillation": "logits_distillation", "KLOnLogits": "kl_on_logits", "MyL2Loss": "my_l2_loss"}
    assert {name: _snake_case(name) for name in names} == names


class TestPage:
    """The code of docs/from_keras_distillation.md runs, and does what the text around it says."""

    def block(self, marker):
        (block,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if marker in code]
        return block

    def test_constructor(self):
        def model(name, layer):
            dense = keras.layers.Dense(4, name=layer)
            return keras.Sequential([keras.Input((5,)), dense, keras.layers.Dense(CLASSES)], name=name)

        names = {"keras": keras, "Distiller": Distiller, "SoftTargets": SoftTargets}
        names |= {"teacher": model("teacher", "conv3"), "student": model("student", "conv2")}
        exec(self.block("conv3"), names)
        assert names["distiller"].term_names == ["feature_distillation", "kd"]

    @pytest.mark.parametrize("w", [0.0, 0.3, 1.0])
    def test_formula_gives_the_number_of_keras(self, w):
        teacher, student, weights = linear("teacher", 1), linear("student", 2), [2.0, 0.5]
        losses = [LogitsDistillation(2.0, KL), FeatureDistillation("mae")]
        names = {"Distiller": Distiller, "teacher": teacher, "student": student, "losses": losses, "weights": weights}
        mine = eval(self.block("(1 - w) * c"), names | {"w": w})
        mine.compile("sgd", LABEL_LOSS)
        theirs = evaluate(keras_own(losses, weights, w, teacher, student))["total_loss"]
        z_t, z_s = outputs(mine)
        distillation = 2.0 * soft_targets(z_t, z_s, 2.0).mean() + 0.5 * np.abs(z_t - z_s).mean()
        expected = w * label_loss(z_s).mean() + (1 - w) * distillation
        assert evaluate(mine)["loss"] == pytest.approx(expected, rel=1e-4)
        assert theirs == pytest.approx(expected, rel=1e-4)

    def test_own_loss(self, tmp_path):
        names = {}
        exec(self.block("WhereTeacherIsRight"), names)
        assert len(self.block("WhereTeacherIsRight").strip().splitlines()) <= 12
        distiller = ours(names["WhereTeacherIsRight"](name="where_right"))
        z_t, z_s = outputs(distiller)
        right = z_t.argmax(-1) == Y
        assert 0 < right.sum() < 12
        weights = np.linspace(0, 2, 12)
        expected = (weights * right * soft_targets(z_t, z_s, 4.0)).mean()
        assert evaluate(distiller, sample_weight=weights)["where_right"] == pytest.approx(expected, rel=1e-4)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
        assert evaluate(loaded, sample_weight=weights)["where_right"] == pytest.approx(expected, rel=1e-4)

    def test_default_weights_of_keras(self):
        """The page: `student_loss_weight=0.5` and 0.5 for each loss is what Keras does without any weights."""
        losses = [LogitsDistillation(2.0, KL), FeatureDistillation("mae")]
        theirs = keras.distillation.Distiller(linear("teacher", 1), linear("student", 2), losses)
        theirs.compile("sgd", LABEL_LOSS)
        mine = ours(losses, [0.5, 0.5], 0.5)
        assert evaluate(mine)["loss"] == pytest.approx(evaluate(theirs)["total_loss"], rel=1e-4)
