"""The files of a teacher cache: outputs row after row, what they were made from, and how far they are written.

    manifest.json       what the outputs were made from, and the shape of each
    progress.json       how many rows of each are on the disk
    logits.npy, ...     `(views, samples, ...)`: a row for each view of each sample, view by view

Rows are appended, in their order. A row counts once `progress.json` counts it, which is written after the row has
reached the disk: whatever ends the writing, at any moment, leaves rows that can be used and the place to go on from.
"""

import contextlib
import errno
import io
import json
import math
import os
import pathlib
import shutil
import time
import urllib.parse

import numpy as np

from keras_tkd.utils.files import read_json, write_json

try:
    import fcntl
except ImportError:  # not on Windows: there nobody waits
    fcntl = None

FORMAT = 1
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
KEEP_SECONDS = 10.0  # between two writings of the progress
REBUILD = "Choose another folder, or remove this one and build it anew"


class CacheFiles:
    """The folder of one cache.

    Args:
        folder: its path; `create` makes it.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.manifest = None
        self.read_manifest()

    # What there is.

    def read_manifest(self):
        """Reads what the folder holds, if it holds a cache; raises `ValueError` if that cannot be read."""
        try:
            self.manifest = read_json(self.folder / MANIFEST)
            if self.manifest is not None and self.manifest["format"] != FORMAT:
                raise ValueError(f"its format is {self.manifest['format']}, and this version reads {FORMAT}")
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder} holds no teacher cache that can be read: {error}. {REBUILD}") from error

    @property
    def rows(self):
        """Number of rows that are written."""
        try:
            return int((read_json(self.folder / PROGRESS) or {"rows": 0})["rows"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.folder / PROGRESS} cannot be read: {error}. {REBUILD}") from error

    @property
    def all_rows(self):
        """Number of rows of a finished cache."""
        return math.prod(self.manifest["rows"])

    @property
    def dtype(self):
        return np.dtype(self.manifest["made_from"]["dtype"])

    def path(self, name):
        """The file of an output; a layer's name may hold signs that no file name should."""
        return self.folder / f"{urllib.parse.quote(name, safe='')}.npy"

    def row_bytes(self, name):
        return math.prod(self.manifest["outputs"][name]) * self.dtype.itemsize

    def check_made_from(self, expected):
        """Raises `ValueError` if the cache was made from something else: every difference, with both values."""
        there = self.manifest["made_from"]
        here = json.loads(json.dumps(expected))
        listed = [f"{key} {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key]]
        if listed:
            raise ValueError(
                f"The teacher cache in {self.folder} was made from something else: {'; '.join(listed)}. {REBUILD}"
            )

    def check_sizes(self, rows):
        """Raises `ValueError` if a file holds less than so many rows."""
        for name in self.manifest["outputs"]:
            path = self.path(name)
            expected = len(self._header(name)) + rows * self.row_bytes(name)
            size = path.stat().st_size if path.exists() else 0
            if size < expected:
                raise ValueError(f"{path} is truncated: it has {size:,} bytes, and should have {expected:,}. {REBUILD}")

    def arrays(self):
        """The outputs of a finished cache by name, mapped into memory, as arrays of the file's dtype.

        They are mapped copy-on-write, which makes no copy and never writes: TensorFlow shares such memory as it is.
        """
        rows = self.rows
        if rows < self.all_rows:
            raise ValueError(
                f"The teacher cache in {self.folder} is not finished: {rows:,} of {self.all_rows:,} rows are written. "
                "Build it again with the same arguments: it goes on there"
            )
        self.check_sizes(rows)
        arrays = {name: np.load(self.path(name), mmap_mode="c") for name in self.manifest["outputs"]}
        for name, array in arrays.items():
            if array.shape != self._shape(name) or array.dtype != self.dtype:
                raise ValueError(
                    f"{self.path(name)} is not the manifest's: it has shape {array.shape} and dtype {array.dtype}, and "
                    f"should have {self._shape(name)} and {self.dtype}. {REBUILD}"
                )
        return arrays

    # Writing.

    @contextlib.contextmanager
    def for_one_writer(self):
        """Makes the folder, and keeps every other process that builds in it waiting until the block ends.

        Raises:
            OSError: the system refuses to write; in one sentence, with what is kept and the way out.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder):
                self.read_manifest()
                yield
        except OSError as error:
            way_out = "Choose another folder"
            if self.manifest and self.rows:
                way_out = (
                    f"{self.rows:,} of {self.all_rows:,} rows are kept: build again to go on there, or choose another"
                )
            raise OSError(
                f"The teacher cache cannot be written to {self.folder}: {error.strerror or error}. {way_out}"
            ) from error

    def create(self, made_from, rows, outputs, **described):
        """Begins a new cache.

        Args:
            made_from: dict of plain data, all that decides what the rows are; `"dtype"` among it.
            rows: `(views, samples)`.
            outputs: dict from an output's name to its shape, that of one sample.
            described: what else the manifest says.
        """
        others = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
        if others:
            raise ValueError(
                f"A teacher cache is built in a folder of its own. Received: {self.folder}, which holds "
                f"{', '.join(sorted(others)[:3])}. Choose an empty or a new folder"
            )
        self.manifest = json.loads(
            json.dumps({"format": FORMAT, "rows": rows, "outputs": outputs, "made_from": made_from} | described)
        )
        self.check_space(0)
        write_json(self.folder / MANIFEST, self.manifest)

    def check_space(self, rows):
        """Raises `OSError` if what is left to write after so many rows does not fit on the disk."""
        needed = (self.all_rows - rows) * sum(map(self.row_bytes, self.manifest["outputs"]))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed:,} bytes are still to be written, and {free:,} are free")

    @contextlib.contextmanager
    def writer(self):
        """A function that appends a batch of rows, `append({name: array})`, after those that are written.

        What has been appended when the block ends, by whatever, is kept.
        """
        rows = self.rows
        if rows:
            self.check_sizes(rows)
        self.check_space(rows)
        with contextlib.ExitStack() as stack:
            files = {name: stack.enter_context(self._open_after(name, rows)) for name in self.manifest["outputs"]}
            kept = time.monotonic()

            def keep():
                for file in files.values():
                    os.fsync(file.fileno())
                write_json(self.folder / PROGRESS, {"rows": rows})

            def append(outputs):
                nonlocal rows, kept
                for name, file in files.items():
                    write_all(file, np.ascontiguousarray(outputs[name]))
                rows += len(outputs[name])
                if time.monotonic() - kept >= KEEP_SECONDS:
                    keep()
                    kept = time.monotonic()

            try:
                yield append
            finally:
                keep()

    def _open_after(self, name, rows):
        """The file of an output, without a buffer, behind so many rows; what comes after these is dropped."""
        header = self._header(name)
        file = open(self.path(name), "r+b" if rows else "wb", buffering=0)
        if rows:
            file.truncate(len(header) + rows * self.row_bytes(name))
            file.seek(0, os.SEEK_END)
        else:
            write_all(file, header)
        return file

    def _shape(self, name):
        return (*self.manifest["rows"], *self.manifest["outputs"][name])

    def _header(self, name):
        header = io.BytesIO()
        fields = {"descr": self.dtype.str, "fortran_order": False, "shape": self._shape(name)}
        np.lib.format.write_array_header_1_0(header, fields)
        return header.getvalue()


@contextlib.contextmanager
def locked(folder):
    """Waits until no other process is in such a block for the folder."""
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is building the teacher cache in {folder}: waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_all(file, data):
    """Writes all bytes of an array or of a header to an unbuffered file, which may take a part of them at a time."""
    data = memoryview(data).cast("B")
    while data:
        data = data[file.write(data) :]
