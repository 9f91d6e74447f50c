"""The trainings inside a run: the teacher, the student alone, the student distilled."""

import dataclasses
import functools

import keras

from keras_tkd import data, teachers
from keras_tkd.callbacks import BackupState, TerminateOnNonFinite, WarmUp
from keras_tkd.config.fields import DISTILLED, TRAINED, collect_settings
from keras_tkd.data.options import count_batches
from keras_tkd.distillation.distiller import Distiller
from keras_tkd.runs.callbacks import CheckLogs, Throughput, TrainingProgress, WarnAtChance
from keras_tkd.runs.chance import StopAtChance, count_first_epochs, is_at_chance
from keras_tkd.runs.checks import check_first_batch, check_unchanged
from keras_tkd.runs.curves import Schedules, make_logging
from keras_tkd.runs.distillation_setup import (
    DistillationSetup,
    make_held_out_batches,
    make_pipeline,
    make_shapes,
    make_training_batches,
    set_up_distillation,
)
from keras_tkd.runs.epoch_selection import EpochSelection
from keras_tkd.runs.interruption import StopAtSignal
from keras_tkd.runs.optimization import add_weight_decay, compile_model, compute_learning_rate
from keras_tkd.runs.records import Stage
from keras_tkd.teachers.ensemble import flatten_ensemble
from keras_tkd.utils import precision
from keras_tkd.utils.files import save_model
from keras_tkd.utils.model_files import load_model

__all__ = ["Trained", "copy_model", "fit_stage", "train_baseline", "train_student", "train_teacher"]


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
    body = teachers.list_body(model)
    return _train_on_labels(run, inputs.splits.for_teacher, stage, model, config, "Teacher's new head", fixed=body)


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
    stage = run.open_stage("baseline", _collect_alone(config))
    if teacher is not None and not stage.finished:
        _check_early(run, inputs, teacher)
    alone = copy_model(inputs.student)
    return _train_on_labels(run, inputs.splits, stage, alone, config, "Baseline: the student alone")


def train_student(run, inputs, teacher):
    """Trains the student by the method, in place, unless the folder has it.

    Args:
        teacher: the `MeasuredTeacher`, whose model, if it has one, is released; None for a method without a teacher.

    Returns:
        `Trained`.
    """
    config, student = run.config, inputs.student
    if teacher is None:
        stage = run.open_stage("student", _collect_alone(config))
        return _train_on_labels(run, inputs.splits, stage, student, config, "Student")
    # A teacher out of another run decides by its weights, of which no setting says which they are.
    given = {"teacher_weights": inputs.fingerprint} if inputs.fingerprint else {}
    stage = run.open_stage("student", collect_settings(config, DISTILLED) | given)
    if not stage.finished:
        setup = set_up_distillation(run, inputs, teacher.release())
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


def _collect_alone(config):
    """Returns what decides a student that learns from the labels alone."""
    model = {"model": config.student_model, "student_model_weights": config.student_model_weights}
    return collect_settings(config, TRAINED) | model


def _make_distiller(config, inputs, teacher, student, shapes):
    """Makes the compiled `Distiller` of a run; `teacher` and `shapes` are those of its `DistillationSetup`."""
    precision.set_precision(student, config.precision)
    add_weight_decay(student, config.coupled_weight_decay)
    # From here on random numbers (layers of losses, dropout) depend on the seed alone.
    keras.utils.set_random_seed(config.seed)
    distiller = Distiller(teacher, student, *inputs.make_losses(config))
    distiller.build(shapes)
    for layer in distiller.loss_layers:
        add_weight_decay(layer, config.coupled_weight_decay)
    compile_model(distiller, config)
    return distiller


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


