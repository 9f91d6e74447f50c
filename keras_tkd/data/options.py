"""Settings that all pipelines share: parallel calls, prefetching, order."""

import os

import tensorflow as tf

__all__ = [
    "PARALLEL_CALLS",
    "PARALLEL_DECODES",
    "PREFETCHED_BATCHES",
    "as_written",
    "count_batches",
    "deterministic_options",
    "rewrite_user_function",
]

_CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Each call makes a whole batch, and as many batches are in memory: hence a bound where there are many cores, of which a
# few feed any student (two crop and mirror 130,000 images/s of CIFAR-10's size, benchmarks/README.md).
PARALLEL_CALLS = min(_CPUS, 8)
# Each decodes a single image, which is little memory and much work: on all cores.
PARALLEL_DECODES = _CPUS
PREFETCHED_BATCHES = 4

# Functions of our own have no Python `if` or loop on tensors, and AutoGraph, which would rewrite these, and every
# function that is called, takes seconds of each process for it.
as_written = tf.autograph.experimental.do_not_convert


def rewrite_user_function(function):
    """Makes AutoGraph rewrite a user's function wherever it is called, also from one that is run `as_written`.

    A pipeline that the user makes where AutoGraph is off takes the function as it is, as `tf.data.Dataset.map` does.
    """
    autograph = tf.__internal__.autograph
    return autograph.tf_convert(function, autograph.control_status_ctx())


def count_batches(count, batch_size):
    """Returns the number of batches that `count` samples make; the last one may be smaller."""
    return -(-count // batch_size)


def deterministic_options():
    """Returns `tf.data.Options` that keep batches in their order and switch autotuning off."""
    options = tf.data.Options()
    # With autotuning a pass can end only when the tuner wakes up, and the tuner sleeps twice as long each time: up to
    # 1.3, 2.5, 5.1 ... seconds (benchmarks/choices.py measures epochs with and without).
    options.autotune.enabled = False
    options.deterministic = True
    return options
