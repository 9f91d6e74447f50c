"""Triplet distillation, against numbers derived by hand. What holds for every loss: `test_contract.py`."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller
from keras_tkd.losses import PairDistillation, TripletDistillation, triplet_distillation
from keras_tkd.miners import MINERS, random_other_class

ZERO = [0.0, 0.0]


def given(loss, anchor, positive, negative):
    """Value, and the gradients with respect to positive and negative."""
    y_pred = {"positive": tf.constant(positive, loss.dtype), "negative": tf.constant(negative, loss.dtype)}
    with tf.GradientTape() as tape:
        tape.watch(y_pred)
        value = loss(np.array(anchor), y_pred)
    gradient = tape.gradient(value, y_pred)
    return value.numpy(), gradient["positive"].numpy(), gradient["negative"].numpy()


def mined(loss, anchor, student, labels, step=0):
    """Value, and the gradient with respect to the student's outputs."""
    student = tf.constant(student, loss.dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss({"logits": np.array(anchor), "labels": labels, "step": step}, student)
    return value.numpy(), tape.gradient(value, student).numpy()


# Negatives given

# name -> anchor, positive, negative, margin, value, gradient of positive, gradient of negative
# A distance's gradient is the unit vector from the anchor; the negative's counts with a minus.
BY_HAND = {
    # 5 - 2 + 5
    "violated": (ZERO, [3.0, 4.0], [0.0, 2.0], 5.0, 8.0, [0.6, 0.8], [0.0, -1.0]),
    # 5 - 13 + 5 < 0
    "satisfied": (ZERO, [3.0, 4.0], [5.0, 12.0], 5.0, 0.0, ZERO, ZERO),
    # 5 - 13 + 10, and not 25 - 169 + 10
    "not squared": (ZERO, [3.0, 4.0], [5.0, 12.0], 10.0, 2.0, [0.6, 0.8], [-5 / 13, -12 / 13]),
    # seen from (1, 1) these are (3, 4) and (0, 2) again
    "anchor elsewhere": ([1.0, 1.0], [4.0, 5.0], [1.0, 3.0], 5.0, 8.0, [0.6, 0.8], [0.0, -1.0]),
    # 5 - 10 + 5 is exactly zero: on the kink
    "at the margin": (ZERO, [3.0, 4.0], [6.0, 8.0], 5.0, 0.0, ZERO, ZERO),
    # 0 - 2 + 5
    "positive is the anchor": (ZERO, ZERO, [0.0, 2.0], 5.0, 3.0, ZERO, [0.0, -1.0]),
    # 5 - 0 + 5
    "negative is the anchor": (ZERO, [3.0, 4.0], ZERO, 5.0, 10.0, [0.6, 0.8], ZERO),
    # 5 - 5 + 5
    "negative is the positive": (ZERO, [3.0, 4.0], [3.0, 4.0], 5.0, 5.0, [0.6, 0.8], [-0.6, -0.8]),
    # 0 - 0 + 5
    "all equal": ([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], 5.0, 5.0, ZERO, ZERO),
    "all equal, no margin": ([1.0, 2.0], [1.0, 2.0], [1.0, 2.0], 0.0, 0.0, ZERO, ZERO),
    # 5 - 2 + 0
    "no margin": (ZERO, [3.0, 4.0], [0.0, 2.0], 0.0, 3.0, [0.6, 0.8], [0.0, -1.0]),
    # 5e4 - 1e4 * sqrt(2) + 5; (1, 1) / sqrt(2)
    "saturated": (
        *(ZERO, [3e4, 4e4], [1e4, 1e4], 5.0, 5e4 - 1e4 * math.sqrt(2) + 5),
        *([0.6, 0.8], [-math.sqrt(0.5), -math.sqrt(0.5)]),
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_by_hand(name, dtype):
    anchor, positive, negative, margin, expected, positive_slope, negative_slope = BY_HAND[name]
    loss = TripletDistillation(margin=margin, dtype=dtype)
    value, of_positive, of_negative = given(loss, [anchor], [positive], [negative])
    assert value == pytest.approx(expected, rel=1e-6, abs=0)
    assert of_positive[0] == pytest.approx(positive_slope, rel=1e-6, abs=0)
    assert of_negative[0] == pytest.approx(negative_slope, rel=1e-6, abs=0)


def test_by_hand_in_one_batch():
    """All cases with margin 5 at once: no sample disturbs another."""
    cases = [case for case in BY_HAND.values() if case[3] == 5.0]
    anchor, positive, negative, _, values, positive_slopes, negative_slopes = zip(*cases, strict=True)
    # float64: beside the saturated row nothing else would show in a float32 mean.
    loss = TripletDistillation(margin=5.0, dtype="float64")
    value, of_positive, of_negative = given(loss, anchor, positive, negative)
    assert value == pytest.approx(np.mean(values), rel=1e-12)
    assert of_positive * len(cases) == pytest.approx(np.array(positive_slopes), rel=1e-12, abs=0)
    assert of_negative * len(cases) == pytest.approx(np.array(negative_slopes), rel=1e-12, abs=0)


def test_function_gives_one_value_per_sample():
    anchor, positive = tf.zeros((2, 2)), tf.constant([[3.0, 4.0], [3.0, 4.0]])
    negative = tf.constant([[0.0, 2.0], [5.0, 12.0]])
    # 5 - 2 + 6, and 5 - 13 + 6 < 0
    assert triplet_distillation(anchor, positive, negative, margin=6.0).numpy().tolist() == [9.0, 0.0]
    # The published margin: 5 - 2 + 5.
    assert triplet_distillation(anchor, positive, negative).numpy().tolist() == [8.0, 0.0]


def test_known_value_where_student_equals_teacher():
    # The positive is the anchor: margin minus the negative's distance, 5 - 1 and 5 - 6 < 0.
    anchor, negative = [[1.0, 1.0], [2.0, 0.0]], [[1.0, 2.0], [8.0, 0.0]]
    value, of_positive, of_negative = given(TripletDistillation(reduction="sum"), anchor, anchor, negative)
    assert value == 4.0
    assert of_positive.tolist() == [ZERO, ZERO]
    assert of_negative.tolist() == [[0.0, -1.0], ZERO]


def test_negative_of_another_shape_is_an_error():
    rows = np.zeros((4, 3))
    for negative in (np.zeros((4, 1)), np.zeros((1, 3)), np.zeros((4, 2)), np.zeros((4, 3, 1))):
        with pytest.raises(ValueError, match="'tkd' compares outputs of equal shape"):
            TripletDistillation()(rows, {"positive": rows, "negative": negative})


# Embeddings of other widths


NAMED = {"teacher_layers": "conv", "student_layers": "stage"}


def test_narrower_embeddings_pass_through_a_projector():
    """By hand: the one number of each student's row is projected to (1, 2) times it."""
    loss = TripletDistillation(margin=5.0, **NAMED)
    loss.build((None, 2), (None, 1))
    (projector,) = loss.layers
    projector.set_weights([np.array([[1.0, 2.0]])])
    # Positive (2, 4), seen from (-1, 0) as (3, 4); negative (0, 0): 5 - 1 + 5.
    value = loss(np.array([[-1.0, 0.0]]), {"positive": np.array([[2.0]]), "negative": np.array([[0.0]])})
    assert float(value) == pytest.approx(9.0, rel=1e-6)
    # In the batch: anchors (3, 2) and (0, 0), rows (1, 2) and (3, 6). First 2 - 4 + 5, second sqrt(45) - sqrt(5) + 5.
    value, _ = mined(loss, [[3.0, 2.0], [0.0, 0.0]], [[1.0], [3.0]], [0, 1])
    assert value == pytest.approx((3.0 + 5.0 + 2 * math.sqrt(5)) / 2, rel=1e-6)
    # Two Distillers may share it.
    loss.build((None, 2), (None, 1))
    assert loss.layers == [projector]
    # Of the same widths, that is: the projector is of no others, and is not to be left out either.
    for teacher, student in (((None, 3), (None, 1)), ((None, 2), (None, 2))):
        with pytest.raises(ValueError, match=r"layers of its own.*widths \[\[2\], \[1\]\].*a loss for each"):
            loss.build(teacher, student)


def test_equal_widths_need_no_projector_and_logits_get_none():
    loss = TripletDistillation(**NAMED)
    loss.build((None, 2), (None, 2))
    assert loss.layers == []
    # Classes that differ are a mistake, and so are maps, which a vector's projector does not fit.
    for names, teacher, student in (
        ({}, (None, 3), (None, 2)),
        ({"teacher_layers": "conv", "student_layers": "logits"}, (None, 3), (None, 2)),
        (NAMED, (None, 4, 4, 3), (None, 4, 4, 2)),
    ):
        with pytest.raises(ValueError, match="of equal shape"):
            TripletDistillation(**names).build(teacher, student)


@pytest.mark.parametrize("loss", [TripletDistillation, PairDistillation])
def test_a_projector_learns_with_the_student_and_is_saved(loss, tmp_path):
    keras.utils.set_random_seed(0)

    def make_model(width):
        layers = [keras.layers.Dense(width, name="embedding"), keras.layers.Dense(3)]
        return keras.Sequential([keras.Input((4,)), *layers])

    distiller = Distiller(make_model(5), make_model(2), loss(teacher_layers="embedding", student_layers="embedding"))
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    (projector,) = distiller.loss_layers
    assert projector.kernel.shape == (2, 5) and len(distiller.trainable_variables) == 4 + 1
    before = projector.kernel.numpy()
    x, labels = np.random.default_rng(0).normal(size=(12, 4)).astype("float32"), np.arange(12) % 3
    distiller.fit(x, labels, batch_size=12, verbose=0)
    assert not np.array_equal(before, projector.kernel.numpy())
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert np.array_equal(loaded.loss_layers[0].kernel.numpy(), projector.kernel.numpy())
    assert [weight.shape for weight in distiller.student.get_weights()] == [(4, 2), (2,), (2, 3), (3,)]


# Negatives from the batch


def test_mined_in_a_batch_without_a_choice():
    """Two samples of two classes: each is the other's negative."""
    anchor, student = [[0.0, 0.0], [0.0, 2.0]], [[3.0, 4.0], [0.0, 3.0]]
    value, gradient = mined(TripletDistillation(margin=5.0, reduction="sum"), anchor, student, [3, 7])
    # First: ||(3, 4)|| - ||(0, 3)|| + 5 = 7. Second: ||(0, 1)|| - ||(3, 2)|| + 5 = 6 - sqrt(13).
    assert value == pytest.approx(13 - math.sqrt(13), rel=1e-6)
    # Each row as its own anchor's positive, minus its part as the other's negative.
    expected = [[0.6 - 3 / math.sqrt(13), 0.8 - 2 / math.sqrt(13)], [0.0 - 0.0, 1.0 - 1.0]]
    assert gradient == pytest.approx(np.array(expected), rel=1e-6, abs=1e-7)


def test_negatives_come_from_the_seed_and_the_step():
    rng = np.random.default_rng(0)
    anchor, student, labels = rng.normal(size=(64, 4)), rng.normal(size=(64, 4)), np.arange(64) % 4

    def values(seed, step):
        return mined(TripletDistillation(seed=seed, reduction=None), anchor, student, labels, step)[0]

    for seed, step in [(0, 0), (1, 2), (2, 1), (-5, 10**6)]:
        index, _ = random_other_class(labels, [seed, step])
        negative = student[index.numpy()]
        expected = triplet_distillation(tf.constant(anchor), tf.constant(student), tf.constant(negative), 5.0)
        assert values(seed, step) == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-5)
        assert np.array_equal(values(seed, step), values(seed, step))
    assert not np.array_equal(values(1, 2), values(2, 1))
    assert not np.array_equal(values(1, 2), values(1, 3))
    assert not np.array_equal(values(1, 2), values(3, 2))
    # Without a step it is step 0.
    without = TripletDistillation(reduction=None)({"logits": anchor, "labels": labels}, student)
    assert np.array_equal(without, values(0, 0))


def test_step_may_be_the_distillers_variable():
    rng = np.random.default_rng(0)
    anchor, student, labels = rng.normal(size=(64, 4)), rng.normal(size=(64, 4)), np.arange(64) % 4
    step = keras.Variable(0, dtype="int64", trainable=False)
    loss = TripletDistillation(reduction=None)

    @tf.function
    def run():
        return loss({"logits": anchor, "labels": labels, "step": step}, student)

    for number in (0, 1, 2):
        step.assign(number)
        assert np.array_equal(run(), mined(loss, anchor, student, labels, number)[0])


def test_labels_may_be_a_column():
    rng = np.random.default_rng(0)
    anchor, student, labels = rng.normal(size=(8, 4)), rng.normal(size=(8, 4)), np.arange(8) % 3
    loss = TripletDistillation(reduction=None)
    expected, _ = mined(loss, anchor, student, labels)
    assert np.array_equal(mined(loss, anchor, student, labels[:, None])[0], expected)


@pytest.mark.parametrize("mode", ["eager", "function", "jit"])
@pytest.mark.parametrize("rows", [1, 4])
def test_batch_of_a_single_class_teaches_nothing(mode, rows):
    rng = np.random.default_rng(0)
    anchor, student = rng.normal(size=(rows, 3)), rng.normal(size=(rows, 3))
    # Rows of a distance zero too, where a gradient may turn to NaN.
    student[-1] = anchor[-1]
    for reduction in ("sum_over_batch_size", None):
        loss = TripletDistillation(reduction=reduction)

        def run(anchor, student, loss=loss):
            return mined(loss, anchor, student, np.full(rows, 9))

        def graph(anchor, student, loss=loss):
            with tf.GradientTape() as tape:
                tape.watch(student)
                value = loss({"logits": anchor, "labels": tf.fill([rows], 9), "step": 0}, student)
            return value, tape.gradient(value, student)

        run = run if mode == "eager" else tf.function(graph, jit_compile=mode == "jit")
        value, gradient = run(tf.constant(anchor, "float32"), tf.constant(student, "float32"))
        assert np.array_equal(value, np.zeros(value.shape))
        assert value.shape == (() if reduction else (rows,))
        assert np.array_equal(gradient, np.zeros((rows, 3)))


def partners(index, valid):
    """A miner that says what a test needs."""
    return lambda labels, seed, distances, positive_distances: (tf.constant(index), tf.constant(valid))


# Every miner, against the definition


def distance(u, v):
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(u, v, strict=True)))


