"""The folder of a run, and what it holds of each of its trainings."""

import json
import os
import pathlib
import shutil

from keras_tkd.config.flagfile import can_hold, read_flag_lines
from keras_tkd.reports.schema import upgrade_results
from keras_tkd.utils.files import hash_file, read_json, remove_unfinished, write_json, write_text
from keras_tkd.utils.locks import LOCK, FolderLock

__all__ = ["FLAGS", "OWN_FILES", "RESULTS", "SPLIT", "Stage", "TEACHER", "Workdir"]

FLAGS = "flags.flags"
SPLIT = "split.json"
RESULTS = "results.json"
# Of files and data that the run was given: what they were when it began.
_GIVEN = "checkpoints/teacher.json"
TEACHER = "teacher.keras"
_MODELS = (TEACHER, "baseline.keras", "student.keras")
_TRAINED = (RESULTS, *_MODELS, "generations", "checkpoints", "teacher_cache")
# The flags, which say that the others are a run's, are the last to be removed.
OWN_FILES = (SPLIT, "logs", *_TRAINED, FLAGS)
_STAGES = ("teacher", "baseline", "student", "generations", "generations/[0-9]*", "generations/[0-9]*/student")
# What must be a folder, and what a file, wherever there is something of that name.
_FOLDERS = (
    *("logs", "generations", "generations/[0-9]*", "checkpoints", "teacher_cache"),
    *(f"teacher_cache/{part}" for part in ("train", "held_out", "anchor_*", "anchor_*/train", "anchor_*/held_out")),
    *(f"{folder}/{stage}" for folder in ("logs", "checkpoints") for stage in _STAGES),
)
_FILES = (
    *(FLAGS, SPLIT, RESULTS, *_MODELS, LOCK, _GIVEN),
    *(f"generations/[0-9]*/{name}" for name in _MODELS),
    *(f"checkpoints/{stage}/record.json" for stage in _STAGES),
)
_MOVE = "Received a {} of that name, or a link to nowhere: move it away, or choose another --workdir"


