"""A lock on a folder: between processes, inside one, and after a process was killed."""

import os
import signal
import subprocess
import sys

import pytest

from keras_tkd.utils import locks
from keras_tkd.utils.locks import LOCK, FolderLock

HOLD = """
import sys, time
from keras_tkd.utils.locks import FolderLock
lock = FolderLock(sys.argv[1])
lock.take()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_is_refused_and_the_first_named(tmp_path):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    second.check_free()
    assert list(tmp_path.iterdir()) == []
    first.take()
    first.take()  # has it already
    for refused in (second.check_free, second.take):
        with pytest.raises(BlockingIOError, match=f"{tmp_path} is in use: process {os.getpid()} on"):
            refused()
    first.release()
    assert list(tmp_path.iterdir()) == []
    second.take()
    second.release()


def test_a_killed_process_leaves_no_lock(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    lock = FolderLock(tmp_path)
    with pytest.raises(BlockingIOError, match=f"process {process.pid} on"):
        lock.take()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / LOCK).exists()
    lock.check_free()
    lock.take()
    lock.release()


def test_a_lock_whose_file_was_removed_is_a_lock_on_nothing(tmp_path, monkeypatch):
    """The holder gives it up between another's opening of the file and its locking."""
    holder, other, third = FolderLock(tmp_path), FolderLock(tmp_path), FolderLock(tmp_path)
    holder.take()
    open_file = os.open

    def open_then_release(*arguments):
        handle = open_file(*arguments)
        holder.release()
        return handle

    monkeypatch.setattr(os, "open", open_then_release)
    other.take()
    monkeypatch.undo()
    with pytest.raises(BlockingIOError):
        third.take()
    other.release()


def test_a_lock_that_is_given_up_just_then_was_somebodys(tmp_path, monkeypatch):
    first, second = FolderLock(tmp_path), FolderLock(tmp_path)
    first.take()

    def refuse(handle, operation):
        first.release()
        raise BlockingIOError

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(BlockingIOError, match="is in use: process"):
        second.take()
