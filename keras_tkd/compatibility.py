"""What may go together in a Distiller; everything else is a `ValueError` before any training."""

import numbers

import keras

from keras_tkd import keras_compat, teachers
from keras_tkd.live import check_number
from keras_tkd.losses.base import DistillationLoss, as_list


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


def check_models(teacher, student):
    """Raises `ValueError` for what can be seen of two models before they are built."""
    for role, model in (("teacher", teacher), ("student", student)):
        if not isinstance(model, keras.Model) and not (role == "teacher" and model is None):
            raise ValueError(f"`{role}` must be a keras.Model. Received: {role}={model!r}")
    if teacher is not None and any(part is student for part in teacher._flatten_layers()):
        raise ValueError(f"`teacher` and `student` must be two models. Received: '{student.name}' for both")


def check_anchor(anchor, teacher, student):
    """Raises `ValueError` for what can be seen of an anchor before models are built; None is no anchor."""
    if anchor is None:
        return
    if not isinstance(anchor, keras.Model):
        raise ValueError(f"`anchor` must be a keras.Model or None. Received: anchor={anchor!r}")
    own = {id(variable) for variable in anchor.variables}
    for role, model in (("teacher", teacher), ("student", student)):
        if anchor is model or own & {id(variable) for variable in getattr(model, "variables", ())}:
            raise ValueError(
                f"The anchor stays as it is, and the {role} trains: they must share no weights. Received: anchor "
                f"'{anchor.name}' and {role} '{model.name}'. Give a copy: `anchor = keras.models.clone_model({role})`, "
                f"`anchor.set_weights({role}.get_weights())`"
            )


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
