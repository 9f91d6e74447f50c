"""Keras's fault: under a strategy `fit` fails where the replicas have not the same number of a first batch's images."""

import keras
import pytest


def test_fit_fails(probed):
    said = probed["plain"]["fit_on_uneven_shares"]
    if said is None:
        pytest.skip(f"keras {keras.__version__} has repaired it: `mend_distributed_fit` need not build on one share")
    # It takes the mean of two images and one.
    assert "Input 0: [2,1] != input 1: [1,1]" in said, said
