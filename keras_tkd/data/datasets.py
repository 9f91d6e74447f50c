"""Labelled images by name: in memory exactly once, as uint8, or streamed from disk."""

import dataclasses
import functools
import operator
import os
import typing

from keras_tkd.data.decoded_cache import check_apart
from keras_tkd.data.digits import load_digits
from keras_tkd.data.image_folder import is_divided, is_part, load_divided_folder, load_folder
from keras_tkd.data.image_table import is_divided_table, load_divided_table, load_table
from keras_tkd.data.partition import draw_open_set_classes
from keras_tkd.data.splits import Splits
from keras_tkd.data.tfds import list_known_names, load_prepared
from keras_tkd.utils import choices
from keras_tkd.utils.number_checks import is_finite, is_whole

__all__ = ["LOADERS", "Loader", "TABLE_LOADERS", "check_outside", "find_loader", "load"]


def load(
    name,
    data_dir=None,
    *,
    image_size=None,
    teacher_image_size=None,
    test_fraction=0.2,
    split_seed=0,
    open_set_fraction=None,
    shuffle_window=None,
    max_pixels=None,
    nested=False,
    labels=None,
    multi_label=False,
    skip_bad_images=False,
    decoded_cache=None,
    progress=False,
):
    """Loads a data set of labelled images, as uint8, into memory or to be streamed. Nothing is ever downloaded.

    `name` is one of three things:

    - `"digits"`: scikit-learn's 1,797 handwritten digits, `(8, 8, 1)`, stored as `round(value * 255 / 16)`.
      A stratified fifth is the test split, chosen by `split_seed` alone: runs with different seeds share
      their test images, and the teacher of one never trained on the test images of another.
    - a folder of class folders: `pets/cat/*.png`, `pets/dog/*.jpg`. With subfolders `train` and `test` (or `val`,
      `valid`, `validation`), each holding the same class folders, those are the splits; otherwise `test_fraction` of
      each class is the test split. PNG, JPEG, BMP, GIF (its first image), WebP, PPM, PGM and TIFF are read; what else
      the folder holds, `Splits.skipped` lists. Classes and files are in sorted order; with `labels`, files are in the
      table's. Images have one channel if all files are grey, else three; palettes are colour. Pixels of 16 bits are
      scaled to 8, transparent ones are put on white, and a rotation in EXIF is applied.
    - a tensorflow-datasets name (`cifar10`, `emnist/letters`, `cifar10:3.0.2`) that is prepared under
      `data_dir`. The test split is `test`, or `validation` where there is no `test`.

    A bare name that tensorflow-datasets knows is never a folder: for a folder `cifar10` write `./cifar10`.

    Args:
        name: string, see above.
        data_dir: where tensorflow-datasets keeps its data. None is its default, `~/tensorflow_datasets`.
        image_size: height and width in pixels, an integer or a pair. None keeps the images' own size.
            Resizing is bilinear, antialiased, and rounded.
        teacher_image_size: likewise, of the same images for a teacher that sees them in another size: `Splits.teacher`.
            Both sizes are made of the stored pixels, which are decoded once. None for one size. It does not go with
            `decoded_cache`, which holds one.
        test_fraction: the share of each class that becomes the test split of a folder without `train` and
            `test`, between 0 and 1. A class keeps and gives at least one image.
        split_seed: of the splits made here (digits, folders, open sets). Not a run's seed.
        open_set_fraction: the share of the classes, above 0, whose images are all taken out of training and test: see
            `Splits.with_open_set`. At least two are taken and two are left; 1 takes all. None takes none. A class
            of a folder that is taken may have a single image.
        shuffle_window: None loads all images into memory. N leaves those of a folder or of a tensorflow-datasets name
            on disk, for training and test alike, from where they are read N at a time: see `ImageStream`.
        max_pixels: the pixels that an image of a folder may have, >= 1; None is 2**26, or 8192 x 8192. A file whose
            header declares more, or that has more bytes than such an image could need, is refused before anything is
            decoded. tensorflow-datasets decoded its images itself when it prepared them.
        nested: True takes the images in sub-folders of a class folder, at any depth, for the class's. False lists these
            folders in `Splits.skipped`.
        labels: path of a table, a CSV file with the columns `file` (below the folder) and `label`, in place of class
            folders. A column `split` says which files are for `train` and `test` (or `val` ...); without it, a column
            `group` keeps the files of each group on one side.
        multi_label: True for images of several classes: a field of the column `label` names them with `|` between them,
            and may be empty; labels become multi-hot rows.
        skip_bad_images: True leaves out images of a folder that cannot be read, and lists them in `Splits.bad_images`;
            the result is that of a folder without them. False names them all in one error.
        decoded_cache: path of a folder that keeps the images of a folder decoded and resized, for later calls with the
            same files and the same size, in any number of processes. With `shuffle_window`, images are read from there
            in place of being decoded. It is written unless it is there, in a single step. None keeps nothing.
        progress: True shows progress while files are read: a bar on a terminal, at most about ten lines elsewhere.

    Returns:
        A `Splits`. Its images are arrays aligned to 64 bytes; with `shuffle_window`, each an `ImageStream`.

    Raises:
        FileNotFoundError: if `data_dir`, the folder or `labels` does not exist, or the data set is not prepared.
        ValueError: for an unknown name or a bad argument, for images of different sizes without `image_size`,
            for data that are not labelled images, and for a `decoded_cache` of other images.
        OSError: `decoded_cache` cannot be written; the message says what is missing.

    Example:

    >>> splits = load("digits")
    >>> splits.image_shape, splits.num_classes, len(splits.train_images) + len(splits.test_images)
    ((8, 8, 1), 10, 1797)
    """
    name = os.fspath(name)
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
        if not os.path.isdir(data_dir):
            raise FileNotFoundError(f"`data_dir` does not exist, or is not a directory. Received: data_dir={data_dir}")
    if not (is_finite(test_fraction) and 0 < test_fraction < 1):
        raise ValueError(
            f"`test_fraction` must be between 0 and 1, both exclusive. Received: test_fraction={test_fraction}"
        )
    if open_set_fraction is not None and not (is_finite(open_set_fraction) and 0 < open_set_fraction <= 1):
        raise ValueError(
            f"`open_set_fraction` must be above 0 and at most 1. Received: open_set_fraction={open_set_fraction}"
        )
    size = _height_and_width(image_size)
    teacher_size = _height_and_width(teacher_image_size, "teacher_image_size")
    labels = None if labels is None else os.fspath(labels)
    loader = find_loader(name, labels)
    if shuffle_window is not None:
        _check_streamed(name, loader, shuffle_window, open_set_fraction)
    if max_pixels is not None and max_pixels < 1:
        raise ValueError(f"`max_pixels` must be >= 1, or None. Received: max_pixels={max_pixels}")
    of_folders = {
        "max_pixels": max_pixels,
        "nested": nested,
        "labels": labels,
        "multi_label": multi_label,
        "skip_bad_images": skip_bad_images,
        "decoded_cache": None if decoded_cache is None else os.fspath(decoded_cache),
    }
    for argument, value in of_folders.items():
        if value not in (None, False) and argument not in loader.reads:
            raise ValueError(f"{_OF_FOLDERS[argument]}. Received: {name} with {argument}={value}. Leave it out")
    if multi_label and open_set_fraction is not None:
        raise ValueError(
            "`open_set_fraction` takes out all images of some classes, of which an image has one. Received: "
            f"open_set_fraction={open_set_fraction}, multi_label={multi_label}. Leave one of them out"
        )
    if decoded_cache is not None:
        check_apart(decoded_cache, name)
        if teacher_size is not None:
            raise ValueError(
                "`decoded_cache` holds images of one size, and does not go with `teacher_image_size`. Received: "
                f"decoded_cache={decoded_cache}, teacher_image_size={teacher_image_size}"
            )

    def unseen(class_names):
        return () if open_set_fraction is None else draw_open_set_classes(class_names, open_set_fraction, split_seed)

    options = {
        "data_dir": data_dir,
        "size": size,
        "teacher_size": teacher_size,
        "test_fraction": test_fraction,
        "split_seed": split_seed,
        "unseen": unseen,
        "shuffle_window": shuffle_window,
        "progress": progress,
        **of_folders,
    }
    splits = loader.load(name, **{option: options[option] for option in loader.reads})
    return splits if open_set_fraction is None else splits.with_open_set(unseen(splits.class_names))


