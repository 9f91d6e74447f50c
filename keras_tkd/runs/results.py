"""What results.json says of a run."""

import importlib.metadata
import os
import platform
import statistics

import numpy as np
import tensorflow as tf

from keras_tkd import evaluation
from keras_tkd.teachers.ensemble import flatten_ensemble


def describe_run(method, config, stage, splits):
    """What results.json says of the run as a whole; the models' descriptions are still None."""
    speeds = [epoch["images_per_second"] for epoch in stage.history if "images_per_second" in epoch]
    return {
        "method": method,
        "dataset": config.dataset,
        "classes": list(splits.class_names) if config.classes else None,
        "seed": config.seed,
        "epochs": config.epochs,
        "test_samples": len(splits.test_labels),
        "teacher": None,
        "baseline": None,
        "student": None,
        "train": {
            "seconds": round(stage.seconds, 2),
            "images_per_second": round(statistics.median(speeds)) if speeds else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("keras_tkd", "keras", "tensorflow")},
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "gpus": len(tf.config.list_physical_devices("GPU")),
        },
    }


def describe_student(student, splits, teacher_outputs, seconds, embedding_layer=None):
    """What results.json says of a student, alone or distilled: also its accuracy on the images it was trained on."""
    outputs = evaluation.logits(student, splits.test_images)
    described = describe_model(student, outputs, splits, teacher_outputs, seconds, embedding_layer)
    named = evaluation.predict_classes(student, splits.train_images)
    return described | {"train_accuracy": float((named == splits.train_labels).mean())}


def describe_model(model, outputs, splits, teacher_outputs=None, seconds=None, embedding_layer=None):
    """What results.json says of one model, by its outputs for the test images.

    With an open set, `verification` of its images too, by the outputs of `embedding_layer` (None for `"embedding"`).
    Where that is all there is, `outputs` is None.
    """
    described = describe_outputs(model, outputs, splits)
    if teacher_outputs is not None:
        described["agreement"] = evaluation.agreement(outputs, teacher_outputs)
    if seconds is not None:
        described["seconds"] = round(seconds, 2)
    if splits.open_set_images is not None:
        embeddings = evaluation.embeddings(model, splits.open_set_images, embedding_layer or evaluation.EMBEDDING)
        described["verification"] = evaluation.verification_scores(embeddings, splits.open_set_identities)
    return described


def describe_outputs(model, outputs, splits):
    described = {"parameters": trainable_parameters(model)}
    if outputs is None:
        return described
    accuracy = evaluation.accuracy(outputs, splits.test_labels)
    at_chance = evaluation.at_chance(accuracy, splits.test_labels)
    return {"test_accuracy": accuracy, **described, "at_chance": at_chance}


def trainable_parameters(model):
    """Number of trainable parameters; BatchNorm's moving statistics are none."""
    return sum(int(variable.value.shape.num_elements()) for variable in model.trainable_variables)


def describe_teacher(teacher, splits, seconds=None, embedding_layer=None):
    """The teacher's logits for the test images, and what results.json says of it.

    Of an ensemble that is `"teacher"`, the ensemble, and `"teachers"`, each of its models by itself, whose agreement is
    that with the ensemble. An ensemble has no embeddings to verify.
    """
    models = flatten_ensemble(teacher)
    each = [closed_set_logits(model, splits) for model in models]
    if len(models) == 1:
        described = describe_model(teacher, each[0], splits, seconds=seconds, embedding_layer=embedding_layer)
        return each[0], {"teacher": described}
    outputs = np.asarray(teacher.combine(each)) if splits.num_classes else None
    described = [
        describe_model(model, own, splits, outputs, embedding_layer=embedding_layer)
        for model, own in zip(models, each, strict=True)
    ]
    return outputs, {"teacher": describe_outputs(teacher, outputs, splits), "teachers": described}


def closed_set_logits(model, splits):
    """The model's logits for the test images; None where all classes are in the open set."""
    return evaluation.logits(model, splits.test_images) if splits.num_classes else None
