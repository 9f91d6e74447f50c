"""Keras's fault, its issue 20585: `fit` fails under `MultiWorkerMirroredStrategy`, for two causes."""

import keras
import pytest

CAUSES = [
    # What each replica has of a batch is no tensor.
    (0, "it builds the model on a batch", "'tensorflow.python.distribute.values.PerReplica'>) to a Tensor"),
    # A scalar has no axis to be averaged along.
    (1, "it averages the logs", "Invalid reduction dimension 0 for input with 0 dimensions"),
]


@pytest.mark.parametrize(("cause", "where", "message"), CAUSES)
def test_fit_fails(results, cause, where, message):
    for worker in ("worker 0", "worker 1"):
        said = results[worker][1]["plain"][cause]
        if said is None:
            pytest.skip(f"keras {keras.__version__} has repaired where {where}: so may `mend_distributed_fit`")
        assert message in said, said
