"""Several teachers: the three averages, the weights, and everything a Distiller does with one teacher."""

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TeacherEnsemble
from keras_tkd.losses import (
    ContrastiveRepresentation,
    FlowOfSolution,
    Hint,
    LogitRegression,
    SimilarityPreserving,
    SoftTargets,
    TripletDistillation,
)
from keras_tkd.teachers import with_preprocessing

CLASSES = 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 5)).astype("float32")
Y = np.arange(12) % CLASSES
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ACCURACY = keras.metrics.SparseCategoricalAccuracy  # made before the step, which is then traced once


def linear(seed, name="linear", scale=1.0, **arguments):
    initializer = keras.initializers.RandomNormal(stddev=scale, seed=seed)
    dense = keras.layers.Dense(CLASSES, kernel_initializer=initializer, use_bias=False, **arguments)
    return keras.Sequential([keras.Input((5,)), dense], name=name)


def three():
    """Teachers of one name, as three runs of one architecture have it, of different sureness."""
    return [linear(seed, scale=scale) for seed, scale in ((1, 0.3), (2, 1.0), (3, 3.0))]


def outputs(model, x=X):
    return x.astype("float64") @ model.get_weights()[0].astype("float64")


def compiled(teacher, losses, student=None, weights=None, student_loss_weight=1.0, **options):
    distiller = Distiller(teacher, student or linear(9, "student"), losses, weights, student_loss_weight)
    distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), LABEL_LOSS, metrics=[ACCURACY("accuracy")], **options)
    return distiller


def measured(distiller, x=X, **arguments):
    return distiller.evaluate(x, Y, batch_size=12, verbose=0, return_dict=True, **arguments)


# The oracle, in float64.


def log_softmax(z):
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def kl(z_t, z_s, temperature=4.0):
    log_t, log_s = log_softmax(z_t / temperature), log_softmax(z_s / temperature)
    return temperature**2 * (np.exp(log_t) * (log_t - log_s)).sum(-1)


def weights_of(kind, logits):
    """`(teachers, samples)`, sample by sample."""
    rows = np.zeros((len(logits), len(logits[0])))
    for i in range(rows.shape[1]):
        log_p = [log_softmax(z[i]) for z in logits]
        if kind == "entropy":
            entropies = [-(np.exp(row) * row).sum() for row in log_p]
            raw = [1 - h / sum(entropies) for h in entropies]
        elif kind == "confidence":
            errors = [-row[Y[i]] for row in log_p]
            raw = [1 - np.exp(e) / sum(np.exp(f) for f in errors) for e in errors]
        else:
            raw = [1.0] * len(logits) if kind is None else kind
        rows[:, i] = [w / sum(raw) for w in raw]
    return rows


def one_output(average, weights, logits):
    if average == "logits":
        return sum(w[:, None] * z for w, z in zip(weights, logits, strict=True))
    return np.log(sum(w[:, None] * np.exp(log_softmax(z)) for w, z in zip(weights, logits, strict=True)))


def constant(*logits):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(len(logits))])
    model.layers[0].set_weights([np.zeros((5, len(logits))), np.array(logits)])
    return model


def test_three_averages_by_hand():
    """Softmaxes (0.9, 0.1) and (0.5, 0.5), a student of (0.5, 0.5), temperature 1."""
    log = np.log
    expected = {
        # Half of KL((0.9, 0.1) || (0.5, 0.5)): the other teacher says what the student says.
        "losses": (0.9 * log(1.8) + 0.1 * log(0.2)) / 2,
        "probabilities": 0.7 * log(1.4) + 0.3 * log(0.6),
        # log(9) / 2 = log(3) apart: (0.75, 0.25).
        "logits": 0.75 * log(1.5) + 0.25 * log(0.5),
    }
    for average, value in expected.items():
        ensemble = TeacherEnsemble([constant(log(9), 0), constant(7, 7)], average=average)
        result = Distiller(ensemble, constant(1, 1), SoftTargets(1.0))
        result.compile("sgd", LABEL_LOSS)
        assert result.evaluate(X, Y % 2, verbose=0, return_dict=True)["kd"] == pytest.approx(value, rel=1e-5)
    assert len({round(value, 3) for value in expected.values()}) == 3


