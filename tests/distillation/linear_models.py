"""Models whose logits are linear in what they see, twelve samples of three classes, and their loss on the labels."""

import keras
import numpy as np

CLASSES = 3
RNG = np.random.default_rng(0)
X, TABULAR, FURTHER = (RNG.normal(size=(12, 5)).astype("float32") for _ in range(3))
Y = np.arange(12) % CLASSES
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def linear(name, seed, inputs=1, **arguments):
    """Logits that are linear in the input, or in the sum of two inputs of names `"image"` and `"tabular"`."""
    kernel = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
    dense = keras.layers.Dense(CLASSES, kernel_initializer=kernel, use_bias=False, **arguments)
    if inputs == 1:
        return keras.Sequential([keras.Input((5,)), dense], name=name)
    image, tabular = keras.Input((5,), name="image"), keras.Input((5,), name="tabular")
    struct = {"image": image, "tabular": tabular} if inputs == "dict" else [image, tabular]
    return keras.Model(struct, dense(keras.layers.Add()([image, tabular])), name=name)


def compiled(model, **options):
    model.compile(keras.optimizers.SGD(0.1), LABEL_LOSS, metrics=["accuracy"], **options)
    return model


def kernel(model):
    return model.get_weights()[0].astype("float64")


def evaluate(model, x, y=Y, **given):
    return model.evaluate(x, y, batch_size=12, verbose=0, return_dict=True, **given)


def label_loss(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return -np.log((e / e.sum(-1, keepdims=True))[np.arange(12), Y])
