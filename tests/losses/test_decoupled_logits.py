"""Losses that part the label's class from the others, by hand. What holds for every loss: `test_contract.py`."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.losses import DecoupledTargets, NormalizedTargets, decoupled_targets, soft_targets

LOG2, LOG3 = math.log(2), math.log(3)
# Softened to (1/2, 1/4, 1/4) and to (1/5, 3/5, 1/5); the label is 0.
# As two classes: (1/2, 1/2) and (1/5, 4/5). Among the others: (1/2, 1/2) and (3/4, 1/4).
TEACHER, STUDENT = np.array([[LOG2, 0.0, 0.0]]), np.array([[0.0, LOG3, 0.0]])
# 1/2 log(5/2) + 1/2 log(5/8), 1/2 log(2/3) + 1/2 log 2
TCKD, NCKD = math.log(5 / 4), math.log(4 / 3) / 2


def value_and_gradient(loss, teacher, labels, student):
    student = tf.constant(student, loss.dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss({"logits": teacher, "labels": np.array(labels)}, student)
    return value.numpy(), tape.gradient(value, student).numpy()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.5])
@pytest.mark.parametrize("alpha, beta", [(1.0, 0.0), (0.0, 1.0), (2.0, 3.0), (1.0, 8.0), (0.0, 0.0)])
def test_decoupled_by_hand(temperature, alpha, beta):
    """Logits T times as large soften to the same; the slope is T times that of T = 1."""
    loss = DecoupledTargets(temperature, alpha, beta, dtype="float64")
    value, gradient = value_and_gradient(loss, temperature * TEACHER, [0], temperature * STUDENT)
    assert value == pytest.approx(temperature**2 * (alpha * TCKD + beta * NCKD), rel=1e-12)
    # p_s - p_t of the two classes, what is the others' spread as (3/4, 1/4); q_s - q_t among the others.
    expected = alpha * np.array([-0.3, 0.3 * 3 / 4, 0.3 / 4]) + beta * np.array([0, 1 / 4, -1 / 4])
    assert gradient[0] == pytest.approx(temperature * expected, rel=1e-12, abs=1e-15)


def test_decoupled_of_a_uniform_teacher_by_hand():
    # Three classes: (1/3, 2/3) against (1/2, 1/2) and (1/2, 1/2) against (1/2, 1/2) among the others.
    loss = DecoupledTargets(1.0, dtype="float64")
    value, _ = value_and_gradient(loss, np.zeros((1, 3)), [1], [[0.0, LOG2, 0.0]])
    assert value == pytest.approx(math.log(2 / 3) / 3 + 2 * math.log(4 / 3) / 3, rel=1e-12)
    # Two classes leave nothing to tell the others apart by, whatever beta is.
    value, _ = value_and_gradient(loss, np.zeros((1, 2)), [0], [[LOG3, 0.0]])
    assert value == pytest.approx(math.log(4 / 3) / 2, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_targets_are_the_sum_of_both_parts(temperature):
    """KL = TCKD + (1 - p_t[y]) NCKD, equation 6 of the paper."""
    rng = np.random.default_rng(0)
    teacher, student = 5.0 * rng.normal(size=(2, 20, 7))
    labels = rng.integers(7, size=20)
    target = np.eye(7)[labels]
    parts = [decoupled_targets(teacher, student, target, temperature, *weights) for weights in ((1.0, 0.0), (0.0, 1.0))]
    p = np.exp(teacher / temperature) / np.sum(np.exp(teacher / temperature), axis=1, keepdims=True)
    expected = parts[0] + (1.0 - p[np.arange(20), labels]) * parts[1]
    assert soft_targets(teacher, student, temperature).numpy() == pytest.approx(expected.numpy(), rel=1e-9)


def test_each_part_is_blind_to_the_others():
    rng = np.random.default_rng(1)
    teacher, student = rng.normal(size=(2, 4, 5))
    y_true = {"logits": teacher, "labels": np.zeros(4, int)}
    among = DecoupledTargets(alpha=0.0, reduction=None, dtype="float64")
    moved = student + [3.0, 0, 0, 0, 0]
    assert among(y_true, moved).numpy() == pytest.approx(among(y_true, student).numpy(), rel=1e-12)
    two_classes = DecoupledTargets(beta=0.0, reduction=None, dtype="float64")
    turned = student[:, [0, 4, 1, 2, 3]]
    assert two_classes(y_true, turned).numpy() == pytest.approx(two_classes(y_true, student).numpy(), rel=1e-12)
    for loss, changed in ((among, turned), (two_classes, moved)):
        assert np.all(np.abs(loss(y_true, changed) - loss(y_true, student)) > 1e-3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_normalized_by_hand(temperature):
    """The temperature acts among the others alone: -(log(3/4) + log(1/4)) / 2 for logits T times as large."""
    student = np.array([[0.0, temperature * LOG3, 0.0]])
    p_s = np.array([1.0, 3.0**temperature, 1.0]) / (2.0 + 3.0**temperature)
    loss = NormalizedTargets(temperature, gamma=1.5, dtype="float64")
    value, gradient = value_and_gradient(loss, TEACHER, [0], student)
    assert value == pytest.approx(-0.5 * math.log(p_s[0]) + 1.5 * temperature**2 * math.log(16 / 3) / 2, rel=1e-12)
    expected = 0.5 * (p_s - [1, 0, 0]) + 1.5 * temperature * np.array([0, 1 / 4, -1 / 4])
    assert gradient[0] == pytest.approx(expected, rel=1e-12)


def test_normalized_of_a_sure_teacher_is_the_cross_entropy():
    # p_t[y] = 1: -log(1/5). The others are level: log(16/3) / 2.
    loss = NormalizedTargets(1.0, gamma=2.0, dtype="float64")
    value, _ = value_and_gradient(loss, [[1e4, 0.0, 0.0]], [0], STUDENT)
    assert value == pytest.approx(math.log(5) + math.log(16 / 3), rel=1e-12)


# Labels

BOTH = pytest.mark.parametrize("loss", [DecoupledTargets, NormalizedTargets], ids=["dkd", "nkd"])


@BOTH
def test_each_row_has_its_own_label(loss):
    rows = np.repeat(TEACHER, 3, axis=0), np.repeat(STUDENT, 3, axis=0)
    together = loss(reduction=None)({"logits": rows[0], "labels": np.arange(3)}, rows[1])
    alone = [float(loss()({"logits": TEACHER, "labels": [label]}, STUDENT)) for label in range(3)]
    assert together.numpy() == pytest.approx(alone, rel=1e-6)
    assert len(set(np.round(alone, 3))) == 3
    # A column of labels is as good, of any type of whole numbers.
    for labels in (np.arange(3)[:, None], np.arange(3, dtype="uint8"), np.arange(3, dtype="int32")):
        assert np.array_equal(loss(reduction=None)({"logits": rows[0], "labels": labels}, rows[1]), together)


@BOTH
def test_labels_are_not_rounded_to_the_losss_dtype(loss):
    """float16 cannot tell 2049 from 2048. A teacher sure of the label asks for about log(2050) = 7.6."""
    teacher = np.zeros((1, 2050), "float32")
    teacher[0, 2049] = 40.0
    weights = {"alpha": 1.0, "beta": 0.0} if loss is DecoupledTargets else {"gamma": 0.0}
    value = loss(temperature=1.0, dtype="float16", **weights)(
        {"logits": teacher, "labels": [2049]}, np.zeros((1, 2050))
    )
    assert float(value) == pytest.approx(math.log(2050), rel=1e-2)


@BOTH
def test_labels_are_needed(loss):
    with pytest.raises(ValueError, match="reads labels, and the data have none"):
        loss().inputs({"logits": 0}, {"logits": 0, "step": 0}, None, None)
    for y_true in (TEACHER, {"logits": TEACHER}):
        with pytest.raises(ValueError, match="reads labels"):
            loss()(y_true, STUDENT)


@BOTH
def test_inputs_are_the_outputs_asked_for(loss):
    teacher, student = {"logits": "t", "head": "t head"}, {"logits": "s", "head": "s head", "step": 3}
    assert loss().inputs(teacher, student, "labels", None) == ({"logits": "t", "labels": "labels"}, "s")
    named = loss(teacher_layers="head", student_layers="head")
    assert named.inputs(teacher, student, "labels", "index") == ({"logits": "t head", "labels": "labels"}, "s head")


# Numbers


def test_defaults():
    loss = DecoupledTargets()
    assert (loss.temperature, loss.alpha, loss.beta) == (4.0, 1.0, 8.0)
    loss = NormalizedTargets()
    assert (loss.temperature, loss.gamma) == (1.0, 1.5)


@pytest.mark.parametrize(
    "loss, argument, number",
    [
        *(
            (loss, "temperature", number)
            for loss in (DecoupledTargets, NormalizedTargets)
            for number in (0.0, -1.0, "4")
        ),
        *((DecoupledTargets, argument, number) for argument in ("alpha", "beta") for number in (-0.1, math.nan, None)),
        *((NormalizedTargets, "gamma", number) for number in (-0.1, math.inf)),
    ],
)
def test_numbers_out_of_range_are_an_error(loss, argument, number):
    with pytest.raises(ValueError, match=f"`{argument}` must be a number"):
        loss(**{argument: number})


@pytest.mark.parametrize("loss", [DecoupledTargets(reduction=None), NormalizedTargets(reduction=None)])
def test_a_label_that_is_no_class_is_no_number(loss):
    """A plausible number would let training go on with wrong labels."""
    logits = np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]])
    values = loss({"logits": logits, "labels": [3, 1, -1]}, 2 * logits).numpy()
    assert np.isnan(values).tolist() == [True, False, True]
