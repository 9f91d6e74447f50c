"""One progress bar."""

import sys
import time

import keras


class Progress:
    """Images done, of so many: one bar on a terminal, at most about ten lines elsewhere."""

    def __init__(self, title, done, total):
        print(f"{title}, {done:,} are there" if done else title, flush=True)
        self.done, self.total = done, total
        self._bar = keras.utils.Progbar(total, unit_name="image", interval=0.2) if sys.stdout.isatty() else None
        self._line, self._began, self._before = done, time.perf_counter(), done

    def add(self, images):
        self.done += images
        if self._bar:
            self._bar.update(self.done)
        elif self.done == self.total or self.done - self._line >= self.total / 10:
            self._line = self.done
            seconds = time.perf_counter() - self._began
            print(f"  {self.done:,}/{self.total:,} images  {seconds:.1f} s", flush=True)
