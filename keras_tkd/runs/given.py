"""Models and data that a run is given from outside its folder, and whether they are still what it began with."""

import os

from keras_tkd.config.fields import list_given_files
from keras_tkd.models import KERAS_FILES
from keras_tkd.runs.layout import GIVEN, TRAINED, holds_something
from keras_tkd.utils.files import read_json, write_json

__all__ = [
    "check_given",
    "check_given_files",
    "has_begun_with",
    "has_other_files",
    "list_changed",
    "read_data_hashes",
    "read_given",
    "record_given",
]


def check_given_files(config):
    """Raises `FileNotFoundError` for a model, weights or outputs of a configuration that are not there.

    It looks at nothing but names: it comes before data are loaded, which may take hours.
    """
    for field, value in list_given_files(config):
        # Of data and of another run's baseline, whoever reads them says what they must be. Architectures have names.
        if field.metadata["decides"] in ("data", "nothing"):
            continue
        if field.name in ("student_model", "teacher_model") and not value.endswith(KERAS_FILES):
            continue
        # A teacher may be the folder of a run, or of a SavedModel.
        kind, exists = ("file or folder", os.path.exists) if field.name == "teacher_path" else ("file", os.path.isfile)
        if not exists(value):
            raise FileNotFoundError(
                f"`{field.name}` must be an existing {kind}. Received: {field.name}={value!r}. "
                "Relative paths count from the folder in which the command is run"
            )


def check_given(folder, given, retrains, by_flags=False):
    """Raises `ValueError` for a model or data that are not those which the run began with.

    Args:
        folder: the run's.
        given: dict of what it is given now: `"weights"`, `"layers"`, `"data"`, and the hashes of files by flag; None
            where unknown.
        retrains: whether what a teacher of other weights decides is to be trained again.
        by_flags: whether it is trained again in any case, for flags that have changed.
    """
    # A run that trained nothing, because its teacher knows nothing for one, has nothing to lose.
    if not any(holds_something(folder / name) for name in TRAINED):
        return
    changed = _find_changed(folder, given)
    if "data" in changed:
        changed.remove("data")
        _check_data(folder, given["data"])
    same_file = not any(name.startswith("--teacher_path=") for name in changed)
    # Saved anew, a teacher is another file, and the same teacher by its weights; of its outputs these are the file.
    changed = [name for name in changed if not name.startswith(("--teacher_path=", "--teacher_outputs="))]
    if "weights" in changed:
        # Another model, whatever its layers.
        changed = [name for name in changed if name != "layers"]
    if not changed:
        return
    if changed == ["layers"]:
        # A scaling or a choice of classes is layers of its own.
        if by_flags and same_file:
            return
        what, more = "teacher: the layers of --teacher_path have, or their settings, and its weights have not,", ""
    elif changed == ["weights"]:
        # They are among the settings of what is trained by it, which is then done again.
        if retrains:
            return
        outputs = any(name.startswith("--teacher_outputs=") for name in given)
        what, more = (
            f"teacher: the {'file of --teacher_outputs has' if outputs else 'weights of --teacher_path have'}",
            ", or --existing=continue to train its student again",
        )
    else:
        name = next(name for name in changed if name not in ("weights", "layers"))
        what, more = f"model: the file of {name} has", ""
    raise ValueError(
        f"The run in {folder} began with another {what} changed since. Put the file back that it began with, or "
        f"choose another --workdir, or pass --existing=overwrite to begin anew{more}"
    )


def has_other_files(folder, files):
    """Returns whether a file that the run is given is not the one that it began with, and says so.

    Args:
        folder: the run's.
        files: dict from flags that name files of models, `--name=path`, to the files' SHA-256.
    """
    changed = _find_changed(folder, files)
    for name in changed:
        print(f"The file of {name} has changed since the run in {folder} began: it is looked at", flush=True)
    return bool(changed)


def record_given(folder, given):
    """Writes down what a run is given; for the arguments see `check_given`."""
    known = {name: digest for name, digest in given.items() if digest is not None}
    if known:
        write_json(folder / GIVEN, known)


def read_given(folder):
    """Returns what the run in a folder began with, as `record_given` wrote it down; empty where it is not known."""
    return read_json(folder / GIVEN) or {}


def has_begun_with(folder, given):
    """Returns whether the run in a folder began last with what `read_given` said earlier; None is not known."""
    return not _find_changed(folder, given or {})


def read_data_hashes(folder):
    """Returns the hashes of the data that the run in a folder began with; empty where they are not known."""
    data = read_given(folder).get("data")
    return {what: digest for what, digest in data.items() if what != "flags"} if isinstance(data, dict) else {}


def list_changed(there, here):
    """Returns what of the data is not the same, by hashes; what is not known of either counts as the same.

    Args:
        there, here: dicts as `keras_tkd.runs.images.hash_data` gives them.
    """
    return [what for what, digest in here.items() if there.get(what, digest) != digest]


def _check_data(folder, data):
    """Raises `ValueError` for data that have changed although the flags that decide them have not."""
    began_with = read_json(folder / GIVEN)["data"]
    # With other flags other data are no surprise, and what they decide is trained again.
    if not isinstance(began_with, dict) or began_with.get("flags") != data["flags"]:
        return
    changed = list_changed(began_with, data)
    if changed:
        raise ValueError(
            f"The run in {folder} began with other data: {', '.join(changed)} have changed since. Put them "
            "back, or choose another --workdir, or pass --existing=overwrite to begin anew"
        )


def _find_changed(folder, given):
    """Returns the names of what the run was given that is not what it began with; what is not known is none."""
    try:
        began_with = read_json(folder / GIVEN) or {}
    except ValueError as error:
        raise ValueError(
            f"{error}. It says with which teacher the run began: put it back, choose another --workdir, or pass "
            "--existing=overwrite to begin anew"
        ) from error
    return [name for name, digest in given.items() if digest and began_with.get(name, digest) != digest]
