"""Models out of TensorFlow SavedModel folders, as Keras models.

A SavedModel is a graph of TensorFlow's operations, which TensorFlow runs. What such an operation may do to the machine
is looked for before the graph is loaded: one that touches files, processes or Python is refused.
"""

import hashlib
import pathlib

import keras
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

__all__ = ["SAVED_MODEL", "VARIABLES", "hash_graph", "is_saved_model", "load_saved_model"]

SAVED_MODEL = "saved_model.pb"
VARIABLES = "variables"  # the folder beside it, with the weights
# How `tf.saved_model.save` names its default, and `keras.Model.export` beside it.
_PREFERRED = ("serving_default", "serve")
# Operations that reach out of the graph. Those that put a file's values into its variables run when it is loaded, by
# TensorFlow itself, and are none that a signature needs.
_REACHING = ("File", "PyFunc", "Save", "Restore", "MergeV2", "Dataset", "Reader", "Socket", "Remote", "Rpc", "Dump")
# Settings of operations that say where they ran or what they were called, and not what they compute.
_ABOUT_THE_EXPORT = ("config_proto", "shared_name")


def is_saved_model(path):
    """Returns whether a path is a folder that holds a SavedModel."""
    return (pathlib.Path(path) / SAVED_MODEL).is_file()


def load_saved_model(folder, argument="path"):
    """Loads a SavedModel as a functional Keras model around `keras.layers.TFSMLayer`.

    Its layers have no names: the model has the outputs of the SavedModel's signature, and no others. In training it
    computes what it does in inference.

    Args:
        folder: the folder, which `tf.saved_model.save` or `keras.Model.export` wrote.
        argument: what an error calls it.

    Returns:
        A `keras.Model` with one input; its output is a tensor, or a dict of several by the signature's names.

    Raises:
        ValueError: a folder that cannot be loaded, without a signature or with one of several inputs, or whose
            operations reach out of the graph.
    """
    try:
        graph = _read_graph(folder)
        name, signature = _choose_signature(graph)
        _check_operations(graph, signature)
        layer = keras.layers.TFSMLayer(str(folder), call_endpoint=name, dtype="float32")
        (given,) = signature.inputs.values()
        shape = [None if axis.size < 0 else axis.size for axis in given.tensor_shape.dim]
        inputs = keras.Input(shape[1:], dtype=tf.as_dtype(given.dtype).name)
        outputs = layer(inputs)
    except Exception as error:  # A broken one fails in protobuf, in TensorFlow's loader or in its graph.
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise ValueError(
            f"`{argument}` must be a SavedModel that can be loaded. Received: {argument}={str(folder)!r}. "
            f"Loading says: {reason}"
        ) from error
    if isinstance(outputs, dict) and len(outputs) == 1:
        (outputs,) = outputs.values()
    return keras.Model(inputs, outputs, name=pathlib.Path(folder).name)


def hash_graph(folder):
    """Returns a hash of the operations and constants of a SavedModel.

    That of one model is the same in each of its exports, whose files differ: names, of which TensorFlow counts some up,
    are not part of it, nor is how the operations are connected.

    Args:
        folder: the folder of a SavedModel.
    """
    graph = _read_graph(folder).graph_def
    # Beside the functions stand constants that they read. Texts among these are names, and all else is about variables.
    constants = [node for node in graph.node if node.op == "Const"]
    nodes = [node for node in constants if node.attr["dtype"].type != tf.string.as_datatype_enum]
    nodes += [node for function in graph.library.function for node in function.node_def]
    return hashlib.sha256("\n".join(sorted(map(_describe_operation, nodes))).encode()).hexdigest()


def _describe_operation(node):
    """Returns the kind of an operation, with a hash of its settings."""
    digest = hashlib.sha256()
    for name, value in sorted(node.attr.items()):
        # Functions have numbers in their names, and are listed themselves. What begins so are TensorFlow's own notes.
        is_function = value.HasField("func") or value.list.func
        if not is_function and not name.startswith("_") and name not in _ABOUT_THE_EXPORT:
            digest.update(f"{name}\0".encode() + value.SerializeToString(deterministic=True))
    return f"{node.op} {digest.hexdigest()}"


def _read_graph(folder):
    """Reads the graph of a SavedModel, without running anything."""
    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((pathlib.Path(folder) / SAVED_MODEL).read_bytes())
    except DecodeError as error:
        raise ValueError(f"its {SAVED_MODEL} is damaged, or is none") from error
    if len(saved.meta_graphs) != 1:
        raise ValueError(f"it holds {len(saved.meta_graphs)} graphs, and which of them is meant it does not say")
    return saved.meta_graphs[0]


def _choose_signature(graph):
    """Returns `(name, signature)` of the signature that predicts."""
    signatures = {name: each for name, each in graph.signature_def.items() if not name.startswith("__")}
    if not signatures:
        raise ValueError("it has no signature. Save it with one, as `keras.Model.export` does")
    only = signatures if len(signatures) == 1 else ()
    name = next((name for name in (*_PREFERRED, *only) if name in signatures), None)
    if name is None:
        # The first of them might be an encoder's, whose numbers would be taken for logits.
        raise ValueError(
            f"it has the signatures {', '.join(sorted(signatures))}, and none is called {_PREFERRED[0]}. Save it with "
            "that name for the one that predicts"
        )
    if len(signatures[name].inputs) != 1:
        raise ValueError(
            f"its signature '{name}' takes {', '.join(sorted(signatures[name].inputs))}, and a classifier takes images"
        )
    return name, signatures[name]


def _check_operations(graph, signature):
    """Raises `ValueError` if anything that loading or predicting runs reaches out of the graph."""
    objects = graph.object_graph_def
    if not objects.nodes:
        raise ValueError("it is one of TensorFlow 1, whose operations cannot be told apart from those that load it")
    nodes = {node.name: node for node in graph.graph_def.node}
    functions = {function.signature.name: function.node_def for function in graph.graph_def.library.function}
    # The signatures, and what loading initializes itself: in the graph all that their outputs need ...
    signatures = [signature, *(each for name, each in graph.signature_def.items() if name.startswith("__"))]
    waiting = [tensor.name for each in signatures for tensor in each.outputs.values()]
    reached = {}
    while waiting:
        name = waiting.pop().lstrip("^").partition(":")[0]
        if name in nodes and name not in reached:
            reached[name] = nodes[name]
            waiting += nodes[name].input
    # ... and of functions all that they hold. Those of the objects, which loading may call, are listed beside them.
    operations, called = list(reached.values()), set()
    waiting = list(objects.concrete_functions)
    while operations or waiting:
        for node in operations:
            if any(part in node.op for part in _REACHING):
                raise ValueError(
                    f"its operation '{node.op}' reaches files, processes or Python, which no classifier needs"
                )
            for value in node.attr.values():
                waiting += [value.func.name, *(each.name for each in value.list.func)]
        names = {name for name in waiting if name in functions} - called
        called |= names
        operations, waiting = [node for name in names for node in functions[name]], []
