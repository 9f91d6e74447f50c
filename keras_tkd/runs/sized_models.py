"""The models of a folder with what they cost: parameters, bytes, milliseconds. Out of its files; no model is loaded."""

import pathlib
import statistics

from keras_tkd.config.flagfile import parse_lines
from keras_tkd.reports.comparison import BASELINE
from keras_tkd.reports.exports import read_export
from keras_tkd.reports.page.report import SizedModel
from keras_tkd.reports.schema import read_results
from keras_tkd.runs.layout import RESULTS
from keras_tkd.runs.teacher_files import find_teacher_file

__all__ = ["describe_compared_models", "describe_run_models", "find_exported"]

_TEACHER = "teacher"


def describe_run_models(results, folder):
    """Returns the `SizedModel` of teacher, student alone and student, as far as a run has them.

    Args:
        results: its `Results`.
        folder: its folder.
    """
    # Student and student alone are one network.
    students = _take_latency([results], "student")
    models = [
        _describe(_TEACHER, results.teacher, _find_teacher(results, folder), _take_latency([results], _TEACHER)),
        _describe(BASELINE, results.baseline, folder / "baseline.keras", students),
        _describe(results.method, results.student, folder / "student.keras", students),
    ]
    return tuple(filter(None, models))


def describe_compared_models(comparison, folder):
    """Returns the `SizedModel` of the teacher that all share, and of each method, as far as runs are finished.

    Args:
        comparison: the `Comparison`.
        folder: its folder.
    """
    runs = [run for run in comparison.runs if run.test_accuracy is not None]
    found = {run.path: read_results(folder / run.path / RESULTS) for run in runs}
    found = {path: results for path, results in found.items() if results is not None}
    models = []
    # A teacher that learned with its student is that run's own.
    shared = {
        path: results
        for path, results in found.items()
        if results.teacher and results.teacher.test_accuracy == comparison.teacher_accuracy
    }
    if comparison.teacher_accuracy is not None and shared:
        path, results = next(iter(shared.items()))
        took = _take_latency(shared.values(), _TEACHER)
        models.append(_describe(_TEACHER, results.teacher, _find_teacher(results, folder / path), took))
    # All methods have the same student: what measurements differ by is chance.
    students = _take_latency(found.values(), "student")
    for method in comparison.methods:
        each = [run for run in comparison.list_runs(method) if run.path in found]
        if each:
            accuracy = statistics.mean(run.test_accuracy for run in each)
            student, file = found[each[0].path].student, folder / each[0].path / "student.keras"
            models.append(_describe(method, student, file, students, accuracy))
    return tuple(models)


def _describe(name, model, file, milliseconds, accuracy=None):
    """Returns the `SizedModel` of a `ModelResult`; None where nothing is known of it."""
    accuracy = accuracy if model is None or accuracy is not None else model.test_accuracy
    if accuracy is None:
        return None
    size = file.stat().st_size if file and file.is_file() else None
    return SizedModel(
        name=name, test_accuracy=accuracy, parameters=model.parameters, bytes=size, milliseconds=milliseconds
    )


def _take_latency(runs, role):
    """Returns the median of what several `Results` say of one network's latency; None where none says anything."""
    known = [results.latency_ms[role] for results in runs if role in (results.latency_ms or {})]
    return statistics.median(known) if known else None


def _find_teacher(results, folder):
    """Returns the path of the teacher's file, the run's own or another's; None where none is named, or several are."""
    own, named = folder / "teacher.keras", parse_lines(results.flags).get("teacher_path")
    return own if own.is_file() or not named else find_teacher_file(named)


def find_exported(folder):
    """Returns what was measured of exports of the folder's models, wherever beside them or inside their files are."""
    places = [folder.absolute().parent.glob("*/export.json"), folder.absolute().glob("*/export.json")]
    models = []
    for path in sorted({path for place in places for path in place}):
        try:
            results = read_export(path)
        except (ValueError, OSError) as error:
            # Beside the folder there may be anything.
            print(f"Warning: an export is left out of the report: {error}", flush=True)
            continue
        if results is None or not pathlib.Path(results.source).absolute().is_relative_to(folder.absolute()):
            continue
        which = pathlib.Path(results.source).absolute().parent.relative_to(folder.absolute()).as_posix()
        for model in filter(None, (results.teacher, results.student, *results.files)):
            title = f"{model.title} (Keras)" if model in (results.teacher, results.student) else model.title
            single = [each["median_ms"] for each in model.latency if each["batch_size"] == 1]
            models.append(
                SizedModel(
                    name=title if which == "." else f"{title}, {which}",
                    test_accuracy=model.test_accuracy,
                    bytes=model.bytes,
                    milliseconds=single[0] if single else None,
                )
            )
    return tuple(model for model in models if model.milliseconds is not None)
