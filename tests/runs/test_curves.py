"""What TensorBoard is given of a training, epoch by epoch, read back from its files."""

import ctypes
import itertools
import resource
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_tkd import Distiller
from keras_tkd.callbacks import WarmUp
from keras_tkd.losses import SoftTargets, TripletDistillation
from keras_tkd.runs.curves import Schedules, TensorBoardScalars

X, Y = np.ones((10, 2), "float32"), np.zeros((10, 1), "float32")


def fit(*callbacks):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="small")
    model.compile("sgd", "mse")
    return model.fit(X, Y, batch_size=2, epochs=2, verbose=0, validation_data=(X, Y), callbacks=list(callbacks))


def read(folder):
    """Steps and values of each chart in a folder of event files."""
    events = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_scalars_are_grouped_explained_and_in_two_runs(tmp_path):
    class Logs(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs |= {"accuracy": 0.5, "val_accuracy": 0.25, "tkd_violated": 0.75, "agreement": 0.6, "tkd": 3.0}
            logs |= {"learning_rate": 0.1, "student_loss": 2.0}

    fit(Logs(), TensorBoardScalars(tmp_path))
    written = {}
    for run in ("train", "held_out"):
        for file in (tmp_path / run).glob("events*"):
            for event in tf.compat.v1.train.summary_iterator(str(file)):
                for value in event.summary.value:
                    written[run, value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert written["train", "accuracy/accuracy", 1] == 0.5 and written["held_out", "accuracy/accuracy", 2] == 0.25
    assert written["train", "triplets/tkd_violated", 2] == 0.75
    tags = {tag for run, tag, _ in written if run == "train"}
    grouped = {
        "accuracy": {"accuracy", "agreement"},
        "loss": {"total", "student", "tkd"},
        "schedule": {"learning_rate"},
        "triplets": {"tkd_violated"},
    }
    assert tags == {f"{group}/{name}" for group, names in grouped.items() for name in names}


def test_without_room_a_training_goes_on_and_says_so_once(tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        history = fit(TensorBoardScalars(tmp_path)).history
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(history["loss"]) == 2
    assert capsys.readouterr().out.count(f"Warning: TensorBoard's curves in {tmp_path} could not be written") == 1


class Names(keras.callbacks.Callback):
    def __init__(self, *names):
        super().__init__()
        self.names = names

    def on_epoch_end(self, epoch, logs=None):
        logs.update({name: 1.0 for name in self.names})


def test_each_name_of_a_log_has_its_chart(tmp_path):
    names = {
        "teacher_accuracy": "accuracy/teacher",
        "regularization": "loss/regularization",
        "teacher_loss": "loss/teacher",
        "teacher_total": "loss/teacher_total",
        "teacher_anchor": "loss/teacher_anchor",
        "teacher_peer": "loss/teacher_peer",
        "student_anchor": "loss/student_anchor",
        "images_per_second": "speed/images_per_second",
        "schedule/kd_weight": "schedule/kd_weight",
        "pairs_same_distance": "triplets/pairs_same_distance",
        "pairs_other_distance": "triplets/pairs_other_distance",
        "pairs_violated": "triplets/pairs_violated",
        "kd_2": "loss/kd_2",
    }
    fit(Names(*names), TensorBoardScalars(tmp_path))
    assert read(tmp_path / "train").keys() == {"loss/total", *names.values()}


def distil(*callbacks, epochs=3):
    """A Distiller of soft targets and triplets on four images, trained; returns its history."""
    keras.utils.set_random_seed(0)
    models = [keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)]) for _ in range(2)]
    losses = [SoftTargets(temperature=4.0), TripletDistillation(margin=0.5)]
    distiller = Distiller(*models, losses, [0.5, 2.0], student_loss_weight=0.25)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss, metrics=["accuracy"], run_eagerly=True)
    images, labels = np.eye(4, 2, dtype="float32"), np.array([0, 1, 0, 1])
    return distiller.fit(images, labels, 4, epochs=epochs, verbose=0, callbacks=list(callbacks)).history


