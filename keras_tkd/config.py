"""What a run is: frozen dataclasses, validated where they are made. No Keras here.

Each field is one flag of the scripts; its help text, and its choices if it has any, are in its metadata.
"""

import dataclasses
import difflib
import numbers
import os

from keras_tkd.combination import check_negatives, combine, parse
from keras_tkd.flagfile import value_type
from keras_tkd.methods import METHODS

AUGMENTATIONS = ("none", "crop", "crop_flip")
SCHEDULES = ("constant", "cosine", "step")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "auto")
DRAWS = ("drawn", "in_batch")
ANCHORS = ("trained", "random", "none")
TRAININGS = ("online", "offline")
MINERS = ("random", "semi_hard", "hard", "all")
PREPROCESSING = ("none", "unit", "imagenet", "caffe")
AVERAGES = ("losses", "probabilities", "logits")
WEIGHTINGS = ("entropy", "confidence")

# The settings that decide what a model is trained on.
DATA = (
    "dataset",
    "classes",
    "image_size",
    "test_fraction",
    "split_seed",
    "open_set_fraction",
    "shuffle_window",
    "validation_fraction",
    "train_fraction",
    "augmentation",
)

# What each loss has for itself where several are listed.
OF_AN_ENTRY = ("temperature", "margin", "miner", "teacher_layers", "student_layers", "distillation_weights")


