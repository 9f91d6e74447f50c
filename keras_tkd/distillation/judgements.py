"""Judgements, in plain sentences, of what a look at one batch found: of terms, outputs, sizes, accuracies, labels."""

import numpy as np

from keras_tkd.distillation.self_check import ModelRow, TermRow, as_array
from keras_tkd.utils.probabilities import sum_to_one

__all__ = ["judge_accuracies", "judge_labels", "judge_outputs", "judge_sizes", "judge_terms"]

_OUTWEIGHS = 100  # so many times the gradient of all others together is more than any published method has
_SILENT = 1e-6  # of the largest gradient, each before its weight: what float32 leaves of one that should be 0
_TELLING = 8  # standard errors between a guess and knowing all from which a batch is large enough to tell the two


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


def judge_outputs(role: str, logits) -> list[str]:
    """Says whether a model's outputs, `(batch, classes)`, look like probabilities and not like logits."""
    if logits is None or len(logits.shape) != 2 or logits.shape[-1] == 1:
        return []
    rows = as_array(logits)
    if not np.isfinite(rows).all() or rows.min() < 0 or rows.max() > 1 or np.ptp(rows) == 0:
        return []
    if sum_to_one(rows):
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
