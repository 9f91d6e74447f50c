"""What all pipelines have in common: parallel calls, prefetching, options."""

import os

import tensorflow as tf

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
# Each call makes a whole batch, and as many batches are in memory: hence a bound where there are many cores, of which a
# few feed any student (two crop and mirror 130,000 images/s of CIFAR-10's size, benchmarks/README.md).
PARALLEL_CALLS = min(CPUS, 8)
PREFETCHED_BATCHES = 4


def steps(count, batch_size):
    """The number of batches of so many samples, of which the last may be smaller."""
    return -(-count // batch_size)


def deterministic_options():
    """Options of every pipeline: batches in their order, and no autotuning."""
    options = tf.data.Options()
    # With it, a pass can end only when the tuner's pause does, and its pauses double: up to 1.3, 2.5, 5.1 ... seconds
    # (benchmarks/choices.py measures epochs with and without).
    options.autotune.enabled = False
    options.deterministic = True
    return options
