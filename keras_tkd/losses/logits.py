"""Losses that match the student's logits to the teacher's."""

import keras
from keras import ops

from keras_tkd.distances import safe_sqrt
from keras_tkd.live import LiveAttribute
from keras_tkd.losses.base import LogitsLoss, check_same_shape


def soft_targets(teacher_logits, student_logits, temperature=4.0, standardize=False):
    """`T^2 KL(softmax(z_t / T) || softmax(z_s / T))` per sample, from logits.

    Args:
        teacher_logits, student_logits: `(batch, classes)`.
        temperature: T > 0.
        standardize: z-score both logits per sample first (mean 0, sample standard deviation 1).

    Returns:
        `(batch,)`, in nats.
    """
    if standardize:
        teacher_logits, student_logits = z_score(teacher_logits), z_score(student_logits)
    # From log-softmax, never from clipped probabilities: those lose the gradient where the student is far off.
    log_teacher = ops.log_softmax(teacher_logits / temperature, axis=-1)
    log_student = ops.log_softmax(student_logits / temperature, axis=-1)
    divergence = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return divergence * temperature**2


def logit_regression(teacher_logits, student_logits):
    """Mean over the classes of `(z_s - z_t)^2`, per sample: `(batch, classes)` -> `(batch,)`.

    Outputs of more axes, `(batch, ...)`, are averaged over all of them but the first.
    """
    return ops.mean(ops.square(student_logits - teacher_logits), axis=tuple(range(1, len(teacher_logits.shape))))


def z_score(logits, epsilon=1e-7):
    """Logits with mean 0 and sample standard deviation (n - 1) 1 in each row; a constant row becomes zeros."""
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    classes = logits.shape[-1]
    deviation = safe_sqrt(ops.sum(ops.square(centred), axis=-1, keepdims=True) / (classes - 1))
    return centred / (deviation + epsilon)


@keras.saving.register_keras_serializable(package="keras_tkd")
class SoftTargets(LogitsLoss):
    """Soft targets: the Kullback-Leibler divergence of softened class distributions (`kd`).

    Pulls the student's distribution, softened by the temperature, towards the teacher's. A high temperature shows the
    student how the teacher ranks the wrong classes; the factor `T^2` keeps the gradient's size when T changes.

        loss_i = T^2 * sum_c p_t[c] * (log p_t[c] - log p_s[c]),    p = softmax(logits / T)

    With `standardize=True` both logits are z-scored per sample first (logit standardization, `lskd`), which frees the
    student from matching the teacher's scale and shift.

    Args:
        temperature: T > 0. May be set while training: the next step uses it, without retracing.
        standardize: whether to z-score the logits per sample (with the n - 1 standard deviation plus 1e-7).
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher_logits, student_logits)`, both `(batch, classes)` logits, never probabilities.

    Raises:
        ValueError: `temperature` <= 0; in the Distiller also: outputs of different shape.

    Example:

    >>> SoftTargets(temperature=1.0)([[40.0, 0.0, 0.0]], [[0.0, 40.0, 0.0]])     # (40 - 0) * p_t[0], p_t[0] = 1
    40.0

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015; `standardize`: Sun et al.,
    "Logit Standardization in Knowledge Distillation", CVPR 2024. No deviation.
    """

    temperature = LiveAttribute(minimum=0.0, exclusive=True)

    def __init__(
        self,
        temperature=4.0,
        standardize=False,
        teacher_layers=None,
        student_layers=None,
        name="kd",
        reduction="sum_over_batch_size",
        dtype=None,
    ):
        super().__init__(teacher_layers, student_layers, name, reduction, dtype)
        self.temperature = temperature
        self.standardize = bool(standardize)

    def call(self, y_true, y_pred):
        check_same_shape(self.name, y_true, y_pred)
        temperature = SoftTargets.temperature.live(self).tensor(self.dtype)
        return soft_targets(y_true, y_pred, temperature, self.standardize)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature, "standardize": self.standardize}


@keras.saving.register_keras_serializable(package="keras_tkd")
class LogitRegression(LogitsLoss):
    """Squared error on the logits (`logits`).

    Pulls the student's logits towards the teacher's own, before any softmax.

        loss_i = mean_c (z_s[c] - z_t[c])^2

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher_logits, student_logits)`, both `(batch, classes)`; or outputs `(batch, ...)` of equal shape.

    Example:

    >>> LogitRegression()([[1.0, 2.0]], [[3.0, 2.0]])     # ((3 - 1)^2 + 0) / 2
    2.0

    Reference: Ba, Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014. They sum over the classes; the mean is
    what later comparisons use, and differs by the constant number of classes.
    """

    def __init__(
        self, teacher_layers=None, student_layers=None, name="logits", reduction="sum_over_batch_size", dtype=None
    ):
        super().__init__(teacher_layers, student_layers, name, reduction, dtype)

    def call(self, y_true, y_pred):
        check_same_shape(self.name, y_true, y_pred)
        return logit_regression(y_true, y_pred)
