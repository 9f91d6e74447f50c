"""Results in the folder of a run, for whoever did not run it: those of a run that is finished."""

import pathlib

from keras_tkd.config.flagfile import read_flag_lines
from keras_tkd.reports.schema import read_results
from keras_tkd.runs.given import has_begun_with
from keras_tkd.runs.layout import FLAGFILE, RESULTS
from keras_tkd.runs.records import read_record

__all__ = ["read_finished"]


def read_finished(folder):
    """Returns the `Results` of the run in a folder; None where it has none yet.

    Raises:
        ValueError: a file that is damaged; results of another run than the one that began there last.
    """
    folder = pathlib.Path(folder)
    results = read_results(folder / RESULTS)
    if results is None:
        return None
    # Data, models and curves beside them may be the other run's by now.
    flagfile = folder / FLAGFILE
    same = not results.flags or not flagfile.exists() or read_flag_lines(flagfile) == list(results.flags)
    if not same or not has_begun_with(folder, read_record(folder / RESULTS, {"given": dict}).get("given")):
        raise ValueError(
            f"The folder of a finished run is needed. Received: {folder}, whose {RESULTS} is of before the run was "
            f"changed, and what was begun then is not finished. Run the command in {flagfile} again: it goes on where "
            "it stopped"
        )
    return results
