"""Mixed images of a stream: partners come out of the window, and nothing of them can be kept."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import TeacherCache
from keras_tkd.data import Mixing, load, triplet_dataset, view_batches

MIX = Mixing(3, mixup=1.0)


def one_pass(splits, **arguments):
    arguments = {"negatives": None, "mix": MIX, "seed": 5} | arguments
    return list(triplet_dataset(splits.train_images, splits.train_labels, 16, **arguments).as_numpy_iterator())


def test_a_window_of_all_samples_mixes_as_memory_does(stored):
    streamed, held = load("shades", stored, shuffle_window=120), load("shades", stored)
    tf.nest.map_structure(np.testing.assert_array_equal, one_pass(streamed), one_pass(held))


def test_partners_come_out_of_the_window(stored):
    splits = load("shades", stored, shuffle_window=40)
    first, second = one_pass(splits), one_pass(splits, initial_epoch=1)
    tf.nest.map_structure(np.testing.assert_array_equal, one_pass(splits), first)
    assert "mixed_view" not in first[0][0]
    pixels = load("shades", stored).train_images.astype(float)
    partners = []
    for batches in (first, second):
        index, images = (np.concatenate([batch[key] for batch, _ in batches]) for key in ("index", "image"))
        np.testing.assert_array_equal(np.sort(index), np.arange(120))
        found = []
        for start in range(0, 120, 40):
            window = index[start : start + 40]
            for sample, image in zip(window, images[start : start + 40], strict=True):
                # Of all samples of the window, one explains the image by some share: it is the partner.
                away = pixels[window] - pixels[sample]
                mixed = (image - pixels[sample]).ravel()
                share = (away.reshape(40, -1) @ mixed) / np.maximum((away**2).sum(axis=(1, 2, 3)), 1)
                rest = np.abs(share[:, None] * away.reshape(40, -1) - mixed).max(axis=1)
                assert rest.min() < 1
                found.append(window[rest.argmin()])
        partners.append(np.array(found)[np.argsort(index)])
    assert (partners[0] != partners[1]).mean() > 0.5


def test_nothing_is_kept_of_a_stream(stored, tmp_path):
    images = load("shades", stored, shuffle_window=40).train_images
    with pytest.raises(ValueError, match="Mixed images come again only where all images are in memory.*RecordStream"):
        view_batches(images, 16, seed=5, mix=MIX)
    teacher = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="keep what a teacher says of mixed images only where all.*`mix` with an Ima"):
        TeacherCache.build(teacher, images, tmp_path / "cache", mix=MIX, seed=5, progress=False)
