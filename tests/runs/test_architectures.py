"""Runs whose models are architectures of `keras.applications`."""

import json

import keras
import numpy as np
import pytest

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.runs import commands
from keras_tkd.runs.inputs import load_distillation_inputs, load_teacher_inputs

SPEC = "keras_applications/MobileNet@alpha=0.25"
QUICK = {"dataset": "digits", "image_size": 32, "epochs": 1, "batch_size": 128, "train_fraction": 0.2}
BODY = {"include_top": False, "weights": None, "alpha": 0.25, "input_shape": (32, 32, 3)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    keras.utils.set_random_seed(5)
    path = tmp_path_factory.mktemp("weights") / "body.weights.h5"
    keras.applications.MobileNet(**BODY).save_weights(path)
    return str(path)


def test_a_run_trains_one_from_the_weights_of_a_file(weights, tmp_path):
    config = DistillConfig(**QUICK, method="baseline", student_model=SPEC, student_model_weights=weights)
    results = commands.distill(config, tmp_path / "run")
    # The body as Keras publishes it for this width, less the moving statistics of its 2,736 normalized channels, which
    # nothing trains; and a dense layer of its last 256.
    assert results["student"]["parameters"] == 218_544 - 2 * 2_736 + 256 * 10 + 10
    flags = (tmp_path / "run" / "flags.flags").read_text()
    assert f"--student_model={SPEC}\n" in flags and f"--student_model_weights={weights}\n" in flags
    record = json.loads((tmp_path / "run" / "checkpoints" / "student" / "record.json").read_text())
    assert record["settings"]["model"] == SPEC and record["settings"]["student_model_weights"] == weights
    # The student is an ordinary model of Keras, its scaling inside.
    student = keras.saving.load_model(tmp_path / "run" / "student.keras")
    assert student.predict_on_batch(np.zeros((1, 32, 32, 1), "uint8")).shape == (1, 10)
    # A file that was exchanged is another model.
    keras.applications.MobileNet(**BODY).save_weights(weights)
    with pytest.raises(ValueError, match="began with another model: the file of --student_model_weights"):
        commands.distill(config, tmp_path / "run")


def test_teachers_start_from_the_weights_of_a_file_too(weights):
    teacher = {"teacher_model": SPEC, "teacher_model_weights": weights}
    body = keras.applications.MobileNet(**BODY)
    body.load_weights(weights)
    kernel = body.get_layer("conv_pw_13").get_weights()[0]
    for inputs in (
        load_teacher_inputs(TeacherTrainingConfig(**QUICK, **teacher)),
        load_distillation_inputs(DistillConfig(**QUICK, **teacher, method="sp").resolved()),
    ):
        np.testing.assert_array_equal(inputs.teacher.get_layer("conv_pw_13").get_weights()[0], kernel)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_what_is_no_architecture_is_refused_before_images_are_read(role, tmp_path):
    config = DistillConfig(
        method="kd", dataset=str(tmp_path / "none"), **{f"{role}_model": "keras_applications/Mobile"}
    )
    with pytest.raises(ValueError, match=f"`{role}_model` must name an architecture"):
        load_distillation_inputs(config.resolved())
