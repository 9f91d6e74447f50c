"""The schema of `results.json`. No TensorFlow here.

The fields stand in the file in the order in which they are written below. A field that does not concern a run is left
out of the file (`_optional`); one that could have a value and has none is null.
"""

import dataclasses
import numbers
import reprlib
import types
import typing

from keras_tkd.utils.files import read_json

__all__ = [
    "GenerationResult",
    "ImageCounts",
    "ModelResult",
    "Results",
    "StudentResult",
    "TrainingResult",
    "VERSION",
    "check_kinds",
    "read_results",
    "upgrade_results",
]

# Raise it when a field changes its meaning or its name, or goes; and have `upgrade_results` read the old ones.
VERSION = 2


def _field(of=None, **more):
    """A field that holds plain data, or, where `of` is given, one result of that class or a list of them."""
    return dataclasses.field(metadata={"of": of, "optional": False}, **more)


def _optional(of=None):
    """A field that is left out of the file where it does not concern the run."""
    return dataclasses.field(metadata={"of": of, "optional": True}, default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Result:
    def to_dict(self):
        """Returns what the file says, as plain data."""
        values = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None or not field.metadata["optional"]:
                values[field.name] = _to_plain(value)
        return values

    # Unknown fields are ignored: other programs may have added some. A later schema is told by its version.
    @classmethod
    def from_dict(cls, values):
        """Returns the result that a file's plain data describe; fields that there are not are passed over.

        Raises:
            ValueError: a field that must be there is not, or one is of another kind.
        """
        check_kinds(cls, values)
        read = {}
        for field in dataclasses.fields(cls):
            if field.name in values:
                read[field.name] = _from_plain(values[field.name], field.metadata["of"])
            elif field.default is dataclasses.MISSING:
                raise ValueError(f"Results must say `{field.name}`. Received: {', '.join(values) or 'nothing'}")
        return cls(**read)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelResult(_Result):
    """Measurements of one model.

    Attributes:
        test_accuracy: share of the test images whose class it names, 0..1; of images of several classes, of those of
            which it answers every class right (exact match). None where all classes are in the open set.
        parameters: number of trainable parameters; left out of a teacher whose outputs alone were given.
        at_chance: whether that accuracy cannot be told from always naming the commonest class.
        agreement: share of the test images for which it names its teacher's class, 0..1.
        seconds: of training, validation included; of a model that this run did not train None.
        epochs: those it was trained for, fewer than planned where a callback ended its training; None of a model
            that this run did not train, and where an earlier version wrote the file.
        verification: what `evaluation.verification_scores` gives for the images of the open set.
        train_accuracy: share of the training images whose class it names, 0..1.
        balanced_accuracy: mean of the accuracies of the classes that have test images, 0..1. This and what follows is
            in files of runs; earlier versions did not write it.
        per_class_accuracy: the share of each class's test images whose class it names, by the class's name, 0..1; null
            of a class without test images.
        confusion_matrix: number of test images of each class, a row each, that it takes for each class, a column each,
            in the order of the labels; None with more than 256 classes.
        mean_average_precision: of images of several classes, the mean over those that have test images of their average
            precisions, 0..1. This and what follows is said of such images alone.
        macro_f1: mean of the F1 scores of the same classes, 0..1.
        binary_accuracy: share of all yes and no, of each class for each test image, that are right, 0..1.
        per_class: for each class, by its name, its `average_precision` and `f1`, 0..1, null without test images.
        outputs: of a teacher whose outputs alone were given, where they came from: the file, its SHA-256, what they
            were given as, their views and layers.
        image_shape: of a teacher that sees images of another size than the student, their height, width and channels.
        selected_epoch: the epoch, from 1, whose weights it has, where that was chosen by the validation images.
    """

    test_accuracy: float | None = _optional()
    # Where it is said, it is a number: null says that somebody else wrote the file.
    parameters: int = _optional()
    at_chance: bool | None = _optional()
    agreement: float | None = _optional()
    seconds: float | None = _optional()
    epochs: int | None = _optional()
    verification: dict | None = _optional()
    train_accuracy: float | None = _optional()
    balanced_accuracy: float | None = _optional()
    per_class_accuracy: dict | None = _optional()
    confusion_matrix: list[list[int]] | None = _optional()
    mean_average_precision: float | None = _optional()
    macro_f1: float | None = _optional()
    binary_accuracy: float | None = _optional()
    per_class: dict | None = _optional()
    outputs: dict | None = _optional()
    image_shape: list[int] | None = _optional()
    selected_epoch: int | None = _optional()

    def without_classes(self):
        """Returns the same without what is said of single classes."""
        named = ("balanced_accuracy", "per_class_accuracy", "confusion_matrix", "per_class")
        return dataclasses.replace(self, **dict.fromkeys(named))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudentResult(ModelResult):
    """Measurements of a student.

    Attributes:
        epochs_to_baseline: the first epoch, from 1, whose held-out accuracy is that of the student alone on the test
            images, or more; None where there is none, or no student alone.
        gained: number of test images that it names right and the student alone wrong; left out where that is not known.
        lost: likewise, the other way round.
    """

    epochs_to_baseline: int | None = _field(default=None)
    gained: int | None = _optional()
    lost: int | None = _optional()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationResult(_Result):
    """Measurements of a student and of the teacher that learned with it.

    Attributes:
        validation_accuracy: the student's on the images held out for choosing, 0..1; None without such images.
    """

    teacher: ModelResult = _field(of=ModelResult)
    student: StudentResult = _field(of=StudentResult)
    validation_accuracy: float | None = _field(default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult(_Result):
    """Duration and speed of the training of the run's last model.

    Attributes:
        seconds: of all epochs, validation included.
        images_per_second: of a middling epoch, without validation; None where all epochs were too short to tell.
    """

    seconds: float = _field()
    images_per_second: int | None = _field(default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCounts(_Result):
    """The images that a run read, and what it did not read.

    Attributes:
        train: number of training images of each class, by its name; likewise `validation`, `test` and `open_set`, of
            which those are left out that the run does not have.
        skipped: of a folder, number of files and folders that were not read, by the reason; None for none.
        bad: of a folder, the files that `skip_bad_images` left out, each with the reason; None for none.
    """

    train: dict = _field()
    validation: dict | None = _optional()
    test: dict = _field()
    open_set: dict | None = _optional()
    skipped: dict | None = _optional()
    bad: list[str] | None = _optional()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results(_Result):
    """The content of a run's `results.json`.

    Attributes:
        version: number of this schema.
        method: name of the method, or the listed losses with their numbers; `"teacher"` where a teacher was trained.
        dataset: name of the data set.
        classes: names of the chosen classes, in the order of their labels; None for all.
        task: `"multi_label"` where images may have several classes; left out where each has one.
        seed: the run's.
        epochs: those planned for the student, or the teacher where a teacher was trained.
        test_samples: number of test images.
        images: number of images of each class, and what was not read; None where an earlier version wrote the file.
        teacher: the teacher, or the ensemble of several; None for a method without.
        baseline: the student alone; None where none was trained.
        student: the student; None where a teacher was trained.
        train: of the last training: the student's, or the teacher's where a teacher was trained.
        versions: of Python, packages and machine.
        teachers: each teacher of an ensemble.
        latency_ms: dict from `"teacher"` and `"student"` to the milliseconds that a call with one image took, the
            median of some, in TensorFlow with all threads of the run. For people: no result depends on it.
        generations: each student with an online teacher, in turn.
        generation: number, from 1, of the generation whose models the run exports.
        flags: lines of the flagfile that runs the same again.
    """

    version: int = _field(default=VERSION)
    method: str = _field()
    dataset: str = _field()
    classes: list[str] | None = _field(default=None)
    task: str | None = _optional()
    seed: int = _field()
    epochs: int = _field()
    test_samples: int = _field()
    images: ImageCounts | None = _optional(of=ImageCounts)
    teacher: ModelResult | None = _field(of=ModelResult, default=None)
    baseline: ModelResult | None = _field(of=ModelResult, default=None)
    student: StudentResult | None = _field(of=StudentResult, default=None)
    train: TrainingResult | None = _field(of=TrainingResult, default=None)
    versions: dict | None = _field(default=None)
    teachers: list[ModelResult] | None = _optional(of=ModelResult)
    latency_ms: dict[str, float] | None = _optional()
    generations: list[GenerationResult] | None = _optional(of=GenerationResult)
    generation: int | None = _optional()
    flags: tuple[str, ...] = _field(default=())

    @classmethod
    def from_dict(cls, values):
        """Returns the results that a file's plain data describe, of this version of the schema or an earlier one.

        Raises:
            ValueError: results of a later version; a field that must be there is not; numbers that no run measures.
        """
        results = super().from_dict(upgrade_results(values))
        student = results.student
        models = [model for model in (results.teacher, results.baseline, student) if model]
        for accuracy in (model.test_accuracy for model in models if model.test_accuracy is not None):
            if not 0 <= accuracy <= 1:
                raise ValueError(f"`test_accuracy` must be a share, 0..1. Received: test_accuracy={accuracy}")
        counts = [count for count in (student and student.gained, student and student.lost) if count is not None]
        if min(counts, default=0) < 0 or sum(counts) > results.test_samples:
            raise ValueError(
                "`gained` and `lost` must be numbers of test images. Received: "
                f"gained={student.gained}, lost={student.lost}, test_samples={results.test_samples}"
            )
        return results

    def count_epochs(self, student):
        """Returns the epochs that the student, or the student alone, was trained for."""
        # A file of an earlier version does not say: nothing could end a training before what was planned.
        return self.epochs if student.epochs is None else student.epochs


def read_results(path):
    """Returns the `Results` of a file, of any version up to this one; None where there is no file.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    values = read_json(path)
    try:
        return None if values is None else Results.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def upgrade_results(values):
    """Returns a file's plain data as this version of the schema would have them.

    Raises:
        ValueError: data of a later version, or of none that there is.
    """
    version = values.get("version", 1)
    # True and 1.0 equal 1, and are no versions.
    if type(version) is not int or version not in range(1, VERSION + 1):
        raise ValueError(
            f"Results must be of version {VERSION} of their schema, or of an earlier one. Received: "
            f"version={version!r}. If a later keras_tkd wrote them, update this one to read them"
        )
    # Version 1 said no version; its fields are those of version 2.
    return {"version": VERSION, **{name: value for name, value in values.items() if name != "version"}}


def check_kinds(result_class, values):
    """Raises `ValueError` for a value of plain data that is not of the kind that its field's annotation says."""
    for name, kind in typing.get_type_hints(result_class).items():
        if name in values and not _is_of(values[name], kind):
            rule = f"`{name}` must be of the kind that a run writes, which is {kind}"
            raise ValueError(f"{rule}. Received: {name}={reprlib.repr(values[name])}")


def _is_of(value, kind):
    inside = typing.get_args(kind)
    if typing.get_origin(kind) is types.UnionType:
        return any(_is_of(value, one) for one in inside)
    if typing.get_origin(kind) is dict:
        return isinstance(value, dict) and all(_is_of(item, inside[1]) for item in value.values())
    if typing.get_origin(kind) in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_is_of(item, inside[0]) for item in value)
    if kind in (int, float):
        number = numbers.Integral if kind is int else numbers.Real
        return isinstance(value, number) and not isinstance(value, bool)
    # A result is an object in the file; its own fields are looked at when it is made.
    return isinstance(value, dict if dataclasses.is_dataclass(kind) else kind)


def _to_plain(value):
    if isinstance(value, _Result):
        return value.to_dict()
    return [_to_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _from_plain(value, of):
    if of is None or value is None:
        return value
    return [of.from_dict(item) for item in value] if isinstance(value, list) else of.from_dict(value)
