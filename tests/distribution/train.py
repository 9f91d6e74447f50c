"""Trains one small model of each kind under a strategy, and writes what came of it: run by the tests, as a process.

    python train.py STRATEGY FILE KIND...

Three logical CPU devices stand in for three GPUs. Batches of 8 of 52 samples: the last one is of 4, none of them the
third replica's.
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
import plain_keras  # noqa: E402
import tensorflow as tf  # noqa: E402

from keras_tkd import Distiller, TeacherEnsemble, TriKD, distribution, losses  # noqa: E402

CLASSES, SAMPLES, BATCH = 3, 52, 8
RNG = np.random.default_rng(0)
X = RNG.normal(size=(SAMPLES, 6)).astype("float32")
Y = RNG.integers(0, CLASSES, SAMPLES)
WEIGHTS = RNG.uniform(0.5, 2.0, SAMPLES).astype("float32")
# An image of another class for each.
NEGATIVES = X[[RNG.choice(np.flatnonzero(Y != y)) for y in Y]]
# What a cache has of the teacher's layer.
OF_TEACHER = RNG.normal(size=(SAMPLES, 8)).astype("float32")
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HIDDEN = {"teacher_layers": "hidden", "student_layers": "hidden"}
LOSSES = {
    "kd": lambda: losses.SoftTargets(4.0),
    "weighted": lambda: losses.SoftTargets(4.0),
    "clipped": lambda: losses.SoftTargets(4.0),
    "float16": lambda: losses.SoftTargets(4.0),
    "bfloat16": lambda: losses.SoftTargets(4.0),
    "kd_local": lambda: losses.SoftTargets(4.0),
    "cached": lambda: losses.SimilarityPreserving(**HIDDEN),
    "ensemble": lambda: losses.SoftTargets(4.0),
    # Keras divides the mean by the number of replicas, and neither a sum nor one number.
    "masked": lambda: [
        losses.SoftTargets(4.0),
        losses.LogitRegression(reduction="sum"),
        keras.distillation.LogitsDistillation(loss=keras.losses.KLDivergence()),
        keras.distillation.FeatureDistillation(lambda y_true, y_pred: keras.ops.mean(keras.ops.abs(y_true - y_pred))),
    ],
    "tkd_drawn": lambda: losses.TripletDistillation(),
    "tkd_in_batch": lambda: losses.TripletDistillation(miner="semi_hard"),
    "hint": lambda: losses.Hint(**HIDDEN),
    "sp": lambda: losses.SimilarityPreserving(**HIDDEN),
    "rkd": lambda: losses.RelationalDistance(**HIDDEN),
    "crd": lambda: losses.ContrastiveRepresentation(Y, 4, 10, **HIDDEN),
}


PRECISIONS = {"float16": "mixed_float16", "bfloat16": "mixed_bfloat16"}


def network(seed, width, dtype=None, masked=False):
    def start(number):
        return keras.initializers.GlorotUniform(number)

    dense = keras.layers.Dense
    inputs = keras.Input((6,))
    hidden = dense(width, "tanh", kernel_initializer=start(seed), kernel_regularizer="l2", name="hidden", dtype=dtype)
    logits = dense(CLASSES, kernel_initializer=start(seed + 1), dtype=dtype)
    return keras.Model(inputs, logits(hidden(keras.layers.Masking()(inputs) if masked else inputs)))


def compiled(kind):
    teacher, student = network(1, 8), network(5, 4, PRECISIONS.get(kind), kind == "masked")
    if kind == "cached":
        teacher = None
    if kind == "ensemble":
        teacher = TeacherEnsemble([teacher, network(7, 8)], average="losses", teacher_weights="confidence")
    if kind in ("trikd", "dml"):
        model = TriKD(teacher, student, network(9, 4) if kind == "trikd" else None)
    else:
        gather = "local" if kind == "kd_local" else "global"
        model = Distiller(teacher, student, LOSSES[kind](), gather=gather)
    clip = 0.3 if kind == "clipped" else None
    label_loss, rate = LABEL_LOSS, 0.05
    if kind == "masked":
        # Of a batch of eight, a sum moves as far as a mean.
        label_loss, rate = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"), 0.05 / 8
    model.compile(keras.optimizers.SGD(rate, momentum=0.9, global_clipnorm=clip), label_loss, metrics=["accuracy"])
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
    if kind == "cached":
        x = {"image": X, "teacher": {"hidden": OF_TEACHER}}
    if kind == "masked":
        x = np.where(np.arange(SAMPLES)[:, None] % 5, X, np.float32(0))
    weights = WEIGHTS if kind in ("weighted", "kd_local") else None
    y = Y.astype("uint8") if kind == "bfloat16" else Y
    history = model.fit(x, y, BATCH, 3, shuffle=False, sample_weight=weights, validation_data=(x, Y), verbose=0).history
    arrays = {f"{kind}/{i}": weight for i, weight in enumerate(model.student.get_weights())}
    if kind in ("weighted", "kd"):
        arrays[f"predicted {kind}"] = model.predict(X, BATCH, verbose=0)
    return arrays, history


def stop_on_an_image(strategy):
    """What a fit says of a batch with one image, of one worker, that is no number."""
    with strategy.scope():
        model = compiled("kd")
    x = X[:BATCH].copy()
    x[5, 0] = np.nan
    try:
        model.fit(x, Y[:BATCH], BATCH, verbose=0)
    except FloatingPointError as error:
        return str(error)
    return None


def fit_in_any_order(strategy):
    """Weights, one of each row, after an epoch that `fit` shuffles, where nobody has set a seed."""
    rows = np.eye(SAMPLES)
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((SAMPLES,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
        )
        model.compile(keras.optimizers.SGD(1.0), lambda y, outputs: outputs)
    model.fit(rows, rows[:, :1], 4, verbose=0)
    return model.get_weights()[0][:, 0].tolist()


def fit_plain_keras(strategy):
    """What `fit` of a plain model says under the workers' strategy: with a build before the first step, and without."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
    said = []
    for _ in range(2):
        try:
            model.fit(X[:8], Y[:8], 8, verbose=0)
            said.append(None)
        except (ValueError, RuntimeError, tf.errors.OpError) as error:
            said.append(f"{type(error).__name__}: {error}")
        # Without it, the second of the two causes shows.
        model._maybe_symbolic_build = lambda iterator=None, data_batch=None: None
    return said


def main(name, path, kinds):
    if name == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, 3 * [tf.config.LogicalDeviceConfiguration()])
    # What makes a graph run fast costs more than it saves where each runs a few times.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    arrays, about = {}, {"histories": {}}
    strategy = distribution.make_strategy(name)
    # Of two workers alone: more of them would find the same.
    if name == "multi_worker" and strategy.num_replicas_in_sync == 2:
        about["in any order"] = fit_in_any_order(strategy)
        with plain_keras.unmended():
            about["plain"] = fit_plain_keras(strategy)
        about["stopped"] = stop_on_an_image(strategy)
    for kind in kinds:
        made, about["histories"][kind] = train(kind, strategy)
        arrays |= made
    np.savez(path, about=np.array(json.dumps(about)), **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