def test_weights_by_hand():
    """Entropies log 2 and 0 (as good as): 1 - 1 and 1 - 0. Errors log 2 and log 4 of the label: softmax 1/3 and 2/3."""
    sure = TeacherEnsemble([constant(3, 3), constant(90, 0)], average="logits", teacher_weights="entropy")
    np.testing.assert_allclose(sure(X), np.tile([90, 0], (12, 1)), atol=1e-4)
    right = TeacherEnsemble([constant(0, 0), constant(0, np.log(3))], average="losses", teacher_weights="confidence")
    logits = [teacher(X) for teacher in right.teachers]
    np.testing.assert_allclose(right.shares(logits, np.zeros(12)), [[2 / 3] * 12, [1 / 3] * 12], rtol=1e-5)
    # No teacher in doubt: equal weights, not 0 / 0.
    both = TeacherEnsemble([constant(900, 0), constant(0, 900)], average="logits", teacher_weights="entropy")
    np.testing.assert_allclose(both(X), np.full((12, 2), 450.0))


@pytest.mark.parametrize("weights", [None, [1, 0, 3], "entropy", "confidence"], ids=str)
@pytest.mark.parametrize("average", ["losses", "probabilities", "logits"])
def test_against_the_oracle(average, weights):
    """Two losses, sample weights, and what the ensemble itself says."""
    if weights == "confidence" and average != "losses":
        return
    ensemble = TeacherEnsemble(three(), average=average, teacher_weights=weights)
    distiller = compiled(ensemble, [SoftTargets(4.0), LogitRegression()])
    logits, z_s = [outputs(teacher) for teacher in ensemble.teachers], outputs(distiller.student)
    shares = weights_of(weights, logits)
    own = weights_of(None if weights == "confidence" else weights, logits)
    combined = one_output(average, own, logits)
    np.testing.assert_allclose(ensemble(X), combined, rtol=1e-4, atol=1e-5)
    taught = [combined] if average != "losses" else logits
    shares = np.ones((1, 12)) if average != "losses" else shares
    rows = np.linspace(0, 2, 12)
    result = measured(distiller, sample_weight=rows)
    for name, loss in (("kd", kl), ("logits", lambda z_t, z_s: ((z_s - z_t) ** 2).mean(-1))):
        expected = sum((rows * w * loss(z_t, z_s)).mean() for w, z_t in zip(shares, taught, strict=True))
        assert result[name] == pytest.approx(expected, rel=1e-4), name
    assert result["agreement"] == pytest.approx((combined.argmax(-1) == z_s.argmax(-1)).mean(), rel=1e-6)


def test_the_update_is_the_gradient_of_the_average():
    """Squared error on a linear student: the gradient by hand."""
    ensemble = TeacherEnsemble(three(), average="losses", teacher_weights="confidence")
    distiller = compiled(ensemble, LogitRegression(), student_loss_weight=0.0)
    kernel, z_s = distiller.student.get_weights()[0], outputs(distiller.student)
    logits = [outputs(teacher) for teacher in ensemble.teachers]
    before = [teacher.get_weights()[0] for teacher in ensemble.teachers]
    distiller.fit(X, Y[:, None], batch_size=12, verbose=0)
    per_logit = sum(
        w[:, None] * 2 * (z_s - z_t) / CLASSES for w, z_t in zip(weights_of("confidence", logits), logits, strict=True)
    )
    np.testing.assert_allclose(
        distiller.student.get_weights()[0], kernel - 0.1 * X.T @ per_logit / 12, rtol=1e-4, atol=1e-6
    )
    for old, teacher in zip(before, ensemble.teachers, strict=True):
        np.testing.assert_array_equal(teacher.get_weights()[0], old)
        assert not teacher.trainable


def test_one_teacher_is_that_teacher():
    def history(teacher):
        losses = [SoftTargets(), LogitRegression()]
        return compiled(teacher, losses).fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history

    alone = history(linear(1))
    for average, weights in (("losses", "confidence"), ("probabilities", "entropy"), ("logits", [2.0])):
        assert history(TeacherEnsemble([linear(1)], average=average, teacher_weights=weights)) == alone


CALLS = []


class Counted(keras.Model):
    """Returns a dict, and is built by its first batch."""

    def __init__(self, seed, width):
        super().__init__(name="counted")
        self.seed = seed
        self.hidden = keras.layers.Dense(width, "tanh", kernel_initializer=keras.initializers.RandomNormal(1.0, seed))
        self.last = keras.layers.Dense(CLASSES)

    def call(self, x, training=None):
        CALLS.append((self.seed, training))
        hidden = self.hidden(x)
        return {"logits": self.last(hidden), "block": hidden}


