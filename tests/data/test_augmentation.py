"""Augmentation: a view is its seed's, alone or in any batch, and all views occur equally often."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chi2

from keras_tkd.data import AUGMENTATIONS, crop_and_flip, make_view_seeds

LARGEST_SEED = 2**31 - 2
ONCE_IN_A_MILLION = 1e-6


def assert_equally_often(counts):
    """Chi-square: counts so uneven come from equal probabilities less than once in a million times."""
    counts = np.asarray(counts)
    expected = counts.sum() / counts.size
    assert expected >= 5
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(ONCE_IN_A_MILLION, counts.size - 1)


def places(seeds, padding=4, flip=True):
    """(top, left, mirrored) of the views with these seeds, read off the middle of numbered pixels."""
    side, middle = 2 * padding + 3, padding + 1
    numbered = np.arange(side * side, dtype="uint8").reshape(1, side, side, 1)
    images = np.broadcast_to(numbered, (len(seeds), *numbered.shape[1:]))
    views = crop_and_flip(images, seeds, padding=padding, flip=flip).numpy()[..., 0].astype(int)
    centre, right = views[:, middle, middle], views[:, middle, middle + 1]
    # The crop's corner (padding, padding) shows the image as it is, its middle pixel in the middle.
    return centre // side - 1, centre % side - 1, (right == centre - 1).astype(int)


def naive_view(image, seed, padding, flip):
    """One image's view, pixel by pixel, at the place that its seed alone gives."""
    top, left, mirrored = (int(part[0]) for part in places([seed], padding, flip))
    height, width, _ = image.shape
    view = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            source_row = row + top - padding
            source_column = (width - 1 - column if mirrored else column) + left - padding
            if 0 <= source_row < height and 0 <= source_column < width:
                view[row, column] = image[source_row, source_column]
    return view


SEEDS = [0, 1, 2, 12345, 2**20, 7, 7, LARGEST_SEED]


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("dtype, shape", [("uint8", (8, 8, 1)), ("float32", (5, 7, 3)), ("int32", (3, 2, 2))])
def test_views_are_those_of_their_seeds_one_by_one(dtype, shape, padding, flip):
    images = np.random.default_rng(0).integers(1, 255, (len(SEEDS), *shape)).astype(dtype)
    images[5] = images[6]  # with the seed 7 both
    views = crop_and_flip(images, SEEDS, padding=padding, flip=flip).numpy()
    assert views.dtype == images.dtype and views.shape == images.shape
    for image, seed, view in zip(images, SEEDS, views, strict=True):
        np.testing.assert_array_equal(view, naive_view(image, seed, padding, flip))
    np.testing.assert_array_equal(views[5], views[6])
    # In another batch, in another place, and alone.
    backwards = crop_and_flip(images[::-1], SEEDS[::-1], padding=padding, flip=flip).numpy()
    np.testing.assert_array_equal(backwards[::-1], views)
    alone = crop_and_flip(images[3:4], SEEDS[3:4], padding=padding, flip=flip).numpy()
    np.testing.assert_array_equal(alone, views[3:4])


def joint(*parts_and_sizes):
    """Counts of all combinations of parts, given as (values, number of values)."""
    index = 0
    for values, size in parts_and_sizes:
        index = index * size + values
    return np.bincount(index, minlength=np.prod([size for _, size in parts_and_sizes]))


@pytest.mark.parametrize("source", ["consecutive", "one epoch", "one image"])
def test_all_places_and_both_mirrorings_occur_equally_often(source):
    if source == "consecutive":
        seeds = np.arange(20_000)
    elif source == "one epoch":
        seeds = make_view_seeds(tf.range(20_000, dtype=tf.int64), seed=3, epoch=5)
    else:
        seeds = tf.concat([make_view_seeds(tf.constant([17], tf.int64), 3, epoch) for epoch in range(1_000)], 0)
    top, left, mirrored = places(seeds)
    if source != "one image":  # 20,000 seeds over 9 * 9 * 2 views: 123 of each
        assert_equally_often(joint((top, 9), (left, 9), (mirrored, 2)))
    assert_equally_often(joint((top, 9), (left, 9)))
    assert_equally_often(joint((mirrored, 2)))


@pytest.mark.parametrize("other", [{"seed": 3, "epoch": 6}, {"seed": 4, "epoch": 5}])
def test_an_epochs_views_tell_nothing_of_anothers(other):
    index = tf.range(20_000, dtype=tf.int64)
    first, second = places(make_view_seeds(index, seed=3, epoch=5)), places(make_view_seeds(index, **other))
    for size, one, another in zip((9, 9, 2), first, second, strict=True):
        assert_equally_often(joint((one, size), (another, size)))


def test_without_flip_nothing_is_mirrored():
    top, left, mirrored = places(np.arange(2_000), flip=False)
    assert not mirrored.any()
    assert_equally_often(joint((top, 9), (left, 9)))  # 25 of each


def test_augmentations_by_name():
    images = np.random.default_rng(0).integers(1, 255, (40, 9, 9, 3), dtype="uint8")
    seeds = np.arange(40)
    assert AUGMENTATIONS["none"] is None
    for name, flip in [("crop", False), ("crop_flip", True)]:
        views = AUGMENTATIONS[name](images, seeds)
        np.testing.assert_array_equal(views, crop_and_flip(images, seeds, padding=4, flip=flip))


def test_views_of_a_traced_batch_of_unknown_size():
    signature = [tf.TensorSpec((None, 5, 6, 1), tf.uint8), tf.TensorSpec((None,), tf.int64)]
    traced = tf.function(crop_and_flip, input_signature=signature)
    images = np.random.default_rng(0).integers(0, 255, (8, 5, 6, 1), dtype="uint8")
    np.testing.assert_array_equal(traced(images, SEEDS), crop_and_flip(images, SEEDS))


def test_view_seeds():
    index = tf.range(1_000, dtype=tf.int64)
    seeds = make_view_seeds(index, seed=3, epoch=5).numpy()
    assert seeds.dtype == np.int64 and seeds.min() >= 0 and seeds.max() <= LARGEST_SEED
    assert len(set(seeds)) == 1_000
    # The same for the same arguments, whatever the batch and whoever counts the epochs.
    np.testing.assert_array_equal(make_view_seeds(index, 3, tf.constant(5, tf.int64)), seeds)
    np.testing.assert_array_equal(make_view_seeds(index[::-1][:10], 3, 5), seeds[::-1][:10])
    assert not (make_view_seeds(index, seed=5, epoch=3).numpy() == seeds).any()


@pytest.mark.parametrize("name, bits", [("seed", 31), ("epoch", 20)])
def test_every_bit_of_seed_and_epoch_counts(name, bits):
    index = tf.range(1_000, dtype=tf.int64)
    arguments = {"seed": 3, "epoch": 5}
    seeds = make_view_seeds(index, **arguments).numpy()
    for bit in range(bits):
        other = make_view_seeds(index, **arguments | {name: arguments[name] ^ 2**bit}).numpy()
        # Of 1,000 random pairs out of 2^31, none is equal.
        assert not (other == seeds).any(), bit
