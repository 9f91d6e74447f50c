"""Softmax heads taken off exactly, and the pixels a foreign teacher expects."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_tkd import teachers
from keras_tkd.utils import resizing
from keras_tkd.utils.layer_outputs import LayerOutputs

# Integers: their products and sums are exact in float32, so that logits can be compared with ==.
KERNEL = np.array([[1, -2, 3], [0, 4, -1], [-3, 1, 2], [2, -1, -4]], "float32")
BIAS = np.array([5, -7, 1], "float32")
X = np.array([[1, 2, -1, 3], [0, 0, 0, 0], [200, -300, 100, 500]], "float32")
LOGITS = X @ KERNEL + BIAS


def softmax(z):
    e = np.exp(z.astype("float64") - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def dense(activation=None, **arguments):
    """A layer whose weights `trained` sets."""
    return layers.Dense(3, activation, **arguments)


def functional(*steps):
    inputs = x = keras.Input((4,))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x)


def late(*steps):
    """A Sequential that learns its input shape from its first batch."""
    model = keras.Sequential(list(steps))
    model(X)
    return model


class Subclassed(keras.Model):
    def __init__(self, activation=None, key=None):
        super().__init__()
        self.head, self.key = dense(activation), key

    def call(self, x, training=False):
        return {self.key: self.head(x)} if self.key else self.head(x)


def subclassed(*arguments):
    model = Subclassed(*arguments)
    model(X)
    return model


def trained(model):
    for layer in model._flatten_layers():
        if isinstance(layer, layers.Dense):
            layer.set_weights([KERNEL, BIAS])
    return model


SOFTMAX = {
    "dense": lambda: functional(dense("softmax")),
    "activation": lambda: functional(dense(), layers.Activation("softmax")),
    "activation in float32": lambda: functional(dense(), layers.Activation("softmax", dtype="float32")),
    "softmax layer": lambda: functional(dense(), layers.Softmax()),
    "operation": lambda: functional(dense(), ops.softmax),
    "activation function": lambda: functional(dense(), keras.activations.softmax),
    "sequential": lambda: keras.Sequential([keras.Input((4,)), dense(), layers.Softmax()]),
    "sequential of one dense": lambda: keras.Sequential([keras.Input((4,)), dense("softmax")]),
    "sequential without input": lambda: late(dense("softmax")),
    "nested": lambda: functional(layers.Identity(), functional(dense("softmax"))),
    "nested twice": lambda: functional(functional(late(dense(), layers.Activation("softmax")))),
    "dictionary": lambda: keras.Model(x := keras.Input((4,)), {"logits": dense("softmax")(x)}),
}
OTHERS = {
    "linear": lambda: functional(dense()),
    "sigmoid": lambda: functional(dense("sigmoid")),
    "softmax inside": lambda: functional(layers.Softmax(), dense()),
    "sequential": lambda: keras.Sequential([keras.Input((4,)), dense()]),
    "nested": lambda: functional(functional(dense())),
    "subclassed": lambda: subclassed(),
    "subclassed, dictionary": lambda: subclassed(None, "logits"),
}


def output(model, x=X):
    outputs = model(x, training=False)
    return ops.convert_to_numpy(outputs["logits"] if isinstance(outputs, dict) else outputs)


@pytest.mark.parametrize("name", SOFTMAX)
def test_softmax_is_taken_off_exactly(name):
    model = trained(SOFTMAX[name]())
    before = output(model)
    assert teachers.ends_in_softmax(model)
    logits = teachers.logits_model(model)
    assert not teachers.ends_in_softmax(logits)
    # The third row's logits are hundreds apart: its probabilities are 0 and 1, no logarithm gives them back.
    assert set(before[2]) == {0.0, 1.0}
    np.testing.assert_array_equal(output(logits), LOGITS)
    np.testing.assert_allclose(softmax(output(logits)), before, rtol=1e-5, atol=1e-7)
    # The model itself still gives what it gave.
    np.testing.assert_array_equal(output(model), before)
    np.testing.assert_allclose(before, softmax(LOGITS), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ["dense", "operation", "sequential", "nested"])
def test_softmax_of_a_model_from_a_file(name, tmp_path):
    trained(SOFTMAX[name]()).save(tmp_path / "teacher.keras")
    model = keras.saving.load_model(tmp_path / "teacher.keras")
    assert teachers.ends_in_softmax(model)
    np.testing.assert_array_equal(output(teachers.logits_model(model)), LOGITS)


@pytest.mark.parametrize("name", OTHERS)
def test_a_model_without_softmax_is_returned_as_it_is(name):
    model = OTHERS[name]()
    assert not teachers.ends_in_softmax(model)
    assert teachers.logits_model(model) is model


@pytest.mark.parametrize("name", SOFTMAX)
def test_what_was_taken_off_is_put_on_again(name, tmp_path):
    model = trained(SOFTMAX[name]())
    student = teachers.logits_model(model)
    # As training would: every weight of the student's changes.
    student.set_weights([2 * weight for weight in student.get_weights()])
    shipped = teachers.with_softmax(student)
    np.testing.assert_allclose(output(shipped), softmax(2 * LOGITS), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(output(student), 2 * LOGITS)
    shipped.save(tmp_path / "student.keras")
    np.testing.assert_array_equal(output(keras.saving.load_model(tmp_path / "student.keras")), output(shipped))
    assert teachers.ends_in_softmax(shipped) and teachers.with_softmax(shipped) is shipped


def test_probabilities_are_float32_whatever_the_policy():
    model = functional(layers.Dense(3, dtype="mixed_float16"))
    assert output(model).dtype == "float16" and output(teachers.with_softmax(model)).dtype == "float32"


def test_softmax_is_put_on_the_logits_of_a_dict_and_on_no_list():
    inputs = keras.Input((4,))
    logits = dense()(inputs)
    model = trained(keras.Model(inputs, {"features": inputs, "logits": logits}))
    np.testing.assert_allclose(output(teachers.with_softmax(model)), softmax(LOGITS), rtol=1e-5, atol=1e-7)
    with pytest.raises(ValueError, match="a list of 2"):
        teachers.with_softmax(keras.Model(inputs, [inputs, logits]))
    with pytest.raises(ValueError, match="Received: Subclassed. Let its call return"):
        teachers.with_softmax(subclassed())


@pytest.mark.parametrize("key", [None, "logits"])
def test_a_subclassed_model_is_found_out_by_running_it(key):
    model = subclassed("softmax", key)
    assert teachers.ends_in_softmax(model)
    with pytest.raises(ValueError, match=f"'{model.name}' of type Subclassed"):
        teachers.logits_model(model)


@pytest.mark.parametrize(
    "make",
    [
        lambda: functional(dense("softmax"), layers.Activation("linear", dtype="float32")),
        lambda: functional(dense(lambda x: ops.softmax(x))),
        lambda: functional(lambda x: layers.Average()([dense("softmax")(x), dense("softmax")(x)])),
        lambda: keras.Model(x := keras.Input((4,)), {"logits": dense("softmax")(x), "other": dense()(x)}),
    ],
    ids=["cast after it", "own function", "average of two", "two outputs"],
)
def test_probabilities_that_the_last_operation_does_not_show_are_found_out(make):
    model = make()
    np.testing.assert_allclose(output(model).sum(-1), 1, rtol=1e-6)
    assert teachers.ends_in_softmax(model)


def test_the_logits_model_takes_its_inputs_as_the_model_did():
    left, right = keras.Input((1,), name="left"), keras.Input((3,), name="right")
    outputs = dense("softmax")(layers.Concatenate()([left, right]))
    model = trained(keras.Model({"right": right, "left": left}, outputs))
    logits = teachers.logits_model(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "The structure of `inputs`")  # Keras, where it is not the model's
        np.testing.assert_array_equal(output(logits, {"left": X[:, :1], "right": X[:, 1:]}), LOGITS)
        output(teachers.logits_model(SOFTMAX["dense"]()))


def test_frozen_models_have_nothing_to_train():
    model = functional(dense(), layers.BatchNormalization())
    assert len(model.trainable_variables) == 4
    teachers.freeze(model)
    assert model.trainable_variables == []


# One pixel, red 255, green 0, blue 51.
#   unit:     255 / 255, 0, 51 / 255
#   tf:       2 - 1, 0 - 1, 0.4 - 1
#   torch and imagenet: (1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225
#   caffe:    51 - 103.939 (blue first), 0 - 116.779, 255 - 123.68
PIXEL = (255, 0, 51)
SEEN = {
    "none": PIXEL,
    "unit": (1.0, 0.0, 0.2),
    "tf": (1.0, -1.0, -0.6),
    "torch": (2.2489083, -2.0357143, -0.9155556),
    "imagenet": (2.2489083, -2.0357143, -0.9155556),
    "caffe": (-52.939, -116.779, 131.32),
}


def identity(channels):
    inputs = keras.Input((1, 2, channels))
    return keras.Model(inputs, layers.Identity()(inputs))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("mode", SEEN)
def test_preprocessing_gives_the_pixels_the_model_was_trained_on(mode, dtype):
    model = teachers.with_preprocessing(identity(3), mode)
    images = np.array([[[PIXEL, (0, 0, 0)]]], dtype)
    outputs = output(model, images)
    assert outputs.shape == (1, 1, 2, 3)
    np.testing.assert_allclose(outputs[0, 0, 0], SEEN[mode], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["functional", "sequential", "dictionary"])
def test_preprocessing_keeps_the_layers_and_the_model(kind, tmp_path):
    """Also where the model has a scaling of its own, which a file may call as Keras would call the next one."""
    _, latest = (layers.Rescaling(1.0).name for _ in range(2))
    own = f"rescaling_{int(latest.rpartition('_')[2]) + 1}"
    norm = layers.BatchNormalization(name="norm")
    steps = [layers.Rescaling(2.0, name=own), norm, layers.Flatten(), dense()]
    model = keras.Sequential([keras.Input((1, 2, 2)), *steps], name="teacher")
    if kind != "sequential":
        outputs = {"logits": model.outputs[0]} if kind == "dictionary" else model.outputs[0]
        model = keras.Model(model.inputs[0], outputs, name="teacher")
    trained(model)
    images = X.reshape(-1, 1, 2, 2)
    expected = output(model, images / 255)
    scaled = teachers.with_preprocessing(model, "unit")
    assert scaled.name == "teacher" and scaled.get_layer("norm") is norm
    # 2 / 255 of it, and by the square root of Keras's 1.001 less.
    read = LayerOutputs(scaled, ["norm"])(images)[1]["norm"]
    np.testing.assert_allclose(read, images * 2 / 255 / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_allclose(output(scaled, images), expected, rtol=1e-5)
    np.testing.assert_array_equal(output(model, images / 255), expected)
    scaled.save(tmp_path / "teacher.keras")
    np.testing.assert_allclose(output(keras.saving.load_model(tmp_path / "teacher.keras"), images), expected, rtol=1e-5)


def test_preprocessing_none_changes_nothing_and_unit_takes_grey_images():
    model = identity(1)
    assert teachers.with_preprocessing(model, "none") is model
    images = np.array([[[[255], [51]]]], "uint8")
    np.testing.assert_allclose(output(teachers.with_preprocessing(model, "unit"), images).ravel(), [1, 0.2], rtol=1e-6)


@pytest.mark.parametrize("mode", ["torch", "imagenet", "caffe"])
def test_colour_preprocessing_refuses_grey_images(mode):
    with pytest.raises(ValueError, match=rf"{mode}.*3 channels.*\(1, 2, 1\)"):
        teachers.with_preprocessing(identity(1), mode)


def test_unknown_preprocessing_is_named():
    with pytest.raises(ValueError, match="imagenet.*mode='pytorch'"):
        teachers.with_preprocessing(identity(3), "pytorch")


def test_other_size():
    model = keras.Sequential([keras.Input((8, 6, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    assert resizing.find_model_size(model, (None, 4, 6, 3)) == (8, 6)
    assert resizing.find_model_size(model, (None, 8, 6, 3)) is None
    # Other channels are no other size; and what takes any size takes this one.
    assert resizing.find_model_size(model, (None, 8, 6, 1)) is None
    anything = keras.Sequential([keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D()])
    assert resizing.find_model_size(anything, (None, 4, 6, 3)) is None
    assert resizing.find_model_size(keras.Sequential([keras.layers.Dense(2)]), (None, 4, 6, 3)) is None


def test_resize_keeps_the_range_of_the_pixels():
    images = np.zeros((1, 4, 4, 1), "uint8")
    images[:, :, 2:] = 255
    small = resizing.resize_float32(images, (2, 2)).numpy()
    assert small.shape == (1, 2, 2, 1) and small.dtype == "float32"
    # Antialiased: each half is averaged under a triangle that reaches over the edge by one pixel of weight 1 / 8.
    np.testing.assert_allclose(small[0, 0, :, 0], [255 / 7, 255 * 6 / 7], atol=255 * 0.02)


@pytest.mark.parametrize("second", ["unit", "tf"])
def test_pixels_are_scaled_once(second):
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten()], name="mine")
    once = teachers.with_preprocessing(model, "unit")
    images = keras.Input((4, 4, 1))
    for model in (once, keras.Model(images, once(images), name="mine")):
        with pytest.raises(ValueError, match=f"mode='{second}', and 'mine', which scales its pixels already"):
            teachers.with_preprocessing(model, second)
        assert teachers.with_preprocessing(model, "none") is model
