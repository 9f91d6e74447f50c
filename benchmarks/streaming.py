"""Measures the memory of a training run whose images are streamed from disk, as the data set grows 8 times.

python benchmarks/streaming.py --data_dir=DIR --json=streaming.json
python benchmarks/streaming.py --data_dir=DIR --kind=folder --shuffle_window=5000

Writes two data sets of random images to DIR, unless they are there: 350,000 images of 64x64x3, 4.3 GB in memory, in 32
TFRecord files, and an eighth of that in 4; or, as a folder, 80,000 JPEG files in 10 class folders, 1.0 GB in memory,
and an eighth of that. On each, in a process of its own, tkd with drawn negatives trains for one pass with a shuffle
window of 15,000 images, then evaluates. The networks are tiny, so that what is measured is the data's.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys

import numpy as np
import synthetic

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

SHAPE, CLASSES, BATCH = (64, 64, 3), 10, 512
TRAIN, TEST = 350_000, 1_000
FILES = 32
IN_FOLDER = 80_000  # files for training, of a folder
GROWTH = 8
WINDOW = 15_000


def write_records(data_dir, name, share):
    """Writes a data set of tensorflow-datasets, unless it is there; returns what `data.load` takes."""
    # What is written last.
    if not (pathlib.Path(data_dir) / name / synthetic.VERSION / "dataset_info.json").exists():
        synthetic.write(data_dir, name, TRAIN // share, TEST, SHAPE, CLASSES, FILES // share)
    return [name, data_dir]


def write_folder(data_dir, name, share):
    """Writes a folder of JPEG files in class folders, unless it is there; returns what `data.load` takes."""
    import tensorflow as tf

    folder = pathlib.Path(data_dir) / f"{name}_folder"
    written = folder / ".written"
    for part, count in (("train", IN_FOLDER // share), ("test", TEST)):
        # Random bytes, smoothed as pixels of photographs are.
        small = np.random.default_rng(0).integers(0, 256, (count, SHAPE[0] // 4, SHAPE[1] // 4, 3), np.uint8)
        for number in range(0 if written.exists() else count):
            path = folder / part / f"{number % CLASSES}" / f"{number:06d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = small[number].repeat(4, 0).repeat(4, 1)
            path.write_bytes(tf.io.encode_jpeg(image).numpy())
    written.touch()
    return [str(folder)]


KINDS = {"records": write_records, "folder": write_folder}


def train(named, shuffle_window):
    """Prints the bytes of the data set, those of a window, the steps and the peak of resident bytes of this process."""
    import keras

    from keras_tkd import Distiller, data, losses

    def network():
        layers = [keras.layers.AveragePooling2D(8), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
        return keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Dense(CLASSES)])

    splits = data.load(*named, shuffle_window=shuffle_window)
    train_images, test_images = splits.train_images, splits.test_images
    distiller = Distiller(network(), network(), losses.TripletDistillation(), [2.0])
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = data.triplet_dataset(train_images, splits.train_labels, BATCH, seed=0)
    held_out = data.triplet_dataset(test_images, splits.test_labels, BATCH, seed=0, training=False)
    loaded = peak()
    distiller.fit(batches, validation_data=held_out, verbose=0, shuffle=False)
    image = SHAPE[0] * SHAPE[1] * SHAPE[2]
    figures = {
        "images": len(train_images),
        "data": len(train_images) * image,
        "windows": train_images.window_count,
        "window": train_images.window_size * image,
        "steps": int(batches.cardinality()),
        "peak_before_training": loaded,
        "peak": peak(),
    }
    print(json.dumps(figures))


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(arguments, named):
    command = [sys.executable, __file__, f"--data_dir={arguments.data_dir}"]
    command += [f"--shuffle_window={arguments.shuffle_window}", f"--child={json.dumps(named)}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder that the data sets are written to, with 0.6 GB free")
    parser.add_argument("--kind", default="records", choices=KINDS, help="how images are stored")
    parser.add_argument("--shuffle_window", type=int, default=WINDOW, help="images in memory together")
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        train(json.loads(arguments.child), arguments.shuffle_window)
        return
    figures = {}
    for name, share in (("small", GROWTH), ("large", 1)):
        named = KINDS[arguments.kind](arguments.data_dir, name, share)
        figures[name] = measure(arguments, named)
    small, large = figures["small"], figures["large"]
    figures["data_growth"] = large["data"] / small["data"]
    figures["peak_growth"] = round(large["peak"] / small["peak"], 3)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
