"""Trainings that are broken off at any step, and go on to the bits that they would have had."""

import functools
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TriKD, data, losses
from keras_tkd.callbacks import BackupState
from keras_tkd.utils.checkpoint_files import CheckpointFiles

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (22, 6, 6, 1), dtype="uint8")
LABELS = np.arange(22) % 3
STEPS, EPOCHS = 4, 3  # batches of 6, 6, 6, 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HELD_OUT = data.triplet_dataset(IMAGES[:9], LABELS[:9], 5, seed=0, training=False)


def make_model(name):
    """All that a training changes beside kernels: statistics of BatchNorm, seeds of dropout."""
    x = images = keras.Input((6, 6, 1))
    x = keras.layers.Rescaling(1 / 255)(x)
    x = keras.layers.Conv2D(3, 3, activation="relu")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Flatten(name="embedding")(x)
    x = keras.layers.Dropout(0.3, seed=4)(x)
    return keras.Model(images, keras.layers.Dense(3, name="logits")(x), name=name)


def make_optimizer(averages=False):
    return keras.optimizers.Adam(0.01, use_ema=averages, ema_momentum=0.8)


def distill(*terms):
    distiller = Distiller(make_model("teacher"), make_model("student"), list(terms))
    # A metric whose state is more than a sum, and which Keras makes when it first updates it.
    distiller.compile(make_optimizer(), LOSS, metrics=["accuracy"])
    return distiller


def make_training(kind):
    keras.utils.set_random_seed(1)
    if kind.startswith("plain"):
        model = make_model("student")
        model.compile(make_optimizer(kind == "plain averages"), LOSS, metrics=["accuracy"])
        return model
    if kind == "tkd":
        return distill(losses.TripletDistillation(margin=2.0), losses.SoftTargets(temperature=2.0))
    if kind == "crd":
        return distill(losses.ContrastiveRepresentation(LABELS, feature_size=4, negatives=4))
    trikd = TriKD(make_model("teacher"), make_model("student"), make_model("anchor"))
    # The student's own optimizer has none, and its teacher's has.
    trikd.compile(make_optimizer(), LOSS, teacher_optimizer=make_optimizer(kind == "trikd averages"))
    return trikd


def make_batches(kind, epoch, step):
    pipeline = data.image_dataset if kind.startswith("plain") else data.triplet_dataset
    augment = functools.partial(data.crop_and_flip, padding=1)
    return pipeline(IMAGES, LABELS, 6, seed=5, augment=augment, initial_epoch=epoch, initial_step=step)


def held_out(kind):
    return HELD_OUT.map(lambda batch, label: (batch["image"], label)) if kind.startswith("plain") else HELD_OUT


class BreakOff(keras.callbacks.Callback):
    """Raises after so many steps, as the end of a process would."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise InterruptedError


def train(kind, folder, *callbacks, **options):
    """Trains to the end from what the folder holds; returns the training's variables, and its curve."""
    model = make_training(kind)
    if kind.startswith("plain"):
        model.build((None, 6, 6, 1))
    backup = BackupState(folder, **options)
    epoch, step = backup.restore(model, held_out(kind))
    while epoch < EPOCHS:
        model.fit(
            make_batches(kind, epoch, step),
            initial_epoch=epoch,
            epochs=epoch + 1 if step else EPOCHS,
            callbacks=[backup, *callbacks],
            validation_data=held_out(kind),
            verbose=0,
        )
        epoch, step = backup.position
    optimizers = [model.optimizer, *filter(None, [getattr(model, "teacher_optimizer", None)])]
    variables = [*model.variables, *(variable for optimizer in optimizers for variable in optimizer.variables)]
    return [keras.ops.convert_to_numpy(variable) for variable in variables], backup.history


