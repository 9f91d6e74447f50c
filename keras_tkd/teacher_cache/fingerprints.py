"""Short strings that differ if arrays, models or functions differ."""

import functools
import hashlib
import json

import keras
import numpy as np

from keras_tkd.utils.keras_graph import flatten_layers
from keras_tkd.utils.saved_models import hash_graph, is_saved_model

__all__ = ["describe_function", "hash_array", "hash_layers", "hash_pieces", "hash_weights"]

_PIECE = 2**26  # bytes of an array that are hashed at a time


def hash_array(array):
    """Returns a hash of an array's values in their order, its shape and its dtype."""
    rows = max(1, _PIECE * len(array) // max(1, array.nbytes))
    # Piece by piece, so that of an array that is mapped from a file no more than one piece is in memory.
    return hash_pieces(array.dtype, array.shape, (array[i : i + rows] for i in range(0, len(array), rows)))


def hash_pieces(dtype, shape, pieces):
    """Returns the `hash_array` of an array whose values come in pieces, one after another.

    Args:
        dtype, shape: those of the whole array.
        pieces: iterable of arrays, consecutive rows of the whole.
    """
    digest = hashlib.sha256(f"{np.dtype(dtype).str} {tuple(shape)}".encode())
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece))
    return _shorten(digest)


def hash_weights(model):
    """Returns a hash of the values of a built model's weights, BatchNorm's statistics included."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(hash_array(np.atleast_1d(weight)).encode())
    return _shorten(digest)


def hash_layers(model):
    """Returns a hash of the classes and settings of a model's layers, precision included.

    It does not depend on the layers' names, on which of them are frozen, or on how they are connected; of a SavedModel
    it depends on the operations, and not on where it lies.
    """
    leaves = [layer for layer in flatten_layers(model) if not flatten_layers(layer, include_self=False)]
    descriptions = json.dumps([_describe_layer(layer) for layer in leaves], sort_keys=True)
    return _shorten(hashlib.sha256(descriptions.encode()))


def _describe_layer(layer):
    """Returns a layer's class and settings as plain data."""
    try:
        config = layer.get_config()
    except NotImplementedError:  # a user's layer, which need not have a configuration
        config = {}
    # A teacher is the same whatever its layers are called: automatic names count up within a process.
    settings = {key: value for key, value in config.items() if key not in ("name", "trainable")}
    if isinstance(layer, keras.layers.TFSMLayer):
        # A copy is the same teacher. What it computes is not in its settings but in its folder, if that is still there.
        settings["filepath"] = hash_graph(layer.filepath) if is_saved_model(layer.filepath) else None
    # An object that is no plain data may have its address in its text, which differs from process to process.
    return type(layer).__name__, json.loads(json.dumps(settings, default=lambda value: type(value).__name__))


def describe_function(function):
    """Returns the name of a function, with the arguments of a `functools.partial`; None for None."""
    if isinstance(function, functools.partial):
        bound = [*map(_describe_value, function.args)]
        bound += [f"{key}={_describe_value(value)}" for key, value in function.keywords.items()]
        return f"{describe_function(function.func)}({', '.join(bound)})"
    return getattr(function, "__qualname__", type(function).__name__) if function else None


def _describe_value(value):
    # The text of a function would be its address, which differs from process to process.
    if isinstance(value, tuple) and all(map(callable, value)):
        return " + ".join(map(describe_function, value))
    return describe_function(value) if callable(value) else repr(value)


def _shorten(digest):
    # 128 bits: two of them are never equal by chance, and a manifest with them is still readable.
    return digest.hexdigest()[:32]
