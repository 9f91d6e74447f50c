"""Outputs of a teacher that somebody else computed, checked and laid out as the rows of a teacher cache."""

import math

import numpy as np

from keras_tkd.data.arrays import allocate_aligned
from keras_tkd.evaluation.measures import accuracy, at_chance
from keras_tkd.teacher_cache.fingerprints import describe_function
from keras_tkd.utils.labels import read_class_ids
from keras_tkd.utils.naming import name_some

__all__ = [
    "KINDS",
    "SMALLEST_PROBABILITY",
    "arrange_outputs",
    "check_axis_of_views",
    "describe_given",
    "find_kind",
    "find_rows",
    "take_log",
]

KINDS = ("logits", "probabilities")
# What a probability of 0 counts as: Keras's own bound for logarithms. Nearer to 0, one class that a forest of trees
# never named would outweigh all others in the losses that read logits as numbers.
SMALLEST_PROBABILITY = 1e-7
_SUM_TOLERANCE = 1e-2  # rows of bfloat16 probabilities sum to 1 within this


def arrange_outputs(
    logits, labels=None, *, features=None, kind=None, classes=None, ids=None, sample_ids=None, name="logits"
):
    """Checks and lays out all outputs of a teacher; for the arguments see `TeacherCache.from_arrays`.

    Returns:
        `(outputs, kind)`: a dict from an output's name to its array `(views, samples, ...)`, float32, in the samples'
        order; and what `logits` were given as.
    """
    shape = np.shape(logits)
    if len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(
            f"`{name}` must be of shape (samples, classes), or (views, samples, classes), and not empty. Received: "
            f"{name} of shape {shape}"
        )
    views = None if len(shape) == 2 else shape[0]
    if sample_ids is not None and ids is None:
        raise ValueError("`sample_ids` go with `ids`, which say which row is whose. Received: `sample_ids` alone")
    sizes = {"labels": labels, "sample_ids": sample_ids}
    sizes = {given: len(of) for given, of in sizes.items() if of is not None} or {"rows": shape[-2]}
    samples = next(iter(sizes.values()))
    if len(set(sizes.values())) > 1:
        raise ValueError(f"`labels` and `sample_ids` must be of the same samples. Received: {sizes}")
    rows, available = np.arange(samples), samples
    if ids is not None:
        available = len(ids)
        rows = find_rows(ids, rows if sample_ids is None else sample_ids, f"ids of {name}")
    outputs = {"logits": _arrange_rows(logits, rows, available, views, name)}
    kind = find_kind(outputs["logits"], kind, name)
    if classes is not None:
        outputs["logits"] = np.ascontiguousarray(outputs["logits"][..., list(classes)])
    if kind == "probabilities":
        take_log(outputs["logits"])
    if labels is not None:
        _check_knows(outputs["logits"], labels, name)
    for layer, array in (features or {}).items():
        outputs[layer] = _arrange_rows(array, rows, available, views, f"{name}/{layer}")
    return outputs, kind


def check_axis_of_views(logits, augment, name):
    """Raises `ValueError` for outputs of one view where images are augmented, and of several where they are not.

    Args:
        logits: `(samples, classes)`, or `(views, samples, classes)`.
        augment: what made the views, or None.
        name: what an error calls `logits`.
    """
    shape = np.shape(logits)
    # An answer for the image as it is would be taken for one for whatever view the student sees.
    if (augment and len(shape) == 2) or (not augment and len(shape) == 3 and shape[0] > 1):
        raise ValueError(
            f"`{name}` must have an axis of views where images are augmented, and no more than one view where they "
            f"are not. Received: {name} of shape {shape}, augment={augment}. `data.view_batches` makes the views; "
            "without `augment`, each image is seen as it is"
        )


def describe_given(outputs, kind, augment, seed):
    """Describes all that determines the rows of given outputs, as `CacheRecipe.describe` does those of computed ones.

    Args:
        outputs, kind: as `arrange_outputs` returns them.
        augment, seed: what made the views.
    """
    views, samples = outputs["logits"].shape[:2]
    return {
        "teacher": f"given as {kind}",
        "augmentation": describe_function(augment),
        "seed": seed if augment else None,
        "samples": samples,
        "views": views,
        "outputs": sorted(outputs),
        "dtype": "float32",
    }


