"""Losses on logits that treat the class of the label apart from all others."""

import keras
from keras import ops

from keras_tkd.losses.base import LabelledLogitsLoss
from keras_tkd.utils.hyperparameters import Hyperparameter, read_hyperparameter

__all__ = ["DecoupledTargets", "NormalizedTargets", "decoupled_targets", "normalized_targets"]


def decoupled_targets(teacher_logits, student_logits, target, temperature=4.0, alpha=1.0, beta=8.0):
    """Soft targets in two parts with weights of their own, `T^2 (alpha TCKD + beta NCKD)`.

    Args:
        teacher_logits, student_logits: `(batch, classes)`.
        target: `(batch, classes)`, one-hot (bool or 0 and 1): the class of the label.
        temperature: T > 0.
        alpha: weight of TCKD, the divergence of (target, all others) as two classes.
        beta: weight of NCKD, the divergence among the others, renormalised.

    Returns:
        `(batch,)`, in nats.
    """
    teacher = _split_log_softmax(teacher_logits / temperature, target)
    student = _split_log_softmax(student_logits / temperature, target)
    pairs = list(zip(teacher, student, strict=True))
    # A divergence of two classes, from the logarithms of both: 1 - p would round to 0 where the teacher is sure.
    target_class = sum(ops.exp(t) * (t - s) for t, s in pairs[:2])
    log_t, log_s = pairs[2]
    others = ops.sum(_mask_others(target, log_t.dtype) * ops.exp(log_t) * (log_t - log_s), axis=-1)
    return temperature**2 * (alpha * target_class + beta * others)


def normalized_targets(teacher_logits, student_logits, target, temperature=1.0, gamma=1.5):
    """Soft targets of y and, normalized, of the others, `-p_t[y] log p_s[y] - gamma T^2 sum_c N(p_t)[c] log N(p_s)[c]`.

    Args:
        teacher_logits, student_logits: `(batch, classes)`.
        target: `(batch, classes)`, one-hot (bool or 0 and 1): y, the class of the label.
        temperature: T > 0 of N, the softmax renormalised over the classes that are not y.
        gamma: weight of the second part, whose sum is over the classes that are not y.

    Returns:
        `(batch,)`, in nats.
    """
    log_t, log_s = (_split_log_softmax(logits, target)[0] for logits in (teacher_logits, student_logits))
    others_t, others_s = (
        _split_log_softmax(logits / temperature, target)[2] for logits in (teacher_logits, student_logits)
    )
    others = ops.sum(_mask_others(target, others_t.dtype) * ops.exp(others_t) * others_s, axis=-1)
    return -ops.exp(log_t) * log_s - gamma * temperature**2 * others


def _split_log_softmax(logits, target):
    """Returns log-probabilities `(target, all others together, the others among themselves)`.

    The last is `(batch, classes)`, 0 at the target, the first two `(batch,)`; NaN where there is no target.
    """
    mask = ops.cast(target, "bool")
    # All from log-softmax: a probability near 1 or 0 has lost what the logarithm of the rest depends on.
    log_p = ops.log_softmax(logits, axis=-1)
    others = ops.where(mask, -float("inf"), log_p)
    log_others = ops.logsumexp(others, axis=-1, keepdims=True)
    log_target = ops.sum(ops.where(mask, log_p, ops.zeros_like(log_p)), axis=-1)
    # A label that is no class has no target: the loss is then no number, where training stops.
    log_target = ops.where(ops.any(mask, axis=-1), log_target, float("nan"))
    among = ops.where(mask, ops.zeros_like(log_p), log_p - log_others)
    return log_target, ops.squeeze(log_others, -1), among


def _mask_others(target, dtype):
    return ops.cast(ops.logical_not(ops.cast(target, "bool")), dtype)


