"""Progress of a comparison, and an estimate of what is left."""

import statistics

from keras_tkd.reports.comparison import ComparedRun
from keras_tkd.runs.sweep_plan import TEACHER

__all__ = ["SweepProgress", "estimate_seconds", "format_duration"]


class SweepProgress:
    """Prints a line for each run that ends, with how long those that are left may take.

    Args:
        steps: all `Step`s of the comparison.
        found: dict from the folder of a step to its results, or to the `Failure` of one that is not tried again; None
            of one that is to be done.
        folder: the comparison's.
        parallel: number of runs at once.
    """

    def __init__(self, steps, found, folder, parallel):
        self._total, self._parallel = len(steps), parallel
        self._left = [step for step in steps if found[step.path] is None]
        # What earlier comparisons trained tells how long trainings take here.
        self._seconds = {}
        for step in steps:
            # How long one took that was stopped is not known, nor how long it would have taken.
            if isinstance(found[step.path], dict):
                self._seconds.setdefault(step.method, []).append(found[step.path]["train"]["seconds"])
        there = self._total - len(self._left)
        known = f", {there} of which are there" if there else ""
        print(f"{self._total} runs{known}, in {folder}{self._say_left()}", flush=True)

    def report(self, step, run: ComparedRun, seconds):
        """Prints the line of a run that has ended.

        Args:
            step: its `Step`.
            run: what it ended in.
            seconds: that it took; None of one that was left out.
        """
        self._left.remove(step)
        if seconds is not None:
            self._seconds.setdefault(step.method, []).append(seconds)
        ended = run.error if run.error else f"{100 * run.test_accuracy:.2f} %"
        if run.status != "finished":
            ended = f"{run.status.upper()}: {ended}"
        took = "" if seconds is None else f" in {format_duration(seconds)}"
        done = self._total - len(self._left)
        print(f"  {done}/{self._total}  {step.title}: {ended}{took}{self._say_left()}", flush=True)

    def close(self, seconds):
        """Prints how long all of it took."""
        print(f"All runs ended, after {format_duration(seconds)}", flush=True)

    def _say_left(self):
        seconds = estimate_seconds(self._seconds, [step.method for step in self._left], self._parallel)
        return f"; about {format_duration(seconds)} left" if seconds else ""


def estimate_seconds(done, left, parallel=1):
    """Estimates how long runs will take; None where nothing is known.

    A run is taken to last as long as those of its method did on average, and one of a method of which none has ended as
    long as a run of any method does.

    Args:
        done: dict from a method to the seconds that its runs took.
        left: the method of each run that is left.
        parallel: number of runs at once.
    """
    means = {method: statistics.mean(seconds) for method, seconds in done.items() if seconds}
    students = [mean for method, mean in means.items() if method != TEACHER] or list(means.values())
    if not students:
        return None
    return sum(means.get(method, statistics.mean(students)) for method in left) / parallel


def format_duration(seconds):
    """Returns seconds as text with the two largest units: `41 s`, `3 min 20 s`, `2 h 5 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"
