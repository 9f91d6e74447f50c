"""What is wrong and needs no data to be told is refused before these are loaded, whichever flag it is of."""

import dataclasses

import numpy as np
import pytest

from keras_tkd import data
from keras_tkd.config import DistillConfig, EvaluateConfig, ExportConfig, TeacherTrainingConfig
from keras_tkd.config.fields import list_left_to_data
from keras_tkd.config.flagfile import format_flags
from keras_tkd.data import image_reading
from keras_tkd.runs import commands, sweep, tuning
from keras_tkd.runs.baseline import read_baseline
from keras_tkd.utils import files
from keras_tkd.utils.files import write_json

# In place of what the data would choose.
GIVEN = {"epochs": 1, "batch_size": 8, "learning_rate": 0.1, "student_model": "resnet8", "teacher_model": "resnet20"}


@pytest.fixture
def here(tmp_path):
    """A folder with files of all the wrong kinds, in which nothing may change."""
    for name in ("images/a/0.png", "images/b/1.png", "file.txt", "cut.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"no image, nor anything else")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.keras").mkdir()
    np.savez(tmp_path / "logits.npz", train=np.zeros((2, 2), "float32"))
    before = sorted(tmp_path.rglob("*"))
    yield tmp_path
    assert sorted(tmp_path.rglob("*")) == before


def fill(value, here):
    if isinstance(value, tuple):
        return tuple(fill(each, here) for each in value)
    return value.format(here=here) if isinstance(value, str) else value


def run(command, settings, here):
    """Runs a command whose data are a folder of images, and that is refused."""
    settings = {"dataset": "{here}/images", "workdir": "{here}/run"} | settings
    settings = {name: fill(value, here) for name, value in settings.items()}
    workdir = settings.pop("workdir")
    if command == "distill":
        commands.distill(DistillConfig(**settings), workdir)
    elif command == "train_teacher":
        commands.train_teacher(TeacherTrainingConfig(**settings), workdir)
    elif command == "compare":
        methods = settings.pop("methods", ("kd",))
        sweep.compare(DistillConfig(**settings), workdir, methods, (0,))
    elif command == "tune":
        tuning.tune(DistillConfig(**settings), workdir, ("kd",), 1)
    elif command == "evaluate":
        commands.evaluate(EvaluateConfig(**settings))
    else:
        commands.export(ExportConfig(**{"output": f"{here}/export"} | settings))


INSIDE = ".*must be a folder outside the data set's, where it would be taken for a class"
NO_TEACHER = "`teacher_path` must be a file of Keras's, .* in which there is neither"
NOT_MADE = "must be a folder that can be written to, or made.*file.txt is no folder"
# Settings of a run of distill, and the beginning of what is said of them.
OF_RUNS = [
    ({"baseline": "{here}/nosuch"}, "`baseline` must be 'train', 'none', or the workdir of a finished run"),
    ({"baseline": "{here}/empty"}, "`baseline` must be 'train', 'none', or the workdir of a finished run"),
    ({"teacher_path": "{here}/nosuch.keras"}, "`teacher_path` must be an existing file or folder"),
    ({"teacher_path": "{here}/empty"}, NO_TEACHER),
    ({"teacher_path": "{here}/folder.keras"}, NO_TEACHER),
    ({"teacher_path": "{here}/file.txt"}, "`teacher_path` must be a file that ends with .keras"),
    ({"teacher_path": "{here}/logits.npz"}, "`teacher_path` must be a model.*--teacher_outputs"),
    ({"teacher_path": ("{here}/empty", "{here}/nosuch"), "teacher_average": "losses"}, "`teacher_path` must be"),
    ({"teacher_outputs": "{here}/nosuch.npz"}, "`teacher_outputs` must be an existing file"),
    ({"teacher_outputs": "{here}/file.txt"}, "`teacher_outputs`.*it is another kind of file"),
    ({"teacher_outputs": "{here}/cut.npz"}, "`teacher_outputs`.*cut.npz"),
    ({"teacher_outputs": "{here}/empty"}, "`teacher_outputs` must be an existing file"),
    ({"student_model": "nosuch"}, "`student_model` must be a model's name"),
    ({"student_model": "{here}/nosuch.keras"}, "`student_model` must be an existing file"),
    ({"student_model": "{here}/folder.keras"}, "`student_model` must be an existing file"),
    ({"student_model": "keras_applications/Nosuch"}, "`student_model`.*Nosuch"),
    ({"teacher_model": "nosuch"}, "`teacher_model` must be a model's name"),
    ({"teacher_model": "{here}/nosuch.h5"}, "`teacher_model` must be an existing file"),
    (
        {"student_model": "keras_applications/MobileNet", "student_model_weights": "{here}/nosuch.h5"},
        "`student_model_weights` must be an existing file",
    ),
    (
        {"teacher_model": "keras_applications/MobileNet", "teacher_model_weights": "{here}/empty"},
        "`teacher_model_weights` must be an existing file",
    ),
    ({"custom_objects": ("no_such_module",)}, "`custom_objects` must be Python modules"),
    ({"teacher_cache": "{here}/file.txt"}, f"`teacher_cache` {NOT_MADE}"),
    ({"teacher_cache": "{here}/file.txt/below"}, f"`teacher_cache` {NOT_MADE}"),
    ({"decoded_cache": "{here}/file.txt/below"}, f"`decoded_cache` {NOT_MADE}"),
    ({"workdir": "{here}/file.txt/below"}, f"`workdir` {NOT_MADE}"),
    ({"workdir": "{here}/images/run"}, f"`workdir` {INSIDE}"),
    ({"teacher_cache": "{here}/images/a/../cache"}, f"`teacher_cache` {INSIDE}"),
]
OF_TEACHERS = [
    ({"teacher_model": "nosuch"}, "`teacher_model` must be a model's name"),
    ({"teacher_model": "{here}/nosuch.keras"}, "`teacher_model` must be an existing file"),
    ({"custom_objects": ("no_such_module",)}, "`custom_objects` must be Python modules"),
    ({"workdir": "{here}/file.txt/below"}, f"`workdir` {NOT_MADE}"),
    ({"workdir": "{here}/images"}, f"`workdir` {INSIDE}"),
]
# A comparison trains the student alone itself.
OF_COMPARISONS = [
    *((settings, says) for settings, says in OF_RUNS if "baseline" not in settings),
    ({"methods": ("nosuch",)}, "`methods` must be one of"),
]
MODEL = {"model_path": "{here}/nosuch.keras"}
OF_MEASUREMENTS = [
    ("evaluate", MODEL, "`model_path` must be an existing file"),
    ("evaluate", {"model_path": "{here}/folder.keras"}, "`model_path` must be an existing file"),
    ("evaluate", {"model_path": "{here}/file.txt"}, "`model_path` must be a .keras file"),
    ("export", {"source": "{here}/nosuch.keras"}, "`source` must be .*nosuch.keras.*, which is not there"),
    ("export", {"source": "{here}/empty"}, "`source` must be a .keras file, or the folder of a finished run"),
    ("export", {"source": "{here}/m.keras", "output": "{here}/file.txt/below"}, f"`output` {NOT_MADE}"),
    ("export", {"source": "{here}/file.txt", "output": "{here}/images/out"}, f"`output` {INSIDE}"),
]


