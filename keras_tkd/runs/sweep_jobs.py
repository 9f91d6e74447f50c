"""Runs of a comparison, one after another in this process, or several at once in processes of their own."""

import contextlib
import dataclasses
import gc
import sys
import time
import traceback

from keras_tkd.runs import commands
from keras_tkd.runs.chance import AtChanceError
from keras_tkd.runs.layout import RESULTS
from keras_tkd.runs.processes import WorkerProcess, interrupt_on_exit
from keras_tkd.utils.files import read_json

__all__ = ["Failure", "execute", "run_all"]

_WORKER = "keras_tkd.runs.sweep_worker"
_OUTPUT = "output"
# Of a training that was stopped at chance. A folder's runs share their settings: others have another folder.
_AT_CHANCE = (
    "Lower --learning_rate, of a teacher --teacher_learning_rate, or clip gradients (--clip_norm=1), for all methods "
    "and in another --workdir; or give the method's losses less weight, in --methods: kd:0.5. To go on all the same, "
    "pass --at_chance=warn"
)
_POLL = 0.1  # seconds between two looks at processes


@dataclasses.dataclass(frozen=True)
class Failure:
    """A run that did not end as it should.

    Attributes:
        message: one line that says why.
        status: as in `ComparedRun`: `"failed"`; `"collapsed"`, stopped at chance; `"waiting"`, left out, for it builds
            on another that ended in a `Failure`.
    """

    message: str
    status: str = "failed"


def run_all(steps, outcomes, folder, parallel):
    """Runs the steps of a comparison; what fails stops those alone that build on it.

    Args:
        steps: list of `Step`, none before one that it builds on.
        outcomes: dict from the folder of a step that has ended to its results, or to its `Failure`. The caller adds
            those that are yielded.
        folder: the comparison's; what the runs print is written there, in `output/`.
        parallel: number of runs at once.

    Yields:
        `(step, outcome, seconds)` of each run, as it ends; seconds are None of one that was left out.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the runs that were going on have written their state.
    """
    (folder / _OUTPUT).mkdir(exist_ok=True)
    waiting, running = list(steps), []
    workers = _Here() if parallel == 1 else _Processes(parallel)
    with contextlib.closing(workers), interrupt_on_exit(running):
        while waiting or running:
            for step in list(waiting):
                # Only once all have ended: which of them ends first is a matter of chance.
                if not all(path in outcomes for path in step.needs):
                    continue
                failed = [path for path in step.needs if isinstance(outcomes[path], Failure)]
                if failed:
                    waiting.remove(step)
                    which = " and ".join(str(path.relative_to(folder)) for path in failed)
                    yield step, Failure(f"left out, for it builds on {which}", "waiting"), None
                elif len(running) < parallel:
                    waiting.remove(step)
                    running.append(workers.start(step, _get_output(step, folder)))
            ended = [job for job in running if job.has_ended()]
            for job in ended:
                running.remove(job)
                yield job.step, job.read_outcome(), job.seconds
            if not ended and running:
                time.sleep(_POLL)


def execute(command, config, path):
    """Runs one step; returns its results, or the `Failure` that it ended in, of which the traceback is printed.

    Args:
        command: name of the command.
        config: its configuration.
        path: its folder.
    """
    try:
        return getattr(commands, command)(config, path)
    except Exception as error:  # whatever it is, the others go on
        traceback.print_exc(file=sys.stdout)
        if isinstance(error, AtChanceError):
            return Failure(" ".join(f"{error.finding} {_AT_CHANCE}".split()), "collapsed")
        return Failure(" ".join(f"{type(error).__name__}: {error}".split()))


def _get_output(step, folder):
    """Returns the path of the file that holds what a run prints."""
    return folder / _OUTPUT / f"{'_'.join(step.path.relative_to(folder).parts)}.txt"


class _Here:
    """Runs steps in this process."""

    def start(self, step, output):
        return _EndedRun(step, output)

    def close(self):
        pass


class _EndedRun:
    """A run in this process, which has ended once it is made."""

    def __init__(self, step, output):
        self.step, began = step, time.perf_counter()
        with open(output, "a", buffering=1, encoding="utf-8") as file, contextlib.redirect_stdout(file):
            self._outcome = execute(step.command, step.config, step.path)
        self.seconds = time.perf_counter() - began
        # Models and their graphs refer to each other, and take memory until somebody looks.
        gc.collect()

    def has_ended(self):
        return True

    def read_outcome(self):
        return self._outcome

    def kill(self):
        pass

    interrupt = wait = kill


class _Processes:
    """Runs steps in processes, each of which takes one after another: to begin a process takes longer than some runs.

    Args:
        parallel: number of processes at once.
    """

    def __init__(self, parallel):
        self._parallel, self._free = parallel, []

    def start(self, step, output):
        worker = self._free.pop() if self._free else WorkerProcess(_WORKER, output, self._parallel)
        return _Run(step, output, worker, self._free)

    def close(self):
        for worker in self._free:
            worker.kill()


class _Run:
    """A run in another process.

    Args:
        worker: the `WorkerProcess`.
        free: list to which the worker is added once it can run another step.
    """

    def __init__(self, step, output, worker, free):
        self.step, self._worker, self._free, self._began = step, worker, free, time.perf_counter()
        worker.output = output
        worker.send((step.command, step.config, step.path, output))
        self.interrupt, self.wait, self.kill = worker.interrupt, worker.wait, worker.kill

    def has_ended(self):
        # At its end there is something to receive, too: that there will be nothing more.
        return self._worker.connection.poll()

    @property
    def seconds(self):
        return time.perf_counter() - self._began

    def read_outcome(self):
        try:
            failure = self._worker.connection.recv()
        except (EOFError, ConnectionResetError):
            return Failure(self._worker.read_error() or f"its process ended; see {self._worker.output}")
        self._free.append(self._worker)
        return failure or read_json(self.step.path / RESULTS)
