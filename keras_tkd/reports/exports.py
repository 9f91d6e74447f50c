"""Measurements of exported files: the schema of `export.json`, and a table for people. No TensorFlow here."""

import dataclasses

from keras_tkd.reports.fields import check_kinds
from keras_tkd.reports.tables import align, name_accuracy
from keras_tkd.utils.files import read_json

__all__ = ["EXPORT_VERSION", "ExportResults", "MeasuredModel", "explain_failure", "format_export_table", "read_export"]

# Raise it when a field changes its meaning or its name, or goes.
EXPORT_VERSION = 1

# Of each batch size what is shown.
_LATENCIES = ("batch_size", "median_ms", "p95_ms")
# Accuracies are shares of whole images: what is left of their difference by rounding is no drop.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredModel:
    """Measurements of one model in one runtime.

    Attributes:
        title: the format, `"student"` or `"teacher"`; these two are measured in Keras.
        path: the file, or folder; of an exported one its name in the folder. None of an ensemble.
        bytes: its size.
        test_accuracy: share of the test images whose class it names, 0..1.
        drop: test accuracy of the student in Keras, minus this one.
        agreement: share of the test images for which it names the class that the student in Keras names, 0..1.
        largest_difference: of an output to that of the student in Keras, over all test images and classes; None of the
            teacher, whose outputs are its own.
        threads: threads that compute; 0 is TensorFlow's own choice.
        latency: list of dicts: `batch_size`, `median_ms`, `p95_ms` and the number of `calls` that were measured.
        quantization: of integers that the file takes and returns, `{"input": (scale, zero_point), "output": ...}`:
            `value = scale * (stored - zero_point)`; None where it takes floats.
    """

    title: str
    path: str | None
    bytes: int | None
    test_accuracy: float
    drop: float
    agreement: float
    largest_difference: float | None
    threads: int
    latency: list[dict]
    quantization: dict | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportResults:
    """The content of `export.json`.

    Attributes:
        version: number of this schema.
        source: the model's file.
        dataset: name of the data set whose test images are the measure.
        test_samples: number of these.
        classes: names of the classes, in the order of the outputs.
        task: `"multi_label"` where an image may have several: accuracies are then exact matches; None where it has one.
        image_shape: `(height, width, channels)` of the images.
        preprocessing: `"inside"` or `"outside"`.
        scaling: where it is outside, the steps from pixels 0..255 to what the files take: a list of dicts with the
            class of the Keras layer and its numbers; empty where the files take pixels.
        training_layers: names of the model's layers that act in training alone; the files hold nothing of them.
        calibration: `{"images": N, "seed": S}` of the training images that int8 was calibrated on; None without it.
        max_drop: the largest drop that was allowed; None for any.
        passed: True if no file's drop is larger.
        student: the model in Keras.
        teacher: its teacher in Keras; None where none is known.
        files: the exported ones.
        versions: of Python, packages and machine.
    """

    version: int = EXPORT_VERSION
    source: str
    dataset: str
    test_samples: int
    classes: list[str]
    task: str | None = None
    image_shape: list[int]
    preprocessing: str
    scaling: list[dict]
    training_layers: list[str]
    calibration: dict | None
    max_drop: float | None
    student: MeasuredModel
    teacher: MeasuredModel | None
    files: list[MeasuredModel]
    versions: dict

    @property
    def passed(self):
        """True if no file loses more accuracy than was allowed."""
        return not _list_failures(self)

    def to_dict(self):
        """Returns what the file says, as plain data."""
        return dataclasses.asdict(self) | {"passed": self.passed}


def read_export(path):
    """Returns the `ExportResults` of a file; None where there is none of this version.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    values = read_json(path)
    if values is None or values.get("version") != EXPORT_VERSION:
        return None
    try:
        check_kinds(ExportResults, values)
        models = {name: values[name] and _read_model(values[name]) for name in ("student", "teacher")}
        models["files"] = [_read_model(model) for model in values["files"]]
        return ExportResults(**{name: value for name, value in values.items() if name != "passed"} | models)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: it holds no measurements ({error}). Put it back, or remove it") from error


def _read_model(values):
    check_kinds(MeasuredModel, values)
    numbers = [latency[name] for latency in values["latency"] for name in _LATENCIES]
    if not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError(f"`latency` must hold numbers: {', '.join(_LATENCIES)}")
    return MeasuredModel(**values)


def format_export_table(results):
    """Returns a text table of `ExportResults`: teacher and student in Keras, and each file in its own runtime."""
    sizes = [latency["batch_size"] for latency in results.student.latency]
    header = ["", "size", name_accuracy(results.task), "drop", "agrees with student", "largest difference"]
    rows = [[*header, *(f"ms for {size}" for size in sizes)]]
    for model in filter(None, (results.teacher, results.student, *results.files)):
        is_file = model in results.files
        rows.append(
            [
                model.title if is_file else f"{model.title} (Keras)",
                "-" if model.bytes is None else f"{model.bytes / 1000:,.1f} kB",
                f"{100 * model.test_accuracy:.2f} %",
                f"{100 * model.drop:.2f}" if is_file else "-",
                "-" if model is results.student else f"{100 * model.agreement:.2f} %",
                f"{model.largest_difference:.2g}" if is_file else "-",
                *(f"{latency['median_ms']:.3g} ({latency['p95_ms']:.3g})" for latency in model.latency),
            ]
        )
    threads = {model.threads for model in (results.student, *results.files)}
    by = "one thread" if threads == {1} else f"threads: {', '.join(map(str, sorted(threads)))} (0: all)"
    caption = (
        f"{results.source} on {results.test_samples:,} test images of {results.dataset}; drop in points; milliseconds "
        f"for a batch, by {by}: median (95th percentile)"
    )
    return "\n".join([caption, *align(rows)])


def explain_failure(results):
    """Returns a sentence with the figures of the files that lose more accuracy than allowed; None if there is none."""
    failures = _list_failures(results)
    if not failures:
        return None
    each = ", ".join(f"{model.title} {model.test_accuracy:.4f} (a drop of {model.drop:.4f})" for model in failures)
    return (
        f"A file may lose {results.max_drop} of the {name_accuracy(results.task)} at most, and the model in Keras has "
        f"{results.student.test_accuracy:.4f}. Received: {each}. The files are there, to be looked at; a larger "
        "--max_drop allows them"
    )


def _list_failures(results):
    if results.max_drop is None:
        return []
    return [model for model in results.files if model.drop > results.max_drop + _ROUNDING]