def refuse_data(*args, **kwargs):
    pytest.fail("Data were loaded")


def give(command, settings):
    """Returns the settings with all those besides that data would choose."""
    cls = TeacherTrainingConfig if command == "train_teacher" else DistillConfig
    given = {field.name: GIVEN[field.name] for field in dataclasses.fields(cls) if field.name in GIVEN}
    if settings.keys() & {"teacher_path", "teacher_outputs"}:
        del given["teacher_model"]
    return given | settings


OF_TRAININGS = [
    *(("distill", {"method": "kd"} | settings, says) for settings, says in OF_RUNS),
    *(("train_teacher", *row) for row in OF_TEACHERS),
    *(("compare", *row) for row in OF_COMPARISONS),
]


@pytest.mark.parametrize(
    ("command", "settings", "says"),
    [
        *OF_TRAININGS,
        *((command, give(command, settings), says) for command, settings, says in OF_TRAININGS),
        *OF_MEASUREMENTS,
        ("tune", {"workdir": "{here}/images/tuning"}, f"`workdir` {INSIDE}"),
    ],
)
def test_it_is_refused_before_data_are_loaded(command, settings, says, here, monkeypatch):
    monkeypatch.setattr(data, "load", refuse_data)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        run(command, settings, here)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"labels": "{here}/nosuch.csv"}, "nosuch.csv"),
        ({"labels": "{here}/empty"}, "`labels`.*empty"),
        ({"labels": "{here}/file.txt"}, "A table of labels must have the columns.*file.txt"),
        ({"data_dir": "{here}/nosuch"}, "`data_dir`.*nosuch"),
        ({"dataset": "{here}/nosuch"}, "nosuch"),
        ({"dataset": "{here}/file.txt"}, "file.txt"),
        ({"decoded_cache": "{here}/images/a/cache"}, "`decoded_cache` .*must be a folder outside the data set's"),
    ],
)
def test_of_the_data_themselves_it_is_refused_before_an_image_is_read(settings, says, here, monkeypatch):
    monkeypatch.setattr(image_reading, "measure_image", refuse_data)
    monkeypatch.setattr(image_reading, "read_image", refuse_data)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        run("distill", {"method": "kd", "student_model": "resnet8"} | settings, here)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    """Whoever runs this may write anywhere, as in a container: the system's answer is put in its place."""
    files.check_writable(tmp_path / "a" / "b", "output")
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match=f"`output` must be a folder .*b', of which {tmp_path} may not be written to"):
        files.check_writable(tmp_path / "a" / "b", "output")


def test_a_baseline_is_compared_in_what_is_not_left_to_the_data(tmp_path):
    """Its epochs may still become those of the other run; its seed will not."""
    config = DistillConfig(dataset="photos", method="baseline", epochs=77, batch_size=16, student_model="resnet8")
    results = {"method": "baseline", "dataset": "photos", "seed": 0, "epochs": 77, "test_samples": 2}
    results |= {"teacher": None, "baseline": None, "flags": format_flags(config.resolved())}
    student = {"test_accuracy": 0.9, "parameters": 666, "at_chance": False, "epochs_to_baseline": None}
    write_json(tmp_path / "results.json", results | {"student": student})
    here = DistillConfig(dataset="photos", method="kd", baseline=str(tmp_path)).resolved()
    left = list_left_to_data(here)
    assert {"epochs", "batch_size", "student_model"} <= set(left)
    assert read_baseline(here, undecided=left).test_accuracy == 0.9
    with pytest.raises(ValueError, match="had another budget: seed 0 there, 1 here. Train one"):
        read_baseline(dataclasses.replace(here, seed=1), undecided=left)
    # Once chosen, they are compared.
    with pytest.raises(ValueError, match="had another budget: epochs 77 there, 30 here"):
        read_baseline(here)
