"""A data set that tensorflow-datasets has prepared on disk."""

import difflib
import math
import os

import numpy as np

from keras_tkd.data.arrays import allocate_aligned, check_memory, resize_uint8
from keras_tkd.data.splits import Splits
from keras_tkd.data.streaming import RecordStream
from keras_tkd.utils.progress import Progress

__all__ = ["list_known_names", "load_prepared"]

_LABELS = 4096  # read together
_READ_BYTES = 2**21  # of one batch at most: small beside any data set, whatever the size of its images


def load_prepared(name, data_dir, size, teacher_size, shuffle_window, progress):
    """Loads what tensorflow-datasets has prepared under a name; for the arguments see `Loader` and `load`."""
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
    sizes = [size or (height, width), *([teacher_size] if teacher_size else [])]
    image_shapes = [(*size, channels) for size in sizes]
    counts = [builder.info.splits[split].num_examples for split in ("train", test)]
    # A stream holds two windows at a time.
    check_memory(sum(counts) if shuffle_window is None else 2 * min(shuffle_window, max(counts)), image_shapes, name)
    found = {}
    for split in ("train", test):
        if shuffle_window is None:
            images, labels = _read_tfds(builder, split, (image_key, label_key), image_shapes, progress)
        else:
            images = _stream(name, builder, split, image_key, image_shapes, shuffle_window)
            labels = _read_labels(builder, split, label_key, progress)
        if labels.min() < 0 or labels.max() >= len(class_names):
            raise ValueError(
                f"Labels must be at least 0 and less than the number of classes, {len(class_names)}. "
                f"Received: labels from {labels.min()} to {labels.max()} in the split `{split}` of {name}"
            )
        found[split] = images, labels
    (train, train_labels), (test, test_labels) = found["train"], found[test]
    splits = Splits(name, train[0], train_labels, test[0], test_labels, class_names)
    return splits.with_teacher_images(train[1], test[1]) if teacher_size else splits


def _prepared_builder(name, data_dir):
    import tensorflow_datasets as tfds

    try:
        if tfds.core.naming.parse_builder_name_kwargs(name)[0].namespace:
            raise ValueError("Data sets of a namespace (`huggingface:mnist`) are fetched over the network.")
        builder = tfds.builder(name, data_dir=data_dir)
    # Names are read with Python's own parser, and builders are asserted, imported and called with what they say.
    except Exception as error:
        known = list_known_names()
        own_name = name.replace(":", "/").split("/")[0]
        there = os.path.join(data_dir or tfds.core.constants.DATA_DIR, own_name)
        if own_name in known or (own_name and os.path.isdir(there)):
            raise ValueError(
                "A data set of tensorflow-datasets must have the config and the version that are asked for, and whole "
                f"files. Received: {name}. tensorflow-datasets says: {_shorten(error)}"
            ) from error
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


def list_known_names():
    """Returns the names of the data sets that tensorflow-datasets itself knows."""
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


def _read_tfds(builder, split, keys, image_shapes, progress):
    """Returns a list of one split's images in each shape, and its labels, in the order in which it is stored."""
    image_key, label_key = keys
    count = builder.info.splits[split].num_examples
    arrays, labels = [allocate_aligned((count, *shape)) for shape in image_shapes], np.empty(count, np.int32)

    def images_and_label(sample):
        return tuple(_sized(sample[image_key], shape[:2]) for shape in image_shapes), sample[label_key]

    # tf.data reserves memory for a whole batch in advance, so many tiny images are not one batch either.
    batch_size = max(1, min(_READ_BYTES // sum(map(math.prod, image_shapes)), 512))
    start = 0
    for image_batches, label_batch in _read(builder, split, images_and_label, batch_size, progress):
        stop = start + len(label_batch)
        for array, image_batch in zip(arrays, image_batches, strict=True):
            array[start:stop] = image_batch
        labels[start:stop] = label_batch
        start = stop
    return arrays, labels


def _read_labels(builder, split, label_key, progress):
    """Labels of one split, in the order in which it is stored; no image is decoded."""
    import tensorflow_datasets as tfds

    decoders = tfds.decode.PartialDecoding({label_key: True})
    batches = _read(builder, split, lambda sample: sample[label_key], _LABELS, progress, decoders)
    return np.concatenate([*batches]).astype(np.int32)


def _read(builder, split, function, batch_size, progress, decoders=None):
    """Yields what `function` makes of the samples of one split, in their order, in batches."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

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
    dataset = builder.as_dataset(split=split, read_config=config, shuffle_files=False, decoders=decoders)
    function = tf.autograph.experimental.do_not_convert(function)
    dataset = dataset.map(function, num_parallel_calls=parallel).batch(batch_size).prefetch(1)
    count = builder.info.splits[split].num_examples
    bar = Progress(f"Reading {count:,} images of {builder.name}, {split}", 0, count, shown=progress)
    try:
        for start, batch in zip(range(0, count, batch_size), dataset.as_numpy_iterator(), strict=True):
            yield batch
            bar.report(min(start + batch_size, count))
    except (tf.errors.OpError, ValueError) as error:
        raise ValueError(
            f"A prepared data set must have whole files: {count:,} samples in `{split}`. Received: {builder.name} in "
            f"{builder.data_path}. Reading says: {_shorten(error)}. Prepare it anew"
        ) from error


def _shorten(error):
    """Returns the first line of an error that is somebody else's."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _stream(name, builder, split, image_key, image_shapes, shuffle_window):
    """Returns a list of one split's stream in each shape."""
    info = builder.info
    if info.file_format.value != "tfrecord":
        raise ValueError(
            "With `shuffle_window` (--shuffle_window), images are read from TFRecord files. "
            f"Received: {name}, prepared as {info.file_format.value}. Prepare it as tfrecord, or load it without"
        )

    def decode(record):
        return info.features.deserialize_example(record)[image_key]

    split = info.splits[split]
    stored = split.filepaths, split.shard_lengths, decode
    return [RecordStream(*stored, image_shape, shuffle_window) for image_shape in image_shapes]


def _sized(image, size):
    return image if image.shape[:2] == size else resize_uint8(image, size)
