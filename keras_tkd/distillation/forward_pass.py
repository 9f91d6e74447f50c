"""What a step of training or of evaluation has seen, and the sums over it."""

import typing

import tensorflow as tf


class Step(typing.NamedTuple):
    """One batch, and what the models have said of it.

    Attributes:
        batch: the inputs by name, and under `"teacher"` (or another role) the outputs of a model that does not learn.
        y, sample_weight: as in `fit`.
        y_pred: what of the student's output meets the labels.
        teacher, student: dicts of outputs by name, as the losses' `inputs` take them.
        pairs: what each distillation loss is given.
        training: whether the step trains.
    """

    batch: dict
    y: typing.Any
    sample_weight: typing.Any
    y_pred: typing.Any
    teacher: dict
    student: dict
    pairs: list
    training: bool


def compared_with(y, y_pred):
    """What of a student's outputs meets the labels: of a dict the logits, unless the labels are a dict themselves."""
    return y_pred["logits"] if isinstance(y_pred, dict) and not isinstance(y, dict) else y_pred


def totals_of(losses):
    """The totals of `{total: {name: (weight, value)}}`, each summed in the dict's order."""
    return {total: tf.add_n([weight * value for weight, value in terms.values()]) for total, terms in losses.items()}


def values_of(losses):
    """The values of `{total: {name: (weight, value)}}` by name."""
    return {name: value for terms in losses.values() for name, (_, value) in terms.items()}


def sum_of(regularization_losses):
    return tf.add_n([tf.cast(loss, tf.float32) for loss in regularization_losses])


def share_of_equal(first, second):
    """Share of entries, 0..1, in which two tensors of class ids are equal."""
    return tf.reduce_mean(tf.cast(tf.equal(tf.cast(first, tf.int64), second), tf.float32))
