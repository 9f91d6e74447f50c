"""The space of a tuning: which settings of a method are searched, and in which ranges. No Keras here."""

import collections
import dataclasses
import re

from keras_tkd.config.fields import resolve_auto
from keras_tkd.methods.combination import parse_entry

__all__ = ["Parameter", "apply_values", "make_spaces", "parse_space"]

_RATE, _LABELS = "learning_rate", "student_loss_weight"
_ARGUMENTS = ("temperature", "margin")
# Ranges where none are given: as factors around a method's own value, and for temperatures the papers' values.
_FACTORS = {_RATE: 5.0, "margin": 4.0, "weight": 10.0}
_TEMPERATURES = 1.0, 8.0
_ABOVE_ZERO = (_RATE, "temperature")
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(?P<name>\w+(?:\.\w+)?)\s*=\s*(?P<low>{_NUMBER}?)(?:\.\.(?P<high>{_NUMBER}))?")


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A setting that is searched.

    Attributes:
        low, high: its range, both ends included. It is searched on the scale of logarithms, if it lies above 0.
        start: the value of the first trial: the method's own.
    """

    low: float
    high: float
    start: float

    @property
    def log(self):
        """True if it is searched on the scale of logarithms."""
        return self.low > 0

    def round(self, value):
        """Returns a value of the range with three digits, which are all that a flagfile of it needs."""
        return min(max(float(f"{value:.3g}"), self.low), self.high)


def parse_space(entries):
    """Parses ranges that a user gives: `learning_rate=0.01..0.2`, or `kd.temperature=4` for a single value.

    Args:
        entries: list of texts.

    Returns:
        dict from a name to `(low, high)`.

    Raises:
        ValueError: a text of another form, a range that is empty or no range of that setting, a name twice.
    """
    ranges = {}
    for text in entries:
        matched = _RANGE.fullmatch(text.strip())
        if not matched:
            raise ValueError(f"`space` must be a list of name=low..high, or name=value. Received: {text!r}")
        name, low = matched["name"], float(matched["low"] or "nan")
        high = float(matched["high"]) if matched["high"] else low
        above = name.rpartition(".")[2] in _ABOVE_ZERO
        # Beyond the largest float32 a number is infinite, and NaN is in no order.
        if not (0 <= low <= high < 3.4e38) or (above and low == 0):
            rule = f"0 {'<' if above else '<='} low <= high, and finite"
            raise ValueError(f"A range of `space` must have {rule}. Received: {text!r}")
        if name in ranges:
            raise ValueError(f"A name in `space` must be there once. Received: {name!r} twice")
        ranges[name] = low, high
    return ranges


def make_spaces(configs, ranges):
    """Makes the space of each method: its `Parameter`s by name.

    Names are `learning_rate`, and with the loss's method before it `kd.temperature`, `tkd.margin`, `kd.weight`; a
    method of several losses has `rkd.weight_1` and `rkd.weight_2`. A range for `temperature` is that of all which are
    called so, whatever stands before it. `student_loss_weight` is searched where a range is given for it.

    Args:
        configs: dict from a method to its resolved `DistillConfig`.
        ranges: what `parse_space` gives.

    Returns:
        dict from a method to a dict from a name to its `Parameter`.

    Raises:
        ValueError: a range for what none of the methods has.
    """
    starts = {method: _list_starts(config) for method, config in configs.items()}
    known = {name: None for each in starts.values() for full in each for name in (full, full.rpartition(".")[2])}
    for name in ranges:
        if name not in known:
            raise ValueError(
                f"`space` must name what is tuned: {', '.join(known)}. Received: a range of {name!r}, which none of "
                f"{', '.join(configs)} has"
            )
    spaces = {}
    for method, each in starts.items():
        spaces[method] = {}
        for name, start in each.items():
            # The full name is the one that its user meant.
            given = ranges.get(name, ranges.get(name.rpartition(".")[2]))
            if given or name != _LABELS:
                low, high = given or _choose_range(name, start)
                spaces[method][name] = Parameter(low, high, start)
    return spaces


def apply_values(config, values):
    """Returns a method's configuration with values of its space.

    Args:
        config: `DistillConfig`.
        values: dict from a name, as `make_spaces` has them, to a number.
    """
    settings = {name: values[name] for name in (_RATE, _LABELS) if name in values}
    entries = []
    for prefix, entry in _name_entries(config).items():
        arguments = {name: values.get(f"{prefix}.{name}", value) for name, value in entry.arguments.items()}
        weights = tuple(
            values.get(name, weight) for name, weight in zip(_name_weights(prefix, entry), entry.weights, strict=True)
        )
        entries.append(dataclasses.replace(entry, arguments=arguments, weights=weights))
    if config.losses:
        settings["losses"] = tuple(map(str, entries))
    elif entries:
        (entry,) = entries
        settings["distillation_loss_weights"] = entry.weights
        settings |= {name: entry.arguments[name] for name in _ARGUMENTS if name in entry.arguments}
    return resolve_auto(config, **settings)


def _list_starts(config):
    """Returns the method's own value of each setting that may be tuned, by name."""
    starts = {_RATE: config.learning_rate}
    for prefix, entry in _name_entries(config).items():
        starts |= {f"{prefix}.{name}": entry.arguments[name] for name in _ARGUMENTS if name in entry.arguments}
        starts |= dict(zip(_name_weights(prefix, entry), entry.weights, strict=True))
    if config.has_teacher:
        starts[_LABELS] = config.student_loss_weight
    return starts


def _name_entries(config):
    """Returns the `LossEntry` of each of a method's losses, by the name that its settings have before theirs."""
    if not config.has_teacher:
        return {}
    if not config.losses:
        own = {name: getattr(config, name) for name in _ARGUMENTS if getattr(config, name) is not None}
        entry = parse_entry(config.method)
        weights = config.distillation_loss_weights or entry.weights
        return {config.method: dataclasses.replace(entry, arguments=entry.arguments | own, weights=weights)}
    named, counts = {}, collections.Counter()
    for entry in map(parse_entry, config.losses):
        counts[entry.method] += 1
        # As a Distiller names the losses in its logs.
        number = counts[entry.method]
        named[entry.method if number == 1 else f"{entry.method}_{number}"] = entry
    return named


def _name_weights(prefix, entry):
    if len(entry.weights) == 1:
        return [f"{prefix}.weight"]
    return [f"{prefix}.weight_{number}" for number in range(1, len(entry.weights) + 1)]


def _choose_range(name, start):
    kind = re.sub(r"_\d+$", "", name.rpartition(".")[2])
    if kind == "temperature":
        return min(_TEMPERATURES[0], start), max(_TEMPERATURES[1], start)
    # A weight or margin of 0 is nobody's scale: it stays, unless a range is given.
    factor = _FACTORS[kind]
    return float(f"{start / factor:.3g}"), float(f"{start * factor:.3g}")
