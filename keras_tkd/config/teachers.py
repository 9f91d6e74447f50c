"""Settings of trained teachers that a run is given, and of their measurement."""

import dataclasses

from keras_tkd.config import multi_label_rules
from keras_tkd.config.data import VERIFYING, DataConfig
from keras_tkd.config.fields import ReadWhen, check, check_choice, option
from keras_tkd.utils.choices import AVERAGES, PREPROCESSING, WEIGHTINGS
from keras_tkd.utils.number_checks import is_finite

__all__ = ["PretrainedTeachersConfig"]

_TRAINED_BEFORE = ReadWhen(lambda config: config.takes_trained_teacher)
_STILL = ReadWhen(
    lambda config: config.takes_trained_teacher or not config.has_teacher,
    "`{name}` stay as they are, and this run's teacher learns together with the student. Leave them out, or choose a "
    "teacher that is trained before: --teacher_training=offline, or another method",
)
_DISTILLING = ReadWhen(
    lambda config: config.takes_teacher_outputs,
    "`{name}` are a teacher's answers for the images that a run of distill trains on, and here the teacher itself is "
    "run. Leave them out, or give its model: --teacher_path",
)
_GIVEN_SOMEHOW = ReadWhen(
    lambda config: config.teacher_path or config.teacher_outputs,
    "`{name}` goes with `teacher_path` or `teacher_outputs`",
)
_GIVEN = ReadWhen(lambda config: config.teacher_path, "`{name}` goes with `teacher_path`")
_SEVERAL = ReadWhen(
    lambda config: len(config.teacher_path or ()) > 1,
    "This run does not read `{name}`: `{name}` is read with several teachers only",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PretrainedTeachersConfig(DataConfig):
    """Trained teachers that a run is given: one, or an ensemble of several."""

    teacher_path: tuple[str, ...] | None = option(
        None,
        "A trained teacher, or several, separated by commas: a file of Keras's (.keras, .h5), a folder with a "
        "SavedModel, or a run's folder. Without it, one is trained.",
        decides="distillation",
        read_when=_TRAINED_BEFORE,
        names_file=True,
    )
    teacher_outputs: str | None = option(
        None,
        "The outputs alone of a trained teacher, of any framework: a NumPy file (.npz, .npy) with its logits or "
        "probabilities for the training and test images, in place of --teacher_path.",
        decides="distillation",
        read_when=(_STILL, _TRAINED_BEFORE, _DISTILLING),
        names_file=True,
    )
    teacher_output: str | None = option(
        None,
        "Which output of --teacher_path are its logits, by name or number, where it has several; 'logits' of a dict if "
        "not given.",
        decides="distillation",
        read_when=(_TRAINED_BEFORE, _GIVEN),
    )
    trust_teacher_code: bool = option(
        False,
        "Run code that a file of --teacher_path holds, such as a Lambda layer's. Only for files whose maker you know: "
        "such code may do anything.",
        decides="nothing",
        read_when=(_TRAINED_BEFORE, _GIVEN),
    )
    teacher_image_size: int | None = option(
        None,
        "Height and width in which the teacher sees the images, made of the same stored pixels; as the student, "
        "--image_size, if not given.",
        decides="distillation",
        read_when=(_TRAINED_BEFORE, ReadWhen(lambda config: config.has_teacher)),
        yields_to="teacher_outputs",
    )
    teacher_preprocessing: tuple[str, ...] = option(
        ("none",),
        "Scaling of the pixels that --teacher_path expects: one for all, or one for each.",
        PREPROCESSING,
        decides="distillation",
        read_when=(_TRAINED_BEFORE, _GIVEN),
    )
    teacher_average: str | None = option(
        None,
        "What is averaged of several teachers; needed for these.",
        AVERAGES,
        decides="distillation",
        read_when=_SEVERAL,
    )
    teacher_weights: tuple[str, ...] | str | None = option(
        None,
        "Weights of several teachers: a number >= 0 for each, 'entropy' or 'confidence'; equal if not given.",
        decides="distillation",
        read_when=_SEVERAL,
    )
    teacher_classes: tuple[str, ...] | None = option(
        None,
        "Which classes of the teachers in --teacher_path the data's classes are, by name or index, in the order of the "
        "data's. For a teacher of all classes of the data set they are those of --classes.",
        decides="distillation",
        read_when=(_TRAINED_BEFORE, _GIVEN_SOMEHOW),
    )
    teacher_embedding_layer: str | None = option(
        None,
        "The teacher's; as --embedding_layer if not given.",
        decides="nothing",
        read_when=(ReadWhen(lambda config: config.has_teacher and not config.teacher_outputs), VERIFYING),
    )

    @property
    def takes_teacher_outputs(self):
        """True if the run may be given a teacher's outputs in place of its model."""
        return False

    def _convert(self):
        super()._convert()
        # An empty list of paths is none.
        object.__setattr__(self, "teacher_path", self.teacher_path or None)
        object.__setattr__(self, "teacher_weights", _name_or_numbers(self.teacher_weights))

    def _check_rules(self):
        super()._check_rules()
        multi_label_rules.check_teachers(self)
        if self.teacher_image_size is not None:
            check(self.teacher_image_size >= 1, "`teacher_image_size` must be >= 1", self, "teacher_image_size")
            rule = "`decoded_cache` holds images of one size, and does not go with `teacher_image_size`"
            check(self.decoded_cache is None, rule, self, "decoded_cache", "teacher_image_size")
        paths, scalings = self.teacher_path or (), self.teacher_preprocessing
        check(
            len(scalings) in (1, len(paths)),
            "`teacher_preprocessing` must be one for all teachers, or one for each",
            self,
            "teacher_path",
            "teacher_preprocessing",
        )
        # A file given twice would count double: that is what weights are for.
        check(len(set(paths)) == len(paths), "`teacher_path` must name different files", self, "teacher_path")
        if len(paths) < 2:
            return
        # The three differ, and none is standard practice: there is no default.
        check(
            self.teacher_average,
            f"`teacher_average` must say what is averaged of several teachers: {', '.join(AVERAGES)}",
            self,
            "teacher_average",
        )
        weights = self.teacher_weights
        if isinstance(weights, tuple):
            numbers = all(is_finite(weight) and weight >= 0 for weight in weights)
            check(
                numbers and len(weights) == len(paths) and sum(weights) > 0,
                f"`teacher_weights` must be {len(paths)} numbers >= 0, in float32 and not all 0, one for each "
                f"teacher, or one of {', '.join(WEIGHTINGS)}",
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


def _name_or_numbers(values):
    """Converts weights from text: a single name to that name, numbers to a tuple; anything else stays as it is."""
    if not isinstance(values, (tuple, list)):
        return values

    def number(value):
        try:
            return float(value)
        except ValueError:
            return value

    values = tuple(map(number, values))
    return values[0] if len(values) == 1 and isinstance(values[0], str) else values or None
