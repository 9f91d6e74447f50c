"""Checks of models, losses and batches that go together in a Distiller; each raises `ValueError` before training."""

import itertools
import numbers

import keras
import numpy as np
import tensorflow as tf

from keras_tkd import teachers
from keras_tkd.batches import ANCHOR, TEACHER
from keras_tkd.losses import keras_adapter
from keras_tkd.losses.base import DistillationLoss
from keras_tkd.teachers.reader import output_key
from keras_tkd.utils.hyperparameters import check_number
from keras_tkd.utils.keras_graph import flatten_layers

__all__ = [
    "check_anchor",
    "check_apart",
    "check_built_models",
    "check_frozen",
    "check_gather",
    "check_given_outputs",
    "check_kept_outputs",
    "check_label_outputs",
    "check_loss_names",
    "check_metric_names",
    "check_models",
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


def check_models(**models):
    """Raises `ValueError` for what can be seen of models before they are built.

    Args:
        models: by role; all but the student may be None, where there is none.
    """
    for role, model in models.items():
        optional = role != "student"
        if not isinstance(model, keras.Model) and not (optional and model is None):
            or_none = " or None" if optional else ""
            raise ValueError(f"`{role}` must be a keras.Model{or_none}. Received: {role}={model!r}")
    check_apart(**models)


def check_apart(**models):
    """Raises `ValueError` for models that share weights, or one of which is a part of another.

    Freezing one would freeze what the other is to learn, and training it change what is to stay.

    Args:
        models: by role, None where there is none.
    """
    there = [(role, model) for role, model in models.items() if model is not None]
    for (role, model), (other_role, other) in itertools.combinations(there, 2):
        nested = _contains(model, other) or _contains(other, model)
        own = {id(variable) for variable in model.variables}
        if nested or any(id(variable) in own for variable in other.variables):
            raise ValueError(
                f"`{role}` and `{other_role}` must be two models that share no weights. Received: {role} "
                f"'{model.name}' and {other_role} '{other.name}', which share some. Give a copy: "
                "`copy = keras.models.clone_model(model)`, `copy.set_weights(model.get_weights())`"
            )


def _contains(model, part):
    return any(layer is part for layer in flatten_layers(model))


def check_frozen(role, models):
    """Raises `ValueError` for a model that was made trainable again: it would not learn.

    Args:
        role: `"teacher"` or `"anchor"`.
        models: list of the models in this role.
    """
    for model in models:
        if model.trainable_variables:
            raise ValueError(
                f"The {role} must stay frozen. Received: '{model.name}' with trainable weights. "
                f"Set `{role}.trainable = False`"
            )


def check_built_models(models, student):
    """Raises `ValueError` for what only built models show: probabilities, a student that cannot learn.

    Args:
        models: list of teachers.
    """
    for teacher in models:
        teachers.check_logits("teacher", teacher)
    teachers.check_logits("student", student)
    if not student.trainable_variables:
        raise ValueError(
            f"The student has no trainable weights. Received: '{student.name}' with {len(student.variables)} "
            f"variables, trainable={student.trainable}. Add layers with weights, or set `student.trainable = True`."
        )


def check_anchor(anchor, anchor_shape, student_shape):
    """Raises `ValueError` for an anchor that returns probabilities, or knows other classes than the student.

    Args:
        anchor: a built `keras.Model`.
        anchor_shape, student_shape: shapes of their logits.
    """
    teachers.check_logits("anchor", anchor)
    if anchor_shape[1:] != student_shape[1:]:
        raise ValueError(
            f"The anchor must name the student's classes. Received: anchor output {anchor_shape}, student output "
            f"{student_shape}. Take an anchor that was trained on the same classes"
        )


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
