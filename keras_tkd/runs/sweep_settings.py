"""Settings that a method of a comparison has of its own, out of a flagfile: `kd=tuned/kd/best.flags`.

A name that is no method's, `hard_negatives=hard.flags`, is that of a variant: the flagfile says of which method.
"""

import re

from keras_tkd.config import DistillConfig
from keras_tkd.config.flagfile import read_flags
from keras_tkd.methods.combination import parse_entry
from keras_tkd.methods.registry import METHODS
from keras_tkd.runs.sweep_plan import choose_method
from keras_tkd.utils.files import read_bytes

__all__ = ["OWN", "describe_lines", "read_settings", "split_name"]

# What a method may have of its own. All else is the budget, the data or the teacher, which are everybody's, or decides
# which outputs of the teacher are read.
OWN = (
    "losses",
    "negatives",
    "miner",
    "negative_classes",
    "learning_rate",
    "weight_decay",
    "temperature",
    "margin",
    "student_loss_weight",
    "distillation_loss_weights",
)
_RESERVED = ("teacher", "teacher_cache", "output")
_WITH_FILE = re.compile(r"(?P<name>\w+(?:\s*\+\s*\w+)*)\s*=(?P<path>.+)")


def read_settings(methods, base=None):
    """Reads which of the methods that are compared have settings of their own.

    Args:
        methods: names of methods or lists of losses, as `make_configs` takes them, or `NAME=FLAGFILE`: a name, or
            several with `+` between, and a file of flags that hold for that method alone. A name that is no method's is
            a variant of the method or the losses that its file says. The file may also say what all runs share, so
            that it is a run's flagfile as well, in the same words.
        base: `DistillConfig` with what all runs share, with which the files are held to agree; None while that waits
            for the data.

    Returns:
        dict from each method, without its file, to the lines of a flagfile with what it has of its own.

    Raises:
        ValueError: a file that cannot be read, is of another method or of none, or says otherwise what all runs share;
            one method with different settings.
    """
    settings = {}
    for name, path in map(split_name, methods):
        lines = _read_file(name, path, base) if path else ()
        if settings.setdefault(name, lines) != lines:
            raise ValueError(f"`methods` must differ. Received: {name!r} twice, with different settings")
    return settings


def split_name(text: str) -> tuple:
    """Splits a method as `read_settings` takes it into its name and the path of its flagfile, None without one."""
    matched = _WITH_FILE.fullmatch(text.strip())
    return (matched["name"], matched["path"].strip()) if matched else (text.strip(), None)


def describe_lines(lines):
    """Returns lines of a flagfile as text for a sentence."""
    return " ".join(lines) or "no settings of its own"


def _read_file(name, path, base):
    received = f"Received: {name}={path}"
    try:
        text = read_bytes(path).decode()
        values = read_flags(DistillConfig, text)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`methods` may name a flagfile of lines --name=value, method=FILE. {received}: {error}"
        ) from error
    is_variant = _check_name(name, values, received)
    # A method's name says what it is; of a variant its file does.
    told = ("method", *OWN) if is_variant and "losses" not in values else OWN
    prefixes = tuple(f"--{key}=" for key in told)
    lines = tuple(line for line in map(str.strip, text.splitlines()) if line.startswith(prefixes))
    # A run's whole flagfile may name a teacher to train, where the comparison is given one that is trained.
    unread = set()
    if base:
        unread = {*base.irrelevant_fields} & {*choose_method(base, name, lines).irrelevant_fields}
    for key, value in values.items():
        if base and key not in ("method", *OWN, *unread) and value != getattr(base, key):
            raise ValueError(
                f"A method's flagfile may set {', '.join(OWN)}; all else is the same for all methods, and is given to "
                f"the comparison. {received}, with {key}={value!r} where the comparison has {getattr(base, key)!r}"
            )
    return lines


def _check_name(name, values, received):
    """Returns whether a name is a variant's, no method's; raises `ValueError` if it does not go with its file."""
    of_file = [parse_entry(entry).method for entry in values.get("losses", ())]
    if not of_file and "method" in values:
        of_file = [values["method"]]
    named = [part.strip() for part in name.split("+")]
    is_variant = not set(named) <= set(METHODS)
    if is_variant and (len(named) > 1 or name in _RESERVED):
        raise ValueError(
            f"A variant's name in `methods` must be one word, and none of {', '.join(_RESERVED)}, which are folders of "
            f"a comparison. {received}"
        )
    if is_variant and not of_file:
        raise ValueError(
            "A name in `methods` that is no method's is of a variant, whose flagfile says --method or --losses. "
            f"{received}, which says neither"
        )
    if of_file and not is_variant and of_file != named:
        raise ValueError(f"A flagfile in `methods` must be of that method. {received}, of {'+'.join(of_file)}")
    return is_variant
