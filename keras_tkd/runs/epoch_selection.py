"""Choice of the epoch whose weights count, and early stopping: by the accuracy on validation images alone."""

import keras

from keras_tkd.utils.checkpoint_files import CheckpointFiles

__all__ = ["EpochSelection", "find_best_epoch"]

_FOLDER = "best"
_ACCURACY = "val_accuracy"


def find_best_epoch(history):
    """Returns the first epoch, from 1, with the highest validation accuracy; 0 where there is no epoch.

    Args:
        history: list of dicts of metrics, one of each epoch.
    """
    accuracies = [epoch[_ACCURACY] for epoch in history]
    return accuracies.index(max(accuracies)) + 1 if accuracies else 0


class EpochSelection(keras.callbacks.Callback):
    """Ends a training that gets no better, and keeps the weights of the best epoch for its end.

    What it decides is a function of the history of the training's `BackupState` alone, so that a training which is
    taken up ends as if it had not been interrupted. It stands before that among the callbacks: the weights of an epoch
    are on disk before the training has that epoch behind it.

    Args:
        config: the training's configuration; `select` says whether the best epoch counts or the last, and
            `early_stopping_patience` after how many epochs without a better one the training ends, None for never.
        stage: the `Stage`, in whose folder of checkpoints the weights are kept.
        models: the models whose weights they are, as the run saves them.
        backup: the training's `BackupState`.
    """

    def __init__(self, config, stage, models, backup):
        super().__init__()
        self._patience = config.early_stopping_patience
        self._selects = config.select == "best_validation"
        self._epochs = config.epochs
        self._variables = [variable for model in models for variable in model.variables]
        self._settings, self._backup = stage.settings, backup
        self._files = CheckpointFiles(stage.checkpoints / _FOLDER)

    @property
    def is_over(self):
        """True if the epochs that the training has behind it end it."""
        return self._ends(self._backup.history)

    def on_train_begin(self, logs=None):
        # Now, and not after hours: by then it is an error.
        history = self._backup.history
        if not self._selects or not history:
            return
        kept, best = self._read_own(), find_best_epoch(history)
        # Of a training that was killed before a state was written, the newest are of the epoch that comes next.
        if kept is None or (kept.epoch != best and kept.epoch <= len(history)):
            print(
                f"\nWarning: the weights of epoch {best}, the best so far, are not in {self._files.folder}. Unless a "
                "later epoch is better, the training has to be done again: to begin anew now, stop it and remove "
                f"{self._files.folder.parent}",
                flush=True,
            )

    def on_epoch_end(self, epoch, logs=None):
        history = [*self._backup.history, logs]
        if self._selects and find_best_epoch(history) == len(history):
            arrays = [keras.ops.convert_to_numpy(variable) for variable in self._variables]
            self._files.write(len(history), 0, arrays, {"settings": self._settings})
        if self._ends(history):
            self.model.stop_training = True

    def finish(self):
        """Puts the weights of the epoch that counts into the models, and says which it is where it is not the last.

        Raises:
            ValueError: they are not in the files: more of these are damaged than there are spare ones.
        """
        history = self._backup.history
        best = find_best_epoch(history)
        if self.is_over and len(history) < self._epochs:
            print(f"Ended early: in {self._patience} epochs none was better than epoch {best}", flush=True)
        if not self._selects:
            return
        kept = self._read_own()
        if kept is None or kept.epoch != best:
            raise ValueError(
                f"The weights of epoch {best}, the best of {len(history)} by the validation images, are not in "
                f"{self._files.folder}: files there are damaged or missing. Remove {self._files.folder.parent}, and "
                "the training is done again"
            )
        for variable, array in zip(self._variables, kept.arrays, strict=True):
            variable.assign(array)
        accuracy = history[best - 1][_ACCURACY]
        print(f"Of {len(history)} epochs, epoch {best} counts: validation accuracy {accuracy:.2%}", flush=True)

    def _read_own(self):
        """Returns the newest weights of this training, a `Checkpoint`; None where there are none."""
        kept = self._files.read_newest()
        return kept if kept is not None and kept.about == {"settings": self._settings} else None

    def remove(self):
        """Removes the weights that were kept, once the models are saved."""
        self._files.remove()

    def _ends(self, history):
        return self._patience is not None and len(history) - find_best_epoch(history) >= self._patience
