"""New heads on trained bodies: what they are given, and what of the body stays."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_tkd import models, teachers
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


def test_a_number_of_classes_may_be_numpys_and_is_whole():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(4, "relu"), layers.Dense(3)])
    assert teachers.with_new_head(model, np.int64(5)).output_shape == (None, 5)
    with pytest.raises(ValueError, match="`num_classes` must be >= 1; a whole number. Received: num_classes=2.5"):
        teachers.with_new_head(model, 2.5)


def test_images_of_another_size_are_resized_inside():
    model = make("pooled")
    assert teachers.fit_to_images(model, (4, 4, 2)) is model
    fitted = teachers.fit_to_images(model, (8, 8, 2))
    # Of an image in two halves, halves: antialiasing and interpolation change nothing far from the edge.
    large = np.repeat(np.repeat([[[1.0, 0.0], [0.0, 1.0]]], 4, 1), 4, 2)[..., None] * np.ones(2)
    expected = model.predict_on_batch(np.asarray(resize_float32(large, (4, 4))))
    np.testing.assert_allclose(fitted.predict_on_batch(large.astype("uint8")), expected, rtol=1e-5)


def make_backbone(kind):
    """A model without a classifier, whose output is a map, tokens or a row."""
    images = keras.Input((4, 4, 2))
    maps = layers.Conv2D(3, 2, name="conv")(images)
    if kind == "tokens":
        maps = layers.Reshape((9, 3))(maps)
    if kind in ("normalized", "activated"):
        maps = layers.BatchNormalization(beta_initializer="ones")(maps) if kind == "normalized" else maps
        maps = layers.GlobalAveragePooling2D()(layers.ReLU()(maps))
    if kind == "merged":
        maps = layers.GlobalMaxPooling2D()(layers.Add()([maps, maps]))
    if kind == "dense":
        maps = layers.Dense(3, activation="relu")(layers.Flatten()(maps))
    return keras.Model(images, maps, name="backbone")


@pytest.mark.parametrize("kind", ["map", "tokens", "normalized", "activated", "merged", "dense", "nested"])
def test_a_backbone_stays_whole(kind):
    backbone = make_backbone("normalized" if kind == "nested" else kind)
    if kind == "nested":
        images = keras.Input((4, 4, 2))
        backbone = keras.Model(images, layers.Dropout(0.5)(backbone(images)), name="outer")
    new = teachers.with_new_head(backbone, 5)
    assert teachers.list_left_out(backbone, new) == []
    kernel, bias = np.random.default_rng(1).normal(size=(3, 5)), np.arange(5.0)
    new.layers[-1].set_weights([kernel, bias])
    rows = backbone.predict_on_batch(IMAGES)
    expected = rows.reshape(3, -1, 3).mean(1) @ kernel + bias
    np.testing.assert_allclose(new.predict_on_batch(IMAGES), expected, rtol=1e-4, atol=1e-5)


def test_what_is_left_out_is_listed():
    model = make("pooled")
    names = [layer.name for layer in teachers.list_left_out(model, teachers.with_new_head(model, 5))]
    assert sorted(names) == sorted(layer.name for layer in model.layers[-2:])
    # Its input is the body's, and no more is inside.
    model = make("nested")
    names = [layer.name for layer in teachers.list_left_out(model, teachers.with_new_head(model, 5))]
    assert sorted(names) == sorted([model.layers[-1].name, model.layers[1].layers[-1].name])


@keras.saving.register_keras_serializable("tests_of_heads")
class Whole(keras.layers.Layer):
    """A network, classifier included, as one layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = make("pooled")

    def call(self, images):
        return self.inner(images)


@pytest.mark.parametrize("kind", ["saved", "own", "linear", "normalization", "scaled"])
def test_the_whole_teacher_is_never_the_head(kind, tmp_path):
    images = keras.Input((4, 4, 2))
    if kind == "saved":
        make("pooled").export(str(tmp_path / "saved"))
        model, reason = models.load_any(str(tmp_path / "saved")), "of type TFSMLayer, which may hold its classifier"
    elif kind in ("own", "scaled"):
        made = Whole()(images)
        # Behind a softmax or a batch normalization alike.
        model = keras.Model(images, made if kind == "own" else layers.Softmax()(layers.BatchNormalization()(made)))
        name = {"own": "Whole", "scaled": "BatchNormalization"}[kind]
        reason = f"of type {name}, which may hold its classifier"
    else:
        pixels = layers.Normalization(mean=[1.0, 2], variance=[1.0, 2]) if kind == "linear" else layers.Normalization()
        model = keras.Sequential([images, pixels, layers.Flatten(), layers.Dense(43)])
        reason = "nothing with weights would stay before the head"
    with pytest.raises(ValueError, match=f"A new head goes behind .*: .*{reason}.*Give it the head yourself"):
        teachers.with_new_head(model, 5)


def test_a_second_new_head_and_resizing():
    first = teachers.fit_to_images(teachers.with_new_head(make("pooled"), 3), (8, 8, 2))
    first.get_layer("new_head").set_weights([np.eye(3), np.zeros(3)])
    second = teachers.fit_to_images(teachers.with_new_head(first, 7), (16, 16, 2))
    assert second.output_shape == (None, 7) and second.input_shape == (None, 16, 16, 2)
    # Of an image of one colour every size is the same.
    colour = np.ones((1, 1, 1, 2), "float32")
    small, large = (np.broadcast_to(colour, (1, size, size, 2)) for size in (8, 16))
    expected = first.predict_on_batch(small) @ second.layers[-1].get_weights()[0]
    np.testing.assert_allclose(second.predict_on_batch(large), expected, rtol=1e-4, atol=1e-5)
    # A head that something with weights is behind is a part of the body.
    images = keras.Input((4, 4, 2))
    normalized = layers.BatchNormalization()(teachers.with_new_head(make("pooled"), 5).call(images))
    again = teachers.with_new_head(keras.Model(images, normalized), 6)
    assert again.layers[-1].name == "new_head_2" and len(teachers.list_body(again)) == len(again.layers) - 1
