"""Tasks in turn: machines drift, ratios of neighbours less."""

import time

# What tells seconds: the time that passes, or the time that this process computes, on all its threads together. Other
# work on the machine disturbs the second less; it says nothing of how well the cores were used.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Task:
    """Something to be measured: a call of `run` does the work of `images` images."""

    def __init__(self, run, images):
        self.run, self.images = run, images


def alternate(tasks, rounds, clock="wall"):
    """Runs the tasks in turn, `rounds` times after one round of warming up.

    Args:
        tasks: dict name -> `Task`.
        clock: a name in `CLOCKS`.

    Returns:
        dict name -> list of the milliseconds per 128 images in each round.
    """
    return by_all_clocks(tasks, rounds)[clock]


def by_all_clocks(tasks, rounds):
    """What `alternate` returns, by the name of each clock."""
    measured = {clock: {name: [] for name in tasks} for clock in CLOCKS}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            began = {clock: now() for clock, now in CLOCKS.items()}
            task.run()
            for clock, now in CLOCKS.items():
                if turn:
                    measured[clock][name].append(1000 * 128 * (now() - began[clock]) / task.images)
    return measured
