"""Checks of numbers that users give. No Keras here: configurations use them."""

import numbers

__all__ = ["FLOAT32", "check_whole", "is_finite", "is_whole"]

FLOAT32 = "0 or of 1.2e-38 to 3.4e38"  # what float32 holds, for errors
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
# Below it TensorFlow's operations take a number for 0.
_SMALLEST_FLOAT32 = 2.0**-126


def is_whole(value):
    """Returns whether a value is a whole number of 32 bits; True and False are none."""
    # Numbers of images, steps and pixels are multiplied in 64 bits, in TensorFlow as well.
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and abs(value) < 2**31


def is_finite(value):
    """Returns whether a value is a number that in float32, in which models compute, is neither infinite nor made 0.

    No bool is one.
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    return value == 0 or _SMALLEST_FLOAT32 <= abs(value) <= _LARGEST_FLOAT32


def check_whole(name, number, minimum=0, otherwise=""):
    """Raises `ValueError` unless `number` is a whole number of 32 bits, and `minimum` or more.

    Args:
        name: what the error calls it.
        otherwise: what else is allowed, for the error.
    """
    if not is_whole(number) or number < minimum:
        raise ValueError(f"`{name}` must be >= {minimum}{otherwise}; a whole number. Received: {name}={number!r}")
