"""Losses that tell each sample apart from the samples of other classes."""

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.losses.base import DistillationLoss
from keras_tkd.losses.feature_maps import average_positions
from keras_tkd.losses.validation import as_class_ids, check_same_batch
from keras_tkd.utils.class_runs import find_runs, skip_run, sort_by_class
from keras_tkd.utils.distances import normalize
from keras_tkd.utils.hyperparameters import Hyperparameter, read_hyperparameter
from keras_tkd.utils.labels import read_class_ids
from keras_tkd.utils.number_checks import is_whole

__all__ = ["ContrastiveRepresentation", "MemoryBank"]


@keras.saving.register_keras_serializable(package="keras_tkd")
class MemoryBank(keras.layers.Layer):
    """Keeps an embedding of every training sample by each network, and the normalizers of both directions.

    A layer, so that Keras saves it with the model; none of it is trained by gradients.

    Args:
        samples: number of training samples.
        size: size of an embedding.
        momentum: in [0, 1), the share of a row that stays in an update.
    """

    def __init__(self, samples, size, momentum, **common):
        super().__init__(trainable=False, **common)
        self.samples, self.size, self.momentum = samples, size, momentum

    def build(self, input_shape=None):
        # The variance of a component of a vector of norm 1.
        limit = (3 / self.size) ** 0.5
        for name in ("teacher", "student"):
            # One for each: an initializer gives the same numbers every time.
            start = keras.initializers.RandomUniform(-limit, limit)
            setattr(self, name, self._add_state((self.samples, self.size), start, name))
        self.log_normalizers = self._add_state((2,), "zeros", "log_normalizers")
        self.normalized = self._add_state((2,), "zeros", "normalized")

    def _add_state(self, shape, initializer, name):
        # Replicas that share a batch all compute the same update.
        own = {"trainable": False, "aggregation": "only_first_replica"}
        return self.add_weight(shape=shape, initializer=initializer, name=name, **own)

    def log_normalizer(self, place, log_estimate, keep):
        """Returns the logarithm of a normalizer: the first estimate that was kept, or `log_estimate()`.

        Args:
            place: 0 or 1, the direction.
            log_estimate: function without arguments that returns the logarithm of an estimate, a scalar.
            keep: whether an estimate that is used is kept for good, unless it is not finite.
        """
        kept = self.log_normalizers.value[place]
        # A branch, not a `where`: the estimate costs a pass over all scores, and is needed once.
        value = tf.cond(self.normalized.value[place] > 0, lambda: kept, log_estimate)
        if keep:
            mine = tf.one_hot(place, 2, dtype=value.dtype)
            finite = tf.cast(tf.math.is_finite(value), value.dtype)
            self.log_normalizers.assign(tf.where(mine * finite > 0, value, self.log_normalizers.value))
            self.normalized.assign(tf.maximum(self.normalized.value, mine * finite))
        return value

    def update(self, bank, index, embeddings, allowed):
        """Moves the rows `index` of a bank towards new embeddings, if `allowed`; none to what is not finite."""
        old = tf.gather(bank.value, index)
        new = normalize(self.momentum * old + (1.0 - self.momentum) * embeddings)
        # One NaN in the bank would reach every later step that draws its row.
        new = tf.where(allowed & tf.reduce_all(tf.math.is_finite(new), -1, keepdims=True), new, old)
        bank.value.scatter_update(tf.IndexedSlices(new, index))

    def get_config(self):
        own = {"samples": self.samples, "size": self.size, "momentum": self.momentum}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="keras_tkd")
