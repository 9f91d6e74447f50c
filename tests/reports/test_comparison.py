"""Comparisons as a file and as tables: the numbers, and what is said of them."""

import csv
import dataclasses
import json
import re

import pytest

from keras_tkd.evaluation.significance import BETTER, NOT_SHOWN, WORSE, Verdict
from keras_tkd.reports import comparison as reports
from keras_tkd.reports import comparison_tables as tables
from keras_tkd.reports.comparison import ComparedRun, Comparison, read_comparison
from keras_tkd.reports.schema import Results

SEEDS = (0, 1, 2)


def results(student, alone=0.8, seed=0, collapsed=()):
    """The `Results` of a run on 1,000 test images; `collapsed` are roles."""
    described = {
        role: {"test_accuracy": accuracy, "parameters": 666, "at_chance": role in collapsed}
        for role, accuracy in (("student", student), ("baseline", alone))
    }
    run = {"method": "kd", "dataset": "digits", "seed": seed, "epochs": 3, "test_samples": 1_000}
    return Results.from_dict(run | described)


def test_methods_are_judged_by_pairs_of_a_seed():
    """Gains of 5, 6 and 7 points: t = 10.39, p = 1 - t / sqrt(2 + t^2) = 0.009134, times two methods."""
    found = {
        "kd": [
            results(alone + gain, alone, seed)
            for seed, (alone, gain) in enumerate([(0.5, 0.05), (0.6, 0.06), (0.7, 0.07)])
        ],
        "sp": [results(0.81, 0.8, seed) for seed in SEEDS[:2]],
    }
    verdicts = reports.judge_comparison(["kd", "sp"], SEEDS, found)
    assert verdicts["kd"].decision == BETTER and verdicts["kd"].p == pytest.approx(2 * 0.009134, rel=1e-3)
    assert (verdicts["sp"].decision, verdicts["sp"].seeds) == (NOT_SHOWN, 2)
    assert reports.judge_comparison(["at"], SEEDS, {})["at"].gain is None


@pytest.mark.parametrize("role", ["student", "baseline"])
def test_a_collapsed_pair_is_no_measurement(role):
    """Whoever of the two it was: what is left of the seeds decides nothing."""
    found = [results(0.85 + seed / 1_000, seed=seed, collapsed=(role,) if seed == 2 else ()) for seed in SEEDS]
    verdict = reports.judge_comparison(["kd"], SEEDS, {"kd": found})["kd"]
    assert (verdict.decision, verdict.seeds) == (NOT_SHOWN, 2) and verdict.gain == pytest.approx(0.0505)


def test_one_seed_is_judged_by_images():
    """Without counts, as many disagreements as there can be: 850 and 800 right of 1,000 are 200 and 150 alone."""
    verdicts = reports.judge_comparison(["kd", "sp"], (0,), {"kd": [results(0.85)], "sp": []})
    # z = 50 / sqrt(350) = 2.67: p is about 0.009 with the correction for a binomial, times two methods.
    assert verdicts["kd"].decision == BETTER and 0.01 < verdicts["kd"].p < 0.03
    assert verdicts["sp"].decision == NOT_SHOWN and verdicts["sp"].gain is None


def make_run(method, seed, status="finished", **more):
    return ComparedRun(method=method, seed=seed, path=f"{method}/seed{seed}", status=status, **more)


def make_verdict(gain, decision, detectable=0.011):
    interval = (gain - 0.01, gain + 0.01)
    return Verdict(gain=gain, interval=interval, p=0.5, seeds=3, decision=decision, detectable=detectable)


def make_comparison(**more):
    runs = [make_run("teacher", 0, test_accuracy=0.98, seconds=3.0)]
    runs += [make_run("baseline", seed, test_accuracy=0.8 + seed / 100, seconds=1.0) for seed in SEEDS]
    runs += [make_run("kd", seed, test_accuracy=0.9, baseline_accuracy=0.8, agreement=0.95) for seed in SEEDS]
    runs += [make_run("sp", 0, test_accuracy=0.7), make_run("sp", 1, "collapsed", test_accuracy=0.1)]
    runs += [make_run("sp", 2, "failed", error="ValueError: it broke")]
    runs += [make_run("at|x", seed, "waiting") for seed in SEEDS]
    verdicts = {"kd": make_verdict(0.09, BETTER), "sp": make_verdict(-0.1, WORSE)}
    verdicts["at|x"] = make_verdict(0.002, NOT_SHOWN)
    fields = {
        "methods": ("baseline", "kd", "sp", "at|x"),
        "seeds": SEEDS,
        "flags": ("--epochs=3",),
        "dataset": "digits",
    }
    fields |= {
        "epochs": 3,
        "test_samples": 1_000,
        "parameters": 666,
        "teacher_accuracy": 0.98,
        "runs": tuple(runs),
        "verdicts": verdicts,
    }
    return Comparison(**fields | more)


