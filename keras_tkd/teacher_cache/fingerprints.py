"""Short strings that differ where arrays, models or functions do."""

import functools
import hashlib
import json

import numpy as np

PIECE = 2**26  # bytes of an array that are looked at together


def of_array(array):
    """Of the values of an array in their order, its shape and its dtype."""
    rows = max(1, PIECE * len(array) // max(1, array.nbytes))
    return of_pieces(array.dtype, array.shape, (array[i : i + rows] for i in range(0, len(array), rows)))


def of_pieces(dtype, shape, pieces):
    """That of the array of this dtype and shape whose values come in pieces, one after another."""
    digest = hashlib.sha256(f"{np.dtype(dtype).str} {tuple(shape)}".encode())
    for piece in pieces:
        digest.update(np.ascontiguousarray(piece))
    return short(digest)


def of_weights(model):
    """Of the values of a built model's weights, BatchNorm's statistics included."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(of_array(np.atleast_1d(weight)).encode())
    return short(digest)


def of_layers(model):
    """Of the kinds and settings of a model's layers, precision included; names, and what is frozen, aside.

    How the layers are connected is not seen.
    """
    leaves = [layer for layer in model._flatten_layers() if not list(layer._flatten_layers(include_self=False))]
    return short(hashlib.sha256(json.dumps([describe_layer(layer) for layer in leaves], sort_keys=True).encode()))


def describe_layer(layer):
    try:
        config = layer.get_config()
    except NotImplementedError:  # a layer of the user's own
        config = {}
    settings = {key: value for key, value in config.items() if key not in ("name", "trainable")}
    # What is no plain data has no name that stays the same.
    return type(layer).__name__, json.loads(json.dumps(settings, default=lambda value: type(value).__name__))


def describe_function(function):
    """The name of a function, arguments that are bound to it included; None for None."""
    if isinstance(function, functools.partial):
        bound = [*map(repr, function.args), *(f"{key}={value!r}" for key, value in function.keywords.items())]
        return f"{describe_function(function.func)}({', '.join(bound)})"
    return getattr(function, "__qualname__", type(function).__name__) if function else None


def short(digest):
    return digest.hexdigest()[:32]
