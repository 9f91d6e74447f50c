"""Files of a teacher's outputs, NumPy's `.npz` and `.npy`, which may come from anybody.

Nothing in one is run, and what its arrays take is known from their headers before any of them is read.
"""

import contextlib
import difflib
import math
import pathlib
import re
import typing
import zipfile

import numpy as np

from keras_tkd.utils.naming import name_some

__all__ = ["OutputsFile", "PARTS"]

PARTS = ("train", "test")
# What an archive may hold: outputs, the layers' beside them, ids of their rows, and what is said of all.
_NAMES = re.compile(r"(train|test)(_ids|/.+)?|kind|seed|augmentation")
_EXAMPLES = ("train", "test", "train_ids", "test_ids", "kind", "seed", "augmentation")
_ENTRIES = 1000
# Bytes that arrays may take: twenty times what the file has, and 64 MiB in any case. Packed, outputs lose little.
_EXPANSION, _ALWAYS = 20, 2**26


class _Header(typing.NamedTuple):
    shape: tuple
    dtype: np.dtype
    bytes: int  # of header and array


class OutputsFile:
    """A NumPy file of a teacher's outputs, of which the headers are read and checked.

    Args:
        path: a `.npz` archive of arrays by name, or a `.npy` file of a single one, which is then `"train"`.
        argument: what an error calls the path.

    Attributes:
        path: the path.
        shapes: dict from the arrays' names to their shapes.
        single: whether it is a `.npy` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is no such archive or array, is damaged, holds pickled objects or arrays of other names,
            or whose arrays would take far more than the file.
    """

    def __init__(self, path, argument="path"):
        self.path, self._argument = pathlib.Path(path), argument
        self.single = self.path.suffix == ".npy"
        if self.path.suffix not in (".npz", ".npy"):
            self._refuse("it is another kind of file. A model is given with --teacher_path")
        if not self.path.exists():
            raise FileNotFoundError(f"`{argument}` names no file. Received: {argument}={str(self.path)!r}")
        if not self.path.is_file():
            self._refuse("it is no file")
        with self._explain():
            self._headers = {"train": self._read_header("train")} if self.single else self._read_headers()
            self._check_bytes()
            self._check_ids()
        self.shapes = {name: header.shape for name, header in self._headers.items()}

    def read(self, name):
        """Reads an array."""
        with self._explain(), self._open(name) as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
            stream.read(1)  # the end, where an archive compares its checksum
            return array

    def read_value(self, name):
        """Reads a single number or text; None where the file does not have it."""
        if name not in self.shapes:
            return None
        if math.prod(self.shapes[name]) != 1:
            self._refuse(f"'{name}' must be a single value, and has shape {self.shapes[name]}")
        return self.read(name).item()

    def _read_headers(self):
        with zipfile.ZipFile(self.path) as archive:
            entries = archive.namelist()
        if len(entries) > _ENTRIES or len(set(entries)) < len(entries):
            raise ValueError(f"it has {len(entries):,} entries, more than {_ENTRIES:,} or two of one name")
        names = [entry.removesuffix(".npy") for entry in entries]
        for name, entry in zip(names, entries, strict=True):
            if name == entry or not _NAMES.fullmatch(name):
                near = difflib.get_close_matches(name, _EXAMPLES, n=1)
                raise ValueError(
                    f"it has an entry '{entry[:80]}', and its arrays must be called {', '.join(_EXAMPLES)}, or "
                    "train/LAYER and test/LAYER for outputs of layers. "
                    + (f"Did you mean '{near[0]}'?" if near else "Save it with np.savez(path, train=..., test=...)")
                )
        return {name: self._read_header(name) for name in names}

    def _read_header(self, name):
        """Reads the header of an array, which must say of how many bytes it is."""
        with self._open(name) as stream:
            version = np.lib.format.read_magic(stream)
            readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version not in readers:
                raise ValueError(f"'{name}' is in version {version} of NumPy's format, of arrays that are no numbers")
            shape, _, dtype = readers[version](stream)
            start = stream.tell()
        if dtype.hasobject:
            raise ValueError(
                f"'{name}' holds Python objects, which may be code. Save it as numbers, `.astype('float32')`, or "
                "text, `.astype(str)`"
            )
        # It takes no bytes whatever its shape says, and a list of it has an entry for each of those that it claims.
        if not dtype.itemsize or 0 in shape:
            raise ValueError(f"'{name}' is empty: it has shape {shape} and dtype {dtype.str}")
        header = _Header(shape, dtype, start + math.prod(shape) * dtype.itemsize)
        if min(shape, default=0) < 0 or header.bytes != self._count_bytes(name):
            raise ValueError(f"'{name}' is of {self._count_bytes(name):,} bytes, and should be of {header.bytes:,}")
        return header

    def _check_bytes(self):
        needed, size = sum(header.bytes for header in self._headers.values()), self.path.stat().st_size
        if needed > max(_ALWAYS, _EXPANSION * size):
            raise ValueError(
                f"its arrays take {needed:,} bytes, more than {_EXPANSION} times the {size:,} of the file. Save it "
                "without compression: np.savez"
            )

    def _check_ids(self):
        """Raises `ValueError` for more ids than rows that they could be of: ids are read into lists."""
        for part in PARTS:
            outputs, ids = (self._headers.get(name) for name in (part, f"{part}_ids"))
            # Outputs of no rows and columns are refused where they are read.
            rows = math.prod(outputs.shape[:-1]) if outputs else 0
            if ids and math.prod(ids.shape) > rows:
                raise ValueError(
                    f"'{part}_ids' must be an id for each row of '{part}'. It has shape {ids.shape}, "
                    + (f"and '{part}' has shape {outputs.shape}" if outputs else f"and there is no '{part}'")
                )

    @contextlib.contextmanager
    def _open(self, name):
        if self.single:
            with open(self.path, "rb") as stream:
                yield stream
        else:
            with zipfile.ZipFile(self.path) as archive, archive.open(f"{name}.npy") as stream:
                yield stream

    def _count_bytes(self, name):
        if self.single:
            return self.path.stat().st_size
        with zipfile.ZipFile(self.path) as archive:
            return archive.getinfo(f"{name}.npy").file_size

    @contextlib.contextmanager
    def _explain(self):
        """Makes one sentence of whatever a file raises that is not what it should be."""
        try:
            yield
        # A damaged file fails in zipfile, any of its decompressors, or NumPy, which takes a header for Python: each has
        # errors of its own, MemoryError among them.
        except Exception as error:
            self._refuse(" ".join(str(error).split())[:400] or type(error).__name__, error)

    def _refuse(self, why, cause=None):
        raise ValueError(
            f"`{self._argument}` must be a NumPy file of a teacher's outputs, .npz or .npy. Received: "
            f"{self._argument}={str(self.path)!r}, of which is to be said: {why}"
        ) from cause

    def check_has(self, names, why):
        """Raises `ValueError` unless the file has arrays of these names; `why` says what they are for."""
        missing = [name for name in names if name not in self.shapes]
        if missing:
            self._refuse(f"it lacks {name_some(missing)}, {why}. It holds {name_some(self.shapes)}")
