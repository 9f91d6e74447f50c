"""Rows that workers put together: each number is the one that was given, whatever its kind."""

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.distribution.rows import RowGatherer


@pytest.fixture(scope="module")
def gatherer():
    # One device stands in for the workers: what is sent has the same kinds.
    return RowGatherer(tf.distribute.MirroredStrategy(["CPU:0"]))


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        ("uint64", [2**40, 3 * 10**9, 2**63, 2**64 - 1]),
        ("int64", [-(2**63), 2**63 - 1]),
        ("uint32", [2**31, 2**32 - 1]),
        ("int32", [-(2**31), 2**31 - 1]),
        ("uint16", [2**16 - 1]),
        ("int8", [-128, 127]),
        ("bool", [True, False]),
        ("float16", [2**-24, np.inf]),
        ("float64", [1 + 2**-52]),
    ],
)
def test_every_number_arrives_as_it_is(dtype, numbers, gatherer):
    rows = np.array(numbers, dtype)
    assert rows.tolist() == numbers
    found = gatherer(rows)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize("rows", [np.array(["a"]), np.array([1 + 2j])])
def test_other_kinds_are_refused(rows, gatherer):
    with pytest.raises(ValueError, match=f"whole numbers or floats of up to 64 bits. Received: dtype={rows.dtype}"):
        gatherer(rows)
