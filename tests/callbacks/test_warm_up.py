"""The warm-up of distillation losses: what a Distiller has during it, after it, and when it is cut off."""

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TriKD
from keras_tkd.callbacks import WarmUp
from keras_tkd.losses import LogitRegression, SoftTargets

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 5)).astype("float32"), np.arange(12) % 3


def make_distiller():
    keras.utils.set_random_seed(0)
    models = [keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]) for _ in range(2)]
    return compile_model(Distiller(*models, [SoftTargets(), LogitRegression()], [1.0, 0.5]))


def compile_model(model):
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def fit(model, *callbacks, **given):
    return model.fit(X, Y, batch_size=6, shuffle=False, verbose=0, callbacks=[WarmUp(4), *callbacks], **given).history


def measure_weighted(model):
    """The total's distillation losses, as they count outside a training."""
    result = model.evaluate(X, Y, batch_size=12, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(result["student_loss"] + result["kd"] + 0.5 * result["logits"], rel=1e-5)


class Stop(keras.callbacks.Callback):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def on_train_batch_end(self, batch, logs=None):
        raise self.error


@pytest.mark.parametrize("frequency", ["epoch", 1])
def test_a_distiller_that_was_saved_in_it_goes_on_as_if_it_had_not_been(frequency, tmp_path):
    path = str(tmp_path / "model.keras")
    whole = fit(make_distiller(), epochs=6)
    fit(make_distiller(), keras.callbacks.ModelCheckpoint(path, save_freq=frequency), epochs=2)
    loaded = keras.saving.load_model(path)
    assert loaded.distillation_loss_weights == (1.0, 0.5) and loaded.distillation_share == 1.0
    measure_weighted(loaded)
    if frequency == "epoch":
        rest = fit(loaded, initial_epoch=2, epochs=6)
        assert rest == {name: values[2:] for name, values in whole.items()}


@pytest.mark.parametrize("error", [KeyboardInterrupt, FloatingPointError])
def test_a_training_that_is_cut_off_leaves_the_weights_whole(error):
    model = make_distiller()
    with pytest.raises(error):
        fit(model, Stop(error), epochs=2)
    assert model.distillation_loss_weights == (1.0, 0.5) and model.distillation_share == 1.0
    measure_weighted(model)


def test_weights_that_are_replaced_during_it_stay():
    model = make_distiller()
    lower = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(model, "distillation_loss_weights", [1 / (epoch + 1), 0.5])
    )
    fit(model, lower, epochs=2)
    assert model.distillation_loss_weights == (0.5, 0.5)


def test_it_is_of_both_terms_that_a_student_shares_with_its_teacher():
    models = [keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]) for _ in range(2)]
    weights = {"student_term_reaches_teacher": True, "peer_weight": 0.0}
    model = compile_model(TriKD(*models, distillation_loss_weights=2.0, **weights))
    history = fit(model, validation_data=(X, Y))
    # In the first of four epochs a quarter of 2.
    for total, loss in (("val_loss", "val_student_loss"), ("val_teacher_total", "val_teacher_loss")):
        assert history[total][0] == pytest.approx(history[loss][0] + 0.5 * history["val_kd"][0], rel=1e-5), total


def test_a_model_without_distillation_losses():
    model = compile_model(keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)], name="small"))
    with pytest.raises(ValueError, match="a model without them, Sequential 'small'"):
        fit(model)
