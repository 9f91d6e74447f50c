"""Checkpoints of a training, from which it goes on after an interruption."""

import time

import keras
import tensorflow as tf

__all__ = ["BackupState"]


class BackupState(keras.callbacks.Callback):
    """Writes what is needed to go on after an interruption, at the end of an epoch, every so many seconds.

    Args:
        variables: all Keras variables that training changes, seeds of dropout included.
        stage: the `Stage` whose record keeps the curve.
        every_seconds: least time between two writings; a training shorter than that writes nothing.
    """

    def __init__(self, variables, stage, every_seconds=30.0):
        super().__init__()
        # TensorFlow tracks its own variables, which Keras's hold.
        self.checkpoint = tf.train.Checkpoint(variables=[variable.value for variable in variables])
        # Two are kept: the record may be one epoch behind the newest checkpoint when a run is cut off between them.
        self.manager = tf.train.CheckpointManager(self.checkpoint, str(stage.checkpoints), max_to_keep=2)
        self.stage = stage
        self.every_seconds = every_seconds

    def restore(self):
        """Takes up the state of the stage's record; returns the number of epochs it has behind it."""
        epochs = len(self.stage.history)
        if epochs:
            # `assert_consumed`: a variable without a value would go on from its starting one.
            self.checkpoint.restore(str(self.stage.checkpoints / f"ckpt-{epochs}")).assert_consumed()
        return epochs

    def on_train_begin(self, logs=None):
        self.history = list(self.stage.history)
        self._seconds_before = self.stage.seconds
        self._began = self._kept = time.perf_counter()

    @property
    def seconds(self):
        """Seconds of training so far, those before an interruption included."""
        return self._seconds_before + time.perf_counter() - self._began

    def on_epoch_end(self, epoch, logs=None):
        self.history.append({name: float(value) for name, value in logs.items()})
        if time.perf_counter() - self._kept >= self.every_seconds:
            self.manager.save(checkpoint_number=epoch + 1)
            self.stage.record(self.history, self.seconds)
            self._kept = time.perf_counter()
