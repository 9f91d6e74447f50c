"""Report of a folder: of one run, or of a comparison of many, out of the files that they left."""

import collections
import dataclasses
import pathlib
import shlex

import numpy as np

from keras_tkd.reports.comparison import BASELINE, read_comparison
from keras_tkd.reports.comparison_tables import describe_comparison
from keras_tkd.reports.observations import BASELINE_ROLE, STUDENT_ROLE, read_observations
from keras_tkd.reports.page.page import check_packages, format_page
from keras_tkd.reports.page.report import History, Report, describe_single_run
from keras_tkd.reports.schema import read_results
from keras_tkd.reports.verdict import format_verdict
from keras_tkd.runs.finished import read_finished
from keras_tkd.runs.layout import COMPARISON, OBSERVATIONS, REPORT, RESULTS
from keras_tkd.runs.records import read_record
from keras_tkd.runs.sized_models import describe_compared_models, describe_run_models, find_exported
from keras_tkd.utils.files import write_text

__all__ = ["write_report"]

_TEACHER = "teacher"
# Whose models are shown one by one, with pictures: so that the page stays small.
_MOST_METHODS = 6


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
    comparison = read_comparison(folder / COMPARISON)
    report = _report_run(folder) if comparison is None else _report_comparison(comparison, folder)
    write_text(folder / REPORT, format_page(report))
    return folder / REPORT


def _report_comparison(comparison, folder):
    shown = [run for run in comparison.runs if run.test_accuracy is not None]
    # What a method has of its own is listed below the command, as the flagfile that it names.
    own = {method: f"{method}={method}.flags" for method in comparison.settings}
    methods = ",".join(own.get(method, method) for method in comparison.methods[1:])
    seeds = ",".join(map(str, comparison.seeds))
    # Of each method the run of one seed, the same of all, so that they are compared with one student alone: the first
    # of those that most methods have, for one may have failed.
    students = [run for run in shown if run.method in comparison.methods]
    counts = collections.Counter(run.seed for run in students)
    seed = max(sorted(counts), key=counts.get, default=None)
    runs = {run.method: folder / run.path for run in students if run.seed == seed}
    observed = _gather_observations(runs, runs.get(BASELINE))
    lines = describe_comparison(comparison) or ["No verdict yet: no run of a method is finished."]
    return Report(
        title=f"{comparison.dataset}: {', '.join(comparison.methods[1:])} against the student alone",
        verdict=tuple(lines),
        comparison=comparison,
        source=COMPARISON,
        models=describe_compared_models(comparison, folder),
        exported=find_exported(folder),
        histories=tuple(
            history for run in comparison.runs for history in _read_histories(folder / run.path, run.method, run.seed)
        ),
        observations=dict(list(observed.items())[:_MOST_METHODS]),
        left_out=tuple(observed)[_MOST_METHODS:],
        classes=_read_classes(runs.values()),
        shown_seed=seed,
        # What a comparison's flags leave out is the default.
        command=_format_command("compare", comparison.flags, f"--methods={methods}", f"--seeds={seeds}"),
    )


def _report_run(folder):
    results = read_finished(folder)
    if results is None or results.student is None:
        raise ValueError(
            "A report is of a comparison's folder, or of a finished run with a student. Received: "
            f"{folder}, which has neither {COMPARISON} nor such a {RESULTS}"
        )
    comparison = describe_single_run(results)
    return Report(
        title=f"{results.dataset}: {results.method}",
        verdict=(_say_verdict(results),),
        comparison=comparison,
        source=RESULTS,
        models=describe_run_models(results, folder),
        exported=find_exported(folder),
        histories=tuple(_read_histories(folder, results.method, results.seed)),
        observations=_gather_observations({results.method: folder}, _find_baseline(results)),
        classes=_read_classes([folder]),
        shown_seed=results.seed,
        command=_format_command("distill", results.flags),
    )


def _format_command(script, flags, *more):
    """Returns the command that runs the same again, a line of a shell for each flag."""
    lines = [f"python scripts/{script}.py --workdir=DIR", *(f"    {shlex.quote(flag)}" for flag in (*more, *flags))]
    return tuple(f"{line} \\" for line in lines[:-1]) + (lines[-1],)


def _say_verdict(results):
    if results.student.test_accuracy is None:
        return "All classes are in the open set: nothing is said of accuracies."
    if results.teacher is None:
        return f"The student alone: {results.student.test_accuracy:.2%} of the test images. Nothing was distilled."
    return format_verdict([results.to_dict()])


def _gather_observations(runs, baseline):
    """Returns a dict from a method to the `Observations` of its run, each with the student alone where that is known.

    Args:
        runs: dict from a method to the folder of its run.
        alone: folder of the run that trained the student alone, if that is another; else None.
    """
    found = {method: read_observations(path / OBSERVATIONS) for method, path in runs.items()}
    beside = read_observations(baseline / OBSERVATIONS) if baseline else None
    gathered = {}
    for method, observations in found.items():
        # The student alone stands beside each of the others.
        if observations is None or (method == BASELINE and len(found) > 1):
            continue
        if beside is not None and BASELINE_ROLE not in observations.classes and method != BASELINE:
            # It was the student of its own run, or was trained beside another.
            role = BASELINE_ROLE if BASELINE_ROLE in beside.classes else STUDENT_ROLE
            if np.array_equal(beside.labels, observations.labels):
                observations = dataclasses.replace(
                    observations,
                    classes=observations.classes | {BASELINE_ROLE: beside.classes[role]},
                    confidences=observations.confidences | {BASELINE_ROLE: beside.confidences[role]},
                )
        gathered[method] = observations
    return gathered


def _find_baseline(results):
    """Returns the folder of the run that a run had its student alone from; None where it trained that itself."""
    named = [flag.partition("=")[2] for flag in results.flags if flag.startswith("--baseline=")]
    return pathlib.Path(named[0]) if named and named[0] not in ("train", "none") else None


def _read_classes(folders):
    """Returns the names of the classes, in the order of their labels, as the first of the runs that says them does."""
    for folder in folders:
        results = read_results(folder / RESULTS)
        if results and results.student and results.student.per_class_accuracy:
            return tuple(results.student.per_class_accuracy)
    return ()


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
