"""Files that appear whole or not at all."""

import contextlib
import json
import os
import pathlib


@contextlib.contextmanager
def atomic_write(path):
    """A path to write to, beside `path`; it becomes `path` if the block ends without an error."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{os.getpid()}-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path, text):
    with atomic_write(path) as unfinished:
        unfinished.write_text(text)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path):
    return json.loads(pathlib.Path(path).read_text()) if pathlib.Path(path).exists() else None


def save_model(model, path):
    """Saves a Keras model so that the file appears whole or not at all."""
    with atomic_write(path) as unfinished:
        model.save(unfinished)
    return pathlib.Path(path)
