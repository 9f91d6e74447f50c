"""The benchmarks' own arithmetic and what they write; no time is measured here."""

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "benchmarks"))

import gpu  # noqa: E402
import keys  # noqa: E402
import load  # noqa: E402
import operations  # noqa: E402
import run  # noqa: E402
import tasks  # noqa: E402

from keras_tkd import losses, models  # noqa: E402
from keras_tkd.methods import METHODS  # noqa: E402


@pytest.mark.parametrize("key", run.RATIOS)
def test_every_side_of_a_ratio_is_a_task_of_its_group(key):
    ratio = run.RATIOS[key]
    named = {task for side in ratio.sides for task in side}
    if keys.GROUPS[ratio.group].program == "memory.py":
        assert named <= {"training_added", "data", *vars(losses)}
    else:
        assert all(task.partition(":")[2] in METHODS or hasattr(tasks.Tasks, task) for task in named)


def test_operations_of_the_papers_student():
    # Multiply-adds: kernel x positions of the convolutions, 32x32, 16x16 and 8x8, and the two dense layers.
    convolutions = 3 * 3 * 3 * 32 * 1024 + 3 * 3 * 32 * 32 * 256 + 3 * 3 * 32 * 64 * 64
    dense = 1024 * 128 + 128 * 10
    student = models.build("tkd_student", (32, 32, 3), 10)
    assert operations.forward_operations(student) == 2 * (convolutions + dense)
    assert round(operations.training_operations(student) / 1e6, 1) == 27.3


def test_how_many_images_keep_sending_short():
    # Its name is that of a folder of tests.
    spec = importlib.util.spec_from_file_location("distribution_benchmark", run.HERE / "distribution.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    # A ring of 4 sends 3 quarters of 4,000 bytes, twice: a second at 6,000 bytes a second.
    assert benchmark.count_gradient_bytes(1000, 4) == 6000
    find = functools.partial(benchmark.find_batch, parameters=1000, image_seconds=1e-3, workers=4, bandwidth=6000)
    assert find(0.5, image_bytes=0) == pytest.approx(1000)  # of a millisecond each
    assert find(0.1, image_bytes=0) == pytest.approx(9000)
    # To three others, each image takes half of the millisecond that it is computed in.
    assert find(0.5, image_bytes=1) == pytest.approx(2000)
    assert find(0.1, image_bytes=1) is None


def test_a_ratio_is_the_median_of_the_rounds_ratios_or_that_of_the_means():
    measured = {"a": [1.0, 4.0, 10.0], "b": [1.0, 1.0, 3.0], "c": [1.0, 1.0, 1.0]}
    ratio = keys.Ratio("student", "a / b + c")
    assert run.compute_ratio(ratio, measured, mean=False) == 2.0  # of 1/2, 4/2, 10/4
    assert run.compute_ratio(ratio, measured, mean=True) == 15.0 / 8.0


def test_what_is_written(monkeypatch, tmp_path, capsys):
    def measure(group, names, *_):
        return {name: [2.0 if name == "kd_cached" else 1.0] for name in names}

    monkeypatch.setattr(run, "measure", measure)
    monkeypatch.setattr(run.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["run.py", f"--json={tmp_path}/figures.json"])
    run.main()
    written = json.loads((tmp_path / "figures.json").read_text())
    assert list(written) == [*keys.KEYS, "details"]
    assert written["kd_cached_over_fit"] == 2.0 and written["kd_cached_of_gemm"] == 0.5
    assert written["torch_tkd_drawn_speedup"] is None
    assert "pip install torch" in written["details"]["skipped"]["torch_tkd_drawn_speedup"]
    shown = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}
    assert shown["kd_cached_over_fit"] == ["2.000", "<=", "1.05", "no"]
    assert shown["memory_over_data"] == ["1.000", "<=", "1.70", "yes"]
    assert shown["torch_tkd_drawn_speedup"] == ["-", ">=", "3.50"]


