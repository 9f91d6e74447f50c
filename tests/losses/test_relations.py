"""Losses on how the samples of a batch relate: relations.py and similarities.py. The rest: test_contract.py."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.losses import (
    CorrelationCongruence,
    ProbabilisticTransfer,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    relational_angles,
    similarities,
)

ROOT2, ROOT5 = math.sqrt(2), math.sqrt(5)


def column(*numbers):
    return np.array(numbers, "float64")[:, None]


# name -> loss, teacher, student, one value per sample
BY_HAND = {
    # G_t is 1 / sqrt 2 throughout, G_s the identity: ((1 / sqrt 2 - 1)^2 + 1 / 2) / 2
    "sp": (SimilarityPreserving, column(1, 1), np.eye(2), [1 - 1 / ROOT2] * 2),
    # Q Q^T = (1, 2), (2, 4), each row divided by its norm: (1, 2) / sqrt 5 twice. By columns, or before the product,
    # it were something else. ((1 / sqrt 5 - 1)^2 + 4 / 5) / 2, (1 / 5 + (2 / sqrt 5 - 1)^2) / 2
    "sp, rows": (SimilarityPreserving, column(1, 2), np.eye(2), [1 - 1 / ROOT5, 1 - 2 / ROOT5]),
    # Opposite samples: G_t = (1, -1) / sqrt 2, (-1, 1) / sqrt 2.
    "sp, opposite": (SimilarityPreserving, column(1, -1), np.eye(2), [1 - 1 / ROOT2] * 2),
    # Zeros are like nothing: G_s = 0, and all that is left is a row of norm one.
    "sp, zeros": (SimilarityPreserving, column(1, 1), np.zeros((2, 3)), [0.5, 0.5]),
    # 3, 4, 5 over their mean: 3/4, 1, 5/4. On a line 1, 2, 1 over 4/3: 3/4, 3/2, 3/4. Off by 0, 1/2, -1/2.
    "rkd_distance": (
        RelationalDistance,
        np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]),
        column(0, 1, 2),
        [0.125 / 3, 0.125 / 3, 0.25 / 3],
    ),
    # 10, 1, 9 and 1, 10, 9 over 20/3: off by 1.35 twice, where Huber's loss is linear: 1.35 - 1/2.
    "rkd_distance, far": (RelationalDistance, column(0, 10, 1), column(0, 1, 10), [1.7 / 3, 0.85 / 3, 0.85 / 3]),
    # One point three times has no scale: zeros against 3/4, 3/2, 3/4; huber(3/2) = 1.
    "rkd_distance, one point": (
        RelationalDistance,
        column(0, 1, 2),
        np.full((3, 2), 7.0),
        [(0.28125 + 1) / 3, 2 * 0.28125 / 3, (0.28125 + 1) / 3],
    ),
    # Only positive distances count for the mean: 0, 2, 2 over 2 is 0, 1, 1; of the teacher 1, 1, 1.
    "rkd_distance, twins": (
        RelationalDistance,
        np.eye(3),
        column(0, 0, 2),
        [0.5 / 3, 0.5 / 3, 0.0],
    ),
    # A right angle against a line. Cosines at the corners: 0 to 1; 1/sqrt 2 to -1; 1/sqrt 2 to 1. Each counts twice.
    "rkd_angle": (
        RelationalAngle,
        np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]),
        column(0, 1, 2),
        [2 * 0.5 / 9, 2 * (1 / ROOT2 + 1 - 0.5) / 9, 2 * 0.5 * (1 - 1 / ROOT2) ** 2 / 9],
    ),
    # Of a point and its twin no direction is known: cosine 0 where the teacher has 1 (the same point seen twice).
    "rkd_angle, twins": (RelationalAngle, column(0, 1), column(5, 5), [0.5 / 4, 0.5 / 4]),
    # (1/2, 1/2) against (2/3, 1/3): the mean of log(3/4) / 2 and log(3/2) / 2
    "pkt": (ProbabilisticTransfer, column(1, 2), np.eye(2), [math.log(9 / 8) / 4] * 2),
    # Opposite directions have probability 0, to which 1e-7 is added.
    "pkt, opposite": (ProbabilisticTransfer, column(1, 2), column(3, -1), [math.log(0.25 / 1e-7) / 4] * 2),
    # Zeros have cosine 0 with all, themselves included: (1/2, 1/2) as all ones have.
    "pkt, zeros": (ProbabilisticTransfer, column(1, 2), np.zeros((2, 2)), [0.0, 0.0]),
    # K = exp(-0.8) (1 + 0.8 c + 0.32 c^2): with c = 1 and 0 off by exp(-0.8) 1.12 beside the diagonal
    "cc": (CorrelationCongruence, column(1, 5), np.eye(2), [(math.exp(-0.8) * 1.12) ** 2 / 2] * 2),
    # c = -1: 0.8 - 0.32 less than c = 0
    "cc, opposite": (CorrelationCongruence, np.eye(2), column(1, -1), [(math.exp(-0.8) * 0.48) ** 2 / 2] * 2),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_by_hand(name, dtype):
    loss, teacher, student, expected = BY_HAND[name]
    values = loss(reduction=None, dtype=dtype)(teacher, student).numpy()
    # 1e-7 beside the probabilities of pkt.
    assert values == pytest.approx(expected, rel=2e-6, abs=1e-7)
    assert float(loss(dtype=dtype)(teacher, student)) == pytest.approx(np.mean(expected), rel=2e-6, abs=1e-7)


@pytest.mark.parametrize("name", ["sp", "rkd_distance", "rkd_angle", "pkt", "cc"])
def test_layers_add_up(name):
    loss, teacher, student, expected = BY_HAND[name]
    values = loss(reduction=None, dtype="float64")([teacher, student, teacher], [student, student, student])
    assert values.numpy() == pytest.approx(2 * np.array(expected), rel=2e-6)


@pytest.mark.parametrize("name", ["rkd_distance", "rkd_angle", "pkt", "cc"])
def test_maps_are_their_means_over_positions(name):
    """Maps (2, 1) with the vector and its triple: the mean is twice the vector."""
    loss, teacher, student, expected = BY_HAND[name]
    maps = [np.stack([x, 3 * x], axis=1)[:, :, None, :] for x in (teacher, student)]
    assert loss(reduction=None, dtype="float64")(*maps).numpy() == pytest.approx(expected, rel=2e-6)


@pytest.mark.parametrize(("order", "difference"), [(1, 0.8), (2, 0.8 + 0.32), (3, 0.8 + 0.32 + 0.512 / 6)])
def test_orthogonal_samples_have_a_gradient_of_correlation(order, difference):
    """K = exp(-0.8) (1 + 0.8 c + ...), c = 1 for the teacher and 0 for the student, whose dc / de_1 = e_2.

    Mean of both samples' shares: (K_t - K_s)^2 / 2, of which the derivative by K_s is K_s - K_t.
    """
    student = tf.constant(np.eye(2))
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = CorrelationCongruence(gamma=0.4, order=order, dtype="float64")(column(1, 1), student)
    slope = -math.exp(-1.6) * difference * 0.8
    np.testing.assert_allclose(tape.gradient(value, student), [[0, slope], [slope, 0]], rtol=1e-12, atol=1e-15)


def test_similarity_flattens_maps():
    """Two positions in exchange: the same mean over positions, and nothing in common."""
    student = np.array([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None]
    values = SimilarityPreserving(reduction=None, dtype="float64")(column(1, 1), student)
    assert values.numpy() == pytest.approx([1 - 1 / ROOT2] * 2, rel=1e-12)


@pytest.mark.parametrize("batch", [3, 0])
def test_maps_of_unknown_size(batch):
    """As those of `Input((None, None, 3))`: values and gradients are those of maps whose size is known."""
    loss = SimilarityPreserving(reduction=None, dtype="float64")
    teacher, student = np.random.default_rng(0).normal(size=(2, batch, 4, 5, 3))

    def run(teacher, student):
        values = loss(teacher, student)
        return values, tf.gradients(values, student)[0]

    free = tf.TensorSpec((None, None, None, 3), "float64")
    found = tf.function(run, input_signature=[free, free])(teacher, student)
    for values, expected in zip(found, tf.function(run)(teacher, tf.constant(student)), strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-15)


# Angles in blocks


def angles_at_once(teacher, student):
    """All cosines in one tensor, `(batch, batch, batch)`."""
    cosines = []
    for x in (teacher, student):
        sight = x[None] - x[:, None]
        square = tf.reduce_sum(sight**2, -1, keepdims=True)
        sight = tf.where(square > 0, sight / tf.sqrt(tf.where(square > 0, square, 1.0)), 0.0)
        cosines.append(tf.einsum("ijc,ikc->ijk", sight, sight))
    difference = cosines[1] - cosines[0]
    size = tf.abs(difference)
    return tf.reduce_mean(tf.where(size < 1, 0.5 * difference**2, size - 0.5), [1, 2])


@pytest.mark.parametrize("batch, anchors", [(9, 10), (10, 10), (11, 10), (40, 10), (7, 1), (7, 0.5)])
def test_angles_in_blocks_are_those_at_once(batch, anchors, monkeypatch):
    """Blocks of `anchors`; of one where not even one fits."""
    monkeypatch.setattr(relational_angles, "_COSINES", int(anchors * batch**2))
    rng = np.random.default_rng(batch)
    teacher, student = (tf.constant(rng.normal(size=(batch, width))) for width in (3, 4))
    weights = tf.constant(rng.uniform(0.5, 2.0, batch))
    loss = RelationalAngle(reduction=None, dtype="float64")
    found = []
    for function in (loss, angles_at_once):
        with tf.GradientTape() as tape:
            tape.watch(student)
            values = function(teacher, student)
        found.append((values.numpy(), tape.gradient(values, student, weights).numpy()))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-12)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-12)


@pytest.mark.parametrize("width", [5, 1000, 1024, 4096, 4098])
def test_gram_of_long_rows_is_taken_in_parts(width):
    rng = np.random.default_rng(width)
    x, upstream = rng.normal(size=(3, width)), rng.normal(size=(3, 3))
    with tf.GradientTape() as tape:
        rows = tf.constant(x)
        tape.watch(rows)
        products = similarities._gram_matrix(rows)
    for i, j in np.ndindex(3, 3):
        assert float(products[i, j]) == pytest.approx(math.fsum(x[i] * x[j]), abs=1e-10)
    # d sum_ij U_ij <x_i, x_j> / d x_k = sum_j (U_kj + U_jk) x_j
    expected = [sum((upstream[k, j] + upstream[j, k]) * x[j] for j in range(3)) for k in range(3)]
    assert tape.gradient(products, rows, upstream).numpy() == pytest.approx(np.array(expected), abs=1e-10)


def test_angles_are_never_all_in_memory(monkeypatch):
    batch, sizes = 40, []
    monkeypatch.setattr(relational_angles, "_COSINES", 3 * batch**2 + 1)

    def recording(sums):
        def recorded(own, *others):
            sizes.append(batch * math.prod(own[1].shape))
            return sums(own, *others)

        return recorded

    for name in ("_anchor_sums", "_across_sums"):
        monkeypatch.setattr(relational_angles, name, recording(getattr(relational_angles, name)))
    student = tf.random.normal((batch, 4))
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = RelationalAngle()(tf.random.normal((batch, 3)), student)
    tape.gradient(value, student)
    # Forward and backward, each in 14 blocks of 3 anchors (the last of 1, filled up).
    assert sizes == 2 * 14 * [3 * batch**2]


# Numbers


@pytest.mark.parametrize("gamma", [0.2, 0.5])
def test_congruence_of_high_order_is_the_gaussian_kernel(gamma):
    # exp(-gamma |e_i - e_j|^2): 1 for equal directions, exp(-2 gamma) for a right angle.
    values = CorrelationCongruence(gamma, order=20, reduction=None, dtype="float64")(column(1, 1), np.eye(2))
    assert values.numpy() == pytest.approx([(1 - math.exp(-2 * gamma)) ** 2 / 2] * 2, rel=1e-12)


def test_congruence_refuses_what_is_no_kernel():
    assert (CorrelationCongruence().gamma, CorrelationCongruence().order) == (0.4, 2)
    assert CorrelationCongruence(order=np.int64(3)).order == 3
    for order in (0, -1, 1.5, "2", None):
        with pytest.raises(ValueError, match="`order` must be an integer >= 1"):
            CorrelationCongruence(order=order)
    for gamma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="`gamma` must be a number > 0"):
            CorrelationCongruence(gamma=gamma)
