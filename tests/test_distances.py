"""Distances and their gradients, against the 3-4-5 triangle."""

import math

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.distances import euclidean, safe_sqrt

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
