"""Losses of several methods at once, from a list such as `kd:0.9, tkd@margin=3:2.0, sp`. No Keras here."""

import dataclasses
import re

from keras_tkd.methods.registry import METHODS, Method, as_layer_argument
from keras_tkd.utils.number_checks import FLOAT32, is_finite

__all__ = ["LossEntry", "check_negatives", "combine", "parse_entry"]

_LAYERS = ("teacher_layers", "student_layers")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
# Arguments match lazily, and weights must be numbers: so a colon inside a value (`conv:pre_activation`) is its own.
_ENTRY = re.compile(rf"(?P<method>\w+)(?P<arguments>(?:@\w+=[^@]*?)*)(?::(?P<weights>{_NUMBER}(?:/{_NUMBER})*))?")
_FORM = "`losses` must be a list of `method`, `method:weight` or `method@argument=value:weight`"


def combine(losses):
    """Combines the losses of several methods into one `Method`, each with a weight of its own.

    An entry is a name in `METHODS`, arguments of its losses, and a weight for each of its losses:

        kd                                  with the published temperature and weight
        kd:0.5                              with this weight
        kd@temperature=2:0.5                and this temperature; several arguments are `tkd@margin=3@miner=hard`
        rkd:25/50                           a method of two losses has two weights
        sp@student_layers=stage3            layers, in place of the method's; several are `stage1+stage2`

    A method may be listed more than once, with other arguments. The loss on the labels has the weight 1, whatever the
    methods publish. If one of the methods has a warm-up, all weights rise with it.

    Args:
        losses: list of entries, or a string of them with commas between.

    Returns:
        A `Method`, for `make_losses`; its `summary` lists the entries with their numbers.

    Raises:
        ValueError: an entry of another form, an unknown method or argument, a missing or malformed value, too few or
            too many weights, or one below 0.

    Example:

    ```python
    losses, weights = make_losses(combine("kd@temperature=2:0.5, kd@temperature=8:0.5, sp"))
    distiller = Distiller(teacher, student, losses, weights)     # logs kd, kd_2 and sp
    ```
    """
    entries = [parse_entry(entry) for entry in (losses.split(",") if isinstance(losses, str) else losses)]
    if not entries:
        raise ValueError(f"{_FORM}. Received: losses={losses!r}")
    return Method(
        " + ".join(map(str, entries)),
        tuple(term for entry in entries for term in entry.terms),
        # A run has one schedule for all weights.
        warmup_epochs=max(METHODS[entry.method].warmup_epochs for entry in entries),
    )


@dataclasses.dataclass(frozen=True)
class LossEntry:
    """One entry of a list of losses. `parse_entry(str(entry))` is the same entry again.

    Args:
        method: name in `METHODS`.
        arguments: dict from a name to its value: all numbers that the method has, and further arguments where they are
            set in the entry.
        weights: one for each of the method's terms.
    """

    method: str
    arguments: dict
    weights: tuple[float, ...]

    @property
    def terms(self):
        """The method's terms with these arguments and weights."""
        return tuple(
            dataclasses.replace(term, weight=weight, arguments={**term.arguments, **self._select_arguments(term)})
            for term, weight in zip(METHODS[self.method].terms, self.weights, strict=True)
        )

    def _select_arguments(self, term):
        # Layers go to every term, other arguments to the terms that have them.
        layers = {side: as_layer_argument(self.arguments[side]) for side in _LAYERS if side in self.arguments}
        return layers | {name: value for name, value in self.arguments.items() if name in term.arguments}

    def __str__(self):
        values = {
            name: "+".join(value) if isinstance(value, tuple) else value for name, value in self.arguments.items()
        }
        arguments = "".join(f"@{name}={value}" for name, value in values.items())
        return f"{self.method}{arguments}:{'/'.join(map(str, self.weights))}"


def parse_entry(text):
    """Parses one entry of a list of losses, with the published numbers where it gives none.

    Returns:
        A `LossEntry`.

    Raises:
        ValueError: as for `combine`.
    """
    matched = _ENTRY.fullmatch(text.strip())
    if not matched:
        raise ValueError(f"{_FORM}. Received: {text!r}")
    name = matched["method"]
    listed = [name for name, method in METHODS.items() if method.terms and not method.online]
    if name not in listed:
        raise ValueError(f"A method of `losses` must be one of {', '.join(listed)}. Received: {text!r}")
    published = {}
    for term in METHODS[name].terms:
        # By name over all terms: where two of them take the same argument, an entry sets it for both.
        published |= {key: value for key, value in term.arguments.items() if _is_settable(key, value)}
    # Numbers are written out even where the entry leaves them open, so that a recorded entry keeps its meaning if a
    # published number is ever corrected.
    arguments = {key: value for key, value in published.items() if isinstance(value, float)}
    for part in matched["arguments"].split("@")[1:]:
        key, _, value = part.partition("=")
        if key not in (*published, *_LAYERS):
            knows = ", ".join((*published, *_LAYERS))
            raise ValueError(f"Method '{name}' knows the arguments {knows}, no `{key}`. Received: {text!r}")
        if "" in value.split("+"):
            raise ValueError(f"`{key}` must have a value. Received: {text!r}")
        if key in _LAYERS:
            arguments[key] = tuple(value.split("+"))
        else:
            arguments[key] = _parse_number(key, value, text) if isinstance(published[key], float) else value
    terms = METHODS[name].terms
    weights = tuple(term.weight for term in terms)
    if matched["weights"]:
        weights = tuple(map(float, matched["weights"].split("/")))
    if len(weights) != len(terms) or not all(0 <= weight < float("inf") for weight in weights):
        takes = "/".join(term.loss for term in terms)
        raise ValueError(f"Method '{name}' takes a weight >= 0 for each of its losses, {takes}. Received: {text!r}")
    for weight in weights:
        _check_float32("weight", weight, text)
    return LossEntry(name, arguments, weights)


def _is_settable(name, value):
    """Returns whether an entry may set this argument."""
    # A switch (`standardize`) and the loss's name define the method; `negative_classes` is one for the whole run.
    return name not in ("name", "negative_classes") and not isinstance(value, bool)


def check_negatives(losses, negatives):
    """Raises `ValueError` for losses that cannot get their negatives in the way that `negatives` says.

    Args:
        losses: list of entries.
        negatives: `"in_batch"`, `"drawn"`, or None, which means drawn.
    """
    if negatives == "in_batch":
        return
    for entry in losses:
        if "miner" in parse_entry(entry).arguments:
            raise ValueError(
                "`miner` picks negatives from the batch, with negatives='in_batch'. "
                f"Received: negatives={negatives!r}, losses={losses}"
            )
    if len(combine(losses).extra_images) > 1:
        raise ValueError(
            "A batch is drawn with negatives or with partners. For losses that read the one and losses that read the "
            f"other, take both from the batch: negatives='in_batch'. Received: negatives={negatives!r}, losses={losses}"
        )


def _parse_number(name, value, text):
    # 5e-324 is the smallest number above 0: a temperature divides.
    least, rule = (0, ">= 0") if name != "temperature" else (5e-324, "> 0")
    if not re.fullmatch(_NUMBER, value) or not least <= float(value) < float("inf"):
        raise ValueError(f"`{name}` must be a number {rule}. Received: {text!r}")
    return _check_float32(name, float(value), text)


def _check_float32(name, number, text):
    if not is_finite(number):
        raise ValueError(f"`{name}` must be a number that float32 holds, {FLOAT32}. Received: {text!r}")
    return number