def negatives_of(miner, distances, positive):
    """Which of an anchor's distances to rows of other classes count: float64, by the docstring."""
    if not distances:
        return []
    if miner == "all":
        return distances
    if miner == "hard":
        return [min(distances)]
    farther = [d for d in distances if d > positive]
    return [min(farther) if farther else max(distances)]


def oracle(miner, anchor, student, classes, margin, positive=None):
    """One value per anchor."""
    values = []
    for i, row in enumerate(anchor):
        to_positive = distance(row, (student if positive is None else positive)[i])
        others = [distance(row, z) for z, c in zip(student, classes, strict=True) if c != classes[i]]
        terms = [max(to_positive - d + margin, 0.0) for d in negatives_of(miner, others, to_positive)]
        values.append(sum(terms) / len(terms) if terms else 0.0)
    return np.array(values)


def central_slope(function, x, h=1e-6):
    slope = np.zeros_like(x)
    for entry in np.ndindex(x.shape):
        ends = [x.copy(), x.copy()]
        ends[0][entry] += h
        ends[1][entry] -= h
        slope[entry] = (function(ends[0]) - function(ends[1])) / (2 * h)
    return slope


# A class of one, a class of three, and positives that are nearer and farther than the negatives.
LABELS = np.array([5, 7, 5, 2, 7, 5, 7])
RNG = np.random.default_rng(3)
TEACHER, STUDENT, OTHER = RNG.normal(size=(3, 7, 4)) * [[[1.0]], [[1.5]], [[1.0]]]


