"""A teacher of which a run is given the outputs alone, in a file: read, checked with the images, ready as a cache."""

import dataclasses

import numpy as np

from keras_tkd import data
from keras_tkd.runs.teacher_files import find_classes
from keras_tkd.teacher_cache.cache import TeacherCache
from keras_tkd.teacher_cache.outputs_file import PARTS, OutputsFile
from keras_tkd.teachers.probabilities import SMALLEST_PROBABILITY
from keras_tkd.utils.files import hash_file

__all__ = ["GivenOutputs", "load_teacher_outputs", "open_outputs"]

_PAGE = "docs/teacher_outputs.md"


@dataclasses.dataclass(frozen=True)
class GivenOutputs:
    """A teacher's outputs for the images of a run.

    Attributes:
        caches: `TeacherCache` of the training images, `"train"`, and of those held out, `"held_out"`.
        test_logits: `(samples, classes)` for the test images; None where the file has none.
        source: what results say of where they came from: file, its SHA-256, what it holds.
    """

    caches: dict[str, TeacherCache]
    test_logits: np.ndarray | None
    source: dict

    @property
    def fingerprint(self):
        """Hash of the file."""
        return self.source["sha256"]

    @property
    def shapes(self):
        """Shapes of the outputs in a batch by name."""
        return self.caches["train"].shapes

    def predict_classes(self):
        """Returns the classes that the teacher names for the training images, `(samples,)`."""
        return self.caches["train"].outputs["logits"][0].argmax(-1)


def open_outputs(config):
    """Opens the file of `teacher_outputs`, of which the headers are read; None where a run is given none."""
    return OutputsFile(config.teacher_outputs, "teacher_outputs") if config.teacher_outputs else None


def load_teacher_outputs(file, config, splits, layers):
    """Reads the outputs that a run needs.

    Args:
        file: the `OutputsFile`.
        config: resolved `DistillConfig`.
        splits: the run's `Splits`, for whose images the outputs are.
        layers: names of the outputs that the losses read.

    Returns:
        `GivenOutputs`.

    Raises:
        ValueError: outputs that the file lacks, or that are not for these images.
    """
    features = [layer for layer in layers if layer != "logits"]
    # What training is measured on: images out of the training set's own, or those for testing.
    held_out = "validation" if splits.validation_images is not None else "test"
    arrays = _read_arrays(file, splits, features, held_out)
    views = _check_views(file, config, splits)
    kind = file.read_value("kind")
    columns = {part: arrays[part].shape[-1:] for part in PARTS if part in arrays}
    if len(set(columns.values())) > 1:
        raise ValueError(f"`teacher_outputs` must have a column for each class. Received: {columns} in {file.path}")
    classes = find_classes(arrays["train"].shape[-1], file.path, config, splits)

    def make_cache(part, rows_of, **shown):
        logits, ids = arrays[rows_of], arrays.get(f"{rows_of}_ids")
        # Without ids, rows are those of all that was loaded, in that order.
        loaded = len(splits.loaded[rows_of])
        if ids is None and logits.shape[-2] != loaded:
            raise ValueError(
                f"`teacher_outputs` must have a row for each of the {loaded:,} images of the data set's split "
                f"'{rows_of}', or ids of its rows, '{rows_of}_ids'. Received: {file.path} with '{rows_of}' of shape "
                f"{logits.shape}"
            )
        sample_ids = splits.positions[part] if ids is None else splits.get_ids(part)
        return TeacherCache.from_arrays(
            logits,
            getattr(splits, f"{part}_labels"),
            features={layer: arrays[f"{rows_of}/{layer}"] for layer in features},
            kind=kind,
            classes=classes,
            ids=np.arange(loaded) if ids is None else ids,
            sample_ids=sample_ids,
            name=f"{rows_of} of {file.path}",
            **shown,
        )

    shown = {"augment": data.make_augmentation(config.augmentation), "seed": config.seed} if views else {}
    caches = {"train": make_cache("train", "train", **shown)}
    caches["held_out"] = make_cache(held_out, "train" if held_out == "validation" else "test")
    test_logits = None
    if "test" in arrays:
        measured = caches["held_out"] if held_out == "test" else make_cache("test", "test")
        test_logits = measured.outputs["logits"][0]
    given_as = caches["train"].made_from["teacher"].split()[-1]
    source = {
        "file": str(file.path),
        "sha256": hash_file(file.path),
        "given_as": given_as,
        "views": caches["train"].views,
        "layers": features,
    }
    taken = f"logarithm is taken (0 counts as {SMALLEST_PROBABILITY:g})"
    if splits.multi_label:
        taken = f"logit is taken (0 and 1 count as {SMALLEST_PROBABILITY:g} and 1 minus that)"
    said = f", whose {taken}" if given_as == "probabilities" else ""
    print(f"Teacher: the {given_as} in {file.path}{said}. No teacher is run", flush=True)
    return GivenOutputs(caches, test_logits, source)


