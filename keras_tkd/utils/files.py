"""Files that appear whole or not at all."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import zlib

__all__ = [
    "atomic_folder",
    "atomic_write",
    "check_writable",
    "checksum_record",
    "hash_file",
    "hash_folder",
    "read_bytes",
    "read_json",
    "remove_unfinished",
    "save_model",
    "write_json",
    "write_text",
]

# A record of a run has thousands of bytes, the list of a data set's files millions. Plain data of any more would take
# gigabytes of memory, at forty times its text.
_TEXT_BYTES = 2**27
# Beginnings of names that go on with the number of the process that writes, and the name that is meant.
_UNFINISHED, _REPLACED = ".unfinished-", ".replaced-"


@contextlib.contextmanager
def atomic_write(path, size=None):
    """Gives a path to write to, beside `path`; it becomes `path` if the block ends without an error.

    It has then reached the disk: a power cut leaves the old file or the new one.

    Args:
        path: the file; folders above it are made.
        size: number of bytes that are to be written, where that is known: an error says it.

    Raises:
        OSError: the system refuses to write; the message names the file. What was there before is still there.
    """
    path = pathlib.Path(path)
    # In the same folder, for only within a file system a file takes another's name in one step; with the ending, which
    # tells Keras the format.
    unfinished = path.with_name(f"{_UNFINISHED}{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(_explain(error, path, size)) from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


@contextlib.contextmanager
def atomic_folder(path):
    """Gives an empty folder to write into, beside `path`; it becomes `path` if the block ends without an error.

    Its files have then reached the disk. What `path` held before is removed after that. A process that is killed while
    the two change places may leave none at `path`: the next block, or `remove_unfinished`, puts the old one back.

    Args:
        path: the folder; those above it are made.

    Raises:
        OSError: the system refuses to write; the message names the folder. What was there before is still there.
    """
    # A link stays one: its folder is replaced, where that lies.
    path = pathlib.Path(path).resolve()
    unfinished, replaced = (path.with_name(f"{start}{os.getpid()}-{path.name}") for start in (_UNFINISHED, _REPLACED))
    try:
        found = path.parent.glob(f"{_REPLACED}*-{glob.escape(path.name)}")
        # Not of a folder whose name only ends like this one's, which another process may be replacing now.
        _put_back(folder for folder in found if _find_target(folder) == path)
        unfinished.mkdir(parents=True)
        yield unfinished
        for written in (*unfinished.rglob("*"), unfinished):
            _sync(written)
        # A folder takes no name that another one with files in it has.
        if path.exists():
            os.replace(path, replaced)
        os.replace(unfinished, path)
        _sync(path.parent)
    except OSError as error:
        raise OSError(_explain(error, path, None)) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        # Ctrl-C may have come between the two names.
        if replaced.exists():
            _put_back([replaced])


def _find_target(replaced):
    """Returns the path that a folder had before it was replaced."""
    return replaced.with_name(replaced.name.removeprefix(_REPLACED).partition("-")[2])


def _put_back(replaced):
    """Gives folders that were replaced their names again, or removes them where others have these."""
    for folder in list(replaced):
        path = _find_target(folder)
        if path.exists():
            shutil.rmtree(folder, ignore_errors=True)
        else:
            os.replace(folder, path)


def _sync(path):
    """Waits until a file, or the names in a folder, have reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(error, path, size):
    """Says what could not be written, why, and what is left."""
    needed = f" It needs about {size:,} bytes." if size else ""
    free = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = f" {shutil.disk_usage(path.parent).free:,} are free on its disk: make room, or choose another folder."
    return f"{path} cannot be written: {error.strerror or error}.{needed}{free} What was there before is still there"


