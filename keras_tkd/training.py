"""The story of a run: `train_teacher(config, workdir)` and `distill(config, workdir)`."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import statistics
import sys

import keras
import tensorflow as tf

from keras_tkd import data, evaluation, export, models, teachers
from keras_tkd.callbacks import KeepState, Progress, StopOnNonFinite, TensorBoardScalars, Throughput, WarnAtChance
from keras_tkd.config import flag_lines
from keras_tkd.distiller import Distiller
from keras_tkd.methods import METHODS, make_losses
from keras_tkd.workdir import Stage, Workdir, read_json, save_model, write_json

# Settings that make two trainings of a student comparable: equal budgets on equal data.
BUDGET = (
    "dataset",
    "image_size",
    "test_fraction",
    "split_seed",
    "validation_fraction",
    "augmentation",
    "epochs",
    "batch_size",
    "seed",
    "student_model",
)
TRAINING = (
    "dataset",
    "image_size",
    "test_fraction",
    "split_seed",
    "validation_fraction",
    "augmentation",
    "epochs",
    "batch_size",
    "learning_rate",
    "momentum",
    "schedule",
    "schedule_epochs",
    "schedule_factor",
    "weight_decay",
    "precision",
    "seed",
)


def train_teacher(config, workdir, existing="refuse"):
    """Trains a teacher on the labels and writes `teacher.keras`, `results.json`, logs and flags into `workdir`.

    Args:
        config: `TeacherConfig`.
        workdir: path of the run's folder.
        existing: see `Workdir`.

    Returns:
        The results, as in `results.json`.
    """
    workdir = Workdir(workdir, flag_lines(config), existing)
    finished = workdir.finished_results()
    if finished:
        print(f"Finished already: {workdir.path}")
        return finished
    splits = load_data(config).with_validation(config.validation_fraction, config.split_seed)
    begin(workdir, splits, f"python scripts/train_teacher.py --flagfile=this_file --workdir={workdir.path}")
    stage, model = teacher_stage(config, workdir, splits)
    results = describe_run("teacher", config, stage, splits)
    results["teacher"] = describe_model(model, evaluation.logits(model, splits.test_images), splits)
    results["teacher"]["seconds"] = round(stage.seconds, 2)
    return workdir.write_results(results)


def distill(config, workdir, existing="refuse"):
    """Trains a student by a method, and the same student alone, and writes everything into `workdir`.

    The teacher comes from `config.teacher_path` or is trained first. The baseline starts from the same weights as the
    distilled student and sees the same images in the same order for the same number of epochs.

    Args:
        config: `DistillConfig`.
        workdir: path of the run's folder.
        existing: see `Workdir`.

    Returns:
        The results, as in `results.json`.
    """
    config = config.resolved()
    workdir = Workdir(workdir, flag_lines(config), existing)
    finished = workdir.finished_results()
    if finished:
        print(f"Finished already: {workdir.path}")
        return finished
    baseline = read_baseline(config)
    splits = load_data(config).with_validation(config.validation_fraction, config.split_seed)
    student = build_model(config.student_model, splits, config.seed, "Student")
    teacher, teacher_seconds, teacher_outputs, results = None, None, None, {}
    if METHODS[config.method].terms:
        teacher = load_teacher(config, splits) if config.teacher_path else None
    check_before_work(config, splits, student, teacher)
    begin(workdir, splits, f"python scripts/distill.py --flagfile=this_file --workdir={workdir.path}")
    if METHODS[config.method].terms:
        if teacher is None:
            print(f"No --teacher_path: training the teacher '{config.teacher_model}' first")
            stage, teacher = teacher_stage(config.teacher, workdir, splits)
            teacher_seconds = round(stage.seconds, 2)
        teacher_outputs = evaluation.logits(teacher, splits.test_images)
        results["teacher"] = describe_model(teacher, teacher_outputs, splits) | {"seconds": teacher_seconds}
        check_teacher(results["teacher"], config, splits)
        results["baseline"] = baseline or train_baseline(config, workdir, splits, student, teacher_outputs)
    stage = student_stage(config, workdir, splits, student, teacher)
    # What is measured is the file that is handed over.
    student = keras.saving.load_model(stage.model_path, compile=False)
    outputs = evaluation.logits(student, splits.test_images)
    results["student"] = describe_model(student, outputs, splits, teacher_outputs)
    results["student"]["seconds"] = round(stage.seconds, 2)
    results["student"]["epochs_to_baseline"] = epochs_to(results.get("baseline"), stage.history)
    results = describe_run(config.method, config, stage, splits) | results
    return workdir.write_results(results)


def evaluate(config):
    """Measures a saved model on the test images, beside its teacher.

    Args:
        config: `EvaluateConfig`.

    Returns:
        dict with the model's `test_accuracy`, `parameters`, `at_chance`, and, with a teacher, `agreement` and
        `teacher`, a dict like it.
    """
    splits = load_data(config)
    model = models.build(config.model_path, splits.image_shape, splits.classes)
    teacher_outputs, results = None, {}
    if config.teacher_path:
        teacher = load_teacher(config, splits)
        teacher_outputs = evaluation.logits(teacher, splits.test_images)
        results["teacher"] = describe_model(teacher, teacher_outputs, splits)
    outputs = evaluation.logits(model, splits.test_images)
    return describe_model(model, outputs, splits, teacher_outputs) | results


def start_devices():
    """Lets TensorFlow find its devices now; what it prints of that then comes at a time of the caller's choosing."""
    tf.config.list_logical_devices()


