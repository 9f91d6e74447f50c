"""The story of a run: `train_teacher(config, workdir)`, `distill(config, workdir)`, `evaluate(config)`."""

import pathlib
import sys

import keras
import tensorflow as tf

from keras_tkd import data, evaluation, models, run_cache, stages, teachers
from keras_tkd.config.flagfile import as_recorded, flag_lines
from keras_tkd.distiller import Distiller
from keras_tkd.generations import best, hand_over, train_generations
from keras_tkd.results import (
    baseline_path,
    closed_set_logits,
    describe_model,
    describe_run,
    describe_student,
    describe_teacher,
    epochs_to,
    read_baseline,
)
from keras_tkd.runs import devices
from keras_tkd.teachers.ensemble import TeacherEnsemble, members
from keras_tkd.utils.files import read_json, write_json
from keras_tkd.workdir import FLAGS, SPLIT, Workdir


def train_teacher(config, workdir, existing="refuse"):
    """Trains a teacher on the labels and writes `teacher.keras`, `results.json`, logs and flags into `workdir`.

    Args:
        config: `TeacherConfig`.
        workdir: path of the run's folder.
        existing: see `Workdir`.

    Returns:
        The results, as in `results.json`.
    """
    config, workdir, finished = open_workdir(config, workdir, existing)
    if finished:
        return finished
    splits = load_splits(config)
    new = build_model(config.teacher_model, splits, config.seed, "Teacher")
    check_embeddings(new, config.embedding_layer, splits)
    begin(workdir, splits, f"python scripts/train_teacher.py --flagfile=this_file --workdir={workdir.path}")
    stage, teacher = stages.train_teacher(config, workdir, splits, new)
    outputs = evaluation.logits(teacher, splits.test_images)
    layer = config.embedding_layer
    described = {"teacher": describe_model(teacher, outputs, splits, seconds=stage.seconds, embedding_layer=layer)}
    return workdir.write_results(describe_run("teacher", config, stage, splits) | described)


def distill(config, workdir, existing="refuse"):
    """Trains a student by a method, and the same student alone, and writes everything into `workdir`.

    The teacher comes from `config.teacher_path` (an ensemble, where that names several) or is trained first. The
    baseline starts from the same weights as the distilled student and sees the same images in the same order for the
    same number of epochs; where `teacher_views` bounds the views that the distilled student sees, the baseline still
    sees fresh ones.

    Args:
        config: `DistillConfig`.
        workdir: path of the run's folder.
        existing: see `Workdir`.

    Returns:
        The results, as in `results.json`.
    """
    config, workdir, finished = open_workdir(config.resolved(), workdir, existing)
    if finished:
        return finished
    # First everything that can be refused.
    with_teacher = bool(config.recipe.terms)
    baseline = read_baseline(config)
    if baseline and config.anchor == "trained":
        baseline_path(config)
    splits = load_splits(config)
    student = build_model(config.student_model, splits, config.seed, "Student")
    teacher = None
    if with_teacher and config.teacher_path:
        teacher = load_teacher(config, splits)
    elif with_teacher:
        teacher = build_model(config.teacher_model, splits, config.seed, "Teacher")
    check_together(config, teacher, student, splits)
    layer, teacher_layer = config.embedding_layer, config.teacher.embedding_layer
    check_embeddings(student, layer, splits)
    if with_teacher:
        check_embeddings(teacher, teacher_layer, splits)
        # An online teacher's anchor is a student.
        frozen, losses = (student, []) if config.online else (teacher, stages.losses_of(config, splits.train_labels)[0])
        config = run_cache.settle(config, workdir, splits, frozen, losses)
        workdir.flags = flag_lines(config)

    begin(workdir, splits, f"python scripts/distill.py --flagfile=this_file --workdir={workdir.path}")
    if config.online:
        return workdir.write_results(distill_online(config, workdir, splits, student, teacher, baseline))
    outputs, described = None, {}
    if with_teacher:
        seconds = None
        if not config.teacher_path:
            print(f"No --teacher_path: training the teacher '{config.teacher_model}' first")
            stage, teacher = stages.train_teacher(config.teacher, workdir, splits, teacher)
            seconds = stage.seconds
        outputs, described = describe_teacher(teacher, splits, seconds, teacher_layer)
        check_teacher(described, config, splits)
        if baseline is None and config.baseline == "train":
            stage, alone = stages.train_baseline(config, workdir, splits, student)
            baseline = describe_student(alone, splits, outputs, stage.seconds, layer)
        described["baseline"] = baseline
    teaching = stages.teach(config, workdir, splits, teacher) if with_teacher else None
    teacher = None  # with a cache nobody holds it any more
    # What is measured is the file that is handed over.
    stage, student = stages.train_student(config, workdir, splits, student, teaching)
    described["student"] = describe_student(student, splits, outputs, stage.seconds, layer)
    described["student"]["epochs_to_baseline"] = epochs_to(baseline, stage.history)
    return workdir.write_results(describe_run(config.title, config, stage, splits) | described)