@pytest.mark.parametrize("kind", ["plain", "plain averages", "tkd", "crd", "trikd", "trikd averages"])
def test_a_training_that_is_broken_off_ends_in_the_same_bits(kind, tmp_path):
    whole, curve = train(kind, tmp_path / "whole")
    assert len(curve) == EPOCHS and {"loss", "val_loss"} <= set(curve[0])
    # In the second epoch, after three of four steps, of which two are kept.
    with pytest.raises(InterruptedError):
        train(kind, tmp_path / "cut", BreakOff(STEPS + 3), every_steps=2)
    again, others = train(kind, tmp_path / "cut", every_steps=2)
    assert others == curve
    for found, expected in zip(again, whole, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_batch_that_makes_the_metrics_may_be_of_one_class(tmp_path):
    """Held-out images that are sorted by class: in a batch of one, a loss that looks there for negatives finds none."""
    first = np.argsort(LABELS, kind="stable")
    held_out = data.triplet_dataset(IMAGES[first], LABELS[first], 6, seed=0, negatives=None, training=False)
    batches = data.triplet_dataset(IMAGES, LABELS, 6, seed=5, negatives=None)

    def begin():
        keras.utils.set_random_seed(1)
        return distill(losses.TripletDistillation(margin=2.0)), BackupState(tmp_path, every_steps=1)

    distiller, backup = begin()
    with pytest.raises(InterruptedError):
        distiller.fit(batches, validation_data=held_out, verbose=0, callbacks=[backup, BreakOff(2)])
    distiller, backup = begin()
    assert backup.restore(distiller, held_out) == (0, 2)


def test_it_goes_on_from_the_newest_checkpoint(tmp_path):
    seen = []

    def note(steps):
        seen.append([])
        watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen[-1].append(batch))
        return watch, BreakOff(steps)

    for steps in (3, 99):
        watch, stop = note(steps)
        try:
            train("plain", tmp_path, watch, stop, every_steps=2)
        except InterruptedError:
            pass
    # Broken off after steps 0, 1, 2 with a checkpoint behind step 1: steps 2 and 3 are left of that epoch.
    assert seen == [[0, 1, 2], [0, 1, *range(4), *range(4)]]


def test_without_steps_it_writes_at_the_end_of_epochs(tmp_path):
    with pytest.raises(InterruptedError):
        train("plain", tmp_path, BreakOff(STEPS + 3))
    assert [path.stem for path in tmp_path.iterdir()] == ["epoch-000001-step-000000000"]


def test_data_of_unknown_length_are_written_inside_an_epoch_too(tmp_path):
    model = make_training("plain")
    batches = make_batches("plain", 0, 0).filter(lambda images, labels: True)
    assert batches.cardinality() == tf.data.UNKNOWN_CARDINALITY
    with pytest.raises(InterruptedError):
        model.fit(batches, verbose=0, callbacks=[BackupState(tmp_path, every_steps=2), BreakOff(3)])
    assert [path.stem for path in tmp_path.iterdir()] == ["epoch-000000-step-000000002"]


@pytest.mark.parametrize("kind", ["plain", "tkd", "trikd"])
def test_no_state_is_written_from_a_loss_on_that_is_not_finite(kind, tmp_path):
    """Or the training would go on from it, as if nothing had been, when it is taken up."""
    images = IMAGES.astype("float32")
    images[13] = np.nan  # the third batch's
    data_set = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(6)

    def go_on():
        model, backup = make_training(kind), BackupState(tmp_path, every_steps=1)
        model.build((None, 6, 6, 1))
        position = backup.restore(model, data_set)
        with pytest.raises(FloatingPointError, match="at step 2 .from 0" if kind != "plain" else "loss of 'student'"):
            model.fit(data_set.skip(position[1]), verbose=0, callbacks=[backup])
        assert sorted(path.stem for path in tmp_path.iterdir()) == [f"epoch-000000-step-00000000{n}" for n in (1, 2)]
        return position

    assert [go_on(), go_on()] == [(0, 0), (0, 2)]
    # At the end of an epoch, before its validation could hide it.
    model, backup = make_training(kind), BackupState(tmp_path / "other")
    with pytest.raises(FloatingPointError):
        model.fit(data_set, verbose=0, callbacks=[backup])
    assert not (tmp_path / "other").exists() and backup.history == []


def test_several_workers_do_not_write_by_a_clock(tmp_path, monkeypatch):
    model = make_training("plain")
    backup = BackupState(tmp_path, every_minutes=1)
    backup.set_model(model)
    backup.on_train_begin()
    workers = object.__new__(tf.distribute.MultiWorkerMirroredStrategy)
    monkeypatch.setattr(model, "_distribute_strategy", workers)
    backup = BackupState(tmp_path, every_minutes=1)
    backup.set_model(model)
    with pytest.raises(ValueError, match="each worker has its own.*every_minutes=1. Set `every_steps`"):
        backup.on_train_begin()