def find_rows(ids, sample_ids, name="ids"):
    """Returns the row of each sample, by ids: those of the rows, and those of the samples.

    Args:
        ids: `(rows,)`, whole numbers or texts, none twice. There may be more rows than samples.
        sample_ids: `(samples,)`, ids of the samples in their order.
        name: what an error calls `ids`.

    Raises:
        ValueError: ids of another kind than the samples', one twice, or a sample without a row.
    """
    # Through lists: of text that a table's column holds as objects, NumPy makes text.
    ids, sample_ids = (np.array(np.asarray(given).tolist()) for given in (ids, sample_ids))
    kinds = {"U": "texts, such as the paths of files", "i": "whole numbers", "u": "whole numbers"}
    there, here = (kinds.get(of.dtype.kind, f"values of {of.dtype}") for of in (ids, sample_ids))
    if ids.ndim != 1 or there != here:
        raise ValueError(
            f"`{name}` must be a list of ids as the samples' are: {here}, '{sample_ids[0]}' for one. Received: {there} "
            f"of shape {ids.shape}"
        )
    rows = dict(zip(ids.tolist(), range(len(ids)), strict=True))
    if len(rows) < len(ids):
        known, counts = np.unique(ids, return_counts=True)
        raise ValueError(f"`{name}` must differ. Received: '{known[counts > 1][0]}' twice or more")
    missing = [sample for sample in sample_ids.tolist() if sample not in rows]
    if missing:
        raise ValueError(
            f"`{name}` must name a row for each sample. Received: {len(ids):,} ids, and none for {len(missing):,} of "
            f"{len(sample_ids):,} samples: {name_some(map(str, missing))}. The first of the ids is '{ids[0]}', that of "
            f"the samples '{sample_ids[0]}'"
        )
    return np.array([rows[sample] for sample in sample_ids.tolist()])


