"""Runs of a comparison in processes of their own."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from keras_tkd.utils.locks import FolderLock

PARENT = """
import pathlib, sys
from keras_tkd.config import DistillConfig
from keras_tkd.runs.sweep_jobs import run_all
from keras_tkd.runs.sweep_plan import Step
folder = pathlib.Path(sys.argv[1])
config = DistillConfig(method="baseline", epochs=100_000)
step = Step(method="baseline", seed=0, command="distill", config=config, path=folder / "run")
for _, outcome, _ in run_all([step], {}, folder, parallel=2):
    sys.exit(f"It ended: {outcome}")
"""


def test_a_run_ends_with_the_process_that_started_it(tmp_path):
    """Which is killed, so that it can do nothing about it: the folder is free, and holds the state of the training."""
    lock, worker = tmp_path / "run" / ".lock", None
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stderr=subprocess.PIPE, text=True)
    try:
        while not list((tmp_path / "run").rglob("[!.]*.npz")):
            assert parent.poll() is None, parent.stderr.read()
            time.sleep(0.1)
        worker = int(re.match(r"process (\d+) on", lock.read_text())[1])
        assert worker != parent.pid
        with pytest.raises(BlockingIOError, match=f"process {worker} on"):
            FolderLock(tmp_path / "run").check_free()
        parent.kill()
        parent.wait()
        wait_until_free(tmp_path / "run")
        worker = None
    finally:
        parent.kill()
        parent.stderr.close()
        if worker:
            os.kill(worker, signal.SIGKILL)
    assert list((tmp_path / "run").rglob("*.npz"))


def wait_until_free(folder):
    """Waits for as long as a training that goes on needs for many epochs; raises `BlockingIOError` after that."""
    for patience in range(300, -1, -1):
        try:
            return FolderLock(folder).check_free()
        except BlockingIOError:
            if not patience:
                raise
            time.sleep(0.1)