# Data and models.


def load_data(config):
    return data.load(
        config.dataset,
        config.data_dir,
        image_size=config.image_size,
        test_fraction=config.test_fraction,
        split_seed=config.split_seed,
        progress=sys.stdout.isatty(),
    )


def build_model(name, splits, seed, role):
    """A model by name or file, returning logits. Starting weights are decided by the seed alone."""
    keras.utils.set_random_seed(seed)
    model = models.build(name, splits.image_shape, splits.classes)
    if teachers.ends_in_softmax(model):
        print(f"{role} {name} ends in a softmax: it is taken off, distillation works on logits")
        model = teachers.logits_model(model)
    return model


def load_teacher(config, splits):
    """The model of `teacher_path`, a file or a run's folder, behind the preprocessing it expects."""
    path = pathlib.Path(config.teacher_path)
    path = path / "teacher.keras" if path.is_dir() else path
    if path.suffix != ".keras":
        raise ValueError(f"`teacher_path` must be a .keras file, or a run's folder that holds one. Received: {path}")
    return teachers.with_preprocessing(build_model(str(path), splits, 0, "Teacher"), config.teacher_preprocessing)


def check_before_work(config, splits, student, teacher):
    """Raises `ValueError` for what would only be found out after the teacher's training."""
    if not student.trainable_variables:
        raise ValueError(
            f"`student_model` must have trainable weights. Received: {config.student_model}, "
            f"{len(student.variables)} variables, trainable={student.trainable}"
        )
    if METHODS[config.method].terms:
        teacher = teacher or build_model(config.teacher_model, splits, 0, "Teacher")
        Distiller(teacher, keras.models.clone_model(student), *config_losses(config))


def check_teacher(described, config, splits):
    print(f"Teacher: test accuracy {described['test_accuracy']:.2%}, {described['parameters']:,} parameters")
    if evaluation.at_chance(described["test_accuracy"], splits.test_labels):
        raise ValueError(
            f"The teacher must know more than chance. Received: test accuracy {described['test_accuracy']:.2%} of "
            f"{config.teacher_path or config.teacher_model} on {config.dataset}. If it was trained on pixels scaled "
            "otherwise, pass --teacher_preprocessing; if on other classes or in another order, it cannot teach these"
        )


# Stages.


def teacher_stage(config, workdir, splits):
    settings = {name: getattr(config, name) for name in (*TRAINING, "teacher_model")}
    stage = Stage(workdir, "teacher", settings)
    if not stage.finished:
        model = build_model(config.teacher_model, splits, config.seed, "Teacher")
        train_alone(model, config, stage, splits, "Teacher")
    return stage, keras.saving.load_model(stage.model_path, compile=False)


