"""Section of a report about the trainings: a chart of each term, epoch by epoch."""

import statistics

from keras_tkd.reports.comparison import name_method
from keras_tkd.reports.page import charts
from keras_tkd.reports.page.blocks import Chart, Section
from keras_tkd.reports.page.report import is_number

__all__ = ["describe_curves"]

_HELD_OUT = "val_"
# No terms: one is a clock's, and the others, those of names with this beginning among them, were set.
_LEFT_OUT = ("images_per_second", "learning_rate")
_SET = "schedule/"
_FIRST = ("accuracy", "loss", "student_loss")
_TITLES = {"loss": "Total loss", "student_loss": "Loss on the labels", "regularization": "Regularization"}
_MOST_POINTS = 100  # of a curve; more are no more to see


def _is_term(name):
    return name not in _LEFT_OUT and not name.startswith(_SET)


def describe_curves(report):
    """Returns the `Section` of learning curves."""
    averaged = {}
    for history in report.histories:
        for epoch, values in enumerate(history.epochs, 1):
            for name, value in values.items():
                if is_number(value) and _is_term(name.removeprefix(_HELD_OUT)):
                    key = name.removeprefix(_HELD_OUT), name_method(history.name), name.startswith(_HELD_OUT)
                    averaged.setdefault(key, {}).setdefault(epoch, []).append(value)
    if not averaged:
        return Section("curves", "Learning curves", ["No training of this folder has a record of its curves."], [])
    terms = dict.fromkeys(term for term, _, _ in averaged)
    terms = [*filter(terms.__contains__, _FIRST), *sorted(set(terms) - set(_FIRST))]
    # A method has one colour in all charts.
    names = list(dict.fromkeys(name_method(history.name) for history in report.histories))
    blocks = []
    for term in terms:
        rows = [
            {"model": name, "images": "held out" if held_out else "train", "epoch": epoch, "value": value}
            for (other, name, held_out), epochs in averaged.items()
            if other == term
            for epoch, value in _thin(epochs)
        ]
        title = _TITLES.get(term, "Accuracy" if term == "accuracy" else f"Term {term.replace('_', ' ')}")
        last = {(row["model"], row["images"]): row["value"] for row in rows}
        summary = ", ".join(f"{name} {images} {value:.4g}" for (name, images), value in last.items())
        spec = charts.draw_curves(rows, names, share=term.endswith(("accuracy", "agreement", "violated")))
        blocks.append(Chart(title, spec, f"{title}, at the end: {summary}"))
    notes = [
        "Solid: training images; dashed: held out. Terms before their weights; the mean over seeds where there are "
        "several. Held-out images are the test images unless validation_fraction was set, and nothing was chosen by "
        "them.",
    ]
    if "loss" in terms:
        notes.append("Totals of different methods are sums of different terms: compare accuracies, not totals.")
    return Section("curves", "Learning curves", notes, blocks)


def _thin(epochs):
    """Returns means of an epoch as `(epoch, mean)`, the first and the last among them, not too many to draw."""
    # Six digits: more than a screen shows, and a third of what all of them take.
    means = [(epoch, float(f"{statistics.fmean(values):.6g}")) for epoch, values in sorted(epochs.items())]
    step = -(-len(means) // _MOST_POINTS)
    return means[:-1:step] + means[-1:]
