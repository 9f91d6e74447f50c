"""Reports of folders: of one run, of a comparison, out of what they left."""

import json

import pytest
from page_reading import Page

from keras_tkd.reports.schema import ModelResult, Results, StudentResult
from keras_tkd.runs import write_report
from keras_tkd.utils.files import write_json

HISTORY = [{"loss": 2.5, "val_loss": 2.25, "accuracy": 0.5}, {"loss": 1.5, "val_loss": 1.75, "accuracy": 0.75}]


def write_run(folder, **more):
    """A finished run's files, models aside, in which nothing was trained."""
    fields = {
        "method": "kd",
        "dataset": "digits",
        "seed": 3,
        "epochs": 2,
        "test_samples": 80,
        "teacher": ModelResult(test_accuracy=0.975, parameters=72_970, at_chance=False),
        "baseline": ModelResult(test_accuracy=0.8125, parameters=666, at_chance=False, seconds=2.5),
        "student": StudentResult(
            test_accuracy=0.9, parameters=666, at_chance=False, seconds=3.5, agreement=0.8875, gained=9, lost=2
        ),
        "flags": ("--epochs=2", "--method=kd"),
    }
    write_json(folder / "results.json", Results(**fields | more).to_dict())
    (folder / "student.keras").write_bytes(b"x" * 1_234)
    for stage in ("teacher", "baseline", "student"):
        record = {"settings": {}, "history": HISTORY, "seconds": 1.0, "finished": True}
        write_json(folder / "checkpoints" / stage / "record.json", record)
    return folder


def read_page(folder):
    return Page(write_report(folder).read_text())


def test_one_run_has_the_same_page(tmp_path):
    page = read_page(write_run(tmp_path))
    runs = {run["method"]: run for run in page.embedded["runs"]}
    assert runs["baseline"]["test_accuracy"] == runs["kd"]["baseline_accuracy"] == 0.8125
    assert (runs["kd"]["test_accuracy"], runs["kd"]["agreement"], runs["kd"]["seed"]) == (0.9, 0.8875, 3)
    # Of 80 images 9 are gained and 2 lost: p = 2 * (1 + 11 + 55) / 2^11.
    verdict = page.embedded["verdicts"]["kd"]
    assert verdict["gain"] == pytest.approx(7 / 80) and verdict["p"] == pytest.approx(2 * 67 / 2**11)
    assert "Distilled minus alone, same budget: +8.75 points" in page.text
    sizes = {row["model"]: (row["parameters"], row["bytes"]) for row in page.list_values() if "bytes" in row}
    assert sizes == {"teacher": (72_970, None), "student alone": (666, None), "kd": (666, 1_234)}
    assert "python scripts/distill.py --flagfile=flags.flags" in page.text


def test_curves_are_those_of_the_trainings(tmp_path):
    folder = write_run(tmp_path)
    longer = [{"loss": 9.0 - epoch / 100, "images_per_second": 5.0, "accuracy": float("nan")} for epoch in range(500)]
    write_json(folder / "checkpoints" / "student" / "record.json", {"history": longer})
    curves = {}
    for row in read_page(folder).list_values():
        if "epoch" in row:
            curves.setdefault((row["model"], row["images"], row["value"] > 2), []).append((row["epoch"], row["value"]))
    assert curves["teacher", "train", True] == [(1, 2.5)] and curves["teacher", "held out", True] == [(1, 2.25)]
    assert curves["student alone", "train", False] == [(1, 0.5), (2, 0.75), (2, 1.5)]
    # Neither a clock's nor what is no number; the ends are there, and about 200 points.
    epochs = [epoch for epoch, _ in curves["kd", "train", True]]
    assert (epochs[0], epochs[-1]) == (1, 500) and 150 < len(epochs) <= 201
    assert [key for key in curves if key[0] == "kd"] == [("kd", "train", True)]


def test_a_run_without_a_teacher_has_a_page(tmp_path):
    page = read_page(write_run(tmp_path, method="baseline", teacher=None, baseline=None))
    assert page.embedded["methods"] == ["baseline"] and page.embedded["verdicts"] == {}
    assert "Nothing was distilled" in page.text and "90.00%" in page.text


def test_a_run_that_compares_no_classes_has_a_page(tmp_path):
    model = ModelResult(parameters=666)
    page = read_page(write_run(tmp_path, teacher=model, baseline=model, student=StudentResult(parameters=666)))
    assert "All classes are in the open set" in page.text and page.embedded["verdicts"] == {}


def test_latency_is_shown_where_an_export_measured_it(tmp_path):
    run = write_run(tmp_path / "run")
    assert "Latency was not measured" in read_page(run).text
    model = {
        "title": "student", "path": "student.keras", "bytes": 1_234, "test_accuracy": 0.9, "drop": 0.0,
        "agreement": 1.0, "largest_difference": 0.0, "threads": 1,
        "latency": [{"batch_size": 32, "median_ms": 9.0}, {"batch_size": 1, "median_ms": 0.625}],
    }  # fmt: skip
    values = {
        "version": 1, "source": str(run / "student.keras"), "dataset": "digits", "test_samples": 80, "classes": ["0"],
        "image_shape": [8, 8, 1], "preprocessing": "inside", "scaling": [], "training_layers": [], "calibration": None,
        "max_drop": None, "passed": True, "student": model, "teacher": None, "versions": {},
        "files": [model | {"title": "litert_float32", "path": "model.tflite", "bytes": 999}],
    }  # fmt: skip
    write_json(tmp_path / "run_export" / "export.json", values)
    # One of another run's student is none of this.
    other = json.dumps(values | {"source": str(tmp_path / "other" / "student.keras")})
    (tmp_path / "other_export").mkdir()
    (tmp_path / "other_export" / "export.json").write_text(other)
    page = read_page(run)
    timed = [(row["model"], row["milliseconds"]) for row in page.list_values() if row.get("milliseconds")]
    assert timed == [("student (Keras)", 0.625), ("litert_float32", 0.625)]
    assert "Latency was not measured" not in page.text


def test_what_is_no_finished_run_of_a_student_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a comparison's folder, or of a finished run with a student"):
        write_report(tmp_path)
    write_run(tmp_path, method="teacher", student=None, baseline=None)
    with pytest.raises(ValueError, match="a comparison's folder, or of a finished run with a student"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
