"""Backups of a training, from which it goes on to the bits that it would have had."""

import hashlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from keras_tkd.callbacks.state_records import check_about, check_record, describe_entry, to_columns, to_epochs
from keras_tkd.callbacks.termination import check_finite
from keras_tkd.utils.checkpoint_files import CheckpointFiles
from keras_tkd.utils.number_checks import is_finite
from keras_tkd.utils.replicated_variables import read_variable

__all__ = ["BackupState"]


class BackupState(keras.callbacks.Callback):
    """Writes the state of a training, from which it goes on after an interruption to the bits that it would have had.

    The state is all that training changes: variables of the model (of a Distiller, all but those of models that stay as
    they are), of its optimizers and of its metrics, and the place in the data. It is written at the end of each epoch
    and, where asked for, inside epochs. The newest two files are kept; one that is damaged is named, and not used. What
    a callback of your own sets, such as a loss's temperature, is not in it: set that in each `on_epoch_begin`. An epoch
    that a callback breaks off, `model.stop_training = True`, counts as whole.

    Args:
        directory: folder of this training's checkpoints alone.
        every_steps: number of steps after which the state is written inside an epoch, rounded up to whole executions
            (`steps_per_execution`); None for none.
        every_minutes: minutes after which it is; None for none. Not where several workers train, which must all write
            at the same step, and have a clock each.
        about: dict of plain data, as JSON has it, that says which training this is. Checkpoints of another are not
            used.
        prepare: function without arguments that is called before a state is written, such as
            `AverageStatistics.average` where several replicas train; None for none.

    Attributes:
        history: list of dicts of metrics, one of each whole epoch, those before an interruption included.
        seconds: seconds of training so far, those before an interruption included.
        position: `(epoch, step)`: whole epochs, and steps of the epoch after them, that are behind.

    Raises:
        ValueError: `every_steps` or `every_minutes` that is not above 0; an `about` that is no plain data; when a
            training begins: a folder that holds states of another training, or of this one from further on, which its
            own would take the place of; `every_minutes` and several workers.
        FloatingPointError: where a state is to be written, and a loss was not finite: the training would go on from it.

    Example:

    ```python
    backup = BackupState("backup", every_steps=500)
    epoch, step = backup.restore(distiller, held_out)
    while epoch < epochs and not distiller.stop_training:
        # The rest of an epoch that was begun has a data set of its own.
        batches = triplet_dataset(images, labels, 128, seed=0, initial_epoch=epoch, initial_step=step)
        distiller.fit(batches, initial_epoch=epoch, epochs=epoch + 1 if step else epochs, callbacks=[backup])
        epoch, step = backup.position
    ```
    """

    def __init__(self, directory, every_steps=None, every_minutes=None, about=None, prepare=None):
        super().__init__()
        for name, value in (("every_steps", every_steps), ("every_minutes", every_minutes)):
            if value is not None and not (is_finite(value) and value > 0):
                raise ValueError(f"`{name}` must be above 0, or None. Received: {name}={value!r}")
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.history = []
        self.position = 0, 0
        self._about = check_about(about)
        self._prepare = prepare
        self._files = CheckpointFiles(directory)
        self._seconds_before, self._began = 0.0, None
        # Values of the metrics in an epoch that was begun, until Keras has reset them.
        self._metrics = None
        # Weights as they were before Keras put their averages in their place, where a fit ends and the next goes on.
        self._averaged = []
        # Hash of the models that stay as they are, once it is known; whether the folder's states are behind us.
        self._frozen, self._folder_is_ours = None, False

    @property
    def seconds(self):
        """Seconds of training so far, those before an interruption included."""
        return self._seconds_before + (0.0 if self._began is None else time.perf_counter() - self._began)

    def restore(self, model, data=None):
        """Takes up the state of the newest whole checkpoint; without one nothing changes.

        Args:
            model: a built and compiled `keras.Model`.
            data: `tf.data.Dataset` of elements as `fit` gets them, such as the validation data. One is evaluated, which
                makes the metrics' variables; only for a checkpoint that lies inside an epoch.

        Returns:
            `position`: `(0, 0)` where there is nothing to take up.

        Raises:
            ValueError: a model that is not compiled; a checkpoint of another model, or of a training with another
                teacher; one inside an epoch, without `data`.
        """
        if not model.compiled:
            raise ValueError(
                "A training is taken up with its optimizer. Received: a model that is not compiled. Call `compile` "
                "before `restore`"
            )
        checkpoint = self._files.read_newest(check_record)
        if checkpoint is None or checkpoint.about["training"] != self._about:
            # Of another training, whoever gave this folder may still remove them before this one begins.
            self._folder_is_ours = checkpoint is None
            return self.position
        self._check_frozen(model, checkpoint.about.get("frozen"))
        if checkpoint.step:
            if data is None:
                raise ValueError(
                    "A checkpoint inside an epoch is taken up with `data`. Received: data=None, and epoch "
                    f"{checkpoint.epoch}, step {checkpoint.step} in {self._files.folder}. Give the validation data"
                )
            # Not `evaluate`: one batch may lack what a whole validation must have, such as a second class.
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(next(iter(data)))
            model.test_on_batch(x, y, sample_weight)
        state = _collect_state(model)
        variables = state + (model.metrics_variables if checkpoint.step else [])
        if [tuple(v.shape) for v in variables] != [array.shape for array in checkpoint.arrays]:
            raise ValueError(
                f"The checkpoints in {self._files.folder} are of another model: they hold {len(checkpoint.arrays)} "
                f"arrays, and '{model.name}' has {len(variables)} variables, or they differ in shape. Choose another "
                "folder, or remove this one"
            )
        for variable, array in zip(state, checkpoint.arrays, strict=False):
            variable.assign(array)
        self._metrics = checkpoint.arrays[len(state) :]
        self.history = to_epochs(checkpoint.about["history"])
        self._seconds_before = checkpoint.about["seconds"]
        self.position = checkpoint.epoch, checkpoint.step
        self._folder_is_ours = True
        return self.position

    def _check_frozen(self, model, expected):
        """Raises `ValueError` if the models that stay as they are are not those of the training that is taken up."""
        self._frozen = _hash_frozen(model)
        # Nothing is known of a teacher that is not in memory, nor of those of earlier versions' checkpoints.
        if expected is not None and self._frozen not in (None, expected):
            raise ValueError(
                f"The checkpoints in {self._files.folder} are of a training with another teacher: the weights of the "
                f"models that '{model.name}' leaves as they are have changed since. Give it the teacher that it began "
                "with, or choose another folder, or remove this one"
            )

    def _check_folder(self):
        """Raises `ValueError` for states in the folder that this training would remove with its own first one."""
        checkpoint = self._files.read_newest(check_record)
        if checkpoint is None:
            return
        there, folder = checkpoint.about["training"], self._files.folder
        names = [name for name in {**there, **self._about} if there.get(name, self) != self._about.get(name, self)]
        if names:
            values = "; ".join(
                f"'{name}' is {describe_entry(there, name)} there, and {describe_entry(self._about, name)} here"
                for name in names
            )
            raise ValueError(
                f"A training's folder must not hold checkpoints of another. Received: {folder}, where {values}. Choose "
                "another folder, or remove them: `BackupState(folder).remove()`"
            )
        if (checkpoint.epoch, checkpoint.step) > self.position:
            raise ValueError(
                f"A training that begins anew must not remove what it reached before. Received: {folder} with a state "
                f"of epoch {checkpoint.epoch}, step {checkpoint.step}. Go on from it, `restore(model, data)` before "
                "`fit`, or `remove()` it"
            )

    def _check_clock(self):
        """Raises `ValueError` for writes that go by a clock where several workers train, each of which has its own."""
        workers = tf.distribute.MultiWorkerMirroredStrategy
        if self.every_minutes is not None and isinstance(self.model.distribute_strategy, workers):
            raise ValueError(
                "`every_minutes` goes by a clock, and each worker has its own, while all must write a state together. "
                f"Received: every_minutes={self.every_minutes!r}. Set `every_steps`"
            )

    def write(self):
        """Writes the state as it is now: between two steps, or at the end of an epoch.

        Raises:
            FloatingPointError: a loss of a Distiller was not finite.
        """
        check_finite(self.model)
        epoch, step = self.position
        if self._prepare is not None:
            self._prepare()
        variables = _collect_state(self.model) + (self.model.metrics_variables if step else [])
        arrays = [read_variable(variable) for variable in variables]
        about = {
            "training": self._about,
            "history": to_columns(self.history),
            "seconds": self.seconds,
            "frozen": self._frozen,
        }
        self._files.write(epoch, step, arrays, about)
        self._written = time.monotonic(), self._steps

    def remove(self):
        """Removes all checkpoints: of a training that ended, and whose model is saved."""
        self._files.remove()

    def on_train_begin(self, logs=None):
        if self._began is None:
            if not self._folder_is_ours:
                self._check_folder()
            # Once: they do not change.
            self._frozen = self._frozen or _hash_frozen(self.model)
            self._began = time.perf_counter()
            self._check_clock()
        for variable, array in self._averaged:
            variable.assign(array)
        self._averaged = []
        self._steps = 0
        self._written = time.monotonic(), 0

    def on_epoch_begin(self, epoch, logs=None):
        # Of an epoch that is taken up the first steps are done: Keras counts those that are left, from 0.
        self._first_step = self.position[1]
        if self._metrics:
            for variable, array in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(array)
        self._metrics = None
        self._last = -1
        self.position = epoch, self._first_step

    def on_train_batch_end(self, batch, logs=None):
        self._steps += batch - self._last
        self._last = batch
        self.position = self.position[0], self._first_step + batch + 1
        # The end of the epoch is written with its validation; without it too where nobody knows which step is the last.
        steps = self.params["steps"]
        if (steps is None or batch + 1 < steps) and self._is_due():
            check_finite(self.model, logs)
            self.write()

    def _is_due(self):
        written, steps = self._written
        by_steps = self.every_steps is not None and self._steps - steps >= self.every_steps
        return by_steps or (self.every_minutes is not None and time.monotonic() - written >= 60 * self.every_minutes)

    def on_epoch_end(self, epoch, logs=None):
        check_finite(self.model, logs)
        # The rest of an epoch that was begun is a fit of its own, at the end of which Keras makes averages the weights.
        if self._first_step and _takes_averages(self.model):
            learnt = [variable for variable in _collect_state(self.model) if variable.trainable]
            self._averaged = [(variable, read_variable(variable)) for variable in learnt]
        # A long training has many epochs, and Keras makes the names of each anew.
        self.history = [*self.history, {sys.intern(name): float(value) for name, value in logs.items()}]
        self.position = epoch + 1, 0
        self.write()


def _collect_state(model):
    """Returns all variables that training changes, those of metrics aside, each once."""
    # A model that distils says which are its own; of any other, all are.
    own = model.state_variables if hasattr(model, "state_variables") else model.variables
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return list({id(variable): variable for variable in [*own, *model.optimizer.variables]}.values())


def _takes_averages(model):
    """Returns whether averages of weights become the weights at the end of a `fit`: of `use_ema`, in any optimizer."""
    # A teacher that learns with its student has its own.
    optimizers = [model.optimizer, getattr(model, "teacher_optimizer", None)]
    return any(getattr(getattr(each, "inner_optimizer", each), "use_ema", False) for each in optimizers)


def _hash_frozen(model):
    """Returns a hash of the weights that a model leaves as they are, None where it has none of that kind."""
    own = {id(variable) for variable in getattr(model, "state_variables", model.variables)}
    # Not the seeds of layers that draw: a teacher does not, and its file does not always fix them.
    frozen = [weight for weight in model.weights if id(weight) not in own]
    if not frozen:
        return None
    digest = hashlib.sha256()
    for weight in frozen:
        array = keras.ops.convert_to_numpy(weight)
        digest.update(f"{array.dtype.name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
