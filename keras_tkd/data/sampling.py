"""Orders of samples and draws among them: pure functions of (seed, epoch, step), on indices alone."""

import numpy as np
import tensorflow as tf

from keras_tkd.data.stream_errors import ONE_CLASS
from keras_tkd.utils.class_runs import find_runs, skip_run, sort_by_class
from keras_tkd.utils.number_checks import is_whole

__all__ = [
    "ClassOrder",
    "ClassSampler",
    "check_two_classes",
    "draw_integers",
    "make_stateless_seed",
    "shuffle_samples",
]


def shuffle_samples(count, seed, epoch):
    """Returns the order in which an epoch shows the samples.

    Args:
        count: number of samples.
        seed, epoch: integers or scalar tensors; nothing else decides the order.

    Returns:
        int64 `(count,)`: every sample exactly once, each order equally likely.
    """
    samples = tf.range(count, dtype=tf.int64)
    # Philox is named everywhere: "auto_select" depends on the device, and batches must not.
    return tf.random.experimental.stateless_shuffle(samples, make_stateless_seed(seed, epoch), alg="philox")


def make_stateless_seed(seed, number):
    """Makes the seed of a stateless random operation, int64 `(2,)`, from a seed and the number of an epoch or step."""
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])


class ClassSampler:
    """Draws for each anchor a sample of its own class, or of any other class, uniformly over all such samples.

    The samples are kept in an order in which each class is one run. To draw outside a run is then to draw one uniform
    number among the places that are left, and to move it past the run if it falls into it or behind it.

    Args:
        labels: `(samples,)` class ids of any values, also a tensor inside a pipeline.
    """

    def __init__(self, labels):
        labels = tf.convert_to_tensor(labels)
        order, ordered = sort_by_class(labels)
        self._start, self._count = find_runs(ordered, labels, tf.int64)
        self._place = tf.cast(tf.math.invert_permutation(order), tf.int64)
        self._order = tf.cast(order, tf.int64)

    def draw_other_class(self, anchors, seed):
        """Draws a sample of another class for each anchor.

        Args:
            anchors: int64 `(batch,)`, positions in `labels`.
            seed: tensor of two integers; nothing else decides the draw.

        Returns:
            int64 `(batch,)`, positions in `labels`.

        Raises:
            tf.errors.InvalidArgumentError: when it runs, if all samples are of the anchor's class.
        """
        start, count = tf.gather(self._start, anchors), tf.gather(self._count, anchors)
        others = tf.size(self._order, tf.int64) - count
        with tf.control_dependencies([tf.debugging.assert_positive(others, ONE_CLASS)]):
            place = draw_integers(seed, others)
        return tf.gather(self._order, skip_run(place, start, count))

    def draw_same_class(self, anchors, seed):
        """Draws another sample of the class for each anchor; the anchor itself where it is alone in its class.

        Arguments and result are those of `draw_other_class`.
        """
        start, count = tf.gather(self._start, anchors), tf.gather(self._count, anchors)
        own = tf.gather(self._place, anchors) - start
        place = draw_integers(seed, count - 1)
        # Past the anchor's own place. A class of one has 0 drawn, moved to 1, and 1 % 1 is its only sample again.
        place = skip_run(place, own, 1) % count
        return tf.gather(self._order, start + place)


def check_two_classes(labels):
    """Raises `ValueError` for labels of a single class, which has no samples of another one."""
    classes = np.unique(np.asarray(labels))
    if len(classes) < 2:
        raise ValueError(
            f"Samples of another class are only drawn from two classes or more. Received: {len(classes)}: {classes}"
        )


def draw_integers(seed, choices):
    """Draws a whole number for each of `choices`, uniform in [0, choices).

    Args:
        seed: tensor of two integers.
        choices: int64 `(batch,)`; where it is below 1, the number is 0.

    Returns:
        int64 `(batch,)`.
    """
    # `stateless_uniform` takes one bound for all integers of a call. The remainder of 64 random bits misses a uniform
    # draw by choices / 2^64 at most.
    bits = tf.random.stateless_uniform(tf.shape(choices), seed, minval=None, maxval=None, dtype=tf.uint64, alg="philox")
    return tf.cast(bits % tf.cast(tf.maximum(choices, 1), tf.uint64), tf.int64)


