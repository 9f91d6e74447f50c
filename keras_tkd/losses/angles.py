"""The angles that any three points of a batch form: how two networks differ in them, `batch^3` cosines in blocks."""

import tensorflow as tf

# Cosines in memory at a time: those of as many anchors as fit, of one at least. 2 MB in float32 stay in a core's cache.
COSINES = 2**19


def angle_parts(x):
    """What the cosines of all angles are made of.

    With `e` the rows of `x` less their mean, `G = e e^T`:

        cos[i, j, k] = (G[j, k] - G[i, j] - G[i, k] + G[i, i]) / (d[i, j] d[i, k])

    Returns:
        `(products, offsets, inverses)`, each `(batch, batch)`: `G`, `G[i, i] / 2 - G[i, j]`, and `1 / d[i, j]`, 0 where
        the points are one (in float32: nearer than 1e-5 times their norm, where rounding decides the direction).
    """
    # In float64, which costs nothing at this size: the differences of near points are small.
    e = tf.cast(x - tf.reduce_mean(x, axis=0), tf.float64)
    products = tf.matmul(e, e, transpose_b=True)
    norms = tf.linalg.diag_part(products)
    sums = norms[:, None] + norms
    squares = sums - 2.0 * products
    one = squares <= (1e-10 if x.dtype == tf.float32 else 1e-13) * sums
    inverses = tf.where(one, tf.zeros_like(squares), tf.math.rsqrt(tf.where(one, tf.ones_like(squares), squares)))
    offsets = norms[:, None] / 2.0 - products
    return tuple(tf.cast(part, x.dtype) for part in (products, offsets, inverses))


def cosines(products, offsets, inverses):
    """`(anchors, batch, batch)`: cosines of the angles at the anchors whose rows of `offsets`, `inverses` are given."""
    numerators = products + offsets[:, :, None] + offsets[:, None, :]
    return numerators * inverses[:, :, None] * inverses[:, None, :]


def mean_huber_of_angles(teacher_products, teacher_offsets, teacher_inverses, products, offsets, inverses):
    """`(batch,)`: the mean of `huber(cos_s - cos_t)` over all angles at each anchor, in blocks of anchors.

    The gradient, by hand. With `h' = clip(cos_s - cos_t, -1, 1)`, which is symmetric in j and k, `r` the inverses, and
    `u[i]` what arrives for anchor i, over `batch^2`:

        d products[j, k] = sum_i u[i] h'[i, j, k] r[i, j] r[i, k]       computed again, block by block
        d offsets[i, j]  = 2 u[i] r[i, j] sum_k h'[i, j, k] r[i, k]
        d inverses[i, j] = 2 u[i] sum_k h'[i, j, k] cos_s[i, j, k] / r[i, j]
    """
    teacher = [tf.stop_gradient(part) for part in (teacher_products, teacher_offsets, teacher_inverses)]
    count = tf.shape(products)[0]
    anchors = tf.clip_by_value(COSINES // tf.maximum(count * count, 1), 1, tf.maximum(count, 1))
    padding = -count % anchors

    def blocks(rows):
        padded = tf.pad(rows, [[0, padding], [0, 0]])
        return tf.reshape(padded, [-1, anchors, tf.shape(rows)[1]])

    def rows(blocks):
        return tf.reshape(blocks, tf.concat([[-1], tf.shape(blocks)[2:]], 0))[:count]

    teacher_blocks = [blocks(part) for part in teacher[1:]]

    @tf.custom_gradient
    def forward(products, offsets, inverses):
        own_blocks = [blocks(offsets), blocks(inverses)]
        size = tf.cast(count, products.dtype) ** 2

        def block(parts):
            cosine = cosines(products, parts[0], parts[1])
            difference = cosine - cosines(teacher[0], parts[2], parts[3])
            slope = tf.clip_by_value(difference, -1.0, 1.0)
            value = tf.reduce_sum(slope * (difference - slope / 2), [1, 2])
            return value, tf.linalg.matvec(slope, parts[1]), tf.reduce_sum(slope * cosine, -1)

        outputs = (products.dtype,) * 3
        parts = (*own_blocks, *teacher_blocks)
        values, by_offset, by_inverse = tf.map_fn(block, parts, fn_output_signature=outputs, parallel_iterations=1)

        def gradient(upstream):
            weights = upstream[:, None] / size
            weighted = blocks(weights * inverses)

            def add(total, parts):
                cosine = cosines(products, parts[0], parts[1])
                slope = tf.clip_by_value(cosine - cosines(teacher[0], parts[2], parts[3]), -1.0, 1.0)
                return total + tf.reduce_sum(slope * parts[4][:, :, None] * parts[1][:, None, :], 0)

            start = tf.zeros_like(products)
            of_products = tf.foldl(add, (*parts, weighted), start, parallel_iterations=1)
            of_offsets = 2.0 * weights * inverses * rows(by_offset)
            of_inverses = 2.0 * tf.math.divide_no_nan(weights * rows(by_inverse), inverses)
            return of_products, of_offsets, of_inverses

        return tf.reshape(values, [-1])[:count] / size, gradient

    return forward(products, offsets, inverses)
