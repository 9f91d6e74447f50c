"""The folder of a run, and what it holds of each of its trainings."""

import json
import pathlib
import shutil

from keras_tkd.utils.files import read_json, write_json, write_text

__all__ = ["FLAGS", "OWN_FILES", "SPLIT", "Stage", "Workdir"]

FLAGS = "flags.flags"
_RESULTS = "results.json"
SPLIT = "split.json"
OWN_FILES = (FLAGS, _RESULTS, SPLIT, "teacher.keras", "baseline.keras", "student.keras")
OWN_FILES += ("generations", "logs", "checkpoints", "teacher_cache")


class Workdir:
    """The folder of one experiment.

    Args:
        path: the folder; `begin` makes it if it does not exist.
        flags: lines of the experiment's flagfile, which say what the experiment is.
        existing: what to do where the folder holds another experiment: `"refuse"`, `"overwrite"` (`begin` removes
            its files), or `"continue"` (stages with unchanged settings are kept, the others are done again). An
            experiment with the same flags is taken up where it stopped, unless it is to be overwritten.

    Raises:
        ValueError: another experiment, `existing="refuse"`; the message names the flags that differ.
    """

    def __init__(self, path, flags, existing="refuse"):
        self.path = pathlib.Path(path)
        if existing not in ("refuse", "continue", "overwrite"):
            raise ValueError(f"`existing` must be 'refuse', 'continue' or 'overwrite'. Received: existing={existing!r}")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"`workdir` must be a folder. Received a file: {self.path}")
        self.flags = list(flags)
        others = self._differences()
        if others and existing == "refuse":
            raise ValueError(
                f"{self.path} holds another experiment: {others}. "
                "Choose another --workdir, or pass --existing=overwrite to remove what is there, or "
                "--existing=continue to keep what the changed flags do not concern"
            )
        self._overwrite = existing == "overwrite"

    def begin(self, header=""):
        """Makes the folder and writes `flags.flags`, which re-runs this experiment; until then nothing changes."""
        if self._overwrite:
            self._remove_own_files()
            self._overwrite = False
        lines = [f"# {line}" for line in header.splitlines()] + self.flags
        write_text(self.path / FLAGS, "\n".join(lines) + "\n")

    def read_finished_results(self):
        """Returns the results of this very experiment if it is finished, else None."""
        # With existing="continue" the folder holds another run's results until this one is finished.
        results = None if self._overwrite else read_json(self.path / _RESULTS)
        return results if results and sorted(results.get("flags", ())) == sorted(self.flags) else None

    def write_results(self, results):
        """Writes `results.json`; returns what it holds, the flags included."""
        results = results | {"flags": self.flags}
        write_json(self.path / _RESULTS, results)
        return results

    def logs(self, stage):
        """Returns the folder of a stage's TensorBoard files."""
        return self.path / "logs" / stage

    def checkpoints(self, stage):
        """Returns the folder of a stage's record and of the states that it goes on from."""
        return self.path / "checkpoints" / stage

    def _differences(self):
        file = self.path / FLAGS
        if file.exists():
            # Comments aside: they say how to run it again, with a path that may have changed.
            held = [line for line in file.read_text().splitlines() if line.startswith("--")]
            removed = [line for line in held if line not in self.flags]
            added = [line for line in self.flags if line not in held]
            return f"there {' '.join(removed) or '(nothing)'}, here {' '.join(added) or '(nothing)'}" * (
                sorted(held) != sorted(self.flags)
            )
        found = [name for name in OWN_FILES if (self.path / name).exists()]
        return f"files {', '.join(found)} without {FLAGS}" if found else ""

    def _remove_own_files(self):
        # By name: a folder may hold files of the user's own.
        for name in OWN_FILES:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)


class Stage:
    """One training inside a run (teacher, baseline, student): what it was made with, its curve, whether it is done.

    Making a stage reads what the folder holds, and changes nothing there. `begin` makes room for a training.

    Args:
        workdir: the `Workdir`.
        name: name of the stage; its model is `<name>.keras`.
        settings: dict of everything that decides the stage's outcome. A record of other settings is not used.

    Attributes:
        history: list of dicts of metrics, one of each epoch that there is.
        seconds: what training them took.
        finished: whether the training is done, and its model there.
    """

    def __init__(self, workdir, name, settings):
        self.name = name
        self.model_path = workdir.path / f"{name}.keras"
        self.logs = workdir.logs(name)
        self.checkpoints = workdir.checkpoints(name)
        self._record_path = self.checkpoints / "record.json"
        # As a file gives them back, where a tuple is a list.
        self._settings = json.loads(json.dumps(settings))
        record = read_json(self._record_path) or {}
        usable = record.get("settings") == self._settings
        if record.get("finished") and not self.model_path.exists():
            usable = False  # no state of the last epoch is kept from which the model could be made again
        self.history = record["history"] if usable else []
        self.seconds = record["seconds"] if usable else 0.0
        self.finished = usable and record["finished"]

    def begin(self):
        """Removes checkpoints and logs, unless a training of these very settings is to be taken up from them."""
        if not self.history:
            for folder in (self.checkpoints, self.logs):
                shutil.rmtree(folder, ignore_errors=True)

    def record(self, history, seconds, finished=False):
        """Writes down the epochs so far: a list of dicts of metrics, and the seconds that training took."""
        self.history, self.seconds, self.finished = history, seconds, finished
        fields = {"settings": self._settings, "history": history, "seconds": seconds, "finished": finished}
        write_json(self._record_path, fields)
