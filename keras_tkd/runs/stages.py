"""The trainings inside a run: the teacher, the student alone, the student distilled."""

import keras

from keras_tkd import data, evaluation
from keras_tkd.callbacks import TerminateOnNonFinite, WarmUp
from keras_tkd.config.fields import DISTILLED, TRAINED, settings
from keras_tkd.distillation.distiller import Distiller
from keras_tkd.runs.callbacks import Progress, TensorBoardScalars, Throughput, WarnAtChance
from keras_tkd.runs.checkpoints import BackupState
from keras_tkd.runs.distillation_setup import losses_of
from keras_tkd.runs.optimization import compile_model, decay_weights, learning_rate
from keras_tkd.runs.workdir import Stage
from keras_tkd.utils import precision
from keras_tkd.utils.files import save_model

HELD_OUT_BATCH = 256


def train_teacher(config, workdir, splits, teacher):
    """Trains `teacher` on the labels, unless the workdir has it; returns the stage and the model of its file."""
    return train_alone(teacher, config, workdir, splits, "teacher", "Teacher", config.teacher_model)


def train_baseline(config, workdir, splits, student):
    """Trains a copy of `student` on the labels, unless the workdir has it; returns the stage and its file's model."""
    return train_alone(
        copy_of(student), config, workdir, splits, "baseline", "Baseline: the student alone", config.student_model
    )


def train_student(config, workdir, splits, student, teaching):
    """Trains `student` by the method, in place; returns the stage and the model of its file.

    Args:
        config: resolved `DistillConfig`.
        teaching: the run's `DistillationSetup`; None for a method without a teacher.
    """
    if teaching is None:
        return train_alone(student, config, workdir, splits, "student", "Student", config.student_model)
    stage = Stage(workdir, "student", settings(config, DISTILLED))
    if not stage.finished:
        precision.set_precision(student, config.precision)
        decay_weights(student, config.weight_decay)
        keras.utils.set_random_seed(config.seed)
        distiller = Distiller(teaching.teacher, student, *losses_of(config, splits.train_labels))
        distiller.build(teaching.shapes)
        own = [variable for layer in distiller.loss_layers for variable in layer.variables]
        for layer in distiller.loss_layers:
            decay_weights(layer, config.weight_decay)
        state = [*student.variables, *own, distiller.step]
        warm_up = [WarmUp(config.warmup_epochs)] if config.warmup_epochs else []
        compile_model(distiller, config)
        files = {stage.model_path: student}
        fit_stage(
            distiller, files, config, stage, splits, teaching.pipeline, f"Student, by {config.title}", state, warm_up
        )
    return stage, keras.saving.load_model(stage.model_path, compile=False)


def train_alone(model, config, workdir, splits, name, title, architecture):
    """Trains a model on the labels, as any Keras model, unless the workdir has it; returns stage and file's model."""
    stage = Stage(workdir, name, settings(config, TRAINED) | {"model": architecture})
    if not stage.finished:
        precision.set_precision(model, config.precision)
        decay_weights(model, config.weight_decay)
        keras.utils.set_random_seed(config.seed)
        compile_model(model, config)
        files = {stage.model_path: model}
        fit_stage(model, files, config, stage, splits, data.image_dataset, title, model.variables)
    return stage, keras.saving.load_model(stage.model_path, compile=False)


def copy_of(model):
    """A model of the same architecture, weights and seeds of dropout, whatever was drawn before in this process."""
    copy = keras.models.clone_model(model)
    for variable, value in zip(copy.variables, model.variables, strict=True):
        variable.assign(value)
    return copy


def untrained_copy_of(model, seed):
    """A model of the same architecture with starting weights of its own: not those that `seed` gives `model`."""
    keras.utils.set_random_seed(seed + 2**30)  # seeds of runs are below
    return keras.models.clone_model(model)


def fit_stage(trained, files, config, stage, splits, pipeline, title, state, callbacks=()):
    """Runs `trained.fit` for one stage and saves the models that it trained, in float32.

    Args:
        trained: what is fitted, compiled: a model itself, or the Distiller around it.
        files: dict path -> model to be saved there.
        pipeline: function `(images, labels, batch_size, seed, augment, training, initial_epoch) -> tf.data.Dataset`.
        state: the variables that training changes, those of the optimizer aside.
        callbacks: further callbacks.
    """
    trained.optimizer.build(trained.trainable_variables)
    keep = BackupState([*state, *trained.optimizer.variables], stage)
    done = keep.restore()
    if done:
        title = f"{title}, taken up after epoch {done}"
    train = pipeline(
        splits.train_images,
        splits.train_labels,
        batch_size=config.batch_size,
        seed=config.seed,
        augment=data.AUGMENTATIONS[config.augmentation],
        training=True,
        initial_epoch=done,
    )
    held_out_images, held_out_labels = splits.held_out
    held_out = pipeline(held_out_images, held_out_labels, batch_size=HELD_OUT_BATCH, seed=config.seed, training=False)
    callbacks = [
        *callbacks,
        keras.callbacks.LearningRateScheduler(lambda epoch, _: learning_rate(config, epoch)),
        Throughput(len(splits.train_labels), config.batch_size),
        TerminateOnNonFinite(),
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
    for path, model in files.items():
        precision.set_precision(model, "float32")
        save_model(model, path)
    stage.record(keep.history, seconds, finished=True)
