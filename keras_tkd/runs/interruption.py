"""Signals that end a run: a training finishes its step first, and writes its state."""

import json
import signal
import threading
import time

import keras

__all__ = ["StopAtSignal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 8.0  # seconds that a validation may take to its end before it is broken off
_ASKED_EVERY = 2.0  # seconds after which workers ask one another for signals, about; to ask takes some milliseconds


class StopAtSignal(keras.callbacks.Callback):
    """Lets a training finish its step and write its state before Ctrl-C or SIGTERM end it. A context manager.

    Inside the block a signal is only noted. The training ends after the step that is going on, or after the validation,
    if that takes less than some seconds; then the signal has its way. A second one does not wait.

    Several workers write a state together, and end together for a signal that one of them has received: after some
    seconds, or at the end of the epoch, when they ask one another.

    Args:
        backup: the `BackupState` that writes.
        cluster: the `Cluster` of a run.
    """

    def __init__(self, backup, cluster):
        super().__init__()
        self._backup, self._cluster = backup, cluster
        self._received = None
        # Steps, or executions of several, since workers asked, and after how many they ask again; all have the same.
        self._steps, self._interval = 0, 1
        self._asked = time.monotonic()
        self._handlers = {}

    def __enter__(self):
        # Python lets the main thread alone say what a signal does.
        if threading.current_thread() is threading.main_thread():
            # What is ignored (a background job of a script) stays ignored.
            numbers = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._handlers = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(self, *_):
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._received is not None:
            signal.raise_signal(self._received[0])
            raise KeyboardInterrupt  # where nobody else acts on the signal

    def _note(self, number, frame):
        if self._received is not None:
            raise _Stop
        self._received = number, time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        # The state at the last step of an epoch is written with its validation.
        if batch + 1 < (self.params["steps"] or 0) and self._is_over():
            self._backup.write()
            self._leave()

    def on_test_batch_end(self, batch, logs=None):
        # The others do not know of it.
        if (
            self._cluster.share is None
            and self._received is not None
            and time.monotonic() - self._received[1] > _PATIENCE
        ):
            raise _Stop

    def on_epoch_end(self, epoch, logs=None):
        if self._is_over(now=True):
            self._leave()

    def _is_over(self, now=False):
        """Returns whether a signal has been received: by any of the workers, where these ask one another now."""
        if self._cluster.share is None:
            return self._received is not None
        self._steps += 1
        if self._steps < self._interval and not now:
            return False
        # How many steps that is worker 0 decides for all, by its clock. A first step takes far longer than others.
        time_now = time.monotonic()
        wanted = int(_ASKED_EVERY * self._steps / max(time_now - self._asked, 1e-3))
        interval = min(max(wanted, 1), 8 * self._interval)
        number = None if self._received is None else int(self._received[0])
        said = [json.loads(each) for each in self._cluster.exchange(json.dumps([number, interval]))]
        self._steps, self._interval, self._asked = 0, said[0][1], time_now
        received = [number for number, _ in said if number is not None]
        if received and self._received is None:
            self._received = received[0], time_now
        return bool(received)

    def _leave(self):
        self._cluster.agree_to_end()
        raise _Stop


class _Stop(BaseException):
    """Leaves `fit`; what comes after the block is the signal's own doing."""