def test_layers_of_each_teacher_are_read_in_its_one_run():
    """Three losses, two of layers; teachers of different width that are built by their first batch."""
    teachers = [Counted(1, 4), Counted(2, 7), Counted(3, 5)]
    ensemble = TeacherEnsemble(teachers, average="losses", teacher_weights="entropy")
    losses = [
        SoftTargets(),
        SimilarityPreserving(teacher_layers="block", student_layers="logits"),
        Hint(teacher_layers="block", student_layers="logits"),
    ]
    distiller = compiled(ensemble, losses, run_eagerly=True)
    distiller.build((None, 5))
    CALLS.clear()
    distiller.fit(X, Y, batch_size=6, verbose=0)
    assert CALLS == 2 * [(1, False), (2, False), (3, False)]
    CALLS.clear()
    result = measured(distiller)
    assert CALLS == [(1, False), (2, False), (3, False)]

    def normalized_gram(block):
        gram = np.asarray(block, "float64") @ np.asarray(block, "float64").T
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    read = [teacher(X) for teacher in teachers]
    shares = weights_of("entropy", [np.asarray(each["logits"], "float64") for each in read])
    student = normalized_gram(outputs(distiller.student))
    expected = 0.0
    for w, each in zip(shares, read, strict=True):
        expected += (w * ((normalized_gram(each["block"]) - student) ** 2).sum(1)).sum() / 12**2
    assert result["sp"] == pytest.approx(expected, rel=1e-4)
    # Projectors onto the width of each teacher, which all train.
    kernels = [v for layer in distiller.loss_layers for v in layer.trainable_variables if len(v.shape) == 2]
    assert [tuple(kernel.shape) for kernel in kernels] == [(CLASSES, 4), (CLASSES, 7), (CLASSES, 5)]
    old = [kernel.numpy() for kernel in kernels]
    distiller.fit(X, Y, verbose=0)
    assert not any(np.array_equal(a, b.numpy()) for a, b in zip(old, kernels, strict=True))


