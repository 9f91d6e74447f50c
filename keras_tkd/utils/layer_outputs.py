"""Outputs of named layers of any model, from one forward pass."""

import contextlib
import difflib

import keras
import tensorflow as tf

from keras_tkd.utils.keras_graph import flatten_layers, get_input_dtypes

__all__ = ["LayerOutputs", "compute_output_shapes", "has_output", "name_outputs", "record_outputs"]

_PRE_ACTIVATION = "pre_activation"
_TF_FUNCTION = tf.types.experimental.PolymorphicFunction


class LayerOutputs:
    """Runs a model once and returns its final output together with the outputs of named layers.

    Layers inside nested models are named by a path (`"backbone/stage2"`). Subclassed models work as well as functional
    ones: during the pass each named layer's `call` is wrapped in the instance, so that nothing is rewired and nothing
    runs twice. If a model returns a dict, its entries are outputs under their own keys; it must have `"logits"`.
    `"conv1:pre_activation"` is what layer `conv1` computes before its own activation (`activation="relu"`).

    Args:
        model: a `keras.Model`.
        names: names of layers or paths; `"logits"` is always the final output.
        role: `"teacher"` or `"student"`, for an error that says whose layers are named where; None for neither.

    Call: `outputs(x, training=False)` gives `(output, {"logits": tensor, name: tensor, ...})`, `output` being what the
    model itself returned.

    Raises:
        ValueError: a name that no layer has, with the names that exist; a layer that the forward pass does not call; a
            model that returns a list.
    """

    def __init__(self, model, names=(), role=None):
        self.model = model
        self._role = role
        self.names = sorted(set(names) - {"logits"})

    def __call__(self, x, training=False):
        captured = {}
        with contextlib.ExitStack() as stack:
            for name in self.names:
                path, _, part = name.partition(":")
                layer = _find_layer(self.model, path)
                # A name without a layer may still be a key of the dict that the model returns.
                if layer is not None:
                    stack.enter_context(_recording(layer, part, name, captured))
            output = self.model(x, training=training)
        final = name_outputs(self.model, output)
        outputs = {"logits": self._pick("logits", final)}
        return output, outputs | {name: self._pick(name, captured | final) for name in self.names}

    def _pick(self, name, outputs):
        if name in outputs and not _is_out_of_scope(outputs[name]):
            return outputs[name]
        if _find_layer(self.model, name.partition(":")[0]) is not None:
            # One that was traced before does not call its layers again.
            if name in outputs or any(isinstance(layer.call, _TF_FUNCTION) for layer in flatten_layers(self.model)):
                raise ValueError(
                    f"Layer '{name}' of model '{self.model.name}' computes inside a graph of its own, a `tf.function` "
                    "or a branch, out of which nothing is read. Take `@tf.function` off the method that calls it "
                    '(training compiles the whole step), or return its output in a dict, {"logits": logits, ...}'
                )
            raise ValueError(f"Layer '{name}' of model '{self.model.name}' is not called in a forward pass")
        known = sorted(set(outputs) | {layer.name for layer in _child_layers(self.model)})
        near = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Model '{self.model.name}' has no output of that name. Received: {name!r}.{hint} It has {known} "
            "(layers of nested models are written as 'nested/layer')"
            + (
                f". This is the {self._role}: name one of its layers by the losses' `{self._role}_layers`, in a run by "
                f"--{self._role}_layers"
                if self._role
                else ""
            )
        )


def name_outputs(model, output) -> dict:
    """Returns what a model returned as a dict, with the final output under `"logits"`.

    Args:
        model: the model, for its name.
        output: a tensor or a dict of tensors.

    Raises:
        ValueError: a list of outputs, which does not say which of them are the logits.
    """
    if isinstance(output, (list, tuple)):
        raise ValueError(
            'A model returns its logits, or a dict that has them under "logits". Received: '
            f"a {type(output).__name__} of {len(output)} from model '{model.name}'. Name its outputs: "
            'keras.Model(inputs, {"logits": logits, ...})'
        )
    return output if isinstance(output, dict) else {"logits": output}


