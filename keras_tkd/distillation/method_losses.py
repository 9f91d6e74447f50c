"""Losses of a method, made from its plain data."""

from keras_tkd import losses as loss_classes
from keras_tkd.methods.registry import METHODS, as_layer_argument

__all__ = ["make_losses"]


def make_losses(
    method,
    *,
    distillation_loss_weights=None,
    teacher_layers=None,
    student_layers=None,
    substitutes=None,
    seed=0,
    labels=None,
    **given,
):
    """Makes the losses of a method, and gives their weights.

    Args:
        method: a name in `METHODS`, or a `Method`, such as `keras_tkd.methods.combine` makes of several.
        distillation_loss_weights: a weight for each term, in place of its own.
        teacher_layers, student_layers: what all losses read, a name or a list, in place of each term's layers.
        substitutes: dict `"teacher_layers"`, `"student_layers"` -> dict from the name of a layer to what is read in its
            place, of models that call it otherwise.
        seed: seed of losses that draw at random.
        labels: class ids of all training samples, for losses that keep something of each (`crd`).
        given: arguments of the losses in place of the published values: `temperature`, `margin`, `miner` and so on;
            None is the published value.

    Returns:
        `(losses, distillation_loss_weights)`, lists of equal length.

    Raises:
        ValueError: an argument that no loss of the method reads; weights of the wrong number; labels that are missing.
    """
    if isinstance(method, str) and method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}. Received: method={method!r}")
    name, method = (method, METHODS[method]) if isinstance(method, str) else (method.summary, method)
    terms = method.terms
    given = {argument: value for argument, value in given.items() if value is not None}
    for argument, value in given.items():
        if not method.reads(argument):
            raise ValueError(f"Method '{name}' reads no `{argument}`. Received: {argument}={value!r}")
    weights = [term.weight for term in terms] if distillation_loss_weights is None else list(distillation_loss_weights)
    if len(weights) != len(terms):
        raise ValueError(
            f"Method '{name}' has {len(terms)} distillation losses {[term.loss for term in terms]}. "
            f"Received: distillation_loss_weights={distillation_loss_weights!r}"
        )
    layers = {"teacher_layers": teacher_layers, "student_layers": student_layers}
    layers = {side: names for side, names in layers.items() if names is not None}
    losses = []
    for term in terms:
        needed = {need: value for need, value in {"seed": seed, "labels": labels}.items() if need in term.needs}
        if "labels" in needed and labels is None:
            raise ValueError(f"Method '{name}' needs the `labels` of all training samples. Received: labels=None")
        read = dict.fromkeys(("teacher_layers", "student_layers"), as_layer_argument(term.layers))
        own = {argument: value for argument, value in given.items() if argument in term.arguments}
        # Of equal names the later one wins: what is given stands over what the method publishes.
        arguments = {**read, **term.arguments, **needed, **own, **layers}
        for side, names in (substitutes or {}).items():
            arguments[side] = _substitute(arguments[side], names)
        losses.append(getattr(loss_classes, term.loss)(**arguments))
    return losses, weights


def _substitute(layers, names):
    """Returns `teacher_layers` or `student_layers` with other names for some of them."""
    if isinstance(layers, list):
        return [names.get(layer, layer) for layer in layers]
    return names.get(layers, layers)
