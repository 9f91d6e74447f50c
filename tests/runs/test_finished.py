"""Folders whose results are of before the run was changed and interrupted: nobody takes them for finished ones."""

import json
import types

import pytest

from keras_tkd.config import DistillConfig, ExportConfig
from keras_tkd.config.flagfile import format_flags
from keras_tkd.reports.schema import ModelResult, Results, StudentResult
from keras_tkd.runs import export, write_report
from keras_tkd.runs.baseline import read_baseline
from keras_tkd.runs.checks import check_unseen
from keras_tkd.runs.workdir import Workdir

CONFIG = DistillConfig(method="kd", epochs=2).resolved()
OTHER = DistillConfig(method="kd", epochs=2, split_seed=5).resolved()


def begin(folder, config, existing="refuse", teacher="aa"):
    workdir = Workdir(folder, format_flags(config), existing)
    workdir.begin(teacher=teacher)
    return workdir


@pytest.fixture
def folder(tmp_path):
    """The folder of a finished run, in which nothing was trained."""
    workdir = begin(tmp_path / "run", CONFIG)
    for name in ("baseline.keras", "student.keras"):
        (workdir.path / name).write_text(name)
    (workdir.path / "split.json").write_text(json.dumps({"open_set_classes": ["a"]}))
    student = StudentResult(test_accuracy=0.5, parameters=1)
    fields = {"dataset": "digits", "seed": 0, "epochs": 2, "test_samples": 4, "student": student}
    baseline = ModelResult(test_accuracy=0.25, parameters=1)
    workdir.write_results(Results(method="kd", baseline=baseline, **fields).to_dict())
    return workdir.path


def read_as_baseline(folder):
    return read_baseline(DistillConfig(method="kd", epochs=2, baseline=str(folder)).resolved())


USES = {
    "export": lambda folder: export(ExportConfig(source=str(folder), output=str(folder.parent / "out"))),
    "report": write_report,
    "baseline": read_as_baseline,
    "open set": lambda folder: check_unseen(
        folder / "student.keras", types.SimpleNamespace(num_classes=2, open_set_names=["a"])
    ),
}


@pytest.mark.parametrize(("changed", "teacher"), [(OTHER, "aa"), (CONFIG, "bb")], ids=["flags", "teacher"])
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_run_that_was_changed_and_interrupted_is_refused(use, changed, teacher, folder):
    begin(folder, changed, "continue", teacher)
    with pytest.raises(ValueError, match="folder of a finished run .*results.json is of before the run was changed"):
        use(folder)
    assert not (folder.parent / "out").exists() and not (folder / "report.html").exists()


def test_a_run_that_is_finished_is_taken(folder):
    for name in ("report", "baseline", "open set"):
        USES[name](folder)


def test_results_of_another_teacher_are_not_this_runs(folder):
    assert Workdir(folder, format_flags(CONFIG)).read_finished_results() is not None
    # Interrupted at once; the flags are the same.
    workdir = begin(folder, CONFIG, "continue", "bb")
    assert workdir.read_finished_results() is None
    assert Workdir(folder, format_flags(CONFIG)).read_finished_results() is None
    workdir.write_results({"student": {"test_accuracy": 0.75}})
    assert Workdir(folder, format_flags(CONFIG)).read_finished_results()["student"] == {"test_accuracy": 0.75}
