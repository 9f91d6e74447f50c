"""Averages of weights that an optimizer keeps (`use_ema`), in a `fit` in which it may apply no step."""

import keras

from keras_tkd.utils.keras_graph import begin_averages

__all__ = ["BeginAverages"]


class BeginAverages(keras.callbacks.Callback):
    """Leaves the student its weights where Keras, at the end of a `fit`, would give it averages over no step: zeros.

    In float16 each step of a short `fit` may be skipped, and a `fit` whose `initial_epoch` is its last has none.
    """

    def on_train_begin(self, logs=None):
        begin_averages(self.model.optimizer)

    def on_epoch_end(self, epoch, logs=None):
        # Built only now, with a layer that the first step builds.
        begin_averages(self.model.optimizer)
