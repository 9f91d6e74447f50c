"""Every use of a private name of Keras, so that a new Keras breaks one file."""

__all__ = ["copy_mask", "flatten_layers", "last_operation", "made_by"]


def last_operation(model):
    """Returns the operation that makes a model's single output, and its input; `(None, None)` without a graph."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None, None
    return made_by(outputs[0])


def made_by(tensor):
    """Returns the operation that makes a tensor of a graph, and what it makes it of: a tensor, or several."""
    operation, node_index, _ = tensor._keras_history
    inputs = operation._inbound_nodes[node_index].input_tensors
    return operation, inputs[0] if len(inputs) == 1 else inputs


def flatten_layers(layer, include_self=True, recursive=True):
    """Returns the layers inside a layer or model, as a list.

    Args:
        include_self: whether `layer` itself is the first of them.
        recursive: whether the layers inside its layers belong to them.
    """
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def copy_mask(source, target):
    """Gives the tensor `target` the mask that Keras's layers left on `source`, if there is one; returns `target`."""
    # Layers leave it on single tensors; a dict or list of outputs has none.
    mask = getattr(source, "_keras_mask", None)
    if mask is not None:
        target._keras_mask = mask
    return target
