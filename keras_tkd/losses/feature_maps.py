"""Feature maps `(batch, height, width, channels)` of two networks, made to meet in height and width."""

import numpy as np
from keras import ops


def mean_square(x):
    return ops.mean(ops.square(x), axis=tuple(range(1, len(x.shape))))


def pooled_alike(first, second):
    """Both outputs, the larger map average-pooled to the height and width of the smaller."""
    if len(first.shape) != 4 or len(second.shape) != 4:
        return first, second
    size = tuple(min(a, b) for a, b in zip(first.shape[1:3], second.shape[1:3], strict=True))
    return pool(first, size), pool(second, size)


def pool(x, size):
    """`x`, average-pooled to `size`; cell i of m covers the positions floor(i n / m) to ceil((i + 1) n / m) of n."""
    for axis, cells in enumerate(size, 1):
        if x.shape[axis] != cells:
            matrix = pooling_matrix(x.shape[axis], cells, x.dtype)
            x = ops.moveaxis(ops.tensordot(x, matrix, axes=((axis,), (0,))), -1, axis)
    return x


def pooling_matrix(positions, cells, dtype):
    matrix = np.zeros((positions, cells))
    for cell in range(cells):
        covered = slice(cell * positions // cells, -(-(cell + 1) * positions // cells))
        matrix[covered, cell] = 1.0 / (covered.stop - covered.start)
    return ops.convert_to_tensor(matrix, dtype=dtype)


def check_maps(name, teachers, students):
    """Raises `ValueError` unless all shapes, of each side a list, are those of maps of known size."""
    if any(len(shape) != 4 or None in shape[1:] for shape in [*teachers, *students]):
        raise ValueError(
            f"Loss '{name}' reads feature maps (batch, height, width, channels) of known size. Received: teacher "
            f"{', '.join(map(str, teachers))}; student {', '.join(map(str, students))}"
        )


def shapes_of(outputs):
    """Shapes of a list of outputs, with None for the batch."""
    return [(None, *x.shape[1:]) for x in outputs]
