"""Writes down the test accuracies of runs, epoch by epoch, for `results/draw.py`.

    python results/collect_curves.py NAME METHOD=WORKDIR ...

writes `results/curves/NAME.json`, a dict from a method to its accuracies, one for each epoch. What else the file holds
stays: under `"published"` it has accuracies of others, a dict from an epoch to one.
"""

import json
import pathlib
import sys

_FOLDER = pathlib.Path(__file__).resolve().parent / "curves"


def read_accuracies(workdir):
    """Returns the test accuracy of each epoch of a run's student.

    Raises:
        ValueError: a run that is not finished, or whose images held out are not the test images.
    """
    workdir = pathlib.Path(workdir)
    if not (workdir / "results.json").exists():
        raise ValueError(f"A run must be finished. Received: {workdir}, without results.json")
    results = json.loads((workdir / "results.json").read_text())
    record = json.loads((workdir / "checkpoints" / "student" / "record.json").read_text())
    accuracies = [logs["val_accuracy"] for logs in record["history"]]
    # Of a run without validation images the two are the same.
    if round(accuracies[-1] - results["student"]["test_accuracy"], 4):
        raise ValueError(f"The images held out must be the test images. Received: {workdir}, with others")
    return accuracies


def main():
    name, *runs = sys.argv[1:]
    path = _FOLDER / f"{name}.json"
    curves = json.loads(path.read_text()) if path.exists() else {}
    for method, workdir in (run.split("=", 1) for run in runs):
        curves[method] = [round(accuracy, 4) for accuracy in read_accuracies(workdir)]
    path.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    main()
