"""A folder of class folders as a data set."""

import os
import pathlib

import numpy as np

from keras_tkd.data.image_files import ENDINGS, FORMATS
from keras_tkd.data.image_list import HELD_OUT, ImageList, find_split, read_divided, read_list
from keras_tkd.utils.naming import name_some

__all__ = ["is_divided", "is_part", "load_divided_folder", "load_folder"]

# Why something is not read.
_HIDDEN = "hidden files and folders"
_SUB_FOLDERS = "sub-folders of classes, which --nested reads"
_LINKED = "links to folders, below classes"
_NO_FILES = "links to nothing, and what is no file"
_BESIDE_CLASSES = "files beside the class folders"
_BESIDE_SPLITS = "files and folders beside the two splits"


def is_divided(name):
    """Returns whether a folder has folders `train` and `test` (or `val` ...), which say which images are for what."""
    splits = _find_splits(_list_entries(os.path.expanduser(name))[0])
    return "train" in splits and len(splits) > 1


def is_part(name, path):
    """Returns whether a folder, which need not exist, would be read as a part of a folder of class folders.

    Args:
        name: path of the folder of class folders.
        path: path of the other one. The folder itself, in which others may be made, is a part unless it is divided.
    """
    root, folder = (pathlib.Path(each).expanduser().resolve() for each in (name, path))
    if not folder.is_relative_to(root):
        return False
    below = folder.relative_to(root).parts
    if is_divided(root):
        return bool(below) and bool(find_split(below[0]))
    return not any(part.startswith(".") for part in below)


def load_divided_folder(name, *, nested, **reading):
    """Loads a folder with `train` and `test`, each of class folders.

    Args:
        name, nested: see `keras_tkd.data.load`.
        **reading: how its files are read, see `read_divided`.
    """
    root = os.path.expanduser(name)
    found, files = _list_entries(root)
    splits = _find_splits(found)
    held_out = [splits[split] for split in HELD_OUT if split in splits]
    if "test" not in splits and len(held_out) > 1:
        raise ValueError(
            f"One folder beside `train` must hold the test images. Received: {name}, with {', '.join(held_out)}. "
            "Name the one that is meant `test`"
        )
    train, test = splits["train"], held_out[0]
    skipped = {}
    for entry in sorted((found | files) - {train, test}):
        _note(skipped, _HIDDEN if entry.startswith(".") else _BESIDE_SPLITS, entry)
    class_names, *listed = zip(*(_list_images(root, part, nested, skipped) for part in (train, test)), strict=True)
    if odd := sorted(set(class_names[0]) ^ set(class_names[1])):
        lacking = test if odd[0] in class_names[0] else train
        raise ValueError(
            f"`{train}` and `{test}` must have the same class folders. "
            f"Received: {name}, where `{lacking}` lacks the class `{odd[0]}`."
        )
    _check_several(name, class_names[0])
    files, labels = listed
    is_test = np.repeat([False, True], [len(part) for part in files])
    images = ImageList(root, class_names[0], [*files[0], *files[1]], np.concatenate(labels), skipped, is_test)
    return read_divided(name, images, **reading)


def load_folder(name, *, nested, **reading):
    """Loads a folder of class folders.

    Args:
        name, nested: see `keras_tkd.data.load`.
        **reading: how it is divided and its files are read, see `read_list`.
    """
    root, skipped = os.path.expanduser(name), {}
    class_names, files, labels = _list_images(root, "", nested, skipped)
    _check_several(name, class_names)
    # Their sub-folders are the classes, which `nested` would hide.
    if all(map(find_split, class_names)):
        raise ValueError(
            "A folder whose images are divided must have `train` and one of "
            f"{', '.join(f'`{split}`' for split in HELD_OUT)}. Received: {name}, with {', '.join(class_names)} alone. "
            "Add the other, or name the folders after classes"
        )
    images = ImageList(root, class_names, files, labels, skipped)
    return read_list(name, images, **reading)


def _find_splits(folders):
    """Returns a dict from a split to the folder that holds it, `train` rather than `Train` where there are both."""
    named = sorted(filter(find_split, folders), key=lambda folder: (find_split(folder) == folder, folder))
    return {find_split(folder): folder for folder in named}


