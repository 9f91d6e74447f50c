"""What a teacher cache saves and costs, as ratios: the paper's networks, batches of 128 images of CIFAR-10's size.

python benchmarks/cache.py --json=cache.json
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from steps import BATCH, SHAPE, STEPS, compiled, fit, student  # noqa: E402
from timing import alternate, median_ratio  # noqa: E402

from keras_tkd import Distiller, TeacherCache, data, losses, models  # noqa: E402


def tasks(folder):
    """One pass over the images of each: 100 steps of training, or the teacher's answers to all images."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS * BATCH, *SHAPE), dtype="uint8")
    labels = rng.integers(0, 10, STEPS * BATCH)
    teacher = models.build("tkd_teacher", SHAPE, 10)
    forward = tf.function(lambda batch: teacher(batch, training=False))
    kd, sp = [losses.SoftTargets()], [losses.SimilarityPreserving("features", "features")]
    batches = data.triplet_dataset(images, labels, BATCH, seed=0, negatives=None)

    def teacher_forward():
        for batch in data.view_batches(images, 256, seed=0):
            forward(batch)

    def build(name, of):
        shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
        return TeacherCache.build(teacher, images, f"{folder}/{name}", losses=of, progress=False)

    def trained(with_teacher, of, weight, dataset):
        return fit(compiled(Distiller(with_teacher, student(), of, [weight])), dataset)

    return {
        "student_fit": fit(compiled(student()), batches.map(lambda x, y: (x["image"], y))),
        "kd_live": trained(teacher, kd, 0.9, batches),
        "kd_cached": trained(None, kd, 0.9, build("kd", kd).attach(batches)),
        "sp_live": trained(teacher, sp, 3000.0, batches),
        "sp_cached": trained(None, sp, 3000.0, build("sp", sp).attach(batches)),
        "teacher_forward": teacher_forward,
        "build_logits": lambda: build("logits", kd),
        "build_features": lambda: build("features", sp),
    }


RATIOS = {
    "kd_cached_over_fit": ("kd_cached", "student_fit"),
    "kd_live_over_cached": ("kd_live", "kd_cached"),
    "sp_cached_over_kd_cached": ("sp_cached", "kd_cached"),
    "sp_live_over_cached": ("sp_live", "sp_cached"),
    "cache_build_over_forward": ("build_logits", "teacher_forward"),
    "cache_build_features_over_forward": ("build_features", "teacher_forward"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one to warm up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds = alternate(tasks(folder), arguments.rounds)
    figures = {
        "ratios": {name: round(median_ratio(seconds[a], seconds[b]), 3) for name, (a, b) in RATIOS.items()},
        "images_per_second": {k: round(STEPS * BATCH / statistics.median(v)) for k, v in seconds.items()},
        "rounds": arguments.rounds,
        "versions": {"keras": keras.__version__, "tensorflow": tf.__version__, "python": platform.python_version()},
        "cpus": os.cpu_count(),
    }
    print(json.dumps(figures, indent=2))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
