"""Results as tables that people read."""

import statistics

from keras_tkd.reports.schema import Results
from keras_tkd.utils.naming import name_some

__all__ = [
    "align",
    "format_balance",
    "format_image_counts",
    "format_range",
    "format_table",
    "format_verification_table",
    "name_accuracy",
]

_ROLES = {"teacher": "teacher", "baseline": "student alone", "student": "distilled student"}
_VERIFICATION = {
    "auc": "AUC",
    "equal_error_rate": "equal error rate",
    "true_accepts_at_1_percent": "true accepts at 1 % false ones",
}
_PARTS = {"train": "training", "validation": "validation", "test": "test", "open_set": "open set"}
_LISTED_CLASSES = 20  # at most: of more, the smallest and the largest say what there is to see
_NAMED = 5  # files, of those that were not read for the same reason
_UNBALANCED = 1.5  # times as many test images of the largest class as of the smallest


def format_image_counts(name, counts, skipped=None, bad=(), totals=None):
    """Returns text of how many images of each class were read, and what was not read and why.

    Args:
        name: of the data set.
        counts: dict of dicts, the number of images by part (`"train"`, `"validation"`, `"test"`, `"open_set"`) and
            class.
        skipped: dict from a reason to the files and folders that were not read for it.
        bad: files that cannot be read, each with the reason.
        totals: number of images by part, where an image may have several classes; None where each has one.
    """
    numbers = totals or {part: sum(of.values()) for part, of in counts.items()}
    listed = ", ".join(f"{number:,} {_PARTS[part]}" for part, number in numbers.items())
    each = ", of any number of classes each" if totals else ""
    lines = [f"{name}: {len(counts['train'])} classes; images: {listed}{each}"]
    # The classes of an open set are others.
    closed = {part: of for part, of in counts.items() if part != "open_set"}
    if len(counts["train"]) <= _LISTED_CLASSES:
        rows = [[label, *(f"{of[label]:,}" for of in closed.values())] for label in counts["train"]]
        lines += align([["class", *(_PARTS[part] for part in closed)], *rows])
    else:
        for part, of in closed.items():
            lines.append(f"  {_PARTS[part]}: {format_range(list(of.values()))} images of each class")
    for reason, paths in (skipped or {}).items():
        lines.append(f"Not read: {len(paths):,} {reason}: {name_some(paths, _NAMED)}")
    if bad:
        lines.append(f"Left out, {len(bad):,} that cannot be read: {name_some(bad, _NAMED)}")
    return "\n".join(lines)


def format_table(runs):
    """Returns a text table of one run, or of the means over runs of one experiment with different seeds.

    A column that no model has anything in is left out, and that of epochs where each model had those in the caption.

    Args:
        runs: list of results, as in `results.json`.
    """
    runs = [Results.from_dict(run) for run in runs]
    header = ["", name_accuracy(runs[0].task), "mean average precision", "macro F1", "parameters"]
    header += ["agrees with teacher", "seconds", "training images", "epochs"]
    rows = [header]
    first, listed = runs[0], list(_list_models(runs))
    as_planned = all(model.epochs in (None, first.epochs) for _, models in listed for model in models)
    for title, models in listed:
        accuracy = _percent_of(models, "test_accuracy")
        # One of several seeds that collapsed makes their mean mean nothing.
        if any(model.at_chance for model in models):
            accuracy += " (AT CHANCE: collapsed)"
        seconds = [model.seconds for model in models if model.seconds is not None]
        epochs = [model.epochs for model in models if model.epochs is not None and not as_planned]
        rows.append(
            [
                title,
                accuracy,
                _percent_of(models, "mean_average_precision"),
                _percent_of(models, "macro_f1"),
                "-" if models[0].parameters is None else f"{models[0].parameters:,}",
                _percent_of(models, "agreement"),
                f"{statistics.mean(seconds):.1f}" if seconds else "-",
                _percent_of(models, "train_accuracy"),
                format_range(epochs) if epochs else "-",
            ]
        )
    filled = [i for i in range(len(header)) if i == 0 or any(row[i] != "-" for row in rows[1:])]
    rows = [[row[i] for i in filled] for row in rows]
    classes = f" ({', '.join(first.classes)})" if first.classes else ""
    seeds = f"mean (and range) over seeds {', '.join(str(run.seed) for run in runs)}"
    caption = f"{first.method} on {first.dataset}{classes}, {first.epochs} epochs, "
    return "\n".join([caption + (seeds if len(runs) > 1 else f"seed {first.seed}"), *align(rows)])


