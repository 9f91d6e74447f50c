"""Optimizer, learning rate, weight decay and loss on the labels of a run."""

import math

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.data.options import as_written
from keras_tkd.metrics import ExactMatch
from keras_tkd.utils.choices import OPTIMIZERS, check_complete
from keras_tkd.utils.keras_graph import flatten_layers

__all__ = [
    "SCHEDULE",
    "STEPS_PER_EXECUTION",
    "add_weight_decay",
    "compile_model",
    "compute_class_weights",
    "compute_learning_rate",
    "count_steps_together",
    "describe_label_loss",
    "make_label_map",
    "make_optimizer",
    "schedule_learning_rate",
]

# What names in the logs begin with that say what an epoch was trained with; no metric has such a name.
SCHEDULE = "schedule/"

# Steps from one return to Python to the next. Eight save small steps some of their work, and cost large ones nothing
# (benchmarks/choices.py); with more of them, little is gained and Ctrl-C and the progress bar wait longer.
STEPS_PER_EXECUTION = 8
# Multiplications in such an execution, unless a single step has more: Ctrl-C and SIGTERM are noticed when it has ended,
# and have ten seconds. Two CPU cores with AVX2 do 1e10 in a second. A count and no clock: a run is to be compiled alike
# on every machine, however busy.
_WORK_PER_EXECUTION = 5e10
# A weight that learns is multiplied forward, and twice on the way back: for its own gradient and its input's.
_PASSES = 3
_UNKNOWN_SIDE = 224  # pixels of images whose size a model leaves open: as many as are usual at most


def _make_sgd(config, **clipping):
    return keras.optimizers.SGD(config.learning_rate, momentum=config.momentum, **clipping)


def _make_adam(config, **clipping):
    return keras.optimizers.Adam(config.learning_rate, **clipping)


def _make_adamw(config, **clipping):
    return keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay, **clipping)


_MAKERS = check_complete(OPTIMIZERS, {"sgd": _make_sgd, "adam": _make_adam, "adamw": _make_adamw})


def make_optimizer(config):
    """Makes the optimizer of a training: one of Keras's, of its defaults but for what the configuration says."""
    # Clipped by the optimizer itself, which under loss scaling sees the gradients after they are scaled back.
    return _MAKERS[config.optimizer](config, global_clipnorm=config.clip_norm)


def schedule_learning_rate(optimizer, config):
    """Makes a callback that sets an online teacher's learning rate, whose optimizer Keras's scheduler does not see.

    It adds the rate to the logs of the epoch, as `schedule/teacher_learning_rate`.
    """

    def set_rate(epoch, logs=None):
        optimizer.learning_rate = compute_learning_rate(config, epoch)

    def show_rate(epoch, logs=None):
        logs[f"{SCHEDULE}teacher_learning_rate"] = float(tf.convert_to_tensor(optimizer.learning_rate))

    return keras.callbacks.LambdaCallback(on_epoch_begin=set_rate, on_epoch_end=show_rate)


def compile_model(model, config, **arguments):
    """Compiles a model, or a Distiller, for training as a configuration says: on class ids, or on rows.

    Rows are what `make_label_map` makes, or those of mixed images, or the labels of images of several classes.
    """
    more = []
    if config.multi_label:
        # What is called an accuracy here is that of whole images, as for images of one class each.
        loss, accuracy = keras.losses.BinaryCrossentropy(from_logits=True), ExactMatch
        more = [keras.metrics.BinaryAccuracy("binary_accuracy", threshold=0)]
    elif config.label_smoothing or config.mixes:
        # Keras smooths rows alone; and what it is compiled with also measures the held-out images. The class of a mixed
        # label is that of its larger share.
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing)
        accuracy = keras.metrics.CategoricalAccuracy
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        accuracy = keras.metrics.SparseCategoricalAccuracy
    model.compile(
        make_optimizer(config),
        loss,
        # By its name Keras would make it, and its variables, in the step, which TensorFlow then traces a second time.
        metrics=[accuracy("accuracy"), *more],
        # On several devices each step waits for the others anyway.
        steps_per_execution=1 if tf.distribute.has_strategy() else count_steps_together(model, config.batch_size),
        # XLA on GPUs alone, as Keras decides: on CPUs a step costs more with it (benchmarks/choices.py).
        jit_compile="auto",
        **arguments,
    )


