"""Exports a model, on the data set that it was trained on, and measures what was written."""

import dataclasses
import importlib.metadata
import pathlib

import numpy as np

from keras_tkd import data, evaluation
from keras_tkd.config import DataConfig, EvaluateConfig, PretrainedTeachersConfig
from keras_tkd.config.fields import get_default, list_deciding
from keras_tkd.config.flagfile import read_flag_lines, read_flags
from keras_tkd.data.datasets import check_outside
from keras_tkd.data.splits import take_rows
from keras_tkd.export.formats import FORMATS, RECORD, check_packages, check_replaceable, export_model, open_model
from keras_tkd.export.measurement import measure
from keras_tkd.export.runtimes import count_tensorflow_threads
from keras_tkd.reports.exports import ExportResults, MeasuredModel
from keras_tkd.runs.checks import check_finite
from keras_tkd.runs.finished import read_finished
from keras_tkd.runs.inputs import load_evaluation_inputs
from keras_tkd.runs.layout import FLAGFILE
from keras_tkd.runs.results import describe_versions
from keras_tkd.utils.files import write_json
from keras_tkd.utils.keras_graph import flatten_layers
from keras_tkd.utils.precision import set_precision
from keras_tkd.utils.resizing import resize_for_model

__all__ = ["export_source"]

_SHARED = [field.name for field in dataclasses.fields(PretrainedTeachersConfig)]
_OF_TEACHERS = sorted(set(_SHARED) - {field.name for field in dataclasses.fields(DataConfig)})
_CALIBRATION_IMAGES = 200  # if their number is not given
_OF_ANY_TEACHER = ("teacher_embedding_layer", "teacher_image_size")  # of one, too, that the run itself trained


def export_source(config):
    """Exports what `config.source` names and measures it; returns the `ExportResults`, which are written too."""
    # What costs nothing to find out, before images and models are loaded.
    check_packages(config.formats)
    check_replaceable(config.output, config.existing)
    measured = _find_model(config)
    check_outside(measured.dataset, measured.labels, config.output, "output")
    inputs = load_evaluation_inputs(measured)
    splits, student = inputs.splits, inputs.student
    if not splits.num_classes:
        raise ValueError(
            "What is exported is measured by its accuracy on classes that it knows. Received: open_set_fraction="
            f"{measured.open_set_fraction}, which leaves none. Give less than 1"
        )
    # Files of others may compute in half precision; weights are float32 in any case.
    if any(layer.compute_dtype in ("float16", "bfloat16") for layer in flatten_layers(student)):
        set_precision(student, "float32")
    outputs = evaluation.logits(student, splits.test_images)
    check_finite(student, outputs)
    calibrated = "litert_int8" in config.formats
    calibration_images = _choose_calibration_images(config, splits) if calibrated else None
    exported = export_model(
        student,
        config.output,
        config.formats,
        class_names=splits.class_names,
        image_shape=splits.image_shape,
        preprocessing=config.preprocessing,
        calibration_images=calibration_images,
        int8_interface=config.int8_interface,
        existing=config.existing,
    )
    measurer = _Measurer(splits, outputs)
    packages = [package for name in config.formats for package in FORMATS[name].packages]
    results = ExportResults(
        source=measured.model_path,
        dataset=measured.dataset,
        test_samples=len(splits.test_labels),
        classes=list(splits.class_names),
        task=measured.task if splits.multi_label else None,
        image_shape=list(splits.image_shape),
        preprocessing=config.preprocessing,
        scaling=exported.preprocessing,
        training_layers=exported.training_layers,
        calibration={"images": len(calibration_images), "seed": config.calibration_seed} if calibrated else None,
        max_drop=config.max_drop,
        student=measurer.measure_in_keras("student", student, [measured.model_path]),
        teacher=inputs.teacher and measurer.measure_in_keras("teacher", inputs.teacher, measured.teacher_path),
        files=[measurer.measure_file(name, path, exported.scaling) for name, path in exported.paths.items()],
        # Accuracies and durations are those of the runtimes.
        versions=describe_versions() | {name: importlib.metadata.version(name) for name in packages},
    )
    write_json(pathlib.Path(config.output) / RECORD, results.to_dict())
    return results


