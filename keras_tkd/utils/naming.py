"""Names in sentences, of which there may be too many to read."""

__all__ = ["is_one_line", "name_some"]


def is_one_line(name):
    """Returns whether a name has no line break of any kind, and so may stand in a list with a name in each line."""
    return len(f"{name}.".splitlines()) == 1


def name_some(names, most=10):
    """Returns names as text: the first of them, and how many more there are.

    Args:
        names: iterable of strings.
        most: number of names that are said; what is more, is counted.
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
