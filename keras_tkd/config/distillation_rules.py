"""Rules for the settings of a distillation."""

from keras_tkd.config import multi_label_rules
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
    if config.teacher_head:
        check(
            len(config.teacher_path) == 1 and not config.teacher_classes,
            "`teacher_head` makes one teacher for all classes of the data: `teacher_path` must be one, without "
            "`teacher_classes`",
            config,
            "teacher_head",
            "teacher_path",
            "teacher_classes",
        )
    # A loss that is given the labels of all samples keeps something of each.
    check(
        config.gather == "global" or not any("labels" in term.needs for term in method.terms),
        "`gather` must be 'global' for a loss with a memory bank of all samples: each device would keep one of its own",
        config,
        "gather",
        "losses" if config.losses else "method",
    )
    check(config.teacher_cache, "`teacher_cache` must be 'auto', 'off', 'workdir' or a folder", config, "teacher_cache")
    _check_mixing(config)
    multi_label_rules.check_method(config)
    if config.teacher_outputs:
        _check_teacher_outputs(config)
    if not config.augments:
        check(
            config.teacher_views in (None, 1),
            "`teacher_views` must be 1, or not given, without augmentation: all views are alike there",
            config,
            "teacher_views",
            "augmentation",
        )
    # With fresh views in every epoch there is nothing that a cache could keep.
    elif config.keeps_outputs:
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


def _check_mixing(config):
    """Raises `ValueError` for mixed images, which are of two classes, where something reads the one class of each."""
    if not config.mixes:
        return
    by_teacher = config.negatives == "in_batch" and config.negative_classes == "teacher"
    readers = [term.loss for term in config.recipe.terms if term.one_class or (term.extra_images and not by_teacher)]
    drawing = any(term.extra_images for term in config.recipe.terms)
    of_one_class = f"{' and '.join(readers)} {'is' if len(readers) == 1 else 'are'} of images of one class each"
    told = ", or tell classes apart by the teacher: negatives='in_batch', negative_classes='teacher'" * drawing
    check(
        not readers,
        f"`mixup` and `cutmix` make images of two classes, and {of_one_class}. Leave them out, take losses that read "
        f"no label, such as kd{told}",
        config,
        "losses" if config.losses else "method",
        "mixup",
        "cutmix",
    )
    check(
        config.teacher_weights is None or "confidence" not in config.teacher_weights,
        "`teacher_weights` by confidence read the one class of each image, and `mixup` and `cutmix` make images of "
        "two. Give numbers, or 'entropy'",
        config,
        "teacher_weights",
        "mixup",
        "cutmix",
    )
    check(
        not (config.shuffle_window and config.keeps_outputs),
        "`teacher_cache` keeps what a teacher says of mixed images only where all are in memory: those of a stream are "
        "mixed inside windows, which are others in each epoch. Leave `shuffle_window` out, or set teacher_cache='off'",
        config,
        "teacher_cache",
        "shuffle_window",
        "mixup",
        "cutmix",
    )


def _check_teacher_outputs(config):
    rule = "`teacher_outputs` stand in for a model: give them, or `teacher_path`"
    check(not config.teacher_path, rule, config, "teacher_outputs", "teacher_path")
    rule = "`teacher_outputs` are for images as they are, or for views of them, and for none that are mixed"
    check(not config.mixes, rule, config, "teacher_outputs", "mixup", "cutmix")
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
