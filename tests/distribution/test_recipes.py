"""The lines of docs/distribution.md that start workers: by hand, under Slurm and on Kubernetes they set `TF_CONFIG`."""

import json
import pathlib
import re
import subprocess

import pytest

from keras_tkd import distribution

PAGE = (pathlib.Path(__file__).parent.parent.parent / "docs" / "distribution.md").read_text()
SLURM = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1]
# Its folded lines are one.
POD = " ".join(re.search(r"- >-\n(.*?)```", PAGE, re.DOTALL)[1].split())
HAND = re.search(r"    (TF_CONFIG=.*?)\n\n", PAGE, re.DOTALL)[1]
# What stands in for a cluster's commands; `python` says what it was given.
COMMANDS = {
    "python": 'printf "%s" "$TF_CONFIG"',
    "scontrol": 'test "$*" = "show hostnames node[1-2]" && printf "node1\\nnode2\\n"',
    "srun": 'SLURM_PROCID=1 exec "$@"',
}


@pytest.mark.parametrize(
    ("script", "environment", "first", "index"),
    [
        (SLURM, {"SLURM_JOB_NODELIST": "node[1-2]"}, "node1:2222", 1),
        (POD, {"JOB_COMPLETION_INDEX": "1"}, "train-0.workers:2222", 1),
        (HAND, {}, "10.0.0.1:2222", 0),
    ],
)
def test_lines_set_what_multi_worker_reads(tmp_path, monkeypatch, script, environment, first, index):
    for name, text in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    ended = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    monkeypatch.setenv("TF_CONFIG", ended.stdout)
    monkeypatch.setattr(distribution.strategies, "_made", {})
    made = []
    monkeypatch.setattr(distribution.strategies, "join_cluster", lambda *cluster: made.append(cluster))
    distribution.make_strategy("multi_worker")
    said = json.loads(ended.stdout)
    assert made and said["cluster"]["worker"][0] == first and len(said["cluster"]["worker"]) == 2
    assert said["task"] == {"type": "worker", "index": index}