def test_what_is_written_is_read_again(tmp_path):
    path = tmp_path / "comparison.json"
    assert read_comparison(path) is None
    path.write_text(json.dumps(make_comparison().to_dict()))
    assert read_comparison(path) == make_comparison()
    assert json.loads(path.read_text())["version"] == 1
    path.write_text(
        json.dumps(Comparison(methods=("baseline",), seeds=(0,), flags=(), dataset="d", epochs=1).to_dict())
    )
    assert read_comparison(path).verdicts == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "must be of version 1 of its schema. Received: version=2"),
        ({"version": None}, "version=None"),
        ({"runs": 5}, "is damaged"),
        ({"runs": [{"method": "kd"}]}, "is damaged"),
        ({"verdicts": {"kd": {}}}, "is damaged"),
        ({"more": 1}, "is damaged"),
        ({"seeds": ["x"]}, r"is damaged.*`seeds` must be of the kind.*Received: seeds=\['x'\]"),
        ({"seeds": [[1]]}, r"Received: seeds=\[\[1\]\]"),
        ({"seeds": [0.5]}, r"Received: seeds=\[0.5\]"),
        ({"seeds": [True]}, r"Received: seeds=\[True\]"),
        ({"methods": ["baseline", 5]}, r"Received: methods=\['baseline', 5\]"),
        ({"methods": [{}]}, r"Received: methods=\[\{\}\]"),
        ({"methods": "kd"}, "Received: methods='kd'"),
        ({"flags": [1]}, r"Received: flags=\[1\]"),
        ({"epochs": "3"}, "Received: epochs='3'"),
        ({"runs": [5]}, r"Received: runs=\[5\]"),
        ({"runs": [{"method": "kd", "seed": "0", "path": "kd/seed0"}]}, "Received: seed='0'"),
        ({"verdicts": {"kd": 5}}, "Received: verdicts={'kd': 5}"),
        ({"verdicts": {"kd": {"interval": ["a", "b"]}}}, "Received: interval="),
        ({"data": {"images of train": 5}}, "Received: data={'images of train': 5}"),
    ],
)
def test_another_file_is_refused_and_named(change, message, tmp_path):
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(make_comparison().to_dict() | change))
    with pytest.raises(ValueError, match=message) as error:
        read_comparison(path)
    assert str(path) in str(error.value)


def test_table():
    caption, *lines = tables.format_comparison_table(make_comparison()).splitlines()
    assert all(
        words in caption for words in ("digits", "3 epochs", "seeds 0, 1, 2", "1,000 test images", "teacher 98.00 %")
    )
    rows = {cells[0]: cells[1:] for cells in (re.split(r"\s{2,}", line.strip()) for line in lines)}
    # (0.80 + 0.81 + 0.82) / 3
    assert rows["student alone"] == ["81.00 % (80.00 to 82.00)", "-", "-", "-", "-", "3 of 3"]
    assert rows["kd"][1:] == ["+9.00", "+8.00 to +10.00", "0.500", "BETTER", "3 of 3"]
    # (0.7 + 0.1) / 2
    assert rows["sp"][0] == "40.00 % (10.00 to 70.00), 1 at chance"
    assert rows["sp"][-1] == "1 of 3, 1 collapsed, 1 failed"
    assert rows["at|x"][0] == "-" and rows["at|x"][-1] == "0 of 3, 3 waiting"


def test_of_images_of_several_classes_it_is_the_exact_match():
    one, several = (tables.format_comparison_table(make_comparison(task=task)) for task in (None, "multi_label"))
    assert "test accuracy" in one and "exact match" not in one
    assert "exact match" in several and "test accuracy" not in several


