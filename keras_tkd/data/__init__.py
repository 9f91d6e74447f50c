"""Data sets, in memory or streamed from disk, and the `tf.data` pipelines that make batches of them."""

from keras_tkd.data.augmentation import AUGMENTATIONS, apply_view, choose_view, crop_and_flip, make_view_seeds
from keras_tkd.data.classes import class_indices
from keras_tkd.data.datasets import load
from keras_tkd.data.pipelines import class_batches, image_dataset, pair_dataset, triplet_dataset
from keras_tkd.data.sources import iterate_batches
from keras_tkd.data.splits import Splits
from keras_tkd.data.streaming import ImageStream
from keras_tkd.data.views import view_batches

__all__ = [
    "AUGMENTATIONS",
    "ImageStream",
    "Splits",
    "apply_view",
    "choose_view",
    "class_batches",
    "class_indices",
    "crop_and_flip",
    "image_dataset",
    "iterate_batches",
    "load",
    "make_view_seeds",
    "pair_dataset",
    "triplet_dataset",
    "view_batches",
]
