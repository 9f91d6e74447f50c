"""Trained teachers out of the files that a run is given, with the data's classes and the pixels that they expect."""

import pathlib

import keras

from keras_tkd import data, evaluation, models, teachers
from keras_tkd.runs.checks import check_unseen
from keras_tkd.runs.layout import TEACHER
from keras_tkd.teachers.ensemble import TeacherEnsemble
from keras_tkd.teachers.probabilities import invert_probabilities, is_of_saved_model, with_two_logits
from keras_tkd.utils.probabilities import sum_to_one
from keras_tkd.utils.saved_models import SAVED_MODEL, is_saved_model

__all__ = [
    "check_teacher_files",
    "choose_classes",
    "find_classes",
    "find_teacher_file",
    "load_teacher",
    "without_activation",
]

_IMAGES_TO_TELL_BY = 64  # whether a model gives probabilities


def find_teacher_file(path):
    """Returns the path of a teacher's file: the file itself, a SavedModel's, or the teacher in the folder of a run."""
    path = pathlib.Path(path)
    if not path.is_dir():
        return path
    return path / (SAVED_MODEL if is_saved_model(path) else TEACHER)


def check_teacher_files(paths):
    """Raises `ValueError` for paths that name no files of models, or one twice; nothing is loaded."""
    _check_different(paths)
    for path in paths:
        _check_teacher_file(path)


