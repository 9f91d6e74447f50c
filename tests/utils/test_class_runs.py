"""Rows in an order by class, against one that is written down."""

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.utils.class_runs import find_runs, skip_run, sort_by_class

# By class: rows 1, 4 (class -3), 3 (class 2), 0, 2, 5 (class 7).
LABELS = [7, -3, 7, 2, -3, 7]


@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
def test_each_class_is_one_run_in_the_order_of_its_rows(mode):
    def both(labels):
        order, ordered = sort_by_class(labels)
        return order, ordered, *find_runs(ordered, labels)

    function = both if mode == "eager" else tf.function(both, jit_compile=mode == "jit")
    order, ordered, start, count = (x.numpy().tolist() for x in function(tf.constant(LABELS)))
    assert order == [1, 4, 3, 0, 2, 5]
    assert ordered == [-3, -3, 2, 7, 7, 7]
    assert start == [3, 0, 3, 2, 0, 3]
    assert count == [3, 2, 3, 1, 2, 3]


def test_runs_of_labels_that_are_not_all_rows():
    """Those of a batch; a class that has no row has a run of none."""
    _, ordered = sort_by_class(tf.constant(LABELS, tf.int64))
    start, count = find_runs(ordered, tf.constant([2, 9, 2], tf.int64), tf.int64)
    assert start.dtype == count.dtype == tf.int64
    assert (start.numpy().tolist(), count.numpy().tolist()) == ([2, 6, 2], [1, 0, 1])


def test_places_outside_a_run_are_each_met_once():
    """Of six places with a run of two from place 2: 0, 1, 4 and 5."""
    assert skip_run(tf.range(4), 2, 2).numpy().tolist() == [0, 1, 4, 5]
    # A run at the beginning, at the end, of nothing.
    starts, counts = np.array([[0], [4], [3]]), np.array([[2], [2], [0]])
    expected = [[2, 3, 4, 5], [0, 1, 2, 3], [0, 1, 2, 3]]
    assert skip_run(np.arange(4)[None], starts, counts).numpy().tolist() == expected
