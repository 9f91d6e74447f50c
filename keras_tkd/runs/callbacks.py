"""Callbacks of a run's trainings: they count images, show progress, write TensorBoard's files and warn."""

import pathlib
import time

import keras
import tensorflow as tf

from keras_tkd.data.options import count_batches
from keras_tkd.utils.progress import Progress

__all__ = ["CheckLogs", "TensorBoardScalars", "Throughput", "TrainingProgress", "WarnAtChance"]


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
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)


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
        for metric, name in (("val_accuracy", self.model.name), ("val_teacher_accuracy", "the teacher")):
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


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes each epoch's logs for TensorBoard, grouped and explained.

    Training and held-out values are two runs of one folder, `train` and `held_out`, so that they share a chart.

    Args:
        folder: where the event files go.
        history: list of logs of the epochs that are behind, where a training is taken up: they are written anew, so
            that no epoch is there twice.
        of_labels: what is to be said of the losses on the labels beside, as a sentence with a space before it.
        multi_label: whether an image may have several classes.
    """

    GROUPS = {
        "accuracy": ("accuracy", "agreement"),
        "training": ("learning_rate", "images_per_second"),
        "triplets": ("positive_distance", "negative_distance", "violated"),
    }
    EXPLAINED = {
        "accuracy": "Share of images whose largest logit is the label's.",
        "agreement": "Share of images for which student and teacher name the same class.",
        "learning_rate": "Learning rate of the epoch.",
        "images_per_second": "Training images per second, without validation and without what had to compile.",
        "positive_distance": "Mean distance between the teacher's and the student's logits for the same image.",
        "negative_distance": "Mean distance between the teacher's logits for an image and the student's logits for an "
        "image of another class.",
        "violated": "Share of triplets whose negative is not yet farther away than the positive by the margin.",
        "loss": "What is minimised: the weighted sum of all losses and the regularization. Its parts differ between "
        "runs of different methods: compare accuracies, not totals.",
        "student_anchor": "Divergence of the student from the anchor; no loss holds it.",
        "teacher_anchor": "Divergence of the teacher from the anchor, before its weight.",
        "teacher_peer": "Divergence of the teacher from the student, before its weight.",
        "teacher_total": "What the online teacher minimises: the weighted sum of its losses.",
        "teacher_loss": "The teacher's loss on the labels, before its weight.",
        "teacher_regularization": "Sum of the teacher's regularization losses (weight decay).",
        "student_loss": "Loss on the labels, before its weight.",
        "regularization": "Sum of the student's regularization losses (weight decay).",
    }

    # What is said otherwise where an image may have several classes.
    SEVERAL_CLASSES = {
        "accuracy": "Share of images of which every class is answered right; a logit above 0 is a yes.",
        "binary_accuracy": "Share of all yes and no, of each class for each image, that are right.",
        "agreement": "Share of all yes and no, of each class for each image, in which student and teacher agree.",
    }

    _OF_LABELS = ("loss", "student_loss", "teacher_loss")  # the total holds one of the others

    def __init__(self, folder, history=(), of_labels="", multi_label=False):
        super().__init__()
        self.explained = self.EXPLAINED | (self.SEVERAL_CLASSES if multi_label else {})
        self.folder = pathlib.Path(folder)
        self.of_labels = of_labels
        self._history = history
        self._writers = {}

    def on_train_begin(self, logs=None):
        if self._history is None:
            return
        # What an interrupted training wrote after its last checkpoint would be there beside what comes now.
        for path in self.folder.glob("*/events.out.tfevents.*"):
            path.unlink()
        for epoch, values in enumerate(self._history):
            self._write(epoch, values)
        self._history = None

    def on_epoch_end(self, epoch, logs=None):
        self._write(epoch, logs)

    def _write(self, epoch, logs):
        for name, value in logs.items():
            # Keras's "val_" would be a second chart beside the first.
            run = "held_out" if name.startswith("val_") else "train"
            if run not in self._writers:
                self._writers[run] = tf.summary.create_file_writer(str(self.folder / run))
            group, name, explained = self._place(name.removeprefix("val_"))
            with self._writers[run].as_default(step=epoch + 1):
                tf.summary.scalar(f"{group}/{name}", value, description=explained)

    def on_train_end(self, logs=None):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _place(self, name):
        """Group, name and explanation of a metric's chart."""
        for group, endings in self.GROUPS.items():
            for ending in endings:
                if name.endswith(ending):
                    return group, name, self.explained.get(name, self.explained[ending])
        explained = self.explained.get(name, f"Distillation loss '{name}', before its weight.")
        explained += self.of_labels * (name in self._OF_LABELS)
        return "loss", "total" if name == "loss" else name, explained
