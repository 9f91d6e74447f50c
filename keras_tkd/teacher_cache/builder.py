"""Builds a teacher cache, and checks that it still matches its teacher."""

import functools
import importlib.metadata
import json

import keras
import numpy as np
import tensorflow as tf

from keras_tkd import data
from keras_tkd.data.mixing import check_mixing
from keras_tkd.data.options import count_batches
from keras_tkd.data.validation import check_seed, check_views
from keras_tkd.losses.keras_adapter import KerasDistillation
from keras_tkd.losses.outputs import as_list, collect_outputs
from keras_tkd.teacher_cache import fingerprints
from keras_tkd.teacher_cache.files import CacheFiles
from keras_tkd.teacher_cache.writer import RowWriter
from keras_tkd.teachers.ensemble import TeacherEnsemble
from keras_tkd.teachers.ensemble_reader import make_teacher_reader
from keras_tkd.utils.choices import CACHE_DTYPES
from keras_tkd.utils.keras_graph import flatten_layers
from keras_tkd.utils.progress import Progress

__all__ = [
    "CacheRecipe",
    "check_directory",
    "compute_for_chief",
    "compute_missing_rows",
    "find_finite",
    "read_versions",
]

_HASHED_IMAGES = 256  # images that are hashed at a time
_SAMPLES = 16  # samples that represent all where a view is hashed, or outputs are compared with the live teacher
# By how much two forward passes in different batches, or on different machines, may differ: a share of an output's
# largest value.
_TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