class _Measurer:
    """Measures models on the same images, against the outputs of the same student."""

    def __init__(self, splits, outputs):
        self._splits = splits
        self._outputs = outputs
        measure_accuracy = evaluation.exact_match if splits.multi_label else evaluation.accuracy
        self._accuracy = measure_accuracy(outputs, splits.test_labels)

    def measure_in_keras(self, title, model, paths):
        """Measures a model as Keras runs it. `paths` are its files; several of an ensemble."""

        def run(images):
            outputs = model.predict_on_batch(np.asarray(resize_for_model(model, images)))
            return outputs["logits"] if isinstance(outputs, dict) else outputs

        path = str(_find_file(paths[0])) if len(paths) == 1 else None
        sizes = [_count_bytes(_find_file(each)) for each in paths]
        described = self._measure(title, run, count_tensorflow_threads(), path, sum(sizes))
        return described if title == "student" else dataclasses.replace(described, largest_difference=None)

    def measure_file(self, name, path, scaling):
        """Measures an exported file in its own runtime."""
        runtime = open_model(path)
        prepare = scaling and scaling.predict_on_batch
        described = self._measure(name, runtime, runtime.threads, path.name, _count_bytes(path), prepare)
        return dataclasses.replace(described, quantization=runtime.quantization)

    def _measure(self, title, run, threads, path, size, prepare=None):
        splits = self._splits.for_teacher if title == "teacher" else self._splits
        measured = measure(run, splits.test_images, splits.test_labels, self._outputs, prepare=prepare)
        return MeasuredModel(
            title=title,
            path=path,
            bytes=size,
            drop=self._accuracy - measured.test_accuracy,
            threads=threads,
            **dataclasses.asdict(measured),
        )


def _find_model(config):
    """Returns the `EvaluateConfig` of the model that is exported: its file, its data set, its teacher."""
    given = {name: getattr(config, name) for name in _SHARED}
    source = pathlib.Path(config.source)
    if not source.exists():
        raise ValueError(
            "`source` must be a .keras file, or the folder of a finished run. Received: "
            f"source={config.source!r}, which is not there"
        )
    if not source.is_dir():
        return EvaluateConfig(model_path=config.source, **given)
    model, recorded = _read_run(source)
    given = {name: value for name, value in given.items() if value != get_default(EvaluateConfig, name)}
    # Where the images are may have changed since; which they are is the run's.
    wrong = [name for name in list_deciding(EvaluateConfig, ("data",)) if name in given]
    if wrong:
        raise ValueError(
            f"The data set of a run's folder is the run's own. Received: source={config.source!r}, "
            f"{wrong[0]}={given[wrong[0]]!r}. Leave it out, or name the .keras file in the folder"
        )
    if "teacher_path" in given:
        recorded = {name: value for name, value in recorded.items() if name not in _OF_TEACHERS}
    return EvaluateConfig(model_path=str(model), **recorded | given)


def _read_run(folder):
    """Returns the model's file in a finished run's folder, and the settings of its data set and its teacher."""
    results = read_finished(folder)
    if results is None:
        raise ValueError(
            f"`source` must be a .keras file, or the folder of a finished run. Received: source={str(folder)!r}, which "
            "holds no results.json. Run the command of that run again: it goes on where it stopped"
        )
    try:
        lines = read_flag_lines(folder / FLAGFILE)
        lines = [line for line in lines if line.removeprefix("--").split("=")[0] in _SHARED]
        recorded = read_flags(EvaluateConfig, "\n".join(lines))
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(
            f"`source` must be a .keras file, or the folder of a run, whose {FLAGFILE} says its data. Received: "
            f"source={str(folder)!r}: {error}. Put that file back, or name the .keras file in the folder"
        ) from error
    of_data = {name: value for name, value in recorded.items() if name not in _OF_TEACHERS}
    own = folder / "teacher.keras"
    if results.student is None:
        # A run that trained a teacher: this is what is exported.
        return own, of_data
    if recorded.pop("teacher_outputs", None):
        print("Of the run's teacher there are outputs alone: it is not measured")
        recorded = of_data
    if own.exists():
        # It is whole: what the flags say of a teacher that it was made of is inside.
        kept = {name: recorded[name] for name in _OF_ANY_TEACHER if name in recorded}
        recorded = of_data | kept | {"teacher_path": (str(own),)}
    gone = [path for path in recorded.get("teacher_path", ()) if not pathlib.Path(path).exists()]
    if gone:
        print(f"The run's teacher is not there any more, and is not measured: {', '.join(gone)}")
        recorded = of_data
    return folder / "student.keras", recorded


def _choose_calibration_images(config, splits):
    """Returns some of the training images, by seed, in the data set's order."""
    available = len(splits.train_labels)
    count = config.calibration_images or min(_CALIBRATION_IMAGES, available)
    if count > available:
        raise ValueError(
            f"`calibration_images` must be training images of the data set. Received: calibration_images="
            f"{count}, and {config.dataset} has {available}"
        )
    generator = np.random.default_rng(config.calibration_seed)
    chosen = np.sort(generator.choice(available, count, replace=False))
    return np.concatenate([*data.iterate_batches(take_rows(splits.train_images, chosen), len(chosen))])


def _find_file(path):
    """Returns a teacher's file, which a run's folder stands for too."""
    path = pathlib.Path(path)
    own = path / "teacher.keras"
    return own if own.exists() else path


def _count_bytes(path):
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
