"""A model as it is shipped: its forward pass in inference, with or without the layers that scale its pixels."""

import re

import keras

from keras_tkd.utils.keras_graph import find_consumers, flatten_layers

__all__ = ["InferenceModel", "check_operations", "check_shippable", "split_preprocessing"]

# Operations of all three kinds of files that draw random numbers, leave values out, or change the model: none of them
# belongs into inference.
_TRAINING_KINDS = re.compile("random|multinomial|bernoulli|dropout|assign", re.IGNORECASE)


class InferenceModel(keras.Model):
    """A model that calls another with `training=False`, whatever its layers would take for the default.

    `model.export` leaves `training` open. Keras's layers of augmentation then take True, and so does a BatchNorm right
    behind one of them: a file would flip its images at random, and normalize by the batch.

    Args:
        model: `keras.Model` with one input and one output.
    """

    def __init__(self, model):
        super().__init__(name=model.name)
        self.model = model
        self.built = True  # the model is, and there is nothing else

    def call(self, image):
        return {"output": self.model(image, training=False)}


def check_shippable(model):
    """Raises `ValueError` for a model that no format can hold: of other inputs than images, or not in float32."""
    inputs, outputs = (getattr(model, side, None) or () for side in ("inputs", "outputs"))
    shapes = [tuple(tensor.shape) for tensor in (*inputs, *outputs)]
    if len(inputs) != 1 or len(outputs) != 1 or [len(shape) for shape in shapes] != [4, 2]:
        raise ValueError(
            "What is exported must be a functional or built sequential model from images "
            f"(batch, height, width, channels) to (batch, classes). Received: model '{model.name}' of type "
            f"{type(model).__name__}, with inputs and outputs of shapes {shapes}"
        )
    for layer in flatten_layers(model, include_self=False):
        if isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
            raise ValueError(
                "What is exported must have float weights, of which the formats make what they need. Received: model "
                f"'{model.name}', whose layer '{layer.name}' was quantized by Keras. Export the model it was made of"
            )
        if layer.compute_dtype != "float32":
            raise ValueError(
                f"What is exported must compute in float32. Received: model '{model.name}', whose layer "
                f"'{layer.name}' computes in {layer.compute_dtype}. "
                + (
                    'Set `layer.dtype_policy = "float32"` for all layers: weights are float32 already'
                    if layer.variable_dtype == "float32"
                    else f"Its weights are {layer.variable_dtype}: copy them into a model that was made in float32"
                )
            )


def split_preprocessing(model):
    """Divides a model behind the layers that scale its pixels.

    These are the first layers, one after the other, as long as they are `keras.layers.Rescaling`,
    `keras.layers.Normalization`, or models of nothing else (and of a reversal of the channels).

    Args:
        model: functional or sequential `keras.Model` with one input and one output.

    Returns:
        `(scaling, rest, described)`: a model from pixels to what `rest` takes, the model behind, which shares its
        layers with `model`, and a list of a dict for each step of the scaling, with numbers to do it by.

    Raises:
        ValueError: the model does not begin with such a layer.
    """
    pixels, described = model.inputs[0], []
    scaled = pixels
    while True:
        consumers = find_consumers(model, scaled)
        steps = _describe_scaling(consumers[0][0]) if len(consumers) == 1 else None
        if steps is None:
            break
        described += steps
        scaled = consumers[0][1]
    if not described:
        first = ", ".join(f"'{operation.name}'" for operation, _ in consumers)
        raise ValueError(
            "`preprocessing='outside'` takes off the layers that scale the pixels: a Rescaling or a Normalization at "
            f"the beginning. Received: model '{model.name}', which begins with {first}. Use preprocessing='inside'"
        )
    rest = keras.Model(scaled, model.outputs[0], name=model.name)
    return keras.Model(pixels, scaled, name="preprocessing"), rest, described


def _describe_scaling(operation):
    """Returns what an operation does to pixels as a list of dicts; None of one that does something else."""
    name = {"layer": operation.name, "class": type(operation).__name__}
    if isinstance(operation, keras.layers.Rescaling):
        config = operation.get_config()
        return [name | {"scale": config["scale"], "offset": config["offset"]}]
    if isinstance(operation, keras.layers.Normalization):
        mean, variance = (keras.ops.convert_to_numpy(part).ravel() for part in (operation.mean, operation.variance))
        return [name | {"mean": mean.tolist(), "variance": variance.tolist()}]
    if name["class"] == "Flip":  # keras.ops.flip in a functional graph
        return [name | {"axis": operation.axis}] if operation.axis in (-1, 3) else None
    if isinstance(operation, keras.Model) and getattr(operation, "inputs", None):
        # A sequential model has no operations but its layers.
        inside = operation.layers if isinstance(operation, keras.Sequential) else operation.operations
        layers = [layer for layer in inside if not isinstance(layer, keras.layers.InputLayer)]
        each = [_describe_scaling(layer) for layer in layers]
        return None if None in each or not each else sum(each, [])
    return None


def check_operations(operations, model, what):
    """Raises `ValueError` for operations of training in what is to be shipped, with the layers that they are of.

    Args:
        operations: list of pairs: an operation's name, in which its layer's stands, and its kind.
        model: the model that they were made of.
        what: what holds them, for the error.
    """
    found = [(name, kind) for name, kind in operations if _TRAINING_KINDS.search(kind)]
    if not found:
        return
    # TensorFlow numbers the scopes of layers that are called again.
    scopes = {re.sub(r"_\d+$", "", part) for name, _ in found for part in name.split("/")}
    scopes |= {part for name, _ in found for part in name.split("/")}
    layers = [layer for layer in flatten_layers(model, include_self=False) if not isinstance(layer, keras.Model)]
    named = ", ".join(f"'{layer.name}'" for layer in layers if layer.name in scopes)
    named = named or ", ".join(name for name, _ in found)
    kinds = ", ".join(sorted({kind for _, kind in found}))
    raise ValueError(
        f"{what} must hold nothing of training. Received: model '{model.name}', of which {named} would act in "
        f"inference ({kinds}). Let its layers do nothing where `training` is False, or take them off"
    )
