"""Labelled images by name: in memory exactly once, as uint8.

Who owns what:
- `load` decides what a name means: the built-in digits, a folder of class folders, or tensorflow-datasets.
- `Splits` is what every one of them gives.
- `stratified_split` is the one place where samples are divided.
Pixels are written straight into arrays of `aligned_empty`, so nothing here holds a second copy of the data.
"""

import concurrent.futures
import dataclasses
import difflib
import math
import os
import struct

import numpy as np

_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_GREY = (0, 4)  # colour types: grey, grey with alpha
_DIGITS_TEST_FRACTION = 0.2  # fixed: accuracies on digits are always on the same number of images
_READ_BYTES = 2**21  # of one batch at most: small beside any data set, whatever the size of its images


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The training and the test samples of one data set, and perhaps validation samples.

    Attributes:
        name: the name it was loaded by.
        train_images: `(n, height, width, channels)`, uint8, 0..255; likewise `test_images`.
        train_labels: `(n,)`, int32, `0 <= label < classes`; likewise `test_labels`.
        class_names: one name per class; a label is an index into it.
        validation_images, validation_labels: as above, or None where `with_validation` was not called.
        split: for a folder that `load` divided itself, `{"train": paths, "test": paths}`, later also
            `"validation"`:
            relative to the folder, in the order of the samples. None for every other data set.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    validation_images: np.ndarray | None = None
    validation_labels: np.ndarray | None = None
    split: dict[str, list[str]] | None = None

    @property
    def classes(self):
        """The number of classes."""
        return len(self.class_names)

    @property
    def image_shape(self):
        """`(height, width, channels)`, in pixels."""
        return self.train_images.shape[1:]

    def with_validation(self, fraction, seed):
        """Moves a stratified share of the training samples into a validation split.

        Rows are copied once, so drop the old `Splits` to have the images in memory once again.

        Args:
            fraction: the share of each class's training samples to take, `0 <= fraction < 1`. Each class
                keeps and gives at least one sample. 0 returns `self`.
            seed: of the choice; the same seed takes the same samples.

        Returns:
            A `Splits` with `validation_images` and `validation_labels`; the test samples are the same arrays.

        Raises:
            ValueError: for another fraction, if a class has a single training sample, or if there already is
                a validation split.
        """
        if fraction == 0:
            return self
        if not 0 < fraction < 1:
            raise ValueError(f"`fraction` must be at least 0 and less than 1. Received: fraction={fraction}")
        if self.validation_images is not None:
            raise ValueError(
                f"`{self.name}` already has {len(self.validation_images)} validation images. "
                "Call `with_validation` once, on the splits that `load` returned."
            )
        kept, taken = stratified_split(self.train_labels, fraction, seed, self.class_names)
        split = self.split
        if split is not None:
            paths = split["train"]
            split = {
                **split,
                "train": [paths[index] for index in kept],
                "validation": [paths[index] for index in taken],
            }
        return dataclasses.replace(
            self,
            train_images=_take_rows(self.train_images, kept),
            train_labels=self.train_labels[kept],
            validation_images=_take_rows(self.train_images, taken),
            validation_labels=self.train_labels[taken],
            split=split,
        )


