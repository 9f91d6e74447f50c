"""A look at one batch before training: whether every term teaches, and whether the models go with the data."""

import collections.abc
import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.batches import ANCHOR, TEACHER, get_class_ids
from keras_tkd.distillation.forward_pass import ForwardPass
from keras_tkd.distillation.objective import Objective

__all__ = [
    "ModelRow",
    "SelfCheck",
    "TermRow",
    "describe_models",
    "judge_accuracies",
    "judge_labels",
    "judge_outputs",
    "judge_sizes",
    "judge_terms",
    "measure_model",
    "measure_terms",
    "read_batch",
    "read_labels",
]

_OUTWEIGHS = 100  # so many times the gradient of all others together is more than any published method has
_SILENT = 1e-6  # of the largest gradient, each before its weight: what float32 leaves of one that should be 0
_TELLING = 8  # standard errors between a guess and knowing all from which a batch is large enough to tell the two
_SUM_TOLERANCE = 1e-2  # rows of bfloat16 probabilities sum to 1 within this


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
    ids = _as_array(ids, None)
    if len(y.shape) >= 2 and y.shape[-1] != 1:
        # Of distributions the class is the likeliest; rows of several classes have none.
        return ids if np.abs(_as_array(y).sum(-1) - 1).max() < _SUM_TOLERANCE else None
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


def judge_terms(
    rows: list[TermRow], source: str | None = None, label_losses: tuple = (), regularization: tuple = ()
) -> list[str]:
    """Says which terms of a total teach nothing, are not finite, or leave the others no say.

    Args:
        rows: the terms of one objective.
        source: what was the first that was not finite, if anything was.
        label_losses: names of the losses on the labels. A weight below 1 says that they are to count for little: of
            them it is the gradient without that weight that another term must not outweigh.
        regularization: names of terms that are to be small: it is said of them only that they are not finite.
    """
    warnings = []
    if not all(np.isfinite([number for row in rows for number in row[1:]])):
        named = [row.term for row in rows if not np.isfinite(row.value)]
        first = f" The first that is not: {source}." if source else ""
        what = f"Of the terms, {', '.join(named)} are" if named else "All terms are finite, but a gradient is"
        return [f"{what} not finite on this batch, and a step with it updates nothing.{first}"]
    judged = [row for row in rows if row.weight > 0 and row.term not in regularization]
    shares = {row.term: row.share / min(row.weight, 1.0) if row.term in label_losses else row.share for row in judged}
    gradients = {row.term: row.share / row.weight for row in judged}
    least = _SILENT * max(gradients.values(), default=0.0)
    silent = {term for term, gradient in gradients.items() if gradient <= least}
    for row in judged:
        if row.term in silent and abs(row.value) <= _SILENT:
            warnings.append(
                f"Term '{row.term}' is 0, and so is its gradient: it teaches nothing. A loss on pairs or triplets may "
                "find no partner in the batch; any other has nothing left to pull together."
            )
        elif row.term in silent:
            warnings.append(
                f"Term '{row.term}' is constant in the student: its gradient is 0, and it teaches nothing. The layers "
                "that it reads may lie before the first weights, or be dead (a ReLU below 0 for every image)."
            )
        others = sum(share for term, share in shares.items() if term != row.term and term not in silent)
        if others > 0 and row.share >= _OUTWEIGHS * others:
            warnings.append(
                f"Term '{row.term}' outweighs the others: its gradient is {row.share / others:.0f} times theirs "
                f"together, which leaves them no say. Lower its weight, {row.weight:g}, or raise theirs."
            )
    return warnings


# Outputs and labels.


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
    logits = _as_array(logits)
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    confidence = (shifted.max(-1) / shifted.sum(-1)).mean()
    accuracy = None if labels is None else float(np.mean(logits.argmax(-1) == labels))
    return ModelRow(role, parameters, accuracy, float(confidence))


def describe_models(forward_pass: ForwardPass, parameters: dict, labels, frozen: list[str]) -> tuple[list, list[str]]:
    """Measures the models on the batch of a forward pass, and says what is wrong with them.

    Args:
        forward_pass: `ForwardPass`.
        parameters: number of the models' weights by role; None, or no entry, where it is not known.
        labels: `(batch,)` class ids of the student's outputs, or None.
        frozen: roles of models that do not learn. A teacher that learns with its student need not know anything yet.

    Returns:
        `(rows, warnings)`, a `ModelRow` for each model.
    """
    outputs = {TEACHER: forward_pass.teacher, "student": forward_pass.student}
    outputs |= {role: forward_pass.batch[role] for role in (ANCHOR,) if role in forward_pass.batch}
    shape = forward_pass.student["logits"].shape[1:]
    rows, warnings = {}, []
    for role, named in outputs.items():
        logits = named.get("logits")
        # Of other classes, or of layers alone: the labels do not say what is right.
        known = labels if logits is not None and logits.shape[1:] == shape else None
        rows[role] = measure_model(role, logits, known, parameters.get(role))
        warnings += judge_outputs(role, logits)
    warnings += judge_sizes(rows[TEACHER], rows["student"])
    if TEACHER in frozen:
        logits = outputs[TEACHER].get("logits")
        named = None if logits is None else _as_array(logits).argmax(-1)
        warnings += judge_accuracies(rows[TEACHER], rows["student"], labels, named)
    return list(rows.values()), warnings


