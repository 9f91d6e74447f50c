"""Checkpoints as files that are whole, and show it, or are not used."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import zipfile

import numpy as np

from keras_tkd.utils.files import atomic_write, remove_unfinished

__all__ = ["Checkpoint", "CheckpointFiles", "check_array_sizes"]

_KEPT = 2
_PATTERN = "epoch-*-step-*.npz"
_ABOUT = "about"
_DIGEST_BYTES = hashlib.sha256().digest_size
_CHUNK = 2**20
_NUMBERS = "biufc"  # kinds of NumPy's dtypes


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read, and is whole.

    Attributes:
        epoch, step: the place in the training: whole epochs, and steps of the epoch after them, that it has behind it.
        arrays: list of arrays, as they were written.
        about: dict of plain data, as it was written.
    """

    epoch: int
    step: int
    arrays: list[np.ndarray]
    about: dict


class CheckpointFiles:
    """The checkpoints of one training in a folder of their own, of which the newest two are kept.

    A file is a NumPy archive (`.npz`) with the SHA-256 of its bytes behind it. One whose bytes are others is not used,
    and the one before it is.

    Args:
        folder: the folder, which need not exist, and in which no other process writes checkpoints.
    """

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)

    def write(self, epoch, step, arrays, about):
        """Writes a checkpoint, and removes all but the newest two, and what killed processes left half written.

        Args:
            epoch, step, about: see `Checkpoint`.
            arrays: list of NumPy arrays.

        Raises:
            OSError: the system refuses to write. The checkpoints that there are stay.
        """
        # NumPy's files have no bfloat16, each number of which is one of float32 too.
        plain = [array.astype("float32") if array.dtype.name == "bfloat16" else array for array in arrays]
        named = {str(number): array for number, array in enumerate(plain)}
        size = sum(array.nbytes for array in plain)
        path = self.folder / f"epoch-{epoch:06}-step-{step:09}.npz"
        # Before: each is as large as this one, and may have filled the disk.
        self._remove_unfinished()
        with atomic_write(path, size) as unfinished:
            # As bytes: NumPy keeps four of them for each character of a string, and a long training has a long history.
            text = np.frombuffer(json.dumps(about).encode(), "uint8")
            np.savez(unfinished, **{_ABOUT: text}, **named)
            with open(unfinished, "r+b") as file:
                file.write(_hash(file, os.path.getsize(unfinished)))
        # Two, so that there is one to go on from if the newest is damaged. What is newer than this one was damaged, or
        # training would have gone on from it.
        paths = self._paths()
        place = paths.index(path)
        for other in paths[:place] + paths[place + _KEPT :]:
            _remove(other)

    def read_newest(self, check_about=lambda about: None):
        """Returns the newest whole `Checkpoint`, None where there is none; names those that are damaged.

        Args:
            check_about: function of a checkpoint's `about` that raises `ValueError` if it is not what was written.
        """
        for path in self._paths():
            try:
                checkpoint = _read(path)
                check_about(checkpoint.about)
            except (OSError, ValueError) as error:
                print(f"{path} is damaged, and is not used: {error}", flush=True)
            else:
                return checkpoint
        return None

    def remove(self):
        """Removes all checkpoints, and what killed processes left of some."""
        self._remove_unfinished()
        for path in self._paths():
            _remove(path)

    def _remove_unfinished(self):
        remove_unfinished(self.folder, below=False, name=_PATTERN)

    def _paths(self):
        """All checkpoints, the newest first."""
        return sorted(self.folder.glob(_PATTERN), reverse=True)


def _remove(path):
    """Removes a file or a link; a folder by a checkpoint's name is somebody's own, and stays."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()


def _read(path):
    """Reads a checkpoint; raises `ValueError` if it is not what was written."""
    # Whatever has the name: a folder has no bytes, a pipe waits for them, and a device never ends.
    if not path.is_file():
        raise ValueError("it is no file")
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if _hash(file, size - _DIGEST_BYTES) != file.read():
            raise ValueError(f"its {size:,} bytes are not those that were written")
        return _read_archive(file, path)


def _hash(file, size):
    """Returns the SHA-256 of the next bytes of an open file; fewer than one are none."""
    digest = hashlib.sha256()
    # In pieces: the whole may be as large as the memory that is left.
    while size > 0 and (chunk := file.read(min(size, _CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()


def _read_archive(file, path):
    """Reads a checkpoint from its open file, which is whole; raises `ValueError` if it holds something else."""
    epoch, step = (int(number) for number in path.stem.split("-")[1::2])
    # Only what passed is opened, and nothing in it is ever run. But anybody can make a checksum: what is written here
    # keeps the archive's rules too.
    try:
        check_array_sizes(file)
        file.seek(0)
        with np.load(file, allow_pickle=False) as entries:
            text = entries[_ABOUT]
            about = json.loads(text.tobytes() if text.dtype == "uint8" else str(text))
            arrays = [entries[str(number)] for number in range(len(entries.files) - 1)]
    except ValueError:
        raise
    except Exception as error:  # of zipfile, its decompressors, or NumPy, which takes a header for Python
        raise ValueError(f"it holds no checkpoint ({error})") from error
    if not isinstance(about, dict):
        raise ValueError(f"what it says of itself must be a dict, and is a {type(about).__name__}")
    kinds = {array.dtype.str for array in arrays if array.dtype.kind not in _NUMBERS}
    if kinds:
        raise ValueError(f"its arrays must hold numbers, and some are of {', '.join(sorted(kinds))}")
    return Checkpoint(epoch, step, arrays, about)


def check_array_sizes(file):
    """Raises `ValueError` for an open file with an uncompressed `.npz` archive whose arrays are larger than it is.

    NumPy takes memory for what an array's header declares, before it reads any of it.
    """
    with zipfile.ZipFile(file) as entries:
        declared = 0
        for entry in entries.infolist():
            with entries.open(entry) as array:
                if np.lib.format.read_magic(array) != (1, 0):
                    raise ValueError(f"its {entry.filename} is of another version of NumPy's format")
                shape, _, dtype = np.lib.format.read_array_header_1_0(array)
            # A negative length would make room for another array's.
            declared += abs(math.prod(shape)) * dtype.itemsize
    size = file.seek(0, os.SEEK_END)
    if declared > size:
        raise ValueError(f"its arrays are declared with {declared:,} bytes, and it has {size:,}")
