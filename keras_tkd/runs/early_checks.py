"""Checks that need no data, and so come before these are loaded: of names, given files, and folders to write to."""

import importlib
import os

from keras_tkd import models
from keras_tkd.data.datasets import check_outside
from keras_tkd.runs.baseline import find_baseline_file, read_baseline
from keras_tkd.runs.given import check_given_files
from keras_tkd.runs.teacher_files import check_teacher_files
from keras_tkd.runs.teacher_outputs import open_outputs
from keras_tkd.utils.files import check_writable

__all__ = ["check_without_data"]

_MODELS = ("student_model", "teacher_model")


def check_without_data(config, undecided=()):
    """Refuses what can be told to be wrong of a configuration without its data, which may take hours to load.

    Of files, names, endings and headers are looked at, of another run its results: models are not loaded.

    Args:
        config: resolved `DistillConfig`, or a `TeacherTrainingConfig` or `EvaluateConfig`.
        undecided: names of settings that the data are still to choose.

    Raises:
        ValueError: a module of `custom_objects` that cannot be imported; a model of no known name; a folder without a
            teacher; a file of outputs that is none; another run without a baseline, or of another budget; a folder
            that cannot be made, or lies in the data set.
        FileNotFoundError: a file that is not there.
    """
    _import_custom_objects(config)
    # Not every configuration has all of these: a training of a teacher is given none.
    for name in _MODELS:
        if getattr(config, name, None) and name not in config.irrelevant_fields:
            models.check_name(getattr(config, name), name)
    check_given_files(config)
    check_teacher_files(getattr(config, "teacher_path", None) or ())
    if getattr(config, "teacher_outputs", None):
        open_outputs(config)
    if getattr(config, "baseline", None) and read_baseline(config, undecided):
        find_baseline_file(config, needed=config.anchor == "trained")
    caches = {"teacher_cache": getattr(config, "named_cache", None), "decoded_cache": config.decoded_cache}
    for name, folder in caches.items():
        if folder is None:
            continue
        check_outside(config.dataset, config.labels, folder, name)
        # One that is there may be shared, and only read.
        if not os.path.isdir(os.path.expanduser(folder)):
            check_writable(os.path.expanduser(folder), name)


def _import_custom_objects(config):
    """Imports the modules that register a user's own classes; their code runs.

    Raises:
        ValueError: a module that is not found, or fails.
    """
    for name in config.custom_objects or ():
        try:
            importlib.import_module(name)
        except Exception as error:  # a user's code may raise anything
            raise ValueError(
                f"`custom_objects` must be Python modules that can be imported. Received: {name!r}, of which the "
                f"import says: {type(error).__name__}: {error}. Python looks in PYTHONPATH and among installed packages"
            ) from error