def name_accuracy(task):
    """Returns what a test accuracy is called in a table: of images of several classes it is the exact match.

    Args:
        task: as in `Results`.
    """
    return "exact match" if task == "multi_label" else "test accuracy"


def format_range(counts):
    """Returns whole numbers as text: one number where all are equal, else the least and the greatest."""
    return f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else str(counts[0])


def format_balance(runs):
    """Returns a line with the models' balanced accuracies; an empty text where accuracy says the same.

    It does where each class has about as many test images as any other, and where none of the runs says how many.

    Args:
        runs: list of results, as in `results.json`.
    """
    runs = [Results.from_dict(run) for run in runs]
    # Test images alone decide how an accuracy reads; what was trained on may be unbalanced besides.
    counts = [count for run in runs if run.images for count in run.images.test.values() if count]
    balanced = not counts or max(counts) < _UNBALANCED * min(counts)
    measured = []
    for title, models in [] if balanced else _list_models(runs):
        shares = [model.balanced_accuracy for model in models if model.balanced_accuracy is not None]
        if shares:
            measured.append(f"{title} {_percent(shares)}")
    if not measured:
        return ""
    return (
        f"Classes are unbalanced ({format_range([min(counts), max(counts)])} test images each); balanced accuracy, the "
        f"mean over the classes: {', '.join(measured)}"
    )


def format_verification_table(runs):
    """Returns the same for the verification of images of an open set; an empty text for runs without one."""
    rows = [["", *_VERIFICATION.values()]]
    for title, models in _list_models([Results.from_dict(run) for run in runs]):
        verified = [model.verification for model in models if model.verification]
        if verified:
            rows.append([title, *(_percent([scores[name] for scores in verified]) for name in _VERIFICATION)])
            one = verified[0]
    if len(rows) == 1:
        return ""
    pairs = f"{one['same_pairs']:,} pairs of one identity and {one['different_pairs']:,} of two"
    caption = f"verification of {one['images']:,} images of {one['identities']:,} identities that were not trained on"
    return "\n".join([f"{caption}, {pairs}", *align(rows)])


def align(rows):
    """Lays rows of cells out as lines, the first row underlined; the first column to the left, others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _list_models(runs):
    """Yields title and results, one of each run that has it, of every model that the runs tell of."""

    def each(name, i):
        return [getattr(run, name)[i] for run in runs if len(getattr(run, name) or ()) > i]

    several = max(len(run.teachers or ()) for run in runs)
    for i in range(several):
        yield f"teacher {i + 1}", each("teachers", i)
    titles = dict(_ROLES)
    if several:
        titles["teacher"] = "ensemble"
    # Without a teacher nothing was distilled, whatever the field is called.
    if not any(run.teacher for run in runs):
        titles["student"] = "student alone"
    for role, title in titles.items():
        models = [getattr(run, role) for run in runs if getattr(run, role)]
        if models:
            yield title, models
    # One generation is the run's teacher and student, which are listed already.
    generations = max(len(run.generations or ()) for run in runs)
    for i in range(generations if generations > 1 else 0):
        for role in ("teacher", "student"):
            yield f"generation {i + 1}, {role}", [getattr(pair, role) for pair in each("generations", i)]


def _percent_of(models, name):
    shares = [getattr(model, name) for model in models if getattr(model, name) is not None]
    return _percent(shares) if shares else "-"


def _percent(shares):
    mean = f"{100 * statistics.mean(shares):.2f} %"
    return mean if len(shares) == 1 else f"{mean} ({100 * min(shares):.2f} to {100 * max(shares):.2f})"
