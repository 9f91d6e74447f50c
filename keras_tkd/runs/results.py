"""Measures the models of a run and puts its `results.json` together."""

import dataclasses
import importlib.metadata
import os
import platform
import statistics

import keras
import numpy as np
import tensorflow as tf

from keras_tkd import evaluation
from keras_tkd.reports.schema import GenerationResult, ImageCounts, ModelResult, Results, StudentResult, TrainingResult
from keras_tkd.runs.baseline import count_epochs_to_baseline
from keras_tkd.runs.checks import check_finite
from keras_tkd.runs.epoch_selection import find_best_epoch
from keras_tkd.runs.generations import choose_best
from keras_tkd.runs.latency import measure_model_latency
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils.multi_hot import count_classes

__all__ = [
    "MeasuredTeacher",
    "compute_closed_set_logits",
    "count_images",
    "count_trainable_parameters",
    "describe_generations",
    "describe_student_run",
    "describe_teacher_run",
    "describe_versions",
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


def count_images(splits):
    """Returns the `ImageCounts` of a `Splits`."""
    return ImageCounts(
        **splits.count_images(),
        skipped={reason: len(paths) for reason, paths in splits.skipped.items()} if splits.skipped else None,
        bad=list(splits.bad_images) or None,
    )


def count_trainable_parameters(model):
    """Returns the number of trainable parameters; BatchNorm's moving statistics are none."""
    return sum(int(variable.value.shape.num_elements()) for variable in model.trainable_variables)


def describe_teacher_run(run, inputs, trained):
    """Returns the `Results` of a run that trained a teacher."""
    teacher = measure_model(
        trained.model,
        inputs.compute_logits(trained.model),
        inputs.splits,
        stage=trained.stage,
        embedding_layer=run.config.embedding_layer,
        workers=run.cluster,
    )
    latency = {"teacher": measure_model_latency(trained.model, inputs.splits.train_images)}
    return _describe_run("teacher", run, inputs, trained.stage, teacher=teacher, latency_ms=latency)


def describe_student_run(run, inputs, teacher, baseline, student):
    """Returns the `Results` of a run that distilled a student, or trained it alone.

    Args:
        teacher: the `MeasuredTeacher`; None for a method without a teacher.
        baseline: the student alone as this run trained it; None where it did not.
        student: the student as this run trained it.
    """
    models, latency = {}, {"student": measure_model_latency(student.model, inputs.splits.train_images)}
    logits = None
    if teacher:
        logits = teacher.logits
        models = {"teacher": teacher.result, "teachers": teacher.members}
        latency |= {} if teacher.latency_ms is None else {"teacher": teacher.latency_ms}
    measured_baseline = _measure_baseline(run, inputs, baseline, logits)
    alone = _predict_alone(inputs, baseline)
    measured = _measure_student(run, inputs, student.model, logits, student.stage, measured_baseline, alone)
    title = run.config.title
    models |= {"baseline": measured_baseline, "student": measured, "latency_ms": latency}
    return _describe_run(title, run, inputs, student.stage, **models)


def describe_versions():
    """Returns the versions of Python and of the packages, and what the machine is, as a dict."""
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("keras_tkd", "keras", "tensorflow")},
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "gpus": len(tf.config.list_physical_devices("GPU")),
    }


def describe_generations(run, inputs, baseline, generations):
    """Returns the `Results` of a run whose students learned together with their teachers.

    Args:
        baseline: as in `describe_student_run`.
        generations: list of `Generation`.
    """
    splits = inputs.splits
    logits = [inputs.compute_logits(generation.teacher) for generation in generations]
    chosen = choose_best(generations)
    measured_baseline = _measure_baseline(run, inputs, baseline, logits[chosen.number - 1])
    layer = run.config.teacher.embedding_layer
    alone = _predict_alone(inputs, baseline)
    each = [
        GenerationResult(
            teacher=measure_model(generation.teacher, own, splits, embedding_layer=layer, workers=run.cluster),
            student=_measure_student(run, inputs, generation.student, own, generation.stage, measured_baseline, alone),
            validation_accuracy=generation.validation_accuracy,
        )
        for generation, own in zip(generations, logits, strict=True)
    ]
    exported = each[chosen.number - 1]
    return _describe_run(
        run.config.method,
        run,
        inputs,
        chosen.stage,
        teacher=exported.teacher,
        baseline=measured_baseline,
        student=exported.student,
        generations=each,
        generation=chosen.number,
        latency_ms={
            role: measure_model_latency(model, splits.train_images)
            for role, model in (("teacher", chosen.teacher), ("student", chosen.student))
        },
    )


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


def _measure_trained_student(run, inputs, model, teacher_logits, stage):
    """The `ModelResult` of a student, alone or distilled: also its accuracy on the images it was trained on."""
    splits = inputs.splits
    outputs = inputs.compute_logits(model)
    result = measure_model(model, outputs, splits, teacher_logits, stage, run.config.embedding_layer, run.cluster)
    # Beside the test accuracy it tells underfitting from overfitting.
    predicted = evaluation.predict_labels(model, splits.train_images, splits.multi_label, workers=run.cluster)
    return dataclasses.replace(result, train_accuracy=float(evaluation.is_right(predicted, splits.train_labels).mean()))


def _measure_baseline(run, inputs, trained, teacher_logits):
    """The `ModelResult` of the student alone: of this run's, or what another run says of its own; None without one."""
    if trained is None:
        return inputs.baseline
    return _measure_trained_student(run, inputs, trained.model, teacher_logits, trained.stage)


def _predict_alone(inputs, baseline):
    """Returns what the student alone says of the test images, as labels have it; None where that is not known."""
    if baseline is None or not inputs.splits.num_classes:
        return inputs.baseline_predictions
    return evaluation.name_labels(inputs.compute_logits(baseline.model), inputs.splits.multi_label)


def _measure_student(run, inputs, model, teacher_logits, stage, baseline, alone):
    """The `StudentResult` of a student; `alone` is what the student alone says of the test images, where known."""
    result = _measure_trained_student(run, inputs, model, teacher_logits, stage)
    result = StudentResult(**vars(result), epochs_to_baseline=count_epochs_to_baseline(baseline, stage.history))
    if alone is None:
        return result
    splits = inputs.splits
    predicted = evaluation.name_labels(inputs.compute_logits(model), splits.multi_label)
    right = evaluation.is_right(predicted, splits.test_labels)
    alone_right = evaluation.is_right(alone, splits.test_labels)
    return dataclasses.replace(result, gained=int((right & ~alone_right).sum()), lost=int((alone_right & ~right).sum()))


def _describe_run(method, run, inputs, stage, **models):
    """The `Results` of a run: what is said of it as a whole, and the results of its models."""
    config, splits = run.config, inputs.splits
    # The median: the first epoch compiles, and another may have been disturbed.
    speeds = [epoch["images_per_second"] for epoch in stage.history if "images_per_second" in epoch]
    return Results(
        method=method,
        dataset=config.dataset,
        classes=list(splits.class_names) if config.classes else None,
        task=config.task if config.multi_label else None,
        seed=config.seed,
        epochs=config.epochs,
        test_samples=len(splits.test_labels),
        images=count_images(splits),
        train=TrainingResult(
            seconds=round(stage.seconds, 2),
            images_per_second=round(statistics.median(speeds)) if speeds else None,
        ),
        versions=describe_versions(),
        **models,
    )
