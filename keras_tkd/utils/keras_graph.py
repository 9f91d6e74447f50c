"""Every use of a private name of Keras, so that a new Keras breaks one file."""

import contextlib
import math
import random
import threading

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from keras.src.backend.tensorflow import trainer
from keras.src.losses import loss as loss_module
from keras.src.saving.serialization_lib import SafeModeScope

__all__ = [
    "begin_averages",
    "clip_gradients",
    "compute_compiled_loss",
    "compute_loss",
    "copy_compiled_loss",
    "copy_mask",
    "find_consumers",
    "flatten_layers",
    "fresh_names",
    "get_input_dtypes",
    "get_input_names",
    "get_input_shape",
    "get_last_operation",
    "get_loss_tracker",
    "get_mask",
    "get_producer",
    "keep_global_seed",
    "load_guarded",
    "losses_of_one_device",
    "mend_distributed_fit",
    "unscale_loss",
]

_GLOBAL_SEED = "global_seed_generator"
_NAMES_GIVEN = "object_name_uids"
_LOADING = threading.RLock()
_THREAD = threading.local()


def get_last_operation(model):
    """Returns the operation that makes a model's single output, and its input; `(None, None)` without a graph."""
    outputs = getattr(model, "outputs", None)
    if not outputs or len(outputs) != 1:
        return None, None
    return get_producer(outputs[0])


def get_producer(tensor):
    """Returns the operation that makes a tensor of a graph, and what it makes it of: a tensor, or several."""
    operation, node_index, _ = tensor._keras_history
    inputs = operation._inbound_nodes[node_index].input_tensors
    return operation, inputs[0] if len(inputs) == 1 else inputs


def find_consumers(model, tensor):
    """Returns what takes a tensor of a functional or sequential model's graph: pairs of operation and what it makes."""
    # From the outputs: layers that are shared with other models know of calls that are not this model's.
    waiting, seen, found = list(model.outputs), set(), []
    while waiting:
        made = waiting.pop()
        if id(made) in seen:
            continue
        seen.add(id(made))
        operation, inputs = get_producer(made)
        inputs = inputs if isinstance(inputs, (list, tuple)) else [inputs]
        found += [(operation, made)] * any(part is tensor for part in inputs)
        # Beyond the model's own inputs another model may have made them.
        waiting += [part for part in inputs if not any(part is own for own in model.inputs)]
    return found


def flatten_layers(layer, include_self=True, recursive=True):
    """Returns the layers inside a layer or model, as a list.

    Args:
        include_self: whether `layer` itself is the first of them.
        recursive: whether the layers inside its layers belong to them.
    """
    return list(layer._flatten_layers(include_self=include_self, recursive=recursive))


def get_input_names(model) -> tuple[str, ...]:
    """Returns the names by which a model takes its inputs from a dict, where its graph has several; else `()`."""
    inputs = _get_inputs(model)
    if isinstance(inputs, dict):
        return tuple(inputs)
    # A list of inputs is taken from a dict too, by the names of its tensors.
    return tuple(tensor.name for tensor in inputs) if isinstance(inputs, (list, tuple)) else ()


def get_input_shape(model):
    """Returns the shape of a batch of a model's inputs, nested as its inputs are; None where no graph says it."""
    inputs = _get_inputs(model)
    return None if inputs is None else keras.tree.map_structure(lambda tensor: tuple(tensor.shape), inputs)


def get_input_dtypes(model):
    """Returns the dtypes of a model's inputs, nested as its inputs are; None where no graph says them."""
    inputs = _get_inputs(model)
    return None if inputs is None else keras.tree.map_structure(lambda tensor: tensor.dtype, inputs)


def _get_inputs(model):
    """Returns the inputs of a functional or sequential model as they were given; a single one without its container."""
    if not model.built or not getattr(model, "inputs", None):
        return None
    return model.inputs[0] if len(model.inputs) == 1 else model.input


