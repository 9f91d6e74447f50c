"""Losses on feature maps, and their projectors, by hand. What holds for every loss: `test_contract.py`."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.losses import AttentionTransfer, ContrastiveRepresentation, FlowOfSolution, Hint, VariationalInformation


def maps(*values):
    """One sample of one channel, from rows of numbers: `(1, height, width, 1)`."""
    return np.array(values, "float64")[None, :, :, None]


# Attention


def test_attention_by_hand():
    """Energies (9, 0, 0, 16) of norm sqrt(337) against (0, 0, 0, 1), of signs and scale no trace."""
    expected = (2 - 32 / math.sqrt(337)) / 4
    for teacher in (maps([3, 0], [0, 4]), maps([-3, 0], [0, 4]), maps([0.3, 0], [0, -0.4])):
        for student in (maps([0, 0], [0, 1]), maps([0, 0], [0, -50])):
            assert float(AttentionTransfer(dtype="float64")(teacher, student)) == pytest.approx(expected, rel=1e-12)


def test_attention_averages_energy_over_channels():
    # Energies 9 + 16 and 25: level. Against (1, 0): ((1 / sqrt 2 - 1)^2 + 1 / 2) / 2.
    teacher = np.array([[[[3.0, 4.0], [5.0, 0.0]]]])
    assert float(AttentionTransfer(dtype="float64")(teacher, np.full((1, 1, 2, 7), 2.0))) == pytest.approx(0, abs=1e-30)
    value = float(AttentionTransfer(dtype="float64")(teacher, maps([1, 0])))
    assert value == pytest.approx(1 - 1 / math.sqrt(2), rel=1e-12)


def test_attention_of_nothing_is_nothing():
    # What is left is the other side's: norm 1 over 4 positions.
    values = AttentionTransfer(reduction=None)(maps([3, 0], [0, 4]), np.zeros((1, 2, 2, 5)))
    assert values.numpy() == pytest.approx([0.25], rel=1e-6)


def test_layers_of_attention_add_up():
    # Twice the docstring's 1.0, of maps of different sizes, and a pair that is equal.
    pair = maps([3, 0]), maps([0, 2])
    tall = maps([3], [0]), maps([0], [2])
    loss = AttentionTransfer()
    assert float(loss([[[[3.0], [0.0]]]], [[[[0.0], [2.0]]]])) == pytest.approx(1.0, rel=1e-6)
    value = loss([pair[0], tall[0], pair[0]], [pair[1], tall[1], pair[0]])
    assert float(value) == pytest.approx(2.0, rel=1e-6)


# Rows of n numbers, and their averages in m cells: cell i covers floor(i n / m) to ceil((i + 1) n / m).
POOLED = {
    "4 to 2": ([1, 3, 5, 9], [2, 7]),
    "5 to 3": ([0, 1, 2, 3, 4], [0.5, 2, 3.5]),
    "5 to 2": ([0, 3, 6, 9, 3], [3, 6]),
    "3 to 2": ([1, 2, 4], [1.5, 3]),
    "4 to 1": ([1, 2, 3, 6], [3]),
    "3 to 3": ([1, 2, 4], [1, 2, 4]),
}


@pytest.mark.parametrize("larger", ["teacher", "student"])
@pytest.mark.parametrize("name", POOLED)
def test_larger_maps_are_pooled_to_the_smaller(name, larger):
    """Maps that vary along one axis; the other is of one size, or pooled too."""
    many, few = (np.array(row, "float64") for row in POOLED[name])
    n, m = len(many), len(few)
    # Beside the row, a row of ones, so that a factor of the maps shows.
    for repeated_many, repeated_few in ((1, 1), (n, m)):
        large, small = (
            np.stack([np.tile(row, (repeats, 1)), np.ones((repeats, len(row)))], axis=0)[:, :, :, None]
            for row, repeats in ((many, repeated_many), (few, repeated_few))
        )
        for turn in (False, True):
            pair = [np.swapaxes(x, 1, 2) if turn else x for x in (large, small)]
            projector = identity_hint(pair[0].shape, pair[1].shape)
            teacher, student = pair if larger == "teacher" else pair[::-1]
            assert projector(teacher, student).numpy() == pytest.approx([0.0, 0.0], abs=1e-12)
            # One more everywhere is one more in each cell.
            assert projector(teacher, student + 1).numpy() == pytest.approx([1.0, 1.0], rel=1e-12)


def test_only_the_larger_axis_is_pooled():
    # 1 x 4 against 2 x 2: the width of one, the height of the other.
    teacher, student = maps([1, 3, 5, 9]), maps([1, 6], [3, 8])
    loss = identity_hint(teacher.shape, student.shape)
    assert loss(teacher, student).numpy() == pytest.approx([0.0], abs=1e-12)


def test_attention_is_taken_after_pooling():
    # (1, -1) pools to 0; its energy would pool to 1.
    values = AttentionTransfer(reduction=None)(maps([1, -1, 2, 2]), maps([0, 1]))
    assert values.numpy() == pytest.approx([0.0], abs=1e-12)


@pytest.mark.parametrize("loss", [AttentionTransfer(), FlowOfSolution()], ids=lambda loss: loss.name)
def test_maps_are_needed(loss):
    vectors, image = np.zeros((2, 3)), np.zeros((2, 2, 2, 3))
    for teacher, student, shown in (
        ([vectors] * 2, [image] * 2, r"teacher \(None, 3\).*; student \(None, 2, 2, 3\)"),
        ([image] * 2, [vectors] * 2, r"teacher \(None, 2, 2, 3\).*; student \(None, 3\)"),
    ):
        with pytest.raises(ValueError, match=f"'{loss.name}' reads feature maps.*{shown}"):
            loss(teacher, student)
        with pytest.raises(ValueError, match=f"'{loss.name}' reads feature maps.*{shown}"):
            loss.build([(None, *x.shape[1:]) for x in teacher], [(None, *x.shape[1:]) for x in student])
    with pytest.raises(ValueError, match="of known size"):
        loss.build([(None, None, None, 3)] * 2, [(None, 2, 2, 3)] * 2)


@pytest.mark.parametrize("loss", [AttentionTransfer, Hint, VariationalInformation])
@pytest.mark.parametrize(
    "teacher, student",
    # 8 is no square of patches; two tokens more are not one class token.
    [((None, 9, 3), (None, 8, 3)), ((None, 8, 3), (None, 9, 3)), ((None, 6, 3), (None, 4, 3))],
)
def test_tokens_of_other_numbers_are_refused(loss, teacher, student):
    with pytest.raises(ValueError, match=r"position by position.*class token.*teacher \(None.*; student \(None"):
        loss().build(teacher, student)


def test_attention_of_tokens_by_hand():
    """The teacher's class token, 9, does not count: energies (9, 0, 0, 16) and (0, 0, 0, 4)."""
    teacher, student = [[[9.0], [3.0], [0.0], [0.0], [4.0]]], [[[0.0], [0.0], [0.0], [2.0]]]
    norm = (81 + 256) ** 0.5
    expected = ((9 / norm) ** 2 + (16 / norm - 1) ** 2) / 4
    assert float(AttentionTransfer(dtype="float64")(teacher, student)) == pytest.approx(expected, rel=1e-12)


