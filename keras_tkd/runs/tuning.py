"""Tuning: settings of methods, and of the student alone, chosen on images that are held out of the training images."""

import contextlib
import dataclasses
import importlib.util
import io
import pathlib
import textwrap

from keras_tkd.config.fields import has_default, resolve_auto
from keras_tkd.data.datasets import check_outside
from keras_tkd.reports.comparison import BASELINE
from keras_tkd.reports.tuning import Tuning, format_trials, read_tuning
from keras_tkd.runs.given import list_changed
from keras_tkd.runs.images import hash_data
from keras_tkd.runs.inputs import load_distillation_inputs
from keras_tkd.runs.layout import TUNING, check_own, check_workdir
from keras_tkd.runs.results import describe_versions
from keras_tkd.runs.shared_cache import choose_shared_cache
from keras_tkd.runs.sweep_plan import (
    check_numbers,
    choose_by_data,
    complete,
    find_differences,
    format_shared_flags,
    make_configs,
    name_folder,
)
from keras_tkd.runs.sweep_progress import format_duration
from keras_tkd.runs.tuning_flags import name_losses, write_flagfiles
from keras_tkd.runs.tuning_jobs import JOURNAL, OUTPUT, Study, redirect_output, run_studies
from keras_tkd.runs.tuning_space import apply_values, make_spaces, parse_space
from keras_tkd.runs.tuning_trials import load_tuning_splits, obtain_teacher
from keras_tkd.utils.files import check_writable, write_json, write_text
from keras_tkd.utils.locks import FolderLock

__all__ = ["TRIALS", "tune"]

TRIALS = "trials.csv"
_FRACTION = 0.2
_TRIALS = 10  # that a teacher cache is reckoned for


def tune(config, path, methods, trials=20, seeds=(100,), space=(), parallel=1):
    """Searches learning rates, temperatures, margins and weights of methods, by validation images alone.

    The student alone is tuned too, its learning rate in the same range and by as many trials. Trials train on the
    training images less those held out; so does their teacher, unless one is given; one cache keeps its outputs for
    all. The test images are left out before anything is trained.

    A tuning that was interrupted is taken up with the training that was going on, and ends with the trials that it
    would have had. Methods may be added to a folder, and trials to all of its methods. A trial that fails does not stop
    the others, and is not repeated.

    Args:
        config: `DistillConfig` with what all trials share, as `compare` takes it. `validation_fraction` is 0.2 if not
            given, and concerns the trials alone unless another setting goes by validation images; `seed` is that of the
            teacher and of the search.
        path: the tuning's folder.
        methods: as `compare` takes them, without flagfiles; what they have of their own is what the first trial has.
        trials: number of trials of each method.
        seeds: of the students of each trial, whose accuracies are averaged. Confirm the outcome by others.
        space: ranges in place of the defaults, such as `["learning_rate=0.01..0.2", "kd.temperature=4"]`.
        parallel: number of methods at once; the trials of each come one after another. More than one are processes of
            their own, each with its share of the threads: results are the same with `deterministic`, and else differ
            as they do between machines.

    Returns:
        The `Tuning`, as in `tuning.json`; beside that are `trials.csv` and, for each method, `METHOD/best.flags`.

    Raises:
        ValueError: what cannot be tuned, before anything is trained; another tuning's folder; Optuna is not installed;
            no trial of a method finished.
        ChildProcessError: a process of a method ended for want of memory, say.
        BlockingIOError: another process is at work in the folder.
    """
    folder, seeds = pathlib.Path(path).absolute(), tuple(seeds)
    check_workdir(path)
    _check_arguments(trials)
    check_numbers(seeds, parallel)
    check_own(folder, TUNING)
    check_writable(folder, "workdir")
    check_outside(config.dataset, config.labels, folder, "workdir")
    lock = FolderLock(folder)
    lock.check_free()
    ranges, known = parse_space(space), read_tuning(folder / TUNING)
    fraction = _FRACTION if config.validation_fraction is None else config.validation_fraction
    if fraction == 0:
        raise ValueError(
            "A tuning chooses by images that are held out of the training images. Received: validation_fraction=0. "
            f"Give a share above 0, or leave it out for {_FRACTION}"
        )
    config = _free_held_out(config)
    chosen, _ = choose_by_data(config)
    shared = _keep_rate_of_teacher(complete(config, chosen))
    settled = {
        "flags": format_shared_flags(shared, chosen),
        "seeds": seeds,
        "sampler_seed": config.seed,
        "validation_fraction": fraction,
    }
    _check_same(known, folder, settled)
    if known and trials < known.trials:
        raise ValueError(f"{folder} has {known.trials} trials of each method. Received: trials={trials}. Give no fewer")
    names = dict.fromkeys((BASELINE, *(known.methods if known else ()), *map(str.strip, methods)))
    untuned = {name: complete(each, chosen) for name, each in make_configs(shared, names).items()}
    _check_names(untuned)
    configs = {name: each.resolved() for name, each in untuned.items()}
    for name, each in configs.items():
        _check_teacher(name, each)
    spaces = make_spaces(configs, ranges)
    ends = {name: {key: (each.low, each.high) for key, each in space.items()} for name, space in spaces.items()}
    if known:
        _check_same(known, folder, {"spaces": {name: ends[name] for name in known.methods}})
    configs = {name: _prepare(config, spaces[name], fraction) for name, config in configs.items()}
    # What the checks print, the trials print as well.
    with contextlib.redirect_stdout(io.StringIO()):
        splits = load_tuning_splits(configs[BASELINE])
        data = hash_data(splits)
        if known and list_changed(known.data, data):
            changed = ", ".join(list_changed(known.data, data))
            raise ValueError(
                f"All trials must have the same data. Received: {changed} that have changed since {folder} began"
            )
        configs = {name: _share_cache(config, folder, splits, len(seeds)) for name, config in configs.items()}
    tuning = Tuning(
        **settled,
        methods=tuple(configs),
        trials=trials,
        validation_samples=len(splits.validation_labels),
        spaces=ends,
        data=data,
        versions=describe_versions(),
    )
    (folder / OUTPUT).mkdir(parents=True, exist_ok=True)
    lock.take()
    try:
        found, at_once = known.results if known else (), min(parallel, len(configs))
        tuning = _run(tuning, shared, configs, spaces, splits, folder, found, at_once)
    finally:
        lock.release()
    command = write_flagfiles(tuning, format_shared_flags(shared, chosen, free=True), untuned, path)
    print(f"\nTo confirm the best settings, by seeds that chose nothing:\n  {command}", flush=True)
    return tuning


