"""One progress bar."""

import sys
import time

import keras

__all__ = ["Progress"]


class Progress:
    """Shows how far a long piece of work is: one bar on a terminal, at most about ten lines elsewhere.

    Args:
        title: what is done; printed first.
        done: how much of it was done before.
        total: how much of it there is.
        unit: what is counted.
        names: of the values that `report` is given.
        shown: False shows nothing.
    """

    def __init__(self, title, done, total, unit="image", names=(), shown=True):
        self.done, self.total, self.unit = done, total, unit
        self._shown, self._bar = shown, None
        if shown:
            print(f"{title}, {done:,} are there" if done else title, flush=True)
        if shown and sys.stdout.isatty():
            # Values are shown as they are; Keras would show the mean over all updates.
            self._bar = keras.utils.Progbar(total, unit_name=unit, stateful_metrics=list(names), interval=0.2)
        self._printed, self._began = done, time.perf_counter()

    def add(self, count):
        """Reports that so many more units are done."""
        self.report(self.done + count)

    def move(self, done):
        """Moves the bar to so many units; where there is none, nothing is printed."""
        self.done = done
        if self._bar:
            self._bar.update(done)

    def report(self, done, values=(), line=None):
        """Moves the bar to so many units, or prints a line where a tenth was done since the last one, or all is done.

        Args:
            done: units that are done, those of before included.
            values: list of `(name, number)`, which the bar shows.
            line: text of the line; units and seconds, if not given.
        """
        self.done = done
        if self._bar:
            self._bar.update(done, list(values))
        elif self._shown and (done == self.total or done - self._printed >= self.total / 10):
            self._printed = done
            seconds = time.perf_counter() - self._began
            print(f"  {line or f'{done:,}/{self.total:,} {self.unit}s  {seconds:.1f} s'}", flush=True)

    def close(self):
        """Ends the line of a bar whose work ended before all was done."""
        if self._bar and self.done < self.total:
            self._bar.update(self.done, finalize=True)
