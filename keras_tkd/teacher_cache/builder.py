"""Fills a teacher cache: what is answered, by whom, and that the answers are still his."""

import functools
import importlib.metadata

import keras
import numpy as np
import tensorflow as tf

from keras_tkd import data
from keras_tkd.data.validation import check_seed, check_views
from keras_tkd.losses.base import collect_outputs
from keras_tkd.losses.keras_adapter import KerasDistillation
from keras_tkd.teacher_cache import fingerprints
from keras_tkd.teachers.ensemble import TeacherEnsemble
from keras_tkd.teachers.ensemble_reader import make_teacher_reader
from keras_tkd.utils.choices import CACHE_DTYPES
from keras_tkd.utils.progress import Progress

FINGERPRINTED = 256  # images that are looked at together
SAMPLED = 16  # samples that stand for all where a view is fingerprinted, or the live teacher is asked
# What two forward passes in other batches, or on other machines, may differ by: a share of an output's largest value.
NOISE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class Source:
    """A teacher and what it is shown; for the arguments see `TeacherCache.build`."""

    def __init__(self, teacher, images, losses, views, augment, seed):
        check_views(views)
        if views is None or (augment is None and views > 1):
            raise ValueError(
                "`views` must be the number of views of each sample, and 1 without `augment`, where all are alike. "
                f"Received: views={views}, augment={augment}"
            )
        check_seed(seed)
        images = images if isinstance(images, (np.ndarray, data.ImageStream)) else np.asarray(images)
        if not len(images):
            raise ValueError("`images` must hold a sample or more. Received: none")
        self.images, self.views, self.augment, self.seed = images, views, augment, seed
        losses = [KerasDistillation(x) if isinstance(x, keras.distillation.DistillationLoss) else x for x in losses]
        self.reader = make_teacher_reader(teacher, collect_outputs(losses, "teacher_layers"))
        self.combined = [teacher.average, teacher.teacher_weights] if isinstance(teacher, TeacherEnsemble) else None
        shapes = self.reader.build((None, *images.shape[1:]))
        self.shapes = {name: tuple(shape[1:]) for name, shape in shapes.items()}
        # Spread over all, so that another order of the samples shows.
        self.sampled = np.unique(np.linspace(0, len(images) - 1, SAMPLED).astype("int64"))

    @functools.cached_property
    def _sampled_images(self):
        return tf.constant(self.images[self.sampled])

    def show(self, view):
        """The samples that stand for all, in one of their views."""
        return data.apply_view(self._sampled_images, self.sampled, self.seed, view, self.augment)

    def describe(self, dtype):
        """All that decides what a cache holds, as plain data: what is large by its fingerprint."""
        if dtype not in CACHE_DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(CACHE_DTYPES)}. Received: dtype={dtype!r}")
        drawn = {"augmentation": None, "seed": None, "some_views": None}
        if self.augment:
            shown = np.stack([self.show(view) for view in range(self.views)])
            drawn = {
                "augmentation": fingerprints.describe_function(self.augment),
                "seed": self.seed,
                "some_views": fingerprints.of_array(shown),
            }
        return drawn | {
            "teacher": " ".join(map(fingerprints.of_weights, self.reader.teachers)),
            "combined": self.combined,
            "architecture": " ".join(map(fingerprints.of_layers, self.reader.teachers)),
            "images": fingerprints.of_pieces(
                self.images.dtype, self.images.shape, data.iterate_batches(self.images, FINGERPRINTED)
            ),
            "samples": len(self.images),
            "views": self.views,
            "outputs": sorted(self.shapes),
            "dtype": dtype,
        }

    def batches(self, batch_size, first):
        return data.view_batches(
            self.images, batch_size, seed=self.seed, augment=self.augment, views=self.views, first=first
        )

    def compare(self, outputs):
        """Raises `ValueError` unless some rows of `outputs` are, within rounding, what the teacher says now."""
        layers = [layer for model in self.reader.teachers for layer in model._flatten_layers()]
        noise = max(NOISE.get(layer.compute_dtype, 0.0) for layer in layers)
        view = self.views - 1
        live = tf.function(self.reader)(self.show(view))[1]
        for name, array in outputs.items():
            kept, now = array[view, self.sampled].astype("float32"), np.asarray(tf.cast(live[name], "float32"))
            excess = np.abs(kept - now) - np.finfo(array.dtype).eps * np.abs(now) - noise * np.abs(now).max()
            worst = np.unravel_index(np.argmax(excess), now.shape)
            if not excess[worst] <= 0:
                raise ValueError(
                    f"The teacher cache does not hold what the teacher says: '{name}' of sample "
                    f"{self.sampled[worst[0]]} in view {view} is {kept[worst]} there and {now[worst]} now. Remove it "
                    "and build it anew"
                )


def write(files, source, progress=True):
    """Appends the rows that a cache does not hold yet."""
    if files.rows == files.all_rows:
        return
    views, samples = files.manifest["rows"]
    batch_size = files.manifest["batch_size"]
    view, sample = divmod(files.rows, samples)
    first = view * -(-samples // batch_size) + sample // batch_size
    title = f"Teacher cache: the teacher's outputs for {samples:,} images in {views} view{'s' * (views > 1)}"
    shown = Progress(title, files.rows, files.all_rows) if progress else None
    forward = tf.function(lambda images: rounded(source.reader(images)[1], files.dtype))
    with files.writer() as append:
        for images in source.batches(batch_size, first):
            outputs, largest = forward(images)
            for name, value in largest.items():
                check_range(name, float(value), files.dtype)
            append({name: value.numpy() for name, value in outputs.items()})
            if shown:
                shown.add(len(images))


def rounded(outputs, dtype):
    """The outputs in the dtype of the cache, and the largest absolute value of each as it was."""
    largest = {name: tf.reduce_max(tf.abs(tf.cast(value, tf.float32))) for name, value in outputs.items()}
    return {name: tf.cast(value, dtype) for name, value in outputs.items()}, largest


def check_range(name, largest, dtype):
    if not np.isfinite(largest):
        raise ValueError(f"The teacher's output '{name}' is not finite for some image. Received: {largest}")
    if largest > float(np.finfo(dtype).max):
        raise ValueError(
            f"Output '{name}' of the teacher holds {largest:g}, and {dtype} ends at {np.finfo(dtype).max}: build the "
            "cache with dtype='float32', in another folder or after removing this one"
        )


def versions():
    return {name: importlib.metadata.version(name) for name in ("keras_tkd", "keras", "tensorflow", "numpy")}
