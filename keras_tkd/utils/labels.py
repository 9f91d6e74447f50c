"""Class ids as arrays of whole numbers, of whatever a user has them in."""

import numpy as np

__all__ = ["read_class_ids"]


def read_class_ids(labels, argument="labels"):
    """Returns class ids as an array `(samples,)` of whole numbers.

    Args:
        labels: `(samples,)` or `(samples, 1)`: integers of any kind, which keep their dtype, floats that are whole,
            or booleans, whose classes are 0 and 1.
        argument: name of the argument in an error.

    Raises:
        ValueError: anything else, each with what to do: names of classes, one-hot rows, other floats.
    """
    ids = np.asarray(labels)
    if ids.ndim == 2 and ids.shape[1] == 1:
        ids = ids[:, 0]
    rule = f"`{argument}` must be class ids, whole numbers of shape (samples,)"
    if ids.ndim != 1:
        rows = ". One-hot rows become ids by `labels.argmax(axis=-1)`" if ids.ndim == 2 else ""
        raise ValueError(f"{rule}. Received: shape {ids.shape}{rows}")
    if ids.dtype == object and all(isinstance(each, (int, np.integer)) for each in ids):
        ids = np.array(ids.tolist())
    if ids.dtype.kind == "b":
        return ids.astype("int32")
    if ids.dtype.kind in "iu":
        return ids
    if ids.dtype.kind == "f":
        broken = ids[~(np.isfinite(ids) & (ids == np.floor(ids)))]
        if broken.size:
            raise ValueError(f"{rule}. Received: {broken.size} that are not whole, such as {broken[0]}")
        return ids.astype("int64")
    raise ValueError(
        f"{rule}. Received: {ids.dtype} such as {ids[:1].tolist()}. Names become ids by "
        "`class_names, labels = numpy.unique(labels, return_inverse=True)`"
    )
