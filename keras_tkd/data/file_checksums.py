"""Checksums that tell image files from others, and arrays on disk from damaged ones."""

import concurrent.futures
import hashlib
import os
import pathlib
import zlib

from keras_tkd.data.image_files import hash_content

__all__ = ["checksum_blocks", "find_other_files", "hash_files"]

_BLOCK_ROWS = 1024  # part of the format of a cache of decoded images
_WAITING = 4096  # calls that wait for the threads together: of all files of a large data set they would take gigabytes


def hash_files(images):
    """Returns a hash of the names of files, their sizes and the times when they were last written to."""
    digest = hashlib.sha256()
    for file in images.files:
        try:
            status = os.stat(os.path.join(images.root, file))
            what = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            # It is a bad image then, which is said elsewhere.
            what = "none"
        digest.update(os.fsencode(file) + f"\0{what}\0".encode())
    return digest.hexdigest()


def find_other_files(root, files, checksums):
    """Returns those of the files whose contents have other checksums, or cannot be read.

    Args:
        root: path of the folder.
        files: paths below it.
        checksums: an integer for each, of `image_files.hash_content`.
    """

    def is_other(file, checksum):
        try:
            return hash_content(pathlib.Path(root, file).read_bytes()) != checksum
        except OSError:
            return True

    others = _map_threads(is_other, files, checksums)
    return [file for file, other in zip(files, others, strict=True) if other]


def checksum_blocks(array):
    """Returns the CRC-32 of each 1,024 rows of a C-contiguous array, as a list."""
    starts = range(0, len(array), _BLOCK_ROWS)
    return _map_threads(lambda start: zlib.crc32(array[start : start + _BLOCK_ROWS]), starts)


def _map_threads(function, *values):
    """Returns a list of what `function` gives for each of the values; threads, for it waits for the disk."""
    found = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(values[0]), _WAITING):
            found += pool.map(function, *(each[start : start + _WAITING] for each in values))
    return found
