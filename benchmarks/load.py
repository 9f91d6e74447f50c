"""Trains on digits for 20,000 steps with all that a run logs, and holds memory, open files and logs to their bounds.

python benchmarks/load.py
python benchmarks/load.py --steps=4000 --method=crd

A run as `scripts/distill.py` makes it: TensorBoard, its progress, its history, checkpoints inside epochs. What the
process holds after 500 steps, when everything has happened once, must be what it holds at the end. Ends with an error
where a bound is broken; times are shown, and judged by nobody. Linux alone, which says in /proc what a process holds.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras  # noqa: E402

SETTLED = 500  # steps
MEMORY_GROWTH = 0.02
LOG_BYTES = 1000  # for each step: 20 MB for 20,000
BATCH = 64


@dataclasses.dataclass(frozen=True)
class Held:
    """What the process held after `steps` steps: resident bytes of memory, and open files."""

    steps: int
    memory: int
    files: int


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a run was measured to be.

    Attributes:
        first, last: `Held` once things have settled, and at the end.
        step_seconds: medians over the first and the last tenth of the steps.
        log_bytes: size of TensorBoard's files.
    """

    first: Held
    last: Held
    step_seconds: tuple[float, float]
    log_bytes: int

    @property
    def growth(self):
        """Growth of memory from `first` to `last`, as a share."""
        return self.last.memory / self.first.memory - 1


def hold():
    """Returns `(resident bytes, open files)` of this process."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    # One of the files is the folder that is being listed.
    return pages * os.sysconf("SC_PAGE_SIZE"), len(os.listdir("/proc/self/fd")) - 1


class Watch(keras.callbacks.Callback):
    """Times the steps of a training, and notes after each epoch, once things have settled, what the process holds."""

    def __init__(self):
        super().__init__()
        self.seconds, self.held, self._steps = [], [], 0

    def on_train_batch_begin(self, batch, logs=None):
        self._first, self._began = batch, time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        # Several steps make an execution, of which the last of an epoch may have fewer than Keras counts.
        steps = min(batch + 1, self.params["steps"]) - self._first
        self.seconds.append((time.perf_counter() - self._began) / steps)
        self._steps += steps

    def on_epoch_end(self, epoch, logs=None):
        if self._steps >= SETTLED:
            self.held.append(Held(self._steps, *hold()))


def train(method, steps, folder):
    """Trains a teacher, and a student by a method for at least so many steps; returns the `Figures`."""
    from keras_tkd import data
    from keras_tkd.config import DistillConfig, TeacherTrainingConfig
    from keras_tkd.data.options import count_batches
    from keras_tkd.runs import commands

    common = {"dataset": "digits", "batch_size": BATCH, "learning_rate": 0.02}
    commands.train_teacher(TeacherTrainingConfig(**common, epochs=20), folder / "teacher")
    epochs = count_batches(steps, count_batches(len(data.load("digits").train_labels), BATCH))
    settings = {"method": method, "epochs": epochs, "checkpoint_steps": 10}
    if method != "baseline":
        settings |= {"baseline": "none"}
        settings |= {"teacher_path": str(folder / "teacher"), "teacher_cache": "off"}
    watch = Watch()
    commands.distill(DistillConfig(**common | settings), folder / "run", callbacks=[watch])
    tenth = max(len(watch.seconds) // 10, 1)
    logs = (folder / "run" / "logs").rglob("events.*")
    return Figures(
        watch.held[0],
        watch.held[-1],
        tuple(map(statistics.median, (watch.seconds[:tenth], watch.seconds[-tenth:]))),
        sum(path.stat().st_size for path in logs),
    )


def find_broken(figures):
    """Returns the bounds that a run broke, a sentence each."""
    broken = []
    if figures.growth >= MEMORY_GROWTH:
        broken.append(f"Memory grew by {figures.growth:.2%}, and may grow by less than {MEMORY_GROWTH:.0%}")
    if figures.last.files != figures.first.files:
        broken.append(f"{figures.first.files} files were open, and are now {figures.last.files}")
    if figures.log_bytes >= LOG_BYTES * figures.last.steps:
        broken.append(
            f"TensorBoard's logs hold {figures.log_bytes:,} bytes, and may hold less than {LOG_BYTES:,} for each of "
            f"{figures.last.steps:,} steps"
        )
    return broken


def show(figures):
    """Prints the figures of a run."""
    first, last = figures.first, figures.last
    print(f"steps       {first.steps:15,} {last.steps:15,}")
    print(f"memory      {first.memory:15,} {last.memory:15,} bytes  {figures.growth:+.2%}")
    print(f"open files  {first.files:15,} {last.files:15,}")
    print(f"logs        {'':15} {figures.log_bytes:15,} bytes")
    times = [f"{1000 * seconds:15.2f}" for seconds in figures.step_seconds]
    print(f"a step      {times[0]} {times[1]} milliseconds, medians of the first and the last tenth")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help=f"steps of the training, {2 * SETTLED} or more")
    parser.add_argument("--method", default="tkd", help="a method that is given its teacher, or baseline")
    arguments = parser.parse_args()
    if arguments.steps < 2 * SETTLED:
        parser.error(f"--steps must be {2 * SETTLED} or more. Received: {arguments.steps}")
    with tempfile.TemporaryDirectory() as folder:
        figures = train(arguments.method, arguments.steps, pathlib.Path(folder))
    show(figures)
    sys.exit("\n".join(find_broken(figures)) or None)


if __name__ == "__main__":
    main()
