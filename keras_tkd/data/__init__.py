"""Data sets in memory or streamed from disk, and the tf.data pipelines over them."""

from keras_tkd.data.augmentation import AUGMENTATIONS, crop_and_flip, in_view, view_of_epoch, view_seeds
from keras_tkd.data.classes import class_indices
from keras_tkd.data.datasets import load
from keras_tkd.data.pipelines import class_batches, image_dataset, pair_dataset, triplet_dataset
from keras_tkd.data.sources import in_order
from keras_tkd.data.splits import Splits
from keras_tkd.data.streaming import ImageStream
from keras_tkd.data.views import view_batches

__all__ = [
    "AUGMENTATIONS",
    "ImageStream",
    "Splits",
    "class_batches",
    "class_indices",
    "crop_and_flip",
    "image_dataset",
    "in_order",
    "in_view",
    "load",
    "pair_dataset",
    "triplet_dataset",
    "view_batches",
    "view_of_epoch",
    "view_seeds",
]
