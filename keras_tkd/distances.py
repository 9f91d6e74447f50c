"""Distances between rows, with finite gradients everywhere."""

from keras import ops


def safe_sqrt(x):
    """Square root of `x` >= 0 whose gradient at 0 is 0 instead of infinite.

    Two `where`s are needed: the outer one picks the value, the inner one keeps the branch not taken from producing
    0 * inf = NaN in the gradient.
    """
    zero = ops.equal(x, 0)
    return ops.where(zero, ops.zeros_like(x), ops.sqrt(ops.where(zero, ops.ones_like(x), x)))


def euclidean(u, v):
    """`||u - v||_2` of corresponding rows.

    Args:
        u, v: tensors of shape `(batch, ...)`, equal shapes; everything after the first axis is one vector.

    Returns:
        Tensor of shape `(batch,)`. Where `u == v` it is 0 and so is its gradient.
    """
    difference = u - v
    return safe_sqrt(ops.sum(ops.square(difference), axis=tuple(range(1, len(difference.shape)))))
