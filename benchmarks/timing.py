"""Tasks in turn: machines drift, ratios of neighbours less."""

import time

# Two ways to count seconds: the time that passes, or the time that this process computes, on all its threads together.
# Other work on the machine disturbs the second less; it says nothing of how well the cores were used.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


class Task:
    """Work to be measured: a call of `run` processes `images` images."""

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
    return alternate_by_all_clocks(tasks, rounds)[clock]


def alternate_by_all_clocks(tasks, rounds):
    """Runs the tasks as `alternate` does; returns its result for each clock, in a dict by the clock's name."""
    measured = {clock: {name: [] for name in tasks} for clock in CLOCKS}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            began = {clock: now() for clock, now in CLOCKS.items()}
            task.run()
            for clock, now in CLOCKS.items():
                if turn:
                    measured[clock][name].append(1000 * 128 * (now() - began[clock]) / task.images)
    return measured
