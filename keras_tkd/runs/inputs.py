"""Inputs of a run: images, student, teacher, another run's baseline."""

import dataclasses
import hashlib
import importlib
import json
import pathlib
import sys

import keras
import numpy as np

from keras_tkd import data, models, teachers
from keras_tkd.config.fields import get_default
from keras_tkd.data.datasets import find_loader
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.methods.registry import as_layer_argument
from keras_tkd.reports.schema import ModelResult
from keras_tkd.reports.tables import format_image_counts
from keras_tkd.runs.baseline import find_baseline_file, read_baseline
from keras_tkd.runs.checks import check_embeddings, check_together, check_unseen
from keras_tkd.runs.workdir import TEACHER
from keras_tkd.teacher_cache.fingerprints import hash_array, hash_weights
from keras_tkd.teachers.ensemble import TeacherEnsemble
from keras_tkd.utils.saved_models import SAVED_MODEL, is_saved_model

__all__ = [
    "Inputs",
    "build_model",
    "choose_classes",
    "find_teacher_file",
    "hash_data",
    "load_distillation_inputs",
    "load_evaluation_inputs",
    "load_splits",
    "load_teacher_inputs",
]


@dataclasses.dataclass
class Inputs:
    """Inputs of a run, loaded and checked to go together.

    Attributes:
        splits: the images, a `data.Splits`.
        student: the untrained student, or the model that `evaluate` measures; None where there is none.
        teacher: the trained teacher, or the untrained one where the run is to train it; None where there is none, and
            once it was taken.
        baseline: `ModelResult` of the student alone, out of another run; None where this run is to train it.
        anchor: the student alone of that run, where it is an online teacher's anchor.
        data: hashes of the images and labels by what they are for, see `hash_data`; None where nothing is trained.
        fingerprint: hash of the weights of a teacher that was trained elsewhere; None where there is none.
    """

    splits: data.Splits
    student: keras.Model | None = None
    teacher: keras.Model | None = None
    baseline: ModelResult | None = None
    anchor: keras.Model | None = None
    fingerprint: str | None = None
    data: dict[str, str] | None = None

    def take_teacher(self):
        """Returns the teacher and forgets it: a large model, which is freed as soon as a run no longer needs it."""
        teacher, self.teacher = self.teacher, None
        return teacher

    def make_losses(self, config):
        """Makes what a `Distiller` takes of a resolved configuration: losses, their weights, that of the labels' loss.

        Each call makes new losses: some have layers, which belong to one training.
        """
        in_batch = {"miner": config.miner, "negative_classes": config.negative_classes}
        losses, weights = make_losses(
            config.recipe,
            distillation_loss_weights=config.distillation_loss_weights,
            teacher_layers=as_layer_argument(config.teacher_layers),
            student_layers=as_layer_argument(config.student_layers),
            seed=config.seed,
            labels=self.splits.train_labels,
            temperature=config.temperature,
            margin=config.margin,
            # Drawn negatives are in the batches already: the pipeline chose them by class.
            **(in_batch if config.negatives == "in_batch" else {}),
        )
        return losses, weights, config.student_loss_weight


def load_teacher_inputs(config):
    """Loads the `Inputs` of a run that trains a teacher; everything that can be refused is refused here."""
    _import_custom_objects(config)
    splits = load_splits(config)
    teacher = build_model(config.teacher_model, splits, config.seed, "Teacher")
    check_embeddings(teacher, config.embedding_layer, splits)
    return Inputs(splits, teacher=teacher, data=hash_data(splits))


def load_distillation_inputs(config):
    """Loads the `Inputs` of a run that distils; everything that can be refused is refused here.

    Args:
        config: resolved `DistillConfig`.

    Raises:
        ValueError: another run's baseline of another budget; images, models and losses that do not go together.
        FileNotFoundError: a file or a data set that is not there.
    """
    _import_custom_objects(config)
    # Cheap checks come first.
    baseline = read_baseline(config)
    anchor = find_baseline_file(config) if baseline and config.anchor == "trained" else None
    splits = load_splits(config)
    student = build_model(config.student_model, splits, config.seed, "Student")
    inputs = Inputs(splits, student, baseline=baseline, data=hash_data(splits))
    if config.has_teacher and config.teacher_path:
        inputs.teacher = _load_teacher(config, splits)
        inputs.fingerprint = hash_weights(inputs.teacher)
    elif config.has_teacher:
        inputs.teacher = build_model(config.teacher_model, splits, config.seed, "Teacher")
    # Whatever is read from files is read before the run begins: a file that cannot be read leaves no folder behind.
    if anchor:
        inputs.anchor = build_model(anchor, splits, config.seed, "Anchor")
    check_together(config, inputs)
    check_embeddings(student, config.embedding_layer, splits)
    if config.has_teacher:
        check_embeddings(inputs.teacher, config.teacher.embedding_layer, splits)
    return inputs


