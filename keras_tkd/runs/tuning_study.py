"""One study of Optuna: which settings are tried next, which trials are ended early, and where all of it is kept."""

import dataclasses
import json
import os
import pathlib
import statistics
import time
import zlib

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from keras_tkd.reports.tuning import TunedTrial
from keras_tkd.utils.files import read_bytes

__all__ = ["run_study"]

# So many trials are drawn at random, and end by themselves, before earlier ones say anything of others.
_FIRST_TRIALS = 5


def run_study(name, path, parameters, *, trials, seed, warmup_steps, evaluate):
    """Runs the trials of one method that its journal does not have, and gives all of them in their order.

    The first trial has the method's own settings. The settings of any other are a function of `seed`, of its number and
    of how the trials before it ended: a study that was interrupted suggests what it would have suggested. A trial that
    was going on is taken up under its number, with its settings and with what it reported.

    Args:
        name: the study's.
        path: Optuna's journal file, which several studies share, in a folder that no other process writes to.
        parameters: dict from a name to its `Parameter`.
        trials: number of trials in all.
        seed: of the sampler.
        warmup_steps: reports of a trial before it may be pruned.
        evaluate: function `(number, values, report) -> Outcome`. It calls `report(step, accuracy)`, which returns
            whether the trial is to end.

    Yields:
        `(trial, new)`: a `TunedTrial`, and whether it was run just now.

    Raises:
        ValueError: a journal that is damaged; the message names it.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_lines(path)
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(path)))
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            direction="maximize",
            load_if_exists=True,
            sampler=_Sampler(parameters, seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_FIRST_TRIALS, n_warmup_steps=warmup_steps),
        )
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                _describe(name, trial, parameters)
    except OSError:
        raise
    except Exception as error:  # of whatever Optuna makes of entries that it did not write
        raise _explain_damage(path, f"{type(error).__name__}: {error}") from error
    for number in range(trials):
        found = study.get_trials(deepcopy=False)
        new = number == len(found) or not found[number].state.is_finished()
        if new:
            _run_trial(study, _open_trial(study, storage, number, len(found)), parameters, evaluate)
            found = study.get_trials(deepcopy=False)
        yield _describe(name, found[number], parameters), new


def _open_trial(study, storage, number, count):
    """Returns the trial of a number: a new one, or the one of `count` that there are which was interrupted."""
    if number == count:
        return study.ask()
    # `ask` knows no trial that is going on.
    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def _run_trial(study, trial, parameters, evaluate):
    for name, each in parameters.items():
        trial.suggest_float(name, each.low, each.high, log=each.log)
    # An epoch that was reported, and of which no state was written, is trained again when the trial is taken up.
    reported = set(study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def report(step, accuracy):
        # Of a trial that is to end nothing more is told to the sampler: one that was interrupted then trains an epoch
        # more when it is taken up.
        if step not in reported and not trial.should_prune():
            reported.add(step)
            trial.report(accuracy, step)
        return trial.should_prune()

    began = time.perf_counter()
    outcome = evaluate(trial.number, _round(trial.params, parameters), report)
    # Before `tell`, after which a trial is done: one that has no outcome yet is taken up.
    for key, value in dataclasses.asdict(outcome).items():
        trial.set_user_attr(key, value)
    trial.set_user_attr("seconds", round(time.perf_counter() - began, 2))
    if outcome.status == "finished":
        study.tell(trial, statistics.mean(outcome.accuracies))
    else:
        # A trial that failed is for the sampler what one is that was pruned: a region to stay away from. As one that
        # Optuna calls failed it would tell nothing, and the next might be the same.
        study.tell(trial, state=TrialState.PRUNED)


def _describe(name, trial, parameters):
    attributes = trial.user_attrs
    accuracies = tuple(attributes["accuracies"])
    finished = attributes["status"] == "finished"
    return TunedTrial(
        method=name,
        number=trial.number,
        status=attributes["status"],
        error=attributes["error"],
        accuracy=statistics.mean(accuracies) if finished else None,
        accuracies=accuracies,
        seconds=attributes["seconds"],
        settings=_round(trial.params, parameters),
    )


def _round(values, parameters):
    return {name: each.round(values[name]) for name, each in parameters.items()}


class _Sampler(optuna.samplers.BaseSampler):
    """Parzen estimators (TPE) whose random numbers are those of a trial and a name, however often they are drawn."""

    def __init__(self, parameters, seed):
        self._parameters, self._seed = parameters, seed

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        start = self._parameters[param_name].start
        if trial.number == 0 and param_distribution.low <= start <= param_distribution.high:
            return start
        # The state of one generator for all trials would be lost with the process.
        seed = zlib.crc32(f"{self._seed}/{study.study_name}/{trial.number}/{param_name}".encode())
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_FIRST_TRIALS, multivariate=False, constant_liar=False
        )
        return sampler.sample_independent(study, trial, param_name, param_distribution)


def _check_lines(path):
    """Cuts off a line of the journal that a power cut left unfinished; raises `ValueError` for any other damage.

    Optuna would read no line behind a torn one, and leaves out the last of all where that is damaged.
    """
    # A process that was killed while it wrote leaves its lock, for which Optuna would wait half a minute.
    pathlib.Path(f"{path}.lock").unlink(missing_ok=True)
    if not path.exists():
        return
    content = read_bytes(path)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        # In place: of a file that is written anew, a kill could leave nothing.
        os.truncate(path, whole)
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _explain_damage(path, f"line {number} holds no JSON ({error})") from error
        if not isinstance(entry, dict):
            raise _explain_damage(path, f"line {number} must hold a JSON object, and holds a {type(entry).__name__}")


def _explain_damage(path, why):
    return ValueError(
        f"{path} is damaged: {why}. Put it back, or remove it: the same command then makes it again, of the trainings "
        "that the folder holds"
    )
