"""Records in a training's state: which training it is of, and its history."""

import json
import sys

__all__ = ["check_about", "check_record", "describe_entry", "to_columns", "to_epochs"]


def to_columns(history):
    """Returns a list of dicts, one of each epoch, as a dict of lists: names are written once. None stands for none."""
    names = dict.fromkeys(name for epoch in history for name in epoch)
    return {name: [epoch.get(name) for epoch in history] for name in names}


def to_epochs(history):
    """Returns what `to_columns` was given; earlier versions wrote that itself."""
    if isinstance(history, list):
        return history
    epochs = [zip(history, values, strict=True) for values in zip(*history.values(), strict=True)]
    return [{sys.intern(name): value for name, value in epoch if value is not None} for epoch in epochs]


def check_about(about):
    """Returns `about` as a file gives it back; raises `ValueError` for what is no plain data."""
    try:
        plain = json.loads(json.dumps({} if about is None else about, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            "`about` must be a dict of plain data: text, finite numbers, lists and dicts of them. "
            f"Received: about={about!r} ({error})"
        ) from error
    if not isinstance(plain, dict):
        raise ValueError(f"`about` must be a dict of plain data. Received: about={about!r}")
    return plain


def check_record(about):
    """Raises `ValueError` for what a checkpoint says of itself if no `BackupState` wrote it."""
    kinds = {"training": dict, "history": (list, dict), "seconds": (int, float), "frozen": (str, type(None))}
    for name, kind in kinds.items():
        # Without a hash of the teacher: earlier versions kept none.
        if not isinstance(about.get(name), kind):
            raise ValueError(f"its entry '{name}' is missing, or of another kind than a training writes")
    try:
        rows = to_epochs(about["history"])
    except (TypeError, ValueError):  # columns that are none, or of different lengths
        rows = [None]
    if not all(
        isinstance(row, dict) and all(isinstance(value, (int, float)) for value in row.values()) for row in rows
    ):
        raise ValueError("its entry 'history' holds something else than numbers by name")


def describe_entry(about, name):
    """Returns what a training says of itself under a name, as text for an error."""
    return repr(about[name]) if name in about else "not said"
