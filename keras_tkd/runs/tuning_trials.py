"""Trainings of a tuning: its teacher, and the students of a trial, measured on validation images."""

import dataclasses
import gc
import sys
import traceback

import keras

from keras_tkd import evaluation
from keras_tkd.config.fields import resolve_auto
from keras_tkd.reports.tuning import Outcome
from keras_tkd.runs import stages
from keras_tkd.runs.chance import AtChanceError
from keras_tkd.runs.images import load_splits
from keras_tkd.runs.inputs import load_distillation_inputs, load_teacher_inputs
from keras_tkd.runs.measuring import MeasuredTeacher, measure_model, measure_teacher
from keras_tkd.runs.run import open_run
from keras_tkd.runs.sweep_plan import TEACHER
from keras_tkd.runs.teacher_files import load_teacher

__all__ = ["evaluate_trial", "load_tuning_splits", "obtain_teacher"]


def load_tuning_splits(config):
    """Loads the `Splits` of a tuning: its test images are the validation images, and nothing has the test images.

    Args:
        config: configuration with a `validation_fraction`.
    """
    splits = load_splits(config)
    return dataclasses.replace(
        splits,
        test_images=splits.validation_images,
        test_labels=splits.validation_labels,
        # An open set is there to be tested on as well.
        open_set_images=None,
        open_set_identities=None,
        loaded=splits.loaded | {"test": splits.loaded["train"]},
        positions=splits.positions | {"test": splits.positions["validation"]},
    )


def obtain_teacher(shared, configs, folder, splits):
    """Trains the teacher of a tuning, unless one is given or the folder has it; prints what it knows.

    Args:
        shared: `DistillConfig` with what all methods share.
        configs: dict from a method to its `DistillConfig`.
        folder: the tuning's.
        splits: its `Splits`.

    Returns:
        The teacher as `teacher_path` names it; None where no method has one.
    """
    taught = next((config for config in configs.values() if config.has_teacher), None)
    if taught is None:
        return None
    path = shared.teacher_path
    if not path:
        path = (str(folder / TEACHER),)
        with open_run("train_teacher", taught.teacher, folder / TEACHER) as run:
            inputs = load_teacher_inputs(run.config, splits)
            run.begin(inputs)
            stages.train_teacher(run, inputs)
    teacher = measure_teacher(load_teacher(resolve_auto(taught, teacher_path=path), splits), splits).result
    print(f"Teacher: {100 * teacher.test_accuracy:.2f} % of the validation images", flush=True)
    if teacher.at_chance:
        raise ValueError(
            f"The teacher of a tuning must know more than chance. Received: accuracy {teacher.test_accuracy:.2%} on "
            "the validation images. Look at --teacher_learning_rate, or at --teacher_preprocessing"
        )
    return path


def evaluate_trial(config, folder, seeds, splits, report):
    """Trains the students of a trial, one after another, as far as the folder does not have them.

    Args:
        config: `DistillConfig` with the trial's settings.
        folder: the trial's.
        seeds: of the students.
        splits: as `load_tuning_splits` gives them.
        report: function `(step, accuracy)`, called for each epoch, that returns whether the trial is to end.

    Returns:
        An `Outcome`.

    Raises:
        OSError: no room, or a folder in use: that is nothing which settings bring about.
    """
    accuracies, last = [], len(seeds) * config.epochs - 1
    for place, seed in enumerate(seeds):

        def ends(epoch, accuracy, first=place * config.epochs):
            # What is at its end anyway, is not ended early.
            return report(first + epoch, accuracy) and first + epoch < last

        try:
            trained = _train(_set_seed(config, seed), folder / f"seed{seed}", splits, ends)
            # The test images of a tuning are the validation images.
            measured = measure_model(trained.model, evaluation.logits(trained.model, splits.test_images), splits)
        except OSError:
            raise
        except Exception as error:  # whatever it is, the other trials go on
            traceback.print_exc(file=sys.stdout)
            if isinstance(error, AtChanceError):
                return Outcome(tuple(accuracies), "collapsed", " ".join(str(error).split()))
            return Outcome(tuple(accuracies), "failed", " ".join(f"{type(error).__name__}: {error}".split()))
        finally:
            # Models and their graphs refer to each other, and take memory until somebody looks.
            gc.collect()
        # Asked again: of a training that was interrupted once it had ended, nobody has heard yet.
        epochs = len(trained.stage.history)
        if ends(epochs - 1, trained.stage.history[-1]["val_accuracy"]):
            return Outcome(tuple(accuracies), "pruned")
        accuracies.append(measured.test_accuracy)
        if measured.at_chance:
            said = f"at chance with {measured.test_accuracy:.2%}, seed {seed}"
            return Outcome(tuple(accuracies), "collapsed", said)
    return Outcome(tuple(accuracies))


def _set_seed(config, seed):
    # Under augmentation the views that a cache holds are a seed's own.
    own = {"teacher_cache": f"{config.teacher_cache}_seed{seed}"} if config.augments else {}
    return resolve_auto(config, seed=seed, **own if config.keeps_outputs else {})


class _ReportEpochs(keras.callbacks.Callback):
    """Tells a trial's accuracy after each epoch, and ends the training where it is told to."""

    def __init__(self, ends):
        super().__init__()
        self._ends = ends

    def on_epoch_end(self, epoch, logs=None):
        if self._ends(epoch, logs["val_accuracy"]):
            self.model.stop_training = True


def _train(config, path, splits, ends):
    """Trains one student in a folder of its own; returns it as `Trained`."""
    with open_run("distill", config, path, callbacks=[_ReportEpochs(ends)]) as run:
        inputs = load_distillation_inputs(run.config, splits)
        run.begin(inputs)
        # Known already: no trial measures it again.
        teacher = MeasuredTeacher(inputs.take_teacher(), None, None) if run.config.has_teacher else None
        return stages.train_student(run, inputs, teacher)
