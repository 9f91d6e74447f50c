"""Sections of a report about the comparison itself: accuracies, verdicts, what models cost, what repeats it."""

import statistics

from keras_tkd.evaluation.significance import BETTER, WORSE, estimate_accuracy
from keras_tkd.reports.comparison import name_method
from keras_tkd.reports.page import charts
from keras_tkd.reports.page.blocks import Cell, Chart, Listing, Section, Table
from keras_tkd.reports.tables import name_accuracy

__all__ = ["chart_accuracies", "describe_accuracies", "describe_costs", "describe_repetition"]

_MOODS = {BETTER: "better", WORSE: "worse"}
_NONE = Cell("-")


def describe_accuracies(report):
    """Returns the `Section` of accuracies and verdicts."""
    comparison = report.comparison
    chart = chart_accuracies(comparison)
    if chart is None:
        notes = ["No accuracy of the test images is known: no run is finished, or all classes are in the open set."]
        return Section("accuracy", "Accuracy", notes, [])
    blocks = [chart]
    gains = [
        {"method": method, "gain": verdict.gain, "decision": verdict.decision}
        | dict(zip(("low", "high"), verdict.interval or (None, None), strict=True))
        for method, verdict in comparison.verdicts.items()
        if verdict.gain is not None
    ]
    if gains:
        spec = charts.draw_gains(gains)
        summary = ", ".join(f"{each['method']} {100 * each['gain']:+.2f} points" for each in gains)
        blocks.append(Chart("Gain against the student alone, 95 % interval", spec, summary, wide=True))
    runs = [(i, run) for i, run in enumerate(comparison.runs) if run.method in comparison.methods]
    blocks += [_tabulate_methods(comparison), _tabulate_runs(comparison, runs)]
    notes = [_explain_intervals(comparison)]
    if comparison.task:
        notes.insert(0, "Accuracy is the exact match: the share of test images of which every class is answered right.")
    if comparison.teacher_accuracy is None:
        notes.append("No accuracy of a teacher that all share is known, so no line shows it.")
    return Section("accuracy", "Accuracy", notes, blocks)


def chart_accuracies(comparison):
    """Returns the `Chart` of all methods' accuracies; None where none is known."""
    dots = [
        {"method": name_method(run.method), "seed": run.seed, "accuracy": run.test_accuracy}
        for run in comparison.runs
        if run.method in comparison.methods and run.test_accuracy is not None
    ]
    if not dots:
        return None
    means = [mean for mean in (_average(method, comparison) for method in comparison.methods) if mean]
    summary = ", ".join(f"{mean['method']} {mean['mean']:.2%}" for mean in means)
    name = name_accuracy(comparison.task)
    spec = charts.draw_accuracies(dots, means, comparison.teacher_accuracy, name)
    return Chart("Every seed a dot, the mean a tick", spec, f"Mean {name}: {summary}", wide=True)


def _average(method, comparison):
    accuracies = [run.test_accuracy for run in comparison.list_runs(method) if run.test_accuracy is not None]
    if not accuracies:
        return None
    low, high = estimate_accuracy(accuracies, comparison.test_samples)
    return {"method": name_method(method), "mean": statistics.mean(accuracies), "low": low, "high": high}


def _explain_intervals(comparison):
    if len(comparison.seeds) == 1:
        return (
            "Intervals: 95 %, of an accuracy by Clopper and Pearson over the test images, of a gain by the images on "
            "which the two models disagree. They say nothing of another seed."
        )
    return (
        "Intervals: 95 %, by Student's t over seeds; of a gain by the differences within each seed, which is what the "
        "verdict rests on. Accuracies of a seed go up and down together, so theirs overlap more."
    )


def _tabulate_methods(comparison):
    header = ["method", "mean accuracy", "gain, points", "95 % interval", "p", "verdict"]
    rows = []
    for method in comparison.methods:
        accuracies = [run.test_accuracy for run in comparison.list_runs(method) if run.test_accuracy is not None]
        mean = Cell(f"{100 * statistics.mean(accuracies):.2f} %", statistics.mean(accuracies)) if accuracies else _NONE
        row = [Cell(name_method(method)), mean, _NONE, _NONE, _NONE, _NONE]
        verdict = comparison.verdicts.get(method)
        if verdict:
            source = f"/verdicts/{_escape_pointer(method)}"
            row[4] = Cell(f"{verdict.p:.3f}", verdict.p, f"{source}/p")
            row[5] = Cell(verdict.decision, mood=_MOODS.get(verdict.decision, ""))
            if verdict.gain is not None:
                row[2] = Cell(f"{100 * verdict.gain:+.2f}", verdict.gain, f"{source}/gain")
            if verdict.interval:
                row[3] = Cell(" to ".join(f"{100 * bound:+.2f}" for bound in verdict.interval))
        rows.append(row)
    return Table(header, rows)