def _run(tuning, shared, configs, spaces, splits, folder, known, parallel):
    """Runs the trials that are missing; writes the tuning's files whenever one ends, and returns the `Tuning`.

    Args:
        known: the `TunedTrial`s that the folder's `tuning.json` has.
        parallel: number of methods at once.
    """
    with redirect_output(folder, "teacher"):
        teacher = obtain_teacher(shared, configs, folder, splits)
    # From here on there are trials, and the folder says of which tuning, also where the first of them never ends.
    _write(dataclasses.replace(tuning, results=known), folder)
    total, seconds = len(configs) * tuning.trials, []
    print(f"{len(configs)} methods, {tuning.trials} trials of each, in {folder}", flush=True)
    studies = [
        Study(
            method=name,
            config=resolve_auto(config, teacher_path=teacher) if config.has_teacher else config,
            space=spaces[name],
            folder=folder,
            trials=tuning.trials,
            seeds=tuning.seeds,
            sampler_seed=tuning.sampler_seed,
        )
        for name, config in configs.items()
    ]
    with contextlib.closing(run_studies(studies, splits, parallel)) as ended:
        for trial, new in ended:
            if not new:
                _check_known(trial, known, folder)
            tuning = tuning.add_trial(trial)
            if new:
                _write(tuning, folder)
                seconds.append(trial.seconds)
                left = (total - len(tuning.results)) * sum(seconds) / len(seconds) / parallel
                _report(tuning, trial, left)
    _write(tuning, folder)
    missing = [name for name in tuning.methods if tuning.find_best(name) is None]
    if missing:
        raise ValueError(
            f"A method needs a trial that finishes. Received: none of {', '.join(missing)}; see {folder / TRIALS}. "
            "Choose other ranges, --space, and another --workdir"
        )
    return tuning


def _check_arguments(trials):
    if importlib.util.find_spec("optuna") is None:
        raise ValueError('Tuning needs optuna, not installed here. Install the extra: pip install "keras_tkd[tune]"')
    if type(trials) is not int or trials < 1:
        raise ValueError(f"`trials` must be a whole number >= 1. Received: trials={trials!r}")


