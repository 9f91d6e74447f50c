"""Images of a run: loaded as its configuration says, counted, and told from others by hashes."""

import hashlib
import json
import sys

import numpy as np

from keras_tkd import data
from keras_tkd.config.fields import get_default
from keras_tkd.data.datasets import find_loader
from keras_tkd.reports.tables import format_image_counts
from keras_tkd.runs.optimization import compute_class_weights
from keras_tkd.teacher_cache.fingerprints import hash_array

__all__ = ["describe_images", "hash_data", "load_data", "load_splits"]


def load_splits(config):
    """Loads the data of a run that trains: without the images held out for choosing, or of a small training set."""
    splits = load_data(config).with_validation(config.validation_fraction, config.split_seed)
    splits = splits.with_train_fraction(config.train_fraction, config.split_seed)
    print(describe_images(splits))
    # Now: a class without images is to be known before a teacher is trained.
    compute_class_weights(config, splits.train_labels, splits.class_names)
    return splits


def load_data(config):
    """Loads the data that a configuration names, whole, with the classes that it asks for."""
    _check_data_are_read(config)
    # A run that trains a teacher alone has one size, its own.
    teacher_size = getattr(config, "teacher_image_size", None)
    splits = data.load(
        config.dataset,
        config.data_dir,
        image_size=config.image_size,
        teacher_image_size=None if teacher_size == config.image_size else teacher_size,
        test_fraction=config.test_fraction,
        split_seed=config.split_seed,
        open_set_fraction=config.open_set_fraction,
        shuffle_window=config.shuffle_window,
        max_pixels=config.max_pixels,
        nested=config.nested,
        labels=config.labels,
        multi_label=config.multi_label,
        skip_bad_images=config.skip_bad_images,
        decoded_cache=config.decoded_cache,
        progress=sys.stdout.isatty(),
    )
    return splits.with_classes(config.classes) if config.classes else splits


def describe_images(splits):
    """Returns text on how many images there are of each class, and on what was not read."""
    counts, totals = splits.count_images(), None
    if splits.multi_label:
        totals = {part: len(getattr(splits, f"{part}_labels")) for part in counts}
    return format_image_counts(splits.name, counts, splits.skipped, splits.bad_images, totals)


def hash_data(splits):
    """Returns hashes of a run's images and labels, by what they are for, such as `"images of train"`.

    Images in memory count by their pixels, which takes a second for 600 MB. Of those that are left on disk, what is
    known without decoding counts: of a folder the contents of the files, of a prepared data set, which has a version,
    the shape.
    """
    hashes = {"names of the classes": hashlib.sha256(json.dumps(splits.class_names).encode()).hexdigest()}
    parts = {
        "train": (splits.train_images, splits.train_labels),
        "test": (splits.test_images, splits.test_labels),
        "validation": (splits.validation_images, splits.validation_labels),
        "open set": (splits.open_set_images, splits.open_set_identities),
    }
    for part, (images, labels) in parts.items():
        if images is not None:
            hashes[f"labels of {part}"] = hash_array(np.asarray(labels))
            pixels = images if isinstance(images, np.ndarray) else images.identity
            hashes[f"images of {part}"] = hash_array(pixels)
    return hashes


def _check_data_are_read(config):
    """Raises `ValueError` for a setting of the data that the kind of data set does not read."""
    reads = find_loader(config.dataset, config.labels).reads
    for name, what_for in (
        ("data_dir", "for data sets of tensorflow-datasets, and this is a folder of images"),
        ("test_fraction", "for images that are not divided yet, and this data set has test images of its own"),
    ):
        value = getattr(config, name)
        if name not in reads and value != get_default(type(config), name):
            raise ValueError(
                f"`{name}` is {what_for}. Received: {name}={value!r}, dataset={config.dataset!r}. Leave it out"
            )
