"""Settings that a method of a comparison has of its own, out of a flagfile: `kd=tuned/kd/best.flags`."""

import re

from keras_tkd.config import DistillConfig
from keras_tkd.config.flagfile import read_flags
from keras_tkd.methods.combination import parse_entry
from keras_tkd.utils.files import read_bytes

__all__ = ["OWN", "describe_lines", "read_settings", "split_name"]

# What a method may have of its own. All else is the budget, the data or the teacher, which are everybody's, or decides
# which outputs of the teacher are read.
OWN = (
    "losses",
    "learning_rate",
    "weight_decay",
    "temperature",
    "margin",
    "student_loss_weight",
    "distillation_loss_weights",
)
_OF_OWN = tuple(f"--{name}=" for name in OWN)
_WITH_FILE = re.compile(r"(?P<name>\w+(?:\s*\+\s*\w+)*)\s*=(?P<path>.+)")


def read_settings(base, methods):
    """Reads which of the methods that are compared have settings of their own.

    Args:
        base: `DistillConfig` with what all runs share.
        methods: names of methods or lists of losses, as `make_configs` takes them, or `NAME=FLAGFILE`: a name, or
            several with `+` between, and a file of flags that hold for that method alone. The file may also say what
            all runs share, so that it is a run's flagfile as well, in the same words.

    Returns:
        dict from each method, without its file, to the lines of a flagfile with what it has of its own.

    Raises:
        ValueError: a file that cannot be read, is of another method, or says otherwise what all runs share; one method
            with different settings.
    """
    settings = {}
    for name, path in map(split_name, methods):
        lines = _read_file(base, name, path) if path else ()
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


def _read_file(base, name, path):
    received = f"Received: {name}={path}"
    try:
        text = read_bytes(path).decode()
        values = read_flags(DistillConfig, text)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"`methods` may name a flagfile of lines --name=value, method=FILE. {received}: {error}"
        ) from error
    if "method" in values or "losses" in values:
        of_file = [parse_entry(entry).method for entry in values.get("losses", ())] or [values["method"]]
        if of_file != [part.strip() for part in name.split("+")]:
            raise ValueError(f"A flagfile in `methods` must be of that method. {received}, of {'+'.join(of_file)}")
    for key, value in values.items():
        if key not in ("method", *OWN) and value != getattr(base, key):
            raise ValueError(
                f"A method's flagfile may set {', '.join(OWN)}; all else is the same for all methods, and is given to "
                f"the comparison. {received}, with {key}={value!r} where the comparison has {getattr(base, key)!r}"
            )
    return tuple(line for line in map(str.strip, text.splitlines()) if line.startswith(_OF_OWN))
