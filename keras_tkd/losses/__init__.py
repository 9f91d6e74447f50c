"""Distillation losses: pure functions, and a thin `keras.losses.Loss` around each."""

from keras_tkd.losses.base import DistillationLoss
from keras_tkd.losses.binary_targets import BinarySoftTargets, binary_soft_targets
from keras_tkd.losses.crd import ContrastiveRepresentation
from keras_tkd.losses.decoupled_logits import DecoupledTargets, NormalizedTargets, decoupled_targets, normalized_targets
from keras_tkd.losses.features import AttentionTransfer, FlowOfSolution, attention_transfer, flow_of_solution
from keras_tkd.losses.logits import (
    DIST,
    HardTargets,
    LogitRegression,
    SoftTargets,
    dist,
    hard_targets,
    logit_regression,
    soft_targets,
)
from keras_tkd.losses.pair_distillation import PairDistillation, pair_distillation
from keras_tkd.losses.projected_features import Hint, VariationalInformation
from keras_tkd.losses.relations import RelationalAngle, RelationalDistance, relational_angle, relational_distance
from keras_tkd.losses.similarities import (
    CorrelationCongruence,
    ProbabilisticTransfer,
    SimilarityPreserving,
    correlation_congruence,
    probabilistic_transfer,
    similarity_preserving,
)
from keras_tkd.losses.triplet_distillation import TripletDistillation, triplet_distillation
from keras_tkd.losses.triplet_loss import TripletLoss, triplet_loss, triplet_statistics

__all__ = [
    "AttentionTransfer",
    "BinarySoftTargets",
    "ContrastiveRepresentation",
    "CorrelationCongruence",
    "DIST",
    "DecoupledTargets",
    "DistillationLoss",
    "FlowOfSolution",
    "HardTargets",
    "Hint",
    "LogitRegression",
    "NormalizedTargets",
    "PairDistillation",
    "ProbabilisticTransfer",
    "RelationalAngle",
    "RelationalDistance",
    "SimilarityPreserving",
    "SoftTargets",
    "TripletDistillation",
    "TripletLoss",
    "VariationalInformation",
    "attention_transfer",
    "binary_soft_targets",
    "correlation_congruence",
    "decoupled_targets",
    "dist",
    "flow_of_solution",
    "hard_targets",
    "logit_regression",
    "normalized_targets",
    "pair_distillation",
    "probabilistic_transfer",
    "relational_angle",
    "relational_distance",
    "similarity_preserving",
    "soft_targets",
    "triplet_distillation",
    "triplet_loss",
    "triplet_statistics",
]
