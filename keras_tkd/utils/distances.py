"""Distances between rows, and rows of norm 1, with finite gradients everywhere."""

import tensorflow as tf
from keras import ops

__all__ = ["euclidean", "normalize", "pairwise_euclidean", "safe_sqrt", "squared_distances"]

# Where a squared distance is smaller than this share of the squares it is the difference of, it is rounding error.
_ROUNDING = 1e-13


def safe_sqrt(x):
    """Square root of `x` >= 0 whose gradient at 0 is 0 instead of infinite."""
    zero = ops.equal(x, 0)
    # Two `where`s are needed: the outer one picks the value, the inner one keeps the branch not taken from producing
    # 0 * inf = NaN in the gradient.
    return ops.where(zero, ops.zeros_like(x), ops.sqrt(ops.where(zero, ops.ones_like(x), x)))


def euclidean(u, v):
    """Euclidean distance of corresponding rows, `||u - v||_2`.

    Args:
        u, v: tensors of shape `(batch, ...)`, equal shapes; everything after the first axis is one vector.

    Returns:
        Tensor of shape `(batch,)`. Where `u == v` it is 0 and so is its gradient.
    """
    difference = u - v
    return safe_sqrt(ops.sum(ops.square(difference), axis=tuple(range(1, len(difference.shape)))))


def pairwise_euclidean(a, b=None):
    """Euclidean distance of every row of `a` to every row of `b`, or of `a` itself, `||a_i - b_j||_2`.

    By matrix products, forward and backward: the differences of all pairs, `(n, m, ...)`, are never held in memory.

        d_ij^2 = |a_i|^2 + |b_j|^2 - 2 <a_i, b_j>,      da_i = sum_j W_ij (a_i - b_j),   W = upstream / d

    in float64, whatever the inputs' dtype, with the mean of `b` as the origin.

    Args:
        a: floating-point tensor of shape `(n, ...)`; everything after the first axis is one vector.
        b: `(m, ...)` of the same dtype; None is `a`, and the gradient is then that of both roles.

    Returns:
        `(n, m)`, of the inputs' dtype. Where rows are equal the distance is exactly 0, and so is its gradient. The same
        holds for rows nearer than about 3e-7 times their distance from the mean of `b`, which is beyond what the sum
        above can tell apart. A row that is not finite has distances that are NaN. There are no second derivatives.
    """
    a = _vectors(tf.convert_to_tensor(a))
    if b is None:
        # The squares by themselves: where two losses of a step read those of the same rows, they are computed once.
        return tf.cast(_root(squared_distances(a)), a.dtype)
    return _pairwise_euclidean(a, _vectors(tf.convert_to_tensor(b)))


def _vectors(x):
    return x if len(x.shape) == 2 else tf.reshape(x, [tf.shape(x)[0], tf.reduce_prod(tf.shape(x)[1:])])


@tf.custom_gradient
def _pairwise_euclidean(a, b):
    dtype = a.dtype
    # A distance is a small difference of large squares, whose rounding in float32 alone is one of 2e-4 of the norms.
    # The nearer the origin, the smaller the squares.
    a, b = tf.cast(a, tf.float64), tf.cast(b, tf.float64)
    origin = tf.reduce_mean(b, axis=0)
    a, b = a - origin, b - origin
    norms = tf.reduce_sum(a**2, axis=1)[:, None] + tf.reduce_sum(b**2, axis=1)
    squares = norms - 2.0 * tf.matmul(a, b, transpose_b=True)
    distances = tf.sqrt(tf.where(squares < _ROUNDING * norms, tf.zeros_like(squares), squares))

    def gradient(upstream):
        # Nothing where the distance is 0; a NaN stays one.
        w = tf.math.divide_no_nan(tf.cast(upstream, tf.float64), distances)
        of_a = tf.reduce_sum(w, axis=1)[:, None] * a - tf.matmul(w, b)
        of_b = tf.reduce_sum(w, axis=0)[:, None] * b - tf.matmul(w, a, transpose_a=True)
        return tf.cast(of_a, dtype), tf.cast(of_b, dtype)

    return tf.cast(distances, dtype), gradient


@tf.custom_gradient
def squared_distances(x):
    """Squared Euclidean distance of all rows to one another, `||x_i - x_j||^2`.

    As `pairwise_euclidean`: one product forward, and one backward, `dx_i = 2 sum_j (W + W^T)_ij (x_i - x_j)` with W
    what arrives. Where two losses of a step ask for those of the same rows, TensorFlow computes them once.

    Args:
        x: `(n, width)`, any floating-point dtype.

    Returns:
        `(n, n)`, in float64.
    """
    dtype = x.dtype
    x = tf.cast(x, tf.float64)
    x -= tf.reduce_mean(x, axis=0)
    products = tf.matmul(x, x, transpose_b=True)
    own = tf.linalg.diag_part(products)
    norms = own[:, None] + own
    squares = norms - 2.0 * products
    squares = tf.where(squares < _ROUNDING * norms, tf.zeros_like(squares), squares)

    def gradient(upstream):
        w = 2.0 * (upstream + tf.transpose(upstream))
        return tf.cast(tf.reduce_sum(w, axis=1)[:, None] * x - tf.matmul(w, x), dtype)

    return squares, gradient


@tf.custom_gradient
def _root(squares):
    distances = tf.sqrt(squares)
    # Nothing where the distance is 0; a NaN stays one.
    return distances, lambda upstream: tf.math.divide_no_nan(upstream, 2.0 * distances)


def normalize(x, minimum=0.0):
    """Divides vectors by their Euclidean norm, along the last axis.

    Args:
        x: `(..., size)`.
        minimum: vectors whose norm is not above it become zeros, with a gradient of zero; default 0.

    Returns:
        Tensor of the shape of `x`.
    """
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    # Not `square > minimum`, which would turn a NaN into zeros.
    small = square <= minimum**2
    norm = ops.sqrt(ops.where(small, ops.ones_like(square), square))
    # A square that overflows is not to pass for a direction of zeros.
    norm = ops.where(ops.isinf(norm), float("nan"), norm)
    return ops.where(small, ops.zeros_like(x), x / norm)
