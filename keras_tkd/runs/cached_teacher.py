"""The teacher cache of a run: whether there is one, where it is, and how its outputs come into the batches."""

import pathlib
import shutil

import tensorflow as tf

from keras_tkd import data
from keras_tkd.batches import TEACHER
from keras_tkd.config.fields import resolve_auto
from keras_tkd.teacher_cache.builder import CacheRecipe, check_directory
from keras_tkd.teacher_cache.cache import TeacherCache
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils.precision import computing_in

__all__ = ["attach", "build", "make_mixing", "resolve_teacher_cache"]

_FOLDER = "teacher_cache"
# What "auto" must save at least: images that the teacher need not be run on, times its parameters. About ten seconds of
# a small convolutional network on two CPU cores: `digits_teacher` takes 2 to 3 ns for an image and a parameter. A
# constant, because the same command must decide alike on every machine, however busy.
_WORTH_SAVING = 4 * 10**9
# What "auto" may take on the disk, in bytes: one view of ImageNet's logits is half of it. A constant again, because how
# much is free differs from day to day.
_LARGEST_SIZE = 10 * 10**9


def build(run, inputs, teacher, losses=(), part=""):
    """Builds or opens the caches of the training images, `"train"`, and of those held out, `"held_out"`.

    Args:
        run: the `Run`, whose `teacher_cache` is neither `"auto"` nor `"off"`.
        inputs: its `Inputs`.
        teacher: the teacher, or the anchor of one that learns, in the precision of the run.
        losses: the distillation losses.
        part: name of a folder of their own below the run's caches, for a run with several.

    Returns:
        dict of `TeacherCache`.
    """
    config, splits, path = run.config, inputs.splits, _get_folder(run.config, run.shared_path) / part
    # One in the run's own folder is of this run, as it was before it was changed; another may be several runs'.
    own = config.named_cache is None and not (run.shared_path / _FOLDER).is_symlink()
    common = {
        "rebuild": own,
        "losses": losses,
        "dtype": config.teacher_cache_dtype,
        "about": _about(config),
        "workers": run.cluster if run.cluster.share else None,
    }
    seen = splits.for_teacher
    return {
        "train": TeacherCache.build(teacher, seen.train_images, path / "train", **common, **_shown(config, splits)),
        "held_out": TeacherCache.build(teacher, seen.held_out[0], path / "held_out", **common),
    }


def attach(pipeline, caches, key=TEACHER):
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


def _get_folder(config, path):
    """Returns where the caches of the run in folder `path` are: one of the training images, one of those held out."""
    return pathlib.Path(config.named_cache or path / _FOLDER)


def _shown(config, splits):
    """Returns the views in which the teacher sees the training images."""
    augment, mix = data.make_augmentation(config.augmentation, splits.view_size), make_mixing(config, splits)
    return {"augment": augment, "mix": mix, "seed": config.seed, "views": config.teacher_views or 1}


def make_mixing(config, splits):
    """Makes the `Mixing` of a run's training images; None where none are mixed."""
    if not config.mixes:
        return None
    return data.Mixing(splits.num_classes, config.mixup, config.cutmix, drawn_for=splits.view_size)


