"""The process of one study of a tuning: `python -m keras_tkd.runs.tuning_worker DESCRIPTOR`.

The descriptor is that of a connection to the process that started this one, which sends a `Study` and receives each
trial as it ends. Of a study that fails, the last line of the output says why.
"""

import sys

from keras_tkd.runs.devices import start_devices
from keras_tkd.runs.processes import connect_to_parent
from keras_tkd.runs.tuning_jobs import run_trials
from keras_tkd.runs.tuning_trials import load_tuning_splits

__all__ = ["main"]


def main():
    """Runs the study that is received, and sends its trials."""
    connection = connect_to_parent()
    study = connection.recv()
    try:
        # Before images are loaded: then it would be too late.
        start_devices(study.config.deterministic)
        for result in run_trials(study, load_tuning_splits(study.config)):
            connection.send(result)
    except (OSError, ValueError) as error:
        print(f"Error: {' '.join(str(error).split())}", flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
