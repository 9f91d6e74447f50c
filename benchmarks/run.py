"""Measures the ratios of `keys.py`, and shows and writes them beside their bounds.

python benchmarks/run.py --json=benchmarks.json
python benchmarks/run.py --only=kd_cached_over_fit,sp_over_kd
python benchmarks/run.py --only=methods
"""

import argparse
import importlib.metadata
import importlib.util
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

from keys import GROUPS, TABLES

HERE = pathlib.Path(__file__).parent
RATIOS = {key: ratio for table in TABLES.values() for key, ratio in table.items()}


def read_processor(field):
    """Returns a field of Linux's description of the first processor, such as its model's name."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(field)), "unknown")


def find_obstacle(need, clock):
    """Returns why a ratio that needs `need` (of `keys.Ratio`) cannot be measured here; None where it can."""
    if need == "torch" and importlib.util.find_spec("torch") is None:
        return "PyTorch cannot be imported (pip install torch)"
    if need in ("torch", "wall") and clock != "wall":
        return "it computes in a process of its own, whose processor time is not seen here"
    if need == "avx512_bf16" and need not in read_processor("flags").split():
        return "the processor has no AVX512-BF16, and would emulate bfloat16"
    return None


def describe_machine():
    """Describes the machine and the versions of packages on it, as plain data."""
    names = ("keras_tkd", "keras", "tensorflow", "numpy", "torch")
    return {
        "processor": read_processor("model name"),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(),
        "versions": {"python": platform.python_version()} | {name: find_version(name) for name in names},
    }


def find_version(package):
    """Returns the version of an installed package, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def measure(group, tasks, rounds, clock, data_dir):
    """Runs a group's program; returns a dict from a task to its numbers, one for each round."""
    command = [sys.executable, str(HERE / group.program), f"--rounds={rounds or group.rounds}", *group.options]
    if group.program == "memory.py":
        command += [f"--data_dir={data_dir}"] if data_dir else []
    else:
        command += [f"--clock={clock}"]
    done = subprocess.run([*command, *tasks], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def compute_ratio(ratio, measured, mean):
    """Computes a ratio from measured numbers: that of the means, or the median of the rounds' ratios."""
    above, below = (
        [sum(values) for values in zip(*(measured[task] for task in side), strict=True)] for side in ratio.sides
    )
    if mean:
        return statistics.mean(above) / statistics.mean(below)
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def show(figures):
    """Prints each figure beside its bound."""
    width = max(map(len, figures))
    print(f"{'key':{width}}    value  bound      met")
    for key, figure in figures.items():
        ratio = RATIOS[key]
        bound, met = "", ""
        if ratio.at_most is not None:
            bound, met = f"<= {ratio.at_most:.2f}", figure is not None and figure <= ratio.at_most
        if ratio.at_least is not None:
            bound, met = f">= {ratio.at_least:.2f}", figure is not None and figure >= ratio.at_least
        shown = "      -" if figure is None else f"{figure:7.3f}"
        print(f"{key:{width}}  {shown}  {bound:9}  {'' if figure is None or not bound else 'yes' if met else 'no'}")


def select_keys(names):
    """Returns the keys that a list of keys and tables names."""
    unknown = [name for name in names if name not in RATIOS and name not in TABLES]
    if unknown:
        known = f"tables ({', '.join(TABLES)}) and keys ({', '.join(RATIOS)})"
        raise SystemExit(f"`--only` takes {known}. Received: {', '.join(unknown)}")
    return list(dict.fromkeys(itertools.chain.from_iterable(TABLES.get(name, [name]) for name in names)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="file to write the figures to")
    parser.add_argument("--only", default="keys", help=f"keys and tables ({', '.join(TABLES)}), separated by commas")
    parser.add_argument("--rounds", type=int, help="counted rounds, in place of each group's own")
    parser.add_argument(
        "--clock",
        default="wall",
        choices=("wall", "processor"),
        help="what is compared: the time that passes, or, on a machine that does other things too, the time that the "
        "process computes on all cores (which leaves PyTorch out)",
    )
    parser.add_argument("--data_dir", help="folder of prepared tensorflow-datasets with cifar10, for memory_over_data")
    arguments = parser.parse_args()
    keys = select_keys(arguments.only.split(","))

    began, figures, details = time.time(), dict.fromkeys(keys), {"measured": {}, "skipped": {}}
    for name, group in GROUPS.items():
        mine = [key for key in keys if RATIOS[key].group == name]
        for key in mine:
            reason = find_obstacle(RATIOS[key].needs, arguments.clock)
            if reason:
                details["skipped"][key] = reason
                print(f"{key} is skipped: {reason}", file=sys.stderr)
        mine = [key for key in mine if key not in details["skipped"]]
        if not mine:
            continue
        tasks = list(dict.fromkeys(task for key in mine for side in RATIOS[key].sides for task in side))
        print(f"{name}: {', '.join(tasks)}", file=sys.stderr, flush=True)
        measured = measure(group, tasks, arguments.rounds, arguments.clock, arguments.data_dir)
        figures |= {key: round(compute_ratio(RATIOS[key], measured, group.mean), 3) for key in mine}
        average = statistics.mean if group.mean else statistics.median
        details["measured"][name] = {
            "unit": group.unit,
            "rounds": len(next(iter(measured.values()))),
            **{task: round(average(values), 2) for task, values in measured.items()},
        }
    details |= describe_machine() | {
        "date": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began)),
        "seconds": round(time.time() - began),
        "clock": arguments.clock,
    }
    show(figures)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures | {"details": details}, file, indent=2)
            file.write("\n")


if __name__ == "__main__":
    main()
