"""Appends rows to a teacher cache so that whatever ends the writing leaves rows that can be used."""

import contextlib
import os
import time

import numpy as np

from keras_tkd.teacher_cache.checksums import extend_checksums

__all__ = ["RowWriter"]

# Waiting for the disk costs time, and rows that were not recorded are computed again: at most those of ten seconds.
_RECORD_SECONDS = 10.0


class RowWriter:
    """Appends rows to the outputs of a cache, after those that are written. A context manager.

    Rows that were appended before the block ends, for whatever reason, are kept.

    Args:
        files: `CacheFiles` with a manifest, locked for writing.

    Raises:
        ValueError: on entry, a file that holds fewer rows than are recorded, or others.
        OSError: on entry, too little space on the disk; later, whatever the system refuses.
    """

    def __init__(self, files):
        self._files = files

    def __enter__(self):
        self._progress = self._files.progress
        rows = self._progress["rows"]
        if rows:
            # Now, and not when the cache is finished and opened: the teacher may run for hours before.
            self._files.check_sizes(rows)
            self._files.check_checksums()
        self._files.check_space(rows)
        with contextlib.ExitStack() as stack:
            names = self._files.manifest["outputs"]
            self._outputs = {name: stack.enter_context(self._open(name)) for name in names}
            # Closed by `__exit__` from here on; until here, an error closes those that are open.
            self._stack = stack.pop_all()
        self._recorded = time.monotonic()
        return self

    def __exit__(self, *_):
        with self._stack:
            self._record()

    def append(self, outputs: dict[str, np.ndarray]):
        """Appends a batch of rows, of the same samples for each output.

        Args:
            outputs: dict from an output's name to its rows, in the cache's dtype.
        """
        for name, file in self._outputs.items():
            _write_all(file, np.ascontiguousarray(outputs[name]))
        rows, checksums = self._progress["rows"], self._progress["checksums"]
        # In one step, and after all is written: an interruption in between leaves what was true before the batch.
        self._progress = {
            "rows": rows + len(outputs[name]),
            "checksums": {
                name: extend_checksums(checksums[name], rows, np.ascontiguousarray(outputs[name])) for name in checksums
            },
        }
        if time.monotonic() - self._recorded >= _RECORD_SECONDS:
            self._record()
            self._recorded = time.monotonic()

    def _record(self):
        # In this order: a row counts only once it has reached the disk, so that a power cut leaves no row that counts
        # and is not there.
        for file in self._outputs.values():
            os.fsync(file.fileno())
        self._files.record_progress(self._progress)

    def _open(self, name):
        """Opens an output's file behind its recorded rows; what comes after them is dropped."""
        header, rows = self._files.make_header(name), self._progress["rows"]
        # Without a buffer: what Python still held would be lost with a killed process, though the rows were recorded.
        file = open(self._files.path(name), "r+b" if rows else "wb", buffering=0)
        if rows:
            file.truncate(len(header) + rows * self._files.row_bytes(name))
            file.seek(0, os.SEEK_END)
        else:
            _write_all(file, header)
        return file


def _write_all(file, data):
    """Writes all bytes of an array or of a header to an unbuffered file, which may take a part of them at a time."""
    data = memoryview(data).cast("B")
    while data:
        data = data[file.write(data) :]
