"""The trainings inside a run: the teacher, the student alone, the student distilled."""

import dataclasses
import functools

import keras

from keras_tkd import data, teachers
from keras_tkd.callbacks import WarmUp
from keras_tkd.config.fields import DISTILLED, TRAINED, collect_settings
from keras_tkd.distillation.distiller import Distiller
from keras_tkd.distribution.label_training import LabelTraining
from keras_tkd.runs.checks import check_first_batch
from keras_tkd.runs.distillation_setup import DistillationSetup, make_pipeline, make_shapes, set_up_distillation
from keras_tkd.runs.fitting import copy_model, fit_stage, place_model
from keras_tkd.runs.optimization import add_weight_decay, compile_model
from keras_tkd.runs.records import Stage
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils import precision
from keras_tkd.utils.model_files import load_model

__all__ = ["Trained", "train_baseline", "train_student", "train_teacher"]


@dataclasses.dataclass
class Trained:
    """A model that a run trained.

    Attributes:
        stage: the `Stage` of its training.
        model: the model as read from the stage's file.
    """

    stage: Stage
    model: keras.Model


def train_teacher(run, inputs):
    """Trains the teacher on the labels, unless the folder has it.

    Args:
        run: the `Run`; its teacher's configuration counts.
        inputs: its `Inputs`, from which the teacher is taken.

    Returns:
        `Trained`.
    """
    config = run.config.teacher
    # The run's own settings count as well: one of them may be new, with nothing said about what it decides.
    decisive = collect_settings(run.config, TRAINED) | collect_settings(config, TRAINED)
    if not inputs.fingerprint:
        decisive |= {"model": config.teacher_model, "teacher_model_weights": config.teacher_model_weights}
        stage = run.open_stage("teacher", decisive)
        return _train_on_labels(run, inputs.splits.for_teacher, stage, inputs.take_teacher(), config, "Teacher")
    # A new head on a teacher that was trained elsewhere, whose weights say which it is.
    given = {name: getattr(run.config, name) for name in ("teacher_path", "teacher_output", "teacher_preprocessing")}
    stage = run.open_stage("teacher", decisive | given | {"teacher_weights": inputs.fingerprint})
    model = inputs.take_teacher()
    return _train_on_labels(
        run, inputs.splits.for_teacher, stage, model, config, "Teacher's new head", list_fixed=teachers.list_body
    )


def train_baseline(run, inputs, teacher=None):
    """Trains a copy of the student on the labels, unless the folder has it, another run's is used, or none is wanted.

    Args:
        teacher: the `MeasuredTeacher` that the student will be distilled from; None where there is none yet. The first
            batch of that is looked at before anything is trained.

    Returns:
        `Trained`, or None.

    Raises:
        ValueError: with `check="strict"`, what the check of the first batch warns of.
    """
    config = run.config
    # A trained anchor is the student alone: it is needed even where no baseline was asked for.
    wanted = config.baseline == "train" or config.anchor == "trained"
    if not config.has_teacher or inputs.baseline is not None or not wanted:
        return None
    stage = run.open_stage("baseline", _collect_label_settings(config))
    if teacher is not None and not stage.finished:
        _check_early(run, inputs, teacher)
    student = copy_model(inputs.student)
    return _train_on_labels(run, inputs.splits, stage, student, config, "Baseline: the student alone")


def train_student(run, inputs, teacher):
    """Trains the student by the method, in place, unless the folder has it.

    Args:
        teacher: the `MeasuredTeacher`, whose model, if it has one, is released; None for a method without a teacher.

    Returns:
        `Trained`.
    """
    config, student = run.config, inputs.student
    if teacher is None:
        stage = run.open_stage("student", _collect_label_settings(config))
        return _train_on_labels(run, inputs.splits, stage, student, config, "Student")
    # A teacher out of another run decides by its weights, of which no setting says which they are.
    given = {"teacher_weights": inputs.fingerprint} if inputs.fingerprint else {}
    stage = run.open_stage("student", collect_settings(config, DISTILLED) | given)
    if not stage.finished:
        setup = set_up_distillation(run, inputs, teacher.release())
        if run.cluster.strategy is not None:
            _check_before_placing(run, inputs, setup)
        with run.cluster.scope():
            setup.teacher, student = place_model(run, setup.teacher), place_model(run, student)
            distiller = _make_distiller(config, inputs, setup.teacher, student, setup.shapes)
        if not run.first_batch_checked:
            check_first_batch(run, inputs, distiller, setup.pipeline, setup.inspection)
        fit_stage(
            run,
            stage,
            inputs.splits,
            distiller,
            title=f"Student, by {config.title}",
            pipeline=setup.pipeline,
            files={stage.model_path: student},
            callbacks=[WarmUp(config.warmup_epochs)] if config.warmup_epochs else [],
            frozen={"teacher": setup.teacher},
        )
    return _read_trained(stage)


