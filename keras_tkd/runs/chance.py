"""The early end of a training that does not leave chance."""

import math

import keras

from keras_tkd import evaluation
from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.data.options import count_batches
from keras_tkd.utils.multi_hot import count_classes

__all__ = ["AtChanceError", "StopAtChance", "count_first_epochs", "is_at_chance"]

# How long a model may take to leave chance: networks that learn at all have done so by then, in every run that we know.
_STEPS, _EPOCHS = 100, 3
# Accuracies by name in the logs, on training and on held-out images.
_OWN = ("accuracy", "val_accuracy")
_ONLINE_TEACHERS = ("teacher_accuracy", "val_teacher_accuracy")


def count_first_epochs(samples, config):
    """Returns the number of epochs in which a model must leave chance: as many as 100 steps take, 3 at the least.

    Args:
        samples: number of training images.
        config: the training's configuration.
    """
    return max(_EPOCHS, math.ceil(_STEPS / count_batches(samples, config.batch_size)))


def is_at_chance(accuracy, labels, config):
    """Returns whether the accuracy in an epoch says that a model still guesses.

    With balanced class weights it never says so: the loss favours no class, so that a guess may name any of them, and a
    model that has learned to tell a rare class may be right less often than the commonest class is there. Nor does it
    of images of several classes: most are at first answered with no, which long is right more often than what a model
    has learned.

    Args:
        accuracy: share of correct answers on `labels`, 0..1, each image counting the same.
        labels: `(samples,)` class ids; or multi-hot rows.
        config: the training's configuration.
    """
    judged = config.class_weight != "balanced" and not config.multi_label
    return judged and evaluation.at_chance(accuracy, labels)


class AtChanceError(ValueError):
    """Raised where a training has not left chance. The arguments may all be right: it is what the training came to.

    Args:
        finding: text that says what was found.
        advice: text that says what a single run may be given instead. A comparison of runs has advice of its own.
    """

    def __init__(self, finding, advice):
        super().__init__(f"{finding} {advice}")
        self.finding = finding


class StopAtChance(keras.callbacks.Callback):
    """Raises `AtChanceError` if a model, or a teacher that learns with it, has not left chance in its first epochs.

    How many these are, `count_first_epochs` says. A model has left chance if its accuracy was above what guessing
    reaches: on held-out images in any epoch, or on training images in one of the last so many. The latter is a mean
    over an epoch's steps, so that of the first holds what a model knew before it collapsed. Nothing is lost by the end:
    the epoch's state is written before. The last epoch of a training ends it anyway, and its result says what it is.

    Where more than half of the training images are of one class, always naming that is how trainings usually begin, and
    accuracies do not tell it from chance: then nothing is stopped. Nor is anything with balanced class weights: see
    `is_at_chance`.

    Args:
        title: what is being trained.
        config: the training's configuration.
        splits: the run's `Splits`.
        backup: the training's `BackupState`, which stands before this among the callbacks.
        run_config: the run's configuration, whose settings the advice names.
    """

    def __init__(self, title, config, splits, backup, run_config):
        super().__init__()
        self._title = title
        self._config = config
        self._run_config = run_config
        self._backup = backup
        self._labels = splits.train_labels, splits.held_out[1]
        self._steps = count_batches(len(splits.train_labels), config.batch_size)
        self._epochs = count_first_epochs(len(splits.train_labels), config)
        shares = count_classes(splits.train_labels) / len(splits.train_labels)
        judged = config.at_chance == "stop" and shares.max() <= 0.5 and not config.multi_label
        self._watched = [_OWN, _ONLINE_TEACHERS] if judged else []

    def on_train_begin(self, logs=None):
        # A training that was stopped, and is taken up as it was, goes no further than before.
        self._look()

    def on_epoch_end(self, epoch, logs=None):
        self._look()

    def _look(self):
        history = self._backup.history
        if not self._epochs <= len(history) < self._config.epochs:
            return
        for names in tuple(self._watched):
            trained, held_out = (self._find_guesses(*pair) for pair in zip(names, self._labels, strict=True))
            if not all(held_out):
                # It has left chance once, and that is enough.
                self._watched.remove(names)
            elif all(trained[-self._epochs :]):
                raise AtChanceError(self._explain(names), self._advise(names))

    def _find_guesses(self, name, labels):
        """Returns for each epoch whether it has an accuracy of that name that is not above chance."""
        return [name in epoch and is_at_chance(epoch[name], labels, self._config) for epoch in self._backup.history]

    def _explain(self, names):
        epochs = len(self._backup.history)
        trained, held_out = (self._backup.history[-1][name] for name in names)
        whose = "it" if names == _OWN else "the teacher that learns with it"
        return (
            f"{self._title}: after {epochs} epochs ({epochs * self._steps} steps) {whose} still answers at chance, "
            f"accuracy {trained:.2%} on training images and {held_out:.2%} on others: as a rule the training has "
            f"collapsed. Stopped, to spare the other {self._config.epochs - epochs} epochs; what was trained before is "
            "kept."
        )

    def _advise(self, names):
        distils = isinstance(self._run_config, DistillConfig)
        of_teacher = names == _ONLINE_TEACHERS or isinstance(self._config, TeacherTrainingConfig)
        # In a run that distils, a teacher, trained before the student or with it, has a rate of its own.
        flag = "teacher_learning_rate" if distils and of_teacher else "learning_rate"
        rate = (self._run_config.teacher if of_teacher else self._config).learning_rate
        weights = "" if of_teacher else ", lower --distillation_loss_weights where a student is distilled"
        return (
            f"Lower --{flag} (here {rate:g}; try {rate / 10:g}){weights} or clip gradients (--clip_norm=1), with "
            "--existing=continue; and see that the labels belong to the images. To go on all the same, pass "
            "--at_chance=warn"
        )
