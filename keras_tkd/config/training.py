"""Settings of a training."""

import dataclasses

from keras_tkd.config.data import DataConfig
from keras_tkd.config.fields import GIVEN_TEACHER, ReadWhen, check, option
from keras_tkd.utils.choices import AUGMENTATIONS, PRECISIONS

__all__ = ["RunConfig", "TeacherTrainingConfig"]

_SCHEDULES = ("constant", "cosine", "step")
_IN_STEPS = ReadWhen(lambda config: config.schedule == "step", "`{name}` is read with schedule='step' only")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(DataConfig):
    """Settings that training a teacher and distilling share: those of the data and of the training itself."""

    validation_fraction: float = option(0.0, "Share of the training images held out, for choosing.", decides="data")
    train_fraction: float | None = option(
        None, "Share of each class's training images to train on; all if not given.", decides="data"
    )
    augmentation: str = option(
        "none", "Random crops after padding by 4 pixels, and mirroring.", AUGMENTATIONS, decides="data"
    )
    epochs: int = option(30, "Passes over the training images.", decides="budget")
    batch_size: int = option(128, "Images per step.", decides="budget")
    learning_rate: float = option(0.1, "Learning rate of the first epoch.", decides="training")
    momentum: float = option(0.9, "Momentum of stochastic gradient descent.", decides="training")
    schedule: str = option(
        "cosine", "How the learning rate falls, from epoch to epoch.", _SCHEDULES, decides="training"
    )
    schedule_epochs: tuple[int, ...] = option(
        (), "Epochs at which --schedule=step multiplies the learning rate.", decides="training"
    )
    schedule_factor: float = option(
        0.1, "What --schedule=step multiplies it with.", decides="training", read_when=_IN_STEPS
    )
    weight_decay: float = option(
        0.0,
        "L2 penalty in the gradient of every weight (coupled, as PyTorch's SGD has it): weight_decay / 2 * w^2.",
        decides="training",
    )
    precision: str = option(
        "float32",
        "Precision of the computation; weights and losses stay float32. 'auto': what this machine is fast in.",
        (*PRECISIONS, "auto"),
        decides="training",
    )
    seed: int = option(
        0, "Seed of starting weights, order of the images, augmentation, negatives, dropout.", decides="budget"
    )
    deterministic: bool = option(
        False,
        "Train to the same bytes on any number of cores of a kind of processor, and repeatably on a GPU: TensorFlow's "
        "operations and the sizes of its thread pools are fixed, which costs speed.",
        decides="training",
    )
    checkpoint_steps: int | None = option(
        None,
        "Steps after which the state of a training is written inside an epoch too; at the end of each it always is.",
        decides="interruption",
    )
    checkpoint_minutes: float | None = option(None, "Minutes after which it is.", decides="interruption")
    teacher_model: str = option(
        "digits_teacher",
        "Name of the teacher's architecture, or a .keras file of it.",
        decides="distillation",
        read_when=ReadWhen(lambda config: config.has_teacher),
        yields_to=GIVEN_TEACHER,
    )

    def _check_rules(self):
        super()._check_rules()
        for name in ("epochs", "batch_size"):
            check(getattr(self, name) >= 1, f"`{name}` must be >= 1", self, name)
        for name in ("checkpoint_steps", "checkpoint_minutes"):
            value = getattr(self, name)
            check(value is None or value > 0, f"`{name}` must be > 0", self, name)
        for name in ("learning_rate", "schedule_factor"):
            check(getattr(self, name) > 0, f"`{name}` must be > 0", self, name)
        for name in ("weight_decay", "momentum"):
            check(getattr(self, name) >= 0, f"`{name}` must be >= 0", self, name)
        # Batches are made inside a window.
        rule = "`shuffle_window` must be a batch or more"
        check((self.shuffle_window or self.batch_size) >= self.batch_size, rule, self, "shuffle_window", "batch_size")
        # From 2^30 on seeds are the runs' own: an untrained anchor's, for one.
        check(0 <= self.seed < 2**30, "`seed` must be in [0, 2^30)", self, "seed")
        check(self.momentum < 1, "`momentum` must be < 1", self, "momentum")
        # None stands for a share that is chosen later, where a configuration allows it.
        if self.validation_fraction is not None:
            rule = "`validation_fraction` must be in [0, 1)"
            check(0 <= self.validation_fraction < 1, rule, self, "validation_fraction")
        if self.train_fraction is not None:
            check(0 < self.train_fraction <= 1, "`train_fraction` must be in (0, 1]", self, "train_fraction")
        rule = "`open_set_fraction` must be less than 1, or there is nothing to train on"
        check(self.open_set_fraction != 1, rule, self, "open_set_fraction")
        if self.schedule == "step":
            check(
                self.schedule_epochs
                and self.schedule_epochs[0] >= 1
                and list(self.schedule_epochs) == sorted(set(self.schedule_epochs)),
                "`schedule_epochs` must be rising epochs, from 1 on, for schedule='step'",
                self,
                "schedule_epochs",
            )
        else:
            check(
                not self.schedule_epochs, "`schedule_epochs` is read with schedule='step' only", self, "schedule_epochs"
            )

    @property
    def unreached(self):
        """Sentences on settings that this run's epochs are too few for: of a flagfile for longer ones, as a rule."""
        return self._list_unreached("")

    def _list_unreached(self, whose):
        late = [str(epoch) for epoch in self.schedule_epochs if epoch >= self.epochs]
        if not late:
            return []
        return [
            f"Of --schedule_epochs, {', '.join(late)} never come{'s' * (len(late) == 1)} in {self.epochs} epochs{whose}"
        ]

    def resolved(self):
        """Returns the same run with published values in place of None: here there are none."""
        return self


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherTrainingConfig(RunConfig):
    """One run of `train_teacher`."""

    @property
    def teacher(self):
        """The configuration of the teacher's training: this one."""
        return self