def find_loader(name, labels=None):
    """Returns the `Loader` of the data set of a name, or of a table of labels where there is one."""
    if labels is not None:
        return next(loader for loader in TABLE_LOADERS if loader.takes(labels))
    return next(loader for loader in LOADERS if loader.takes(os.fspath(name)))


def check_outside(name, labels, folder, argument):
    """Raises `ValueError` for a folder that is to be written to and would then be read as a part of the data set.

    Args:
        name, labels: see `load`.
        folder: path of the folder, which need not exist.
        argument: what the error calls it.
    """
    # A table of labels names its files: what else there is, is not read.
    if labels is None and _is_folder(os.fspath(name)) and is_part(name, folder):
        raise ValueError(
            f"`{argument}` (--{argument}) must be a folder outside the data set's, where it would be taken for a "
            f"class. Received: {argument}={str(folder)!r}, which is inside {name}. Choose another folder"
        )


@dataclasses.dataclass(frozen=True)
class Loader:
    """A way to load data sets of one kind.

    Attributes:
        takes: function from a name, or the path of a table of labels, to whether it is one of this kind.
        load: function `(name, ...) -> Splits`.
        reads: what `load` takes beside the name: `"size"` and `"teacher_size"`, `(height, width)` or None; `"unseen"`,
            a function from the names of all classes to the labels of those in the open set; and arguments of
            `keras_tkd.data.load`. One
            that reads `"shuffle_window"` can leave the images on disk; what it does not read, such as
            `"test_fraction"` where a data set brings its own test split, changes nothing.
    """

    takes: typing.Callable[[str], bool]
    load: typing.Callable[..., Splits]
    reads: tuple[str, ...]