class Workdir:
    """The folder of one experiment.

    Args:
        path: the folder; `begin` makes it if it does not exist.
        flags: lines of the experiment's flagfile, which say what the experiment is.
        existing: what to do where the folder holds another experiment: `"refuse"`, `"overwrite"` (`begin` removes
            its files), or `"continue"` (stages with unchanged settings are kept, the others are done again). An
            experiment with the same flags is taken up where it stopped, unless it is to be overwritten.
        free: names of flags that decide nothing, and may differ from those of the run that is taken up.
        defaults: dict from a flag's name to its default: a run of a version that did not have the flag yet, or that
            wrote it where nothing reads it, is the same experiment.

    Raises:
        ValueError: another experiment, `existing="refuse"`; the message names the flags that differ. A folder that was
            never a run's, `existing="overwrite"`.
        BlockingIOError: another process is at work in the folder.
    """

    def __init__(self, path, flags, existing="refuse", free=(), defaults=None):
        if not str(path).strip():
            raise ValueError("`workdir` must name a folder. Received: workdir=''. Give one: --workdir=runs/first")
        # The command that runs the same again stands in `flags.flags`, with this name.
        if not can_hold(str(path).strip()):
            rule = "`workdir` must be a name on one line, in UTF-8"
            raise ValueError(f"{rule}. Received: workdir={str(path)!r}. Choose another name")
        self.path = pathlib.Path(path)
        if existing not in ("refuse", "continue", "overwrite"):
            raise ValueError(f"`existing` must be 'refuse', 'continue' or 'overwrite'. Received: existing={existing!r}")
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"`workdir` must be a folder. Received a file: {self.path}")
        self.flags = list(flags)
        self._existing = existing
        self._free = tuple(f"--{name}=" for name in free)
        self._defaults = {f"--{name}={value}" for name, value in (defaults or {}).items()}
        self._check_kinds()
        self._lock = FolderLock(self.path)
        self._lock.check_free()
        self._check()

    def _check_kinds(self):
        """Raises `ValueError` for a file where the run has a folder, or a folder where it has a file."""
        # Now: what a run writes last, it would be refused after all its trainings.
        for path in self._list(_FOLDERS):
            if not path.is_dir():
                raise ValueError(f"{path} must be a folder of the run's own. {_MOVE.format('file')}")
        for path in self._list(_FILES):
            # Of a link to nowhere a file takes the place.
            if path.exists() and not path.is_file():
                raise ValueError(f"{path} must be a file of the run's own. {_MOVE.format('folder')}")

    def _list(self, patterns):
        """Returns the paths in the folder that have one of the names, links to nowhere included."""
        # Without a pattern in the name, `glob` passes such links over.
        paths = [path for pattern in patterns for path in (self.path / pattern, *self.path.glob(pattern))]
        return [path for path in paths if os.path.lexists(path)]

    def _check(self):
        """Raises `ValueError` for a folder that this experiment may not have."""
        found = [name for name in OWN_FILES if _holds_something(self.path / name)]
        if self._existing == "overwrite" and found and FLAGS not in found:
            raise ValueError(
                f"{self.path} was never a run's folder: it holds {', '.join(found)} without {FLAGS}, and "
                "--existing=overwrite would remove them. Choose another --workdir, or remove them yourself"
            )
        others = self._compare(found) if self._existing == "refuse" else ""
        if others:
            raise ValueError(
                f"{self.path} holds another experiment: {others}. "
                "Choose another --workdir, or pass --existing=overwrite to remove what is there, or "
                "--existing=continue to keep what the changed flags do not concern"
            )

    def hold(self):
        """Makes the folder, and keeps other processes out of it, until `release` or until this process ends.

        Raises:
            ValueError: another process made the folder another experiment's meanwhile.
            BlockingIOError: another process is at work in the folder.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        self._check()

    def release(self):
        """Lets other processes have the folder."""
        self._lock.release()

    def begin(self, header="", teacher=None, files=None, data=None):
        """Makes the folder and writes `flags.flags`, which re-runs this experiment; until then nothing changes.

        Args:
            header: text for the beginning of the file.
            teacher: fingerprint of the teacher that the run is given; None where it is given none.
            files: dict from flags that name files of models, `--name=path`, to the files' SHA-256.
            data: dict from what of the data there is to its hash, and from `"flags"` to the flags that decide that.

        Raises:
            ValueError: another teacher than the one that the run began with, another model's file, or other data.
        """
        given = {"weights": teacher, "data": data, **(files or {})}
        if self._existing == "overwrite":
            self._remove_own_files()
            self._existing = "refuse"
        self._check_given(given)
        # Nobody else writes here now.
        for folder in (self.path / "generations", self.path / "checkpoints"):
            remove_unfinished(folder)
        remove_unfinished(self.path, below=False)
        lines = [f"# {line}" for line in header.splitlines()] + self.flags
        write_text(self.path / FLAGS, "\n".join(lines) + "\n")
        given = {name: digest for name, digest in given.items() if digest is not None}
        if given:
            write_json(self.path / _GIVEN, given)

    def _check_given(self, given):
        """Raises `ValueError` for a model whose file is not the one that the run began with."""
        # A run that trained nothing, because its teacher knows nothing for one, has nothing to lose.
        if not any(_holds_something(self.path / name) for name in _TRAINED):
            return
        changed = self._find_changed(given)
        if "data" in changed:
            changed.remove("data")
            self._check_data(given["data"])
        # Saved anew, a teacher is another file, and the same teacher by its weights.
        changed = [name for name in changed if not name.startswith("--teacher_path=")]
        if not changed:
            return
        if changed == ["weights"]:
            # They are among the settings of what is trained by it, which is then done again.
            if self._existing == "continue":
                return
            what, more = (
                "teacher: the weights of --teacher_path have",
                ", or --existing=continue to train its student again",
            )
        else:
            name = next(name for name in changed if name != "weights")
            what, more = f"model: the file of {name} has", ""
        raise ValueError(
            f"The run in {self.path} began with another {what} changed since. Put the file back that it began with, or "
            f"choose another --workdir, or pass --existing=overwrite to begin anew{more}"
        )

    def _check_data(self, data):
        """Raises `ValueError` for data that have changed although the flags that decide them have not."""
        began_with = read_json(self.path / _GIVEN)["data"]
        # With other flags other data are no surprise, and what they decide is trained again.
        if not isinstance(began_with, dict) or began_with.get("flags") != data["flags"]:
            return
        changed = [what for what, digest in data.items() if began_with.get(what, digest) != digest]
        if changed:
            raise ValueError(
                f"The run in {self.path} began with other data: {', '.join(changed)} have changed since. Put them "
                "back, or choose another --workdir, or pass --existing=overwrite to begin anew"
            )

    def _find_changed(self, given):
        """Returns the names of what the run was given that is not what it began with; what is not known is none."""
        try:
            began_with = read_json(self.path / _GIVEN) or {}
        except ValueError as error:
            raise ValueError(
                f"{error}. It says with which teacher the run began: put it back, choose another --workdir, or pass "
                "--existing=overwrite to begin anew"
            ) from error
        return [name for name, digest in given.items() if digest and began_with.get(name, digest) != digest]

    def has_other_files(self, files):
        """Returns whether a file that the run is given is not the one that it began with, and says so.

        Args:
            files: see `begin`.
        """
        changed = self._find_changed(files)
        for name in changed:
            print(f"The file of {name} has changed since the run in {self.path} began: it is looked at", flush=True)
        return bool(changed)

    def read_finished_results(self):
        """Returns the results of this very experiment if it is finished, and its models are there, else None.

        Raises:
            ValueError: a model's file is not the one that the run wrote; results of a later version.
        """
        # With existing="continue" the folder holds another run's results until this one is finished.
        if self._existing == "overwrite":
            return None
        try:
            results = _read_record(self.path / RESULTS, {"flags": list, "files": dict})
        except ValueError as error:
            print(f"{error}. What it said is measured again", flush=True)
            return None
        if not results or any(self._find_differences(results.get("flags") or ())):
            return None
        # First: what a later version wrote, a later version of this package knows.
        upgraded = upgrade_results(results)
        digests = self._read_digests(results)
        return upgraded if digests is not None and _check_files(self.path, digests) else None

    def _read_digests(self, results):
        """Returns what results say of their models' files; None where they lack the file that they are about."""
        about = next((f"{role}.keras" for role in ("student", "teacher") if results.get(role)), None)
        # Before results had a version, they had no checksums.
        if about and "version" not in results and "files" not in results:
            return {about: None}
        digests = results.get("files")
        if digests is None or (about and not isinstance(digests.get(about), str)):
            print(f"{self.path / RESULTS} has no checksum of {about}: what it said is measured again", flush=True)
            return None
        return digests

    def write_results(self, results):
        """Writes `results.json`; returns what it holds, with the flags and a checksum of each model's file."""
        files = {name: hash_file(self.path / name) for name in _MODELS if (self.path / name).exists()}
        results = results | {"flags": self.flags, "files": files}
        write_json(self.path / RESULTS, results)
        return results

    def logs(self, stage):
        """Returns the folder of a stage's TensorBoard files."""
        return self.path / "logs" / stage

    def checkpoints(self, stage):
        """Returns the folder of a stage's record and of the states that it goes on from."""
        return self.path / "checkpoints" / stage

    def _compare(self, found):
        """Says how the experiment that the folder holds differs from this one; empty where it does not.

        Args:
            found: names of a run's files that there are.
        """
        if FLAGS not in found:
            return f"files {', '.join(found)} without {FLAGS}" if found else ""
        # A run that trained nothing, because of an error, is no experiment that could be lost.
        if not set(found) & set(_TRAINED):
            return ""
        # Comments aside: they say how to run it again, with a path that may have changed.
        removed, added = self._find_differences(read_flag_lines(self.path / FLAGS))
        if not removed and not added:
            return ""
        return f"there {' '.join(removed) or '(nothing)'}, here {' '.join(added) or '(nothing)'}"

    def _find_differences(self, held):
        """Returns the lines of another flagfile that this experiment's lacks, and those that are in this one alone."""
        sides = (held, self.flags), (self.flags, held)
        return [[line for line in lines if self._decides(line, others)] for lines, others in sides]

    def _decides(self, line, others):
        """Returns whether a line makes another experiment than lines that may lack it."""
        if line in others or line.startswith(self._free):
            return False
        # A default that is not said is the same as one that is.
        return line not in self._defaults or any(other.startswith(f"{line.partition('=')[0]}=") for other in others)

    def _remove_own_files(self):
        # By name: a folder may hold files of the user's own.
        for name in OWN_FILES:
            target = self.path / name
            # Of a link to a folder elsewhere, the link is the run's.
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)


