"""What a step of distillation costs, as ratios: the paper's networks, batches of 128 images of CIFAR-10's size.

python benchmarks/steps.py --json=steps.json
"""

import argparse
import json
import os
import platform
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from timing import alternate, median_ratio  # noqa: E402

from keras_tkd import Distiller, TeacherEnsemble, TriKD, data, losses, models  # noqa: E402

BATCH = 128
STEPS = 100
SHAPE = (32, 32, 3)


def dataset(negatives, batch_size=BATCH):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (STEPS * batch_size, *SHAPE), dtype="uint8")
    labels = rng.integers(0, 10, STEPS * batch_size)
    return data.triplet_dataset(images, labels, batch_size, seed=0, negatives=negatives)


def compiled(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9), loss, metrics=["accuracy"])
    return model


def student():
    return models.build("tkd_student", SHAPE, 10)


def teacher_of_paper():
    return models.build("tkd_teacher", SHAPE, 10)


def fit(model, batches):
    return lambda: model.fit(batches, verbose=0, shuffle=False)


def tasks():
    """One epoch of each: 100 steps."""
    teacher, anchor = teacher_of_paper(), student()
    plain, triplets = dataset(None), dataset("other_class")
    images_only = plain.map(lambda x, y: (x["image"], y))
    images_of_two = dataset(None, 2 * BATCH).map(lambda x, y: (x["image"], y))

    def forward(model):
        run = tf.function(lambda images: model(images, training=False))

        def task():
            for batch, _ in plain:
                run(batch["image"])

        return task

    def distiller(loss, weight):
        return compiled(Distiller(teacher, student(), loss, [weight]))

    return {
        "student_fit": fit(compiled(student()), images_only),
        "student_fit_256": fit(compiled(student()), images_of_two),
        "teacher_forward": forward(teacher),
        "teacher_fit": fit(compiled(teacher_of_paper()), images_only),
        "anchor_forward": forward(anchor),
        "trikd": fit(compiled(TriKD(teacher_of_paper(), student(), anchor)), plain),
        "kd_ensemble_of_2": fit(
            compiled(
                Distiller(
                    TeacherEnsemble([teacher, teacher_of_paper()], average="losses"),
                    student(),
                    losses.SoftTargets(),
                    [0.9],
                )
            ),
            plain,
        ),
        "kd": fit(distiller(losses.SoftTargets(), 0.9), plain),
        "logits": fit(distiller(losses.LogitRegression(), 0.1), plain),
        "tkd_in_batch": fit(distiller(losses.TripletDistillation(), 2.0), plain),
        "tkd_drawn": fit(distiller(losses.TripletDistillation(), 2.0), triplets),
    }


def ratios(seconds):
    def plus(*names):
        return [sum(parts) for parts in zip(*(seconds[name] for name in names), strict=True)]

    return {
        "kd_over_fit_plus_forward": median_ratio(seconds["kd"], plus("student_fit", "teacher_forward")),
        "logits_over_kd": median_ratio(seconds["logits"], seconds["kd"]),
        "tkd_in_batch_over_kd": median_ratio(seconds["tkd_in_batch"], seconds["kd"]),
        "tkd_drawn_over_fit_of_two_plus_forward": median_ratio(
            seconds["tkd_drawn"], plus("student_fit_256", "teacher_forward")
        ),
        "trikd_over_both_fits_plus_forward": median_ratio(
            seconds["trikd"], plus("teacher_fit", "student_fit", "anchor_forward")
        ),
        "kd_ensemble_of_2_over_fit_plus_forwards": median_ratio(
            seconds["kd_ensemble_of_2"], plus("student_fit", "teacher_forward", "teacher_forward")
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--rounds", type=int, default=7, help="counted rounds, after one to warm up")
    arguments = parser.parse_args()
    seconds = alternate(tasks(), arguments.rounds)
    figures = {
        "ratios": {name: round(value, 3) for name, value in ratios(seconds).items()},
        "milliseconds_per_step": {k: round(1000 * statistics.median(v) / STEPS, 2) for k, v in seconds.items()},
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
