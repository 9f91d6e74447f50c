"""Checks of losses and batches that go together in a Distiller; each raises `ValueError` before training."""

import numbers

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.batches import ANCHOR, TEACHER
from keras_tkd.losses import keras_adapter
from keras_tkd.losses.base import DistillationLoss
from keras_tkd.teachers.reader import output_key
from keras_tkd.utils.hyperparameters import check_number

__all__ = [
    "check_gather",
    "check_given_outputs",
    "check_kept_outputs",
    "check_label_outputs",
    "check_loss_names",
    "check_metric_names",
    "check_scalar",
    "check_weights",
    "resolve_losses",
]


def resolve_losses(losses, teacher, student) -> tuple[list, list[DistillationLoss]]:
    """Returns the losses as they were given, as a list, and as `DistillationLoss`es, those of Keras adapted.

    Raises:
        ValueError: something else than losses; a loss without a reduction; a loss of Keras that
            refuses the models.
    """
    given = list(losses) if isinstance(losses, (list, tuple)) else [losses]
    kinds = (DistillationLoss, keras.distillation.DistillationLoss)
    if not given or not all(isinstance(loss, kinds) for loss in given):
        raise ValueError(
            "`distillation_losses` must be a keras_tkd.losses.DistillationLoss, a loss of keras.distillation, or a "
            f"list of at least one of these. Received: distillation_losses={given}"
        )
    for loss in given:
        # Layers of its own would be listed, and saved, twice.
        if sum(other is loss for other in given) > 1:
            raise ValueError(
                "`distillation_losses` must be different objects. Received one of them twice: "
                f"{type(loss).__name__}. Give it once, with the sum of the weights, or make another one"
            )
    adapted = list(given)
    for i, loss in enumerate(given):
        if isinstance(loss, keras.distillation.DistillationLoss):
            adapted[i] = keras_adapter.adapt(loss, teacher, student)
    for loss in adapted:
        if loss.reduction in (None, "none"):
            raise ValueError(
                "A distillation loss must have a reduction: a step adds up one number of each. Received: a loss with "
                f"name={loss.name!r}, reduction={loss.reduction!r}. Take 'sum_over_batch_size', the default"
            )
    return given, adapted


def check_weights(weights, count: int) -> list:
    """Returns the weights of so many losses as a list of numbers.

    Args:
        weights: a number, or a sequence, array or tensor of numbers; None is 1 for each.
        count: number of losses.

    Raises:
        ValueError: another number of weights; one that is no number >= 0.
    """
    if weights is None:
        return [1.0] * count
    if not isinstance(weights, (list, tuple)):
        weights = np.atleast_1d(np.asarray(weights)).tolist()
    weights = list(weights)
    if len(weights) != count:
        raise ValueError(
            f"`distillation_loss_weights` must have one weight for each of the {count} distillation losses. "
            f"Received: distillation_loss_weights={weights}"
        )
    for weight in weights:
        check_number("distillation_loss_weights", weight)
    return weights


def check_gather(gather: str, losses: list[DistillationLoss]) -> str:
    """Returns `gather`; raises `ValueError` for another than `"global"` and `"local"`, and where a loss forbids it.

    Args:
        losses: list of `DistillationLoss`.
    """
    if gather not in ("global", "local"):
        raise ValueError(f"`gather` must be 'global' or 'local'. Received: gather={gather!r}")
    keeping = [loss.name for loss in losses if loss.keeps_samples]
    if gather == "local" and keeping:
        raise ValueError(
            "A loss that keeps something of every sample must see the whole batch: each replica would keep its own. "
            f"Received: gather='local' with the loss '{keeping[0]}'. Take gather='global'"
        )
    return gather


