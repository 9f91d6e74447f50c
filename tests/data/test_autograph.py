"""Pipelines run as they are written; what AutoGraph rewrites is a user's own augmentation."""

import traceback

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.data import class_batches, compose, image_dataset, pair_dataset, triplet_dataset, view_batches

LABELS = np.array([0, 0, 1, 1])
# Of the four, the third is the one with a pixel above 100.
IMAGES = np.zeros((4, 2, 2, 1), "uint8")
IMAGES[2, 1, 0] = 200


def darken_bright_batches(images, seeds):
    # A Python `if` on a tensor, which a graph has only by AutoGraph.
    if tf.reduce_max(images) > 100:
        images = images // 2
    return images


def take_batches(name, augment):
    """The batches of one pass: of one image each, or of the two of a class."""
    if name == "view_batches":
        return [*view_batches(IMAGES, 1, seed=0, augment=augment).as_numpy_iterator()]
    if name == "class_batches":
        batches = class_batches(IMAGES, LABELS, classes_per_batch=1, samples_per_class=2, seed=0, augment=augment)
        return [image for image, _ in batches.as_numpy_iterator()]
    make = {"triplet_dataset": triplet_dataset, "pair_dataset": pair_dataset, "image_dataset": image_dataset}[name]
    batches = make(IMAGES, LABELS, 1, seed=0, augment=augment).as_numpy_iterator()
    return [image if name == "image_dataset" else image["image"] for image, _ in batches]


PIPELINES = ["triplet_dataset", "pair_dataset", "image_dataset", "class_batches", "view_batches"]


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("augment", [darken_bright_batches, compose(darken_bright_batches)])
def test_an_augmentation_may_ask_a_tensor(name, augment):
    brightest = sorted(int(np.max(batch)) for batch in take_batches(name, augment))
    # 200 halved.
    assert brightest == ([0, 100] if name == "class_batches" else [0, 0, 0, 100])


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_are_not_rewritten(name):
    files = set()

    @tf.autograph.experimental.do_not_convert
    def look(images, seeds):
        files.update(frame.filename for frame in traceback.extract_stack())
        return images

    take_batches(name, look)
    ours = [file for file in files if file.endswith(("pipelines.py", "anchors.py", "augmentation.py", "views.py"))]
    assert ours
    # The code that AutoGraph writes is in files of such names.
    assert not [file for file in files if "__autograph_generated_file" in file]
