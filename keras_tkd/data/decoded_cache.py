"""Decoded and resized images in a folder, mapped into memory; shared by runs and processes.

DIR/decoded/
    images.npy     uint8, (files, height, width, channels): a place for each listed file; zeros for those left out
    checksums.npy  uint64, (files,): of the contents of the files
    decoded.json   what they were made of, and the CRC-32 of each 1,024 rows of both arrays
"""

import contextlib
import dataclasses
import errno
import math
import mmap
import os
import pathlib
import shutil
import sys
import threading
import time

import numpy as np

from keras_tkd.data.file_checksums import checksum_blocks, find_other_files, hash_files
from keras_tkd.utils.files import atomic_folder, read_json, remove_unfinished, write_json
from keras_tkd.utils.locks import FolderLock
from keras_tkd.utils.naming import name_some

__all__ = ["DecodedCache", "DecodedImages", "DecodedWriter", "check_apart"]

_FOLDER, _IMAGES, _CHECKSUMS, _MANIFEST = "decoded", "images.npy", "checksums.npy", "decoded.json"
_VERSION = 2  # the first one had no checksums of its arrays
# What `DecodedWriter.finish` writes into the manifest, beside bounds.
_KINDS = {"files": int, "root": str, "image_size": (list, type(None)), "shape": list, "bad": list, "crc32": dict}
_SAMPLE = 64  # files that are read again where nothing speaks for others
_WAIT = 0.2  # seconds between two tries to get a lock
# Python names it from 3.13 on. Without it, the system refuses a mapping that is larger than its memory, though no page
# is ever written to.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


@dataclasses.dataclass(frozen=True)
class DecodedImages:
    """Contents of a cache of decoded images.

    Attributes:
        pixels: `(files, height, width, channels)`, uint8, mapped from the file; writing to it changes no file.
        checksums: `(files,)`, of the contents of the image files.
        bad: files that could not be read, and whose places are empty.
    """

    pixels: np.ndarray
    checksums: np.ndarray
    bad: list[str]


def check_apart(folder, root):
    """Raises `ValueError` for a cache in the folder of the data set, which would read it as images of its own.

    Args:
        folder: path of the cache.
        root: path of the data set.
    """
    inside, outside = (pathlib.Path(path).expanduser().resolve() for path in (folder, root))
    # The data set's folder itself is one that holds something else, and refused as such.
    if outside in inside.parents:
        raise ValueError(
            "`decoded_cache` (--decoded_cache) must be a folder outside the data set's, where it would be taken for "
            f"images, or for a class. Received: decoded_cache={str(folder)!r}, which is inside {root}. Choose another "
            "folder; a cache that is there already can be moved"
        )


class DecodedCache:
    """A folder of decoded images, which is whole or not there.

    Args:
        folder: path of the cache.
        images: the `ImageList` that it is for.
        size: `(height, width)` of the images, or None for their own.
        max_pixels: how many pixels a file may have.
    """

    def __init__(self, folder, images, size, max_pixels):
        self.folder = pathlib.Path(folder).expanduser()
        # The root is said and not compared: a folder of images may be moved, with the times of its files.
        self._root, self._files = os.path.abspath(images.root), images.files
        self._made_from = {
            "version": _VERSION,
            "files": len(images.files),
            "fingerprint": hash_files(images),
            "image_size": None if size is None else list(size),
            "max_pixels": max_pixels,
        }

    def open(self):
        """Returns the `DecodedImages`, or None where none are there yet.

        All of the cache is read, for its checksums, and some image files: all where their folder is another one.

        Raises:
            ValueError: the folder holds something else, images of other files, of another size, or damaged ones.
        """
        try:
            entries = sorted(entry for entry in os.listdir(self.folder) if not entry.startswith("."))
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise ValueError(f"{self._rule}. Received: {self.folder}, which is no folder") from error
        if not entries:
            return None
        if entries != [_FOLDER]:
            raise ValueError(
                f"{self._rule}. Received: {self.folder}, which holds something else: {', '.join(entries[:3])}. Choose "
                "another folder"
            )
        folder = self.folder / _FOLDER
        manifest = read_json(folder / _MANIFEST) or {}
        if not all(isinstance(manifest.get(key), kind) for key, kind in _KINDS.items()):
            raise ValueError(self._describe_damage(_MANIFEST))
        differing = [key for key, value in self._made_from.items() if manifest.get(key) != value]
        if differing:
            there = f"{manifest['files']:,} files of {manifest['root']}, image_size={_get_size(manifest)}"
            here = f"{self._made_from['files']:,} files of {self._root}, image_size={_get_size(self._made_from)}"
            changed = " Files were added, removed, renamed or written to." * (differing == ["fingerprint"])
            raise ValueError(
                f"{self._rule}. Received: {self.folder}, which was made of {there}, and these are {here}: what differs "
                f"is {', '.join(differing)}.{changed} Remove it, or choose another folder"
            )
        # By a name that is no file's, the empty place of another one would be taken for its image.
        if not {*map(str, manifest["bad"])} <= {*self._files}:
            raise ValueError(self._describe_damage(_MANIFEST))
        pixels, checksums = (_map_array(folder / name) for name in (_IMAGES, _CHECKSUMS))
        for name, array, shape, dtype in (
            (_IMAGES, pixels, manifest["shape"], np.uint8),
            (_CHECKSUMS, checksums, manifest["shape"][:1], np.uint64),
        ):
            # The checksums are of what stands behind an array's header.
            is_whole = array is not None and list(array.shape) == shape and array.dtype == dtype
            if not is_whole or checksum_blocks(array) != manifest["crc32"].get(name):
                raise ValueError(self._describe_damage(name))
        self._compare_contents(checksums, manifest)
        return DecodedImages(pixels, checksums, manifest["bad"])

    def _compare_contents(self, checksums, manifest):
        """Raises `ValueError` for image files of other contents, which names, sizes and times did not show."""
        # Whoever makes variants of a data set by a program may give their files one time. In the folder that the cache
        # was made of, another content with the old time is no accident, and a look at some of the files is enough.
        count = len(self._files)
        if manifest["root"] == self._root:
            count = min(count, _SAMPLE)
        places = np.linspace(0, len(self._files) - 1, count).astype(int)
        # Those that could not be read are looked at again by whoever reads the cache.
        bad = set(manifest["bad"])
        places = [place for place in places if self._files[place] not in bad]
        names = [self._files[place] for place in places]
        others = find_other_files(self._root, names, checksums[places])
        if others:
            raise ValueError(
                f"{self._rule}. Received: {self.folder}, which was made of {manifest['root']}, and of {len(places):,} "
                f"files that were compared {len(others):,} have other contents in {self._root}, though their names, "
                f"sizes and times are the same: {name_some(others)}. Remove it, or choose another folder"
            )

    def _describe_damage(self, name):
        return f"{self._rule}. Received: {self.folder}, whose {name} is damaged. Remove it"

    @property
    def _rule(self):
        return "`decoded_cache` (--decoded_cache) must be a folder for the decoded images of this data set, or none yet"

    @contextlib.contextmanager
    def build(self):
        """Gives a `DecodedWriter`, whose files are the cache if the block ends without an error.

        None is given where they are there already: another process may have built them while this one waited for it.

        Raises:
            OSError: the system refuses to write; the message names the folder.
        """
        lock = FolderLock(self.folder)
        self._wait_for(lock)
        try:
            if self.open() is not None:
                yield None
                return
            remove_unfinished(self.folder, below=False)
            with atomic_folder(self.folder / _FOLDER) as unfinished, DecodedWriter(unfinished) as writer:
                yield writer
                writer.finish(self._made_from | {"root": self._root})
        finally:
            lock.release()
            # What failed leaves nothing behind.
            with contextlib.suppress(OSError):
                self.folder.rmdir()

    def _wait_for(self, lock):
        said = False
        while True:
            # In each turn: where nothing came of what another process did, it removes the folder too, at any moment.
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                return lock.take()
            except FileNotFoundError:
                pass
            except BlockingIOError as error:
                if not said:
                    print(f"Waiting for the decoded images: {error}", file=sys.stderr)
                said = True
                time.sleep(_WAIT)


