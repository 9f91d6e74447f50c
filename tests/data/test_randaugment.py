"""RandAugment: which operation an image gets, what each does, and that all are the same alone and in any batch."""

import functools
import math
import sys

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage
from scipy.stats import chi2

from keras_tkd.data import make_augmentation, rand_augment

MODULE = sys.modules["keras_tkd.data.randaugment"]
IMAGES = np.random.default_rng(0).integers(0, 256, (30, 12, 18, 3), dtype="uint8")
SEEDS = np.arange(30) * 70_000_001 % (2**31 - 1)


def test_every_operation_and_sign_is_as_likely_in_each_place(monkeypatch):
    # Each writes down its number and the sign in a pixel of its own turn.
    def mark(images, signs, share, *, number):
        code = tf.cast(2 * number + (tf.cast(signs, tf.int32) + 1) // 2, tf.uint8)
        return tf.concat([images[:, 1:], tf.broadcast_to(code[:, None, None, None], tf.shape(images[:, :1]))], axis=1)

    marks = {str(number): functools.partial(mark, number=number) for number in range(14)}
    assert len(MODULE.OPERATIONS) == 14
    monkeypatch.setattr(MODULE, "OPERATIONS", marks)
    seeds = np.arange(20_000) * 107_000 % (2**31 - 1)
    codes = rand_augment(np.zeros((20_000, 2, 1, 1), "uint8"), seeds).numpy()[:, :, 0, 0].astype(int)
    for counts in (np.bincount(codes[:, 0]), np.bincount(codes[:, 1]), np.bincount(codes @ [28, 1], minlength=28**2)):
        expected = counts.sum() / counts.size
        assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, counts.size - 1)


def affine(name, share):
    """The place (row, column) in the input that an output's place shows, from the middle: a matrix and a shift."""
    if name == "rotate":
        sine, cosine = math.sin(math.radians(30 * share)), math.cos(math.radians(30 * share))
        return [[cosine, sine], [-sine, cosine]], [0, 0]
    return {
        "shear_x": ([[1, 0], [0.3 * share, 1]], [0, 0]),
        "shear_y": ([[1, 0.3 * share], [0, 1]], [0, 0]),
        "translate_x": ([[1, 0], [0, 1]], [0, 150 / 331 * share * 18]),
        "translate_y": ([[1, 0], [0, 1]], [150 / 331 * share * 12, 0]),
    }[name]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("name", ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"])
def test_moving_operations(name, share, sign):
    matrix, shift = affine(name, sign * share)
    middle = np.array([11 / 2, 17 / 2])
    offset = middle - matrix @ middle + shift
    views = MODULE.OPERATIONS[name](IMAGES, tf.fill([30], tf.constant(sign, tf.int64)), share).numpy().astype(int)
    for image, view in zip(IMAGES, views, strict=True):
        for channel in range(3):
            pixels = image[..., channel].astype(float)
            expected = ndimage.affine_transform(pixels, matrix, offset, order=1, mode="grid-constant")
            assert np.abs(view[..., channel] - expected).max() <= 0.51


def test_magnitude_0_changes_nothing_but_by_operations_without_one():
    signs = tf.ones([30], tf.int64)
    for name, operation in MODULE.OPERATIONS.items():
        same = (np.asarray(operation(IMAGES, signs, 0.0)) == IMAGES).all()
        assert same or name in ("autocontrast", "equalize"), name


@pytest.mark.parametrize("name, factor", [("brightness", 1.45), ("contrast", 1.45), ("saturation", 1.45)])
def test_factors_are_of_the_magnitude(name, factor):
    adjust = getattr(sys.modules["keras_tkd.data.colors"], f"adjust_{name}")
    signs = tf.constant([1, -1] * 15, tf.int64)
    factors = np.array([factor, 2 - factor] * 15, "float32")
    np.testing.assert_array_equal(MODULE.OPERATIONS[name](IMAGES, signs, 0.5), adjust(IMAGES, factors))


@pytest.mark.parametrize("name, at_15", [("posterize", 6), ("solarize", 128)])
def test_bits_and_threshold_are_of_the_magnitude(name, at_15):
    function = getattr(sys.modules["keras_tkd.data.colors"], name)
    np.testing.assert_array_equal(MODULE.OPERATIONS[name](IMAGES, None, 0.5), function(IMAGES, at_15))


EVERYTHING = "resized_crop@area=0.25+horizontal_flip+color_jitter+rand_augment@operations=3+cutout"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_is_its_seeds_alone_in_any_batch_and_traced(channels):
    augment, images = make_augmentation(EVERYTHING), IMAGES[..., :channels]
    views = augment(images, SEEDS).numpy()
    assert views.dtype == np.uint8 and views.shape == images.shape
    np.testing.assert_array_equal(augment(images, SEEDS), views)
    np.testing.assert_array_equal(augment(images[::-1], SEEDS[::-1])[::-1], views)
    for i in range(5):
        np.testing.assert_array_equal(augment(images[i : i + 1], SEEDS[i : i + 1])[0], views[i])
    signature = [tf.TensorSpec((None, 12, 18, channels), tf.uint8), tf.TensorSpec((None,), tf.int64)]
    np.testing.assert_array_equal(tf.function(augment, input_signature=signature)(images, SEEDS), views)
    others = augment(images, SEEDS + 1).numpy()
    assert (others != views).any(axis=(1, 2, 3)).all()
