"""The loss on the labels: the one given to `compile`, or what a subclass computes in its place."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from linear_models import CLASSES, X, Y, compiled, evaluate, kernel, label_loss, linear

from keras_tkd import Distiller, TriKD
from keras_tkd.losses import LogitRegression, SoftTargets


def squared_error(y, y_pred):
    """Of one-hot labels, per sample."""
    return keras.ops.mean(keras.ops.square(keras.ops.one_hot(y, CLASSES) - y_pred), axis=-1)


class Own:
    """A user's loss on the labels, without the one that was given to `compile`."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        assert keras.ops.shape(x["image"]) == keras.ops.shape(X)
        return keras.ops.mean(squared_error(y, y_pred))


class Doubled:
    """Twice the loss that was given to `compile`, in the signature of Keras before 3.3."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 2 * super().compute_loss(x, y, y_pred, sample_weight)


class OwnDistiller(Own, Distiller):
    pass


class DoubledDistiller(Doubled, Distiller):
    pass


class OwnTriKD(Own, TriKD):
    pass


class TestComputeLoss:
    """Keras's extension point gives the student's part of the total, in training and in evaluation."""

    def models(self, **arguments):
        return linear("teacher", 1), linear("student", 2, **arguments)

    def check(self, model, value, gradient, x=X, **given):
        """`value` and its `gradient` are those of the total, oracles on the student's kernel."""
        result = evaluate(model, x, **given)
        before = kernel(model.student)
        assert result["student_loss"] == pytest.approx(value, rel=1e-4)
        history = model.fit(x, Y, batch_size=12, shuffle=False, verbose=0, **given).history
        assert history["student_loss"][0] == pytest.approx(value, rel=1e-4)
        np.testing.assert_allclose(kernel(model.student), before - 0.1 * gradient, rtol=1e-4, atol=1e-6)

    def of_squared_error(self, student):
        """Value and gradient of the mean of 36 squares."""
        error = X @ kernel(student) - np.eye(CLASSES)[Y]
        return (error**2).mean(), X.T @ (2 * error / error.size)

    def of_crossentropy(self, student, rows):
        z = X @ kernel(student)
        p = np.exp(z - z.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return (rows * label_loss(z)).mean(), X.T @ (rows[:, None] * (p - np.eye(CLASSES)[Y]) / 12)

    @pytest.mark.parametrize("x", [{"image": X}, {"image": X, "index": np.arange(12)}], ids=["image", "index"])
    def test_an_override_has_its_value_as_student_loss(self, x):
        model = compiled(OwnDistiller(*self.models(), SoftTargets(), 0.0, 0.5))
        value, gradient = self.of_squared_error(model.student)
        self.check(model, value, 0.5 * gradient, x)

    def test_an_override_may_call_what_it_overrides(self):
        model = compiled(DoubledDistiller(*self.models(), SoftTargets(), 0.0))
        rows = np.linspace(0, 2, 12)
        value, gradient = self.of_crossentropy(model.student, rows)
        self.check(model, 2 * value, 2 * gradient, sample_weight=rows)

    def test_an_override_in_trikd_is_the_students_alone(self):
        model = compiled(OwnTriKD(*self.models(), distillation_loss_weights=0.0))
        teacher = X @ kernel(model.teacher)
        assert evaluate(model, {"image": X})["teacher_loss"] == pytest.approx(label_loss(teacher).mean(), rel=1e-4)
        self.check(model, *self.of_squared_error(model.student), {"image": X})

    def test_needs_no_loss_in_compile_and_no_labels(self):
        class Unlabelled(Distiller):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                assert y is None
                return keras.ops.mean(keras.ops.square(y_pred))

        model = Unlabelled(*self.models(), SoftTargets(), 0.0)
        model.compile(keras.optimizers.SGD(0.1))
        outputs = X @ kernel(model.student)
        before = kernel(model.student)
        history = model.fit(X, batch_size=12, verbose=0).history
        assert history["student_loss"][0] == history["loss"][0] == pytest.approx((outputs**2).mean(), rel=1e-4)
        expected = before - 0.1 * X.T @ (2 * outputs / outputs.size)
        np.testing.assert_allclose(kernel(model.student), expected, rtol=1e-4, atol=1e-6)

    def test_regularization_is_a_term_of_its_own(self):
        """`keras.Model.compute_loss` adds it; here an override that leaves it out loses nothing."""
        l2 = keras.regularizers.L2(0.5)
        model = compiled(OwnDistiller(*self.models(kernel_regularizer=l2), SoftTargets(), 0.0))
        value, _ = self.of_squared_error(model.student)
        decay = 0.5 * (kernel(model.student) ** 2).sum()
        result = evaluate(model, {"image": X})
        assert result["student_loss"] == pytest.approx(value, rel=1e-4)
        assert result["loss"] == pytest.approx(value + decay, rel=1e-4)
        own = compiled(Distiller(*self.models(kernel_regularizer=l2), SoftTargets()))
        z = X @ kernel(own.student)
        for y_pred in (z.astype("float32"), None):
            assert float(own.compute_loss(X, Y, y_pred)) == pytest.approx(label_loss(z).mean(), rel=1e-4)

    def test_none_is_no_loss_on_the_labels(self):
        class Without(Distiller):
            def compute_loss(self, *args, **kwargs):
                return None

        model = compiled(Without(*self.models(), LogitRegression(), 2.0))
        squares = (X @ (kernel(model.teacher) - kernel(model.student))) ** 2
        assert evaluate(model, X)["loss"] == pytest.approx(2 * squares.mean(), rel=1e-4)

    def test_values_per_sample_are_refused(self):
        class PerSample(Distiller):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return squared_error(y, y_pred)

        with pytest.raises(ValueError, match=r"`compute_loss` must return a scalar, or None.*shape \(12,\).*mean"):
            evaluate(compiled(PerSample(*self.models(), SoftTargets()), run_eagerly=True), X)

    @pytest.mark.parametrize("value", [{"a": 1.0}, [1.0, 2.0], "mean", tf.constant("mean")], ids=repr)
    def test_whatever_is_no_number_is_refused(self, value):
        class Returning(Distiller):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return value

        model = compiled(Returning(*self.models(), SoftTargets()))
        with pytest.raises(ValueError, match="`compute_loss` must return a scalar, or None.*Received: (a|shape)"):
            evaluate(model, X)

    @pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.array(2.0), tf.constant(2)], ids=repr)
    def test_a_number_of_any_kind_is_one(self, value):
        class Returning(Distiller):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                return value

        assert evaluate(compiled(Returning(*self.models(), SoftTargets())), X)["student_loss"] == 2.0

    def test_is_told_whether_the_step_trains(self):
        class Told(Distiller):
            def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
                told.append(training)
                return super().compute_loss(x, y, y_pred, sample_weight, training)

        told = []
        model = compiled(Told(*self.models(), SoftTargets()), run_eagerly=True)
        evaluate(model, X)
        model.fit(X, Y, batch_size=12, verbose=0)
        assert told == [False, True]
