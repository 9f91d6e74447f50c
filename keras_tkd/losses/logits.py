"""Losses that match the student's logits to the teacher's."""

import keras
from keras import ops

from keras_tkd.losses.base import LogitsLoss
from keras_tkd.losses.validation import check_classes, check_same_shape
from keras_tkd.utils.distances import normalize, safe_sqrt
from keras_tkd.utils.hyperparameters import Hyperparameter, read_hyperparameter

__all__ = [
    "DIST",
    "HardTargets",
    "LogitRegression",
    "SoftTargets",
    "dist",
    "hard_targets",
    "logit_regression",
    "soft_targets",
]


def soft_targets(teacher_logits, student_logits, temperature=4.0, standardize=False):
    """Kullback-Leibler divergence of softened class distributions, `T^2 KL(softmax(z_t / T) || softmax(z_s / T))`.

    Args:
        teacher_logits, student_logits: `(batch, classes)`.
        temperature: T > 0.
        standardize: z-score both logits per sample first (mean 0, sample standard deviation 1).

    Returns:
        `(batch,)`, in nats.
    """
    if standardize:
        teacher_logits, student_logits = _z_score(teacher_logits), _z_score(student_logits)
    # From log-softmax, never from clipped probabilities: those lose the gradient where the student is far off.
    log_teacher = ops.log_softmax(teacher_logits / temperature, axis=-1)
    log_student = ops.log_softmax(student_logits / temperature, axis=-1)
    divergence = ops.sum(ops.exp(log_teacher) * (log_teacher - log_student), axis=-1)
    return divergence * temperature**2


def hard_targets(teacher_logits, student_logits):
    """Cross-entropy of the student's logits with the class that the teacher names, `-log softmax(z_s)[argmax z_t]`.

    Args:
        teacher_logits, student_logits: `(batch, classes)`. Of several largest logits of a teacher the first counts.

    Returns:
        `(batch,)`, in nats.
    """
    named = ops.one_hot(ops.argmax(teacher_logits, axis=-1), student_logits.shape[-1], dtype=student_logits.dtype)
    # An argmax would hide a NaN of the teacher's.
    named = ops.where(ops.isnan(teacher_logits), ops.cast(teacher_logits, student_logits.dtype), named)
    return -ops.sum(named * ops.log_softmax(student_logits, axis=-1), axis=-1)


def logit_regression(teacher_logits, student_logits):
    """Squared error of the logits, the mean over the classes of `(z_s - z_t)^2`.

    Args:
        teacher_logits, student_logits: `(batch, classes)`; or `(batch, ...)`, averaged over all axes but the first.

    Returns:
        `(batch,)`.
    """
    return ops.mean(ops.square(student_logits - teacher_logits), axis=tuple(range(1, len(teacher_logits.shape))))


def dist(teacher_logits, student_logits, temperature=4.0, inter_weight=1.0, intra_weight=1.0):
    """Correlation of predictions, `T^2 (inter_weight (1 - r(rows)) + intra_weight (1 - r(columns)))`, r Pearson's.

    Args:
        teacher_logits, student_logits: `(batch, classes)`.
        temperature: T > 0 of the softmax of both.
        inter_weight: weight of the correlation over the classes of a sample.
        intra_weight: weight of the correlation over the samples of the batch, mean over the classes.

    Returns:
        `(batch,)`; the second part is each sample's share: the mean over the batch is the paper's number.
    """
    teacher = ops.softmax(teacher_logits / temperature, axis=-1)
    student = ops.softmax(student_logits / temperature, axis=-1)
    inter = ops.sum(_center_rows(teacher) * _center_rows(student), axis=-1)
    # A class's correlation is a sum over the samples: each sample gets its own products, times the number of samples,
    # so that the mean over the batch is the correlation again.
    teacher, student = ops.transpose(teacher), ops.transpose(student)
    samples = ops.cast(ops.shape(student)[1], student.dtype)
    intra = samples * ops.mean(_center_rows(teacher) * _center_rows(student), axis=0)
    return temperature**2 * (inter_weight * (1.0 - inter) + intra_weight * (1.0 - intra))


def _center_rows(rows, minimum=1e-6):
    """Returns rows less their mean, of norm 1: products of two are correlations. A (nearly) constant row becomes 0."""
    return normalize(rows - ops.mean(rows, axis=-1, keepdims=True), minimum)


