"""Who is whose negative, or positive, inside a batch.

A miner is a pure function `miner(labels, seed=None, distances=None, positive_distances=None) -> (index, valid)`:

- `labels`: `(batch,)`, any numeric dtype; rows of equal labels are of one class.
- `seed`: integer tensor of shape `(2,)`, such as (seed, step), for miners that draw. Equal seeds give equal choices.
- `distances`: `(batch, batch)`, from anchor i to row j, for miners that compare.
- `positive_distances`: `(batch,)`, from anchor i to its positive, or `(batch, positives)` where it has several.
- `index`: int32, the rows that serve anchor i as its negatives: `(batch,)`; `(batch, positives)` where each positive
  has its own; `(batch, batch)` where all rows may serve.
- `valid`: bool, of the same shape: whether there is such a negative at all. Where there is none `index` is meaningless,
  though fit to gather with.

All are passed to every miner, which takes what it needs. No gradient flows through a choice.
"""

import tensorflow as tf

from keras_tkd.utils import choices

# One seed serves a negative, a positive and a coin at once: each is drawn from a stream of its own.
_NEGATIVE, _POSITIVE, _COIN = 0, 2**29, 2**30


def random_other_class(labels, seed=None, distances=None, positive_distances=None):
    """A negative for every row, uniform over the rows of the batch that bear another label."""
    order, start, count = _runs(_ids(labels))
    others = tf.size(order) - count
    place = _draw(_given("random_other_class", seed=seed), _NEGATIVE, others)
    # In the order of the labels each class is one run; a place outside the row's own run is one whole random number.
    place = tf.where(place < start, place, place + count) % tf.size(order)
    return tf.gather(order, place), others > 0


def random_same_class(labels, seed=None, distances=None, positive_distances=None):
    """A positive for every row, uniform over the other rows of its class; the row itself, not valid, where it is alone.

    Its choices tell nothing of those that `random_other_class` makes with the same seed.
    """
    order, start, count = _runs(_ids(labels))
    own = tf.argsort(order) - start
    place = _draw(_given("random_same_class", seed=seed), _POSITIVE, count - 1)
    place = tf.where(place < own, place, place + 1) % count
    return tf.gather(order, start + place), count > 1


def farthest_same_class(labels, seed=None, distances=None, positive_distances=None):
    """The farthest other row of the class (Hermans, Beyer, Leibe, 2017: "hardest positive")."""
    mates = same_class(labels)
    far = tf.where(mates, _given("farthest_same_class", distances=distances), -1.0)
    far = tf.pad(far, [[0, 0], [0, 1]], constant_values=-2.0)
    return tf.argmax(far, axis=1, output_type=tf.int32), tf.reduce_any(mates, axis=1)


def every_same_class(labels, seed=None, distances=None, positive_distances=None):
    """Every other row of the class."""
    mates = same_class(labels)
    return tf.broadcast_to(tf.range(tf.shape(mates)[1]), tf.shape(mates)), mates


def hard(labels, seed=None, distances=None, positive_distances=None):
    """The nearest row of another class (Hermans, Beyer, Leibe, 2017: "hardest negative")."""
    others = other_class(labels)
    candidates = only_where(others, _given("hard", distances=distances))
    # The column that is added is never the lowest alone; it serves batches without rows.
    candidates = tf.pad(candidates, [[0, 0], [0, 1]], constant_values=float("inf"))
    return tf.argmin(candidates, axis=1, output_type=tf.int32), tf.reduce_any(others, axis=1)


