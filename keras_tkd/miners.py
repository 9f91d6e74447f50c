"""Miners: which rows of a batch are an anchor's negatives, or its positives.

A miner is a pure function `miner(labels, seed=None, distances=None, positive_distances=None) -> (index, valid)`:

- `labels`: `(batch,)`, any numeric dtype, or bool; rows of equal labels are of one class.
- `seed`: integer tensor of shape `(2,)`, such as (seed, step), for miners that draw. Equal seeds give equal choices.
- `distances`: `(batch, batch)`, from anchor i to row j, for miners that compare.
- `positive_distances`: `(batch,)`, from anchor i to its positive, or `(batch, positives)` where it has several.
- `index`: int32, the rows that serve anchor i as its negatives: `(batch,)`; `(batch, positives)` where each positive
  has its own; `(batch, batch)` where all rows may serve.
- `valid`: bool, of the same shape: whether there is such a negative at all. Where there is none `index` is meaningless,
  though fit to gather with.

Every miner is passed all of them and reads what it needs. No gradient flows through a choice.
"""

import tensorflow as tf

from keras_tkd.utils import choices
from keras_tkd.utils.class_runs import find_runs, skip_run, sort_by_class

__all__ = [
    "MINERS",
    "POSITIVE_MINERS",
    "count_up_to",
    "every_other_class",
    "every_same_class",
    "fair_coin",
    "farthest_same_class",
    "hard",
    "only_where",
    "other_class",
    "random_other_class",
    "random_same_class",
    "same_class",
    "semi_hard",
]

# One seed serves a negative, a positive and a coin at once: each is drawn from a stream of its own.
_NEGATIVE, _POSITIVE, _COIN = 0, 2**29, 2**30


def random_other_class(labels, seed=None, distances=None, positive_distances=None):
    """Draws a negative for every row, uniformly over the rows of the batch that have another label."""
    order, start, count = _sort_into_runs(labels)
    others = tf.size(order) - count
    place = _draw_integers(_require("random_other_class", seed=seed), _NEGATIVE, others)
    # The remainder matters where there is no other class: the place past the only run is then inside the batch again.
    place = skip_run(place, start, count) % tf.size(order)
    return tf.gather(order, place), others > 0


def random_same_class(labels, seed=None, distances=None, positive_distances=None):
    """Draws a positive for every row, uniformly over the other rows of its class.

    A row that is alone in its class is given itself, which is not valid. The choices tell nothing of those that
    `random_other_class` makes with the same seed.
    """
    order, start, count = _sort_into_runs(labels)
    own = tf.argsort(order) - start
    place = _draw_integers(_require("random_same_class", seed=seed), _POSITIVE, count - 1)
    # The row itself is a run of one. Of a class of one, 0 is drawn and moved to 1, and 1 % 1 is the row again.
    place = skip_run(place, own, 1) % count
    return tf.gather(order, start + place), count > 1


def farthest_same_class(labels, seed=None, distances=None, positive_distances=None):
    """Finds the farthest other row of the class (Hermans, Beyer, Leibe, 2017: "hardest positive")."""
    mates = same_class(labels)
    candidates = tf.where(mates, _require("farthest_same_class", distances=distances), -1.0)
    # The column that is added is never the highest; it serves batches without rows, of which there is no `argmax`.
    candidates = tf.pad(candidates, [[0, 0], [0, 1]], constant_values=-2.0)
    return tf.argmax(candidates, axis=1, output_type=tf.int32), tf.reduce_any(mates, axis=1)


def every_same_class(labels, seed=None, distances=None, positive_distances=None):
    """Returns all rows for every row; valid are the other rows of its class."""
    mates = same_class(labels)
    return tf.broadcast_to(tf.range(tf.shape(mates)[1]), tf.shape(mates)), mates


def hard(labels, seed=None, distances=None, positive_distances=None):
    """Finds the nearest row of another class (Hermans, Beyer, Leibe, 2017: "hardest negative")."""
    others = other_class(labels)
    candidates = only_where(others, _require("hard", distances=distances))
    # The column that is added is never the lowest alone; it serves batches without rows.
    candidates = tf.pad(candidates, [[0, 0], [0, 1]], constant_values=float("inf"))
    return tf.argmin(candidates, axis=1, output_type=tf.int32), tf.reduce_any(others, axis=1)


