"""Labels and ids of samples that a step's losses cannot read: refused, or noted and an error that names them."""

import numpy as np
import tensorflow as tf

from keras_tkd.distillation.label_readers import IDS, ROWS, is_binary, list_one_class_metrics, list_readers
from keras_tkd.utils.labels import read_class_ids
from keras_tkd.utils.probabilities import SUM_TOLERANCE
from keras_tkd.utils.replicas import gather

__all__ = ["LabelGuard"]

# What a note is of, its first number; the second is the label itself, the number of a row's classes, the share of a
# row's second class, the entry of a row that is no yes or no, or the id of a sample. From _UNKNOWN on the first number
# counts the losses that know samples.
_NOTHING, _ROW, _FRACTION, _FOREIGN, _MIXED, _OUTSIDE, _UNKNOWN = range(7)


class LabelGuard:
    """Notes the first label that is not one class of those that the models have, or the first sample no loss knows.

    The note stays on the device until `check` reads it, so that no step waits for another.

    Args:
        losses: list of `DistillationLoss`.
    """

    def __init__(self, losses):
        self._by_class = [loss.name for loss in losses if loss.compares_classes]
        self._by_label = [loss.name for loss in losses if loss.reads_label]
        self._by_one_class = [loss.name for loss in losses if loss.takes_one_class]
        self._by_binary = [loss.name for loss in losses if loss.compares_binary]
        self._keeping = [loss for loss in losses if loss.keeps_samples]
        self._readers = []
        self._one_class_metrics = []
        self._loss_is_binary = False
        # What was noted, if anything, and a number that says which. In float64 class ids are exact, fractions too.
        self._note = tf.Variable(
            [_NOTHING, 0],
            dtype="float64",
            trainable=False,
            name="first_bad_label",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self._num_classes = None

    @property
    def variable(self) -> tf.Variable:
        """The variable that holds the note."""
        return self._note

    def takes_several_classes(self, num_classes: int) -> bool:
        """Returns whether the losses take each of so many outputs for a yes or no of its own."""
        if self._by_class or any(reader.is_loss and reader.form == IDS for reader in self._readers):
            return False
        # A single output is a number like any other where no loss says that it is a yes or no.
        return bool(self._by_binary or (self._loss_is_binary and num_classes != 1))

    def watch(self, loss, metrics: list):
        """Looks, from here on, also at what the loss on the labels and the metrics can read, as `compile` takes them.

        Args:
            loss: the loss, or a list or dict of losses by output.
            metrics: list of the arguments `metrics` and `weighted_metrics`.
        """
        self._readers = list_readers(loss, metrics)
        self._one_class_metrics = list_one_class_metrics(metrics)
        self._loss_is_binary = is_binary(loss)

    def read(self, y):
        """Returns labels as `fit` takes them; arrays that the losses cannot take for class ids are an error here.

        Raises:
            ValueError: names of classes; where a loss is on classes, numbers that are not whole.
        """
        if isinstance(y, dict) and "logits" in y:
            return y | {"logits": self.read(y["logits"])}
        array = y.numpy() if isinstance(y, tf.Tensor) and tf.executing_eagerly() else y
        if isinstance(array, np.ndarray) and (array.ndim == 1 or array.shape[1:] == (1,)):
            # Targets of another kind may be any numbers, where losses compare layers alone.
            if array.dtype.kind in "OSU" or self._needs_ids():
                ids = read_class_ids(array, "y")
                return ids if array.dtype.kind == "O" else y
        return y

    def note(self, y, num_classes: int, shared=False):
        """Notes a batch's labels, class ids or rows of a number for each class, if they are none.

        Args:
            y: labels, of any kind.
            num_classes: number of outputs.
            shared: whether each replica has labels of its own: the first note of any is that of all.

        Returns:
            `y`, for what reads it next: a label that no output has, on which TensorFlow may stop, is noted by then.

        Raises:
            ValueError: labels of a shape that the losses or the metrics cannot read; nothing is computed for that.
        """
        if isinstance(y, dict):
            return y | {"logits": self.note(y["logits"], num_classes, shared)} if "logits" in y else y
        # Names are no numbers; what reads the labels next refuses them.
        if not isinstance(y, tf.Tensor) or y.dtype == tf.string:
            return y
        self._num_classes = num_classes
        rank = len(y.shape)
        if self._needs_ids() and rank > 2 and all(size == 1 for size in y.shape[1:]):
            raise ValueError(
                f"Labels must be class ids of shape (batch,), or rows of {num_classes} numbers. Received: shape "
                f"{tuple(y.shape)}. Take the other axes out: `labels.reshape(-1)`"
            )
        if num_classes == 1:
            self._check_one_output()
        if rank > 2 or num_classes is None or (num_classes == 1 and not self._by_binary):
            return y
        # Labels of a single output are rows of one.
        form = ROWS if num_classes == 1 or (rank == 2 and y.shape[-1] != 1) else IDS
        # Labels of another width may be ids of the places in a map.
        if num_classes != 1 and (form == IDS or y.shape[-1] == num_classes):
            for reader in self._readers:
                if reader.form != form:
                    raise ValueError(_explain_form(reader, y.shape, num_classes))
        if form == ROWS:
            if not (self._by_class or self._by_one_class or self._by_binary or self._one_class_metrics):
                return y
            # Rows that sum to one are distributions, smoothed ones too, and the class is the likeliest.
            rows = tf.cast(y if rank == 2 else y[:, None], tf.float32)
            kinds, values = self._judge_rows(rows, num_classes)
        elif self._needs_ids():
            values = tf.cast(tf.reshape(y, [-1]), tf.float64)
            foreign = (values < 0) | (values >= num_classes) if self._reads_ids() else tf.zeros_like(values, bool)
            if not (self._by_label or self._by_one_class):
                # A loss leaves its own label out; a distillation loss would read it, or take it for one more class.
                for ignored in self._ignored():
                    foreign &= values != ignored
            # A NaN equals nothing, not even what it is rounded to.
            kinds = tf.where(values != tf.floor(values), _FRACTION, tf.where(foreign, _FOREIGN, _NOTHING))
        else:
            return y
        found = _pick_first(tf.stack([tf.cast(kinds, tf.float64), values], axis=-1))
        if shared:
            found = _pick_first(gather(found[None]))
        with tf.control_dependencies([self._keep(found)]):
            return tf.identity(y)

    def note_samples(self, labels, index):
        """Notes the first sample of a training batch that a loss keeps nothing of.

        Args:
            labels: `(batch,)` class ids, or None.
            index: `(batch,)` ids of the samples, or None.
        """
        if not self._keeping or labels is None or index is None:
            return
        if tf.executing_eagerly():
            # Op by op the loss itself raises, which is not to hide what was found before it.
            self.check()
            return
        ids = tf.cast(tf.reshape(index, [-1]), tf.float64)
        for place, loss in enumerate(self._keeping):
            kinds = tf.where(loss.find_known(labels, index), _NOTHING, _UNKNOWN + place)
            self._keep(_pick_first(tf.stack([tf.cast(kinds, tf.float64), ids], axis=-1)))

    def _keep(self, found):
        """Keeps a note, unless there is an earlier one."""
        return self._note.assign(tf.where(self._note[0] == _NOTHING, found, self._note))

    def _judge_rows(self, rows, num_classes):
        """Returns the kind of each row's note, and its second number."""
        kinds = tf.fill(tf.shape(rows)[:1], _NOTHING)
        values = tf.zeros_like(kinds, tf.float64)
        # A smoothed label gives all classes but one the same. Of two classes nobody can tell it from a mixed one.
        if self._by_one_class and num_classes > 2:
            second = tf.math.top_k(rows, 2).values[:, 1]
            mixed = second - tf.reduce_min(rows, axis=-1) > SUM_TOLERANCE
            kinds, values = tf.where(mixed, _MIXED, kinds), tf.where(mixed, tf.cast(second, tf.float64), values)
        if num_classes > 1 and self._list_one_class_readers():
            several = tf.abs(tf.reduce_sum(rows, axis=-1) - 1) > SUM_TOLERANCE
            if not self._by_class:
                several &= kinds == _NOTHING
            counts = tf.reduce_sum(tf.cast(rows > 0, tf.float64), axis=-1)
            kinds, values = tf.where(several, _ROW, kinds), tf.where(several, counts, values)
        if self._by_binary:
            # Written so that a NaN, which is neither above nor below a bound, is outside.
            outside = ~((rows >= 0) & (rows <= 1))
            inside = ~tf.reduce_any(outside, axis=-1)
            found = tf.gather(rows, tf.argmax(tf.cast(outside, tf.int32), axis=-1), axis=-1, batch_dims=1)
            kinds = tf.where(inside, kinds, _OUTSIDE)
            values = tf.where(inside, values, tf.cast(found, tf.float64))
        return kinds, values

    def _list_one_class_readers(self):
        """Returns the names of what takes an image for one of one class: losses, or else metrics."""
        return self._by_class or self._by_one_class or self._one_class_metrics

    def _check_one_output(self):
        """Raises `ValueError` for the accuracy that Keras chooses for one output: it counts logits above 1/2 as yes."""
        if self._one_class_metrics:
            raise ValueError(
                "A metric of one output must be told that it takes a logit, whose yes begins at 0. Received: "
                f"{self._one_class_metrics[0]!r}, which takes probabilities of 1/2 and more. Give "
                "keras.metrics.BinaryAccuracy(threshold=0)"
            )

    def _needs_ids(self):
        """Returns whether something takes labels for class ids where they have their form."""
        return bool(self._by_class or self._by_label or self._reads_ids())

    def _reads_ids(self):
        return bool(self._by_label or any(reader.is_loss and reader.form == IDS for reader in self._readers))

    def _ignored(self):
        return [reader.ignored for reader in self._readers if reader.is_loss and reader.ignored is not None]

    def check(self):
        """Raises `ValueError` for the label that was noted, if there is one, and forgets it."""
        found = self.take()
        if found is not None:
            raise ValueError(found)

    def take(self) -> str | None:
        """Returns what is to be said of the label that was noted, if there is one, and forgets it."""
        kind, value = self._note.numpy()
        if kind == _NOTHING:
            return None
        self._note.assign([_NOTHING, 0])
        if kind >= _UNKNOWN:
            return self._keeping[int(kind) - _UNKNOWN].explain_unknown(int(value))
        classes = f"where the models have the classes 0 to {self._num_classes - 1}"
        if kind == _ROW:
            names = ", ".join(self._list_one_class_readers())
            received = f"Received: a row of labels with {value:.0f} classes that does not sum to 1."
            if not self._by_class and not self._by_one_class:
                return (
                    f"The metrics {names} are of images of one class each, that of the largest output. {received} For "
                    "images of several classes take keras.metrics.BinaryAccuracy(threshold=0) or "
                    "keras.metrics.AUC(multi_label=True, from_logits=True)"
                )
            softmax = ", and take a softmax over the classes" if self._by_class else ""
            return (
                f"The losses {names} are of images of one class each{softmax}. {received} Give class ids, one-hot rows "
                "or distributions; images of several classes are distilled by BinarySoftTargets and by the features of "
                "layers"
            )
        if kind == _OUTSIDE:
            return (
                f"The losses {', '.join(self._by_binary)} take each class for a yes or no. Received: a label {value:g} "
                "in a row. Give multi-hot rows, 1 for each class that an image has and 0 for the others, or shares "
                "between the two"
            )
        if kind == _FRACTION:
            return (
                f"Labels must be class ids, whole numbers. Received: label {value:g}, {classes}. Give the numbers of "
                "the classes; what is no class is to be distilled by the features of layers alone"
            )
        if kind == _MIXED:
            return (
                f"The losses {', '.join(self._by_one_class)} take the label for the one class of an image. Received: a "
                f"row of labels that is {value:.2f} of a second class. Do not mix images (mixup, CutMix), or take a "
                "loss that reads no label, such as SoftTargets; losses that mine negatives tell classes apart by the "
                'teacher with negative_classes="teacher"'
            )
        if self._by_label:
            return (
                f"The losses {', '.join(self._by_label)} read the class that a label names. Received: label "
                f"{value:.0f}, {classes}. Leave such images out, or take a loss that reads no label, such as "
                "SoftTargets: `ignore_class` is the loss on the labels' alone"
            )
        if self._by_one_class and value in self._ignored():
            return (
                f"The losses {', '.join(self._by_one_class)} take images of one label for one class. Received: label "
                f"{value:.0f}, which the loss on the labels leaves out (`ignore_class`). Leave such images out; losses "
                'that mine negatives tell classes apart by the teacher with negative_classes="teacher"'
            )
        return (
            f"The loss on the labels reads the class that a label names. Received: label {value:.0f}, {classes}. "
            "Number the labels from 0, give the models as many outputs as there are classes, or have the loss leave "
            "the label out (`ignore_class`)"
        )


def _pick_first(notes):
    """Returns the first row of `(rows, 2)` that notes something."""
    # A row more, so that there is a first one in a batch without rows too.
    notes = tf.concat([notes, [[_NOTHING, 0.0]]], axis=0)
    return notes[tf.argmax(tf.cast(notes[:, 0] > _NOTHING, tf.int32))]


def _explain_form(reader, shape, num_classes):
    what = "loss on the labels" if reader.is_loss else "metric"
    if reader.form == ROWS:
        ids = "keras.losses.SparseCategoricalCrossentropy(from_logits=True)" if reader.is_loss else "'accuracy'"
        return (
            f"The {what}, {reader.name}, compares the outputs number by number, and needs a row of {num_classes} for "
            f"each image. Received: class ids, labels of shape {tuple(shape)}. Give rows, "
            f"`keras.utils.to_categorical(labels, {num_classes})`, or take one of class ids, {ids}"
        )
    rows = "keras.losses.CategoricalCrossentropy(from_logits=True)" if reader.is_loss else "'accuracy'"
    return (
        f"The {what}, {reader.name}, reads class ids. Received: rows, labels of shape {tuple(shape)}. Give the ids, "
        f"`labels.argmax(axis=-1)`, or take one of rows, {rows}"
    )
