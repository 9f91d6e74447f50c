"""Outputs of a teacher that somebody else computed, checked and laid out as the rows of a teacher cache."""

import numpy as np

from keras_tkd.data.arrays import allocate_aligned
from keras_tkd.teacher_cache.fingerprints import describe_function
from keras_tkd.teacher_cache.label_agreement import check_agreement
from keras_tkd.teachers.probabilities import SMALLEST_PROBABILITY
from keras_tkd.utils.multi_hot import is_multi_hot
from keras_tkd.utils.naming import name_some
from keras_tkd.utils.probabilities import SUM_TOLERANCE, sum_to_one

__all__ = [
    "KINDS",
    "arrange_outputs",
    "check_axis_of_views",
    "describe_given",
    "find_kind",
    "find_rows",
    "take_log",
    "take_logit",
]

KINDS = ("logits", "probabilities")


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
    several = labels is not None and is_multi_hot(labels)
    kind = find_kind(outputs["logits"], kind, name, several)
    if classes is not None:
        outputs["logits"] = np.ascontiguousarray(outputs["logits"][..., list(classes)])
    if kind == "probabilities":
        (take_logit if several else take_log)(outputs["logits"])
    if labels is not None:
        check_agreement(outputs["logits"], labels, name)
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


def find_kind(outputs, kind=None, name="logits", several=False):
    """Returns whether outputs are `"logits"` or `"probabilities"`, by their rows unless `kind` says it.

    Rows of probabilities are not negative and sum to 1, which rows of logits do by no accident. Numbers from 0 to 1
    that do not sum to 1 are neither, as of a sigmoid for each class: of these, `kind` must say that they are to be
    taken as logits. Where an image may have several classes, they are the probabilities of each.

    Args:
        outputs: `(views, samples, classes)`, finite.
        kind: `"logits"`, `"probabilities"`, or None.
        name: what an error calls the outputs.
        several: whether an image may have several classes.

    Raises:
        ValueError: outputs that are neither, or not what `kind` says; another `kind`.
    """
    if kind not in (*KINDS, None):
        raise ValueError(f"`kind` must be {' or '.join(map(repr, KINDS))}, or left out. Received: kind={kind!r}")
    if kind == "logits":
        return kind
    in_range = bool(outputs.min() >= 0 and outputs.max() <= 1 + SUM_TOLERANCE)
    one = in_range and sum_to_one(outputs)
    if one and several:
        raise ValueError(
            f"`{name}` must be logits, or the probability of each class, where labels are multi-hot rows. Received: "
            "rows that all sum to 1, as of a softmax, which makes the classes share: give the outputs before it. Where "
            "each image has one class, its labels are class ids: `labels.argmax(axis=-1)`"
        )
    if one or (in_range and several):
        return "probabilities"
    if kind is None and not in_range:
        return "logits"
    if several:
        raise ValueError(
            f"`{name}` that are probabilities of each class must be from 0 to 1. Received: numbers from "
            f"{outputs.min():.4g} to {outputs.max():.4g}, kind='probabilities'. Logits are given with kind='logits'"
        )
    sums = outputs.sum(-1)
    raise ValueError(
        f"`{name}` must be logits, or probabilities of which each row sums to 1. Received: numbers from "
        f"{outputs.min():.4g} to {outputs.max():.4g}, rows that sum to {sums.min():.4g} up to {sums.max():.4g}. Give "
        "the outputs before the last activation; logits that happen to be from 0 to 1 are given with kind='logits'"
    )


def take_log(probabilities):
    """Takes the logarithm of probabilities, in place; one of 0 counts as `SMALLEST_PROBABILITY`."""
    np.maximum(probabilities, SMALLEST_PROBABILITY, out=probabilities)
    return np.log(probabilities, out=probabilities)


def take_logit(probabilities):
    """Takes the logit `log(p / (1 - p))` of probabilities, in place; 0 and 1 count as the bound and 1 minus it.

    The bound is `SMALLEST_PROBABILITY`, of the yes and of the no alike.
    """
    no = np.maximum(1 - probabilities, SMALLEST_PROBABILITY)
    probabilities = take_log(probabilities)
    return np.subtract(probabilities, np.log(no, out=no), out=probabilities)