def fit_stage(
    run, stage, splits, trained, *, title, pipeline, files, callbacks=(), frozen=None, config=None, before_saving=None
):
    """Runs `trained.fit` for one stage and saves the models that it trained, in float32.

    Args:
        run: the `Run`, whose user's callbacks take part.
        stage: the `Stage`; what it has of an interrupted training is taken up, anything else of it removed.
        splits: the `Splits` that the model is trained on.
        trained: what is fitted, compiled: a model itself, or the Distiller around it.
        title: what the progress bar says.
        pipeline: function `(images, labels, batch_size, seed, augment, training, initial_epoch, initial_step)` that
            makes a `tf.data.Dataset`.
        files: dict path -> model to be saved there.
        callbacks: what sets the training's numbers from epoch to epoch.
        frozen: dict of the models that must stay as they are by role, None for one that is not in memory.
        config: what this training is configured by; the run's, if not given.
        before_saving: function that puts back what of the models was changed for their training alone.
    """
    config = config or run.config
    held_out = make_held_out_batches(config, splits, pipeline)
    backup = BackupState(stage.checkpoints, config.checkpoint_steps, config.checkpoint_minutes, stage.settings)
    epoch, step = backup.restore(trained, held_out)
    if epoch or step:
        title = f"{title}, taken up after epoch {epoch}" + (f" and {step} steps" if step else "")
    else:
        # The one place where a training that is not taken up is removed. Of one that is, TensorBoardScalars writes the
        # event files anew.
        stage.remove_training()
    selection = EpochSelection(config, stage, files.values(), backup)
    stop = StopAtSignal(backup)
    samples = len(splits.train_labels)
    steps = count_batches(samples, config.batch_size)
    callbacks = [
        *callbacks,
        keras.callbacks.LearningRateScheduler(lambda epoch, _: compute_learning_rate(config, epoch)),
        Throughput(samples, config.batch_size),
        Schedules(),
        TerminateOnNonFinite(),
        # After what fills the logs, and before what shows and keeps them: the user's see all, and may add to them.
        *run.callbacks,
        CheckLogs(),
        TrainingProgress(title, steps, config.epochs),
        *make_logging(run, stage, config, backup.history, steps),
        # Of a training that is shorter than these epochs, in its last; of one or two epochs nothing is expected.
        WarnAtChance(
            lambda accuracy: is_at_chance(accuracy, splits.held_out[1], config),
            min(count_first_epochs(samples, config), max(config.epochs, 3)),
        ),
        # Before what writes the epoch's state: see there.
        selection,
        backup,
        # After what writes the epoch's state: that is not lost.
        StopAtChance(title, config, splits, backup),
        stop,
    ]
    with check_unchanged(frozen or {}):
        # One call, or two: the rest of an epoch that was begun has a data set of its own.
        while epoch < config.epochs and not selection.is_over and not getattr(trained, "stop_training", False):
            train = make_training_batches(config, splits, pipeline, initial_epoch=epoch, initial_step=step)
            with stop:
                trained.fit(
                    train,
                    epochs=epoch + 1 if step else config.epochs,
                    initial_epoch=epoch,
                    validation_data=held_out,
                    callbacks=callbacks,
                    verbose=0,
                    shuffle=False,
                )
            epoch, step = backup.position
    seconds = backup.seconds
    selection.finish()
    if before_saving:
        before_saving()
    for path, model in files.items():
        precision.set_precision(model, "float32")
        save_model(model, path)
    # Last: a stage is finished once its models are saved.
    stage.finish(backup.history, seconds, files)
    backup.remove()
    selection.remove()


def copy_model(model):
    """Makes a model of the same architecture, weights and seeds of dropout, whatever this process drew before."""
    copy = keras.models.clone_model(model)
    for variable, value in zip(copy.variables, model.variables, strict=True):
        variable.assign(value)
    return copy


def _train_on_labels(run, splits, stage, model, config, title, fixed=()):
    """Trains a model on the labels, as any Keras model, unless the stage is finished; the layers `fixed` stay."""
    if not stage.finished:
        before = [(layer, layer.trainable) for layer in fixed]
        for layer in fixed:
            layer.trainable = False
        precision.set_precision(model, config.precision)
        add_weight_decay(model, config.coupled_weight_decay)
        keras.utils.set_random_seed(config.seed)
        compile_model(model, config)
        fit_stage(
            run,
            stage,
            splits,
            model,
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
