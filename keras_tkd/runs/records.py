"""Records of a run's trainings: what each was made with, its curve, and whether it is done."""

import json
import pathlib
import shutil

from keras_tkd.utils.files import checksum_record, hash_file, read_json, write_json

__all__ = ["Stage", "check_files", "read_record"]


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
            record = read_record(self._record_path, kinds) or {}
            # An earlier version's has no checksum. By one number that changed another epoch may be the best.
            checksum = record.pop("crc32", None)
            if checksum is not None and checksum != checksum_record(record):
                raise ValueError(f"{self._record_path} is damaged: its checksum is another")
        except ValueError as error:
            print(f"{error}. The training is done again", flush=True)
            return {}
        if self._defaults | record.get("settings", {}) != self.settings or not record.get("finished"):
            return {}
        files = record.get("files") or {self.model_path.name: None}
        return record if check_files(self.model_path.parent, files) else {}

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
        # As a file gives it back.
        record = json.loads(json.dumps(fields | {"files": digests}))
        write_json(self._record_path, record | {"crc32": checksum_record(record)})


def read_record(path, kinds):
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


def check_files(folder, digests):
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
