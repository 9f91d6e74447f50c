"""Features of two networks at positions, maps or tokens, made to meet in their positions."""

import math

import numpy as np
from keras import ops

__all__ = ["average_positions", "check_maps", "check_pair", "list_shapes", "match_positions", "mean_square"]

_KINDS = {
    4: "feature maps (batch, height, width, channels)",
    3: "tokens (batch, tokens, width)",
    2: "vectors (batch, width)",
}


def average_positions(x):
    """Averages maps or tokens over their positions; vectors `(batch, width)` are returned as they are."""
    return ops.mean(x, axis=tuple(range(1, len(x.shape) - 1))) if len(x.shape) > 2 else x


def mean_square(x):
    """Mean of the squares of each sample, `(batch, ...)` -> `(batch,)`."""
    return ops.mean(ops.square(x), axis=tuple(range(1, len(x.shape))))


def match_positions(first, second):
    """Makes two outputs meet in their positions: returns both.

    Of two maps the larger is average-pooled to the height and width of the smaller: cell i of m covers the positions
    floor(i n / m) to ceil((i + 1) n / m) of n. Of tokens, a class token that only one side has is left out. Others are
    returned as they are.
    """
    if len(first.shape) == len(second.shape) == 3:
        if _has_class_token(first.shape[1], second.shape[1]):
            first = first[:, 1:]
        elif _has_class_token(second.shape[1], first.shape[1]):
            second = second[:, 1:]
        return first, second
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


def check_pair(name, teacher: tuple, student: tuple, ranks=(2, 3, 4)):
    """Raises `ValueError` unless two shapes are of the same kind, of known size, and can be made to meet.

    Args:
        name: the loss's.
        teacher, student: shapes, batch included.
        ranks: the numbers of axes that the loss takes.
    """
    received = f"Received: teacher {teacher}; student {student}"
    if len(teacher) != len(student) or len(teacher) not in ranks or None in (*teacher[1:], *student[1:]):
        kinds = " or ".join(kind for rank, kind in _KINDS.items() if rank in ranks)
        raise ValueError(f"Loss '{name}' reads {kinds}, of known size, of the same kind on both sides. {received}")
    counts = teacher[1], student[1]
    if len(teacher) == 3 and counts[0] != counts[1] and not _has_class_token(max(counts), min(counts)):
        raise ValueError(
            f"Loss '{name}' compares tokens position by position: there must be as many on both sides, or one more on "
            "one side, a class token before a square of patches, which is then left out. "
            f"{received}. Choose layers that agree, or bring one side to the other's positions by a layer of its model"
        )


def list_shapes(outputs) -> list[tuple]:
    """Lists the shapes of a list of outputs, with None for the batch."""
    # As `build` is given them, so that one check serves both.
    return [(None, *x.shape[1:]) for x in outputs]


def _has_class_token(count, other):
    """Returns whether `count` tokens are a class token, the first, and the patches of a square, which `other` are."""
    return None not in (count, other) and count == other + 1 and math.isqrt(other) ** 2 == other


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
