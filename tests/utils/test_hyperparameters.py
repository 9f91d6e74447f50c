"""Numbers that change under a compiled step."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.utils.hyperparameters import (
    Hyperparameter,
    ScalarVariable,
    check_number,
    list_hyperparameters,
    read_hyperparameter,
    share_hyperparameters,
)


class Spring:
    stiffness = Hyperparameter(minimum=0.0, exclusive=True)
    rest = Hyperparameter(minimum=-1.0)
    dtype = "float32"

    def __init__(self, stiffness=2.0, rest=0.0):
        self.stiffness = stiffness
        self.rest = rest

    def force(self, x):
        return read_hyperparameter(self, "stiffness") * (x - read_hyperparameter(self, "rest"))


def test_what_an_object_has_is_listed_as_it_is_now():
    spring = Spring(stiffness=3.0)
    spring.rest = 0.5
    assert list_hyperparameters(spring) == {"stiffness": 3.0, "rest": 0.5}
    assert list_hyperparameters(Exception()) == {}


def test_number_is_the_very_one_given():
    # 0.1 has no exact float32, and 2**53 + 1 no exact float64.
    for number in (3, 0.1, 2**53 + 1, np.float64(0.1)):
        variable = ScalarVariable(1.0)
        variable.assign(number)
        assert variable.number is number
        assert ScalarVariable(number).number is number
        spring = Spring(stiffness=number)
        assert spring.stiffness is number
        spring.rest = number
        assert spring.rest is number and spring.stiffness is number


def test_tensor_has_the_dtype_asked_for():
    variable = ScalarVariable(0.1)
    assert variable.tensor().dtype == "float32"
    assert variable.tensor().numpy() == np.float32(0.1)
    assert variable.tensor("float64").numpy() == 0.1
    assert variable.tensor("float16").dtype == "float16"
    variable.assign(3)
    assert variable.tensor("float64").numpy() == 3.0


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_traced_function_sees_the_new_number(jit_compile):
    spring = Spring()
    traces = []

    @tf.function(jit_compile=jit_compile)
    def force(x):
        traces.append("a trace runs this line, a call of the graph does not")
        return spring.force(x)

    x = tf.constant([1.0, 3.0])
    assert force(x).numpy().tolist() == [2.0, 6.0]
    spring.stiffness = 5
    assert force(x).numpy().tolist() == [5.0, 15.0]
    # 5 (x - 1)
    spring.rest = 1.0
    assert force(x).numpy().tolist() == [0.0, 10.0]
    assert len(traces) == 1


def test_instances_have_their_own_numbers():
    soft, hard = Spring(1.0), Spring(9.0)
    soft.stiffness = 0.5
    assert (soft.stiffness, hard.stiffness) == (0.5, 9.0)
    x = tf.constant(2.0)
    assert (float(soft.force(x)), float(hard.force(x))) == (1.0, 18.0)


def test_shared_numbers_follow_their_source():
    source, target = Spring(1.0, rest=4.0), Spring(9.0)
    share_hyperparameters(source, target)
    assert (target.stiffness, target.rest) == (1.0, 4.0)
    source.stiffness = 3.0
    assert target.stiffness == 3.0
    # 3 (6 - 4)
    assert float(target.force(tf.constant(6.0))) == 6.0


def test_a_number_that_was_never_set_is_no_attribute():
    empty = Spring.__new__(Spring)
    assert not hasattr(empty, "stiffness")
    with pytest.raises(AttributeError, match="`rest` of Spring is not set yet"):
        read_hyperparameter(empty, "rest")


def test_the_class_shows_the_attribute_itself():
    assert isinstance(Spring.stiffness, Hyperparameter)
    assert Spring.stiffness.name == "stiffness"
    spring = Spring()
    assert isinstance(Spring.stiffness.variable(spring), ScalarVariable)
    assert Spring.stiffness.variable(spring) is not Spring.rest.variable(spring)


def test_refused_number_leaves_the_old_one():
    spring = Spring(stiffness=2.0, rest=1.0)
    for bad in (0.0, -1.0, math.nan, math.inf, True, "2", None):
        with pytest.raises(ValueError, match="`stiffness` must be a number > 0. Received: stiffness="):
            spring.stiffness = bad
    with pytest.raises(ValueError, match="`rest` must be a number >= -1. Received: rest=-1.5"):
        spring.rest = -1.5
    assert (spring.stiffness, spring.rest) == (2.0, 1.0)
    # 2 (4 - 1)
    assert float(spring.force(tf.constant(4.0))) == 6.0


def test_models_do_not_track_it_as_a_weight():
    """A file of weights would then overrule the configuration."""

    class Springy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.spring = Spring()
            self.number = ScalarVariable(1.0)

        def call(self, x):
            return self.spring.force(x) * self.number.tensor(x.dtype)

    model = keras.Sequential([keras.Input((2,)), Springy()])
    assert model(np.ones((1, 2))).numpy().tolist() == [[2.0, 2.0]]
    assert model.variables == []


@pytest.mark.parametrize("number", [0, 0.0, 1, 2.5, 3e38, np.float64(3.0)], ids=repr)
def test_numbers_allowed(number):
    check_number("margin", number)
    check_number("margin", number, minimum=-1.0, exclusive=True)
    if number:
        check_number("margin", number, exclusive=True)


REFUSED = [-1, -1e-300, math.nan, math.inf, -math.inf, True, False, "1", None, [1.0], 1j, np.ones(1)]


@pytest.mark.parametrize("number", REFUSED, ids=repr)
def test_numbers_refused(number):
    with pytest.raises(ValueError, match="`margin` must be a number >= 0. Received: margin="):
        check_number("margin", number)


def test_minimum_itself():
    check_number("margin", 2.0, minimum=2.0)
    with pytest.raises(ValueError, match="`margin` must be a number > 2. Received: margin=2.0"):
        check_number("margin", 2.0, minimum=2.0, exclusive=True)
    with pytest.raises(ValueError, match="`margin` must be a number >= 2. Received: margin=1.5"):
        check_number("margin", 1.5, minimum=2.0)
