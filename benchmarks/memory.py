"""Memory of a training run, over the bytes of its data: peak of a run less the peak of the same run on 1,000 images.

python benchmarks/memory.py --data_dir=DIR

Each run is a process of its own: CIFAR-10 loaded from tensorflow-datasets, 30 steps of tkd with drawn negatives, 5
steps of validation. The small run reads 1,000 images of the same files.
"""

import argparse
import json
import os
import resource
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def train(data_dir, samples):
    """Prints the bytes of the data in memory and the peak of resident bytes of this process."""
    import keras
    import tensorflow_datasets as tfds

    from keras_tkd import Distiller, data, losses, models

    if samples:
        keep_first(tfds, samples)
    splits = data.load("cifar10", data_dir)
    teacher, student = (
        models.build(name, splits.image_shape, splits.classes) for name in ("tkd_teacher", "tkd_student")
    )
    distiller = Distiller(teacher, student, losses.TripletDistillation(), [2.0])
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    held_out = data.triplet_dataset(splits.test_images, splits.test_labels, 128, seed=0, training=False)
    batches = data.triplet_dataset(splits.train_images, splits.train_labels, 128, seed=0)
    steps = min(30, int(batches.cardinality()))
    distiller.fit(
        batches, epochs=30 // steps, steps_per_epoch=steps, validation_data=held_out, validation_steps=5, verbose=0
    )
    size = splits.train_images.nbytes + splits.test_images.nbytes
    print(json.dumps({"data": size, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))


def keep_first(tfds, samples):
    """Makes every split of every data set end after its first samples."""
    num_examples = property(lambda split: samples)
    as_dataset = tfds.core.DatasetBuilder.as_dataset
    tfds.core.SplitInfo.num_examples = num_examples
    tfds.core.DatasetBuilder.as_dataset = lambda *args, **kwargs: as_dataset(*args, **kwargs).take(samples)


def measure(data_dir, samples):
    command = [sys.executable, __file__, f"--data_dir={data_dir}", f"--child={samples}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True, help="folder of prepared tensorflow-datasets")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child is not None:
        train(arguments.data_dir, arguments.child)
        return
    whole, small = measure(arguments.data_dir, 0), measure(arguments.data_dir, 1_000)
    figures = {"whole": whole, "small": small, "memory_over_data": (whole["peak"] - small["peak"]) / whole["data"]}
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
