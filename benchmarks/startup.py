"""Measures the seconds from a command to the end of its first execution of training steps, and where they go.

python benchmarks/startup.py --flagfile=flags/digits/tkd.flags
python benchmarks/startup.py --flagfile=flags/cifar10/short_kd.flags --data_dir=DIR --teacher_path=teacher.keras

All flags but `--runs` and `--script` are the script's own. Each run is a process of its own in an empty folder, ended
after its first steps. `wall` are seconds by the clock, `processor` those that the process computed on all cores
together, which other work on the machine disturbs less; each is counted from the start of the process.
"""

import argparse
import json
import os
import pathlib
import runpy
import statistics
import subprocess
import sys
import tempfile
import time

SCRIPTS = pathlib.Path(__file__).parent.parent / "scripts"
MARK = "startup: "


def child(script, began, arguments):
    """Runs a script up to its first training steps; prints the seconds at which it ended each of its parts."""
    sys.path.insert(0, str(SCRIPTS))
    import run_flags

    seconds = {}

    def mark(name):
        seconds.setdefault(name, (time.time() - began, time.process_time()))

    def end(batch, logs):
        mark("first steps")
        print(MARK + json.dumps(seconds), flush=True)
        os._exit(0)

    def import_and_watch(*given):
        commands = import_commands(*given)
        mark("imports")
        # What any run goes through, whatever its inner functions are called: the data are loaded, a model is fitted.
        import keras

        from keras_tkd import data

        load, fit = data.load, keras.Model.fit

        def marked_load(*args, **kwargs):
            splits = load(*args, **kwargs)
            mark("data")
            return splits

        def marked_fit(model, *args, callbacks=None, **kwargs):
            mark("models, checks, estimates")
            watching = keras.callbacks.LambdaCallback(on_train_batch_end=end)
            return fit(model, *args, callbacks=[*(callbacks or ()), watching], **kwargs)

        data.load, keras.Model.fit = marked_load, marked_fit
        return commands

    import_commands, run_flags.import_commands = run_flags.import_commands, import_and_watch
    sys.argv = [script, *arguments]
    runpy.run_path(str(SCRIPTS / script), run_name="__main__")


def measure(script, arguments):
    """Returns the seconds, `(wall, processor)`, at which one run ended each of its parts."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, f"--script={script}", f"--child={time.time()}"]
        command += [*arguments, f"--workdir={folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        sys.exit(f"The run ended before its first steps:\n{done.stdout}{done.stderr}")
    return json.loads(lines[0].removeprefix(MARK))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="processes, of which the medians are shown")
    parser.add_argument("--script", default="distill.py", help="file in scripts/, which all other flags are for")
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    own, arguments = parser.parse_known_args()
    if own.child:
        child(own.script, own.child, arguments)
        return
    runs = [measure(own.script, arguments) for _ in range(own.runs)]
    figures = {
        part: {
            clock: round(statistics.median(run[part][i] for run in runs), 2)
            for i, clock in enumerate(("wall", "processor"))
        }
        for part in runs[0]
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
