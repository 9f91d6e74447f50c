"""What a run is given: images, student, teacher."""

import pathlib
import sys

import keras

from keras_tkd import data, models, teachers
from keras_tkd.runs.checks import check_unseen
from keras_tkd.teachers.ensemble import TeacherEnsemble


def load_data(config):
    splits = data.load(
        config.dataset,
        config.data_dir,
        image_size=config.image_size,
        test_fraction=config.test_fraction,
        split_seed=config.split_seed,
        open_set_fraction=config.open_set_fraction,
        shuffle_window=config.shuffle_window,
        progress=sys.stdout.isatty(),
    )
    return splits.with_classes(config.classes) if config.classes else splits


def load_splits(config):
    """The data of a run that trains: without the images held out for choosing, or of a small training set."""
    splits = load_data(config).with_validation(config.validation_fraction, config.split_seed)
    return splits.with_train_fraction(config.train_fraction, config.split_seed)


def build_model(name, splits, seed, role):
    """A model for the data by name or file, returning logits. Starting weights are decided by the seed alone."""
    keras.utils.set_random_seed(seed)
    return without_softmax(models.build(name, splits.image_shape, splits.num_classes or None), name, role)


def without_softmax(model, name, role):
    if teachers.ends_in_softmax(model):
        print(f"{role} {name} ends in a softmax: it is taken off, distillation works on logits")
        model = teachers.logits_model(model)
    return model


def load_teacher(config, splits):
    """The model of `teacher_path` or the ensemble of several, each behind the preprocessing that it expects."""
    scalings = config.teacher_preprocessing
    scalings = scalings if len(scalings) > 1 else scalings * len(config.teacher_path)
    each = [
        load_one_teacher(path, mode, config, splits) for path, mode in zip(config.teacher_path, scalings, strict=True)
    ]
    if len(each) == 1:
        return each[0]
    return TeacherEnsemble(each, average=config.teacher_average, teacher_weights=config.teacher_weights)


def load_one_teacher(path, preprocessing, config, splits):
    """The model of a file or of a run's folder, with the data's classes."""
    path = pathlib.Path(path)
    path = path / "teacher.keras" if path.is_dir() else path
    if path.suffix != ".keras":
        raise ValueError(f"`teacher_path` must be a .keras file, or a run's folder that holds one. Received: {path}")
    check_unseen(path, splits)
    # Of any size, for which images are resized, and of any classes, of which the data's are chosen.
    model = without_softmax(models.build(path, (None, None, splits.image_shape[-1]), None), path, "Teacher")
    return teachers.with_preprocessing(choose_classes(model, path, config, splits), preprocessing)


def choose_classes(teacher, path, config, splits):
    """`teacher` with the logits of the data's classes, in their order.

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