def load(name, data_dir=None, *, image_size=None, test_fraction=0.2, split_seed=0, progress=False):
    """Loads a data set of labelled images into memory, as uint8. Nothing is ever downloaded.

    `name` is one of three things:

    - `"digits"`: scikit-learn's 1,797 handwritten digits, `(8, 8, 1)`, stored as `round(value * 255 / 16)`.
      A stratified fifth is the test split, chosen by `split_seed` alone: runs with different seeds share
      their test images, and the teacher of one never trained on the test images of another.
    - a folder of class folders: `pets/cat/*.png`, `pets/dog/*.jpg`. With subfolders `train` and `test`, each
      holding the same class folders, those are the splits; otherwise `test_fraction` of each class is the
      test split. PNG and JPEG are read, other files and hidden ones are ignored. Classes and files are in
      sorted order. Images have one channel if all files are grey, else three; alpha is dropped, and a
      rotation in EXIF is not applied.
    - a tensorflow-datasets name (`cifar10`, `emnist/letters`, `cifar10:3.0.2`) that is prepared under
      `data_dir`. The test split is `test`, or `validation` where there is no `test`.

    A bare name that tensorflow-datasets knows is never a folder: for a folder `cifar10` write `./cifar10`.

    Args:
        name: string, see above.
        data_dir: where tensorflow-datasets keeps its data. None is its default, `~/tensorflow_datasets`.
        image_size: height and width in pixels, an integer or a pair. None keeps the images' own size.
            Resizing is bilinear, antialiased, and rounded.
        test_fraction: the share of each class that becomes the test split of a folder without `train` and
            `test`, between 0 and 1. A class keeps and gives at least one image.
        split_seed: of the splits made here (digits, folders). Not a run's seed.
        progress: True shows a progress bar while files are read.

    Returns:
        A `Splits`. Its images are aligned to 64 bytes.

    Raises:
        FileNotFoundError: if `data_dir` or the folder does not exist, or the data set is not prepared.
        ValueError: for an unknown name or a bad argument, for images of different sizes without `image_size`,
            and for data that are not labelled images.

    Example:

    >>> splits = load("digits")
    >>> splits.image_shape, splits.classes, len(splits.train_images) + len(splits.test_images)
    ((8, 8, 1), 10, 1797)
    """
    name = os.fspath(name)
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
        if not os.path.isdir(data_dir):
            raise FileNotFoundError(f"`data_dir` does not exist, or is not a directory. Received: data_dir={data_dir}")
    if not 0 < test_fraction < 1:
        raise ValueError(
            f"`test_fraction` must be between 0 and 1, both exclusive. Received: test_fraction={test_fraction}"
        )
    size = _height_and_width(image_size)
    if name == "digits":
        return _load_digits(size, split_seed)
    if _is_folder(name):
        return _load_folder(name, size, test_fraction, split_seed, progress)
    return _load_tfds(name, data_dir, size, progress)


def aligned_empty(shape, dtype=np.uint8):
    """An uninitialized C-ordered array whose data start at a multiple of 64 bytes.

    TensorFlow can share such memory without a copy (`tf.experimental.dlpack`); numpy's own is aligned to 16.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def stratified_split(labels, fraction, seed, class_names):
    """Divides samples so that each class gives the same share, and keeps and gives at least one sample.

    Args:
        labels: `(n,)`, integers.
        fraction: the share to take, between 0 and 1; rounded to whole samples class by class.
        seed: of the choice.
        class_names: a name per label, for the error.

    Returns:
        The indices that are kept and those that are taken, two ascending arrays.

    Raises:
        ValueError: if a class has a single sample.
    """
    generator = np.random.default_rng(seed)
    is_taken = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) < 2:
            raise ValueError(
                "A class must have at least 2 images to be split. "
                f"Received: 1 image of class `{class_names[label]}`. Add images, or leave the class out."
            )
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        is_taken[members[:count]] = True
    return np.flatnonzero(~is_taken), np.flatnonzero(is_taken)


def _load_digits(size, split_seed):
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    images = np.rint(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    if size is not None:
        images = _resize(images, size).numpy()
    labels = digits.target.astype(np.int32)
    class_names = tuple(str(digit) for digit in digits.target_names)
    train, test = stratified_split(labels, _DIGITS_TEST_FRACTION, split_seed, class_names)
    return Splits(
        name="digits",
        train_images=_take_rows(images, train),
        train_labels=labels[train],
        test_images=_take_rows(images, test),
        test_labels=labels[test],
        class_names=class_names,
    )


# Folders


def _is_folder(name):
    if not os.path.isdir(os.path.expanduser(name)):
        return False
    # A run's own directory is easily called like its data set, and must not change what the name means.
    return os.sep in name or name not in _tfds_names()


def _load_folder(name, size, test_fraction, split_seed, progress):
    root = os.path.expanduser(name)
    split = None
    if {"train", "test"} <= set(_visible(root, os.DirEntry.is_dir)):
        class_names, train_paths, train_labels = _list_images(os.path.join(root, "train"))
        test_names, test_paths, test_labels = _list_images(os.path.join(root, "test"))
        if odd := sorted(set(class_names) ^ set(test_names)):
            lacking = "test" if odd[0] in class_names else "train"
            raise ValueError(
                "`train` and `test` must have the same class folders. "
                f"Received: {name}, where `{lacking}` lacks the class `{odd[0]}`."
            )
    else:
        class_names, paths, labels = _list_images(root)
        train, test = stratified_split(labels, test_fraction, split_seed, class_names)
        train_paths, test_paths = [paths[index] for index in train], [paths[index] for index in test]
        train_labels, test_labels = labels[train], labels[test]
        split = {
            key: [os.path.relpath(path, root) for path in part]
            for key, part in (("train", train_paths), ("test", test_paths))
        }
    if len(class_names) < 2:
        raise ValueError(
            "A data set must have at least 2 classes. "
            f"Received: {name}, with the single class folder `{class_names[0]}`."
        )
    image_shape = _common_shape(train_paths + test_paths, size)
    return Splits(
        name=name,
        train_images=_read_images(train_paths, image_shape, progress),
        train_labels=train_labels,
        test_images=_read_images(test_paths, image_shape, progress),
        test_labels=test_labels,
        class_names=class_names,
        split=split,
    )


def _visible(folder, is_wanted):
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if is_wanted(entry) and not entry.name.startswith("."))


def _list_images(folder):
    """Returns the class names, the paths of all images, and their labels, from a folder of class folders."""
    class_names = tuple(_visible(folder, os.DirEntry.is_dir))
    if not class_names:
        raise ValueError(
            f"A folder of images must have one folder per class. Received: {folder}, which has no folders."
        )
    paths, labels = [], []
    for label, class_name in enumerate(class_names):
        class_folder = os.path.join(folder, class_name)
        files = [file for file in _visible(class_folder, os.DirEntry.is_file) if file.lower().endswith(_IMAGE_ENDINGS)]
        if not files:
            raise ValueError(
                "A class folder must have PNG or JPEG images directly in it. "
                f"Received: {class_folder}, which has none. Remove it; "
                "or if it was meant as a split, have both folders, `train` and `test`."
            )
        paths += [os.path.join(class_folder, file) for file in files]
        labels += [label] * len(files)
    return class_names, paths, np.array(labels, np.int32)


def _common_shape(paths, size):
    """The `(height, width, channels)` that all images will have; only the files' headers are decoded."""
    heights_and_widths, channels = [], 1
    for path in paths:
        *height_and_width, image_channels = _image_shape(path)
        heights_and_widths.append(height_and_width)
        channels = max(channels, image_channels)
    if size is not None:
        return *size, channels
    first = heights_and_widths[0]
    for path, other in zip(paths, heights_and_widths, strict=True):
        if other != first:
            raise ValueError(
                "Images of different sizes need a common one: pass `image_size` (--image_size). Received: "
                f"{paths[0]} with {first[0]}x{first[1]} pixels (height x width), "
                f"{path} with {other[0]}x{other[1]}."
            )
    return *first, channels


