"""Keras as it is, in processes where this package has mended it."""

import contextlib
from unittest import mock

import keras
from keras.src.backend.tensorflow import trainer

_PARTS = (
    (trainer.TensorFlowTrainer, "_maybe_symbolic_build"),
    (trainer, "reduce_per_replica"),
    (keras.layers.BatchNormalization, "_moments"),
)
# As this module, which is imported first, finds them.
_OWN = [getattr(*part) for part in _PARTS]


@contextlib.contextmanager
def unmended():
    """Puts Keras's own functions back while the context is open."""
    with contextlib.ExitStack() as stack:
        for part, own in zip(_PARTS, _OWN, strict=True):
            stack.enter_context(mock.patch.object(*part, own))
        yield
