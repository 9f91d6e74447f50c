"""Decisions whether models are better than a baseline, by paired differences over seeds or over test images.

Numbers in, numbers out: `keras_tkd.reports.verdict` says them in words.
"""

import dataclasses

import numpy as np
from scipy.optimize import brentq
from scipy.stats import binomtest, nct
from scipy.stats import t as student_t

__all__ = [
    "BETTER",
    "NOT_SHOWN",
    "Verdict",
    "WORSE",
    "adjust_by_holm",
    "bound_disagreements",
    "decide",
    "estimate_accuracy",
    "find_detectable_gain",
    "judge_images",
    "judge_seeds",
]

BETTER, WORSE, NOT_SHOWN = "BETTER", "WORSE", "NOT SHOWN"
_LEVEL = 0.05
_POWER = 0.8
# Of two seeds the one degree of freedom that is left says next to nothing of how much seeds differ.
_LEAST_SEEDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The outcome of a comparison of a model with its baseline by paired measurements.

    Attributes:
        gain: accuracy of the model minus that of the baseline, -1..1; over seeds the mean. None without a pair.
        interval: `(low, high)`, the 95 % interval of the gain, of this comparison by itself; None for a single pair of
            several that were planned.
        p: its p-value, corrected for the number of comparisons by Holm's method; 1 where nothing may be decided.
        seeds: number of pairs.
        decision: `BETTER` or `WORSE` where p is at most 0.05, else `NOT_SHOWN`.
        detectable: the gain that so many seeds, if they differ as much as these, show in 80 % of cases; None where
            nothing is decided over seeds.
    """

    gain: float | None
    interval: tuple[float, float] | None
    p: float
    seeds: int
    decision: str
    detectable: float | None = None


def judge_seeds(gains, images, seeds):
    """Decides by Student's t of the differences within each seed, corrected by Holm's method.

    Nothing is decided on fewer than three seeds, nor for a model that lacks some of those planned: what failed or
    collapsed is not missing by chance.

    Differences of accuracies are whole numbers of images. That they are equal in all seeds says that they differ by
    less than about an image, and not that they never do: their standard deviation counts as one image at least.

    Args:
        gains: for each model that is compared, a sequence with one difference of accuracies for each seed, -1..1.
        images: number of test images that the accuracies are shares of.
        seeds: number of seeds that were planned.

    Returns:
        A `Verdict` for each model.

    Example: the mean of three differences is 6 points, their standard deviation 1 point, the half interval
    `4.3027 * 1 / sqrt(3) = 2.48` points.

    >>> verdict = judge_seeds([[0.05, 0.06, 0.07]], images=10_000, seeds=3)[0]
    >>> verdict.decision, round(verdict.interval[0], 4), round(verdict.interval[1], 4)
    ('BETTER', 0.0352, 0.0848)
    """
    tests = [_test_seeds(np.asarray(each, "float64"), images) if len(each) > 1 else None for each in gains]
    decided = [len(each) == seeds >= _LEAST_SEEDS for each in gains]
    # Who was not decided was compared all the same, and counts.
    raw = [float(test[2]) if yes else 1.0 for test, yes in zip(tests, decided, strict=True)]
    verdicts = []
    for each, test, p, yes in zip(gains, tests, adjust_by_holm(np.array(raw)), decided, strict=True):
        gain = float(np.mean(each)) if len(each) else None
        verdicts.append(
            Verdict(
                gain=gain,
                interval=None if test is None else (gain - float(test[1]), gain + float(test[1])),
                p=float(p),
                seeds=len(each),
                decision=str(decide(gain, p)) if yes else NOT_SHOWN,
                detectable=find_detectable_gain(_deviation(each, images), seeds, len(gains)) if yes else None,
            )
        )
    return verdicts


def judge_images(disagreements, images):
    """Decides by an exact McNemar test on the test images of one seed, corrected by Holm's method.

    It tells whether these two models differ on images like these. Another seed makes other models: of what trains them
    only several seeds tell.

    The interval is that of Clopper and Pearson for the share of gained images among those on which the two disagree,
    and excludes 0 just where the uncorrected test decides. Models that never disagree may do so on another image: the
    interval reaches one image to either side.

    Args:
        disagreements: for each model that is compared `(gained, lost)`: the number of test images that it names right
            and its baseline wrong, and the other way round; None for one that there is nothing of.
        images: number of test images.

    Returns:
        A `Verdict` for each model.

    Example: of 12 images on which they disagree, 11 are gained: `p = 2 * (1 + 12) / 2**12 = 0.0063`.

    >>> verdict = judge_images([(11, 1)], images=1_000)[0]
    >>> verdict.decision, round(verdict.p, 4), verdict.gain
    ('BETTER', 0.0063, 0.01)
    """
    raw = [binomtest(each[0], sum(each)).pvalue if each and sum(each) else 1.0 for each in disagreements]
    verdicts = []
    for each, p in zip(disagreements, adjust_by_holm(np.array(raw)), strict=True):
        if each is None:
            verdicts.append(Verdict(gain=None, interval=None, p=1.0, seeds=0, decision=NOT_SHOWN))
            continue
        gained, either, gain = each[0], sum(each), (each[0] - each[1]) / images
        low, high = -1 / images, 1 / images
        if either:
            share = binomtest(gained, either).proportion_ci(1 - _LEVEL, "exact")
            low, high = ((2 * float(end) - 1) * either / images for end in share)
        decision = str(decide(gain, p))
        verdicts.append(Verdict(gain=gain, interval=(low, high), p=float(p), seeds=1, decision=decision))
    return verdicts


def estimate_accuracy(accuracies, images):
    """Returns the 95 % interval `(low, high)` of an accuracy, within 0..1.

    Of several seeds that of their mean, by Student's t; of one that of Clopper and Pearson, by the test images.

    Args:
        accuracies: one of each seed, 0..1.
        images: number of test images that they are shares of.

    Example: the mean of three accuracies is 0.6, their standard deviation 0.01, the half interval
    `4.3027 * 0.01 / sqrt(3) = 0.0248`.

    >>> [round(bound, 4) for bound in estimate_accuracy([0.59, 0.6, 0.61], 10_000)]
    [0.5752, 0.6248]
    """
    if len(accuracies) == 1:
        share = binomtest(round(accuracies[0] * images), images).proportion_ci(1 - _LEVEL, "exact")
        return float(share.low), float(share.high)
    mean, half, _ = _test_seeds(np.asarray(accuracies, "float64"), images)
    return max(0.0, float(mean - half)), min(1.0, float(mean + half))


def bound_disagreements(right, baseline_right, images):
    """Returns the most test images that two models can disagree on, `(gained, lost)`, where only accuracies are known.

    The more of them, the less their difference shows: a p-value of these is the largest that there can be.

    Args:
        right, baseline_right: number of images that each of the two names right.
        images: number of test images.
    """
    both = max(0, right + baseline_right - images)
    return right - both, baseline_right - both


def decide(gain, p):
    """Returns `BETTER`, `WORSE` or `NOT_SHOWN` for gains and their corrected p-values, as an array of their shape."""
    return np.where(np.asarray(p) > _LEVEL, NOT_SHOWN, np.where(np.asarray(gain) > 0, BETTER, WORSE))


def adjust_by_holm(p):
    """Corrects p-values by Holm's method, so that no more than 5 % of families hold a false decision.

    Args:
        p: `(..., comparisons)`, each row a family.

    Returns:
        Corrected p-values of the same shape: the smallest times the number of comparisons, the next times one fewer,
        and so on, none below one that was smaller, none above 1.

    Reference: Holm, "A simple sequentially rejective multiple test procedure", 1979. It holds whatever the comparisons
    have in common, such as a baseline.
    """
    order = np.argsort(p, axis=-1)
    factors = np.arange(p.shape[-1], 0, -1)
    stepped = np.maximum.accumulate(np.take_along_axis(p, order, -1) * factors, axis=-1)
    # Back into the order of the comparisons: the argsort of a permutation is its inverse.
    return np.minimum(1.0, np.take_along_axis(stepped, np.argsort(order, axis=-1), -1))


def find_detectable_gain(deviation, seeds, comparisons=1):
    """Returns the smallest true gain that a comparison over seeds shows in 80 % of cases.

    Args:
        deviation: standard deviation of the gain from seed to seed. Where it is estimated from few seeds, so is this.
        seeds: number of seeds, >= 2.
        comparisons: number of comparisons that are corrected for, of which this one is taken to come first.
    """
    freedom = seeds - 1
    critical = student_t.isf(_LEVEL / comparisons / 2, freedom)

    # Of a gain of x standard errors, t has the noncentral distribution; that it falls below -critical is negligible.
    def lacking(errors):
        return nct.sf(critical, freedom, errors) - _POWER

    return float(brentq(lacking, 0, 10 * critical) * deviation / seeds**0.5)


def _deviation(gains, images):
    """Computes the standard deviations of gains `(..., seeds)`, at least one image."""
    # An accuracy counts images: gains that happen to agree in all seeds are known no better than that.
    return np.maximum(np.std(gains, axis=-1, ddof=1), 1 / images)


def _test_seeds(gains, images):
    """Computes means, half 95 % intervals and p-values of gains `(..., seeds)` by Student's t."""
    seeds, mean = gains.shape[-1], gains.mean(axis=-1)
    error = _deviation(gains, images) / seeds**0.5
    p = 2 * student_t.sf(np.abs(mean) / error, seeds - 1)
    return mean, student_t.isf(_LEVEL / 2, seeds - 1) * error, p
