"""Measures of outputs for images of several classes, against scikit-learn and by hand."""

import numpy as np
import pytest
import sklearn.metrics

from keras_tkd import evaluation
from keras_tkd.metrics import ExactMatch
from keras_tkd.utils.multi_hot import read_multi_hot

RNG = np.random.default_rng(0)
LABELS = (RNG.random((50, 4)) < [0.1, 0.3, 0.5, 0.9]).astype("uint8")
# Rounded, so that some are equal, and some exactly 0, which is no yes.
OUTPUTS = np.round(LABELS - 0.5 + RNG.normal(size=(50, 4)), 1)


def test_they_are_scikit_learns():
    yes = OUTPUTS > 0
    assert evaluation.exact_match(OUTPUTS, LABELS) == pytest.approx(sklearn.metrics.accuracy_score(LABELS, yes))
    loss = sklearn.metrics.hamming_loss(LABELS, yes)
    assert evaluation.binary_accuracy(OUTPUTS, LABELS) == pytest.approx(1 - loss)
    expected = sklearn.metrics.f1_score(LABELS, yes, average=None)
    np.testing.assert_allclose(evaluation.f1_scores(OUTPUTS, LABELS), expected)
    expected = sklearn.metrics.average_precision_score(LABELS, OUTPUTS, average=None)
    np.testing.assert_allclose(evaluation.average_precisions(OUTPUTS, LABELS), expected)


def test_what_nothing_is_known_of():
    labels = np.array([[1, 0, 0], [1, 0, 0]])
    outputs = np.array([[1.0, -1.0, 1.0], [2.0, -2.0, -1.0]])
    # No sample has the second class, and none was given it; the third was given to one.
    np.testing.assert_array_equal(evaluation.f1_scores(outputs, labels), [1.0, np.nan, 0.0])
    np.testing.assert_array_equal(evaluation.average_precisions(outputs, labels), [1.0, np.nan, np.nan])


def test_agreement_is_of_each_yes_and_no():
    assert evaluation.binary_agreement([[1.0, -1.0], [2.0, 3.0]], [[9.0, 1.0], [1.0, -1.0]]) == 0.5


def test_right_are_those_with_all_classes_right():
    assert evaluation.is_right([[1, 0], [1, 1]], [[1, 0], [1, 0]]).tolist() == [True, False]
    assert evaluation.is_right([2, 1], [2, 0]).tolist() == [True, False]


class TestChance:
    def test_who_answers_all_alike_is_at_chance(self):
        assert evaluation.ranks_at_chance(np.zeros((50, 4)), LABELS)
        assert evaluation.ranks_at_chance(np.ones((50, 4)), LABELS)

    def test_who_ranks_one_class_is_not(self):
        outputs = np.zeros((50, 4))
        outputs[:, 1] = 3.0 * LABELS[:, 1] + RNG.normal(size=50)
        assert not evaluation.ranks_at_chance(outputs, LABELS)

    def test_of_those_who_guess_one_in_40_is_told_to_know_something(self):
        """200 guesses: 5 are expected, and of a share of 0.025 more than 12 come once in 400 times."""
        known = sum(not evaluation.ranks_at_chance(RNG.normal(size=(50, 4)), LABELS) for _ in range(200))
        assert known <= 12

    def test_ranks_worse_than_chance_are_no_knowledge(self):
        assert evaluation.ranks_at_chance(-(LABELS + 0.1 * RNG.normal(size=(50, 4))), LABELS)

    def test_the_bound_is_that_of_scipy(self):
        """One class: the one-sided test at 2.5 %, on both sides of it."""
        import scipy.stats

        sides = set()
        for shift in np.linspace(0, 2, 30):
            scores = RNG.normal(size=50) + shift * LABELS[:, 1]
            has = LABELS[:, 1] > 0
            test = scipy.stats.mannwhitneyu(
                scores[has], scores[~has], alternative="greater", method="asymptotic", use_continuity=False
            )
            labels = np.stack([LABELS[:, 1], np.ones(50)], axis=1)  # a class that all have is not tested
            at_chance = evaluation.ranks_at_chance(np.stack([scores, scores], axis=1), labels)
            assert at_chance == (test.pvalue > 0.025)
            sides.add(at_chance)
        assert sides == {True, False}


def test_the_metric_is_the_measure_batch_by_batch():
    metric = ExactMatch("accuracy")
    for rows in (slice(0, 32), slice(32, 50)):
        metric.update_state(LABELS[rows], OUTPUTS[rows])
    assert float(metric.result()) == pytest.approx(evaluation.exact_match(OUTPUTS, LABELS))
    assert ExactMatch.from_config(metric.get_config()).name == "accuracy"


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (np.arange(6), r"shape \(6,\)"),
        (np.full((6, 2), 2), "from 2 to 2"),
        (np.array([["a", "b"]]), "<U1"),
        (np.full((6, 2), np.nan), "nan"),
    ],
)
def test_labels_of_another_form_are_refused(labels, received):
    with pytest.raises(ValueError, match=rf"`labels` must be multi-hot rows.*{received}"):
        read_multi_hot(labels)


def test_rows_of_another_number_are_refused():
    with pytest.raises(ValueError, match=r"outputs of shape \(50, 3\), labels of shape \(50, 4\)"):
        evaluation.exact_match(OUTPUTS[:, :3], LABELS)