@pytest.mark.parametrize("mode", ["eager", "function", "jit"])
@pytest.mark.parametrize("miner", ["semi_hard", "hard", "all"])
def test_miners_are_what_the_docstring_says(miner, mode):
    weights = np.linspace(0.5, 2.0, 7)
    loss = TripletDistillation(margin=0.7, miner=miner, reduction="sum", dtype="float64")

    def run(student, other):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([student, other])
            own = loss({"logits": TEACHER, "labels": LABELS}, student, weights)
            with_positive = loss(
                {"logits": TEACHER, "labels": LABELS}, {"positive": other, "candidates": student}, weights
            )
        # What is gathered has a gradient of slices.
        slopes = [tf.convert_to_tensor(slope) for slope in tape.gradient(with_positive, [student, other])]
        return own, tape.gradient(own, student), with_positive, slopes

    if mode == "function":
        run = tf.function(run, input_signature=[tf.TensorSpec([None, 4], "float64")] * 2)
    if mode == "jit":
        run = tf.function(run, jit_compile=True)
    own, slope, with_positive, (of_student, of_other) = run(tf.constant(STUDENT), tf.constant(OTHER))

    def total(student, positive=None):
        return float(np.dot(weights, oracle(miner, TEACHER, student, LABELS, 0.7, positive)))

    assert own.numpy() == pytest.approx(total(STUDENT), rel=1e-10)
    assert slope.numpy() == pytest.approx(central_slope(total, STUDENT), abs=1e-7)
    assert with_positive.numpy() == pytest.approx(total(STUDENT, OTHER), rel=1e-10)
    assert of_student.numpy() == pytest.approx(central_slope(lambda x: total(x, OTHER), STUDENT), abs=1e-7)
    assert of_other.numpy() == pytest.approx(central_slope(lambda x: total(STUDENT, x), OTHER), abs=1e-7)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 1e-3), ("float32", 1e-6)])
