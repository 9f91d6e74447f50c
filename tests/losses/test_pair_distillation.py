"""Pair distillation, against numbers derived by hand and a naive oracle in float64."""

import functools
import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller
from keras_tkd.losses import PairDistillation, pair_distillation
from keras_tkd.miners import MINERS, fair_coin, random_other_class, random_same_class

ZERO = [0.0, 0.0]
# name -> partner, same, value with margin 5, gradient of the partner; the anchor is the origin
BY_HAND = {
    # 5^2; 2 (3, 4)
    "same": ([3.0, 4.0], 1, 25.0, [6.0, 8.0]),
    # (5 - 2)^2; -2 (5 - 2) (0, 1)
    "other, inside the margin": ([0.0, 2.0], 0, 9.0, [0.0, -6.0]),
    "other, outside": ([5.0, 12.0], 0, 0.0, ZERO),
    "other, at the margin": ([3.0, 4.0], 0, 0.0, ZERO),
    "same, no distance": (ZERO, 1, 0.0, ZERO),
    # 5^2, and no direction to go
    "other, no distance": (ZERO, 0, 25.0, ZERO),
}


def value_and_slope(loss, y_true, student):
    student = tf.constant(student, loss.dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(y_true, student)
    return value.numpy(), tf.convert_to_tensor(tape.gradient(value, student)).numpy()


@pytest.mark.parametrize("shift", [0.0, 1.0])
@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name, shift):
    partner, same, expected, slope = BY_HAND[name]
    for flag in (same, float(same), bool(same)):
        y_true = {"logits": [[shift, shift]], "same": np.array([flag])}
        value, gradient = value_and_slope(PairDistillation(), y_true, np.array([partner]) + shift)
        assert value == pytest.approx(expected, rel=1e-6)
        assert gradient[0] == pytest.approx(slope, rel=1e-6)


def test_by_hand_in_one_batch():
    partners, same, values, slopes = zip(*BY_HAND.values(), strict=True)
    value, slope = value_and_slope(PairDistillation(), {"logits": 6 * [ZERO], "same": list(same)}, partners)
    assert value == pytest.approx(np.mean(values), rel=1e-6)
    assert slope * 6 == pytest.approx(np.array(slopes), rel=1e-6)
    rows = tf.zeros((6, 2)), tf.constant(partners), tf.constant(same)
    assert pair_distillation(*rows).numpy() == pytest.approx(np.array(values), rel=1e-6)
    # With margin 3: only (3 - 2)^2 and 3^2 change.
    assert pair_distillation(*rows, margin=3.0).numpy() == pytest.approx([25, 1, 0, 0, 0, 9], rel=1e-6)


def test_margin_may_change_without_retracing():
    loss = PairDistillation(margin=5.0)
    run = tf.function(lambda partner: loss({"logits": [ZERO], "same": [0]}, partner))
    assert float(run(tf.constant([[0.0, 2.0]]))) == 9.0
    loss.margin = 3.0
    assert float(run(tf.constant([[0.0, 2.0]]))) == 1.0


def test_statistics_by_hand():
    # Distances 5 and 0 within the class; 2, 13, 5, 0 to others, of which 2 and 0 are inside the margin.
    partners, same, _, _ = zip(*BY_HAND.values(), strict=True)
    y_true = {"logits": np.zeros((6, 2)), "same": np.array(same)}
    found = PairDistillation().statistics(y_true, np.array(partners))
    assert tuple(found) == PairDistillation.statistic_names == ("same_distance", "other_distance", "violated")
    assert [float(x) for x in found.values()] == pytest.approx([2.5, 5.0, 0.5], rel=1e-6)
    # All of one class: 5 + 2 + 13 + 5.
    found = PairDistillation().statistics({"logits": np.zeros((6, 2)), "same": np.ones(6)}, np.array(partners))
    assert [float(x) for x in found.values()] == pytest.approx([25 / 6, 0.0, 0.0], rel=1e-6)


# Partners from the batch

LABELS = np.array([5, 7, 5, 2, 7, 5, 7, 5, 7, 2, 0])
TEACHER, STUDENT = np.random.default_rng(5).normal(size=(2, 11, 4))