class ClassOrder:
    """Orders an epoch's samples for batches of `classes_per_batch` classes with `samples_per_class` samples each.

    Classes are dealt in rounds of `ceil(classes / classes_per_batch)` batches. A round holds every class once, in a
    fresh order; where that leaves its last batch short, the round's first classes come again. An epoch is the fewest
    rounds that show as many samples as there are. A class's samples are walked through in a fresh order in each epoch,
    from the beginning again when all have been shown.

    Args:
        labels: `(samples,)` class ids of any values.
        classes_per_batch: at most the number of classes.
        samples_per_class: >= 1.
        seed: seed of the samples' orders.
        round_seed: another seed, for the order of the classes.

    Attributes:
        batch_size: samples in a batch.
        count: samples in an epoch, a multiple of `batch_size`.

    Call: `order(epoch)` gives int64 `(count,)`; each run of `batch_size` samples is a batch.

    Raises:
        ValueError: `classes_per_batch` or `samples_per_class` out of range.
    """

    def __init__(self, labels, classes_per_batch, samples_per_class, seed, round_seed):
        classes, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        whole = is_whole(classes_per_batch) and is_whole(samples_per_class)
        if not whole or not 1 <= classes_per_batch <= len(classes) or samples_per_class < 1:
            raise ValueError(
                "`classes_per_batch` must be at least 1 and at most the number of classes, and `samples_per_class` at "
                f"least 1, whole numbers. Received: classes_per_batch={classes_per_batch!r}, "
                f"samples_per_class={samples_per_class!r}, "
                f"labels of {len(classes)} class{'es' * (len(classes) > 1)}"
            )
        self.batch_size = classes_per_batch * samples_per_class
        round_steps = -(-len(classes) // classes_per_batch)
        self._rounds = -(-len(inverse) // (round_steps * self.batch_size))
        self.count = self._rounds * round_steps * self.batch_size
        self._repeated = round_steps * classes_per_batch - len(classes)
        self._samples_per_class = samples_per_class
        self._seed, self._round_seed = seed, round_seed
        self._classes = tf.constant(inverse, tf.int64)
        self._counts = tf.constant(counts, tf.int64)
        self._starts = tf.constant(np.cumsum(counts) - counts, tf.int64)

    def __call__(self, epoch):
        samples = shuffle_samples(tf.size(self._classes), self._seed, epoch)
        # In a fresh order and by class: each class is one run.
        samples = tf.gather(samples, tf.argsort(tf.gather(self._classes, samples), stable=True))
        # An order of the classes for each round: sorting random keys shuffles each row on its own. In float64 no two
        # keys of a row are equal, which would leave their classes in the order of ids.
        shape, seed = [self._rounds, tf.size(self._counts)], make_stateless_seed(self._round_seed, epoch)
        rounds = tf.argsort(tf.random.stateless_uniform(shape, seed, dtype=tf.float64), axis=1)
        classes = tf.reshape(tf.concat([rounds, rounds[:, : self._repeated]], axis=1), [-1])
        # A class goes on where its last turn in this epoch ended.
        first = _count_earlier_equals(classes) * self._samples_per_class
        place = first[:, None] + tf.range(self._samples_per_class, dtype=tf.int64)
        place = tf.gather(self._starts, classes)[:, None] + place % tf.gather(self._counts, classes)[:, None]
        return tf.gather(samples, tf.reshape(place, [-1]))


def _count_earlier_equals(values):
    """Counts the equal values before each value: int64, of the shape `(n,)` of `values`."""
    order = tf.argsort(values, stable=True)
    ordered = tf.gather(values, order)
    place = tf.range(tf.size(values, tf.int64)) - tf.searchsorted(ordered, ordered, side="left", out_type=tf.int64)
    return tf.gather(place, tf.argsort(order))