def test_numbers_set_on_a_loss_reach_all_its_copies():
    """A loss that makes layers for some teachers only; a temperature that changes while training."""
    with_layers = ContrastiveRepresentation(Y, feature_size=4, negatives=8, temperature=0.5)
    ensemble = TeacherEnsemble(three(), average="losses")
    distiller = compiled(ensemble, with_layers)
    copies = distiller._terms.losses[0].losses
    assert len({id(loss) for loss in copies}) == 3 and copies[0] is with_layers
    assert len(distiller.loss_layers) == 9 and len({id(layer) for layer in distiller.loss_layers}) == 9
    with_layers.temperature = 0.1
    assert [loss.temperature for loss in copies] == [0.1] * 3

    def maps(channels):
        layers = [keras.layers.Conv2D(channels, 1, name=name) for name in ("a", "b")]
        head = [keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
        return keras.Sequential([keras.Input((2, 2, 1)), *layers, *head])

    loss = FlowOfSolution(teacher_layers=["a", "b"], student_layers=["a", "b"])
    distiller = compiled(TeacherEnsemble([maps(2), maps(3)], average="losses"), loss, maps(2))
    distiller.evaluate(RNG.normal(size=(12, 2, 2, 1)), Y, verbose=0)
    assert [layer.kernel.shape for layer in distiller.loss_layers] == [(2, 3), (2, 3)]


@pytest.mark.parametrize("average", ["losses", "probabilities", "logits"])
def test_each_teacher_runs_once_per_step(average):
    """Two losses on all teachers."""
    ensemble = TeacherEnsemble([Counted(seed, 4) for seed in (1, 2, 3)], average=average)
    distiller = compiled(ensemble, [SoftTargets(), LogitRegression()], run_eagerly=True)
    distiller.build((None, 5))
    CALLS.clear()
    distiller.fit(X, Y, batch_size=6, verbose=0)
    assert CALLS == 2 * [(1, False), (2, False), (3, False)]
    CALLS.clear()
    measured(distiller)
    assert CALLS == [(1, False), (2, False), (3, False)]


def mean_pixels(size, factor, name="mean"):
    """`factor` times the mean pixel, for images of this size only."""
    kernel = keras.initializers.Constant(factor / size**2)
    dense = keras.layers.Dense(CLASSES, use_bias=False, kernel_initializer=kernel)
    return keras.Sequential([keras.Input((size, size, 1)), keras.layers.Flatten(name="flat"), dense], name=name)


@pytest.mark.parametrize("average", ["alone", "losses", "logits"])
def test_teachers_of_other_input_sizes(average):
    """Planes of one value v: means are what they were after resizing. Teachers say v and 3 v, the student 5 v.

    One of the teachers takes pixels of 0..1.
    """
    images = np.broadcast_to(np.arange(4.0).reshape(4, 1, 1, 1), (4, 8, 8, 1)).astype("float32")
    of_0_to_1 = with_preprocessing(mean_pixels(16, 3.0 * 255), "unit")
    teacher = of_0_to_1 if average == "alone" else TeacherEnsemble([mean_pixels(4, 1.0), of_0_to_1], average=average)
    losses = [LogitRegression()]
    if average != "logits":  # layers are read by one name, behind a scaling or not
        losses.append(SimilarityPreserving(teacher_layers="flat", student_layers="flat"))
    distiller = compiled(teacher, losses, mean_pixels(8, 5.0, "student"))
    squares = (0 + 1 + 4 + 9) / 4
    # (5 v - 3 v)^2; (5 v - v)^2 and this, half each; or (5 v - 2 v)^2.
    expected = squares * {"alone": 4, "losses": (16 + 4) / 2, "logits": 9}[average]
    result = distiller.evaluate(images, np.arange(4) % CLASSES, verbose=0, return_dict=True)
    assert result["logits"] == pytest.approx(expected, rel=1e-5)
    # Planes are all alike but for their length, which similarities do not see.
    assert result.get("sp", 0.0) == pytest.approx(0.0, abs=1e-6)
    privileged = {"image": images, "teacher_image": np.zeros((4, 16, 16, 1), "float32")}
    result = distiller.evaluate(privileged, np.arange(4) % CLASSES, verbose=0, return_dict=True)
    assert result["logits"] == pytest.approx(25 * squares, rel=1e-5)
    if average == "logits":
        np.testing.assert_allclose(teacher(images.astype("uint8"))[:, 0], [0, 2, 4, 6], rtol=1e-5)


def test_negatives_and_statistics():
    ensemble = TeacherEnsemble(three(), average="losses", teacher_weights=[1, 1, 2])
    distiller = compiled(ensemble, TripletDistillation(margin=2.0))
    negative = RNG.normal(size=X.shape).astype("float32")
    z_p, z_n = outputs(distiller.student), outputs(distiller.student, negative)
    expected, distance = 0.0, 0.0
    for w, teacher in zip((0.25, 0.25, 0.5), ensemble.teachers, strict=True):
        near, far = (np.linalg.norm(outputs(teacher) - z, axis=-1) for z in (z_p, z_n))
        expected += w * np.maximum(near - far + 2, 0).mean()
        distance += w * far.mean()
    result = measured(distiller, {"image": X, "negative": negative})
    assert result["tkd"] == pytest.approx(expected, rel=1e-4)
    assert result["tkd_negative_distance"] == pytest.approx(distance, rel=1e-4)


@pytest.mark.parametrize("average", ["losses", "logits"])
def test_outputs_in_the_batch_replace_the_teachers(average):
    distiller = compiled(
        TeacherEnsemble(three(), average=average, teacher_weights="entropy"), [SoftTargets(), LogitRegression()]
    )
    _, read = distiller._read_teacher(X)
    cached = {name: np.asarray(value) for name, value in read.items()}
    live = measured(distiller)
    for teacher in distiller.teacher.teachers:
        teacher.set_weights([np.zeros((5, CLASSES))])
    assert measured(distiller, {"image": X, "teacher": cached}) == pytest.approx(live, rel=1e-5)
    names = {"logits", *(f"teacher_{k}/logits" for k in (1, 2, 3) if average == "losses")}
    assert set(cached) == names
    if average == "losses":
        with pytest.raises(ValueError, match="several teachers.*TeacherEnsemble"):
            measured(compiled(linear(1), SoftTargets()), {"image": X, "teacher": cached})
    del cached["teacher_2/logits" if average == "losses" else "logits"]
    with pytest.raises(ValueError, match=r"\"teacher\" must hold.*without \['"):
        measured(distiller, {"image": X, "teacher": cached})


def test_ensembles_are_models():
    """An ensemble in an ensemble, and teachers that their first batch builds, in a graph."""
    a, b, c = three()
    nested = TeacherEnsemble([TeacherEnsemble([a, b], average="logits"), c], average="logits", teacher_weights=[2, 1])
    np.testing.assert_allclose(nested(X), (outputs(a) + outputs(b) + outputs(c)) / 3, rtol=1e-4, atol=1e-5)
    assert compiled(nested, SoftTargets()).fit(X, Y, verbose=0).history["kd"][0] > 0
    late = TeacherEnsemble([keras.Sequential([keras.layers.Dense(CLASSES)]) for _ in range(2)], average="logits")
    mean = late.predict(X, verbose=0)
    np.testing.assert_allclose(mean, sum(t.predict(X, verbose=0) for t in late.teachers) / 2, rtol=1e-4, atol=1e-6)


def deep(name, dtype=None):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, "relu", name="hidden", dtype=dtype),
            keras.layers.BatchNormalization(dtype=dtype),
            keras.layers.Dense(CLASSES, dtype=dtype),
        ],
        name=name,
    )


