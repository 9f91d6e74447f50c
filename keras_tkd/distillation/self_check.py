"""A look at one batch before training: whether every term teaches, and whether the models go with the data."""

import collections.abc
import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.batches import get_class_ids
from keras_tkd.distillation.objective import Objective
from keras_tkd.utils.probabilities import sum_to_one

__all__ = [
    "ModelRow",
    "SelfCheck",
    "TermRow",
    "as_array",
    "measure_model",
    "measure_terms",
    "read_batch",
    "read_labels",
]


class TermRow(typing.NamedTuple):
    """One term of a model's total on a batch.

    Attributes:
        term: its name, as its metric has it.
        value: its value, before its weight.
        weight: its weight.
        share: norm of its weighted gradient in the model's weights, divided by the sum of these norms of all terms of
            the model, 0..1; NaN if one of them is not finite.
    """

    term: str
    value: float
    weight: float
    share: float


class ModelRow(typing.NamedTuple):
    """One model, as a batch shows it.

    Attributes:
        role: `"teacher"`, `"student"` or `"anchor"`.
        parameters: number of its weights, without BatchNorm's moving statistics; None where it is not in memory.
        accuracy: share of the batch's images whose class it names, 0..1; None where labels or outputs name no class.
        confidence: mean over the images of the largest probability, 0..1; None likewise.
    """

    role: str
    parameters: int | None
    accuracy: float | None
    confidence: float | None


@dataclasses.dataclass(frozen=True)
class SelfCheck:
    """Findings of a Distiller's `check` on one batch; as text a short table, with the warnings below it.

    Attributes:
        samples: number of images in the batch.
        rows: list of `TermRow`; empty where labels that no output has forbid the losses.
        models: list of `ModelRow`.
        warnings: list of plain sentences; empty if there is nothing to mend.
    """

    samples: int
    rows: list[TermRow]
    models: list[ModelRow]
    warnings: list[str]

    def __str__(self):
        width = max([len("term"), *(len(row.term) for row in self.rows)])
        lines = [f"Self-check on a batch of {self.samples} images"]
        if self.rows:
            lines.append(f"  {'term':{width}}  {'value':>10}  {'weight':>8}  share of the gradient")
        for term, value, weight, share in self.rows:
            lines.append(f"  {term:{width}}  {value:10.4g}  {weight:8.4g}  {share:7.1%}")
        lines += [f"  {_describe_model(row)}" for row in self.models]
        return "\n".join([*lines, *(f"Warning: {warning}" for warning in self.warnings)])


def _describe_model(row):
    parts = [] if row.parameters is None else [f"{row.parameters:,} parameters"]
    if row.accuracy is not None:
        parts.append(f"right on {row.accuracy:.1%} of the batch")
    if row.confidence is not None:
        parts.append(f"mean confidence {row.confidence:.1%}")
    return f"{row.role}: {', '.join(parts)}"


# The batch.


def read_batch(batch, read_labels=lambda y: y):
    """Returns `(x, y, sample_weight)` of a batch as `fit` takes it for one step, the arrays among them as tensors.

    Args:
        batch: of arrays or tensors.
        read_labels: function of the labels as they were given that refuses them, or makes numbers of them.

    Raises:
        TypeError: something else than one batch: a data set, None, arrays of objects.
        ValueError: a batch without samples, or with parts of different lengths; labels that are no numbers.
    """
    rule = "`batch` must be what `fit` takes for one step, (x, y) or (x, y, sample_weight) of arrays or tensors"
    # Of what yields batches, one is meant; an iterator would be read, and a training lack what was.
    if isinstance(batch, (tf.data.Dataset, keras.utils.PyDataset, collections.abc.Iterator)):
        raise TypeError(f"{rule}. Received: a {type(batch).__name__}. Take a batch of it: `next(iter(data))`")
    parts = batch if isinstance(batch, (tuple, list)) else [batch]
    if not 1 <= len(parts) <= 3:
        raise TypeError(f"{rule}. Received: {len(parts)} parts. Images of several kinds go together in a dict")
    if parts[0] is None:
        raise TypeError(f"{rule}. Received: None for the images. Give those of one step")
    x, y, sample_weight = (*parts, None, None)[:3]
    parts = x, read_labels(y), sample_weight
    batch = [None if part is None else keras.tree.map_structure(_as_input, part) for part in parts]
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(batch) if tensor is not None]
    lengths = {shape[:1] for shape in shapes}
    if len(lengths) > 1 or not lengths - {(), (0,)}:
        raise ValueError(f"{rule}, all of the same number of samples, 1 or more. Received: shapes {shapes}")
    return tuple(batch)


