"""Output of libraries in C++, which goes past Python."""

import contextlib
import os
import sys

__all__ = ["hide_native_output"]


@contextlib.contextmanager
def hide_native_output():
    """Sends what is written to file descriptor 2 nowhere while the block runs; Python's errors are raised as ever.

    TensorFlow, its converters and LiteRT write there whatever their log levels, past Python's `sys.stderr`.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