def test_saved_and_loaded_it_goes_on_training(tmp_path):
    hint = Hint(teacher_layers="hidden", student_layers="hidden")
    ensemble = TeacherEnsemble([deep("t"), deep("t")], average="losses", teacher_weights="confidence", name="two")
    original = compiled(ensemble, [SoftTargets(2.0), hint], deep("student"), [0.5, 0.1])
    original.fit(X, Y, batch_size=4, verbose=0)
    original.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    again = loaded.teacher
    assert (again.average, again.teacher_weights, again.name) == ("losses", "confidence", "two")
    assert not again.trainable_variables
    np.testing.assert_array_equal(again(X), ensemble(X))
    histories = [d.fit(X, Y, batch_size=4, epochs=2, shuffle=False, verbose=0).history for d in (original, loaded)]
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], rtol=1e-5, err_msg=name)
    TeacherEnsemble([deep("a"), linear(1)], average="logits", teacher_weights=[1, 3]).save(tmp_path / "ensemble.keras")
    assert keras.saving.load_model(tmp_path / "ensemble.keras").teacher_weights == (1.0, 3.0)


def test_mixed_precision():
    keras.utils.set_random_seed(0)
    ensemble = TeacherEnsemble(
        [deep("a", "mixed_float16"), deep("b", "mixed_float16")], average="losses", teacher_weights="entropy"
    )
    assert ensemble(X).dtype == "float32"
    distiller = compiled(ensemble, SoftTargets(), deep("student", "mixed_float16"), student_loss_weight=0.0)
    history = distiller.fit(X, Y, epochs=40, verbose=0).history
    assert np.isfinite(history["kd"]).all() and np.mean(history["kd"][-5:]) < np.mean(history["kd"][:5])


def softmax_head(seed):
    model = linear(seed)
    return keras.Sequential([model, keras.layers.Softmax()])


def other(inputs, classes):
    return keras.Sequential([keras.Input(inputs), keras.layers.Flatten(), keras.layers.Dense(classes)])


ONE = linear(1)


def test_weights_may_be_an_array():
    ensemble = TeacherEnsemble([ONE, linear(2)], average="losses", teacher_weights=np.array([1, 3]))
    assert ensemble.teacher_weights == (1.0, 3.0)
    with pytest.raises(ValueError, match="2 numbers"):
        TeacherEnsemble([ONE, linear(2)], average="losses", teacher_weights=np.ones(3))


