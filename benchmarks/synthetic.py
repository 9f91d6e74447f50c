"""Writes a data set of random images, prepared for tensorflow-datasets: `keras_tkd.data.load(name, data_dir)` reads it.

python benchmarks/synthetic.py --data_dir=DIR --name=noise --train=350000 --test=2000 --size=64 --shards=32
"""

import argparse
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

VERSION = "1.0.0"
BLOCK = 4  # pixels, of one colour: what PNG makes small
TOGETHER = 1024  # images made at a time


def write(data_dir, name, train, test, shape=(32, 32, 3), classes=10, shards=8, seed=0):
    """Writes the splits `train` and `test` of a data set of random images, PNG in TFRecord files.

    Each image is a grid of random colours, brighter the higher its class, so that there is a little to learn. Classes
    are drawn independently: every run of samples has all of them.

    Args:
        data_dir: folder of prepared data sets.
        name: the data set's name there, in lower case with `_`; what it held under that name is written over.
        train, test: numbers of images.
        shape: `(height, width, channels)` of an image: uint8, `height * width * channels` bytes in memory.
        classes: number of classes.
        shards: number of files of `train`; `test` has one.
        seed: of everything random.

    Returns:
        Path of the folder written.
    """
    import numpy as np
    import tensorflow as tf
    import tensorflow_datasets as tfds

    folder = pathlib.Path(data_dir) / name / VERSION
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    names = [f"class{number}" for number in range(classes)]
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=shape, encoding_format="png"),
            "label": tfds.features.ClassLabel(names=names),
        }
    )
    rng = np.random.default_rng(seed)
    encode = tf.function(lambda images: tf.map_fn(tf.io.encode_png, images, fn_output_signature=tf.string))

    def write_file(path, count):
        with tf.io.TFRecordWriter(str(path)) as file:
            for start in range(0, count, TOGETHER):
                labels = rng.integers(0, classes, min(TOGETHER, count - start))
                for image, label in zip(encode(make_images(rng, labels, shape, classes)).numpy(), labels, strict=True):
                    file.write(features.serialize_example({"image": image, "label": label}))
        return path.stat().st_size

    splits = []
    for split, count, files in (("train", train, shards), ("test", test, 1)):
        lengths = [count * (number + 1) // files - count * number // files for number in range(files)]
        paths = [folder / f"{name}-{split}.tfrecord-{number:05}-of-{files:05}" for number in range(files)]
        size = sum(map(write_file, paths, lengths))
        splits.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder),
        features=features,
        split_infos=splits,
        supervised_keys=("image", "label"),
        description="Random images.",
    )
    return folder


def make_images(rng, labels, shape, classes):
    """Makes random images of the classes `labels`, uint8 `(len(labels), *shape)`."""
    import numpy as np

    height, width, channels = shape
    grid = rng.integers(0, 192, (len(labels), -(-height // BLOCK), -(-width // BLOCK), channels), dtype="uint8")
    grid += (labels * 63 // max(classes - 1, 1)).astype("uint8")[:, None, None, None]
    return np.repeat(np.repeat(grid, BLOCK, axis=1), BLOCK, axis=2)[:, :height, :width]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder of prepared tensorflow-datasets")
    parser.add_argument("--name", default="noise", help="the data set's name in it")
    parser.add_argument("--train", type=int, default=50_000, help="training images")
    parser.add_argument("--test", type=int, default=2_000, help="test images")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels")
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--shards", type=int, default=8, help="files of the training images")
    arguments = parser.parse_args()
    shape = (arguments.size, arguments.size, arguments.channels)
    print(
        write(
            arguments.data_dir,
            arguments.name,
            arguments.train,
            arguments.test,
            shape,
            arguments.classes,
            arguments.shards,
        )
    )


if __name__ == "__main__":
    main()
