"""A configuration as the lines of a flagfile, and back."""

import dataclasses
import typing

__all__ = ["format_flags", "get_value_type", "parse_lines", "read_flags", "resolve_from_record"]


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


def format_flags(config):
    """Returns the configuration as a flagfile's lines; what is None, or read by nothing, is left out."""
    # A flag that nothing reads would be refused when the file is read again.
    lines = []
    irrelevant = set(config.irrelevant_fields)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = ",".join(map(str, value)) or None
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
        kind = _as_bool if kind is bool else kind
        values[name] = tuple(kind(part) for part in value.split(",") if part) if several else kind(value)
    return values


def resolve_from_record(config, path):
    """Returns the configuration with what an earlier beginning of the same run decided in place of `"auto"`.

    A run that goes on must be the run that began, whatever this machine would decide today.

    Args:
        path: the flagfile that the earlier beginning left; it need not exist.
    """
    recorded = parse_lines(path.read_text().splitlines()) if path.exists() else {}
    # What the method does not read is no flag: a value for it would be refused.
    readable = recorded.keys() - set(config.irrelevant_fields)
    names = [field.name for field in dataclasses.fields(config) if getattr(config, field.name) == "auto"]
    return dataclasses.replace(config, **{name: recorded[name] for name in names if name in readable})


def _as_bool(text):
    # bool("False") is True.
    return {"True": True, "False": False}[text]