def distill_online(config, workdir, splits, student, teacher, baseline):
    """The part of `distill` in which teacher and student learn together; returns the results."""
    anchor, alone = None, None
    if baseline is None and (config.baseline == "train" or config.anchor == "trained"):
        stage, alone = stages.train_baseline(config, workdir, splits, student)
    if config.anchor == "trained":
        anchor = stages.copy_of(alone or build_model(baseline_path(config), splits, config.seed, "Anchor"))
    elif config.anchor == "random":
        anchor = stages.untrained_copy_of(student, config.seed)
    generations = train_generations(config, workdir, splits, student, teacher, anchor)
    chosen = best(generations)
    hand_over(chosen, workdir)
    outputs = evaluation.logits(chosen.teacher, splits.test_images)
    if alone is not None:
        baseline = describe_student(alone, splits, outputs, stage.seconds, config.embedding_layer)
    described = [describe_generation(generation, config, splits, baseline) for generation in generations]
    own = {
        "baseline": baseline,
        "generations": described,
        "generation": chosen.number,
        **{role: described[chosen.number - 1][role] for role in ("teacher", "student")},
    }
    return describe_run(config.method, config, chosen.stage, splits) | own


def describe_generation(generation, config, splits, baseline):
    outputs = evaluation.logits(generation.teacher, splits.test_images)
    seconds, layer = generation.stage.seconds, config.teacher.embedding_layer
    student = describe_student(generation.student, splits, outputs, seconds, config.embedding_layer)
    return {
        "teacher": describe_model(generation.teacher, outputs, splits, embedding_layer=layer),
        "student": student | {"epochs_to_baseline": epochs_to(baseline, generation.stage.history)},
        "validation_accuracy": generation.validation_accuracy,
    }


def evaluate(config):
    """Measures a saved model on the test images, beside its teacher.

    Args:
        config: `EvaluateConfig`.

    Returns:
        dict with the model's `test_accuracy`, `parameters`, `at_chance`, with an open set `verification`, and, with
        a teacher, `agreement` and `teacher`, a dict like it, with several also `teachers`, a list of such dicts. Where
        all classes are in the open set, nothing is said of the classes: neither accuracies nor agreement.
    """
    splits = load_data(config)
    layer, teacher_layer = config.embedding_layer, config.teacher_embedding_layer or config.embedding_layer
    model = models.build(config.model_path, splits.image_shape, splits.classes or None)
    check_unseen(config.model_path, splits)
    check_embeddings(model, layer, splits)
    teacher_outputs, described = None, {}
    if config.teacher_path:
        teacher = load_teacher(config, splits)
        check_embeddings(teacher, teacher_layer, splits)
        teacher_outputs, described = describe_teacher(teacher, splits, None, teacher_layer)
    outputs = closed_set_logits(model, splits)
    return describe_model(model, outputs, splits, teacher_outputs, embedding_layer=layer) | described


def open_workdir(config, path, existing):
    """The configuration with its precision settled, the `Workdir`, and the results of a finished run, else None."""
    if existing != "overwrite":
        config = as_recorded(config, pathlib.Path(path) / FLAGS)
    config = devices.settle(config)
    workdir = Workdir(path, flag_lines(config), existing)
    finished = workdir.finished_results()
    if finished:
        print(f"Finished already: {workdir.path}")
    return config, workdir, finished