def _tabulate_runs(comparison, runs):
    header = ["run", "seed", "accuracy", "agrees with teacher", "seconds", ""]
    rows = []
    for i, run in runs:
        rows.append(
            [
                Cell(name_method(run.method)),
                Cell(str(run.seed), run.seed, f"/runs/{i}/seed"),
                _show_share(run.test_accuracy, f"/runs/{i}/test_accuracy"),
                _show_share(run.agreement, f"/runs/{i}/agreement"),
                _NONE if run.seconds is None else Cell(f"{run.seconds:.1f}", run.seconds, f"/runs/{i}/seconds"),
                Cell(run.status if run.error is None else f"{run.status}: {run.error}"),
            ]
        )
    samples = comparison.test_samples
    return Table(header, rows, f"Every run{'' if samples is None else f', {samples:,} test images'}")


def describe_costs(report):
    """Returns the `Section` of accuracy against parameters, file size and latency."""
    models, exported = ([_list_costs(each) for each in part] for part in (report.models, report.exported))
    names = [each["model"] for each in (*models, *exported)]
    blocks, notes = [], []
    accuracy = name_accuracy(report.comparison.task)
    for cost, title, missing, others in (
        ("parameters", "trainable parameters", "The number of parameters is not known", []),
        ("bytes", "size of the Keras file, bytes", "There is no file of a model", []),
        ("milliseconds", "latency, milliseconds for one image", "Latency was not measured", exported),
    ):
        known = [each for each in models + others if each[cost] is not None]
        if known:
            summary = ", ".join(f"{each['model']} {each[cost]:,}" for each in known)
            spec = charts.draw_tradeoff(known, cost, title, names, accuracy)
            blocks.append(Chart(f"Accuracy against {title.partition(',')[0]}", spec, summary))
        # Others are files of these models, which were measured beside them.
        lacking = [each["model"] for each in models if each[cost] is None and not others]
        if lacking:
            notes.append(f"{missing}: {', '.join(lacking)}.")
    if any(each["milliseconds"] is not None for each in models):
        notes.append(
            "Latency is the median of some calls in TensorFlow, when a run ended, on the machine below and with all "
            "threads of the run; all students are one network, and have one. No result rests on it."
        )
    if not exported:
        notes.append("What models take on a device, scripts/export.py measures, of the files that it writes.")
    rows = [
        [
            Cell(name_method(each.name)),
            Cell(f"{100 * each.test_accuracy:.2f} %", each.test_accuracy),
            *(_NONE if cost is None else Cell(f"{cost:,}", cost) for cost in (each.parameters, each.bytes)),
            _NONE if each.milliseconds is None else Cell(f"{each.milliseconds:.3g}", each.milliseconds),
        ]
        for each in (*report.models, *report.exported)
    ]
    blocks.append(Table(["model", "accuracy", "parameters", "bytes", "ms for one image"], rows))
    return Section("cost", "Accuracy and cost", notes, blocks if report.models else [])


def _list_costs(model):
    costs = {"parameters": model.parameters, "bytes": model.bytes, "milliseconds": model.milliseconds}
    return {"model": name_method(model.name), "accuracy": model.test_accuracy} | costs


def describe_repetition(report):
    """Returns the `Section` of what is needed to do it again: commands, flags, versions and machine."""
    comparison = report.comparison
    blocks = [Listing("In a shell, in the folder of keras_tkd", list(report.command))]
    blocks += [Listing(f"{method}.flags", list(lines)) for method, lines in comparison.settings.items()]
    versions = comparison.versions or {}
    if versions:
        rows = [[Cell(str(name)), Cell(str(value))] for name, value in versions.items()]
        blocks.append(Table(["", ""], rows, "Versions and machine"))
    data = comparison.data or {}
    if data:
        rows = [[Cell(name), Cell(value)] for name, value in data.items()]
        blocks.append(Table(["", ""], rows, "Hashes of the data"))
    seeds = ", ".join(map(str, comparison.seeds))
    notes = [f"Data set {comparison.dataset}, {comparison.epochs} epochs, seed {seeds}. Numbers as in {report.source}."]
    return Section("repeat", "To repeat it", notes, blocks)


def _show_share(share, source):
    return _NONE if share is None else Cell(f"{100 * share:.2f} %", share, source)


def _escape_pointer(key):
    """Returns a key as a JSON pointer writes it (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
