"""Losses that send the student's features through a layer of their own before they compare, sample by sample."""

import keras
import numpy as np
from keras import ops

from keras_tkd.losses.base import DistillationLoss
from keras_tkd.losses.feature_maps import check_pair, match_positions, mean_square
from keras_tkd.losses.outputs import as_list, as_shape_list
from keras_tkd.losses.validation import check_same_shape
from keras_tkd.utils.hyperparameters import check_number

__all__ = ["GaussianRegressor", "Hint", "ProjectedLoss", "VariationalInformation"]


class ProjectedLoss(DistillationLoss):
    """Base class of losses that send each of the student's outputs through a layer of their own before they compare.

    A subclass implements `make_layer(width)`, the layer for a teacher's width, and `compare(teacher, projected)`, one
    value per sample.
    """

    owns_layers = True

    def build(self, teacher_shapes, student_shapes):
        if self.has_layers_for(teacher_shapes, student_shapes):
            return
        for teacher, student in zip(as_shape_list(teacher_shapes), as_shape_list(student_shapes), strict=True):
            check_pair(self.name, teacher, student)
            layer = self.make_layer(teacher[-1])
            layer.build((None, *student[1:]))
            self.add_layer(layer)

    def call(self, y_true, y_pred, training=False):
        teachers, students = as_list(y_true), as_list(y_pred)
        if len(self.layers) != len(students):
            raise ValueError(
                f"Loss '{self.name}' has layers of its own, which `loss.build(teacher_shapes, student_shapes)` makes; "
                f"the Distiller calls it. Received: {len(students)} outputs, {len(self.layers)} layers"
            )
        total = 0.0
        for layer, teacher, student in zip(self.layers, teachers, students, strict=True):
            teacher, student = match_positions(teacher, student)
            # Of layers with a mode of their own (BatchNorm) the loss's flag decides, not that of a model around it.
            projected = layer(student, training=training)
            check_same_shape(self.name, teacher, keras.tree.flatten(projected)[0])
            total += self.compare(teacher, projected)
        return total

    def make_layer(self, width):
        """Makes the layer that projects an output of the student to the teacher's `width`."""
        raise NotImplementedError

    def compare(self, teacher, projected):
        """Compares an output of the teacher with the student's projected one; one value per sample, `(batch,)`."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="keras_tkd")
class Hint(ProjectedLoss):
    """Hints of FitNets (`fitnet`).

    Pulls the student's features, through a projector that learns with it, towards the teacher's.

        loss_i = sum over layer pairs of mean (projector(f_s) - f_t)^2,   projector = 1x1 convolution, BatchNorm, ReLU

    Args:
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. The paper reads a middle layer:
            `"stage2"`.

    Call: `loss(teacher, student)` after `loss.build(teacher_shape, student_shape)`; vectors `(batch, width)`, maps
    `(batch, height, width, channels)`, the larger pooled to the smaller, or tokens `(batch, tokens, width)` of equal
    number, but for a class token that one side has; or two lists of such. The projector's
    BatchNorm goes by the batch in training steps and by its moving statistics else.

    Raises:
        ValueError: features of two kinds; of unknown size; tokens of other numbers; called before `build`.

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
    """Predicts a Gaussian: its mean by three 1x1 convolutions with ReLUs between, and a variance for each channel.

    Args:
        width: number of channels.
        start: variance at the start, > 1e-5.

    Call: `regressor(x)`, `(batch, ..., channels)`, gives `(mean, variance)`, `(batch, ..., width)` and `(width,)`.
    """

    def __init__(self, width, start, **common):
        super().__init__(**common)
        self.width = width
        self.start = start
        # Dense layers, which on maps are 1x1 convolutions and take vectors too.
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

    Pulls the student's features towards ones that tell more about the teacher's: raises a lower bound of their mutual
    information, the likelihood of the teacher's features under a Gaussian whose mean a regressor reads off the
    student's, with a learned variance for each channel.

        loss_i = sum over layer pairs of mean 1/2 [ (f_t - mu(f_s))^2 / v + log v ],   v = softplus(p) + 1e-5

    It may be negative, as the negative logarithm of any density may.

    Args:
        start: variance at the start, > 1e-5, default 5.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Call: `loss(teacher, student)` after `loss.build(teacher_shape, student_shape)`; vectors `(batch, width)`, maps
    `(batch, height, width, channels)`, the larger pooled to the smaller, or tokens `(batch, tokens, width)` of equal
    number, but for a class token that one side has; or two lists of such.

    Raises:
        ValueError: features of two kinds; of unknown size; tokens of other numbers; called before `build`; `start` not
            above 1e-5.

    Example:

    >>> loss = VariationalInformation(start=4.0, reduction=None)
    >>> loss.build((None, 1), (None, 1))
    >>> loss([[0.0], [2.0]], [[0.0], [0.0]])     # mu(0) = 0: log(4) / 2, and (2^2 / 4 + log(4)) / 2
    [0.6931, 1.1931]

    Reference: Ahn et al., "Variational Information Distillation for Knowledge Transfer", CVPR 2019. The regressor,
    three 1x1 convolutions with ReLUs between, is that of later comparisons.
    """

    default_name = "vid"
    _FIXED = ("start",)

    def __init__(self, start=5.0, **common):
        super().__init__(**common)
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
