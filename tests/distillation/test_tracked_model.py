"""The metrics of a step: their names, and no value where a step has none."""

import keras
import pytest
from linear_models import LABEL_LOSS, X, Y, compiled, evaluate, linear

from keras_tkd import Distiller, TriKD
from keras_tkd.losses import LogitRegression, SoftTargets, TripletDistillation


class TestNames:
    """Each value that a step tracks has a name of its own."""

    @pytest.mark.parametrize("name", ["loss", "student_loss", "agreement", "regularization", "tkd_violated"])
    def test_of_a_loss_is_not_that_of_another_value(self, name):
        own = [TripletDistillation(), LogitRegression(name=name)]
        with pytest.raises(ValueError, match=f"must have a name of its own.*Received: a loss with name='{name}'"):
            Distiller(linear("teacher", 1), linear("student", 2), own)

    def test_of_a_loss_is_not_that_of_a_compiled_metric(self):
        model = compiled(Distiller(linear("teacher", 1), linear("student", 2), SoftTargets(name="accuracy")))
        with pytest.raises(ValueError, match="must not have the name .* Received: two of name='accuracy'"):
            evaluate(model, X)

    def test_of_a_compiled_metric_is_not_one_of_trikds(self):
        model = TriKD(linear("teacher", 1), linear("student", 2))
        metric = keras.metrics.SparseCategoricalAccuracy("teacher_loss")
        model.compile(keras.optimizers.SGD(0.1), LABEL_LOSS, metrics=[metric])
        with pytest.raises(ValueError, match="Received: two of name='teacher_loss'"):
            model.fit(X, Y, verbose=0)


class TestCurves:
    """A value that a step does not have is no 0 in the logs."""

    def test_without_labels_there_is_no_loss_on_them(self):
        model = Distiller(linear("teacher", 1), linear("student", 2), LogitRegression())
        # Without metrics: those of Keras need labels.
        model.compile(keras.optimizers.SGD(0.1), LABEL_LOSS)
        history = model.fit(X, validation_data=(X,), verbose=0).history
        assert "student_loss" not in history and "val_student_loss" not in history
        assert history["loss"] == history["logits"] and {"val_loss", "val_agreement"} <= set(history)
        online = TriKD(linear("teacher", 1), linear("student", 2))
        online.compile(keras.optimizers.SGD(0.1), LABEL_LOSS)
        history = online.fit(X, verbose=0).history
        assert set(history) == {"loss", "kd", "agreement", "teacher_total", "teacher_peer"}

    def test_training_with_labels_and_validation_without(self):
        model = Distiller(linear("teacher", 1), linear("student", 2), LogitRegression())
        model.compile(keras.optimizers.SGD(0.1), LABEL_LOSS)
        history = model.fit(X, Y, validation_data=(X,), epochs=2, batch_size=12, verbose=0).history
        assert len(history["student_loss"]) == 2 and "val_student_loss" not in history
        assert model.evaluate(X, Y, verbose=0, return_dict=True)["student_loss"] > 0

    def test_of_a_compile_without_a_loss(self):
        model = Distiller(linear("teacher", 1), linear("student", 2), LogitRegression())
        model.compile(keras.optimizers.SGD(0.1), metrics=["accuracy"])
        assert set(evaluate(model, X)) == {"loss", "logits", "agreement", "accuracy"}

    def test_of_trikd_whose_teacher_is_frozen_later(self):
        model = TriKD(linear("teacher", 1), linear("student", 2), linear("anchor", 3))
        model.teacher.trainable = False
        names = {"loss", "student_loss", "kd", "agreement", "student_anchor", "teacher_anchor", "accuracy"}
        assert set(evaluate(compiled(model), X)) == names