class DecodedWriter:
    """Writes the files of a cache; a context that closes them.

    Args:
        folder: path of the folder that the files are written to.
    """

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)
        self._file, self._lock, self._shape = None, threading.Lock(), None
        self._checksums, self._bad = None, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file:
            self._file.close()

    def begin(self, shape):
        """Makes room for images; forgets those that were stored before.

        Args:
            shape: `(files, height, width, channels)`.

        Raises:
            OSError: they do not fit on the disk.
        """
        if self._file:
            self._file.close()
        path, needed = self._folder / _IMAGES, math.prod(shape)
        if needed > shutil.disk_usage(self._folder).free:
            # Now, and not after hours of decoding.
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed:,} bytes are needed")
        # Written by `write`: where a disk is full, that is an error, and a write to a mapping ends the process.
        self._start = np.lib.format.open_memmap(path, "w+", np.uint8, shape).offset
        self._shape, self._file = shape, open(path, "r+b")

    def store(self, position, image):
        """Writes the image of a file at its place; several threads may."""
        with self._lock:
            self._file.seek(self._start + position * math.prod(self._shape[1:]))
            self._file.write(np.ascontiguousarray(image))

    def note(self, checksums, bad):
        """Notes the checksums of all files, and the names of those that were left out."""
        self._checksums, self._bad = checksums, sorted(bad)

    def map_pixels(self):
        """Returns what was stored, mapped into memory; what is stored later is not seen for sure."""
        self._file.flush()
        return _map_array(self._folder / _IMAGES)

    def finish(self, made_from):
        """Writes what the images were made of."""
        self._file.close()
        np.save(self._folder / _CHECKSUMS, self._checksums)
        # Of what the files hold now: images were stored in any order.
        crc = {name: checksum_blocks(_map_array(self._folder / name)) for name in (_IMAGES, _CHECKSUMS)}
        write_json(self._folder / _MANIFEST, made_from | {"shape": list(self._shape), "bad": self._bad, "crc32": crc})


def _get_size(made_from):
    size = made_from.get("image_size")
    return "x".join(map(str, size)) if size else "their own"


def _map_array(path):
    """Returns the array of a file that `np.save` could have written, mapped into memory; None for another file."""
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            start, size = file.tell(), os.path.getsize(path)
            if size != start + math.prod(shape) * dtype.itemsize:
                return None
            # Private and writable, as TensorFlow shares no memory that is read-only.
            mapping = mmap.mmap(
                file.fileno(), 0, flags=mmap.MAP_PRIVATE | _NO_RESERVE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
    except FileNotFoundError:
        return None
    except OSError:  # whoever may not read the file is told so, and not to remove it
        raise
    # NumPy takes a header for Python, which fails in many ways where it is damaged.
    except Exception:
        return None
    return np.frombuffer(mapping, dtype, offset=start).reshape(shape)
