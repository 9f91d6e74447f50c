"""Measures of single classes, against scikit-learn's and by hand."""

import numpy as np
import pytest
from sklearn import metrics

from keras_tkd import evaluation


def test_measures_of_classes_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels = rng.choice(4, 200, p=[0.6, 0.25, 0.1, 0.05])
    predicted = np.where(rng.random(200) < 0.6, labels, rng.integers(0, 4, 200))
    confusion = evaluation.confusion_matrix(predicted, labels, 4)
    np.testing.assert_array_equal(confusion, metrics.confusion_matrix(labels, predicted))
    shares = evaluation.class_accuracies(confusion)
    np.testing.assert_allclose(shares, metrics.recall_score(labels, predicted, average=None), rtol=1e-12)
    balanced = evaluation.balanced_accuracy(confusion)
    assert balanced == pytest.approx(metrics.balanced_accuracy_score(labels, predicted), rel=1e-12)
    # A model that is right on the large class above all: the two accuracies are not the same number.
    assert abs(balanced - np.mean(predicted == labels)) > 0.01


def test_a_class_without_samples_has_no_accuracy():
    confusion = evaluation.confusion_matrix([0, 2, 2, 1], [0, 0, 2, 2], 3)
    assert confusion.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 1]]
    np.testing.assert_array_equal(evaluation.class_accuracies(confusion), [0.5, np.nan, 0.5])
    assert evaluation.balanced_accuracy(confusion) == 0.5


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        ([0, 1], [0], "a class id for each prediction"),
        ([0, 3], [0, 1], "Classes must be 0 to 2. Received: classes 0 to 3"),
        ([0, 1], [0, -1], "Classes must be 0 to 2. Received: classes -1 to 1"),
        ([0.5, 1], [0, 1], "`predicted` must be class ids"),
    ],
)
def test_what_cannot_be_counted_is_refused(predicted, labels, message):
    with pytest.raises(ValueError, match=message):
        evaluation.confusion_matrix(predicted, labels, 3)