def test_a_mean_says_which_runs_it_holds():
    """None is left out silently, and none makes a mean lower unsaid."""
    runs = [make_run("kd", seed, test_accuracy=0.9) for seed in (0, 1)]
    runs += [make_run("sp", 0, test_accuracy=0.7), make_run("sp", 1, "collapsed", test_accuracy=0.1)]
    runs += [make_run("at", seed, "collapsed", test_accuracy=0.1) for seed in (0, 1)]
    # Stopped: there is no accuracy that a mean could hold.
    runs += [make_run("dkd", 0, test_accuracy=0.6), make_run("dkd", 1, "collapsed", error="at chance")]
    comparison = make_comparison()
    comparison = dataclasses.replace(comparison, methods=("kd", "sp", "at", "dkd"), seeds=(0, 1), runs=tuple(runs))
    lines = tables.format_comparison_table(comparison).splitlines()[3:]
    cells = [re.split(r"\s{2,}", line.strip()) for line in lines]
    assert [(row[0], row[1], row[-1]) for row in cells] == [
        ("kd", "90.00 % (90.00 to 90.00)", "2 of 2"),
        ("sp", "40.00 % (10.00 to 70.00), 1 at chance", "1 of 2, 1 collapsed"),
        ("at", "10.00 % (10.00 to 10.00), 2 at chance", "0 of 2, 2 collapsed"),
        ("dkd", "60.00 %", "1 of 2, 1 collapsed"),
    ]
    said = [line for line in tables.describe_comparison(comparison) if line.startswith("Means")]
    assert said == ["Means hold the runs that ended at chance. Without these: sp 70.00 %."]


def test_markdown_is_the_same_table():
    comparison = make_comparison()
    lines = [line for line in tables.format_markdown(comparison).splitlines() if line.startswith("|")]
    assert (
        len(lines) == 2 + len(comparison.methods) and len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    )
    table = [re.split(r"\s{2,}", line.strip()) for line in tables.format_comparison_table(comparison).splitlines()[1:]]
    cells = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [cells[0], *cells[2:]] == [table[0], *table[2:]]


def test_csv_has_every_run_with_its_numbers():
    comparison = make_comparison()
    rows = list(csv.DictReader(tables.format_csv(comparison).splitlines()))
    for row, run in zip(rows, comparison.runs, strict=True):
        expected = {name: "" if value is None else str(value) for name, value in dataclasses.asdict(run).items()}
        assert row == expected


def test_what_is_said():
    lines = tables.describe_comparison(make_comparison())
    assert lines[:3] == [
        "Better than the student alone: kd (+9.00 points).",
        "Worse than the student alone: sp (-10.00 points).",
        "Not shown: at|x. These seeds could have shown, in points: at|x 1.1.",
    ]
    assert "Failed: sp, seed 2: ValueError: it broke" in lines
    assert "Collapsed: sp, seed 1: at chance with 10.00 %" in lines
    assert "corrected for 3 methods" in lines[-1]


@pytest.mark.parametrize(("seeds", "words"), [((0,), "nothing of another seed"), ((0, 1), "three are the fewest")])
def test_of_few_seeds_it_is_said_what_they_show(seeds, words):
    lines = tables.describe_comparison(make_comparison(seeds=seeds, runs=()))
    assert sum(words in line for line in lines) == 1
    assert not any(words in line for line in tables.describe_comparison(make_comparison()))


def test_budgets_that_differ_are_told_of():
    """Three epochs were planned. Of runs of an earlier version nothing is known."""
    epochs = {"baseline": (3, 2, 1), "kd": (3, 3, 3), "sp": (2, 2, None)}
    runs = [
        make_run(method, seed, test_accuracy=0.8, epochs=trained)
        for method, each in epochs.items()
        for seed, trained in zip(SEEDS, each, strict=True)
    ]
    said = tables.describe_comparison(make_comparison(methods=tuple(epochs), runs=tuple(runs)))
    (line,) = [line for line in said if line.startswith("Ended early")]
    assert line.startswith("Ended early, of 3 epochs: student alone after 1 to 2, sp after 2. Where budgets differ")
    assert not any(line.startswith("Ended early") for line in tables.describe_comparison(make_comparison()))
