"""What results.json holds: read and written without loss, of this version and the one before."""

import json
import subprocess
import sys

import pytest

from keras_tkd.reports.schema import ImageCounts, ModelResult, Results, StudentResult, read_results, upgrade_results
from keras_tkd.reports.tables import format_table

# As keras_tkd wrote it before results had a version.
VERSION_1 = """{
  "method": "kd",
  "dataset": "digits",
  "classes": null,
  "seed": 3,
  "epochs": 20,
  "test_samples": 359,
  "teacher": {
    "test_accuracy": 0.975,
    "parameters": 72970,
    "at_chance": false
  },
  "baseline": {
    "test_accuracy": 0.85,
    "parameters": 666,
    "at_chance": false,
    "agreement": 0.86,
    "seconds": 4.5,
    "train_accuracy": 0.9
  },
  "student": {
    "test_accuracy": 0.875,
    "parameters": 666,
    "at_chance": false,
    "agreement": 0.88,
    "seconds": 5.25,
    "train_accuracy": 0.925,
    "epochs_to_baseline": 12
  },
  "train": {
    "seconds": 5.25,
    "images_per_second": 9000
  },
  "versions": {
    "python": "3.11.2",
    "keras_tkd": "0.1.0",
    "keras": "3.15.1",
    "tensorflow": "2.21.0",
    "machine": "x86_64, 2 CPUs",
    "gpus": 0
  },
  "flags": [
    "--dataset=digits",
    "--method=kd"
  ]
}
"""


def test_results_without_a_version_are_those_of_version_1(tmp_path):
    (tmp_path / "results.json").write_text(VERSION_1)
    results = read_results(tmp_path / "results.json")
    assert (results.version, results.method, results.seed, results.flags) == (
        2,
        "kd",
        3,
        ["--dataset=digits", "--method=kd"],
    )
    assert results.teacher == ModelResult(test_accuracy=0.975, parameters=72970, at_chance=False)
    assert results.student.epochs_to_baseline == 12 and results.baseline.train_accuracy == 0.9
    # Nothing but the version is another.
    assert results.to_dict() == {"version": 2} | json.loads(VERSION_1)
    assert "kd on digits, 20 epochs, seed 3" in format_table([json.loads(VERSION_1)])


def test_a_file_that_is_not_there_is_no_results(tmp_path):
    assert read_results(tmp_path / "results.json") is None


@pytest.mark.parametrize("version", [3, 0, "2", None, True, 1.0, 2.0])
def test_results_of_a_later_version_are_refused(version):
    with pytest.raises(ValueError, match=f"version 2 of their schema.*version={version!r}.*update") as error:
        upgrade_results({"version": version})
    assert "\n" not in str(error.value)


def test_what_must_be_there_is_named():
    with pytest.raises(ValueError, match="must say `method`. Received: version, dataset"):
        Results.from_dict({"dataset": "digits"})


MODEL = {"test_accuracy": 0.5, "parameters": 7, "at_chance": False}
VERIFIED = MODEL | {"agreement": 0.75, "seconds": 1.5, "epochs": 1, "verification": {"auc": 0.9, "pairs": "all"}}
STUDENT = VERIFIED | {"train_accuracy": 0.5, "epochs_to_baseline": None}
RUN = {"version": 2, "method": "kd", "dataset": "d", "classes": ["a", "b"], "seed": 0, "epochs": 1, "test_samples": 4}
RUN |= {"teacher": MODEL, "baseline": None, "student": STUDENT}
RUN |= {"train": {"seconds": 1.5, "images_per_second": None}, "versions": {"gpus": 0}}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"teachers": [MODEL, VERIFIED]},
        {"generations": [{"teacher": MODEL, "student": STUDENT, "validation_accuracy": None}], "generation": 1},
        {
            "student": {k: v for k, v in STUDENT.items() if k != "epochs_to_baseline"}
            | {"balanced_accuracy": 0.75, "per_class_accuracy": {"a": 0.5, "b": 1.0, "c": None}}
            | {"confusion_matrix": [[1, 1, 0], [0, 1, 0], [0, 0, 0]], "epochs_to_baseline": None}
        },
        # All classes in the open set: nothing of classes.
        {"teacher": {"parameters": 7, "verification": {"auc": 0.9}}},
    ],
)
def test_what_is_read_is_written_again(more):
    """With the keys in their order, and what is null told apart from what is not there."""
    values = RUN | more | {"flags": ["--seed=0"]}
    assert json.dumps(Results.from_dict(values).to_dict()) == json.dumps(values)