def distance(u, v):
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(u, v, strict=True)))


@functools.cache
def drawn(classes, seed):
    """Random rows of the class and of other classes, and coins: once for each, not for each difference quotient."""
    classes = np.array(classes)
    return (
        random_same_class(classes, seed)[0].numpy(),
        random_other_class(classes, seed)[0].numpy(),
        fair_coin(classes, seed).numpy(),
    )


def terms(miner, anchor, student, classes, seed, margin):
    """Of each anchor: whether its partner is of its class, and the distances that count.

    The random choices are the miners', whose own tests are elsewhere.
    """
    mates, others, coins = drawn(tuple(classes), seed)
    for i, same in enumerate(coins):
        rows = [distance(anchor[i], z) for z, c in zip(student, classes, strict=True) if c != classes[i]]
        farther = [d for d in rows if d > distance(anchor[i], student[i])]
        if same:
            yield True, [distance(anchor[i], student[mates[i]])]
        elif not rows or miner == "all":
            yield False, rows
        elif miner == "random":
            yield False, [distance(anchor[i], student[others[i]])]
        else:
            yield False, [min(rows) if miner == "hard" else min(farther) if farther else max(rows)]


def oracle(*arguments):
    values = []
    for same, distances in terms(*arguments):
        found = [d**2 if same else max(arguments[-1] - d, 0.0) ** 2 for d in distances]
        values.append(sum(found) / len(found) if found else 0.0)
    return np.array(values)


def central_slope(function, x, h=1e-6):
    slope = np.zeros_like(x)
    for entry in np.ndindex(x.shape):
        ends = [x.copy(), x.copy()]
        ends[0][entry] += h
        ends[1][entry] -= h
        slope[entry] = (function(ends[0]) - function(ends[1])) / (2 * h)
    return slope


# One compilation for each, so not every mode for every miner.
@pytest.mark.parametrize(
    "miner, mode",
    [*((miner, "eager") for miner in MINERS), ("all", "function"), ("semi_hard", "jit"), ("random", "jit")],
)
def test_partners_from_the_batch(miner, mode):
    weights = np.linspace(0.5, 2.0, 11)
    loss = PairDistillation(margin=3.0, miner=miner, seed=2, reduction="sum", dtype="float64")

    def run(student, step):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss({"logits": TEACHER, "labels": LABELS, "step": step}, student, weights)
        return value, tf.convert_to_tensor(tape.gradient(value, student))

    if mode != "eager":
        signature = [tf.TensorSpec([None, 4], "float64"), tf.TensorSpec([], "int64")]
        run = tf.function(run, jit_compile=mode == "jit", input_signature=signature)
    for step in (0, 7):
        value, slope = run(tf.constant(STUDENT), tf.constant(step, "int64"))

        def total(student, seed=(2, step)):
            return float(np.dot(weights, oracle(miner, TEACHER, student, LABELS, seed, 3.0)))

        assert value.numpy() == pytest.approx(total(STUDENT), rel=1e-10)
        assert slope.numpy() == pytest.approx(central_slope(total, STUDENT), abs=1e-6)


@pytest.mark.parametrize("miner", MINERS)
def test_statistics_of_the_losss_own_partners(miner):
    y_true = {"logits": TEACHER, "labels": LABELS, "step": np.int64(3)}
    found = PairDistillation(margin=3.0, miner=miner, dtype="float64").statistics(y_true, STUDENT)
    rows = list(terms(miner, TEACHER, STUDENT, LABELS, (0, 3), 3.0))
    assert {same for same, _ in rows} == {True, False}
    expected = [
        np.mean([d for same, (d, *_) in rows if same]),
        np.mean([np.mean(d) for same, d in rows if not same]),
        np.mean([np.mean(np.array(d) < 3.0) for same, d in rows if not same]),
    ]
    assert [float(x) for x in found.values()] == pytest.approx(expected, rel=1e-10)


