"""One run in one folder."""

import dataclasses
import os
import pathlib
import shlex

from keras_tkd.config.fields import (
    DISTILLED,
    FREE,
    collect_defaults,
    list_deciding,
    list_given_files,
    list_left_to_data,
)
from keras_tkd.config.flagfile import format_flags, resolve_from_record
from keras_tkd.data.datasets import check_outside
from keras_tkd.reports.schema import Results
from keras_tkd.runs.baseline import describe_other_training
from keras_tkd.runs.checks import check_callbacks
from keras_tkd.runs.cluster import Cluster, connect
from keras_tkd.runs.defaults import choose_defaults
from keras_tkd.runs.devices import resolve_precision, start_devices
from keras_tkd.runs.given import has_other_files
from keras_tkd.runs.layout import FLAGFILE, OWN_FILES, RESULTS, SPLIT
from keras_tkd.runs.records import Stage
from keras_tkd.runs.teacher_files import find_teacher_file
from keras_tkd.runs.workdir import Workdir
from keras_tkd.teacher_cache.builder import read_versions
from keras_tkd.utils.files import check_writable, hash_file, hash_folder, write_json
from keras_tkd.utils.saved_models import SAVED_MODEL, VARIABLES

__all__ = ["Run", "open_run"]


class Run:
    """One run in one folder: its configuration, its files, its results. A context manager, which frees the folder.

    Args:
        config: its configuration, in which nothing is None or `"auto"` any more but what `resolve_config` decides.
        workdir: its `Workdir`.
        command: name of the script that runs the same again.
        callbacks: the user's Keras callbacks, which take part in every training of the run.
        splits: its data, where settings were chosen by them; None where they are not loaded yet.
        cluster: the `Cluster` that trains it; one device, if not given.
        shared_path: the folder that all its workers read; its own, if not given.

    Attributes:
        first_batch_checked: whether the first batch of the distillation was looked at.
        results: what results.json says of this very run, as a dict; None where it is not finished.
    """

    def __init__(self, config, workdir, command="distill", callbacks=(), splits=None, cluster=None, shared_path=None):
        self.cluster = cluster or Cluster()
        self.shared_path = pathlib.Path(shared_path or workdir.path)
        self._config = config
        self._workdir = workdir
        self._command = command
        self._begun = False
        self.first_batch_checked = False
        self.callbacks = tuple(callbacks)
        self.splits = splits
        # Read now: `begin` removes the results of another run.
        self.results = self._read_results()

    @property
    def config(self):
        """The configuration: what the run is. It does not change once the run has begun."""
        return self._config

    @property
    def path(self):
        """The folder."""
        return self._workdir.path

    @property
    def finished(self):
        """True if the folder holds the results of this very run."""
        return self.results is not None

    def _read_results(self):
        """Reads what results.json says of this very run; None where it is not finished, or something has changed."""
        found = self._workdir.read_finished_results()
        if found is None or has_other_files(self._workdir.path, _hash_given_files(self._config)):
            return None
        trained = "teacher" if self._command == "train_teacher" else "student"
        try:
            results = Results.from_dict(found)
            if getattr(results, trained) is None:
                raise ValueError(f"it says nothing of the {trained}")
        except ValueError as error:
            print(f"{self.path / RESULTS} is damaged: {error}. What it said is measured again", flush=True)
            return None
        return found

    def resolve_config(self, config):
        """Replaces the run's configuration by one in which the decisions that need the inputs are made.

        Raises:
            RuntimeError: the run has begun, and its configuration is written down.
        """
        if self._begun:
            raise RuntimeError("A run's configuration does not change once it has begun")
        self._config = config
        self._workdir.flags = format_flags(config)

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        try:
            self.cluster.end(error)
        finally:
            self._workdir.release()

    def begin(self, inputs):
        """Makes the folder, with the flags that run the same again and the split that they make.

        Args:
            inputs: the run's `Inputs`.

        Raises:
            ValueError, BlockingIOError: as `Workdir.hold` and `Workdir.begin`.
        """
        self._begun = True
        splits, data = inputs.splits, self._describe_data(inputs)
        self.cluster.check_batches(len(splits.train_labels), self._config.batch_size)
        given = _hash_given_files(self._config)
        teacher = {"weights": inputs.fingerprint, "layers": inputs.architecture}
        self.cluster.agree({"flags": self._workdir.flags, "data": data, "files": given, "teacher": teacher})
        flagfile, folder = (shlex.quote(str(path)) for path in (self.path / FLAGFILE, self.path))
        command = f"python scripts/{self._command}.py --flagfile={flagfile} --workdir={folder}"
        self._workdir.hold()
        self._workdir.begin(
            f"To run this again: {command}",
            inputs.fingerprint,
            given,
            data,
            inputs.architecture,
            list_deciding(type(self._config), DISTILLED),
        )
        # `checks.check_unseen` reads it, so that no model is verified on identities that it was trained on.
        unseen = {"open_set_classes": splits.open_set_names} if splits.open_set_names else {}
        if splits.split or unseen:
            write_json(self.path / SPLIT, {**unseen, **(splits.split or {})})
        # A cache of another run, which worker 0 removes, is none that the others may open.
        self.cluster.exchange("")

    def _describe_data(self, inputs):
        """Returns the flags that decide the data, and the hashes of what they are now."""
        deciding = tuple(f"--{name}=" for name in list_deciding(type(self._config), ("data",)))
        return {"flags": [line for line in self._workdir.flags if line.startswith(deciding)], **(inputs.data or {})}

    def open_stage(self, name, settings):
        """Returns the `Stage` of a training inside the run; see there."""
        return Stage(self._workdir, name, settings, collect_defaults(type(self._config)))

    def write(self, results):
        """Writes `Results` as results.json, with the run's flags; returns what the file holds, as a dict."""
        results = dataclasses.replace(results, flags=self._workdir.flags)
        self.results = self._workdir.write_results(results.to_dict())
        return self.results