def count_steps_together(model, batch_size):
    """Returns how many steps a run's models train by until Python is asked again: eight, or fewer where they are large.

    Args:
        model: built `keras.Model`, or a Distiller around several.
        batch_size: images of a step.
    """
    work = batch_size * _count_multiplications(model)
    return int(min(STEPS_PER_EXECUTION, max(1, _WORK_PER_EXECUTION // max(1, work))))


def _count_multiplications(layer):
    """Returns about how many multiplications a layer, or a model, makes of a sample in a training step."""
    tensors = keras.tree.flatten([getattr(layer, side, ()) for side in ("input", "output")])
    inner = flatten_layers(layer, include_self=False, recursive=False)
    # A graph is the sum of its layers, and so is what was never called in one, such as a Distiller. A layer of layers
    # without a graph counts as a whole: nobody knows at how many places each of them is used.
    if inner and (getattr(layer, "inputs", None) or not tensors):
        return sum(map(_count_multiplications, inner))
    places = max([math.prod(side or _UNKNOWN_SIDE for side in tensor.shape[1:-1]) for tensor in tensors], default=1)
    weights = sum(math.prod(weight.shape) for weight in layer.weights)
    return places * weights * (_PASSES if layer.trainable_variables else 1)


def make_label_map(config, num_classes, class_weights=None):
    """Makes a function for `tf.data.Dataset.map` that gives batches labels as the loss of `compile_model` reads them.

    Args:
        config: the training's.
        num_classes: number of classes.
        class_weights: `(num_classes,)`, the weight of an image of each class, for training; None for none.

    Returns:
        A function `(x, class ids) -> (x, labels)` or, with weights, `-> (x, labels, weights of the images)`.
    """

    @as_written
    def map_labels(x, ids):
        labels = tf.one_hot(ids, num_classes) if config.label_smoothing else ids
        if class_weights is None:
            return x, labels
        # As `fit(class_weight=...)` does it, which would map the data set too: here the look at the first batch, and an
        # epoch that is taken up, get the same weights.
        return x, labels, tf.gather(tf.constant(class_weights, tf.float32), ids)

    return map_labels


def compute_class_weights(config, labels, class_names):
    """Computes the weight of an image of each class, n / (classes * n_c), whose mean over the images is 1.

    Args:
        config: the training's, which may ask for no weights.
        labels: `(n,)`, class ids of the training images.
        class_names: the classes' names.

    Returns:
        float32 `(classes,)`; None with `class_weight="none"`.

    Raises:
        ValueError: weights are asked for, and a class has no images.

    Source: scikit-learn's `class_weight="balanced"`, after King & Zeng, "Logistic Regression in Rare Events Data",
    2001.
    """
    if config.class_weight == "none":
        return None
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        name = class_names[int(np.argmin(counts))]
        raise ValueError(
            "`class_weight` weights each class by its training images, and must have some of each. Received: "
            f"class_weight={config.class_weight!r}, and class {name!r} has none. Leave it out of --classes, or pass "
            "--class_weight=none"
        )
    return (len(labels) / (len(counts) * counts)).astype("float32")


def describe_label_loss(config):
    """Returns what a curve of the loss on the labels shows beside the loss itself: a text, empty where nothing."""
    smoothed = f" Labels are smoothed by {config.label_smoothing:g}, those of held-out images too."
    balanced = " Images are weighted by their class; held-out images are not."
    return smoothed * bool(config.label_smoothing) + balanced * (config.class_weight == "balanced")


def compute_learning_rate(config, epoch):
    """Returns the learning rate of an epoch, counted from 0.

    Source of the rise over the first epochs: Goyal et al., "Accurate, Large Minibatch SGD", 2017 (by epochs here).
    """
    rising = config.learning_rate_warmup_epochs
    if epoch < rising:
        return config.learning_rate * (epoch + 1) / (rising + 1)
    if config.schedule == "step":
        return config.learning_rate * config.schedule_factor ** sum(epoch >= e for e in config.schedule_epochs)
    if config.schedule == "cosine":
        # Not by Keras's schedule, which computes in float32: near the end 1 + cos is a small difference, and the last
        # of 1,000 epochs would have a rate 0.25 % too high.
        share = (epoch - rising) / (config.epochs - rising)
        return config.learning_rate * (1 + math.cos(math.pi * share)) / 2
    return config.learning_rate


def add_weight_decay(model, weight_decay):
    """Adds `weight_decay / 2 * w^2` for every trainable weight to the losses of a model (or layer).

    The gradient then holds `weight_decay * w` before momentum acts: the coupled decay of PyTorch's SGD, which the
    papers were trained with. It is set on the variables, not on the layers, and so is in no file.
    """
    if weight_decay:
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(weight_decay / 2)
