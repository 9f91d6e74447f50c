"""Section of a report about where a student agrees with its teacher, and where the two differ."""

import numpy as np

from keras_tkd.evaluation.measures import confusion_matrix
from keras_tkd.reports.comparison import BASELINE
from keras_tkd.reports.observations import STUDENT_ROLE, TEACHER_ROLE
from keras_tkd.reports.page import charts
from keras_tkd.reports.page.blocks import Cell, Chart, Gallery, Section, Table
from keras_tkd.reports.page.pictures import make_picture

__all__ = ["describe_differences", "explain_missing", "name_class"]

_MOST_PICTURES = 8
_MOST_CLASSES = 32  # of a confusion matrix that can still be read
_MOST_CONFUSIONS = 20


def name_class(report, label):
    """Returns the name of a class for people."""
    return report.classes[label] if label < len(report.classes) else str(label)


def describe_differences(report):
    """Returns the `Section` of agreement, confusion and pictures on which teacher and student differ."""
    title = "Agreement with the teacher"
    seen = {method: each for method, each in report.observations.items() if TEACHER_ROLE in each.classes}
    if not seen:
        return Section("agreement", title, [explain_missing(report)], [])
    rows, blocks = [], []
    for method, each in seen.items():
        right = {role: each.is_right(role) for role in (TEACHER_ROLE, STUDENT_ROLE)}
        same = each.classes[TEACHER_ROLE] == each.classes[STUDENT_ROLE]
        counts = [
            right[TEACHER_ROLE] & right[STUDENT_ROLE],
            right[TEACHER_ROLE] & ~right[STUDENT_ROLE],
            right[STUDENT_ROLE] & ~right[TEACHER_ROLE],
            ~right[TEACHER_ROLE] & ~right[STUDENT_ROLE],
        ]
        share = float(np.mean(same))
        cells = [Cell(f"{int(count.sum()):,}", int(count.sum())) for count in counts]
        rows.append([Cell(method), Cell(f"{100 * share:.2f} %", share), *cells])
    header = ["method", "the same class", "both right", "teacher alone", "student alone", "both wrong"]
    caption = "Test images for which teacher and student name the same class, and who of them is right"
    blocks.append(Table(header, rows, caption))
    first = next(iter(seen.values()))
    named = [("The teacher", first, TEACHER_ROLE)] + [(method, each, STUDENT_ROLE) for method, each in seen.items()]
    blocks += [_show_confusion(report, name, each, role) for name, each, role in named]
    for method, each in seen.items():
        blocks += _show_pictures(report, method, each)
    notes = [f"Of seed {report.shown_seed}, on all {len(first.labels):,} test images."]
    if report.left_out:
        notes.append(f"Here and below without {', '.join(report.left_out)}, so that the page stays small.")
    missing = {*report.comparison.methods} - {BASELINE, *report.observations, *report.left_out}
    if missing:
        notes.append(f"Here and below without {', '.join(sorted(missing))}, of which no run of that seed is known.")
    if not any(len(each.pictures) for each in seen.values()):
        notes.append("No pictures: teacher and student are right on the same images, or images have other channels.")
    return Section("agreement", title, notes, blocks)


def explain_missing(report):
    """Returns a sentence that says why nothing is known of what models say of the test images."""
    if report.observations:
        return "Left out: no run of this folder has a teacher whose outputs for the test images are known."
    return (
        "Left out: no run of this folder kept what its models say of the test images. Runs of earlier versions did "
        "not, nor do runs whose classes are all in the open set, or whose images have several classes."
    )


def _show_confusion(report, name, observations, role):
    """Shows the confusion matrix as a chart; of many classes, a table of what is confused most."""
    labels, named = observations.labels, observations.classes[role]
    count = int(max(labels.max(), named.max(), len(report.classes) - 1)) + 1
    matrix = confusion_matrix(named, labels, count)
    title = f"{name}: labels, and the classes that it names"
    if count > _MOST_CLASSES:
        off = matrix - np.diag(np.diag(matrix))
        # Stable: of equal counts the first.
        order = np.argsort(-off, axis=None, kind="stable")[:_MOST_CONFUSIONS]
        rows = [
            [Cell(name_class(report, label)), Cell(name_class(report, taken)), _count(off[label, taken])]
            for label, taken in zip(*np.unravel_index(order, off.shape), strict=True)
            if off[label, taken]
        ]
        return Table(["label", "taken for", "images"], rows, f"{name}: what it confuses most")
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = [
        {
            "label": name_class(report, label),
            "named": name_class(report, taken),
            "images": int(matrix[label, taken]),
            "share": float(shares[label, taken]),
        }
        for label in range(count)
        for taken in range(count)
    ]
    names = [name_class(report, label) for label in range(count)]
    wrong = int(matrix.sum() - np.trace(matrix))
    return Chart(title, charts.draw_confusion(rows, names), f"{title}: {wrong} images are taken for another class")


def _count(number):
    return Cell(f"{int(number):,}", int(number))


def _show_pictures(report, method, observations):
    blocks = []
    for better, worse, words in (
        (TEACHER_ROLE, STUDENT_ROLE, "the teacher is right and the student wrong"),
        (STUDENT_ROLE, TEACHER_ROLE, "the student is right and the teacher wrong"),
    ):
        differing = np.flatnonzero(observations.is_right(better) & ~observations.is_right(worse))
        order = np.argsort(-observations.confidences[worse][differing], kind="stable")
        pictures = []
        for image in differing[order[:_MOST_PICTURES]]:
            pixels = observations.find_picture(image)
            if pixels is not None:
                lines = [name_class(report, observations.labels[image])]
                lines += [f"{role}: {_say(report, observations, role, image)}" for role in (TEACHER_ROLE, STUDENT_ROLE)]
                pictures.append(make_picture(pixels, f"test image {image}: {lines[0]}", lines))
        if pictures:
            chosen = f"{len(pictures)} of {len(differing)}, where the one that is wrong is the surest"
            blocks.append(Gallery(f"{method}: {words} ({chosen})", [pictures]))
    return blocks


def _say(report, observations, role, image):
    confidence = observations.confidences[role][image]
    return f"{name_class(report, observations.classes[role][image])} ({confidence:.0%})"
