"""The process of one run of a comparison: `python -m keras_tkd.runs.sweep_worker COMMAND FOLDER`.

Its standard input are the lines of a flagfile, and an empty one; it is then left open for as long as the process that
started this one is there. Of a run that fails, the last line of its output says why, and its exit status whether the
training was stopped at chance.
"""

import itertools
import sys
import threading

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.config.flagfile import read_flags
from keras_tkd.runs.processes import end_with_parent
from keras_tkd.runs.sweep_jobs import COLLAPSED_EXIT, Failure, execute

__all__ = ["main"]

_CONFIGS = {"distill": DistillConfig, "train_teacher": TeacherTrainingConfig}


def main():
    """Runs the step that the command line and the standard input describe."""
    command, path = sys.argv[1:]
    flags = "".join(itertools.takewhile(str.strip, sys.stdin))
    threading.Thread(target=end_with_parent, daemon=True).start()
    outcome = execute(command, _read_config(_CONFIGS[command], flags), path)
    if isinstance(outcome, Failure):
        print(f"Error: {outcome.message}", flush=True)
        sys.exit(COLLAPSED_EXIT if outcome.status == "collapsed" else 1)


def _read_config(config_class, text):
    return config_class(**read_flags(config_class, text))


if __name__ == "__main__":
    main()
