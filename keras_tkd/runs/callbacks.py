"""Callbacks of a run's trainings: they count images, show progress and warn."""

import time

import keras
import tensorflow as tf

from keras_tkd.data.options import count_batches
from keras_tkd.utils.progress import Progress

__all__ = ["CheckLogs", "Throughput", "TrainingProgress", "WarnAtChance"]


class CheckLogs(keras.callbacks.Callback):
    """Raises `ValueError` at the end of an epoch whose logs hold anything but numbers, and makes these plain floats.

    Charts, the record of a training and its progress show logs: what a callback adds to them must be a number.
    """

    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            number = _convert_to_float(value)
            if number is None:
                raise ValueError(
                    "Logs of an epoch must be numbers: they are shown and kept. Received: "
                    f"logs[{name!r}] = {value!r}. Have the callback keep it elsewhere"
                )
            logs[name] = number


def _convert_to_float(value):
    """Converts a number, or an array or tensor of a single one; None for anything else."""
    try:
        # Text of digits would pass as a number.
        return None if isinstance(value, (str, bytes)) else float(value)
    except (TypeError, ValueError):
        return None


class Throughput(keras.callbacks.Callback):
    """Adds `images_per_second` and `learning_rate` to each epoch's logs.

    The clock runs over the steps of an epoch, without validation. In the first epoch it starts after the steps of the
    first execution, which had to compile: an epoch of these alone has no `images_per_second`.

    Args:
        samples: training images per epoch.
        batch_size: images of a step.
    """

    def __init__(self, samples, batch_size):
        super().__init__()
        self.samples = samples
        self.batch_size = batch_size

    def on_train_begin(self, logs=None):
        self._compiled = False

    def on_epoch_begin(self, epoch, logs=None):
        # Of an epoch that is taken up, the steps that are left.
        done = count_batches(self.samples, self.batch_size) - self.params["steps"]
        self._timed_samples = self.samples - done * self.batch_size
        self._begin, self._end = time.perf_counter(), None

    def on_train_batch_end(self, batch, logs=None):
        # The first execution traces and compiles; `batch` is the last of its steps.
        if not self._compiled:
            self._compiled = True
            self._timed_samples -= (batch + 1) * self.batch_size
            self._begin = time.perf_counter()

    def on_test_begin(self, logs=None):
        self._end = self._end or time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        # Keras gives all callbacks the same dict: later callbacks see what is added here.
        seconds = (self._end or time.perf_counter()) - self._begin
        if self._timed_samples > 0:
            logs["images_per_second"] = self._timed_samples / seconds
        logs["learning_rate"] = float(tf.convert_to_tensor(self.model.optimizer.learning_rate))


class WarnAtChance(keras.callbacks.Callback):
    """Prints a warning if a model, or a teacher that learns with it, still answers at chance after its first epochs.

    Args:
        at_chance: function of a validation accuracy, True for chance level.
        epochs: how many epochs a model may take to leave it.
    """

    def __init__(self, at_chance, epochs=3):
        super().__init__()
        self.at_chance = at_chance
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        # Once, and early enough to stop the run: by then a model that learns at all is above chance.
        if epoch + 1 != self.epochs:
            return
        # Nobody has named the model that distils.
        own = getattr(self.model, "student", self.model).name
        for metric, name in (("val_accuracy", own), ("val_teacher_accuracy", "the teacher")):
            if metric in logs and self.at_chance(logs[metric]):
                print(
                    f"\nWarning: after {self.epochs} epochs {name} is at chance: accuracy {logs[metric]:.2%} on images "
                    "not trained on. It may have collapsed (dead ReLUs): a lower learning rate or a smaller weight of "
                    "the distillation losses helps.",
                    flush=True,
                )


class TrainingProgress(keras.callbacks.Callback):
    """Shows a whole training: one bar on a terminal, about ten lines elsewhere.

    Args:
        title: what is being trained.
        steps: steps of an epoch.
        epochs: epochs of the training.
        metrics: names of the logs to show.
    """

    def __init__(self, title, steps, epochs, metrics=("loss", "accuracy", "val_accuracy")):
        super().__init__()
        self.title = title
        self.steps = steps
        self.epochs = epochs
        self.metrics = metrics
        self._progress = None

    def on_train_begin(self, logs=None):
        # Where an epoch was taken up, training goes on in a second `fit`.
        if self._progress is None:
            total = self.steps * self.epochs
            self._progress = Progress(self.title, 0, total, "step", map(_readable, self.metrics))

    def on_epoch_begin(self, epoch, logs=None):
        self._first_step = epoch * self.steps + self.steps - self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        # The last step of an epoch is shown with the epoch's values, after validation.
        if batch + 1 < self.params["steps"]:
            self._progress.move(self._first_step + batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        values = [(_readable(name), logs[name]) for name in self.metrics if name in logs]
        shown = "  ".join(f"{name} {value:.4f}" for name, value in values)
        line = f"epoch {epoch + 1}/{self.epochs}  {shown}"
        self._progress.report((epoch + 1) * self.steps, values, line)
        self._ended = epoch + 1 == self.epochs

    def on_train_end(self, logs=None):
        if self._ended or self.model.stop_training:
            self._progress.close()


def _readable(name):
    # Keras's "val_" are the validation images or, where none are held out for choosing, the test images.
    return name.replace("val_", "held-out ")
