"""What losses share that pick their partners inside the batch."""

import tensorflow as tf
from keras import ops

from keras_tkd.losses.base import LogitsLoss
from keras_tkd.losses.validation import check_same_batch, check_same_shape
from keras_tkd.miners import MINERS
from keras_tkd.utils.choices import NEGATIVE_CLASSES
from keras_tkd.utils.distances import euclidean, pairwise_euclidean
from keras_tkd.utils.hyperparameters import HyperparameterAttribute


class MiningLoss(LogitsLoss):
    """Base class of losses with a margin between the teacher's output and the student's outputs for other classes.

    Args:
        margin: >= 0, in the unit of the logits. May be set while training.
        miner: a name in `keras_tkd.miners.MINERS`.
        negative_classes: `"labels"` or `"teacher"`.
        seed: seed of the miner.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`.
    """

    margin = HyperparameterAttribute(minimum=0.0)

    def __init__(self, margin, miner, negative_classes, seed, *common):
        super().__init__(*common)
        check_name("miner", miner, MINERS)
        check_name("negative_classes", negative_classes, NEGATIVE_CLASSES)
        self.margin = margin
        self.miner = miner
        self.negative_classes = negative_classes
        self.seed = seed

    def get_config(self):
        own = {name: getattr(self, name) for name in ("margin", "miner", "negative_classes", "seed")}
        return {**super().get_config(), **own}

    def live_margin(self):
        return MiningLoss.margin.live(self).tensor(self.dtype)

    def mining_inputs(self, anchor, teacher, student, labels):
        """`y_true` for partners that are picked in the batch."""
        found = {"logits": anchor, "step": student["step"]}
        if self.negative_classes == "teacher":
            if "logits" not in teacher:
                raise ValueError(
                    f"Loss '{self.name}' tells classes apart by the teacher's logits. Received: {sorted(teacher)}. "
                    'Have them among the teacher\'s outputs, or take negative_classes="labels".'
                )
            return found | {"classes": tf.argmax(teacher["logits"], axis=-1)}
        if labels is None:
            raise ValueError(
                f"Loss '{self.name}' picks negatives inside the batch by their labels, and the data have none. Train "
                'on (x, labels), on batches that bring their partners, or with negative_classes="teacher".'
            )
        return found | {"labels": labels}

    def classes(self, y_true):
        """`(batch,)`: the classes by which the rows are told apart."""
        if self.negative_classes == "teacher":
            return y_true["classes"] if "classes" in y_true else tf.argmax(y_true["logits"], axis=-1)
        if "labels" not in y_true:
            raise ValueError(
                f"Loss '{self.name}' needs partners, or labels to pick them by: "
                '`loss({"logits": teacher, "labels": labels}, student)`. Received: neither.'
            )
        labels = tf.convert_to_tensor(y_true["labels"])
        if len(labels.shape) != 1 and labels.shape[1:] != (1,):
            raise ValueError(f"`labels` must be class ids of shape (batch,). Received: labels of shape {labels.shape}")
        check_same_batch(self.name, y_true["logits"], labels)
        return tf.reshape(labels, [-1])

    def tensor(self, outputs):
        return ops.convert_to_tensor(outputs, dtype=self.dtype)

    def step_seed(self, y_true):
        return tf.stack([self.seed, tf.cast(y_true.get("step", 0), tf.int32)])

    def distances(self, anchor, partner):
        check_same_shape(self.name, anchor, partner)
        return euclidean(anchor, partner)

    def negative_distances(self, anchor, candidates, y_true, positive_distances):
        """Distances from each anchor to its negatives, `(batch, k)`, and which of them are valid.

        The miner compares without gradient; the distances of those picked are computed anew, with theirs.
        """
        check_same_shape(self.name, anchor, candidates)
        pairs = None if self.miner == "random" else pairwise_euclidean(anchor, candidates)
        index, valid = MINERS[self.miner](self.classes(y_true), self.step_seed(y_true), pairs, positive_distances)
        if len(index.shape) == 2:
            return tf.gather(pairs, index, batch_dims=1), valid
        return euclidean(anchor, tf.gather(candidates, index))[:, None], valid[:, None]


def mean_of_valid(values, valid):
    """Mean of each row's valid entries; 0, also for the gradient, where it has none."""
    valid = ops.cast(valid, "bool")
    total = ops.sum(ops.where(valid, values, ops.zeros_like(values)), axis=1)
    return total / ops.maximum(ops.sum(ops.cast(valid, values.dtype), axis=1), 1.0)


def weighted_mean(values, weights):
    return ops.sum(values * weights) / ops.maximum(ops.sum(weights), 1.0)


def check_name(argument, name, names):
    if not isinstance(name, str) or name not in names:
        raise ValueError(f"`{argument}` must be one of {sorted(names)}. Received: {argument}={name!r}")
