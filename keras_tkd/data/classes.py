"""Classes by the names or indices that a person gives."""

import difflib

__all__ = ["class_indices"]


def class_indices(classes, names, argument="classes"):
    """Returns the indices of classes that are given by name or index.

    Args:
        classes: list of names and indices; a string of digits is a name if there is such a name, else an index.
        names: the names of all classes, in the order of their indices.
        argument: name of the argument in an error.

    Returns:
        tuple of ints, in the order given.

    Raises:
        ValueError: no classes, one that does not exist, or one given twice.

    Example:

    >>> class_indices(["dog", "0", 1], ["cat", "bird", "dog"])
    (2, 0, 1)
    """
    positions = {name: index for index, name in enumerate(names)}
    indices = []
    for given in classes:
        # Names come first: a data set may name its classes by digits, in any order.
        index = positions.get(given, int(given) if str(given).isdecimal() else -1)
        if not 0 <= index < len(names):
            near = difflib.get_close_matches(str(given), names, n=3)
            hint = f". Nearest names: {', '.join(near)}" if near else ""
            raise ValueError(
                f"`{argument}` must be names of classes, or indices from 0 to {len(names) - 1}. "
                f"Received: {given!r}{hint}"
            )
        indices.append(index)
    if not indices or len(set(indices)) < len(indices):
        raise ValueError(f"`{argument}` must be at least one class, and none twice. Received: {list(classes)}")
    return tuple(indices)
