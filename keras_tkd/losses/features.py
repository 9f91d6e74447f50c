"""Losses that compare feature maps sample by sample: their attention, and the flow from one map to the next.

Maps are `(batch, height, width, channels)`; attention reads a transformer's tokens `(batch, tokens, width)`, too, each
a position. Where teacher and student differ in height or width, the larger map is
average-pooled to the smaller; where they must agree in width and do not, the student's passes through a projector.
"""

import math

import keras
import tensorflow as tf
from keras import ops

from keras_tkd.losses.base import DistillationLoss, LayerPairsLoss
from keras_tkd.losses.feature_maps import check_maps, check_pair, list_shapes, match_positions, mean_square
from keras_tkd.losses.outputs import as_list, as_shape_list
from keras_tkd.losses.validation import check_same_batch, check_same_shape
from keras_tkd.utils.distances import normalize

__all__ = ["AttentionTransfer", "FlowOfSolution", "attention_transfer", "flow_of_solution"]


def attention_transfer(teacher, student):
    """Squared error of the attention maps, the mean over positions of `(a_s - a_t)^2`, the maps `a` of norm 1.

    Args:
        teacher, student: `(batch, height, width, channels)`, the larger is pooled to the smaller; or
            `(batch, tokens, width)`.

    Returns:
        `(batch,)`.
    """
    teacher, student = (_attention_map(x) for x in match_positions(teacher, student))
    check_same_shape("at", teacher, student)
    return mean_square(student - teacher)


def flow_of_solution(teacher, student):
    """Squared error of the flow matrices, the mean of `(G_s - G_t)^2`, G that of two maps.

    Args:
        teacher, student: pairs of maps `(first, second)`, each `(batch, height, width, channels)`; of each pair the
            larger map is pooled to the smaller. The channels of the teacher's and the student's maps agree.

    Returns:
        `(batch,)`.
    """
    teacher, student = _flow_matrix(*teacher), _flow_matrix(*student)
    check_same_shape("fsp", teacher, student)
    return mean_square(student - teacher)


def _attention_map(x):
    """Returns `(batch, positions)`: mean of the squares over the channels, divided by the norm over all positions."""
    return normalize(ops.reshape(_channel_energy(x), (ops.shape(x)[0], math.prod(x.shape[1:-1]))))


@tf.custom_gradient
def _channel_energy(x):
    """Mean of the squares over the channels, `(batch, height, width)` or `(batch, tokens)`."""

    # One product, where spreading the gradient of a mean takes several passes over a large map.
    def gradient(upstream):
        return x * (2.0 / x.shape[-1] * upstream)[..., None]

    return tf.reduce_mean(tf.square(x), axis=-1), gradient


def _flow_matrix(first, second):
    """Returns `(batch, channels of first, channels of second)`: mean over positions of the outer product."""
    first, second = match_positions(first, second)
    return ops.einsum("bhwc,bhwd->bcd", first, second) / (first.shape[1] * first.shape[2])


def _keep(x):
    """Stands for a projector where `build` has not made any: the shapes are then found to differ."""
    return x


@keras.saving.register_keras_serializable(package="keras_tkd")
class AttentionTransfer(LayerPairsLoss):
    """Attention transfer (`at`).

    Pulls the student's attention, where in the image its activations are strong whatever the channel, towards the
    teacher's.

        a(f) = flatten(mean_c f^2) / norm,   loss_i = sum over layer pairs of mean over positions of (a(f_s) - a(f_t))^2

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. The paper reads the end of every
            stage: `["stage1", "stage2", "stage3"]`.

    Call: `loss(teacher, student)`, maps `(batch, height, width, channels)` of any width, the larger pooled to the
    smaller, or tokens `(batch, tokens, width)` of equal number, but for a class token that one side has; or two lists
    of such. A map of zeros has an attention of zeros.

    Raises:
        ValueError: outputs that are neither, of two kinds or of unknown size; tokens of other numbers.

    Example:

    >>> teacher, student = [[[[3.0], [0.0]]]], [[[[0.0], [2.0]]]]     # one row of two positions: (1, 0) and (0, 1)
    >>> AttentionTransfer()(teacher, student)     # (1 + 1) / 2
    1.0

    Reference: Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, as their code has it: the mean
    over positions of squares, where the paper writes a norm.
    """

    default_name = "at"

    def build(self, teacher_shapes, student_shapes):
        for teacher, student in zip(as_shape_list(teacher_shapes), as_shape_list(student_shapes), strict=True):
            check_pair(self.name, teacher, student, ranks=(3, 4))

    def compare(self, teacher, student):
        # Outside a Distiller nobody has called `build`.
        self.build(*list_shapes([teacher, student]))
        return attention_transfer(teacher, student)


