"""Teachers that a run is given: files of several kinds, and what of them is its teacher."""

import dataclasses
import json
import shutil
import textwrap
import types

import keras
import numpy as np
import pytest
import rounding

from keras_tkd import TeacherEnsemble, data
from keras_tkd.config import DistillConfig
from keras_tkd.runs import commands
from keras_tkd.runs.cluster import Cluster
from keras_tkd.runs.fitting import check_placing
from keras_tkd.runs.inputs import load_distillation_inputs

SETTINGS = {"dataset": "digits", "method": "kd", "epochs": 1, "batch_size": 512, "baseline": "none"}
SETTINGS |= {"student_model": "digits_student", "check": "off"}


# Sums of the teacher's 74 features in another order; the largest part of its logits, 20 |x| |c| with the images' pixels
# 0..1 and fewer than half of them white, is below 20 * 32.
LOGITS = 20 * 32 * rounding.of_sums(74)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


@pytest.fixture(scope="module")
def teacher(splits):
    """A teacher that knows more than chance, with a layer that it was trained with and one that was frozen."""
    inputs = keras.Input((8, 8, 1))
    hidden = keras.layers.Flatten(name="pixels")(keras.layers.Rescaling(1 / 255)(inputs))
    means = keras.layers.Dense(10, trainable=False, name="frozen")(hidden)
    model = keras.Model(inputs, keras.layers.Dense(10, name="scores")(keras.layers.concatenate([hidden, means])))
    # The ten classes' mean images, and how near an image is to each: no training, and right on most.
    images = splits.train_images.reshape(len(splits.train_images), -1) / 255
    centres = np.stack([images[splits.train_labels == label].mean(0) for label in range(10)])
    kernel = np.zeros((74, 10), "float32")
    kernel[:64] = centres.T
    model.get_layer("scores").set_weights([20 * kernel, -10 * (centres**2).sum(1)])
    return model


def load_teacher(path, **settings):
    paths = (str(path),) if not isinstance(path, tuple) else tuple(map(str, path))
    return load_distillation_inputs(DistillConfig(**SETTINGS, teacher_path=paths, **settings).resolved()).teacher


def check_same(found, teacher, splits):
    np.testing.assert_allclose(
        found.predict(splits.test_images, verbose=0), teacher.predict(splits.test_images, verbose=0), 1e-6, 1e-6
    )


@pytest.mark.parametrize("name", ["a.keras", "a.h5", "saved"])
def test_files_of_each_kind(name, teacher, splits, tmp_path):
    (teacher.save if "." in name else teacher.export)(str(tmp_path / name))
    found = load_teacher(tmp_path / name)
    check_same(found, teacher, splits)
    # The checks freeze nothing: what a teacher may train is a part of what is told of it.
    count = sum(np.prod(variable.shape) for variable in found.trainable_variables)
    # A SavedModel does not say which of its variables were frozen.
    assert count == 74 * 10 + 10 + (65 * 10 if name == "saved" else 0)


@pytest.mark.parametrize("output", ["scores", "1"])
def test_one_of_several_outputs(output, teacher, splits, tmp_path):
    pixels = teacher.get_layer("pixels").output
    outputs = {"pixels": pixels, "scores": teacher.output} if output == "scores" else [pixels, teacher.output]
    keras.Model(teacher.input, outputs).save(tmp_path / "a.keras")
    check_same(load_teacher(tmp_path / "a.keras", teacher_output=output), teacher, splits)


def test_a_saved_ensemble_is_the_ensemble(teacher, splits, tmp_path):
    inputs = keras.Input((8, 8, 1))
    other = keras.Model(inputs, keras.layers.Softmax()(2 * teacher(inputs)), name="other")
    softmaxless = keras.Model(inputs, 2 * teacher(inputs), name="other")
    ensemble = TeacherEnsemble([teacher, softmaxless], average="probabilities", teacher_weights=[1, 3])
    ensemble.save(tmp_path / "ensemble.keras")
    found = load_teacher(tmp_path / "ensemble.keras")
    assert (found.average, found.teacher_weights, len(found.teachers)) == ("probabilities", (1.0, 3.0), 2)
    check_same(found, ensemble, splits)
    # As it is of the two files.
    teacher.save(tmp_path / "a.keras")
    other.save(tmp_path / "b.keras")
    settings = {"teacher_average": "probabilities", "teacher_weights": ("1", "3")}
    check_same(load_teacher((tmp_path / "a.keras", tmp_path / "b.keras"), **settings), ensemble, splits)


