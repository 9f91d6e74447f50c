"""Distances and their gradients, against the 3-4-5 triangle."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.utils.distances import euclidean, normalize, pairwise_euclidean, safe_sqrt

MODES = {
    "eager": lambda function: function,
    "function": tf.function,
    "jit": lambda function: tf.function(function, jit_compile=True),
}
every_mode = pytest.mark.parametrize("mode", MODES)


def distance_and_gradients(mode, u, v, dtype="float32"):
    def run(u, v):
        with tf.GradientTape() as tape:
            tape.watch([u, v])
            values = euclidean(u, v)
        return values, *tape.gradient(values, [u, v])

    return [x.numpy() for x in MODES[mode](run)(tf.constant(u, dtype), tf.constant(v, dtype))]


@every_mode
def test_value_and_gradient_by_hand(mode):
    # (3, 4) from the origin, and from (1, 1) to (-4, 13): (-5, 12). The gradients are unit vectors,
    # u's away from v.
    values, of_u, of_v = distance_and_gradients(mode, [[3.0, 4.0], [-4.0, 13.0]], [[0.0, 0.0], [1.0, 1.0]])
    assert values == pytest.approx([5.0, 13.0], rel=1e-6)
    assert of_u == pytest.approx(np.array([[0.6, 0.8], [-5 / 13, 12 / 13]]), rel=1e-6)
    assert of_v == pytest.approx(np.array([[-0.6, -0.8], [5 / 13, -12 / 13]]), rel=1e-6)


@every_mode
def test_equal_rows_have_distance_and_gradient_zero(mode):
    """Beside rows that are not equal, and far from the origin too."""
    u, v = [[0.0, 0.0], [3.0, 4.0], [1e4, -1e4]], [[0.0, 0.0], [0.0, 0.0], [1e4, -1e4]]
    values, of_u, of_v = distance_and_gradients(mode, u, v)
    assert values.tolist() == [0.0, 5.0, 0.0]
    assert of_u == pytest.approx(np.array([[0.0, 0.0], [0.6, 0.8], [0.0, 0.0]]), rel=1e-6, abs=0)
    assert of_v == pytest.approx(np.array([[0.0, 0.0], [-0.6, -0.8], [0.0, 0.0]]), rel=1e-6, abs=0)


def test_one_row_with_itself():
    """Both arguments the same tensor: their gradients meet, and cancel."""
    u = tf.constant([[1.0, 2.0]])
    with tf.GradientTape() as tape:
        tape.watch(u)
        value = euclidean(u, u)
    assert value.numpy().tolist() == [0.0]
    assert tape.gradient(value, u).numpy().tolist() == [[0.0, 0.0]]


@every_mode
@pytest.mark.parametrize("size", [1e-15, 1e-3, 1e15])
def test_gradient_has_length_one_at_every_size(mode, size):
    # As long as squares fit into float32, 1e-38 to 3e38.
    values, of_u, _ = distance_and_gradients(mode, [[3 * size, 4 * size]], [[0.0, 0.0]])
    assert values == pytest.approx([5 * size], rel=1e-6, abs=0)
    assert of_u == pytest.approx(np.array([[0.6, 0.8]]), rel=1e-6)


@every_mode
@pytest.mark.parametrize("size", [1e-19, 1e-21, 1e-22, 1e-30])
def test_difference_too_small_to_square_counts_as_none(mode, size):
    """The square of 1e-19 is below float32's smallest normal number. Zero, and so is its gradient."""
    values, of_u, _ = distance_and_gradients(mode, [[size, 0.0]], [[0.0, 0.0]])
    assert values[0] == pytest.approx(size if values[0] else 0.0, rel=0.1, abs=0)
    assert of_u[0] == pytest.approx([1.0 if values[0] else 0.0, 0.0], rel=0.1, abs=0)


def test_everything_after_the_first_axis_is_one_vector():
    # 1 + 4 + 4 + 16 = 25, and 4 squares of 6: 144.
    u = np.array([[[1.0, 2.0], [2.0, 4.0]], [[6.0, 6.0], [6.0, 6.0]]])
    for shape in ((2, 2, 2), (2, 4), (2, 1, 4, 1), (2, 2, 1, 2)):
        values, of_u, _ = distance_and_gradients("eager", u.reshape(shape), np.zeros(shape))
        assert values.tolist() == [5.0, 12.0]
        expected = u.reshape(shape) / np.array([5.0, 12.0]).reshape(2, *[1] * (len(shape) - 1))
        assert of_u == pytest.approx(expected, rel=1e-6)


