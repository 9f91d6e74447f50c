"""Distillation losses: pure functions, and a thin `keras.losses.Loss` around each."""

from keras_tkd.losses.base import DistillationLoss
from keras_tkd.losses.logits import LogitRegression, SoftTargets, logit_regression, soft_targets
from keras_tkd.losses.triplet import TripletDistillation, triplet_distillation

__all__ = [
    "DistillationLoss",
    "LogitRegression",
    "SoftTargets",
    "TripletDistillation",
    "logit_regression",
    "soft_targets",
    "triplet_distillation",
]
