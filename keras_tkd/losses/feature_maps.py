"""Feature maps `(batch, height, width, channels)` of two networks, made to meet in height and width."""

import numpy as np
from keras import ops

__all__ = ["average_positions", "check_maps", "list_shapes", "mean_square", "pool_alike"]


def average_positions(x):
    """Averages maps over their positions; vectors `(batch, width)` are returned as they are."""
    return ops.mean(x, axis=tuple(range(1, len(x.shape) - 1))) if len(x.shape) > 2 else x


def mean_square(x):
    """Mean of the squares of each sample, `(batch, ...)` -> `(batch,)`."""
    return ops.mean(ops.square(x), axis=tuple(range(1, len(x.shape))))


def pool_alike(first, second):
    """Average-pools the larger of two maps to the height and width of the smaller; returns both.

    Outputs that are no maps are returned as they are. Cell i of m covers the positions floor(i n / m) to
    ceil((i + 1) n / m) of n.
    """
    if len(first.shape) != 4 or len(second.shape) != 4:
        return first, second
    size = tuple(min(a, b) for a, b in zip(first.shape[1:3], second.shape[1:3], strict=True))
    return _pool(first, size), _pool(second, size)


def check_maps(name, teachers: list[tuple], students: list[tuple]):
    """Raises `ValueError` unless all shapes, of each side a list, are those of maps of known size."""
    if any(len(shape) != 4 or None in shape[1:] for shape in [*teachers, *students]):
        raise ValueError(
            f"Loss '{name}' reads feature maps (batch, height, width, channels) of known size. Received: teacher "
            f"{', '.join(map(str, teachers))}; student {', '.join(map(str, students))}"
        )


def list_shapes(outputs) -> list[tuple]:
    """Lists the shapes of a list of outputs, with None for the batch."""
    # As `build` is given them, so that one check serves both.
    return [(None, *x.shape[1:]) for x in outputs]


def _pool(x, size):
    # A product with a matrix along each axis: cells that overlap, which no pooling layer of Keras has.
    for axis, cells in enumerate(size, 1):
        if x.shape[axis] != cells:
            matrix = _make_pooling_matrix(x.shape[axis], cells, x.dtype)
            x = ops.moveaxis(ops.tensordot(x, matrix, axes=((axis,), (0,))), -1, axis)
    return x


def _make_pooling_matrix(positions, cells, dtype):
    matrix = np.zeros((positions, cells))
    for cell in range(cells):
        covered = slice(cell * positions // cells, -(-(cell + 1) * positions // cells))
        matrix[covered, cell] = 1.0 / (covered.stop - covered.start)
    return ops.convert_to_tensor(matrix, dtype=dtype)
