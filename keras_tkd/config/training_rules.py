"""Rules of a training's settings: what each may be, and what two of them may not be together."""

from keras_tkd.config.fields import check, list_left_to_data

__all__ = ["check_training"]

_AT_LEAST_ONE = ("epochs", "batch_size")
_ABOVE_ZERO = ("learning_rate", "schedule_factor")
_FROM_ZERO = ("weight_decay", "momentum", "learning_rate_warmup_epochs")
# None where they are left out; what that does, for the error.
_OPTIONAL = {
    "checkpoint_steps": "",
    "checkpoint_minutes": "",
    "mixup": "; leave it out to mix nothing",
    "cutmix": "; leave it out to mix nothing",
    "clip_norm": "; leave it out to clip nothing",
}


def check_training(config):
    """Raises `ValueError` for settings of a `RunConfig` that no training can have."""
    _check_numbers(config)
    _check_shares(config)
    _check_schedule(config)
    if config.profile_steps:
        rule = "`profile_steps` must be two steps, the first from 1 on and the last no earlier: 10,20"
        first, last = config.profile_steps if len(config.profile_steps) == 2 else (0, 0)
        check(1 <= first <= last, rule, config, "profile_steps")
    # Batches are made inside a window. One that the data are still to choose will fit: nobody gave this one.
    if config.shuffle_window and "batch_size" not in list_left_to_data(config):
        rule = "`shuffle_window` must be a batch or more"
        check(config.shuffle_window >= config.batch_size, rule, config, "shuffle_window", "batch_size")
    rule = "`class_weight` goes by the one class of an image, of which mixed images have two"
    check(not config.mixes or config.class_weight == "none", rule, config, "class_weight", "mixup", "cutmix")


def _check_numbers(config):
    for name in _AT_LEAST_ONE:
        check(getattr(config, name) >= 1, f"`{name}` must be >= 1", config, name)
    for name in _ABOVE_ZERO:
        check(getattr(config, name) > 0, f"`{name}` must be > 0", config, name)
    for name in _FROM_ZERO:
        check(getattr(config, name) >= 0, f"`{name}` must be >= 0", config, name)
    for name, otherwise in _OPTIONAL.items():
        value = getattr(config, name)
        check(value is None or value > 0, f"`{name}` must be > 0{otherwise}", config, name)
    if config.early_stopping_patience is not None:
        rule = "`early_stopping_patience` must be >= 1; leave it out to train all epochs"
        check(config.early_stopping_patience >= 1, rule, config, "early_stopping_patience")
    # From 2^30 on seeds are the runs' own: an untrained anchor's, for one.
    check(0 <= config.seed < 2**30, "`seed` must be in [0, 2^30)", config, "seed")
    check(config.momentum < 1, "`momentum` must be < 1", config, "momentum")


def _check_shares(config):
    rule = "`label_smoothing` must be in [0, 1): with 1 all labels would say the same"
    check(0 <= config.label_smoothing < 1, rule, config, "label_smoothing")
    # None stands for a share that is chosen later, where a configuration allows it.
    if config.validation_fraction is not None:
        rule = "`validation_fraction` must be in [0, 1)"
        check(0 <= config.validation_fraction < 1, rule, config, "validation_fraction")
    if config.train_fraction is not None:
        check(0 < config.train_fraction <= 1, "`train_fraction` must be in (0, 1]", config, "train_fraction")
    rule = "`open_set_fraction` must be less than 1, or there is nothing to train on"
    check(config.open_set_fraction != 1, rule, config, "open_set_fraction")


def _check_schedule(config):
    epochs = config.schedule_epochs
    if config.schedule != "step":
        check(not epochs, "`schedule_epochs` is read with schedule='step' only", config, "schedule_epochs")
        return
    rule = "`schedule_epochs` must be rising epochs, from 1 on, for schedule='step'"
    rising = epochs and epochs[0] >= 1 and list(epochs) == sorted(set(epochs))
    check(rising, rule, config, "schedule_epochs")
    rule = "`schedule_epochs` must come after `learning_rate_warmup_epochs`: no rate rises and falls at once"
    after = epochs[0] > config.learning_rate_warmup_epochs
    check(after, rule, config, "schedule_epochs", "learning_rate_warmup_epochs")
