"""The trainings inside a run: the teacher, the student alone, the student distilled."""

import dataclasses
import typing

import keras

from keras_tkd import data, evaluation, run_cache
from keras_tkd.callbacks import (
    KeepState,
    Progress,
    StopOnNonFinite,
    TensorBoardScalars,
    Throughput,
    WarmUp,
    WarnAtChance,
)
from keras_tkd.config import DATA
from keras_tkd.distillation.method_losses import make_losses
from keras_tkd.distiller import Distiller
from keras_tkd.methods.registry import list_or_name
from keras_tkd.teachers.ensemble import TeacherEnsemble, members
from keras_tkd.utils import precision
from keras_tkd.utils.files import save_model
from keras_tkd.workdir import Stage

# What decides the outcome of a training on the labels alone, the model aside.
TRAINING = (
    *DATA,
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
HELD_OUT_BATCH = 256
# Steps from one return to Python to the next. Eight save small steps some of their work, and cost large ones nothing
# (benchmarks/choices.py); with more of them, little is gained and Ctrl-C and the progress bar wait longer.
STEPS_PER_EXECUTION = 8


def train_teacher(config, workdir, splits, teacher):
    """Trains `teacher` on the labels, unless the workdir has it; returns the stage and the model of its file."""
    return train_alone(teacher, config, workdir, splits, "teacher", "Teacher", config.teacher_model)


def train_baseline(config, workdir, splits, student):
    """Trains a copy of `student` on the labels, unless the workdir has it; returns the stage and its file's model."""
    return train_alone(
        copy_of(student), config, workdir, splits, "baseline", "Baseline: the student alone", config.student_model
    )


@dataclasses.dataclass
class Teaching:
    """What teaches a student: a teacher, or its outputs, kept, in the batches.

    Attributes:
        teacher: the teacher's model; None where the batches bring its outputs.
        pipeline: function `(images, labels, batch_size, seed, augment, training, initial_epoch) -> tf.data.Dataset`.
        shapes: shapes of a batch, as `Distiller.build` takes them.
    """

    teacher: keras.Model | None
    pipeline: typing.Callable
    shapes: dict


def teach(config, workdir, splits, teacher):
    """The `Teaching` of a run; builds or opens its teacher cache.

    Args:
        config: resolved `DistillConfig`, `teacher_cache` settled.
        teacher: the teacher's model.
    """
    for model in members(teacher):
        precision.set_precision(model, config.precision)
    pipeline = distillation_pipeline(config, splits, teacher)
    shapes = {"image": (None, *splits.image_shape)}
    if config.teacher_cache == "off":
        return Teaching(teacher, pipeline, shapes)
    losses, *_ = losses_of(config, splits.train_labels)
    caches = run_cache.build(config, run_cache.folder(config, workdir), splits, teacher, losses)
    # An ensemble's losses are averaged in the step, which needs no teacher but the ensemble's weights.
    averaging = isinstance(teacher, TeacherEnsemble) and teacher.average == "losses"
    shapes["teacher"] = caches["train"].shapes
    return Teaching(teacher if averaging else None, run_cache.attached(pipeline, caches), shapes)


def train_student(config, workdir, splits, student, teaching):
    """Trains `student` by the method, in place; returns the stage and the model of its file.

    Args:
        config: resolved `DistillConfig`.
        teaching: the run's `Teaching`; None for a method without a teacher.
    """
    if teaching is None:
        return train_alone(student, config, workdir, splits, "student", "Student", config.student_model)
    stage = Stage(workdir, "student", settings_of(config))
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


def settings_of(config):
    """What decides the outcome of a student's training, out of a settled `DistillConfig`."""
    # None of these changes a student; that there are more generations changes none that there is.
    elsewhere = ("data_dir", "baseline", "embedding_layer", "teacher_embedding_layer", "generations")
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in elsewhere}
    # Nor does the place of the cache.
    return settings | {"teacher_cache": config.teacher_cache not in ("auto", "off")}


def distillation_pipeline(config, splits, teacher):
    """The batches that the method reads: images alone, or with the negatives or partners that are drawn for them."""
    companions = config.recipe.companions if config.negatives == "drawn" else set()
    named = None
    if companions and config.negative_classes == "teacher":
        named = evaluation.named_classes(teacher, splits.train_images)

    def pipeline(images, labels, *, training, **arguments):
        arguments["views"] = config.teacher_views
        told_apart_by = named if training else None
        if "partners" in companions:
            return data.pair_dataset(images, labels, partner_labels=told_apart_by, training=training, **arguments)
        negatives = "other_class" if "negatives" in companions else None
        return data.triplet_dataset(
            images, labels, negatives=negatives, negative_labels=told_apart_by, training=training, **arguments
        )

    return pipeline


def losses_of(config, labels):
    """What a resolved configuration gives the Distiller: losses, their weights, the weight of the labels' loss.

    Args:
        labels: class ids of the training samples.
    """
    in_batch = {"miner": config.miner, "negative_classes": config.negative_classes}
    losses, weights = make_losses(
        config.recipe,
        weights=config.distillation_weights,
        teacher_layers=list_or_name(config.teacher_layers),
        student_layers=list_or_name(config.student_layers),
        seed=config.seed,
        labels=labels,
        temperature=config.temperature,
        margin=config.margin,
        **(in_batch if config.negatives == "in_batch" else {}),
    )
    return losses, weights, config.student_loss_weight


def train_alone(model, config, workdir, splits, name, title, architecture):
    """Trains a model on the labels, as any Keras model, unless the workdir has it; returns stage and file's model."""
    settings = {setting: getattr(config, setting) for setting in TRAINING} | {"model": architecture}
    stage = Stage(workdir, name, settings)
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


def optimizer_of(config):
    return keras.optimizers.SGD(config.learning_rate, momentum=config.momentum)


def scheduled(optimizer, config):
    """A callback that sets an optimizer's learning rate from epoch to epoch."""

    def set_rate(epoch, logs=None):
        optimizer.learning_rate = learning_rate(config, epoch)

    return keras.callbacks.LambdaCallback(on_epoch_begin=set_rate)


def compile_model(model, config, **arguments):
    """Compiles a model, or a Distiller, for training on class ids as a run's configuration says."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        optimizer_of(config),
        loss,
        metrics=["accuracy"],
        steps_per_execution=STEPS_PER_EXECUTION,
        # XLA on GPUs alone, as Keras decides: on CPUs a step costs more with it (benchmarks/choices.py).
        jit_compile="auto",
        **arguments,
    )


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
    keep = KeepState([*state, *trained.optimizer.variables], stage)
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
    for path, model in files.items():
        precision.set_precision(model, "float32")
        save_model(model, path)
    stage.record(keep.history, seconds, finished=True)


def learning_rate(config, epoch):
    """The learning rate of an epoch, counted from 0."""
    if config.schedule == "step":
        return config.learning_rate * config.schedule_factor ** sum(epoch >= e for e in config.schedule_epochs)
    if config.schedule == "cosine":
        return float(keras.optimizers.schedules.CosineDecay(config.learning_rate, config.epochs)(epoch))
    return config.learning_rate


def decay_weights(model, weight_decay):
    """Adds `weight_decay / 2 * w^2` for every trainable weight to the losses of a model (or layer).

    The gradient then holds `weight_decay * w` before momentum acts: the coupled decay of PyTorch's SGD, which the
    papers were trained with. It is set on the variables, not on the layers, and so is in no file.
    """
    if weight_decay:
        for variable in model.trainable_variables:
            variable.regularizer = keras.regularizers.L2(weight_decay / 2)
