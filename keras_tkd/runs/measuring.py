"""Measures models on the test images of a run."""

import dataclasses

import keras
import numpy as np

from keras_tkd import evaluation
from keras_tkd.reports.schema import ModelResult
from keras_tkd.runs.checks import check_finite
from keras_tkd.runs.epoch_selection import find_best_epoch
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils.multi_hot import count_classes

__all__ = [
    "MeasuredTeacher",
    "compute_closed_set_logits",
    "count_trainable_parameters",
    "measure_given_outputs",
    "measure_model",
    "measure_teacher",
]

_MOST_CLASSES = 256  # of which a confusion matrix is kept


@dataclasses.dataclass
class MeasuredTeacher:
    """A teacher, and what was measured of it.

    Attributes:
        model: the teacher, or an ensemble; None once it was released, and where its outputs alone are given.
        logits: its outputs for the test images, `(samples, classes)`; None where all classes are in the open set, and
            where the outputs that are given are not for these.
        result: its `ModelResult`; of an ensemble that of the ensemble.
        members: of an ensemble a list with the `ModelResult` of each model by itself, else None.
        latency_ms: milliseconds that a call with one image takes; None where nobody measured it.
    """

    model: keras.Model | None
    logits: np.ndarray | None
    result: ModelResult
    members: list[ModelResult] | None = None
    latency_ms: float | None = None

    def release(self):
        """Returns the model and forgets it, so that it is freed as soon as possible: with a cache, before training."""
        model, self.model = self.model, None
        return model


def measure_model(model, outputs, splits, teacher_logits=None, stage=None, embedding_layer=None, workers=None):
    """Returns the `ModelResult` of a model.

    Args:
        outputs: its logits for the test images; None where all classes are in the open set.
        splits: the `Splits`; with an open set, verification of its images is measured too.
        teacher_logits: its teacher's, for the agreement.
        stage: the `Stage` of its training, if this run trained it.
        embedding_layer: layer whose outputs verification compares; None for `"embedding"`.
        workers: see `Inputs`.

    Raises:
        ValueError: outputs that are not finite, whose largest would be taken for a class.
    """
    check_finite(model, outputs)
    verification = None
    if splits.open_set_images is not None:
        layer = embedding_layer or evaluation.EMBEDDING
        embeddings = evaluation.embeddings(model, splits.open_set_images, layer, workers=workers)
        verification = evaluation.verification_scores(embeddings, splits.open_set_identities)
    return dataclasses.replace(
        _measure_outputs(model, outputs, splits),
        agreement=None if teacher_logits is None else _measure_agreement(outputs, teacher_logits, splits),
        seconds=None if stage is None else round(stage.seconds, 2),
        epochs=None if stage is None else len(stage.history),
        verification=verification,
        selected_epoch=_find_selected_epoch(stage),
    )


def measure_teacher(model, splits, stage=None, embedding_layer=None, workers=None):
    """Returns a `MeasuredTeacher`; arguments are those of `measure_model`.

    Of an ensemble each model is measured by itself too, its agreement being that with the ensemble. An ensemble has no
    embeddings to verify.
    """
    # Where it sees what the student sees, nothing is said of it.
    seen = list(splits.image_shape) if splits.view_size else None
    models = flatten_ensemble(model)
    each = [compute_closed_set_logits(member, splits, workers) for member in models]
    how = {"embedding_layer": embedding_layer, "workers": workers}
    if len(models) == 1:
        result = measure_model(model, each[0], splits, stage=stage, **how)
        return MeasuredTeacher(model, each[0], dataclasses.replace(result, image_shape=seen))
    logits = np.asarray(model.combine(each)) if splits.num_classes else None
    members = [measure_model(member, own, splits, logits, **how) for member, own in zip(models, each, strict=True)]
    result = dataclasses.replace(_measure_outputs(model, logits, splits), image_shape=seen)
    return MeasuredTeacher(model, logits, result, members)


def measure_given_outputs(outputs, splits):
    """Returns the `MeasuredTeacher` of a run's `GivenOutputs`: of a teacher that is not there to be run."""
    result = _measure_outputs(None, outputs.test_logits, splits)
    return MeasuredTeacher(None, outputs.test_logits, dataclasses.replace(result, outputs=outputs.source))


def compute_closed_set_logits(model, splits, workers=None):
    """Returns the model's logits for the test images; None where all classes are in the open set."""
    return evaluation.logits(model, splits.test_images, workers=workers) if splits.num_classes else None


def count_trainable_parameters(model):
    """Returns the number of trainable parameters; BatchNorm's moving statistics are none."""
    return sum(int(variable.value.shape.num_elements()) for variable in model.trainable_variables)


def _find_selected_epoch(stage):
    chosen = stage is not None and stage.settings["select"] == "best_validation"
    return find_best_epoch(stage.history) if chosen else None


def _measure_outputs(model, outputs, splits):
    """Measures a model by its outputs for the test images; without outputs, only its size, and that if it is there."""
    parameters = None if model is None else count_trainable_parameters(model)
    # All classes in the open set, for one: the test images have none that the model could name.
    if outputs is None:
        return ModelResult(parameters=parameters)
    if splits.multi_label:
        return _measure_several_classes(outputs, splits, parameters)
    accuracy = evaluation.accuracy(outputs, splits.test_labels)
    confusion = evaluation.confusion_matrix(outputs.argmax(-1), splits.test_labels, splits.num_classes)
    shares = [None if np.isnan(share) else float(share) for share in evaluation.class_accuracies(confusion)]
    return ModelResult(
        test_accuracy=accuracy,
        parameters=parameters,
        at_chance=evaluation.at_chance(accuracy, splits.test_labels, outputs.argmax(-1)),
        balanced_accuracy=evaluation.balanced_accuracy(confusion),
        per_class_accuracy=dict(zip(splits.class_names, shares, strict=True)),
        # Of a thousand classes it would have a million entries, nearly all 0, and be longer than all else.
        confusion_matrix=confusion.tolist() if splits.num_classes <= _MOST_CLASSES else None,
    )


def _measure_several_classes(outputs, splits, parameters):
    """Measures outputs for test images of several classes: each class is a yes or no."""
    labels = splits.test_labels
    precisions, scores = evaluation.average_precisions(outputs, labels), evaluation.f1_scores(outputs, labels)
    # Of a class without test images a wrong yes is all that there could be: it says nothing.
    tested = count_classes(labels, splits.num_classes) > 0
    per_class = {
        name: {"average_precision": float(precision) if known else None, "f1": float(score) if known else None}
        for name, precision, score, known in zip(splits.class_names, precisions, scores, tested, strict=True)
    }
    return ModelResult(
        test_accuracy=evaluation.exact_match(outputs, labels),
        parameters=parameters,
        at_chance=evaluation.ranks_at_chance(outputs, labels),
        mean_average_precision=float(precisions[tested].mean()),
        macro_f1=float(scores[tested].mean()),
        binary_accuracy=evaluation.binary_accuracy(outputs, labels),
        per_class=per_class,
    )


def _measure_agreement(outputs, teacher_outputs, splits):
    measure = evaluation.binary_agreement if splits.multi_label else evaluation.agreement
    return measure(outputs, teacher_outputs)
