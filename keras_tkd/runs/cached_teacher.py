"""The teacher cache of a run: whether there is one, where it is, and how its outputs come into the batches."""

import dataclasses
import pathlib
import shutil
import time

import tensorflow as tf

from keras_tkd import data
from keras_tkd.teacher_cache.builder import CacheRecipe
from keras_tkd.teacher_cache.cache import TeacherCache

__all__ = ["attach", "build", "get_folder", "resolve_teacher_cache"]

_FOLDER = "teacher_cache"
_MEASURED_IMAGES = 64
_MEASURED_SECONDS = 0.5
_WORTH_SECONDS = 10.0  # what "auto" must save at least


def get_folder(config, path):
    """Returns where the caches of the run in folder `path` are: one of the training images, one of those held out."""
    return path / _FOLDER if config.teacher_cache == "workdir" else pathlib.Path(config.teacher_cache)


def build(config, path, splits, teacher, losses=()):
    """Builds or opens the caches of the training images, `"train"`, and of those held out, `"held_out"`.

    Args:
        config: resolved `DistillConfig` whose `teacher_cache` is neither `"auto"` nor `"off"`.
        path: their folder.
        teacher: the teacher, or the anchor of one that learns, in the precision of the run.
        losses: the distillation losses.

    Returns:
        dict of `TeacherCache`.
    """
    common = {
        "losses": losses,
        "dtype": config.teacher_cache_dtype,
        "about": {"preprocessing": config.teacher_preprocessing},
    }
    return {
        "train": TeacherCache.build(teacher, splits.train_images, path / "train", **common, **_shown(config)),
        "held_out": TeacherCache.build(teacher, splits.held_out[0], path / "held_out", **common),
    }


def attach(pipeline, caches, key="teacher"):
    """Returns a function like `pipeline` whose batches hold the caches' outputs.

    Args:
        pipeline: function `(images, labels, training, ...) -> tf.data.Dataset`.
        caches: what `build` gives.
        key: under which the batches hold the outputs.
    """

    def with_outputs(images, labels, *, training, **arguments):
        dataset = pipeline(images, labels, training=training, **arguments)
        return caches["train" if training else "held_out"].attach(dataset, key)

    return with_outputs


def _shown(config):
    """Returns the views in which the teacher sees the training images."""
    augment = data.AUGMENTATIONS[config.augmentation]
    return {"augment": augment, "seed": config.seed, "views": config.teacher_views or 1}


def resolve_teacher_cache(config, path, inputs):
    """Returns the configuration with `"workdir"` or `"off"` in place of `"auto"`, by an estimate, which is printed.

    A cache is used where it changes nothing that was asked for, saves time, and fits.

    Args:
        config: resolved `DistillConfig`.
        path: the run's folder.
        inputs: the run's `Inputs`.
    """
    if config.teacher_cache != "auto" or "teacher_cache" in config.irrelevant_fields:
        return config
    splits = inputs.splits
    # An online teacher's anchor is a student, of which the logits are read.
    frozen, losses = (inputs.student, []) if config.online else (inputs.teacher, inputs.make_losses(config)[0])
    source = CacheRecipe(frozen, splits.train_images, losses, **_shown(config))
    students = config.generations or 1
    train, held_out = students * len(splits.train_labels), students * len(splits.held_out[1])
    per_image = _seconds_per_image(source)
    without = config.epochs * (train + held_out) * per_image
    cached = (source.views * train + held_out) * per_image
    row = sum(tf.TensorShape(shape).num_elements() for shape in source.shapes.values())
    size = (source.views * train + held_out) * row * tf.dtypes.as_dtype(config.teacher_cache_dtype).size
    free = shutil.disk_usage(_existing(path)).free
    decision, why = "off", ""
    if config.augmentation != "none" and config.teacher_views is None:
        why = "each epoch shows fresh views, whose outputs cannot be kept (--teacher_views=K shows K views in turn)"
    elif without - cached < _WORTH_SECONDS:
        why = f"it would save less than {_WORTH_SECONDS:.0f} s"
    elif size > free / 2:
        why = f"it would fill more than half of the {free:,} bytes that are free"
    else:
        decision, why = "workdir", f"in {path / _FOLDER}"
    print(
        f"Teacher cache: the teacher takes about {without:.1f} s of this run without one, {cached:.1f} s with one of "
        f"{size:,} bytes. {'On' if decision == 'workdir' else 'Off'}: {why}",
        flush=True,
    )
    return dataclasses.replace(config, teacher_cache=decision)


def _seconds_per_image(source):
    """Measures the seconds that the teacher takes for an image, on a few small batches."""
    images = tf.constant(source.images[:_MEASURED_IMAGES])
    forward = tf.function(source.reader)
    forward(images)  # the first call compiles
    seconds, began = [], time.perf_counter()
    while len(seconds) < 3 and time.perf_counter() - began < _MEASURED_SECONDS:
        start = time.perf_counter()
        tf.nest.map_structure(lambda output: output.numpy(), forward(images))
        seconds.append(time.perf_counter() - start)
    return min(seconds) / len(images)


def _existing(path):
    """The nearest folder above `path` that exists."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
