"""Early stopping and the choice of the best epoch: by validation images, exact under interruptions, alike for all."""

import types

import keras
import numpy as np
import pytest

from keras_tkd.callbacks import BackupState
from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.runs import commands, fitting
from keras_tkd.runs.epoch_selection import EpochSelection, find_best_epoch
from keras_tkd.runs.sweep_plan import list_steps, make_configs
from keras_tkd.utils.checkpoint_files import CheckpointFiles

QUICK = {
    "method": "baseline",
    "dataset": "digits",
    "validation_fraction": 0.2,
    "train_fraction": 0.2,
    # Large enough for accuracies that rise and fall.
    "learning_rate": 0.4,
    "schedule": "constant",
    "epochs": 8,
    "batch_size": 32,
    "at_chance": "warn",
}
CHOOSING = {"early_stopping_patience": 2, "select": "best_validation"}


class Note(keras.callbacks.Callback):
    """Keeps the weights and the validation accuracy of each epoch, and stops the process at one, as a kill would."""

    def __init__(self, killed_at=None):
        super().__init__()
        self.weights, self.accuracies, self.killed_at = [], [], killed_at

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.killed_at:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.get_weights())
        self.accuracies.append(logs["val_accuracy"])


def load_weights(workdir, name="student"):
    return keras.models.load_model(workdir / f"{name}.keras").get_weights()


def assert_equal(one, other):
    for array, same in zip(one, other, strict=True):
        np.testing.assert_array_equal(array, same)


def follow(accuracies, patience):
    """Returns the number of epochs that are trained, and the best of them, both by the words of the definition."""
    for trained in range(1, len(accuracies) + 1):
        best = max(range(trained), key=lambda epoch: (accuracies[epoch], -epoch))
        if trained - 1 - best == patience:
            break
    return trained, best + 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of all epochs, and what each of its epochs left."""
    note = Note()
    commands.distill(DistillConfig(**QUICK), tmp_path_factory.mktemp("whole"), callbacks=[note])
    return note


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    path = tmp_path_factory.mktemp("chosen")
    return path, commands.distill(DistillConfig(**QUICK, **CHOOSING), path)


def test_the_best_epoch_is_the_first_of_the_highest():
    history = [{"val_accuracy": value} for value in (0.1, 0.5, 0.3, 0.5, 0.4)]
    assert [find_best_epoch(history[:count]) for count in range(6)] == [0, 1, 2, 2, 2, 2]


def test_a_training_ends_and_has_the_weights_of_its_best_epoch(whole, chosen):
    path, results = chosen
    trained, best = follow(whole.accuracies, 2)
    # Else the test would show nothing.
    assert best < trained < 8, whole.accuracies
    assert (results["student"]["epochs"], results["student"]["selected_epoch"]) == (trained, best)
    assert_equal(load_weights(path), whole.weights[best - 1])
    assert not list((path / "checkpoints").rglob("*.npz"))


@pytest.mark.parametrize("settings", [{"early_stopping_patience": 2}, {"select": "best_validation"}], ids=str)
def test_each_of_the_two_goes_without_the_other(settings, whole, tmp_path):
    results = commands.distill(DistillConfig(**QUICK, **settings), tmp_path)
    if "select" in settings:
        _, best = follow(whole.accuracies, 8)
        assert (results["student"]["epochs"], results["student"]["selected_epoch"]) == (8, best)
        assert_equal(load_weights(tmp_path), whole.weights[best - 1])
    else:
        trained, _ = follow(whole.accuracies, 2)
        assert results["student"]["epochs"] == trained and "selected_epoch" not in results["student"]
        assert_equal(load_weights(tmp_path), whole.weights[trained - 1])


def test_a_run_that_is_killed_after_its_best_epoch_ends_as_the_other(whole, chosen, tmp_path):
    path, results = chosen
    trained, best = follow(whole.accuracies, 2)
    config = DistillConfig(**QUICK, **CHOOSING)
    for killed_at in (best, best + 1):
        with pytest.raises(KeyboardInterrupt):
            commands.distill(config, tmp_path, callbacks=[Note(killed_at)])
    note = Note()
    resumed = commands.distill(config, tmp_path, callbacks=[note])
    assert len(note.accuracies) == trained - best - 1
    assert_equal(load_weights(tmp_path), load_weights(path))
    for name in ("epochs", "selected_epoch", "test_accuracy", "confusion_matrix"):
        assert resumed["student"][name] == results["student"][name]


def test_a_run_that_is_killed_once_its_training_is_over_trains_no_further(chosen, tmp_path, monkeypatch):
    path, _ = chosen
    config = DistillConfig(**QUICK, **CHOOSING)
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            commands.distill(config, tmp_path)
    note = Note()
    commands.distill(config, tmp_path, callbacks=[note])
    assert not note.accuracies
    assert_equal(load_weights(tmp_path), load_weights(path))


def test_weights_are_on_disk_before_their_epoch_is_behind_the_training(tmp_path):
    """A kill between the two files leaves the state before the epoch, which is trained again."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([0, 1])
    stage = types.SimpleNamespace(checkpoints=tmp_path, settings={"seed": 0})
    config = types.SimpleNamespace(early_stopping_patience=None, select="best_validation", epochs=3)
    backup = BackupState(tmp_path)
    selection = EpochSelection(config, stage, [model], backup)

    class Kill(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[selection, Kill(), backup])
    assert backup.history == [] and len(list((tmp_path / "best").glob("*.npz"))) == 1
    model.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[selection, backup])
    kept = model.get_weights()
    model.set_weights([0 * weight for weight in kept])
    selection.finish()
    assert_equal(model.get_weights(), kept)
    # What is damaged is named, and not taken for the best.
    for file in (tmp_path / "best").glob("*.npz"):
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="The weights of epoch 1, the best of 1 by the validation images, are not in"):
        selection.finish()