def _image_shape(path):
    import tensorflow as tf

    content = _file_content(path)
    try:
        if content.startswith(_PNG_SIGNATURE):
            width, height, _, colour_type = struct.unpack_from(">IIBB", content, 16)
            return height, width, 1 if colour_type in _PNG_GREY else 3
        height, width, channels = tf.io.extract_jpeg_shape(content).numpy()
        return int(height), int(width), 1 if channels == 1 else 3
    except (struct.error, tf.errors.InvalidArgumentError) as error:
        raise _undecodable(path) from error


def _read_images(paths, image_shape, progress):
    import keras
    import tensorflow as tf

    images = aligned_empty((len(paths), *image_shape))
    height, width, channels = image_shape

    def read(index):
        try:
            image = tf.io.decode_image(_file_content(paths[index]), channels, expand_animations=False)
        except tf.errors.InvalidArgumentError as error:
            raise _undecodable(paths[index]) from error
        if image.shape[:2] != (height, width):
            image = _resize(image, (height, width))
        images[index] = image.numpy()

    bar = keras.utils.Progbar(len(paths), verbose=int(progress), unit_name="image")
    # Threads rather than tf.data: a failure knows its file, and pixels go from the decoder to their place.
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        for done, _ in enumerate(pool.map(read, range(len(paths))), start=1):
            bar.update(done)
    finally:
        pool.shutdown(cancel_futures=True)
    return images


def _file_content(path):
    with open(path, "rb") as file:
        return file.read()


def _undecodable(path):
    return ValueError(
        f"An image must be a whole PNG or JPEG file. Received: {path}, which cannot be decoded. Repair it or remove it."
    )


# tensorflow-datasets


def _load_tfds(name, data_dir, size, progress):
    builder = _prepared_builder(name, data_dir)
    # A split without samples is as good as none.
    available = [key for key, split in builder.info.splits.items() if split.num_examples]
    test = "test" if "test" in available else "validation"
    if "train" not in available or test not in available:
        raise ValueError(
            "A data set must have the splits `train` and `test` (or `validation`). "
            f"Received: {name}, with the splits {available}"
        )
    image_key, label_key = _supervised_keys(name, builder.info)
    class_names = tuple(builder.info.features[label_key].names)
    height, width, channels = builder.info.features[image_key].shape
    if size is None and None in (height, width):
        raise ValueError(
            f"The images of {name} differ in size: pass `image_size` (--image_size), a common size in pixels."
        )
    arrays = {}
    for split in ("train", test):
        count = builder.info.splits[split].num_examples
        images = aligned_empty((count, *(size or (height, width)), channels))
        labels = np.empty(count, np.int32)
        _read_tfds(builder, split, (image_key, label_key), size, images, labels, progress)
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise ValueError(
                f"Labels must be at least 0 and less than the number of classes, {len(class_names)}. "
                f"Received: labels from {labels.min()} to {labels.max()} in the split `{split}` of {name}"
            )
        arrays[split] = images, labels
    return Splits(name, *arrays["train"], *arrays[test], class_names)


