"""Layers of a subclass's own that a step builds: a file has what it takes to build them again, before their weights."""

import keras

__all__ = ["build_layers", "describe_layers"]

_BUILD, _COUNT = "build_config", "weights"


def describe_layers(layers: list) -> list[dict]:
    """Returns how each layer was built, and how many weights it has, as plain data."""
    return [
        {_BUILD: keras.saving.serialize_keras_object(layer.get_build_config()), _COUNT: len(layer.weights)}
        for layer in layers
    ]


def build_layers(layers: list, descriptions: list[dict]):
    """Builds the layers that are not built yet as `describe_layers` says.

    Raises:
        ValueError: layers that are not made by the constructor, or that cannot be built without a step.
    """
    fix = "Make it in the class's constructor, and call it there on a `keras.Input`; the file has its weights"
    if len(layers) != len(descriptions):
        # One without weights may be made as late as it likes.
        layers = [layer for layer in layers if layer.weights or not layer.built]
        descriptions = [description for description in descriptions if description[_COUNT]]
    if len(layers) != len(descriptions):
        raise ValueError(
            "A layer of a subclass's own is made by its constructor, for its weights to be loaded. Received: "
            f"{len(descriptions)} layers in the file, {len(layers)} after the constructor. {fix}"
        )
    for layer, description in zip(layers, descriptions, strict=True):
        if layer.built:
            continue
        layer.build_from_config(keras.saving.deserialize_keras_object(description[_BUILD]) or {})
        if len(layer.weights) != description[_COUNT]:
            raise ValueError(
                "A layer of a subclass's own that a step builds must have a `build` that makes all its weights, for "
                f"them to be loaded. Received: {type(layer).__name__} '{layer.name}', {len(layer.weights)} weights "
                f"after `build`, {description[_COUNT]} in the file. {fix}"
            )