@pytest.mark.parametrize(("epoch", "damaged"), [(2, False), (2, True), (1, False), (4, False)])
def test_weights_that_are_missing_are_told_of_when_a_training_is_taken_up(epoch, damaged, tmp_path, capsys):
    """The second of three epochs was the best; the weights of a fourth are there before its state is."""
    config = types.SimpleNamespace(early_stopping_patience=None, select="best_validation", epochs=9)
    stage = types.SimpleNamespace(checkpoints=tmp_path, settings={"seed": 0})
    backup = types.SimpleNamespace(history=[{"val_accuracy": accuracy} for accuracy in (0.5, 0.75, 0.25)])
    files = CheckpointFiles(tmp_path / "best")
    files.write(epoch, 0, [np.ones(2)], {"settings": {"seed": 0}})
    if damaged:
        (path,) = files.folder.iterdir()
        path.write_bytes(path.read_bytes()[:-1])
    EpochSelection(config, stage, [], backup).on_train_begin()
    said = f"Warning: the weights of epoch 2, the best so far, are not in {files.folder}"
    assert (said in capsys.readouterr().out) == (damaged or epoch == 1)


def test_teacher_baseline_and_student_are_chosen_by_one_rule(tmp_path):
    settings = QUICK | {"method": "kd", "epochs": 3, "teacher_model": "digits_student", **CHOOSING}
    results = commands.distill(DistillConfig(**settings, check="off"), tmp_path)
    for name in ("teacher", "baseline", "student"):
        assert 1 <= results[name]["selected_epoch"] <= results[name]["epochs"] <= 3
    # A baseline of another rule is one of another budget.
    other = settings | {"baseline": str(tmp_path), "select": "last", "teacher_path": str(tmp_path)}
    del other["teacher_model"]
    with pytest.raises(ValueError, match="another budget: select best_validation there, last here"):
        commands.distill(DistillConfig(**other), tmp_path / "other")


def test_all_runs_of_a_comparison_have_the_one_rule(tmp_path):
    base = DistillConfig(dataset="digits", validation_fraction=0.2, **CHOOSING)
    steps = list_steps(base, make_configs(base, ["kd", "trikd"]), [0, 1], tmp_path)
    assert [step.method for step in steps] == ["teacher", *["baseline", "kd", "trikd"] * 2]
    assert {(step.config.early_stopping_patience, step.config.select) for step in steps} == {(2, "best_validation")}


@pytest.mark.parametrize("make_config", [DistillConfig, TeacherTrainingConfig])
@pytest.mark.parametrize("settings", [{"early_stopping_patience": 3}, {"select": "best_validation"}], ids=str)
def test_test_images_choose_nothing(make_config, settings):
    with pytest.raises(ValueError, match="goes by the accuracy on validation images.*set `validation_fraction`"):
        make_config(**settings)
    make_config(**settings, validation_fraction=0.1)


def test_where_generations_are_chosen_there_are_validation_images_anyway():
    settings = {"method": "trikd", "select": "best_validation"}
    assert DistillConfig(**settings, generations=2).resolved().validation_fraction == 0.1
    with pytest.raises(ValueError, match="set `validation_fraction`"):
        DistillConfig(**settings, generations=2, validation_fraction=0.0)


@pytest.mark.parametrize(
    "settings, message",
    [({"early_stopping_patience": 0}, "must be >= 1"), ({"select": "best"}, "must be one of last, best_validation")],
)
def test_values_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        DistillConfig(**settings, validation_fraction=0.1)
