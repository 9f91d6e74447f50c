"""The demo: its plan, and that README and RESULTS.md show what it prints."""

import re
import subprocess
import sys

import pytest
from demo_reading import FLAGS, ROOT, read_constants, read_shared

from keras_tkd.runs.sweep_plan import make_configs
from keras_tkd.runs.sweep_settings import read_settings

ROW = re.compile(
    r"(?P<method>student alone|[\w+]+) +(?P<mean>\d+\.\d\d) % \((?P<low>\d+\.\d\d) to (?P<high>\d+\.\d\d)\) +"
    r"(?:-|(?P<gain>[-+]\d+\.\d\d)) +(?:-|(?P<left>[-+]\d+\.\d\d) to (?P<right>[-+]\d+\.\d\d)) +"
    r"(?:-|(?P<p>\d\.\d{3})) +(?P<verdict>-|BETTER|WORSE|NOT SHOWN) +(?P<runs>\d of \d)"
)


DEMO = read_constants()


@pytest.fixture(scope="module")
def block():
    """What the README shows of the demo."""
    (shown,) = re.findall(r"^```\n(digits, .*?)```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return shown


@pytest.fixture(scope="module")
def rows(block):
    return [matched.groupdict() for line in block.splitlines() if (matched := ROW.fullmatch(line.strip()))]


def test_a_flag_that_is_given_counts(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "demo.py", "--learning_rate=nan"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: `learning_rate` must be a finite number") and not list(tmp_path.iterdir())


def test_its_methods_are_those_of_their_flagfiles():
    base = read_shared()
    settings = read_settings([f"{name}={FLAGS / file}.flags" for name, file in DEMO["METHODS"].items()], base)
    configs = make_configs(base, settings, settings)
    assert list(configs) == ["baseline", "tkd", "kd", "sp", "tkd+kd"]
    # Each has a learning rate that was tuned; all else that is the budget is the same.
    assert all(any(line.startswith("--learning_rate=") for line in lines) for lines in settings.values())
    assert {(config.epochs, config.batch_size, config.schedule) for config in configs.values()} == {(20, 64, "cosine")}


@pytest.mark.parametrize("file", DEMO["METHODS"].values())
def test_its_settings_say_how_they_were_chosen_and_by_other_seeds(file):
    said = " ".join(line.removeprefix("# ") for line in (FLAGS / f"{file}.flags").read_text().splitlines())
    assert "No test image was looked at" in said and "of the training images" in said
    (seeds,) = re.findall(r"over the seeds? ([\d, ]+);", said)
    assert not {int(seed) for seed in seeds.split(",")} & set(DEMO["SEEDS"])
    # The student alone was tuned by as many trials as any method.
    assert (
        re.search(r"the best of (\d+) trials", said)[1]
        == re.search(r"the best of (\d+) trials", (FLAGS / "baseline_tuned.flags").read_text())[1]
    )


def test_the_readme_shows_the_demo(block, rows):
    assert f"20 epochs, mean (and range) over seeds {', '.join(map(str, DEMO['SEEDS']))}, 359 test images" in block
    assert [row["method"] for row in rows] == ["student alone", *list(DEMO["METHODS"])[1:]]
    assert all(row["runs"] == f"{len(DEMO['SEEDS'])} of {len(DEMO['SEEDS'])}" for row in rows)
    assert block in (ROOT / "RESULTS.md").read_text()


def test_its_numbers_go_together(block, rows):
    """Gains are differences of the means, intervals lie around them, and a verdict outside 5 % is none."""
    alone, *methods = rows
    assert alone["gain"] is None
    for row in methods:
        gain, left, right = (float(row[name]) for name in ("gain", "left", "right"))
        # Each of the three numbers is rounded to a hundredth.
        assert gain == pytest.approx(float(row["mean"]) - float(alone["mean"]), abs=0.0151)
        assert (left + right) / 2 == pytest.approx(gain, abs=0.0151)
        assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
        assert (row["verdict"] == "NOT SHOWN") == (float(row["p"]) > 0.05)
        lines = {"BETTER": "Better than", "WORSE": "Worse than", "NOT SHOWN": "Not shown"}
        (said,) = [line for line in block.splitlines() if line.startswith(lines[row["verdict"]])]
        assert re.search(rf"[:,] {re.escape(row['method'])}[ ,;.]", said)
