"""Settings of a distillation."""

import dataclasses
import functools

from keras_tkd.config.architectures import check_weights, weights_option
from keras_tkd.config.distillation_rules import check_distillation
from keras_tkd.config.fields import GIVEN_TEACHER, ReadWhen, option
from keras_tkd.config.teachers import PretrainedTeachersConfig
from keras_tkd.config.training import RunConfig, TeacherTrainingConfig
from keras_tkd.methods.combination import combine, parse_entry
from keras_tkd.methods.registry import METHODS
from keras_tkd.utils.choices import APPLICATIONS, CACHE_DTYPES, GATHERS, MINERS, NEGATIVE_CLASSES

__all__ = ["DistillConfig"]

_DRAWS = ("drawn", "in_batch")
_ANCHORS = ("trained", "random", "none")
_TRAININGS = ("online", "offline")
_CHECKS = ("warn", "strict", "off")
# What `teacher_cache` may be beside a folder's path: those of no cache, or none yet, and a run's own folder.
_NO_CACHE, _OWN_CACHE = ("auto", "off"), "workdir"

# When a setting is read. Of several conditions, the first that fails is what the error says.
_WITH_TEACHER = ReadWhen(lambda run: run.has_teacher)
_TRAINED_BEFORE = ReadWhen(lambda run: run.takes_trained_teacher)
_ONLINE = ReadWhen(lambda run: run.online)
_ANCHORED = ReadWhen(lambda run: run.online and run._anchor != "none")
_WITH_FROZEN_MODEL = ReadWhen(lambda run: run.takes_trained_teacher or _ANCHORED.holds(run))
# A teacher whose outputs alone are given is not run: there is nothing that could be kept.
_WITH_MODEL = ReadWhen(
    lambda run: not run.teacher_outputs, "`{name}` is for a teacher that is run, and is not read with `teacher_outputs`"
)
_SHARED = ReadWhen(
    lambda run: run.distribution != "none", "`{name}` is for several devices, and is not read with distribution='none'"
)
_EXTRA_IMAGES = ReadWhen(lambda run: run.recipe.extra_images)
_NOT_LISTED = ReadWhen(lambda run: not run.losses, "`losses` are listed in place of a `method`")
# Where several losses are listed, each has these for itself.
_IN_THE_LIST = "With `losses`, each loss has its own `{name}`, in the list: "
_ONE_FOR_ALL = ReadWhen(lambda run: not run.losses, _IN_THE_LIST + "kd@temperature=2:0.5")
_WEIGHTS_FOR_ALL = ReadWhen(lambda run: not run.losses, _IN_THE_LIST + "kd:0.5")


