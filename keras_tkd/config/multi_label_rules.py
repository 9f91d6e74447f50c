"""Rules for images of several classes: what is of images of one class each is refused, before any work."""

from keras_tkd.config.fields import check

__all__ = ["check_data", "check_method", "check_teachers", "check_training"]


def check_data(config):
    """Raises `ValueError` for a `DataConfig` whose data cannot have several classes for an image."""
    if not config.multi_label:
        return
    rule = "task='multi_label' takes the classes of each image from a table: `labels`, with | between them"
    check(config.labels, rule, config, "task", "labels")
    rule = "`{0}` chooses classes of which an image has one, and with task='multi_label' it may have several"
    for name in ("classes", "open_set_fraction"):
        check(getattr(config, name) is None, rule.format(name), config, name, "task")


def check_training(config):
    """Raises `ValueError` for settings of a `RunConfig` that go by the one class of an image."""
    if not config.multi_label:
        return
    rule = "`class_weight` goes by the one class of an image, and with task='multi_label' it may have several"
    check(config.class_weight == "none", rule, config, "class_weight", "task")
    rule = "`label_smoothing` spreads one label over all classes, and with task='multi_label' each is a yes or no"
    check(config.label_smoothing == 0, rule, config, "label_smoothing", "task")


def check_teachers(config):
    """Raises `ValueError` for teachers that are joined by a softmax over the classes, or read without one."""
    if not config.multi_label:
        return
    rule = (
        "With task='multi_label' several teachers are averaged by `teacher_average=logits`, with numbers for "
        "`teacher_weights` if any: all else takes a softmax over the classes"
    )
    joined = config.teacher_average in (None, "logits") and not isinstance(config.teacher_weights, str)
    check(joined, rule, config, "teacher_average", "teacher_weights", "task")


def check_method(config):
    """Raises `ValueError` for a `DistillConfig` with losses of images of one class each."""
    if not config.multi_label:
        return
    named = "losses" if config.losses else "method"
    taken = (
        "With task='multi_label' take kd, whose soft targets are then a yes or no for each class, or losses of layers"
    )
    rule = "Teachers that learn with their students do so by a softmax over the classes of images of one class each"
    check(not config.recipe.online, f"{rule}. {taken}", config, named, "task")
    readers = [term.loss for term in config.recipe.terms if term.is_of_one_class]
    rule = f"{' and '.join(readers)} {'is' if len(readers) == 1 else 'are'} of images of one class each"
    check(not readers, f"{rule}. {taken} (fitnet, at, vid, fsp, sp, rkd, pkt, cc)", config, named, "task")
