"""Decisions by paired differences: by hand, against simulated comparisons, and what they would miss."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from keras_tkd.evaluation import significance
from keras_tkd.evaluation.significance import BETTER, NOT_SHOWN, WORSE, adjust_by_holm, judge_images, judge_seeds

TRIALS = 2_000
designs = pytest.mark.parametrize("seeds", [3, 5])
families = pytest.mark.parametrize("methods", [1, 5, 20])


def test_student_t_by_hand():
    """Quantiles of tables: t(0.975, 2) = 4.3027; and with two degrees of freedom p = 1 - t / sqrt(2 + t^2)."""
    (verdict,) = judge_seeds([[0.05, 0.06, 0.07]], 10_000, 3)
    # Mean 0.06, deviation 0.01, standard error 0.01 / sqrt(3) = 0.0057735, t = 10.3923.
    assert verdict.gain == pytest.approx(0.06) and verdict.seeds == 3 and verdict.decision == BETTER
    assert verdict.interval == pytest.approx((0.06 - 4.3027 * 0.0057735, 0.06 + 4.3027 * 0.0057735), abs=1e-6)
    assert verdict.p == pytest.approx(1 - 10.3923 / np.sqrt(2 + 10.3923**2), rel=1e-4)
    (verdict,) = judge_seeds([[-0.05, -0.06, -0.07]], 10_000, 3)
    assert verdict.decision == WORSE and verdict.gain == pytest.approx(-0.06)
    # t = 2 / 1 * sqrt(3) = 3.4641 < 4.3027
    (verdict,) = judge_seeds([[0.01, 0.02, 0.03]], 10_000, 3)
    assert verdict.decision == NOT_SHOWN and verdict.p == pytest.approx(1 - 3.4641 / np.sqrt(14), rel=1e-4)


def test_fewer_than_three_seeds_decide_nothing():
    """However large and alike the gains are."""
    two, one, none = judge_seeds([[0.5, 0.5], [0.5], []], 10_000, 2)
    assert [each.decision for each in (two, one, none)] == [NOT_SHOWN] * 3 and two.p == 1
    # t(0.975, 1) = 12.706, deviation of one image: 12.706 / 10,000 / sqrt(2) = 0.00089845.
    assert two.interval == pytest.approx((0.5 - 0.00089845, 0.5 + 0.00089845), abs=1e-7)
    assert (one.gain, one.interval, one.seeds) == (0.5, None, 1)
    assert (none.gain, none.interval, none.seeds) == (None, None, 0)
    assert two.detectable is one.detectable is None


def test_who_lacks_a_seed_is_not_decided_and_counts():
    """Of five, one may have collapsed: the four that are left were chosen by that."""
    gains = [0.05, 0.051, 0.052, 0.053, 0.054]
    whole, lacking = judge_seeds([gains, gains[:4]], 10_000, 5)
    assert (whole.decision, lacking.decision) == (BETTER, NOT_SHOWN) and lacking.gain == pytest.approx(0.0515)
    assert whole.p == pytest.approx(2 * judge_seeds([gains], 10_000, 5)[0].p)


def test_equal_gains_resolve_about_an_image():
    """Three gains of exactly n images: t = n * sqrt(3), decided from 4.3027 / sqrt(3) = 2.48 images on."""
    for images, decision in [(0, NOT_SHOWN), (1, NOT_SHOWN), (2, NOT_SHOWN), (3, BETTER), (-3, WORSE)]:
        (verdict,) = judge_seeds([[images / 360] * 3], 360, 3)
        assert verdict.decision == decision
        low, high = verdict.interval
        assert (high - low) / 2 == pytest.approx(2.4842 / 360, rel=1e-4)


# 2 * (sum of the binomial coefficients up to the smaller count) / 2^n, at most 1.
def test_intervals_of_accuracies_by_hand():
    """With two degrees of freedom t(0.975) = 4.3027. Of n right of n, Clopper and Pearson's low is 0.025 ^ (1 / n)."""
    estimate = significance.estimate_accuracy
    half = 4.3027 * 0.01 / np.sqrt(3)
    assert estimate([0.59, 0.6, 0.61], 10_000) == pytest.approx((0.6 - half, 0.6 + half), abs=1e-6)
    assert estimate([1.0], 10) == pytest.approx((0.025**0.1, 1.0))
    # No share is above 1. And of equal ones the deviation counts as one image of ten: more than a share can differ.
    assert estimate([0.9, 0.9, 0.9], 10)[1] == 1.0
    assert estimate([0.9, 0.9, 0.9], 10)[0] == pytest.approx(0.9 - 4.3027 * 0.1 / np.sqrt(3), abs=1e-5)


@pytest.mark.parametrize(
    ("gained", "lost", "p", "decision"),
    [
        (11, 1, 2 * (1 + 12) / 2**12, BETTER),
        (1, 11, 2 * (1 + 12) / 2**12, WORSE),
        (6, 0, 2 / 2**6, BETTER),  # 0.03125
        (5, 0, 2 / 2**5, NOT_SHOWN),  # 0.0625
        (4, 4, 1.0, NOT_SHOWN),
        (0, 0, 1.0, NOT_SHOWN),
    ],
)
def test_mcnemar_by_hand(gained, lost, p, decision):
    (verdict,) = judge_images([(gained, lost)], 1_000)
    assert verdict.p == pytest.approx(p) and verdict.decision == decision and verdict.seeds == 1
    assert verdict.gain == pytest.approx((gained - lost) / 1_000)
    low, high = verdict.interval
    assert low <= verdict.gain <= high and (low > 0 or high < 0) == (decision != NOT_SHOWN)


