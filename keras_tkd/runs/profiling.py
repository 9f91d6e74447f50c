"""Profiles of some steps of a training, for TensorBoard's profiler."""

import keras
import tensorflow as tf

from keras_tkd.data.options import count_batches

__all__ = ["Profile", "check_profiled_steps"]


class Profile(keras.callbacks.Callback):
    """Records what TensorFlow does in some steps of a training, once, for TensorBoard's profiler.

    Of steps that make one execution, the whole execution is recorded. A training that is taken up after these steps
    records none.

    Args:
        folder: the folder of the training's curves, in which the profile is found.
        first, last: the steps, counted from 1 over the whole training.
        steps: steps of an epoch.
    """

    def __init__(self, folder, first, last, steps):
        super().__init__()
        self._folder, self._first, self._last, self._steps = str(folder), first, last, steps
        self._running = False

    def on_epoch_begin(self, epoch, logs=None):
        # Of an epoch that is taken up Keras counts the steps that are left, from 0.
        self._before = (epoch + 1) * self._steps - self.params["steps"]

    def on_train_batch_begin(self, batch, logs=None):
        begun = self._before + batch
        # The execution that begins now may hold the first step further on.
        if not self._running and begun < self._first <= begun + self.model.steps_per_execution:
            tf.profiler.experimental.start(self._folder)
            self._running = True

    def on_train_batch_end(self, batch, logs=None):
        if self._before + batch + 1 >= self._last:
            self._stop()

    def on_train_end(self, logs=None):
        self._stop()

    def _stop(self):
        if self._running:
            tf.profiler.experimental.stop()
        self._running = False


def check_profiled_steps(config, splits):
    """Raises `ValueError` for `profile_steps` that the run's training does not have."""
    steps = config.epochs * count_batches(len(splits.train_labels), config.batch_size)
    if config.profile_steps and config.profile_steps[1] > steps:
        raise ValueError(
            f"`profile_steps` must be steps of the training, which has {steps}. Received: "
            f"profile_steps={config.profile_steps!r}. Choose earlier ones, or train longer"
        )