@pytest.mark.parametrize(
    "images",
    [
        {"train": {"a": 3, "b": 1}, "test": {"a": 2, "b": 2}},
        {
            "train": {"a": 3},
            "validation": {"a": 1},
            "test": {"a": 2},
            "open_set": {"b": 7},
            "skipped": {".txt files": 2},
            "bad": ["a/1.png cannot be decoded"],
        },
    ],
)
def test_counts_of_images_are_read_and_written(images):
    values = RUN | {"images": images, "flags": []}
    results = Results.from_dict(values)
    assert results.images == ImageCounts(**images)
    assert results.to_dict() == values
    # Files of before have none, and are of the same version.
    assert Results.from_dict(RUN).images is None and "images" not in Results.from_dict(RUN).to_dict()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("student", 5),
        ("student", [STUDENT]),
        ("student", "a"),
        ("teacher", True),
        ("teachers", MODEL),
        ("teachers", [5]),
        ("method", None),
        ("method", 5),
        ("seed", "0"),
        ("seed", True),
        ("epochs", 1.5),
        ("flags", "--seed=0"),
        ("flags", [1]),
        ("classes", 2),
        ("versions", []),
        ("train", 1.5),
    ],
)
def test_an_entry_of_another_kind_is_named_with_its_file(name, value, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(RUN | {name: value}))
    with pytest.raises(ValueError, match=f"{path} cannot be read: `{name}` must be of the kind.*Received: {name}="):
        read_results(path)


@pytest.mark.parametrize(
    "change",
    [
        {"test_accuracy": "high"},
        {"parameters": None},
        {"at_chance": 0},
        {"epochs": "a"},
        {"confusion_matrix": [[0.5]]},
        {"confusion_matrix": [1]},
        {"per_class_accuracy": [1.0]},
    ],
)
def test_an_entry_of_a_model_that_is_of_another_kind_is_named(change):
    with pytest.raises(ValueError, match=f"`{next(iter(change))}` must be of the kind"):
        Results.from_dict(RUN | {"student": STUDENT | change})


@pytest.mark.parametrize(
    ("role", "change", "said"),
    [
        ("teacher", {"test_accuracy": 1.5}, "`test_accuracy` must be a share, 0..1. Received: test_accuracy=1.5"),
        ("student", {"test_accuracy": -0.5}, "`test_accuracy` must be a share"),
        ("student", {"test_accuracy": float("nan")}, "`test_accuracy` must be a share"),
        ("student", {"gained": -8, "lost": 1}, "`gained` and `lost` must be numbers of .*Received: gained=-8"),
        ("student", {"gained": RUN["test_samples"], "lost": 1}, "`gained` and `lost` must be numbers of test images"),
    ],
)
def test_numbers_that_no_run_measures_are_refused(role, change, said):
    with pytest.raises(ValueError, match=said):
        Results.from_dict(RUN | {role: STUDENT | change})


def test_fields_of_nobody_are_passed_over():
    assert Results.from_dict(RUN | {"unknown": 1}) == Results.from_dict(RUN)


def test_a_student_says_that_no_epoch_reached_the_baseline():
    assert StudentResult(parameters=7).to_dict() == {"parameters": 7, "epochs_to_baseline": None}


def test_reports_need_no_tensorflow():
    code = """
import sys
import keras_tkd.reports.schema, keras_tkd.reports.tables, keras_tkd.reports.verdict
loaded = {"tensorflow", "keras"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True)
