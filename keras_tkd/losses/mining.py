"""Shared parts of losses that pick their partners inside the batch."""

import keras
import tensorflow as tf
from keras import ops

from keras_tkd.losses.base import LogitsLoss
from keras_tkd.losses.validation import as_labels, check_choice, check_same_batch, check_same_shape
from keras_tkd.miners import MINERS
from keras_tkd.utils.choices import NEGATIVE_CLASSES
from keras_tkd.utils.distances import euclidean, pairwise_euclidean
from keras_tkd.utils.hyperparameters import Hyperparameter

__all__ = ["MiningLoss", "TRIPLET_STATISTICS", "mean_of_valid", "weighted_mean"]

# What is measured of triplets, in the order in which their losses compute it.
TRIPLET_STATISTICS = ("positive_distance", "negative_distance", "violated")


class MiningLoss(LogitsLoss):
    """Base class of losses with a margin between the teacher's output and the student's outputs for other classes.

    A subclass overrides `values`, not `call`: mining comes before anything is cast to the loss's dtype, which could not
    tell large labels apart.

    Where the layers that are named differ in width, the student's outputs pass through a linear projector to the
    teacher's width, which trains with the student (an addition: the literature compares logits, of equal width).

    Args:
        margin: >= 0, default 5, in the unit of the logits. May be set while training.
        miner: a name in `keras_tkd.miners.MINERS`, default `"random"`.
        negative_classes: `"labels"`, the default, or `"teacher"`.
        seed: seed of the miner, default 0.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.

    Raises:
        ValueError: negative margin; unknown miner or `negative_classes`.
    """

    owns_layers = True
    margin = Hyperparameter(minimum=0.0)
    _FIXED = ("miner", "negative_classes", "seed")

    def __init__(self, margin=5.0, miner="random", negative_classes="labels", seed=0, **common):
        super().__init__(**common)
        check_choice("miner", miner, MINERS)
        check_choice("negative_classes", negative_classes, NEGATIVE_CLASSES)
        self.margin = margin
        self.miner = miner
        self.negative_classes = negative_classes
        self.seed = seed

    @property
    def takes_one_class(self):
        """True if classes are told apart by the labels: then an image is of one class, and no mixed one."""
        return self.negative_classes == "labels"

    def build(self, teacher_shapes, student_shapes):
        embeddings = self._are_embeddings(teacher_shapes, student_shapes)
        if not embeddings or (teacher_shapes[-1] == student_shapes[-1] and not self.layers):
            super().build(teacher_shapes, student_shapes)
        elif not self.has_layers_for(teacher_shapes, student_shapes):
            name = f"{self.name}_projector"
            projector = keras.layers.Dense(teacher_shapes[-1], use_bias=False, dtype=self.dtype, name=name)
            projector.build(student_shapes)
            self.add_layer(projector)

    def _are_embeddings(self, teacher_shapes, student_shapes):
        """Returns whether one vector of each side is compared, of a layer that is named: classes must be the same."""
        shapes = (teacher_shapes, student_shapes)
        vectors = all(isinstance(shape, tuple) and len(shape) == 2 and shape[-1] for shape in shapes)
        return vectors and self.teacher_layers is not None and self.student_layers not in (None, "logits")

    def project(self, output):
        """Returns an output of the student in the loss's dtype, as wide as the teacher's where it has a projector."""
        output = self.cast(output)
        return self.layers[0](output) if self.layers else output

    def get_config(self):
        own = {name: getattr(self, name) for name in ("margin", "miner", "negative_classes", "seed")}
        return {**super().get_config(), **own}

    def mining_inputs(self, anchor, teacher: dict[str, tf.Tensor], student: dict, labels) -> dict[str, tf.Tensor]:
        """Returns `y_true` for partners that are picked in the batch.

        Args:
            anchor: the teacher's output that the loss compares.
            teacher, student, labels: as in `inputs`.
        """
        y_true = {"logits": anchor, "step": student["step"]}
        if self.negative_classes == "teacher":
            if "logits" not in teacher:
                raise ValueError(
                    f"Loss '{self.name}' tells classes apart by the teacher's logits. Received: {sorted(teacher)}. "
                    'Have them among the teacher\'s outputs, or take negative_classes="labels".'
                )
            return y_true | {"classes": tf.argmax(teacher["logits"], axis=-1)}
        if labels is None:
            raise ValueError(
                f"Loss '{self.name}' picks negatives inside the batch by their labels, and the data have none. Train "
                'on (x, labels), on batches that bring their partners, or with negative_classes="teacher".'
            )
        return y_true | {"labels": labels}

    def classes(self, y_true: dict[str, tf.Tensor]):
        """Returns the classes by which the rows are told apart, `(batch,)`."""
        if self.negative_classes == "teacher":
            return y_true["classes"] if "classes" in y_true else tf.argmax(y_true["logits"], axis=-1)
        if "labels" not in y_true:
            raise ValueError(
                f"Loss '{self.name}' needs partners, or labels to pick them by: "
                '`loss({"logits": teacher, "labels": labels}, student)`. Received: neither.'
            )
        labels = as_labels(self.name, y_true["labels"])
        check_same_batch(self.name, y_true["logits"], labels)
        return labels

    def step_seed(self, y_true: dict[str, tf.Tensor]):
        """Returns the seed of a step's choices, int32 `(2,)`."""
        # A loss that is called by hand is told no step, and chooses alike every time.
        return tf.stack([self.seed, tf.cast(y_true.get("step", 0), tf.int32)])

    def distances(self, anchor, partner):
        """Returns the Euclidean distances of corresponding rows, `(batch,)`; raises where shapes differ."""
        check_same_shape(self.name, anchor, partner)
        return euclidean(anchor, partner)

    def negative_distances(self, anchor, candidates, y_true: dict[str, tf.Tensor], positive_distances):
        """Returns the distances from each anchor to its negatives, `(batch, k)`, and which of them are valid."""
        check_same_shape(self.name, anchor, candidates)
        pairs = None if self.miner == "random" else pairwise_euclidean(anchor, candidates)
        index, valid = MINERS[self.miner](self.classes(y_true), self.step_seed(y_true), pairs, positive_distances)
        if len(index.shape) == 2:
            return tf.gather(pairs, index, batch_dims=1), valid
        # Computed anew for those that were picked: one row each, where the gradient through all pairs takes products.
        return euclidean(anchor, tf.gather(candidates, index))[:, None], valid[:, None]


def mean_of_valid(values, valid):
    """Mean of each row's valid entries; 0, also for the gradient, where it has none.

    Args:
        values: `(batch, k)`.
        valid: bool `(batch, k)`.

    Returns:
        `(batch,)`.
    """
    # A `where`, not a product: what is not valid may be infinite.
    total = ops.sum(ops.where(valid, values, ops.zeros_like(values)), axis=1)
    return total / ops.maximum(ops.sum(ops.cast(valid, values.dtype), axis=1), 1.0)


def weighted_mean(values, weights):
    """Mean of values `(batch,)` by weights `(batch,)` of 0 or 1; 0 where all weights are 0."""
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)
