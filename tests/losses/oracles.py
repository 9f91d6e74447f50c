"""The losses as the papers print them: float64, row by row, class by class.

Nothing here comes from the library, and nothing here is fast. Where the two differ, read the paper. The
losses take lists of rows (arrays will do) and return one number per row, as a float64 array.
"""

import math

import numpy as np


def log_softmax(row):
    top = max(row)
    log_sum = top + math.log(math.fsum(math.exp(z - top) for z in row))
    return [z - log_sum for z in row]


def standardized(row):
    """Z-score with the sample standard deviation (n - 1), plus the 1e-7 of the reference implementation."""
    mean = math.fsum(row) / len(row)
    variance = math.fsum((z - mean) ** 2 for z in row) / (len(row) - 1)
    return [(z - mean) / (math.sqrt(variance) + 1e-7) for z in row]


def soft_targets(teacher, student, temperature, standardize=False):
    """T^2 KL(p_t || p_s), p = softmax(z / T)."""
    values = []
    for teacher_row, student_row in zip(teacher, student, strict=True):
        if standardize:
            teacher_row, student_row = standardized(teacher_row), standardized(student_row)
        log_p_t = log_softmax([z / temperature for z in teacher_row])
        log_p_s = log_softmax([z / temperature for z in student_row])
        divergence = 0.0
        for a, b in zip(log_p_t, log_p_s, strict=True):
            divergence += math.exp(a) * (a - b)
        values.append(temperature**2 * divergence)
    return np.array(values, "float64")


def logit_regression(teacher, student):
    """Mean over the classes of (z_s - z_t)^2."""
    values = []
    for teacher_row, student_row in zip(teacher, student, strict=True):
        squares = [(b - a) ** 2 for a, b in zip(teacher_row, student_row, strict=True)]
        values.append(math.fsum(squares) / len(squares))
    return np.array(values, "float64")


def distance(u, v):
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(u, v, strict=True)))


def triplet(anchor, positive, negative, margin):
    """max(d(anchor, positive) - d(anchor, negative) + margin, 0)."""
    values = []
    for a, p, n in zip(anchor, positive, negative, strict=True):
        values.append(max(distance(a, p) - distance(a, n) + margin, 0.0))
    return np.array(values, "float64")


def reduced(values, weights, reduction):
    """Keras's reductions of weighted values; `weights` None is Keras's `sample_weight=None`."""
    values = [float(value) for value in values]
    weights = [1.0] * len(values) if weights is None else [float(weight) for weight in weights]
    weighted = [value * weight for value, weight in zip(values, weights, strict=True)]
    if reduction in (None, "none"):
        return np.array(weighted)
    total = math.fsum(weighted)
    if reduction == "sum":
        return total
    if reduction in ("mean", "sum_over_batch_size"):
        return total / len(values)
    assert reduction == "mean_with_sample_weight"
    return total / math.fsum(weights) if any(weights) else 0.0


def slopes(function, x, h=1e-5):
    """Backward and forward differences of a scalar function, entry by entry: two arrays of `x`'s shape.

    Their mean is the central difference. At a kink the two differ, and a gradient lies between them.
    """
    backward, forward = np.zeros(x.shape), np.zeros(x.shape)
    here = function(x)
    for entry in np.ndindex(x.shape):
        for sign, slope in ((-1.0, backward), (1.0, forward)):
            moved = x.copy()
            moved[entry] += sign * h
            slope[entry] = (function(moved) - here) / (moved[entry] - x[entry])
    return backward, forward
