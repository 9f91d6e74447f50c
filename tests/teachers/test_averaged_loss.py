"""A loss averaged over teachers is a distillation loss: by hand, and by the contract of all losses."""

import keras
import numpy as np
import pytest

from keras_tkd.losses import DistillationLoss, Hint, LogitRegression, TripletDistillation
from keras_tkd.teachers.averaged_loss import AveragedLoss

# Mean squares 0.5 and 0 of the first sample, 4.5 and 2 of the second.
TEACHERS = {
    "teacher_1/logits": np.array([[1.0, 0.0], [3.0, 0.0]], "float32"),
    "teacher_2/logits": np.array([[0.0, 0.0], [0.0, 2.0]], "float32"),
    "logits": np.full((2, 2), np.nan, "float32"),
}
STUDENT = {"logits": np.zeros((2, 2), "float32")}
ROWS = np.array([[0.5, 0.0], [4.5, 2.0]])


def value(loss, labels=None, **given):
    return float(loss(*loss.inputs(TEACHERS, STUDENT, labels, None), **given))


def test_fixed_weights_by_hand():
    loss = AveragedLoss(LogitRegression(), [1.0, 3.0], 2)
    expected = ROWS @ [0.25, 0.75]
    assert value(loss) == pytest.approx(expected.mean(), rel=1e-6)
    assert value(loss, sample_weight=np.array([0.5, 3.0])) == pytest.approx((expected * [0.5, 3.0]).mean(), rel=1e-6)
    assert value(AveragedLoss(LogitRegression(), None, 2)) == pytest.approx(ROWS.mean(), rel=1e-6)


def test_weights_of_each_sample_by_hand():
    """Cross-entropies of label 0 are log(1 + exp(z_1 - z_0)); two teachers: w_1 = softmax of the other's error."""
    loss = AveragedLoss(LogitRegression(), "confidence", 2)
    errors = np.log1p(np.exp([[-1.0, 0.0], [-3.0, 2.0]]))
    first = 1 - np.exp(errors[:, 0]) / np.exp(errors).sum(1)
    expected = first * ROWS[:, 0] + (1 - first) * ROWS[:, 1]
    assert value(loss, labels=np.zeros(2)) == pytest.approx(expected.mean(), rel=1e-5)
    weighted = value(loss, labels=np.zeros(2), sample_weight=np.array([0.5, 3.0]))
    assert weighted == pytest.approx((expected * [0.5, 3.0]).mean(), rel=1e-5)


def test_values_of_each_sample_by_hand():
    """What `values`, and a call without a reduction, give: one for each sample, as of every distillation loss."""
    loss = AveragedLoss(LogitRegression(reduction=None), [1.0, 3.0], 2)
    pair = loss.inputs(TEACHERS, STUDENT, None, None)
    expected = ROWS @ [0.25, 0.75]
    assert loss.values(*pair).numpy() == pytest.approx(expected, rel=1e-6)
    assert loss(*pair).numpy() == pytest.approx(expected, rel=1e-6)
    loss = AveragedLoss(LogitRegression(), "confidence", 2)
    given = {**loss.inputs(TEACHERS, STUDENT, np.zeros(2), None)[0], "shares": np.array([[0.25, 1.0], [0.75, 0.0]])}
    assert loss.values(given, [STUDENT["logits"]] * 2).numpy() == pytest.approx([0.25 * 0.5, 4.5], rel=1e-6)


def test_weights_of_each_sample_need_a_value_of_each():
    class OneNumber(DistillationLoss):
        def call(self, y_true, y_pred):
            return keras.ops.mean(y_pred)

    loss = AveragedLoss(OneNumber(name="one_number"), "entropy", 2)
    with pytest.raises(ValueError, match="'one_number' gives one number per batch.*an ensemble's weights per sample"):
        value(loss)
    assert value(AveragedLoss(OneNumber(), [1.0, 3.0], 2)) == 0.0


def test_rows_that_a_layer_masked_do_not_count():
    student = keras.ops.convert_to_tensor(STUDENT["logits"])
    student._keras_mask = keras.ops.convert_to_tensor([False, True])
    loss = AveragedLoss(LogitRegression(), [1.0, 3.0], 2)
    result = loss(*loss.inputs(TEACHERS, {"logits": student}, None, None))
    assert float(result) == pytest.approx(0.25 * 4.5 + 0.75 * 2.0, rel=1e-6)


def test_it_has_the_contract_of_a_distillation_loss():
    inner = TripletDistillation(margin=2.0, name="triplets", dtype="float64")
    loss = AveragedLoss(inner, [1.0, 3.0], 2)
    assert isinstance(loss, DistillationLoss)
    assert (loss.name, loss.dtype, loss.reduction) == ("triplets", "float64", inner.reduction)
    assert loss.statistic_names == inner.statistic_names
    assert loss.teacher_layers == ["teacher_1/logits", "teacher_2/logits"] and loss.student_layers is None
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    assert again.losses[0].margin == 2.0
    same = AveragedLoss(LogitRegression(), "entropy", 2)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(same))
    assert value(again) == value(same)


def test_a_loss_with_layers_has_them_for_each_teacher():
    loss = AveragedLoss(Hint(teacher_layers="a", student_layers="b"), None, 3)
    assert loss.owns_layers and not loss.layers
    loss.build([(None, 4), (None, 5), (None, 6)], (None, 2))
    layers = loss.layers
    assert [layer.compute_output_shape((None, 2)) for layer in layers] == [(None, 4), (None, 5), (None, 6)]
    # Of a loss that is built again, as by a second Distiller, the layers stay.
    loss.build([(None, 4), (None, 5), (None, 6)], (None, 2))
    assert len(loss.layers) == 3 and all(one is other for one, other in zip(loss.layers, layers, strict=True))
