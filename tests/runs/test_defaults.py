"""What a run chooses where nobody said it: by the data, and never where somebody did."""

import dataclasses
import pickle
import types

import numpy as np
import pytest
from PIL import Image

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.config.fields import list_left_to_data
from keras_tkd.config.flagfile import format_flags
from keras_tkd.runs import commands, defaults
from keras_tkd.runs.run import open_run
from keras_tkd.utils.locks import FolderLock

CHOSEN = ("learning_rate", "epochs", "batch_size", "teacher_model", "student_model")


def choose(monkeypatch, config, images=128, size=64):
    """What is chosen for so many training images of so many pixels, without loading any."""
    shape = (size + 8, size, 3)
    splits = types.SimpleNamespace(train_labels=np.zeros(images, "int32"), image_shape=shape)
    splits.for_teacher = splits
    monkeypatch.setattr(defaults, "load_splits", lambda config: splits)
    config, loaded = defaults.choose_defaults(config)
    assert loaded in (None, splits)
    return config, loaded


def values(config, names=CHOSEN):
    return tuple(getattr(config, name) for name in names)


# The tables of defaults.py, at their edges, in the words of docs/pictures.md.
@pytest.mark.parametrize(
    ("images", "size", "expected"),
    [
        (20, 8, (0.01, 100, 16, "digits_teacher", "digits_student")),
        (99, 15, (0.01, 100, 16, "digits_teacher", "digits_student")),
        (100, 16, (0.01, 60, 32, "tkd_teacher", "tkd_student_2022")),
        (500, 96, (0.01, 40, 32, "tkd_teacher", "tkd_student_2022")),
        (2_000, 97, (0.01, 30, 64, "resnet20", "resnet8")),
        (10_000, 224, (0.01, 20, 128, "resnet20", "resnet8")),
        (100_000, 224, (0.01, 10, 128, "resnet20", "resnet8")),
    ],
)
def test_networks_go_by_the_size_of_images_and_the_budget_by_their_number(images, size, expected, monkeypatch, capsys):
    config, splits = choose(monkeypatch, DistillConfig(dataset="photos"), images, size)
    assert values(config) == expected and splits is not None
    shown = capsys.readouterr().out
    assert f"for {images:,} training images of {size + 8}x{size}x3" in shown
    assert f"--epochs={expected[1]}" in shown and f"--student_model={expected[4]}" in shown
    # All of it is said in the run's own flagfile, and nothing is left open there.
    assert f"--epochs={expected[1]}" in format_flags(config) and not set(list_left_to_data(config)) & set(CHOSEN)


def test_of_cifar10_all_is_chosen_as_of_other_data(monkeypatch):
    config, _ = choose(monkeypatch, DistillConfig(dataset="cifar10"), images=50_000, size=32)
    assert values(config) == (0.01, 20, 128, "tkd_teacher", "tkd_student_2022")


@pytest.mark.parametrize("cls", [DistillConfig, TeacherTrainingConfig])
def test_digits_has_defaults_of_its_own(cls, monkeypatch, capsys):
    monkeypatch.setattr(defaults, "load_splits", lambda config: pytest.fail("No data are needed"))
    config, splits = defaults.choose_defaults(cls(dataset="digits"))
    names = [name for name in CHOSEN if hasattr(config, name)]
    assert values(config, names) == (0.1, 30, 128, "digits_teacher", "digits_student")[: len(names)]
    assert splits is None and config == cls(dataset="digits") and not capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"teacher_path": ("nosuch.keras",)}, FileNotFoundError, "`teacher_path` must .*teacher_path='nosuch.keras'"),
        ({"teacher_outputs": "nosuch.npz"}, FileNotFoundError, "`teacher_outputs` must .*'nosuch.npz'"),
        ({"student_model": "nosuch.keras"}, FileNotFoundError, "`student_model` must .*'nosuch.keras'"),
        (
            {"teacher_model": "keras_applications/MobileNet", "teacher_model_weights": "nosuch.h5"},
            FileNotFoundError,
            "`teacher_model_weights` must .*'nosuch.h5'",
        ),
        ({"seed": 2}, ValueError, r"holds another experiment: there --seed=1.*, here --seed=2"),
    ],
)
def test_what_needs_no_data_is_refused_before_they_are_loaded(settings, error, says, monkeypatch, tmp_path):
    monkeypatch.setattr(defaults, "load_splits", lambda config: pytest.fail("Data were loaded"))
    if "seed" in settings:
        held = DistillConfig(dataset="photos", seed=1).resolved()
        (tmp_path / "flags.flags").write_text("\n".join(format_flags(held)))
        (tmp_path / "student.keras").write_text("a model")
    with pytest.raises(error, match=says):
        open_run("distill", DistillConfig(dataset="photos", **settings), tmp_path)


