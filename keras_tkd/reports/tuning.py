"""Tunings: the schema of `tuning.json`, its table of trials, and how its best settings are told. No TensorFlow here."""

import csv
import dataclasses
import io

from keras_tkd.reports.fields import check_kinds
from keras_tkd.reports.versions import read_versioned

__all__ = ["Outcome", "STATUSES", "TUNING_VERSION", "TunedTrial", "Tuning", "format_trials", "read_tuning"]

# Raise it when a field changes its meaning or its name, or goes.
TUNING_VERSION = 1

STATUSES = ("finished", "pruned", "collapsed", "failed")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of the trainings of a trial.

    Attributes:
        accuracies: share of the validation images, 0..1, of each seed that was trained to its end.
        status: `"finished"`; `"pruned"`, ended early; `"collapsed"`, at chance; `"failed"`.
        error: one line that says why it collapsed or failed.
    """

    accuracies: tuple[float, ...] = ()
    status: str = "finished"
    error: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunedTrial:
    """One trial of a tuning. Accuracies are shares of the validation images, 0..1.

    Attributes:
        method: as it was given.
        number: of the trial among its method's, from 0.
        status, error, accuracies: as in `Outcome`.
        accuracy: mean over the seeds; None unless finished.
        seconds: that it took; of one that was interrupted, from where it was taken up.
        settings: dict from a name of its space to its value.
    """

    method: str
    number: int
    status: str
    error: str | None = None
    accuracy: float | None = None
    accuracies: tuple[float, ...] = ()
    seconds: float
    settings: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """The content of `tuning.json`.

    Attributes:
        version: number of this schema.
        methods: those that are tuned, as they were given, the student alone first.
        trials: number of trials of each method.
        seeds: of the students of every trial.
        sampler_seed: of the sampler, and of the teacher's training.
        validation_fraction: share of the training images that trials are judged by.
        validation_samples: their number.
        flags: lines of a flagfile with what all methods share.
        spaces: dict from a method to a dict from a name to `(low, high)`.
        results: all trials that have ended, method by method. The file has the number of each method's best beside
            them, `best`.
        data: dict from what of the images and labels is used to its hash.
        versions: of Python, packages and machine.
    """

    version: int = TUNING_VERSION
    methods: tuple[str, ...]
    trials: int
    seeds: tuple[int, ...]
    sampler_seed: int
    validation_fraction: float
    validation_samples: int
    flags: tuple[str, ...]
    spaces: dict[str, dict[str, tuple[float, ...]]]
    results: tuple[TunedTrial, ...] = ()
    data: dict[str, str]
    versions: dict

    def to_dict(self):
        """Returns what the file says, as plain data."""
        best = {method: self.find_best(method) for method in self.methods}
        return dataclasses.asdict(self) | {"best": {method: trial and trial.number for method, trial in best.items()}}

    def add_trial(self, trial):
        """Returns the tuning with one trial more, in its place: that of its method, and of its number in that."""
        results = sorted((*self.results, trial), key=lambda each: (self.methods.index(each.method), each.number))
        return dataclasses.replace(self, results=tuple(results))

    def list_trials(self, method):
        """Returns the trials of a method that have ended, in their order."""
        return [trial for trial in self.results if trial.method == method]

    def find_best(self, method):
        """Returns a method's finished trial of the highest accuracy, the first of several; None where none is."""
        finished = [trial for trial in self.list_trials(method) if trial.status == "finished"]
        return max(finished, key=lambda trial: trial.accuracy, default=None)


def read_tuning(path):
    """Returns the `Tuning` of a file; None where there is no file.

    Raises:
        ValueError: the file holds something else, or is of a later version; the message names it.
    """
    return read_versioned(path, TUNING_VERSION, "tuning", _parse_tuning)


def _parse_tuning(values):
    del values["best"]
    check_kinds(Tuning, values)
    results = []
    for trial in values.pop("results"):
        check_kinds(TunedTrial, trial)
        results.append(TunedTrial(**trial | {"accuracies": tuple(trial["accuracies"])}))
    spaces = {
        method: {name: tuple(ends) for name, ends in space.items()} for method, space in values.pop("spaces").items()
    }
    tuples = {name: tuple(values.pop(name)) for name in ("methods", "seeds", "flags")}
    return Tuning(**values, **tuples, spaces=spaces, results=tuple(results))


def format_trials(tuning):
    """Returns a table of all trials as CSV, one a line: a column for each setting of any method."""
    settings = dict.fromkeys(name for space in tuning.spaces.values() for name in space)
    names = ["method", "number", "status", "accuracy", *settings, "seconds", "error"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    # What a method does not have is an empty cell.
    writer.writerows(dataclasses.asdict(trial) | trial.settings for trial in tuning.results)
    return text.getvalue()
