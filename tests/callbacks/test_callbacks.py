"""Callbacks for anyone's training, on small models of Keras's own."""

import keras
import numpy as np
import pytest

from keras_tkd.callbacks import TerminateOnNonFinite

X, Y = np.ones((10, 2), "float32"), np.zeros((10, 1), "float32")


def fit(*callbacks, loss="mse", steps_per_execution=1, **arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="small")
    model.compile("sgd", loss, steps_per_execution=steps_per_execution)
    settings = {"batch_size": 2, "epochs": 2, "verbose": 0, "validation_data": (X, Y)} | arguments
    return model.fit(X, Y, callbacks=list(callbacks), **settings)


def not_finite(y_true, y_pred):
    return keras.ops.mean(y_pred, axis=-1) * np.float32("nan")


def test_a_plain_model_whose_loss_is_not_finite_is_stopped():
    with pytest.raises(FloatingPointError, match="'small' is not finite"):
        fit(TerminateOnNonFinite(), loss=not_finite)


@pytest.mark.parametrize(
    ("every", "together", "executions"), [(1, 1, 1), (3, 1, 3), (50, 1, 5), (1, 2, 1), (3, 2, 2), (50, 2, 3)]
)
def test_it_looks_every_so_many_steps_and_at_the_end_of_the_epoch(every, together, executions):
    seen = []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(batch))
    with pytest.raises(FloatingPointError):
        fit(count, TerminateOnNonFinite(every), loss=not_finite, steps_per_execution=together)
    assert len(seen) == executions
