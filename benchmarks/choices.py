"""Measures settings that a run has fixed: steps per execution, XLA, tf.data's autotuner.

python benchmarks/choices.py --json=choices.json

The same training under each value of a setting, in turn. `wall` and `processor` are medians over rounds of the ratios
to the first value, of seconds by the clock and of seconds that the process computed on all cores together, which other
work on the machine disturbs less; `seconds` are those by the clock, round by round.
"""

import argparse
import json
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from timing import Task, alternate_by_all_clocks  # noqa: E402

from keras_tkd import Distiller, data, losses, models  # noqa: E402

# Student, teacher, shape of an image, batch, steps of an epoch, epochs of a run: as on digits, and as on CIFAR-10.
SIZES = {
    "digits": ("digits_student", "digits_teacher", (8, 8, 1), 64, 23, 5),
    "cifar10": ("tkd_student", "tkd_teacher", (32, 32, 3), 128, 100, 1),
}


def fit_baseline(size, options=None, **arguments):
    name, _, shape, batch, steps, epochs = SIZES[size]
    batches = data.image_dataset(*make_arrays(shape, steps * batch), batch, seed=0)
    return fit(
        models.build(name, shape, 10),
        batches.with_options(options or tf.data.Options()),
        steps * batch,
        epochs,
        arguments,
    )


def fit_kd(size, **arguments):
    name, teacher, shape, batch, steps, epochs = SIZES[size]
    distiller = Distiller(models.build(teacher, shape, 10), models.build(name, shape, 10), losses.SoftTargets(), [0.9])
    batches = data.triplet_dataset(*make_arrays(shape, steps * batch), batch, seed=0, negatives=None)
    return fit(distiller, batches, steps * batch, epochs, arguments)


def make_arrays(shape, samples):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (samples, *shape), dtype="uint8"), rng.integers(0, 10, samples)


def fit(model, batches, images, epochs, arguments):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9), loss, metrics=["accuracy"], **arguments)
    return Task(lambda: model.fit(batches, epochs=epochs, verbose=0, shuffle=False), epochs * images)


def make_options(autotune):
    options = tf.data.Options()
    options.autotune.enabled = autotune
    return options


STEPS = (1, 4, 8, 16, 32)
CHOICES = {
    "steps_per_execution_digits": lambda: {n: fit_baseline("digits", steps_per_execution=n) for n in STEPS},
    "steps_per_execution_digits_kd": lambda: {n: fit_kd("digits", steps_per_execution=n) for n in STEPS},
    "steps_per_execution_cifar10": lambda: {n: fit_baseline("cifar10", steps_per_execution=n) for n in STEPS},
    "xla": lambda: {on: fit_baseline("cifar10", jit_compile=on) for on in (False, True)},
    "autotune": lambda: {on: fit_baseline("cifar10", make_options(on)) for on in (False, True)},
}


def measure(tasks, rounds):
    measured = alternate_by_all_clocks(tasks, rounds)

    def over_first(own, first):
        return round(statistics.median(a / b for a, b in zip(own, first, strict=True)), 3)

    return {
        str(value): {
            **{clock: over_first(of[value], next(iter(of.values()))) for clock, of in measured.items()},
            "seconds": [round(own * task.images / 128_000, 2) for own in measured["wall"][value]],
        }
        for value, task in tasks.items()
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one to warm up")
    parser.add_argument("--only", nargs="+", default=list(CHOICES), choices=list(CHOICES))
    arguments = parser.parse_args()
    figures = {}
    for name in arguments.only:
        figures[name] = measure(CHOICES[name](), arguments.rounds)
        print(json.dumps({name: figures[name]}), flush=True)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
