"""Losses that compare how similar the samples of a batch are to one another, in the teacher and in the student.

Similarities are inner products of the samples' features, or functions of their cosines. The networks may differ in
width and in spatial size: what is compared has the size of the batch. A loss of a whole batch gives each sample its
share, so that samples can be weighted; the mean of the shares is the papers' number.
"""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_tkd.losses.base import LayerPairsLoss
from keras_tkd.losses.feature_maps import average_positions
from keras_tkd.losses.validation import check_same_shape
from keras_tkd.utils.distances import normalize
from keras_tkd.utils.hyperparameters import Hyperparameter, read_hyperparameter
from keras_tkd.utils.number_checks import is_whole

__all__ = [
    "CorrelationCongruence",
    "ProbabilisticTransfer",
    "SimilarityPreserving",
    "correlation_congruence",
    "probabilistic_transfer",
    "similarity_preserving",
]


def similarity_preserving(teacher, student):
    """Squared error of the similarities, `(1 / b) sum_j (G_t - G_s)[i, j]^2`, G `Q Q^T` with rows of norm 1.

    Args:
        teacher, student: `(batch, ...)`; Q is `(batch, everything else)`.

    Returns:
        `(batch,)`.
    """
    teacher, student = (normalize(_gram_matrix(_flatten(x))) for x in (teacher, student))
    check_same_shape("sp", teacher, student)
    return ops.mean(ops.square(teacher - student), axis=1)


def probabilistic_transfer(teacher, student):
    """Divergence of neighbours, `mean_j P_t[i, j] log(P_t[i, j] / P_s[i, j])`, P their probabilities by cosine.

    Args:
        teacher, student: `(batch, width)`, or `(batch, height, width, channels)`, averaged over positions.

    Returns:
        `(batch,)`.
    """
    dtype = student.dtype
    # In float64: float32 rounds the probability of an opposite direction, which is 0, to as much as the 1e-7 below.
    teacher, student = (_neighbour_probabilities(ops.cast(average_positions(x), "float64")) for x in (teacher, student))
    check_same_shape("pkt", teacher, student)
    return ops.cast(ops.mean(teacher * (ops.log(teacher + 1e-7) - ops.log(student + 1e-7)), axis=1), dtype)


def correlation_congruence(teacher, student, gamma=0.4, order=2):
    """Squared error of the correlations, `mean_j (K_t - K_s)[i, j]^2`, K a Gaussian kernel of the directions.

    Args:
        teacher, student: `(batch, width)`, or `(batch, height, width, channels)`, averaged over positions.
        gamma: > 0; the kernel is `exp(-gamma |e_i - e_j|^2)` of embeddings of norm 1, as its Taylor series.
        order: >= 1, the last power of the series.

    Returns:
        `(batch,)`.
    """
    teacher, student = (_gaussian_kernel(average_positions(x), gamma, order) for x in (teacher, student))
    check_same_shape("cc", teacher, student)
    return ops.mean(ops.square(teacher - student), axis=1)


def _flatten(x):
    sizes = x.shape[1:]
    # A -1 would not do: it has no value in a batch without samples.
    width = tf.reduce_prod(tf.shape(x)[1:]) if None in sizes else math.prod(sizes)
    return ops.reshape(x, (ops.shape(x)[0], width))