def compute_loss(model, x, y, y_pred, sample_weight, training):
    """Calls `model.compute_loss` as Keras's own training step does.

    An override in the signature of before Keras 3.3 is called without `training`.
    """
    return model._compute_loss(x, y, y_pred, sample_weight, training=training)


def compute_compiled_loss(model, y, y_pred, sample_weight):
    """Computes the loss that was given to `compile`; None where none was given."""
    return None if model._compile_loss is None else model._compile_loss(y, y_pred, sample_weight)


def copy_compiled_loss(model):
    """Returns a function like `compute_compiled_loss`, `(y, y_pred, sample_weight)`, for the outputs of another model.

    A loss of several outputs logs each of them: of the other model's, nothing is logged.
    """
    loss = model._compile_loss
    if loss is None:
        return lambda y, y_pred, sample_weight: None
    copy = type(loss)(loss._user_loss, loss._user_loss_weights, output_names=loss.output_names)
    # Inside a function: an attribute that is a loss would be looked through for weights when the model is saved.
    return lambda y, y_pred, sample_weight: copy(y, y_pred, sample_weight)


def begin_averages(optimizer):
    """Has averages of weights (`use_ema`) begin at the weights, of an optimizer that has applied no step yet.

    Keras's are zeros until then, and are what it gives the model at the end of a `fit`.
    """
    own = getattr(optimizer, "inner_optimizer", optimizer)  # under loss scaling
    for each in getattr(own, "optimizers", [own]):  # of parts of the model
        if each.use_ema and each.built and not int(each.iterations.numpy()):
            pairs = zip(each._trainable_variables, each._model_variables_moving_average, strict=True)
            for variable, average in pairs:
                if average is not None:
                    average.assign(keras.ops.convert_to_numpy(variable))


def clip_gradients(optimizer, gradients: list) -> list:
    """Returns gradients as an optimizer clips them before it applies them."""
    return optimizer._clip_gradients(gradients)


def unscale_loss(value):
    """Returns a loss's value without the division by the number of replicas that Keras's losses do under a strategy."""
    return loss_module.unscale_loss_for_distribution(value)


@contextlib.contextmanager
def losses_of_one_device():
    """Has Keras's losses not divide by the number of replicas, in this thread and while the context is open.

    Under a strategy Keras divides means, and neither sums nor what is one number already: a value does not tell.
    """
    before, _THREAD.whole = getattr(_THREAD, "whole", False), True
    try:
        yield
    finally:
        _THREAD.whole = before


def get_loss_tracker(model):
    """Returns the metric that Keras logs as `loss`; None before `compile`."""
    return getattr(model, "_loss_tracker", None)


def get_mask(tensor):
    """Returns the mask that Keras's layers left on a tensor; None without one."""
    return getattr(tensor, "_keras_mask", None)


def copy_mask(source, target, valid=None):
    """Gives the tensor `target` the mask that Keras's layers left on `source`, if there is one; returns `target`.

    Args:
        valid: bool tensor, a second mask of the same shape: what either of them leaves out does not count.
    """
    # Layers leave it on single tensors; a dict or list of outputs has none.
    mask = get_mask(source)
    if valid is not None:
        mask = valid if mask is None else keras.ops.logical_and(mask, valid)
    if mask is not None:
        target._keras_mask = mask
    return target


@contextlib.contextmanager
def keep_global_seed():
    """Puts Keras's own source of seeds, for all that is given none, back to what it is now when the context closes."""
    generator, state = global_state.get_global_attribute(_GLOBAL_SEED), random.getstate()
    value = None if generator is None else tf.convert_to_tensor(generator.state)
    try:
        yield
    finally:
        if generator is not None:
            generator.state.assign(value)
        elif global_state.get_global_attribute(_GLOBAL_SEED) is not None:
            # Keras made it, of a number that it drew from Python: the next time, it is to be the same again.
            global_state.set_global_attribute(_GLOBAL_SEED, None)
            random.setstate(state)


@contextlib.contextmanager
def fresh_names():
    """Numbers layers without a name of their own as in a new process, while the context is open."""
    given = global_state.get_global_attribute(_NAMES_GIVEN)
    global_state.set_global_attribute(_NAMES_GIVEN, None)
    try:
        yield
    finally:
        global_state.set_global_attribute(_NAMES_GIVEN, given)


