"""The distillation losses of a model, with their names and weights."""

import tensorflow as tf

from keras_tkd.distillation.validation import check_weights
from keras_tkd.losses.base import DistillationLoss
from keras_tkd.losses.outputs import select
from keras_tkd.utils.hyperparameters import ScalarVariable
from keras_tkd.utils.keras_graph import losses_of_one_device

__all__ = ["DistillationTerms"]


class DistillationTerms:
    """Distillation losses as a step evaluates them, each a term of the student's total with a name and a weight.

    Args:
        losses: list of `DistillationLoss`.
        weights: a number or a sequence of numbers, >= 0, one for each loss; None is 1 for each.

    Attributes:
        losses: as given.
        names: names of the losses made unique, `["kd", "kd_2"]` for example.
        share: `ScalarVariable`, the share of their weights with which all of them count; 1 unless it is set.

    Raises:
        ValueError: another number of weights; one that is no number >= 0.
    """

    def __init__(self, losses: list[DistillationLoss], weights=None):
        self.losses = losses
        self.names = _number_duplicates([loss.name for loss in losses])
        weights = check_weights(weights, len(losses))
        self._weights = [ScalarVariable(weight) for weight in weights]
        self.share = ScalarVariable(1.0)

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights; setting them acts on steps that are traced already."""
        # A tuple: an item that is assigned to a list would be lost without a word.
        return tuple(weight.number for weight in self._weights)

    @weights.setter
    def weights(self, weights):
        for own, weight in zip(self._weights, check_weights(weights, len(self._weights)), strict=True):
            own.assign(weight)

    @property
    def layers(self) -> list:
        """The layers that the losses own."""
        return [layer for loss in self.losses for layer in loss.layers]

    @property
    def statistic_names(self) -> list[str]:
        """Names of what `compute_statistics` returns."""
        return [f"{name}_{statistic}" for name, loss in self._zip() for statistic in loss.statistic_names]

    def build(self, teacher_shapes: dict[str, tuple], student_shapes: dict[str, tuple]):
        """Builds the losses on the shapes of both sides' outputs by name."""
        for loss in self.losses:
            loss.build(select(teacher_shapes, loss.teacher_layers), select(student_shapes, loss.student_layers))

    def select_inputs(self, teacher: dict[str, tf.Tensor], student: dict, labels, index) -> list[tuple]:
        """Returns what each loss reads, `(y_true, y_pred)`; for the arguments see `DistillationLoss.inputs`."""
        return [loss.inputs(teacher, student, labels, index) for loss in self.losses]

    def compute(self, pairs: list[tuple], sample_weight, training: bool) -> dict[str, tuple]:
        """Computes the losses of what they read: `(weight, value)` by name, float32."""
        with losses_of_one_device():
            values = [
                loss(*pair, sample_weight=sample_weight, training=training)
                for loss, pair in zip(self.losses, pairs, strict=True)
            ]
        share = self.share.tensor("float64")
        # 1 where nothing is set: the product is then the weight, to the bit.
        weights = [tf.cast(share * weight.tensor("float64"), tf.float32) for weight in self._weights]
        rows = zip(self.names, weights, values, strict=True)
        return {name: (weight, tf.cast(value, tf.float32)) for name, weight, value in rows}

    def compute_statistics(self, pairs: list[tuple]) -> dict[str, tf.Tensor]:
        """Computes the statistics of all losses, each under the name of its term, `"tkd_violated"` for example."""
        values = {}
        for (name, loss), pair in zip(self._zip(), pairs, strict=True):
            values |= {f"{name}_{statistic}": value for statistic, value in loss.statistics(*pair).items()}
        return values

    def count_samples(self, pairs: list[tuple], at_most) -> dict[str, tf.Tensor]:
        """Counts the samples that a loss or statistic is the mean of, by name; without an entry, it is of the batch.

        Args:
            pairs: what each loss reads.
            at_most: number of images, a scalar tensor.
        """
        at_most = tf.cast(at_most, tf.float32)
        counts = {}
        for (name, loss), pair in zip(self._zip(), pairs, strict=True):
            for part, valid in loss.valid(*pair).items():
                own = name if part == "loss" else f"{name}_{part}"
                counts[own] = tf.minimum(tf.reduce_sum(tf.cast(valid, tf.float32)), at_most)
        return counts

    def _zip(self):
        return zip(self.names, self.losses, strict=True)


def _number_duplicates(names):
    """Makes names unique, in order: `["kd", "kd"]` becomes `["kd", "kd_2"]`."""
    unique = []
    for name in names:
        count, candidate = 1, name
        while candidate in unique:
            count += 1
            candidate = f"{name}_{count}"
        unique.append(candidate)
    return unique
