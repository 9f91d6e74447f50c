"""How a run compiles its models: several steps to an execution, XLA on GPUs alone."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TriKD, data, losses, models
from keras_tkd.config import TeacherTrainingConfig
from keras_tkd.runs import optimization

CONFIG = TeacherTrainingConfig(learning_rate=0.05)
OF_A_RUN = optimization.STEPS_PER_EXECUTION  # 8; in tests elsewhere it is 1
RNG = np.random.default_rng(0)
# 11 batches of 8, the last of them smaller: no whole number of executions.
IMAGES, LABELS = RNG.integers(0, 256, (84, 8, 8, 1), dtype=np.uint8), RNG.integers(0, 10, 84)


def teacher():  # with dropout
    return models.build("digits_teacher", (8, 8, 1), 10)


def student():
    return models.build("digits_student", (8, 8, 1), 10)


CASES = {
    "labels": (teacher, data.image_dataset),
    "tkd": (lambda: Distiller(teacher(), student(), losses.TripletDistillation(), [2.0]), data.triplet_dataset),
    "trikd": (lambda: TriKD(teacher(), student(), student()), functools.partial(data.triplet_dataset, negatives=None)),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_together_are_the_steps_one_by_one(case, monkeypatch, recwarn):
    make, pipeline = CASES[case]
    weights, histories, executions = [], [], []
    for together in (1, OF_A_RUN):
        keras.utils.set_random_seed(0)
        model = make()
        monkeypatch.setattr(optimization, "STEPS_PER_EXECUTION", together)
        optimization.compile_model(model, CONFIG)
        batches = pipeline(IMAGES, LABELS, 8, seed=0, augment=data.crop_and_flip)
        count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: executions.append(batch))
        histories.append(model.fit(batches, epochs=2, callbacks=[count], verbose=0, shuffle=False).history)
        weights.append(model.get_weights())
    assert len(executions) == 2 * 11 + 2 * 2
    for one, other in zip(*weights, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)
    for name, values in histories[0].items():
        np.testing.assert_allclose(histories[1][name], values, rtol=1e-4, atol=1e-6, err_msg=name)
    assert not [warning for warning in recwarn if "ran out of data" in str(warning.message)]


@pytest.mark.parametrize("case", CASES)
def test_xla_on_gpus_alone(case, monkeypatch):
    cpu, gpu = (tf.config.PhysicalDevice(f"/physical_device:{kind}:0", kind) for kind in ("CPU", "GPU"))
    for devices, compiled in (([cpu], False), ([cpu, gpu], True)):
        with monkeypatch.context() as patch:
            patch.setattr(tf.config, "list_physical_devices", lambda kind=None, devices=devices: devices)
            model = CASES[case][0]()
            optimization.compile_model(model, CONFIG)
        assert model.jit_compile is compiled
