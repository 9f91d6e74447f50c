"""Joining of the workers by TensorFlow, and what it is told otherwise; every use of its private names is here."""

import contextlib
import functools
import random
import signal
import threading

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from keras_tkd.distribution.rows import RowGatherer

__all__ = ["join_cluster"]

_SILENCE = 20.0  # seconds without a sign of a worker after which TensorFlow ends the others


def join_cluster():
    """Makes the `tf.distribute.MultiWorkerMirroredStrategy` of this process, once all workers have come.

    Unlike one that is made by itself

    - it bears with a link that is cut for some seconds: TensorFlow's own patience, of ten, ends with that;
    - SIGTERM goes on ending the process: TensorFlow takes it for a notice of preemption, which nobody here asks for;
    - where no seed is set, all workers get the same one: Keras shuffles arrays on each worker by itself, and in orders
      of their own an epoch would have some samples twice, and others not at all.
    """
    with _bear_with_silence(), _keep_handler(signal.SIGTERM):
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    first, *_ = RowGatherer(strategy)(np.array([random.getrandbits(31)], "int64"))
    if context.global_seed() is None:
        tf.random.set_seed(int(first))
    return strategy


@contextlib.contextmanager
def _bear_with_silence():
    """Has TensorFlow wait for a sign of another worker for `_SILENCE`, where it is configured in the block."""
    ours = context.context()
    ours.configure_coordination_service = functools.partial(
        ours.configure_coordination_service, heartbeat_timeout_in_ms=int(1000 * _SILENCE)
    )
    try:
        yield
    finally:
        del ours.configure_coordination_service


@contextlib.contextmanager
def _keep_handler(number):
    """Puts back what a signal does when the context closes."""
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        # Python lets the main thread alone say what a signal does; of a handler that is not Python's it knows nothing.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)
