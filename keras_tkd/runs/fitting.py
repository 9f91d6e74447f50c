"""One training inside a run: its batches, callbacks and checkpoints, on whatever devices the run has."""

import keras

from keras_tkd.callbacks import BackupState, TerminateOnNonFinite
from keras_tkd.data.options import count_batches
from keras_tkd.runs.callbacks import CheckLogs, Throughput, TrainingProgress, WarnAtChance
from keras_tkd.runs.chance import StopAtChance, count_first_epochs, is_at_chance
from keras_tkd.runs.checks import check_unchanged
from keras_tkd.runs.curves import Schedules, make_logging
from keras_tkd.runs.distillation_setup import make_held_out_batches, make_training_batches
from keras_tkd.runs.epoch_selection import EpochSelection
from keras_tkd.runs.interruption import StopAtSignal
from keras_tkd.runs.optimization import compute_learning_rate
from keras_tkd.utils import precision
from keras_tkd.utils.files import save_model
from keras_tkd.utils.replicated_variables import AverageStatistics

__all__ = ["check_placing", "copy_model", "fit_stage", "place_model"]


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
    config, cluster = config or run.config, run.cluster
    share = {} if cluster.share is None else {"share": cluster.share}
    held_out = cluster.distribute(make_held_out_batches(config, splits, pipeline, **share))
    # A loss's own layers are in no file, but in the state, and validations go by their statistics.
    layers = [*files.values(), *getattr(trained, "loss_layers", ())]
    statistics = [] if cluster.strategy is None else [AverageStatistics(layers, cluster.strategy)]
    backup = BackupState(
        stage.checkpoints,
        config.checkpoint_steps,
        config.checkpoint_minutes,
        stage.settings,
        prepare=statistics[0].average if statistics else None,
    )
    with cluster.scope():
        epoch, step = backup.restore(trained, held_out)
    if epoch or step:
        title = f"{title}, taken up after epoch {epoch}" + (f" and {step} steps" if step else "")
    else:
        # The one place where a training that is not taken up is removed. Of one that is, TensorBoardScalars writes the
        # event files anew.
        stage.remove_training()
    selection = EpochSelection(config, stage, files.values(), backup)
    stop = StopAtSignal(backup, cluster)
    samples = len(splits.train_labels)
    steps = count_batches(samples, config.batch_size)
    callbacks = [
        *callbacks,
        *statistics,
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
        StopAtChance(title, config, splits, backup, run.config),
        stop,
    ]
    with check_unchanged(frozen or {}):
        # One call, or two: the rest of an epoch that was begun has a data set of its own.
        while epoch < config.epochs and not selection.is_over and not getattr(trained, "stop_training", False):
            train = make_training_batches(config, splits, pipeline, initial_epoch=epoch, initial_step=step, **share)
            with stop:
                trained.fit(
                    cluster.distribute(train),
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


def place_model(run, model):
    """Returns a model as a run trains it: a copy on all its devices where there are several; None stays None.

    It is called inside the scope of the run's cluster. What is made outside of that is on one device.
    """
    if run.cluster.strategy is None or model is None:
        return model
    return copy_model(model)


def check_placing(run, teacher):
    """Tries to copy a teacher that each of several devices is to have: before any training, not after the first.

    Args:
        run: the `Run`, whose configuration says whether there is a cache of the teacher's outputs.
        teacher: its model; None where there is none.

    Raises:
        ValueError: Keras cannot make it again of its configuration.
    """
    config = run.config
    # What a cache holds is computed on one device, but a teacher that learns does so on all.
    on_one = config.keeps_outputs and not config.trains_teacher
    if run.cluster.strategy is None or teacher is None or on_one:
        return
    try:
        keras.models.clone_model(teacher)
    # Whatever the configuration of somebody's own class makes of it.
    except Exception as error:
        instead = "train on one device"
        if not config.trains_teacher:
            instead = f"keep its outputs on disk instead, --teacher_cache=workdir, or {instead}"
        raise ValueError(
            f"On several devices the teacher is copied to each. Received: '{teacher.name}', which Keras cannot make "
            f"again of its configuration ({type(error).__name__}): {instead}"
        ) from error
