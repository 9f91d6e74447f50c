"""The names of what a run leaves in its folder, and which of them are files and which are folders."""

import os

from keras_tkd.config.flagfile import can_hold
from keras_tkd.utils.locks import LOCK

__all__ = [
    "COMPARISON",
    "FLAGFILE",
    "GIVEN",
    "MODELS",
    "OBSERVATIONS",
    "OWN_FILES",
    "REPORT",
    "RESULTS",
    "SPLIT",
    "TEACHER",
    "TRAINED",
    "TUNING",
    "check_kinds",
    "check_own",
    "check_workdir",
    "holds_something",
]

FLAGFILE = "flags.flags"
SPLIT = "split.json"
RESULTS = "results.json"
REPORT = "report.html"
OBSERVATIONS = "observations.npz"
# What tells the folder of a comparison, or of a tuning, which hold runs in folders of their own.
COMPARISON = "comparison.json"
TUNING = "tuning.json"
# Of files and data that the run was given: what they were when it began.
GIVEN = "checkpoints/teacher.json"
TEACHER = "teacher.keras"
MODELS = (TEACHER, "baseline.keras", "student.keras")
TRAINED = (RESULTS, *MODELS, "generations", "checkpoints", "teacher_cache")
# The flags, which say that the others are a run's, are the last to be removed.
OWN_FILES = (SPLIT, OBSERVATIONS, REPORT, "logs", *TRAINED, FLAGFILE)
_STAGES = ("teacher", "baseline", "student", "generations", "generations/[0-9]*", "generations/[0-9]*/student")
# What must be a folder, and what a file, wherever there is something of that name.
_FOLDERS = (
    *("logs", "logs/result", "generations", "generations/[0-9]*", "checkpoints", "teacher_cache"),
    *(f"teacher_cache/{part}" for part in ("train", "held_out", "anchor_*", "anchor_*/train", "anchor_*/held_out")),
    *(f"{folder}/{stage}" for folder in ("logs", "checkpoints") for stage in _STAGES),
)
_FILES = (
    *(FLAGFILE, SPLIT, OBSERVATIONS, REPORT, RESULTS, *MODELS, LOCK, GIVEN),
    *(f"generations/[0-9]*/{name}" for name in MODELS),
    *(f"checkpoints/{stage}/record.json" for stage in _STAGES),
)
_MOVE = "Received a {} of that name, or a link to nowhere: move it away, or choose another --workdir"


def check_workdir(path):
    """Raises `ValueError` for a path that cannot be that of a run's, a comparison's or a tuning's folder."""
    rule = "`workdir` must name a folder"
    if not str(path).strip():
        raise ValueError(f"{rule}. Received: workdir={str(path)!r}. Give one: --workdir=runs/first")
    # The commands that run the same again stand in files of flags, with this name.
    if not can_hold(str(path).strip()):
        one_line = "`workdir` must be a name on one line, in UTF-8"
        raise ValueError(f"{one_line}. Received: workdir={str(path)!r}. Choose another name")
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueError(f"{rule}. Received: workdir={str(path)!r}, which must be a folder and is a file")


def check_own(folder, own):
    """Raises `ValueError` for the folder of a run, a comparison or a tuning that is to become another of these.

    Args:
        folder: its path.
        own: the name of the file that tells what it is to be: `FLAGFILE`, `COMPARISON` or `TUNING`.
    """
    kinds = {FLAGFILE: "run", COMPARISON: "comparison", TUNING: "tuning"}
    for name, kind in kinds.items():
        # Each would take files of the other for its own, and be refused itself from then on.
        if name != own and (folder / name).exists():
            raise ValueError(
                f"`workdir` must be a {kinds[own]}'s own folder. Received: {folder}, which is a {kind}'s. Choose "
                "another --workdir"
            )


def check_kinds(folder):
    """Raises `ValueError` for a file where the run has a folder, or a folder where it has a file."""
    # Now: what a run writes last, it would be refused after all its trainings.
    for path in _list_named(folder, _FOLDERS):
        if not path.is_dir():
            raise ValueError(f"{path} must be a folder of the run's own. {_MOVE.format('file')}")
    for path in _list_named(folder, _FILES):
        # Of a link to nowhere a file takes the place.
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} must be a file of the run's own. {_MOVE.format('folder')}")


def _list_named(folder, patterns):
    """Returns the paths in a folder that have one of the names, links to nowhere included."""
    # Without a pattern in the name, `glob` passes such links over.
    paths = [path for pattern in patterns for path in (folder / pattern, *folder.glob(pattern))]
    return [path for path in paths if os.path.lexists(path)]


def holds_something(path):
    """Returns whether there is a file, or a folder with a file in it that a training left."""
    return path.is_file() or any(below.is_file() and not below.match(GIVEN) for below in path.rglob("*"))
