"""Measures the memory of a training run whose images are streamed from disk, as the data set grows 8 times.

python benchmarks/streaming.py --data_dir=DIR --json=streaming.json

Writes two data sets of random images to DIR, unless they are there: 350,000 images of 64x64x3, 4.3 GB in memory, in 32
files, and an eighth of that in 4. On each, in a process of its own, tkd with drawn negatives trains for one pass with a
shuffle window of 15,000 images, then evaluates. The networks are tiny, so that what is measured is the data's.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys

import synthetic

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

SHAPE, CLASSES, BATCH = (64, 64, 3), 10, 512
TRAIN, TEST = 350_000, 1_000
FILES = 32
GROWTH = 8
WINDOW = 15_000


def train(data_dir, name, shuffle_window):
    """Prints the bytes of the data set, those of a window, the steps and the peak of resident bytes of this process."""
    import keras

    from keras_tkd import Distiller, data, losses

    def network():
        layers = [keras.layers.AveragePooling2D(8), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
        return keras.Sequential([keras.Input(SHAPE), *layers, keras.layers.Dense(CLASSES)])

    splits = data.load(name, data_dir, shuffle_window=shuffle_window)
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


def measure(data_dir, name, shuffle_window):
    command = [sys.executable, __file__, f"--data_dir={data_dir}", f"--shuffle_window={shuffle_window}"]
    done = subprocess.run([*command, f"--child={name}"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", required=True, help="folder of prepared tensorflow-datasets, with 0.6 GB free")
    parser.add_argument("--shuffle_window", type=int, default=WINDOW, help="images in memory together")
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        train(arguments.data_dir, arguments.child, arguments.shuffle_window)
        return
    figures = {}
    for name, share in (("small", GROWTH), ("large", 1)):
        # What is written last.
        if not (pathlib.Path(arguments.data_dir) / name / synthetic.VERSION / "dataset_info.json").exists():
            synthetic.write(arguments.data_dir, name, TRAIN // share, TEST, SHAPE, CLASSES, FILES // share)
        figures[name] = measure(arguments.data_dir, name, arguments.shuffle_window)
    small, large = figures["small"], figures["large"]
    figures["data_growth"] = large["data"] / small["data"]
    figures["peak_growth"] = round(large["peak"] / small["peak"], 3)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
