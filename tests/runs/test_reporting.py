"""Reports of folders: of one run, of a comparison, out of what they left."""

import json

import numpy as np
import pytest
from page_reading import Page

from keras_tkd.reports.comparison import ComparedRun, Comparison
from keras_tkd.reports.observations import Observations, write_observations
from keras_tkd.reports.schema import ModelResult, Results, StudentResult
from keras_tkd.runs import write_report
from keras_tkd.utils.files import write_json

HISTORY = [{"loss": 2.5, "val_loss": 2.25, "accuracy": 0.5}, {"loss": 1.5, "val_loss": 1.75, "accuracy": 0.75}]


def write_run(folder, **more):
    """A finished run's files, models aside, in which nothing was trained."""
    fields = {
        "method": "kd",
        "dataset": "digits",
        "seed": 3,
        "epochs": 2,
        "test_samples": 80,
        "teacher": ModelResult(test_accuracy=0.975, parameters=72_970, at_chance=False),
        "baseline": ModelResult(test_accuracy=0.8125, parameters=666, at_chance=False, seconds=2.5),
        "student": StudentResult(
            test_accuracy=0.9, parameters=666, at_chance=False, seconds=3.5, agreement=0.8875, gained=9, lost=2
        ),
        "flags": ("--epochs=2", "--method=kd"),
    }
    write_json(folder / "results.json", Results(**fields | more).to_dict())
    (folder / "student.keras").write_bytes(b"x" * 1_234)
    for stage in ("teacher", "baseline", "student"):
        record = {"settings": {}, "history": HISTORY, "seconds": 1.0, "finished": True}
        write_json(folder / "checkpoints" / stage / "record.json", record)
    return folder


def read_page(folder):
    return Page(write_report(folder).read_text())


def test_one_run_has_the_same_page(tmp_path):
    page = read_page(write_run(tmp_path))
    runs = {run["method"]: run for run in page.embedded["runs"]}
    assert runs["baseline"]["test_accuracy"] == runs["kd"]["baseline_accuracy"] == 0.8125
    assert (runs["kd"]["test_accuracy"], runs["kd"]["agreement"], runs["kd"]["seed"]) == (0.9, 0.8875, 3)
    # Of 80 images 9 are gained and 2 lost: p = 2 * (1 + 11 + 55) / 2^11.
    verdict = page.embedded["verdicts"]["kd"]
    assert verdict["gain"] == pytest.approx(7 / 80) and verdict["p"] == pytest.approx(2 * 67 / 2**11)
    assert "Distilled minus alone, same budget: +8.75 points" in page.text
    sizes = {row["model"]: (row["parameters"], row["bytes"]) for row in page.list_values() if "bytes" in row}
    assert sizes == {"teacher": (72_970, None), "student alone": (666, None), "kd": (666, 1_234)}
    assert "python scripts/distill.py --workdir=DIR \\\n    --epochs=2 \\\n    --method=kd\n" in page.text


def test_curves_are_those_of_the_trainings(tmp_path):
    folder = write_run(tmp_path)
    longer = [{"loss": 9.0 - epoch / 100, "images_per_second": 5.0, "accuracy": float("nan")} for epoch in range(500)]
    write_json(folder / "checkpoints" / "student" / "record.json", {"history": longer})
    curves = {}
    for row in read_page(folder).list_values():
        if "epoch" in row:
            curves.setdefault((row["model"], row["images"], row["value"] > 2), []).append((row["epoch"], row["value"]))
    assert curves["teacher", "train", True] == [(1, 2.5)] and curves["teacher", "held out", True] == [(1, 2.25)]
    assert curves["student alone", "train", False] == [(1, 0.5), (2, 0.75), (2, 1.5)]
    # Neither a clock's nor what is no number; the ends are there, and about 100 points.
    epochs = [epoch for epoch, _ in curves["kd", "train", True]]
    assert (epochs[0], epochs[-1]) == (1, 500) and 75 < len(epochs) <= 101
    assert [key for key in curves if key[0] == "kd"] == [("kd", "train", True)]


def test_a_run_without_a_teacher_has_a_page(tmp_path):
    page = read_page(write_run(tmp_path, method="baseline", teacher=None, baseline=None))
    assert page.embedded["methods"] == ["baseline"] and page.embedded["verdicts"] == {}
    assert "Nothing was distilled" in page.text and "90.00%" in page.text


def test_a_run_that_compares_no_classes_has_a_page(tmp_path):
    model = ModelResult(parameters=666)
    page = read_page(write_run(tmp_path, teacher=model, baseline=model, student=StudentResult(parameters=666)))
    assert "All classes are in the open set" in page.text and page.embedded["verdicts"] == {}


