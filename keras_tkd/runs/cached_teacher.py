"""The teacher cache of a run: whether there is one, where, and the outputs of both kinds of images in it."""

import dataclasses
import pathlib
import shutil
import time

import tensorflow as tf

from keras_tkd import data
from keras_tkd.teacher_cache.builder import Source
from keras_tkd.teacher_cache.cache import TeacherCache

FOLDER = "teacher_cache"
MEASURED_IMAGES = 64
MEASURED_SECONDS = 0.5
WORTH_SECONDS = 10.0  # what "auto" must save at least


def folder(config, workdir):
    """Where the run's caches are: a folder for the training images and one for those held out."""
    return workdir.path / FOLDER if config.teacher_cache == "workdir" else pathlib.Path(config.teacher_cache)


def build(config, path, splits, teacher, losses=()):
    """The caches of the training images and of those held out, built or opened: dict of `TeacherCache`.

    Args:
        config: resolved `DistillConfig` whose `teacher_cache` is neither `"auto"` nor `"off"`.
        path: their folder.
        teacher: the teacher, or the anchor of one that learns, in the precision of the run.
        losses: the distillation losses.
    """
    common = {
        "losses": losses,
        "dtype": config.teacher_cache_dtype,
        "about": {"preprocessing": config.teacher_preprocessing},
    }
    return {
        "train": TeacherCache.build(teacher, splits.train_images, path / "train", **common, **seen(config)),
        "held_out": TeacherCache.build(teacher, splits.held_out[0], path / "held_out", **common),
    }


def attached(pipeline, caches, key="teacher"):
    """`pipeline`, a function `(images, labels, training, ...) -> tf.data.Dataset`, with the caches' outputs in it."""

    def with_outputs(images, labels, *, training, **arguments):
        dataset = pipeline(images, labels, training=training, **arguments)
        return caches["train" if training else "held_out"].attach(dataset, key)

    return with_outputs


def seen(config):
    """In which views the teacher sees the training images."""
    augment = data.AUGMENTATIONS[config.augmentation]
    return {"augment": augment, "seed": config.seed, "views": config.teacher_views or 1}


def resolve_teacher_cache(config, workdir, splits, teacher, losses):
    """The configuration with `"workdir"` or `"off"` in place of `"auto"`, by an estimate, which is printed.

    A cache is used where it changes nothing that was asked for, saves time, and fits.

    Args:
        teacher: the teacher, or a model like the anchors of one that learns.
    """
    if config.teacher_cache != "auto" or "teacher_cache" in config.irrelevant_fields:
        return config
    source = Source(teacher, splits.train_images, losses, **seen(config))
    students = config.generations or 1
    train, held_out = students * len(splits.train_labels), students * len(splits.held_out[1])
    per_image = seconds_per_image(source)
    without = config.epochs * (train + held_out) * per_image
    cached = (source.views * train + held_out) * per_image
    row = sum(tf.TensorShape(shape).num_elements() for shape in source.shapes.values())
    size = (source.views * train + held_out) * row * tf.dtypes.as_dtype(config.teacher_cache_dtype).size
    free = shutil.disk_usage(existing(workdir.path)).free
    decision, why = "off", ""
    if config.augmentation != "none" and config.teacher_views is None:
        why = "each epoch shows fresh views, whose outputs cannot be kept (--teacher_views=K shows K views in turn)"
    elif without - cached < WORTH_SECONDS:
        why = f"it would save less than {WORTH_SECONDS:.0f} s"
    elif size > free / 2:
        why = f"it would fill more than half of the {free:,} bytes that are free"
    else:
        decision, why = "workdir", f"in {workdir.path / FOLDER}"
    print(
        f"Teacher cache: the teacher takes about {without:.1f} s of this run without one, {cached:.1f} s with one of "
        f"{size:,} bytes. {'On' if decision == 'workdir' else 'Off'}: {why}",
        flush=True,
    )
    return dataclasses.replace(config, teacher_cache=decision)


def seconds_per_image(source):
    """What the teacher takes for an image, measured on a few small batches."""
    images = tf.constant(source.images[:MEASURED_IMAGES])
    forward = tf.function(source.reader)
    forward(images)  # the first call compiles
    seconds, began = [], time.perf_counter()
    while len(seconds) < 3 and time.perf_counter() - began < MEASURED_SECONDS:
        start = time.perf_counter()
        tf.nest.map_structure(lambda output: output.numpy(), forward(images))
        seconds.append(time.perf_counter() - start)
    return min(seconds) / len(images)


def existing(path):
    """The nearest folder above `path` that exists."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
