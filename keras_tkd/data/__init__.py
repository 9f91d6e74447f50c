"""Data sets in memory, and the tf.data pipelines over them."""

from keras_tkd.data.datasets import load
from keras_tkd.data.pipelines import image_dataset, triplet_dataset
from keras_tkd.data.preprocessing import AUGMENTATIONS, crop_and_flip, view_seeds
from keras_tkd.data.splits import Splits

__all__ = ["AUGMENTATIONS", "Splits", "crop_and_flip", "image_dataset", "load", "triplet_dataset", "view_seeds"]
