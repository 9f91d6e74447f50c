"""Computing in mixed precision, and files that are ordinary float32 Keras."""

import json
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

from keras_tkd import export

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 6, 6, 3), dtype=np.uint8)


def plain(**arguments):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), dtype="uint8"),
            layers.Rescaling(1 / 255, name="scaling"),
            layers.Conv2D(8, 3, name="convolution"),
            layers.BatchNormalization(name="normalization"),
            layers.Activation("relu"),
            layers.Flatten(),
            layers.Dense(4, name="head"),
        ],
        **arguments,
    )


def nested_head():
    """The whole network, scaling and head included, is a layer of the model."""
    inputs = keras.Input((6, 6, 3), dtype="uint8")
    return keras.Model(inputs, plain(name="network")(inputs))


def nested_backbone():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    backbone = keras.Sequential([layers.Conv2D(8, 3, name="convolution"), layers.GlobalMaxPooling2D()])
    x = layers.Dense(4, name="before")(backbone(layers.Rescaling(1 / 255)(inputs)))
    return keras.Model(inputs, layers.Activation("tanh", name="head")(x))


MODELS = {"plain": plain, "nested head": nested_head, "nested backbone": nested_backbone}


def by_name(model):
    return {layer.name: layer for layer in model._flatten_layers()}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("precision, compute", [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
def test_layers_compute_in_low_precision_between_scaling_and_output(name, precision, compute):
    model = MODELS[name]()
    before = model(IMAGES).numpy()
    export.set_precision(model, precision)
    inner = (layers.Conv2D, layers.BatchNormalization, layers.Flatten, layers.GlobalMaxPooling2D)
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Rescaling) or layer.name == "head":
            assert layer.compute_dtype == "float32", layer.name
        elif isinstance(layer, inner) or layer.name == "before":
            assert layer.compute_dtype == compute, layer.name
    assert {str(variable.dtype) for variable in model.variables} == {"float32"}
    outputs = model(IMAGES)
    assert outputs.dtype == "float32"
    # It does compute otherwise, by no more than bfloat16's 8 bits explain.
    assert (outputs.numpy() != before).any()
    np.testing.assert_allclose(outputs, before, atol=0.02 * np.abs(before).max())


@pytest.mark.parametrize("name", MODELS)
def test_setting_it_back_leaves_no_trace(name, tmp_path):
    model = MODELS[name]()
    before = model(IMAGES).numpy()
    export.set_precision(model, "mixed_bfloat16")
    model(IMAGES)
    export.set_precision(model, "float32")
    np.testing.assert_array_equal(model(IMAGES), before)
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        text = file.read("config.json").decode()
    assert "bfloat16" not in text and "mixed" not in text

    def policies(config):
        if isinstance(config, dict):
            if config.get("class_name") == "DTypePolicy":
                yield config["config"]["name"]
            config = list(config.values())
        if isinstance(config, list):
            for item in config:
                yield from policies(item)

    assert set(policies(json.loads(text))) <= {"float32", "uint8"}
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(IMAGES), before)


def test_trainable_parameters_do_not_count_statistics_and_frozen_weights():
    model = plain()
    # Convolution 9 * 3 * 8 + 8; BatchNorm's scale and offset 2 * 8, its 2 * 8 statistics are not trained;
    # head 4 * 4 * 8 * 4 + 4.
    assert export.trainable_parameters(model) == 224 + 16 + 516
    assert model.count_params() == 224 + 32 + 516
    by_name(model)["convolution"].trainable = False
    assert export.trainable_parameters(model) == 16 + 516
    model.trainable = False
    assert export.trainable_parameters(model) == 0
