"""Runs on two devices and of two workers, killed and taken up, are in the end what one process makes of them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import device_runs
import keras
import numpy as np
import pytest

from keras_tkd import models
from keras_tkd.config import DistillConfig
from keras_tkd.runs import distill

ROOT = pathlib.Path(__file__).parents[2]
# Two processes share the cores.
FEW_THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
# 89 images, six steps an epoch, of which the last is of nine: four and five. No model has BatchNorm, whose statistics
# are each worker's own.
SETTINGS = {
    "dataset": "digits",
    "method": "tkd",
    "train_fraction": 0.06,
    "batch_size": 16,
    # More than pass between a first state and the kill that it calls for.
    "epochs": 8,
    "teacher_epochs": 8,
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
    environment = os.environ | FEW_THREADS
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


def compare_models(folders, name, tolerance):
    weights = [keras.saving.load_model(folder / f"{name}.keras").get_weights() for folder in folders]
    for found, expected in zip(*weights, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)


@pytest.fixture
def teachers(tmp_path):
    """A folder of teachers: two of digits, and one of 43 classes, for pixels in 0..1."""
    folder = tmp_path / "teachers"
    folder.mkdir()
    for seed, name in enumerate(("one", "two")):
        keras.utils.set_random_seed(seed)
        models.build("digits_student", (8, 8, 1), 10).save(folder / f"{name}.keras")
    layers = keras.layers
    body = [layers.Rescaling(1 / 16), layers.Flatten(name="features"), layers.Dense(16, activation="relu")]
    keras.Sequential([keras.Input((8, 8, 1)), *body, layers.Dense(43)]).save(folder / "foreign.keras")
    return folder


def test_runs_on_two_devices_and_of_two_workers_are_those_of_one_device(tmp_path, stored, teachers):
    """Images of a stream with a cache, an ensemble in float16, a new head on a teacher, a teacher that learns too."""
    script, launcher = (str(ROOT / path) for path in ("tests/runs/device_runs.py", "scripts/workers.py"))
    two = f"import runpy, sys; sys.exit(runpy.run_path({launcher!r})['launch']([sys.executable, *sys.argv[1:]], 2))"
    started = []
    for distribution in ("none", "mirrored", "multi_worker"):
        way = [sys.executable, "-c", two] if distribution == "multi_worker" else [sys.executable]
        command = [*way, script, distribution, tmp_path / distribution, stored, teachers]
        with open(tmp_path / f"{distribution}.txt", "w") as said:
            started.append(subprocess.Popen(command, env=os.environ | FEW_THREADS, stdout=said, stderr=said))
    for process, distribution in zip(started, ("none", "mirrored", "multi_worker"), strict=True):
        assert process.wait(1500) == 0, (tmp_path / f"{distribution}.txt").read_text()[-3000:]
    for distribution in ("mirrored", "multi_worker"):
        for kind in device_runs.KINDS:
            folders = tmp_path / distribution / kind, tmp_path / "none" / kind
            compare(*(json.loads((folder / "results.json").read_text()) for folder in folders), kind)
            # Activations and gradients in float16 have 11 bits, and move a weight of up to 1 in each of six steps.
            compare_models(folders, "student", 6 * 2**-11 if kind == "ensemble" else 1e-5)
            if kind != "ensemble":
                compare_models(folders, "teacher", 1e-5)


def test_a_validation_goes_by_the_mean_of_the_statistics_that_devices_have_of_a_loss(tmp_path, teachers):
    """With `gather="local"` each of them sees its own images, and of the loss only the state keeps anything."""
    command = [sys.executable, ROOT / "tests/runs/loss_statistics.py", tmp_path / "run", teachers / "one.keras"]
    ended = subprocess.run(command, env=os.environ | FEW_THREADS, text=True, capture_output=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    first, second = map(np.array, found["before"])
    assert np.abs(first - second).max() > 1e-3
    for own in found["after"]:
        np.testing.assert_allclose(own, (first + second) / 2, rtol=1e-6)


def start_to_state(path, training):
    """The launcher of two workers, once they have written a state of a training that was not there."""
    # One that is being written begins with a dot.
    pattern = f"checkpoints/{training}/[!.]*.npz"
    known, process = set(path.glob(pattern)), start(path)
    while not set(path.glob(pattern)) - known:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


def test_two_workers_that_were_killed_end_as_one_process(tmp_path):
    # Ctrl-C, which the launcher hands to both.
    process = start_to_state(tmp_path / "two", "teacher")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 128 + signal.SIGINT and "Interrupted (SIGINT)" in output, output
    assert "Error" not in output, output
    # Each of them killed, in another training.
    for index, training in ((1, "teacher"), (0, "student")):
        process = start_to_state(tmp_path / "two", training)
        os.kill(find_children(process)[index], signal.SIGKILL)
        # Without the word of the other, it would wait for good.
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 128 + signal.SIGKILL, output
        assert f"Error: worker {index} at 127.0.0.1" in output and "is lost: its process is gone" in output
        assert not (tmp_path / "two" / "results.json").exists()
        assert index == 0 or "Teacher, taken up after epoch" in output

    process = start(tmp_path / "two")
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output
    assert "Student, by tkd, taken up after epoch" in output

    one = distill(DistillConfig(**SETTINGS), tmp_path / "one")
    two = json.loads((tmp_path / "two" / "results.json").read_text())
    compare(two, one)
    for name in ("teacher", "student"):
        compare_models((tmp_path / "two", tmp_path / "one"), name, 1e-5)
