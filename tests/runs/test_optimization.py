"""Schedules of a long training: rates and weights of the last epoch, to the last bit of the optimizer's float32."""

import types

import numpy as np
import pytest

from keras_tkd.callbacks import WarmUp
from keras_tkd.config import TeacherTrainingConfig
from keras_tkd.config.training import RunConfig
from keras_tkd.runs import optimization

EPOCHS = 1_000
# By hand, at a first rate of 0.1.
LAST_RATES = {
    "constant": ({}, 0.1),
    # Three times a tenth, on the way and in the very last epoch.
    "step": ({"schedule_epochs": (300, 600, EPOCHS - 1)}, 0.0001),
    # 0.1 (1 + cos(pi 999 / 1000)) / 2, by the half angle, where nothing cancels: 1 - cos(x) is 2 sin(x / 2)^2.
    "cosine": ({}, 0.1 * np.sin(np.pi / (2 * EPOCHS)) ** 2),
}


def test_every_schedule_has_its_row():
    assert LAST_RATES.keys() == set(RunConfig.__dataclass_fields__["schedule"].metadata["choices"])


@pytest.mark.parametrize("schedule", LAST_RATES)
def test_a_thousand_epochs_end_at_exactly_the_last_rate(schedule):
    settings, expected = LAST_RATES[schedule]
    config = TeacherTrainingConfig(epochs=EPOCHS, learning_rate=0.1, schedule=schedule, **settings)
    optimizer = optimization.make_optimizer(config)
    callback = optimization.schedule_learning_rate(optimizer, config)
    rates = []
    for epoch in range(EPOCHS):
        callback.on_epoch_begin(epoch)
        rates.append(optimizer.learning_rate.numpy())
    assert rates[0] == np.float32(0.1) and rates[-1] == np.float32(expected)
    assert np.all(np.diff(rates) <= 0)


def test_a_thousand_epochs_of_warming_up_end_at_exactly_the_weights():
    given = (0.1, 3000.0)
    model = types.SimpleNamespace(distillation_loss_weights=given)
    callback = WarmUp(EPOCHS)
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    np.testing.assert_allclose(model.distillation_loss_weights, [0.0001, 3.0], rtol=1e-12)
    for epoch in range(1, EPOCHS):
        callback.on_epoch_begin(epoch)
    assert tuple(model.distillation_loss_weights) == given
