"""Handwritten digits, which are built in."""

import math

import numpy as np

from keras_tkd.data.arrays import allocate_aligned, check_memory, resize_uint8
from keras_tkd.data.partition import stratified_split
from keras_tkd.data.splits import Splits, take_rows

__all__ = ["load_digits"]

_RESIZED_PIXELS = 2**24  # of the images that are resized at a time
_DIGITS_TEST_FRACTION = 0.2  # fixed: accuracies on digits are always on the same number of images


def load_digits(name, size, teacher_size, split_seed):
    """Loads the digits of scikit-learn, divided; for the arguments see `Loader` and `load`."""
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images = np.rint(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    sizes = [size or images.shape[1:3], *([teacher_size] if teacher_size else [])]
    check_memory(len(images), [(*size, 1) for size in sizes], name)
    images, *others = (_resize_all(images, size) for size in sizes)
    labels = digits.target.astype(np.int32)
    class_names = tuple(str(digit) for digit in digits.target_names)
    train, test = stratified_split(labels, _DIGITS_TEST_FRACTION, split_seed, class_names)
    splits = Splits(
        name=name,
        train_images=take_rows(images, train),
        train_labels=labels[train],
        test_images=take_rows(images, test),
        test_labels=labels[test],
        class_names=class_names,
    )
    if others:
        splits = splits.with_teacher_images(take_rows(others[0], train), take_rows(others[0], test))
    return splits


def _resize_all(images, size):
    if images.shape[1:3] == size:
        return images
    resized = allocate_aligned((len(images), *size, images.shape[-1]))
    # A few at a time, for on the way an image takes several times its room.
    step = max(1, _RESIZED_PIXELS // math.prod(size))
    for start in range(0, len(images), step):
        resized[start : start + step] = resize_uint8(images[start : start + step], size)
    return resized
