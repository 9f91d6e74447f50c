"""Fields of configurations, and their rules: each field is one flag of the scripts, with its help and its choices."""

import dataclasses
import difflib
import numbers


def option(default, help, choices=None):
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


def default(cls, name):
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)


def is_whole(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check(condition, rule, config, *names):
    if not condition:
        received = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
        raise ValueError(f"{rule}. Received: {received}")


def check_choice(name, value, choices):
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}. Received: {name}={value!r}.{hint}")
