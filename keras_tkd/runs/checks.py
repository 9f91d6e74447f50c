"""Checks before anything is trained, of a trained teacher before its student is, and around the training itself."""

import contextlib
import pathlib

import keras
import numpy as np

from keras_tkd import evaluation
from keras_tkd.batches import IMAGE, TEACHER
from keras_tkd.distillation.distiller import Distiller
from keras_tkd.distillation.inspection import find_broken_variables
from keras_tkd.runs.distillation_setup import make_training_batches
from keras_tkd.runs.finished import read_finished
from keras_tkd.runs.layout import SPLIT
from keras_tkd.teacher_cache.fingerprints import hash_weights
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils.files import read_json
from keras_tkd.utils.keras_graph import flatten_layers

__all__ = [
    "check_callbacks",
    "check_embeddings",
    "check_finite",
    "check_first_batch",
    "check_teacher",
    "check_together",
    "check_unchanged",
    "check_unseen",
]

# Callbacks of Keras whose whole work is to set the learning rate.
_RATE_SETTERS = (keras.callbacks.LearningRateScheduler, keras.callbacks.ReduceLROnPlateau)


def check_callbacks(callbacks):
    """Raises `ValueError` for callbacks that cannot take part in a run."""
    rule = "`callbacks` must be a list or tuple of instances of keras.callbacks.Callback"
    if not isinstance(callbacks, (list, tuple)):
        raise ValueError(f"{rule}. Received: callbacks={callbacks!r}. A single one is given as callbacks=[callback]")
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            hint = f" Make an instance: {callback.__name__}(...)" if isinstance(callback, type) else ""
            raise ValueError(f"{rule}. Received: {callback!r} among them.{hint}")
        # The run's schedule would overrule them at the next epoch, or they the schedule that the run's flags tell of.
        if isinstance(callback, _RATE_SETTERS):
            raise ValueError(
                "The learning rate of a run is that of its configuration, set at the start of each epoch. Received: "
                f"callbacks with a {type(callback).__name__}. Leave it out, and set `learning_rate`, `schedule`, "
                "`schedule_epochs` and `schedule_factor`"
            )


def check_together(config, inputs):
    """Raises `ValueError` for models and losses that do not go together.

    Args:
        config: resolved `DistillConfig`.
        inputs: the run's `Inputs`.
    """
    student = inputs.student
    # Keras would fit such a student, and report a loss that does not fall.
    if not student.trainable_variables:
        raise ValueError(
            f"`student_model` must have trainable weights. Received: {config.student_model}, "
            f"{len(student.variables)} variables, trainable={student.trainable}"
        )
    if inputs.teacher is not None:
        # On copies, for a Distiller freezes its teacher. One that was trained elsewhere may be large, or hold what
        # cannot be copied: it is left as it was.
        teacher = inputs.teacher if inputs.fingerprint else keras.models.clone_model(inputs.teacher)
        before = [(layer, layer.trainable) for layer in flatten_layers(teacher)]
        Distiller(teacher, keras.models.clone_model(student), *inputs.make_losses(config))
        # A model before its layers: it sets them all.
        for layer, trainable in before:
            layer.trainable = trainable
    elif inputs.outputs is not None:
        distiller = Distiller(None, keras.models.clone_model(student), *inputs.make_losses(config))
        distiller.build({IMAGE: (None, *inputs.splits.image_shape), TEACHER: inputs.outputs.shapes})


def check_unseen(path, splits):
    """Raises `ValueError` for a model out of a run's folder that was trained on identities it is to be verified on.

    Args:
        path: the model's file; where no run's split is beside it, nothing is known of its training.
        splits: the `Splits` that it is to be measured on.
    """
    # Only a run leaves such a record; of other models we know nothing, and must believe the user.
    split = pathlib.Path(path).parent / SPLIT
    record = read_json(split)
    if record is None or not splits.num_classes:
        return
    if splits.open_set_names:
        # A run that is continued with another split writes that down before its models are trained anew.
        read_finished(split.parent)
    unseen = record.get("open_set_classes", [])
    if not isinstance(unseen, list):
        raise ValueError(f"{split} is damaged: its entry 'open_set_classes' is of another kind than a run writes")
    seen = [name for name in splits.open_set_names or () if name not in unseen]
    if seen:
        raise ValueError(
            "A model must not have been trained on the identities that it is to be verified on. "
            f"Received: {path}, trained on {len(seen)} of {len(splits.open_set_names)}, '{seen[0]}' for one. "
            "Pass the --open_set_fraction and --split_seed that it was trained with"
        )


def check_embeddings(model, layer, splits):
    """Raises `ValueError` for a model, or one of an ensemble, without the embeddings that verification compares.

    Args:
        layer: name of the layer; None for `"embedding"`.
    """
    if splits.open_set_images is None:
        return
    for member in flatten_ensemble(model):
        _check_embeddings_of_one(member, layer or evaluation.EMBEDDING, splits)


