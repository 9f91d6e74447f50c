"""What may go together in a Distiller; everything else is a `ValueError` before any training."""

import itertools
import numbers

import keras

from keras_tkd import keras_compat, teachers
from keras_tkd.losses.base import DistillationLoss, as_list
from keras_tkd.utils.hyperparameters import check_number


def check_losses(losses, teacher, student):
    """The losses as a list of `DistillationLoss`; those of `keras.distillation` are adapted."""
    losses = list(losses) if isinstance(losses, (list, tuple)) else [losses]
    for i, loss in enumerate(losses):
        if isinstance(loss, keras.distillation.DistillationLoss):
            losses[i] = keras_compat.adapt(loss, teacher, student)
    if not losses or not all(isinstance(loss, DistillationLoss) for loss in losses):
        raise ValueError(
            "`distillation_losses` must be a keras_tkd.losses.DistillationLoss, a loss of keras.distillation, or a "
            f"list of at least one of these. Received: distillation_losses={losses}"
        )
    return losses


def check_weights(weights, count):
    weights = [weights] if isinstance(weights, numbers.Real) else list(weights)
    if len(weights) != count:
        raise ValueError(
            f"`distillation_loss_weights` must have one weight for each of the {count} distillation losses. "
            f"Received: distillation_loss_weights={weights}"
        )
    for weight in weights:
        check_number("distillation_loss_weights", weight)
    return weights


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
        nested = contains(model, other) or contains(other, model)
        own = {id(variable) for variable in model.variables}
        if nested or any(id(variable) in own for variable in other.variables):
            raise ValueError(
                f"`{role}` and `{other_role}` must be two models that share no weights. Received: {role} "
                f"'{model.name}' and {other_role} '{other.name}', which share some. Give a copy: "
                "`copy = keras.models.clone_model(model)`, `copy.set_weights(model.get_weights())`"
            )


def contains(model, part):
    return any(layer is part for layer in model._flatten_layers())


def check_frozen(role, models):
    """Raises `ValueError` for a model that was made trainable again and would not learn."""
    for model in models:
        if model.trainable_variables:
            raise ValueError(
                f"The {role} must stay frozen. Received: '{model.name}' with trainable weights. "
                f"Set `{role}.trainable = False`"
            )


def check_input_shape(role, model, shape):
    """Raises `ValueError` if the teacher (or anchor) does not take the images that the student takes."""
    expected = getattr(model, "input_shape", None) if model.built else None
    single = isinstance(expected, tuple) and isinstance(shape, (tuple, list))
    if single and (
        len(expected) != len(shape)
        or any(a != b for a, b in zip(expected[1:], shape[1:], strict=True) if a is not None and b is not None)
    ):
        raise ValueError(
            f"The {role} must take the inputs that the student takes. Received: {role} input shape {expected}, "
            f"student input shape {tuple(shape)}. Put the {role} behind layers that convert the image"
            + (', or train on batches that hold a "teacher_image"' if role == "teacher" else "")
        )


def check_given_outputs(role, outputs, losses):
    """Raises `ValueError` if what a batch holds under a role (`"teacher"`) is not what the losses read."""
    names = {name for loss in losses for name in as_list(loss.teacher_layers or "logits")}
    if names - set(outputs):
        raise ValueError(
            f'A batch\'s "{role}" must hold the outputs that the losses read. '
            f"Received: {sorted(outputs)}, without {sorted(names - set(outputs))}"
        )


def check_built_models(models, student):
    """Raises `ValueError` for what only built models show: probabilities, a student that cannot learn.

    Args:
        models: list of teachers.
    """
    for teacher in models:
        check_logits("teacher", teacher)
    check_logits("student", student)
    if not student.trainable_variables:
        raise ValueError(
            f"The student has no trainable weights. Received: '{student.name}' with {len(student.variables)} "
            f"variables, trainable={student.trainable}. Add layers with weights, or set `student.trainable = True`."
        )


def check_logits(role, model):
    """Raises `ValueError` for a model that returns probabilities."""
    if teachers.ends_in_softmax(model):
        raise ValueError(
            f"The {role} must return logits, and '{model.name}' ends in a softmax. "
            f"Take it off: {role} = keras_tkd.teachers.logits_model({role})"
        )
