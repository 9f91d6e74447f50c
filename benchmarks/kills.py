"""Kills runs at random moments and lets them go on: they must end in the bits of runs that nothing interrupted.

python benchmarks/kills.py --kills=100

Each kill is a SIGKILL of a process that trains on digits, at a moment that is uniform over the time that the whole run
takes. Then the same run is begun again in the same folder, until it has been killed often enough; the last time it
comes to its end. Its models' weights, its curves and its results, but for times, must equal those of a run that was
never killed. Prints one line for each kind of run, and ends with an error if anything differs.
"""

import argparse
import dataclasses
import gc
import io
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
import traceback
import zipfile

import h5py
import numpy as np

COMMON = {"dataset": "digits", "epochs": 3, "batch_size": 64, "learning_rate": 0.05, "train_fraction": 0.3}
COMMON |= {"checkpoint_steps": 2}
# What a state holds: three stages, a teacher, its cache and a student alone first; negatives, views and dropout; a
# memory bank; two models with an optimizer each, in their second generation.
RUNS = {
    "kd_cached": {"method": "kd", "teacher_cache": "workdir"},
    "tkd_drawn": {"method": "tkd", "augmentation": "crop", "student_model": "digits_teacher", "baseline": "none"},
    "crd": {"method": "crd", "baseline": "none"},
    "trikd": {"method": "trikd", "generations": 2, "epochs": 2},
}
QUICK = False
# Of what no state holds, and no comparison here sees.
QUICK_SETTINGS = {"tensorboard": "off", "check": "off"}
TIMES = ("seconds", "images_per_second", "latency_ms")


def begin_quickly():
    """Gives up speed for a quick beginning: a step is traced once, no graph is optimized, and nothing is drawn."""
    import tensorflow as tf
    from tensorflow.python.autograph.core import config, config_lib

    from keras_tkd.runs import optimization

    # What reads and writes Python anew takes a quarter of so short a run, and finds nothing to change in this package.
    config.CONVERSION_RULES = (config_lib.DoNotConvert("keras_tkd"), *config.CONVERSION_RULES)
    # A process that is as short makes no garbage worth looking for.
    gc.disable()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    optimization.STEPS_PER_EXECUTION = 1


def start(name, path):
    """Starts a run in a process of its own; returns its id.

    The process is a fork of this one, which has imported TensorFlow and run nothing: it begins at once.
    """
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with open(f"{path}.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        from keras_tkd.config import DistillConfig
        from keras_tkd.runs import commands

        settings = COMMON | RUNS[name]
        if QUICK:
            begin_quickly()
            settings |= QUICK_SETTINGS
        commands.distill(DistillConfig(**settings), path)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(name, path):
    """Runs to the end; returns the seconds that it took."""
    began = time.perf_counter()
    _, status = os.waitpid(start(name, path), 0)
    if status:
        raise SystemExit(f"{name} did not come to its end: see {path}.log\n{pathlib.Path(f'{path}.log').read_text()}")
    return time.perf_counter() - began


def kill(name, path, after):
    """Starts a run and kills it after so many seconds; returns whether it was still running."""
    pid = start(name, path)
    time.sleep(after)
    ended, status = os.waitpid(pid, os.WNOHANG)
    if ended:
        if status:
            raise SystemExit(f"{name} ended with an error: {pathlib.Path(f'{path}.log').read_text()}")
        return False
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(below) for key, below in value.items() if key not in TIMES}
    return [without_times(below) for below in value] if isinstance(value, list) else value


def read_weights(path):
    """Reads all arrays of a model's file by their place in it; the file also holds names, which processes number."""
    arrays = {}
    with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def find_differences(whole, cut):
    """Returns what differs between two finished runs: file names and entries."""
    differing = []
    models = {str(path.relative_to(whole)) for path in whole.rglob("*.keras")}
    models |= {str(path.relative_to(cut)) for path in cut.rglob("*.keras")}
    for name in sorted(models):
        one, other = (read_weights(folder / name) for folder in (whole, cut))
        if one.keys() != other.keys() or any(not np.array_equal(one[key], other[key]) for key in one):
            differing.append(name)
    for name in ("results.json", *(str(path.relative_to(whole)) for path in whole.glob("checkpoints/**/record.json"))):
        one, other = (without_times(json.loads((folder / name).read_text())) for folder in (whole, cut))
        for values in (one, other):
            # Checksums: of files, in which the time of saving stands, and of the record, in which durations stand.
            for key in ("files", "crc32"):
                values.pop(key, None)
        if one != other:
            differing.append(name)
    left = [str(path.relative_to(cut)) for path in cut.rglob("*") if path.name.startswith(".") or ".npz" in path.name]
    # What a report shows of the models is no checkpoint: it stays.
    left = [path for path in left if not path.endswith("observations.npz")]
    return differing + left


@dataclasses.dataclass
class Outcome:
    """What became of one kind of run: kills that hit it while it ran, seconds of the whole run, what differs."""

    kills: int
    seconds: float
    differing: list


def try_run(name, folder, kills, generator):
    """Runs once to the end, then with so many kills, in as many folders as that takes; returns the `Outcome`."""
    whole, number, hit, differing = folder / f"{name}_whole", 0, 0, []
    seconds = finish(name, whole)
    while hit < kills:
        cut = folder / f"{name}_{number}"
        while hit < kills and kill(name, cut, generator.uniform(0, seconds)):
            hit += 1
        finish(name, cut)
        differing += find_differences(whole, cut)
        number += 1
    return Outcome(hit, seconds, differing)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="kills, spread evenly over the kinds of runs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--only", help="kinds of runs, separated by commas; all if not given")
    parser.add_argument("--quick", action="store_true", help=begin_quickly.__doc__)
    arguments = parser.parse_args()
    global QUICK
    QUICK = arguments.quick
    # Before the processes are forked, and without running anything: a fork would not have TensorFlow's threads.
    import keras_tkd.runs.commands  # noqa: F401

    generator = random.Random(arguments.seed)
    names = arguments.only.split(",") if arguments.only else list(RUNS)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(names):
            count = arguments.kills // len(names) + (i < arguments.kills % len(names))
            outcome = try_run(name, pathlib.Path(folder), count, generator)
            failed = failed or bool(outcome.differing)
            said = f"DIFFERS: {', '.join(outcome.differing)}" if outcome.differing else "the same bits"
            print(f"{name:12} {outcome.kills:4} kills in a run of {outcome.seconds:.1f} s: {said}", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
