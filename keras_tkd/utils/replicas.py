"""Replicas that share the batch of a step, under a `tf.distribute.Strategy`.

Each replica runs the models on its share of the batch. What the losses read is then gathered, so that every replica
computes the losses of the whole batch, to the bit as the others do; its gradient is that of its own share, and the sum
over the replicas is the gradient of one device. Without a strategy, or with one replica, nothing here does anything.
"""

import contextlib

import keras
import tensorflow as tf

from keras_tkd.utils import keras_graph

__all__ = ["any_replica", "count_replicas", "fill_empty", "gather", "measure_share", "run_if", "share_gradients"]

# What Keras's optimizers do to each replica's own gradient, before they sum them.
_CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")


def count_replicas() -> int:
    """Returns the number of replicas that share a batch; 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def gather(nest):
    """Gathers the rows of all replicas: tensors of shape `(share, ...)` become `(batch, ...)`, in the replicas' order.

    Its gradient is that of a total which every replica computes alike and divides by the number of replicas: the rows
    of the replica's own share, and nothing has to be sent for it.

    Args:
        nest: tensors, nested; None stays None.
    """
    if count_replicas() == 1:
        return nest
    # One tensor in several places is sent once.
    leaves = {id(leaf): leaf for leaf in keras.tree.flatten(nest) if leaf is not None}
    # Not by a name that the comprehension gives: AutoGraph, which reads this in a loop of a user's own, knows no `:=`.
    masks = {key: keras_graph.get_mask(leaf) for key, leaf in leaves.items()}
    masks = {key: mask for key, mask in masks.items() if mask is not None}
    gathered = _gather_leaves([*leaves.values(), *masks.values()])
    whole, masks = dict(zip(leaves, gathered, strict=False)), dict(zip(masks, gathered[len(leaves) :], strict=True))
    for key, mask in masks.items():
        keras_graph.copy_mask(whole[key], whole[key], mask)
    return keras.tree.map_structure(lambda leaf: leaf if leaf is None else whole[id(leaf)], nest)


def _gather_leaves(leaves):
    context = tf.distribute.get_replica_context()
    replicas, replica = context.num_replicas_in_sync, context.replica_id_in_sync_group
    size = tf.shape(leaves[0])[0]
    start = tf.cumsum(_sum(size * tf.one_hot(replica, replicas, dtype=size.dtype)), exclusive=True)[replica]
    # All tensors of a dtype are sent as one: each exchange waits for every replica, whatever its size.
    groups = {}
    for number, leaf in enumerate(leaves):
        groups.setdefault(_choose_sent(leaf.dtype), []).append(number)
    wholes = [None] * len(leaves)
    for dtype, numbers in groups.items():
        for number, whole in zip(numbers, _gather_as(dtype, [leaves[number] for number in numbers]), strict=True):
            wholes[number] = whole

    @tf.custom_gradient
    def pass_own_rows(leaf, whole):
        return whole, lambda upstream: (replicas * upstream[start : start + size], None)

    return [
        pass_own_rows(leaf, tf.stop_gradient(whole)) if leaf.dtype.is_floating else whole
        for leaf, whole in zip(leaves, wholes, strict=True)
    ]


def _gather_as(dtype, leaves):
    """Gathers the rows of tensors of any shapes, side by side, as one matrix of a dtype."""
    rows = [tf.cast(leaf, dtype) for leaf in leaves]
    tails = [tf.shape(row)[1:] for row in rows]
    flat = [tf.reshape(row, [tf.shape(row)[0], tf.reduce_prod(tail)]) for row, tail in zip(rows, tails, strict=True)]
    whole = tf.distribute.get_replica_context().all_gather(_place(tf.concat(flat, axis=1)), axis=0)
    parts = tf.split(whole, [tf.shape(each)[1] for each in flat], axis=1)
    gathered = []
    for leaf, tail, part in zip(leaves, tails, parts, strict=True):
        gathered.append(tf.cast(tf.reshape(part, tf.concat([tf.shape(part)[:1], tail], 0)), leaf.dtype))
        # How many rows the whole batch has, only the step knows; all else of a shape is the share's.
        gathered[-1].set_shape([None, *leaf.shape[1:]])
    return gathered


def _choose_sent(dtype):
    """Returns the dtype as which a tensor is sent: collective operations take neither bools, bytes nor bfloat16."""
    if dtype.is_floating:
        return dtype if dtype in (tf.float16, tf.float32, tf.float64) else tf.float32
    return tf.int64


def fill_empty(nest):
    """Returns tensors of a row or more: one of zeros for a replica without a sample, which losses cannot read.

    Args:
        nest: tensors, nested; None stays None.
    """

    def fill(leaf):
        missing = tf.cast(tf.shape(leaf)[0] == 0, tf.int32)
        filled = tf.pad(leaf, [[0, missing], *[[0, 0]] * (len(leaf.shape) - 1)])
        filled.set_shape([None, *leaf.shape[1:]])
        mask = keras_graph.get_mask(leaf)
        return filled if mask is None else keras_graph.copy_mask(filled, filled, fill(mask))

    if count_replicas() == 1:
        return nest
    return keras.tree.map_structure(lambda leaf: leaf if leaf is None else fill(leaf), nest)


def _place(tensor):
    """Returns a tensor that is said to be on the replica's device: workers must know from where to send it."""
    devices = tf.distribute.get_strategy().extended.worker_devices
    # Of several devices, each replica runs on its own already.
    with tf.device(devices[0]) if len(devices) == 1 else contextlib.nullcontext():
        return tf.identity(tensor)


