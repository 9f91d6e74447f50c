"""Classifiers out of files of several kinds, and which of their outputs are meant."""

import json

import h5py
import keras
import numpy as np
import pytest

from keras_tkd import models

X = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    maps = keras.layers.Conv2D(4, 3, name="maps")(keras.layers.Rescaling(1 / 255)(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, name="scores")(keras.layers.Flatten()(maps)))


class TestLoadAny:
    @pytest.mark.parametrize("name", ["a.keras", "a.h5", "a.hdf5", "a"])
    def test_it_computes_what_the_model_did(self, name, model, tmp_path):
        path = str(tmp_path / name)
        (model.save if "." in name else model.export)(path)
        np.testing.assert_array_equal(models.load_any(path)(X), model(X))

    def test_a_file_of_keras_2(self, model, tmp_path):
        path = tmp_path / "old.h5"
        model.save(path)
        shape = {"batch_input_shape": [None, 6, 6, 3], "dtype": "float32", "sparse": False, "name": "input"}
        layers = [{"class_name": "InputLayer", "config": shape}]
        for layer in model.layers[1:]:
            # Their settings as they were: types by their names, and nothing of modules.
            kept = ("name", "filters", "kernel_size", "units", "activation", "scale", "offset")
            config = {name: value for name, value in layer.get_config().items() if name in kept}
            layers.append({"class_name": type(layer).__name__, "config": config | {"dtype": "float32"}})
        with h5py.File(path, "r+") as file:
            config = {"name": "old", "layers": layers}
            file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": config})
            file.attrs["keras_version"] = "2.10.0"
        np.testing.assert_array_equal(models.load_any(path)(X), model(X))

    def test_other_files_are_refused(self, model, tmp_path):
        (tmp_path / "a.onnx").write_bytes(b"")
        with pytest.raises(ValueError, match=r"`t` must be a file that ends with \.keras, .* Received: t='.*onnx'"):
            models.load_any(tmp_path / "a.onnx", "t")
        with pytest.raises(FileNotFoundError, match="`t` must be .*no.h5"):
            models.load_any(tmp_path / "no.h5", "t")

    def test_weights_alone_are_no_model(self, model, tmp_path):
        model.save_weights(tmp_path / "a.weights.h5")
        with pytest.raises(ValueError, match=r"it holds weights alone.* Save the whole model: `model.save\(path\)`"):
            models.load_any(tmp_path / "a.weights.h5")

    @pytest.mark.parametrize("name", ["a.keras", "a.h5"])
    def test_classes_that_nobody_registered_here_are_told_how(self, name, model, tmp_path):
        @keras.saving.register_keras_serializable("tests_of_unregistered")
        class Same(keras.layers.Layer):
            def call(self, x):
                return x

        keras.Sequential([model, Same()]).save(tmp_path / name)
        keras.saving.get_custom_objects().pop("tests_of_unregistered>Same")
        with pytest.raises(ValueError, match="Same.*Register your own with .* in a run by --custom_objects=MODULE"):
            models.load_any(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.keras", "a.h5"])
    def test_code_is_run_for_those_who_trust_it_alone(self, name, model, tmp_path):
        keras.Sequential([model, keras.layers.Lambda(lambda x: 2 * x)]).save(tmp_path / name)
        with pytest.raises(ValueError, match="the code of a Python lambda, which is never run"):
            models.load_any(tmp_path / name)
        np.testing.assert_array_equal(models.load_any(tmp_path / name, trust_code=True)(X), 2 * model(X))

    def test_code_of_keras_2_is_seen(self, model, tmp_path):
        path = tmp_path / "old.h5"
        model.save(path)
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            settings = {"name": "l", "function": ["4wEAAAA=", None, None], "function_type": "lambda"}
            config["config"]["layers"].append({"class_name": "Lambda", "config": settings})
            file.attrs["model_config"] = json.dumps(config)
        with pytest.raises(ValueError, match="it holds a `Lambda`, the code of a Python lambda, which is never run"):
            models.load_any(path)


class TestSelectOutput:
    def outputs(self, model, kind):
        maps, scores = model.get_layer("maps").output, model.output
        kinds = {
            "one": scores,
            "named": {"logits": scores},
            "otherwise": {"scores": scores},
            "dict": {"maps": maps, "logits": scores},
            "foreign": {"maps": maps, "scores": scores},
            "list": [maps, scores],
        }
        return keras.Model(model.input, kinds[kind])

    @pytest.mark.parametrize(
        ("kind", "output"),
        [
            ("one", None),
            ("one", "0"),
            ("one", "scores"),
            ("otherwise", None),
            ("dict", None),
            ("dict", "logits"),
            ("dict", "1"),
            ("foreign", "scores"),
            ("list", "1"),
            ("list", 1),
            ("list", "scores"),
        ],
    )
    def test_the_output_that_is_meant(self, kind, output, model):
        chosen = models.select_output(self.outputs(model, kind), output, "a.keras")
        np.testing.assert_array_equal(chosen(X), model(X))
        assert chosen.get_layer("maps") is model.get_layer("maps")

    @pytest.mark.parametrize("kind", ["one", "named"])
    def test_a_model_that_needs_no_choice_stays(self, kind, model):
        given = self.outputs(model, kind)
        assert models.select_output(given, None, "a.keras") is given

    @pytest.mark.parametrize(
        ("kind", "output"), [("foreign", None), ("list", None), ("list", "2"), ("one", "1"), ("dict", "nosuch")]
    )
    def test_no_such_output(self, kind, output, model):
        message = rf"`o` must be the name or .* 'a\.keras', .*\(None, .*Received: o={output!r}"
        with pytest.raises(ValueError, match=message):
            models.select_output(self.outputs(model, kind), output, "a.keras", "o")


def test_a_model_of_several_outputs_where_none_can_be_chosen(model, tmp_path):
    """As a student, or what is exported: no flag names an output of these."""
    outputs = [model.layers[-1].output, model.get_layer("maps").output]
    keras.Model(model.inputs, outputs).save(tmp_path / "a.keras")
    with pytest.raises(ValueError, match=r"must have one output, or a dict .* Received: .*a.keras', whose .* 1: maps"):
        models.build(str(tmp_path / "a.keras"), (6, 6, 3), 3, "student_model")


@keras.saving.register_keras_serializable("tests_of_files")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scores = keras.layers.Dense(3)

    def call(self, images):
        return self.scores(keras.layers.Flatten()(images))


class TestGiveGraph:
    def test_a_subclassed_model_for_the_images_that_it_was_built_for(self, tmp_path):
        given = Subclassed(name="mine")
        given(X)
        given.save(tmp_path / "a.keras")
        loaded = models.load_any(tmp_path / "a.keras")
        with pytest.raises(ValueError, match=r"a Subclassed with inputs \[\]"):
            models.check_classifier(loaded, (None, None, 3), None, "a.keras")
        found = models.give_graph(loaded, (9, 9, 3))
        assert models.check_classifier(found, (None, None, 3), None, "a.keras") is found
        assert (found.name, found.input_shape) == ("mine", (None, 6, 6, 3))
        np.testing.assert_allclose(found(X), given(X), rtol=1e-6)

    def test_others_stay(self, model):
        for given in (model, keras.Sequential([keras.layers.Dense(3)]), Subclassed(), "text"):
            assert models.give_graph(given, (6, 6, 3)) is given


def test_a_map_is_no_row_of_logits(model):
    maps = keras.Model(model.input, model.get_layer("maps").output)
    with pytest.raises(ValueError, match=r"`p` must be a classifier.*p='a\.keras'.*\(4, 4, 4\).* with a head"):
        models.check_classifier(maps, (6, 6, 3), None, "a.keras", "p")
