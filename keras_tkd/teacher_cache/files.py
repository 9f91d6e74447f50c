"""The folder of a teacher cache and its files.

    manifest.json       what the outputs were made from, and the shape of each
    progress.json       the number of rows of each output that are on the disk, and checksums of each block of them
    logits.npy, ...     `(views, samples, ...)`: a row for each view of each sample, view by view

Rows are appended in order. A row counts once `progress.json` counts it, which is written after the row has reached the
disk: whenever the writing ends, and for whatever reason, the rows that count can be used and continued.
"""

import contextlib
import errno
import io
import json
import math
import pathlib
import shutil
import urllib.parse

import numpy as np

from keras_tkd.teacher_cache.checksums import BLOCK_ROWS, extend_checksums
from keras_tkd.utils.files import checksum_record, read_json, remove_unfinished, write_json
from keras_tkd.utils.locks import wait_for_folder

__all__ = ["CacheFiles"]

_FORMAT = 2  # the first one had no checksums
_MANIFEST = "manifest.json"
_PROGRESS = "progress.json"
_REBUILD = "Choose another folder, or remove this one and build it anew"


class CacheFiles:
    """The folder of one teacher cache.

    Args:
        folder: path of the folder, which need not exist before `lock_for_writing`.

    Attributes:
        folder: the path.
        manifest: dict, the contents of `manifest.json`; None where there is no cache yet.

    Raises:
        ValueError: the folder holds a manifest that cannot be read.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.manifest = None
        self._read_manifest()

    def _read_manifest(self):
        self.manifest = self._read_record(_MANIFEST)

    @property
    def progress(self):
        """Rows on the disk, as a dict: `"rows"`, their number, and `"checksums"`, by the names of the outputs."""
        nothing = {"rows": 0, "checksums": {name: [] for name in self.manifest["outputs"]}}
        return self._read_record(_PROGRESS) or nothing

    def _read_record(self, name):
        """Returns what `_write_record` wrote; None where there is no such file.

        Raises:
            ValueError: a file that holds anything else. It names the file, and says what is wrong with it.
        """
        if not (self.folder / name).exists():
            return None
        try:
            record = read_json(self.folder / name)
            if name == _MANIFEST and record.get("format") != _FORMAT:
                raise ValueError(f"its format is {record.get('format')}, and this version reads {_FORMAT}")
            # What is whole needs no look at each of its entries.
            if record.pop("crc32", None) != checksum_record(record):
                raise ValueError("it is not as it was written: its checksum is another")
            return record
        except ValueError as error:
            raise ValueError(
                f"{self.folder} holds no teacher cache that can be read: {name} cannot be read: {error}. {_REBUILD}"
            ) from error

    def _write_record(self, name, record):
        """Writes plain data as a JSON file that says of itself whether it is whole."""
        write_json(self.folder / name, record | {"crc32": checksum_record(record)})

    @property
    def rows_written(self):
        """Number of rows that are on the disk."""
        return self.progress["rows"]

    @property
    def total_rows(self):
        """Number of rows of a finished cache."""
        return math.prod(self.manifest["rows"])

    @property
    def dtype(self):
        """The NumPy dtype of all outputs."""
        return np.dtype(self.manifest["made_from"]["dtype"])

    def path(self, name):
        """Returns the path of an output's file."""
        # A layer's name may be a path itself, or hold other characters that no file name should.
        return self.folder / f"{urllib.parse.quote(name, safe='')}.npy"

    def row_bytes(self, name):
        """Returns the number of bytes in a row of an output."""
        return math.prod(self.manifest["outputs"][name]) * self.dtype.itemsize

    def check_made_from(self, expected):
        """Raises `ValueError` if the cache was made from something else; it names every difference, with both values.

        Args:
            expected: dict with some of the entries of `"made_from"`.
        """
        listed = self._list_differences(expected)
        if listed:
            raise ValueError(
                f"The teacher cache in {self.folder} was made from something else: {'; '.join(listed)}. {_REBUILD}"
            )

    def _list_differences(self, expected):
        """Says in what the cache was made from something else, a text for each."""
        there = self.manifest["made_from"]
        # Through JSON, as the manifest was, so that tuples are lists on both sides.
        here = json.loads(json.dumps(expected))
        return [f"{key} {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key]]

    def remove_other(self, made_from):
        """Removes the files of a cache that was made from something else, and says so.

        Args:
            made_from: see `create`.
        """
        if self.manifest is None or not self._list_differences(made_from):
            return
        with self.lock_for_writing():
            # Another process may have done it while this one waited.
            if self.manifest is None or not self._list_differences(made_from):
                return
            print(f"The teacher cache in {self.folder} was made from something else: it is built anew", flush=True)
            # The manifest last: until then it is the other cache, of which no row counts.
            (self.folder / _PROGRESS).unlink(missing_ok=True)
            for path in (*map(self.path, self.manifest["outputs"]), self.folder / _MANIFEST):
                path.unlink(missing_ok=True)
            self.manifest = None

    def check_sizes(self, rows):
        """Raises `ValueError` if a file holds fewer than `rows` rows."""
        for name in self.manifest["outputs"]:
            path = self.path(name)
            expected = len(self.make_header(name)) + rows * self.row_bytes(name)
            size = path.stat().st_size if path.exists() else 0
            if size < expected:
                raise ValueError(
                    f"{path} is truncated: it has {size:,} bytes, and should have {expected:,}. {_REBUILD}"
                )

    def check_checksums(self):
        """Raises `ValueError` if a row that is on the disk is not the one that was written."""
        progress = self.progress
        if not progress["rows"]:
            return
        for name, shape in self.manifest["outputs"].items():
            place = {"offset": len(self.make_header(name)), "shape": (progress["rows"], *shape)}
            self._compare(name, np.memmap(self.path(name), self.dtype, "r", **place), progress["checksums"][name])

    def _compare(self, name, rows, checksums):
        """Raises `ValueError` unless an output's rows, in the order of the file, have these checksums."""
        found = extend_checksums([], 0, rows)
        for block, (there, here) in enumerate(zip(checksums, found, strict=True)):
            if there != here:
                samples = self.manifest["rows"][1]
                first, last = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, len(rows)) - 1
                (view, sample), (last_view, last_sample) = divmod(first, samples), divmod(last, samples)
                raise ValueError(
                    f"{self.path(name)} is damaged: its rows from sample {sample} in view {view} to sample "
                    f"{last_sample} in view {last_view} are not those that were written. {_REBUILD}"
                )

    def open_arrays(self) -> dict[str, np.ndarray]:
        """Maps the outputs of a finished cache into memory.

        Returns:
            dict from an output's name to its array `(views, samples, ...)`, in the files' dtype.

        Raises:
            ValueError: a cache that is not finished; a file that is truncated, of another shape or dtype, or damaged.
        """
        progress = self.progress
        rows = progress["rows"]
        if rows < self.total_rows:
            raise ValueError(
                f"The teacher cache in {self.folder} is not finished: {rows:,} of {self.total_rows:,} rows are "
                "written. Build it again with the same arguments: it goes on there"
            )
        self.check_sizes(rows)
        arrays = {name: self._map(name) for name in self.manifest["outputs"]}
        # A wrong output trains a wrong student in silence. Each byte is read once: 0.7 s for a gigabyte that is in the
        # system's memory, and the time of the disk for one that is not.
        for name, array in arrays.items():
            self._compare(name, array.reshape(rows, *array.shape[2:]), progress["checksums"][name])
        return arrays

    def _map(self, name):
        """Maps an output of a finished cache into memory."""
        try:
            # Mapped copy-on-write: nothing is copied, no file is ever written to, and the memory counts as writable,
            # which TensorFlow needs to share it.
            array = np.lib.format.open_memmap(self.path(name), mode="c")
        except OSError:  # whoever may not read the file is told so, and not to build it anew
            raise
        # NumPy takes a header for Python, which fails in many ways where it is damaged: MemoryError is one.
        except Exception as error:
            raise ValueError(f"{self.path(name)} is damaged: its header cannot be read. {_REBUILD}") from error
        if array.shape != self._shape(name) or array.dtype != self.dtype:
            raise ValueError(
                f"{self.path(name)} is not the manifest's: it has shape {array.shape} and dtype {array.dtype}, and "
                f"should have {self._shape(name)} and {self.dtype}. {_REBUILD}"
            )
        return array

    @contextlib.contextmanager
    def lock_for_writing(self):
        """Makes the folder, and lets every other process that builds in it wait until the block ends.

        Raises:
            OSError: the system refuses to write. The message says what is kept, and what can be done.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with wait_for_folder(self.folder, "building the teacher cache") as locked:
                # Without a lock another builder may be at it.
                if locked:
                    self._remove_unfinished()
                # What another process wrote meanwhile is what counts now.
                self._read_manifest()
                yield
        except OSError as error:
            way_out = "Choose another folder"
            if self.manifest and self.rows_written:
                kept = f"{self.rows_written:,} of {self.total_rows:,} rows are kept"
                way_out = f"{kept}: build again to go on there, or choose another"
            raise OSError(
                f"The teacher cache cannot be written to {self.folder}: {error.strerror or error}. {way_out}"
            ) from error

    def _remove_unfinished(self):
        """Removes what builders left half written when they were killed."""
        # The others are dead: one that lives would hold the lock that the caller has. Of that a number of a process
        # says less, for numbers come again. Only our own files: the folder may be somebody else's too, who writes in
        # the same way.
        for name in (_MANIFEST, _PROGRESS):
            remove_unfinished(self.folder, below=False, name=name)

    def check_empty(self):
        """Raises `ValueError` for a path that is no folder, or a folder with other files."""
        file = next((path for path in (self.folder, *self.folder.parents) if path.is_file()), None)
        if file:
            raise ValueError(f"A teacher cache is a folder. Received: {self.folder}, where {file} is a file")
        others = [path.name for path in self.folder.glob("*") if not path.name.startswith(".")]
        if others:
            raise ValueError(
                f"A teacher cache is built in a folder of its own. Received: {self.folder}, which holds "
                f"{', '.join(sorted(others)[:3])}. Choose an empty or a new folder"
            )

    def create(self, made_from, rows, outputs: dict[str, tuple], **facts):
        """Writes the manifest of a new cache.

        Args:
            made_from: dict of plain data, all that determines the rows; one of its keys is `"dtype"`.
            rows: `(views, samples)`.
            outputs: dict from an output's name to its shape for one sample.
            facts: further entries of the manifest.

        Raises:
            ValueError: a folder with other files.
            OSError: too little space on the disk.
        """
        self.check_empty()
        self.manifest = json.loads(
            json.dumps({"format": _FORMAT, "rows": rows, "outputs": outputs, "made_from": made_from} | facts)
        )
        self.check_space(0)
        self._write_record(_MANIFEST, self.manifest)

    def check_space(self, rows):
        """Raises `OSError` if the rows that are missing after the first `rows` do not fit on the disk."""
        needed = (self.total_rows - rows) * sum(map(self.row_bytes, self.manifest["outputs"]))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise OSError(errno.ENOSPC, f"{needed:,} bytes are still to be written, and {free:,} are free")

    def record_progress(self, progress):
        """Records what is on the disk: a dict as that of `progress`."""
        # Rows and checksums in one file, which is replaced in one step: they are always those of one moment.
        self._write_record(_PROGRESS, progress)

    def make_header(self, name):
        """Makes the header of an output's file: that of a NumPy file with all its rows, before there are any."""
        header = io.BytesIO()
        fields = {"descr": self.dtype.str, "fortran_order": False, "shape": self._shape(name)}
        np.lib.format.write_array_header_1_0(header, fields)
        return header.getvalue()

    def _shape(self, name):
        return (*self.manifest["rows"], *self.manifest["outputs"][name])
