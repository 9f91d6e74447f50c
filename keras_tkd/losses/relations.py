"""Relational distillation: losses that compare the distances, and the angles, between the embeddings of a batch.

The networks may differ in width and in spatial size: what is compared has the size of the batch. A loss of a whole
batch gives each sample its share, so that samples can be weighted; the mean of the shares is the paper's number.
"""

import keras
from keras import ops

from keras_tkd.losses.base import LayerPairsLoss
from keras_tkd.losses.feature_maps import average_positions
from keras_tkd.losses.relational_angles import mean_huber_of_angles
from keras_tkd.losses.validation import check_same_batch, check_same_shape
from keras_tkd.utils.distances import pairwise_euclidean

__all__ = ["RelationalAngle", "RelationalDistance", "relational_angle", "relational_distance"]


def relational_distance(teacher, student):
    """Huber loss of the distances, `mean_j huber(d_t[i, j] - d_s[i, j])`, d in units of their mean.

    Args:
        teacher, student: `(batch, width)`, or `(batch, height, width, channels)`, averaged over positions.

    Returns:
        `(batch,)`.
    """
    teacher, student = (_divide_by_mean(pairwise_euclidean(average_positions(x))) for x in (teacher, student))
    check_same_shape("rkd_distance", teacher, student)
    return ops.mean(_huber(student - teacher), axis=1)


def relational_angle(teacher, student):
    """Huber loss of the angles, `mean_{j, k} huber(cos_t[i, j, k] - cos_s[i, j, k])`, at i between j and k.

    Args:
        teacher, student: `(batch, width)`, or `(batch, height, width, channels)`, averaged over positions.

    Returns:
        `(batch,)`. Time goes with `batch^3`, memory with `batch^2`: angles are taken in blocks of anchors, and the
        backward pass computes them again.
    """
    teacher, student = (average_positions(x) for x in (teacher, student))
    check_same_batch("rkd_angle", teacher, student)
    return mean_huber_of_angles(teacher, student)


def _huber(x):
    """Returns `x^2 / 2` up to 1, then `|x| - 1/2`."""
    # Without a branch: the slope is the bounded difference itself.
    bounded = ops.clip(x, -1.0, 1.0)
    return bounded * (x - bounded / 2)


def _divide_by_mean(distances):
    """Divides distances by the mean of those that are positive; all zeros stay zeros."""
    # Zeros, of each sample to itself above all, do not count in the authors' code either.
    positive = ops.cast(distances > 0, distances.dtype)
    mean = ops.sum(distances) / ops.maximum(ops.sum(positive), 1.0)
    return distances / ops.where(ops.equal(mean, 0), ops.ones_like(mean), mean)


@keras.saving.register_keras_serializable(package="keras_tkd")
class RelationalDistance(LayerPairsLoss):
    """Relational distillation of distances (`rkd_distance`).

    Pulls the distances between the student's embeddings of a batch, in units of their own mean, towards the teacher's.

        d[i, j] = ||e_i - e_j|| / mean of the positive ones,      loss = mean over all (i, j) of huber(d_s - d_t)

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher, student)`, embeddings `(batch, width)`, or maps `(batch, height, width, channels)`, which are
    averaged over positions; or two lists of such.

    Raises:
        ValueError: batches of different size.

    Example:

    >>> RelationalDistance()([[0.0], [3.0]], [[0.0, 0.0], [3.0, 4.0]])     # one distance: its own mean
    0.0

    Reference: Park et al., "Relational Knowledge Distillation", CVPR 2019. The mean is over all b^2 pairs, i = j
    included, as in their code.
    """

    default_name = "rkd_distance"

    def compare(self, teacher, student):
        return relational_distance(teacher, student)


@keras.saving.register_keras_serializable(package="keras_tkd")
class RelationalAngle(LayerPairsLoss):
    """Relational distillation of angles (`rkd_angle`).

    Pulls the angle that any three of the student's embeddings of a batch form towards the teacher's.

        cos[i, j, k] = < (e_j - e_i) / |e_j - e_i|, (e_k - e_i) / |e_k - e_i| >
        loss = mean over all (i, j, k) of huber(cos_s - cos_t)

    Where two points are one, the cosine is 0.

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher, student)`, embeddings `(batch, width)`, or maps `(batch, height, width, channels)`, which are
    averaged over positions; or two lists of such. No gradient flows to the teacher. In float32 the angles at points
    that are nearer to each other than a thousandth of the batch's spread lose accuracy (2e-4 there).

    Raises:
        ValueError: batches of different size.

    Example, a right angle against three points on a line; of 27 cosines the six that differ are those between j and k
    at i = 0 (0 against 1), at i = 1 (1/sqrt(2) against -1) and at i = 2 (1/sqrt(2) against 1), two of each:

    >>> RelationalAngle()([[0, 0], [1, 0], [0, 1]], [[0.0], [1.0], [2.0]])
    ...     # 2 (0.5 + (1.7071 - 0.5) + 0.2929^2 / 2) / 27
    0.1296

    Reference: Park et al., "Relational Knowledge Distillation", CVPR 2019. The mean is over all b^3 triples, degenerate
    ones included, as in their code.
    """

    default_name = "rkd_angle"

    def compare(self, teacher, student):
        return relational_angle(teacher, student)