class CacheRecipe:
    """The teacher, images and views that determine what a cache holds.

    Args:
        teacher, images, losses, views, augment, mix, seed: as in `TeacherCache.build`.

    Attributes:
        reader: reads the teacher, as in the `Distiller`.
        images: the images, an array or an `ImageStream`.
        views: number of views of each image.
        shapes: dict from an output's name to its shape, without the batch.

    Raises:
        ValueError: no model, `views` or `seed` out of range, no images, or images or losses that the teacher does not
            fit.
    """

    def __init__(self, teacher, images, losses, views, augment, seed, mix=None):
        if not isinstance(teacher, keras.Model):
            raise ValueError(f"`teacher` must be a keras.Model. Received: teacher={teacher!r}")
        check_views(views)
        check_mixing(mix)
        if views is None or (augment is None and mix is None and views > 1):
            raise ValueError(
                "`views` must be the number of views of each sample, and 1 without `augment`, where all are alike. "
                f"Received: views={views}, augment={augment}"
            )
        check_seed(seed)
        images = images if isinstance(images, (np.ndarray, data.ImageStream)) else np.asarray(images)
        if not len(images):
            raise ValueError("`images` must hold a sample or more. Received: none")
        if mix is not None and isinstance(images, data.ImageStream):
            raise ValueError(
                "A cache can keep what a teacher says of mixed images only where all images are in memory: those of a "
                "stream are mixed inside windows, which are others in each epoch. Received: `mix` with an ImageStream. "
                "Load the images into memory, or run the teacher in every step"
            )
        self.images, self.views, self._augment, self._mix, self._seed = images, views, augment, mix, seed
        of_keras = keras.distillation.DistillationLoss
        losses = [KerasDistillation(x) if isinstance(x, of_keras) else x for x in as_list(losses)]
        self.reader = make_teacher_reader(teacher, collect_outputs(losses, "teacher_layers"))
        self._combined = [teacher.average, teacher.teacher_weights] if isinstance(teacher, TeacherEnsemble) else None
        shapes = self.reader.build((None, *images.shape[1:]))
        self.shapes: dict[str, tuple] = {name: tuple(shape[1:]) for name, shape in shapes.items()}
        # Spread over all samples, so that a different order of the samples is noticed.
        self._sample_ids = np.unique(np.linspace(0, len(images) - 1, _SAMPLES).astype("int64"))

    @functools.cached_property
    def _sampled_images(self):
        return tf.constant(self.images[self._sample_ids])

    def _make_sample_views(self, view):
        """Returns the samples that represent all, in one of their views."""
        # Where pipelines compute: a GPU may round otherwise, and the cache would not be the same on another machine.
        with tf.device("CPU:0"):
            sampled, ids, seed = self._sampled_images, self._sample_ids, self._seed
            if self._mix is None:
                return data.apply_view(sampled, ids, seed, view, self._augment)
            partners = self._mix.draw_partners(ids, seed, view, len(self.images)).numpy()
            others = tf.constant(self.images[partners])
            return data.apply_mixed_view(sampled, ids, others, partners, seed, view, self._augment, self._mix)[0]

    def describe(self, dtype):
        """Describes all that determines the contents of a cache, as plain data, with hashes in place of large arrays.

        Args:
            dtype: dtype of the cache's files.

        Raises:
            ValueError: a dtype that a cache cannot have.
        """
        if dtype not in CACHE_DTYPES:
            raise ValueError(f"`dtype` must be one of {', '.join(CACHE_DTYPES)}. Received: dtype={dtype!r}")
        # Of a cache that is older than mixing, there is no entry: None.
        augmented = {"augmentation": None, "mixing": None, "seed": None, "some_views": None}
        if self._augment or self._mix:
            # A function's name does not say what it does: a hash of some of its views tells an edited one apart.
            sample_views = np.stack([self._make_sample_views(view) for view in range(self.views)])
            augmented = {
                "augmentation": fingerprints.describe_function(self._augment),
                "mixing": self._mix and f"mixup={self._mix.mixup}, cutmix={self._mix.cutmix}",
                "seed": self._seed,
                "some_views": fingerprints.hash_array(sample_views),
            }
        batches = data.iterate_batches(self.images, _HASHED_IMAGES)
        return augmented | {
            "teacher": self.hash_teacher(),
            "combined": self._combined,
            "architecture": " ".join(map(fingerprints.hash_layers, self.reader.teachers)),
            "images": fingerprints.hash_pieces(self.images.dtype, self.images.shape, batches),
            "samples": len(self.images),
            "views": self.views,
            "outputs": sorted(self.shapes),
            "dtype": dtype,
        }

    def hash_teacher(self):
        """Returns a hash of the teacher's weights; of several teachers, of each."""
        return " ".join(map(fingerprints.hash_weights, self.reader.teachers))

    def make_batches(self, batch_size, first, every=1):
        """Makes batches of the images in all their views, from batch number `first` on; see `data.view_batches`."""
        return data.view_batches(
            self.images,
            batch_size,
            seed=self._seed,
            augment=self._augment,
            mix=self._mix,
            views=self.views,
            first=first,
            every=every,
        )

    def check_outputs(self, outputs: dict[str, np.ndarray]):
        """Raises `ValueError` unless `outputs` agree, on some samples, with what the teacher computes now.

        Args:
            outputs: dict from an output's name to its array `(views, samples, ...)`.
        """
        layers = [layer for model in self.reader.teachers for layer in flatten_layers(model)]
        tolerance = max(_TOLERANCES.get(layer.compute_dtype, 0.0) for layer in layers)
        # The last view is the last to be written: if its rows are right, no row was skipped on the way.
        view = self.views - 1
        images = self._make_sample_views(view)
        live = tf.function(self.reader, autograph=False)(images)[1]
        for name, array in outputs.items():
            _check_finite(name, find_finite(live[name]).numpy(), images, self._sample_ids, view)
            kept, now = array[view, self._sample_ids].astype("float32"), np.asarray(tf.cast(live[name], "float32"))
            # The files round in proportion to each value, a forward pass in proportion to an output's largest value.
            excess = np.abs(kept - now) - np.finfo(array.dtype).eps * np.abs(now) - tolerance * np.abs(now).max()
            worst = np.unravel_index(np.argmax(excess), now.shape)
            if not excess[worst] <= 0:  # a NaN is no agreement either
                raise ValueError(
                    f"The teacher cache does not hold what the teacher says: '{name}' of sample "
                    f"{self._sample_ids[worst[0]]} in view {view} is {kept[worst]} there and {now[worst]} now. "
                    "Remove it and build it anew"
                )


def check_directory(directory, recipe, dtype, about):
    """Raises `ValueError` for a folder in which `TeacherCache.build` would neither build nor open the cache.

    Args:
        directory: the folder, which need not exist.
        recipe: the `CacheRecipe`.
        dtype, about: as in `TeacherCache.build`.
    """
    files = CacheFiles(directory)
    if files.manifest is None:
        files.check_empty()
        return
    # What is cheap comes first: the checksums read every byte.
    files.check_made_from(recipe.describe(dtype) | about)
    if files.rows_written == files.total_rows:
        files.open_arrays()
    else:
        files.check_sizes(files.rows_written)
        files.check_checksums()


def compute_missing_rows(files, recipe, progress=True, workers=None):
    """Runs the teacher over the images whose rows a cache lacks, and appends these rows.

    Args:
        files: `CacheFiles`, locked for writing.
        recipe: `CacheRecipe` of the cache.
        progress: whether to show progress.
        workers: see `TeacherCache.build`; the others call `compute_for_chief`.

    Raises:
        ValueError: an output that is not finite, or too large for the files' dtype.
        OSError: the files cannot be written.
    """
    written = files.rows_written
    if workers is not None:
        facts = written, files.total_rows, files.manifest["batch_size"], recipe.hash_teacher()
        workers.exchange(json.dumps(facts))
    if written == files.total_rows:
        return
    views = files.manifest["rows"][0]
    title = f"Teacher cache: the teacher's outputs for {len(recipe.images):,} images in {views} view{'s' * (views > 1)}"
    progress_bar = Progress(title, written, files.total_rows, shown=progress)
    with RowWriter(files) as writer:
        for outputs in _compute_rows(recipe, files.dtype, files.manifest["batch_size"], written, workers):
            writer.append(outputs)
            progress_bar.add(len(next(iter(outputs.values()))))
    if workers is not None:
        workers.exchange("")


