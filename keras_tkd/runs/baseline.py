"""The student alone, out of another run of the same budget."""

import pathlib

from keras_tkd.config.fields import COMPARED, deciding
from keras_tkd.config.flagfile import flag_lines, parse_lines
from keras_tkd.utils.files import read_json


def epochs_to(baseline, history):
    """The first epoch (from 1) whose held-out accuracy reaches the baseline's test accuracy; None if none does."""
    if not baseline:
        return None
    reached = (i for i, epoch in enumerate(history, 1) if epoch["val_accuracy"] >= baseline["test_accuracy"])
    return next(reached, None)


def read_baseline(config):
    """The baseline out of another run's results, after checking that its budget is this run's; None to train one."""
    if config.baseline in ("train", "none"):
        return None
    results = read_json(pathlib.Path(config.baseline) / "results.json")
    described = results and (results["student"] if results["method"] == "baseline" else results["baseline"])
    if not described:
        raise ValueError(
            "`baseline` must be 'train', 'none', or the workdir of a finished run with a baseline. "
            f"Received: baseline={config.baseline!r}"
        )
    there, here = parse_lines(results["flags"]), parse_lines(flag_lines(config))
    differing = [name for name in deciding(type(config), COMPARED) if there.get(name) != here.get(name)]
    if differing:
        raise ValueError(
            f"The baseline in {config.baseline} had another budget: "
            + ", ".join(f"{name} {there.get(name)} there, {here.get(name)} here" for name in differing)
            + ". Train one for this run: --baseline=train"
        )
    return described


def baseline_path(config):
    """The file of the student alone in the other run that `config.baseline` names."""
    folder = pathlib.Path(config.baseline)
    results = read_json(folder / "results.json")
    path = folder / ("student.keras" if results["method"] == "baseline" else "baseline.keras")
    if not path.exists():
        raise ValueError(
            "A `baseline` that is to be the anchor must be the run that trained the student alone, and holds its file. "
            f"Received: baseline={config.baseline!r}, without {path.name}"
        )
    return path