def any_replica(flags):
    """Returns whether each of the bools, a tensor of any shape, is true on any replica."""
    return flags if count_replicas() == 1 else _sum(tf.cast(flags, tf.int32)) > 0


def measure_share(count):
    """Returns a replica's share, 0..1, of the samples of all, of which it has `count`, a scalar tensor; float32."""
    count = tf.cast(count, tf.float32)
    return tf.ones_like(count) if count_replicas() == 1 else count / _sum(count)


def _sum(tensor):
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, _place(tensor))


def share_gradients(optimizer, gradients: list) -> list:
    """Returns gradients of this replica such that the optimizer moves every replica by the gradient of the whole batch.

    Keras's optimizers sum the gradients of all replicas, but clip each replica's own before, and under loss scaling
    look whether the first replica's own are finite. For these the gradients are summed and clipped here, and each
    replica hands on its part, which is too small to be clipped again: twice as much is sent.

    Args:
        optimizer: the `keras.optimizers.Optimizer` that gets them.
        gradients: this replica's, None where there is none.
    """
    replicas = count_replicas()
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    own = optimizer.inner_optimizer if scales else optimizer
    if replicas == 1 or not (scales or any(getattr(own, name) is not None for name in _CLIPS)):
        return gradients
    context = tf.distribute.get_replica_context()
    present = [_place(tf.convert_to_tensor(gradient)) for gradient in gradients if gradient is not None]
    sums = context.all_reduce(tf.distribute.ReduceOp.SUM, present)
    # What is clipped are the gradients without the scale of the loss.
    scale = tf.convert_to_tensor(optimizer.dynamic_scale) if scales else 1.0
    clipped = keras_graph.clip_gradients(own, [gradient / scale for gradient in sums])
    parts = iter([gradient * (scale / replicas) for gradient in clipped])
    return [None if gradient is None else next(parts) for gradient in gradients]


def run_if(condition, if_true, if_false, args):
    """Runs one of two functions, which may update variables, on every replica.

    Args:
        condition: bool scalar, the same on all replicas.
        if_true, if_false: functions of `args` that return nothing.
        args: tensors, nested, of this replica.
    """
    # Of a strategy with a single replica too, an optimizer meets the others: there is only none to be met.
    if not tf.distribute.has_strategy():
        tf.cond(condition, lambda: _run(if_true, args), lambda: _run(if_false, args))
        return

    # A replica cannot leave a branch to meet the others, as an optimizer does: the branch is taken by all together.
    def run_all(strategy, condition, args):
        def run(chosen):
            strategy.extended.call_for_each_replica(_run, args=(chosen, args))
            return 0

        first = strategy.experimental_local_results(condition)[0]
        tf.cond(first, lambda: run(if_true), lambda: run(if_false))

    tf.distribute.get_replica_context().merge_call(run_all, args=(condition, args))


def _run(function, args):
    function(*args)
    return 0  # the branches of `tf.cond` must return something of the same structure
