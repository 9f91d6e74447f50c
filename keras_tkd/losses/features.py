"""Losses that compare feature maps, sample by sample.

Maps are `(batch, height, width, channels)`. Where teacher and student differ in height or width, the larger map is
average-pooled to the smaller; where they must agree in width and do not, the student's passes through a projector.
"""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_tkd.distances import unit
from keras_tkd.live import check_number
from keras_tkd.losses.base import (
    DistillationLoss,
    LayerPairsLoss,
    as_list,
    check_same_batch,
    check_same_shape,
    shape_list,
)


def attention_transfer(teacher, student):
    """Mean over positions of `(a_s - a_t)^2` per sample, `a` the maps of attention, of norm 1.

    Args:
        teacher, student: `(batch, height, width, channels)`; the larger is pooled to the smaller.

    Returns:
        `(batch,)`.
    """
    teacher, student = (attention(x) for x in pooled_alike(teacher, student))
    check_same_shape("at", teacher, student)
    return mean_square(student - teacher)


def flow_of_solution(teacher, student):
    """Mean of `(G_s - G_t)^2` per sample, G the flow matrix of two maps.

    Args:
        teacher, student: pairs of maps `(first, second)`, each `(batch, height, width, channels)`; of each pair the
            larger map is pooled to the smaller. The channels of the teacher's and the student's maps agree.

    Returns:
        `(batch,)`.
    """
    teacher, student = flow(*teacher), flow(*student)
    check_same_shape("fsp", teacher, student)
    return mean_square(student - teacher)


def attention(x):
    """`(batch, positions)`: mean of the squares over the channels, divided by the norm over all positions."""
    return unit(ops.reshape(energy(x), (ops.shape(x)[0], x.shape[1] * x.shape[2])))


@tf.custom_gradient
def energy(x):
    """Mean of the squares over the channels; its gradient is one product, where spreading a mean takes several."""

    def gradient(upstream):
        return x * (2.0 / x.shape[-1] * upstream)[..., None]

    return tf.reduce_mean(tf.square(x), axis=-1), gradient


def flow(first, second):
    """`(batch, channels of first, channels of second)`: mean over positions of the outer product."""
    first, second = pooled_alike(first, second)
    return ops.einsum("bhwc,bhwd->bcd", first, second) / (first.shape[1] * first.shape[2])


def mean_square(x):
    return ops.mean(ops.square(x), axis=tuple(range(1, len(x.shape))))


def pooled_alike(first, second):
    """Both outputs, the larger map average-pooled to the height and width of the smaller."""
    if len(first.shape) != 4 or len(second.shape) != 4:
        return first, second
    size = tuple(min(a, b) for a, b in zip(first.shape[1:3], second.shape[1:3], strict=True))
    return pool(first, size), pool(second, size)


def pool(x, size):
    """`x`, average-pooled to `size`; cell i of m covers the positions floor(i n / m) to ceil((i + 1) n / m) of n."""
    for axis, cells in enumerate(size, 1):
        if x.shape[axis] != cells:
            matrix = pooling_matrix(x.shape[axis], cells, x.dtype)
            x = ops.moveaxis(ops.tensordot(x, matrix, axes=((axis,), (0,))), -1, axis)
    return x


