"""Curves of a run's trainings for TensorBoard, and the numbers beside the losses that they show."""

import pathlib

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.distillation.base import DistillationModel
from keras_tkd.runs.optimization import SCHEDULE, describe_label_loss
from keras_tkd.runs.profiling import Profile
from keras_tkd.utils.hyperparameters import list_hyperparameters

__all__ = ["HELD_OUT", "Schedules", "TRAIN", "TensorBoardScalars", "make_logging"]

# The two runs of a training. Not Keras's "validation": without a validation split these are the test images.
TRAIN, HELD_OUT = "train", "held_out"


class Schedules(keras.callbacks.Callback):
    """Adds to each epoch's logs what the epoch was trained with: of a Distiller, weights, temperatures and the like.

    Their names begin with `schedule/`, which no metric's does: `schedule/kd_weight`, `schedule/kd_temperature`,
    `schedule/student_loss_weight`. They stand in the logs, as the learning rate does, so that a training that is taken
    up has those of the epochs before.
    """

    def on_epoch_end(self, epoch, logs=None):
        model = self.model
        # A model that learns from the labels alone has none.
        if not isinstance(model, DistillationModel):
            return
        numbers = list_hyperparameters(model)
        terms = zip(model.term_names, model.distillation_losses, model.distillation_loss_weights, strict=True)
        for term, loss, weight in terms:
            # As the epoch had it, in a warm-up too.
            own = {"weight": model.distillation_share * weight, **list_hyperparameters(loss)}
            numbers |= {f"{term}_{name}": number for name, number in own.items()}
        logs.update({f"{SCHEDULE}{name}": float(number) for name, number in numbers.items()})


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

    # Of logs by their whole name: the chart, and what it shows.
    _CHARTS = {
        "accuracy": ("accuracy/accuracy", "Share of images whose largest logit is the label's."),
        "teacher_accuracy": ("accuracy/teacher", "The same of the teacher that learns with the student."),
        "agreement": ("accuracy/agreement", "Share of images for which student and teacher name the same class."),
        "learning_rate": (f"{SCHEDULE}learning_rate", "Learning rate of the epoch."),
        "images_per_second": (
            "speed/images_per_second",
            "Training images per second, without validation and without what had to compile.",
        ),
        "loss": (
            "loss/total",
            "What is minimised: the weighted sum of all losses and the regularization. Its parts differ between runs "
            "of different methods: compare accuracies, not totals.",
        ),
        "student_loss": ("loss/student", "The student's loss on the labels, before its weight."),
        "regularization": ("loss/regularization", "Sum of the student's regularization losses (weight decay)."),
        "teacher_loss": ("loss/teacher", "The teacher's loss on the labels, before its weight."),
        "teacher_total": (
            "loss/teacher_total",
            "What the online teacher minimises: the weighted sum of its losses.",
        ),
        "teacher_regularization": (
            "loss/teacher_regularization",
            "Sum of the teacher's regularization losses (weight decay).",
        ),
        "teacher_anchor": (
            "loss/teacher_anchor",
            "Divergence of the teacher from the anchor, before its weight.",
        ),
        "teacher_peer": ("loss/teacher_peer", "Divergence of the teacher from the student, before its weight."),
        "student_anchor": ("loss/student_anchor", "Divergence of the student from the anchor; no loss holds it."),
    }
    # What is said otherwise, or beside, where an image may have several classes.
    _SEVERAL_CLASSES = {
        "accuracy": (
            "accuracy/accuracy",
            "Share of images of which every class is answered right; a logit above 0 is a yes.",
        ),
        "binary_accuracy": (
            "accuracy/binary",
            "Share of all yes and no, of each class for each image, that are right.",
        ),
        "agreement": (
            "accuracy/agreement",
            "Share of all yes and no, of each class for each image, in which student and teacher agree.",
        ),
    }
    # Of the statistics of losses, whose names begin with the loss's: the group by how they end.
    _STATISTICS = {
        "_positive_distance": (
            "triplets",
            "Mean distance between the teacher's and the student's logits for the same image.",
        ),
        "_negative_distance": (
            "triplets",
            "Mean distance between the teacher's logits for an image and the student's logits for an image of another "
            "class.",
        ),
        "_violated": (
            "triplets",
            "Share of triplets (or pairs) whose negative is not yet farther away than the margin asks for.",
        ),
        "_same_distance": ("triplets", "Mean distance of the pairs of one class."),
        "_other_distance": ("triplets", "Mean distance of the pairs of two classes."),
    }
    _OF_LABELS = ("loss", "student_loss", "teacher_loss")  # the total holds one of the others

    def __init__(self, folder, history=(), of_labels="", multi_label=False):
        super().__init__()
        self._charts = self._CHARTS | (self._SEVERAL_CLASSES if multi_label else {})
        self.folder = pathlib.Path(folder)
        self.of_labels = of_labels
        self._history = history
        self._writers, self._explained, self._has_failed = {}, set(), False

    def on_train_begin(self, logs=None):
        self._try(self._begin)

    def on_epoch_end(self, epoch, logs=None):
        self._try(self._write, epoch, logs)

    def on_train_end(self, logs=None):
        self._try(self._close)

    def _try(self, write, *arguments):
        """Writes, until that fails: of a full disk one warning is printed, and the training goes on without curves."""
        if self._has_failed:
            return
        try:
            write(*arguments)
        except (OSError, tf.errors.OpError) as error:
            self._has_failed, self._writers = True, {}
            # What is trained is worth more than its curves, which the record of the training has as well.
            print(f"\nWarning: TensorBoard's curves in {self.folder} could not be written: {error}", flush=True)

    def _begin(self):
        if self._history is None:
            return
        # What an interrupted training wrote after its last checkpoint would be there beside what comes now.
        for path in self.folder.glob("*/events.out.tfevents.*"):
            path.unlink()
        for epoch, values in enumerate(self._history):
            self._write(epoch, values)
        self._history = None

    def _write(self, epoch, logs):
        for name, value in logs.items():
            # Keras's "val_" would be a second chart beside the first.
            run = HELD_OUT if name.startswith("val_") else TRAIN
            if run not in self._writers:
                self._writers[run] = tf.summary.create_file_writer(str(self.folder / run))
            tag, explanation = self._place(name.removeprefix("val_"))
            # TensorBoard reads the first of a chart: in each event, a text would be most of the file.
            explained, self._explained = (run, tag) in self._explained, self._explained | {(run, tag)}
            # Arrays: of each number of Python's that becomes a tensor, TensorFlow keeps 600 bytes for good.
            step, value = np.asarray(epoch + 1, "int64"), np.asarray(value, "float32")
            with self._writers[run].as_default(step=step):
                tf.summary.scalar(tag, value, description=None if explained else explanation)

    def _close(self):
        for writer in self._writers.values():
            writer.close()
        self._writers = {}

    def _place(self, name):
        """Returns the tag of a metric's chart, and what the chart shows."""
        if name in self._charts:
            tag, explanation = self._charts[name]
            return tag, explanation + self.of_labels * (name in self._OF_LABELS)
        if name.startswith(SCHEDULE):
            return name, "What the epoch was trained with."
        for ending, (group, explanation) in self._STATISTICS.items():
            if name.endswith(ending):
                return f"{group}/{name}", explanation
        if isinstance(self.model, DistillationModel) and name not in self.model.term_names:
            return f"other/{name}", "Added to the logs by a callback."
        return f"loss/{name}", f"Distillation loss '{name}', before its weight."


def make_logging(run, stage, config, history, steps):
    """Makes the callbacks that write for TensorBoard what a run is asked for: the curves of a training, and a profile.

    Args:
        run: the `Run`.
        stage: the `Stage` of the training.
        config: what the training is configured by.
        history: see `TensorBoardScalars`.
        steps: steps of an epoch.
    """
    if run.config.tensorboard == "off":
        return []
    callbacks = [TensorBoardScalars(stage.logs, history, describe_label_loss(config), config.multi_label)]
    # Of the run's own model: a teacher that is trained for it has a configuration of its own.
    if run.config.profile_steps and config is run.config and stage.name != "baseline":
        callbacks.append(Profile(stage.logs / TRAIN, *run.config.profile_steps, steps))
    return callbacks