# Hints


def identity_hint(teacher_shape, student_shape):
    """A projector that changes no positive number."""
    loss = Hint(reduction=None, dtype="float64")
    loss.build((None, *teacher_shape[1:]), (None, *student_shape[1:]))
    (projector,) = loss.layers
    width = teacher_shape[-1]
    projector.layers[0].set_weights([np.eye(width)])
    projector.layers[1].set_weights([np.ones(width), np.zeros(width), np.zeros(width), np.full(width, 1 - 1e-5)])
    return loss


def test_hint_by_hand():
    loss = identity_hint((None, 2), (None, 2))
    # ReLU: -3 becomes 0. ((1 - 5)^2 + (0 - 2)^2) / 2
    student = tf.constant([[1.0, -3.0]], "float64")
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(np.array([[5.0, 2.0]]), student)
    assert value.numpy() == pytest.approx([10.0], rel=1e-12)
    assert tape.gradient(value, student).numpy()[0] == pytest.approx([-4.0, 0.0], rel=1e-12)


def test_projector_goes_by_the_batch_in_training_alone():
    """Features 1 and 5: mean 3, variance 4, so -1 and 1 but for the 1e-5; the ReLU makes it 0 and 1."""
    loss = identity_hint((None, 1), (None, 1))
    normalization = loss.layers[0].layers[1]
    # Statistics as at the start.
    normalization.set_weights([np.ones(1), np.zeros(1), np.zeros(1), np.ones(1)])
    teacher, student = np.zeros((2, 1)), np.array([[1.0], [5.0]])
    for _ in range(2):
        # By the moving statistics, mean 0 and variance 1, which stay as they are.
        outside = loss(teacher, student)
        assert outside.numpy() == pytest.approx([1 / (1 + 1e-5), 25 / (1 + 1e-5)], rel=1e-12)
    assert loss(teacher, student, training=True).numpy() == pytest.approx([0.0, 4 / (4 + 1e-5)], rel=1e-12)
    mean, variance = normalization.get_weights()[2:]
    # 0.9 * 0 + 0.1 * 3, 0.9 * 1 + 0.1 * 4
    assert (mean[0], variance[0]) == pytest.approx((0.3, 1.3), rel=1e-12)
    assert loss(teacher, student).numpy() == pytest.approx(np.array([0.7**2, 4.7**2]) / (1.3 + 1e-5), rel=1e-12)
    assert normalization.get_weights()[2:] == [mean, variance]


