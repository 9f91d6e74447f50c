"""Labelled image files, listed before they are read; and how they are read into the splits of a data set.

Files are decoded straight into their place, so nothing here holds a second copy of the data.
"""

import concurrent.futures
import dataclasses
import os

import numpy as np

from keras_tkd.data.arrays import allocate_aligned, check_memory, resize_uint8
from keras_tkd.data.image_files import FORMATS, BadImageError, measure_image, pillow_unlimited, read_image
from keras_tkd.data.partition import group_split, stratified_split
from keras_tkd.data.splits import Splits
from keras_tkd.utils.choices import MAX_PIXELS
from keras_tkd.utils.naming import name_some
from keras_tkd.utils.progress import Progress

__all__ = ["HELD_OUT", "ImageList", "read_divided", "read_list"]

# What the test images may be called, beside `train`: one of these; beside `test`, the others are not read.
HELD_OUT = ("test", "val", "valid", "validation")


@dataclasses.dataclass(frozen=True, eq=False)
class ImageList:
    """Labelled image files of a folder.

    Attributes:
        root: path of the folder.
        class_names: one name per class.
        files: paths below the folder, in the order of the samples.
        labels: `(n,)`, int32, indices into the names.
        skipped: what the folder also holds and is not read: a dict from a reason to paths below the folder.
        is_test: `(n,)`, bool, where the folder or a table says which files are for testing.
        groups: `(n,)`, where a table names the group of each file, none of which is to stand on both sides.
    """

    root: str
    class_names: tuple[str, ...]
    files: list[str]
    labels: np.ndarray
    skipped: dict[str, list[str]]
    is_test: np.ndarray | None = None
    groups: np.ndarray | None = None

    def without(self, files):
        """Returns the list without some of its files."""
        kept = [index for index, file in enumerate(self.files) if file not in files]
        rows = {name: getattr(self, name) for name in ("labels", "is_test", "groups")}
        rows = {name: value if value is None else value[kept] for name, value in rows.items()}
        return dataclasses.replace(self, files=[self.files[index] for index in kept], **rows)


def read_list(name, images, test_fraction, split_seed, unseen, **reading):
    """Reads an `ImageList` whose images are divided here; for the other arguments see `Loader` and `read_divided`.

    The classes that are `unseen` are not divided: they may have a single image.
    """

    def divide(images):
        arguments = test_fraction, split_seed, images.class_names, unseen(images.class_names)
        if images.groups is None:
            return stratified_split(images.labels, *arguments)
        return group_split(images.labels, images.groups, *arguments)

    return _read(name, images, divide, split_is_ours=True, **reading)


def read_divided(name, images, *, size, max_pixels, skip_bad_images, progress):
    """Reads an `ImageList` that says which images are for testing; for the arguments see `keras_tkd.data.load`.

    Files that cannot be read are left out with `skip_bad_images`, and the result is that of a folder without them;
    else they are all named in one error.
    """

    def divide(images):
        return np.flatnonzero(~images.is_test), np.flatnonzero(images.is_test)

    reading = {"size": size, "max_pixels": max_pixels, "skip_bad_images": skip_bad_images, "progress": progress}
    return _read(name, images, divide, split_is_ours=False, **reading)


def _read(name, images, divide, split_is_ours, size, max_pixels, skip_bad_images, progress):
    reader = _Reader(name, MAX_PIXELS if max_pixels is None else max_pixels, size, progress)
    bad = []
    with pillow_unlimited():
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
    return Splits(
        name=name,
        train_images=arrays[0],
        train_labels=images.labels[train],
        test_images=arrays[1],
        test_labels=images.labels[test],
        class_names=images.class_names,
        split=split if split_is_ours else None,
        loaded=split,
        train_groups=None if images.groups is None else images.groups[train],
        skipped=images.skipped,
        bad_images=tuple(sorted(f"{os.path.relpath(error.path, images.root)} {error.reason}" for error in bad)),
    )


@dataclasses.dataclass(frozen=True)
class _Reader:
    name: str
    max_pixels: int
    size: tuple[int, int] | None
    progress: bool

    def read(self, images, parts, thorough):
        """Reads the images of both parts.

        Returns:
            A list of a `BadImageError` for each file that cannot be read, and, where there is none, the two arrays.
            Without `thorough`, the list may lack files that cannot be read.
        """
        paths = [[os.path.join(images.root, images.files[index]) for index in part] for part in parts]
        shapes, bad = self._measure(paths[0] + paths[1])
        if bad:
            # A file that is refused for its size ends it before anything is decoded.
            if thorough and not any(error.too_large for error in bad):
                bad += self._decode(list(shapes), lambda *_: None, channels=3)
            return bad, None
        shape = self._common_shape(shapes)
        check_memory(len(shapes), shape, self.name)
        arrays = []
        for part in paths:
            array = allocate_aligned((len(part), *shape))
            bad += self._decode(part, array.__setitem__, shape[-1], shape[:2])
            arrays.append(array)
        return bad, arrays

    def _measure(self, paths):
        """Returns the shapes of images, a dict by their paths, and the errors of those that have none."""
        shapes, bad = {}, []
        for path in paths:
            try:
                shapes[path] = measure_image(path, self.max_pixels)
            except BadImageError as error:
                bad.append(error)
        return shapes, bad

    def _common_shape(self, shapes):
        """Returns the `(height, width, channels)` that all images will have."""
        channels = max(channels for *_, channels in shapes.values())
        if self.size is not None:
            return *self.size, channels
        (path, first), *others = [(path, shape[:2]) for path, shape in shapes.items()]
        for other_path, other in others:
            if other != first:
                raise ValueError(
                    "Images of different sizes need a common one: pass `image_size` (--image_size). Received: "
                    f"{path} with {first[0]}x{first[1]} pixels (height x width), "
                    f"{other_path} with {other[0]}x{other[1]}."
                )
        return *first, channels

    def _decode(self, paths, store, channels, size=None):
        """Decodes images, calls `store(index, image)` with each, and returns the errors of those that are bad."""

        def decode(index):
            try:
                image = read_image(paths[index], channels, self.max_pixels)
            except BadImageError as error:
                return error
            if size is not None and image.shape[:2] != size:
                image = resize_uint8(image, size).numpy()
            store(index, image)
            return None

        bar = Progress(f"Reading {len(paths):,} images", 0, len(paths), shown=self.progress)
        errors = []
        # Threads rather than tf.data: a failure knows its file, and pixels go from the decoder to their place.
        pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
        try:
            for error in pool.map(decode, range(len(paths))):
                errors += [error] * (error is not None)
                bar.add(1)
        finally:
            pool.shutdown(cancel_futures=True)
        return errors


def _check_classes(images, bad):
    """Raises `ValueError` for a class of which all images, or all of one side, are bad."""
    sides = {"": np.ones(len(images.labels), bool)}
    if images.is_test is not None:
        sides = {" for training": ~images.is_test, " for testing": images.is_test}
    for side, members in sides.items():
        for label in sorted(set(range(len(images.class_names))) - set(images.labels[members].tolist())):
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