@contextlib.contextmanager
def load_guarded(max_bytes, safe_mode=True):
    """Has Keras load models whose weights take no more than `max_bytes` and, in safe mode, run no code of a file's.

    Raises:
        ValueError: in the block, before memory is taken for weights beyond that.
    """
    initialize = keras.Variable._initialize_with_initializer
    left = max_bytes

    def initialize_within(variable, initializer):
        nonlocal left
        left -= math.prod(variable._shape) * tf.as_dtype(variable.dtype).size
        if left < 0:
            raise ValueError(f"its layers have weights of more than {max_bytes:,} bytes, which its size does not allow")
        return initialize(variable, initializer)

    # Whoever loads in another thread meanwhile waits: each puts back what it found. The scope, and not the argument
    # `safe_mode`, for `keras.config.enable_unsafe_deserialization` wins over the argument.
    with _LOADING, SafeModeScope(safe_mode):
        keras.Variable._initialize_with_initializer = initialize_within
        try:
            yield
        finally:
            keras.Variable._initialize_with_initializer = initialize


def mend_distributed_fit():
    """Lets `fit` of Keras train under the strategies of `tf.distribute`, for any model of this process, from here on.

    Before the first step it builds a model on the mean of a batch over the replicas, which fails where these have not
    the same number of samples, and under `MultiWorkerMirroredStrategy`; and there it takes the mean of scalars along
    their first axis (keras issue 20585). Here a model is built on what one replica has, and scalars are averaged.
    """
    if getattr(trainer.reduce_per_replica, "mended", False):
        return
    _mend_scaling()
    _mend_batch_normalization()
    build, reduce = trainer.TensorFlowTrainer._maybe_symbolic_build, trainer.reduce_per_replica

    def build_on_one_share(model, iterator=None, data_batch=None):
        strategy = model._distribute_strategy
        if strategy is None:
            return build(model, iterator, data_batch)
        if iterator is None:
            share = keras.tree.map_structure(lambda x: strategy.experimental_local_results(x)[0], data_batch)
        else:
            # Shapes and dtypes are all that it takes. A first batch would cost data that count their passes one of
            # these, an epoch that nobody is trained on.
            specs = iterator._distributed_dataset.element_spec
            share = keras.tree.map_structure(lambda spec: tf.nest.flatten(spec, expand_composites=True)[0], specs)
        with strategy.scope():
            model._symbolic_build(data_batch=share)

    def reduce_scalars(values, strategy, reduction):
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or reduction == "concat":
            return reduce(values, strategy, reduction)
        return keras.tree.map_structure(lambda value: strategy.reduce("MEAN", value, axis=None), values)

    reduce_scalars.mended = True
    trainer.TensorFlowTrainer._maybe_symbolic_build = build_on_one_share
    trainer.reduce_per_replica = reduce_scalars


def _mend_scaling():
    """Lets `losses_of_one_device` switch off what Keras does to losses because of the number of replicas."""

    def make_switch(scale):
        return lambda value: value if getattr(_THREAD, "whole", False) else scale(value)

    for name in ("scale_loss_for_distribution", "unscale_loss_for_distribution"):
        setattr(loss_module, name, make_switch(getattr(loss_module, name)))


def _mend_batch_normalization():
    """Lets BatchNorm keep its moving statistics where a replica has no image of a batch: of none, they are NaN."""
    compute = keras.layers.BatchNormalization._moments

    def compute_or_keep(layer, inputs, mask):
        if layer.synchronized:  # those are of all replicas
            return compute(layer, inputs, mask)
        kept = [tf.cast(value, inputs.dtype) for value in (layer.moving_mean, layer.moving_variance)]
        return [tf.where(tf.size(inputs) > 0, *pair) for pair in zip(compute(layer, inputs, mask), kept, strict=True)]

    keras.layers.BatchNormalization._moments = compute_or_keep