def check_given_outputs(reader, outputs: dict):
    """Raises `ValueError` if the outputs of a model that a batch brings are not those that the losses read.

    Args:
        reader: `TeacherReader` of the model.
        outputs: what the batch has under the reader's role: is to be a dict, of tensors or shapes by name.
    """
    if not isinstance(outputs, dict):
        raise ValueError(
            f'A batch\'s "{reader.role}" must be a dict of outputs by name. Received: '
            f'{getattr(outputs, "shape", outputs)}. Name it: {{"logits": outputs}}'
        )
    missing = set(reader.names) - set(outputs)
    if missing:
        raise ValueError(
            f'A batch\'s "{reader.role}" must hold the outputs that the losses read. '
            f"Received: {sorted(outputs)}, without {sorted(missing)}"
        )
    # Such outputs have one teacher's logits as well, those of the ensemble: a loss would be that of another average.
    first = output_key(0, "")
    if any(name.startswith(first) for name in outputs) and not any(name.startswith(first) for name in reader.names):
        raise ValueError(
            f'The batch\'s "{reader.role}" holds the outputs of several teachers, whose losses are to be averaged: '
            'give the Distiller their TeacherEnsemble(..., average="losses") as its teacher. '
            f"Received: {sorted(outputs)}"
        )


def check_kept_outputs(batch: dict, roles: list[str]):
    """Raises `ValueError` for outputs of a model in a batch that no step would read.

    Args:
        batch: see `batches.make_batch`.
        roles: `"teacher"` and `"anchor"`, as far as there is such a model, whose outputs may come with the batch.
    """
    if TEACHER in batch and TEACHER not in roles:
        raise ValueError(
            "A teacher that trains has no outputs to be kept. Received: batches with an entry 'teacher'. Leave it "
            "out, or freeze the teacher: `teacher.trainable = False`"
        )
    if ANCHOR in batch and ANCHOR not in roles:
        raise ValueError(
            "Outputs of an anchor are read where there is one. Received: batches with an entry 'anchor', and "
            "anchor=None. Leave it out, or give the anchor: `TriKD(teacher, student, anchor)`"
        )


def check_label_outputs(role, y, outputs: dict):
    """Raises `ValueError` for a dict of labels, some of which are of outputs that a model does not have.

    Args:
        role: `"teacher"`.
        y: labels, of any kind.
        outputs: the model's outputs by name.
    """
    missing = set(y) - set(outputs) if isinstance(y, dict) else None
    if missing:
        raise ValueError(
            f"A {role} that learns must return an output for each of the labels. Received: labels of {sorted(y)}, "
            f"outputs {sorted(outputs)}. Return a dict with {sorted(missing)} too"
        )


def check_loss_names(own: tuple, names: list, statistic_names: list):
    """Raises `ValueError` for a distillation loss with the name of something else that a step tracks.

    Args:
        own: names that are the model's own.
        names: names of the losses, each of which has another.
        statistic_names: names of the losses' statistics.
    """
    for name in names:
        if name in (*own, *statistic_names):
            raise ValueError(
                "A distillation loss must have a name of its own, not that of another value of the step: "
                f"{', '.join([*own, *statistic_names])}. Received: a loss with name={name!r}. Give it another `name`"
            )


def check_metric_names(own: list, metrics: list):
    """Raises `ValueError` for a user's metric with the name of one of the model's own: the logs would have one of both.

    Args:
        own: names of the model's own metrics.
        metrics: all metrics of the model, of which those given to `compile` stand together in one that returns a dict.
    """
    results = [(metric.name, metric.result()) for metric in metrics]
    names = [name for own_name, result in results for name in (result if isinstance(result, dict) else [own_name])]
    for name in own:
        if names.count(name) > 1:
            raise ValueError(
                f"A metric must not have the name of a value that a step of distillation tracks: {', '.join(own)}. "
                f"Received: two of name={name!r}. Give the loss or the metric another `name`"
            )


def check_scalar(value) -> tf.Tensor:
    """Returns what `compute_loss` returned as a float32 tensor.

    Raises:
        ValueError: it is not a number, or several.
    """
    if isinstance(value, (numbers.Number, np.ndarray)) or keras.ops.is_tensor(value):
        value = tf.convert_to_tensor(value)
    received = f"shape {value.shape}" if tf.is_tensor(value) else f"a {type(value).__name__}"
    if not tf.is_tensor(value) or value.shape.rank != 0 or not (value.dtype.is_floating or value.dtype.is_integer):
        raise ValueError(
            f"`compute_loss` must return a scalar, or None for no loss on the labels. Received: {received}. "
            "Return one number, such as keras.ops.mean(...) of values per sample or the sum of several losses"
        )
    return tf.cast(value, tf.float32)
