"""Pairs of (image, negative) per second that `triplet_dataset` delivers, from uint8 arrays of CIFAR-10's size.

python benchmarks/pipeline.py
"""

import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np  # noqa: E402

from keras_tkd import data  # noqa: E402

SAMPLES = 50_000


def pairs_per_second(batches):
    began = time.perf_counter()
    for _ in batches:
        pass
    return SAMPLES / (time.perf_counter() - began)


def main():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (SAMPLES, 32, 32, 3), dtype="uint8")
    labels = rng.integers(0, 10, SAMPLES)
    figures = {}
    for name, augment in (("plain", None), ("crop_flip", data.crop_and_flip)):
        batches = data.triplet_dataset(images, labels, 128, seed=0, augment=augment)
        passes = [pairs_per_second(batches) for _ in range(8)][1:]
        figures[name] = {"median": round(statistics.median(passes)), "passes": [round(p) for p in passes]}
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
