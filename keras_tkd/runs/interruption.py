"""Signals that end a run: a training finishes its step first, and writes its state."""

import signal
import threading
import time

import keras

__all__ = ["StopAtSignal"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PATIENCE = 8.0  # seconds that a validation may take to its end before it is broken off


class StopAtSignal(keras.callbacks.Callback):
    """Lets a training finish its step and write its state before Ctrl-C or SIGTERM end it. A context manager.

    Inside the block a signal is only noted. The training ends after the step that is going on, or after the validation,
    if that takes less than some seconds; then the signal has its way. A second one does not wait.

    Args:
        backup: the `BackupState` that writes; None to write nothing, as where several workers write together and only
            this one knows of the signal.
    """

    def __init__(self, backup):
        super().__init__()
        self._backup = backup
        self._received = None
        self._handlers = {}

    def __enter__(self):
        # Python lets the main thread alone say what a signal does.
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._note) for number in _SIGNALS}
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
        if self._received is not None and batch + 1 < (self.params["steps"] or 0):
            if self._backup is not None:
                self._backup.write()
            raise _Stop

    def on_test_batch_end(self, batch, logs=None):
        if self._received is not None and time.monotonic() - self._received[1] > _PATIENCE:
            raise _Stop

    def on_epoch_end(self, epoch, logs=None):
        if self._received is not None:
            raise _Stop


class _Stop(BaseException):
    """Leaves `fit`; what comes after the block is the signal's own doing."""