def load_teacher(config, splits):
    """Loads the model of `teacher_path` or the ensemble of several, each behind the preprocessing that it expects."""
    check_teacher_files(config.teacher_path)
    scalings = config.teacher_preprocessing
    scalings = scalings if len(scalings) > 1 else scalings * len(config.teacher_path)
    each = [
        _load_one_teacher(path, mode, config, splits) for path, mode in zip(config.teacher_path, scalings, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    return TeacherEnsemble(each, average=config.teacher_average, teacher_weights=config.teacher_weights)


def without_activation(model, name, role, splits):
    """Returns a model that gives logits: without the softmax at its end, if it has one, which is said.

    Of images of several classes it is a sigmoid that is taken off.

    Raises:
        ValueError: a softmax, where images have several classes.
    """
    # Temperatures and margins are meant for logits; probabilities would be distilled without an error, and badly.
    softmax = teachers.ends_in_softmax(model)
    if splits.multi_label and softmax:
        raise ValueError(
            "Where an image may have several classes, each output must be a yes or no of its own. Received: "
            f"{role.lower()} {name}, whose softmax makes the classes share one whole. Give a model that was trained on "
            "several classes per image, or a new head for it: --teacher_head=new"
        )
    if softmax or (splits.multi_label and teachers.ends_in_sigmoid(model)):
        kind = "softmax" if softmax else "sigmoid"
        print(f"{role} {name} ends in a {kind}: it is taken off, distillation works on logits")
        model = teachers.logits_model(model, splits.multi_label)
    return model


def _check_teacher_file(path):
    """Raises `ValueError` for a file of another kind than models', or a folder in which there is none."""
    given, path = pathlib.Path(path), find_teacher_file(path)
    if path.suffix in (".npz", ".npy"):
        raise ValueError(
            f"`teacher_path` must be a model. Received: teacher_path={str(given)!r}, arrays of NumPy. A run of distill "
            "takes a teacher's outputs with --teacher_outputs"
        )
    if given.is_dir() and not path.exists():
        raise ValueError(
            "`teacher_path` must be a file of Keras's, a folder with a SavedModel, or the folder of a run that has "
            f"trained its teacher. Received: teacher_path={str(given)!r}, in which there is neither {SAVED_MODEL} nor "
            f"{TEACHER}"
        )
    models.check_loadable(given if is_saved_model(given) else path, "teacher_path")


def _load_one_teacher(path, preprocessing, config, splits):
    """Loads the model of a file or a folder, with the data's classes."""
    given, path = pathlib.Path(path), find_teacher_file(path)
    check_unseen(path, splits)
    loaded = models.load_any(given if is_saved_model(given) else path, "teacher_path", config.trust_teacher_code)

    def prepare(model):
        model = models.give_graph(model, splits.image_shape)
        model = models.select_output(model, config.teacher_output, path, "teacher_output")
        # A teacher may take any image size (images are resized) and know more classes (the data's are chosen).
        shape = None, None, splits.image_shape[-1]
        if getattr(config, "teacher_head", None):
            # What a backbone without a head gives may be a map.
            model = models.check_images(model, shape, path, "teacher_path")
            return _give_new_head(model, path, preprocessing, config, splits)
        model = models.check_classifier(model, shape, None, path, "teacher_path")
        model = _make_logits(model, path, splits)
        return teachers.with_preprocessing(choose_classes(model, path, config, splits), preprocessing)

    if not isinstance(loaded, TeacherEnsemble):
        return prepare(loaded)
    if getattr(config, "teacher_head", None):
        raise ValueError(
            f"A new head is one teacher's. Received: teacher_path={path}, an ensemble of {len(loaded.teachers)}. Name "
            "the file of one of its teachers"
        )
    if len(config.teacher_path) > 1:
        raise ValueError(
            "An ensemble is a teacher of its own, and is given alone. Received: "
            f"teacher_path={','.join(config.teacher_path)}, of which {path} is an ensemble of {len(loaded.teachers)}. "
            "Name the files of its teachers instead"
        )
    each = [prepare(model) for model in loaded.teachers]
    return TeacherEnsemble(each, average=loaded.average, teacher_weights=loaded.teacher_weights)


def _make_logits(model, path, splits):
    """Returns a teacher that gives a logit for each class, whatever it ends in, and says what was done to it."""
    if teachers.hides_end(model):
        model = _invert_hidden_probabilities(model, path, splits)
    else:
        model = without_activation(model, path, "Teacher", splits)
    if splits.multi_label or splits.num_classes != 2 or model.output_shape[-1] != 1:
        return model
    first, second = splits.class_names
    print(f"Teacher {path} has one output, the logit of '{second}': of '{first}' it is taken with the other sign")
    # The sigmoid of a model of two classes is that of several: each is a yes or no.
    return with_two_logits(teachers.logits_model(model, multi_label=True))


def _invert_hidden_probabilities(model, path, splits):
    """Returns a model whose graph does not show its end, by what it says of images: the same where that is logits."""
    outputs = evaluation.logits(model, next(iter(data.iterate_batches(splits.train_images, _IMAGES_TO_TELL_BY))))
    low, high = outputs.min(), outputs.max()
    # Not of a number that is none, either: what such a model is refused for is said where it is measured.
    if not (low >= 0 and high <= 1):
        return model
    shared = sum_to_one(outputs)
    received = f"Received: {path}, whose outputs are from {low:.4g} to {high:.4g}"
    if not is_of_saved_model(model):
        # A class of one's own can give logits; a SavedModel is what it is.
        raise ValueError(
            f"A teacher must give logits. {received}: it gives probabilities that no softmax at its end makes, and no "
            "sigmoid, which could be taken off. Let its call return what it gives to its last activation"
        )
    if outputs.shape[-1] > 1 and shared == splits.multi_label:
        sums = outputs.sum(axis=-1)
        raise ValueError(
            "A teacher must give logits or probabilities: where each image has one class, rows that sum to 1; where it "
            f"may have several, the probability of each. {received}, in rows that sum to {sums.min():.4g} up to "
            f"{sums.max():.4g}. Export the model without its last activation"
        )
    # One output is a yes or no, whose sum says nothing.
    shared = shared and outputs.shape[-1] > 1
    taken = "logarithm" if shared else "logit"
    print(f"Teacher {path} gives probabilities: their {taken} is taken, distillation works on logits")
    return invert_probabilities(model, multi_label=not shared)


def _give_new_head(given, path, preprocessing, config, splits):
    # Its starting weights depend on the seed alone.
    keras.utils.set_random_seed(config.seed)
    model = teachers.with_new_head(given, splits.num_classes)
    left_out = ", ".join(f"'{layer.name}'" for layer in teachers.list_left_out(given, model))
    place = f"in place of {left_out}" if left_out else "behind its output: it ends in no classifier"
    print(f"Teacher {path} gets a new head {place}")
    # It is trained, and saved, on the data's images as they are.
    return teachers.fit_to_images(teachers.with_preprocessing(model, preprocessing), splits.image_shape)


def choose_classes(teacher, path, config, splits):
    """Returns `teacher` with the logits of the data's classes, in their order: those of `find_classes`."""
    chosen = find_classes(teacher.output_shape[-1], path, config, splits)
    return teacher if chosen is None else teachers.with_classes(teacher, chosen)


def find_classes(outputs, path, config, splits):
    """Returns which of a teacher's outputs are the data's classes, in their order; None where they are all.

    Which of its classes they are, `teacher_classes` says. Without it they are those of the same place, if there are as
    many, or of the same name, if the data are some classes of a data set with as many classes as the teacher.

    Args:
        outputs: number of the teacher's outputs.
        path: its file.
        config, splits: the run's.
    """
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
        return None
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
            # Of outputs alone there is no model to give one to.
            + "; or distil with a new head for it, trained on the data: --teacher_head=new" * bool(config.teacher_path)
        )
    print(f"Of the teacher's {outputs} classes, these are the data's: {', '.join(map(str, chosen))}")
    return chosen


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
