"""Content of a report, as plain data: what a folder's files say, before anything is drawn."""

import dataclasses
import math

from keras_tkd.reports.comparison import BASELINE, ComparedRun, Comparison, judge_comparison

__all__ = ["History", "Report", "SizedModel", "describe_single_run", "is_number"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizedModel:
    """A model with its accuracy and what it costs to keep and to run it.

    Attributes:
        name: `"teacher"`, a method, or the format of an exported file.
        test_accuracy: over several seeds the mean, 0..1.
        parameters: number of trainable parameters; None where that is not known.
        bytes: size of its file; None where there is none.
        milliseconds: median duration of a call with one image; None where nobody measured it.
    """

    name: str
    test_accuracy: float
    parameters: int | None = None
    bytes: int | None = None
    milliseconds: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """Learning curves of one training.

    Attributes:
        name: the method, or `"teacher"`.
        seed: the run's.
        epochs: list of dicts of numbers, one of each epoch; `val_` begins the names of those of held-out images.
    """

    name: str
    seed: int
    epochs: list[dict]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Content of a report.

    Attributes:
        title: for people.
        verdict: sentences that say what was shown, the most important first.
        comparison: the `Comparison`; of a single run that of its student with the student alone.
        source: name of the file that has its numbers.
        models: each with its size; teacher first.
        exported: the same of exported files, and of teacher and student as Keras runs them beside these.
        histories: learning curves.
        observations: dict from a method to the `Observations` of the run that is shown of it.
        classes: names of the classes, in the order of their labels; empty where they are not known.
        left_out: methods of which there are `Observations` too, that are not shown.
        shown_seed: the seed of these runs; None where there are none.
        command: lines of a shell that repeat it.
    """

    title: str
    verdict: tuple[str, ...]
    comparison: Comparison
    source: str
    models: tuple[SizedModel, ...] = ()
    exported: tuple[SizedModel, ...] = ()
    histories: tuple[History, ...] = ()
    observations: dict = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    shown_seed: int | None = None
    command: tuple[str, ...] = ()


def describe_single_run(results):
    """Returns the `Comparison` of one run: of its student with the student alone, where that is known.

    Args:
        results: the run's `Results`, of a student.
    """
    method, student, baseline = results.method, results.student, results.baseline
    runs = [_describe_model(method, student, results, baseline)]
    if baseline is not None:
        runs.insert(0, _describe_model(BASELINE, baseline, results))
    compared = baseline is not None and None not in (baseline.test_accuracy, student.test_accuracy)
    return Comparison(
        methods=tuple(run.method for run in runs),
        seeds=(results.seed,),
        flags=tuple(results.flags),
        dataset=results.dataset,
        epochs=results.epochs,
        test_samples=results.test_samples,
        parameters=student.parameters,
        teacher_accuracy=results.teacher and results.teacher.test_accuracy,
        runs=tuple(runs),
        verdicts=judge_comparison([method], [results.seed], {method: [results]}) if compared else {},
        versions=results.versions,
        task=results.task,
    )


def _describe_model(method, model, results, baseline=None):
    return ComparedRun(
        method=method,
        seed=results.seed,
        path="",
        status="collapsed" if model.at_chance else "finished",
        seconds=model.seconds,
        test_accuracy=model.test_accuracy,
        baseline_accuracy=baseline and baseline.test_accuracy,
        agreement=model.agreement,
        epochs=results.count_epochs(model),
    )


def is_number(value):
    """Returns whether a value can be drawn: a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
