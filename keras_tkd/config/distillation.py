"""How a student is distilled."""

import dataclasses

from keras_tkd.config.fields import check, default, option
from keras_tkd.config.teachers import PretrainedTeachersConfig
from keras_tkd.config.training import RunConfig, TeacherTrainingConfig
from keras_tkd.methods.combination import check_negatives, combine, parse
from keras_tkd.methods.registry import METHODS
from keras_tkd.utils.choices import CACHE_DTYPES, MINERS, NEGATIVE_CLASSES

DRAWS = ("drawn", "in_batch")
ANCHORS = ("trained", "random", "none")
TRAININGS = ("online", "offline")

# What each loss has for itself where several are listed.
OF_AN_ENTRY = ("temperature", "margin", "miner", "teacher_layers", "student_layers", "distillation_loss_weights")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig, PretrainedTeachersConfig):
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
    distillation_loss_weights: tuple[float, ...] | None = option(None, "Weight of each distillation loss, >= 0.")
    warmup_epochs: int | None = option(None, "Epochs over which the distillation losses' weights rise, linearly.")
    teacher_layers: tuple[str, ...] | None = option(None, "Layers of the teacher that the losses read.")
    student_layers: tuple[str, ...] | None = option(None, "Layers of the student that the losses read.")
    negatives: str | None = option(
        None, "Negatives (or partners) drawn from all images, a second image in each step, or from the batch.", DRAWS
    )
    miner: str | None = option(None, "Which negative of the batch an anchor gets.", MINERS)
    negative_classes: str | None = option(
        None, "Whose classes tell negatives apart: the labels', or those the teacher names.", NEGATIVE_CLASSES
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
    teacher_cache_dtype: str = option("float16", "Numbers in the teacher cache.", CACHE_DTYPES)
    baseline: str = option(
        "train", "'train' the student alone on the same budget, 'none', or the workdir of a run that did."
    )

    def __post_init__(self):
        super().__post_init__()
        method = self.recipe
        for name in self.irrelevant_fields:
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
        if self.distillation_loss_weights is not None:
            weights = self.distillation_loss_weights
            check(
                len(weights) == len(method.terms) and all(w >= 0 for w in weights),
                f"`distillation_loss_weights` must be {len(method.terms)} numbers >= 0 for method '{self.method}'",
                self,
                "distillation_loss_weights",
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
            example = "kd@temperature=2:0.5" if name != "distillation_loss_weights" else "kd:0.5"
            return f"With `losses`, each loss has its own `{name}`, in the list: {example}"
        return f"{'A run of these `losses`' if self.losses else f'Method {self.method!r}'} does not read `{name}`"

    @property
    def irrelevant_fields(self):
        method = self.recipe
        irrelevant_fields = super().irrelevant_fields + [
            name for name in ("temperature", "margin") if not method.reads(name)
        ]
        if self.losses:
            irrelevant_fields += ["method", *OF_AN_ENTRY]
        if self.online:
            irrelevant_fields += ["teacher_path", "teacher_preprocessing", "teacher_classes", "teacher_epochs"]
            irrelevant_fields += ["teacher_layers", "student_layers"]
            if not method.online.anchored:
                irrelevant_fields += ["anchor"]
            if self._anchor == "none":
                irrelevant_fields += [
                    "anchor_weight",
                    "generations",
                    "teacher_cache",
                    "teacher_views",
                    "teacher_cache_dtype",
                ]
        else:
            irrelevant_fields += ["anchor", "anchor_weight", "generations", "teacher_loss_weight", "peer_weight"]
            irrelevant_fields += ["student_term_reaches_teacher"]
        if not method.online:
            irrelevant_fields += ["teacher_training"]
        if not method.extra_images:
            irrelevant_fields += ["negatives", "miner", "negative_classes"]
        elif self.negatives != "in_batch":
            irrelevant_fields += ["miner"]
        if not method.terms:
            irrelevant_fields += [
                "student_loss_weight",
                "distillation_loss_weights",
                "teacher_layers",
                "student_layers",
                "baseline",
            ]
            irrelevant_fields += ["warmup_epochs"]
            irrelevant_fields += [
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
        return irrelevant_fields

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
            "distillation_loss_weights": tuple(term.weight for term in method.terms),
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
        missing = {
            k: v for k, v in published.items() if k in fields - set(self.irrelevant_fields) and getattr(self, k) is None
        }
        if self.losses:
            missing["losses"] = tuple(str(parse(entry)) for entry in self.losses)
        return dataclasses.replace(self, **missing)

    @property
    def teacher(self):
        """The configuration of the teacher's own training."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(TeacherTrainingConfig)}
        for name in ("epochs", "learning_rate", "weight_decay", "embedding_layer"):
            own = getattr(self, f"teacher_{name}")
            values[name] = values[name] if own is None else own
        return TeacherTrainingConfig(**{name: value for name, value in values.items() if value is not None})