def _check_several(name, class_names):
    if len(class_names) < 2:
        raise ValueError(
            "A data set must have at least 2 classes. "
            f"Received: {name}, with the single class folder `{class_names[0]}`."
        )


def _note(skipped, reason, path):
    skipped.setdefault(reason, []).append(path)


def _list_entries(folder):
    """Returns the names of the folders in a folder, and the names of all else."""
    with os.scandir(folder) as entries:
        kinds = {entry.name: entry.is_dir() for entry in entries}
    return {name for name, is_folder in kinds.items() if is_folder}, {name for name in kinds if not kinds[name]}


def _list_images(root, part, nested, skipped):
    """Returns the class names, the files of all images below `root`, and their labels, from a folder of class folders.

    Args:
        root: the folder of the data set.
        part: the folder of class folders, below it.
        nested: whether images in sub-folders of a class are the class's.
        skipped: dict in which what is not read is noted.
    """
    folder = os.path.join(root, part)
    folders, others = _list_entries(folder)
    for entry in sorted(folders | others):
        if entry.startswith("."):
            _note(skipped, _HIDDEN, os.path.join(part, entry))
        elif entry in others:
            _note(skipped, _BESIDE_CLASSES, os.path.join(part, entry))
    class_names = tuple(sorted(entry for entry in folders if not entry.startswith(".")))
    if not class_names:
        table = any(entry.lower().endswith(ENDINGS) for entry in others)
        raise ValueError(
            f"A folder of images must have one folder per class. Received: {folder}, which has no folders"
            + (". What its images show, a table can say: `labels` (--labels)" if table else "")
        )
    files, labels = [], []
    for label, class_name in enumerate(class_names):
        own = {}
        found = sorted(_list_class(root, os.path.join(part, class_name), nested, own))
        if not found:
            raise _no_images(os.path.join(folder, class_name), class_names, own)
        for reason, paths in own.items():
            skipped.setdefault(reason, []).extend(paths)
        files += found
        labels += [label] * len(found)
    return class_names, files, np.array(labels, np.int32)


def _list_class(root, folder, nested, skipped):
    """Yields the image files of a class folder, as paths below `root`."""
    with os.scandir(os.path.join(root, folder)) as entries:
        entries = sorted(entries, key=lambda entry: entry.name)
    for entry in entries:
        path = os.path.join(folder, entry.name)
        if entry.name.startswith("."):
            _note(skipped, _HIDDEN, path)
        elif entry.is_dir():
            # A link may lead back to a folder above, and then there is no end.
            if nested and not entry.is_symlink():
                yield from _list_class(root, path, nested, skipped)
            else:
                _note(skipped, _LINKED if nested else _SUB_FOLDERS, path)
        elif not entry.is_file():
            _note(skipped, _NO_FILES, path)
        elif entry.name.lower().endswith(ENDINGS):
            yield path
        else:
            ending = os.path.splitext(entry.name)[1].lower()
            _note(skipped, f"{ending} files" if ending else "files without an ending", path)


def _no_images(folder, class_names, skipped):
    """Returns the error of a class folder without images, with what may be meant by it."""
    name = os.path.basename(folder)
    there = "".join(f", but {len(paths):,} {reason}" for reason, paths in skipped.items() if reason != _SUB_FOLDERS)
    if inner := skipped.get(_SUB_FOLDERS):
        there += f", but the folders {name_some(os.path.basename(path) for path in inner)}"
    if find_split(name):
        advice = (
            f"If it was meant as a split, have two folders with the same class folders in them, `train` and one of "
            f"{', '.join(f'`{name}`' for name in HELD_OUT)}"
        )
    elif inner and len(class_names) == 1:
        advice = f"If these are the classes, the data set is {folder}"
    elif inner:
        advice = "If the images in these are the class's, `nested` (--nested) reads them"
    else:
        advice = "Convert them to one of these formats, or take the folder out" if there else "Take the folder out"
    return ValueError(
        f"A class folder must have images in it ({FORMATS}). Received: {folder}, which has none{there}. {advice}."
    )