def _check_embeddings_of_one(model, layer, splits):
    rule = "Verification compares the outputs of a layer, --embedding_layer (--teacher_embedding_layer)"
    try:
        shape = evaluation.embeddings(model, splits.open_set_images[:1], layer).shape
    except ValueError as error:
        raise ValueError(f"{rule}. {error}") from error
    if len(shape) != 2:
        raise ValueError(f"{rule}, of shape (batch, width). Received: layer '{layer}' of shape {shape}")


def check_teacher(teacher, config):
    """Prints what each teacher knows, and warns of one that knows no more than chance.

    Args:
        teacher: the `MeasuredTeacher`.
        config: the run's resolved `DistillConfig`.

    Raises:
        ValueError: such a teacher, with `check="strict"`.
    """
    each = teacher.members or [teacher.result]
    if config.teacher_outputs:
        # That they agree with the labels was checked when they were read.
        known = teacher.result.test_accuracy
        accuracy = "not known, for there are no outputs for the test images" if known is None else f"{known:.2%}"
        print(f"Teacher: {_name_measure(teacher.result)} {accuracy}")
        return
    names = config.teacher_path or (config.teacher_model,)
    if len(names) < len(each):
        names = [f"{names[0]}, number {number}" for number in range(len(each))]  # an ensemble out of one file
    advice = "Train it otherwise, with a lower --teacher_learning_rate for example"
    if not config.trains_teacher:
        advice = (
            "If it was trained on pixels scaled otherwise, pass --teacher_preprocessing; if on other classes or in "
            "another order, say which of them the data's are: --teacher_classes"
        )
    for name, one in zip(names, each, strict=True):
        accuracy, kind = f"{one.test_accuracy:.2%}", _name_measure(one)
        print(f"Teacher{f' {name}' * (len(each) > 1)}: {kind} {accuracy}, {one.parameters:,} parameters")
        if not one.at_chance:
            continue
        received = f"Received: {kind} {accuracy} of {name} on {config.dataset}. {advice}"
        rule = "The teacher must know more than chance"
        if config.check == "strict":
            raise ValueError(f"{rule}. {received}")
        # No more: on a few test images chance reaches far, and who trains knows more of them than a test does.
        print(f"Warning: {rule}, or its student learns nothing of it. {received}", flush=True)


def _name_measure(result):
    """Returns what stands before the test accuracy of a model: what it is, and what else is known."""
    if result.mean_average_precision is None:
        return "test accuracy"
    return f"mean average precision {result.mean_average_precision:.2%}, exact match"


def check_finite(model, outputs):
    """Raises `ValueError` for a model whose outputs are not all finite: the classes that it names mean nothing.

    Args:
        model: a `keras.Model`.
        outputs: its logits, `(samples, classes)`, or None.
    """
    rows = 0 if outputs is None else int(np.sum(~np.isfinite(outputs).all(axis=1)))
    if rows:
        broken = find_broken_variables(model)
        why = f"its variable '{broken[0]}' holds such numbers itself" if broken else "its weights are finite"
        raise ValueError(
            f"The outputs of a model must be finite, and those of '{model.name}' are not. Received: {rows} of "
            f"{len(outputs)} images with outputs that are NaN or infinite; {why}. "
            + ("Take a file that was saved before that happened" if broken else "Look at the pixels, and their scale")
        )


def check_first_batch(run, inputs, model, pipeline, inspection=None):
    """Prints what a Distiller says of the first batch of its training, unless the configuration leaves that out.

    Args:
        run: the `Run`, with a resolved `DistillConfig`.
        inputs: its `Inputs`.
        model: a compiled `Distiller` or `TriKD`.
        pipeline: see `DistillationSetup`.
        inspection: `Inspection` of a teacher that is no longer in memory.

    Raises:
        ValueError: warnings, with `check="strict"`.
    """
    config = run.config
    if config.check == "off":
        return
    batches = make_training_batches(config, inputs.splits, pipeline)
    found = model.check(next(iter(batches)), inspection)
    print(found, flush=True)
    if config.check == "strict" and found.warnings:
        raise ValueError(
            f"With --check=strict nothing may be warned of. Received: {' '.join(found.warnings)} Mend that, or pass "
            "--check=warn to train all the same"
        )


@contextlib.contextmanager
def check_unchanged(models):
    """Raises `ValueError` when the context closes if models have other weights than when it was opened.

    Args:
        models: dict of models by role, None for one that is not in memory.
    """
    before = {role: hash_weights(model) for role, model in models.items() if model is not None}
    yield
    for role, weights in before.items():
        if hash_weights(models[role]) != weights:
            raise ValueError(
                f"The {role} must stay as it is, and its weights have changed while the student was trained: what the "
                "student learned is of no known teacher. Look for a callback that sets them, or for a layer whose "
                "state moves without `training`"
            )
