"""Warm-up of distillation losses."""

import keras

from keras_tkd.utils.number_checks import is_finite

__all__ = ["WarmUp"]


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
        if not is_finite(epochs) or epochs < 1:
            raise ValueError(f"`epochs` must be >= 1, a number. Received: epochs={epochs!r}")
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        self._weights = self.model.distillation_loss_weights

    def on_epoch_begin(self, epoch, logs=None):
        share = min((epoch + 1) / self.epochs, 1.0)
        self.model.distillation_loss_weights = [share * weight for weight in self._weights]

    def on_train_end(self, logs=None):
        # A Distiller that is saved, or trained further, has the weights that it was given.
        self.model.distillation_loss_weights = self._weights
