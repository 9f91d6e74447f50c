"""Callbacks for runs: stop on what cannot be a result, count, show, log, keep."""

import math

import keras


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Raises `FloatingPointError` when a loss is not finite, naming the step and, for a Distiller, the loss.

    Args:
        every: steps between two looks, and as many more as it takes to the end of an execution. A look waits for the
            step to finish; between looks, training does not wait.
    """

    def __init__(self, every=50):
        super().__init__()
        self.every = every

    def on_train_begin(self, logs=None):
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
                    f"Loss '{term}' was not finite at step {step} (from 0), which updated nothing; {ADVICE}"
                )
        elif logs and not math.isfinite(float(logs.get("loss", 0.0))):
            raise FloatingPointError(f"The loss of '{self.model.name}' is not finite; {ADVICE}")


ADVICE = (
    "training stopped. Lower the learning rate or the weight of the loss, or train in "
    "float32 if it runs in mixed_float16."
)


class WarmUp(keras.callbacks.Callback):
    """Lets the weights of a Distiller's distillation losses rise linearly: in epoch e, from 0, they are
    `min((e + 1) / epochs, 1)` of what they were when training began, which they are again when it ends.

    Args:
        epochs: >= 1.
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
        self.model.distillation_loss_weights = self._weights
