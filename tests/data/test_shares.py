"""Shares of a batch, which several processes make: together they are the batch that one process makes."""

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.data import Mixing, crop_and_flip, image_dataset, load, pair_dataset, triplet_dataset, view_batches

COUNT, BATCH = 23, 6  # batches of 6, 6, 6, 5
LABELS = np.random.default_rng(0).integers(0, 3, COUNT)
IMAGES = np.random.default_rng(1).integers(0, 255, (COUNT, 6, 6, 1), dtype=np.uint8)


def flatten(element):
    batch, label = element
    return {**(batch if isinstance(batch, dict) else {"image": batch}), "label": label}


def join(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize(
    ("make", "more", "count"),
    [
        # Of two shares, none is in between.
        (triplet_dataset, {"augment": crop_and_flip}, 4),
        (triplet_dataset, {"positives": "same_class", "training": False}, 2),
        (pair_dataset, {"augment": crop_and_flip, "initial_epoch": 2, "initial_step": 1}, 2),
        (image_dataset, {"mix": Mixing(3, mixup=1.0)}, 2),
    ],
)
def test_shares_are_the_rows_of_one_processs_batch(make, more, count):
    def batches(share):
        dataset = make(IMAGES, LABELS, BATCH, seed=3, share=share, **more)
        return [flatten(element) for element in dataset.as_numpy_iterator()]

    whole, shares = batches(None), [batches((index, count)) for index in range(count)]
    assert len(whole) > 2 and {len(each) for each in shares} == {len(whole)}
    for batch, *parts in zip(whole, *shares, strict=True):
        rows = [len(part["label"]) for part in parts]
        assert max(rows) - min(rows) <= 1
        joined = join(parts)
        assert joined.keys() == batch.keys()
        for key, values in batch.items():
            np.testing.assert_array_equal(joined[key], values, err_msg=key)


def test_only_the_own_share_is_made():
    made = []

    def augment(images, seeds):
        count = tf.numpy_function(lambda count: made.append(int(count)) or count, [tf.shape(images)[0]], tf.int32)
        with tf.control_dependencies([count]):
            return tf.identity(images)

    dataset = triplet_dataset(IMAGES, LABELS, BATCH, seed=0, augment=augment, share=(1, 3))
    assert sum(len(label) for _, label in dataset.as_numpy_iterator()) == 2 + 2 + 2 + 2
    # Of each anchor the image and its negative; of the last batch, of five, the rows 1 and 2.
    assert made == [2] * 8


# 24 images in each of five windows, whose last batches lack images that the next windows have; and one window of all.
WINDOWS = [24, 500]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("make", "more", "count"),
    [
        (image_dataset, {"augment": crop_and_flip}, 3),
        (triplet_dataset, {"initial_epoch": 1, "initial_step": 3}, 2),
        (pair_dataset, {"training": False}, 2),
        (image_dataset, {"mix": Mixing(3, mixup=1.0)}, 2),
    ],
)
def test_shares_of_streamed_images_are_the_rows_of_one_processs_batch(stored, window, make, more, count):
    splits = load("shades", stored, shuffle_window=window)
    images, labels = splits.train_images, splits.train_labels

    def batches(share):
        return [flatten(each) for each in make(images, labels, 16, seed=2, share=share, **more).as_numpy_iterator()]

    whole, shares = batches(None), [batches((index, count)) for index in range(count)]
    assert {len(each) for each in shares} == {len(whole)} and len(whole[-1]["label"]) < 16
    for batch, *parts in zip(whole, *shares, strict=True):
        for key, values in join(parts).items():
            np.testing.assert_array_equal(values, batch[key], err_msg=key)


@pytest.mark.parametrize("window", WINDOWS)
def test_only_the_own_share_of_streamed_images_is_decoded(stored, window):
    stream, decoded = load("shades", stored, shuffle_window=window).train_images, []
    labels = np.arange(len(stream)) % 3

    def decode(record, original=stream._decode):
        count = tf.numpy_function(lambda: decoded.append(1) or np.int32(0), [], tf.int32)
        with tf.control_dependencies([count]):
            return original(record)

    stream._decode = decode
    rows = 0
    for _, label in image_dataset(stream, labels, 16, seed=0, share=(1, 3), initial_step=2):
        rows += len(label)
    assert rows == len(decoded)
    # Of an image and its negative, both.
    decoded.clear()
    rows = sum(len(label) for _, label in triplet_dataset(stream, labels, 16, seed=0, share=(0, 3)))
    assert 2 * rows == len(decoded)
    # Of every third batch of a view.
    decoded.clear()
    rows = sum(
        len(images) for images in view_batches(stream, 16, seed=0, views=2, first=1, every=3, augment=crop_and_flip)
    )
    assert rows == len(decoded) < len(stream)


def test_every_other_batch_of_the_views(stored):
    """Numbered through the views, whose last batches are smaller."""
    stream = load("shades", stored, shuffle_window=24).train_images
    arrays = np.array(stream[np.arange(len(stream))])
    for images in (stream, arrays):
        how = {"seed": 1, "augment": crop_and_flip, "views": 3}
        every = list(view_batches(arrays, 16, **how).as_numpy_iterator())
        for first in (0, 2, 25):
            taken = view_batches(images, 16, first=first, every=4, **how)
            assert len(taken) == len(every[first::4])
            for batch, expected in zip(taken.as_numpy_iterator(), every[first::4], strict=True):
                np.testing.assert_array_equal(batch, expected)


def test_a_last_batch_that_is_not_for_all(stored):
    """Of one image, of which the first of two processes has none: it gets a batch of nothing, and does not wait."""
    stream = load("shades", stored, shuffle_window=24).train_images
    size = next(size for size in range(8, len(stream)) if len(stream) % size == 1)
    labels = np.arange(len(stream)) % 3
    lengths = [
        [len(label) for _, label in image_dataset(stream, labels, size, seed=0, share=(index, 2))] for index in (0, 1)
    ]
    assert [each[-1] for each in lengths] == [0, 1] and sum(map(sum, lengths)) == len(stream)
    with pytest.raises(
        ValueError, match="as many processes as it has images. Received: batch_size=2, share=\\(0, 3\\)"
    ):
        list(image_dataset(stream, labels, 2, seed=0, share=(0, 3)))
