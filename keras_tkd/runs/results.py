"""Puts the `results.json` of a run together."""

import dataclasses
import importlib.metadata
import os
import platform
import statistics

import tensorflow as tf

from keras_tkd import evaluation
from keras_tkd.reports.schema import GenerationResult, ImageCounts, Results, StudentResult, TrainingResult
from keras_tkd.runs.baseline import count_epochs_to_baseline
from keras_tkd.runs.generations import choose_best
from keras_tkd.runs.latency import measure_model_latency
from keras_tkd.runs.measuring import measure_model

__all__ = [
    "count_images",
    "describe_generations",
    "describe_student_run",
    "describe_teacher_run",
    "describe_versions",
]


def count_images(splits):
    """Returns the `ImageCounts` of a `Splits`."""
    return ImageCounts(
        **splits.count_images(),
        skipped={reason: len(paths) for reason, paths in splits.skipped.items()} if splits.skipped else None,
        bad=list(splits.bad_images) or None,
    )


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
    baseline_predictions = _predict_baseline(inputs, baseline)
    measured = _measure_student(
        run, inputs, student.model, logits, student.stage, measured_baseline, baseline_predictions
    )
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
    baseline_predictions = _predict_baseline(inputs, baseline)
    each = [
        GenerationResult(
            teacher=measure_model(generation.teacher, own, splits, embedding_layer=layer, workers=run.cluster),
            student=_measure_student(
                run, inputs, generation.student, own, generation.stage, measured_baseline, baseline_predictions
            ),
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


def _measure_trained_student(run, inputs, model, teacher_logits, stage):
    """Measures a student, alone or distilled, and its accuracy on the images it was trained on too."""
    splits = inputs.splits
    outputs = inputs.compute_logits(model)
    result = measure_model(model, outputs, splits, teacher_logits, stage, run.config.embedding_layer, run.cluster)
    # Beside the test accuracy it tells underfitting from overfitting.
    predicted = evaluation.predict_labels(model, splits.train_images, splits.multi_label, workers=run.cluster)
    return dataclasses.replace(result, train_accuracy=float(evaluation.is_right(predicted, splits.train_labels).mean()))


def _measure_baseline(run, inputs, trained, teacher_logits):
    """Measures the student alone: this run's, or as another run says of its own; None without one."""
    if trained is None:
        return inputs.baseline
    return _measure_trained_student(run, inputs, trained.model, teacher_logits, trained.stage)


def _predict_baseline(inputs, baseline):
    """Returns what the student alone says of the test images, as labels have it; None where that is not known."""
    if baseline is None or not inputs.splits.num_classes:
        return inputs.baseline_predictions
    return evaluation.name_labels(inputs.compute_logits(baseline.model), inputs.splits.multi_label)


def _measure_student(run, inputs, model, teacher_logits, stage, baseline, baseline_predictions):
    """Measures a student; `baseline_predictions` are those of the student alone for the test images, where known."""
    result = _measure_trained_student(run, inputs, model, teacher_logits, stage)
    result = StudentResult(**vars(result), epochs_to_baseline=count_epochs_to_baseline(baseline, stage.history))
    if baseline_predictions is None:
        return result
    splits = inputs.splits
    predicted = evaluation.name_labels(inputs.compute_logits(model), splits.multi_label)
    right = evaluation.is_right(predicted, splits.test_labels)
    baseline_right = evaluation.is_right(baseline_predictions, splits.test_labels)
    return dataclasses.replace(
        result, gained=int((right & ~baseline_right).sum()), lost=int((baseline_right & ~right).sum())
    )


def _describe_run(method, run, inputs, stage, **models):
    """Describes a run: what is said of it as a whole, and the results of its models."""
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
