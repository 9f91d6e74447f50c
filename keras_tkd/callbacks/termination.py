"""Termination of a training that cannot succeed."""

import math

import keras

from keras_tkd.utils.number_checks import check_whole

__all__ = ["GRADIENT", "TerminateOnNonFinite", "check_finite"]

# Stands for a loss's name where all losses are finite, and the gradient of their total is not.
GRADIENT = "gradient"

_ADVICE = (
    "training stopped. Lower the learning rate or the weight of the loss, or train in "
    "float32 if it runs in mixed_float16."
)


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Raises `FloatingPointError` when a loss is not finite, naming the step and, for a Distiller, the loss.

    Of a Distiller, also when all losses are finite and their gradient is not.

    Args:
        every: number of steps between two looks, rounded up to whole executions (`steps_per_execution`). A look waits
            for the step to finish; between looks, training does not wait. It looks at the end of an epoch as well.

    Raises:
        ValueError: `every` < 1.
        FloatingPointError: in training, see above.
    """

    def __init__(self, every=50):
        super().__init__()
        check_whole("every", every, 1)
        self.every = every

    def on_train_begin(self, logs=None):
        # Models that distil note the step and the loss themselves; of others, Keras's mean of the losses is looked at.
        if hasattr(self.model, "reset_first_non_finite"):
            self.model.reset_first_non_finite()

    def on_epoch_begin(self, epoch, logs=None):
        self._looked = -1

    def on_train_batch_end(self, batch, logs=None):
        if batch - self._looked >= self.every:
            self._looked = batch
            check_finite(self.model, logs)

    def on_epoch_end(self, epoch, logs=None):
        check_finite(self.model, logs)


def check_finite(model, logs=None):
    """Raises `FloatingPointError` if a loss of the training so far was not finite.

    Args:
        model: the `keras.Model` that is trained. One that distils has noted the step and the loss itself.
        logs: of any other, dict of its metrics so far, of which `"loss"` is looked at; None says nothing.
    """
    if hasattr(model, "first_non_finite"):
        found = model.first_non_finite()
        if found is not None:
            step, term = found
            what = "The gradient of the losses" if term == GRADIENT else f"Loss '{term}'"
            raise FloatingPointError(
                f"{what} was not finite at step {step} (from 0), which updated nothing; "
                f"{model.advise_on_non_finite(_ADVICE)}"
            )
    elif logs and not math.isfinite(float(logs.get("loss", 0.0))):
        raise FloatingPointError(f"The loss of '{model.name}' is not finite; {_ADVICE}")