def start_devices():
    """Lets TensorFlow find its devices now; what it prints of that then comes at a time of the caller's choosing."""
    tf.config.list_logical_devices()


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
    return without_softmax(models.build(name, splits.image_shape, splits.classes or None), name, role)


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
    return each[0] if len(each) == 1 else TeacherEnsemble(each, config.teacher_average, config.teacher_weights)


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
        if len(chosen) != splits.classes:
            raise ValueError(
                f"`teacher_classes` must be one class of the teacher for each of the {splits.classes} classes of the "
                f"data, {', '.join(splits.class_names)}. Received: teacher_classes={config.teacher_classes}"
            )
    elif splits.classes in (0, outputs):
        return teacher
    elif same_data:
        chosen = data.class_indices(splits.class_names, names)
    else:
        raise ValueError(
            f"The teacher must know the classes of the data. Received: {path} with {outputs} outputs, {config.dataset} "
            f"with {splits.classes} classes. "
            + (
                "Say which of the teacher's they are, by index: --teacher_classes"
                if outputs > splits.classes
                else "Leave out those it does not know: --classes"
            )
        )
    print(f"Of the teacher's {outputs} classes, these are the data's: {', '.join(map(str, chosen))}")
    return teachers.with_classes(teacher, chosen)


def check_together(config, teacher, student, splits):
    """Raises `ValueError` for models and losses that do not go together, before anything is trained."""
    if teacher is not None:
        # On copies: a Distiller freezes its teacher.
        Distiller(*map(keras.models.clone_model, (teacher, student)), *stages.losses_of(config, splits.train_labels))
    if not student.trainable_variables:
        raise ValueError(
            f"`student_model` must have trainable weights. Received: {config.student_model}, "
            f"{len(student.variables)} variables, trainable={student.trainable}"
        )


def check_unseen(path, splits):
    """Raises `ValueError` for a model out of a run's folder that was trained on identities it is to be verified on."""
    record = read_json(pathlib.Path(path).parent / SPLIT)
    if record is None or not splits.classes:
        return
    seen = [name for name in splits.open_set_names or () if name not in record.get("open_set_classes", ())]
    if seen:
        raise ValueError(
            "A model must not have been trained on the identities that it is to be verified on. "
            f"Received: {path}, trained on {len(seen)} of {len(splits.open_set_names)}, '{seen[0]}' for one. "
            "Pass the --open_set_fraction and --split_seed that it was trained with"
        )


def check_embeddings(model, layer, splits):
    """Raises `ValueError` for a model without the embeddings that verification compares, before it is trained."""
    if splits.open_set_images is None:
        return
    for member in members(model):
        check_embeddings_of_one(member, layer or evaluation.EMBEDDING, splits)


def check_embeddings_of_one(model, layer, splits):
    rule = "Verification compares the outputs of a layer, --embedding_layer (--teacher_embedding_layer)"
    try:
        shape = evaluation.embeddings(model, splits.open_set_images[:1], layer).shape
    except ValueError as error:
        raise ValueError(f"{rule}. {error}") from error
    if len(shape) != 2:
        raise ValueError(f"{rule}, of shape (batch, width). Received: layer '{layer}' of shape {shape}")


def check_teacher(described, config, splits):
    """Prints what each teacher knows; raises `ValueError` if one of them knows no more than chance."""
    names = config.teacher_path or (config.teacher_model,)
    each = described.get("teachers", [described["teacher"]])
    advice = "Train it otherwise, with a lower --teacher_learning_rate for example"
    if config.teacher_path:
        advice = (
            "If it was trained on pixels scaled otherwise, pass --teacher_preprocessing; if on other classes or in "
            "another order, say which of them the data's are: --teacher_classes"
        )
    for name, one in zip(names, each, strict=True):
        accuracy = f"{one['test_accuracy']:.2%}"
        print(f"Teacher{f' {name}' * (len(each) > 1)}: test accuracy {accuracy}, {one['parameters']:,} parameters")
        if evaluation.at_chance(one["test_accuracy"], splits.test_labels):
            raise ValueError(
                f"The teacher must know more than chance. Received: test accuracy {accuracy} of {name} on "
                f"{config.dataset}. {advice}"
            )


def begin(workdir, splits, command):
    workdir.begin(f"To run this again: {command}")
    unseen = {"open_set_classes": splits.open_set_names} if splits.open_set_names else {}
    if splits.split or unseen:
        write_json(workdir.path / SPLIT, {**unseen, **(splits.split or {})})