def pooling_matrix(positions, cells, dtype):
    matrix = np.zeros((positions, cells))
    for cell in range(cells):
        covered = slice(cell * positions // cells, -(-(cell + 1) * positions // cells))
        matrix[covered, cell] = 1.0 / (covered.stop - covered.start)
    return ops.convert_to_tensor(matrix, dtype=dtype)


def check_maps(name, teachers, students):
    """Raises `ValueError` unless all shapes, of each side a list, are those of maps of known size."""
    if any(len(shape) != 4 or None in shape[1:] for shape in [*teachers, *students]):
        raise ValueError(
            f"Loss '{name}' reads feature maps (batch, height, width, channels) of known size. Received: teacher "
            f"{', '.join(map(str, teachers))}; student {', '.join(map(str, students))}"
        )


def shapes_of(outputs):
    """Shapes of a list of outputs, with None for the batch."""
    return [(None, *x.shape[1:]) for x in outputs]


@keras.saving.register_keras_serializable(package="keras_tkd")
class AttentionTransfer(LayerPairsLoss):
    """Attention transfer (`at`).

    Where the teacher's activations are strong, the student's shall be, whatever the channels.

        a(f) = flatten(mean_c f^2) / norm,   loss_i = sum over layer pairs of mean over positions of (a(f_s) - a(f_t))^2

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. The paper reads the end of every
            stage: `["stage1", "stage2", "stage3"]`.

    Call: `loss(teacher, student)`, maps `(batch, height, width, channels)` of any width, the larger pooled to the
    smaller; or two lists of such. A map of zeros has an attention of zeros.

    Raises:
        ValueError: outputs that are no maps.

    Example:

    >>> teacher, student = [[[[3.0], [0.0]]]], [[[[0.0], [2.0]]]]     # one row of two positions: (1, 0) and (0, 1)
    >>> AttentionTransfer()(teacher, student)     # (1 + 1) / 2
    1.0

    Reference: Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, as their code has it: the mean
    over positions of squares, where the paper writes a norm.
    """

    default_name = "at"

    def build(self, teacher_shapes, student_shapes):
        check_maps(self.name, shape_list(teacher_shapes), shape_list(student_shapes))

    def compare(self, teacher, student):
        check_maps(self.name, shapes_of([teacher]), shapes_of([student]))
        return attention_transfer(teacher, student)


class ProjectedLoss(DistillationLoss):
    """Base class of losses that send each of the student's outputs through a layer of their own before they compare.

    A subclass implements `make_layer(width)`, the layer for a teacher's width, and `compare(teacher, projected)`.
    """

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self._layers = []

    @property
    def layers(self):
        return self._layers

    def build(self, teacher_shapes, student_shapes):
        if self._layers:
            return
        for teacher, student in zip(shape_list(teacher_shapes), shape_list(student_shapes), strict=True):
            if len(teacher) != len(student) or len(teacher) not in (2, 4) or None in [*teacher[1:], *student[1:]]:
                raise ValueError(
                    f"Loss '{self.name}' compares vectors (batch, width) or maps (batch, height, width, channels), "
                    f"of known size, of the same kind on both sides. Received: teacher {teacher}, student {student}"
                )
            layer = self.make_layer(teacher[-1])
            layer.build((None, *student[1:]))
            self._layers.append(layer)

    def call(self, y_true, y_pred):
        teachers, students = as_list(y_true), as_list(y_pred)
        if len(self._layers) != len(students):
            raise ValueError(
                f"Loss '{self.name}' has layers of its own, which `loss.build(teacher_shapes, student_shapes)` makes; "
                f"the Distiller calls it. Received: {len(students)} outputs, {len(self._layers)} layers"
            )
        total = 0.0
        for layer, teacher, student in zip(self._layers, teachers, students, strict=True):
            teacher, student = pooled_alike(teacher, student)
            projected = layer(student, training=self.training)
            check_same_shape(self.name, teacher, keras.tree.flatten(projected)[0])
            total += self.compare(teacher, projected)
        return total


@keras.saving.register_keras_serializable(package="keras_tkd")
class Hint(ProjectedLoss):
    """Hints of FitNets (`fitnet`).

    The student's features, through a projector that learns with it, shall be the teacher's.

        loss_i = sum over layer pairs of mean (projector(f_s) - f_t)^2,   projector = 1x1 convolution, BatchNorm, ReLU

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. The paper reads a middle layer:
            `"stage2"`.

    Call: `loss(teacher, student)` after `loss.build(teacher_shape, student_shape)`; vectors `(batch, width)` or maps
    `(batch, height, width, channels)`, the larger pooled to the smaller; or two lists of such. The projector's
    BatchNorm goes by the batch in training steps and by its moving statistics else.

    Raises:
        ValueError: a vector against a map.

    Example:

    >>> loss = Hint()
    >>> loss.build((None, 2), (None, 1))     # a teacher's layer of width 2, a student's of width 1
    >>> loss.layers[0].layers[0].set_weights([np.array([[1.0, 2.0]])])
    >>> loss([[3.0, 1.0]], [[2.0]])     # 2 is projected to (2, 4): ((2 - 3)^2 + (4 - 1)^2) / 2
    5.0

    Reference: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, with the projector of later comparisons.
    They train with hints first and with soft targets later; here, as in those comparisons, the hint is a term among
    others.
    """

    default_name = "fitnet"

    def make_layer(self, width):
        return keras.Sequential(
            [
                keras.layers.Dense(width, use_bias=False, dtype=self.dtype),
                keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=self.dtype),
                keras.layers.ReLU(dtype=self.dtype),
            ],
            name=f"{self.name}_projector",
        )

    def compare(self, teacher, projected):
        return mean_square(projected - teacher)


