"""Who is whose negative inside a batch.

A miner is a pure function of labels and a seed. It returns `(index, valid)`: `index[i]` is the row that serves row `i`
as its negative, and `valid[i]` says whether there is one at all; where there is none, `index[i]` is meaningless.
"""

import tensorflow as tf


def random_other_class(labels, seed):
    """A negative for every row, uniform over the rows of the batch that bear another label.

    Args:
        labels: `(batch,)`, any numeric dtype; compared for equality only.
        seed: integer tensor of shape `(2,)`. Equal seeds give equal negatives: nothing else is random here.

    Returns:
        `index`: int32, `(batch,)`; `valid`: bool, `(batch,)`, False for a row whose whole batch is of its class.
    """
    other = tf.not_equal(labels[:, None], labels[None, :])
    # The largest of independent uniform scores lands on each candidate equally often.
    scores = tf.where(other, tf.random.stateless_uniform(tf.shape(other), tf.cast(seed, tf.int32)), -1.0)
    return tf.argmax(scores, axis=1, output_type=tf.int32), tf.reduce_any(other, axis=1)


MINERS = {"random": random_other_class}
