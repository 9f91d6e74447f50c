"""Predictions of models, and measures of how good they are.

The names are imported when they are first used: `keras_tkd.evaluation.measures` needs NumPy alone.
"""

from keras_tkd.utils.lazy_exports import make_lazy_exports

_MODULES = {
    "keras_tkd.evaluation.calibration": ("compute_confidences", "expected_calibration_error", "reliability"),
    "keras_tkd.evaluation.measures": (
        "accuracy",
        "agreement",
        "at_chance",
        "balanced_accuracy",
        "class_accuracies",
        "confusion_matrix",
        "is_right",
        "standard_error",
    ),
    "keras_tkd.evaluation.predictions": (
        "EMBEDDING",
        "embeddings",
        "logits",
        "name_labels",
        "predict_classes",
        "predict_labels",
    ),
    "keras_tkd.evaluation.projections": ("project_by_pca", "project_by_tsne"),
    "keras_tkd.evaluation.several_classes": (
        "average_precisions",
        "binary_accuracy",
        "binary_agreement",
        "exact_match",
        "f1_scores",
        "ranks_at_chance",
    ),
    "keras_tkd.evaluation.significance": ("Verdict", "judge_images", "judge_seeds"),
    "keras_tkd.evaluation.verification": ("verification_scores",),
}
_EXPORTS = {name: module for module, names in _MODULES.items() for name in names}

__all__ = sorted(_EXPORTS)

__getattr__, __dir__ = make_lazy_exports(__name__, _EXPORTS)
