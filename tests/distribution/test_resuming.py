"""Trainings under a strategy that are taken up again, and a look at one before it begins."""

import numpy as np
import pytest


@pytest.mark.parametrize("by", ["BackupState", "BackupAndRestore"])
def test_a_training_that_is_taken_up_ends_with_the_same_bits(probed, by):
    ends = probed["ours"]["resumed_training"]
    for mine, expected in zip(ends[by]["weights"], ends["at once"]["weights"], strict=True):
        assert np.isfinite(expected).all()
        np.testing.assert_array_equal(mine, expected)
    if by == "BackupState":
        # Five batches of three in an epoch.
        assert ends[by]["position"] == [1, 2]
        # What the replicas had summed up is shared out between them anew: a sum in another order.
        np.testing.assert_allclose(ends[by]["loss"], ends["at once"]["loss"], rtol=1e-6)
    else:
        assert ends[by]["loss"] == ends["at once"]["loss"][1:]


def test_check_is_of_one_device(probed):
    value, loss, said = probed["ours"]["check_of_a_batch"]
    assert value == pytest.approx(loss, rel=1e-5)
    assert "Received: a call inside the scope of a MirroredStrategy. Call it outside" in said
