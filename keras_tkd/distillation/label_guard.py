"""Labels that the losses of a step cannot read: noted as they come, and an error that names them."""

import numpy as np
import tensorflow as tf

from keras_tkd.utils.labels import read_class_ids

__all__ = ["LabelGuard"]

_SUM_TOLERANCE = 1e-2  # rows of float16 sum to 1 within this


class LabelGuard:
    """Notes the first label that is not one class of those that the models have.

    The note stays on the device until `check` reads it, so that no step waits for another.

    Args:
        losses: list of `DistillationLoss`.
    """

    def __init__(self, losses):
        self._by_class = [loss.name for loss in losses if loss.compares_classes]
        self._by_label = [loss.name for loss in losses if loss.reads_label]
        # What was noted, if anything, and a number that says which.
        self._note = tf.Variable([0, 0], dtype="int64", trainable=False, name="first_bad_label")
        self._num_classes, self._rows = None, False

    @property
    def variable(self) -> tf.Variable:
        """The variable that holds the note."""
        return self._note

    def read(self, y):
        """Returns labels as `fit` takes them; arrays that the losses cannot take for class ids are an error here.

        Raises:
            ValueError: names of classes; where a loss is on classes, numbers that are not whole.
        """
        if isinstance(y, np.ndarray) and (y.ndim == 1 or y.shape[1:] == (1,)):
            # Targets of another kind may be any numbers, where losses compare layers alone.
            if y.dtype.kind in "OSU" or self._by_class:
                ids = read_class_ids(y, "y")
                return ids if y.dtype.kind == "O" else y
        return y

    def note(self, y, num_classes: int):
        """Notes a batch's labels, class ids or rows of a number for each class, if they are none."""
        y = y.get("logits") if isinstance(y, dict) else y
        if not isinstance(y, tf.Tensor) or not (self._by_class or self._by_label):
            return
        self._num_classes = num_classes
        if len(y.shape) == 2 and y.shape[-1] != 1:
            if not self._by_class:
                return
            # Rows that sum to one are distributions, smoothed or mixed ones too, and the class is the likeliest.
            rows = tf.cast(y, tf.float32)
            bad = tf.abs(tf.reduce_sum(rows, axis=-1) - 1) > _SUM_TOLERANCE
            values = tf.reduce_sum(tf.cast(rows > 0, tf.int64), axis=-1)
        elif self._by_label and len(y.shape) <= 2:
            values = tf.cast(tf.reshape(y, [-1]), tf.int64)
            bad = (values < 0) | (values >= num_classes)
        else:
            return
        # A column more, so that there is a first one in a batch without rows too.
        place = tf.argmax(tf.concat([tf.cast(bad, tf.int32), [0]], axis=0))
        found = tf.stack([tf.ones((), "int64"), tf.concat([values, [0]], axis=0)[place]])
        self._note.assign(tf.where(tf.reduce_any(bad) & (self._note[0] == 0), found, self._note))
        self._rows = len(y.shape) == 2 and y.shape[-1] != 1

    def check(self):
        """Raises `ValueError` for the label that was noted, if there is one, and forgets it."""
        found, value = self._note.numpy()
        if not found:
            return
        self._note.assign([0, 0])
        if self._rows:
            names = ", ".join(self._by_class)
            raise ValueError(
                f"The losses {names} are of images of one class each, and take a softmax over the classes. Received: a "
                f"row of labels with {value} classes that does not sum to 1. Give class ids, one-hot rows or "
                "distributions; images of several classes are to be distilled by the features of layers alone"
            )
        raise ValueError(
            f"The losses {', '.join(self._by_label)} read the class that a label names. Received: label {value}, where "
            f"the models have the classes 0 to {self._num_classes - 1}. Leave such images out, or take a loss that "
            "reads no label, such as SoftTargets: `ignore_class` is the loss on the labels' alone"
        )
