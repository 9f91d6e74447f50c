"""Callbacks of a run's trainings, on small models of Keras's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.runs.callbacks import CheckLogs, Throughput, TrainingProgress, WarnAtChance
from keras_tkd.runs.curves import TensorBoardScalars

X, Y = np.ones((10, 2), "float32"), np.zeros((10, 1), "float32")


def fit(*callbacks, loss="mse", steps_per_execution=1, **arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="small")
    model.compile("sgd", loss, steps_per_execution=steps_per_execution)
    settings = {"batch_size": 2, "epochs": 2, "verbose": 0, "validation_data": (X, Y)} | arguments
    return model.fit(X, Y, callbacks=list(callbacks), **settings)


@pytest.mark.parametrize(("together", "epochs_timed"), [(1, 2), (2, 2), (5, 1), (8, 1)])
def test_throughput_leaves_out_what_had_to_compile_and_validation(together, epochs_timed, monkeypatch):
    """A clock that moves by 2 s in each training step, by 50 s more in the first, and by 100 s in validation.

    So each step of 2 images takes 2 s: an image a second, wherever steps are timed.
    """
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self._done = 0

        def on_train_batch_end(self, batch, logs=None):
            done = min(batch + 1, 5)
            now[0] += 2 * (done - self._done) + 50 * (now[0] == 0)
            self._done = done

        def on_test_end(self, logs=None):
            now[0] += 100

    history = fit(Clock(), Throughput(samples=10, batch_size=2), steps_per_execution=together).history
    assert history["images_per_second"] == [1.0] * epochs_timed
    assert history["learning_rate"] == [pytest.approx(0.01)] * 2


def test_chance_is_warned_of_once_and_by_name(capsys):
    class Accuracy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_accuracy"] = 0.1

    fit(Accuracy(), WarnAtChance(lambda accuracy: accuracy == 0.1, epochs=2), epochs=4)
    assert capsys.readouterr().out.count("Warning: after 2 epochs small is at chance: accuracy 10.00%") == 1
    fit(Accuracy(), WarnAtChance(lambda accuracy: accuracy > 0.1, epochs=2), epochs=4)
    assert "Warning" not in capsys.readouterr().out


def test_a_teacher_that_learns_too_is_warned_of_by_itself(capsys):
    class Accuracies(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs |= {"val_accuracy": 0.9, "val_teacher_accuracy": 0.1}

    fit(Accuracies(), WarnAtChance(lambda accuracy: accuracy == 0.1, epochs=2), epochs=4)
    shown = capsys.readouterr().out
    assert shown.count("Warning") == 1 and "after 2 epochs the teacher is at chance: accuracy 10.00%" in shown


def test_progress_elsewhere_than_on_a_terminal_is_about_ten_lines(capsys):
    fit(TrainingProgress("Teacher", 5, 40, metrics=("loss", "val_loss")), epochs=40)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Teacher" and len(lines) == 11
    assert lines[1].startswith("  epoch 4/40  loss ") and "held-out loss" in lines[1]


def test_progress_on_a_terminal_is_one_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    fit(TrainingProgress("Teacher", 5, 4, metrics=("loss",)), epochs=4)
    shown = capsys.readouterr().out
    assert "20/20" in shown and "40/" not in shown


def test_a_bar_of_a_training_that_ends_early_ends_its_line(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = True

    fit(Stop(), TrainingProgress("Teacher", 5, 4, metrics=("loss",)), epochs=4)
    shown = capsys.readouterr().out
    assert "5/20" in shown and shown.endswith("\n")


class Adds(keras.callbacks.Callback):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def on_epoch_end(self, epoch, logs=None):
        logs["mine"] = self.value


@pytest.mark.parametrize("value", ["0.5", None, [0.5], np.ones(2), {"a": 1.0}, keras.metrics.Mean()])
def test_a_log_that_is_no_number_is_named(value):
    with pytest.raises(ValueError, match=r"Logs of an epoch must be numbers.*Received: logs\['mine'\] = ") as error:
        fit(Adds(value), CheckLogs(), TensorBoardScalars("nowhere"))
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.array(0.5), tf.constant(0.5), tf.constant(0.5, "bfloat16")])
def test_a_log_that_is_a_number_is_one_for_those_after_it(value):
    assert fit(Adds(value), CheckLogs()).history["mine"] == [0.5, 0.5]
    assert all(type(number) is float for number in fit(Adds(value), CheckLogs()).history["mine"])