def test_classes_of_the_users_own(teacher, splits, tmp_path, monkeypatch):
    (tmp_path / "my_layers_of_tests.py").write_text(
        textwrap.dedent("""
            import keras

            @keras.saving.register_keras_serializable("my_layers_of_tests")
            class Same(keras.layers.Layer):
                def call(self, x):
                    return x
        """)
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_layers_of_tests

    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, my_layers_of_tests.Same()(teacher(inputs))).save(tmp_path / "a.keras")
    # As in a process that has not imported them.
    keras.saving.get_custom_objects().pop("my_layers_of_tests>Same")
    monkeypatch.delitem(__import__("sys").modules, "my_layers_of_tests")
    with pytest.raises(ValueError, match=r"names `my_layers_of_tests.Same`.*--custom_objects"):
        load_teacher(tmp_path / "a.keras")
    check_same(load_teacher(tmp_path / "a.keras", custom_objects=("my_layers_of_tests",)), teacher, splits)


def test_code_that_is_trusted(teacher, splits, tmp_path):
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x)(teacher(inputs))).save(tmp_path / "a.keras")
    check_same(load_teacher(tmp_path / "a.keras", trust_teacher_code=True), teacher, splits)


def test_a_run_with_a_saved_model(teacher, tmp_path):
    """A step and a cache with it, in a precision that its own graph does not have."""
    teacher.export(str(tmp_path / "saved"))
    config = {"precision": "mixed_bfloat16", "teacher_cache": "workdir", "teacher_path": (str(tmp_path / "saved"),)}
    results = commands.distill(DistillConfig(**SETTINGS | config), tmp_path / "run")
    of_file = SETTINGS | config | {"teacher_path": (str(tmp_path / "a.keras"),), "precision": "float32"}
    teacher.save(tmp_path / "a.keras")
    same = commands.distill(DistillConfig(**of_file), tmp_path / "same")
    assert results["teacher"]["test_accuracy"] == same["teacher"]["test_accuracy"] > 0.8


def test_several_devices_refuse_a_saved_model_before_any_training(teacher, tmp_path):
    """Each would need a copy of it; a cache is computed on one."""
    teacher.export(str(tmp_path / "saved"), verbose=False)
    config = DistillConfig(
        **SETTINGS | {"baseline": "train", "teacher_path": (str(tmp_path / "saved"),)},
        teacher_cache="off",
        distribution="mirrored",
    )
    with pytest.raises(ValueError, match=r"copied to each.*saved.*\(ValueError\): keep .* --teacher_cache=workdir, or"):
        commands.distill(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = types.SimpleNamespace(config=config.resolved(), cluster=Cluster(strategy=object()))
    saved = load_teacher(tmp_path / "saved")
    with pytest.raises(ValueError, match="copied to each"):
        check_placing(run, saved)
    check_placing(run, teacher)
    check_placing(run, None)
    run.config = dataclasses.replace(run.config, teacher_cache="workdir")
    check_placing(run, saved)
    # A teacher that gets a new head learns on all devices, whatever is kept of it later.
    run.config = dataclasses.replace(run.config, teacher_head="new")
    with pytest.raises(ValueError, match=r"\(ValueError\): train on one device"):
        check_placing(run, saved)


def test_a_saved_model_that_gives_probabilities(teacher, splits, tmp_path, capsys):
    """Its graph shows no softmax that could be taken off: of a distribution, the logarithm has the same softmax."""
    keras.Model(teacher.input, keras.layers.Softmax()(teacher.output)).export(str(tmp_path / "saved"), verbose=False)
    found = load_teacher(tmp_path / "saved").predict(splits.test_images, verbose=0)
    logits = teacher.predict(splits.test_images, verbose=0).astype("float64")
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    # A logarithm of probabilities: the distance to the largest logit, 16 before it is cut off, is rounded twice.
    atol = 2 * -np.log(1e-7) * rounding.EPS + LOGITS
    np.testing.assert_allclose(found, np.maximum(expected, np.log(1e-7)), rtol=0, atol=atol)
    assert "saved_model.pb gives probabilities: their logarithm is taken" in capsys.readouterr().out


def test_a_saved_model_whose_probabilities_are_of_several_classes_is_refused(teacher, tmp_path):
    """Each of digits' images has one class."""
    sigmoid = keras.layers.Activation("sigmoid")(teacher.output)
    keras.Model(teacher.input, sigmoid).export(str(tmp_path / "saved"), verbose=False)
    with pytest.raises(ValueError, match="one class, rows that sum to 1.* Received: .*saved.* without its last"):
        load_teacher(tmp_path / "saved")


@pytest.mark.parametrize("kind", ["logit", "sigmoid", "saved sigmoid"])
def test_one_output_for_two_classes(kind, teacher, splits, tmp_path, capsys):
    """As for cats and dogs, whose teachers have one output: the dog's."""
    scores = teacher.get_layer("scores").output
    logit = keras.layers.Dense(1, "linear" if kind == "logit" else "sigmoid")
    model = keras.Model(teacher.input, logit(scores))
    difference = np.zeros((10, 1))
    difference[[3, 8]] = [[0.25], [-0.25]]
    logit.set_weights([difference, np.zeros(1)])
    path = tmp_path / ("saved" if kind == "saved sigmoid" else "a.keras")
    (model.export if kind == "saved sigmoid" else model.save)(str(path))
    two = splits.with_classes(("8", "3"))
    found = load_teacher(path, classes=("8", "3")).predict(two.test_images, verbose=0)
    z = teacher.predict(two.test_images, verbose=0) @ difference
    atol = (LOGITS + (0 if kind == "logit" else rounding.of_logits(1 / (1 + np.exp(-z))))) / 2
    np.testing.assert_allclose(found, np.concatenate([-z, z], axis=-1) / 2, rtol=0, atol=atol)
    assert (found.argmax(-1) == two.test_labels).mean() > 0.8
    assert "has one output, the logit of '3': of '8' it is taken with the other sign" in capsys.readouterr().out


@keras.saving.register_keras_serializable("tests_of_teacher_files")
class Subclassed(keras.Model):
    def __init__(self, inner, softmax=False, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.softmax = inner, softmax

    def call(self, images):
        logits = self.inner(images)
        return keras.ops.softmax(logits) if self.softmax else logits

    def get_config(self):
        return {"inner": keras.saving.serialize_keras_object(self.inner), "softmax": self.softmax}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["inner"]), config["softmax"])


