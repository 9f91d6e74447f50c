"""The angles that any three points of a batch form: how two networks differ in them, `batch^3` cosines in blocks."""

import functools

import tensorflow as tf

# Cosines taken at a time: those of as many anchors as fit, of one at least. 8 MB in float32.
COSINES = 2**21


def mean_huber_of_angles(teacher, student):
    """`(batch,)`: the mean of `huber(cos_s - cos_t)` over all angles at each anchor, in blocks of anchors.

    Four functions of the angles are compiled by XLA at the first call for each batch size, whatever runs around them.

    The gradient, by hand. With `h = clip(cos_s - cos_t, -1, 1)`, which is symmetric in j and k, `r` the inverses, and
    `u[i]` what arrives for anchor i, over `batch^2`:

        d products[j, k] = sum_i u[i] h[i, j, k] r[i, j] r[i, k]       computed again, block by block
        d offsets[i, j]  = 2 u[i] r[i, j] sum_k h[i, j, k] r[i, k]
        d inverses[i, j] = 2 u[i] sum_k h[i, j, k] cos_s[i, j, k] / r[i, j]

    and from there to the points: `offsets` and `inverses` depend on `products` and its diagonal, with `d r / d G[i, j]`
    `r^3`, and `-r^3 / 2` for either norm.

    Args:
        teacher, student: `(batch, width)`. No gradient flows to the teacher.
    """
    _, *of_teacher = angle_parts(tf.stop_gradient(teacher))
    count = tf.shape(student)[0]
    anchors = tf.clip_by_value(COSINES // tf.maximum(count * count, 1), 1, tf.maximum(count, 1))
    padding = -count % anchors
    whole = (count > 0) & (anchors >= count)  # one block: without the loops, whose overhead shows in a step
    size = tf.cast(count, student.dtype) ** 2

    def blocks(rows):
        padded = tf.pad(rows, [[0, padding], [0, 0]])
        return tf.reshape(padded, [-1, anchors, tf.shape(rows)[1]])

    def rows(blocks):
        return tf.reshape(blocks, tf.concat([[-1], tf.shape(blocks)[2:]], 0))[:count]

    @tf.custom_gradient
    def forward(student):
        points, products, offsets, inverses = angle_parts(student)
        parts = [blocks(part) for part in (offsets, inverses, *of_teacher[1:])]

        def networks(parts):
            return (products, *parts[:2]), (of_teacher[0], *parts[2:])

        def add_up(parts):
            return tuple(sums(*networks(parts)) for sums in (huber_sums, offset_sums, inverse_sums))

        outputs = (student.dtype,) * 3
        sums = tf.cond(
            whole,
            lambda: tuple(sum_[None] for sum_ in add_up([part[0] for part in parts])),
            lambda: tf.map_fn(add_up, parts, fn_output_signature=outputs, parallel_iterations=1),
        )
        values, by_offset, by_inverse = (rows(sum_) for sum_ in sums)

        def gradient(upstream):
            weighted = upstream[:, None] / size * inverses

            def add(total, parts):
                return total + product_sums(*networks(parts[:-1]), parts[-1])

            all_parts = [*parts, blocks(weighted)]
            of_products = tf.cond(
                whole,
                lambda: add(0.0, [part[0] for part in all_parts]),
                lambda: tf.foldl(add, all_parts, tf.zeros_like(products), parallel_iterations=1),
            )
            of_offsets = 2.0 * weighted * by_offset
            of_squares = 2.0 * weighted * by_inverse * inverses
            # In float64 again: what follows are small differences where points are near.
            of_products, of_offsets, of_squares = (
                tf.cast(part, tf.float64) for part in (of_products, of_offsets, of_squares)
            )
            of_gram = of_products - of_offsets + of_squares
            of_norms = tf.reduce_sum(of_offsets - of_squares, 1) - tf.reduce_sum(of_squares, 0)
            # No part for the mean: angles stay when all points move, and so the rows add up to zero.
            of_points = tf.matmul(of_gram + tf.transpose(of_gram), points) + of_norms[:, None] * points
            return tf.cast(of_points, student.dtype)

        return tf.reduce_sum(values, 1) / size, gradient

    return forward(student)


def angle_parts(x):
    """What the cosines of all angles are made of.

    With `e` the rows of `x` less their mean, `G = e e^T`:

        cos[i, j, k] = (G[j, k] - G[i, j] - G[i, k] + G[i, i]) / (d[i, j] d[i, k])

    Returns:
        `(points, products, offsets, inverses)`: `e` in float64, and, each `(batch, batch)`, `G`,
        `G[i, i] / 2 - G[i, j]`, and `1 / d[i, j]`, 0 where the points are one (in float32: nearer than 1e-5 times their
        norm, where rounding decides the direction).
    """
    # In float64, which costs nothing at this size: the differences of near points are small.
    e = tf.cast(x - tf.reduce_mean(x, axis=0), tf.float64)
    products = tf.matmul(e, e, transpose_b=True)
    norms = tf.linalg.diag_part(products)[:, None]
    sums = norms + tf.transpose(norms)
    squares = sums - 2.0 * products
    one = squares <= (1e-10 if x.dtype == tf.float32 else 1e-13) * sums
    inverses = tf.math.rsqrt(tf.where(one, tf.constant(float("inf"), tf.float64), squares))
    return e, *(tf.cast(part, x.dtype) for part in (products, norms / 2.0 - products, inverses))


def cosines(products, offsets, inverses):
    """`(anchors, batch, batch)`: cosines of the angles at the anchors whose rows of `offsets`, `inverses` are given."""
    numerators = products + offsets[:, :, None] + offsets[:, None, :]
    return numerators * (inverses[:, :, None] * inverses[:, None, :])


def differences_and_slopes(own, teacher):
    """`cos_s - cos_t` at some anchors, and the derivative of its Huber loss; `own`, `teacher` are for `cosines`."""
    differences = cosines(*own) - cosines(*teacher)
    return differences, tf.clip_by_value(differences, -1.0, 1.0)


# Sums over the angles at some anchors, each compiled by itself: the ten steps from the parts to a slope are then one
# loop, and one array of all the angles, where separate operations, or one function of all sums, hold several.
compiled = functools.partial(tf.function, jit_compile=True, reduce_retracing=True)


@compiled
def huber_sums(own, teacher):
    differences, slopes = differences_and_slopes(own, teacher)
    return tf.reduce_sum(slopes * (differences - slopes / 2.0), 1)


@compiled
def offset_sums(own, teacher):
    _, slopes = differences_and_slopes(own, teacher)
    return tf.reduce_sum(slopes * own[2][:, :, None], 1)


@compiled
def inverse_sums(own, teacher):
    _, slopes = differences_and_slopes(own, teacher)
    return tf.reduce_sum(slopes * cosines(*own), 1)


@compiled
def product_sums(own, teacher, weighted):
    _, slopes = differences_and_slopes(own, teacher)
    return tf.reduce_sum(slopes * (weighted[:, :, None] * own[2][:, None, :]), 0)
