"""Frozen models as a batch runs through them: whether they stay as they are, and get the pixels that they expect."""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.distillation.self_check import as_array
from keras_tkd.teachers.ensemble_reader import make_teacher_reader
from keras_tkd.utils import keras_graph
from keras_tkd.utils.layer_outputs import record_outputs

__all__ = [
    "Inspection",
    "count_parameters",
    "find_broken_variables",
    "inspect_model",
    "keep_variables",
    "watch_models",
]

# Outputs of layers that scale pixels are of order 1: they vary by 0.2 to 1 on photographs and digits alike.
_LEAST_SPREAD, _LARGEST_SIZE = 0.01, 10.0
_SCALES_DOWN = 0.1  # a `Rescaling` by more than this shifts pixels, as Caffe's models want them, and leaves them large
# Of a BatchNorm's inputs on the data that it was trained on, the deviation is that of its statistics.
_LEAST_RATIO, _LARGEST_RATIO = 0.05, 20.0


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Findings about a teacher that is no longer in memory when the student is checked.

    Attributes:
        parameters: see `count_parameters`.
        warnings: plain sentences.
    """

    parameters: int
    warnings: list[str]


@contextlib.contextmanager
def keep_variables(variables: list):
    """Puts variables back to what they are now when the context closes, and Keras's own source of seeds with them."""
    # A tensor that was read stays as it is when the variable is written: nothing is copied where nothing changes.
    kept = [(variable, tf.convert_to_tensor(variable)) for variable in variables]
    try:
        with keras_graph.keep_global_seed():
            yield
    finally:
        for variable, value in kept:
            variable.assign(value)


@contextlib.contextmanager
def watch_models(readers: list):
    """Watches models while they run in the context: yields a list, which has warnings in it once the context closes.

    Args:
        readers: `TeacherReader`s of models that are to stay as they are.
    """
    warnings = []
    with contextlib.ExitStack() as stack:
        for reader in readers:
            for model in reader.teachers:
                stack.enter_context(_watch_model(reader.role, model, warnings))
        yield warnings


@contextlib.contextmanager
def _watch_model(role, model, warnings):
    layers = _find_scaling_layers(model)
    before = [(variable, as_array(variable, None)) for variable in model.variables]
    with record_outputs(layers) as outputs:
        yield
    broken = find_broken_variables(model)
    if broken:
        warnings.append(
            f"{len(broken)} of the {role}'s variables hold values that are not finite, '{broken[0]}' for one: a "
            "training broke it. Take a file that was saved before."
        )
    # As bytes: a NaN that stays one does not move.
    moved = [variable.path for variable, value in before if value.tobytes() != as_array(variable, None).tobytes()]
    if moved:
        warnings.append(
            f"{len(moved)} of the {role}'s variables change when it is run, '{moved[0]}' for one, although it is "
            "frozen: one of its layers ignores `training=False`, so that statistics move or dropout goes on. Pass "
            "`training` on to it."
        )
    for position, output in outputs.items():
        warnings += _judge_pixels(role, layers[position], output)


def inspect_model(model, images) -> Inspection:
    """Runs a frozen teacher on images, and returns what is to be said of it; the model stays as it is.

    Args:
        model: one model, or a `TeacherEnsemble`.
        images: a batch of images, or whatever the model takes.
    """
    reader = make_teacher_reader(model)
    with keep_variables(model.variables), watch_models([reader]) as warnings:
        reader(images, training=False)
    return Inspection(count_parameters(model), warnings)


def count_parameters(model) -> int:
    """Counts the numbers that a model learned, frozen or not: its weights without BatchNorm's moving statistics."""
    norms = [layer for layer in keras_graph.flatten_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    statistics = {id(variable) for norm in norms for variable in (norm.moving_mean, norm.moving_variance)}
    return sum(int(np.prod(weight.shape)) for weight in model.weights if id(weight) not in statistics)


def find_broken_variables(model) -> list[str]:
    """Returns the paths of a model's variables that hold numbers that are not finite."""
    floats = [variable for variable in model.variables if keras.backend.is_float_dtype(variable.dtype)]
    return [variable.path for variable in floats if not np.isfinite(as_array(variable)).all()]


def _find_scaling_layers(model):
    """Finds the layers that say which pixels a model expects: those that scale them, and the first BatchNorm."""
    kinds = (keras.layers.Rescaling, keras.layers.Normalization)
    layers = keras_graph.flatten_layers(model)
    norms = [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [layer for layer in layers if isinstance(layer, kinds)] + norms[:1]


def _judge_pixels(role, layer, output):
    values = as_array(output)
    if isinstance(layer, keras.layers.BatchNormalization):
        return _judge_batch_norm(role, layer, values)
    if isinstance(layer, keras.layers.Rescaling) and np.abs(layer.scale).max() > _SCALES_DOWN:
        return []
    # Channel by channel: offsets that differ between channels are no spread.
    spread, size = values.std(axis=tuple(range(values.ndim - 1))).max(), np.abs(values).mean()
    made = f"The {role}'s layer '{layer.name}' makes {values.min():.3g} to {values.max():.3g} of these pixels"
    if spread < _LEAST_SPREAD:
        return [f"{made}, nearly all alike: the pixels may be scaled already. Give them as the {role} was trained."]
    if size > _LARGEST_SIZE:
        return [
            f"{made}, far more than 1: the pixels are larger than those that the {role} was trained on. Scale them."
        ]
    return []


def _judge_batch_norm(role, layer, values):
    axes = tuple(axis for axis in range(values.ndim) if axis != layer.axis % values.ndim)
    # What it normalizes deviates by 1, and `gamma` scales that.
    gamma = np.ones(values.shape[layer.axis]) if layer.gamma is None else np.abs(as_array(layer.gamma))
    ratios = values.std(axes)[gamma > 0] / gamma[gamma > 0]
    ratio = np.median(ratios) if len(ratios) else 1.0
    # Channels that are silent on every image are common, and no sign of wrong pixels.
    if ratio == 0 or _LEAST_RATIO <= ratio <= _LARGEST_RATIO:
        return []
    return [
        f"What reaches the {role}'s BatchNorm '{layer.name}' varies {ratio:.3g} times as much as in its training: the "
        "pixels are scaled otherwise than it was trained on, or it was not trained at all. If it wants another scale, "
        "give it one: keras_tkd.teachers.with_preprocessing, --teacher_preprocessing."
    ]
