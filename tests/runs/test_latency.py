"""What is called to tell how long a model takes; how long it takes is a clock's."""

import keras
import numpy as np
import pytest

from keras_tkd import evaluation, models
from keras_tkd.export.measurement import Latency
from keras_tkd.runs import latency
from keras_tkd.teachers.ensemble import TeacherEnsemble

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype="uint8")


def build(seed, size=8):
    keras.utils.set_random_seed(seed)
    return models.build("digits_student", (size, size, 1), 10)


@pytest.fixture
def called(monkeypatch):
    """The outputs of each call that would be timed; each takes a millisecond and a half."""
    outputs = []

    def measure(run, batch, **limits):
        outputs.append(run(batch))
        return Latency(batch_size=len(batch), median_ms=1.5, p95_ms=9.0, calls=1)

    monkeypatch.setattr(latency, "measure_latency", measure)
    return outputs


@pytest.mark.parametrize("size", [8, 12])
def test_a_call_is_the_model_on_one_image(size, called):
    """Resized, where the model takes another size."""
    model = build(0, size)
    assert latency.measure_model_latency(model, IMAGES) == 1.5
    np.testing.assert_allclose(called, [evaluation.logits(model, IMAGES[:1])], rtol=1e-4, atol=1e-5)


def test_an_ensemble_takes_what_its_models_take(called):
    ensemble = TeacherEnsemble([build(0), build(1)], average="logits")
    assert latency.measure_model_latency(ensemble, IMAGES) == 3.0
    expected = [evaluation.logits(build(seed), IMAGES[:1]) for seed in (0, 1)]
    np.testing.assert_allclose(called, expected, rtol=1e-4, atol=1e-5)