def judge_outputs(role: str, logits) -> list[str]:
    """Says whether a model's outputs, `(batch, classes)`, look like probabilities and not like logits."""
    if logits is None or len(logits.shape) != 2 or logits.shape[-1] == 1:
        return []
    rows = _as_array(logits)
    if not np.isfinite(rows).all() or rows.min() < 0 or rows.max() > 1 or np.ptp(rows) == 0:
        return []
    if np.abs(rows.sum(-1) - 1).max() < _SUM_TOLERANCE:
        return [
            f"The {role}'s outputs look like probabilities: every row lies in 0..1 and sums to 1. The losses take the "
            "softmax of them again, which flattens them: take the first one off, keras_tkd.teachers.logits_model."
        ]
    return [
        f"The {role}'s outputs look like sigmoids: all lie in 0..1, and their rows do not sum to 1. The losses take "
        "them for logits: let the model end in a layer without an activation."
    ]


def judge_accuracies(teacher: ModelRow, student: ModelRow, labels, named=None) -> list[str]:
    """Says whether the teacher knows less than the student, or no more than a guess: of the commonest class, or at all.

    Differences within two standard errors, which luck may make, are passed over.

    Args:
        teacher, student: what was measured of both on the same images.
        labels: `(batch,)` class ids, or None.
        named: `(batch,)` the classes that the teacher names, or None.
    """
    if labels is None or teacher.accuracy is None:
        return []
    classes, counts = np.unique(labels, return_counts=True)
    warnings = []
    commonest = counts.max() / len(labels)
    why = (
        "it may have been trained on other classes, on classes in another order, or on pixels scaled otherwise; or the "
        "labels do not belong to these images."
    )
    # A batch of a single class, as sorted data have them, says nothing of a guess.
    if len(counts) > 1 and _is_below(teacher.accuracy, commonest, len(labels)):
        warnings.append(
            f"The teacher is right on {teacher.accuracy:.1%} of this batch, and its commonest class is {commonest:.1%} "
            f"of it: {why}"
        )
    elif len(counts) > 1 and named is not None:
        # What two lists of classes agree on that know nothing of each other, as in Cohen's kappa.
        chance = sum(np.mean(named == each) * count / len(labels) for each, count in zip(classes, counts, strict=True))
        deviation = np.sqrt(chance * (1 - chance) / len(labels))
        # In a few images even a good teacher's share lies within what luck makes: nothing is said of those.
        if chance + _TELLING * deviation < 1 and teacher.accuracy <= chance + 2 * deviation:
            warnings.append(
                f"The teacher is right on {teacher.accuracy:.1%} of this batch, and would be on {chance:.1%} of labels "
                f"in any other order: {why}"
            )
    if student.accuracy is not None and _is_below(teacher.accuracy, student.accuracy, len(labels)):
        warnings.append(
            f"The teacher is right on {teacher.accuracy:.1%} of this batch, and the untaught student on "
            f"{student.accuracy:.1%}: it has little to teach. Were the roles swapped?"
        )
    return warnings


def _is_below(share, other, samples):
    mean = (share + other) / 2
    return share < other - 2 * np.sqrt(mean * (1 - mean) / samples)


def judge_sizes(teacher: ModelRow, student: ModelRow) -> list[str]:
    """Says whether the teacher has fewer parameters than the student."""
    if teacher.parameters is None or teacher.parameters >= student.parameters:
        return []
    return [
        f"The teacher has {teacher.parameters:,} parameters, fewer than the student's {student.parameters:,}. Were the "
        "roles swapped?"
    ]


def judge_labels(labels, logits, loss=None) -> list[str]:
    """Says which labels no output has.

    Args:
        labels: class ids, or None.
        logits: the student's outputs, `(batch, classes)`; of another shape they are no classes'.
        loss: the loss on the labels, which may leave one of them out (`ignore_class`).
    """
    if labels is None or len(logits.shape) != 2 or logits.shape[-1] == 1:
        return []
    ids, num_classes, ignored = np.unique(labels), logits.shape[-1], getattr(loss, "ignore_class", None)
    foreign = [f"{label:g}" for label in ids if not 0 <= label < num_classes and label != ignored]
    if not foreign:
        return []
    return [
        f"Labels {', '.join(foreign[:5])}{', ...' if len(foreign) > 5 else ''} have no output: the student has the "
        f"classes 0 to {num_classes - 1}. Number the labels from 0, or give the student as many outputs as there are "
        "classes. The losses were not computed."
    ]


def _as_array(tensor, dtype="float32"):
    tensor = tf.convert_to_tensor(tensor)
    return (tensor if dtype is None else tf.cast(tensor, dtype)).numpy()