@pytest.mark.parametrize("miner", ["semi_hard", "hard", "all"])
def test_miners_on_outputs_of_lower_precision(miner, dtype, tolerance):
    """Rounded inputs, a float32 loss: equal to the oracle of the rounded numbers."""
    teacher, student = (tf.cast(x, dtype) for x in (TEACHER, STUDENT))
    values = TripletDistillation(margin=0.7, miner=miner, reduction=None)(
        {"logits": teacher, "labels": LABELS}, student
    )
    assert values.dtype == "float32"
    exact = oracle(miner, *(tf.cast(x, "float64").numpy() for x in (teacher, student)), LABELS, 0.7)
    assert values.numpy() == pytest.approx(exact, rel=1e-5, abs=1e-6)
    assert exact == pytest.approx(oracle(miner, TEACHER, STUDENT, LABELS, 0.7), rel=tolerance, abs=5 * tolerance)


@pytest.mark.parametrize("miner", MINERS)
def test_classes_may_be_those_that_the_teacher_names(miner):
    named = TEACHER.argmax(-1)
    assert len(set(named)) > 1 and not np.array_equal(named[:, None] == named, LABELS[:, None] == LABELS)
    by_teacher = TripletDistillation(miner=miner, negative_classes="teacher", reduction=None, dtype="float64")
    by_label = TripletDistillation(miner=miner, reduction=None, dtype="float64")
    expected = by_label({"logits": TEACHER, "labels": named, "step": 4}, STUDENT)
    assert np.array_equal(by_teacher({"logits": TEACHER, "labels": LABELS, "step": 4}, STUDENT), expected)
    # Where the anchor is not the teacher's final output, the classes come beside it.
    features = {"logits": TEACHER, "classes": LABELS, "step": 4}
    expected = by_label({"logits": TEACHER, "labels": LABELS, "step": 4}, STUDENT)
    assert np.array_equal(by_teacher(features, STUDENT), expected)


