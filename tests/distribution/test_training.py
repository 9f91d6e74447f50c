"""Training on several devices and in several processes is training on one: weights, metrics and validation."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

# Each kind under one of the strategies, to which it is all the same.
KINDS = {
    "mirrored": ["weighted", "clipped", "float16", "tkd_in_batch", "rkd", "hint"],
    "multi_worker": ["kd", "tkd_drawn", "sp", "crd", "trikd"],
}
# Eighteen steps. One device and several sum the same products in another order: float32's rounding, 6e-8 of each
# number, is in every weight, and grows with the steps. In float16, activations and gradients have 11 bits.
TOLERANCE = dict.fromkeys(sum(KINDS.values(), []), 1e-5) | {"float16": 5e-3}
SCRIPT = pathlib.Path(__file__).parent / "train.py"


def start(strategy, path, kinds, **environment):
    command = [sys.executable, str(SCRIPT), strategy, str(path), *kinds]
    return subprocess.Popen(
        command, env=os.environ | environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def read(process, path):
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    with np.load(path) as file:
        return {name: file[name] for name in file.files if name != "histories"}, json.loads(str(file["histories"]))


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What came of training in one process, on three devices, and in each of two workers."""
    folder = tmp_path_factory.mktemp("trained")
    workers = [f"127.0.0.1:{port}" for port in free_ports(2)]
    processes = {name: (name, {}) for name in ("none", "mirrored")}
    for index in range(2):
        config = {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        processes[f"worker {index}"] = "multi_worker", {"TF_CONFIG": json.dumps(config)}
    paths = {name: folder / f"{name}.npz" for name in processes}
    started = {
        name: start(strategy, paths[name], KINDS.get(strategy, TOLERANCE), **environment)
        for name, (strategy, environment) in processes.items()
    }
    return {name: read(process, paths[name]) for name, process in started.items()}


@pytest.mark.parametrize("kind", TOLERANCE)
def test_several_train_as_one(results, kind):
    several = results["mirrored" if kind in KINDS["mirrored"] else "worker 0"]
    (one, one_history), (several, several_history) = results["none"], several
    names = [name for name in one if name.startswith(f"{kind}/")]
    assert len(names) == 4
    for name in names:
        np.testing.assert_allclose(several[name], one[name], rtol=0, atol=TOLERANCE[kind], err_msg=name)
    assert set(several_history[kind]) == set(one_history[kind])
    for metric, values in one_history[kind].items():
        # One image of 44 may change sides under float16.
        margin = 1 / 44 + 1e-6 if kind == "float16" and "loss" not in metric and "kd" not in metric else 0
        np.testing.assert_allclose(
            several_history[kind][metric], values, rtol=10 * TOLERANCE[kind], atol=margin, err_msg=metric
        )


def test_all_workers_end_with_the_same_bytes(results):
    first, second = results["worker 0"], results["worker 1"]
    for name in first[0]:
        np.testing.assert_array_equal(first[0][name], second[0][name], err_msg=name)
    assert first[1] == second[1]