def test_projector_learns():
    loss = identity_hint((None, 1), (None, 1))
    kernel = loss.layers[0].layers[0].kernel
    with tf.GradientTape() as tape:
        # (2 w - 6)^2 at w = 1: 16, of slope 2 (2 w - 6) 2.
        value = loss(np.array([[6.0]]), np.array([[2.0]]))
    assert float(value[0]) == pytest.approx(16.0, rel=1e-12)
    assert tape.gradient(value, kernel.value).numpy()[0, 0] == pytest.approx(-16.0, rel=1e-12)
    # Kernel, gamma, beta; not the moving statistics.
    assert len(loss.layers[0].trainable_variables) == 3


@pytest.mark.parametrize("loss", [Hint, VariationalInformation])
def test_layers_are_built_once_for_each_pair(loss):
    loss = loss()
    assert loss.layers == []
    with pytest.raises(ValueError, match=r"loss.build\(teacher_shapes, student_shapes\)"):
        loss(np.zeros((2, 3)), np.zeros((2, 3)))
    shapes = [(None, 4, 4, 3), (None, 6)], [(None, 2, 2, 5), (None, 7)]
    loss.build(*shapes)
    layers = list(loss.layers)
    assert len(layers) == 2
    loss.build(*shapes)
    assert all(a is b for a, b in zip(loss.layers, layers, strict=True))
    with pytest.raises(ValueError, match="1 outputs, 2 layers"):
        loss(np.zeros((2, 6)), np.zeros((2, 7)))
    # The widths are those of the build.
    with pytest.raises(ValueError, match="equal shape"):
        loss([np.zeros((2, 4, 4, 1)), np.zeros((2, 6))], [np.zeros((2, 2, 2, 5)), np.zeros((2, 7))])


@pytest.mark.parametrize("loss", [Hint, VariationalInformation])
@pytest.mark.parametrize(
    "teacher, student",
    [
        ((None, 4, 4, 3), (None, 3)),
        ((None, 3), (None, 4, 4, 3)),
        ((None, 4, 3), (None, 2, 2, 3)),
        ((None, None, 3), (None, 4, 3)),
        ((None, None, None, 3), (None, 4, 4, 3)),
    ],
)
def test_outputs_of_different_kind_are_an_error(loss, teacher, student):
    with pytest.raises(ValueError, match="of known size, of the same kind on both sides"):
        loss().build(teacher, student)


