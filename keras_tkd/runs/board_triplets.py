"""Triplets of images that show what a training did: which to show, and how far apart a model sees them."""

import numpy as np

__all__ = ["choose_triplets", "measure_triplets"]


def choose_triplets(labels, logits, count):
    """Chooses anchors evenly over the classes, each with an image of its class and the nearest one of another.

    Args:
        labels: `(samples,)` class ids.
        logits: `(samples, classes)`, by whose distances the negatives are the nearest: those of a model that judges.
        count: the largest number of triplets.

    Returns:
        int `(triplets, 3)`, ids of anchor, positive and negative; none where no class has two images, or there is one
        class alone.
    """
    order = np.argsort(labels, kind="stable")
    # An image and the next of its class; the last of a class has none.
    pairs = [(a, p) for a, p in zip(order[:-1], order[1:], strict=True) if labels[a] == labels[p]]
    if not pairs or labels.min() == labels.max():
        return np.empty((0, 3), int)
    chosen = np.unique(np.linspace(0, len(pairs) - 1, count).round().astype(int))
    triplets = []
    for anchor, positive in (pairs[place] for place in chosen):
        distances = np.linalg.norm(logits - logits[anchor], axis=1)
        distances[labels == labels[anchor]] = np.inf
        triplets.append((anchor, positive, distances.argmin()))
    return np.array(triplets)


def measure_triplets(logits, triplets):
    """Returns the Euclidean distances of a model's logits from each anchor to its positive and negative, `(n, 2)`."""
    anchor, positive, negative = np.moveaxis(logits[triplets], 1, 0)
    return np.linalg.norm([positive - anchor, negative - anchor], axis=-1).T
