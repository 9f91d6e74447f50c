"""Fields of configurations, and their rules: each field is one flag of the scripts.

What a setting decides is said once, at its field, by a word of `DECIDES`. What makes a trained model stale, and what
two runs must share to be compared, are read off these words.
"""

import copy
import dataclasses
import difflib
import functools
import typing

__all__ = [
    "COMPARED",
    "DECIDES",
    "DISTILLED",
    "FREE",
    "GIVEN_TEACHER",
    "ReadWhen",
    "TRAINED",
    "check",
    "check_choice",
    "collect_defaults",
    "collect_settings",
    "get_default",
    "has_default",
    "list_deciding",
    "list_given_files",
    "list_left_to_data",
    "option",
    "resolve_auto",
]

DECIDES = {
    "data": "the images that models are trained on and measured with",
    "budget": "how much training every model gets, and from where it starts",
    "training": "how every model is trained, whatever it learns from",
    "student": "the student's architecture, with a teacher and without",
    "distillation": "what a distilled student learns from, and how: no model that learns from the labels alone",
    "measurement": "what is measured of a student, which need not be trained again for it",
    "interruption": "what an interruption costs, and no result: a run that goes on may have another value",
    "warnings": "what is said before a training, and no result: as before",
    "display": "what is shown of a training, and no result: as before",
    "nothing": "nothing that is kept: where files are, what is measured of a teacher, what is trained besides",
}

# What decides a model that is trained on the labels (a teacher, the student alone); its architecture is recorded apart.
TRAINED = ("data", "budget", "training")
# What decides a distilled student.
DISTILLED = (*TRAINED, "student", "distillation")
# What two runs share whose students may be compared. How they are trained is not a part of it: a learning rate is
# chosen for each.
COMPARED = ("data", "budget", "student", "measurement")
# Settings that name a teacher which was trained elsewhere: what concerns the training of a run's own yields to these.
GIVEN_TEACHER = ("teacher_path", "teacher_outputs")
# What a run that goes on need not share with the run that began.
FREE = ("interruption", "warnings", "display")


class _LeftToData:
    """Marks a default that the data may decide. It equals the plain value, which a user may give: that is kept."""


# Classes of the module, so that a configuration can be pickled, for another process.
class _IntLeftToData(_LeftToData, int):
    pass


class _FloatLeftToData(_LeftToData, float):
    pass


class _StrLeftToData(_LeftToData, str):
    pass


_LEFT_TO_DATA = {int: _IntLeftToData, float: _FloatLeftToData, str: _StrLeftToData}


@dataclasses.dataclass(frozen=True)
class ReadWhen:
    """A condition under which a setting is read.

    Args:
        holds: function of the configuration, true where the setting is read.
        why_not: what to say of a setting that is given where it is not, a template for `{name}`; None for "Method 'kd'
            does not read ..." and the like.
    """

    holds: typing.Callable
    why_not: str | None = None


