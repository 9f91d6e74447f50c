"""Losses on logits against numbers derived by hand. What holds for every loss is in `test_contract.py`."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.losses import LogitRegression, SoftTargets, logit_regression, soft_targets

BAD_TEMPERATURES = [0, 0.0, -0.0, -1.0, math.nan, math.inf, -math.inf, True, "4", None, [4.0], 4j]


def value_and_gradient(loss, teacher, student):
    student = tf.constant(student, loss.dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(np.array(teacher, "float64"), student)
    return value.numpy(), tape.gradient(value, student).numpy()


# Soft targets


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_soft_targets_by_hand(temperature):
    """Logits T log 3 and 0 soften to 3/4 and 1/4 at every T; zeros to 1/2 and 1/2."""
    loss = SoftTargets(temperature=temperature, dtype="float64")
    steep, flat = [[temperature * math.log(3.0), 0.0]], [[0.0, 0.0]]
    # KL((1/2, 1/2) || (3/4, 1/4)) = 1/2 log(2/3) + 1/2 log 2 = 1/2 log(4/3); the slope is T (p_s - p_t).
    value, gradient = value_and_gradient(loss, flat, steep)
    assert value == pytest.approx(temperature**2 * 0.5 * math.log(4 / 3), rel=1e-12)
    assert gradient[0] == pytest.approx([temperature * 0.25, temperature * -0.25], rel=1e-12)
    # The other way round it is another number: KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 log(3/2) + 1/4 log(1/2).
    value, gradient = value_and_gradient(loss, steep, flat)
    assert value == pytest.approx(temperature**2 * (0.75 * math.log(1.5) - 0.25 * math.log(2)), rel=1e-12)
    assert gradient[0] == pytest.approx([temperature * -0.25, temperature * 0.25], rel=1e-12)


def test_soft_targets_function_gives_one_value_per_sample():
    # As above, T = 2: 4 * 1/2 log(4/3), then zero.
    teacher = tf.zeros((2, 2), "float64")
    student = tf.constant([[2 * math.log(3.0), 0.0], [7.0, 7.0]], "float64")
    assert soft_targets(teacher, student, 2.0).numpy() == pytest.approx([2 * math.log(4 / 3), 0.0], abs=1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_soft_targets_far_from_the_teacher(dtype):
    """One class against another: 40 nats and a full-sized slope, where clipped probabilities saturate.

    p_t and p_s are one-hot to 2 e^-40: KL = log p_t[0] - log p_s[0] = 0 - (0 - 40). The slope is p_s - p_t.
    """
    loss = SoftTargets(temperature=1.0, dtype=dtype)
    first, second = [[40.0, 0.0, 0.0]], [[0.0, 40.0, 0.0]]
    value, gradient = value_and_gradient(loss, first, second)
    assert value == pytest.approx(40.0, rel=1e-6)
    assert gradient[0] == pytest.approx([-1.0, 1.0, 0.0], abs=1e-6)
    value, gradient = value_and_gradient(loss, second, first)
    assert value == pytest.approx(40.0, rel=1e-6)
    assert gradient[0] == pytest.approx([1.0, -1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_targets_of_saturated_logits(temperature):
    # log p_t - log p_s = 2e4 / T where p_t is 1, times T^2; the slope is T (p_s - p_t).
    loss = SoftTargets(temperature=temperature)
    value, gradient = value_and_gradient(loss, [[1e4, -1e4]], [[-1e4, 1e4]])
    assert value == pytest.approx(2e4 * temperature, rel=1e-6)
    assert gradient[0] == pytest.approx([-temperature, temperature], rel=1e-6)


def test_soft_targets_of_high_temperature_compare_centred_logits():
    """For large T, T^2 KL tends to 1 / (2 C) sum of d^2, d = z_t - z_s less its mean (Hinton, 2.1)."""
    # d = (1, 4, -2) has mean 1: (0, 3, -3), 18 / (2 * 3) = 3.
    value, _ = value_and_gradient(SoftTargets(1e4, dtype="float64"), [[2.0, 3.0, 0.0]], [[1.0, -1.0, 2.0]])
    assert value == pytest.approx(3.0, rel=1e-3)


def test_standardized_two_classes_by_hand():
    """Any two unequal logits become (a, -a), a = 1 / sqrt(2): mean 0, sample variance 2 a^2 / (2 - 1) = 1.

    With s = sigmoid(2 a / T) a teacher's (a, -a) softens to (s, 1 - s), and a student's (-a, a) differs from
    it by (2 a / T, -2 a / T) in log-probability: T^2 KL = T^2 (2 s - 1) 2 a / T.
    """
    temperature, a = 2.0, 1 / math.sqrt(2)
    s = 1 / (1 + math.exp(-2 * a / temperature))
    loss = SoftTargets(temperature, standardize=True, reduction=None, dtype="float64")
    teacher, student = [[5.0, 1.0], [5.0, 1.0], [-3.0, 8.0]], [[-7.0, 2.0], [2.0, -7.0], [1.0, 0.5]]
    opposed = temperature * (2 * s - 1) * 2 * a
    # 1e-7 beside a standard deviation of 0.35 at least.
    values = loss(np.array(teacher), np.array(student)).numpy()
    assert values == pytest.approx([opposed, 0.0, opposed], rel=1e-6, abs=1e-12)


def test_standardized_constant_student_row():
    """A constant row is z-scored to zeros, and its slope there is finite: that of (z - mean) / 1e-7.

    Two teacher classes, z-scored to (a, -a): p_t = (s, 1 - s). T^2 KL(p_t || uniform) is T^2 times log 2 less
    the entropy of p_t; the slope T (p_s - p_t) / 1e-7 has mean zero already.
    """
    temperature, a = 2.0, 1 / math.sqrt(2)
    s = 1 / (1 + math.exp(-2 * a / temperature))
    entropy = -s * math.log(s) - (1 - s) * math.log(1 - s)
    loss = SoftTargets(temperature, standardize=True, dtype="float64")
    for row in ([0.0, 0.0], [3.0, 3.0]):
        value, gradient = value_and_gradient(loss, [[4.0, 0.0]], [row])
        assert value == pytest.approx(temperature**2 * (math.log(2) - entropy), rel=1e-6)
        slope = temperature * (0.5 - s) / 1e-7
        assert gradient[0] == pytest.approx([slope, -slope], rel=1e-6)
        # A constant teacher teaches a constant student nothing.
        value, gradient = value_and_gradient(loss, [row], [row])
        assert value == 0.0 and gradient.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("temperature", BAD_TEMPERATURES, ids=repr)
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="`temperature` must be a number > 0. Received: temperature="):
        SoftTargets(temperature=temperature)
    loss = SoftTargets(temperature=2.0)
    with pytest.raises(ValueError, match="`temperature` must be a number > 0. Received: temperature="):
        loss.temperature = temperature
    # What is refused changes nothing. T = 2 of the first test above.
    assert loss.temperature == 2.0
    value, _ = value_and_gradient(loss, [[0.0, 0.0]], [[2 * math.log(3.0), 0.0]])
    assert value == pytest.approx(2 * math.log(4 / 3), rel=1e-6)


def test_soft_targets_defaults_and_flags():
    assert SoftTargets().temperature == 4.0
    assert SoftTargets().standardize is False
    assert SoftTargets(standardize=1).standardize is True


# Logit regression


def test_logit_regression_by_hand():
    # (9 + 1 + 0) / 3, (0 + 0 + 36) / 3; the slope is 2 (z_s - z_t) / 3, over the two samples of the mean.
    loss = LogitRegression(dtype="float64")
    value, gradient = value_and_gradient(loss, [[1, 2, 3], [0, 0, 6]], [[4, 1, 3], [0, 0, 0]])
    assert value == pytest.approx((10 / 3 + 12) / 2, rel=1e-14)
    assert gradient == pytest.approx(np.array([[6, -2, 0], [0, 0, -12]]) / 3 / 2, rel=1e-14)


def test_logit_regression_sees_a_shift():
    """(d + 1)^2 = d^2 + 2 d + 1, d = z_s - z_t: all student logits plus one add 2 mean(d) + 1 to the loss."""
    # d = (3, -1, 0) and (0, 0, -6): means 2/3 and -2.
    teacher, student = np.array([[1.0, 2, 3], [0, 0, 6]]), np.array([[4.0, 1, 3], [0, 0, 0]])
    loss = LogitRegression(reduction=None, dtype="float64")
    added = loss(teacher, student + 1) - loss(teacher, student)
    assert added.numpy() == pytest.approx([2 * 2 / 3 + 1, 2 * -2 + 1], rel=1e-12)
    # A shift of both is none.
    assert loss(teacher + 1, student + 1).numpy() == pytest.approx(loss(teacher, student).numpy(), rel=1e-12)


def test_logit_regression_of_maps_averages_over_all_axes_but_the_first():
    # Differences 0..3 in the first map: (0 + 1 + 4 + 9) / 4; 2 everywhere in the second: 4.
    teacher = tf.zeros((2, 2, 2))
    student = tf.constant([[[0.0, 1.0], [2.0, 3.0]], [[2.0, 2.0], [2.0, 2.0]]])
    assert logit_regression(teacher, student).numpy().tolist() == [3.5, 4.0]
    assert LogitRegression(reduction=None)(teacher, student).numpy().tolist() == [3.5, 4.0]


# Both


@pytest.mark.parametrize("loss", [SoftTargets(), LogitRegression()], ids=["kd", "logits"])
def test_unequal_shapes(loss):
    full = np.zeros((4, 3))
    for other in (np.zeros((4, 1)), np.zeros((1, 3)), np.zeros((4, 2)), np.zeros((4, 3, 1)), np.zeros(3)):
        for teacher, student in ((full, other), (other, full)):
            with pytest.raises(ValueError, match=f"'{loss.name}' compares outputs of equal shape"):
                loss(teacher, student)
    # While a graph is traced the batch size is unknown, the classes are not.
    spec = [tf.TensorSpec((None, 1)), tf.TensorSpec((None, 3))]
    with pytest.raises(ValueError, match="compares outputs of equal shape"):
        tf.function(loss, input_signature=spec).get_concrete_function()


@pytest.mark.parametrize("loss", [SoftTargets(), LogitRegression()], ids=["kd", "logits"])
def test_build_refuses_what_it_cannot_compare(loss):
    loss.build((None, 10), (None, 10))
    loss.build((32, 10), (None, 10))
    for shapes in [((None, 10), (None, 1)), ((None, 10), (None, 100)), ((None, 4, 4, 8), (None, 8))]:
        with pytest.raises(ValueError, match=f"'{loss.name}' compares one output of the teacher with one"):
            loss.build(*shapes)
    with pytest.raises(ValueError, match="compares one output of the teacher with one"):
        loss.build([(None, 10), (None, 5)], [(None, 10), (None, 5)])
    assert loss.layers == []
    assert loss.statistic_names == () and loss.statistics(None, None) == {}


@pytest.mark.parametrize("loss", [SoftTargets, LogitRegression])
def test_inputs_are_the_outputs_asked_for(loss):
    teacher, student = {"logits": "t", "conv": "t conv"}, {"logits": "s", "stage": "s stage", "step": 3}
    assert loss().inputs(teacher, student, None, None) == ("t", "s")
    named = loss(teacher_layers="conv", student_layers="stage")
    assert named.inputs(teacher, student, None, None) == ("t conv", "s stage")
    # One name against None, the final output.
    assert loss(teacher_layers="conv").inputs(teacher, student, None, None) == ("t conv", "s")
    assert loss(student_layers="stage").inputs(teacher, student, None, None) == ("t", "s stage")
    assert loss(teacher_layers=("conv", "logits"), student_layers=["logits", "stage"]).inputs(
        teacher, student, None, None
    ) == (["t conv", "t"], ["s", "s stage"])
