"""Fields of files of results: written as plain data, read back, checked by their annotations. No TensorFlow here."""

import dataclasses
import numbers
import reprlib
import types
import typing

__all__ = ["Result", "check_kinds", "field", "optional"]


def field(of=None, **more):
    """Makes a field that holds plain data, or, where `of` is given, one result of that class or a list of them."""
    return dataclasses.field(metadata={"of": of, "optional": False}, **more)


def optional(of=None):
    """Makes a field that is left out of the file where it does not concern the run."""
    return dataclasses.field(metadata={"of": of, "optional": True}, default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A part of a file of results: a frozen dataclass whose fields are made by `field` and `optional`."""

    def to_dict(self):
        """Returns what the file says, as plain data."""
        values = {}
        for own in dataclasses.fields(self):
            value = getattr(self, own.name)
            if value is not None or not own.metadata["optional"]:
                values[own.name] = _to_plain(value)
        return values

    # Unknown fields are ignored: other programs may have added some. A later schema is told by its version.
    @classmethod
    def from_dict(cls, values):
        """Returns the result that a file's plain data describe; fields that there are not are passed over.

        Raises:
            ValueError: a field that must be there is not, or one is of another kind.
        """
        check_kinds(cls, values)
        read = {}
        for own in dataclasses.fields(cls):
            if own.name in values:
                read[own.name] = _from_plain(values[own.name], own.metadata["of"])
            elif own.default is dataclasses.MISSING:
                raise ValueError(f"Results must say `{own.name}`. Received: {', '.join(values) or 'nothing'}")
        return cls(**read)


def check_kinds(result_class, values):
    """Raises `ValueError` for a value of plain data that is not of the kind that its field's annotation says."""
    for name, kind in typing.get_type_hints(result_class).items():
        if name in values and not _is_of(values[name], kind):
            rule = f"`{name}` must be of the kind that a run writes, which is {kind}"
            raise ValueError(f"{rule}. Received: {name}={reprlib.repr(values[name])}")


def _is_of(value, kind):
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is types.UnionType:
        return any(_is_of(value, one) for one in inside)
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is_of(item, inside[1]) for item in value.values())
    if typing.get_origin(kind) in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_is_of(item, inside[0]) for item in value)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    # A result is an object in the file; its own fields are looked at when it is made.
    return isinstance(value, dict if dataclasses.is_dataclass(kind) else kind)


def _to_plain(value):
    if isinstance(value, Result):
        return value.to_dict()
    return [_to_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _from_plain(value, of):
    if of is None or value is None:
        return value
    return [of.from_dict(item) for item in value] if isinstance(value, list) else of.from_dict(value)
