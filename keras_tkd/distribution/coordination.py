"""Joining of the workers by TensorFlow, and what it is told otherwise; every use of its private names is here."""

import contextlib
import functools
import random
import signal
import threading

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from keras_tkd.distribution.joining import meet
from keras_tkd.distribution.rows import RowGatherer

__all__ = ["join_cluster"]

_SILENCE = 20.0  # seconds without a sign of a worker after which TensorFlow ends the others
_PATIENCE = 60.0  # seconds that TensorFlow waits for workers that have met


def join_cluster(addresses, index):
    """Makes the `tf.distribute.MultiWorkerMirroredStrategy` of this process, once all workers have come.

    Unlike one that is made by itself

    - it says for whom it waits, and gives up where they do not come: see `meet`;
    - it bears with a link that is cut for some seconds: TensorFlow's own patience, of ten, ends with that;
    - SIGTERM goes on ending the process: TensorFlow takes it for a notice of preemption, which nobody here asks for;
    - where no seed is set, all workers get the same one: Keras shuffles arrays on each worker by itself, and in orders
      of their own an epoch would have some samples twice, and others not at all.

    Args:
        addresses: of all workers, as `TF_CONFIG` has them.
        index: number of this worker.

    Raises:
        ValueError: a process in which TensorFlow runs already.
        OSError: workers that do not meet, or that TensorFlow does not join.
    """
    if context.context()._context_handle is not None:
        raise ValueError(
            "A worker joins the others before anything else is computed in its process. Received: a process in which "
            "TensorFlow runs already. Begin in a new process, or by the script, and open the scope first"
        )
    meet(addresses, index)
    with _bear_with_silence(), _keep_handler(signal.SIGTERM):
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
            first, *_ = RowGatherer(strategy)(np.array([random.getrandbits(31)], "int64"))
        except tf.errors.OpError as error:
            raise OSError(
                "Workers that have met must reach each other at their addresses in TF_CONFIG. Received: "
                f"{error.message}. Mend the addresses on all, or start all again"
            ) from error
    if context.global_seed() is None:
        tf.random.set_seed(int(first))
    return strategy


@contextlib.contextmanager
def _bear_with_silence():
    """Has TensorFlow wait `_PATIENCE` for workers, and `_SILENCE` for a sign of one, where the block configures it."""
    ours = context.context()
    ours.configure_coordination_service = functools.partial(
        ours.configure_coordination_service,
        cluster_register_timeout_in_ms=int(1000 * _PATIENCE),
        heartbeat_timeout_in_ms=int(1000 * _SILENCE),
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