class Stage:
    """One training inside a run (teacher, baseline, student): what it was made with, its curve, whether it is done.

    Making a stage reads what the folder holds, and changes nothing there.

    Args:
        workdir: the `Workdir`.
        name: name of the stage; its model is `<name>.keras`.
        settings: dict of everything that decides the stage's outcome. A record of other settings is not used.
        defaults: dict of what a record that lacks a setting means by that, for those of earlier versions.

    Attributes:
        settings: the same, as a file gives it back.
        history: list of dicts of metrics, one of each epoch, of a training that is done.
        seconds: what training them took.
        finished: whether the training is done, and its model there.

    Raises:
        ValueError: the model's file is not the one that the training wrote.
    """

    def __init__(self, workdir, name, settings, defaults=None):
        self.name = name
        self.model_path = workdir.path / f"{name}.keras"
        self.logs = workdir.logs(name)
        self.checkpoints = workdir.checkpoints(name)
        self._record_path = self.checkpoints / "record.json"
        # In a file a tuple is a list.
        self.settings, defaults = json.loads(json.dumps([settings, defaults or {}]))
        self._defaults = {key: value for key, value in defaults.items() if key in settings}
        record = self._read_record()
        self.finished = bool(record)
        self.history = record.get("history", [])
        self.seconds = record.get("seconds", 0.0)

    def _read_record(self):
        """Reads the record of a training of these very settings that is done; empty where there is none."""
        try:
            kinds = {"settings": dict, "files": dict, "history": list, "seconds": (int, float)}
            record = _read_record(self._record_path, kinds) or {}
        except ValueError as error:
            print(f"{error}. The training is done again", flush=True)
            return {}
        if self._defaults | record.get("settings", {}) != self.settings or not record.get("finished"):
            return {}
        files = record.get("files") or {self.model_path.name: None}
        return record if _check_files(self.model_path.parent, files) else {}

    def remove_training(self):
        """Removes checkpoints and logs of a training that is not taken up."""
        for folder in (self.checkpoints, self.logs):
            shutil.rmtree(folder, ignore_errors=True)

    def finish(self, history, seconds, files):
        """Writes down that the training is done.

        Args:
            history: list of dicts of metrics, one of each epoch.
            seconds: what training them took.
            files: paths of the models that it wrote.
        """
        self.history, self.seconds, self.finished = history, seconds, True
        fields = {"settings": self.settings, "history": history, "seconds": seconds, "finished": True}
        digests = {path.name: hash_file(path) for path in map(pathlib.Path, files)}
        write_json(self._record_path, fields | {"files": digests})


