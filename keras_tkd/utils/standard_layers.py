"""Layers of any model that this package's own call `features` and `embedding`, where its graph shows which they are."""

import keras

from keras_tkd.utils.keras_graph import get_producer
from keras_tkd.utils.layer_outputs import has_output

__all__ = ["MEANINGS", "choose_layers"]

# What this package's models name so, in the words for another's.
MEANINGS = {
    "features": "the last map before it is pooled or flattened",
    "embedding": "the input of its last dense layer",
}
# What is no result of a network's, and what gives the embedding on as it is.
_SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
_PASSES_ON = (keras.layers.Dropout, keras.layers.Identity)


def choose_layers(model, names: list[str]) -> dict[str, str]:
    """Chooses layers for those of `names` that a model has no output of, and whose meaning its graph shows.

    Args:
        model: a `keras.Model`; one without a graph, subclassed for example, shows nothing.
        names: names of outputs.

    Returns:
        dict from a name of `MEANINGS` to the path of a layer, as `LayerOutputs` takes it.
    """
    missing = [name for name in names if name in MEANINGS and not has_output(model, name)]
    found = _find_layers(model) if missing else {}
    return {name: found[name] for name in missing if name in found}


def _find_layers(model):
    found, head, embedding = {}, False, False
    for path, operation, rank in _trace_back(model):
        layer = isinstance(operation, keras.layers.Layer)
        if not head:
            # A model inside is followed by its own layers, of which the last is the head.
            head = layer and not isinstance(operation, keras.Model) and bool(operation.weights)
            if rank != 2:
                break
        elif rank == 2 and not embedding and not isinstance(operation, _PASSES_ON):
            # What is no layer, such as an operation of `keras.ops`, cannot be named.
            embedding = True
            if layer:
                found["embedding"] = path
        elif rank > 2:
            if layer and not isinstance(operation, _SCALING):
                found["features"] = path
            break
    return found


def _trace_back(model, prefix=""):
    """Yields path, operation and number of axes of what makes a model's output, of what makes that, and so on.

    It ends where something is made of several tensors. Returns whether it came to the model's input.
    """
    outputs = getattr(model, "outputs", None) or ()
    tensor = outputs[0] if len(outputs) == 1 else None
    while isinstance(tensor, keras.KerasTensor):
        operation, inputs = get_producer(tensor)
        if isinstance(operation, keras.layers.InputLayer):
            return True
        path = prefix + operation.name
        yield path, operation, len(tensor.shape)
        if isinstance(operation, keras.Model) and not (yield from _trace_back(operation, f"{path}/")):
            return False
        tensor = inputs
    return False
