"""Measures how cost grows with batch, classes, teacher and data set: a plot of each, and the figures as JSON.

pip install -e .[benchmarks]
python benchmarks/growth.py --folder=growth

The paper's student on random images of 32x32x3. A line of a plot is one way to train; all points of a plot are measured
in turn in one process, those over the data set's size each in a process of its own, whose peak of memory is taken too.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# As the scripts and tests do.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

TIME = "milliseconds per 128 images"
MEMORY = "peak of resident memory, MB"
BATCHES = (32, 64, 128, 256, 512, 1024)
CLASSES = (10, 100, 1000)
TEACHERS = ("resnet8", "resnet14", "resnet20", "resnet32", "resnet56", "resnet110")
SMALLEST = 6_250  # images of the smallest data set
SIZES = (1, 2, 4, 8)
STEPS = 40  # of an epoch, whatever the data set's size
# Where the images are, as `data.load` is told.
SOURCES = {"in_memory": {}, "streamed": {"shuffle_window": 3_000}}


def measure_lines(points, names, rounds, clock):
    """Measures the lines of a plot.

    Args:
        points: dict from a position on the x axis to the `Tasks` there.
        names: names of tasks, a line each.

    Returns:
        dict name -> list of medians, a number for each point.
    """
    from timing import alternate

    tasks = {(name, x): makes.make(name) for x, makes in points.items() for name in names}
    measured = alternate(tasks, rounds, clock)
    return {name: [statistics.median(measured[name, x]) for x in points] for name in names}


def measure_batches(folder, rounds, clock):
    from tasks import Tasks

    points = {size: Tasks(4 * max(BATCHES), f"{folder}/batch{size}", batch_size=size) for size in BATCHES}
    lines = measure_lines(points, ("kd", "kd_cached", "tkd_in_batch_cached", "sp_cached"), rounds, clock)
    return {"x": list(points), "x_label": "batch size", TIME: lines}


def measure_classes(folder, rounds, clock):
    from tasks import Tasks

    points = {classes: Tasks(128 * 20, f"{folder}/classes{classes}", classes=classes) for classes in CLASSES}
    lines = measure_lines(points, ("kd", "kd_cached", "tkd_in_batch_cached", "tkd_drawn_cached"), rounds, clock)
    return {"x": list(points), "x_label": "classes", TIME: lines}


def measure_teachers(folder, rounds, clock):
    from operations import forward_operations
    from tasks import Tasks

    makes = [Tasks(128 * 10, f"{folder}/{name}", teacher=name) for name in TEACHERS]
    for tasks in makes:
        # Untrained, the deep ones have outputs beyond float16. The values change no cost: let them be 0.
        logits = tasks.teacher.get_layer("logits")
        logits.set_weights([0 * weight for weight in logits.get_weights()])
    operations = [forward_operations(tasks.teacher) for tasks in makes]
    points = {round(own / operations[0], 1): tasks for own, tasks in zip(operations, makes, strict=True)}
    label = f"operations of the teacher, {TEACHERS[0]} = 1\n({', '.join(TEACHERS)})"
    return {"x": list(points), "x_label": label, TIME: measure_lines(points, ("kd", "kd_cached"), rounds, clock)}


def measure_sizes(folder, rounds, clock):
    import synthetic

    for size in SIZES:
        synthetic.write(folder, f"noise{size}", train=size * SMALLEST, test=1_000)
    lines = {TIME: {}, MEMORY: {}}
    for source in SOURCES:
        runs = [train_in_process(source, folder, f"noise{size}", rounds, clock) for size in SIZES]
        for quantity in lines:
            lines[quantity][source] = [run[quantity] for run in runs]
    return {"x": [size * SMALLEST for size in SIZES], "x_label": "images in the data set"} | lines


def train_in_process(source, *arguments):
    """Calls `train` in a process of its own, whose peak of memory is that of one run."""
    command = [sys.executable, __file__, f"--child={json.dumps([source, *arguments])}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def train(source, data_dir, name, rounds, clock):
    """Trains tkd with drawn negatives and a live teacher; returns its time and its peak of memory."""
    from tasks import Tasks
    from timing import alternate

    from keras_tkd import Distiller, data, losses

    makes = Tasks(128 * STEPS, None)
    splits = data.load(name, data_dir, **SOURCES[source])
    batches = data.triplet_dataset(splits.train_images, splits.train_labels, 128, seed=0).take(STEPS)
    task = makes.fit(Distiller(makes.teacher, makes.student(), losses.TripletDistillation(), [2.0]), batches)
    measured = alternate({"tkd": task}, rounds, clock)["tkd"]
    return {TIME: statistics.median(measured), MEMORY: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}


def draw(name, figures, folder):
    """Draws one picture: an axis for each quantity, from zero, so that a flat line looks flat."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    quantities = [quantity for quantity in (TIME, MEMORY) if quantity in figures]
    figure, axes = pyplot.subplots(1, len(quantities), figsize=(6.4 * len(quantities), 4.8), squeeze=False)
    for axis, quantity in zip(axes[0], quantities, strict=True):
        for line, values in figures[quantity].items():
            axis.plot(figures["x"], values, marker="o", label=line)
        axis.set_xscale("log", base=2)
        axis.set_xticks(figures["x"], [f"{x:g}" for x in figures["x"]])
        axis.minorticks_off()
        axis.set_ylim(bottom=0)
        axis.set_xlabel(figures["x_label"])
        axis.set_ylabel(quantity)
        axis.grid(alpha=0.3)
        axis.legend()
    figure.tight_layout()
    figure.savefig(folder / f"{name}.png", dpi=120)


PLOTS = {"batch": measure_batches, "classes": measure_classes, "teacher": measure_teachers, "size": measure_sizes}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="growth", help="where the plots and growth.json are written")
    parser.add_argument("--only", nargs="+", default=list(PLOTS), choices=list(PLOTS), help="plots")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds, after one to warm up")
    parser.add_argument("--clock", default="wall", choices=("wall", "processor"), help="see timing.py")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(train(*json.loads(arguments.child))))
        return
    if importlib.util.find_spec("matplotlib") is None:
        sys.exit("Plots are drawn by matplotlib, which cannot be imported: pip install -e .[benchmarks]")
    folder = pathlib.Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as scratch:
            figures = PLOTS[name](scratch, arguments.rounds, arguments.clock)
        draw(name, figures, folder)
        file = folder / "growth.json"
        known = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps(known | {name: figures}, indent=2) + "\n")
        print(folder / f"{name}.png", flush=True)


if __name__ == "__main__":
    main()
