"""Section of a report about embeddings: teacher and students side by side, on planes."""

import numpy as np

from keras_tkd.evaluation.projections import project_by_pca, project_by_tsne
from keras_tkd.reports.observations import BASELINE_ROLE
from keras_tkd.reports.page import charts
from keras_tkd.reports.page.blocks import Chart, Section
from keras_tkd.reports.page.calibration import list_models
from keras_tkd.reports.page.differences import explain_missing, name_class

__all__ = ["describe_embeddings"]

_FEWEST = 5  # images, of which a plane shows anything


def describe_embeddings(report):
    """Returns the `Section` of embeddings, by their principal components and by t-SNE."""
    title = "Embeddings"
    models = [model for model in list_models(report) if model[2] != BASELINE_ROLE]
    if not models:
        return Section("embeddings", title, [explain_missing(report)], [])
    notes = [
        f"Of seed {report.shown_seed}: {len(models[0][1].embedded)} of the test images, a colour for each class, a "
        "cross where the model is wrong. Of a model without such a layer, of an ensemble, and where outputs alone are "
        "given, the outputs are shown. By t-SNE, what is near belongs together; distances between groups say little."
    ]
    blocks = []
    for project, method in ((project_by_pca, "principal components"), (project_by_tsne, "t-SNE")):
        for name, observations, role in models:
            embeddings = observations.embeddings.get(role)
            if embeddings is None or len(embeddings) < _FEWEST or not np.isfinite(embeddings).all():
                continue
            rows = _place(report, observations, role, project(embeddings))
            spec = charts.draw_plane(rows, list(report.classes))
            wrong = sum(not row["right"] for row in rows)
            summary = f"{len(rows)} embeddings of {name} by {method}, {wrong} of them of images that it names wrong"
            blocks.append(Chart(f"{name}: {method}", spec, summary))
    if not blocks:
        notes = [f"Left out: fewer than {_FEWEST} test images, or embeddings that are not finite."]
    return Section("embeddings", title, notes, blocks)


def _place(report, observations, role, plane):
    images = observations.embedded
    labels, named = observations.labels[images], observations.classes[role][images]
    # What a screen resolves: more digits take room, and differ between machines.
    plane = np.round(plane / max(float(np.abs(plane).max()), 1e-12), 3)
    return [
        {
            "x": float(x),
            "y": float(y),
            "class": name_class(report, label),
            "named": name_class(report, taken),
            "right": bool(label == taken),
            "image": int(image),
        }
        for (x, y), label, taken, image in zip(plane, labels, named, images, strict=True)
    ]