def compute_for_chief(recipe, dtype, workers):
    """Takes another worker's part in `compute_missing_rows`, which worker 0 calls.

    Raises:
        ValueError: a teacher with other weights than that of worker 0; an output as above.
    """
    # What the images are, worker 0 alone finds out: that means to read them all.
    written, total, batch_size, teacher = json.loads(workers.exchange("")[0])
    if recipe.hash_teacher() != teacher:
        raise ValueError(
            "All workers must build a teacher cache by the same teacher. Received: one with other weights than that of "
            f"worker 0, hashes {recipe.hash_teacher()} and {teacher}. Give all the same file"
        )
    if written < total:
        for _ in _compute_rows(recipe, np.dtype(dtype), batch_size, written, workers):
            pass
        # Until it is recorded that they are on the disk.
        workers.exchange("")


def _compute_rows(recipe, dtype, batch_size, row, workers):
    """Yields a cache's rows from number `row` on, in their order: dicts from an output's name to consecutive rows."""
    index, count = (0, 1) if workers is None else workers.share
    samples = len(recipe.images)
    per_view = count_batches(samples, batch_size)
    view, sample = divmod(row, samples)
    # Rows are appended batch by batch, so an interrupted cache ends where a batch does, and goes on with the next one.
    first, end = view * per_view + sample // batch_size, recipe.views * per_view
    forward = tf.function(lambda images: _cast_outputs(recipe.reader(images)[1], dtype), autograph=False)
    own = iter(recipe.make_batches(batch_size, first + index, count) if first + index < end else ())
    # In each round a batch for every worker, in their order; in the last one, for some of them.
    for number in range(first + index, end + index, count):
        outputs = {name: np.empty((0, *shape), dtype) for name, shape in recipe.shapes.items()}
        if number < end:
            images = next(own)
            computed, finite, largest = forward(images)
            view, batch = divmod(number, per_view)  # a batch is of one view
            sample = batch * batch_size
            for name, value in largest.items():
                _check_finite(name, finite[name].numpy(), images, range(sample, sample + len(images)), view)
                _check_range(name, float(value), dtype)
            outputs = {name: value.numpy() for name, value in computed.items()}
        yield outputs if workers is None else {name: workers.gather_rows(rows) for name, rows in outputs.items()}


def _cast_outputs(outputs: dict[str, tf.Tensor], dtype):
    """Casts outputs to the dtype of the cache.

    Returns:
        The outputs; of each, which of its rows are finite, and its largest absolute value before the cast.
    """
    finite = {name: find_finite(value) for name, value in outputs.items()}
    largest = {name: tf.reduce_max(tf.abs(tf.cast(value, tf.float32))) for name, value in outputs.items()}
    return {name: tf.cast(value, dtype) for name, value in outputs.items()}, finite, largest


def find_finite(rows):
    """Returns which rows of an output hold finite numbers alone."""
    return tf.reduce_all(tf.math.is_finite(tf.cast(rows, tf.float32)), axis=tuple(range(1, rows.shape.rank)))


def _check_finite(name, finite, images, sample_ids, view):
    """Raises `ValueError` if an output is not finite for some image; it names the first, and whose fault it is."""
    if finite.all():
        return
    first = int(np.argmin(finite))
    if np.isfinite(np.asarray(images[first], "float32")).all():
        cause = "though its pixels are: the teacher is at fault, by its weights, its precision or its preprocessing"
    else:
        cause = "nor are its pixels: mend that image, or remove it"
    raise ValueError(
        f"The teacher's output '{name}' is not finite for sample {sample_ids[first]} in view {view}, {cause}"
    )


def _check_range(name, largest, dtype):
    """Raises `ValueError` if an output of this largest value is not one in the dtype of the cache."""
    if largest > float(np.finfo(dtype).max):
        raise ValueError(
            f"Output '{name}' of the teacher holds {largest:g}, and {dtype} ends at {np.finfo(dtype).max}: build the "
            "cache with dtype='float32', in another folder or after removing this one"
        )


def read_versions():
    """Returns the versions of the packages that a cache's numbers depend on, as a dict."""
    return {name: importlib.metadata.version(name) for name in ("keras_tkd", "keras", "tensorflow", "numpy")}
