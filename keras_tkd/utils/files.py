"""Files that appear whole or not at all."""

import contextlib
import json
import os
import pathlib

__all__ = ["atomic_write", "read_json", "save_model", "write_json", "write_text"]


@contextlib.contextmanager
def atomic_write(path):
    """Gives a path to write to, beside `path`; it becomes `path` if the block ends without an error."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, for only within a file system a file takes another's name in one step; with the ending, which
    # tells Keras the format.
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a file of text."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text)


def write_json(path, value):
    """Writes plain data as a JSON file that people can read."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path):
    """Returns what a JSON file holds; None where there is no file."""
    return json.loads(pathlib.Path(path).read_text()) if pathlib.Path(path).exists() else None


def save_model(model, path):
    """Saves a Keras model so that the file appears whole or not at all; returns its path."""
    with atomic_write(path) as unfinished:
        model.save(unfinished)
    return pathlib.Path(path)
