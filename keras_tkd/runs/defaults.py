"""Settings that nobody gave, chosen by the data: networks by the size of images, a budget by their number."""

import dataclasses

from keras_tkd.config.fields import list_left_to_data
from keras_tkd.runs.devices import start_devices
from keras_tkd.runs.early_checks import check_without_data
from keras_tkd.runs.images import load_splits

__all__ = ["choose_defaults"]

# Teacher and student for images whose shorter side has at least so many pixels. What is flattened into a dense layer
# grows with the image, and a network that averages over positions does not.
_NETWORKS = {
    97: ("resnet20", "resnet8"),
    16: ("tkd_teacher", "tkd_student_2022"),
    0: ("digits_teacher", "digits_student"),
}
# Epochs and images per step for at least so many training images: some hundred steps at the least, without which no
# network learns. By classes of numbers, so that one picture more does not make another experiment.
_BUDGETS = {100_000: (10, 128), 10_000: (20, 128), 2_000: (30, 64), 500: (40, 32), 100: (60, 32), 0: (100, 16)}
# With 0.1 networks without BatchNorm end at chance.
_RATES = {"sgd": 0.01, "adam": 0.001, "adamw": 0.001}
_DECOUPLED_DECAY = 0.004  # Keras's own default for AdamW, without which it would be Adam


def choose_defaults(config, finished=False):
    """Chooses the settings that were left to the data, says which, and keeps those that were given.

    The choice depends on the configuration and on counts of the data alone: the same command chooses alike at any time.

    Args:
        config: `TeacherTrainingConfig` or `DistillConfig`, resolved.
        finished: whether the run has results already, and so may read none of the files that it is given.

    Returns:
        `(config, splits)`: the same run with everything chosen, and its data where they were needed and so are loaded
        already, else None.

    Raises:
        ValueError, FileNotFoundError: data are needed, and something is wrong that is known without them: see
            `check_without_data`.
    """
    left, splits = list_left_to_data(config), None
    chosen = {"learning_rate": _RATES[config.optimizer]}
    if config.optimizer == "adamw":
        chosen["weight_decay"] = _DECOUPLED_DECAY
    if config.has_own_defaults:
        if config.optimizer == "sgd":
            del chosen["learning_rate"]
    elif set(left) - chosen.keys() - {"weight_decay"}:
        if config.deterministic:
            # Images are decoded by TensorFlow, which then is as it began; and a user's own modules may begin it.
            start_devices(deterministic=True)
        if not finished:
            check_without_data(config, undecided=left)
        splits = load_splits(config)
        images, size = len(splits.train_labels), min(splits.image_shape[:2])
        _, chosen["student_model"] = _look_up(_NETWORKS, size)
        chosen["teacher_model"], _ = _look_up(_NETWORKS, min(splits.for_teacher.image_shape[:2]))
        chosen["epochs"], batch_size = _look_up(_BUDGETS, images)
        chosen["batch_size"] = min(batch_size, config.shuffle_window or batch_size)
    chosen = {name: value for name, value in chosen.items() if name in left}
    if chosen:
        flags = " ".join(f"--{name}={value}" for name, value in chosen.items())
        data = "" if splits is None else f", for {images:,} training images of {_describe_shape(splits.image_shape)}"
        print(f"Not given and chosen{data}: {flags}", flush=True)
    return dataclasses.replace(config, **chosen), splits


def _look_up(table, number):
    """Returns the entry of the largest key that `number` reaches; the keys fall, and the last is 0."""
    return next(entry for least, entry in table.items() if number >= least)


def _describe_shape(shape):
    return "x".join(map(str, shape))