def _as_input(array):
    try:
        tensor = tf.convert_to_tensor(array)
    except (TypeError, ValueError) as error:
        kind = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise TypeError(
            f"A batch must hold arrays or tensors of numbers, or of text. Received: {kind}, which is neither. "
            "Numbers kept as objects become numbers by `array.astype('int64')`"
        ) from error
    # As `fit` does with arrays.
    return tf.cast(tensor, keras.config.floatx()) if tensor.dtype == tf.float64 else tensor


def read_labels(y):
    """Returns the class ids that labels name, as an array; None where they name none, as rows of several classes do."""
    y = y.get("logits") if isinstance(y, dict) else y
    ids = get_class_ids(y)
    if ids is None:
        return None
    ids = as_array(ids, None)
    if len(y.shape) >= 2 and y.shape[-1] != 1:
        # Of distributions the class is the likeliest; rows of several classes have none.
        return ids if sum_to_one(as_array(y)) else None
    return ids if np.array_equal(ids, np.round(ids)) else None


# Terms.


def measure_terms(tape: tf.GradientTape, objectives: list[Objective], models: list) -> list[list[TermRow]]:
    """Measures the terms of each objective.

    Args:
        tape: persistent tape that recorded the objectives.
        objectives: list of `Objective`.
        models: the model of each, in whose trainable weights gradients are taken; not those of the losses' own layers,
            which say nothing of what the model learns.

    Returns:
        For each objective a list of `TermRow`.
    """
    tables = []
    # No objectives where the losses could not be computed.
    for objective, model in zip(objectives, models, strict=False):
        names, (weights, values) = list(objective.terms), zip(*objective.terms.values(), strict=True)
        # Each by itself, and before its weight, which may be 0.
        norms = [_compute_norm(tape.gradient(value, model.trainable_variables)) for value in values]
        weighted = np.array([float(weight) * norm for weight, norm in zip(weights, norms, strict=True)])
        total = weighted.sum()
        # A total of 0: nothing moves, and no term has a share. Of one that is not finite shares are NaN.
        with np.errstate(invalid="ignore"):
            shares = weighted / total if total else np.zeros(len(names))
        # A term of the student's may be one of its teacher's too.
        known = {row.term for table in tables for row in table}
        names = [f"{name} ({objective.name})" if name in known else name for name in names]
        columns = names, map(float, values), map(float, weights), map(float, shares)
        tables.append([TermRow(*row) for row in zip(*columns, strict=True)])
    return tables


def _compute_norm(gradients):
    there = [gradient for gradient in gradients if gradient is not None]
    return float(tf.linalg.global_norm(there)) if there else 0.0


def measure_model(role: str, logits, labels, parameters: int | None) -> ModelRow:
    """Measures a model on a batch.

    Args:
        role: `"teacher"`, `"student"` or `"anchor"`.
        logits: `(batch, classes)`, or None where there are none.
        labels: `(batch,)` class ids of these classes, or None.
        parameters: see `ModelRow`.
    """
    # One output, or a map of them, names no class.
    if logits is None or len(logits.shape) != 2 or logits.shape[-1] == 1:
        return ModelRow(role, parameters, None, None)
    logits = as_array(logits)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    confidence = (shifted.max(-1) / shifted.sum(-1)).mean()
    accuracy = None if labels is None else float(np.mean(logits.argmax(-1) == labels))
    return ModelRow(role, parameters, accuracy, float(confidence))


def as_array(tensor, dtype="float32"):
    """Returns a tensor or an array as an array, of another dtype if one is given."""
    tensor = tf.convert_to_tensor(tensor)
    return (tensor if dtype is None else tf.cast(tensor, dtype)).numpy()