class TestRefusals:
    def test_an_average_that_is_not_named(self):
        with pytest.raises(ValueError, match="`average` must be one of losses, probabilities, logits.*average=None"):
            TeacherEnsemble([ONE, linear(2)], average=None)

    @pytest.mark.parametrize(
        "arguments", [{}, {"average": "losses", "weights": [1.0, 1.0]}], ids=["average", "weights"]
    )
    def test_an_average_that_is_not_given_and_another_name_for_the_weights(self, arguments):
        with pytest.raises(TypeError, match="'average'" if not arguments else "'weights'"):
            TeacherEnsemble([ONE, linear(2)], **arguments)

    def test_positions_say_nothing(self):
        with pytest.raises(TypeError, match="positional"):
            TeacherEnsemble([ONE, linear(2)], "losses")

    @pytest.mark.parametrize(
        ("teachers", "arguments", "message"),
        [
            ([], {}, "`teachers` must be a list of at least one"),
            ([ONE, "teacher.keras"], {}, "`teachers` must be a list"),
            ([ONE, linear(2), ONE], {}, "different models.*twice"),
            ([ONE, softmax_head(2)], {}, "teacher must return logits.*softmax"),
            ([ONE, other((5,), 7)], {}, r"same classes.*\(None, 3\), \(None, 7\)"),
            (
                [TeacherEnsemble([ONE, linear(2)], average="losses", name="inner"), linear(3)],
                {},
                "one teacher with one output.*'inner' of average='losses'.*`teacher_weights`",
            ),
            ([ONE], {"average": "loss"}, "`average` must be one of losses, probabilities, logits.*'loss'"),
            ([ONE, linear(2)], {"teacher_weights": [1.0]}, r"`teacher_weights` must be None, 2 numbers.*\[1.0\]"),
            ([ONE, linear(2)], {"teacher_weights": [1.0, -1.0]}, "`teacher_weights` must be a number >= 0"),
            ([ONE, linear(2)], {"teacher_weights": [1.0, float("nan")]}, "`teacher_weights` must be a number >= 0"),
            ([ONE, linear(2)], {"teacher_weights": [0, 0]}, "not all 0"),
            ([ONE, linear(2)], {"teacher_weights": "entropic"}, "entropy, confidence.*'entropic'"),
            ([ONE, linear(2)], {"teacher_weights": "confidence", "average": "logits"}, "reads labels.*'logits'"),
        ],
    )
    def test_of_teachers(self, teachers, arguments, message):
        with pytest.raises(ValueError, match=message):
            TeacherEnsemble(teachers, **{"average": "losses"} | arguments)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (
                lambda: compiled(TeacherEnsemble([ONE, linear(2)], average="losses"), SoftTargets(), ONE),
                "must be two models",
            ),
            (
                lambda: compiled(
                    TeacherEnsemble([ONE, linear(2)], average="logits"),
                    SimilarityPreserving(teacher_layers="hidden", student_layers="hidden"),
                    deep("student"),
                ),
                r"average='logits'` makes one output.*\['hidden'\].*average='losses'",
            ),
            (
                lambda: compiled(TeacherEnsemble([ONE, other((4,), 3)], average="logits"), SoftTargets()),
                r"input.*\(None, 4\).*\(None, 5\)",
            ),
            (
                lambda: compiled(
                    TeacherEnsemble([deep("a"), ONE], average="losses"),
                    Hint(teacher_layers="hidden", student_layers="hidden"),
                    deep("s"),
                ),
                "'hidden'",
            ),
            (
                lambda: compiled(TeacherEnsemble([Counted(1, 4), other((5,), 7)], average="logits"), SoftTargets()).fit(
                    X, Y
                ),
                "same classes",
            ),
            (
                lambda: compiled(
                    TeacherEnsemble([ONE, linear(2)], average="losses", teacher_weights="entropy"),
                    SoftTargets(reduction="mean_with_sample_weight"),
                ),
                "mean_with_sample_weight",
            ),
            (
                lambda: compiled(
                    TeacherEnsemble([ONE, linear(2)], average="losses", teacher_weights="confidence"), SoftTargets()
                ).fit(X, verbose=0),
                "teacher_weights='confidence'` reads labels",
            ),
        ],
    )
    def test_of_a_distiller(self, make, message):
        with pytest.raises(ValueError, match=message):
            make()


def test_what_a_step_was_made_of_cannot_be_replaced():
    ensemble = TeacherEnsemble([linear(1), linear(2)], average="losses", teacher_weights=[1, 3])
    with pytest.raises(TypeError, match="item assignment"):
        ensemble.teacher_weights[0] = 100.0
    for name, value in {"teacher_weights": [0.0, 1.0], "average": "logits"}.items():
        with pytest.raises(AttributeError, match=f"'{name}'.* no setter"):
            setattr(ensemble, name, value)
    assert (ensemble.teacher_weights, ensemble.average) == ((1.0, 3.0), "losses")