# Variational information


def built(start, **arguments):
    loss = VariationalInformation(start, dtype="float64", **arguments)
    loss.build((None, 2), (None, 3))
    return loss


@pytest.mark.parametrize("start", [5.0, 1.0, 0.01, 1e-4, 1000.0])
def test_variance_starts_as_given(start):
    """Without a bias the regressor says 0 of zeros: 1/2 (f^2 / v + log v)."""
    loss = built(start, reduction=None)
    teacher = np.array([[2.0, 2.0], [0.0, 0.0]])
    expected = [0.5 * (4 / start + math.log(start)), 0.5 * math.log(start)]
    assert loss(teacher, np.zeros((2, 3))).numpy() == pytest.approx(expected, rel=1e-9)


def test_regressor_by_hand():
    """1 and 2 become relu(1 * 3) = 3, relu(2 * -1) = 0; then 3 and 0; then -6 and 0."""
    loss = VariationalInformation(1.0, dtype="float64")
    loss.build((None, 2), (None, 2))
    for layer, diagonal in zip(loss.layers[0].dense, ([3.0, -1.0], [1.0, 1.0], [-2.0, 1.0]), strict=True):
        layer.set_weights([np.diag(diagonal)])
    # ((1 + 6)^2 + 3^2) / 2 / 2, and log 1
    assert float(loss(np.array([[1.0, 3.0]]), np.array([[1.0, 2.0]]))) == pytest.approx(58 / 4, rel=1e-9)


def test_variance_and_regressor_learn():
    loss = built(5.0)
    (regressor,) = loss.layers
    teacher = np.array([[3.0, 1.0]])
    with tf.GradientTape() as tape:
        value = loss(teacher, np.zeros((1, 3)))
    slope = tape.gradient(value, regressor.raw_variance.value).numpy()
    # d/dv 1/2 (f^2 / v + log v) = 1/2 (1 / v - f^2 / v^2), a mean of two; d/dp softplus(p) = 1 - exp(-softplus(p))
    rate = 1 - math.exp(-(5 - 1e-5))
    assert slope == pytest.approx([0.25 * (1 / 5 - 9 / 25) * rate, 0.25 * (1 / 5 - 1 / 25) * rate], rel=1e-9)
    assert len(regressor.trainable_variables) == 4
    with tf.GradientTape() as tape:
        value = loss(teacher, np.random.default_rng(0).normal(size=(1, 3)))
    assert all(slope is not None for slope in tape.gradient(value, regressor.trainable_variables))


def test_start_must_be_a_variance():
    assert VariationalInformation().start == 5.0
    for start in (0.0, 1e-5, -1.0, math.nan, "5"):
        with pytest.raises(ValueError, match="`start` must be a number > 1e-05"):
            VariationalInformation(start=start)


# Flow


def test_flow_by_hand():
    # Two positions: (1 * 3 + 2 * 4) / 2 = 5.5; against (1 * 1 + 1 * 0) / 2.
    teacher, student = [maps([1, 2]), maps([3, 4])], [maps([1, 1]), maps([1, 0])]
    assert float(FlowOfSolution()(teacher, student)) == pytest.approx(25.0, rel=1e-6)
    x = np.ones((1, 1, 1, 1))
    assert float(FlowOfSolution()([x, 2 * x], [3 * x, x])) == pytest.approx(1.0, rel=1e-6)


def test_flow_of_channels_by_hand():
    # (1, 2) outer (3) = 3, 6; (1, 0) outer (5) = 5, 0. Mean of 4 and 36.
    first, second = np.array([[[[1.0, 2.0]]]]), np.array([[[[3.0]]]])
    student = [np.array([[[[1.0, 0.0]]]]), np.array([[[[5.0]]]])]
    assert float(FlowOfSolution()([first, second], student)) == pytest.approx(20.0, rel=1e-6)


