"""Data sets, in memory or streamed from disk, and the `tf.data` pipelines that make batches of them."""

from keras_tkd.data.augmentation import (
    AUGMENTATIONS,
    apply_view,
    choose_view,
    compose,
    make_augmentation,
    make_view_seeds,
)
from keras_tkd.data.classes import class_indices
from keras_tkd.data.colors import color_jitter
from keras_tkd.data.crops import crop, crop_and_flip, cutout, horizontal_flip, resized_crop
from keras_tkd.data.datasets import load
from keras_tkd.data.mixing import Mixing, apply_mixed_view, mix_batches
from keras_tkd.data.pipelines import class_batches, image_dataset, pair_dataset, triplet_dataset
from keras_tkd.data.randaugment import rand_augment
from keras_tkd.data.sources import iterate_batches, take_images
from keras_tkd.data.splits import Splits
from keras_tkd.data.streaming import ImageStream
from keras_tkd.data.views import view_batches

__all__ = [
    "AUGMENTATIONS",
    "ImageStream",
    "Mixing",
    "Splits",
    "apply_mixed_view",
    "apply_view",
    "choose_view",
    "class_batches",
    "class_indices",
    "color_jitter",
    "compose",
    "crop",
    "crop_and_flip",
    "cutout",
    "horizontal_flip",
    "image_dataset",
    "iterate_batches",
    "load",
    "make_augmentation",
    "make_view_seeds",
    "mix_batches",
    "pair_dataset",
    "rand_augment",
    "resized_crop",
    "take_images",
    "triplet_dataset",
    "view_batches",
]
