"""Callbacks for any `fit`: they back a training up, end one that cannot succeed, and warm up a distillation."""

import math
import time

import keras

from keras_tkd.utils.checkpoint_files import CheckpointFiles
from keras_tkd.utils.number_checks import check_whole, is_finite

__all__ = ["BackupState", "TerminateOnNonFinite", "WarmUp"]

_ADVICE = (
    "training stopped. Lower the learning rate or the weight of the loss, or train in "
    "float32 if it runs in mixed_float16."
)


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Raises `FloatingPointError` when a loss is not finite, naming the step and, for a Distiller, the loss.

    Args:
        every: number of steps between two looks, rounded up to whole executions (`steps_per_execution`). A look waits
            for the step to finish; between looks, training does not wait. It looks at the end of an epoch as well.

    Raises:
        ValueError: `every` < 1.
        FloatingPointError: in training, see above.
    """

    def __init__(self, every=50):
        super().__init__()
        check_whole("every", every, 1)
        self.every = every

    def on_train_begin(self, logs=None):
        # Models that distil note the step and the loss themselves; of others, Keras's mean of the losses is looked at.
        if hasattr(self.model, "reset_first_non_finite"):
            self.model.reset_first_non_finite()

    def on_epoch_begin(self, epoch, logs=None):
        self._looked = -1

    def on_train_batch_end(self, batch, logs=None):
        if batch - self._looked >= self.every:
            self._looked = batch
            self._look(logs)

    def on_epoch_end(self, epoch, logs=None):
        self._look(logs)

    def _look(self, logs):
        if hasattr(self.model, "first_non_finite"):
            found = self.model.first_non_finite()
            if found is not None:
                step, term = found
                raise FloatingPointError(
                    f"Loss '{term}' was not finite at step {step} (from 0), which updated nothing; "
                    f"{self.model.advise_on_non_finite(_ADVICE)}"
                )
        elif logs and not math.isfinite(float(logs.get("loss", 0.0))):
            raise FloatingPointError(f"The loss of '{self.model.name}' is not finite; {_ADVICE}")


class WarmUp(keras.callbacks.Callback):
    """Raises the weights of a Distiller's distillation losses linearly over the first epochs.

    In epoch e, counted from 0, they are `min((e + 1) / epochs, 1)` of what they were when training began, and when it
    ends they are that again.

    Args:
        epochs: number of epochs until the weights are whole, >= 1.

    Raises:
        ValueError: `epochs` < 1.
    """

    def __init__(self, epochs):
        super().__init__()
        if not is_finite(epochs) or epochs < 1:
            raise ValueError(f"`epochs` must be >= 1, a number. Received: epochs={epochs!r}")
        self.epochs = epochs

    def on_train_begin(self, logs=None):
        self._weights = self.model.distillation_loss_weights

    def on_epoch_begin(self, epoch, logs=None):
        share = min((epoch + 1) / self.epochs, 1.0)
        self.model.distillation_loss_weights = [share * weight for weight in self._weights]

    def on_train_end(self, logs=None):
        # A Distiller that is saved, or trained further, has the weights that it was given.
        self.model.distillation_loss_weights = self._weights


class BackupState(keras.callbacks.Callback):
    """Writes the state of a training, from which it goes on after an interruption to the bits that it would have had.

    The state is all that training changes: variables of the model (of a Distiller, all but those of models that stay as
    they are), of its optimizers and of its metrics, and the place in the data. It is written at the end of each epoch
    and, where asked for, inside epochs. The newest two files are kept; one that is damaged is named, and not used.

    Args:
        directory: folder of this training's checkpoints alone.
        every_steps: number of steps after which the state is written inside an epoch, rounded up to whole executions
            (`steps_per_execution`); None for none.
        every_minutes: minutes after which it is; None for none.
        about: dict of plain data that says which training this is. Checkpoints of another are not used.

    Attributes:
        history: list of dicts of metrics, one of each whole epoch, those before an interruption included.
        seconds: seconds of training so far, those before an interruption included.
        position: `(epoch, step)`: whole epochs, and steps of the epoch after them, that are behind.

    Raises:
        ValueError: `every_steps` or `every_minutes` that is not above 0.

    Example:

    ```python
    backup = BackupState("backup", every_steps=500)
    epoch, step = backup.restore(distiller, held_out)
    while epoch < epochs:
        # The rest of an epoch that was begun has a data set of its own.
        batches = triplet_dataset(images, labels, 128, seed=0, initial_epoch=epoch, initial_step=step)
        distiller.fit(batches, initial_epoch=epoch, epochs=epoch + 1 if step else epochs, callbacks=[backup])
        epoch, step = backup.position
    ```
    """

    def __init__(self, directory, every_steps=None, every_minutes=None, about=None):
        super().__init__()
        for name, value in (("every_steps", every_steps), ("every_minutes", every_minutes)):
            if value is not None and not (is_finite(value) and value > 0):
                raise ValueError(f"`{name}` must be above 0, or None. Received: {name}={value!r}")
        self.every_steps = every_steps
        self.every_minutes = every_minutes
        self.history = []
        self.position = 0, 0
        self._about = about or {}
        self._files = CheckpointFiles(directory)
        self._seconds_before, self._began = 0.0, None
        # Values of the metrics in an epoch that was begun, until Keras has reset them.
        self._metrics = None

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
            ValueError: a checkpoint of another model; one inside an epoch, without `data`.
        """
        checkpoint = self._files.read_newest()
        if checkpoint is None or checkpoint.about["training"] != self._about:
            return self.position
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
        self.history = checkpoint.about["history"]
        self._seconds_before = checkpoint.about["seconds"]
        self.position = checkpoint.epoch, checkpoint.step
        return self.position

    def write(self):
        """Writes the state as it is now: between two steps, or at the end of an epoch."""
        epoch, step = self.position
        variables = _collect_state(self.model) + (self.model.metrics_variables if step else [])
        arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
        about = {"training": self._about, "history": self.history, "seconds": self.seconds}
        self._files.write(epoch, step, arrays, about)
        self._written = time.monotonic(), self._steps

    def remove(self):
        """Removes all checkpoints: of a training that ended, and whose model is saved."""
        self._files.remove()

    def on_train_begin(self, logs=None):
        if self._began is None:
            self._began = time.perf_counter()
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
        # The end of the epoch is written with its validation.
        if batch + 1 < (self.params["steps"] or 0) and self._is_due():
            self.write()

    def _is_due(self):
        written, steps = self._written
        by_steps = self.every_steps is not None and self._steps - steps >= self.every_steps
        return by_steps or (self.every_minutes is not None and time.monotonic() - written >= 60 * self.every_minutes)

    def on_epoch_end(self, epoch, logs=None):
        self.history = [*self.history, {name: float(value) for name, value in logs.items()}]
        self.position = epoch + 1, 0
        self.write()


def _collect_state(model):
    """Returns all variables that training changes, those of metrics aside, each once."""
    # A model that distils says which are its own; of any other, all are.
    own = model.state_variables if hasattr(model, "state_variables") else model.variables
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return list({id(variable): variable for variable in [*own, *model.optimizer.variables]}.values())
