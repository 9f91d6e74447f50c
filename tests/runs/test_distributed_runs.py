"""Runs of two workers: killed, taken up, and in the end what one process makes of the same command."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_tkd.config import DistillConfig
from keras_tkd.runs import distill

ROOT = pathlib.Path(__file__).parents[2]
# 89 images, six steps an epoch, of which the last is of nine: four and five. No model has BatchNorm, whose statistics
# are each worker's own.
SETTINGS = {
    "dataset": "digits",
    "method": "tkd",
    "train_fraction": 0.06,
    "batch_size": 16,
    "epochs": 2,
    "teacher_epochs": 4,
    "learning_rate": 0.02,
    "teacher_model": "digits_student",
    "teacher_learning_rate": 0.02,
    "baseline": "none",
    "checkpoint_steps": 4,
    "tensorboard": "off",
    "check": "off",
    "teacher_cache": "workdir",
    "teacher_cache_dtype": "float32",
}
# What says how long something took, or on which bytes it was done.
NOT_COMPARED = ("seconds", "files", "flags", "images_per_second", "latency_ms")


def start(path, *arguments):
    """The launcher of two workers."""
    flags = [f"--{name}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, str(ROOT / "scripts" / "distill.py"), *flags, *arguments, f"--workdir={path}"]
    # Two processes share the cores.
    environment = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
    workers = ["--distribution=multi_worker", "--num_workers=2"]
    return subprocess.Popen(
        [*command, *workers], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def find_children(process):
    """Process numbers of the workers, in the order in which they were started."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(number) for number in children.read_text().split()]


def compare(found, expected, path=""):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), path
        for name in expected:
            if name not in NOT_COMPARED:
                compare(found[name], expected[name], f"{path}/{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), path
        for number, pair in enumerate(zip(found, expected, strict=True)):
            compare(*pair, f"{path}/{number}")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-3), path
    else:
        assert found == expected, path


def test_two_workers_that_were_killed_end_as_one_process(tmp_path):
    process = start(tmp_path / "two")
    while not list((tmp_path / "two").glob("checkpoints/teacher/*.npz")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    os.kill(find_children(process)[1], signal.SIGKILL)
    # Without the word of the other, it would wait for good.
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGKILL, output
    assert "Error: worker 1 at 127.0.0.1" in output and "is lost: its process is gone" in output
    assert not (tmp_path / "two" / "results.json").exists()

    process = start(tmp_path / "two")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert "Teacher, taken up after epoch" in output

    one = distill(DistillConfig(**SETTINGS), tmp_path / "one")
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    compare(two, one)
    for name in ("teacher", "student"):
        weights = [keras.saving.load_model(tmp_path / run / f"{name}.keras").get_weights() for run in ("two", "one")]
        for found, expected in zip(*weights, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=name)
