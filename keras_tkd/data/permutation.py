"""Pseudorandom permutations that map one number to another without being written out."""

import tensorflow as tf

__all__ = ["permute"]

# TensorFlow's public function, tf.random.experimental.index_shuffle, has two faults that this module works around:
# it runs the block cipher behind the permutation for 4 rounds only, so that permutations of neighbouring seeds are
# nearly the same (two of 50,000 numbers correlate at 0.7; from 12 rounds on nothing is left of that), and of each
# number of the seed it uses the lowest 16 bits at most, so that seeds 0 and 65536 are one.
_ROUNDS = 32
_KEY_BITS = 16


def permute(numbers, key, count):
    """Applies a permutation of [0, count), chosen by `key`, to `numbers`.

    Args:
        numbers: int64 `(batch,)`, in [0, count).
        key: `(seed, epoch, stream)`, integers or scalar tensors; seed in [0, 2^32), stream in [0, 2^31).
        count: int or scalar int64 tensor, >= 1.

    Returns:
        int64 `(batch,)`: a pure function of the arguments.
    """
    seed, epoch, stream = (tf.cast(number, tf.int64) for number in key)
    # Every bit of the key reaches the 16 bits that are used of each of the three numbers.
    # On a CPU, the only place where the permutation can be computed, the algorithm that TensorFlow selects is Philox,
    # by one operation; named, it is traced as twenty, most of what a pipeline of crops was traced as.
    with tf.device("CPU:0"):
        hashed = tf.random.stateless_uniform(
            [3], tf.stack([seed + stream * 2**32, epoch]), maxval=2**_KEY_BITS, dtype=tf.int64, alg="auto_select"
        )
    return tf.raw_ops.RandomIndexShuffle(
        index=tf.cast(numbers, tf.int64),
        seed=hashed,
        max_index=tf.cast(count, tf.int64) - 1,
        rounds=_ROUNDS,
    )