def load_evaluation_inputs(config):
    """Loads the `Inputs` of `evaluate`: its model as `student`; everything that can be refused is refused here."""
    # A name would be that of a model with random weights, which nobody wants to be measured.
    if not config.model_path.endswith(".keras"):
        raise ValueError(f"`model_path` must be a .keras file. Received: model_path={config.model_path!r}")
    _import_custom_objects(config)
    splits = _load_data(config)
    # The results go to the standard output, and nothing else.
    if splits.skipped or splits.bad_images:
        print(_describe_images(splits), file=sys.stderr)
    model = models.build(config.model_path, splits.image_shape, splits.num_classes or None, "model_path")
    check_unseen(config.model_path, splits)
    check_embeddings(model, config.embedding_layer, splits)
    inputs = Inputs(splits, model)
    if config.teacher_path:
        inputs.teacher = _load_teacher(config, splits)
        check_embeddings(inputs.teacher, config.teacher_embedding_layer or config.embedding_layer, splits)
    return inputs


def _import_custom_objects(config):
    """Imports the modules that register a user's own classes; their code runs.

    Raises:
        ValueError: a module that is not found, or fails.
    """
    for name in config.custom_objects or ():
        try:
            importlib.import_module(name)
        except Exception as error:  # a user's code may raise anything
            raise ValueError(
                f"`custom_objects` must be Python modules that can be imported. Received: {name!r}, of which the "
                f"import says: {type(error).__name__}: {error}. Python looks in PYTHONPATH and among installed packages"
            ) from error


def load_splits(config):
    """Loads the data of a run that trains: without the images held out for choosing, or of a small training set."""
    splits = _load_data(config).with_validation(config.validation_fraction, config.split_seed)
    splits = splits.with_train_fraction(config.train_fraction, config.split_seed)
    print(_describe_images(splits))
    return splits


def build_model(name, splits, seed, role):
    """Builds a model for the data by name or file, returning logits; its starting weights depend on the seed alone."""
    # Each model anew, so that its weights do not depend on which others were built before it.
    keras.utils.set_random_seed(seed)
    # The anchor is the student alone of the run that `baseline` names.
    argument = "baseline" if role == "Anchor" else f"{role.lower()}_model"
    return _without_softmax(models.build(name, splits.image_shape, splits.num_classes or None, argument), name, role)


def choose_classes(teacher, path, config, splits):
    """Returns `teacher` with the logits of the data's classes, in their order.

    Which of its classes they are, `teacher_classes` says. Without it they are those of the same place, if there are as
    many, or of the same name, if the data are some classes of a data set with as many classes as the teacher.
    """
    outputs = teacher.output_shape[-1]
    names = splits.all_class_names or splits.class_names
    same_data = len(names) == outputs
    if config.teacher_classes:
        known = names if same_data else [str(index) for index in range(outputs)]
        chosen = data.class_indices(config.teacher_classes, known, "teacher_classes")
        if len(chosen) != splits.num_classes:
            raise ValueError(
                "`teacher_classes` must be one class of the teacher for each of the "
                f"{splits.num_classes} classes of the data, {', '.join(splits.class_names)}. "
                f"Received: teacher_classes={config.teacher_classes}"
            )
    elif splits.num_classes in (0, outputs):
        return teacher
    elif same_data:
        chosen = data.class_indices(splits.class_names, names)
    else:
        raise ValueError(
            f"The teacher must know the classes of the data. Received: {path} with {outputs} outputs, {config.dataset} "
            f"with {splits.num_classes} classes. "
            + (
                "Say which of the teacher's they are, by index: --teacher_classes"
                if outputs > splits.num_classes
                else "Leave out those it does not know: --classes"
            )
        )
    print(f"Of the teacher's {outputs} classes, these are the data's: {', '.join(map(str, chosen))}")
    return teachers.with_classes(teacher, chosen)


def hash_data(splits):
    """Returns hashes of a run's images and labels, by what they are for, such as `"images of train"`.

    Images in memory count by their pixels, which takes a second for 600 MB. Of those that are left on disk, and belong
    to a prepared data set with a version, shape and labels count.
    """
    hashes = {"names of the classes": hashlib.sha256(json.dumps(splits.class_names).encode()).hexdigest()}
    parts = {
        "train": (splits.train_images, splits.train_labels),
        "test": (splits.test_images, splits.test_labels),
        "validation": (splits.validation_images, splits.validation_labels),
        "open set": (splits.open_set_images, splits.open_set_identities),
    }
    for part, (images, labels) in parts.items():
        if images is not None:
            hashes[f"labels of {part}"] = hash_array(np.asarray(labels))
            pixels = images if isinstance(images, np.ndarray) else np.array(images.shape)
            hashes[f"images of {part}"] = hash_array(pixels)
    return hashes


