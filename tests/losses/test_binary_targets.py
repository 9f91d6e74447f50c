"""Soft targets of classes that are each a yes or no: what softmax, gradient and temperature make of them by hand."""

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.losses import BinarySoftTargets, SoftTargets, binary_soft_targets

RNG = np.random.default_rng(0)
TEACHER, STUDENT = 4.0 * RNG.normal(size=(2, 5, 3))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_one_class_is_a_softmax_of_two(temperature):
    """sigmoid(z) is the first of softmax((z, 0)): a yes or no is a choice of two classes."""
    two = [np.stack([z[:, 0], np.zeros(5)], axis=1) for z in (TEACHER, STUDENT)]
    expected = SoftTargets(temperature, reduction=None, dtype="float64")(*two)
    given = BinarySoftTargets(temperature, reduction=None, dtype="float64")(TEACHER[:, :1], STUDENT[:, :1])
    np.testing.assert_allclose(given, expected, rtol=1e-9)


def test_several_classes_are_the_mean_of_each_by_itself():
    each = [binary_soft_targets(TEACHER[:, c : c + 1], STUDENT[:, c : c + 1]) for c in range(3)]
    np.testing.assert_allclose(binary_soft_targets(TEACHER, STUDENT), sum(each) / 3, rtol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_is_the_difference_of_probabilities(temperature):
    """d/dz_s of T^2 KL / C is T (sigmoid(z_s / T) - sigmoid(z_t / T)) / C."""
    student = tf.constant(STUDENT)
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = BinarySoftTargets(temperature, reduction="sum", dtype="float64")(TEACHER, student)
    p_t, p_s = (1 / (1 + np.exp(-z / temperature)) for z in (TEACHER, STUDENT))
    np.testing.assert_allclose(tape.gradient(loss, student), temperature * (p_s - p_t) / 3, rtol=1e-10, atol=1e-14)


def test_at_a_high_temperature_it_is_an_eighth_of_the_squared_difference():
    """sigmoid is 1/2 + z / 4T there, and KL is (p - q)^2 / (2 * 1/4): T^2 makes (z_t - z_s)^2 / 8, whatever T is."""
    expected = np.mean((TEACHER - STUDENT) ** 2, axis=-1) / 8
    np.testing.assert_allclose(binary_soft_targets(TEACHER, STUDENT, 1e4), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_apart_nothing_overflows(dtype):
    """Of opposite sure answers the divergence is the difference of the logits, and its slope 1: T = 1, one class."""
    student = tf.constant([[-500.0], [500.0]], dtype)
    with tf.GradientTape() as tape:
        tape.watch(student)
        values = BinarySoftTargets(1.0, reduction=None, dtype=dtype)([[500.0], [-500.0]], student)
    np.testing.assert_array_equal(values, [500.0, 500.0])
    np.testing.assert_array_equal(tape.gradient(values, student), [[-1.0], [1.0]])


def test_layers_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"'binary_kd' compares one output.*\(None, 3\).*\(None, 1\)"):
        BinarySoftTargets().build((None, 3), (None, 1))
