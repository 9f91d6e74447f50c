"""Named layers of any model, out of one forward pass that leaves nothing behind."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_tkd.utils.layer_outputs import LayerOutputs, compute_output_shapes

X = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 4.0]], "float32")


class Plus(layers.Layer):
    """Adds `amount`, and 100 more when training; counts its calls."""

    def __init__(self, amount, fails=False, **arguments):
        super().__init__(**arguments)
        self.amount, self.fails, self.calls = amount, fails, 0

    def call(self, x, training=False):
        self.calls += 1
        if self.fails:
            raise RuntimeError("this layer fails")
        return x + self.amount + (100 if training else 0)


class Subclassed(keras.Model):
    """Layers as attributes and in a list."""

    def __init__(self, fails=False, **arguments):
        super().__init__(**arguments)
        self.first = Plus(1, name="a")
        self.blocks = [Plus(10, name="b"), Plus(0, fails, name="c")]

    def call(self, x, training=False):
        x = self.first(x, training=training)
        for block in self.blocks:
            x = block(x, training=training)
        return x


class Unreached(Subclassed):
    def __init__(self):
        super().__init__()
        self.unused = Plus(0, name="unused")
        self.unused.build((None, 3))


class Dictionary(Subclassed):
    def call(self, x, training=False):
        return {"logits": super().call(x, training=training), "twice": 2 * x}


def functional(*steps, **arguments):
    inputs = x = keras.Input((3,))
    for step in steps:
        x = step(x)
    return keras.Model(inputs, x, **arguments)


def nested():
    block = functional(Plus(1, name="a"), name="block")
    return functional(keras.Sequential([block, Plus(10, name="b")], name="backbone"), Plus(0, name="c"))


# Each adds 1 and then 10: the names of the layers whose outputs are x + 1 and x + 11.
MODELS = {
    "functional": (lambda: functional(Plus(1, name="a"), Plus(10, name="b"), Plus(0, name="c")), "a", "b"),
    "sequential": (lambda: keras.Sequential([Plus(1, name="a"), Plus(10, name="b"), Plus(0)]), "a", "b"),
    "nested": (nested, "backbone/block/a", "backbone"),
    "nested layer": (nested, "backbone/block", "backbone/b"),
    "subclassed": (Subclassed, "a", "b"),
    "dictionary": (Dictionary, "a", "b"),
    "model in a subclassed model": (lambda: functional(Subclassed(name="inner")), "inner/a", "inner"),
}


def parts(model):
    return [layer for layer in model._flatten_layers() if isinstance(layer, Plus)]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "tf.function"])
@pytest.mark.parametrize("name", MODELS)
def test_named_outputs(name, compiled):
    make, first, second = MODELS[name]
    model = make()
    outputs = LayerOutputs(model, [first, second, "logits"])
    run = tf.function(outputs) if compiled else outputs
    returned, named = run(tf.constant(X))
    assert set(named) == {"logits", first, second}
    np.testing.assert_array_equal(named[first], X + 1)
    np.testing.assert_array_equal(named[second], X + 11)
    np.testing.assert_array_equal(named["logits"], X + 11)
    final = returned["logits"] if name == "dictionary" else returned
    np.testing.assert_array_equal(final, X + 11)
    # Nothing is left behind: the layers call what their class says.
    assert [layer.name for layer in parts(model) if "call" in vars(layer)] == []
    # Each layer adds 100 when training: 1 of them before the first output, 2 before the second.
    _, named = run(tf.constant(X), training=True)
    np.testing.assert_array_equal(named[first], X + 101)
    np.testing.assert_array_equal(named[second], X + 211 + 100 * (second == "inner"))


@pytest.mark.parametrize("name", MODELS)
def test_one_forward_pass(name):
    make, first, second = MODELS[name]
    model = make()
    outputs = LayerOutputs(model, [first, second])
    outputs(X)
    before = [layer.calls for layer in parts(model)]
    outputs(X)
    assert [layer.calls for layer in parts(model)] == [calls + 1 for calls in before]


def test_a_dictionary_serves_its_own_entries():
    model = Dictionary()
    returned, named = LayerOutputs(model, ["twice", "a"])(X)
    assert set(returned) == {"logits", "twice"}
    np.testing.assert_array_equal(named["twice"], 2 * X)
    np.testing.assert_array_equal(named["a"], X + 1)


def test_gradients_reach_the_layers_through_named_outputs():
    kernel = layers.Dense(2, use_bias=False, name="hidden")
    model = functional(kernel, layers.Dense(2))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(LayerOutputs(model, ["hidden"])(X)[1]["hidden"])
    # d sum(X W) / dW[i, j] = sum over the batch of X[:, i]
    expected = np.repeat(X.sum(0)[:, None], 2, axis=1)
    np.testing.assert_allclose(tape.gradient(total, kernel.kernel.value), expected, rtol=1e-6)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "tf.function"])
@pytest.mark.parametrize("names", [["a", "b"], ["a", "c"]], ids=["before", "of the failing layer"])
def test_layers_are_restored_after_an_exception(names, compiled):
    model = Subclassed(fails=True)
    outputs = LayerOutputs(model, names)
    with pytest.raises(RuntimeError, match="this layer fails"):
        (tf.function(outputs) if compiled else outputs)(tf.constant(X))
    assert [layer.name for layer in parts(model) if "call" in vars(layer)] == []


@pytest.mark.parametrize(
    "make, asked, known",
    [
        (MODELS["functional"][0], "A", "'a', 'b', 'c'"),
        (MODELS["sequential"][0], "d", "'a', 'b'"),
        (nested, "backbone/block/x", "'backbone', 'c'"),
        (nested, "a", "'backbone', 'c'"),
        (Unreached, "unused", "is not called"),
        (Dictionary, "thrice", "'twice'"),
    ],
)
def test_an_unknown_name_is_an_error_that_lists_the_names(make, asked, known):
    model = make()
    with pytest.raises(ValueError, match=f"'{asked}'.*{known}"):
        LayerOutputs(model, [asked])(X)
    assert [layer.name for layer in parts(model) if "call" in vars(layer)] == []


def test_a_dictionary_without_logits_is_an_error():
    model = functional(lambda x: {"probabilities": Plus(1)(x)})
    with pytest.raises(ValueError, match="'logits'.*'probabilities'"):
        LayerOutputs(model)(X)


@pytest.mark.parametrize("kind", [list, tuple])
def test_a_list_of_outputs_is_an_error_that_asks_for_names(kind):
    class Two(Subclassed):
        def call(self, x, training=False):
            return kind([x, 2 * x])

    message = rf"dict .* \"logits\"\. Received: a {kind.__name__} of 2 from model 'two'.*keras.Model\(inputs, \{{"
    for read in (lambda model: LayerOutputs(model)(X), lambda model: compute_output_shapes(model, [], (None, 3))):
        with pytest.raises(ValueError, match=message):
            read(Two(name="two"))


class Unbuilt(keras.Model):
    def __init__(self):
        super().__init__()
        self.convolution = layers.Conv2D(4, 3, name="convolution")
        self.head = keras.Sequential([layers.Flatten(name="flatten"), layers.Dense(2)], name="head")

    def call(self, x, training=False):
        return self.head(self.convolution(x))


@pytest.mark.parametrize("built", [False, True])
def test_shapes_build_the_model(built):
    model = Unbuilt()
    images = np.ones((5, 8, 6, 1), "float32")
    if built:
        model(images)
    shapes = compute_output_shapes(model, ["convolution", "head/flatten"] if built else ["convolution"], (5, 8, 6, 1))
    # A 3x3 kernel without padding takes two rows and two columns off: 6 x 4 positions of 4 channels.
    expected = {"logits": (None, 2), "convolution": (None, 6, 4, 4)}
    assert shapes == (expected | {"head/flatten": (None, 96)} if built else expected)
    # The variables are the model's own: kernel and bias of the convolution 9 * 4 + 4, the dense 96 * 2 + 2.
    assert model.count_params() == 40 + 194
    assert model(images).shape == (5, 2)


def test_shapes_of_a_model_of_several_inputs():
    left, right = keras.Input((3,), name="left"), keras.Input((4,), name="right")
    model = keras.Model({"left": left, "right": right}, layers.Concatenate(name="both")([left, right]))
    shapes = compute_output_shapes(model, ["both"], {"left": (2, 3), "right": (2, 4)})
    assert shapes == {"logits": (None, 7), "both": (None, 7)}


def negative_layers():
    """Layers whose output before the ReLU is -x, -2x and (in the nested model) -x again."""
    minus = keras.initializers.Constant(-1.0)

    def dense(name, activation):
        return layers.Dense(1, activation, use_bias=False, kernel_initializer=minus, name=name)

    inner = keras.Sequential([keras.Input((1,)), dense("hidden", "relu")], name="inner")
    return keras.Sequential(
        [keras.Input((1,)), inner, layers.Activation("tanh", name="squash"), dense("last", None)], name="outer"
    )


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "tf.function"])
def test_before_and_after_an_activation(compiled):
    model = negative_layers()
    names = ["inner/hidden", "inner/hidden:pre_activation", "squash:pre_activation", "squash", "last:pre_activation"]
    outputs = LayerOutputs(model, names)
    x = np.array([[2.0], [-3.0]], "float32")
    _, named = (tf.function(outputs) if compiled else outputs)(tf.constant(x))
    relu = np.maximum(-x, 0.0)
    expected = [relu, -x, relu, np.tanh(relu), -np.tanh(relu)]
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_allclose(named[name], values, rtol=1e-6, err_msg=name)
    # Nothing is left behind.
    hidden = model.get_layer("inner").get_layer("hidden")
    assert hidden.activation is keras.activations.relu and "call" not in vars(hidden)
    name = "inner/hidden:pre_activation"
    assert compute_output_shapes(model, [name], (None, 1))[name] == (None, 1)


@pytest.mark.parametrize("name", ["flat:pre_activation", "flat:post_activation", "dense:before"])
def test_what_has_no_activation_is_an_error(name):
    model = keras.Sequential([keras.Input((2,)), layers.Flatten(name="flat"), layers.Dense(2, "relu", name="dense")])
    with pytest.raises(ValueError, match=f"`pre_activation`.*Received: '{name}'"):
        LayerOutputs(model, [name])(X[:, :2])


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "tf.function"])
def test_quantized_layers(compiled):
    """Whole multiples of the largest number are exact in int8."""
    dense = layers.Dense(3, "relu", use_bias=False, kernel_initializer="identity", name="dense")
    model = keras.Sequential([keras.Input((3,)), dense, layers.Dense(1)])
    model.quantize("int8")
    names = ["dense", "dense:pre_activation"]
    outputs = LayerOutputs(model, names)
    x = tf.constant([[1.0, 0.0, -1.0]])
    _, named = (tf.function(outputs) if compiled else outputs)(x)
    np.testing.assert_allclose(named["dense"], [[1.0, 0.0, 0.0]], rtol=1e-6)
    np.testing.assert_allclose(named["dense:pre_activation"], x, rtol=1e-6)
    assert not {"call", "quantized_call"} & set(vars(dense))
    assert compute_output_shapes(model, names, (None, 3))["dense"] == (None, 3)


class Traced(Subclassed):
    @tf.function
    def call(self, x, training=False):
        return {"logits": super().call(x, training=training), "twice": 2 * x}


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("traced", [False, True])
def test_layers_inside_a_graph_of_their_own_are_an_error(nested, traced):
    inner = Traced(name="inner")
    model = keras.Sequential([keras.Input((3,)), inner]) if nested else inner
    if traced:
        model(X)
    name = "inner/a" if nested else "a"
    for read in (lambda: compute_output_shapes(model, [name], (None, 3)), lambda: LayerOutputs(model, [name])(X)):
        with pytest.raises(ValueError, match=rf"'{name}'.*graph of its own.*`@tf.function`.*\{{\"logits\""):
            read()
    # What the model itself returns is read.
    assert np.array_equal(LayerOutputs(inner, ["twice"])(X)[1]["twice"], 2 * X)