def _collect_label_settings(config):
    """Returns what decides a student that learns from the labels alone."""
    model = {"model": config.student_model, "student_model_weights": config.student_model_weights}
    return collect_settings(config, TRAINED) | model


def _make_distiller(config, inputs, teacher, student, shapes):
    """Makes the compiled `Distiller` of a run; `teacher` and `shapes` are those of its `DistillationSetup`."""
    precision.set_precision(student, config.precision)
    add_weight_decay(student, config.coupled_weight_decay)
    # From here on random numbers (layers of losses, dropout) depend on the seed alone.
    keras.utils.set_random_seed(config.seed)
    distiller = Distiller(teacher, student, *inputs.make_losses(config), gather=config.gather)
    distiller.build(shapes)
    for layer in distiller.loss_layers:
        add_weight_decay(layer, config.coupled_weight_decay)
    compile_model(distiller, config)
    return distiller


def _check_before_placing(run, inputs, setup):
    """Looks at the first batch by a copy of the student on this one device, before models are spread over several."""
    if not run.first_batch_checked and run.config.check != "off":
        distiller = _make_distiller(run.config, inputs, setup.teacher, copy_model(inputs.student), setup.shapes)
        check_first_batch(run, inputs, distiller, setup.pipeline, setup.inspection)
    run.first_batch_checked = True


def _check_early(run, inputs, teacher):
    """Looks at the first batch of a distillation that comes after another training, by a copy of the student."""
    config, splits = run.config, inputs.splits
    if config.check == "off":
        return
    if inputs.outputs is not None:
        setup = set_up_distillation(run, inputs, None)
    else:
        for model in flatten_ensemble(teacher.model):
            precision.set_precision(model, config.precision)
        # By labels, whoever's classes negatives are drawn by: a look at one batch does not need the teacher to name all
        # images' classes.
        pipeline = make_pipeline(config, lambda: splits.train_labels, splits.teacher)
        setup = DistillationSetup(teacher.model, pipeline, make_shapes(splits))
    # Nothing of this stays: each training makes its models, and sets the seed, anew.
    distiller = _make_distiller(config, inputs, setup.teacher, copy_model(inputs.student), setup.shapes)
    check_first_batch(run, inputs, distiller, setup.pipeline)
    run.first_batch_checked = True


def _train_on_labels(run, splits, stage, model, config, title, list_fixed=lambda model: ()):
    """Trains a model on the labels, as any Keras model, unless the stage is finished.

    Args:
        list_fixed: function from the model to those of its layers that stay as they are.
    """
    if not stage.finished:
        with run.cluster.scope():
            model = place_model(run, model)
            fixed = list_fixed(model)
            before = [(layer, layer.trainable) for layer in fixed]
            for layer in fixed:
                layer.trainable = False
            precision.set_precision(model, config.precision)
            add_weight_decay(model, config.coupled_weight_decay)
            keras.utils.set_random_seed(config.seed)
            # Keras's own step, but where its loss of several shares would be another than that of the whole batch.
            trained = model if run.cluster.strategy is None else LabelTraining(model)
            compile_model(trained, config)
        fit_stage(
            run,
            stage,
            splits,
            trained,
            title=title,
            pipeline=data.image_dataset,
            files={stage.model_path: model},
            config=config,
            before_saving=functools.partial(_set_trainable, before),
        )
    return _read_trained(stage)


def _set_trainable(layers):
    """Sets which layers may learn: pairs of a layer and its `trainable`, a layer before those inside it."""
    for layer, trainable in layers:
        layer.trainable = trainable


def _read_trained(stage):
    """Loads the model that a stage trained from its file, so that the very file is measured that a run leaves."""
    return Trained(stage, load_model(stage.model_path))
