"""A configuration as the lines of a flagfile, and back."""

import csv
import dataclasses
import io
import typing

from keras_tkd.config.fields import resolve_auto
from keras_tkd.utils.files import read_bytes

__all__ = [
    "can_hold",
    "format_flags",
    "get_value_type",
    "join_values",
    "parse_lines",
    "read_flag_lines",
    "read_flags",
    "resolve_from_record",
]


def get_value_type(field):
    """Returns the plain type behind a field's annotation: `(int, False)`, or `(int, True)` for a tuple of ints."""
    # `int | None` is a flag that may be left out: the type is that of its value.
    hint = field.type
    options = (
        [t for t in typing.get_args(hint) if t is not type(None)] if type(None) in typing.get_args(hint) else [hint]
    )
    if typing.get_origin(options[0]) is tuple:
        return typing.get_args(options[0])[0], True
    return options[0], False


def can_hold(value):
    """Returns whether a text, or a tuple of texts, is given back by a flagfile as it is; an empty text is not."""
    text = join_values(value) if isinstance(value, tuple) else value
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes of a command line, or of a file's name, that are no UTF-8
        return False
    # The scripts take the white space behind a line away, and Python has more ends of lines than the newline.
    if text.splitlines() != [text] or text != text.rstrip() or "\0" in text:
        return False
    # Of a list, that around each value too.
    return not isinstance(value, tuple) or ("" not in value and _split(text) == [*map(str, value)])


def format_flags(config):
    """Returns the configuration as a flagfile's lines; what is None, or read by nothing, is left out."""
    # A flag that nothing reads would be refused when the file is read again.
    lines = []
    irrelevant = set(config.irrelevant_fields)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = join_values(value) or None
        if value is not None and field.name not in irrelevant:
            lines.append(f"--{field.name}={value}")
    return lines


def parse_lines(lines):
    """Returns the values of a flagfile's lines, as text by flag; comments and other lines are passed over."""
    return dict(line.removeprefix("--").partition("=")[::2] for line in lines if line.startswith("--"))


def read_flags(config_class, text):
    """Returns the values in a flagfile's text, by field: what `format_flags` wrote, comments and empty lines aside.

    Raises:
        ValueError: a line that is no `--name=value`, or a name that is no field.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    values = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("--").partition("=")
        if not line.strip() or line.startswith("#"):
            continue
        if not line.startswith("--") or not equals or name not in fields:
            raise ValueError(
                f"A flagfile's lines are --name=value, of fields of {config_class.__name__}. Received: {line}"
            )
        kind, several = get_value_type(fields[name])
        read = _as_bool if kind is bool else kind
        try:
            values[name] = tuple(read(part) for part in _split(value) if part) if several else read(value)
        except (ValueError, csv.Error) as error:
            what = "must be a list, as a line of CSV has it," if several else "must be"
            raise ValueError(f"--{name} {what} of type {kind.__name__}. Received: {line} ({error})") from error
    return values


def read_flag_lines(path):
    """Returns the lines of a run's flagfile that are flags.

    Raises:
        ValueError: a file that is no text, or far too large.
    """
    try:
        return [line for line in read_bytes(path).decode().splitlines() if line.startswith("--")]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is damaged: it is no text, and does not say which experiment the folder holds. Put it back, "
            "choose another --workdir, or pass --existing=overwrite to begin anew"
        ) from error


def resolve_from_record(config, path):
    """Returns the configuration with what an earlier beginning of the same run decided in place of `"auto"`.

    A run that goes on must be the run that began, whatever this machine would decide today.

    Args:
        path: the flagfile that the earlier beginning left; it need not exist.
    """
    recorded = parse_lines(read_flag_lines(path)) if path.exists() else {}
    # What the method does not read is no flag: a value for it would be refused.
    readable = recorded.keys() - set(config.irrelevant_fields)
    names = [field.name for field in dataclasses.fields(config) if getattr(config, field.name) == "auto"]
    return resolve_auto(config, **{name: recorded[name] for name in names if name in readable})


def join_values(values):
    """Writes a list as the scripts read it: as a line of CSV, where a value may hold commas and quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(values)
    return line.getvalue()


def _split(text):
    return [part.strip() for row in csv.reader([text], strict=True) for part in row]


def _as_bool(text):
    # bool("False") is True. The words are those of the scripts' own flags.
    words = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
    if text.lower() not in words:
        raise ValueError("neither true nor false")
    return words[text.lower()]
