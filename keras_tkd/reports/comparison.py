"""Comparisons of methods: the schema of `comparison.json`, and tables of it. No TensorFlow here.

Accuracies are shares, 0..1, gains differences of them; the tables show percent and points.
"""

import csv
import dataclasses
import io
import statistics

from keras_tkd.evaluation.significance import BETTER, NOT_SHOWN, WORSE, Verdict
from keras_tkd.reports.schema import check_kinds
from keras_tkd.reports.tables import align, name_accuracy
from keras_tkd.reports.verdict import judge_results
from keras_tkd.utils.files import read_json

__all__ = [
    "BASELINE",
    "COMPARISON_VERSION",
    "ComparedRun",
    "Comparison",
    "describe_comparison",
    "format_comparison_table",
    "format_csv",
    "format_markdown",
    "judge_comparison",
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
        epochs: those of every student.
        test_samples: number of test images; None while no run is finished.
        parameters: of the student, likewise.
        teacher_accuracy: test accuracy of the teacher that all share; None where no run that has it is finished.
        runs: all of them, finished or not.
        verdicts: dict from each method but the baseline to its `Verdict`.
        versions: of Python, packages and machine.
        data: dict from what of the images and labels all runs share to its hash; None where an earlier version wrote
            the file.
        task: `"multi_label"` where images may have several classes: accuracies are then exact matches; None where each
            has one.
    """

    version: int = COMPARISON_VERSION
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    flags: tuple[str, ...]
    settings: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    dataset: str
    epochs: int
    test_samples: int | None = None
    parameters: int | None = None
    teacher_accuracy: float | None = None
    runs: tuple[ComparedRun, ...] = ()
    verdicts: dict[str, Verdict] = dataclasses.field(default_factory=dict)
    versions: dict | None = None
    data: dict[str, str] | None = None
    task: str | None = None

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
    values = read_json(path)
    if values is None:
        return None
    if values.get("version") != COMPARISON_VERSION:
        raise ValueError(
            f"{path} must be of version {COMPARISON_VERSION} of its schema. Received: "
            f"version={values.get('version')!r}. If a later keras_tkd wrote it, update this one to read it"
        )
    try:
        check_kinds(Comparison, values)
        runs = tuple(_read(ComparedRun, run) for run in values.pop("runs"))
        verdicts = {name: _read_verdict(verdict) for name, verdict in values.pop("verdicts").items()}
        tuples = {name: tuple(values.pop(name)) for name in ("methods", "seeds", "flags")}
        tuples["settings"] = {name: tuple(lines) for name, lines in values.pop("settings", {}).items()}
        return Comparison(**values, **tuples, runs=runs, verdicts=verdicts)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: it is no comparison ({error}). Put it back, or remove it") from error


def _read(kind, values):
    check_kinds(kind, values)
    return kind(**values)


def _read_verdict(values):
    verdict = _read(Verdict, values)
    # JSON has lists only, and a verdict that was read equals the one that was written.
    return dataclasses.replace(verdict, interval=verdict.interval and tuple(verdict.interval))


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


def format_comparison_table(comparison):
    """Returns a text table of a `Comparison`: a row for each method, with its verdict."""
    seeds = ", ".join(map(str, comparison.seeds))
    samples = "" if comparison.test_samples is None else f", {comparison.test_samples:,} test images"
    teacher = "" if comparison.teacher_accuracy is None else f", teacher {100 * comparison.teacher_accuracy:.2f} %"
    caption = f"{comparison.dataset}, {comparison.epochs} epochs, mean (and range) over seeds {seeds}{samples}{teacher}"
    return "\n".join([caption, *align(_list_rows(comparison))])


def format_markdown(comparison):
    """Returns the same table in Markdown, with a line of what it shows below."""
    header, *rows = _list_rows(comparison)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([*table, "", *(f"{line}  " for line in describe_comparison(comparison)), ""])


def format_csv(comparison):
    """Returns a table of all runs as CSV, one a line; numbers as in `comparison.json`."""
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(ComparedRun)]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    # What there is not is an empty cell.
    writer.writerows(dataclasses.asdict(run) for run in comparison.runs)
    return text.getvalue()


def _describe_unknown(unknown):
    """Returns the line, if any, of what is not shown: pairs of a method's name and its `Verdict`."""
    if not unknown:
        return []
    known = [f"{name} {100 * each.detectable:.1f}" for name, each in unknown if each.detectable is not None]
    could = f" These seeds could have shown, in points: {', '.join(known)}." if known else ""
    return [f"Not shown: {', '.join(name for name, _ in unknown)}.{could}"]


def describe_comparison(comparison):
    """Returns lines that say what a comparison shows, and what it could not, for people."""
    lines = []
    for decision, said in ((BETTER, "Better than the student alone"), (WORSE, "Worse than the student alone")):
        named = [f"{name} ({100 * each.gain:+.2f} points)" for name, each in _decided(comparison, decision)]
        if named:
            lines.append(f"{said}: {', '.join(named)}.")
    lines += _describe_unknown(_decided(comparison, NOT_SHOWN))
    lines += [_explain(run) for run in comparison.runs if run.status in ("failed", "collapsed") or run.error]
    others = [f"{_name(method)} {without}" for method, without in _list_means_without_chance(comparison)]
    if others:
        lines.append(f"Means hold the runs that ended at chance. Without these: {', '.join(others)}.")
    if comparison.verdicts and len(comparison.seeds) == 1:
        lines.append("With one seed two models are compared by the test images, which says nothing of another seed.")
    elif comparison.verdicts and len(comparison.seeds) == 2:
        lines.append("Two seeds show nothing, whatever they say: three are the fewest.")
    if len(comparison.verdicts) > 1:
        lines.append(f"Verdicts are corrected for {len(comparison.verdicts)} methods (Holm), intervals are not.")
    return lines


def _decided(comparison, decision):
    return [(name, verdict) for name, verdict in comparison.verdicts.items() if verdict.decision == decision]


def _explain(run):
    which = f"{run.method}, seed {run.seed}"
    # It ran to its end: nothing failed, and its accuracy alone says it.
    if run.status == "collapsed" and not run.error:
        return f"Collapsed: {which}: at chance with {100 * run.test_accuracy:.2f} %"
    return f"{run.status.capitalize()}: {which}: {run.error}"


def _list_rows(comparison):
    """Lists the cells of a table, as texts, the header first."""
    rows = [["method", name_accuracy(comparison.task), "against alone", "95 % interval", "p", "verdict", "runs"]]
    for method in comparison.methods:
        runs = comparison.list_runs(method)
        verdict = comparison.verdicts.get(method)
        rows.append(
            [
                _name(method),
                _format_accuracies(_list_accuracies(runs), len(_list_accuracies(runs, "collapsed"))),
                "-" if verdict is None or verdict.gain is None else f"{100 * verdict.gain:+.2f}",
                "-" if verdict is None or verdict.interval is None else _format_interval(verdict.interval),
                "-" if verdict is None else f"{verdict.p:.3f}",
                "-" if verdict is None else verdict.decision,
                _count_statuses(runs),
            ]
        )
    return rows


def _name(method):
    return "student alone" if method == BASELINE else method


def _list_accuracies(runs, *statuses):
    """The accuracies of the runs that were measured, of all or of those with one of the statuses."""
    measured = [run for run in runs if run.test_accuracy is not None]
    return [run.test_accuracy for run in measured if not statuses or run.status in statuses]


def _list_means_without_chance(comparison):
    """Pairs of a method, of whose runs some ended at chance and others did not, and the mean of the others as text."""
    runs = {method: comparison.list_runs(method) for method in comparison.methods}
    return [
        (method, _format_accuracies(_list_accuracies(each, "finished")))
        for method, each in runs.items()
        if _list_accuracies(each, "finished") and _list_accuracies(each, "collapsed")
    ]


def _format_accuracies(shares, collapsed=0):
    """The mean of runs, and how many of these ended at chance: none is left out, and none goes unsaid."""
    if not shares:
        return "-"
    marked = f", {collapsed} at chance" if collapsed else ""
    spread = f" ({100 * min(shares):.2f} to {100 * max(shares):.2f})" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f} %{spread}{marked}"


def _format_interval(interval):
    return f"{100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}"


def _count_statuses(runs):
    """Says how many runs are finished, and what the others are."""
    counts = {status: sum(run.status == status for run in runs) for status in ("collapsed", "failed", "waiting")}
    finished = sum(run.status == "finished" for run in runs)
    return ", ".join([f"{finished} of {len(runs)}", *(f"{count} {name}" for name, count in counts.items() if count)])
