"""A process that runs steps of a comparison: `python -m keras_tkd.runs.sweep_worker DESCRIPTOR`.

The descriptor is that of a connection to the process that started this one. It sends each step, and the file to which
what is printed is added, and receives None once the results are written, or the `Failure` that the step ended in.
"""

import gc
import os
import sys

from keras_tkd.runs.processes import connect_to_parent
from keras_tkd.runs.sweep_jobs import Failure, execute

__all__ = ["main"]


def main():
    """Runs the steps that are received, until the other process ends this one."""
    connection = connect_to_parent()
    while True:
        command, config, path, output = connection.recv()
        _redirect_output(output)
        outcome = execute(command, config, path)
        connection.send(outcome if isinstance(outcome, Failure) else None)
        del outcome
        # Models and their graphs refer to each other, and take memory until somebody looks.
        gc.collect()


def _redirect_output(path):
    """Adds what is printed from now on to a file, also what TensorFlow prints."""
    sys.stdout.flush()
    with open(path, "a", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    sys.stdout.reconfigure(line_buffering=True)


if __name__ == "__main__":
    main()