def test_what_data_are_to_decide_is_compared_with_a_folder_once_they_have(monkeypatch, tmp_path):
    """The folder's run had another budget than this one will choose, and nobody knows before the data are there."""
    config = DistillConfig(dataset="photos")
    (tmp_path / "flags.flags").write_text("\n".join(format_flags(dataclasses.replace(config, epochs=77).resolved())))
    (tmp_path / "student.keras").write_text("a model")
    splits = types.SimpleNamespace(train_labels=np.zeros(20, "int32"), image_shape=(8, 8, 3))
    splits.for_teacher = splits
    monkeypatch.setattr(defaults, "load_splits", lambda config: splits)
    with pytest.raises(ValueError, match="holds another experiment: there .*--epochs=77.*, here .*--epochs=100"):
        open_run("distill", config, tmp_path)


def test_a_folder_in_use_is_refused_before_data_are_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(defaults, "load_splits", lambda config: pytest.fail("Data were loaded"))
    lock = FolderLock(tmp_path)
    lock.take()
    try:
        with pytest.raises(BlockingIOError, match="is in use"):
            open_run("distill", DistillConfig(dataset="photos"), tmp_path)
    finally:
        lock.release()


def test_what_is_given_is_kept_though_it_is_the_default(monkeypatch):
    given = {"learning_rate": 0.1, "epochs": 30, "batch_size": 128, "student_model": "digits_student"}
    config, splits = choose(monkeypatch, DistillConfig(dataset="photos", **given, teacher_path="teacher.keras"))
    assert values(config, given) == tuple(given.values())
    # With a teacher of the user's own none is chosen, and no data are needed.
    assert splits is None and config.teacher_model == DistillConfig().teacher_model
    config, _ = choose(monkeypatch, DistillConfig(dataset="photos", epochs=30))
    assert values(config) == (0.01, 30, 32, "tkd_teacher", "tkd_student_2022")


def test_a_copy_for_another_process_leaves_the_same_open(monkeypatch):
    config = pickle.loads(pickle.dumps(DistillConfig(dataset="photos", epochs=30)))
    config, _ = choose(monkeypatch, dataclasses.replace(config, seed=1))
    assert values(config) == (0.01, 30, 32, "tkd_teacher", "tkd_student_2022")


def test_a_batch_is_no_larger_than_the_window(monkeypatch):
    config, _ = choose(monkeypatch, DistillConfig(dataset="flowers", shuffle_window=150), images=50_000)
    assert config.batch_size == 128
    config, _ = choose(monkeypatch, DistillConfig(dataset="flowers", shuffle_window=128, epochs=3), images=3_000)
    assert config.batch_size == 64
    # A window of less than the field's own 128, which nobody gave: at least 2,000 images have batches of 64.
    for window, batch_size in ((60, 60), (64, 64), (100, 64), (8, 8)):
        config, _ = choose(monkeypatch, DistillConfig(dataset="flowers", shuffle_window=window), images=3_000)
        assert config.batch_size == batch_size
    # What was given stands, the default's value too.
    with pytest.raises(ValueError, match="must be a batch or more. Received: shuffle_window=60, batch_size=128"):
        DistillConfig(shuffle_window=60, dataset="flowers", batch_size=128)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"optimizer": "adam"}, (0.001, 0.0)),
        ({"optimizer": "adamw"}, (0.001, 0.004)),
        ({"optimizer": "adamw", "weight_decay": 0.0}, (0.001, 0.0)),
        ({"optimizer": "adamw", "learning_rate": 0.1, "weight_decay": 0.05}, (0.1, 0.05)),
    ],
)
def test_adam_has_a_rate_of_its_own_on_any_data(settings, expected, monkeypatch):
    for dataset in ("digits", "photos"):
        config, _ = choose(monkeypatch, TeacherTrainingConfig(dataset=dataset, **settings))
        assert values(config, ("learning_rate", "weight_decay")) == expected


def test_a_folder_and_nothing_else_is_learned_and_is_finished_the_second_time(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name, low in (("dark", 0), ("light", 110)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(15):
            pixels = rng.integers(low, low + 140, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    config = TeacherTrainingConfig(dataset=str(tmp_path / "images"))
    results = commands.train_teacher(config, tmp_path / "run")
    assert results["teacher"]["test_accuracy"] == 1.0 and results["teacher"]["epochs"] == 100
    flags = (tmp_path / "run" / "flags.flags").read_text().splitlines()
    assert {"--learning_rate=0.01", "--epochs=100", "--batch_size=16", "--teacher_model=digits_teacher"} <= set(flags)
    capsys.readouterr()
    assert commands.train_teacher(config, tmp_path / "run") == results
    assert "Finished already" in capsys.readouterr().out
    # What is given there is another experiment, though the data would have chosen otherwise.
    with pytest.raises(ValueError, match="there --epochs=100.*, here --epochs=30"):
        commands.train_teacher(dataclasses.replace(config, epochs=30), tmp_path / "run")
