"""Comparisons of methods: the schema of `comparison.json`. No TensorFlow here.

Accuracies are shares, 0..1, gains differences of them.
"""

import dataclasses

from keras_tkd.evaluation.significance import Verdict
from keras_tkd.reports.fields import check_kinds
from keras_tkd.reports.verdict import judge_results
from keras_tkd.reports.versions import read_versioned

__all__ = [
    "BASELINE",
    "COMPARISON_VERSION",
    "ComparedRun",
    "Comparison",
    "judge_comparison",
    "name_method",
    "read_comparison",
]

# Raise it when a field changes its meaning or its name, or goes.
COMPARISON_VERSION = 1

BASELINE = "baseline"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One run of a comparison.

    Attributes:
        method: as it was given; `"teacher"` of the teacher that all share.
        seed: the run's.
        path: its folder, in that of the comparison.
        status: `"finished"`; `"collapsed"`, finished at chance or stopped there; `"failed"`; `"waiting"`, which it also
            is where another run that it builds on failed, or was stopped at chance.
        error: one line that says why it failed, was stopped or is left out; None where nothing of this holds.
        seconds: of the training of its student, or of the teacher; None where there is none.
        test_accuracy: its student's, or the teacher's.
        baseline_accuracy: that of the student alone of the same seed; None where that was not trained.
        agreement: share of the test images for which it names the teacher's class; None without a teacher.
        epochs: those of that training, fewer than planned where it ended early; None where that is not known.
    """

    method: str
    seed: int
    path: str
    status: str = "waiting"
    error: str | None = None
    seconds: float | None = None
    test_accuracy: float | None = None
    baseline_accuracy: float | None = None
    agreement: float | None = None
    epochs: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The content of `comparison.json`.

    Attributes:
        version: number of this schema.
        methods: as they were given, the baseline first.
        seeds: those of every method.
        flags: lines of a flagfile with what all runs share.
        settings: dict from a method to the lines of a flagfile with what it has of its own; without those that have
            nothing.
        dataset: name of the data set.
        epochs: those of every student, as planned.
        task: `"multi_label"` where images may have several classes: accuracies are then exact matches; None where each
            has one.
        test_samples: number of test images; None while no run is finished.
        parameters: of the student, likewise.
        teacher_accuracy: test accuracy of the teacher that all share; None where no run that has it is finished.
        runs: all of them, finished or not.
        verdicts: dict from each method but the baseline to its `Verdict`.
        versions: of Python, packages and machine.
        data: dict from what of the images and labels all runs share to its hash; None where an earlier version wrote
            the file.
    """

    version: int = COMPARISON_VERSION
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    flags: tuple[str, ...]
    settings: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dataset: str
    epochs: int
    task: str | None = None
    test_samples: int | None = None
    parameters: int | None = None
    teacher_accuracy: float | None = None
    runs: tuple[ComparedRun, ...] = ()
    verdicts: dict[str, Verdict] = dataclasses.field(default_factory=dict)
    versions: dict | None = None
    data: dict[str, str] | None = None

    def to_dict(self):
        """Returns what the file says, as plain data."""
        return dataclasses.asdict(self)

    def list_runs(self, method):
        """Returns the runs of a method, one of each seed."""
        return [run for run in self.runs if run.method == method]


def read_comparison(path):
    """Returns the `Comparison` of a file; None where there is no file.

    Raises:
        ValueError: the file holds something else, or is of a later version; the message names it.
    """
    return read_versioned(path, COMPARISON_VERSION, "comparison", _parse_comparison)


def _parse_comparison(values):
    check_kinds(Comparison, values)
    runs = tuple(_read(ComparedRun, run) for run in values.pop("runs"))
    verdicts = {name: _read_verdict(verdict) for name, verdict in values.pop("verdicts").items()}
    tuples = {name: tuple(values.pop(name)) for name in ("methods", "seeds", "flags")}
    tuples["settings"] = {name: tuple(lines) for name, lines in values.pop("settings", {}).items()}
    return Comparison(**values, **tuples, runs=runs, verdicts=verdicts)


def _read(kind, values):
    check_kinds(kind, values)
    return kind(**values)


def _read_verdict(values):
    verdict = _read(Verdict, values)
    # JSON has lists only, and a verdict that was read equals the one that was written.
    return dataclasses.replace(verdict, interval=verdict.interval and tuple(verdict.interval))


def name_method(method):
    """Returns a method's name for people."""
    return "student alone" if method == BASELINE else method


def judge_comparison(methods, seeds, results):
    """Decides for each method whether it is better than the baseline.

    A pair in which one of the two collapsed is no measurement: a method that lacks pairs is not decided.

    Args:
        methods: names, without the baseline's.
        seeds: those that were planned.
        results: dict from a method to the `Results` of its finished runs.

    Returns:
        dict from a method to its `Verdict`.
    """
    pairs = [
        [run for run in results.get(method, ()) if not (run.student.at_chance or run.baseline.at_chance)]
        for method in methods
    ]
    return dict(zip(methods, judge_results(pairs, len(seeds)), strict=True))