def _free_held_out(config):
    """Returns the configuration of the runs that will have what is found.

    They train on all training images, unless a setting makes them go by validation images as well.
    """
    freed = resolve_auto(config, validation_fraction=None)
    lost = dataclasses.replace(freed, validation_fraction=config.validation_fraction) != config
    return config if lost else freed


def _keep_rate_of_teacher(config):
    """Returns the configuration with the teacher's learning rate written out, which tuning the student's must leave."""
    if not config.has_teacher:
        config = resolve_auto(config, method="kd")
    if "teacher_learning_rate" in config.irrelevant_fields or config.teacher_learning_rate is not None:
        return config
    return dataclasses.replace(config, teacher_learning_rate=config.learning_rate)


def _check_same(known, folder, settled):
    """Raises `ValueError` where a folder's tuning has other settings than one that is to go on with it."""
    for name, value in settled.items():
        there = getattr(known, name, value)
        if any(find_differences(there, value)) if name == "flags" else there != value:
            raise ValueError(
                f"{folder} holds another tuning. Received: {name}={value!r}, and there {there!r}. "
                "Choose another --workdir, or remove the folder"
            )


def _check_names(configs):
    names = {}
    for method, config in configs.items():
        other = names.setdefault(name_losses(config), method)
        if other != method:
            raise ValueError(
                f"Methods that are tuned must be of different losses, whose numbers are searched. Received: {other!r} "
                f"and {method!r}"
            )


def _check_teacher(name, config):
    if config.has_teacher and (config.online or config.teacher_outputs):
        what = "a teacher that learns with it" if config.online else "`teacher_outputs`, which are not of these images"
        raise ValueError(f"A method that is tuned learns from a trained teacher's model. Received: {name}, with {what}")


def _prepare(config, space, fraction):
    """Returns the configuration of a method's trials; refuses what cannot be tuned."""
    for end in ("low", "high"):
        # The rules of a configuration hold in all of a range if they do at its ends.
        apply_values(config, {key: getattr(each, end) for key, each in space.items()})
    settings = {"validation_fraction": fraction}
    if config.has_teacher:
        # A trial is compared with the others, and not with a student alone of its own.
        settings["baseline"] = "none"
        # Warnings would stand in the output of many trials, where nobody reads them.
        if has_default(config, "check"):
            settings["check"] = "off"
    return resolve_auto(config, **settings)


def _share_cache(config, folder, splits, seeds):
    """Returns the configuration with its teacher cache decided; refuses what cannot train."""
    inputs = load_distillation_inputs(config, splits)
    if "teacher_cache" in config.irrelevant_fields:
        return config
    # In all trials together a cache saves more than in one of them. Not in as many as there are to be: trials that are
    # added later must have what the first had.
    all_of_them = dataclasses.replace(config, epochs=_TRIALS * seeds * config.epochs)
    return resolve_auto(config, teacher_cache=choose_shared_cache(all_of_them, folder, inputs))


def _check_known(trial, known, folder):
    """Raises `ValueError` where the two files of a tuning that tell of a trial do not say the same."""
    if any((one.method, one.number) == (trial.method, trial.number) and one != trial for one in known):
        journal = folder / name_folder(trial.method) / JOURNAL
        raise ValueError(
            f"{journal} or {folder / TUNING} is damaged: they differ in trial {trial.number} of "
            f"{trial.method}. Put both back, or remove both: the same command then makes them again, of the trainings "
            "that the folder holds"
        )


def _write(tuning, folder):
    write_json(folder / TUNING, tuning.to_dict())
    write_text(folder / TRIALS, format_trials(tuning))


def _report(tuning, trial, left):
    best = tuning.find_best(trial.method)
    ended = trial.status.upper() if trial.accuracy is None else f"{100 * trial.accuracy:.2f} %"
    # The whole of it is in the table of trials.
    ended += f": {textwrap.shorten(trial.error, 100, placeholder='...')}" if trial.error else ""
    settings = " ".join(f"{name}={value:g}" for name, value in trial.settings.items())
    print(
        f"  {trial.method}, trial {trial.number + 1}/{tuning.trials}, {settings}: {ended}"
        + (f"; best {100 * best.accuracy:.2f} %" if best else "")
        + f", in {format_duration(trial.seconds)}; about {format_duration(left)} left",
        flush=True,
    )
