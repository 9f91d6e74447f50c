"""Names in sentences, of which there may be too many to read."""

__all__ = ["name_some"]


def name_some(names, most=10):
    """Returns names as text: the first of them, and how many more there are.

    Args:
        names: iterable of strings.
        most: number of names that are said; what is more, is counted.
    """
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