def resolve_teacher_cache(config, path, inputs):
    """Returns the configuration with `"workdir"` or `"off"` in place of `"auto"`; prints the decision and its reason.

    A cache is used where it changes nothing that was asked for, saves enough of the teacher's work, and is not too
    large. That is decided by counts alone, of images, epochs, parameters and bytes: the same command decides alike at
    any time and on any machine.

    Args:
        config: resolved `DistillConfig`.
        path: the run's folder.
        inputs: the run's `Inputs`.

    Raises:
        ValueError: the folder of the cache holds something else, or a damaged cache.
        OSError: there is to be a cache, and the disk has no room for it.
    """
    if config.teacher_cache == "off" or "teacher_cache" in config.irrelevant_fields:
        return config
    if config.mixes and config.shuffle_window:
        print("Teacher cache: off, as images of a stream are mixed inside windows, others in each epoch", flush=True)
        return resolve_auto(config, teacher_cache="off")
    splits = inputs.splits
    # An online teacher's anchor is a student, of which the logits are read.
    frozen, losses = (inputs.student, []) if config.online else (inputs.teacher, inputs.make_losses(config)[0])
    source = CacheRecipe(frozen, splits.for_teacher.train_images, losses, **_shown(config, splits))
    # By one worker, which then ends the others: all images are read. A new head is yet to be trained.
    mine = inputs.workers is None or inputs.workers.is_chief
    if mine and inputs.fingerprint and not config.trains_teacher and config.named_cache:
        _check_folder(config, path, splits, frozen, losses)
    students = config.generations or 1
    train, held_out = students * len(splits.train_labels), students * len(splits.held_out[1])
    cached = source.views * train + held_out
    row = sum(tf.TensorShape(shape).num_elements() for shape in source.shapes.values())
    size = cached * row * tf.dtypes.as_dtype(config.teacher_cache_dtype).size
    if config.teacher_cache == "auto":
        live = config.epochs * (train + held_out)
        parameters = sum(model.count_params() for model in source.reader.teachers)
        reason = _reason_against(config, live - cached, parameters, size)
        print(
            f"Teacher cache: the teacher of {parameters:,} parameters sees {live:,} images in this run without one, "
            f"{cached:,} with one of {size:,} bytes. {'Off: ' + reason if reason else f'On: in {path / _FOLDER}'}",
            flush=True,
        )
        config = resolve_auto(config, teacher_cache="off" if reason else "workdir")
    if config.teacher_cache != "off":
        _check_room(_get_folder(config, path), size)
    return config


def _check_folder(config, path, splits, teacher, losses):
    """Raises `ValueError` for a folder, of several runs, in which no cache of this teacher can be built or used."""
    # Now, and not when the student is trained: the student alone comes before it.
    for part, images, shown in (
        ("train", splits.for_teacher.train_images, _shown(config, splits)),
        ("held_out", splits.for_teacher.held_out[0], {}),
    ):
        recipe = CacheRecipe(teacher, images, losses, **{"views": 1, "augment": None, "seed": 0} | shown)
        # The precision is a part of what a cache is made from.
        with computing_in(flatten_ensemble(teacher), config.precision):
            check_directory(_get_folder(config, path) / part, recipe, config.teacher_cache_dtype, _about(config))


def _about(config):
    return {"preprocessing": config.teacher_preprocessing}


def _reason_against(config, saved, parameters, size):
    """Says why `"auto"` makes no cache; an empty text where it makes one."""
    if config.augments and config.teacher_views is None:
        return "each epoch shows fresh views, whose outputs cannot be kept (--teacher_views=K shows K views in turn)"
    if saved * parameters < _WORTH_SAVING:
        return f"images saved x parameters are {saved * parameters:.1e}, and {_WORTH_SAVING:.1e} are worth a cache"
    if size > _LARGEST_SIZE:
        return f"it would take more than {_LARGEST_SIZE:,} bytes (--teacher_cache=workdir makes it all the same)"
    return ""


def _check_room(caches, size):
    """Raises `OSError` unless the disk has room for what is missing of caches of `size` bytes in a folder."""
    # Now, and not when the cache is begun: a teacher may be trained for hours before.
    needed = size - sum(path.stat().st_size for path in caches.rglob("*.npy"))
    free = shutil.disk_usage(_existing(caches)).free
    if needed > free:
        raise OSError(
            f"The teacher cache in {caches} takes {needed:,} bytes more, and {free:,} are free. Make room, choose "
            "another folder with --teacher_cache=DIR, or run the teacher in every step with --teacher_cache=off"
        )


def _existing(path):
    """Finds the nearest folder above `path` that exists."""
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())
