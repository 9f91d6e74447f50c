"""Files of a schema that has one version so far. No TensorFlow here."""

from keras_tkd.utils.files import read_json

__all__ = ["read_versioned"]


def read_versioned(path, version, what, parse):
    """Returns what a JSON file holds; None where there is no file.

    Args:
        path: the file.
        version: number of the schema, the only one that is read.
        what: the word for what it holds, in errors: `"tuning"`.
        parse: function from the file's plain data, a dict of its own, to what is returned. Where it raises `KeyError`,
            `TypeError` or `ValueError`, the file is damaged.

    Raises:
        ValueError: the file holds something else, or is of a later version; the message names it.
    """
    values = read_json(path)
    if values is None:
        return None
    if values.get("version") != version:
        raise ValueError(
            f"{path} must be of version {version} of its schema. Received: version={values.get('version')!r}. If a "
            "later keras_tkd wrote it, update this one to read it"
        )
    try:
        return parse(values)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: it is no {what} ({error}). Put it back, or remove it") from error
