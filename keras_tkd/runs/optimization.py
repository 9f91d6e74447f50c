"""Optimizer, learning rate and weight decay of a run."""

import math

import keras

__all__ = [
    "STEPS_PER_EXECUTION",
    "add_weight_decay",
    "compile_model",
    "compute_learning_rate",
    "make_optimizer",
    "schedule_learning_rate",
]

# Steps from one return to Python to the next. Eight save small steps some of their work, and cost large ones nothing
# (benchmarks/choices.py); with more of them, little is gained and Ctrl-C and the progress bar wait longer.
STEPS_PER_EXECUTION = 8


def make_optimizer(config):
    """Makes the optimizer of a training: stochastic gradient descent with momentum."""
    return keras.optimizers.SGD(config.learning_rate, momentum=config.momentum)


def schedule_learning_rate(optimizer, config):
    """Makes a callback that sets an optimizer's learning rate: a second one's, which Keras's scheduler does not see."""

    def set_rate(epoch, logs=None):
        optimizer.learning_rate = compute_learning_rate(config, epoch)

    return keras.callbacks.LambdaCallback(on_epoch_begin=set_rate)


def compile_model(model, config, **arguments):
    """Compiles a model, or a Distiller, for training as a run's configuration says: on class ids, or on mixed rows."""
    # By its name Keras would make the accuracy, and its variables, in the step, which TensorFlow then traces twice.
    if config.mixes:
        # The class of a mixed label is that of its larger share.
        loss, accuracy = keras.losses.CategoricalCrossentropy, keras.metrics.CategoricalAccuracy
    else:
        loss, accuracy = keras.losses.SparseCategoricalCrossentropy, keras.metrics.SparseCategoricalAccuracy
    model.compile(
        make_optimizer(config),
        loss(from_logits=True),
        metrics=[accuracy("accuracy")],
        steps_per_execution=STEPS_PER_EXECUTION,
        # XLA on GPUs alone, as Keras decides: on CPUs a step costs more with it (benchmarks/choices.py).
        jit_compile="auto",
        **arguments,
    )


def compute_learning_rate(config, epoch):
    """Returns the learning rate of an epoch, counted from 0."""
    if config.schedule == "step":
        return config.learning_rate * config.schedule_factor ** sum(epoch >= e for e in config.schedule_epochs)
    if config.schedule == "cosine":
        # Not by Keras's schedule, which computes in float32: near the end 1 + cos is a small difference, and the last
        # of 1,000 epochs would have a rate 0.25 % too high.
        return config.learning_rate * (1 + math.cos(math.pi * epoch / config.epochs)) / 2
    return config.learning_rate


def add_weight_decay(model, weight_decay):
    """Adds `weight_decay / 2 * w^2` for every trainable weight to the losses of a model (or layer).

    The gradient then holds `weight_decay * w` before momentum acts: the coupled decay of PyTorch's SGD, which the
    papers were trained with. It is set on the variables, not on the layers, and so is in no file.
    """
    if weight_decay:
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(weight_decay / 2)
