"""The angles that any three points of a batch form, compared between two networks: `batch^3` cosines, in blocks."""

import functools

import tensorflow as tf

from keras_tkd.utils.distances import squared_distances

__all__ = ["mean_huber_of_angles"]

# Cosines taken at a time: those of as many anchors as fit, of one at least. The largest arrays hold an eighth of them
# (`_add_up`): 8 MB in float32.
_COSINES = 2**24

# Shapes are relaxed, so that a smaller last batch is not compiled anew each time that it comes.
_compiled = functools.partial(tf.function, autograph=False, jit_compile=True, reduce_retracing=True)


def mean_huber_of_angles(teacher, student):
    """Mean of `huber(cos_s - cos_t)` over all angles at each anchor, in blocks of anchors.

    Sums over the angles are compiled by XLA at the first call for each batch size, whatever runs around them.

    The gradient, by hand. With `h = clip(cos_s - cos_t, -1, 1)`, which is symmetric in j and k, `r` the student's
    inverse distances, and `u[i]` what arrives for anchor i, over `batch^2`:

        d squares[i, j] = u[i] r[i, j] sum_k h[i, j, k] (r[i, k] - r[i, j] cos_s[i, j, k])      squares next to i
                          - 1/2 sum_a u[a] h[a, i, j] r[a, i] r[a, j]                           across from a

    The last sum waits for `u`, and computes the cosines again.

    Args:
        teacher, student: `(batch, width)`. No gradient flows to the teacher.

    Returns:
        `(batch,)`.
    """
    dtype = student.dtype
    count = tf.shape(student)[0]
    size = tf.cast(count, dtype) ** 2
    anchors = tf.clip_by_value(_COSINES // tf.maximum(count * count, 1), 1, tf.maximum(count, 1))
    padding = -count % anchors
    # One block is taken without the loops, whose overhead shows in a step.
    whole = (count > 0) & (anchors >= count)
    of_teacher = _angle_parts(tf.stop_gradient(squared_distances(teacher)), dtype)

    def split_into_blocks(rows):
        padded = tf.pad(rows, [[0, padding], [0, 0]])
        return tf.reshape(padded, [-1, anchors, count])

    def join_blocks(blocks):
        return tf.reshape(blocks, tf.concat([[-1], tf.shape(blocks)[2:]], 0))[:count]

    @tf.custom_gradient
    def compare(squares):
        # A persistent tape would record what happens here as well, and have XLA compile all of its intermediates.
        squares = tf.stop_gradient(squares)
        of_student = _angle_parts(squares, dtype)
        parts = [*of_student, *of_teacher]

        def by_network(parts):
            # The first is of all points, in every block; the others are the block's own.
            return (of_student[0], *parts[:2]), (of_teacher[0], *parts[2:])

        def beside_in_blocks():
            sums = tf.map_fn(
                lambda parts: _anchor_sums(*by_network(parts)),
                [split_into_blocks(part) for part in parts],
                fn_output_signature=(dtype, dtype),
                parallel_iterations=1,
            )
            return tuple(map(join_blocks, sums))

        values, beside = tf.cond(whole, lambda: _anchor_sums(*by_network(parts)), beside_in_blocks)

        def gradient(upstream):
            upstream = upstream[:, None] / size
            weighted = upstream * of_student[1]

            def across_in_blocks():
                return tf.foldl(
                    lambda total, parts: total + _across_sums(*by_network(parts[:-1]), parts[-1]),
                    [split_into_blocks(part) for part in (*parts, weighted)],
                    tf.zeros_like(beside),
                    parallel_iterations=1,
                )

            across = tf.cond(whole, lambda: _across_sums(*by_network(parts), weighted), across_in_blocks)
            return tf.cast(upstream * beside - across, squares.dtype)

        return values / size, gradient

    return compare(squared_distances(student))


@_compiled
def _angle_parts(squares, dtype):
    """Computes what the cosines of all angles are made of, by the law of cosines.

        cos[i, j, k] = (squares[i, j] + squares[i, k] - squares[j, k]) / 2 / (d[i, j] d[i, k])

    Returns:
        `(halves, inverses)`, `(batch, batch)` each: `squares / 2`, and `1 / d`, 0 where the points are one (in float32:
        nearer than 1e-5 times the distances from there, where rounding decides the direction).
    """
    near = 1e-10 if dtype == tf.float32 else 0.0
    one = squares <= near * tf.reduce_mean(squares, axis=1, keepdims=True)
    inverses = tf.math.rsqrt(tf.where(one, tf.constant(float("inf"), tf.float64), squares))
    return tf.cast(squares / 2.0, dtype), tf.cast(inverses, dtype)


def _cosines(halves, to_points, inverses):
    """Returns the cosines of the angles at anchors, `(anchors, batch, batch)`; `to_points` are their rows of halves."""
    numerators = to_points[:, :, None] + to_points[:, None, :] - halves
    return numerators * (inverses[:, :, None] * inverses[:, None, :])


def _add_up(x, axis):
    """Sums over an axis."""
    # As a sum of eight terms, which XLA computes in one loop with `x`: a `reduce_sum` alone would be given all of `x`
    # as an array.
    most, rest = tf.split(x, [tf.shape(x)[axis] // 8 * 8, -1], axis)
    return tf.reduce_sum(tf.add_n(tf.split(most, 8, axis)), axis) + tf.reduce_sum(rest, axis)


@_compiled
def _anchor_sums(student, teacher):
    """Returns the sum of each anchor's Huber losses, `(anchors,)`, and slopes by `squares`, `(anchors, batch)`."""
    inverses = student[2]
    own = _cosines(*student)
    differences = own - _cosines(*teacher)
    slopes = tf.clip_by_value(differences, -1.0, 1.0)
    losses = _add_up(slopes * (differences - slopes / 2.0), 1)
    beside = _add_up(slopes * (inverses[:, :, None] - inverses[:, None, :] * own), 1)
    return tf.reduce_sum(losses, 1), inverses * beside


@_compiled
def _across_sums(student, teacher, weighted):
    """Returns the sum over the anchors of their slopes by the squares across from them, `(batch, batch)`."""
    slopes = tf.clip_by_value(_cosines(*student) - _cosines(*teacher), -1.0, 1.0)
    return _add_up(slopes * (weighted[:, :, None] * student[2][:, None, :]), 0) / 2.0
