"""Measurements of models."""

import keras
from keras import layers

from keras_tkd.runs.measuring import count_trainable_parameters


def test_trainable_parameters_do_not_count_statistics_and_frozen_weights():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(8, 3, name="convolution"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(4),
        ]
    )
    # Convolution 9 * 3 * 8 + 8; BatchNorm's scale and offset 2 * 8, its 2 * 8 statistics are not trained;
    # head 4 * 4 * 8 * 4 + 4.
    assert count_trainable_parameters(model) == 224 + 16 + 516
    assert model.count_params() == 224 + 32 + 516
    model.get_layer("convolution").trainable = False
    assert count_trainable_parameters(model) == 16 + 516
    model.trainable = False
    assert count_trainable_parameters(model) == 0
