"""Layers that another's model has in place of `features` and `embedding`: chosen where its graph leaves no doubt."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tkd.utils.layer_outputs import LayerOutputs
from keras_tkd.utils.standard_layers import choose_layers

BOTH = ["embedding", "features", "logits"]


def backbone(pooling):
    steps = [layers.Rescaling(1 / 255), layers.Conv2D(3, 3, name="conv"), layers.ReLU(name="last")]
    steps += [layers.GlobalAveragePooling2D(name="pooled")] if pooling else []
    return keras.Sequential([keras.Input((8, 8, 1)), *steps], name="backbone")


def sequential(*steps):
    return keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 255, name="scale"), *steps])


def functional(head):
    images = keras.Input((8, 8, 1))
    return keras.Model(images, head(layers.Conv2D(3, 3, name="conv")(images)))


CONV, POOL = layers.Conv2D, layers.GlobalAveragePooling2D
MODELS = {
    "pooled": (
        lambda: sequential(CONV(3, 3), layers.ReLU(name="relu"), POOL(name="pool"), layers.Dense(4)),
        {"features": "relu", "embedding": "pool"},
    ),
    # As this package's models have it: dropout gives the embedding on, and a softmax comes behind the head.
    "dropout, softmax": (
        lambda: sequential(
            CONV(3, 3, name="conv"),
            POOL(),
            layers.Dense(5, name="hidden"),
            layers.Dropout(0.5),
            layers.Dense(4),
            layers.Softmax(),
        ),
        {"features": "conv", "embedding": "hidden"},
    ),
    "flattened": (
        lambda: sequential(CONV(3, 3), layers.MaxPooling2D(name="max"), layers.Flatten(name="flat"), layers.Dense(4)),
        {"features": "max", "embedding": "flat"},
    ),
    "backbone": (
        lambda: sequential(backbone(False), POOL(name="pool"), layers.Dense(4)),
        {"features": "backbone", "embedding": "pool"},
    ),
    "backbone that pools": (
        lambda: sequential(backbone(True), layers.Dense(4)),
        {"features": "backbone/last", "embedding": "backbone"},
    ),
    # An operation has no name to be read by; the map before has.
    "operation": (
        lambda: functional(lambda x: layers.Dense(4)(keras.ops.mean(x, axis=(1, 2)))),
        {"features": "conv"},
    ),
    # Which of two, or their sum, nothing says.
    "two heads": (
        lambda: functional(lambda x: layers.Add()([layers.Dense(4)(POOL()(x)), layers.Dense(4)(POOL()(x))])),
        {},
    ),
    "dense alone": (lambda: sequential(layers.Flatten(name="flat"), layers.Dense(4)), {"embedding": "flat"}),
    "not built": (lambda: keras.Sequential([layers.Flatten(), layers.Dense(4)]), {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_layers_are_chosen_where_the_graph_shows_them(name):
    make, expected = MODELS[name]
    model = make()
    found = choose_layers(model, BOTH)
    assert found == expected
    images = np.zeros((2, 8, 8, 1), "float32")
    _, outputs = LayerOutputs(model, list(found.values()))(images)
    for meaning, layer in found.items():
        assert len(outputs[layer].shape) == {"features": 4, "embedding": 2}[meaning]


def test_only_what_is_asked_for_and_missing_is_chosen():
    model = sequential(CONV(3, 3, name="features"), layers.ReLU(), POOL(name="pool"), layers.Dense(4))
    assert choose_layers(model, ["features", "logits", "stage2"]) == {}
    assert choose_layers(model, BOTH) == {"embedding": "pool"}