@contextlib.contextmanager
def record_outputs(layers: list):
    """Records what layers return while the context is open: yields a dict from a layer's position to its output.

    Layers that nothing calls have no entry; of one that is called several times the last output is kept.
    """
    captured = {}
    with contextlib.ExitStack() as stack:
        for position, layer in enumerate(layers):
            stack.enter_context(_recording(layer, "", position, captured))
        yield captured


@contextlib.contextmanager
def _recording(layer, part, name, captured):
    """Records in `captured[name]` what `layer` returns, or what its activation is given, while the context is open."""
    if part and (part != _PRE_ACTIVATION or not callable(getattr(layer, "activation", None))):
        raise ValueError(
            f"After a colon comes `{_PRE_ACTIVATION}`, for layers with an activation of their own. Received: {name!r}, "
            f"{type(layer).__name__}. Name the layer before the activation instead"
        )
    with contextlib.ExitStack() as stack:
        # A quantized layer computes in a method of its own.
        for method in ["activation"] if part else ["call", "quantized_call"]:
            stack.enter_context(_wrapping(layer, method, lambda x, y: captured.update({name: x if part else y})))
        yield


@contextlib.contextmanager
def _wrapping(layer, method, record):
    """Calls `record(first argument, output)` after each call of a layer's method while the context is open."""
    original = getattr(layer, method)
    own = vars(layer).get(method)

    def recorded(*args, **kwargs):
        outputs = original(*args, **kwargs)
        record(next(iter(args), None), outputs)
        return outputs

    # Past Keras's attribute tracking, which would take the function for a part of the layer's state.
    object.__setattr__(layer, method, recorded)
    try:
        yield
    finally:
        # Without the wrapper the class's own method is found again, unless the instance had one of its own.
        object.__delattr__(layer, method)
        if own is not None:
            object.__setattr__(layer, method, own)


def _is_out_of_scope(output):
    """Returns whether an output holds a tensor of another graph than that in which the caller computes."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return any(tf.is_symbolic_tensor(x) and x.graph is not graph for x in keras.tree.flatten(output))


def has_output(model, name):
    """Returns whether a model has a layer of this name or path, or returns a dict with such an entry."""
    returned = getattr(model, "output", None) if getattr(model, "inputs", None) else None
    return _find_layer(model, name) is not None or (isinstance(returned, dict) and name in returned)


def _find_layer(model, path):
    """Returns the layer at `path` (names joined by '/'), or None."""
    layer = model
    for name in path.split("/"):
        layer = next((child for child in _child_layers(layer) if child.name == name), None)
        if layer is None:
            return None
    return layer


def _child_layers(layer):
    return flatten_layers(layer, include_self=False, recursive=False)


def compute_output_shapes(model, names, input_shape, role=None) -> dict[str, tuple]:
    """Returns the shapes of the outputs that a `LayerOutputs` gives; builds the model if it is not built.

    Args:
        input_shape: shape of a batch of inputs, or a dict or list of shapes where the model takes several.
        role: see `LayerOutputs`.

    Returns:
        dict name -> tuple with None for the batch.
    """
    outputs = LayerOutputs(model, names, role)
    # Traced and never run: `compute_output_shape` knows nothing of inner layers, nor of a subclassed model.
    raised = []

    def run(x):
        try:
            return outputs(x, training=False)[1]
        except ValueError as error:
            raised.append(error)
            raise

    specs = keras.tree.map_shape_structure(lambda shape: tf.TensorSpec((None, *shape[1:])), input_shape)
    dtypes = get_input_dtypes(model)
    # Images of any numbers are cast by the models; words are not, nor made of numbers.
    if dtypes is not None and _is_same_structure(specs, dtypes):
        specs = keras.tree.map_structure(lambda spec, dtype: tf.TensorSpec(spec.shape, dtype), specs, dtypes)
    try:
        traced = tf.function(run, autograph=False).get_concrete_function(specs)
    except ValueError:
        # As it was raised: TensorFlow would put lines of this function before it ("in user code").
        if raised:
            raise raised[0] from None
        raise
    return {name: tuple(spec.shape) for name, spec in traced.structured_outputs.items()}


def _is_same_structure(first, second):
    try:
        keras.tree.assert_same_structure(first, second)
    except ValueError:
        return False
    return True
