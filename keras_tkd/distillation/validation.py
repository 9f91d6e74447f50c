"""What may go together in a Distiller; everything else is a `ValueError` before any training."""

import itertools
import numbers

import keras

from keras_tkd import teachers
from keras_tkd.losses import keras_adapter
from keras_tkd.losses.base import DistillationLoss
from keras_tkd.utils.hyperparameters import check_number


def check_losses(losses, teacher, student):
    """The losses as a list of `DistillationLoss`; those of `keras.distillation` are adapted."""
    losses = list(losses) if isinstance(losses, (list, tuple)) else [losses]
    for i, loss in enumerate(losses):
        if isinstance(loss, keras.distillation.DistillationLoss):
            losses[i] = keras_adapter.adapt(loss, teacher, student)
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