def test_coins_are_fair_and_fall_anew_in_each_step():
    """Of one class and at distance 2, or of others and at distance 1: the value says how the coin fell."""
    anchor, student = np.zeros((40, 1)), np.repeat([[2.0], [1.0]], 20, axis=0)
    labels = np.repeat([0, 1], 20)
    loss = PairDistillation(margin=4.0, reduction=None)
    # Class 0: 2^2 or (4 - 1)^2. Class 1: 1^2 or (4 - 2)^2.
    values = np.stack([loss({"logits": anchor, "labels": labels, "step": step}, student) for step in range(60)])
    same = values == np.repeat([4.0, 1.0], 20)
    assert np.all(same | (values == np.repeat([9.0, 4.0], 20)))
    # 2400 fair coins: a standard deviation of 0.01.
    assert abs(same.mean() - 0.5) < 0.06
    assert abs((same[1:] == same[:-1]).mean() - 0.5) < 0.06


@pytest.mark.parametrize("miner", MINERS)
def test_without_another_class_only_pairs_of_one_class_count(miner):
    loss = PairDistillation(miner=miner, reduction=None, dtype="float64")
    seen = set()
    for step in range(4):
        y_true = {"logits": TEACHER[:3], "labels": [3, 3, 3], "step": step}
        value, slope = value_and_slope(loss, y_true, STUDENT[:3])
        same = fair_coin([3, 3, 3], (0, step)).numpy()
        assert np.array_equal(value > 0, same)
        seen.add(tuple(same))
        mates = random_same_class([3, 3, 3], (0, step))[0].numpy()[same]
        touched = np.isin(np.arange(3), mates)
        assert np.array_equal(np.any(slope != 0, axis=1), touched)
    assert len(seen) > 1


def test_an_image_that_is_alone_in_its_class_is_its_own_partner():
    student = np.array([[3.0, 4.0], [0.0, 2.0]])
    loss = PairDistillation(margin=50.0, reduction=None)
    for step in range(6):
        value = loss({"logits": [ZERO, ZERO], "labels": [0, 1], "step": step}, student).numpy()
        same = fair_coin([0, 1], (0, step)).numpy()
        assert value == pytest.approx(np.where(same, [25.0, 4.0], [48.0**2, 45.0**2]), rel=1e-6)


def test_classes_may_be_those_that_the_teacher_names():
    named = TEACHER.argmax(-1)
    loss = PairDistillation(negative_classes="teacher", reduction=None, dtype="float64")
    expected = oracle("random", TEACHER, STUDENT, named, (0, 0), 5.0)
    assert loss({"logits": TEACHER, "labels": LABELS}, STUDENT).numpy() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("miner", MINERS)
def test_half_precision_outputs_have_a_float32_loss(miner):
    teacher, student = tf.cast(TEACHER, "float16"), tf.cast(STUDENT, "float16")
    values = PairDistillation(miner=miner, reduction=None)({"logits": teacher, "labels": LABELS}, student)
    rounded = tf.cast(teacher, "float64").numpy(), tf.cast(student, "float64").numpy()
    assert values.dtype == "float32"
    assert values.numpy() == pytest.approx(oracle(miner, *rounded, LABELS, (0, 0), 5.0), rel=1e-5)


def test_a_nan_is_not_swallowed():
    for broken in (0, 1):
        pair = [TEACHER.copy(), STUDENT.copy()]
        pair[broken][2, 1] = np.nan
        for same in (0, 1):
            values = PairDistillation(reduction=None)({"logits": pair[0], "same": np.full(11, same)}, pair[1]).numpy()
            assert np.isnan(values).tolist() == [i == 2 for i in range(11)]


# As Keras's losses, and in the Distiller


def test_config_round_trip():
    arguments = {
        **{"margin": 2.5, "miner": "hard", "negative_classes": "teacher", "seed": 3, "name": "of_its_own"},
        **{"teacher_layers": "a", "student_layers": "b", "reduction": "sum", "dtype": "float64"},
    }
    loss = PairDistillation(**arguments)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(loss))))
    assert type(again) is PairDistillation and again.get_config() == loss.get_config() == arguments
    assert keras.saving.get_registered_name(PairDistillation) == "keras_tkd>PairDistillation"
    defaults = PairDistillation()
    assert (defaults.name, defaults.margin, defaults.miner, defaults.seed) == ("pairs", 5.0, "random", 0)
    assert defaults.negative_classes == "labels"