def _read_arrays(file, splits, features, held_out):
    """Reads what is needed of a file, as a dict by the names in an archive."""
    if file.single:
        if features:
            file.check_has([f"train/{layer}" for layer in features], "outputs of layers that the losses read")
        return _divide(file.read("train"), file.path, splits)
    parts = ["train"] + ["test"] * (held_out == "test" or "test" in file.shapes)
    file.check_has(
        parts,
        "the teacher's outputs for these images (with --validation_fraction, 'test' may be missing: training is then "
        "measured on some of the training images)",
    )
    # Of test images that nothing but the teacher's accuracy is measured on, no layer is read.
    wanted = parts[: 2 if held_out == "test" else 1]
    file.check_has(
        [f"{part}/{layer}" for part in wanted for layer in features],
        "outputs of the teacher's layers that the losses read: add them, name others with --teacher_layers, or choose "
        "a method that reads logits alone (--method=kd)",
    )
    names = [*parts, *(f"{part}/{layer}" for part in parts for layer in features), *(f"{part}_ids" for part in parts)]
    return {name: file.read(name) for name in names if name in file.shapes}


def _divide(array, path, splits):
    """Divides a single array into rows of the training images and, if there are more, of the test images after them."""
    train, test = (len(splits.loaded[part]) for part in PARTS)
    if array.ndim != 2 or len(array) not in (train, train + test):
        raise ValueError(
            f"`teacher_outputs` in a .npy file must be of shape (samples, classes), with rows for the {train:,} "
            f"training images and, after them, the {test:,} test images of the data set. Received: {path} of shape "
            f"{array.shape}. Views, ids and layers go into a .npz file"
        )
    return {"train": array[:train]} | ({"test": array[train:]} if len(array) > train else {})


def _check_views(file, config, splits):
    """Returns whether the outputs are for views; raises `ValueError` for views that are not those of the run."""
    shape = file.shapes["train"]
    if config.augmentation == "none":
        if len(shape) > 2 and shape[0] > 1:
            raise ValueError(
                "`teacher_outputs` of several views are for training with augmentation. Received: 'train' of shape "
                f"{shape}, augmentation='none'. Pass the --augmentation that made the views, and "
                f"--teacher_views={shape[0]}"
            )
        return False
    rule = f"With `augmentation`, `teacher_outputs` must be for the views that the student will see ({_PAGE})"
    if len(shape) != 3 or shape[0] != config.teacher_views:
        raise ValueError(
            f"{rule}: 'train' of shape (views, samples, classes). Received: shape {shape}, "
            f"teacher_views={config.teacher_views}. Without views, pass --augmentation=none"
        )
    there = {name: file.read_value(name) for name in ("augmentation", "seed")}
    here = {name: getattr(config, name) for name in there}
    if there != here:
        raise ValueError(f"{rule}, and say of which they are. Received: {there} in {file.path}, {here} in the run")
    # A view is drawn from the seed and from the place of an image among those that are trained on.
    if len(splits.train_labels) < len(splits.loaded["train"]):
        raise ValueError(
            f"{rule}, which are drawn for the whole training set. Received: {len(splits.train_labels):,} of its "
            f"{len(splits.loaded['train']):,} images. Leave out --validation_fraction, --train_fraction, --classes and "
            "--open_set_fraction, or pass --augmentation=none"
        )
    return True