def test_interval_on_images_by_hand():
    """Six of six: Clopper and Pearson's lower end is 0.025^(1/6) = 0.54074; 6 * (2 * 0.54074 - 1) = 0.4889 images."""
    (verdict,) = judge_images([(6, 0)], 1_000)
    assert verdict.interval == pytest.approx((6 * (2 * 0.025 ** (1 / 6) - 1) / 1_000, 6 / 1_000))
    # Models that never disagreed may do so on another image.
    assert judge_images([(0, 0)], 1_000)[0].interval == (-1 / 1_000, 1 / 1_000)


def test_images_of_several_methods_are_corrected_for():
    few, none, many = judge_images([(6, 0), None, (20, 0)], 1_000)
    assert few.decision == NOT_SHOWN and few.p == pytest.approx(2 * 2 / 2**6)
    assert (none.decision, none.gain, none.interval) == (NOT_SHOWN, None, None)
    assert many.decision == BETTER and many.p == pytest.approx(3 * 2 / 2**20)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.5, times 4, 3, 2, 1: 0.04, 0.06, 0.06 (never below the one before), 0.5.
    assert adjust_by_holm(np.array([0.03, 0.5, 0.01, 0.02])) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert adjust_by_holm(np.array([[0.6, 0.9], [0.02, 0.01]])) == pytest.approx(np.array([[1, 1], [0.02, 0.02]]))


@pytest.mark.parametrize(
    ("right", "other", "images", "expected"),
    # All wrong images of the one may be right ones of the other, as far as there are.
    [(83, 80, 100, (20, 17)), (30, 20, 100, (30, 20)), (100, 99, 100, (1, 0)), (0, 0, 5, (0, 0))],
)
def test_disagreements_at_worst(right, other, images, expected):
    assert significance.bound_disagreements(right, other, images) == expected


def decide_all(gains, images):
    """Decisions of many comparisons at once, gains `(trials, methods, seeds)`, by the parts that `judge_seeds` uses."""
    mean, _, p = significance._test_seeds(gains, images)
    decisions = significance.decide(mean, adjust_by_holm(p))
    first = [each.decision for each in judge_seeds(gains[0], images, gains.shape[-1])]
    assert decisions[0].tolist() == first
    return decisions


def simulate(methods, seeds, images, deviation, gain=0.0):
    """Gains of methods over one baseline; the first has a true gain. Accuracies are whole numbers of images."""
    rng = np.random.default_rng([methods, seeds, images])
    # The difference of two independent accuracies has sqrt(2) times their deviation.
    accuracies = rng.normal(0.9, deviation / np.sqrt(2), (TRIALS, methods + 1, seeds))
    accuracies[:, 0] += gain
    accuracies = np.round(accuracies * images) / images
    return accuracies[:, :-1] - accuracies[:, -1:]


@designs
@families
@pytest.mark.parametrize("images", [1_000_000, 360])
def test_few_comparisons_without_a_difference_hold_a_false_better(methods, seeds, images):
    """Holm bounds comparisons with a false decision by 5 %, and half of the false ones are BETTER: 2.5 %.

    The deviation of 360 images' gains is one image and a half, so that equal gains are frequent.
    """
    decisions = decide_all(simulate(methods, seeds, images, 0.004), images)
    false = int((decisions == BETTER).any(axis=-1).sum())
    assert false <= binom.ppf(0.9999, TRIALS, 0.025) < 0.05 * TRIALS
    # One comparison on fine accuracies holds that exactly.
    if methods == 1 and images > 360:
        assert false >= binom.ppf(0.0001, TRIALS, 0.025)


@designs
@families
def test_without_correction_more_would(methods, seeds):
    """The simulation can fail: 5 or 20 methods without Holm's correction, and the normal distribution for Student's."""
    gains = simulate(methods, seeds, 1_000_000, 0.004)
    mean, _, p = significance._test_seeds(gains, 1_000_000)
    if methods == 1:
        p = 2 * norm.sf(np.abs(mean) / gains.std(axis=-1, ddof=1) * seeds**0.5)
    false = (significance.decide(mean, p) == BETTER).any(axis=-1).sum()
    assert false > binom.ppf(0.9999, TRIALS, 0.025)


@designs
@families
def test_the_detectable_gain_is_found_in_80_percent(methods, seeds):
    """Within four standard deviations of 2,000 trials, sqrt(0.8 * 0.2 / 2,000) = 0.0089; Holm's later steps add."""
    gain = significance.find_detectable_gain(0.004, seeds, methods)
    found = np.mean(decide_all(simulate(methods, seeds, 1_000_000, 0.004, gain), 1_000_000)[:, 0] == BETTER)
    assert 0.8 - 4 * 0.0089 < found < 0.8 + 4 * 0.0089 + 0.025


def test_the_detectable_gain_of_a_verdict_is_that_of_its_seeds():
    """Of deviations of one point; proportional to them, and smaller with more seeds and fewer methods."""
    three = judge_seeds([[0.01, 0.02, 0.03]], 10_000, 3)[0].detectable
    assert three == pytest.approx(significance.find_detectable_gain(0.01, 3))
    assert judge_seeds([[0.02, 0.04, 0.06]], 10_000, 3)[0].detectable == pytest.approx(2 * three)
    assert judge_seeds([[0.01, 0.02, 0.03]] * 5, 10_000, 3)[0].detectable > three
    assert significance.find_detectable_gain(0.01, 5) < three