def test_the_teacher_is_not_in_a_checkpoint(tmp_path):
    distiller = make_training("tkd")
    frozen = {id(variable) for variable in distiller.teacher.variables}
    own = {id(variable) for variable in distiller.state_variables}
    assert not frozen & own
    # The student's, the step; no layers of losses here.
    assert own == {id(variable) for variable in [*distiller.student.variables, distiller.step]}


def test_checkpoints_of_another_model_or_training(tmp_path):
    train("plain", tmp_path)
    with pytest.raises(ValueError, match="are of another model.*'distiller'"):
        train("tkd", tmp_path)
    other = BackupState(tmp_path, about={"seed": 1})
    model = make_training("plain")
    model.build((None, 6, 6, 1))
    assert other.restore(model) == (0, 0)


def fit_plain(backup):
    """A training of one step."""
    model = make_tiny()
    model.fit(np.zeros((4, 2)), np.zeros((4, 1)), verbose=0, callbacks=[backup])
    return model


def make_tiny(name="tiny"):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name=name)
    model.compile("sgd", "mse", run_eagerly=True)
    return model


def read_all(folder):
    return {path.name: path.read_bytes() for path in pathlib.Path(folder).iterdir()}


def test_another_training_does_not_take_the_place_of_one(tmp_path):
    fit_plain(BackupState(tmp_path, about={"seed": 1, "rate": 0.5}))
    before = read_all(tmp_path)
    backup = BackupState(tmp_path, about={"seed": 2, "rate": 0.5})
    for _ in range(2):
        rule = f"Received: {tmp_path}, where 'seed' is 1 there, and 2 here\\..*another folder"
        with pytest.raises(ValueError, match=rule):
            fit_plain(backup)
        # `restore` does not change that.
        assert backup.restore(make_tiny()) == (0, 0)
    with pytest.raises(ValueError, match="'rate' is 0.5 there, and not said here"):
        fit_plain(BackupState(tmp_path, about={"seed": 1}))
    assert read_all(tmp_path) == before
    BackupState(tmp_path).remove()
    fit_plain(backup)
    assert backup.position == (1, 0)


def test_a_training_that_begins_anew_does_not_remove_what_it_reached(tmp_path):
    first = BackupState(tmp_path)
    fit_plain(first)
    fit_plain(first)  # its own: it goes on
    before = read_all(tmp_path)
    with pytest.raises(ValueError, match=f"Received: {tmp_path} with a state of epoch 1, step 0.*restore.*or `remove"):
        fit_plain(BackupState(tmp_path))
    assert read_all(tmp_path) == before


@pytest.mark.parametrize("about", [{"size": np.zeros(2)}, {"rate": float("nan")}, [1], 0, {("a", "b"): 1}])
def test_what_a_training_is_must_be_plain_data(about, tmp_path):
    with pytest.raises(ValueError, match=r"`about` must be a dict of plain data.*Received: about="):
        BackupState(tmp_path, about=about)


def test_what_a_training_is_comes_back_as_json_has_it(tmp_path):
    """Tuples as lists, numbers that are keys as text."""
    about = {"size": (32, 32), 3: "three"}
    fit_plain(BackupState(tmp_path, about=about))
    assert BackupState(tmp_path, about=about).restore(make_tiny()) == (1, 0)


def test_the_history_comes_back_as_it_was(tmp_path):
    """Also of epochs of which not all have the same values, and of values that are no numbers."""
    history = [{"loss": 1.5}, {"loss": np.nan, "mine": 2.0}, {"loss": 0.5, "mine": np.inf, "accuracy": 0.1}]
    backup = BackupState(tmp_path)
    backup.history = list(history[:2])
    model = make_tiny()
    backup.set_model(model)
    backup.set_params({"steps": 1})
    backup.on_train_begin()
    backup.on_epoch_begin(2)
    backup.on_epoch_end(2, history[2])
    again = BackupState(tmp_path)
    assert again.restore(make_tiny()) == (3, 0)
    np.testing.assert_equal(again.history, history)


def test_it_is_taken_up_after_compile(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="not compiled.*`compile` before `restore`"):
        BackupState(tmp_path).restore(model)


