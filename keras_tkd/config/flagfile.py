"""A configuration as the lines of a flagfile, and back."""

import dataclasses
import typing


def value_type(field):
    """The plain type behind a field's annotation: `(int, False)`, or `(int, True)` for a tuple of ints."""
    hint = field.type
    options = (
        [t for t in typing.get_args(hint) if t is not type(None)] if type(None) in typing.get_args(hint) else [hint]
    )
    if typing.get_origin(options[0]) is tuple:
        return typing.get_args(options[0])[0], True
    return options[0], False


def flag_lines(config):
    """The configuration as a flagfile's lines; what is None, or read by nothing, is left out."""
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, tuple):
            value = ",".join(map(str, value)) or None
        if value is not None and field.name not in config.irrelevant_fields:
            lines.append(f"--{field.name}={value}")
    return lines


def read_flags(config_class, text):
    """The values in a flagfile's text, by field: what `flag_lines` wrote, comments and empty lines aside.

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
        kind, several = value_type(fields[name])
        kind = as_bool if kind is bool else kind
        values[name] = tuple(kind(part) for part in value.split(",") if part) if several else kind(value)
    return values


def as_bool(text):
    """What `flag_lines` wrote of a bool."""
    return {"True": True, "False": False}[text]


def as_recorded(config, path):
    """The configuration with what an earlier beginning of the same run settled on in place of `"auto"`.

    Args:
        path: the flagfile that the earlier beginning left; it need not exist.
    """
    lines = path.read_text().splitlines() if path.exists() else []
    recorded = dict(line.removeprefix("--").partition("=")[::2] for line in lines if line.startswith("--"))
    return dataclasses.replace(
        config,
        **{
            field.name: recorded[field.name]
            for field in dataclasses.fields(config)
            if getattr(config, field.name) == "auto" and field.name in recorded.keys() - set(config.irrelevant_fields)
        },
    )