@pytest.mark.parametrize("miner", MINERS)
def test_no_negative_is_no_value_and_no_gradient_with_every_miner(miner):
    loss = TripletDistillation(miner=miner, dtype="float64", reduction="sum")
    value, slope = mined(loss, TEACHER, STUDENT, np.zeros(7, int))
    assert value == 0.0 and np.array_equal(slope, np.zeros_like(STUDENT))
    # Two classes that are one as the teacher sees them.
    anchor = np.tile([0.0, 1.0, 0.0, 0.0], (7, 1))
    loss = TripletDistillation(miner=miner, dtype="float64", reduction="sum", negative_classes="teacher")
    value, slope = mined(loss, anchor, STUDENT, LABELS)
    assert value == 0.0 and np.array_equal(slope, np.zeros_like(STUDENT))
    found = loss.statistics({"logits": anchor, "labels": LABELS}, STUDENT)
    assert [float(x) for x in found.values()] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("miner", MINERS)
def test_a_nan_is_not_swallowed_by_a_miner(miner):
    for broken in (0, 1):
        anchor, student = TEACHER.copy(), STUDENT.copy()
        (anchor, student)[broken][2, 1] = np.nan
        values, _ = mined(TripletDistillation(miner=miner, reduction=None), anchor, student, LABELS)
        assert np.isnan(values[2])


