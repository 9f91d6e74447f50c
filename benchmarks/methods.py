"""What a step of each method costs, over a step of kd: the paper's networks, batches of 128 images of CIFAR-10's size.

python benchmarks/methods.py --json=methods.json

All methods run in turn, the teacher live, negatives from the batch; a ratio is the median of the ratios of the rounds.
"""

import argparse
import json
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402
from steps import SHAPE, compiled, fit, student  # noqa: E402
from timing import alternate, median_ratio  # noqa: E402

from keras_tkd import Distiller, data, models  # noqa: E402
from keras_tkd.methods import METHODS, make_losses  # noqa: E402

BATCH = 128
STEPS = 40
# As many as CIFAR-10 has for training: crd keeps something of each.
SAMPLES = 50_000
WITH_TRAINED_TEACHER = [name for name, method in METHODS.items() if method.terms and not method.online]


def tasks(methods):
    """One epoch of each: 40 steps."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS * BATCH, *SHAPE), dtype="uint8")
    labels = rng.integers(0, 10, SAMPLES)
    batches = data.triplet_dataset(images, labels[: len(images)], BATCH, seed=0, negatives=None)
    teacher = models.build("tkd_teacher", SHAPE, 10)

    def distiller(method):
        losses, weights = make_losses(method, labels=labels)
        # Weights that move nothing: what is measured is work.
        return compiled(Distiller(teacher, student(), losses, [1e-6 * weight for weight in weights]))

    return {method: fit(distiller(method), batches) for method in methods}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one to warm up")
    parser.add_argument("--methods", nargs="+", default=WITH_TRAINED_TEACHER)
    arguments = parser.parse_args()
    seconds = alternate(tasks(["kd", *(name for name in arguments.methods if name != "kd")]), arguments.rounds)
    figures = {
        "over_kd": {name: round(median_ratio(own, seconds["kd"]), 2) for name, own in seconds.items()},
        "milliseconds_per_step": {k: round(1000 * statistics.median(v) / STEPS, 1) for k, v in seconds.items()},
        "rounds": arguments.rounds,
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
