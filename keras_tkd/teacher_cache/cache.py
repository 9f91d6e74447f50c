"""A teacher's outputs on disk, exact under augmentation: a frozen teacher is paid for once.

Who owns what:
- `data` says what a view of a sample is: a function of (seed, sample, number of the view);
- `TeacherReader` reads the teacher, as it does for the Distiller;
- `CacheFiles` is the folder: what is whole, what was cut off, what it was made from;
- `cache_building` fills it;
- `TeacherCache` checks it and hands its rows to batches.
"""

import tensorflow as tf

from keras_tkd.data.arrays import as_tensor
from keras_tkd.data.options import PARALLEL_CALLS, deterministic_options
from keras_tkd.teacher_cache import builder
from keras_tkd.teacher_cache.files import CacheFiles


class TeacherCache:
    """The outputs of a frozen teacher for every sample, in a bounded number of views, in files mapped into memory.

    Training replays the very views that were answered: what the student sees is, to the bit, what the teacher saw.
    Neither the training step nor the process then needs the teacher.

    Make one with `build` or `open`. Any number of processes may have it open.

    Attributes:
        outputs: dict from an output's name (`"logits"`, and the layers that the losses read) to its array,
            `(views, samples, ...)`, in the cache's dtype. Row `[v, i]` is for view `v` of the sample of id `i`.
        views, samples: their numbers.
        made_from: dict, all that decides what the rows are.

    Example:

    ```python
    losses = [SoftTargets(temperature=4.0)]
    seen = {"seed": 0, "augment": crop_and_flip, "views": 4}
    cache = TeacherCache.build(teacher, images, "cache/train", losses=losses, **seen)
    batches = cache.attach(triplet_dataset(images, labels, 128, negatives=None, **seen))
    distiller = Distiller(None, student, losses)  # no teacher: the batches bring its outputs
    ```
    """

    def __init__(self, files):
        self.outputs = files.arrays()
        self.made_from = files.manifest["made_from"]
        self.views, self.samples = files.manifest["rows"]

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
        seed=0,
        dtype="float16",
        batch_size=256,
        about=None,
        progress=True,
    ):
        """Runs the teacher over all samples in all views and keeps its outputs, or opens the cache that does already.

        A cache of the same making is opened if it is finished, and otherwise finished from where it was cut off. What
        was interrupted ends in the same bits as what was not. Processes that build in one folder wait for one another.

        Args:
            teacher: what the `Distiller` takes as its teacher.
            images: `(samples, height, width, channels)`, what the teacher sees, in the order of the samples' ids: an
                array, which may itself be mapped into memory (`np.load(file, mmap_mode="c")`).
            directory: folder of this cache alone. The images of an evaluation need another one.
            losses: the distillation losses; the layers that they read of the teacher are kept beside its logits.
            views: number of views of each sample, >= 1; 1 without augmentation.
            augment, seed: as in `data.triplet_dataset`. Without augmentation nothing is drawn from the seed, and the
                caches of all seeds are one.
            dtype: of the files, all outputs alike: `"float16"`, which rounds by at most 0.05 %, or `"float32"`.
            batch_size: images per forward pass.
            about: dict of plain data: further facts, kept in the manifest, that a cache must agree in to be opened.
            progress: whether to show it: a bar on a terminal, at most about ten lines elsewhere.

        Returns:
            The `TeacherCache`.

        Raises:
            ValueError: bad arguments; a folder with another cache (every difference is named, with both values), with a
                damaged one, or with other files; an output that is not finite, or beyond the numbers of float16.
            OSError: the folder cannot be written, or the disk is full. What is written is kept.
        """
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be >= 1. Received: batch_size={batch_size}")
        source = builder.Source(teacher, images, losses, views, augment, seed)
        made_from = source.describe(dtype) | (about or {})
        files = CacheFiles(directory)
        if files.manifest:
            files.check_made_from(made_from)
        if files.manifest and files.rows == files.all_rows:
            cache = cls(files)
            source.compare(cache.outputs)
            return cache
        with files.for_one_writer():
            if files.manifest is None:
                described = {"batch_size": batch_size, "versions": builder.versions()}
                files.create(made_from, (views, len(images)), source.shapes, **described)
            files.check_made_from(made_from)
            builder.write(files, source, progress)
        return cls(files)

    @classmethod
    def open(cls, directory, **expected):
        """Opens a finished cache for reading; nothing else is needed, and nothing is written.

        Args:
            directory: folder of the cache.
            expected: values of `made_from` that it must have, such as `views=4` or `seed=0`.

        Raises:
            ValueError: no cache there, or not a finished one, or a truncated file; another value than expected.
        """
        files = CacheFiles(directory)
        if files.manifest is None:
            raise ValueError(f"There is no teacher cache in {directory}. Make one with `TeacherCache.build`")
        files.check_made_from(expected)
        return cls(files)

    @property
    def shapes(self):
        """Shapes of the outputs in a batch by name, with None for the batch: what `Distiller.build` takes."""
        return {name: (None, *array.shape[2:]) for name, array in self.outputs.items()}

    def attach(self, dataset, key="teacher"):
        """The batches of `dataset` with the teacher's outputs for their images in them, in float32.

        Args:
            dataset: `tf.data.Dataset` of batches `(dict, label)` whose dict has `"index"`, ids of samples, and, where
                images are augmented, `"view"`: what `data.triplet_dataset` and `data.pair_dataset` give for the images,
                `augment`, `seed` and `views` of the cache.
            key: under which the dict of outputs stands in the batch.

        Raises:
            ValueError: batches of another form; augmented ones where the cache is of plain images, or the reverse.
            tf.errors.InvalidArgumentError: a sample or a view that the cache does not hold, when it comes.
        """
        self._check_batches(dataset.element_spec)
        with tf.device("CPU:0"):
            rows = {name: as_tensor(array) for name, array in self.outputs.items()}

        def look_up(batch, *labels):
            index = tf.cast(batch["index"], tf.int64)
            view = tf.cast(batch.get("view", tf.zeros_like(index)), tf.int64)
            counts = tf.constant([self.views, self.samples], tf.int64)
            place = tf.stack([view, index], axis=1)
            message = f"The teacher cache holds {self.views} views of {self.samples} samples. A batch has others"
            with tf.control_dependencies([tf.debugging.assert_less(place, counts, message)]):
                outputs = {name: tf.cast(tf.gather_nd(array, place), tf.float32) for name, array in rows.items()}
            return batch | {key: outputs}, *labels

        dataset = dataset.map(look_up, num_parallel_calls=PARALLEL_CALLS)
        return dataset.prefetch(PARALLEL_CALLS).with_options(deterministic_options())

    def _check_batches(self, spec):
        batch = spec[0] if isinstance(spec, tuple) else None
        if not isinstance(batch, dict) or "index" not in batch:
            raise ValueError(
                'A cache is attached to batches `({"image", "index", ...}, label)`, such as those of '
                f"`data.triplet_dataset(..., negatives=None)`. Received: {spec}"
            )
        augmented = self.made_from["augmentation"] is not None
        if augmented != ("view" in batch):
            raise ValueError(
                "The teacher must have seen what the student sees, in the same `views` of the same `augment`. "
                f"Received: a cache of augmentation={self.made_from['augmentation']}, batches "
                f"{'with' if 'view' in batch else 'without'} augmentation"
            )
