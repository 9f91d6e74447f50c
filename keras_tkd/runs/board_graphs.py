"""Graphs of the layers of models, for TensorBoard."""

import json

import tensorflow as tf
from tensorboard.plugins.graph import keras_util

__all__ = ["make_graph"]


def make_graph(model, name):
    """Makes the graph of a model's layers, a `GraphDef` whose nodes are all inside a box of a name.

    Returns:
        The graph; None for a model that does not say what it is made of, such as a subclassed one.
    """
    try:
        described = json.loads(model.to_json())
        described["config"]["name"] = name
        graph = keras_util.keras_model_to_graph_def(described)
    # Neither Keras nor TensorBoard says what it raises for a model that it cannot describe; it is a picture less.
    except Exception as error:
        print(f"TensorBoard shows no graph of the {name}: {type(error).__name__}: {error}", flush=True)
        return None
    for node in graph.node:
        # TensorBoard names a node by its operation, which here is a layer.
        node.op = node.attr["keras_class"].s.decode()
    # The same message, of TensorFlow's own class.
    return tf.compat.v1.GraphDef.FromString(graph.SerializeToString())
