"""Which samples stand together in a batch: pure functions of (seed, epoch, step), on indices alone."""

import numpy as np
import tensorflow as tf

TWO_CLASSES = "Samples of another class are only drawn from two classes or more"


def epoch_order(count, seed, epoch):
    """The order in which an epoch shows the samples.

    Args:
        count: number of samples.
        seed, epoch: integers or scalar tensors; they alone decide.

    Returns:
        int64 `(count,)`: every sample exactly once, each order equally likely.
    """
    return tf.random.experimental.stateless_shuffle(tf.range(count, dtype=tf.int64), key(seed, epoch), alg="philox")


def key(seed, number):
    return tf.stack([tf.cast(seed, tf.int64), tf.cast(number, tf.int64)])


class ClassSampler:
    """Draws, for each anchor, a sample of its class or of another one, uniform over all of them.

    The samples are kept in an order in which each class is one run. A draw from the places that the anchor does not
    want is then one uniform number, moved past those places where it would fall into them or behind them.

    Args:
        labels: `(samples,)` class ids of any values, also a tensor inside a pipeline.
    """

    def __init__(self, labels):
        labels = tf.convert_to_tensor(labels)
        self._order = tf.argsort(labels, stable=True)
        ordered = tf.gather(labels, self._order)
        self._start = tf.searchsorted(ordered, labels, side="left", out_type=tf.int64)
        self._count = tf.searchsorted(ordered, labels, side="right", out_type=tf.int64) - self._start
        self._place = tf.cast(tf.math.invert_permutation(self._order), tf.int64)
        self._order = tf.cast(self._order, tf.int64)

    def other_class(self, anchors, seed):
        """Samples of other classes, int64 `(batch,)`; `seed` is a tensor of two integers and alone decides."""
        start, count = tf.gather(self._start, anchors), tf.gather(self._count, anchors)
        others = tf.size(self._order, tf.int64) - count
        message = f"{TWO_CLASSES}, and a window of streamed images has one. Pass a larger `shuffle_window`"
        with tf.control_dependencies([tf.debugging.assert_positive(others, message)]):
            place = draw(seed, others)
        return tf.gather(self._order, tf.where(place < start, place, place + count))

    def same_class(self, anchors, seed):
        """Other samples of the class; the sample itself where it is alone in its class."""
        start, count = tf.gather(self._start, anchors), tf.gather(self._count, anchors)
        own = tf.gather(self._place, anchors) - start
        place = draw(seed, count - 1)
        place = tf.where(place < own, place, place + 1) % count
        return tf.gather(self._order, start + place)


def check_two_classes(labels):
    """Raises `ValueError` for labels of a single class, which has no samples of another one."""
    classes = np.unique(np.asarray(labels))
    if len(classes) < 2:
        raise ValueError(f"{TWO_CLASSES}. Received: {len(classes)}: {classes}")


def draw(seed, choices):
    """A whole number for each of `choices`, int64 `(batch,)`, uniform in [0, choices); 0 where there is no choice."""
    bits = tf.random.stateless_uniform(tf.shape(choices), seed, minval=None, maxval=None, dtype=tf.uint64, alg="philox")
    return tf.cast(bits % tf.cast(tf.maximum(choices, 1), tf.uint64), tf.int64)


class ClassOrder:
    """An epoch's order of samples for batches of `classes_per_batch` classes with `samples_per_class` samples each.

    Classes are dealt in rounds of `ceil(classes / classes_per_batch)` batches. A round holds every class once, in a
    fresh order; where its last batch is not full by that, the round's first classes come again. An epoch is as few
    rounds as show as many samples as there are. A class's samples are walked through in a fresh order in each epoch,
    from the beginning again when all have been shown.

    Args:
        labels: `(samples,)` class ids of any values.
        classes_per_batch: at most the number of classes.
        samples_per_class: >= 1.
        seed: of all orders, with the epoch.
        round_seed: a seed beside `seed`, for the order of the classes.
    """

    def __init__(self, labels, classes_per_batch, samples_per_class, seed, round_seed):
        classes, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
        if not 1 <= classes_per_batch <= len(classes) or samples_per_class < 1:
            raise ValueError(
                "`classes_per_batch` must be at least 1 and at most the number of classes, and `samples_per_class` at "
                f"least 1. Received: classes_per_batch={classes_per_batch}, samples_per_class={samples_per_class}, "
                f"labels of {len(classes)} classes"
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
        """int64 `(count,)`; each run of `batch_size` is a batch."""
        samples = epoch_order(tf.size(self._classes), self._seed, epoch)
        # In a fresh order and by class: each class is one run.
        samples = tf.gather(samples, tf.argsort(tf.gather(self._classes, samples), stable=True))
        shape = [self._rounds, tf.size(self._counts)]
        rounds = tf.argsort(tf.random.stateless_uniform(shape, key(self._round_seed, epoch), dtype=tf.float64), axis=1)
        classes = tf.reshape(tf.concat([rounds, rounds[:, : self._repeated]], axis=1), [-1])
        first = times_before(classes) * self._samples_per_class
        place = first[:, None] + tf.range(self._samples_per_class, dtype=tf.int64)
        place = tf.gather(self._starts, classes)[:, None] + place % tf.gather(self._counts, classes)[:, None]
        return tf.gather(samples, tf.reshape(place, [-1]))


def times_before(values):
    """How many equal values stand before each value: int64, of the shape `(n,)` of `values`."""
    order = tf.argsort(values, stable=True)
    ordered = tf.gather(values, order)
    place = tf.range(tf.size(values, tf.int64)) - tf.searchsorted(ordered, ordered, side="left", out_type=tf.int64)
    return tf.gather(place, tf.argsort(order))