class ContrastiveRepresentation(DistillationLoss):
    """Contrastive representation distillation (`crd`).

    Pulls a sample's embedding by the student towards its embedding by the teacher, and away from the teacher's
    embeddings of samples of other classes; and the same with the roles exchanged: true pairs are to be told from pairs
    whose second half is a sample of another class. Both networks' features pass through a linear head of their own,
    which learns with the student, and get norm 1; the second halves come from a memory bank that holds an embedding of
    every training sample by each network.

        a(v, m) = <v, m> / temperature - log Z - log(N / M)
        loss_i = sum over both directions of  - log sigmoid(a(v_i, m_i)) - sum_{n = 1..N} log sigmoid(-a(v_i, m_n))

    v is the student's head and m the teacher's bank, and the other way round; M is the number of training samples, N
    that of negatives, and Z is M times the mean of `exp(<v, m> / temperature)` over the first batch of training. After
    each training step the batch's rows of the bank become `momentum * row + (1 - momentum) * v`, at norm 1.

    Args:
        labels: class ids of all training samples, `(samples,)`: sample i of a batch with `"index"` k is `labels[k]`.
        feature_size: size of the heads' outputs, default 128.
        negatives: N, default 16384, drawn for each sample of each step, uniformly with repetition over the samples of
            other classes; at most the number of training samples.
        temperature: > 0, default 0.07. May be set while training.
        momentum: in [0, 1), default 0.5, of the bank.
        seed: seed of the draws, default 0; with the training step it determines them.
        teacher_layers, student_layers, name, reduction, dtype: see `DistillationLoss`. dtype is float32 or float64.

    Call: `loss({"features": teacher, "labels": labels, "index": index, "step": step}, student)` after
    `loss.build(teacher_shape, student_shape)`; vectors `(batch, width)` or maps `(batch, height, width, channels)`,
    which are averaged over positions; index `(batch,)` positions in `labels`; step an integer, 0 if left out. Outside
    training (`training=False`) the images are none of the bank's: the positive is then the other network's embedding of
    the same image, and nothing is written. In training a sample must be one of the bank's: with another index, or
    another label than `labels` has there, it is an error; in a traced step its loss is NaN, and nothing is written.

    Raises:
        ValueError: data without `"index"` or labels, or with those of other samples; labels of one class; a dtype of 16
            bits; a temperature or momentum out of range.

    Example:

    >>> loss = ContrastiveRepresentation(labels=[0, 1, 1, 1], negatives=3)
    >>> loss.build((None, 2), (None, 2))
    >>> nothing = [[0.0, 0.0]]     # all <v, m> are 0: Z = M, and a = -log N. Twice log(1 + 3) + 3 log(1 + 1/3)
    >>> loss({"features": nothing, "labels": [0], "index": [0]}, nothing)
    4.4987

    Reference: Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020 (arXiv 1910.10699), with
    exact positives (the sample itself). Deviations: negatives are drawn with repetition; the 1e-7 in the code's
    logarithms is left out.
    """

    default_name = "crd"
    owns_layers = True
    keeps_samples = True
    takes_one_class = True
    temperature = Hyperparameter(minimum=0.0, exclusive=True)
    _FIXED = ("labels", "feature_size", "negatives", "momentum", "seed")

    def __init__(self, labels, feature_size=128, negatives=16384, temperature=0.07, momentum=0.5, seed=0, **common):
        super().__init__(**common)
        if self.dtype in ("float16", "bfloat16"):
            raise ValueError(
                "`dtype` must be float32 or float64: 16 bits do not hold a sum over thousands of negatives. "
                f"Received: dtype={self.dtype!r}"
            )
        ids = np.asarray(labels)
        if ids.ndim == 1 or ids.shape[1:] == (1,):
            ids = read_class_ids(ids)
        if ids.ndim != 1 or len(np.unique(ids)) < 2:
            raise ValueError(
                "`labels` must be the class ids of all training samples, (samples,), two classes or more. "
                f"Received: shape {ids.shape}, {len(np.unique(ids))} classes"
            )
        whole = is_whole(feature_size) and is_whole(negatives)
        if not 0 <= momentum < 1 or not whole or min(feature_size, negatives) < 1:
            raise ValueError(
                "`momentum` must be in [0, 1), `feature_size` and `negatives` must be >= 1, whole numbers. "
                f"Received: momentum={momentum}, feature_size={feature_size}, negatives={negatives}"
            )
        self.labels = ids.tolist()
        # Keras takes no integers of NumPy.
        self.feature_size = int(feature_size)
        self.negatives = int(negatives)
        self.temperature = temperature
        self.momentum = momentum
        self.seed = seed
        # As arrays, not tensors, so that a traced step holds them as constants; sorted once.
        self._ids = ids.astype("int64")
        self._order, self._ordered = (tensor.numpy() for tensor in sort_by_class(self._ids))

    def build(self, teacher_shapes, student_shapes):
        for shape in (teacher_shapes, student_shapes):
            if isinstance(shape, list) or len(shape) not in (2, 4) or shape[-1] is None:
                raise ValueError(
                    f"Loss '{self.name}' reads one layer of each model, vectors or maps of known width. "
                    f"Received: teacher {teacher_shapes}, student {student_shapes}"
                )
        if self.has_layers_for(teacher_shapes, student_shapes):
            return
        for role, shape in (("teacher", teacher_shapes), ("student", student_shapes)):
            # The teacher's head learns too, though the teacher does not.
            head = keras.layers.Dense(self.feature_size, dtype=self.dtype, name=f"{self.name}_{role}_head")
            head.build((None, shape[-1]))
            self.add_layer(head)
        bank = MemoryBank(
            len(self.labels), self.feature_size, self.momentum, dtype=self.dtype, name=f"{self.name}_bank"
        )
        bank.build()
        self.add_layer(bank)

    def inputs(self, teacher, student, labels, index):
        teacher_features, student_features = super().inputs(teacher, student, labels, index)
        if labels is None or index is None:
            raise ValueError(
                f"Loss '{self.name}' reads labels and the samples' ids. Train on keras_tkd.data.triplet_dataset, or on "
                'batches {"image": ..., "index": ...} with labels.'
            )
        y_true = {"features": teacher_features, "labels": labels, "index": index, "step": student["step"]}
        return y_true, student_features

    def values(self, y_true, y_pred, training=False):
        if not self.layers:
            raise ValueError(
                f"Loss '{self.name}' has layers of its own, which `loss.build(teacher_shape, student_shape)` makes; "
                "the Distiller calls it"
            )
        teacher_head, student_head, bank = self.layers
        teacher = normalize(teacher_head(average_positions(self.cast(y_true["features"]))))
        student = normalize(student_head(average_positions(self.cast(y_pred))))
        index = tf.cast(tf.reshape(y_true["index"], [-1]), tf.int64)
        labels = as_class_ids(self.name, y_true["labels"])
        check_same_batch(self.name, teacher, student, index, labels)
        drawn = self.draw(labels, tf.cast(y_true.get("step", 0), tf.int32))
        of_teacher, of_student = teacher, student
        # Outside training the images are none of the bank's.
        if training:
            known = self.find_known(labels, index)
            if tf.executing_eagerly() and not tf.reduce_all(known):
                raise ValueError(self.explain_unknown(int(index[~known][0])))
            index = tf.where(known, index, 0)
            of_teacher, of_student = (
                tf.where(known[:, None], tf.gather(rows.value, index), np.nan) for rows in (bank.teacher, bank.student)
            )
        values = self._contrast(0, student, of_teacher, bank.teacher, drawn, training)
        values += self._contrast(1, teacher, of_student, bank.student, drawn, training)
        if training:
            # After both were read.
            with tf.control_dependencies([values]):
                for rows, embeddings in ((bank.teacher, teacher), (bank.student, student)):
                    bank.update(rows, index, tf.stop_gradient(embeddings), allowed=tf.reduce_all(known))
        return values

    def find_known(self, labels, index):
        labels, index = as_class_ids(self.name, labels), tf.cast(tf.reshape(index, [-1]), tf.int64)
        inside = (index >= 0) & (index < len(self._ids))
        return inside & (tf.gather(tf.constant(self._ids), tf.where(inside, index, 0)) == labels)

    def explain_unknown(self, index):
        count = len(self._ids)
        inside = 0 <= index < count
        what = f"another label than {self._ids[index]}, `labels[{index}]`" if inside else f"`labels` of {count} samples"
        return (
            f"Loss '{self.name}' keeps an embedding of each training sample; that of \"index\" k has the label "
            f'`labels[k]`. Received: "index" {index} with {what}. Give the loss the labels of all training samples, '
            "and batches each sample's position among them and its label there"
        )

    def draw(self, labels, step):
        """Draws the negatives of a batch.

        Args:
            labels: int64 `(batch,)`, the samples' class ids.
            step: int32 scalar, the training step.

        Returns:
            int32 `(batch, negatives)`, rows of the bank of other classes.
        """
        start, count = (x[:, None] for x in find_runs(tf.constant(self._ordered), labels))
        shape = [tf.shape(labels)[0], min(self.negatives, len(self.labels))]
        bits = tf.random.stateless_uniform(
            shape, tf.stack([self.seed, step]), minval=None, maxval=None, dtype=tf.uint32, alg="philox"
        )
        others = tf.cast(len(self.labels) - count, tf.uint32)
        place = tf.cast(bits % others, tf.int32)
        return tf.gather(tf.constant(self._order), skip_run(place, start, count))

    def _contrast(self, place, anchors, positives, bank, drawn, keep):
        """Returns the loss of one direction, `(batch,)`.

        Args:
            place: 0 or 1, the direction.
            anchors: `(batch, size)`, one network's embeddings.
            positives: `(batch, size)`, what the other network has for the same samples.
            bank: the other network's bank.
            drawn: `(batch, negatives)`, rows of the bank.
            keep: whether the normalizer may be kept.
        """
        positive = tf.reduce_sum(anchors * positives, -1, keepdims=True)
        # One product with the whole bank, then the picks: cheaper than gathering thousands of rows per sample.
        negative = tf.gather(tf.matmul(anchors, bank.value, transpose_b=True), drawn, batch_dims=1)
        scores = tf.concat([positive, negative], 1) / read_hyperparameter(self, "temperature")
        samples, picks = (tf.cast(n, scores.dtype) for n in (len(self.labels), tf.shape(drawn)[1]))

        def estimate():
            count = tf.cast(tf.size(scores), scores.dtype)
            return tf.stop_gradient(tf.reduce_logsumexp(scores)) - tf.math.log(count / samples)

        log_z = self.layers[-1].log_normalizer(place, estimate, keep)
        scores -= log_z + tf.math.log(picks / samples)
        # -log sigmoid(a) is softplus(-a), which does not overflow.
        return tf.nn.softplus(-scores[:, 0]) + tf.reduce_sum(tf.nn.softplus(scores[:, 1:]), 1)

    def get_config(self):
        names = ("labels", "feature_size", "negatives", "temperature", "momentum", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}
