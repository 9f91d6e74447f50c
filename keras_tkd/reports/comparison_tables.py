"""Tables of a comparison of methods, and sentences that say what it shows. No TensorFlow here.

Accuracies are percent, and gains points.
"""

import csv
import dataclasses
import io
import statistics

from keras_tkd.evaluation.significance import BETTER, NOT_SHOWN, WORSE
from keras_tkd.reports.comparison import ComparedRun, name_method
from keras_tkd.reports.tables import align, format_range, name_accuracy

__all__ = ["describe_comparison", "format_comparison_table", "format_csv", "format_markdown"]


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
    others = [f"{name_method(method)} {without}" for method, without in _list_means_without_chance(comparison)]
    if others:
        lines.append(f"Means hold the runs that ended at chance. Without these: {', '.join(others)}.")
    lines += _describe_budgets(comparison)
    if comparison.verdicts and len(comparison.seeds) == 1:
        lines.append("With one seed two models are compared by the test images, which says nothing of another seed.")
    elif comparison.verdicts and len(comparison.seeds) == 2:
        lines.append("Two seeds show nothing, whatever they say: three are the fewest.")
    if len(comparison.verdicts) > 1:
        lines.append(f"Verdicts are corrected for {len(comparison.verdicts)} methods (Holm), intervals are not.")
    return lines


def _describe_budgets(comparison):
    """Returns the line, if any, of students that were not trained for as long as was planned."""
    epochs = {
        method: [run.epochs for run in comparison.list_runs(method) if run.epochs not in (None, comparison.epochs)]
        for method in comparison.methods
    }
    ended = [f"{name_method(method)} after {format_range(each)}" for method, each in epochs.items() if each]
    if not ended:
        return []
    return [
        f"Ended early, of {comparison.epochs} epochs: {', '.join(ended)}. Where budgets differ, these may be what "
        "makes the difference."
    ]


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
    accuracy = name_accuracy(comparison.task)
    rows = [["method", accuracy, "against alone", "95 % interval", "p", "verdict", "runs"]]
    for method in comparison.methods:
        runs = comparison.list_runs(method)
        verdict = comparison.verdicts.get(method)
        rows.append(
            [
                name_method(method),
                _format_accuracies(_list_accuracies(runs), len(_list_accuracies(runs, "collapsed"))),
                "-" if verdict is None or verdict.gain is None else f"{100 * verdict.gain:+.2f}",
                "-" if verdict is None or verdict.interval is None else _format_interval(verdict.interval),
                "-" if verdict is None else f"{verdict.p:.3f}",
                "-" if verdict is None else verdict.decision,
                _count_statuses(runs),
            ]
        )
    return rows


def _list_accuracies(runs, *statuses):
    """Lists the accuracies of the runs that were measured, of all or of those with one of the statuses."""
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
    """Formats the mean of runs, and how many of these ended at chance: none is left out, and none goes unsaid."""
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
