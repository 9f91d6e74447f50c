"""Section of a report about triplets: images with their distances, before training and after."""

from keras_tkd.reports.page.blocks import Gallery, Section
from keras_tkd.reports.page.differences import explain_missing, name_class
from keras_tkd.reports.page.pictures import make_picture

__all__ = ["describe_triplets"]

_TIMES = ("before", "after")


def describe_triplets(report):
    """Returns the `Section` of triplets, of those methods whose loss has them."""
    title = "Triplets"
    seen = {method: each for method, each in report.observations.items() if len(each.triplets)}
    if not seen:
        note = explain_missing(report)
        if report.observations:
            note = "Left out: no method here has triplets with the teacher as the anchor, as tkd has."
        return Section("triplets", title, [note], [])
    blocks = [gallery for method, each in seen.items() if (gallery := _show(report, method, each))]
    notes = [
        f"Of seed {report.shown_seed}, drawn from the test images. The anchor is the teacher's output for an image, "
        "the positive the student's output for the same image, the negative the student's output for an image of "
        "another class. Training pulls the positive nearer to the anchor than the negative by the margin. Distances "
        "are Euclidean, of logits, before the training of the student and after it."
    ]
    if not blocks:
        notes = ["Left out: images have neither one channel nor three, and cannot be shown."]
    return Section("triplets", title, notes, blocks)


def _show(report, method, observations):
    rows = []
    for place, images in enumerate(observations.triplets):
        before, after = (observations.distances[time][place] for time in _TIMES)
        row = []
        for which, (role, image) in enumerate(zip(("positive", "negative"), images, strict=True)):
            pixels = observations.find_picture(image)
            if pixels is None:
                return None
            name = name_class(report, observations.labels[image])
            lines = [f"{'anchor and ' if not which else ''}{role}: {name}"]
            lines.append(f"distance {before[which]:.3g} before, {after[which]:.3g} after")
            row.append(make_picture(pixels, f"test image {image}: {name}", lines))
        rows.append(row)
    nearer = [int((observations.distances[time][:, 0] < observations.distances[time][:, 1]).sum()) for time in _TIMES]
    count = len(rows)
    title = f"{method}: the positive is the nearer in {nearer[0]} of {count} before, and in {nearer[1]} after"
    return Gallery(title, rows)