def test_weights_and_temperatures_of_each_epoch_are_in_the_logs():
    class Cool(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.distillation_losses[0].temperature = 4.0 - epoch

    logs = distil(WarmUp(2), Cool(), Schedules())
    schedules = {name: values for name, values in logs.items() if name.startswith("schedule/")}
    # Half of the weights in the first of two epochs of warming up, then all.
    assert schedules == {
        "schedule/student_loss_weight": [0.25, 0.25, 0.25],
        "schedule/kd_weight": [0.25, 0.5, 0.5],
        "schedule/kd_temperature": [4.0, 3.0, 2.0],
        "schedule/tkd_weight": [1.0, 2.0, 2.0],
        "schedule/tkd_margin": [0.5, 0.5, 0.5],
    }


def test_a_model_that_learns_from_labels_alone_has_no_such_schedules():
    assert fit(Schedules()).history.keys() == {"loss", "val_loss"}


def test_what_a_callback_adds_is_not_taken_for_a_loss(tmp_path):
    distil(Names("mine"), TensorBoardScalars(tmp_path), epochs=1)
    tags = read(tmp_path / "train").keys()
    assert {"other/mine", "loss/kd", "loss/tkd", "loss/student"} <= tags and "loss/mine" not in tags


def test_of_a_training_that_is_taken_up_each_epoch_is_there_once(tmp_path):
    fit(TensorBoardScalars(tmp_path))
    # One epoch was kept of the two that were written; the training goes on in two calls of `fit`.
    scalars = TensorBoardScalars(tmp_path, history=[{"loss": 7.0, "val_loss": 8.0}])
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    for epoch in (1, 2):
        model.fit(X, Y, epochs=epoch + 1, initial_epoch=epoch, verbose=0, validation_data=(X, Y), callbacks=[scalars])
    for run, first in (("train", 7.0), ("held_out", 8.0)):
        curve = read(tmp_path / run)["loss/total"]
        assert [step for step, _ in curve] == [1, 2, 3] and curve[0] == (1, first)


def test_a_chart_is_explained_once(tmp_path):
    fit(TensorBoardScalars(tmp_path, of_labels=" Smoothed."))
    (file,) = (tmp_path / "train").glob("events*")
    events = [event for event in tf.compat.v1.train.summary_iterator(str(file)) if event.summary.value]
    texts = [value.metadata.summary_description for event in events for value in event.summary.value]
    assert texts[0].startswith("What is minimised") and texts[0].endswith(" Smoothed.") and texts[1:] == [""]


class AllocatedBytes:
    """Measures what this process has allocated and not freed, by the C library, glibc."""

    _Fields = type("_Fields", (ctypes.Structure,), {"_fields_": [(f"field{i}", ctypes.c_size_t) for i in range(10)]})

    def __init__(self):
        try:
            self._read = ctypes.CDLL("libc.so.6").mallinfo2
        except (OSError, AttributeError):
            pytest.skip("glibc 2.33 or newer counts what is allocated")
        self._read.restype = self._Fields

    def grow(self, function, arguments):
        """Returns the growth per call of `function`, over the list `arguments`."""
        before = self._read().field7
        for argument in arguments:
            function(argument)
        return (self._read().field7 - before) / len(arguments)


# Numbers that no other test makes tensors of.
NUMBERS = (40_000.25 + number for number in itertools.count())


def test_tensorflow_keeps_each_number_that_becomes_a_tensor():
    """Why the scalars are arrays: once this fails, TensorFlow has mended it, and they may be plain numbers again."""
    growth = AllocatedBytes().grow(tf.constant, list(itertools.islice(NUMBERS, 1000)))
    assert growth > sys.getsizeof(0.5)


def test_scalars_of_many_epochs_take_no_memory(tmp_path):
    scalars = TensorBoardScalars(tmp_path)
    scalars.set_model(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    logs = [{"loss": number, "val_loss": number + 0.5} for number in itertools.islice(NUMBERS, 500)]
    epochs = itertools.count(50_000)

    def write(logs):
        scalars.on_epoch_end(next(epochs), logs)

    write({"loss": 0.0, "val_loss": 0.0})
    growth = AllocatedBytes().grow(write, logs)
    scalars.on_train_end()
    # Two numbers and a step: each would keep more than 600 bytes.
    assert growth < 600
