"""What trains in processes of its own, once for all the tests that look at it."""

import fcntl
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
# Each kind of `train.py` under one of the strategies, to which it is all the same.
KINDS = {
    "mirrored": [
        *["weighted", "clipped", "float16", "hint"],
        *["masked", "cached", "ensemble", "kd_local"],
    ],
    "multi_worker": ["kd", "tkd_drawn", "tkd_in_batch", "sp", "rkd", "crd", "trikd", "dml", "bfloat16"],
    "four workers": ["crd"],
}
# Twenty-one steps. One device and several sum the same products in another order: float32's rounding, 6e-8 of each
# number, is in every weight, and grows with the steps. In float16, activations and gradients have 11 bits, in bfloat16
# 8 bits.
TOLERANCE = dict.fromkeys(sum(KINDS.values(), []), 1e-5) | {"float16": 5e-3, "bfloat16": 4e-2}


def start(script, *arguments, **environment):
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(
        command, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait(process):
    output, _ = process.communicate(timeout=1500)
    assert process.returncode == 0, output[-3000:]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def make_once(tmp_path_factory, name, make):
    """Returns a folder that `make` filled: only one of pytest's own processes does, and the others wait for it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / name
    with open(base / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "whole").touch()
    return folder


def train_all(folder):
    started = [
        start("train.py", name, folder / f"{name}.npz", *KINDS.get(name, TOLERANCE)) for name in ("none", "mirrored")
    ]
    for name, count in (("worker", 2), ("of four", 4)):
        kinds = KINDS["multi_worker" if count == 2 else "four workers"]
        workers = [f"127.0.0.1:{port}" for port in free_ports(count)]
        for index in range(count):
            config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            arguments = "multi_worker", folder / f"{name} {index}.npz", *kinds
            started.append(start("train.py", *arguments, TF_CONFIG=json.dumps(config)))
    for process in started:
        wait(process)


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """What came of training in one process, on three devices, and in each of two workers: arrays, and the rest."""
    folder, read = make_once(tmp_path_factory, "trained", train_all), {}
    for path in folder.glob("*.npz"):
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files if name != "about"}
            read[path.stem] = arrays, json.loads(str(file["about"]))
    return read


@pytest.fixture(scope="session")
def probed(tmp_path_factory):
    """What `probe.py` found on two devices, of plain Keras and of this package."""
    folder = make_once(tmp_path_factory, "probed", lambda folder: wait(start("probe.py", folder / "found.json")))
    return json.loads((folder / "found.json").read_text())
