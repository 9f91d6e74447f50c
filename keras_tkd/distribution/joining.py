"""The start of a worker: it finds the others, or says in a sentence why it does not."""

import contextlib
import os
import signal
import socket
import sys
import threading
import time

import tensorflow as tf

from keras_tkd.distribution.peers import end_process
from keras_tkd.distribution.strategies import make_strategy, read_cluster, split_address
from keras_tkd.utils.native_output import hide_native_output

__all__ = ["join_workers"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 300.0  # seconds that workers wait for one another at the start


def join_workers():
    """Makes the strategy of this worker as soon as all are there; waits for those that are started later.

    Returns:
        `(strategy, addresses, index)`: the `tf.distribute.MultiWorkerMirroredStrategy`, and what `read_cluster` says.

    Raises:
        ValueError: no `TF_CONFIG` that lists workers; a process in which TensorFlow runs already; several GPUs.
        OSError: a port that is taken; a host that is not known; workers that do not come.
    """
    if tf.config.list_physical_devices("GPU")[1:]:
        raise ValueError(
            "A worker trains on one device. Received: a process that sees "
            f"{len(tf.config.list_physical_devices('GPU'))} GPUs. Start one worker for each, with "
            "CUDA_VISIBLE_DEVICES=0 and so on, or take --distribution=mirrored on a single machine"
        )
    addresses, index = read_cluster()
    _check_port(addresses[index])
    if index:
        _wait_for_first(addresses[0])
    elif len(addresses) > 1:
        print(f"Waiting for {len(addresses) - 1} other worker(s), at {', '.join(addresses[1:])}", flush=True)
    with _ended_after(_PATIENCE, addresses, index), hide_native_output():
        try:
            strategy = make_strategy("multi_worker")
        except RuntimeError as error:
            raise ValueError(
                "A worker joins the others before anything else is computed in its process. Received: a process in "
                f"which TensorFlow runs already ({error}). Begin the run in a new process, or by the script"
            ) from error
    return strategy, addresses, index


def _check_port(address):
    """Raises `OSError` if this worker cannot listen where the others will look for it."""
    host, port = split_address(address)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # On all interfaces, as TensorFlow does: the name may be that of a gateway.
            probe.bind(("", port))
        except OSError as error:
            raise OSError(
                f"A worker listens at its port in TF_CONFIG. Received: {address}, of which the port cannot be had: "
                f"{error.strerror}. Another program, or an earlier run, may use it: choose another, in the TF_CONFIG "
                "of all workers"
            ) from error


def _wait_for_first(address):
    """Waits until worker 0 listens: TensorFlow would wait without a word, also for a host that there is not."""
    host, port = split_address(address)
    began, told = time.monotonic(), False
    while True:
        try:
            with socket.create_connection((host, port), timeout=5):
                return
        except OSError as error:
            # Also for a name that is not known yet: some systems give a machine its name when it has started.
            waited = time.monotonic() - began
            if waited > _PATIENCE:
                raise OSError(
                    f"Worker 0 must be started too, and be reached. Received: {address} in TF_CONFIG, which did not "
                    f"answer for {waited:.0f} s ({error}). Start it, or mend the address on all workers"
                ) from error
        if not told:
            print(f"Waiting for worker 0, at {address}", flush=True)
            told = True
        time.sleep(0.5)


@contextlib.contextmanager
def _ended_after(seconds, addresses, index):
    """Ends the process if the block takes longer: TensorFlow's wait for the others cannot be broken off otherwise."""
    stderr = os.dup(2)
    # Nor by a signal that Python is to act on; and nothing has begun that could be lost.
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in _SIGNALS} if in_main else {}

    def give_up():
        os.dup2(stderr, 2)
        silent = [f"worker {i} at {each}" for i, each in enumerate(addresses) if i != index and not _answers(each)]
        end_process(
            f"All workers must be started within {seconds:.0f} s of one another, with the same addresses, each with "
            f"an index of its own. Nothing was heard of {', '.join(silent) or 'some of them'}"
        )

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(stderr)
        sys.stderr.flush()


def _answers(address):
    try:
        with socket.create_connection(split_address(address), timeout=2):
            return True
    except OSError:
        return False