RECORD = {"training": {}, "history": [{"loss": 1.0}], "seconds": 2.0}
FORGED = {
    "nothing": ({}, "'training'"),
    "no history": ({"training": {}, "seconds": 2.0}, "'history'"),
    "no seconds": ({"training": {}, "history": []}, "'seconds'"),
    "another kind of training": (RECORD | {"training": [1]}, "'training'"),
    "another kind of seconds": (RECORD | {"seconds": "2"}, "'seconds'"),
    "a history of numbers": (RECORD | {"history": [1.0]}, "'history'"),
    "a history of text": (RECORD | {"history": [{"loss": "low"}]}, "'history'"),
    "columns of other lengths": (RECORD | {"history": {"loss": [1.0, 2.0], "accuracy": [1.0]}}, "'history'"),
    "a column of text": (RECORD | {"history": {"loss": "low"}}, "'history'"),
    "a column of numbers": (RECORD | {"history": {"loss": 1.0}}, "'history'"),
    "another kind of hash": (RECORD | {"frozen": 7}, "'frozen'"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_checkpoint_that_no_training_wrote_is_named_and_the_one_before_it_used(kind, tmp_path, capsys):
    fit_plain(BackupState(tmp_path))
    about, entry = FORGED[kind]
    CheckpointFiles(tmp_path).write(2, 0, [np.zeros((2, 1), "float32")], about)
    assert BackupState(tmp_path).restore(make_tiny()) == (1, 0)
    assert f"epoch-000002-step-000000000.npz is damaged, and is not used: its entry {entry}" in capsys.readouterr().out


def test_a_checkpoint_of_an_earlier_version_is_taken_up(tmp_path):
    """Which kept no hash of the teacher."""
    model = distill_tiny()
    arrays = [keras.ops.convert_to_numpy(variable) for variable in model.state_variables]
    model.optimizer.build(model.trainable_variables)
    arrays += [keras.ops.convert_to_numpy(variable) for variable in model.optimizer.variables]
    CheckpointFiles(tmp_path).write(1, 0, arrays, RECORD)
    backup = BackupState(tmp_path)
    assert backup.restore(model) == (1, 0)
    assert backup.history == [{"loss": 1.0}] and backup.seconds == 2.0


def distill_tiny(bias=0.0, kind=Distiller):
    layers = {name: [keras.Input((2,)), keras.layers.Dense(3)] for name in ("teacher", "student", "anchor")}
    models = {name: keras.Sequential(each, name=name) for name, each in layers.items()}
    frozen = models["teacher" if kind is Distiller else "anchor"]
    frozen.set_weights([np.eye(2, 3), np.full(3, bias)])
    if kind is Distiller:
        model = Distiller(models["teacher"], models["student"], losses.SoftTargets())
    else:
        model = TriKD(models["teacher"], models["student"], models["anchor"])
    model.compile("sgd", LOSS, run_eagerly=True)
    return model


@pytest.mark.parametrize("kind", [Distiller, TriKD])
def test_another_teacher_does_not_take_a_training_up(kind, tmp_path):
    distill_tiny(kind=kind).fit(np.zeros((4, 2)), np.zeros(4), verbose=0, callbacks=[BackupState(tmp_path)])
    assert BackupState(tmp_path).restore(distill_tiny(kind=kind)) == (1, 0)
    other = distill_tiny(bias=0.5, kind=kind)
    before = [keras.ops.convert_to_numpy(variable) for variable in other.variables]
    with pytest.raises(ValueError, match=f"{tmp_path} are of a training with another teacher"):
        BackupState(tmp_path).restore(other)
    for old, variable in zip(before, other.variables, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), old)


def test_a_teacher_that_is_not_in_memory_cannot_be_another(tmp_path):
    distill_tiny().fit(np.zeros((4, 2)), np.zeros(4), verbose=0, callbacks=[BackupState(tmp_path)])
    student = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], name="student")
    model = Distiller(None, student, losses.SoftTargets())
    model.build({"image": (None, 2), "teacher": {"logits": (None, 3)}})
    model.compile("sgd", LOSS)
    assert BackupState(tmp_path).restore(model) == (1, 0)


def test_inside_an_epoch_it_needs_data(tmp_path):
    with pytest.raises(InterruptedError):
        train("plain", tmp_path, BreakOff(3), every_steps=1)
    model = make_training("plain")
    model.build((None, 6, 6, 1))
    with pytest.raises(ValueError, match="taken up with `data`.*epoch 0, step 3"):
        BackupState(tmp_path).restore(model)


@pytest.mark.parametrize("option", [{"every_steps": 0}, {"every_minutes": -1.0}])
def test_intervals_above_0(option, tmp_path):
    (name,) = option
    with pytest.raises(ValueError, match=f"`{name}` must be above 0"):
        BackupState(tmp_path, **option)