def _is_folder(name):
    if not os.path.isdir(os.path.expanduser(name)):
        return False
    # A run's own directory is easily called like its data set, and must not change what the name means.
    return os.sep in name or name not in list_known_names()


def _is_divided_folder(name):
    return _is_folder(name) and is_divided(name)


_BUILT_IN = choices.check_complete(choices.BUILT_IN_DATASETS, {"digits": load_digits})

# What loaders of lists of image files pass on: how files are read, and how they are divided where nothing in the data
# says which are for testing.
_READING = (
    "max_pixels",
    "skip_bad_images",
    "size",
    "teacher_size",
    "shuffle_window",
    "decoded_cache",
    "progress",
)
_DIVIDING = ("test_fraction", "split_seed", "unseen")

# The first that takes a name loads it: what is built in before a folder of that name, and names that only
# tensorflow-datasets can judge at the end.
LOADERS = (
    *(
        Loader(takes=functools.partial(operator.eq, name), load=function, reads=("size", "teacher_size", "split_seed"))
        for name, function in _BUILT_IN.items()
    ),
    Loader(takes=_is_divided_folder, load=load_divided_folder, reads=("nested", *_READING)),
    Loader(takes=_is_folder, load=load_folder, reads=("nested", *_DIVIDING, *_READING)),
    Loader(
        takes=lambda name: True,
        load=load_prepared,
        reads=("data_dir", "size", "teacher_size", "shuffle_window", "progress"),
    ),
)

# With a table of labels, the first that takes the table.
TABLE_LOADERS = (
    Loader(takes=is_divided_table, load=load_divided_table, reads=("labels", "multi_label", *_READING)),
    Loader(takes=lambda labels: True, load=load_table, reads=("labels", "multi_label", *_DIVIDING, *_READING)),
)

# What an error says of an argument that only folders read.
_OF_FOLDERS = {
    "max_pixels": "`max_pixels` bounds the images of a folder; those of digits and tensorflow-datasets are decoded "
    "already",
    "nested": "`nested` is for a folder of class folders; a table of labels has paths",
    "labels": "`labels` is for a folder of images",
    "multi_label": "`multi_label` is for a folder of images with a table of `labels`, which alone can name several "
    "classes of an image",
    "skip_bad_images": "`skip_bad_images` leaves out files of a folder of images",
    "decoded_cache": "`decoded_cache` keeps the images of a folder of images",
}


def _check_streamed(name, loader, shuffle_window, open_set_fraction):
    if not is_whole(shuffle_window) or shuffle_window < 1:
        raise ValueError(f"`shuffle_window` must be >= 1, or None. Received: shuffle_window={shuffle_window}")
    if "shuffle_window" not in loader.reads:
        raise ValueError(
            "`shuffle_window` streams folders of images and what tensorflow-datasets has prepared; others are loaded "
            f"into memory. Received: {name} with shuffle_window={shuffle_window}. Leave it out"
        )
    if open_set_fraction is not None:
        raise ValueError(
            "`open_set_fraction` takes images out of memory, and does not go with `shuffle_window`. "
            f"Received: open_set_fraction={open_set_fraction}, shuffle_window={shuffle_window}"
        )


def _height_and_width(image_size, name="image_size"):
    if image_size is None:
        return None
    size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            f"`{name}` must be a positive integer, or a pair of them (height, width). Received: {name}={image_size}"
        )
    return size