def test_inputs_prefer_the_partners_of_the_batch():
    teacher, own = {"logits": "t", "conv": "t conv"}, {"logits": "s", "stage": "s stage", "step": 3}
    both = own | {"partner": {"logits": "p", "stage": "p stage"}, "same": "same"}
    assert PairDistillation().inputs(teacher, both, None, None) == ({"logits": "t", "same": "same"}, "p")
    named = PairDistillation(teacher_layers="conv", student_layers="stage")
    assert named.inputs(teacher, both, None, None) == ({"logits": "t conv", "same": "same"}, "p stage")
    mined = ({"logits": "t", "labels": "labels", "step": 3}, "s")
    assert PairDistillation().inputs(teacher, own, "labels", None) == mined
    del both["same"]
    with pytest.raises(ValueError, match="'pairs' needs to know which partners are of their anchor's class"):
        PairDistillation().inputs(teacher, both, None, None)
    with pytest.raises(ValueError, match="'pairs' picks negatives inside the batch by their labels"):
        PairDistillation().inputs(teacher, own, None, None)


def test_errors():
    with pytest.raises(ValueError, match="'pairs' needs partners, or labels to pick them by"):
        PairDistillation()(np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="`margin` must be a number >= 0"):
        PairDistillation(margin=-1.0)
    with pytest.raises(ValueError, match="`miner` must be one of"):
        PairDistillation(miner="hardest")
    with pytest.raises(ValueError, match=r"'pairs' .*equal shape.*\(2, 1\)"):
        PairDistillation()({"logits": np.zeros((2, 3)), "same": [0, 1]}, np.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"'pairs' .*equal shape.*\(1,\)"):
        PairDistillation()({"logits": np.zeros((2, 3)), "same": [0]}, np.zeros((2, 3)))


def test_embeddings_of_another_width_are_projected():
    """By hand: the student's number is projected to (1, 2) times it."""
    loss = PairDistillation(margin=5.0, reduction=None, teacher_layers="a", student_layers="b")
    loss.build((None, 2), (None, 1))
    loss.layers[0].set_weights([np.array([[1.0, 2.0]])])
    # (2, 4) from (-1, 0): 5^2; (1, 2) from (1, 0): (5 - 2)^2.
    y_true = {"logits": np.array([[-1.0, 0.0], [1.0, 0.0]]), "same": np.array([1, 0])}
    assert loss(y_true, np.array([[2.0], [1.0]])).numpy() == pytest.approx([25.0, 9.0], rel=1e-6)


@pytest.mark.parametrize("given", [True, False])
def test_in_the_distiller(given):
    """Identity-like linear models: the loss is that of the numbers that go in."""
    keras.utils.set_random_seed(0)
    teacher, student = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)]) for _ in range(2))
    distiller = Distiller(teacher, student, PairDistillation(margin=3.0))
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    x, labels = STUDENT.astype("float32"), LABELS % 4
    same = (np.arange(11) % 2).astype(bool)
    data = {"image": x, "partner": x[::-1].copy(), "same": same} if given else x
    found = distiller.evaluate(data, labels, batch_size=11, verbose=0, return_dict=True)
    z_t, z_s = teacher.predict(x, verbose=0), student.predict(x, verbose=0)
    if given:
        expected = pair_distillation(tf.constant(z_t), tf.constant(z_s[::-1].copy()), tf.constant(same), 3.0).numpy()
    else:
        expected = oracle("random", z_t.astype("float64"), z_s.astype("float64"), labels, (0, 0), 3.0)
    assert found["pairs"] == pytest.approx(expected.mean(), rel=1e-5)
    before = [weight.copy() for weight in student.get_weights()]
    distiller.fit(data, labels, batch_size=11, verbose=0)
    assert not np.array_equal(before[0], student.get_weights()[0])
