"""Warm-up of distillation losses."""

import keras

from keras_tkd.utils.number_checks import is_finite

__all__ = ["WarmUp"]


class WarmUp(keras.callbacks.Callback):
    """Raises the weights of a Distiller's distillation losses linearly over the first epochs.

    In epoch e, counted from 0, the losses count with `min((e + 1) / epochs, 1)` of their weights, which is the
    Distiller's `distillation_share`. The weights themselves, `distillation_loss_weights`, stay as they are: a Distiller
    that is saved during the warm-up, or whose training is interrupted, has those that it was given.

    Args:
        epochs: number of epochs until the weights are whole, >= 1.

    Raises:
        ValueError: `epochs` < 1; when a training begins: a model that has no distillation losses.
    """

    def __init__(self, epochs):
        super().__init__()
        if not is_finite(epochs) or epochs < 1:
            raise ValueError(f"`epochs` must be >= 1, a number. Received: epochs={epochs!r}")
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        if not hasattr(self.model, "distillation_share"):
            raise ValueError(
                "WarmUp raises the weights of distillation losses. Received: a model without them, "
                f"{type(self.model).__name__} '{self.model.name}'. Give it to `fit` of a Distiller or a TriKD"
            )

    def on_epoch_begin(self, epoch, logs=None):
        self.model.distillation_share = min((epoch + 1) / self.epochs, 1.0)
