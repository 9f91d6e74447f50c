"""Adapts the losses of `keras.distillation` to this package."""

import re
import warnings

import keras
from keras.distillation import FeatureDistillation, LogitsDistillation

from keras_tkd.losses.base import DistillationLoss
from keras_tkd.losses.validation import check_classes

__all__ = ["KerasDistillation", "adapt"]


@keras.saving.register_keras_serializable(package="keras_tkd")
class KerasDistillation(DistillationLoss):
    """Adapts a `keras.distillation.DistillationLoss` to the `Distiller`: the same number, from the one forward pass.

    The Distiller makes one of any such loss that it is given. `teacher_layer_name` and `student_layer_name` are read as
    `teacher_layers` and `student_layers` are; where only one of them is given, the other is the final output.

    Args:
        loss: a `keras.distillation.DistillationLoss`.
        name: name of the loss; None is the name of its class, `"logits_distillation"` for example.
        dtype: see `DistillationLoss`.

    Raises:
        ValueError: a loss for several outputs; in the Distiller also: outputs of different shape under one of Keras's
            own losses, sample weights or class weights (there is one number per batch), a value that is not a scalar.
    """

    _FIXED = ("loss",)

    def __init__(self, loss, name=None, dtype=None):
        super().__init__(
            getattr(loss, "teacher_layer_name", None),
            getattr(loss, "student_layer_name", None),
            name=name or _snake_case(type(loss).__name__),
            dtype=dtype,
        )
        if keras.tree.is_nested(_loss_applied(loss)):
            raise ValueError(
                f"A distillation loss compares one output with one output. Received: {type(loss).__name__}(loss="
                f"{loss.loss}). Give the Distiller one loss for each output; FeatureDistillation names outputs like "
                "layers"
            )
        self.loss = loss
        self.compares_classes = isinstance(loss, LogitsDistillation)

    def build(self, teacher_shapes, student_shapes):
        # A loss of the user's own may well compare different shapes; those of Keras would broadcast them.
        if _is_from_keras(_loss_applied(self.loss)) and tuple(teacher_shapes)[1:] != tuple(student_shapes)[1:]:
            raise ValueError(
                f"Loss '{self.name}' compares outputs of equal shape. "
                f"Received: teacher {teacher_shapes}, student {student_shapes}. Name layers of equal shape"
            )
        if self.compares_classes:
            check_classes(self.name, student_shapes)

    def call(self, y_true, y_pred):
        # Keras's Distiller has the loss check its outputs as well.
        self.loss.validate_outputs(y_true, y_pred)
        value = keras.ops.convert_to_tensor(self.loss.compute_loss(y_true, y_pred))
        if len(value.shape) > 0:
            raise ValueError(
                f"`compute_loss` of a keras.distillation loss must return a scalar. Received: shape "
                f"{tuple(value.shape)} from {type(self.loss).__name__}. Return keras.ops.mean(...) of it, or derive "
                "the loss from keras_tkd.losses.DistillationLoss, whose values per sample can be weighted"
            )
        return value

    def get_config(self):
        return {"loss": keras.saving.serialize_keras_object(self.loss), "name": self.name, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


def adapt(loss, teacher, student):
    """Returns the `KerasDistillation` of a loss of `keras.distillation`, after that loss's own check of the models.

    Args:
        loss: a `keras.distillation.DistillationLoss`.
        teacher, student: the models, as its `validate_model_compatibility` takes them.

    Warns of a `LogitsDistillation` that computes no distillation loss.
    """
    # `FeatureDistillation`'s own check is left out: it refuses subclassed models and layers inside nested models, which
    # can be read here; layers that do not exist are refused by those who read them.
    if type(loss).validate_model_compatibility is not FeatureDistillation.validate_model_compatibility:
        loss.validate_model_compatibility(teacher, student)
    if _takes_logits_for_probabilities(loss):
        warnings.warn(
            f"LogitsDistillation hands raw logits to {_name(loss.loss)}, which compares probabilities: nothing takes "
            "their softmax, and the number is not a distillation loss. It is computed as Keras computes it. Use "
            f"keras_tkd.losses.SoftTargets(temperature={loss.temperature}), or "
            "LogitsDistillation(loss=keras.losses.KLDivergence())",
            UserWarning,
            stacklevel=4,
        )
    return KerasDistillation(loss)


def _takes_logits_for_probabilities(loss):
    """Returns whether `loss` is a `LogitsDistillation` over a loss of Keras that compares probabilities.

    Only an instance of `keras.losses.KLDivergence` is handed a softmax there. `"kl_divergence"`, the default, is the
    function of that name, and a crossentropy takes the teacher's raw logits for class probabilities even where it has
    `from_logits=True`, which is about the student's side.
    """
    if type(loss).compute_loss is not LogitsDistillation.compute_loss or not _is_from_keras(loss.loss):
        return False
    name = _name(loss.loss).lower()
    return name == "kl_divergence" or name.endswith("crossentropy")


def _loss_applied(loss):
    """Returns what `FeatureDistillation` or `LogitsDistillation` applies; None for a user's own `compute_loss`."""
    own = (FeatureDistillation.compute_loss, LogitsDistillation.compute_loss)
    return loss.loss if type(loss).compute_loss in own else None


def _is_from_keras(loss):
    """Returns whether `loss` is a function or an instance out of `keras.losses`, not the user's own."""
    return callable(loss) and loss.__module__.startswith("keras.")


def _name(loss):
    return getattr(loss, "__name__", type(loss).__name__)


def _snake_case(name):
    """Turns `"KLOnLogits"` into `"kl_on_logits"`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
