"""Verification: whether two images show one identity, told by their embeddings, for identities never trained on."""

import numpy as np
from sklearn import metrics
from sklearn.preprocessing import normalize

FALSE_ACCEPTS = 0.01
_BLOCK = 2**22  # numbers of gathered embeddings at a time


def verification_scores(embeddings, identities, max_pairs=1_000_000, seed=0):
    """How well the cosine similarity of two embeddings tells pairs of one identity from pairs of two.

    A pair is accepted if its similarity is at least a threshold. Over all thresholds, the share of accepted pairs among
    those of one identity (true accepts), against the share among those of two (false accepts), is the ROC curve.
    The measures are shares within either kind of pairs, so it does not matter how many there are of which.

    Args:
        embeddings: `(samples, width)`, finite; their length does not matter, and a zero vector has the similarity 0 to
            everything.
        identities: `(samples,)`, the identity of each sample. One with a single sample is in pairs of two only.
        max_pairs: of either kind of pairs all are compared if they are at most so many; else so many are drawn,
            with replacement, each pair as likely as any other.
        seed: of the draw.

    Returns:
        dict with

        - `auc`: area under the ROC curve, 0..1: how often a pair of one identity is more similar than a pair of two;
          ties count half. 0.5 is chance.
        - `equal_error_rate`: 0..1, where false accepts and false rejects are equal, on straight lines between the
          points of the ROC curve.
        - `true_accepts_at_1_percent`: 0..1, the largest share of true accepts of any threshold with at most 1 % of
          false accepts.
        - `same_pairs`, `different_pairs`: how many pairs were compared.
        - `pairs`: `"all"`, or `"drawn"` where there were more of either kind.
        - `images`, `identities`: how many there are.

    Raises:
        ValueError: shapes that do not go together, embeddings that are not finite, a single identity, or none with two
            samples.

    Example:

    >>> result = verification_scores([[1, 0], [2, 1], [0, 1], [1, 2]], ["ada", "ada", "bob", "bob"])
    >>> result["auc"], result["same_pairs"], result["different_pairs"]
    (1.0, 2, 4)
    """
    embeddings, identities = np.asarray(embeddings, "float64"), np.asarray(identities)
    check_samples(embeddings, identities)
    if max_pairs < 1:
        raise ValueError(f"`max_pairs` must be >= 1. Received: max_pairs={max_pairs}")
    order = np.argsort(identities, kind="stable")
    directions = normalize(embeddings[order])
    counts = np.unique(identities, return_counts=True)[1]
    generator = np.random.default_rng(seed)
    similarities, drawn = [], False
    for same in (True, False):
        if total_pairs(counts, same) <= max_pairs:
            pairs = all_pairs(counts, same)
        else:
            pairs, drawn = draw_pairs(counts, same, max_pairs, generator), True
        similarities.append(cosines(directions, *pairs))
    return measures(*similarities) | {
        "same_pairs": len(similarities[0]),
        "different_pairs": len(similarities[1]),
        "pairs": "drawn" if drawn else "all",
        "images": len(identities),
        "identities": len(counts),
    }


def measures(same, different):
    """The three measures, from the similarities of pairs of one identity, `same`, and of two, `different`."""
    is_same = np.repeat([1, 0], [len(same), len(different)])
    false_accepts, true_accepts, _ = metrics.roc_curve(
        is_same, np.concatenate([same, different]), drop_intermediate=False
    )
    # It rises at every point of the curve, from -1 to 1.
    excess = false_accepts - (1 - true_accepts)
    return {
        "auc": float(metrics.auc(false_accepts, true_accepts)),
        "equal_error_rate": float(np.interp(0, excess, false_accepts)),
        "true_accepts_at_1_percent": float(true_accepts[false_accepts <= FALSE_ACCEPTS].max()),
    }


def total_pairs(counts, same):
    """How many pairs of one identity, or of two, there are with `counts` samples of each."""
    of_one = int(np.sum(counts * (counts - 1) // 2))
    samples = int(np.sum(counts))
    return of_one if same else samples * (samples - 1) // 2 - of_one


def all_pairs(counts, same):
    """Two arrays of positions, of samples that are sorted by identity, `counts` of each."""
    stops = np.cumsum(counts)
    blocks = []
    for start, stop in zip(stops - counts, stops, strict=True):
        if same:
            blocks.append(start + np.stack(np.triu_indices(stop - start, 1)))
        else:
            blocks.append(np.stack(np.meshgrid(np.arange(start, stop), np.arange(stop, stops[-1]))).reshape(2, -1))
    return np.concatenate(blocks, axis=1)


def draw_pairs(counts, same, size, generator):
    """As `all_pairs`, but `size` pairs, drawn uniformly with replacement."""
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    own = np.repeat(counts, counts)
    partners = own - 1 if same else len(own) - own
    # A sample in proportion to its partners, then one of these: every pair is as likely as any other.
    first = generator.choice(len(own), size, p=partners / partners.sum())
    second = generator.integers(partners[first])
    if same:
        second += starts[first]
        second += second >= first
    else:
        second += own[first] * (second >= starts[first])
    return first, second


def cosines(directions, first, second):
    """Products of rows of `directions`, unit vectors, rounded so that what is equal but for rounding is a tie."""
    parts = 1 + len(first) * directions.shape[1] // _BLOCK
    blocks = zip(np.array_split(first, parts), np.array_split(second, parts), strict=True)
    return np.concatenate([np.einsum("ij,ij->i", directions[i], directions[j]) for i, j in blocks]).round(12)


def check_samples(embeddings, identities):
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
