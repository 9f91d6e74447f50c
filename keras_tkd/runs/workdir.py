"""The folder of a run: whose it is, and what may be written there."""

import pathlib
import shutil

from keras_tkd.config.flagfile import read_flag_lines
from keras_tkd.reports.schema import upgrade_results
from keras_tkd.runs.given import check_given, has_begun_with, read_given, record_given
from keras_tkd.runs.layout import (
    FLAGFILE,
    MODELS,
    OWN_FILES,
    RESULTS,
    TRAINED,
    check_kinds,
    check_own,
    check_workdir,
    holds_something,
)
from keras_tkd.runs.records import check_files, read_record
from keras_tkd.utils.checkpoint_files import CheckpointFiles
from keras_tkd.utils.files import hash_file, remove_unfinished, write_json, write_text
from keras_tkd.utils.locks import FolderLock

__all__ = ["Workdir"]


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
            never a run's, `existing="overwrite"`; one that is a comparison's or a tuning's.
        BlockingIOError: another process is at work in the folder.
    """

    def __init__(self, path, flags, existing="refuse", free=(), defaults=None):
        check_workdir(path)
        self.path = pathlib.Path(path)
        if existing not in ("refuse", "continue", "overwrite"):
            raise ValueError(f"`existing` must be 'refuse', 'continue' or 'overwrite'. Received: existing={existing!r}")
        check_own(self.path, FLAGFILE)
        self.flags = list(flags)
        self._existing = existing
        self._free = tuple(f"--{name}=" for name in free)
        self._defaults = {f"--{name}={value}" for name, value in (defaults or {}).items()}
        check_kinds(self.path)
        self._lock = FolderLock(self.path)
        self._lock.check_free()
        self._check()

    def _check(self):
        """Raises `ValueError` for a folder that this experiment may not have."""
        found = [name for name in OWN_FILES if holds_something(self.path / name)]
        if self._existing == "overwrite" and found and FLAGFILE not in found:
            raise ValueError(
                f"{self.path} was never a run's folder: it holds {', '.join(found)} without {FLAGFILE}, and "
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

    def begin(self, header="", teacher=None, files=None, data=None, layers=None, retrained_by=()):
        """Makes the folder and writes `flags.flags`, which re-runs this experiment; until then nothing changes.

        Args:
            header: text for the beginning of the file.
            teacher: fingerprint of the teacher that the run is given; None where it is given none.
            files: dict from flags that name files of models, `--name=path`, to the files' SHA-256.
            data: dict from what of the data there is to its hash, and from `"flags"` to the flags that decide that.
            layers: hash of that teacher's layers and their settings; None where it is given none.
            retrained_by: names of flags for whose changes what is trained by that teacher is trained again.

        Raises:
            ValueError: another teacher than the one that the run began with, another model's file, or other data.
        """
        given = {"weights": teacher, "layers": layers, "data": data, **(files or {})}
        if self._existing == "overwrite":
            self._remove_own_files()
            self._existing = "refuse"
        again = self._existing == "continue"
        check_given(self.path, given, retrains=again, by_flags=again and self._differs_in(retrained_by))
        # Nobody else writes here now.
        for folder in (self.path / "generations", self.path / "checkpoints"):
            remove_unfinished(folder)
        remove_unfinished(self.path, below=False)
        lines = [f"# {line}" for line in header.splitlines()] + self.flags
        write_text(self.path / FLAGFILE, "\n".join(lines) + "\n")
        record_given(self.path, given)

    def read_finished_results(self):
        """Returns the results of this very experiment if it is finished, and its models are there, else None.

        Raises:
            ValueError: a model's file is not the one that the run wrote; results of a later version.
        """
        # With existing="continue" the folder holds another run's results until this one is finished.
        if self._existing == "overwrite":
            return None
        try:
            results = read_record(self.path / RESULTS, {"flags": list, "files": dict, "given": dict})
        except ValueError as error:
            print(f"{error}. What it said is measured again", flush=True)
            return None
        if not results or any(self._find_differences(results.get("flags") or ())):
            return None
        # A run that is continued with another teacher has the same flags.
        if not has_begun_with(self.path, results.get("given")):
            return None
        # First: what a later version wrote, a later version of this package knows.
        upgraded = upgrade_results(results)
        digests = self._read_digests(results)
        return upgraded if digests is not None and check_files(self.path, digests) else None

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
        """Writes `results.json`; returns what it holds, with the flags, what was given, and the models' checksums."""
        files = {name: hash_file(self.path / name) for name in MODELS if (self.path / name).exists()}
        given = read_given(self.path)
        results = results | {"flags": self.flags, "files": files} | ({"given": given} if given else {})
        write_json(self.path / RESULTS, results)
        self._remove_states()
        return results

    def _remove_states(self):
        """Removes states of trainings that are done: of one that was killed just then they would stay for good."""
        # Of a training without a record, another run in this folder may go on from them.
        for record in (self.path / "checkpoints").rglob("record.json"):
            for folder in (record.parent, *record.parent.rglob("*/")):
                CheckpointFiles(folder).remove()

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
        if FLAGFILE not in found:
            return f"files {', '.join(found)} without {FLAGFILE}" if found else ""
        # A run that trained nothing, because of an error, is no experiment that could be lost.
        if not set(found) & set(TRAINED):
            return ""
        # Comments aside: they say how to run it again, with a path that may have changed.
        removed, added = self._find_differences(read_flag_lines(self.path / FLAGFILE))
        if not removed and not added:
            return ""
        return f"there {' '.join(removed) or '(nothing)'}, here {' '.join(added) or '(nothing)'}"

    def _differs_in(self, names):
        """Returns whether the experiment that the folder holds differs from this one in one of these flags."""
        flagfile, prefixes = self.path / FLAGFILE, tuple(f"--{name}=" for name in names)
        held = read_flag_lines(flagfile) if flagfile.exists() else self.flags
        return any(line.startswith(prefixes) for lines in self._find_differences(held) for line in lines)

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
