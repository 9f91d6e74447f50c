"""Rules for the settings of a distillation."""

from keras_tkd.config.fields import check
from keras_tkd.methods.combination import check_negatives

__all__ = ["check_distillation"]

_MINIMUM = {
    "teacher_epochs": 1,
    "teacher_views": 1,
    "warmup_epochs": 0,
    "margin": 0,
    "student_loss_weight": 0,
    "teacher_weight_decay": 0,
    "generations": 1,
    "teacher_loss_weight": 0,
    "anchor_weight": 0,
    "peer_weight": 0,
}


def check_distillation(config):
    """Raises `ValueError` for settings of a `DistillConfig` that break a rule."""
    method = config.recipe
    if config.losses:
        check_negatives(config.losses, config.negatives)
    for name, least in _MINIMUM.items():
        if getattr(config, name) is not None:
            check(getattr(config, name) >= least, f"`{name}` must be >= {least}", config, name)
    for name in ("temperature", "teacher_learning_rate"):
        if getattr(config, name) is not None:
            check(getattr(config, name) > 0, f"`{name}` must be > 0", config, name)
    check(config.teacher_cache, "`teacher_cache` must be 'auto', 'off', 'workdir' or a folder", config, "teacher_cache")
    if config.teacher_outputs:
        _check_teacher_outputs(config)
    if config.augmentation == "none":
        check(
            config.teacher_views in (None, 1),
            "`teacher_views` must be 1, or not given, without augmentation: all views are alike there",
            config,
            "teacher_views",
            "augmentation",
        )
    # With fresh views in every epoch there is nothing that a cache could keep.
    elif config.teacher_cache not in ("auto", "off"):
        check(
            config.teacher_views,
            "`teacher_cache` keeps outputs under augmentation only where `teacher_views` says how many views of "
            "each image are shown in turn. Set it, or teacher_cache='off'",
            config,
            "teacher_views",
            "augmentation",
            "teacher_cache",
        )
    if config.distillation_loss_weights is not None:
        weights, count = config.distillation_loss_weights, len(method.terms)
        check(
            len(weights) == count and all(w >= 0 for w in weights),
            f"`distillation_loss_weights` must be {count} number{'s' * (count > 1)} >= 0 for method '{config.method}'",
            config,
            "distillation_loss_weights",
        )
    check(
        len(config.teacher_layers or method.layers) == len(config.student_layers or method.layers),
        "`teacher_layers` and `student_layers` must be of equal length",
        config,
        "teacher_layers",
        "student_layers",
    )


def _check_teacher_outputs(config):
    rule = "`teacher_outputs` stand in for a model: give them, or `teacher_path`"
    check(not config.teacher_path, rule, config, "teacher_outputs", "teacher_path")
    if config.augmentation == "none":
        return
    # An answer for the image as it is, taken for one for any view of it, would be a wrong one.
    check(
        config.teacher_views,
        "With `augmentation`, `teacher_outputs` must be for K views of each image, and teacher_views=K says how many "
        "(docs/teacher_outputs.md). For outputs of the images as they are, pass augmentation='none'",
        config,
        "augmentation",
        "teacher_views",
    )
    check(
        config.negative_classes != "teacher",
        "`negative_classes=teacher` needs the classes that the teacher names for the images as they are, and with "
        "`augmentation`, `teacher_outputs` are for views. Draw them by labels",
        config,
        "negative_classes",
        "augmentation",
    )
