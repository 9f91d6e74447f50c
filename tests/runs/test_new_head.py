"""A teacher of other classes: its body stays, and a new head is trained on the data, before the student."""

import keras
import numpy as np
import pytest

from keras_tkd import models
from keras_tkd.config import DistillConfig
from keras_tkd.runs import commands
from keras_tkd.runs.inputs import load_distillation_inputs

QUICK = {"dataset": "digits", "method": "kd", "epochs": 1, "baseline": "none", "check": "off", "batch_size": 64}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A teacher of 43 signs, for grey images of 10 pixels in 0..1."""
    keras.utils.set_random_seed(0)
    norm = keras.layers.BatchNormalization(name="norm")
    steps = [keras.layers.Conv2D(16, 3, activation="relu", name="conv"), norm, keras.layers.Flatten()]
    model = keras.Sequential([keras.Input((10, 10, 1)), *steps, keras.layers.Dense(43, activation="softmax")])
    path = tmp_path_factory.mktemp("signs") / "signs.keras"
    model.save(path)
    return str(path)


def test_it_is_trained_on_the_body_that_stays(path, tmp_path, capsys):
    config = DistillConfig(
        **QUICK,
        teacher_path=path,
        teacher_preprocessing="unit",
        teacher_head="new",
        teacher_epochs=4,
        teacher_learning_rate=0.02,
        teacher_weight_decay=1e-3,
    )
    results = commands.distill(config, tmp_path / "run")
    assert "Training a new head for the teacher" in capsys.readouterr().out
    # A linear classifier of pixels alone is right on 9 of 10.
    assert results["teacher"]["test_accuracy"] > 0.8 and results["teacher"]["epochs"] == 4
    written = models.load_any(tmp_path / "run" / "teacher.keras")
    assert written.input_shape == (None, 8, 8, 1) and written.output_shape == (None, 10)
    given = keras.saving.load_model(path)
    body = [weights for layer in ("conv", "norm") for weights in given.get_layer(layer).get_weights()]
    for before, after in zip(body, written.get_weights()[: len(body)], strict=True):
        np.testing.assert_array_equal(after, before)
    # Nothing of the freezing is in the file: 43 classes' weights made room for those of 10.
    trained = sum(np.prod(variable.shape) for variable in written.trainable_variables)
    assert trained == 16 * 9 + 16 + 2 * 16 + 8 * 8 * 16 * 10 + 10
    assert "--teacher_head=new\n" in (tmp_path / "run" / "flags.flags").read_text()
    # It is done, and done again for another body alone.
    assert commands.distill(config, tmp_path / "run") == results


def test_without_one_other_classes_are_refused_with_the_two_ways(path):
    with pytest.raises(ValueError, match=r"43 outputs.*10 classes.*--teacher_classes.*--teacher_head=new"):
        load_distillation_inputs(DistillConfig(**QUICK, teacher_path=path).resolved())