def option(default, help, choices=None):
    return dataclasses.field(default=default, metadata={"help": help, "choices": choices})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and which of them are for testing."""

    dataset: str = option(
        "digits", "'digits', a name of tensorflow-datasets (with --data_dir), or a folder of class folders."
    )
    data_dir: str | None = option(None, "Folder of prepared tensorflow-datasets.")
    classes: tuple[str, ...] | None = option(
        None, "Only the images of these classes, by name or index; they become the classes 0, 1, ... in this order."
    )
    image_size: int | None = option(None, "Resize images to this many pixels, height and width.")
    test_fraction: float = option(0.2, "Share held out for testing where a folder has no train/ and test/.")
    split_seed: int = option(0, "Seed of all splits; apart from --seed, so that runs share their test images.")
    open_set_fraction: float | None = option(
        None, "Share of the classes (identities) that no model is trained on: their images test verification."
    )
    shuffle_window: int | None = option(
        None,
        "Leave the images of a data set of tensorflow-datasets on disk, and hold so many at a time, within which they "
        "are shuffled and negatives drawn; all images are held in memory if not given.",
    )
    embedding_layer: str | None = option(
        None, "Layer whose outputs verification compares; 'embedding', as in this package's models, if not given."
    )

    @property
    def unread(self):
        """Names of the fields that nothing in this run reads."""
        return []

    def __post_init__(self):
        if self.classes:
            several = len(set(self.classes)) == len(self.classes) > 1
            check(several, "`classes` must be at least two, none twice", self, "classes")
        for field in dataclasses.fields(self):
            choices = field.metadata.get("choices")
            value = getattr(self, field.name)
            if value_type(field)[1] and isinstance(value, (str, os.PathLike)):
                value = (os.fspath(value),)
                object.__setattr__(self, field.name, value)
            if choices and not (value is None and field.default is None):
                for part in value if isinstance(value, tuple) else [value]:
                    check_choice(field.name, part, choices)
            if value_type(field)[0] is int and not (value is None and field.default is None):
                parts = value if isinstance(value, (tuple, list)) else [value]
                check(all(map(is_whole, parts)), f"`{field.name}` must be a whole number", self, field.name)
        check(
            0 < self.test_fraction < 1, "`test_fraction` must be between 0 and 1, both exclusive", self, "test_fraction"
        )
        check(0 <= self.split_seed < 2**30, "`split_seed` must be in [0, 2^30)", self, "split_seed")
        if self.image_size is not None:
            check(self.image_size >= 1, "`image_size` must be >= 1", self, "image_size")
        if self.open_set_fraction is not None:
            rule = "`open_set_fraction` must be above 0 and at most 1"
            check(0 < self.open_set_fraction <= 1, rule, self, "open_set_fraction")
        if self.shuffle_window is not None:
            check(self.shuffle_window >= 1, "`shuffle_window` must be >= 1", self, "shuffle_window")
            rule = "`shuffle_window` streams data sets of tensorflow-datasets; digits are held in memory"
            check(self.dataset != "digits", rule, self, "dataset", "shuffle_window")
            rule = "`open_set_fraction` takes images out of memory: it does not go with `shuffle_window`"
            check(self.open_set_fraction is None, rule, self, "open_set_fraction", "shuffle_window")
        for name in ("embedding_layer", "teacher_embedding_layer"):
            given = getattr(self, name, None) is not None
            check(not given or self.open_set_fraction, f"`{name}` goes with `open_set_fraction`", self, name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeachersConfig(DataConfig):
    """Trained teachers that a run is given: one, or an ensemble of several."""

    teacher_path: tuple[str, ...] | None = option(
        None, "Keras model file of a trained teacher, or of several, separated by commas. Without it, one is trained."
    )
    teacher_preprocessing: tuple[str, ...] = option(
        ("none",), "Scaling of the pixels that --teacher_path expects: one for all, or one for each.", PREPROCESSING
    )
    teacher_average: str | None = option(None, "What is averaged of several teachers; needed for these.", AVERAGES)
    teacher_weights: tuple[str, ...] | str | None = option(
        None, "Weights of several teachers: a number >= 0 for each, 'entropy' or 'confidence'; equal if not given."
    )
    teacher_classes: tuple[str, ...] | None = option(
        None,
        "Which classes of the teachers in --teacher_path the data's classes are, by name or index, in the order of the "
        "data's. For a teacher of all classes of the data set they are those of --classes.",
    )
    teacher_embedding_layer: str | None = option(None, "The teacher's; as --embedding_layer if not given.")

    @property
    def unread(self):
        several = len(self.teacher_path or ()) > 1
        return super().unread + ([] if several else ["teacher_average", "teacher_weights"])

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "teacher_path", self.teacher_path or None)
        object.__setattr__(self, "teacher_weights", name_or_numbers(self.teacher_weights))
        paths, scalings = self.teacher_path or (), self.teacher_preprocessing
        check(
            paths or scalings == ("none",),
            "`teacher_preprocessing` goes with `teacher_path`",
            self,
            "teacher_preprocessing",
        )
        check(paths or not self.teacher_classes, "`teacher_classes` goes with `teacher_path`", self, "teacher_classes")
        check(
            len(scalings) in (1, len(paths)),
            "`teacher_preprocessing` must be one for all teachers, or one for each",
            self,
            "teacher_path",
            "teacher_preprocessing",
        )
        check(len(set(paths)) == len(paths), "`teacher_path` must name different files", self, "teacher_path")
        if len(paths) < 2:
            for name in ("teacher_average", "teacher_weights"):
                check(getattr(self, name) is None, f"`{name}` is read with several teachers only", self, name)
            return
        check(
            self.teacher_average,
            f"`teacher_average` must say what is averaged of several teachers: {', '.join(AVERAGES)}",
            self,
            "teacher_average",
        )
        weights = self.teacher_weights
        if isinstance(weights, tuple):
            numbers = all(isinstance(weight, (int, float)) and 0 <= weight < float("inf") for weight in weights)
            check(
                numbers and len(weights) == len(paths) and sum(weights) > 0,
                f"`teacher_weights` must be {len(paths)} numbers >= 0 that are not all 0, one for each teacher, or one "
                f"of {', '.join(WEIGHTINGS)}",
                self,
                "teacher_weights",
            )
        elif weights is not None:
            check_choice("teacher_weights", weights, WEIGHTINGS)
            check(
                weights != "confidence" or self.teacher_average == "losses",
                "`teacher_weights=confidence` reads labels, which weight losses only: `teacher_average` must be losses",
                self,
                "teacher_average",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig(TeachersConfig):
    """One run of `evaluate`: a saved model, and its teacher if it is to be compared."""

    model_path: str | None = option(None, "Keras model file to measure.")

    def __post_init__(self):
        super().__post_init__()
        check(self.model_path, "`model_path` is needed, a .keras file", self, "model_path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(DataConfig):
    """What training a teacher and distilling have in common: the data and how a model is trained on them."""

    validation_fraction: float = option(0.0, "Share of the training images held out, for choosing.")
    train_fraction: float | None = option(None, "Share of each class's training images to train on; all if not given.")
    augmentation: str = option("none", "Random crops after padding by 4 pixels, and mirroring.", AUGMENTATIONS)
    epochs: int = option(30, "Passes over the training images.")
    batch_size: int = option(128, "Images per step.")
    learning_rate: float = option(0.1, "Learning rate of the first epoch.")
    momentum: float = option(0.9, "Momentum of stochastic gradient descent.")
    schedule: str = option("cosine", "How the learning rate falls, from epoch to epoch.", SCHEDULES)
    schedule_epochs: tuple[int, ...] = option((), "Epochs at which --schedule=step multiplies the learning rate.")
    schedule_factor: float = option(0.1, "What --schedule=step multiplies it with.")
    weight_decay: float = option(
        0.0, "L2 penalty in the gradient of every weight (coupled, as PyTorch's SGD has it): weight_decay / 2 * w^2."
    )
    precision: str = option(
        "float32",
        "Precision of the computation; weights and losses stay float32. 'auto': what this machine is fast in.",
        PRECISIONS,
    )
    seed: int = option(0, "Seed of starting weights, order of the images, augmentation, negatives, dropout.")
    teacher_model: str = option("digits_teacher", "Name of the teacher's architecture, or a .keras file of it.")

    def __post_init__(self):
        super().__post_init__()
        for name in ("epochs", "batch_size"):
            check(getattr(self, name) >= 1, f"`{name}` must be >= 1", self, name)
        for name in ("learning_rate", "schedule_factor"):
            check(0 < getattr(self, name) < float("inf"), f"`{name}` must be > 0 and finite", self, name)
        for name in ("weight_decay", "momentum"):
            check(getattr(self, name) >= 0, f"`{name}` must be >= 0", self, name)
        rule = "`shuffle_window` must be a batch or more"
        check((self.shuffle_window or self.batch_size) >= self.batch_size, rule, self, "shuffle_window", "batch_size")
        check(0 <= self.seed < 2**30, "`seed` must be in [0, 2^30)", self, "seed")
        check(self.momentum < 1, "`momentum` must be < 1", self, "momentum")
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(RunConfig):
    """One run of `train_teacher`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig, TeachersConfig):
    """One run of `distill`. None stands for the method's published value, or for the student's own setting."""

    method: str = option("tkd", "Distillation method.", tuple(METHODS))
    validation_fraction: float | None = option(
        None,
        "Share of the training images held out, for choosing; if not given, 0.1 where one of several generations is "
        "chosen, else none.",
    )
    losses: tuple[str, ...] | None = option(
        None,
        "Losses of several methods, in place of --method: name, name:weight or name@argument=value:weight, such as "
        "kd@temperature=2:0.5,kd@temperature=8:0.5,sp.",
    )
    student_model: str = option("digits_student", "Name of the student's architecture, or a .keras file of it.")
    teacher_epochs: int | None = option(None, "Epochs of the teacher that is trained first; as --epochs if not given.")
    teacher_learning_rate: float | None = option(None, "Its learning rate; as --learning_rate if not given.")
    teacher_weight_decay: float | None = option(None, "Its weight decay; as --weight_decay if not given.")
    temperature: float | None = option(None, "Temperature of soft targets, > 0.")
    margin: float | None = option(None, "Margin of the triplet loss, >= 0, in the unit of the logits.")
    student_loss_weight: float | None = option(None, "Weight of the loss on the labels, >= 0.")
    distillation_weights: tuple[float, ...] | None = option(None, "Weight of each distillation loss, >= 0.")
    warmup_epochs: int | None = option(None, "Epochs over which the distillation losses' weights rise, linearly.")
    teacher_layers: tuple[str, ...] | None = option(None, "Layers of the teacher that the losses read.")
    student_layers: tuple[str, ...] | None = option(None, "Layers of the student that the losses read.")
    negatives: str | None = option(
        None, "Negatives (or partners) drawn from all images, a second image in each step, or from the batch.", DRAWS
    )
    miner: str | None = option(None, "Which negative of the batch an anchor gets.", MINERS)
    negative_classes: str | None = option(
        None, "Whose classes tell negatives apart: the labels', or those the teacher names.", ("labels", "teacher")
    )
    teacher_training: str | None = option(
        None, "'online': the teacher learns together with the student; 'offline': it is trained before.", TRAININGS
    )
    anchor: str | None = option(
        None, "What bounds an online teacher: the student alone, 'trained'; an untrained student; nothing.", ANCHORS
    )
    generations: int | None = option(None, "Students trained in turn, each with the one before it as the anchor.")
    teacher_loss_weight: float | None = option(None, "Weight of an online teacher's loss on the labels, >= 0.")
    anchor_weight: float | None = option(None, "Weight of an online teacher's divergence from the anchor, >= 0.")
    peer_weight: float | None = option(None, "Weight of an online teacher's divergence from the student, >= 0.")
    student_term_reaches_teacher: bool | None = option(
        None, "Whether the student's distillation loss moves an online teacher, too, towards what it can follow."
    )
    teacher_cache: str = option(
        "auto",
        "Keep the teacher's outputs on disk: 'auto' (where that changes nothing that was asked for, and saves time), "
        "'off', 'workdir' (in --workdir), or a folder, which runs of the same teacher and images can share.",
    )
    teacher_views: int | None = option(
        None, "Views of each image under augmentation, shown in turn; if not given, every epoch shows fresh ones."
    )
    teacher_cache_dtype: str = option("float16", "Numbers in the teacher cache.", ("float16", "float32"))
    baseline: str = option(
        "train", "'train' the student alone on the same budget, 'none', or the workdir of a run that did."
    )

    def __post_init__(self):
        super().__post_init__()
        method = self.recipe
        for name in self.unread:
            check(
                getattr(self, name) == default(type(self), name),
                self.refusal(name),
                self,
                name,
            )
        if self.losses:
            check_negatives(self.losses, self.negatives)
        minimum = {
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
        for name, least in minimum.items():
            if getattr(self, name) is not None:
                check(getattr(self, name) >= least, f"`{name}` must be >= {least}", self, name)
        for name in ("temperature", "teacher_learning_rate"):
            if getattr(self, name) is not None:
                check(getattr(self, name) > 0, f"`{name}` must be > 0", self, name)
        check(self.teacher_cache, "`teacher_cache` must be 'auto', 'off', 'workdir' or a folder", self, "teacher_cache")
        if self.augmentation == "none":
            check(
                self.teacher_views in (None, 1),
                "`teacher_views` must be 1, or not given, without augmentation: all views are alike there",
                self,
                "teacher_views",
                "augmentation",
            )
        elif self.teacher_cache not in ("auto", "off"):
            check(
                self.teacher_views,
                "`teacher_cache` keeps outputs under augmentation only where `teacher_views` says how many views of "
                "each image are shown in turn. Set it, or teacher_cache='off'",
                self,
                "teacher_views",
                "augmentation",
                "teacher_cache",
            )
        if self.distillation_weights is not None:
            weights = self.distillation_weights
            check(
                len(weights) == len(method.terms) and all(w >= 0 for w in weights),
                f"`distillation_weights` must be {len(method.terms)} numbers >= 0 for method '{self.method}'",
                self,
                "distillation_weights",
            )
        check(
            len(self.teacher_layers or method.layers) == len(self.student_layers or method.layers),
            "`teacher_layers` and `student_layers` must be of equal length",
            self,
            "teacher_layers",
            "student_layers",
        )

    @property
    def recipe(self):
        """The `Method` of this run: one by name, or that of the listed losses."""
        return combine(self.losses) if self.losses else METHODS[self.method]

    @property
    def title(self):
        """What tables call this run: the method's name, or the listed losses with their numbers."""
        return self.recipe.summary if self.losses else self.method

    def refusal(self, name):
        """Why a field that is not read is not."""
        if self.losses and name == "method":
            return "`losses` are listed in place of a `method`"
        if self.losses and name in OF_AN_ENTRY:
            example = "kd@temperature=2:0.5" if name != "distillation_weights" else "kd:0.5"
            return f"With `losses`, each loss has its own `{name}`, in the list: {example}"
        return f"{'A run of these `losses`' if self.losses else f'Method {self.method!r}'} does not read `{name}`"

    @property
    def unread(self):
        method = self.recipe
        unread = super().unread + [name for name in ("temperature", "margin") if not method.reads(name)]
        if self.losses:
            unread += ["method", *OF_AN_ENTRY]
        if self.online:
            unread += ["teacher_path", "teacher_preprocessing", "teacher_classes", "teacher_epochs"]
            unread += ["teacher_layers", "student_layers"]
            if not method.online.anchored:
                unread += ["anchor"]
            if self._anchor == "none":
                unread += ["anchor_weight", "generations", "teacher_cache", "teacher_views", "teacher_cache_dtype"]
        else:
            unread += ["anchor", "anchor_weight", "generations", "teacher_loss_weight", "peer_weight"]
            unread += ["student_term_reaches_teacher"]
        if not method.online:
            unread += ["teacher_training"]
        if not method.companions:
            unread += ["negatives", "miner", "negative_classes"]
        elif self.negatives != "in_batch":
            unread += ["miner"]
        if not method.terms:
            unread += ["student_loss_weight", "distillation_weights", "teacher_layers", "student_layers", "baseline"]
            unread += ["warmup_epochs"]
            unread += [
                "teacher_path",
                "teacher_model",
                "teacher_epochs",
                "teacher_learning_rate",
                "teacher_weight_decay",
                "teacher_preprocessing",
                "teacher_embedding_layer",
                "teacher_classes",
                "teacher_cache",
                "teacher_views",
                "teacher_cache_dtype",
            ]
        return unread

    @property
    def online(self):
        """Whether the teacher learns together with the student."""
        return bool(self.recipe.online) and self.teacher_training != "offline"

    @property
    def _anchor(self):
        return (self.anchor or "trained") if self.recipe.online.anchored else "none"

    def resolved(self):
        """The same run with the method's published values in place of None, so that the file of flags is complete."""
        method = self.recipe
        published = {
            "student_loss_weight": method.student_loss_weight,
            "distillation_weights": tuple(term.weight for term in method.terms),
            "warmup_epochs": method.warmup_epochs,
            "teacher_layers": method.layers or None,
            "student_layers": method.layers or None,
            "negatives": "drawn",
            "validation_fraction": 0.1 if (self.generations or 1) > 1 else 0.0,
        }
        if method.online:
            published |= dataclasses.asdict(method.online)
            published |= {"teacher_training": "online", "anchor": self._anchor, "generations": 1}
        fields = {field.name for field in dataclasses.fields(self)}
        for term in method.terms:
            published |= {name: value for name, value in term.arguments.items() if name in fields}
        missing = {k: v for k, v in published.items() if k in fields - set(self.unread) and getattr(self, k) is None}
        if self.losses:
            missing["losses"] = tuple(str(parse(entry)) for entry in self.losses)
        return dataclasses.replace(self, **missing)

    @property
    def teacher(self):
        """The configuration of the teacher's own training."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(TeacherConfig)}
        for name in ("epochs", "learning_rate", "weight_decay", "embedding_layer"):
            own = getattr(self, f"teacher_{name}")
            values[name] = values[name] if own is None else own
        return TeacherConfig(**{name: value for name, value in values.items() if value is not None})


def name_or_numbers(values):
    """Weights as text or numbers: the one name there is by itself, numbers as a tuple; anything else as it is."""
    if not isinstance(values, (tuple, list)):
        return values

    def number(value):
        try:
            return float(value)
        except ValueError:
            return value

    values = tuple(map(number, values))
    return values[0] if len(values) == 1 and isinstance(values[0], str) else values or None


def is_whole(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def default(cls, name):
    return next(field.default for field in dataclasses.fields(cls) if field.name == name)


def check(condition, rule, config, *names):
    if not condition:
        received = ", ".join(f"{name}={getattr(config, name)!r}" for name in names)
        raise ValueError(f"{rule}. Received: {received}")


def check_choice(name, value, choices):
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`{name}` must be one of {', '.join(choices)}. Received: {name}={value!r}.{hint}")