def test_latency_is_shown_where_an_export_measured_it(tmp_path):
    run = write_run(tmp_path / "run")
    assert "Latency was not measured" in read_page(run).text
    model = {
        "title": "student", "path": "student.keras", "bytes": 1_234, "test_accuracy": 0.9, "drop": 0.0,
        "agreement": 1.0, "largest_difference": 0.0, "threads": 1,
        "latency": [
            {"batch_size": 32, "median_ms": 9.0, "p95_ms": 9.5}, {"batch_size": 1, "median_ms": 0.625, "p95_ms": 0.75},
        ],
    }  # fmt: skip
    values = {
        "version": 1, "source": str(run / "student.keras"), "dataset": "digits", "test_samples": 80, "classes": ["0"],
        "image_shape": [8, 8, 1], "preprocessing": "inside", "scaling": [], "training_layers": [], "calibration": None,
        "max_drop": None, "passed": True, "student": model, "teacher": None, "versions": {},
        "files": [model | {"title": "litert_float32", "path": "model.tflite", "bytes": 999}],
    }  # fmt: skip
    write_json(tmp_path / "run_export" / "export.json", values)
    # One of another run's student is none of this.
    other = json.dumps(values | {"source": str(tmp_path / "other" / "student.keras")})
    (tmp_path / "other_export").mkdir()
    (tmp_path / "other_export" / "export.json").write_text(other)
    page = read_page(run)
    timed = [(row["model"], row["milliseconds"]) for row in page.list_values() if row.get("milliseconds")]
    assert timed == [("student (Keras)", 0.625), ("litert_float32", 0.625)]
    assert "Latency was not measured" not in page.text


@pytest.mark.parametrize("content", ["[1]", "{", '{"version": 1}'])
def test_a_strangers_export_beside_the_folder_is_left_out(content, tmp_path, capsys):
    run = write_run(tmp_path / "run")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "export.json").write_text(content)
    assert "Latency was not measured" in read_page(run).text
    said = f"Warning: an export is left out of the report: {tmp_path}/theirs/export.json is damaged"
    assert said in capsys.readouterr().out


def test_latency_is_that_of_the_runs(tmp_path):
    """Student and student alone are one network, and have one."""
    page = read_page(write_run(tmp_path, latency_ms={"teacher": 2.5, "student": 0.5}))
    timed = {row["model"]: row["milliseconds"] for row in page.list_values() if row.get("milliseconds")}
    assert timed == {"teacher": 2.5, "student alone": 0.5, "kd": 0.5}
    assert "Latency was not measured" not in page.text and "No result rests on it" in page.text


def test_a_teacher_that_was_given_is_a_point_beside_the_students(tmp_path):
    """Its numbers are in the runs that learned from it, its file is where they found it."""
    (tmp_path / "given.keras").write_bytes(b"x" * 4_321)
    runs = []
    for seed, latency in enumerate([(3.0, 0.5), (5.0, 1.0), (4.0,)]):
        folder = tmp_path / "c" / f"kd/seed{seed}"
        write_run(
            folder,
            seed=seed,
            latency_ms=dict(zip(("teacher", "student"), latency, strict=False)),
            flags=("--method=kd", f"--teacher_path={tmp_path}/given.keras"),
        )
        path = f"kd/seed{seed}"
        runs.append(ComparedRun(method="kd", seed=seed, path=path, status="finished", test_accuracy=0.9))
    comparison = Comparison(
        methods=("baseline", "kd"), seeds=(0, 1, 2), flags=(), dataset="digits", epochs=2, test_samples=80,
        runs=tuple(runs), teacher_accuracy=0.975,
    )  # fmt: skip
    write_json(tmp_path / "c" / "comparison.json", comparison.to_dict())
    rows = [row for row in read_page(tmp_path / "c").list_values() if "milliseconds" in row]
    costs = {(each["model"], each["parameters"], each["bytes"], each["milliseconds"]) for each in rows}
    assert costs == {("teacher", 72_970, 4_321, 4.0), ("kd", 666, 1_234, 0.75)}


