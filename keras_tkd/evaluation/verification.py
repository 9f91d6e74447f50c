"""Verification: decides from two embeddings whether their images show the same identity."""

import numpy as np
from sklearn import metrics
from sklearn.preprocessing import normalize

__all__ = ["verification_scores"]

_FALSE_ACCEPTS = 0.01
_BLOCK = 2**22  # numbers of gathered embeddings at a time: 32 MB for either side of a block of pairs


def verification_scores(embeddings, identities, max_pairs=1_000_000, seed=0):
    """Computes how well cosine similarity separates pairs of the same identity from pairs of different identities.

    A pair is accepted if its similarity is at least a threshold. Over all thresholds, the share of accepted pairs among
    those of one identity (true accepts), against the share among those of two (false accepts), is the ROC curve.
    The measures are shares within either kind of pairs, so the numbers of pairs of each kind do not matter.

    Args:
        embeddings: `(samples, width)`, finite; their length does not matter, and a zero vector has the similarity 0 to
            everything.
        identities: `(samples,)`, the identity of each sample. One with a single sample is in pairs of two only.
        max_pairs: largest number of pairs of either kind that are compared. Of a kind with more, as many are drawn with
            replacement, each pair as likely as any other.
        seed: seed of the draw.

    Returns:
        dict with

        - `auc`: area under the ROC curve, 0..1: how often a pair of one identity is more similar than a pair of two;
          ties count half. 0.5 is chance.
        - `equal_error_rate`: 0..1, where false accepts and false rejects are equal, on straight lines between the
          points of the ROC curve.
        - `true_accepts_at_1_percent`: 0..1, the largest share of true accepts of any threshold with at most 1 % of
          false accepts.
        - `same_pairs`, `different_pairs`: numbers of pairs that were compared.
        - `pairs`: `"all"`, or `"drawn"` if pairs of either kind were drawn.
        - `images`, `identities`: numbers of images and of identities.

    Raises:
        ValueError: shapes that do not go together, embeddings that are not finite, a single identity, or none with two
            samples.

    Example:

    >>> result = verification_scores([[1, 0], [2, 1], [0, 1], [1, 2]], ["ada", "ada", "bob", "bob"])
    >>> result["auc"], result["same_pairs"], result["different_pairs"]
    (1.0, 2, 4)
    """
    embeddings, identities = np.asarray(embeddings, "float64"), np.asarray(identities)
    _check_samples(embeddings, identities)
    if max_pairs < 1:
        raise ValueError(f"`max_pairs` must be >= 1. Received: max_pairs={max_pairs}")
    # With each identity in one run, pairs are found from the numbers of samples alone, without a table of all pairs.
    order = np.argsort(identities, kind="stable")
    directions = normalize(embeddings[order])
    counts = np.unique(identities, return_counts=True)[1]
    generator = np.random.default_rng(seed)
    similarities, drawn = [], False
    for same in (True, False):
        if _count_pairs(counts, same) <= max_pairs:
            pairs = _list_pairs(counts, same)
        else:
            pairs, drawn = _draw_pairs(counts, same, max_pairs, generator), True
        similarities.append(_compute_cosines(directions, *pairs))
    return _measure(*similarities) | {
        "same_pairs": len(similarities[0]),
        "different_pairs": len(similarities[1]),
        "pairs": "drawn" if drawn else "all",
        "images": len(identities),
        "identities": len(counts),
    }


def _measure(same, different):
    """Computes the three measures from the similarities of pairs of one identity, `same`, and of two, `different`."""
    is_same = np.repeat([1, 0], [len(same), len(different)])
    false_accepts, true_accepts, _ = metrics.roc_curve(
        is_same, np.concatenate([same, different]), drop_intermediate=False
    )
    # It rises at every point of the curve, from -1 to 1, so that it can be interpolated to 0.
    excess = false_accepts - (1 - true_accepts)
    return {
        "auc": float(metrics.auc(false_accepts, true_accepts)),
        "equal_error_rate": float(np.interp(0, excess, false_accepts)),
        "true_accepts_at_1_percent": float(true_accepts[false_accepts <= _FALSE_ACCEPTS].max()),
    }


def _count_pairs(counts, same):
    """Counts the pairs of one identity, or of two, where there are `counts` samples of each identity."""
    of_one = int(np.sum(counts * (counts - 1) // 2))
    samples = int(np.sum(counts))
    return of_one if same else samples * (samples - 1) // 2 - of_one


def _list_pairs(counts, same):
    """Lists all pairs as two arrays of positions, of samples that are sorted by identity, `counts` of each."""
    stops = np.cumsum(counts)
    blocks = []
    for start, stop in zip(stops - counts, stops, strict=True):
        if same:
            blocks.append(start + np.stack(np.triu_indices(stop - start, 1)))
        else:
            blocks.append(np.stack(np.meshgrid(np.arange(start, stop), np.arange(stop, stops[-1]))).reshape(2, -1))
    return np.concatenate(blocks, axis=1)


def _draw_pairs(counts, same, size, generator):
    """Draws `size` of the pairs of `_list_pairs`, uniformly with replacement."""
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    own = np.repeat(counts, counts)
    partners = own - 1 if same else len(own) - own
    # A sample in proportion to its partners, then one of these: every pair is as likely as any other.
    first = generator.choice(len(own), size, p=partners / partners.sum())
    second = generator.integers(partners[first])
    # The draw counts a sample's partners; here it becomes a position, past the sample itself or past its identity.
    if same:
        second += starts[first]
        second += second >= first
    else:
        second += own[first] * (second >= starts[first])
    return first, second


def _compute_cosines(directions, first, second):
    """Computes the products of pairs of rows of `directions`, which are unit vectors."""
    # Rounded, so that similarities that differ by rounding errors alone count as ties.
    parts = 1 + len(first) * directions.shape[1] // _BLOCK
    blocks = zip(np.array_split(first, parts), np.array_split(second, parts), strict=True)
    return np.concatenate([np.einsum("ij,ij->i", directions[i], directions[j]) for i, j in blocks]).round(12)


def _check_samples(embeddings, identities):
    if embeddings.ndim != 2 or identities.shape != embeddings.shape[:1]:
        raise ValueError(
            "`embeddings` must be of shape (samples, width), and `identities` (samples,). "
            f"Received: embeddings of shape {embeddings.shape}, identities of shape {identities.shape}"
        )
    if not np.isfinite(embeddings).all():
        broken = int(np.sum(~np.isfinite(embeddings).all(axis=1)))
        raise ValueError(f"`embeddings` must be finite. Received: {broken} of {len(embeddings)} rows that are not")
    counts = np.unique(identities, return_counts=True)[1]
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError(
            "`identities` must be at least 2, one of them with at least 2 samples, to have pairs of one identity and "
            f"pairs of two. Received: {len(counts)} identities, {counts.max(initial=0)} samples of one at most"
        )
