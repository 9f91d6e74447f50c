"""Locks on a folder, which a process that was killed does not leave behind."""

import contextlib
import os
import pathlib

try:
    import fcntl
except ImportError:  # on Windows, where nothing is locked
    fcntl = None

__all__ = ["FolderLock", "LOCK", "wait_for_folder"]

LOCK = ".lock"


class FolderLock:
    """Keeps other processes, and other runs in this one, out of a folder.

    The system gives the lock up when a process ends, however it ends.

    Args:
        folder: the folder, which must exist when the lock is taken.
    """

    def __init__(self, folder):
        self._path = pathlib.Path(folder) / LOCK
        self._handle = None

    def check_free(self):
        """Raises `BlockingIOError` if another holds the lock; changes nothing."""
        if fcntl is None or self._handle is not None or not self._path.exists():
            return
        with open(self._path) as file:
            _lock(file.fileno(), self._path)

    def take(self):
        """Takes the lock, unless this object has it already.

        Raises:
            BlockingIOError: another holds it; the message names the process.
            OSError: the folder cannot be written.
        """
        if fcntl is None or self._handle is not None:
            return
        while True:
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                _lock(handle, self._path)
                # The one who had it may have removed the file since it was opened: then this is a lock on nothing.
                if _is_file(handle, self._path):
                    break
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        self._handle = handle

    def release(self):
        """Gives the lock up, if this object has it."""
        if self._handle is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._handle)
            self._handle = None


@contextlib.contextmanager
def wait_for_folder(folder, doing):
    """Waits until no other process is inside such a block for the folder; nothing is written there.

    Args:
        folder: the folder, which must exist.
        doing: what the other process is doing, for whoever waits: `"building the teacher cache"`.

    Yields:
        Whether the block has the folder for itself; False on a system without locks.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Another process is {doing} in {folder}: waiting for it", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield True
    finally:
        # The system gives the lock up, as it does when a process ends, however it ends.
        os.close(handle)


def _lock(handle, path):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        # Of the open file: who had the lock may give it up now, and remove the path.
        holder = os.pread(handle, 1000, 0).decode(errors="replace").strip() or "another process"
        raise BlockingIOError(
            f"{path.parent} is in use: {holder} writes there. Wait until it has ended, or choose another folder"
        ) from error


def _is_file(handle, path):
    """Returns whether an open file is the one that has the path."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False
