"""Training on several devices and in several processes is training on one: weights, metrics and validation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TriKD
from keras_tkd.losses import SoftTargets

from .conftest import KINDS, TOLERANCE

WHERE = {"mirrored": "mirrored", "multi_worker": "worker 0", "four workers": "of four 0"}


@pytest.mark.parametrize(("where", "kind"), [(where, kind) for where in WHERE for kind in KINDS[where]])
def test_several_train_as_one(results, where, kind):
    (one, about_one), (several, about_several) = results["none"], results[WHERE[where]]
    names = [name for name in one if name.startswith(f"{kind}/")]
    assert len(names) == 4
    for name in names:
        np.testing.assert_allclose(several[name], one[name], rtol=0, atol=TOLERANCE[kind], err_msg=name)
    one_history, several_history = about_one["histories"][kind], about_several["histories"][kind]
    assert set(several_history) == set(one_history)
    rounded = kind in ("float16", "bfloat16")
    for metric, values in one_history.items():
        # One image of 52 may change sides where numbers are rounded.
        margin = 1 / 52 + 1e-6 if rounded and "loss" not in metric and "kd" not in metric else 0
        np.testing.assert_allclose(
            several_history[metric], values, rtol=10 * TOLERANCE[kind], atol=margin, err_msg=metric
        )


@pytest.mark.parametrize(("kind", "name"), [("weighted", "mirrored"), ("kd", "worker 0")])
def test_several_predict_as_one(results, kind, name):
    """A row for each image, in their order: the last batch has images for some of the replicas alone."""
    one, several = (results[each][0][f"predicted {kind}"] for each in ("none", name))
    assert one.shape == (52, 3)
    np.testing.assert_allclose(several, one, rtol=0, atol=1e-4)


OPTIONS = [
    ({"steps_per_execution": 2}, {}),
    ({"jit_compile": True}, {}),
    ({}, {"gradient_accumulation_steps": 2}),
    ({}, {"use_ema": True, "ema_overwrite_frequency": 2}),
]


@pytest.mark.parametrize(("options", "of_optimizer"), OPTIONS)
def test_what_keras_cannot_do_on_several_devices_is_refused(options, of_optimizer):
    """Plain Keras fails there, with an error of TensorFlow's that names none of it."""

    def make():
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])

    optimizer = keras.optimizers.SGD(0.1, **of_optimizer)
    (name, value), *_ = list({**options, **of_optimizer}.items())[::-1]
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        for model, optimizers in (
            (Distiller(make(), make(), SoftTargets()), {"optimizer": optimizer}),
            (TriKD(make(), make()), {"optimizer": keras.optimizers.SGD(0.1), "teacher_optimizer": optimizer}),
        ):
            with pytest.raises(ValueError, match=f"Received: {name}={value}, under a MirroredStrategy. Leave"):
                model.compile(loss="mse", **optimizers, **options)
    Distiller(make(), make(), SoftTargets()).compile(optimizer, "mse", **options)


def test_all_workers_end_with_the_same_bytes(results):
    for name, count in (("worker", 2), ("of four", 4)):
        first, *others = (results[f"{name} {index}"] for index in range(count))
        for other in others:
            for weights in first[0]:
                np.testing.assert_array_equal(first[0][weights], other[0][weights], err_msg=weights)
            # What Keras's own `fit` says names tensors of the process.
            assert first[1]["histories"] == other[1]["histories"]


def test_workers_shuffle_alike(results):
    """Every row once in an epoch: in orders of their own, two workers would see some twice, and some never."""
    for worker in ("worker 0", "worker 1"):
        # Each row moves its weight by 1, the learning rate, over 4, the rows of a batch.
        np.testing.assert_array_equal(results[worker][1]["in any order"], np.full(52, -0.25))
