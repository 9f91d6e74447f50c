"""Shares of a batch, which several processes make: together they are the batch that one process makes."""

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.data import Mixing, crop_and_flip, image_dataset, load, pair_dataset, triplet_dataset

COUNT, BATCH = 23, 6  # batches of 6, 6, 6, 5
LABELS = np.random.default_rng(0).integers(0, 3, COUNT)
IMAGES = np.random.default_rng(1).integers(0, 255, (COUNT, 6, 6, 1), dtype=np.uint8)


def flatten(element):
    batch, label = element
    return {**(batch if isinstance(batch, dict) else {"image": batch}), "label": label}


def join(parts):
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize(
    ("make", "more"),
    [
        (triplet_dataset, {"augment": crop_and_flip}),
        (triplet_dataset, {"positives": "same_class", "training": False}),
        (pair_dataset, {"augment": crop_and_flip, "initial_epoch": 2, "initial_step": 1}),
        (image_dataset, {"mix": Mixing(3, mixup=1.0)}),
    ],
)
def test_shares_are_the_rows_of_one_processs_batch(make, more):
    def batches(share):
        dataset = make(IMAGES, LABELS, BATCH, seed=3, share=share, **more)
        return [flatten(element) for element in dataset.as_numpy_iterator()]

    whole, shares = batches(None), [batches((index, 4)) for index in range(4)]
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


def test_a_share_of_streamed_images_is_of_whole_batches_too(stored):
    # Windows of 50, whose last batches lack images that the next windows have.
    splits = load("shades", stored, shuffle_window=50)

    def batches(share):
        dataset = image_dataset(splits.train_images, splits.train_labels, 16, seed=2, share=share)
        return [flatten(element) for element in dataset.as_numpy_iterator()]

    for batch, *parts in zip(batches(None), *(batches((index, 3)) for index in range(3)), strict=True):
        for key, values in join(parts).items():
            np.testing.assert_array_equal(values, batch[key], err_msg=key)
