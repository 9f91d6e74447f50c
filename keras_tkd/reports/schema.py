"""The schema of `results.json`. No TensorFlow here.

The fields stand in the file in the order in which they are written below. A field that does not concern a run is left
out of the file (`optional`); one that could have a value and has none is null.
"""

import dataclasses

from keras_tkd.reports.fields import Result, field, optional
from keras_tkd.utils.files import read_json

__all__ = [
    "GenerationResult",
    "ImageCounts",
    "ModelResult",
    "Results",
    "StudentResult",
    "TrainingResult",
    "VERSION",
    "read_results",
    "upgrade_results",
]

# Raise it when a field changes its meaning or its name, or goes; and have `upgrade_results` read the old ones.
VERSION = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelResult(Result):
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

    test_accuracy: float | None = optional()
    # Where it is said, it is a number: null says that somebody else wrote the file.
    parameters: int = optional()
    at_chance: bool | None = optional()
    agreement: float | None = optional()
    seconds: float | None = optional()
    epochs: int | None = optional()
    verification: dict | None = optional()
    train_accuracy: float | None = optional()
    balanced_accuracy: float | None = optional()
    per_class_accuracy: dict | None = optional()
    confusion_matrix: list[list[int]] | None = optional()
    mean_average_precision: float | None = optional()
    macro_f1: float | None = optional()
    binary_accuracy: float | None = optional()
    per_class: dict | None = optional()
    outputs: dict | None = optional()
    image_shape: list[int] | None = optional()
    selected_epoch: int | None = optional()

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

    epochs_to_baseline: int | None = field(default=None)
    gained: int | None = optional()
    lost: int | None = optional()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationResult(Result):
    """Measurements of a student and of the teacher that learned with it.

    Attributes:
        validation_accuracy: the student's on the images held out for choosing, 0..1; None without such images.
    """

    teacher: ModelResult = field(of=ModelResult)
    student: StudentResult = field(of=StudentResult)
    validation_accuracy: float | None = field(default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult(Result):
    """Duration and speed of the training of the run's last model.

    Attributes:
        seconds: of all epochs, validation included.
        images_per_second: of a middling epoch, without validation; None where all epochs were too short to tell.
    """

    seconds: float = field()
    images_per_second: int | None = field(default=None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageCounts(Result):
    """The images that a run read, and what it did not read.

    Attributes:
        train: number of training images of each class, by its name; likewise `validation`, `test` and `open_set`, of
            which those are left out that the run does not have.
        skipped: of a folder, number of files and folders that were not read, by the reason; None for none.
        bad: of a folder, the files that `skip_bad_images` left out, each with the reason; None for none.
    """

    train: dict = field()
    validation: dict | None = optional()
    test: dict = field()
    open_set: dict | None = optional()
    skipped: dict | None = optional()
    bad: list[str] | None = optional()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results(Result):
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

    version: int = field(default=VERSION)
    method: str = field()
    dataset: str = field()
    classes: list[str] | None = field(default=None)
    task: str | None = optional()
    seed: int = field()
    epochs: int = field()
    test_samples: int = field()
    images: ImageCounts | None = optional(of=ImageCounts)
    teacher: ModelResult | None = field(of=ModelResult, default=None)
    baseline: ModelResult | None = field(of=ModelResult, default=None)
    student: StudentResult | None = field(of=StudentResult, default=None)
    train: TrainingResult | None = field(of=TrainingResult, default=None)
    versions: dict | None = field(default=None)
    teachers: list[ModelResult] | None = optional(of=ModelResult)
    latency_ms: dict[str, float] | None = optional()
    generations: list[GenerationResult] | None = optional(of=GenerationResult)
    generation: int | None = optional()
    flags: tuple[str, ...] = field(default=())

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