def _z_score(logits, epsilon=1e-7):
    """Returns logits of mean 0 and sample standard deviation (n - 1) 1 in each row; a constant row becomes zeros."""
    centred = logits - ops.mean(logits, axis=-1, keepdims=True)
    classes = logits.shape[-1]
    # Where a row is constant, the gradient of a plain root would be infinite.
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
        temperature: T > 0, default 4. May be set while training: the next step uses it, without retracing.
        standardize: whether to z-score the logits per sample (with the n - 1 standard deviation plus 1e-7); default
            False.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher_logits, student_logits)`, both `(batch, classes)` logits, never probabilities.

    Raises:
        ValueError: `temperature` <= 0; outputs of different shape, or of a single class.

    Example:

    >>> SoftTargets(temperature=1.0)([[40.0, 0.0, 0.0]], [[0.0, 40.0, 0.0]])     # (40 - 0) * p_t[0], p_t[0] = 1
    40.0

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015; `standardize`: Sun et al.,
    "Logit Standardization in Knowledge Distillation", CVPR 2024. No deviation.
    """

    default_name = "kd"
    temperature = Hyperparameter(minimum=0.0, exclusive=True)
    _FIXED = ("standardize",)

    def __init__(self, temperature=4.0, standardize=False, **common):
        super().__init__(**common)
        self.temperature = temperature
        self.standardize = bool(standardize)

    def call(self, y_true, y_pred):
        check_same_shape(self.name, y_true, y_pred)
        check_classes(self.name, y_pred.shape)
        return soft_targets(y_true, y_pred, read_hyperparameter(self, "temperature"), self.standardize)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature, "standardize": self.standardize}


@keras.saving.register_keras_serializable(package="keras_tkd")
class HardTargets(LogitsLoss):
    """Hard-label distillation: the cross-entropy with the class that the teacher names (`hard`).

    Takes the teacher's decision for a second label. Of an image whose crop or view shows another thing than its label
    says, it is the better one; there is no temperature to choose. On images that the teacher has learned by heart both
    labels are the same, and so is what the student learns.

        loss_i = -log softmax(z_s)[argmax_c z_t[c]]

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher_logits, student_logits)`, both `(batch, classes)`. Of several largest logits of a teacher the
    first counts.

    Raises:
        ValueError: outputs of different shape, or of a single class.

    Example:

    >>> HardTargets()([[1.0, 2.0]], [[30.0, 0.0]])     # the teacher says 1: log(e^30 + e^0) - 0
    30.0

    Reference: Touvron et al., "Training data-efficient image transformers & distillation through attention", ICML 2021,
    where labels and teacher weigh a half each, and the teacher's label is not smoothed. There a transformer learns it
    through a token of its own; here it is the one output of any student.
    """

    default_name = "hard"

    def call(self, y_true, y_pred):
        check_same_shape(self.name, y_true, y_pred)
        check_classes(self.name, y_pred.shape)
        return hard_targets(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_tkd")
class LogitRegression(LogitsLoss):
    """Squared error on the logits (`logits`).

    Pulls the student's logits towards the teacher's own, before any softmax.

        loss_i = mean_c (z_s[c] - z_t[c])^2

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher_logits, student_logits)`, both `(batch, classes)`; or outputs `(batch, ...)` of equal shape.

    Raises:
        ValueError: outputs of different shape.

    Example:

    >>> LogitRegression()([[1.0, 2.0]], [[3.0, 2.0]])     # ((3 - 1)^2 + 0) / 2
    2.0

    Reference: Ba, Caruana, "Do Deep Nets Really Need to be Deep?", NeurIPS 2014. They sum over the classes; the mean is
    what later comparisons use, and differs by the constant number of classes.
    """

    default_name = "logits"

    def call(self, y_true, y_pred):
        check_same_shape(self.name, y_true, y_pred)
        return logit_regression(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_tkd")
class DIST(LogitsLoss):
    """Correlation of predictions, within samples and within classes (`dist`).

    Pulls the student's probabilities towards ones that correlate with the teacher's, which is less than to equal them:
    over the classes of each sample (inter-class relations), and for each class over the samples of the batch
    (intra-class relations).

        loss = T^2 [   inter_weight (1 - mean_i r(p_t[i, :], p_s[i, :]))
                     + intra_weight (1 - mean_c r(p_t[:, c], p_s[:, c])) ]

    with r Pearson's correlation and `p = softmax(logits / T)`. A row or column that is constant (norm of its deviations
    up to 1e-6) correlates with nothing: r = 0, without gradient.

    Args:
        temperature: T > 0, default 4. May be set while training.
        inter_weight, intra_weight: >= 0, default 1, weights of the two parts. May be set while training.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher_logits, student_logits)`, both `(batch, classes)`.

    Raises:
        ValueError: `temperature` <= 0 or a negative weight; outputs of different shape, or of a single class.

    Example:

    >>> loss = DIST(temperature=1.0, intra_weight=0.0)
    >>> loss([[1.0, 0.0]], [[0.0, 1.0]])     # the two rows are opposed: 1 - (-1)
    2.0

    Reference: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022. No deviation, the handling
    of constant rows aside (their code adds 1e-8 to the product of the norms).
    """

    default_name = "dist"
    temperature = Hyperparameter(minimum=0.0, exclusive=True)
    inter_weight = Hyperparameter(minimum=0.0)
    intra_weight = Hyperparameter(minimum=0.0)

    def __init__(self, temperature=4.0, inter_weight=1.0, intra_weight=1.0, **common):
        super().__init__(**common)
        self.temperature = temperature
        self.inter_weight = inter_weight
        self.intra_weight = intra_weight

    def call(self, y_true, y_pred):
        check_same_shape(self.name, y_true, y_pred)
        check_classes(self.name, y_pred.shape)
        numbers = {name: read_hyperparameter(self, name) for name in ("temperature", "inter_weight", "intra_weight")}
        return dist(y_true, y_pred, **numbers)

    def get_config(self):
        own = {name: getattr(self, name) for name in ("temperature", "inter_weight", "intra_weight")}
        return {**super().get_config(), **own}
