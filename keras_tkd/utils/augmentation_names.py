"""Augmentations by name: operations in the order in which they act, each with arguments. No Keras here."""

import difflib
import re

from keras_tkd.utils.choices import AUGMENTATIONS
from keras_tkd.utils.number_checks import is_finite

__all__ = ["ARGUMENTS", "parse_augmentation"]

# The arguments of each operation: the kind of number, its least and its largest value.
ARGUMENTS = {
    "crop": {"padding": (int, 1, 1024)},
    "crop_flip": {"padding": (int, 1, 1024)},
    "resized_crop": {"area": (float, 0.001, 1.0)},
    "color_jitter": {"strength": (float, 0.001, 1.0)},
    "rand_augment": {"operations": (int, 1, 8), "magnitude": (int, 0, 30)},
    "cutout": {"size": (float, 0.001, 2.0)},
}
# What two operations draw by the same random numbers must not come twice: two mirrorings by one coin are none.
_PARTS = {"crop_flip": ("crop", "horizontal_flip")}
_FORM = "`augmentation` must be operations joined by +, each with its arguments: resized_crop@area=0.25+horizontal_flip"


def parse_augmentation(text):
    """Parses the name of an augmentation: `none`, or operations such as `resized_crop@area=0.25+horizontal_flip`.

    Args:
        text: one operation, or several joined by `+` in the order in which they act; an operation's arguments follow
            it, each as `@name=value`.

    Returns:
        List of `(name, arguments)`, a dict of numbers with what the text gives; empty for `none`.

    Raises:
        ValueError: an operation or an argument that there is not, a value out of its range, `none` beside others, an
            operation twice.
    """
    parsed = [_parse_operation(part, text) for part in text.split("+")]
    names = [name for name, _ in parsed]
    if names == ["none"]:
        return []
    if "none" in names:
        raise ValueError(f"{_FORM}; or none alone. Received: augmentation={text!r}")
    parts = [part for name in names for part in _PARTS.get(name, (name,))]
    twice = [part for part in dict.fromkeys(parts) if parts.count(part) > 1]
    if twice:
        raise ValueError(
            f"`augmentation` must have no operation twice: both would draw the same. Received: augmentation={text!r}, "
            f"with {twice[0]} twice" + "; crop_flip is crop+horizontal_flip" * ("crop_flip" in names)
        )
    return parsed


def _parse_operation(part, text):
    name, *given = part.strip().split("@")
    if name not in AUGMENTATIONS:
        near = difflib.get_close_matches(name, AUGMENTATIONS, n=1)
        hint = f". Did you mean {near[0]!r}?" if near else ""
        known = f"`augmentation` must be one of {', '.join(AUGMENTATIONS)}, or several joined by +"
        raise ValueError(f"{known}. Received: augmentation={text!r}{hint}")
    known, arguments = ARGUMENTS.get(name, {}), {}
    for argument in given:
        key, _, value = argument.partition("=")
        if key not in known:
            knows = f"the arguments {', '.join(known)}" if known else "no argument"
            raise ValueError(f"Operation '{name}' of `augmentation` has {knows}. Received: augmentation={text!r}")
        arguments[key] = _parse_number(name, key, value, text)
    return name, arguments


def _parse_number(name, key, value, text):
    kind, least, largest = ARGUMENTS[name][key]
    whole = re.fullmatch(r"\d+", value)
    number = float(value) if whole or re.fullmatch(r"\d*\.\d+(e-?\d+)?|\d+\.", value) else None
    if number is None or (kind is int and not whole) or not is_finite(number) or not least <= number <= largest:
        of_kind = "a whole number" if kind is int else "a number"
        raise ValueError(
            f"`{key}` of {name} in `augmentation` must be {of_kind} from {least:g} to {largest:g}. Received: "
            f"augmentation={text!r}"
        )
    return kind(number)
