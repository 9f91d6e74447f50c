"""Report of a folder: of one run, or of a comparison of many, out of the files that they left."""

import pathlib
import shlex

from keras_tkd.reports.comparison import BASELINE, describe_comparison, read_comparison
from keras_tkd.reports.exports import read_export
from keras_tkd.reports.page.page import check_packages, format_page
from keras_tkd.reports.page.report import History, Report, SizedModel, describe_single_run
from keras_tkd.reports.schema import read_results
from keras_tkd.reports.verdict import format_verdict
from keras_tkd.runs.layout import FLAGFILE, REPORT, RESULTS
from keras_tkd.runs.records import read_record
from keras_tkd.utils.files import write_text

__all__ = ["write_report"]

_COMPARISON = "comparison.json"
_TEACHER = "teacher"


def write_report(path):
    """Writes `report.html` into the folder of a run or of a comparison: one page that opens without a network.

    It is drawn out of the files that are there: no model is loaded. The same files give the same page.

    Args:
        path: the folder.

    Returns:
        The page's path.

    Raises:
        ValueError: the folder is neither that of a comparison nor of a finished run with a student; one of its files is
            damaged; what draws charts is not installed.
    """
    folder = pathlib.Path(path)
    check_packages()
    comparison = read_comparison(folder / _COMPARISON)
    report = _report_run(folder) if comparison is None else _report_comparison(comparison, folder)
    write_text(folder / REPORT, format_page(report))
    return folder / REPORT


def _report_comparison(comparison, folder):
    shown = [run for run in comparison.runs if run.test_accuracy is not None]
    sized = [_describe_model(name, shown, folder) for name in (_TEACHER, *comparison.methods)]
    lines = describe_comparison(comparison) or ["No verdict yet: no run of a method is finished."]
    return Report(
        title=f"{comparison.dataset}: {', '.join(comparison.methods[1:])} against the student alone",
        verdict=tuple(lines),
        comparison=comparison,
        source=_COMPARISON,
        models=tuple(filter(None, sized)),
        exported=_find_exported(folder),
        histories=tuple(
            history for run in comparison.runs for history in _read_histories(folder / run.path, run.method, run.seed)
        ),
        commands=(
            # What a comparison's flags leave out is the default; methods and seeds are the script's own.
            f"python scripts/compare.py --methods={shlex.quote(','.join(comparison.methods[1:]))} "
            f"--seeds={','.join(map(str, comparison.seeds))} --workdir=DIR \\",
            *(f"    {shlex.quote(flag)} \\" for flag in comparison.flags[:-1]),
            *(f"    {shlex.quote(flag)}" for flag in comparison.flags[-1:]),
        ),
    )


def _report_run(folder):
    results = read_results(folder / RESULTS)
    if results is None or results.student is None:
        raise ValueError(
            "A report is of a comparison's folder, or of a finished run with a student. Received: "
            f"{folder}, which has neither {_COMPARISON} nor such a {RESULTS}"
        )
    comparison = describe_single_run(results)
    roles = {_TEACHER: results.teacher, BASELINE: results.baseline, results.method: results.student}
    sized = [
        SizedModel(
            name=name,
            test_accuracy=model.test_accuracy,
            parameters=model.parameters,
            bytes=_count_bytes(folder / f"{'student' if model is results.student else name}.keras"),
        )
        for name, model in roles.items()
        if model is not None and model.test_accuracy is not None
    ]
    return Report(
        title=f"{results.dataset}: {results.method}",
        verdict=(_say_verdict(results),),
        comparison=comparison,
        source=RESULTS,
        models=tuple(sized),
        exported=_find_exported(folder),
        histories=tuple(_read_histories(folder, results.method, results.seed)),
        commands=(f"python scripts/distill.py --flagfile={FLAGFILE} --workdir=DIR",),
    )


def _say_verdict(results):
    if results.student.test_accuracy is None:
        return "All classes are in the open set: nothing is said of accuracies."
    if results.teacher is None:
        return f"The student alone: {results.student.test_accuracy:.2%} of the test images. Nothing was distilled."
    return format_verdict([results.to_dict()])


def _describe_model(name, runs, folder):
    """Returns the `SizedModel` of a method of a comparison, of its finished runs; None where there is none."""
    runs = [run for run in runs if run.method == name]
    if not runs:
        return None
    role = "teacher" if name == _TEACHER else "student"
    first = folder / runs[0].path
    results = read_results(first / RESULTS)
    model = results and getattr(results, role)
    return SizedModel(
        name=name,
        test_accuracy=sum(run.test_accuracy for run in runs) / len(runs),
        parameters=model and model.parameters,
        bytes=_count_bytes(first / f"{role}.keras"),
    )


def _count_bytes(path):
    return path.stat().st_size if path.is_file() else None


def _find_exported(folder):
    """Returns what was measured of exports of the folder's models, wherever beside them or inside their files are."""
    places = [folder.absolute().parent.glob("*/export.json"), folder.absolute().glob("*/export.json")]
    models = []
    for path in sorted({path for place in places for path in place}):
        results = read_export(path)
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


def _read_histories(folder, name, seed):
    """Yields the curves of the trainings in a run's folder, under the name of what each trained."""
    records = {path.parent.relative_to(folder / "checkpoints").as_posix(): path for path in _list_records(folder)}
    for stage, path in records.items():
        epochs = (read_record(path, {"history": list}) or {}).get("history") or []
        named = {"teacher": _TEACHER, "baseline": BASELINE}.get(stage, name)
        if stage.startswith("generations/"):
            named = f"{name}, generation {stage.split('/')[1]}"
        yield History(name=named, seed=seed, epochs=epochs)


def _list_records(folder):
    return sorted((folder / "checkpoints").rglob("record.json"))