def check_writable(folder, argument):
    """Raises `ValueError` for a folder that cannot be written to or, where it is not there, cannot be made.

    Args:
        folder: its path.
        argument: what the error calls it.
    """
    # Of a link to nowhere, too, the nearest folder that there is decides.
    path = pathlib.Path(folder).absolute()
    nearest = next(each for each in (path, *path.parents) if os.path.exists(each))
    if not nearest.is_dir():
        why = "is no folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        why = "may not be written to"
    else:
        return
    raise ValueError(
        f"`{argument}` must be a folder that can be written to, or made. Received: {argument}={str(folder)!r}, of "
        f"which {nearest} {why}. Choose another folder"
    )


def remove_unfinished(folder, below=True, name="*"):
    """Removes what processes that were killed left of files that they were writing.

    A folder that was being replaced by another, and has not been yet, gets its name back.

    Args:
        folder: a folder in which no other process writes what is removed. Numbers of processes do not show whether they
            still live: they come again.
        below: whether folders in it count as well.
        name: pattern of the names that the files were to have.
    """
    folder, where = pathlib.Path(folder), "**/" if below else ""
    _put_back(folder.glob(f"{where}{_REPLACED}*-{name}"))
    for path in folder.glob(f"{where}{_UNFINISHED}*-{name}"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def hash_file(path):
    """Returns the SHA-256 of a file's bytes, in hexadecimal digits; None where there is no file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def hash_folder(path):
    """Returns the SHA-256 of the names and bytes of all files in a folder and below it, in the names' order."""
    digest = hashlib.sha256()
    for file in sorted(file for file in pathlib.Path(path).rglob("*") if file.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{hash_file(file)}\0".encode())
    return digest.hexdigest()


def read_bytes(path):
    """Returns the bytes of a file of text or plain data, such as a record, at most 128 MiB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is larger than anything of that kind, or a folder; the message names it.
    """
    # Read, not asked for its size: a device says that it has none, and never ends.
    try:
        with open(path, "rb") as file:
            content = file.read(_TEXT_BYTES + 1)
    except IsADirectoryError as error:
        raise ValueError(f"{path} must be a file. Received a folder of that name: move it away") from error
    if len(content) > _TEXT_BYTES:
        raise ValueError(f"{path} is damaged: it is larger than the {_TEXT_BYTES:,} bytes that such a file may have")
    return content


def write_text(path, text):
    """Writes a file of text."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Writes plain data as a JSON file that people can read."""
    text = json.dumps(value, indent=2)
    # A list of whole numbers, such as a row of a matrix, takes one line and not one for each number. Inside a text a
    # line never ends, so that no text is taken for a list.
    rows = re.sub(r"\[\n\s*(-?\d+(?:,\n\s*-?\d+)*)\n\s*\]", lambda row: f"[{' '.join(row[1].split())}]", text)
    write_text(path, rows + "\n")


def read_json(path):
    """Returns the dict that a JSON file holds; None where there is no file.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    try:
        content = read_bytes(path)
    except (FileNotFoundError, NotADirectoryError):  # below a file there is none
        return None
    try:
        value = json.loads(content)
    # Of the text's encoding as well; and nested too deep is no recursion of ours, but a file that nobody wrote.
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: it holds no JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it must hold a JSON object, and holds a {type(value).__name__}")
    return value


def checksum_record(record):
    """Returns the CRC-32 of plain data, as a JSON file gives them back."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def save_model(model, path):
    """Saves a Keras model, without what it was compiled with, so that the file appears whole or not at all.

    A file with its optimizer is twice as large as the model, and metrics of this package could not be read without it.

    Returns:
        The path.
    """
    size = sum(variable.value.dtype.size * variable.value.shape.num_elements() for variable in model.variables)
    with atomic_write(path, size) as unfinished, _uncompiled(model):
        model.save(unfinished)
    return pathlib.Path(path)


@contextlib.contextmanager
def _uncompiled(model):
    """Has a model be as if nobody had compiled it."""
    if not model.compiled:
        yield
        return
    optimizer, model.optimizer, model.compiled = model.optimizer, None, False
    try:
        yield
    finally:
        model.optimizer, model.compiled = optimizer, True
