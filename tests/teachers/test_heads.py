"""New heads on trained bodies: what they are given, and what of the body stays."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tkd import teachers
from keras_tkd.utils.resizing import resize_float32

IMAGES = np.random.default_rng(0).uniform(0, 1, (3, 4, 4, 2)).astype("float32")


def make(kind):
    """A model, and the layer or model whose output its old head was given."""
    conv = layers.Conv2D(3, 2, name="conv")
    if kind == "pooled":
        steps = [conv, layers.GlobalAveragePooling2D(name="pool"), layers.Dropout(0.5), layers.Dense(43)]
        return keras.Sequential([keras.Input((4, 4, 2)), *steps, layers.Softmax()])
    if kind == "convolution":  # as MobileNet's own
        steps = [conv, layers.Conv2D(43, 3), layers.Flatten(), layers.Softmax()]
        return keras.Sequential([keras.Input((4, 4, 2)), *steps])
    inner = keras.Sequential([keras.Input((4, 4, 2)), conv, layers.GlobalAveragePooling2D(), layers.Dense(43)])
    images = keras.Input((4, 4, 2))
    return keras.Model(images, layers.Activation("softmax")(inner(images)), name="outer")


@pytest.mark.parametrize("kind", ["pooled", "convolution", "nested"])
def test_the_head_sees_the_body_s_features_averaged_over_positions(kind, tmp_path):
    model = make(kind)
    before = model.predict_on_batch(IMAGES)
    new = teachers.with_new_head(model, 5)
    head = new.layers[-1]
    kernel, bias = np.random.default_rng(1).normal(size=(3, 5)), np.arange(5.0)
    head.set_weights([kernel, bias])
    conv = next(layer for layer in teachers.list_body(new) if layer.name == "conv")
    expected = np.asarray(conv(IMAGES)).mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(new.predict_on_batch(IMAGES), expected, rtol=1e-4, atol=1e-5)
    assert head not in teachers.list_body(new) and new.name == model.name
    np.testing.assert_array_equal(model.predict_on_batch(IMAGES), before)
    new.save(tmp_path / "new.keras")
    loaded = keras.saving.load_model(tmp_path / "new.keras")
    np.testing.assert_allclose(loaded.predict_on_batch(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_models_without_one_last_layer_are_refused():
    images = keras.Input((4, 4, 2))
    flat = layers.Flatten()(images)
    two = keras.Model(images, layers.Add()([layers.Dense(3)(flat), layers.Dense(3)(flat)]), name="two")
    nothing = keras.Sequential([keras.Input((4, 4, 2)), layers.Flatten()], name="nothing")
    for model in (two, nothing, keras.Sequential([layers.Dense(3)], name="unbuilt")):
        with pytest.raises(ValueError, match=f"A new head goes behind .* Received: model '{model.name}'"):
            teachers.with_new_head(model, 5)


def test_images_of_another_size_are_resized_inside():
    model = make("pooled")
    assert teachers.fit_to_images(model, (4, 4, 2)) is model
    fitted = teachers.fit_to_images(model, (8, 8, 2))
    # Of an image in two halves, halves: antialiasing and interpolation change nothing far from the edge.
    large = np.repeat(np.repeat([[[1.0, 0.0], [0.0, 1.0]]], 4, 1), 4, 2)[..., None] * np.ones(2)
    expected = model.predict_on_batch(np.asarray(resize_float32(large, (4, 4))))
    np.testing.assert_allclose(fitted.predict_on_batch(large.astype("uint8")), expected, rtol=1e-5)
