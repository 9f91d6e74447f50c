"""Section of a report about calibration: whether models are right as often as they are confident."""

from keras_tkd.evaluation.calibration import expected_calibration_error, reliability
from keras_tkd.reports.comparison import name_method
from keras_tkd.reports.observations import BASELINE_ROLE, STUDENT_ROLE, TEACHER_ROLE
from keras_tkd.reports.page import charts
from keras_tkd.reports.page.blocks import Cell, Chart, Section, Table
from keras_tkd.reports.page.differences import explain_missing

__all__ = ["describe_calibration", "list_models"]


def list_models(report):
    """Returns the models that are observed, `(name, observations, role)`: teacher, student alone, and each student."""
    models, seen = [], list(report.observations.items())
    for role, name in ((TEACHER_ROLE, "teacher"), (BASELINE_ROLE, "student alone")):
        found = next((each for _, each in seen if role in each.classes), None)
        models += [(name, found, role)] if found else []
    return models + [(name_method(method), each, STUDENT_ROLE) for method, each in seen]


def describe_calibration(report):
    """Returns the `Section` of reliability and calibration errors."""
    models = list_models(report)
    if not models:
        return Section("calibration", "Calibration", [explain_missing(report)], [])
    ranges, rows = [], []
    for name, observations, role in models:
        confidences, right = observations.confidences[role], observations.is_right(role)
        ranges += [{"model": name} | each for each in reliability(confidences, right)]
        error, accuracy = expected_calibration_error(confidences, right), float(right.mean())
        confidence = float(confidences.astype("float64").mean())
        shares = [Cell(f"{100 * share:.2f} %", share) for share in (confidence, accuracy, error)]
        rows.append([Cell(name), *shares])
    summary = ", ".join(f"{row[0].text} {row[3].text}" for row in rows)
    spec = charts.draw_reliability(ranges, [name for name, _, _ in models])
    notes = [
        f"Of seed {report.shown_seed}. A model on the dotted line is right as often as it is confident; below it, it "
        "is too sure. The error is the mean distance from it over 15 ranges of confidence (ECE, Guo et al., 2017)."
    ]
    blocks = [
        Chart("Accuracy of predictions by their confidence", spec, f"Calibration errors: {summary}", wide=True),
        Table(["model", "mean confidence", "accuracy", "calibration error"], rows),
    ]
    return Section("calibration", "Calibration", notes, blocks)