def _read_record(path, kinds):
    """Returns what a JSON file holds, None where there is none; raises `ValueError` for an entry of another kind."""
    record = read_json(path)
    for name, kind in kinds.items():
        value = (record or {}).get(name)
        # Of lists, what is in them: lines of text, or an epoch's metrics.
        inside = (str if name == "flags" else dict) if kind is list else object
        if value is not None and not (isinstance(value, kind) and all(isinstance(x, inside) for x in _as_list(value))):
            raise ValueError(f"{path} is damaged: its entry '{name}' is of another kind than a run writes")
    return record


def _as_list(value):
    return value if isinstance(value, list) else []


def _holds_something(path):
    """Returns whether there is a file, or a folder with a file in it that a training left."""
    return path.is_file() or any(below.is_file() and not below.match(_GIVEN) for below in path.rglob("*"))


def _check_files(folder, digests):
    """Returns whether all files are there; raises `ValueError` for one that has changed since it was written.

    Args:
        folder: their folder.
        digests: dict from a file's name to its SHA-256, None where that is not known.
    """
    for name, digest in digests.items():
        path = folder / name
        if not path.exists():
            print(f"{path} is missing: it is made again", flush=True)
            return False
        if digest is not None and hash_file(path) != digest:
            # It may be damaged, or a model that somebody trained further: which, only they know.
            raise ValueError(
                f"{path} is not the file that the run wrote: its bytes have changed since. Put it back, or remove it, "
                "and the run makes it again"
            )
    return True
