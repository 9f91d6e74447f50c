"""A teacher's outputs on disk, exact under augmentation, so that a frozen teacher is run only once.

Who owns what:
- `data` defines a view of a sample: a function of (seed, sample, number of the view);
- `TeacherReader` reads the teacher, as it does for the Distiller;
- `CacheFiles` is the folder: its manifest, its arrays, and how far they are written;
- `RowWriter` appends rows to it, and `checksums` tells whether they are still the ones that were written;
- `CacheRecipe` determines what the rows are, and `builder` computes them;
- `given_outputs` makes rows of what another program computed, and `OutputsFile` reads its file;
- `TeacherCache` opens it and adds its rows to batches.
"""

import numpy as np
import tensorflow as tf

from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.options import PARALLEL_CALLS, as_written, deterministic_options
from keras_tkd.data.validation import check_batch_size, check_seed
from keras_tkd.teacher_cache import builder
from keras_tkd.teacher_cache.files import CacheFiles
from keras_tkd.teacher_cache.given_outputs import arrange_outputs, check_axis_of_views, describe_given

__all__ = ["TeacherCache"]


class TeacherCache:
    """Outputs of a frozen teacher for every sample in a bounded number of views, in files that are mapped into memory.

    Training repeats exactly the views that were computed: the student sees, to the bit, what the teacher saw. Neither
    the training step nor the process then needs the teacher.

    Make one with `build` or `open`; where the teacher is not at hand but its outputs are, with `from_arrays`. Any
    number of processes may have it open.

    Attributes:
        outputs: dict from an output's name (`"logits"`, and the layers that the losses read) to its array,
            `(views, samples, ...)`, in the cache's dtype. Row `[v, i]` is for view `v` of the sample of id `i`.
        views: number of views of each sample.
        samples: number of samples.
        made_from: dict of all that determines the rows.

    Example:

    ```python
    losses = [SoftTargets(temperature=4.0)]
    views = {"seed": 0, "augment": crop_and_flip, "views": 4}
    cache = TeacherCache.build(teacher, images, "cache/train", losses=losses, **views)
    batches = cache.attach(triplet_dataset(images, labels, 128, negatives=None, **views))
    distiller = Distiller(None, student, losses)  # no teacher: the batches bring its outputs
    ```
    """

    def __init__(self, outputs, made_from):
        self.outputs: dict[str, np.ndarray] = outputs
        self.made_from = made_from
        self.views, self.samples = next(iter(outputs.values())).shape[:2]

    @classmethod
    def build(
        cls,
        teacher,
        images,
        directory,
        *,
        losses=(),
        views=1,
        augment=None,
        mix=None,
        seed=0,
        dtype="float32",
        batch_size=256,
        about=None,
        progress=True,
        workers=None,
        rebuild=False,
    ):
        """Runs the teacher over all samples in all views and keeps its outputs, or opens a cache that holds them.

        A cache that was made from the same things is opened if it is finished, and otherwise continued where it was
        interrupted. A cache that was interrupted ends in the same bits as one that was not. Processes that build in
        one folder wait for one another.

        Args:
            teacher: a teacher as the `Distiller` takes it.
            images: `(samples, height, width, channels)`, the images for the teacher, in the order of the samples' ids:
                an array, which may itself be mapped into memory (`np.load(file, mmap_mode="c")`), or an `ImageStream`.
            directory: folder of this cache alone. The images of an evaluation need another one.
            losses: the distillation losses, a list or a single one; the teacher's layers that they read are kept
                beside its logits.
            views: number of views of each sample, >= 1; 1 without augmentation and mixing.
            augment, mix, seed: as in `data.triplet_dataset`. Without augmentation and mixing the seed decides nothing,
                and one cache serves all seeds. Images that are mixed must be an array.
            dtype: dtype of all outputs' files: `"float32"`, which keeps them as they are, or `"float16"`, which takes
                half of the room and rounds by at most 0.05 %.
            batch_size: images per forward pass.
            about: dict of plain data: further facts, kept in the manifest, in which a cache must agree to be opened.
            progress: whether to show progress: a bar on a terminal, at most about ten lines elsewhere.
            workers: the processes that share the work out, each a batch in turn, and that all see the folder, with
                `share`, `is_chief`, `exchange` and `gather_rows` as a run's `Cluster` has them. All must call this
                alike; the first one writes. None for this process alone.
            rebuild: whether a cache in the folder that was made from something else is removed, and not refused.

        Returns:
            The `TeacherCache`.

        Raises:
            ValueError: bad arguments; a folder with another cache (every difference is named, with both values), with a
                damaged one, or with other files; an output that is not finite, or too large for float16.
            OSError: the folder cannot be written, or the disk is full. What is written is kept.
        """
        check_batch_size(batch_size)
        recipe = builder.CacheRecipe(teacher, images, losses, views, augment, seed, mix)
        if workers is not None and not workers.is_chief:
            builder.compute_for_chief(recipe, dtype, workers)
            return cls._open_of_chief(directory, recipe)
        made_from = recipe.describe(dtype) | (about or {})
        files = CacheFiles(directory)
        if rebuild:
            files.remove_other(made_from)
        if files.manifest:
            files.check_made_from(made_from)
        # A finished cache takes no lock: it may lie where nothing can be written.
        if files.manifest and files.rows_written == files.total_rows:
            builder.compute_missing_rows(files, recipe, progress, workers)  # none: so the others are told
            return cls._map_checked(files, recipe)
        with files.lock_for_writing():
            # Another process may have built the cache while this one waited: the manifest has been read again.
            if files.manifest is None:
                facts = {"batch_size": batch_size, "versions": builder.read_versions()}
                files.create(made_from, (views, len(images)), recipe.shapes, **facts)
            files.check_made_from(made_from)
            builder.compute_missing_rows(files, recipe, progress, workers)
        return cls._map(files)

    @classmethod
    def _open_of_chief(cls, directory, recipe):
        """Opens what worker 0 has just built, on another one."""
        files = CacheFiles(directory)
        if files.manifest is None or files.rows_written < files.total_rows:
            raise ValueError(
                f"All workers must see the folder of the teacher cache. Received: {directory}, where worker 0 has one "
                "that is finished, and this worker finds none. Choose a folder that all share"
            )
        return cls._map_checked(files, recipe)

    @classmethod
    def _map_checked(cls, files, recipe):
        """Opens a finished cache if its outputs are what the teacher says now."""
        cache = cls._map(files)
        recipe.check_outputs(cache.outputs)
        return cache

    @classmethod
    def open(cls, directory, **expected):
        """Opens a finished cache for reading; nothing else is needed, and nothing is written.

        Args:
            directory: folder of the cache.
            expected: values that its `made_from` must have, such as `views=4` or `seed=0`.

        Raises:
            ValueError: no cache there, or an unfinished one, or a truncated or damaged file; another value than
                expected.
        """
        files = CacheFiles(directory)
        if files.manifest is None:
            raise ValueError(f"There is no teacher cache in {directory}. Make one with `TeacherCache.build`")
        files.check_made_from(expected)
        return cls._map(files)

    @classmethod
    def _map(cls, files):
        return cls(files.open_arrays(), files.manifest["made_from"])

    @classmethod
    def from_arrays(
        cls,
        logits,
        labels=None,
        *,
        features=None,
        kind=None,
        classes=None,
        ids=None,
        sample_ids=None,
        augment=None,
        seed=0,
        name="logits",
    ):
        """Makes a cache, in memory, of outputs that any program computed: of a teacher of another framework, for one.

        Args:
            logits: `(samples, classes)`, the teacher's outputs for the images as they are; or `(views, samples,
                classes)`, for views of them that `data.view_batches` makes with the same `augment` and `seed`. Or
                probabilities, whose logarithm is taken; one of 0 counts as 1e-7.
            labels: `(samples,)` class ids, with which the outputs must agree more than chance does: rows in another
                order, or columns, are refused; where samples are too few to tell, a warning is printed. None compares
                nothing. Or, where an image may have several classes, multi-hot rows `(samples, classes)`:
                probabilities are then those of each class, and their logit is taken.
            features: dict from the name of a teacher's layer, as losses read it, to its outputs, with leading axes as
                those of `logits`.
            kind: `"logits"` or `"probabilities"`. None tells them by the rows: probabilities are not negative and sum
                to 1, or, with multi-hot `labels`, are from 0 to 1.
            classes: indices of the columns that are the labels' classes, in their order, of a teacher that knows more.
            ids: `(rows,)`, the id of each row, whole numbers or texts: rows may come in any order, and there may be
                more than samples. None takes the rows in the samples' order.
            sample_ids: `(samples,)`, with `ids`: the id of each sample. None stands for 0, 1, ...
            augment, seed: as in `data.triplet_dataset`: what made the views.
            name: what an error calls `logits`.

        Returns:
            The `TeacherCache`.

        Raises:
            ValueError: arrays of other shapes; numbers that are not finite; outputs that are neither logits nor
                probabilities, or agree with the labels by chance; ids that do not fit; views without `augment`, or
                `augment` without views.

        Example:

        ```python
        probabilities = forest.predict_proba(images.reshape(len(images), -1))
        cache = TeacherCache.from_arrays(probabilities, labels)
        batches = cache.attach(triplet_dataset(images, labels, 128, seed=0, negatives=None))
        ```
        """
        check_seed(seed)
        outputs, kind = arrange_outputs(
            logits,
            labels,
            features=features,
            kind=kind,
            classes=classes,
            ids=ids,
            sample_ids=sample_ids,
            name=name,
        )
        check_axis_of_views(logits, augment, name)
        return cls(outputs, describe_given(outputs, kind, augment, seed))

    @property
    def shapes(self) -> dict[str, tuple]:
        """Shapes of the outputs in a batch by name, with None for the batch, as `Distiller.build` takes them."""
        return {name: (None, *array.shape[2:]) for name, array in self.outputs.items()}

    def attach(self, dataset, key="teacher"):
        """Adds the teacher's outputs to the batches of a data set, in float32.

        Args:
            dataset: `tf.data.Dataset` of batches `(dict, label)` whose dict has `"index"`, ids of samples, and, where
                images are augmented, `"view"`, or where they are mixed, `"mixed_view"`: those that
                `data.triplet_dataset` and `data.pair_dataset` make of the images, `augment`, `mix`, `seed` and `views`
                of the cache.
            key: the key of the dict of outputs in the batch.

        Returns:
            `tf.data.Dataset` of the same batches with a dict of outputs in each.

        Raises:
            ValueError: batches of another form; augmented or mixed batches where the cache is of images that are not,
                or the reverse.
            tf.errors.InvalidArgumentError: while it runs, for a sample or a view that the cache does not hold, and for
                an output that is not finite.
        """
        self._check_batches(dataset.element_spec)
        # The tensors share the files' mapped memory: nothing is read before a batch asks for it.
        with tf.device("CPU:0"):
            rows = {name: as_tensor(array) for name, array in self.outputs.items()}

        @as_written
        def look_up(batch, *labels):
            index = tf.cast(batch["index"], tf.int64)
            view = tf.cast(batch.get(self._view_key, tf.zeros_like(index)), tf.int64)
            counts = tf.constant([self.views, self.samples], tf.int64)
            place = tf.stack([view, index], axis=1)
            # `gather_nd` on a CPU checks its indices too, but its error speaks of indices and not of samples.
            message = f"The teacher cache holds {self.views} views of {self.samples} samples. A batch has others"
            with tf.control_dependencies([tf.debugging.assert_less(place, counts, message)]):
                outputs = {name: tf.cast(tf.gather_nd(array, place), tf.float32) for name, array in rows.items()}
            # None was when the cache was built. Files can change under a cache that is open, and the student's loss,
            # which is where it would show, is the wrong place to look.
            finite = tf.reduce_all([builder.find_finite(output) for output in outputs.values()], axis=0)
            message = "The teacher cache, and not the student, holds outputs that are not finite, of the samples"
            check = tf.debugging.Assert(tf.reduce_all(finite), [message, tf.boolean_mask(index, ~finite)])
            with tf.control_dependencies([check]):
                outputs = {name: tf.identity(output) for name, output in outputs.items()}
            return batch | {key: outputs}, *labels

        dataset = dataset.map(look_up, num_parallel_calls=PARALLEL_CALLS)
        return dataset.prefetch(PARALLEL_CALLS).with_options(deterministic_options())

    @property
    def _view_key(self):
        return "mixed_view" if self.made_from.get("mixing") else "view"

    def _check_batches(self, spec):
        batch = spec[0] if isinstance(spec, tuple) else None
        if not isinstance(batch, dict) or "index" not in batch:
            raise ValueError(
                'A cache is attached to batches `({"image", "index", ...}, label)`, such as those of '
                f"`data.triplet_dataset(..., negatives=None)`. Received: {spec}"
            )
        # Batches of another view would look right: so these are told by their key.
        if self._view_key == "mixed_view" or "mixed_view" in batch:
            if self._view_key not in batch:
                raise ValueError(
                    "The teacher must have seen what the student sees, mixed images in the same `views` of the same "
                    f"`mix`. Received: a cache of mixing={self.made_from.get('mixing')}, batches "
                    f"{'of mixed images' if 'mixed_view' in batch else 'without mixed images that come again'}"
                )
            return
        augmented = self.made_from["augmentation"] is not None
        if augmented != ("view" in batch):
            raise ValueError(
                "The teacher must have seen what the student sees, in the same `views` of the same `augment`. "
                f"Received: a cache of augmentation={self.made_from['augmentation']}, batches "
                f"{'with' if 'view' in batch else 'without'} augmentation"
            )
