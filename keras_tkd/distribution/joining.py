"""The start of a worker: it finds the others, or says in a sentence why it does not."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import sys
import threading
import time

import tensorflow as tf

from keras_tkd.distribution.peers import end_process, listen
from keras_tkd.distribution.strategies import make_strategy, read_cluster, split_address
from keras_tkd.utils.native_output import hide_native_output

__all__ = ["join_workers"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 300.0  # seconds that workers wait for one another at the start
_PAUSE = 30.0  # seconds after which a worker that waits says what it hears of the others


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
        _wait_for_first(addresses, index)
    elif len(addresses) > 1:
        print(f"Waiting for {len(addresses) - 1} other worker(s), at {', '.join(addresses[1:])}", flush=True)
    with _watched_wait(addresses, index), hide_native_output():
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
    try:
        # On all interfaces, as TensorFlow does: the name may be that of a gateway.
        listen(split_address(address)[1]).close()
    except OSError as error:
        raise OSError(
            f"A worker listens at its port in TF_CONFIG. Received: {address}, of which the port cannot be had: "
            f"{error.strerror}. Another program, or an earlier run, may use it: choose another, in the TF_CONFIG "
            "of all workers"
        ) from error


def _wait_for_first(addresses, index):
    """Waits until worker 0 listens: TensorFlow would wait without a word, also for a host that there is not."""
    began, told = time.monotonic(), 0
    while said := _probe(addresses[0]):
        # Also for a name that is not known yet: some systems give a machine its name when it has started.
        waited = time.monotonic() - began
        if waited > _PATIENCE:
            raise OSError(
                f"Worker 0 must be started too, and be reached. Received: {addresses[0]} in TF_CONFIG, which did not "
                f"answer for {waited:.0f} s ({said}{_describe_own(addresses, index)}). Start it, or mend the address "
                "on all workers"
            )
        if told == 0:
            print(f"Waiting for worker 0, at {addresses[0]}", flush=True)
        if waited >= told:
            if told:
                print(f"Waiting for {waited:.0f} s: {said}{_describe_own(addresses, index)}", flush=True)
            told += _PAUSE
        time.sleep(0.5)


@contextlib.contextmanager
def _watched_wait(addresses, index):
    """Says from time to time what keeps the block waiting, and ends the process if it takes too long.

    TensorFlow's wait for the others says nothing, and cannot be broken off otherwise.
    """
    stderr = os.dup(2)
    # Nor by a signal that Python is to act on; and nothing has begun that could be lost.
    in_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, signal.SIG_DFL) for number in _SIGNALS} if in_main else {}
    joined, began = threading.Event(), time.monotonic()

    def watch():
        while not joined.wait(min(_PAUSE, began + _PATIENCE - time.monotonic())):
            heard = _describe_others(addresses, index)
            waited = time.monotonic() - began
            if joined.is_set():
                return
            if waited >= _PATIENCE:
                os.dup2(stderr, 2)
                end_process(
                    f"All workers must be started within {_PATIENCE:.0f} s of one another, with the same addresses, "
                    f"each with an index of its own. Received: {heard}"
                )
            print(f"Waiting for {waited:.0f} s: {heard}", flush=True)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        joined.set()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.close(stderr)
        sys.stderr.flush()


def _describe_others(addresses, index):
    """Says what is heard of the other workers where they do not answer."""
    others = [i for i in range(len(addresses)) if i != index]
    # At once: one that does not answer takes seconds.
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        heard = zip(others, pool.map(lambda i: _probe(addresses[i]), others), strict=True)
    silent = [f"worker {i} at {addresses[i]}: {said}" for i, said in heard if said]
    return ("; ".join(silent) or "all others answer, and not all have joined") + _describe_own(addresses, index)


def _describe_own(addresses, index):
    """Says where the address of this worker is none of this machine: it may have another worker's index."""
    with contextlib.suppress(OSError):
        for family, kind, protocol, _, place in socket.getaddrinfo(split_address(addresses[index])[0], 0):
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(place)
                return ""
    return f"; this one, worker {index} at {addresses[index]}, does not know that for an address of its machine"


def _probe(address):
    """Returns None where a worker answers at its address; else what is heard there, in words."""
    try:
        with socket.create_connection(split_address(address), timeout=5):
            return None
    except socket.gaierror:
        return "its name is not known"
    except TimeoutError:
        return "no answer"
    except ConnectionRefusedError:
        return "its machine answers, and nothing listens at that port"
    except OSError as error:
        return error.strerror or str(error)