@keras.saving.register_keras_serializable(package="keras_tkd")
class FlowOfSolution(DistillationLoss):
    """Flow of the solution procedure (`fsp`).

    Pulls the way in which the student's features change from one layer to a later one towards the teacher's: the flow
    matrix of two layers is the mean over positions of the outer product of their channels.

        G = (1 / hw) sum over positions of f_first f_second^T,   loss_i = sum over pairs of mean (G_s - G_t)^2

    The layers named are taken in pairs: first and second, second and third, and so on. Where the student's channels are
    not as many as the teacher's, its maps pass through a linear 1x1 convolution (an addition: the paper wants equal
    numbers).

    Args:
        teacher_layers, student_layers: lists of two layers or more.
        name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teachers, students)`, lists of maps `(batch, height, width, channels)`; of each pair the larger map is
    pooled to the smaller. After `loss.build(teacher_shapes, student_shapes)` where channels differ.

    Raises:
        ValueError: fewer than two layers; outputs that are no maps; channels that differ, without `build`.

    Example:

    >>> x = np.ones((1, 1, 1, 1))     # one position, one channel
    >>> FlowOfSolution()([x, 2 * x], [3 * x, x])     # (3 * 1 - 1 * 2)^2
    1.0

    Reference: Yim et al., "A Gift from Knowledge Distillation", CVPR 2017. They train with it first and on the labels
    later; here it is a term among others.
    """

    default_name = "fsp"
    owns_layers = True

    def build(self, teacher_shapes, student_shapes):
        teachers, students = as_shape_list(teacher_shapes), as_shape_list(student_shapes)
        if len(teachers) < 2:
            raise ValueError(
                f"Loss '{self.name}' reads two layers or more on each side. "
                f"Received: teacher {teacher_shapes}, student {student_shapes}"
            )
        check_maps(self.name, teachers, students)
        if self.has_layers_for(teachers, students):
            return
        for place, (teacher, student) in enumerate(zip(teachers, students, strict=True)):
            if teacher[-1] != student[-1]:
                name = f"{self.name}_projector{place + 1}"
                projector = keras.layers.Dense(teacher[-1], use_bias=False, dtype=self.dtype, name=name)
                projector.build((None, *student[1:]))
                self.add_layer(projector)

    def call(self, y_true, y_pred):
        teachers, students = as_list(y_true), as_list(y_pred)
        for maps in (teachers, students):
            if len(maps) < 2 or len(maps) != len(teachers):
                raise ValueError(
                    f"Loss '{self.name}' reads two layers or more, as many of the teacher as of the student. "
                    f"Received: {len(teachers)} of the teacher, {len(students)} of the student"
                )
        check_maps(self.name, list_shapes(teachers), list_shapes(students))
        check_same_batch(self.name, *teachers, *students)
        # One for each map whose channels differ, in the order of the maps, as `build` made them.
        projectors = iter(self.layers)
        for place, (teacher, student) in enumerate(zip(teachers, students, strict=True)):
            if teacher.shape[-1] != student.shape[-1]:
                students[place] = next(projectors, _keep)(student)
        # Each layer with the next: of three layers two pairs.
        pairs = zip(zip(teachers, teachers[1:], strict=False), zip(students, students[1:], strict=False), strict=True)
        return sum(flow_of_solution(teacher, student) for teacher, student in pairs)
