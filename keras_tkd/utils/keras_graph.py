"""Every use of a private name of Keras, so that a new Keras breaks one file."""


def last_operation(model):
    """The operation that makes the model's single output and its input tensor; `(None, None)` without a graph."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None, None
    return made_by(outputs[0])


def made_by(tensor):
    """The operation that makes a tensor of a graph, and what it makes it of: a tensor, or several."""
    operation, node_index, _ = tensor._keras_history
    inputs = operation._inbound_nodes[node_index].input_tensors
    return operation, inputs[0] if len(inputs) == 1 else inputs


def copy_mask(source, target):
    """Gives the tensor `target` the mask that Keras's layers left on `source`, if there is one; returns `target`."""
    mask = getattr(source, "_keras_mask", None)
    if mask is not None:
        target._keras_mask = mask
    return target