def semi_hard(labels, seed=None, distances=None, positive_distances=None):
    """Finds the nearest row of another class that is farther than the positive, or else the farthest of other classes.

    The first part is FaceNet's choice (Schroff, Kalenichenko, Philbin, CVPR 2015); the second is common practice, of
    which the paper says nothing.
    """
    others = other_class(labels)
    candidates = only_where(others, _require("semi_hard", distances=distances))
    positives = _require("semi_hard", positive_distances=positive_distances)
    limits = positives if len(positives.shape) == 2 else positives[:, None]
    count = tf.reduce_sum(tf.cast(others, tf.int32), axis=1, keepdims=True)
    # Nearest first, the one after those up to the limit is the first beyond it; the last of other classes, if none is.
    place = tf.minimum(count_up_to(candidates, limits), tf.maximum(count - 1, 0))
    index = tf.gather(tf.argsort(candidates, axis=1, stable=True), place, batch_dims=1)
    shape = tf.shape(positives)
    return tf.reshape(index, shape), tf.reshape(tf.broadcast_to(count > 0, tf.shape(index)), shape)


def every_other_class(labels, seed=None, distances=None, positive_distances=None):
    """Returns all rows for every row; valid are those of another class."""
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
    """Returns bool `(batch, batch)`: whether rows i and j are of different classes."""
    labels = _convert(labels)
    return tf.not_equal(labels[:, None], labels)


def same_class(labels):
    """Returns bool `(batch, batch)`: whether row j is another row of the class of row i."""
    others = other_class(labels)
    return tf.linalg.set_diag(tf.logical_not(others), tf.zeros(tf.shape(others)[:1], tf.bool))


def only_where(candidate, distances):
    """Returns distances that are infinite where a row is no candidate, and finite, if large, where it is one."""
    # A candidate that is infinitely far is one still, before all those that are none.
    return tf.where(candidate, tf.minimum(distances, distances.dtype.max / 2), float("inf"))


def fair_coin(labels, seed):
    """Tosses a coin for every row, bool `(batch,)`, whatever the miners choose with the same seed."""
    return _draw_integers(seed, _COIN, tf.fill(tf.shape(labels), 2)) == 1


def count_up_to(values, limits):
    """Counts the values of each row that do not exceed a limit, for each of the row's limits.

    Args:
        values: `(batch, n)`.
        limits: `(batch, m)`.

    Returns:
        int32 `(batch, m)`.
    """
    # By sorting, values before limits where they are equal: `tf.searchsorted`, compiled by XLA, compares all with all.
    n = tf.shape(values)[1]
    order = tf.argsort(tf.concat([values, limits], axis=1), axis=1, stable=True)
    passed = tf.cumsum(tf.cast(order < n, tf.int32), axis=1)
    return tf.gather(passed, tf.argsort(order, axis=1)[:, n:], batch_dims=1)


def _convert(labels):
    """Returns labels as a tensor; raises `ValueError` for what is not one number for each row."""
    labels = tf.convert_to_tensor(labels)
    # Rows of one-hot labels would be compared number by number, and make a mask of another shape.
    if labels.shape.rank not in (None, 1) or labels.dtype == tf.string:
        raise ValueError(
            "`labels` must be class ids, numbers of shape (batch,). Received: "
            f"{labels.dtype.name} of shape {labels.shape}. One-hot rows become ids by `tf.argmax(labels, -1)`"
        )
    return labels


def _sort_into_runs(labels):
    """Returns the rows in an order by class; for each row, where its class's run starts, and its length."""
    labels = _convert(labels)
    if labels.dtype.is_bool or (labels.dtype.is_integer and labels.dtype.size < 4):
        # XLA does not sort all small integers, and nobody sorts booleans.
        labels = tf.cast(labels, tf.int32)
    order, ordered = sort_by_class(labels)
    return order, *find_runs(ordered, labels)


def _draw_integers(seed, stream, choices):
    """Draws a whole number for each of `choices`, uniform in [0, choices); 0 where there is no choice."""
    seed = tf.bitwise.bitwise_xor(tf.cast(seed, tf.int32), [stream, 0])
    # Whole numbers are the same with and without XLA; random floating-point numbers are not.
    bits = tf.random.stateless_uniform(tf.shape(choices), seed, minval=None, maxval=None, dtype=tf.uint32, alg="philox")
    return tf.cast(tf.cast(bits, tf.int64) % tf.cast(tf.maximum(choices, 1), tf.int64), tf.int32)


def _require(miner, **argument):
    """Returns the one argument as a tensor; raises `ValueError` where a miner that reads it was not given it."""
    ((name, value),) = argument.items()
    if value is None:
        raise ValueError(f"`{miner}` needs `{name}`. Received: {name}=None")
    return tf.convert_to_tensor(value)
