"""Telling pairs of one identity from pairs of two: by hand, and against an oracle of loops."""

import itertools

import numpy as np
import pytest

from keras_tkd import evaluation
from keras_tkd.evaluation.verification import _draw_pairs, _measure, verification_scores


def vectors(*degrees):
    """Unit vectors at angles, so that a cosine is that of the difference of two angles."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=-1)


def oracle(embeddings, identities):
    """The definitions, pair by pair and threshold by threshold."""
    same, different = [], []
    for i, j in itertools.combinations(range(len(embeddings)), 2):
        a, b = (np.asarray(embeddings[k], "float64") for k in (i, j))
        length = np.sqrt(sum(x * x for x in a)) * np.sqrt(sum(x * x for x in b))
        cosine = round(sum(x * y for x, y in zip(a, b, strict=True)) / length, 10) if length else 0.0
        (same if identities[i] == identities[j] else different).append(cosine)
    wins = sum((s > d) + 0.5 * (s == d) for s in same for d in different)
    points = [(0.0, 0.0)]
    for threshold in sorted({*same, *different}, reverse=True):
        points.append(tuple(np.mean([s >= threshold for s in group]) for group in (different, same)))
    for (f0, t0), (f1, t1) in itertools.pairwise(points):
        below, above = f0 - (1 - t0), f1 - (1 - t1)
        if below <= 0 <= above:
            equal_error = f0 + (f1 - f0) * (-below / (above - below))
            break
    return {
        "auc": wins / (len(same) * len(different)),
        "equal_error_rate": equal_error,
        "true_accepts_at_1_percent": max(t for f, t in points if f <= 0.01),
        "same_pairs": len(same),
        "different_pairs": len(different),
        "pairs": "all",
        "images": len(identities),
        "identities": len(set(identities)),
    }


def three(result):
    return [result[name] for name in ("auc", "equal_error_rate", "true_accepts_at_1_percent")]


# By hand


def test_perfect_separation():
    # Within an identity 10 degrees at most, between the two 80 at least.
    result = verification_scores(vectors(0, 10, 90, 100), [7, 7, 3, 3])
    assert three(result) == [1.0, 0.0, 1.0]
    assert (result["same_pairs"], result["different_pairs"], result["pairs"]) == (2, 4, "all")
    assert (result["images"], result["identities"]) == (4, 2)


def test_all_equal_is_chance():
    # One threshold accepts everything, the others nothing: from (0, 0) to (1, 1) in a straight line.
    for row in ([1.0, 3.0], [0.0, 0.0]):
        assert three(verification_scores(np.tile(row, (6, 1)), [0, 0, 0, 1, 1, 1])) == [0.5, 0.5, 0.0]


def test_the_wrong_way_round():
    # Same: 90 and 90 degrees; different: 0, 90, 90 and 0. Each same pair ties with two of the four: 2 * 0.5 / 4.
    result = verification_scores(vectors(0, 90, 0, 90), [0, 0, 1, 1])
    # The curve goes (0, 0), (0.5, 0), (1, 1): false accepts = false rejects where 0.5 + x / 2 = 1 - x, at x = 1/3.
    assert three(result) == pytest.approx([0.25, 2 / 3, 0.0])


def test_one_error_in_the_middle():
    # Same pairs 0.9, 0.8, 0.4; different 0.5, 0.3, 0.2, 0.1. The one loss of 12: 0.4 against 0.5.
    # At 0.8: no false accepts, 2/3 accepted. At 0.5: 1/4 and 2/3. At 0.4: 1/4 and 3/3.
    # False rejects fall from 1/3 to 0 while false accepts stay at 1/4: they meet at 1/4.
    assert three(_measure(np.array([0.9, 0.8, 0.4]), np.array([0.5, 0.3, 0.2, 0.1]))) == pytest.approx(
        [11 / 12, 1 / 4, 2 / 3]
    )


def test_ties_count_half_and_are_accepted_together():
    # Same 0.9, 0.5; different 0.5, 0.1: wins 2 + 0.5 + 1 of 4. (0, 1/2), then both at 0.5: (1/2, 1).
    # False accepts x / 2, false rejects (1 - x) / 2 between them: equal at x = 1/2, 1/4.
    assert three(_measure(np.array([0.9, 0.5]), np.array([0.5, 0.1]))) == pytest.approx([3.5 / 4, 1 / 4, 1 / 2])


@pytest.mark.parametrize(
    "different, accepted",
    [
        (100, 2 / 3),  # the most similar different pair is 1 % of them, which is allowed
        (99, 1 / 3),  # and here it is more
        (300, 1.0),  # and here the second and the third are allowed as well
    ],
)
def test_one_percent_of_false_accepts_is_allowed(different, accepted):
    # Same pairs 0.9, 0.7, 0.5; different ones 0.8, 0.6, 0.55, and the rest at 0.1.
    others = np.concatenate([[0.8, 0.6, 0.55], np.full(different - 3, 0.1)])
    assert _measure(np.array([0.9, 0.7, 0.5]), others)["true_accepts_at_1_percent"] == accepted


def test_points_on_a_line_are_points():
    # A straight line through (1/2 %, 1/4), (1 %, 2/4) and (1 1/2 %, 3/4): the middle one is the threshold that counts.
    others = np.concatenate([[0.9, 0.7, 0.5], np.full(197, 0.1)])
    assert _measure(np.array([0.9, 0.7, 0.5, 0.3]), others)["true_accepts_at_1_percent"] == 0.5


def test_length_does_not_matter():
    embeddings = vectors(0, 30, 50, 80, 85)
    identities = ["a", "a", "b", "b", "a"]
    scaled = embeddings * np.array([[3.0], [1e-6], [1e6], [0.1], [7.0]])
    assert verification_scores(scaled, identities) == verification_scores(embeddings, identities)


def test_rounding_breaks_no_ties():
    # All rows have one direction; their lengths, and so the rounding of their cosines, differ.
    lengths = np.random.default_rng(0).uniform(0.1, 9, 40)
    embeddings = lengths[:, None] * np.array([[1.0, 3.0, 7.0]])
    assert three(verification_scores(embeddings, np.arange(40) % 3)) == [0.5, 0.5, 0.0]


def test_an_identity_with_one_image_is_in_different_pairs():
    result = verification_scores(vectors(0, 10, 90), ["ada", "ada", "bob"])
    assert (result["same_pairs"], result["different_pairs"]) == (1, 2)
    assert three(result) == [1.0, 0.0, 1.0]


# Against the oracle


@pytest.mark.parametrize("seed", range(6))
def test_random_embeddings(seed):
    generator = np.random.default_rng(seed)
    identities = generator.integers(0, 6, 40)
    # Small integers: many ties, and zero vectors among them.
    embeddings = generator.integers(-1, 3, (40, 2 + seed)) + (seed % 2) * (identities == 3)[:, None]
    embeddings[5] = 0
    result = verification_scores(embeddings.astype("float32"), identities)
    assert result == pytest.approx(oracle(embeddings, identities.tolist()), abs=1e-12)


def test_many_pairs_of_chance():
    generator = np.random.default_rng(0)
    result = verification_scores(generator.normal(size=(400, 16)), np.arange(400) % 8)
    # 8 * 50 * 49 / 2 and 400 * 399 / 2 less those.
    assert (result["same_pairs"], result["different_pairs"], result["pairs"]) == (9800, 70000, "all")
    assert three(result) == pytest.approx([0.5, 0.5, 0.01], abs=0.02)


# Drawn pairs


def test_drawn_pairs_tell_of_all():
    generator = np.random.default_rng(1)
    identities = generator.integers(0, 5, 300)
    embeddings = generator.normal(size=(300, 4)) + 1.5 * generator.normal(size=(5, 4))[identities]
    everything = verification_scores(embeddings, identities)
    drawn = verification_scores(embeddings, identities, max_pairs=5000, seed=3)
    assert (drawn["same_pairs"], drawn["different_pairs"], drawn["pairs"]) == (5000, 5000, "drawn")
    assert three(drawn) == pytest.approx(three(everything), abs=0.04)
    assert drawn == verification_scores(embeddings, identities, max_pairs=5000, seed=3)
    assert drawn != verification_scores(embeddings, identities, max_pairs=5000, seed=4)


def test_a_kind_with_few_pairs_is_not_drawn():
    # 12 samples of 6 identities: 6 pairs of one, 60 of two.
    embeddings = np.random.default_rng(0).normal(size=(12, 3))
    result = verification_scores(embeddings, np.arange(12) % 6, max_pairs=59)
    assert (result["same_pairs"], result["different_pairs"], result["pairs"]) == (6, 59, "drawn")
    assert verification_scores(embeddings, np.arange(12) % 6, max_pairs=60)["pairs"] == "all"


@pytest.mark.parametrize("same", [True, False])
def test_every_pair_is_drawn_equally_often(same):
    counts = np.array([1, 4, 2, 3])
    identities = np.repeat(np.arange(4), counts)
    wanted = {
        pair for pair in itertools.combinations(range(10), 2) if (identities[pair[0]] == identities[pair[1]]) == same
    }
    pairs = np.sort(np.stack(_draw_pairs(counts, same, 100_000, np.random.default_rng(0))), axis=0)
    seen, times = np.unique(pairs, axis=1, return_counts=True)
    assert {tuple(pair) for pair in seen.T.tolist()} == wanted
    # Binomial: five standard deviations.
    expected = 100_000 / len(wanted)
    assert np.abs(times - expected).max() < 5 * np.sqrt(expected)


# Errors


@pytest.mark.parametrize(
    "embeddings, identities, arguments, message",
    [
        (np.ones((3, 2)), [0, 0, 0], {}, "at least 2.*1 identities, 3 samples"),
        (np.ones((3, 2)), [0, 1, 2], {}, "at least 2 samples.*3 identities, 1 samples"),
        (np.ones((0, 2)), [], {}, "0 identities, 0 samples"),
        (np.ones((3, 2)), [0, 1], {}, r"\(samples, width\).*\(3, 2\).*\(2,\)"),
        (np.ones((4, 2, 2, 1)), [0, 0, 1, 1], {}, r"\(samples, width\).*\(4, 2, 2, 1\)"),
        (np.array([[1.0], [np.nan], [np.inf], [1.0]]), [0, 0, 1, 1], {}, "finite.*2 of 4 rows"),
        (np.ones((4, 2)), [0, 0, 1, 1], {"max_pairs": 0}, "`max_pairs` must be >= 1.*max_pairs=0"),
    ],
)
def test_errors(embeddings, identities, arguments, message):
    with pytest.raises(ValueError, match=message):
        verification_scores(embeddings, identities, **arguments)


def test_it_is_an_evaluation():
    assert evaluation.verification_scores is verification_scores