def _method_option(default, help, choices=None, read_when=(), **more):
    """Makes the field of a setting that concerns the distilled student and its teacher, no training on the labels."""
    return option(default, help, choices, read_when=read_when, **{"decides": "distillation", **more})


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillConfig(RunConfig, PretrainedTeachersConfig):
    """One run of `distill`. None stands for the method's published value, or for the student's own setting."""

    method: str = _method_option("tkd", "Distillation method.", tuple(METHODS), _NOT_LISTED)
    validation_fraction: float | None = option(
        None,
        "Share of the training images held out, for choosing; if not given, 0.1 where one of several generations is "
        "chosen, else none.",
        decides="data",
    )
    losses: tuple[str, ...] | None = _method_option(
        None,
        "Losses of several methods, in place of --method: name, name:weight or name@argument=value:weight, such as "
        "kd@temperature=2:0.5,kd@temperature=8:0.5,sp.",
    )
    student_model: str = option(
        "digits_student",
        f"Name of the student's architecture, a .keras file of it, or {APPLICATIONS}NAME; by the size of the images if "
        "not given.",
        decides="student",
        by_data=True,
        names_file=True,
    )
    student_model_weights: str | None = weights_option("student_model", "student")
    teacher_head: str | None = _method_option(
        None,
        "'new': train a new dense layer for the data's classes on the body of --teacher_path, whose classes are "
        "others; the body stays as it is.",
        ("new",),
        (_TRAINED_BEFORE, ReadWhen(lambda run: run.teacher_path, "`{name}` goes with `teacher_path`")),
    )
    teacher_epochs: int | None = _method_option(
        None,
        "Epochs of the teacher that is trained first; as --epochs if not given.",
        read_when=_TRAINED_BEFORE,
        yields_to=GIVEN_TEACHER,
        unless="teacher_head",
    )
    teacher_learning_rate: float | None = _method_option(
        None,
        "Its learning rate; as --learning_rate if not given.",
        read_when=_WITH_TEACHER,
        yields_to=GIVEN_TEACHER,
        unless="teacher_head",
    )
    teacher_weight_decay: float | None = _method_option(
        None,
        "Its weight decay; as --weight_decay if not given.",
        read_when=_WITH_TEACHER,
        yields_to=GIVEN_TEACHER,
        unless="teacher_head",
    )
    temperature: float | None = _method_option(
        None,
        "Temperature of soft targets, > 0.",
        read_when=(_ONE_FOR_ALL, ReadWhen(lambda run: run.recipe.reads("temperature"))),
    )
    margin: float | None = _method_option(
        None,
        "Margin of the triplet loss, >= 0, in the unit of the logits.",
        read_when=(_ONE_FOR_ALL, ReadWhen(lambda run: run.recipe.reads("margin"))),
    )
    student_loss_weight: float | None = _method_option(
        None, "Weight of the loss on the labels, >= 0.", read_when=_WITH_TEACHER
    )
    distillation_loss_weights: tuple[float, ...] | None = _method_option(
        None, "Weight of each distillation loss, >= 0.", read_when=(_WEIGHTS_FOR_ALL, _WITH_TEACHER)
    )
    warmup_epochs: int | None = _method_option(
        None, "Epochs over which the distillation losses' weights rise, linearly.", read_when=_WITH_TEACHER
    )
    teacher_layers: tuple[str, ...] | None = _method_option(
        None, "Layers of the teacher that the losses read.", read_when=(_ONE_FOR_ALL, _TRAINED_BEFORE)
    )
    student_layers: tuple[str, ...] | None = _method_option(
        None, "Layers of the student that the losses read.", read_when=(_ONE_FOR_ALL, _TRAINED_BEFORE)
    )
    gather: str = _method_option(
        "global",
        "Several devices compute the losses of the 'global' batch, whose outputs they send one another, or each those "
        "of its 'local' share.",
        GATHERS,
        (_WITH_TEACHER, _SHARED),
    )
    negatives: str | None = _method_option(
        None,
        "Negatives (or partners) drawn from all images, a second image in each step, or from the batch.",
        _DRAWS,
        _EXTRA_IMAGES,
    )
    miner: str | None = _method_option(
        None,
        "Which negative of the batch an anchor gets.",
        MINERS,
        (_ONE_FOR_ALL, _EXTRA_IMAGES, ReadWhen(lambda run: run.negatives == "in_batch")),
    )
    negative_classes: str | None = _method_option(
        None,
        "Whose classes tell negatives apart: the labels', or those the teacher names.",
        NEGATIVE_CLASSES,
        _EXTRA_IMAGES,
    )
    teacher_training: str | None = _method_option(
        None,
        "'online': the teacher learns together with the student; 'offline': it is trained before.",
        _TRAININGS,
        ReadWhen(lambda run: run.recipe.online),
    )
    anchor: str | None = _method_option(
        None,
        "What bounds an online teacher: the student alone, 'trained'; an untrained student; nothing.",
        _ANCHORS,
        ReadWhen(lambda run: run.online and run.recipe.online.anchored),
    )
    # One more generation does not change those before it.
    generations: int | None = _method_option(
        None,
        "Students trained in turn, each with the one before it as the anchor.",
        read_when=_ANCHORED,
        decides="nothing",
    )
    teacher_loss_weight: float | None = _method_option(
        None, "Weight of an online teacher's loss on the labels, >= 0.", read_when=_ONLINE
    )
    anchor_weight: float | None = _method_option(
        None, "Weight of an online teacher's divergence from the anchor, >= 0.", read_when=_ANCHORED
    )
    peer_weight: float | None = _method_option(
        None, "Weight of an online teacher's divergence from the student, >= 0.", read_when=_ONLINE
    )
    student_term_reaches_teacher: bool | None = _method_option(
        None,
        "Whether the student's distillation loss moves an online teacher, too, towards what it can follow.",
        read_when=_ONLINE,
    )
    # Outputs that are kept differ in their last bits from those of a step, or are rounded to `teacher_cache_dtype`: it
    # counts that there is a cache, and not where it is.
    teacher_cache: str = _method_option(
        "auto",
        "Keep the teacher's outputs on disk: 'auto' (where that changes nothing that was asked for, and saves enough), "
        "'off', 'workdir' (in --workdir), or a folder, which runs of the same teacher and images can share.",
        read_when=(_WITH_FROZEN_MODEL, _WITH_MODEL),
        recorded_as=lambda cache: cache not in _NO_CACHE,
    )
    teacher_views: int | None = _method_option(
        None,
        "Views of each image under augmentation, shown in turn; if not given, every epoch shows fresh ones.",
        read_when=_WITH_FROZEN_MODEL,
    )
    teacher_cache_dtype: str = _method_option(
        "float32",
        "Numbers in the teacher cache; float16 takes half of the room, and rounds by at most 0.05 % (near 0 by 3e-8).",
        CACHE_DTYPES,
        (
            _WITH_FROZEN_MODEL,
            _WITH_MODEL,
            ReadWhen(lambda run: run.teacher_cache != "off", "`{name}` is not read with teacher_cache='off'"),
        ),
    )
    baseline: str = _method_option(
        "train",
        "'train' the student alone on the same budget, 'none', or the workdir of a run that did.",
        read_when=_WITH_TEACHER,
        decides="nothing",
        names_file=True,
    )
    check: str = _method_option(
        "warn",
        "Look at the first batch before the student is trained, show each term's share of the gradient, and 'warn' of "
        "what is wrong; 'strict' makes warnings errors, 'off' looks at nothing.",
        _CHECKS,
        _WITH_TEACHER,
        decides="warnings",
    )

    def _check_rules(self):
        super()._check_rules()
        check_weights(self, "student_model_weights")
        check_distillation(self)

    @functools.cached_property
    def recipe(self):
        """The `Method` of this run: one by name, or that of the listed losses."""
        recipe = combine(self.losses) if self.losses else METHODS[self.method]
        return recipe.for_several_classes() if self.multi_label else recipe

    @property
    def has_validation(self):
        # A share that is not given is chosen in `resolved`: some, where one of several generations is chosen.
        return bool(self.validation_fraction) or (self.validation_fraction is None and (self.generations or 1) > 1)

    @property
    def title(self):
        """The run's name in tables: the method's name, or the listed losses with their numbers."""
        return self.recipe.summary if self.losses else self.method

    @property
    def online(self):
        """True if the teacher learns together with the student."""
        return bool(self.recipe.online) and self.teacher_training != "offline"

    @property
    def has_teacher(self):
        """True if a teacher takes part in the run, and the student does not learn from the labels alone."""
        return bool(self.recipe.terms)

    @property
    def takes_trained_teacher(self):
        """True if the teacher is trained before the student, so that a trained one may be given."""
        return self.has_teacher and not self.online

    @property
    def trains_teacher(self):
        """True if the run trains a teacher, or its new head, before the student or together with it."""
        given = bool(self.teacher_path or self.teacher_outputs)
        return self.has_teacher and (not given or bool(self.teacher_head))

    @property
    def keeps_outputs(self):
        """True if there is to be a teacher cache, as far as that is decided."""
        return self.teacher_cache not in _NO_CACHE

    @property
    def named_cache(self):
        """The folder that is named for the teacher cache; None where there is none, or one in the run's own folder."""
        return self.teacher_cache if self.keeps_outputs and self.teacher_cache != _OWN_CACHE else None

    @property
    def augments(self):
        """True if a training image has more than one view: if views are drawn, or mixed."""
        return self.augmentation != "none" or self.mixes

    @property
    def takes_teacher_outputs(self):
        return self.takes_trained_teacher

    @property
    def _anchor(self):
        return (self.anchor or "trained") if self.recipe.online.anchored else "none"

    @property
    def _reader(self):
        return "A run of these `losses`" if self.losses else f"Method {self.method!r}"

    def resolved(self):
        """Returns the same run with the method's published values in place of None, so that flags are complete."""
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
        # What is not read stays None, or a flagfile of it would be refused.
        if self.losses:
            missing["losses"] = tuple(str(parse_entry(entry)) for entry in self.losses)
        return dataclasses.replace(self, **missing)

    @property
    def unreached(self):
        found = super().unreached
        # Of the teacher's own epochs only, if it has such.
        if self.trains_teacher and self.teacher.epochs != self.epochs:
            found += self.teacher._list_unreached(" of the teacher")
        if (self.warmup_epochs or 0) > self.epochs:
            share = self.epochs / self.warmup_epochs
            found.append(
                f"With --warmup_epochs={self.warmup_epochs} the distillation losses' weights rise to {share:.0%} "
                f"of their values in {self._counted_epochs}"
            )
        if (self.teacher_views or 0) > self.epochs:
            found.append(f"Of --teacher_views={self.teacher_views}, {self.epochs} are shown in {self._counted_epochs}")
        return found

    @property
    def teacher(self):
        """The configuration of the teacher's own training."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(TeacherTrainingConfig)}
        for name in ("epochs", "learning_rate", "weight_decay", "embedding_layer", "image_size"):
            own = getattr(self, f"teacher_{name}")
            values[name] = values[name] if own is None else own
        # Of a run that is not resolved, the share held out may still be None, which here is no value.
        return TeacherTrainingConfig(**{name: value for name, value in values.items() if value is not None})