def train_baseline(config, workdir, splits, student, teacher_outputs):
    """Trains the student alone and describes it; None if the run is to have no baseline."""
    if config.baseline == "none":
        return None
    settings = {name: getattr(config, name) for name in (*TRAINING, "student_model")}
    stage = Stage(workdir, "baseline", settings)
    if not stage.finished:
        model = keras.models.clone_model(student)
        model.set_weights(student.get_weights())
        train_alone(model, config, stage, splits, "Baseline: the student alone")
    model = keras.saving.load_model(stage.model_path, compile=False)
    described = describe_model(model, evaluation.logits(model, splits.test_images), splits, teacher_outputs)
    return described | {"seconds": round(stage.seconds, 2)}


def student_stage(config, workdir, splits, student, teacher):
    """Trains the student by the method, in place; returns the stage."""
    if teacher is None:
        settings = {name: getattr(config, name) for name in (*TRAINING, "student_model")}
        stage = Stage(workdir, "student", settings)
        if not stage.finished:
            train_alone(student, config, stage, splits, "Student, on the labels alone")
        return stage
    stage = Stage(workdir, "student", dataclasses.asdict(config))
    if stage.finished:
        return stage
    for model in (student, teacher):
        export.set_precision(model, config.precision)
    decay_weights(student, config.weight_decay)
    keras.utils.set_random_seed(config.seed)
    distiller = Distiller(teacher, student, *config_losses(config))
    negative_labels = None
    if config.negative_classes == "teacher":
        negative_labels = evaluation.logits(teacher, splits.train_images).argmax(-1)

    def pipeline(images, labels, **arguments):
        drawn = "other_class" if config.negatives == "drawn" else None
        told_apart_by = negative_labels if arguments["training"] else None
        return data.triplet_dataset(images, labels, negatives=drawn, negative_labels=told_apart_by, **arguments)

    own = [variable for layer in distiller.loss_layers for variable in layer.variables]
    state = [*student.variables, *own, distiller.step]
    fit_stage(distiller, student, config, stage, splits, pipeline, f"Student, by {config.method}", state)
    return stage


def config_losses(config):
    """What a resolved configuration gives the Distiller: losses, their weights, the weight of the labels' loss."""
    losses, weights = make_losses(
        config.method,
        temperature=config.temperature,
        margin=config.margin,
        weights=config.distillation_weights,
        seed=config.seed,
        teacher_layers=list_or_none(config.teacher_layers),
        student_layers=list_or_none(config.student_layers),
    )
    return losses, weights, config.student_loss_weight


def train_alone(model, config, stage, splits, title):
    """Trains a model on the labels, as any Keras model."""
    export.set_precision(model, config.precision)
    decay_weights(model, config.weight_decay)
    keras.utils.set_random_seed(config.seed)
    fit_stage(model, model, config, stage, splits, data.image_dataset, title, model.variables)


def fit_stage(trained, model, config, stage, splits, pipeline, title, state):
    """Runs `trained.fit` for one stage and saves `model`, in float32, as the stage's file.

    Args:
        trained: what is fitted: the model itself, or the Distiller around it.
        pipeline: function `(images, labels, batch_size, seed, augment, training, initial_epoch) -> tf.data.Dataset`.
        state: the variables that training changes, those of the optimizer aside.
    """
    optimizer = keras.optimizers.SGD(config.learning_rate, momentum=config.momentum)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(optimizer, loss, metrics=["accuracy"])
    trained.optimizer.build(trained.trainable_variables)
    keep = KeepState([*state, *trained.optimizer.variables], stage)
    done = keep.restore()
    if done:
        title = f"{title}, taken up after epoch {done}"
    shared = {"batch_size": config.batch_size, "seed": config.seed}
    train = pipeline(
        splits.train_images,
        splits.train_labels,
        **shared,
        augment=data.AUGMENTATIONS[config.augmentation],
        training=True,
        initial_epoch=done,
    )
    held_out_images, held_out_labels = splits.test_images, splits.test_labels
    if splits.validation_images is not None:
        held_out_images, held_out_labels = splits.validation_images, splits.validation_labels
    held_out = pipeline(held_out_images, held_out_labels, **shared, training=False)
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate(config, epoch)),
        Throughput(len(splits.train_labels), config.batch_size),
        StopOnNonFinite(),
        Progress(title),
        TensorBoardScalars(stage.logs),
        WarnAtChance(lambda accuracy: evaluation.at_chance(accuracy, held_out_labels)),
        keep,
    ]
    trained.fit(
        train,
        epochs=config.epochs,
        initial_epoch=done,
        validation_data=held_out,
        callbacks=callbacks,
        verbose=0,
        shuffle=False,
    )
    seconds = keep.seconds
    export.set_precision(model, "float32")
    save_model(model, stage.model_path)
    stage.record(keep.history, seconds, finished=True)