def test_dtype_is_the_arguments():
    # 1 + 2^-40 is 1 in float32.
    values, _, _ = distance_and_gradients("eager", [[1.0 + 2.0**-40]], [[1.0]], "float64")
    assert values.dtype == "float64" and values.tolist() == [2.0**-40]


@every_mode
def test_safe_sqrt(mode):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            roots = safe_sqrt(x)
        return roots, tape.gradient(roots, x)

    # The slope is 1 / (2 sqrt(x)), and 0 at 0.
    roots, slopes = MODES[mode](run)(tf.constant([0.0, 4.0, 0.25, 1e4, 0.0]))
    assert roots.numpy() == pytest.approx([0.0, 2.0, 0.5, 100.0, 0.0], rel=1e-6, abs=0)
    assert slopes.numpy() == pytest.approx([0.0, 0.25, 1.0, 0.005, 0.0], rel=1e-6, abs=0)


@every_mode
def test_nan_and_infinity_stay_what_they_are(mode):
    """A distance that turns a NaN into 0 hides that a model has diverged."""
    rows = [[math.nan, 0.0], [3.0, 4.0], [math.inf, 0.0]]
    values, _, _ = distance_and_gradients(mode, rows, np.zeros((3, 2)))
    assert values[1:].tolist() == [5.0, math.inf]
    assert math.isnan(values[0])


# All pairs


def naive(a, b):
    """Every distance for itself: differences first, in float64, and nothing of the library."""
    return np.array([[math.sqrt(math.fsum((x - y) ** 2 for x, y in zip(u, v, strict=True))) for v in b] for u in a])


def naive_slope(function, x, h=1e-6):
    """Central differences of a scalar function, entry by entry."""
    slope = np.zeros_like(x)
    for entry in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[entry] += sign * h
            ends.append(function(moved))
        slope[entry] = (ends[0] - ends[1]) / (2 * h)
    return slope


def pairs_and_gradients(mode, weights, *rows, dtype="float64"):
    """Distances, and the gradients of their weighted sum with respect to each of `rows`."""

    def run(*rows):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            values = pairwise_euclidean(*rows)
            total = tf.reduce_sum(values * tf.cast(weights, values.dtype))
        return values, *tape.gradient(total, rows)

    return [x.numpy() for x in MODES[mode](run)(*(tf.constant(x, dtype) for x in rows))]


@every_mode
@pytest.mark.parametrize("offset", [0.0, 1e3, -1e6])
def test_pairs_against_the_naive_sum(mode, offset):
    rng = np.random.default_rng(0)
    a, b, weights = rng.normal(size=(5, 3)) + offset, 2 * rng.normal(size=(4, 3)) + offset, rng.normal(size=(5, 4))
    values, of_a, of_b = pairs_and_gradients(mode, weights, a, b)
    # 1e6 itself has 10 digits after the point.
    assert values == pytest.approx(naive(a, b), rel=1e-9)
    a, b = a - offset, b - offset
    assert of_a == pytest.approx(naive_slope(lambda x: np.sum(weights * naive(x, b)), a), abs=1e-7)
    assert of_b == pytest.approx(naive_slope(lambda x: np.sum(weights * naive(a, x)), b), abs=1e-7)


@every_mode
def test_pairs_within_one_set_have_the_gradient_of_both_roles(mode):
    rng = np.random.default_rng(1)
    x, weights = rng.normal(size=(6, 4)) - 3.0, rng.normal(size=(6, 6))
    values, slope = pairs_and_gradients(mode, weights, x)
    assert np.array_equal(np.diag(values), np.zeros(6))
    assert values == pytest.approx(naive(x, x), rel=1e-12)
    assert slope == pytest.approx(naive_slope(lambda x: np.sum(weights * naive(x, x)), x), abs=1e-7)


@every_mode
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_rows_of_many_numbers_are_at_distance_zero(mode, dtype):
    """The diagonal, a duplicate, and rows of all zeros, whose squares do not cancel to the last digit."""
    x = 100.0 + np.random.default_rng(2).normal(size=(5, 1000))
    x[3] = x[1]
    weights = np.zeros((5, 5))
    weights[1, 3] = weights[2, 2] = 1.0
    values, slope = pairs_and_gradients(mode, weights, x, dtype=dtype)
    expected = np.eye(5, dtype=bool)
    expected[1, 3] = expected[3, 1] = True
    assert np.array_equal(values == 0, expected)
    assert np.array_equal(slope, np.zeros((5, 1000)))
    values, slope = pairs_and_gradients(mode, np.ones((3, 3)), np.zeros((3, 2)), dtype=dtype)
    assert np.array_equal(values, np.zeros((3, 3))) and np.array_equal(slope, np.zeros((3, 2)))