def find_teacher_file(path):
    """Returns the path of a teacher's file: the file itself, a SavedModel's, or the teacher in the folder of a run."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return path
    return path / (SAVED_MODEL if is_saved_model(path) else TEACHER)


def _load_data(config):
    _check_data_are_read(config)
    splits = data.load(
        config.dataset,
        config.data_dir,
        image_size=config.image_size,
        test_fraction=config.test_fraction,
        split_seed=config.split_seed,
        open_set_fraction=config.open_set_fraction,
        shuffle_window=config.shuffle_window,
        max_pixels=config.max_pixels,
        nested=config.nested,
        labels=config.labels,
        skip_bad_images=config.skip_bad_images,
        progress=sys.stdout.isatty(),
    )
    return splits.with_classes(config.classes) if config.classes else splits


def _describe_images(splits):
    return format_image_counts(splits.name, splits.count_images(), splits.skipped, splits.bad_images)


def _check_data_are_read(config):
    """Raises `ValueError` for a setting of the data that the kind of data set does not read."""
    reads = find_loader(config.dataset, config.labels).reads
    for name, what_for in (
        ("data_dir", "for data sets of tensorflow-datasets, and this is a folder of images"),
        ("test_fraction", "for images that are not divided yet, and this data set has test images of its own"),
    ):
        value = getattr(config, name)
        if name not in reads and value != get_default(type(config), name):
            raise ValueError(
                f"`{name}` is {what_for}. Received: {name}={value!r}, dataset={config.dataset!r}. Leave it out"
            )


def _without_softmax(model, name, role):
    # Temperatures and margins are meant for logits; probabilities would be distilled without an error, and badly.
    if teachers.ends_in_softmax(model):
        print(f"{role} {name} ends in a softmax: it is taken off, distillation works on logits")
        model = teachers.logits_model(model)
    return model


def _load_teacher(config, splits):
    """The model of `teacher_path` or the ensemble of several, each behind the preprocessing that it expects."""
    _check_different(config.teacher_path)
    scalings = config.teacher_preprocessing
    scalings = scalings if len(scalings) > 1 else scalings * len(config.teacher_path)
    each = [
        _load_one_teacher(path, mode, config, splits) for path, mode in zip(config.teacher_path, scalings, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    return TeacherEnsemble(each, average=config.teacher_average, teacher_weights=config.teacher_weights)


def _check_different(paths):
    """Raises `ValueError` for a file that is given twice, by two spellings or through a link."""
    seen = {}
    for path in paths:
        file = find_teacher_file(path)
        other = seen.setdefault((file.stat().st_dev, file.stat().st_ino), path) if file.is_file() else path
        if other != path:
            raise ValueError(
                "`teacher_path` must name different teachers: one twice would count double, which `teacher_weights` is "
                f"for. Received: {other} and {path}, which are the same file"
            )


def _load_one_teacher(path, preprocessing, config, splits):
    """The model of a file or a folder, with the data's classes."""
    given, path = pathlib.Path(path), find_teacher_file(path)
    if given.is_dir() and not path.exists():
        raise ValueError(
            "`teacher_path` must be a file of Keras's, a folder with a SavedModel, or the folder of a run that has "
            f"trained its teacher. Received: teacher_path={str(given)!r}, in which there is neither {SAVED_MODEL} nor "
            f"{TEACHER}"
        )
    check_unseen(path, splits)
    loaded = models.load_any(given if is_saved_model(given) else path, "teacher_path", config.trust_teacher_code)

    def prepare(model):
        model = models.select_output(model, config.teacher_output, path, "teacher_output")
        # A teacher may take any image size (images are resized) and know more classes (the data's are chosen).
        shape = None, None, splits.image_shape[-1]
        model = _without_softmax(models.check_classifier(model, shape, None, path, "teacher_path"), path, "Teacher")
        return teachers.with_preprocessing(choose_classes(model, path, config, splits), preprocessing)

    if not isinstance(loaded, TeacherEnsemble):
        return prepare(loaded)
    if len(config.teacher_path) > 1:
        raise ValueError(
            "An ensemble is a teacher of its own, and is given alone. Received: "
            f"teacher_path={','.join(config.teacher_path)}, of which {path} is an ensemble of {len(loaded.teachers)}. "
            "Name the files of its teachers instead"
        )
    each = [prepare(model) for model in loaded.teachers]
    return TeacherEnsemble(each, average=loaded.average, teacher_weights=loaded.teacher_weights)