@pytest.mark.parametrize("preprocessing", ["none", "unit"])
def test_a_subclassed_model(preprocessing, teacher, splits, tmp_path):
    model = Subclassed(teacher)
    model(splits.test_images[:1])
    model.save(tmp_path / "a.keras")
    found = load_teacher(tmp_path / "a.keras", teacher_preprocessing=(preprocessing,))
    images = splits.test_images / np.float32(255 if preprocessing == "unit" else 1)
    expected = teacher.predict(images, verbose=0)
    np.testing.assert_allclose(found.predict(splits.test_images, verbose=0), expected, 1e-5, 1e-5)
    # What its graph does not show is refused in a sentence.
    with pytest.raises(ValueError, match="of type Subclassed, which may hold its classifier"):
        load_teacher(tmp_path / "a.keras", teacher_head="new")
    model = Subclassed(teacher, softmax=True)
    model(splits.test_images[:1])
    model.save(tmp_path / "b.keras")
    with pytest.raises(ValueError, match="gives probabilities that no softmax at its end makes"):
        load_teacher(tmp_path / "b.keras")


def test_a_new_head_says_what_it_left_out(teacher, tmp_path, capsys):
    teacher.save(tmp_path / "a.keras")
    assert load_teacher(tmp_path / "a.keras", teacher_head="new").output_shape == (None, 10)
    assert "a.keras gets a new head in place of 'scores'" in capsys.readouterr().out
    # A backbone, which gives a map.
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, keras.layers.Conv2D(3, 3, activation="relu")(inputs)).save(tmp_path / "b.keras")
    assert load_teacher(tmp_path / "b.keras", teacher_head="new").output_shape == (None, 10)
    assert "b.keras gets a new head behind its output" in capsys.readouterr().out


def test_other_weights_of_a_saved_model_are_refused(teacher, tmp_path, capsys):
    """They are beside its file, which stays as it was."""
    model = keras.models.clone_model(teacher)
    for folder, factor in (("saved", 1), ("other", 0.9)):
        model.set_weights([factor * weights for weights in teacher.get_weights()])
        model.export(str(tmp_path / folder))
    config = DistillConfig(**SETTINGS, teacher_path=(str(tmp_path / "saved"),))
    results = commands.distill(config, tmp_path / "run")
    record = tmp_path / "run" / "checkpoints" / "teacher.json"
    given = json.loads(record.read_text())
    # A run that began before there was an entry of them: it is finished all the same.
    old = {name: value for name, value in given.items() if not name.endswith("/variables")}
    assert len(old) == len(given) - 1
    capsys.readouterr()
    for entries in (old, given):
        record.write_text(json.dumps(entries))
        assert commands.distill(config, tmp_path / "run") == results
    assert "has changed" not in capsys.readouterr().out
    shutil.rmtree(tmp_path / "saved" / "variables")
    shutil.copytree(tmp_path / "other" / "variables", tmp_path / "saved" / "variables")
    with pytest.raises(ValueError, match="another teacher: the weights of --teacher_path have changed since"):
        commands.distill(config, tmp_path / "run")
