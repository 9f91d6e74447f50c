"""Floating-point operations of a network, from the shapes of its layers."""

import keras
import numpy as np

from keras_tkd.utils.keras_graph import flatten_layers


def forward_operations(model):
    """Counts the operations of a model's convolutions and dense layers for one image, two to a multiply-add."""
    operations = 0
    for layer in flatten_layers(model):
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            # Each weight of the kernel meets each position of the output once.
            positions = np.prod(layer.output.shape[1:-1], dtype="int64")
            operations += 2 * int(positions) * int(np.prod(layer.kernel.shape))
    return operations


def training_operations(model):
    """Counts the operations of a training step for one image, by the rule that backward is twice forward."""
    return 3 * forward_operations(model)