@keras.saving.register_keras_serializable(package="keras_tkd")
class GaussianRegressor(keras.layers.Layer):
    """Mean and variance of a Gaussian: three 1x1 convolutions with ReLUs between, and a variance for each channel."""

    def __init__(self, width, start, **arguments):
        super().__init__(**arguments)
        self.width = width
        self.start = start
        activations = ("relu", "relu", None)
        self.dense = [keras.layers.Dense(width, a, use_bias=False, dtype=self.dtype) for a in activations]

    def build(self, input_shape):
        shape = tuple(input_shape)
        for layer in self.dense:
            layer.build(shape)
            shape = (*shape[:-1], self.width)
        # softplus(p) + 1e-5 = start: p = log(exp(x) - 1), of which the exponential overflows.
        x = self.start - 1e-5
        raw = x + np.log(-np.expm1(-x))
        self.raw_variance = self.add_weight(
            shape=(self.width,), initializer=keras.initializers.Constant(raw), name="raw_variance"
        )

    def call(self, x, training=False):
        for layer in self.dense:
            x = layer(x)
        return x, ops.softplus(self.raw_variance) + 1e-5

    def get_config(self):
        return {**super().get_config(), "width": self.width, "start": self.start}


@keras.saving.register_keras_serializable(package="keras_tkd")
class VariationalInformation(ProjectedLoss):
    """Variational information distillation (`vid`).

    Raises a lower bound of the information that the student's features hold about the teacher's: the likelihood of
    these under a Gaussian whose mean a regressor reads off the student's, with a learned variance for each channel.

        loss_i = sum over layer pairs of mean 1/2 [ (f_t - mu(f_s))^2 / v + log v ],   v = softplus(p) + 1e-5

    It may be negative, as the negative logarithm of any density may.

    Args:
        start: variance at the start, > 1e-5.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher, student)` after `loss.build(teacher_shape, student_shape)`; vectors `(batch, width)` or maps
    `(batch, height, width, channels)`, the larger pooled to the smaller; or two lists of such.

    Raises:
        ValueError: a vector against a map; `start` not above 1e-5.

    Example:

    >>> loss = VariationalInformation(start=4.0, reduction=None)
    >>> loss.build((None, 1), (None, 1))
    >>> loss([[0.0], [2.0]], [[0.0], [0.0]])     # mu(0) = 0: log(4) / 2, and (2^2 / 4 + log(4)) / 2
    [0.6931, 1.1931]

    Reference: Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019. The regressor,
    three 1x1 convolutions with ReLUs between, is that of later comparisons.
    """

    default_name = "vid"

    def __init__(self, start=5.0, **arguments):
        super().__init__(**arguments)
        check_number("start", start, 1e-5, exclusive=True)
        self.start = start

    def make_layer(self, width):
        return GaussianRegressor(width, self.start, dtype=self.dtype, name=f"{self.name}_regressor")

    def compare(self, teacher, projected):
        mean, variance = projected
        terms = 0.5 * (ops.square(teacher - mean) / variance + ops.log(variance))
        return ops.mean(terms, axis=tuple(range(1, len(terms.shape))))

    def get_config(self):
        return {**super().get_config(), "start": self.start}


@keras.saving.register_keras_serializable(package="keras_tkd")
class FlowOfSolution(DistillationLoss):
    """Flow of the solution procedure (`fsp`).

    How features change from one layer to a later one shall be as in the teacher: the flow matrix of two layers is the
    mean over positions of the outer product of their channels.

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

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self._projectors = {}

    @property
    def layers(self):
        return list(self._projectors.values())

    def build(self, teacher_shapes, student_shapes):
        teachers, students = shape_list(teacher_shapes), shape_list(student_shapes)
        if len(teachers) < 2:
            raise ValueError(
                f"Loss '{self.name}' reads two layers or more on each side. "
                f"Received: teacher {teacher_shapes}, student {student_shapes}"
            )
        check_maps(self.name, teachers, students)
        for place, (teacher, student) in enumerate(zip(teachers, students, strict=True)):
            if teacher[-1] != student[-1] and place not in self._projectors:
                name = f"{self.name}_projector{place + 1}"
                projector = keras.layers.Dense(teacher[-1], use_bias=False, dtype=self.dtype, name=name)
                projector.build((None, *student[1:]))
                self._projectors[place] = projector

    def call(self, y_true, y_pred):
        teachers, students = as_list(y_true), as_list(y_pred)
        for maps in (teachers, students):
            if len(maps) < 2 or len(maps) != len(teachers):
                raise ValueError(
                    f"Loss '{self.name}' reads two layers or more, as many of the teacher as of the student. "
                    f"Received: {len(teachers)} of the teacher, {len(students)} of the student"
                )
        check_maps(self.name, shapes_of(teachers), shapes_of(students))
        check_same_batch(self.name, *teachers, *students)
        students = [self._projectors[i](x) if i in self._projectors else x for i, x in enumerate(students)]
        pairs = zip(zip(teachers, teachers[1:], strict=False), zip(students, students[1:], strict=False), strict=True)
        return sum(flow_of_solution(teacher, student) for teacher, student in pairs)
