"""Rows sorted by class: an order in which the rows of each class are one run, for draws inside or outside a class."""

import tensorflow as tf

__all__ = ["find_runs", "skip_run", "sort_by_class"]


def sort_by_class(labels):
    """Sorts rows by class.

    Args:
        labels: `(rows,)`, any numeric dtype that can be sorted where this runs.

    Returns:
        `(order, ordered)`, `(rows,)` each: the rows in the new order, int32, those of a class as they stood; and their
        labels.
    """
    labels = tf.convert_to_tensor(labels)
    # Stable: the order then is one and the same on every device, and so are the draws from it.
    order = tf.argsort(labels, stable=True)
    return order, tf.gather(labels, order)


def find_runs(ordered, labels, dtype=tf.int32):
    """Finds the run of each label's class.

    Args:
        ordered: labels as `sort_by_class` returns them.
        labels: `(n,)`, of the same dtype.
        dtype: of the results.

    Returns:
        `(start, count)`, `(n,)` each: where the run begins in the order, and its length.
    """
    start = tf.searchsorted(ordered, labels, side="left", out_type=dtype)
    return start, tf.searchsorted(ordered, labels, side="right", out_type=dtype) - start


def skip_run(places, start, count):
    """Moves places that count only what is outside a run to where they stand in the whole order.

    So one uniform number below `rows - count` is a uniform draw from the rows outside the run.
    """
    return tf.where(places < start, places, places + count)