def _arrange_rows(array, rows, available, views, name):
    """Returns outputs as a teacher cache has them: `(views, samples, ...)`, float32, in the samples' order.

    Args:
        array: `(rows, ...)`, or with `views`, `(views, rows, ...)`.
        rows: the row of each sample.
        available: number of rows that there must be.
        views: number of views, None for an array without an axis of them.
        name: what an error calls the array.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"`{name}` must be numbers. Received: {name} of dtype {array.dtype}")
    expected = (available,) if views is None else (views, available)
    if array.ndim <= len(expected) or array.shape[: len(expected)] != expected:
        axes = "(samples, ...)" if views is None else "(views, samples, ...)"
        raise ValueError(
            f"`{name}` must be {axes}, here ({', '.join(map(str, expected))}, ...), a row for each sample or id. "
            f"Received: {name} of shape {array.shape}"
        )
    array = array[np.newaxis] if views is None else array
    samples = len(rows)
    arranged = allocate_aligned((len(array), samples, *array.shape[2:]), "float32")
    for view, of_view in enumerate(array):
        with np.errstate(over="ignore"):  # infinite then, which is refused below
            arranged[view] = of_view[rows]
        finite = np.isfinite(arranged[view]).all(axis=tuple(range(1, arranged.ndim - 1)))
        if not finite.all():
            first = int(np.argmin(finite))
            raise ValueError(
                f"`{name}` must be finite numbers in float32. Received: {arranged[view, first].ravel()[:5]} ... for "
                f"sample {first} in view {view}, and so {np.sum(~finite):,} of {samples:,} samples. Compute them "
                "again, for no student learns from them"
            )
    return arranged


def find_kind(outputs, kind=None, name="logits"):
    """Returns whether outputs are `"logits"` or `"probabilities"`, by their rows unless `kind` says it.

    Rows of probabilities are not negative and sum to 1, which rows of logits do by no accident. Numbers from 0 to 1
    that do not sum to 1 are neither, as of a sigmoid for each class: of these, `kind` must say that they are to be
    taken as logits.

    Args:
        outputs: `(views, samples, classes)`, finite.
        kind: `"logits"`, `"probabilities"`, or None.
        name: what an error calls the outputs.

    Raises:
        ValueError: outputs that are neither, or not what `kind` says; another `kind`.
    """
    if kind not in (*KINDS, None):
        raise ValueError(f"`kind` must be {' or '.join(map(repr, KINDS))}, or left out. Received: kind={kind!r}")
    if kind == "logits":
        return kind
    in_range = bool(outputs.min() >= 0 and outputs.max() <= 1 + _SUM_TOLERANCE)
    sums = outputs.sum(-1)
    if in_range and np.abs(sums - 1).max() <= _SUM_TOLERANCE:
        return "probabilities"
    if kind is None and not in_range:
        return "logits"
    raise ValueError(
        f"`{name}` must be logits, or probabilities of which each row sums to 1. Received: numbers from "
        f"{outputs.min():.4g} to {outputs.max():.4g}, rows that sum to {sums.min():.4g} up to {sums.max():.4g}. Give "
        "the outputs before the last activation; logits that happen to be from 0 to 1 are given with kind='logits'"
    )


def take_log(probabilities):
    """Takes the logarithm of probabilities, in place; one of 0 counts as `SMALLEST_PROBABILITY`."""
    np.maximum(probabilities, SMALLEST_PROBABILITY, out=probabilities)
    return np.log(probabilities, out=probabilities)


def _check_knows(outputs, labels, name="logits"):
    """Raises `ValueError` for outputs that agree with the labels no more than chance: rows in another order, for one.

    Few samples may agree by chance and still be a good teacher's: then a warning is printed.

    Args:
        outputs: `(views, samples, classes)`.
        labels: `(samples,)` class ids; of a single class they say nothing.
        name: what an error calls the outputs.
    """
    labels, classes = read_class_ids(labels), outputs.shape[-1]
    if len(labels) and labels.max() >= classes:
        raise ValueError(
            f"`{name}` must have a column for each class of the labels. Received: {classes} columns, and label "
            f"{labels.max()}"
        )
    if len(np.unique(labels)) < 2:
        return
    for view, of_view in enumerate(outputs):
        named, right = of_view.argmax(-1), accuracy(of_view, labels)
        if not at_chance(right, labels, named):
            continue
        whose = f"{len(labels):,} samples{f' in view {view}' * (len(outputs) > 1)}"
        if _may_know(right, labels):
            print(
                f"Warning: `{name}` must agree with the labels more than chance does, which so few cannot show. "
                f"Received: {right:.2%} right of {whose}. See that the rows are in the samples' order",
                flush=True,
            )
            continue
        # If each class that is named stands for another one, it is the columns that are in another order.
        counts = np.zeros((classes, classes), int)
        np.add.at(counts, (named, labels), 1)
        commonest = np.bincount(labels).max() / len(labels)
        if counts.max(1).sum() / len(labels) > (1 + commonest) / 2:
            columns = counts.argmax(0)
            label = next(label for label in np.unique(labels) if columns[label] != label)
            why = (
                f"The columns seem to be in another order than the classes: most samples of class {label} have their "
                f"largest output in column {columns[label]}"
            )
        else:
            why = (
                "The rows seem to be in another order than the samples (permuted), or of other samples. Give them in "
                "the samples' order, or with ids"
            )
        raise ValueError(
            f"`{name}` must agree with the labels more than chance does. Received: {right:.2%} right of {whose}. {why}"
        )


def _may_know(right, labels):
    """Returns whether an accuracy is no surprise for a teacher that knows something, by an exact binomial test.

    Its accuracy is halfway between 1 and that of always naming the commonest class. Where more than 2.5 % of such
    teachers are right as seldom on so many samples, these do not tell it from one at chance.

    Args:
        right: share of right answers.
        labels: `(samples,)` class ids, of several classes.
    """
    samples, known = len(labels), (1 + np.bincount(labels).max() / len(labels)) / 2
    # By logarithms, for the factors of one term may be beyond any float.
    terms = (
        math.lgamma(samples + 1)
        - math.lgamma(count + 1)
        - math.lgamma(samples - count + 1)
        + count * math.log(known)
        + (samples - count) * math.log1p(-known)
        for count in range(round(right * samples) + 1)
    )
    return math.fsum(map(math.exp, terms)) > 0.025
