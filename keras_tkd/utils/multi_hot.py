"""Labels of images of several classes: multi-hot rows, 1 for each class that an image has."""

import numpy as np

__all__ = ["count_classes", "is_multi_hot", "read_multi_hot"]


def is_multi_hot(labels) -> bool:
    """Returns whether labels are rows of a number for each class, and not class ids, `(samples,)` or `(samples, 1)`."""
    shape = np.shape(labels)
    return len(shape) == 2 and shape[1] != 1


def read_multi_hot(labels, argument="labels"):
    """Returns multi-hot rows as an array `(samples, classes)`, in their own dtype; booleans become uint8.

    Args:
        labels: `(samples, classes)`, 0 and 1, or shares between the two.
        argument: name of the argument in an error.

    Raises:
        ValueError: anything else.
    """
    rows = np.asarray(labels)
    if not is_multi_hot(rows) or rows.dtype.kind not in "biuf" or not np.all((rows >= 0) & (rows <= 1)):
        wrong = "" if rows.dtype.kind not in "biuf" else f", from {rows.min():g} to {rows.max():g}" * bool(rows.size)
        raise ValueError(
            f"`{argument}` must be multi-hot rows (samples, classes), 1 for each class that an image has and 0 for the "
            f"others. Received: shape {rows.shape}, {rows.dtype}{wrong}"
        )
    return rows.astype("uint8") if rows.dtype.kind == "b" else rows


def count_classes(labels, num_classes: int):
    """Counts the samples of each class, int64 `(num_classes,)`, in class ids or in multi-hot rows."""
    if is_multi_hot(labels):
        return np.count_nonzero(labels, axis=0)
    return np.bincount(labels, minlength=num_classes)