def learning_rate(config, epoch):
    """The learning rate of an epoch, counted from 0."""
    if config.schedule == "step":
        return config.learning_rate * config.schedule_factor ** sum(epoch >= e for e in config.schedule_epochs)
    if config.schedule == "cosine":
        return float(keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs)(epoch))
    return config.learning_rate


def decay_weights(model, weight_decay):
    """Adds `weight_decay / 2 * w^2` for every trainable weight to the model's losses.

    The gradient then holds `weight_decay * w` before momentum acts: the coupled decay of PyTorch's SGD, which the
    papers were trained with. It is set on the variables, not on the layers, and so is in no file.
    """
    if weight_decay:
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(weight_decay / 2)


# Results.


def describe_run(method, config, stage, splits):
    speeds = [epoch["images_per_second"] for epoch in stage.history if "images_per_second" in epoch]
    return {
        "method": method,
        "dataset": config.dataset,
        "seed": config.seed,
        "epochs": config.epochs,
        "test_samples": len(splits.test_labels),
        "teacher": None,
        "baseline": None,
        "student": None,
        "train": {
            "seconds": round(stage.seconds, 2),
            "images_per_second": round(statistics.median(speeds)) if speeds else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("keras_tkd", "keras", "tensorflow")},
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "gpus": len(tf.config.list_physical_devices("GPU")),
        },
    }


def describe_model(model, outputs, splits, teacher_outputs=None):
    described = {
        "test_accuracy": evaluation.accuracy(outputs, splits.test_labels),
        "parameters": export.trainable_parameters(model),
    }
    described["at_chance"] = evaluation.at_chance(described["test_accuracy"], splits.test_labels)
    if teacher_outputs is not None:
        described["agreement"] = evaluation.agreement(outputs, teacher_outputs)
    return described


def epochs_to(baseline, history):
    """The first epoch (from 1) whose held-out accuracy reaches the baseline's test accuracy; None if none does."""
    if not baseline:
        return None
    reached = (i for i, epoch in enumerate(history, 1) if epoch["val_accuracy"] >= baseline["test_accuracy"])
    return next(reached, None)


def read_baseline(config):
    """The baseline out of another run's results, after checking that its budget is this run's; None to train one."""
    if config.baseline in ("train", "none"):
        return None
    results = read_json(pathlib.Path(config.baseline) / "results.json")
    described = results and (results["student"] if results["method"] == "baseline" else results["baseline"])
    if not described:
        raise ValueError(
            "`baseline` must be 'train', 'none', or the workdir of a finished run with a baseline. "
            f"Received: baseline={config.baseline!r}"
        )
    there, here = (dict(line[2:].split("=", 1) for line in lines) for lines in (results["flags"], flag_lines(config)))
    differing = [name for name in BUDGET if there.get(name) != here.get(name)]
    if differing:
        raise ValueError(
            f"The baseline in {config.baseline} had another budget: "
            + ", ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in differing)
            + ". Train one for this run: --baseline=train"
        )
    return described


def begin(workdir, splits, command):
    workdir.begin(f"To run this again: {command}")
    if splits.split:
        write_json(workdir.path / "split.json", splits.split)


def list_or_none(names):
    """Layers as losses take them: one name by itself, several as a list."""
    if not names:
        return None
    return names[0] if len(names) == 1 else list(names)
