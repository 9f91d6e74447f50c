"""A folder of class folders as a data set.

Files are decoded straight into their place, so nothing here holds a second copy of the data.
"""

import concurrent.futures
import os
import struct

import numpy as np

from keras_tkd.data.arrays import allocate_aligned, check_memory, resize_uint8
from keras_tkd.data.partition import stratified_split
from keras_tkd.data.splits import Splits
from keras_tkd.utils.choices import MAX_PIXELS
from keras_tkd.utils.progress import Progress

__all__ = ["is_divided", "load_divided_folder", "load_folder"]

_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = (0, 4)  # colour types: grey, grey with alpha
_PIXEL_BYTES = 8  # of the largest, uncompressed: red, green, blue and alpha of 16 bits
_FILE_BYTES = 2**26  # that any file may have: what is no pixel in it, such as a preview, is not bounded by them


def is_divided(name):
    """Returns whether a folder has folders `train` and `test`, which say which images are for what."""
    return {"train", "test"} <= set(_visible(os.path.expanduser(name), os.DirEntry.is_dir))


def load_divided_folder(name, size, max_pixels, progress):
    """Loads a folder with `train` and `test`, each of class folders; for the arguments see `Loader` and `load`."""
    root = os.path.expanduser(name)
    class_names, *train = _list_images(os.path.join(root, "train"))
    test_names, *test = _list_images(os.path.join(root, "test"))
    if odd := sorted(set(class_names) ^ set(test_names)):
        lacking = "test" if odd[0] in class_names else "train"
        raise ValueError(
            "`train` and `test` must have the same class folders. "
            f"Received: {name}, where `{lacking}` lacks the class `{odd[0]}`."
        )
    return _read_splits(name, class_names, train, test, None, size, max_pixels, progress)


def load_folder(name, size, test_fraction, split_seed, unseen, max_pixels, progress):
    """Loads a folder of class folders; for the arguments see `Loader` and `load`.

    The classes that are `unseen` are not divided: they may have a single image.
    """
    root = os.path.expanduser(name)
    class_names, paths, labels = _list_images(root)
    kept, taken = stratified_split(labels, test_fraction, split_seed, class_names, unseen(class_names))
    train, test = (([paths[index] for index in part], labels[part]) for part in (kept, taken))
    split = {
        key: [os.path.relpath(path, root) for path in part] for key, (part, _) in (("train", train), ("test", test))
    }
    return _read_splits(name, class_names, train, test, split, size, max_pixels, progress)


def _read_splits(name, class_names, train, test, split, size, max_pixels, progress):
    """Reads the images of paths, with their labels: `train` and `test` are `(paths, labels)`."""
    (train_paths, train_labels), (test_paths, test_labels) = train, test
    if len(class_names) < 2:
        raise ValueError(
            "A data set must have at least 2 classes. "
            f"Received: {name}, with the single class folder `{class_names[0]}`."
        )
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    image_shape = _common_shape(train_paths + test_paths, size, max_pixels)
    check_memory(len(train_paths) + len(test_paths), image_shape, name)
    return Splits(
        name=name,
        train_images=_read_images(train_paths, image_shape, max_pixels, progress),
        train_labels=train_labels,
        test_images=_read_images(test_paths, image_shape, max_pixels, progress),
        test_labels=test_labels,
        class_names=class_names,
        split=split,
    )


def _visible(folder, is_wanted):
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_wanted(entry) and not entry.name.startswith("."))


def _list_images(folder):
    """Returns the class names, the paths of all images, and their labels, from a folder of class folders."""
    class_names = tuple(_visible(folder, os.DirEntry.is_dir))
    if not class_names:
        raise ValueError(
            f"A folder of images must have one folder per class. Received: {folder}, which has no folders."
        )
    paths, labels = [], []
    for label, class_name in enumerate(class_names):
        class_folder = os.path.join(folder, class_name)
        files = [file for file in _visible(class_folder, os.DirEntry.is_file) if file.lower().endswith(_IMAGE_ENDINGS)]
        if not files:
            raise ValueError(
                "A class folder must have PNG or JPEG images directly in it. "
                f"Received: {class_folder}, which has none. Remove it; "
                "or if it was meant as a split, have both folders, `train` and `test`."
            )
        paths += [os.path.join(class_folder, file) for file in files]
        labels += [label] * len(files)
    return class_names, paths, np.array(labels, np.int32)


def _common_shape(paths, size, max_pixels):
    """The `(height, width, channels)` that all images will have; only the files' headers are decoded."""
    heights_and_widths, channels = [], 1
    for path in paths:
        height, width, image_channels = _image_shape(path, max_pixels)
        # Now, and not when it is decoded: a few bytes of a file may stand for gigabytes of pixels.
        if height * width > max_pixels:
            raise ValueError(
                f"An image may have at most {max_pixels:,} pixels. Received: {path}, whose header says "
                f"{height}x{width} pixels (height x width). Remove it; or if it is meant, allow more: `max_pixels` "
                "(--max_pixels)"
            )
        heights_and_widths.append((height, width))
        channels = max(channels, image_channels)
    if size is not None:
        return *size, channels
    first = heights_and_widths[0]
    for path, other in zip(paths, heights_and_widths, strict=True):
        if other != first:
            raise ValueError(
                "Images of different sizes need a common one: pass `image_size` (--image_size). Received: "
                f"{paths[0]} with {first[0]}x{first[1]} pixels (height x width), "
                f"{path} with {other[0]}x{other[1]}."
            )
    return *first, channels


def _image_shape(path, max_pixels):
    import tensorflow as tf

    content = _file_content(path, max_pixels)
    try:
        if content.startswith(_PNG_SIGNATURE):
            width, height, _, colour_type = struct.unpack_from(">IIBB", content, 16)
            return height, width, 1 if colour_type in _PNG_GREY else 3
        height, width, channels = tf.io.extract_jpeg_shape(content).numpy()
        return int(height), int(width), 1 if channels == 1 else 3
    except (struct.error, tf.errors.InvalidArgumentError) as error:
        raise _undecodable(path) from error


def _read_images(paths, image_shape, max_pixels, progress):
    import tensorflow as tf

    images = allocate_aligned((len(paths), *image_shape))
    height, width, channels = image_shape

    def read(index):
        try:
            content = _file_content(paths[index], max_pixels)
            image = tf.io.decode_image(content, channels, expand_animations=False)
        except tf.errors.InvalidArgumentError as error:
            raise _undecodable(paths[index]) from error
        if image.shape[:2] != (height, width):
            image = resize_uint8(image, (height, width))
        images[index] = image.numpy()

    bar = Progress(f"Reading {len(paths):,} images", 0, len(paths), shown=progress)
    # Threads rather than tf.data: a failure knows its file, and pixels go from the decoder to their place.
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        for _ in pool.map(read, range(len(paths))):
            bar.add(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def _file_content(path, max_pixels):
    limit, size = max(_FILE_BYTES, _PIXEL_BYTES * max_pixels), os.path.getsize(path)
    if size > limit:
        raise ValueError(
            f"An image's file may have at most {limit:,} bytes. Received: {path} with {size:,}. Remove it; or if it is "
            f"meant, allow more: {_PIXEL_BYTES} for each pixel of `max_pixels` (--max_pixels)"
        )
    with open(path, "rb") as file:
        return file.read()


def _undecodable(path):
    return ValueError(
        f"An image must be a whole PNG or JPEG file. Received: {path}, which cannot be decoded. Repair it or remove it."
    )
