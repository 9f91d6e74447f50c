"""Alternating timings in one process: machines drift, ratios of neighbours less."""

import statistics
import time


def alternate(tasks, rounds):
    """Runs the tasks in turn, `rounds` times after one round of warming up; seconds of each run, dict name -> list."""
    seconds = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            began = time.perf_counter()
            task()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def median_ratio(numerators, denominators):
    """Median over rounds of the ratio of two lists of seconds measured in the same rounds."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))