@keras.saving.register_keras_serializable(package="keras_tkd")
class DecoupledTargets(LabelledLogitsLoss):
    """Soft targets in two parts with weights of their own (`dkd`).

    Pulls the student's probabilities towards the teacher's, in two steps: how sure the teacher is of the label's class
    against all others (TCKD), and how it ranks the others among themselves (NCKD). The divergence of soft targets is
    the sum of the two with the second weighted by `1 - p_t[y]`, so that it vanishes where the teacher is sure; here its
    weight is free.

        loss_i = T^2 ( alpha KL(b_t || b_s) + beta KL(q_t || q_s) )
        b = (p[y], 1 - p[y]),   q = p over the classes that are not y, renormalised,   p = softmax(logits / T)

    Args:
        temperature: T > 0, default 4. May be set while training.
        alpha, beta: >= 0, default 1 and 8, weights of the two parts. May be set while training.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss({"logits": teacher_logits, "labels": labels}, student_logits)`, logits `(batch, classes)` of at least
    two classes, labels `(batch,)` class ids.

    Raises:
        ValueError: no labels, or labels that are no class ids; outputs of different shape, or of a single class;
            `temperature` <= 0 or a negative weight.

    Example:

    >>> loss = DecoupledTargets(temperature=1.0, beta=0.0)
    >>> uniform, sure = [[0.0, 0.0]], [[math.log(3.0), 0.0]]     # (1/2, 1/2) and (3/4, 1/4)
    >>> loss({"logits": uniform, "labels": [0]}, sure)     # (log(2/3) + log 2) / 2
    0.1438

    Reference: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022. Their code masks the target by subtracting
    1000 from its logit, this leaves it out. Its warm-up of the weight over 20 epochs is
    `keras_tkd.callbacks.WarmUp(20)`.
    """

    default_name = "dkd"
    temperature = Hyperparameter(minimum=0.0, exclusive=True)
    alpha = Hyperparameter(minimum=0.0)
    beta = Hyperparameter(minimum=0.0)

    def __init__(self, temperature=4.0, alpha=1.0, beta=8.0, **common):
        super().__init__(**common)
        self.temperature = temperature
        self.alpha = alpha
        self.beta = beta

    def call(self, y_true, y_pred):
        numbers = {name: read_hyperparameter(self, name) for name in ("temperature", "alpha", "beta")}
        return decoupled_targets(y_true["logits"], y_pred, y_true["target"], **numbers)

    def get_config(self):
        return {**super().get_config(), **{name: getattr(self, name) for name in ("temperature", "alpha", "beta")}}


@keras.saving.register_keras_serializable(package="keras_tkd")
class NormalizedTargets(LabelledLogitsLoss):
    """Soft targets for the label's class and, renormalised, for the others (`nkd`).

    Pulls the student's probability of the label's class up, in proportion to the teacher's own; and its probabilities
    of the other classes towards the teacher's, after both were made to sum to one.

        loss_i = - p_t[y] log p_s[y]  -  gamma T^2 sum_{c != y} q_t[c] log q_s[c]
        p = softmax(logits),   q = softmax(logits / T) over the classes that are not y, renormalised

    Cross-entropies, not divergences: the loss is not zero where the student equals the teacher.

    Args:
        temperature: T > 0, default 1. May be set while training.
        gamma: >= 0, default 1.5, weight of the second part. May be set while training.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss({"logits": teacher_logits, "labels": labels}, student_logits)`, logits `(batch, classes)` of at least
    two classes, labels `(batch,)` class ids.

    Raises:
        ValueError: no labels, or labels that are no class ids; outputs of different shape, or of a single class;
            `temperature` <= 0 or a negative weight.

    Example:

    >>> loss = NormalizedTargets()
    >>> loss({"logits": [[0.0, 0.0]], "labels": [0]}, [[0.0, 0.0]])     # log(2) / 2, one other class: log 1 = 0
    0.3466

    Reference: Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
    Normalized Loss and Customized Soft Labels", ICCV 2023. No deviation.
    """

    default_name = "nkd"
    temperature = Hyperparameter(minimum=0.0, exclusive=True)
    gamma = Hyperparameter(minimum=0.0)

    def __init__(self, temperature=1.0, gamma=1.5, **common):
        super().__init__(**common)
        self.temperature = temperature
        self.gamma = gamma

    def call(self, y_true, y_pred):
        numbers = {name: read_hyperparameter(self, name) for name in ("temperature", "gamma")}
        return normalized_targets(y_true["logits"], y_pred, y_true["target"], **numbers)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature, "gamma": self.gamma}
