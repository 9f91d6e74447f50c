"""Joining of the workers by TensorFlow, and what it is told otherwise; every use of its private names is here."""

import contextlib
import faulthandler
import functools
import os
import random
import signal
import threading

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

from keras_tkd.distribution.joining import meet
from keras_tkd.distribution.rows import RowGatherer
from keras_tkd.utils.native_output import hide_native_output

__all__ = ["join_cluster"]

_SILENCE = 20.0  # seconds without a sign of a worker after which TensorFlow ends the others
_PATIENCE = 300.0  # seconds that TensorFlow may take to join workers that have met


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
    if vars(context.context())["_context_handle"] is not None:
        raise ValueError(
            "A worker joins the others before anything else is computed in its process. Received: a process in which "
            "TensorFlow runs already. Begin in a new process, or by the script, and open the scope first"
        )
    meet(addresses, index)
    with _ended_after(_PATIENCE), hide_native_output(), _bear_with_silence(), _keep_handler(signal.SIGTERM):
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
def _ended_after(seconds):
    """Ends the process, and shows what it waits in, if the block takes longer, as where a worker is gone since it came.

    TensorFlow's wait stops all threads of Python and its signals: only what is no Python can end it.
    """
    stderr = os.dup(2)
    faulthandler.dump_traceback_later(seconds, exit=True, file=stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        os.close(stderr)


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
