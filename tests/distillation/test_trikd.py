"""TriKD's step against a float64 oracle of its two losses, its special cases, and what Keras expects around it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TriKD
from keras_tkd.losses import SoftTargets

CLASSES = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype("float32")
Y = np.arange(12) % CLASSES
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ACCURACY = keras.metrics.SparseCategoricalAccuracy  # made before the step, which is then traced once
# A divergence is the small rest of differences of log-probabilities near 1, whose rounding, 1.2e-7, enters a few times.
ROUNDING = 1e-6
WEIGHTS = {
    "teacher_loss_weight": 0.7,
    "anchor_weight": 0.3,
    "peer_weight": 1.3,
    "student_loss_weight": 0.4,
    "distillation_loss_weights": 0.9,
}


def linear(name, seed, **arguments):
    initializer = keras.initializers.RandomNormal(seed=seed)
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(CLASSES, kernel_initializer=initializer, use_bias=False, **arguments)],
        name=name,
    )


def deep(name, width=8, **arguments):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(width, "relu", **arguments),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(CLASSES, dtype="float32"),
        ],
        name=name,
    )


def compiled(teacher=None, student=None, anchor="linear", rates=(0.1, 0.2), **arguments):
    anchor = linear("anchor", 3) if anchor == "linear" else anchor
    trikd = TriKD(teacher or linear("teacher", 1), student or linear("student", 2), anchor, **arguments)
    own, teachers = (keras.optimizers.SGD(rate) for rate in rates)
    trikd.compile(own, LABEL_LOSS, metrics=[ACCURACY("accuracy")], teacher_optimizer=teachers)
    return trikd


def kernels(trikd):
    models = (trikd.teacher, trikd.student, trikd.anchor)
    return [model.get_weights()[0].astype("float64") for model in models if model is not None]


def one_step(trikd, **given):
    return trikd.fit(X, Y, batch_size=len(X), shuffle=False, verbose=0, **given).history


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def divergence(target, z, temperature):
    """`T^2 KL(softmax(target / T) || softmax(z / T))` per sample, by naive sums."""
    p, q = softmax(target / temperature), softmax(z / temperature)
    return np.array(
        [temperature**2 * sum(a * np.log(a / b) for a, b in zip(*pq, strict=True)) for pq in zip(p, q, strict=True)]
    )


def label_loss(z):
    return np.array([-np.log(p[y]) for p, y in zip(softmax(z), Y, strict=True)])


def totals(teacher, student, anchor, fixed_teacher, fixed_student, rows, temperature, reaches):
    """The two totals as functions of the kernels; the fixed ones stand where the formula has `stop`."""
    x, w = X.astype("float64"), WEIGHTS
    z_t, z_s = x @ teacher, x @ student
    of_teacher = w["teacher_loss_weight"] * label_loss(z_t)
    of_teacher += w["anchor_weight"] * divergence(x @ anchor, z_t, temperature)
    of_teacher += w["peer_weight"] * divergence(x @ fixed_student, z_t, temperature)
    if reaches:
        of_teacher += w["distillation_loss_weights"] * divergence(z_t, x @ fixed_student, temperature)
    of_student = w["student_loss_weight"] * label_loss(z_s)
    of_student += w["distillation_loss_weights"] * divergence(x @ fixed_teacher, z_s, temperature)
    return (of_teacher * rows).mean(), (of_student * rows).mean()


def gradient(function, kernel):
    slopes = np.zeros_like(kernel)
    for place in np.ndindex(*kernel.shape):
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        slopes[place] = (function(kernel + step) - function(kernel - step)) / 2e-5
    return slopes


class TestOneStep:
    @pytest.mark.parametrize("weighting", ["none", "sample_weight", "class_weight"])
    @pytest.mark.parametrize("reaches", [False, True])
    def test_both_models_follow_their_own_loss(self, weighting, reaches):
        temperature = 3.0
        trikd = compiled(temperature=temperature, student_term_reaches_teacher=reaches, **WEIGHTS)
        teacher, student, anchor = kernels(trikd)
        rows, given = np.ones(len(Y)), {}
        if weighting == "sample_weight":
            rows = np.linspace(0, 2, len(Y))
            given = {"sample_weight": rows}
        if weighting == "class_weight":
            rows = np.array([0.5, 1.0, 3.0])[Y]
            given = {"class_weight": {0: 0.5, 1: 1.0, 2: 3.0}}
        history = one_step(trikd, **given)

        def of(t, s):
            return totals(t, s, anchor, teacher, student, rows, temperature, reaches)

        assert history["loss"][0] == pytest.approx(of(teacher, student)[1], rel=1e-5)
        assert history["teacher_total"][0] == pytest.approx(of(teacher, student)[0], rel=1e-5)
        for role, kernel in (("teacher", teacher), ("student", student)):
            distances = divergence(X.astype("float64") @ anchor, X.astype("float64") @ kernel, temperature)
            assert history[f"{role}_anchor"][0] == pytest.approx((distances * rows).mean(), rel=1e-4, abs=ROUNDING)
        expected = teacher - 0.2 * gradient(lambda t: of(t, student)[0], teacher)
        np.testing.assert_allclose(trikd.teacher.get_weights()[0], expected, rtol=1e-4, atol=1e-6)
        expected = student - 0.1 * gradient(lambda s: of(teacher, s)[1], student)
        np.testing.assert_allclose(trikd.student.get_weights()[0], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(trikd.anchor.get_weights()[0], anchor.astype("float32"))

    def test_every_term_is_logged_in_training_and_validation(self):
        trikd = compiled(temperature=2.0)
        teacher, student, anchor = (X @ kernel for kernel in kernels(trikd))
        expected = {
            "student_loss": label_loss(student).mean(),
            "teacher_loss": label_loss(teacher).mean(),
            "kd": divergence(teacher, student, 2.0).mean(),
            "teacher_peer": divergence(student, teacher, 2.0).mean(),
            "teacher_anchor": divergence(anchor, teacher, 2.0).mean(),
            "student_anchor": divergence(anchor, student, 2.0).mean(),
            "accuracy": np.mean(student.argmax(-1) == Y),
            "teacher_accuracy": np.mean(teacher.argmax(-1) == Y),
            "agreement": np.mean(student.argmax(-1) == teacher.argmax(-1)),
        }
        expected["teacher_total"] = sum(expected[f"teacher_{term}"] for term in ("loss", "anchor", "peer"))
        expected["loss"] = expected["student_loss"] + expected["kd"]
        held_out = trikd.evaluate(X, Y, verbose=0, return_dict=True)
        history = one_step(trikd)
        for name, value in expected.items():
            assert held_out[name] == pytest.approx(value, rel=1e-5, abs=ROUNDING), name
            assert history[name][0] == pytest.approx(value, rel=1e-5, abs=ROUNDING), name
        assert set(history) == set(expected)

    def test_each_model_runs_once_and_in_its_mode(self):
        calls = []

        class Watched(keras.Model):
            def __init__(self, name):
                super().__init__(name=name)
                self.dense = keras.layers.Dense(CLASSES)

            def call(self, x, training=None):
                tf.py_function(lambda: calls.append((self.name, training)), [], [])
                return self.dense(x)

        models = [Watched(name) for name in ("teacher", "student", "anchor")]
        for model in models:
            model(X)
        trikd = TriKD(*models)
        trikd.compile("sgd", LABEL_LOSS)
        one_step(trikd)
        calls.clear()
        one_step(trikd)
        assert sorted(calls) == [("anchor", False), ("student", True), ("teacher", True)]
        trikd.evaluate(X, Y, batch_size=len(X), verbose=0)
        calls.clear()
        trikd.evaluate(X, Y, batch_size=len(X), verbose=0)
        assert sorted(calls) == [("anchor", False), ("student", False), ("teacher", False)]

    def test_regularization_counts_for_the_model_it_belongs_to(self):
        decayed = {"kernel_regularizer": keras.regularizers.L2(0.5)}
        plain, regularized = compiled(anchor=None), compiled(linear("teacher", 1, **decayed), anchor=None)
        teacher, student = kernels(plain)
        one_step(plain)
        history = one_step(regularized)
        assert history["teacher_regularization"][0] == pytest.approx(0.5 * (teacher**2).sum(), rel=1e-5)
        assert "regularization" not in history
        # d (0.5 w^2) = w, times the teacher's rate
        expected = plain.teacher.get_weights()[0] - 0.2 * teacher
        np.testing.assert_allclose(regularized.teacher.get_weights()[0], expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(regularized.student.get_weights()[0], plain.student.get_weights()[0])

    def test_cached_outputs_replace_the_anchor(self):
        live, cached = compiled(), compiled(anchor=linear("never_run", 9))
        batch = {"image": X, "anchor": {"logits": live.anchor.predict(X, verbose=0)}}
        histories = [one_step(live), cached.fit(batch, Y, batch_size=len(X), shuffle=False, verbose=0).history]
        for name, value in histories[0].items():
            assert histories[1][name] == pytest.approx(value, rel=1e-5, abs=ROUNDING), name
        for mine, theirs in zip(live.teacher.get_weights(), cached.teacher.get_weights(), strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-7)

    def test_anchors_of_another_input_size_see_the_image_resized(self):
        """Planes of one value v, which resizing leaves: teacher and student say v, the anchor 3 v, of two classes."""

        def mean(size, factor, name):
            kernel = keras.initializers.Constant(np.stack([np.full(size**2, factor / size**2), np.zeros(size**2)], 1))
            head = keras.layers.Dense(2, use_bias=False, kernel_initializer=kernel)
            return keras.Sequential([keras.Input((size, size, 1)), keras.layers.Flatten(), head], name=name)

        planes = np.broadcast_to(np.arange(4.0).reshape(4, 1, 1, 1) / 4, (4, 6, 6, 1))
        trikd = TriKD(mean(6, 1.0, "teacher"), mean(6, 1.0, "student"), mean(3, 3.0, "anchor"))
        trikd.compile("sgd", LABEL_LOSS)
        result = trikd.evaluate(planes, Y[:4] % 2, verbose=0, return_dict=True)
        logits = [factor * np.stack([np.arange(4) / 4, np.zeros(4)], -1) for factor in (3, 1)]
        assert result["teacher_anchor"] == pytest.approx(divergence(*logits, 1.0).mean(), rel=1e-4, abs=ROUNDING)


class TestLabelsOfSeveralOutputs:
    """Models that return a dict, with a label for each of its outputs."""

    TARGET = RNG.normal(size=(12, 4)).astype("float32")
    LABELS = {"logits": Y, "emb": TARGET}

    def two_outputs(self, name, names=("logits", "emb")):
        x = keras.Input((5,))
        outputs = {key: keras.layers.Dense(width)(x) for key, width in (("logits", CLASSES), ("emb", 4))}
        return keras.Model(x, {key: outputs[key] for key in names}, name=name)

    def compiled(self, teacher):
        trikd = TriKD(teacher, self.two_outputs("student"))
        losses = {"logits": LABEL_LOSS, "emb": keras.losses.MeanSquaredError()}
        trikd.compile(keras.optimizers.SGD(0.1), losses, loss_weights={"logits": 1.0, "emb": 0.5})
        return trikd

    def test_both_models_learn_all_of_them(self):
        trikd = self.compiled(self.two_outputs("teacher"))
        parts = {}
        for role in ("teacher", "student"):
            outputs = getattr(trikd, role).predict(X, verbose=0)
            parts[role] = label_loss(outputs["logits"]).mean(), ((outputs["emb"] - self.TARGET) ** 2).mean()
            parts[f"{role}_accuracy"] = (outputs["logits"].argmax(-1) == Y).mean()
        held_out = trikd.evaluate(X, self.LABELS, batch_size=12, verbose=0, return_dict=True)
        history = trikd.fit(X, self.LABELS, batch_size=12, verbose=0).history
        for value in (held_out, {name: values[0] for name, values in history.items()}):
            for role in ("teacher", "student"):
                classes, embedding = parts[role]
                assert value[f"{role}_loss"] == pytest.approx(classes + 0.5 * embedding, rel=1e-5)
            # What Keras logs of each output is the student's alone.
            assert value["logits_loss"] == pytest.approx(parts["student"][0], rel=1e-5)
            assert value["emb_loss"] == pytest.approx(parts["student"][1], rel=1e-5)
            assert value["teacher_accuracy"] == pytest.approx(parts["teacher_accuracy"], rel=1e-6)

    def test_goes_on_training_when_loaded(self, tmp_path):
        trikd = self.compiled(self.two_outputs("teacher"))
        trikd.fit(X, self.LABELS, batch_size=12, verbose=0)
        trikd.save(tmp_path / "trikd.keras")
        loaded = keras.saving.load_model(tmp_path / "trikd.keras")
        histories = [model.fit(X, self.LABELS, batch_size=12, verbose=0).history for model in (trikd, loaded)]
        for name, values in histories[0].items():
            np.testing.assert_allclose(values, histories[1][name], rtol=1e-5, err_msg=name)

    def test_a_teacher_without_one_of_them(self):
        trikd = self.compiled(self.two_outputs("teacher", ["logits"]))
        with pytest.raises(ValueError, match=r"labels of \['emb', 'logits'\], outputs \['logits'\]. Return .*'emb'"):
            trikd.fit(X, self.LABELS, verbose=0)


class TestSpecialCases:
    def test_without_anchor_at_temperature_1_it_is_mutual_learning(self):
        """Zhang et al., 2018: each network minimises CE + KL(stop(p_other) || p_self); closed-form gradients."""
        trikd = compiled(anchor=None, temperature=1.0)
        teacher, student = kernels(trikd)
        x = X.astype("float64")
        p_t, p_s, labels = softmax(x @ teacher), softmax(x @ student), np.eye(CLASSES)[Y]
        history = one_step(trikd)
        mutual = label_loss(x @ student) + (p_t * np.log(p_t / p_s)).sum(-1)
        assert history["loss"][0] == pytest.approx(mutual.mean(), rel=1e-5)
        assert "teacher_anchor" not in history and "student_anchor" not in history
        # d CE / dz = p - y, d KL(q || p) / dz = p - q
        expected = student - 0.1 * x.T @ ((p_s - labels) + (p_s - p_t)) / len(X)
        np.testing.assert_allclose(trikd.student.get_weights()[0], expected, rtol=1e-4, atol=1e-6)
        expected = teacher - 0.2 * x.T @ ((p_t - labels) + (p_t - p_s)) / len(X)
        np.testing.assert_allclose(trikd.teacher.get_weights()[0], expected, rtol=1e-4, atol=1e-6)

    def test_with_a_frozen_teacher_it_is_soft_targets(self):
        def student():
            return linear("student", 2)

        frozen = linear("teacher", 1)
        frozen.trainable = False
        trikd = compiled(frozen, student(), temperature=4.0, student_loss_weight=0.1, distillation_loss_weights=0.9)
        hinton = Distiller(linear("teacher", 1), student(), SoftTargets(4.0), [0.9], 0.1)
        hinton.compile(keras.optimizers.SGD(0.1), LABEL_LOSS, metrics=[ACCURACY("accuracy")])
        kernel = frozen.get_weights()[0]
        histories = [one_step(trikd), one_step(hinton)]
        for name, value in histories[1].items():
            assert histories[0][name] == value, name
        assert set(histories[0]) - set(histories[1]) == {"student_anchor", "teacher_anchor"}
        distance = divergence(X @ trikd.anchor.get_weights()[0], X @ kernel, 4.0).mean()
        assert histories[0]["teacher_anchor"][0] == pytest.approx(distance, rel=1e-4, abs=ROUNDING)
        np.testing.assert_array_equal(trikd.student.get_weights()[0], hinton.student.get_weights()[0])
        np.testing.assert_array_equal(frozen.get_weights()[0], kernel)
        assert (
            trikd.evaluate(X, Y, verbose=0, return_dict=True)["kd"]
            == hinton.evaluate(X, Y, verbose=0, return_dict=True)["kd"]
        )


class TestKerasAround:
    def test_round_trip_continues_the_training_of_both(self, tmp_path):
        original = TriKD(deep("teacher", 16), deep("student"), deep("anchor"), temperature=2.0, **WEIGHTS)
        optimizers = [keras.optimizers.SGD(rate, momentum=0.9) for rate in (0.05, 0.02)]
        original.compile(optimizers[0], LABEL_LOSS, metrics=[ACCURACY("accuracy")], teacher_optimizer=optimizers[1])
        original.fit(X, Y, batch_size=4, verbose=0)
        original.save(tmp_path / "trikd.keras")
        loaded = keras.saving.load_model(tmp_path / "trikd.keras")
        assert loaded.get_config()["anchor_weight"] == 0.3 and loaded.temperature == 2.0 and loaded.online
        assert not loaded.anchor.trainable_variables
        for name in ("optimizer", "teacher_optimizer"):
            pairs = zip(getattr(original, name).variables, getattr(loaded, name).variables, strict=True)
            for mine, theirs in pairs:
                np.testing.assert_array_equal(mine.numpy(), theirs.numpy())
        histories = [d.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history for d in (original, loaded)]
        for name, values in histories[0].items():
            np.testing.assert_allclose(values, histories[1][name], rtol=1e-5, err_msg=name)

    def test_unbuilt_models_are_built_by_fit(self):
        def unbuilt():
            return keras.Sequential([keras.layers.Dense(CLASSES)])

        trikd = TriKD(unbuilt(), unbuilt(), unbuilt())
        trikd.compile(keras.optimizers.SGD(0.1, momentum=0.9), LABEL_LOSS)
        trikd.fit(X, Y, verbose=0)
        # Iterations, learning rate, and a momentum for kernel and bias: of one model each.
        assert len(trikd.optimizer.variables) == len(trikd.teacher_optimizer.variables) == 4

    def test_the_second_optimizer_is_by_default_like_the_first(self):
        trikd = TriKD(linear("teacher", 1), linear("student", 2))
        trikd.compile(keras.optimizers.SGD(0.25, momentum=0.5), LABEL_LOSS)
        config = trikd.teacher_optimizer.get_config()
        assert (config["learning_rate"], config["momentum"]) == (0.25, 0.5)
        assert trikd.teacher_optimizer is not trikd.optimizer

    @pytest.mark.parametrize("width", [CLASSES, 8], ids=["of equal shapes", "of other shapes"])
    @pytest.mark.parametrize("averaged", [("student",), ("teacher",), ("student", "teacher")], ids="+".join)
    def test_averages_go_into_the_model_that_they_are_of(self, averaged, width):
        momentum, seen = 0.5, {"student": [], "teacher": []}

        def watch(batch, logs):
            for role, values in seen.items():
                values.append(getattr(trikd, role).get_weights())

        models = {role: deep(role, size) for role, size in (("teacher", width), ("student", CLASSES))}
        trikd = TriKD(**models)
        own, teachers = (
            keras.optimizers.SGD(0.1, use_ema=role in averaged, ema_momentum=momentum)
            for role in ("student", "teacher")
        )
        trikd.compile(own, LABEL_LOSS, teacher_optimizer=teachers)
        ended = {}
        end = keras.callbacks.LambdaCallback(
            on_train_batch_end=watch,
            on_train_end=lambda logs: ended.update({role: models[role].get_weights() for role in seen}),
        )
        trikd.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[end])
        for role, model in models.items():
            for place, weight in enumerate(model.weights):
                steps = np.array([values[place] for values in seen[role]], "float64")
                expected = steps[0]
                for step in steps[1:]:
                    expected = momentum * expected + (1 - momentum) * step
                # No optimizer has BatchNorm's statistics; without averages all is as the steps left it.
                if role not in averaged or not weight.trainable:
                    expected = steps[-1]
                # Six steps, each with a rounding of float32 or two, on numbers near 1.
                np.testing.assert_allclose(model.get_weights()[place], expected, rtol=0, atol=2e-6, err_msg=role)
                # A callback that takes other weights in the end, the best ones, has the last word.
                np.testing.assert_array_equal(ended[role][place], model.get_weights()[place])

    def test_optimizers_for_parts_of_the_student(self):
        def select(rate):
            optimizers = {path: keras.optimizers.SGD(rate) for path in ("kernel", "bias")}
            return keras.optimizers.MultiOptimizer(lambda variable: optimizers[variable.path.rpartition("/")[2]])

        def train(make):
            trikd = TriKD(linear("teacher", 1), linear("student", 2))
            trikd.compile(make(0.1), LABEL_LOSS, teacher_optimizer=make(0.2))
            one_step(trikd)
            return kernels(trikd)

        for mine, theirs in zip(train(select), train(keras.optimizers.SGD), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        with pytest.raises(ValueError, match="give a `teacher_optimizer`. Received: MultiOptimizer"):
            TriKD(linear("teacher", 1), linear("student", 2)).compile(select(0.1), LABEL_LOSS)

    def test_a_summary_counts_all_weights(self):
        lines = []
        trikd = compiled()
        trikd.summary(print_fn=lambda line, **_: lines.append(line))
        # Three models of 5 x 3 weights, and the counter of steps.
        assert f" Total params: {3 * 15 + 1} " in "\n".join(lines)

    def test_weights_act_between_epochs_without_retracing(self):
        trikd = compiled(temperature=1.0, **WEIGHTS)
        teacher, student, anchor = kernels(trikd)
        trikd.fit(X, Y, batch_size=len(X), shuffle=False, verbose=0)
        step = trikd.train_function
        trikd.teacher.set_weights([teacher])
        trikd.student.set_weights([student])
        trikd.anchor_weight = trikd.peer_weight = trikd.distillation_loss_weights = 0.0
        trikd.temperature = 5.0
        trikd.fit(X, Y, batch_size=len(X), shuffle=False, verbose=0)
        assert trikd.train_function is step
        # What is left is the loss on the labels.
        x, labels = X.astype("float64"), np.eye(CLASSES)[Y]
        expected = teacher - 0.2 * 0.7 * x.T @ (softmax(x @ teacher) - labels) / len(X)
        np.testing.assert_allclose(trikd.teacher.get_weights()[0], expected, rtol=1e-4, atol=1e-6)
        expected = student - 0.1 * 0.4 * x.T @ (softmax(x @ student) - labels) / len(X)
        np.testing.assert_allclose(trikd.student.get_weights()[0], expected, rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("half", ["both", "teacher"])
    def test_float16_scales_both_losses(self, half):
        teacher = deep("teacher", 16, dtype="mixed_float16")
        student = deep("student", dtype="mixed_float16" if half == "both" else "float32")
        trikd = compiled(teacher, student, anchor=None, rates=(0.05, 0.05))
        for optimizer in (trikd.optimizer, trikd.teacher_optimizer):
            assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
        history = trikd.fit(X, Y, batch_size=len(X), epochs=30, verbose=0).history
        for name in ("student_loss", "teacher_loss"):
            assert np.mean(history[name][-3:]) < np.mean(history[name][:3]), name

    def test_the_step_is_the_same_under_xla_and_near_it_in_bfloat16(self):
        def history(dtype="float32", **options):
            keras.utils.set_random_seed(0)
            models = [deep(role, width, dtype=dtype) for role, width in (("t", 16), ("s", 8), ("a", 8))]
            trikd = TriKD(*models, temperature=2.0, student_term_reaches_teacher=True)
            trikd.compile(keras.optimizers.SGD(0.1, momentum=0.9), LABEL_LOSS, **options)
            return trikd.fit(X, Y, batch_size=len(X), epochs=2, shuffle=False, verbose=0).history

        exact, compiled_by_xla, mixed = history(), history(jit_compile=True), history("mixed_bfloat16")
        terms = {"loss", "student_loss", "kd", "student_anchor", "teacher_total", "teacher_loss", "teacher_peer"}
        assert terms < set(exact)
        for name in terms | {"teacher_anchor"}:
            assert abs(exact[name][1] / exact[name][0] - 1) > 1e-3, name  # what is compared has moved
            np.testing.assert_allclose(compiled_by_xla[name], exact[name], 1e-4, ROUNDING, err_msg=name)
            np.testing.assert_allclose(mixed[name], exact[name], rtol=0.1, atol=1e-2, err_msg=name)

    def test_the_step_is_the_same_where_losses_are_computed_in_float64(self):
        single = [linear(role, seed) for seed, role in enumerate(("teacher", "student", "anchor"))]
        double = [linear(model.name, 0, dtype="float64") for model in single]
        for model, other in zip(single, double, strict=True):
            other.set_weights(model.get_weights())
        expected = one_step(compiled(*single))
        keras.config.set_floatx("float64")
        try:
            trikd = TriKD(*double)
            label_loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            trikd.compile(keras.optimizers.SGD(0.1), label_loss, teacher_optimizer=keras.optimizers.SGD(0.2))
            history = one_step(trikd)
        finally:
            keras.config.set_floatx("float32")
        for name in set(expected) - {"accuracy"}:
            np.testing.assert_allclose(history[name], expected[name], 1e-5, ROUNDING, err_msg=name)
        for mine, theirs in zip(double[:2], single[:2], strict=True):
            np.testing.assert_allclose(mine.get_weights()[0], theirs.get_weights()[0], 1e-5, ROUNDING)

    def test_a_loss_that_is_not_finite_moves_neither_model(self):
        trikd = compiled()
        trikd.anchor.set_weights([np.full((5, CLASSES), np.nan, "float32")])
        before = kernels(trikd)
        with pytest.raises(FloatingPointError, match="teacher_anchor"):
            one_step(trikd)
        for mine, theirs in zip(kernels(trikd)[:2], before[:2], strict=True):
            np.testing.assert_array_equal(mine, theirs)


SHARING = "`teacher` and `student` must be two models that share no weights"


class TestRefusals:
    SHARED = linear("shared", 0)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: compiled(anchor=linear("anchor", 3, activation="softmax")), "anchor must return logits"),
            (lambda: compiled(anchor="an anchor"), "`anchor` must be a keras.Model or None"),
            (lambda: compiled(teacher=TestRefusals.SHARED, student=TestRefusals.SHARED), "must be two models"),
            (lambda: compiled(student=TestRefusals.SHARED, anchor=TestRefusals.SHARED), "share no weights"),
            (
                lambda: compiled(teacher=TestRefusals.SHARED, anchor=keras.Sequential(TestRefusals.SHARED.layers)),
                "share no weights.*teacher",
            ),
            (lambda: compiled(student=keras.Sequential([TestRefusals.SHARED]), teacher=TestRefusals.SHARED), SHARING),
            (
                lambda: compiled(anchor=keras.Sequential([keras.Input((5,)), keras.layers.Dense(4)])),
                r"anchor must name the student's classes.*\(None, 4\).*\(None, 3\)",
            ),
            (
                lambda: compiled(anchor=keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])),
                r"The anchor must take the inputs.*\(None, 6\).*\(None, 5\).*that convert the image$",
            ),
            (lambda: compiled(peer_weight=-1.0), "`peer_weight` must be a number >= 0.*-1"),
            (lambda: compiled(distillation_loss_weights=-1.0), "`distillation_loss_weights` must be a number >= 0.*-1"),
            (lambda: compiled(temperature=0), "`temperature` must be a number > 0"),
        ],
    )
    def test_before_any_training(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()

    def test_a_teacher_that_is_not_there(self):
        with pytest.raises(ValueError, match="`teacher` must be a keras.Model: it learns.*teacher=None"):
            TriKD(None, linear("student", 2))

    @pytest.mark.parametrize("role", ["anchor", "teacher"])
    def test_a_frozen_model_that_was_made_trainable_again(self, role):
        anchored = compiled()
        plain = Distiller(linear("teacher", 1), linear("student", 2), SoftTargets())
        plain.compile("sgd", LABEL_LOSS)
        distiller, model = (anchored, anchored.anchor) if role == "anchor" else (plain, plain.teacher)
        model.trainable = True
        with pytest.raises(ValueError, match=f"The {role} must stay frozen.*'{role}' with trainable weights"):
            one_step(distiller)

    def test_an_anchor_that_shares_a_layer_when_it_is_built(self):
        shared = keras.layers.Dense(4)
        student, anchor = (keras.Sequential([shared, keras.layers.Dense(CLASSES)]) for _ in range(2))
        trikd = TriKD(linear("teacher", 1), student, anchor)
        trikd.compile("sgd", LABEL_LOSS)
        with pytest.raises(ValueError, match="`anchor` and `student` must be two models that share no weights"):
            one_step(trikd)

    def test_one_optimizer_for_both(self):
        trikd = TriKD(linear("teacher", 1), linear("student", 2))
        optimizer = keras.optimizers.SGD()
        with pytest.raises(ValueError, match="must be two objects"):
            trikd.compile(optimizer, LABEL_LOSS, teacher_optimizer=optimizer)

    @pytest.mark.parametrize("built", [True, False])
    @pytest.mark.parametrize("method", ["fit", "evaluate"])
    def test_kept_outputs_of_a_teacher_that_trains(self, method, built):
        def models():
            return keras.Sequential(([keras.Input((5,))] if built else []) + [keras.layers.Dense(3)])

        trikd = TriKD(models(), models())
        trikd.compile("sgd", LABEL_LOSS)
        with pytest.raises(ValueError, match="teacher that trains has no outputs to be kept"):
            getattr(trikd, method)({"image": X, "teacher": {"logits": np.zeros((12, 3))}}, Y, verbose=0)

    def test_kept_outputs_of_an_anchor_that_is_not_there(self):
        with pytest.raises(ValueError, match="Outputs of an anchor are read where there is one.*anchor=None"):
            compiled(anchor=None).fit({"image": X, "anchor": {"logits": np.zeros((12, 3))}}, Y, verbose=0)

    def test_kept_outputs_of_an_anchor_without_logits(self):
        with pytest.raises(ValueError, match=r"batch's \"anchor\" must hold.*\['embedding'\], without \['logits'\]"):
            compiled().fit({"image": X, "anchor": {"embedding": X}}, Y, verbose=0)