def test_statistics_of_all_negatives_are_means_over_an_anchors_mean():
    # Anchors at the origin; own outputs at 5, 1, 0; classes a, a, b. Margin 2.
    # First: negative at 0: 5 - 0 + 2 > 0. Second: 1 - 0 + 2 > 0. Third: at 5 and 1: -3, and 0 - 1 + 2 = 1 > 0.
    loss = TripletDistillation(margin=2.0, miner="all")
    y_true = {"logits": ANCHORS, "labels": [3, 3, 4]}
    assert statistics(loss, y_true, POSITIVES) == pytest.approx([2.0, 1.0, 2.5 / 3], rel=1e-6)
    # 7, 3, and the mean of 0 and 1.
    assert float(loss(y_true, POSITIVES)) == pytest.approx(10.5 / 3, rel=1e-6)


def test_anchor_without_a_negative_does_not_count(monkeypatch):
    monkeypatch.setitem(MINERS, "by hand", partners([1, 0, 1], [True, False, True]))
    anchor, student = [ZERO, ZERO, ZERO], [[3.0, 4.0], [0.0, 2.0], [0.0, -1.0]]
    loss = TripletDistillation(margin=5.0, miner="by hand")
    # First: 5 - 2 + 5 = 8. Second: none, though 2 - 5 + 5 would be 2. Third: 1 - 2 + 5 = 4.
    value, gradient = mined(loss, anchor, student, [0, 1, 2])
    assert value == pytest.approx((8 + 4) / 2, rel=1e-6)
    # Weights are Keras's: 8 and 3 * 4, over the two anchors that count.
    weighted = loss({"logits": anchor, "labels": [0, 1, 2]}, student, sample_weight=[1.0, 7.0, 3.0])
    assert float(weighted) == pytest.approx((8 + 3 * 4) / 2, rel=1e-6)
    # The second row has no part as a positive, and two as a negative, each -(0, 1).
    assert gradient == pytest.approx(np.array([[0.6, 0.8], [0.0, -2.0], [0.0, -1.0]]) / 2, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("dtype, label", [("bfloat16", 256), ("float16", 2048), ("float32", 2**24)])
def test_labels_are_not_rounded_to_the_losss_dtype(dtype, label):
    """Neighbouring ids are one number in a float of too few digits, and the batch would be of one class."""
    # Each is the other's negative, and as far from the anchor as the positive: the margin remains.
    rows = [[1.0, 0.0], [0.0, 1.0]]
    loss = TripletDistillation(dtype=dtype, reduction=None)
    value, _ = mined(loss, [ZERO, ZERO], rows, np.array([label, label + 1]))
    assert value.astype("float32").tolist() == [5.0, 5.0]


@pytest.mark.parametrize("dtype, step", [("bfloat16", 256), ("float16", 70_000), ("float32", 2**24)])
def test_steps_are_not_rounded_to_the_losss_dtype(dtype, step):
    rng = np.random.default_rng(0)
    anchor, student, labels = rng.normal(size=(64, 4)), rng.normal(size=(64, 4)), np.arange(64) % 4
    loss = TripletDistillation(dtype=dtype, reduction=None)
    here, there = (mined(loss, anchor, student, labels, np.int64(s))[0] for s in (step, step + 1))
    assert not np.array_equal(here, there)


# What the Distiller hands over, and shows


def test_inputs_take_the_positives_of_the_batch():
    teacher, own = {"logits": "t"}, {"logits": "s", "stage": "s stage", "step": 3}
    both = own | {"positive": {"logits": "p", "stage": "p stage"}}
    given = both | {"negative": {"logits": "n", "stage": "n stage"}}
    assert TripletDistillation().inputs(teacher, given, None, None) == ("t", {"positive": "p", "negative": "n"})
    mined_pair = ({"logits": "t", "labels": "labels", "step": 3}, {"positive": "p", "candidates": "s"})
    assert TripletDistillation().inputs(teacher, both, "labels", None) == mined_pair
    named = TripletDistillation(teacher_layers="logits", student_layers="stage")
    assert named.inputs(teacher, both, "labels", None)[1] == {"positive": "p stage", "candidates": "s stage"}


def test_inputs_take_the_teachers_classes_from_its_final_output():
    teacher = {"logits": tf.constant([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]]), "conv": "t conv"}
    student = {"logits": "s", "stage": "s stage", "step": 3}
    loss = TripletDistillation(negative_classes="teacher", teacher_layers="conv", student_layers="stage")
    y_true, y_pred = loss.inputs(teacher, student, None, None)
    assert y_true.pop("classes").numpy().tolist() == [1, 0]
    assert (y_true, y_pred) == ({"logits": "t conv", "step": 3}, "s stage")
    with pytest.raises(ValueError, match=r"'tkd' tells classes apart by the teacher's logits. Received: \['conv'\]"):
        loss.inputs({"conv": 0}, student, None, None)


