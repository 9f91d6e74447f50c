"""Peaks of memory, each in a process of its own; prints bytes as JSON.

python benchmarks/memory.py training_added data
python benchmarks/memory.py SimilarityPreserving RelationalDistance RelationalAngle

- `training_added`: the peak of a training run less that of the same run on 1,000 images: CIFAR-10 loaded (without
  `--data_dir`, random images of its size, prepared in the same form), 30 steps of tkd with drawn negatives, 5 steps of
  validation. `data`: the bytes of the images.
- A loss over a whole batch, by its class: what value and gradient on 512 embeddings of 128 numbers add to the peak of
  resident bytes, less what they add on 8 (code and buffers of TensorFlow).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile

import synthetic

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def train(name, data_dir, samples):
    """Trains for 30 steps; returns the bytes of the data in memory and the peak of resident bytes of this process."""
    import keras
    import tensorflow_datasets as tfds

    from keras_tkd import Distiller, data, losses, models

    if samples:
        keep_first(tfds, samples)
    splits = data.load(name, data_dir)
    teacher, student = (
        models.build(name, splits.image_shape, splits.num_classes) for name in ("tkd_teacher", "tkd_student")
    )
    distiller = Distiller(teacher, student, losses.TripletDistillation(), [2.0])
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    held_out = data.triplet_dataset(splits.test_images, splits.test_labels, 128, seed=0, training=False)
    batches = data.triplet_dataset(splits.train_images, splits.train_labels, 128, seed=0)
    steps = min(30, int(batches.cardinality()))
    distiller.fit(
        batches, epochs=30 // steps, steps_per_epoch=steps, validation_data=held_out, validation_steps=5, verbose=0
    )
    return {"data": splits.train_images.nbytes + splits.test_images.nbytes, "peak": peak()}


def keep_first(tfds, samples):
    """Makes every split of every data set end after its first samples."""
    num_examples = property(lambda split: samples)
    as_dataset = tfds.core.DatasetBuilder.as_dataset
    tfds.core.SplitInfo.num_examples = num_examples
    tfds.core.DatasetBuilder.as_dataset = lambda *args, **kwargs: as_dataset(*args, **kwargs).take(samples)


def evaluate(name, batch, size=128):
    """Returns the bytes that value and gradient of a loss add to the peak of this process."""
    import numpy as np
    import tensorflow as tf

    from keras_tkd import losses

    loss = getattr(losses, name)()
    teacher, student = (tf.constant(x, tf.float32) for x in np.random.default_rng(0).normal(size=(2, batch, size)))

    @tf.function
    def run(teacher, student):
        with tf.GradientTape() as tape:
            tape.watch(student)
            value = loss(teacher, student)
        return value, tape.gradient(value, student)

    before = peak()
    for _ in range(5):
        run(teacher, student)[1].numpy()
    return peak() - before


def in_process(function, *arguments):
    """Calls a function of this file in a process of its own, and returns its result."""
    call = json.dumps([function.__name__, *arguments])
    done = subprocess.run([sys.executable, __file__, f"--call={call}"], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(tasks, data_dir, batch):
    """Measures tasks: dict from a task to its bytes."""
    measured = {}
    if {"training_added", "data"} & set(tasks):
        measured = measure_training("cifar10", data_dir) if data_dir else measure_synthetic_training()
    for task in tasks:
        if task not in measured:
            measured[task] = in_process(evaluate, task, batch) - in_process(evaluate, task, 8)
    return {task: measured[task] for task in tasks}


def measure_training(name, data_dir):
    whole, small = (in_process(train, name, data_dir, samples) for samples in (0, 1_000))
    return {"training_added": whole["peak"] - small["peak"], "data": whole["data"]}


def measure_synthetic_training():
    with tempfile.TemporaryDirectory() as data_dir:
        in_process(write, data_dir)
        return measure_training("noise", data_dir)


def write(data_dir):
    """Writes a data set of CIFAR-10's size."""
    return str(synthetic.write(data_dir, "noise", train=50_000, test=10_000))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", help="training_added, data, and classes of keras_tkd.losses")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--batch", type=int, default=512, help="embeddings that a loss is given")
    parser.add_argument("--data_dir", help="folder of prepared tensorflow-datasets with cifar10")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.call:
        name, *given = json.loads(arguments.call)
        print(json.dumps({"train": train, "evaluate": evaluate, "write": write}[name](*given)))
        return
    rounds = [measure(arguments.tasks, arguments.data_dir, arguments.batch) for _ in range(arguments.rounds)]
    print(json.dumps({task: [measured[task] for measured in rounds] for task in arguments.tasks}))


if __name__ == "__main__":
    main()
