"""Settings of a training."""

import dataclasses

from keras_tkd.config import multi_label_rules, training_rules
from keras_tkd.config.architectures import check_weights, weights_option
from keras_tkd.config.data import DataConfig
from keras_tkd.config.distribution_rules import check_distribution
from keras_tkd.config.fields import GIVEN_TEACHER, ReadWhen, option
from keras_tkd.utils.augmentation_names import parse_augmentation
from keras_tkd.utils.choices import APPLICATIONS, AUGMENTATIONS, DISTRIBUTIONS, OPTIMIZERS, PRECISIONS

__all__ = ["RunConfig", "TeacherTrainingConfig"]

_SCHEDULES = ("constant", "cosine", "step")
_CLASS_WEIGHTS = ("none", "balanced")
_AT_CHANCE = ("stop", "warn")
_SELECTIONS = ("last", "best_validation")
_TENSORBOARD = ("all", "scalars", "off")
_IN_STEPS = ReadWhen(lambda config: config.schedule == "step", "`{name}` is read with schedule='step' only")
# Never by the test images, which would then be no test any more.
_BY_VALIDATION = ReadWhen(
    lambda config: config.has_validation,
    "`{name}` goes by the accuracy on validation images, and this run has none: set `validation_fraction`",
)
_BY_SGD = ReadWhen(
    lambda config: config.optimizer == "sgd",
    "`{name}` is read with optimizer='sgd' only: Adam has averages of its own",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(DataConfig):
    """Settings that training a teacher and distilling share: those of the data and of the training itself."""

    validation_fraction: float = option(0.0, "Share of the training images held out, for choosing.", decides="data")
    train_fraction: float | None = option(
        None, "Share of each class's training images to train on; all if not given.", decides="data"
    )
    augmentation: str = option(
        "none",
        "Operations that make fresh views of the training images, in the order in which they act, joined by +, each "
        "with its arguments: resized_crop@area=0.25+horizontal_flip. " + ", ".join(AUGMENTATIONS) + ".",
        AUGMENTATIONS,
        decides="data",
        composed_by=parse_augmentation,
    )
    mixup: float | None = option(
        None,
        "Mix each training image and its label with another's: alpha > 0 of Beta(alpha, alpha), from which the shares "
        "are drawn.",
        decides="data",
    )
    cutmix: float | None = option(
        None, "Paste a box out of another image instead, or in turn with --mixup: its alpha > 0.", decides="data"
    )
    # Of what is chosen by the data the defaults here are those of digits, for which they were made.
    epochs: int = option(
        30, "Passes over the training images; by their number if not given.", decides="budget", by_data=True
    )
    # Of every training of a run, as a part of its budget: a student must not win for being stopped at a better time.
    early_stopping_patience: int | None = option(
        None,
        "End each training after so many epochs without a better accuracy on the validation images; after --epochs if "
        "not given.",
        decides="budget",
        read_when=_BY_VALIDATION,
    )
    select: str = option(
        "last",
        "Epoch of each training whose weights its model gets: the 'last', or the one with the 'best_validation' "
        "accuracy, the first of several.",
        _SELECTIONS,
        decides="budget",
        read_when=_BY_VALIDATION,
    )
    batch_size: int = option(
        128, "Images per step; by the number of images if not given.", decides="budget", by_data=True
    )
    learning_rate: float = option(
        0.1,
        "Learning rate before it falls: of the first epoch, or after those in which it rises; if not given, 0.001 for "
        "Adam, else 0.01 but for digits.",
        decides="training",
        by_data=True,
    )
    # Of every model that the run trains on labels or distils; a teacher that it is given stays as it is.
    optimizer: str = option(
        "sgd",
        "Optimizer, of Keras: 'sgd' with momentum, 'adam', or 'adamw', whose weight decay is decoupled.",
        OPTIMIZERS,
        decides="training",
    )
    momentum: float = option(0.9, "Momentum of stochastic gradient descent.", decides="training", read_when=_BY_SGD)
    schedule: str = option(
        "cosine", "How the learning rate falls, from epoch to epoch.", _SCHEDULES, decides="training"
    )
    learning_rate_warmup_epochs: int = option(
        0,
        "First epochs, in which the learning rate rises by equal steps up to --learning_rate. --schedule=cosine has "
        "the others to fall in.",
        decides="training",
    )
    schedule_epochs: tuple[int, ...] = option(
        (), "Epochs at which --schedule=step multiplies the learning rate.", decides="training"
    )
    schedule_factor: float = option(
        0.1, "What --schedule=step multiplies it with.", decides="training", read_when=_IN_STEPS
    )
    weight_decay: float = option(
        0.0,
        "Decay of every weight. With sgd and adam coupled, as in PyTorch: L2 in the gradient, weight_decay / 2 * w^2. "
        "With adamw decoupled, by Keras: each step takes learning_rate * weight_decay * w off; 0.004 if not given.",
        decides="training",
        by_data=True,
    )
    # These three are of every training of a run, not of the student's alone: that distillation helped must not mean
    # that the student alone was clipped, smoothed or weighted otherwise.
    clip_norm: float | None = option(
        None,
        "Largest norm of the gradient of all weights together; a longer one is scaled down to it.",
        decides="training",
    )
    label_smoothing: float = option(
        0.0,
        "Share of each label that is spread evenly over all classes, in the loss on the labels.",
        decides="training",
    )
    class_weight: str = option(
        "none",
        "'balanced': an image counts n / (classes * n_c) of its class in every loss of a training, so that each class "
        "counts the same, however few images it has.",
        _CLASS_WEIGHTS,
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
    distribution: str = option(
        "none",
        "Train on several devices that share each batch: 'mirrored', all GPUs of this machine; 'multi_worker', the "
        "processes that TF_CONFIG lists, each of which is started with the same command.",
        DISTRIBUTIONS,
        decides="training",
    )
    checkpoint_steps: int | None = option(
        None,
        "Steps after which the state of a training is written inside an epoch too; at the end of each it always is.",
        decides="interruption",
    )
    checkpoint_minutes: float | None = option(None, "Minutes after which it is.", decides="interruption")
    # As with warnings, no result hangs on it: a training that goes on does so as if nobody had looked.
    at_chance: str = option(
        "stop",
        "What to do with a training that is still at chance after its first epochs: 'stop' it, or 'warn' and go on.",
        _AT_CHANCE,
        decides="warnings",
    )
    tensorboard: str = option(
        "all",
        "What to write for TensorBoard: 'scalars' (curves, the run's settings and results), 'all' (pictures, "
        "embeddings and the models' graphs too, once, at the end), or 'off'.",
        _TENSORBOARD,
        decides="display",
    )
    profile_steps: tuple[int, ...] = option(
        (),
        "First and last step, from 1, of the student's training (or the teacher's that is trained alone) to record for "
        "TensorBoard's profiler: 10,20.",
        decides="display",
        read_when=ReadWhen(lambda config: config.tensorboard != "off", "`{name}` is not read with tensorboard='off'"),
    )
    teacher_model: str = option(
        "digits_teacher",
        f"Name of the teacher's architecture, a .keras file of it, or {APPLICATIONS}NAME; by the size of the images if "
        "not given.",
        decides="distillation",
        by_data=True,
        read_when=ReadWhen(lambda config: config.has_teacher),
        yields_to=GIVEN_TEACHER,
        names_file=True,
    )
    teacher_model_weights: str | None = weights_option("teacher_model", "distillation", GIVEN_TEACHER)

    def _check_rules(self):
        super()._check_rules()
        training_rules.check_training(self)
        check_weights(self, "teacher_model_weights")
        multi_label_rules.check_training(self)
        check_distribution(self)

    @property
    def has_own_defaults(self):
        """True if the data set keeps the defaults of the fields; for others the data choose what is not given."""
        return self.dataset == "digits"

    @property
    def has_validation(self):
        """True if training images are held out, to choose by."""
        return bool(self.validation_fraction)

    @property
    def mixes(self):
        """True if training images, and their labels, are mixed with others."""
        return self.mixup is not None or self.cutmix is not None

    @property
    def unreached(self):
        """Sentences on settings that this run's epochs are too few for: of a flagfile for longer ones, as a rule."""
        return self._list_unreached("")

    @property
    def _counted_epochs(self):
        return f"{self.epochs} epoch{'s' * (self.epochs != 1)}"

    def _list_unreached(self, whose):
        found = []
        rising = self.learning_rate_warmup_epochs
        if rising and rising + 1 >= self.epochs:
            share = self.epochs / (rising + 1)
            found.append(
                f"With --learning_rate_warmup_epochs={rising} the learning rate rises to {share:.0%} of its value in "
                f"the last of {self._counted_epochs}{whose}, and never falls"
            )
        late = [str(epoch) for epoch in self.schedule_epochs if epoch >= self.epochs]
        if late:
            come = "never comes" if len(late) == 1 else "never come"
            found.append(f"Of --schedule_epochs, {', '.join(late)} {come} in {self._counted_epochs}{whose}")
        return found

    @property
    def coupled_weight_decay(self):
        """The weight decay that is a part of the loss: none where the optimizer takes it off the weights itself."""
        return 0.0 if self.optimizer == "adamw" else self.weight_decay

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
