"""Signals that end a training: its step is finished, its state written, and the signal then has its way."""

import signal
import threading

import keras
import numpy as np
import pytest
from worker_threads import run_workers

from keras_tkd.callbacks import BackupState
from keras_tkd.runs import interruption
from keras_tkd.runs.cluster import Cluster
from keras_tkd.runs.interruption import StopAtSignal

X, Y = np.ones((10, 2), "float32"), np.zeros((10, 1), "float32")


class Send(keras.callbacks.Callback):
    """Sends this process a signal at a moment of the training, as often as said."""

    def __init__(self, number, moment, times=1):
        super().__init__()
        self.number, self.moment, self.times, self.seen = number, moment, times, []

    def _note(self, moment):
        self.seen.append(moment)
        if moment == self.moment:
            for _ in range(self.times):
                signal.raise_signal(self.number)

    def on_train_batch_begin(self, batch, logs=None):
        self._note(f"step {batch}")

    def on_test_batch_begin(self, batch, logs=None):
        self._note(f"test {batch}")


@pytest.fixture
def handled():
    """Handlers of this test's own, which raise; the signals that they got."""
    received = []

    def handle(number, frame):
        received.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    yield received
    for number, handler in before.items():
        signal.signal(number, handler)


def fit(send, folder):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    backup = BackupState(folder)
    stop = StopAtSignal(backup, Cluster())
    with stop:
        callbacks = [send, backup, stop]
        model.fit(X, Y, batch_size=2, epochs=2, validation_data=(X, Y), verbose=0, callbacks=callbacks)


def places(folder):
    return [path.stem for path in folder.iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_is_finished_and_its_state_written(number, handled, tmp_path):
    send = Send(number, "step 2")
    with pytest.raises(KeyboardInterrupt):
        fit(send, tmp_path)
    assert send.seen[-1] == "step 2" and handled == [number]
    assert places(tmp_path) == ["epoch-000000-step-000000003"]


def test_a_validation_is_finished_too(handled, tmp_path):
    send = Send(signal.SIGTERM, "test 0")
    with pytest.raises(KeyboardInterrupt):
        fit(send, tmp_path)
    # All five batches of it, and no step after them.
    assert send.seen[-1] == "test 4" and places(tmp_path) == ["epoch-000001-step-000000000"]


def test_a_long_validation_is_broken_off(handled, tmp_path, monkeypatch):
    monkeypatch.setattr(interruption, "_PATIENCE", -1.0)
    with pytest.raises(KeyboardInterrupt):
        fit(Send(signal.SIGTERM, "test 0"), tmp_path)
    assert not tmp_path.exists() or places(tmp_path) == []


def test_the_last_step_of_an_epoch_is_written_with_its_validation(handled, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(Send(signal.SIGINT, "step 4"), tmp_path)
    assert places(tmp_path) == ["epoch-000001-step-000000000"]


def test_a_second_signal_does_not_wait(handled, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(Send(signal.SIGINT, "step 2", times=2), tmp_path)
    assert places(tmp_path) == []


def test_without_a_signal_nothing_is_changed(handled, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    fit(Send(signal.SIGINT, "never"), tmp_path)
    assert signal.getsignal(signal.SIGINT) is before and handled == []


def test_a_signal_that_nobody_acts_on_ends_the_training_all_the_same(tmp_path):
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with pytest.raises(KeyboardInterrupt):
            fit(Send(signal.SIGTERM, "step 1"), tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_is_ignored_stays_ignored(handled, number, tmp_path):
    """As Ctrl-C is by a shell's background jobs."""
    signal.signal(number, signal.SIG_IGN)
    try:
        fit(Send(number, "step 1"), tmp_path)
    except KeyboardInterrupt:
        pytest.fail("It ended the training")  # and would end pytest
    assert signal.getsignal(number) is signal.SIG_IGN and handled == []
    # To the end: five steps and a validation in each of two epochs.
    assert "epoch-000002-step-000000000" in places(tmp_path)


def test_in_another_thread_it_does_nothing(tmp_path):
    """Where Python lets nobody say what a signal does."""
    errors = []

    def train():
        try:
            fit(Send(signal.SIGINT, "never"), tmp_path)
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert not errors and len(places(tmp_path)) == 2


@pytest.mark.parametrize(
    ("seconds", "place"),
    [
        # They ask one another after each step.
        (0.0, "epoch-000000-step-000000003"),
        # After the first one, then after eight, which this epoch of five does not have.
        (1e6, "epoch-000001-step-000000000"),
    ],
)
def test_workers_end_together_for_the_signal_of_one(seconds, place, monkeypatch, tmp_path):
    raised = []
    monkeypatch.setattr(interruption, "_ASKED_EVERY", seconds)
    monkeypatch.setattr(interruption.signal, "raise_signal", raised.append)

    def work(worker):
        left = []
        worker.agree_to_end = lambda: left.append(worker.exchange(""))
        folder = tmp_path / str(worker.share[0])
        backup = BackupState(folder)
        stop = StopAtSignal(backup, worker)

        class Receive(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if worker.share[0] == 1 and batch == 2:
                    stop._note(int(signal.SIGTERM), None)

        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        with pytest.raises(KeyboardInterrupt), stop:
            model.fit(X, Y, batch_size=2, epochs=2, verbose=0, callbacks=[Receive(), backup, stop])
        assert places(folder) == [place] and len(left) == 1

    run_workers(2, work)
    assert raised == [signal.SIGTERM, signal.SIGTERM]