def semi_hard(labels, seed=None, distances=None, positive_distances=None):
    """The nearest row of another class that is farther than the positive; where none is, the farthest of other classes.

    The first part is FaceNet's choice (Schroff, Kalenichenko, Philbin, CVPR 2015); the second is common practice, of
    which the paper says nothing.
    """
    others = other_class(labels)
    candidates = only_where(others, _given("semi_hard", distances=distances))
    positives = _given("semi_hard", positive_distances=positive_distances)
    limits = positives if len(positives.shape) == 2 else positives[:, None]
    count = tf.reduce_sum(tf.cast(others, tf.int32), axis=1, keepdims=True)
    place = tf.minimum(count_up_to(candidates, limits), tf.maximum(count - 1, 0))
    index = tf.gather(tf.argsort(candidates, axis=1, stable=True), place, batch_dims=1)
    shape = tf.shape(positives)
    return tf.reshape(index, shape), tf.reshape(tf.broadcast_to(count > 0, tf.shape(index)), shape)


def every_other_class(labels, seed=None, distances=None, positive_distances=None):
    """Every row of another class."""
    others = other_class(labels)
    return tf.broadcast_to(tf.range(tf.shape(others)[1]), tf.shape(others)), others


MINERS = choices.check_complete(
    choices.MINERS,
    {"random": random_other_class, "semi_hard": semi_hard, "hard": hard, "all": every_other_class},
)
# The positives that go with them where an anchor has several.
POSITIVE_MINERS = choices.check_complete(
    choices.MINERS,
    {
        "random": random_same_class,
        "semi_hard": every_same_class,
        "hard": farthest_same_class,
        "all": every_same_class,
    },
)


def other_class(labels):
    """bool `(batch, batch)`: whether rows i and j are of different classes."""
    labels = _ids(labels)
    return tf.not_equal(labels[:, None], labels)


def same_class(labels):
    """bool `(batch, batch)`: whether row j is another row of the class of row i."""
    others = other_class(labels)
    return tf.linalg.set_diag(tf.logical_not(others), tf.zeros(tf.shape(others)[:1], tf.bool))


def only_where(candidate, distances):
    """Distances that are infinite where a row is no candidate, and finite, if large, where it is one."""
    return tf.where(candidate, tf.minimum(distances, distances.dtype.max / 2), float("inf"))


def fair_coin(labels, seed):
    """bool `(batch,)`: heads or tails for every row, whatever the miners choose with the same seed."""
    return _draw(seed, _COIN, tf.fill(tf.shape(labels), 2)) == 1


def count_up_to(values, limits):
    """How many of the values of its row do not exceed each limit.

    Args:
        values: `(batch, n)`.
        limits: `(batch, m)`.

    Returns:
        int32, `(batch, m)`. By sorting: `tf.searchsorted`, compiled by XLA, compares all with all.
    """
    n = tf.shape(values)[1]
    order = tf.argsort(tf.concat([values, limits], axis=1), axis=1, stable=True)
    passed = tf.cumsum(tf.cast(order < n, tf.int32), axis=1)
    return tf.gather(passed, tf.argsort(order, axis=1)[:, n:], batch_dims=1)


def _ids(labels):
    labels = tf.convert_to_tensor(labels)
    # XLA does not sort all small integers.
    return tf.cast(labels, tf.int32) if labels.dtype.is_integer and labels.dtype.size < 4 else labels


def _runs(labels):
    """The rows in an order in which each class is one run; for each row, where its run starts, and its length."""
    order = tf.argsort(labels, stable=True)
    ordered = tf.gather(labels, order)
    start = tf.searchsorted(ordered, labels, side="left")
    return order, start, tf.searchsorted(ordered, labels, side="right") - start


def _draw(seed, stream, choices):
    """A whole number for each of `choices`, uniform in [0, choices); 0 where there is no choice.

    Whole numbers are the same with and without XLA; random floating-point numbers are not.
    """
    seed = tf.bitwise.bitwise_xor(tf.cast(seed, tf.int32), [stream, 0])
    bits = tf.random.stateless_uniform(tf.shape(choices), seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
    return tf.cast(tf.cast(bits, tf.int64) % tf.cast(tf.maximum(choices, 1), tf.int64), tf.int32)


def _given(miner, **argument):
    ((name, value),) = argument.items()
    if value is None:
        raise ValueError(f"`{miner}` needs `{name}`. Received: {name}=None")
    return tf.convert_to_tensor(value)
