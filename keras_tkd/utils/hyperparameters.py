"""Numbers that may change while a compiled training step goes on using them."""

import numbers

import keras
import numpy as np


class Hyperparameter:
    """A Python number with a variable behind it.

    `number` is what the user gave; `tensor(dtype)` is what a traced step reads, so that a new number, set by a
    callback for example, acts without retracing. Models must not track the variable as a weight (a file of weights
    would then overrule the configuration), hence this plain object around it.
    """

    def __init__(self, number):
        self._variable = keras.Variable(number, dtype="float64", trainable=False, name="live_number")
        self.number = number

    def set(self, number):
        self._variable.assign(number)
        self.number = number

    def tensor(self, dtype="float32"):
        return keras.ops.cast(self._variable.value, dtype)


class HyperparameterAttribute:
    """Class attribute that holds a validated `Hyperparameter` under its own name.

    Reading it gives the Python number, setting it validates and writes through; `live(instance)` is the
    `Hyperparameter`.

    Args:
        minimum: smallest number allowed.
        exclusive: whether `minimum` itself is refused.
    """

    def __init__(self, minimum=0.0, exclusive=False):
        self.minimum = minimum
        self.exclusive = exclusive

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return self if instance is None else self.live(instance).number

    def __set__(self, instance, number):
        check_number(self.name, number, self.minimum, self.exclusive)
        if f"_live_{self.name}" in instance.__dict__:
            self.live(instance).set(number)
        else:
            instance.__dict__[f"_live_{self.name}"] = Hyperparameter(number)

    def live(self, instance):
        if f"_live_{self.name}" not in instance.__dict__:
            raise AttributeError(f"`{self.name}` of {type(instance).__name__} is not set yet")  # as Python expects it
        return instance.__dict__[f"_live_{self.name}"]


def read_hyperparameters(instance, *names):
    """Tensors of the named `HyperparameterAttribute`s of `instance`, in its dtype, as a dict."""
    return {name: getattr(type(instance), name).live(instance).tensor(instance.dtype) for name in names}


def live_number(instance, name):
    """Tensor, float32, of one `HyperparameterAttribute` of `instance`."""
    return getattr(type(instance), name).live(instance).tensor()


def check_number(name, number, minimum=0.0, exclusive=False):
    """Raises `ValueError` unless `number` is a finite number >= `minimum` (> if `exclusive`)."""
    valid = isinstance(number, numbers.Real) and not isinstance(number, (bool, np.bool_))
    valid = valid and minimum <= number < float("inf") and not (exclusive and number == minimum)
    if not valid:
        raise ValueError(
            f"`{name}` must be a number {'>' if exclusive else '>='} {minimum:g}. Received: {name}={number!r}"
        )