def test_inputs_prefer_the_negatives_of_the_batch():
    teacher = {"logits": "t", "conv": "t conv"}
    student = {"logits": "s", "stage": "s stage", "step": 3}
    negative = {"logits": "n", "stage": "n stage"}
    both = student | {"negative": negative}
    expected = ("t", {"positive": "s", "negative": "n"})
    for labels in ("labels", None):
        assert TripletDistillation().inputs(teacher, both, labels, None) == expected
    named = TripletDistillation(teacher_layers="conv", student_layers="stage")
    expected = ("t conv", {"positive": "s stage", "negative": "n stage"})
    assert named.inputs(teacher, both, "labels", None) == expected
    # Without them: labels and step.
    mined_pair = ({"logits": "t", "labels": "labels", "step": 3}, "s")
    assert TripletDistillation().inputs(teacher, student, "labels", None) == mined_pair
    mined_pair = ({"logits": "t conv", "labels": "labels", "step": 3}, "s stage")
    assert named.inputs(teacher, student, "labels", None) == mined_pair


def test_mining_without_labels_is_an_error():
    with pytest.raises(ValueError, match="'tkd' picks negatives inside the batch by their labels"):
        TripletDistillation().inputs({"logits": 0}, {"logits": 0, "step": 0}, None, None)
    with pytest.raises(ValueError, match="'tkd' needs partners, or labels to pick them by"):
        TripletDistillation()(np.zeros((2, 3)), np.zeros((2, 3)))


def statistics(loss, y_true, y_pred):
    found = loss.statistics(y_true, y_pred)
    assert tuple(found) == loss.statistic_names == ("positive_distance", "negative_distance", "violated")
    return [float(value) for value in found.values()]


ANCHORS = np.zeros((3, 2), "float32")
POSITIVES = np.array([[3, 4], [0, 1], [0, 0]], "float32")
NEGATIVES = np.array([[0, 2], [5, 12], [4, 0]], "float32")


