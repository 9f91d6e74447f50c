"""Trains one small model of each kind under a strategy, and writes what came of it: run by the tests, as a process.

    python train.py STRATEGY FILE KIND...

Three logical CPU devices stand in for three GPUs. Batches of 8 of 44 samples: the last one is of 4.
"""

import json
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import contextlib  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_tkd import Distiller, TriKD, distribution, losses  # noqa: E402

CLASSES, SAMPLES, BATCH = 3, 44, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, 6)).astype("float32")
Y = RNG.integers(0, CLASSES, SAMPLES)
WEIGHTS = RNG.uniform(0.5, 2.0, SAMPLES).astype("float32")
# An image of another class for each.
NEGATIVES = X[[RNG.choice(np.flatnonzero(Y != y)) for y in Y]]
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HIDDEN = {"teacher_layers": "hidden", "student_layers": "hidden"}
LOSSES = {
    "kd": lambda: losses.SoftTargets(4.0),
    "weighted": lambda: losses.SoftTargets(4.0),
    "clipped": lambda: losses.SoftTargets(4.0),
    "float16": lambda: losses.SoftTargets(4.0),
    "tkd_drawn": lambda: losses.TripletDistillation(),
    "tkd_in_batch": lambda: losses.TripletDistillation(miner="semi_hard"),
    "hint": lambda: losses.Hint(**HIDDEN),
    "sp": lambda: losses.SimilarityPreserving(**HIDDEN),
    "rkd": lambda: losses.RelationalDistance(**HIDDEN),
    "crd": lambda: losses.ContrastiveRepresentation(Y, 4, 10, **HIDDEN),
}


def network(seed, width, dtype=None):
    def start(number):
        return keras.initializers.GlorotUniform(number)

    dense = keras.layers.Dense
    inputs = keras.Input((6,))
    hidden = dense(width, "tanh", kernel_initializer=start(seed), kernel_regularizer="l2", name="hidden", dtype=dtype)
    logits = dense(CLASSES, kernel_initializer=start(seed + 1), dtype=dtype)
    return keras.Model(inputs, logits(hidden(inputs)))


def compiled(kind):
    dtype = "mixed_float16" if kind == "float16" else None
    teacher, student = network(1, 8), network(5, 4, dtype)
    model = TriKD(teacher, student, network(9, 4)) if kind == "trikd" else Distiller(teacher, student, LOSSES[kind]())
    clip = 0.3 if kind == "clipped" else None
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9, global_clipnorm=clip), LABEL_LOSS, metrics=["accuracy"])
    return model


def train(kind, strategy):
    keras.utils.set_random_seed(0)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        model = compiled(kind)
    x = X
    if kind == "crd":
        x = {"image": X, "index": np.arange(SAMPLES)}
    if kind == "tkd_drawn":
        x = {"image": X, "negative": NEGATIVES}
    weights = WEIGHTS if kind == "weighted" else None
    history = model.fit(x, Y, BATCH, 3, shuffle=False, sample_weight=weights, validation_data=(x, Y), verbose=0).history
    return model.student.get_weights(), history


def main(name, path, kinds):
    if name == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, 3 * [tf.config.LogicalDeviceConfiguration()])
    # What makes a graph run fast costs more than it saves where each runs a few times.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    strategy = distribution.make_strategy(name)
    arrays, histories = {}, {}
    for kind in kinds:
        weights, histories[kind] = train(kind, strategy)
        arrays |= {f"{kind}/{i}": weight for i, weight in enumerate(weights)}
    np.savez(path, histories=np.array(json.dumps(histories)), **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