@tf.custom_gradient
def _gram_matrix(x):
    """Returns `x x^T`."""

    # One product, where TensorFlow would take two for the two factors.
    def gradient(upstream):
        return tf.matmul(upstream + tf.transpose(upstream), x)

    if x.shape[1] is None:
        return tf.matmul(x, x, transpose_b=True), gradient
    # Rows of thousands of numbers in parts: on a CPU one product of such rows runs at less than half the speed.
    parts = next(n for n in (16, 8, 4, 2, 1) if x.shape[1] % n == 0 and (x.shape[1] >= 256 * n or n == 1))
    rows = tf.transpose(tf.reshape(x, [-1, parts, x.shape[1] // parts]), [1, 0, 2])
    return tf.reduce_sum(tf.matmul(rows, rows, transpose_b=True), axis=0), gradient


def _neighbour_probabilities(x):
    # Cosines moved to 0..1, so that they can be probabilities.
    similarity = (_gram_matrix(normalize(x)) + 1.0) / 2.0
    return similarity / ops.sum(similarity, axis=1, keepdims=True)


def _gaussian_kernel(x, gamma, order):
    # Of rows of norm 1, |e_i - e_j|^2 is 2 - 2 cosine: the kernel is exp(-2 gamma) exp(2 gamma cosine).
    cosine = _gram_matrix(normalize(x))
    # The first term is 1: as a power of a cosine of 0, orthogonal rows, its gradient would be 0 times infinity.
    terms = [(2.0 * gamma) ** p / math.factorial(p) * cosine**p for p in range(1, order + 1)]
    return ops.exp(-2.0 * gamma) * (1.0 + sum(terms))


@keras.saving.register_keras_serializable(package="keras_tkd")
class SimilarityPreserving(LayerPairsLoss):
    """Similarity-preserving distillation (`sp`).

    Pulls the similarities that the student sees between the images of a batch towards those that the teacher sees:
    what is alike for the teacher becomes alike for the student.

        Q = reshape(features, [b, -1]),   G = Q Q^T with each row divided by its norm
        loss = (1 / b^2) sum over layer pairs of ||G_t - G_s||_F^2

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. The paper reads the output of
            the last convolutional block: layer `"features"` of the models of this package.

    Call: `loss(teacher, student)`, `(batch, ...)` each, of any widths; or two lists of such. Sample i has the share
    `(1 / b) sum_j (G_t - G_s)[i, j]^2`.

    Raises:
        ValueError: batches of different size.

    Example:

    >>> loss = SimilarityPreserving()
    >>> loss([[1.0], [1.0]], [[1.0, 0.0], [0.0, 1.0]])     # G_t is 1 / sqrt(2) throughout, G_s the identity
    0.2929

    Reference: Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019 (arXiv 1907.09682). No deviation; a
    sample of all-zero features has a row of zeros.
    """

    default_name = "sp"

    def compare(self, teacher, student):
        return similarity_preserving(teacher, student)


@keras.saving.register_keras_serializable(package="keras_tkd")
class ProbabilisticTransfer(LayerPairsLoss):
    """Probabilistic knowledge transfer (`pkt`).

    Each sample's embedding makes a distribution over the batch, the closer in direction the likelier. Pulls the
    student's distribution towards the teacher's.

        K = (cosine + 1) / 2,   P = K with rows divided by their sums,   loss = mean over (i, j) of P_t log(P_t / P_s)

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher, student)`, embeddings `(batch, width)`, or maps `(batch, height, width, channels)`, which are
    averaged over positions; or two lists of such.

    Raises:
        ValueError: batches of different size.

    Example:

    >>> ProbabilisticTransfer()([[1.0], [2.0]], [[1.0, 0.0], [0.0, 1.0]])     # (1/2, 1/2) against (2/3, 1/3)
    0.0294

    Reference: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018. As in
    their code, 1e-7 is added to both probabilities in the logarithm, and the mean is over all b^2 entries (hence the
    large weight that goes with it).
    """

    default_name = "pkt"

    def compare(self, teacher, student):
        return probabilistic_transfer(teacher, student)


@keras.saving.register_keras_serializable(package="keras_tkd")
class CorrelationCongruence(LayerPairsLoss):
    """Correlation congruence (`cc`).

    Pulls the correlations of the student's embeddings of a batch, by a Gaussian kernel of their directions, towards the
    teacher's.

        K[i, j] = exp(-2 gamma) sum_{p = 0..order} (2 gamma)^p / p! <e_i, e_j>^p,    e of norm 1
        loss = mean over (i, j) of (K_t - K_s)^2

    Args:
        gamma: > 0, default 0.4, inverse width of the kernel. May be set while training.
        order: >= 1, default 2, last power of the kernel's Taylor series.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher, student)`, embeddings `(batch, width)`, or maps `(batch, height, width, channels)`, which are
    averaged over positions; or two lists of such.

    Raises:
        ValueError: batches of different size; `gamma` <= 0; an order that is no integer >= 1.

    Example:

    >>> loss = CorrelationCongruence(gamma=0.5, order=1)     # K = exp(-1) (1 + cosine)
    >>> loss([[1.0], [1.0]], [[1.0, 0.0], [0.0, 1.0]])     # exp(-2) (0 + 1 + 1 + 0) / 4
    0.0677

    Reference: Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019. The congruence term alone;
    the paper adds soft targets.
    """

    default_name = "cc"
    gamma = Hyperparameter(minimum=0.0, exclusive=True)
    _FIXED = ("order",)

    def __init__(self, gamma=0.4, order=2, **common):
        super().__init__(**common)
        if not is_whole(order) or order < 1:
            raise ValueError(f"`order` must be an integer >= 1. Received: order={order!r}")
        self.gamma = gamma
        self.order = int(order)

    def compare(self, teacher, student):
        return correlation_congruence(teacher, student, read_hyperparameter(self, "gamma"), self.order)

    def get_config(self):
        return {**super().get_config(), "gamma": self.gamma, "order": self.order}
