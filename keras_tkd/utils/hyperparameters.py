"""Numbers that may change while a compiled training step goes on using them."""

import numbers

import keras
import numpy as np

from keras_tkd.utils.number_checks import FLOAT32, is_finite

__all__ = [
    "Hyperparameter",
    "ScalarVariable",
    "check_number",
    "list_hyperparameters",
    "read_hyperparameter",
    "share_hyperparameters",
]


class ScalarVariable:
    """A Python number with a variable behind it, for traced steps to read.

    `number` is what was given, to the bit. `tensor(dtype)` reads the variable, so that a new number, assigned by a
    callback for example, acts without retracing.

    Args:
        number: the number at the start.
    """

    def __init__(self, number):
        # In float64, so that a loss of any dtype rounds the number once. It stays hidden inside a plain object: a model
        # that tracked it as a weight would restore it from a file of weights, over what the configuration says.
        self._variable = keras.Variable(number, dtype="float64", trainable=False, name="hyperparameter")
        self.number = number

    def assign(self, number):
        """Replaces the number; steps that are traced already use the new one."""
        self._variable.assign(number)
        self.number = number

    def tensor(self, dtype="float32"):
        """Returns the number as a scalar tensor."""
        return keras.ops.cast(self._variable.value, dtype)


class Hyperparameter:
    """A number of a class's instances that may be set while training.

    Declared in the class (`temperature = Hyperparameter(exclusive=True)`). Reading the attribute gives the Python
    number; setting it validates the number and writes through to steps that are traced already, which read it by
    `read_hyperparameter`.

    Args:
        minimum: smallest number allowed.
        exclusive: whether `minimum` itself is refused.

    Raises:
        ValueError: when set, a number out of range.
    """

    def __init__(self, minimum=0.0, exclusive=False):
        self.minimum = minimum
        self.exclusive = exclusive

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, instance, owner=None):
        return self if instance is None else self.variable(instance).number

    def __set__(self, instance, number):
        check_number(self.name, number, self.minimum, self.exclusive)
        if self.name in vars(instance):
            self.variable(instance).assign(number)
        else:
            # Python asks a descriptor that can set before it looks into the instance, so the name is free there; and
            # what is put there directly is not seen by the attribute tracking of Keras's models.
            vars(instance)[self.name] = ScalarVariable(number)

    def variable(self, instance):
        """Returns the `ScalarVariable` of `instance`."""
        if self.name not in vars(instance):
            # The error that Python expects of an attribute, `hasattr` for example.
            raise AttributeError(f"`{self.name}` of {type(instance).__name__} is not set yet")
        return vars(instance)[self.name]


def read_hyperparameter(instance, name):
    """Returns a `Hyperparameter` of `instance` as a scalar tensor, in the instance's dtype."""
    return getattr(type(instance), name).variable(instance).tensor(instance.dtype)


def list_hyperparameters(instance):
    """Returns what the `Hyperparameter`s of an object are now: dict name -> number, empty where it has none."""
    return {name: value.number for name, value in vars(instance).items() if isinstance(value, ScalarVariable)}


def share_hyperparameters(source, target):
    """Makes `target`, an instance of the class of `source`, follow every number that is set on `source`."""
    vars(target).update({name: value for name, value in vars(source).items() if isinstance(value, ScalarVariable)})


def check_number(name, number, minimum=0.0, exclusive=False):
    """Raises `ValueError` unless `number` is a number of float32 that is >= `minimum` (> if `exclusive`)."""
    # A bool is a number to Python; as a weight or a margin it is a mistake.
    valid = isinstance(number, numbers.Real) and not isinstance(number, (bool, np.bool_))
    valid = valid and minimum <= number < float("inf") and not (exclusive and number == minimum)
    if not valid:
        raise ValueError(
            f"`{name}` must be a number {'>' if exclusive else '>='} {minimum:g}. Received: {name}={number!r}"
        )
    if not is_finite(number):
        raise ValueError(f"`{name}` must be a number that float32 holds, {FLOAT32}. Received: {name}={number!r}")