def _prepared_builder(name, data_dir):
    import tensorflow_datasets as tfds

    try:
        if tfds.core.naming.parse_builder_name_kwargs(name)[0].namespace:
            raise ValueError("Data sets of a namespace (`huggingface:mnist`) are fetched over the network.")
        builder = tfds.builder(name, data_dir=data_dir)
    except ValueError as error:
        known = _tfds_names()
        if name.replace(":", "/").split("/")[0] in known:
            raise  # the config or the version is at fault, and tensorflow-datasets lists those there are
        if os.sep in name:
            raise FileNotFoundError(f"The folder of images does not exist. Received: {name}") from error
        nearest = ", ".join(difflib.get_close_matches(name, ["digits", *known])) or "none"
        raise ValueError(
            "A data set must be `digits`, a folder of class folders, or a tensorflow-datasets name. "
            f"Received: {name}. Nearest names: {nearest}"
        ) from error
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"`{name}` is not prepared: looked in {builder.data_path}. On a machine with network run\n"
            f'  python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}', data_dir='{data_dir or 'DIR'}').download_and_prepare()\"\n"
            "and pass that directory as `data_dir` (--data_dir)."
        )
    return builder


def _tfds_names():
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)  # the community's list would need network


def _supervised_keys(name, info):
    import tensorflow_datasets as tfds

    keys = info.supervised_keys or ("image", "label")
    features = dict(info.features.items())
    image, label = (features.get(key) if isinstance(key, str) else None for key in keys[:2])
    is_image = isinstance(image, tfds.features.Image) and image.np_dtype == np.uint8
    if not is_image or not isinstance(label, tfds.features.ClassLabel):
        raise ValueError(
            "A data set must have a uint8 `Image` as its input and a `ClassLabel` as its label. "
            f"Received: {name}, with supervised_keys={info.supervised_keys} and features={info.features}"
        )
    return keys[:2]


def _read_tfds(builder, split, keys, size, images, labels, progress):
    """Fills `images` and `labels` from one split, in the order in which it is stored."""
    import keras
    import tensorflow as tf
    import tensorflow_datasets as tfds

    image_key, label_key = keys
    parallel = os.cpu_count()
    # Autotuning grows its buffers with the machine, and caching would hold a second copy of the data.
    options = tf.data.Options()
    options.autotune.enabled = False
    config = tfds.ReadConfig(
        options=options,
        try_autocache=False,
        skip_prefetch=True,
        interleave_cycle_length=1,
        num_parallel_calls_for_decode=parallel,
        num_parallel_calls_for_interleave_files=1,
    )
    dataset = builder.as_dataset(split=split, read_config=config, shuffle_files=False)

    def image_and_label(sample):
        image = sample[image_key]
        return image if size is None else _resize(image, size), sample[label_key]

    dataset = dataset.map(image_and_label, num_parallel_calls=parallel)
    # tf.data reserves memory for a whole batch in advance, so many tiny images are not one batch either.
    batch_size = max(1, min(_READ_BYTES // math.prod(images.shape[1:]), 512))
    dataset = dataset.batch(batch_size).prefetch(1)
    bar = keras.utils.Progbar(len(images), verbose=int(progress), unit_name="image")
    start = 0
    for image_batch, label_batch in dataset.as_numpy_iterator():
        stop = start + len(label_batch)
        images[start:stop] = image_batch
        labels[start:stop] = label_batch
        bar.update(stop)
        start = stop


# Arrays


def _height_and_width(image_size):
    if image_size is None:
        return None
    size = tuple(image_size) if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(
            "`image_size` must be a positive integer, or a pair of them (height, width). "
            f"Received: image_size={image_size}"
        )
    return size


def _resize(images, size):
    import tensorflow as tf

    resized = tf.image.resize(images, size, method="bilinear", antialias=True)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def _take_rows(array, indices):
    rows = aligned_empty((len(indices), *array.shape[1:]), array.dtype)
    # The default mode buffers the output, which is a second copy; the indices are valid in any mode.
    return np.take(array, indices, axis=0, out=rows, mode="clip")
