"""Workers that share something out, as threads of one process."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np


class WorkerThread:
    """One of several workers, with what of a run's `Cluster` others use."""

    def __init__(self, index, count, barrier, given):
        self.share, self.is_chief = (index, count), index == 0
        self._barrier, self._given = barrier, given
        self.gathered = 0  # how often

    def _meet(self, value):
        self._given[self.share[0]] = value
        self._barrier.wait(60)
        met = list(self._given)
        self._barrier.wait(60)
        return met

    def exchange(self, text):
        return self._meet(text)

    def gather_rows(self, rows):
        self.gathered += 1
        return np.concatenate(self._meet(rows))


def run_workers(count, work):
    """Returns what `work(worker)` returns in each of `count` threads; an error in one ends all, and is raised."""
    barrier, given = threading.Barrier(count), [None] * count

    def run(index):
        try:
            return work(WorkerThread(index, count, barrier, given))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run, index) for index in range(count)]
    errors = [error for future in futures if (error := future.exception()) is not None]
    # Of the others it is that they were left alone.
    for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
        raise error
    return [future.result() for future in futures]