@every_mode
def test_float32_far_from_the_origin_is_as_good_as_its_inputs(mode):
    """A Gram matrix in float32 would be off by 100 % here: 1e6 has no digit left for 0.01."""
    rng = np.random.default_rng(3)
    a, b = (np.float32(1e3 + 0.1 * rng.normal(size=(n, 8))) for n in (7, 6))
    weights = rng.normal(size=(7, 6))
    values, of_a, of_b = pairs_and_gradients(mode, weights, a, b, dtype="float32")
    assert values.dtype == of_a.dtype == of_b.dtype == "float32"
    a, b = a.astype("float64") - 1e3, b.astype("float64") - 1e3
    assert values == pytest.approx(naive(a, b), rel=1e-6)
    assert of_a == pytest.approx(naive_slope(lambda x: np.sum(weights * naive(x, b)), a), abs=1e-5)
    assert of_b == pytest.approx(naive_slope(lambda x: np.sum(weights * naive(a, x)), b), abs=1e-5)


def test_near_rows_keep_their_distance():
    """Neighbours at 1e-4 of their distance from the mean."""
    a = np.array([[1.0, 0.0], [1.0, 1e-4], [-2.0, 0.0]])
    values, slope = pairs_and_gradients("eager", np.eye(3, k=1), a)
    assert values[0, 1] == pytest.approx(1e-4, rel=1e-6)
    assert slope[0] == pytest.approx([0.0, -1.0], abs=1e-6)


@every_mode
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_rounded_once(mode, dtype):
    rows = tf.cast(50.0 + np.random.default_rng(4).normal(size=(4, 6)), dtype)
    values = MODES[mode](pairwise_euclidean)(rows)
    assert values.dtype == dtype
    exact = naive(*2 * [tf.cast(rows, "float64").numpy().tolist()])
    assert np.array_equal(tf.cast(values, "float64"), tf.cast(tf.constant(exact), dtype).numpy().astype("float64"))


@every_mode
def test_pairs_do_not_swallow_a_nan(mode):
    a, b = np.array([[math.nan, 0.0], [3.0, 4.0]]), np.array([[0.0, 0.0], [0.0, 2.0]])
    values, of_a, _ = pairs_and_gradients(mode, np.ones((2, 2)), a, b)
    assert np.isnan(values[0]).all() and np.isnan(of_a[0]).all()
    assert values[1] == pytest.approx([5.0, math.sqrt(13)], rel=1e-12)
    values, _, _ = pairs_and_gradients(mode, np.ones((2, 2)), b, a)
    assert np.isnan(values[:, 0]).all()


def test_pairs_of_unknown_number_and_any_rank():
    @tf.function(input_signature=[tf.TensorSpec([None, 2, None]), tf.TensorSpec([None, 2, None])])
    def run(a, b):
        return pairwise_euclidean(a, b), pairwise_euclidean(a)

    # (1, 2, 2, 4) has length 5.
    a, b = np.zeros((3, 2, 2), "float32"), np.array([[[1, 2], [2, 4]], [[0, 0], [0, 3]]], "float32")
    values, within = run(a, b)
    assert values.numpy() == pytest.approx(np.tile([5.0, 3.0], (3, 1)), rel=1e-6)
    assert np.array_equal(within, np.zeros((3, 3)))
    assert run(a[:0], b[:0])[0].shape == (0, 0)


def test_unit():
    x = tf.constant([[3.0, 4.0], [0.0, 0.0], [1e-7, 0.0]])
    for minimum, third in ((0.0, [1.0, 0.0]), (1e-6, [0.0, 0.0])):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = normalize(x, minimum)
            first = tf.reduce_sum(y[:, 0])
        np.testing.assert_allclose(y, [[0.6, 0.8], [0.0, 0.0], third], rtol=1e-6)
        # d (x / |x|) / dx = (|x|^2 - x^2) / |x|^3 = 16 / 125 and -x y / |x|^3 = -12 / 125; nothing where it is zero.
        gradient = tape.gradient(first, x).numpy()
        np.testing.assert_allclose(gradient, [[0.128, -0.096], [0.0, 0.0], [0.0, 0.0]], atol=1e-6)


def test_unit_of_what_overflows_is_no_direction():
    assert np.isnan(normalize(tf.constant([[1e25, 0.0]]))).all()
    assert np.isnan(normalize(tf.constant([[np.nan, 1.0]]))).all()
