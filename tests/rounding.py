"""How far apart values may be that are equal but for the roundings of float32."""

import numpy as np

EPS = float(np.finfo("float32").eps)


def of_sums(terms, steps=1):
    """Of values whose longest sum has so many terms, and was taken in two orders: relative to the sum's largest parts.

    A rounding is half of eps at most, and as often up as down: those of a sum come to the square root of their number,
    and of two orders apart by no more than twice as much. Each step of a training goes on from the ones before it,
    whose differences it keeps.
    """
    return steps * terms**0.5 * EPS


def of_soft_targets(temperature, classes):
    """Of a divergence of soft targets, the small rest of its largest parts: log-probabilities of even classes."""
    return temperature**2 * np.log(classes) * EPS


def of_logits(probabilities):
    """Of the logits of a sigmoid's outputs, which near 1 are rounded to half of eps: by the slope `1 / (p (1 - p))`."""
    p = np.asarray(probabilities, "float64")
    return EPS / (p * (1 - p)).min()
