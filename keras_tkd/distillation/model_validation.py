"""Checks of models that go together in a Distiller; each raises `ValueError` before training."""

import itertools

import keras

from keras_tkd import teachers
from keras_tkd.utils.keras_graph import flatten_layers

__all__ = ["check_anchor", "check_apart", "check_built_models", "check_frozen", "check_models"]


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