def test_statistics_by_hand():
    # Distances 5, 1, 0 and 2, 13, 4. Margin 5: 8 > 0, -7, 1 > 0.
    loss = TripletDistillation(margin=5.0)
    pair = ANCHORS, {"positive": POSITIVES, "negative": NEGATIVES}
    assert statistics(loss, *pair) == pytest.approx([2.0, 19 / 3, 2 / 3], rel=1e-6)
    # Margin 4: 7 > 0, -8, and exactly 0, which is no violation.
    loss.margin = 4.0
    assert statistics(loss, *pair) == pytest.approx([2.0, 19 / 3, 1 / 3], rel=1e-6)
    # Of outputs in half precision: these numbers are exact in it, their means are not.
    pair = tf.cast(ANCHORS, "float16"), {"positive": tf.cast(POSITIVES, "bfloat16"), "negative": NEGATIVES}
    assert statistics(loss, *pair) == pytest.approx([2.0, 19 / 3, 1 / 3], rel=1e-6)


def test_statistics_are_means_over_the_anchors_that_have_a_negative(monkeypatch):
    # Distances to the own row: 5, 1, 0. Negatives: rows 2 and 0, at 0 and 5.
    # Margin 1: 5 - 0 + 1 > 0, and 0 - 5 + 1 < 0.
    monkeypatch.setitem(MINERS, "by hand", partners([2, 0, 0], [True, False, True]))
    loss = TripletDistillation(margin=1.0, miner="by hand")
    y_true = {"logits": ANCHORS, "labels": np.arange(3), "step": np.int64(0)}
    assert statistics(loss, y_true, POSITIVES) == pytest.approx([2.5, 2.5, 0.5], rel=1e-6)
    # No anchor has one: zeros, and no division by zero.
    alike = {"logits": ANCHORS, "labels": np.zeros(3, "int64"), "step": np.int64(0)}
    assert statistics(TripletDistillation(), alike, POSITIVES) == [0.0, 0.0, 0.0]


def test_statistics_see_the_losss_own_negatives():
    rng = np.random.default_rng(0)
    y_true = {"logits": rng.normal(size=(32, 4)), "labels": np.arange(32) % 5, "step": np.int64(11)}
    student = rng.normal(size=(32, 4))
    loss = TripletDistillation(margin=50.0, seed=2)
    positive, negative, violated = statistics(loss, y_true, student)
    # With a margin beyond all distances every anchor counts: mean loss = difference of the means + margin.
    assert violated == 1.0
    assert float(loss(y_true, student)) == pytest.approx(positive - negative + 50.0, rel=1e-6)


# What is an error


@pytest.mark.parametrize("margin", [-1.0, -1e-9, math.nan, math.inf, True, "5", None], ids=repr)
def test_margin_must_not_be_negative(margin):
    with pytest.raises(ValueError, match="`margin` must be a number >= 0. Received: margin="):
        TripletDistillation(margin=margin)
    loss = TripletDistillation(margin=2.0)
    with pytest.raises(ValueError, match="`margin` must be a number >= 0. Received: margin="):
        loss.margin = margin
    # What is refused changes nothing: 5 - 2 + 2.
    assert loss.margin == 2.0
    assert given(loss, [ZERO], [[3.0, 4.0]], [[0.0, 2.0]])[0] == 5.0


@pytest.mark.parametrize("miner", ["hardest", "", None, 3, ["random"]], ids=repr)
def test_unknown_miner_is_an_error(miner):
    with pytest.raises(
        ValueError, match=r"`miner` must be one of \['all', 'hard', 'random', 'semi_hard'\]. Received: miner="
    ):
        TripletDistillation(miner=miner)


def test_build_refuses_what_it_cannot_compare():
    TripletDistillation().build((None, 10), (None, 10))
    with pytest.raises(ValueError, match="'tkd' compares one output of the teacher with one"):
        TripletDistillation().build((None, 10), (None, 1))


@pytest.mark.parametrize("classes", ["student", "", None, 3], ids=repr)
def test_unknown_negative_classes_are_an_error(classes):
    with pytest.raises(ValueError, match=r"`negative_classes` must be one of \['labels', 'teacher'\]. Received: neg"):
        TripletDistillation(negative_classes=classes)


def test_defaults_are_the_papers():
    loss = TripletDistillation()
    assert (loss.margin, loss.miner, loss.negative_classes, loss.seed) == (5.0, "random", "labels", 0)