def test_flow_of_three_layers_is_that_of_both_steps():
    # 1 * 2 and 2 * 4 against 1 * 1 and 1 * 5: 1 + 9. First with third is no step.
    teacher, student = ([maps([x]) for x in row] for row in ((1, 2, 4), (1, 1, 5)))
    assert float(FlowOfSolution()(teacher, student)) == pytest.approx(10.0, rel=1e-6)


def test_flow_pools_the_larger_map_of_a_step():
    # (1, 3) pools to 2: 2 * 5, where positions of their own would have no partner. Against 1 * 4.
    teacher, student = [maps([1, 3]), maps([5])], [maps([1]), maps([4, 2, 6])]
    assert float(FlowOfSolution()(teacher, student)) == pytest.approx(36.0, rel=1e-6)


def test_flow_projects_only_where_widths_differ():
    loss = FlowOfSolution(dtype="float64")
    loss.build([(None, 1, 1, 1), (None, 1, 1, 2)], [(None, 1, 1, 3), (None, 1, 1, 2)])
    (projector,) = loss.layers
    # A linear map without a bias; (1, 1, 2) becomes 1 * 2 - 3 * 1 + 4 * 2 = 7, not its ReLU.
    assert [tuple(weight.shape) for weight in projector.trainable_variables] == [(3, 1)]
    projector.set_weights([np.array([[2.0], [-3.0], [-4.0]])])
    teacher = [np.zeros((1, 1, 1, 1)), np.zeros((1, 1, 1, 2))]
    student = [np.array([[[[1.0, 1.0, 2.0]]]]), np.array([[[[1.0, 2.0]]]])]
    # 2 - 3 - 8 = -9: flows -9 and -18.
    assert float(loss(teacher, student)) == pytest.approx((81 + 324) / 2, rel=1e-12)
    equal = FlowOfSolution()
    equal.build([(None, 4, 4, 2)] * 2, [(None, 2, 2, 2)] * 2)
    assert equal.layers == []


def test_flow_of_unequal_widths_needs_its_projectors():
    teacher, student = [np.zeros((2, 2, 2, 3))] * 2, [np.zeros((2, 2, 2, 1))] * 2
    with pytest.raises(ValueError, match="'fsp' compares outputs of equal shape"):
        FlowOfSolution()(teacher, student)


def test_flow_needs_two_layers():
    image = np.zeros((2, 2, 2, 3))
    for one in (image, [image]):
        with pytest.raises(ValueError, match="'fsp' reads two layers or more"):
            FlowOfSolution()(one, one)
    with pytest.raises(ValueError, match="'fsp' reads two layers or more"):
        FlowOfSolution().build((None, 2, 2, 3), (None, 2, 2, 3))


@pytest.mark.parametrize(
    ("loss", "teacher", "others"),
    [
        (Hint(), (None, 4), [(None, 2), (None, 3)]),
        (VariationalInformation(), (None, 2, 2, 4), [(None, 2, 2, 2), (None, 2, 2, 3)]),
        (FlowOfSolution(), [(None, 2, 2, 4)] * 2, [[(None, 2, 2, 2)] * 2, [(None, 2, 2, 3)] * 2]),
        (ContrastiveRepresentation([0, 1], 4, 2), (None, 4), [(None, 2), (None, 3)]),
    ],
)
def test_layers_are_of_the_first_widths(loss, teacher, others):
    first, second = others
    loss.build(teacher, first)
    layers = loss.layers
    loss.build(teacher, first)
    assert layers and all(a is b for a, b in zip(loss.layers, layers, strict=True))
    with pytest.raises(ValueError, match=r"layers of its own.*widths \[\[4.*2\]\].*Received: .*3\]\].*a loss for each"):
        loss.build(teacher, second)
