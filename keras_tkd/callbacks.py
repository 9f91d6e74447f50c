"""Callbacks for any `fit`: one that ends a training which cannot succeed, and one that warms up a distillation."""

import math

import keras

__all__ = ["TerminateOnNonFinite", "WarmUp"]

_ADVICE = (
    "training stopped. Lower the learning rate or the weight of the loss, or train in "
    "float32 if it runs in mixed_float16."
)


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Raises `FloatingPointError` when a loss is not finite, naming the step and, for a Distiller, the loss.

    Args:
        every: number of steps between two looks, rounded up to whole executions (`steps_per_execution`). A look waits
            for the step to finish; between looks, training does not wait. It looks at the end of an epoch as well.

    Raises:
        FloatingPointError: in training, see above.
    """

    def __init__(self, every=50):
        super().__init__()
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
            self._look(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._look(logs)

    def _look(self, logs):
        if hasattr(self.model, "first_non_finite"):
            found = self.model.first_non_finite()
            if found is not None:
                step, term = found
                raise FloatingPointError(
                    f"Loss '{term}' was not finite at step {step} (from 0), which updated nothing; {_ADVICE}"
                )
        elif logs and not math.isfinite(float(logs.get("loss", 0.0))):
            raise FloatingPointError(f"The loss of '{self.model.name}' is not finite; {_ADVICE}")


class WarmUp(keras.callbacks.Callback):
    """Raises the weights of a Distiller's distillation losses linearly over the first epochs.

    In epoch e, counted from 0, they are `min((e + 1) / epochs, 1)` of what they were when training began, and when it
    ends they are that again.

    Args:
        epochs: number of epochs until the weights are whole, >= 1.

    Raises:
        ValueError: `epochs` < 1.
    """

    def __init__(self, epochs):
        super().__init__()
        if epochs < 1:
            raise ValueError(f"`epochs` must be >= 1. Received: epochs={epochs}")
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        self._weights = self.model.distillation_loss_weights

    def on_epoch_begin(self, epoch, logs=None):
        share = min((epoch + 1) / self.epochs, 1.0)
        self.model.distillation_loss_weights = [share * weight for weight in self._weights]

    def on_train_end(self, logs=None):
        # A Distiller that is saved, or trained further, has the weights that it was given.
        self.model.distillation_loss_weights = self._weights
