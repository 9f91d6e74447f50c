"""The student alone, out of another run of the same budget."""

import pathlib

from keras_tkd.config.fields import COMPARED, collect_defaults, list_deciding
from keras_tkd.config.flagfile import format_flags, parse_lines
from keras_tkd.reports.schema import read_results
from keras_tkd.runs.finished import read_finished
from keras_tkd.runs.given import list_changed, read_data_hashes
from keras_tkd.runs.layout import RESULTS
from keras_tkd.runs.records import check_files, read_record

__all__ = [
    "check_baseline_data",
    "count_epochs_to_baseline",
    "describe_other_training",
    "find_baseline_file",
    "read_baseline",
]


def count_epochs_to_baseline(baseline, history):
    """Returns the first epoch (from 1) whose held-out accuracy is the baseline's test accuracy or more, or None.

    Args:
        baseline: the baseline's `ModelResult`; None where there is none.
        history: list of dicts of metrics, one of each epoch.
    """
    if baseline is None:
        return None
    reached = (i for i, epoch in enumerate(history, 1) if epoch["val_accuracy"] >= baseline.test_accuracy)
    return next(reached, None)


def read_baseline(config, undecided=()):
    """Returns the baseline's `ModelResult` out of another run's results; None where this run is to train its own.

    Args:
        config: resolved `DistillConfig`.
        undecided: names of settings that the data are still to choose, and that are not compared.

    Raises:
        ValueError: no finished run with a baseline; one of another budget.
    """
    if config.baseline in ("train", "none"):
        return None
    results = read_finished(config.baseline)
    baseline = results and (results.student if results.method == "baseline" else results.baseline)
    if baseline is None:
        raise ValueError(
            "`baseline` must be 'train', 'none', or the workdir of a finished run with a baseline. "
            f"Received: baseline={config.baseline!r}"
        )
    # A student that was trained longer would win without a teacher, too.
    differing = _describe_differing(config, results, COMPARED, undecided)
    if differing:
        raise ValueError(
            f"The baseline in {config.baseline} had another budget: {differing}. Train one for this run: "
            "--baseline=train"
        )
    return baseline


def describe_other_training(config):
    """Returns sentences, one at most, on how the student alone of another run was trained otherwise than this run's.

    Args:
        config: any configuration of a run; none but a `DistillConfig` may name another run.
    """
    # No error: a rate that suits each of the two makes the better comparison, but one should know of it.
    folder = getattr(config, "baseline", None)
    results = None if folder in (None, "train", "none") else read_finished(folder)
    differing = results and _describe_differing(config, results, ("training",))
    return [f"The student alone in {folder} was trained otherwise: {differing}"] if differing else []


def _describe_differing(config, results, groups, undecided=()):
    """Says which settings of some groups (see `DECIDES`) differ between another run, of its results, and this one."""
    # Compared as flags: the other run may be of an earlier version, without some of them, which are None then.
    there, here = parse_lines(results.flags), parse_lines(format_flags(config))
    # Before there was a flag, all runs did what its default says.
    defaults = {name: str(value) for name, value in collect_defaults(type(config)).items() if value not in (None, ())}
    left_out = {*config.irrelevant_fields, *undecided}
    compared = [name for name in list_deciding(type(config), groups) if name not in left_out]
    before = {name: there.get(name, defaults.get(name)) for name in compared}
    differing = [name for name in compared if before[name] != here.get(name)]
    return ", ".join(f"{name} {before[name]} there, {here.get(name)} here" for name in differing)


def check_baseline_data(config, data):
    """Raises `ValueError` where the baseline's run had other images or labels than this one, as far as it is known.

    Args:
        config: resolved `DistillConfig`, whose `baseline` names a finished run.
        data: hashes of this run's, see `keras_tkd.runs.images.hash_data`.
    """
    # The same flags name the same folder, and not what is in it.
    changed = list_changed(read_data_hashes(pathlib.Path(config.baseline)), data)
    if changed:
        raise ValueError(
            f"A `baseline` must be of the data of this run. Received: baseline={config.baseline!r}, which had other "
            f"data: {', '.join(changed)} have changed since. Put them back, or train one for this run: --baseline=train"
        )


def find_baseline_file(config, needed=True):
    """Returns the file of the student alone in the other run that `config.baseline` names.

    Args:
        needed: whether there must be one; else None where there is none.

    Raises:
        ValueError: that run holds no such file, for it had its baseline from another run itself; or a file that is not
            the one which its results are about.
    """
    folder = pathlib.Path(config.baseline)
    results = read_results(folder / RESULTS)
    path = folder / ("student.keras" if results.method == "baseline" else "baseline.keras")
    if path.exists():
        # Of a model that somebody trained further, or of damage, the figures in the results say nothing.
        digests = read_record(folder / RESULTS, {"files": dict}).get("files") or {}
        check_files(folder, {path.name: digests.get(path.name)})
        return path
    if not needed:
        return None
    raise ValueError(
        "A `baseline` that is to be the anchor must be the run that trained the student alone, and holds its file. "
        f"Received: baseline={config.baseline!r}, without {path.name}"
    )
