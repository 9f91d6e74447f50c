"""Studies of a tuning, one after another in this process, or several at once in processes of their own."""

import contextlib
import dataclasses
import multiprocessing.connection
import pathlib

from keras_tkd.config import DistillConfig
from keras_tkd.runs.processes import WorkerProcess, interrupt_on_exit
from keras_tkd.runs.sweep_plan import name_folder
from keras_tkd.runs.tuning_space import Parameter, apply_values
from keras_tkd.runs.tuning_trials import evaluate_trial

__all__ = ["JOURNAL", "OUTPUT", "Study", "redirect_output", "run_studies", "run_trials"]

JOURNAL = "study.journal"
OUTPUT = "output"
_WORKER = "keras_tkd.runs.tuning_worker"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """The search of one method's settings, as plain data that another process can be sent.

    Attributes:
        method: its name.
        config: what its trials share, their teacher included.
        space: dict from the name of a setting to its `Parameter`.
        folder: the tuning's.
        trials: number of trials.
        seeds: of the students of each trial.
        sampler_seed: of the search.
    """

    method: str
    config: DistillConfig
    space: dict[str, Parameter]
    folder: pathlib.Path
    trials: int
    seeds: tuple[int, ...]
    sampler_seed: int


def run_studies(studies, splits, parallel):
    """Runs the trials that studies lack.

    The trials of a study come one after another, for each is chosen by how those before it ended. No study reads
    another: they find the same, however many are going on.

    Args:
        studies: list of `Study`.
        splits: the tuning's `Splits`; processes of their own load them themselves.
        parallel: number of studies at once.

    Yields:
        `(trial, new)` as `run_study` does: those of a study in their order.

    Raises:
        ChildProcessError: a process of its own failed, for want of memory, say; the others have written their state.
        OSError, KeyboardInterrupt: as `evaluate_trial`, and Ctrl-C or SIGTERM.
    """
    if parallel == 1:
        for study in studies:
            yield from run_trials(study, splits)
        return
    waiting, running = list(studies), []
    with interrupt_on_exit(running):
        while waiting or running:
            while waiting and len(running) < parallel:
                running.append(_Process(waiting.pop(0), parallel))
            ready = multiprocessing.connection.wait([job.connection for job in running])
            for job in [job for job in running if job.connection in ready]:
                try:
                    yield job.connection.recv()
                except EOFError:
                    running.remove(job)
                    job.check()


def run_trials(study, splits):
    """Runs the trials that one study lacks, in this process; yields as `run_study` does."""
    # Optuna is an extra, of which nothing is imported before it is known to be there.
    from keras_tkd.runs.tuning_study import run_study

    path = study.folder / name_folder(study.method)
    # Of each method its own: no other process writes there.
    path.mkdir(parents=True, exist_ok=True)

    def evaluate(number, values, report):
        config = apply_values(study.config, values)
        with redirect_output(study.folder, path.name):
            return evaluate_trial(config, path / f"trial{number}", study.seeds, splits, report)

    yield from run_study(
        study.method,
        path / JOURNAL,
        study.space,
        trials=study.trials,
        seed=study.sampler_seed,
        # Before a third of a training, accuracies tell how fast a learning rate begins, and little of its end.
        warmup_steps=study.config.epochs // 3,
        evaluate=evaluate,
    )


@contextlib.contextmanager
def redirect_output(folder, name):
    """Sends what is printed to a file of the tuning."""
    with open(_name_output(folder, name), "a", buffering=1, encoding="utf-8") as file, contextlib.redirect_stdout(file):
        yield


def _name_output(folder, name):
    return folder / OUTPUT / f"{name}.txt"


class _Process(WorkerProcess):
    """A study in a process of its own."""

    def __init__(self, study, parallel):
        self._method = study.method
        super().__init__(_WORKER, _name_output(study.folder, name_folder(study.method)), parallel)
        self.send(study)

    def check(self):
        """Raises `ChildProcessError` if it did not end as it should."""
        error = self.read_error()
        if error is not None:
            raise ChildProcessError(f"{self._method}: {error}. The same command goes on with the tuning")