def test_what_is_no_finished_run_of_a_student_is_refused(tmp_path):
    with pytest.raises(ValueError, match="a comparison's folder, or of a finished run with a student"):
        write_report(tmp_path)
    write_run(tmp_path, method="teacher", student=None, baseline=None)
    with pytest.raises(ValueError, match="a comparison's folder, or of a finished run with a student"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def observe(folder, **classes):
    """Two test images, of which models say these classes, with a confidence that tells the models apart."""
    observations = Observations(
        labels=np.array([0, 1]),
        classes={role: np.array(said) for role, said in classes.items()},
        confidences={role: np.full(2, 0.5 + len(folder.parts[-1]) / 100) for role in classes},
        embedded=np.arange(0), embeddings={}, pictured=np.arange(0), pictures=np.empty((0, 0, 0, 0), "uint8"),
        triplets=np.empty((0, 2), int), distances={},
    )  # fmt: skip
    write_observations(folder / "observations.npz", observations)


def test_the_student_alone_of_another_run_stands_beside(tmp_path):
    """As in a comparison: it is the student of the run that `--baseline` names."""
    alone = write_run(tmp_path / "alone", method="baseline", teacher=None, baseline=None)
    observe(alone, student=[0, 1])
    run = write_run(tmp_path / "kd", flags=("--method=kd", f"--baseline={alone}"))
    observe(run, student=[0, 0], teacher=[1, 1])
    rows = [row for row in read_page(run).list_values() if "count" in row]
    ranges = {row["model"]: (pytest.approx(row["confidence"]), row["accuracy"]) for row in rows}
    assert ranges == {"teacher": (0.52, 0.5), "student alone": (0.55, 1.0), "kd": (0.52, 0.5)}


def test_a_comparison_shows_one_seed_of_few_methods(tmp_path):
    methods = ("baseline", *(f"kd@temperature={i}" for i in range(1, 9)))
    runs = []
    for method in methods:
        for seed in (3, 5):
            path = f"{method}/seed{seed}"
            alone = method == "baseline"
            found = {"teacher": None, "baseline": None} if alone else {}
            folder = write_run(tmp_path / path, seed=seed, **found)
            observe(folder, student=[0, 1], **({} if alone else {"teacher": [1, 1]}))
            runs.append(ComparedRun(method=method, seed=seed, path=path, status="finished", test_accuracy=0.9))
    comparison = Comparison(
        methods=methods, seeds=(3, 5), flags=("--epochs=2",), dataset="digits", epochs=2, test_samples=80,
        runs=tuple(runs), settings={methods[2]: ("--learning_rate=0.5",)},
    )  # fmt: skip
    write_json(tmp_path / "comparison.json", comparison.to_dict())
    page = read_page(tmp_path)
    shown = {row["model"] for row in page.list_values() if "count" in row}
    assert shown == {"teacher", "student alone", *methods[1:7]}
    assert "Of seed 3" in page.text and f"without {methods[7]}, {methods[8]}, so that" in page.text
    named = [f"{each}={each}.flags" if each == methods[2] else each for each in methods[1:]]
    assert f"{methods[2]}.flags\n--learning_rate=0.5\n" in page.text
    assert f"    --methods={','.join(named)} \\\n    --seeds=3,5 \\\n    --epochs=2\n" in page.text
    assert page.embedded == json.loads((tmp_path / "comparison.json").read_text())


@pytest.mark.parametrize(
    ("seeds", "shown", "missing"),
    # Of seeds 3 and 5 there are two methods each: the first is taken. Of seed 7 there are all.
    [((3, 5), "Of seed 3", {"kd"}), ((3, 5, 7), "Of seed 7", set())],
)
def test_the_seed_that_is_shown_is_that_of_most_methods(seeds, shown, missing, tmp_path):
    """kd failed with seed 3, and sp with seed 5."""
    runs = []
    for seed in seeds:
        for method in ("baseline", "kd", "sp"):
            described = {"method": method, "seed": seed, "path": f"{method}/seed{seed}"}
            if (method, seed) in (("kd", 3), ("sp", 5)):
                runs.append(ComparedRun(**described, status="failed", error="ValueError: it broke"))
                continue
            alone = method == "baseline"
            folder = write_run(
                tmp_path / described["path"], seed=seed, **({"teacher": None, "baseline": None} if alone else {})
            )
            observe(folder, student=[0, 1], **({} if alone else {"teacher": [1, 1]}))
            runs.append(ComparedRun(**described, status="finished", test_accuracy=0.9))
    comparison = Comparison(
        methods=("baseline", "kd", "sp"), seeds=seeds, flags=(), dataset="digits", epochs=2, test_samples=80,
        runs=tuple(runs),
    )  # fmt: skip
    write_json(tmp_path / "comparison.json", comparison.to_dict())
    page = read_page(tmp_path)
    models = {row["model"] for row in page.list_values() if "count" in row}
    assert shown in page.text and models == {"teacher", "student alone", "kd", "sp"} - missing
    assert ("without kd, of which no run of that seed is known" in page.text) == bool(missing)
