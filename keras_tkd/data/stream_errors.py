"""Errors of streamed images: texts that TensorFlow carries, and the sentence that is found again in them.

Inside a pipeline an error is TensorFlow's, whose text has the graph around what was said.
"""

import contextlib
import re

import tensorflow as tf

__all__ = ["CHANGED", "ONE_CLASS", "explain_stream_errors"]

CHANGED = "An image must not change while it is in use. Received another file than was there at the start:"
ONE_CLASS = (
    "Samples of another class are only drawn from two classes or more, and a window of streamed images has one. Pass "
    "a larger `shuffle_window`"
)
_WAYS_ON = (
    "Put back what was there and run the same command again, which goes on; or begin anew with the images as they are, "
    "in another --workdir"
)
# As `tf.debugging.Assert` shows a text and a path, or as an error of Python's ends; and as `tf.io.read_file` says it.
_CHANGED = re.compile(rf"{re.escape(CHANGED)}\]? \[?(.*?)\]?$", re.MULTILINE)
_MISSING = re.compile(r"(?:^|: )((?:(?!: ).)*); No such file or directory$", re.MULTILINE)


@contextlib.contextmanager
def explain_stream_errors():
    """Makes a `ValueError` of one sentence where a file of streamed images changes, or a window has a single class.

    All other errors of TensorFlow pass as they are. A context manager, and a decorator.
    """
    try:
        yield
    except tf.errors.OpError as error:
        sentence = _find_sentence(str(error))
        if sentence is None:
            raise
        # Not behind TensorFlow's own, which shows a graph.
        raise ValueError(sentence) from None


def _find_sentence(text):
    changed, missing = _CHANGED.search(text), _MISSING.search(text)
    if changed:
        return f"{CHANGED} {changed[1]}. {_WAYS_ON}"
    # Of other files, such as those of logs, that are not there a pipeline says nothing.
    if missing and "Iterator" in text:
        return f"An image must not vanish while it is in use. Received no file any more: {missing[1]}. {_WAYS_ON}"
    if ONE_CLASS in text:
        return f"{ONE_CLASS}: --shuffle_window"
    return None