def open_run(command, config, path, existing="refuse", callbacks=()):
    """Opens the run of a configuration in a folder, in which nothing is changed yet.

    The configuration is resolved, but for what needs the run's inputs (`Run.resolve_config`): None becomes the method's
    published value, `"auto"` what an earlier beginning of the run made of it, or else what suits this machine, and what
    is left to the data is chosen by them (`choose_defaults`).

    Args:
        command: name of the script, without its ending.
        config: `DistillConfig` or `TeacherTrainingConfig`.
        path: the run's folder.
        existing: see `Workdir`.
        callbacks: see `Run`.

    Raises:
        ValueError: callbacks that cannot take part in a run; the folder holds another run's files, see `Workdir`; a
            run that is to be deterministic, in a process where TensorFlow has begun otherwise.
        ValueError, FileNotFoundError: settings are chosen by data, and something is wrong that is known without them.
        BlockingIOError: another process is at work in the folder.
    """
    check_callbacks(callbacks)
    config = config.resolved()
    # First: a worker cannot join the others once anything was computed in its process.
    cluster = connect(config.distribution)
    try:
        # Now: workers that go different ways would wait for each other for good.
        cluster.agree(
            {"script": command, "flags": format_flags(config), "--existing": existing, "versions": read_versions()}
        )
        return _open(cluster, command, config, path, existing, callbacks)
    except BaseException as error:
        cluster.end(error)
        raise


def _open(cluster, command, config, shared_path, existing, callbacks):
    """Opens the run of a configuration that trains in a `Cluster`; see `open_run`."""
    path = cluster.claim_folder(shared_path)
    # A run that overwrites another starts afresh, and decides afresh.
    if existing != "overwrite":
        config = resolve_from_record(config, pathlib.Path(path) / FLAGFILE)
    else:
        _check_inputs_stay(config, pathlib.Path(path))
    free = list_deciding(type(config), FREE)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    # What can be refused without the data comes before they are loaded, which may take hours: what is still to be
    # chosen is compared with the folder's below.
    undecided = (*list_left_to_data(config), "precision")
    Workdir(path, format_flags(config), existing, (*free, *undecided), defaults)
    check_outside(config.dataset, config.labels, shared_path, "workdir")
    # Of no record: one that says what somebody gave there must not be taken for what was chosen.
    finished = (pathlib.Path(path) / RESULTS).exists()
    if not finished:
        check_writable(path, "workdir")
    config, splits = choose_defaults(config, finished)
    config = resolve_precision(config)
    for sentence in (*config.unreached, *describe_other_training(config)):
        print(f"Mind: {sentence}", flush=True)
    workdir = Workdir(path, format_flags(config), existing, free, defaults)
    run = Run(config, workdir, command, callbacks, splits, cluster, shared_path)
    if run.finished:
        print(f"Finished already: {run.shared_path}")
    elif config.deterministic:
        # Before anything is computed, or it is too late.
        start_devices(deterministic=True)
    return run


def _hash_given_files(config):
    """Returns the SHA-256 of the files that a run is given, by the flag that names each, `--name=path`."""
    # By name, a model is built anew each time; a file may be exchanged. Data have hashes of their own.
    named = [(field.name, value) for field, value in list_given_files(config) if field.metadata["decides"] != "data"]
    files = {f"--{name}={path}": find_teacher_file(path) if name == "teacher_path" else path for name, path in named}
    hashes = {flag: hash_file(path) for flag, path in files.items() if os.path.isfile(path)}
    # The weights of a SavedModel are not in its file. They have an entry of their own: a run that began before there
    # was one has none to compare, and goes on by the file.
    saved = {flag: pathlib.Path(path) for flag, path in files.items() if pathlib.Path(path).name == SAVED_MODEL}
    return hashes | {f"{flag}/{VARIABLES}": hash_folder(path.with_name(VARIABLES)) for flag, path in saved.items()}


def _check_inputs_stay(config, folder):
    """Raises `ValueError` for inputs of a run that are among the files which `existing="overwrite"` removes."""
    folder = folder.resolve()
    for field, value in list_given_files(config):
        given = pathlib.Path(value).resolve()
        # The folder itself stands for the teacher, or the baseline, in it.
        inside = (given == folder and field.name != "dataset") or any(
            given.is_relative_to(folder / own) for own in OWN_FILES
        )
        if given.exists() and inside:
            raise ValueError(
                f"--existing=overwrite removes the files of the run in {folder}, and this run reads one of them. "
                f"Received: {field.name}={value!r}. Copy it to another place first, or choose another --workdir"
            )
