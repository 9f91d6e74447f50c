"""Probabilities of classes, told from other rows of numbers by their sums."""

import numpy as np

__all__ = ["SUM_TOLERANCE", "sum_to_one"]

# Rows of a softmax sum to 1 within this in float16 and bfloat16 too, and rows of logits do by no accident.
SUM_TOLERANCE = 1e-2


def sum_to_one(rows):
    """Returns whether every row of an array, `(..., classes)`, sums to 1 as closely as probabilities in 16 bits do."""
    return bool(np.abs(rows.sum(-1) - 1).max() < SUM_TOLERANCE)
