"""Results of exports: what may be lost, what is said of it, and the table."""

import dataclasses
import json

import pytest

from keras_tkd.reports.exports import (
    ExportResults,
    MeasuredModel,
    explain_failure,
    format_export_table,
    read_export,
)

LATENCY = [{"batch_size": 1, "median_ms": 0.123456, "p95_ms": 1.5, "calls": 20}]


def make_model(title, accuracy, **more):
    values = {"path": title, "bytes": 12345, "drop": 0.9 - accuracy, "agreement": 0.5, "largest_difference": 0.25}
    values |= {"threads": 1, "latency": LATENCY}
    return MeasuredModel(title=title, test_accuracy=accuracy, **values | more)


def make_results(max_drop=None, *accuracies):
    files = [make_model(f"format {number}", accuracy) for number, accuracy in enumerate(accuracies)]
    return ExportResults(
        source="run/student.keras",
        dataset="pets",
        test_samples=1000,
        classes=["cat", "dog"],
        image_shape=[8, 8, 3],
        preprocessing="inside",
        scaling=[],
        training_layers=[],
        calibration=None,
        max_drop=max_drop,
        student=make_model("student", 0.9),
        teacher=make_model("teacher", 0.95, largest_difference=None),
        files=files,
        versions={},
    )


def test_what_was_written_is_read_and_durations_must_be_there(tmp_path):
    path, written = tmp_path / "export.json", json.loads(json.dumps(make_results(None, 0.5).to_dict()))
    path.write_text(json.dumps(written))
    assert read_export(path) == make_results(None, 0.5)
    for latency in ({"batch_size": 1, "median_ms": 2.0}, {"batch_size": 1, "median_ms": "2", "p95_ms": 3.0}):
        path.write_text(json.dumps(written | {"files": [written["files"][0] | {"latency": [latency]}]}))
        with pytest.raises(ValueError, match=f"{path} is damaged: it holds no measurements .*Put it back, or remove"):
            read_export(path)


@pytest.mark.parametrize(
    ("max_drop", "accuracies", "failed"),
    [
        (None, (0.1,), []),
        # 0.9 - 0.89 is 0.010000000000000009 in floats.
        (0.01, (0.89, 0.9, 0.95), []),
        (0.01, (0.889, 0.9, 0.5), ["format 0 0.8890 (a drop of 0.0110)", "format 2 0.5000 (a drop of 0.4000)"]),
        (0.0, (0.9, 0.899), ["format 1 0.8990 (a drop of 0.0010)"]),
    ],
)
def test_what_is_lost(max_drop, accuracies, failed):
    results = make_results(max_drop, *accuracies)
    sentence = explain_failure(results)
    assert results.passed == (not failed) == (sentence is None) == results.to_dict()["passed"]
    if failed:
        assert f"Received: {', '.join(failed)}. " in sentence
        assert f"may lose {max_drop} of" in sentence and "0.9000" in sentence


def test_of_images_of_several_classes_it_is_the_exact_match():
    results = make_results(0.01, 0.5)
    several = dataclasses.replace(results, task="multi_label")
    for text in (format_export_table, explain_failure):
        assert "test accuracy" in text(results) and "exact match" not in text(results)
        assert "exact match" in text(several) and "test accuracy" not in text(several)


def test_what_the_file_says():
    values = json.loads(json.dumps(make_results(0.01, 0.5).to_dict()))
    assert values["version"] == 1 and values["passed"] is False and values["max_drop"] == 0.01
    (file,) = values["files"]
    assert file["title"] == "format 0" and file["latency"] == LATENCY and file["quantization"] is None
    assert values["teacher"]["largest_difference"] is None


def test_the_table():
    caption, header, _, teacher, student, file = format_export_table(make_results(None, 0.5)).splitlines()
    assert caption.startswith("run/student.keras on 1,000 test images of pets; ") and "by one thread" in caption
    assert header.split()[-3:] == ["ms", "for", "1"]
    assert teacher.split() == "teacher (Keras) 12.3 kB 95.00 % - 50.00 % - 0.123 (1.5)".split()
    assert student.split() == "student (Keras) 12.3 kB 90.00 % - - - 0.123 (1.5)".split()
    assert file.split() == "format 0 12.3 kB 50.00 % 40.00 50.00 % 0.25 0.123 (1.5)".split()


def test_threads_are_told_where_they_differ():
    results = make_results(None, 0.5)
    student = dataclasses.replace(results.student, threads=0)
    assert "threads: 0, 1 (0: all)" in format_export_table(dataclasses.replace(results, student=student))
