"""Labelled image files, listed before they are read; and how they are read into the splits of a data set."""

import dataclasses
import os

import numpy as np

from keras_tkd.data.image_files import FORMATS, pillow_unlimited
from keras_tkd.data.image_reading import make_reader
from keras_tkd.data.partition import group_split, stratified_split
from keras_tkd.data.splits import Splits
from keras_tkd.utils.choices import MAX_PIXELS
from keras_tkd.utils.multi_hot import count_classes
from keras_tkd.utils.naming import is_one_line, name_some

__all__ = ["HELD_OUT", "ImageList", "find_split", "read_divided", "read_list"]

# What the test images may be called, beside `train`: one of these; beside `test`, the others are not read.
HELD_OUT = ("test", "val", "valid", "validation")
_SPLITS = {name: name for name in ("train", *HELD_OUT)} | {"training": "train", "testing": "test"}


def find_split(name):
    """Returns the split, `"train"` or one of `HELD_OUT`, that a folder or a field is called by; None of other names.

    Capitals do not count, and `training` and `testing` are taken as well.
    """
    return _SPLITS.get(name.lower())


@dataclasses.dataclass(frozen=True, eq=False)
class ImageList:
    """Labelled image files of a folder.

    Attributes:
        root: path of the folder.
        class_names: one name per class.
        files: paths below the folder, in the order of the samples.
        labels: `(n,)`, int32, indices into the names; or multi-hot rows `(n, classes)`, uint8.
        skipped: what the folder also holds and is not read: a dict from a reason to paths below the folder.
        is_test: `(n,)`, bool, where the folder or a table says which files are for testing.
        groups: `(n,)`, where a table names the group of each file, none of which is to stand on both sides.
        positions: `(n,)`, the place of each file in the list as it was made, before any was left out.
    """

    root: str
    class_names: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    skipped: dict[str, list[str]]
    is_test: np.ndarray | None = None
    groups: np.ndarray | None = None
    positions: np.ndarray | None = None

    def __post_init__(self):
        if broken := [name for name in self.class_names if not is_one_line(name)]:
            raise ValueError(
                "The name of a class must be of one line: exported models name a class in each. Received: "
                f"{name_some(map(repr, broken))}, in {self.root}. Take the line breaks out"
            )
        if self.positions is None:
            object.__setattr__(self, "positions", np.arange(len(self.files)))

    def without(self, files):
        """Returns the list without some of its files."""
        kept = [index for index, file in enumerate(self.files) if file not in files]
        rows = {name: getattr(self, name) for name in ("labels", "is_test", "groups", "positions")}
        rows = {name: value if value is None else value[kept] for name, value in rows.items()}
        return dataclasses.replace(self, files=[self.files[index] for index in kept], **rows)


def read_list(name, images, *, test_fraction, split_seed, unseen, **reading):
    """Reads an `ImageList` whose images are divided here.

    Args:
        name, images: of the data set.
        test_fraction, split_seed: as in `keras_tkd.data.load`.
        unseen: see `Loader`. These classes are not divided: they may have a single image.
        **reading: see `read_divided`.
    """

    def divide(images):
        arguments = test_fraction, split_seed, images.class_names, unseen(images.class_names)
        if images.groups is None:
            return stratified_split(images.labels, *arguments)
        return group_split(images.labels, images.groups, *arguments)

    return _read(name, images, divide, split_is_ours=True, **reading)


def read_divided(name, images, **reading):
    """Reads an `ImageList` that says which images are for testing.

    Files that cannot be read are left out with `skip_bad_images`, and the result is that of a folder without them;
    else they are all named in one error.

    Args:
        name, images: of the data set.
        **reading: `max_pixels` and `skip_bad_images`, as in `keras_tkd.data.load`, and the other arguments of
            `make_reader`.
    """

    def divide(images):
        return np.flatnonzero(~images.is_test), np.flatnonzero(images.is_test)

    return _read(name, images, divide, split_is_ours=False, **reading)


def _read(name, images, divide, *, split_is_ours, max_pixels, skip_bad_images, **reading):
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    bad = []
    with pillow_unlimited(), make_reader(name, images, max_pixels=max_pixels, **reading) as reader:
        while True:
            # Again after each bad image, so that the split is the one of a folder without it.
            parts = divide(images)
            found, arrays = reader.read(images, parts, thorough=not skip_bad_images)
            if not found:
                break
            if not skip_bad_images:
                raise _join(name, found)
            bad += found
            images = images.without({os.path.relpath(error.path, images.root) for error in found})
            _check_classes(images, bad)
    train, test = parts
    split = {part: [images.files[index] for index in rows] for part, rows in (("train", train), ("test", test))}
    (own, *teachers) = arrays
    splits = Splits(
        name=name,
        train_images=own[0],
        train_labels=images.labels[train],
        test_images=own[1],
        test_labels=images.labels[test],
        class_names=images.class_names,
        split=split if split_is_ours else None,
        loaded=split,
        train_groups=None if images.groups is None else images.groups[train],
        skipped=images.skipped,
        bad_images=tuple(sorted(f"{os.path.relpath(error.path, images.root)} {error.reason}" for error in bad)),
    )
    return splits.with_teacher_images(*teachers[0]) if teachers else splits


def _check_classes(images, bad):
    """Raises `ValueError` for a class of which all images, or all of one side, are bad."""
    sides = {"": np.ones(len(images.labels), bool)}
    if images.is_test is not None:
        sides = {" for training": ~images.is_test, " for testing": images.is_test}
    for side, members in sides.items():
        for label in np.flatnonzero(count_classes(images.labels[members], len(images.class_names)) == 0):
            raise ValueError(
                f"A class must have an image{side} that can be read. Received: class `{images.class_names[label]}` of "
                f"{images.root}, with none after {len(bad)} bad images were left out. Repair them: "
                f"{name_some(os.path.relpath(error.path, images.root) for error in bad)}"
            )


def _join(name, errors):
    """Returns one error of several; of a single one, itself."""
    if len(errors) == 1:
        return errors[0]
    named = name_some(f"{error.path}, which {error.reason}" for error in sorted(errors, key=lambda error: error.path))
    return ValueError(
        f"Images must be whole {FORMATS} files, not larger than `max_pixels` (--max_pixels) allows. Received: "
        f"{len(errors):,} of {name} that are not: {named}. Repair or remove them; or leave them out: `skip_bad_images` "
        "(--skip_bad_images)"
    )