def option(
    default,
    help,
    choices=None,
    *,
    decides="budget",
    recorded_as=None,
    read_when=(),
    yields_to=(),
    unless=None,
    composed_by=None,
    by_data=False,
    names_file=False,
):
    """Makes the field of a setting.

    Args:
        default: its value where none is given.
        help: one or more sentences, for `--help`.
        choices: tuple of the values that it may have; None for any.
        decides: a word of `DECIDES`. What says nothing is taken to decide everything: a setting that was forgotten
            trains too much again, and never leaves a stale model in place.
        recorded_as: function from its value to what of it decides, for a setting that decides something by a part of
            it alone.
        read_when: `ReadWhen`, or a tuple of several of which all must hold. Always, if not given.
        yields_to: name of another setting, or a tuple of several; where one is given, this one is not read. A flagfile
            may hold it all the same, for runs without the others.
        unless: name of a further setting; where that is given too, this one is read after all.
        composed_by: function that raises `ValueError` for a value that is not composed of `choices`; if not given, a
            value is one of them.
        by_data: whether a run may choose another value by the data and by other settings, where this one is not given:
            see `list_left_to_data`.
        names_file: whether it may name a file or folder that a run reads: see `list_given_files`.
    """
    if decides not in DECIDES:
        raise ValueError(f"`decides` must be one of {', '.join(DECIDES)}. Received: decides={decides!r}")
    conditions = (read_when,) if isinstance(read_when, ReadWhen) else tuple(read_when)
    yields_to = (yields_to,) if isinstance(yields_to, str) else yields_to

    # Not every configuration with the one setting has the others.
    def is_read(config, other):
        return not getattr(config, other, None) or bool(unless and getattr(config, unless, None))

    conditions += tuple(
        ReadWhen(functools.partial(is_read, other=other), f"`{{name}}` is not read where `{other}` is given")
        for other in yields_to
    )
    if by_data:
        default = _LEFT_TO_DATA[type(default)](default)
    metadata = {"help": help, "choices": choices, "decides": decides, "recorded_as": recorded_as}
    metadata |= {"read_when": conditions, "yields_to": yields_to, "unless": unless, "composed_by": composed_by}
    metadata["names_file"] = names_file
    return dataclasses.field(default=default, metadata=metadata)


def get_default(cls, name):
    """Returns the default of a field."""
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)


def has_default(config, name):
    """Returns whether a setting has its default; of one that the data may decide, whether nobody gave it."""
    value, default = getattr(config, name), get_default(type(config), name)
    return value == default and isinstance(value, _LeftToData) >= isinstance(default, _LeftToData)


def list_left_to_data(config):
    """Returns the names of the settings that a run reads, nobody gave, and the data may decide."""
    left = [field.name for field in dataclasses.fields(config) if isinstance(getattr(config, field.name), _LeftToData)]
    return [name for name in left if name not in config.irrelevant_fields]


def list_given_files(config):
    """Returns what may name a file or folder that a run reads: list of `(field, value)`, one for each of several."""
    named = [field for field in dataclasses.fields(config) if field.metadata["names_file"]]
    values = [(field, getattr(config, field.name) or ()) for field in named]
    return [(field, value) for field, given in values for value in ((given,) if isinstance(given, str) else given)]


def resolve_auto(config, **values):
    """Returns the configuration with values in place of `"auto"`; what nothing reads any more has its default again."""
    settings, unread = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}, {}
    while True:
        # Of its settings alone: what it derived of them may be another.
        resolved = copy.copy(config)
        vars(resolved).clear()
        vars(resolved).update(settings | unread | values)
        more = {name: get_default(type(config), name) for name in resolved.irrelevant_fields if name not in unread}
        if not more:
            return dataclasses.replace(config, **unread | values)
        # What is not read any more may be what others were read for.
        unread |= more


def list_deciding(cls, words):
    """Returns the names of the fields that decide one of `words`, in the fields' order."""
    return tuple(field.name for field in dataclasses.fields(cls) if field.metadata["decides"] in words)


def collect_settings(config, words):
    """Returns what a configuration says of all that decides one of `words`, as a dict by the fields' names."""
    values = {}
    for field in dataclasses.fields(config):
        if field.metadata["decides"] in words:
            recorded_as = field.metadata["recorded_as"] or (lambda value: value)
            values[field.name] = recorded_as(getattr(config, field.name))
    return values


def collect_defaults(cls):
    """Returns what `collect_settings` says of the default of every field: what a record older than the field means."""
    recorded = {field.name: field.metadata["recorded_as"] or (lambda value: value) for field in dataclasses.fields(cls)}
    return {field.name: recorded[field.name](field.default) for field in dataclasses.fields(cls)}


def check(condition, rule, config, *names):
    """Raises `ValueError` unless `condition` holds: the rule, and the values of the fields `names`."""
    if not condition:
        received = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
        raise ValueError(f"{rule}. Received: {received}")


def check_choice(name, value, choices):
    """Raises `ValueError` for a value that is none of `choices`, with the nearest of them."""
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}. Received: {name}={value!r}.{hint}")