@pytest.mark.parametrize(
    "program", ["choices", "growth", "load", "memory", "run", "startup", "steps", "streaming", "synthetic"]
)
def test_every_program_says_what_it_is_for(program, monkeypatch, capsys):
    module = importlib.import_module(program)
    monkeypatch.setattr(sys, "argv", [f"{program}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        module.main()
    assert ended.value.code == 0 and module.__doc__.splitlines()[0] in capsys.readouterr().out


def test_an_unknown_key_is_refused():
    with pytest.raises(SystemExit, match="Received: kd_over_everything"):
        run.select_keys(["sp_over_kd", "kd_over_everything"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        # Just inside: 1.9 % of memory, a byte less than 20 MB.
        ({"memory": 1_019, "log_bytes": 19_999_999}, []),
        ({"memory": 900}, []),
        ({"memory": 1_020}, ["Memory grew by 2.00%"]),
        ({"files": 8}, ["7 files were open, and are now 8"]),
        ({"log_bytes": 20_000_000}, ["20,000,000 bytes, and may hold less than 1,000 for each of 20,000 steps"]),
        ({"memory": 2_000, "files": 6, "log_bytes": 10**9}, ["100.00%", "7 files", "1,000,000,000 bytes"]),
    ],
)
def test_a_long_training_is_held_to_its_bounds(change, words):
    last = {"memory": 1_000, "files": 7, "log_bytes": 0} | change
    log_bytes = last.pop("log_bytes")
    figures = load.Figures(load.Held(500, 1_000, 7), load.Held(20_000, **last), (0.001, 0.009), log_bytes)
    broken = load.find_broken(figures)
    assert len(broken) == len(words) and all(part in said for part, said in zip(words, broken, strict=True))


def test_a_long_training_is_watched_once_it_has_settled(monkeypatch):
    monkeypatch.setattr(load, "SETTLED", 8)
    watch = load.Watch()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", steps_per_execution=2)
    model.fit(np.ones((10, 2)), np.ones((10, 1)), batch_size=2, epochs=3, verbose=0, callbacks=[watch])
    # Five steps an epoch, in three executions of 2, 2 and 1.
    assert [held.steps for held in watch.held] == [10, 15] and len(watch.seconds) == 3 * 3


def test_what_a_process_holds():
    memory, files = load.hold()
    with open(__file__):
        more = np.ones(10**7)
        grown = load.hold()
    assert grown[1] == files + 1 and grown[0] - memory > 0.9 * more.nbytes


def test_ten_kills_leave_no_trace():
    """Processes that are killed at random moments, over all kinds of state, end in what they would have been."""
    command = [sys.executable, str(pathlib.Path(run.__file__).with_name("kills.py")), "--kills=10", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    kills = [int(line.split()[1]) for line in done.stdout.splitlines()]
    assert kills == [3, 3, 2, 2] and done.stdout.count("the same bits") == 4


def test_a_step_on_the_gpu_is_right_within_its_precision_alone(tmp_path):
    for device, change in (("cpu", [3.0, 4.0]), ("gpu", [3.0, 4.5])):
        (tmp_path / device).mkdir()
        for precision in ("float32", "mixed_bfloat16"):
            np.save(tmp_path / device / f"kd:{precision}:0.npy", change)
    record = {"terms": {"kd": 2.0, "agreement": 0.5}, "finite": True}
    records = {
        "cpu": {"kd:float32:0": record},
        "gpu": {
            "kd:float32:0": record,
            "kd:mixed_bfloat16:0": record | {"terms": {"kd": 2.25, "agreement": 0.9}},
            "kd:mixed_float16:0": {"error": "ended"},
        },
    }
    half = gpu.compare(("kd", "mixed_bfloat16", 0), records, tmp_path)
    # |0.25| / 2, and |(0, 0.5)| / |(3, 4)|; agreement is a share of images and is not compared.
    assert half["terms_off"] == {"kd": 0.125} and half["step_off"] == 0.1 and half["right"]
    exact = gpu.compare(("kd", "float32", 0), records, tmp_path)
    assert exact["terms_off"] == {"kd": 0.0} and exact["step_off"] == 0.1 and not exact["right"]
    assert not gpu.compare(("kd", "mixed_float16", 0), records, tmp_path)["right"]


@pytest.mark.parametrize("change", [{"finite": False}, {"scale": "it stays"}])
def test_a_step_on_the_gpu_that_is_not_finite_or_keeps_its_scale_is_wrong(tmp_path, change):
    for device in ("cpu", "gpu"):
        (tmp_path / device).mkdir()
        np.save(tmp_path / device / "kd:float32:0.npy", [1.0])
    record = {"terms": {"kd": 1.0}, "finite": True, "scale": None}
    records = {"cpu": {"kd:float32:0": record}, "gpu": {"kd:float32:0": record}}
    assert gpu.compare(("kd", "float32", 0), records, tmp_path)["right"]
    records["gpu"] = {"kd:float32:0": record | change}
    assert not gpu.compare(("kd", "float32", 0), records, tmp_path)["right"]
