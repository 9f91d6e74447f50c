"""Flagfiles that a tuning leaves: each method's best settings, and how they were chosen; the command that confirms."""

import itertools
import pathlib
import shlex
import textwrap

from keras_tkd.config.fields import FREE, has_default, list_deciding
from keras_tkd.config.flagfile import format_flags, join_values
from keras_tkd.methods.combination import parse_entry
from keras_tkd.reports.tuning import STATUSES
from keras_tkd.runs.sweep_plan import name_folder
from keras_tkd.runs.sweep_settings import OWN
from keras_tkd.runs.tuning_space import apply_values
from keras_tkd.utils.files import write_text

__all__ = ["BEST", "SHARED", "name_losses", "write_flagfiles"]

BEST = "best.flags"
SHARED = "shared.flags"
_CONFIRMED = 3  # seeds: fewer show nothing over seeds


def write_flagfiles(tuning, shared, configs, path):
    """Writes a flagfile with the best settings of each method, and one with what all methods share.

    Args:
        tuning: the `Tuning`, finished.
        shared: lines of a flagfile with what all methods share.
        configs: dict from each method to its `DistillConfig`, before it was tuned.
        path: the tuning's folder, as it was given.

    Returns:
        The command that compares the best settings, by seeds that the tuning has not seen.
    """
    folder, methods = pathlib.Path(path), []
    for name, config in configs.items():
        best, file = tuning.find_best(name), folder / name_folder(name) / BEST
        config = apply_values(config, best.settings)
        flags = [line for line in format_flags(config) if _is_told(line, config)]
        write_text(file, "\n".join([*_describe_choice(tuning, name, best), *flags, ""]))
        methods.append(f"{name_losses(config)}={file}")
    fresh = (seed for seed in itertools.count() if seed not in tuning.seeds)
    words = {
        "flagfile": folder / SHARED,
        "methods": join_values(methods),
        "seeds": ",".join(map(str, itertools.islice(fresh, _CONFIRMED))),
        "workdir": f"{folder}_confirmed",
    }
    command = " ".join(["python scripts/compare.py", *(shlex.quote(f"--{key}={word}") for key, word in words.items())])
    text = f"# What all methods of a tuning share. To compare their best settings:\n#\n#   {command}\n#\n"
    write_text(folder / SHARED, text + "\n".join([*shared, ""]))
    return command


def name_losses(config):
    """Returns the name of a method's losses, `kd+tkd`, by which a comparison takes it with a flagfile."""
    return "+".join(parse_entry(entry).method for entry in config.losses) if config.losses else config.method


def _is_told(line, config):
    """Returns whether a line says what was given or chosen, of what decides the training."""
    name = line.removeprefix("--").partition("=")[0]
    # A comparison says that itself, and may say it otherwise when it goes on.
    if name in list_deciding(type(config), FREE):
        return False
    return name in ("dataset", "method", *OWN) or not has_default(config, name)


def _describe_choice(tuning, name, best):
    """Returns the lines of a flagfile's header."""
    trials = tuning.list_trials(name)
    counts = {status: sum(trial.status == status for trial in trials) for status in STATUSES}
    ended = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    own = trials[0].accuracy
    said = "did not finish" if own is None else f"had {100 * own:.2f} %"
    several = "s" * (len(tuning.seeds) > 1)
    text = (
        f"{name}, tuned: the best of {len(trials)} trials is number {best.number}, with {100 * best.accuracy:.2f} % of "
        f"the validation images; number 0, with the settings that it began with, {said}. Trials ({ended}) were judged "
        f"by {tuning.validation_samples:,} images, a share of {tuning.validation_fraction:g} of the training images, "
        f"over the seed{several} {', '.join(map(str, tuning.seeds))}; the sampler's seed is {tuning.sampler_seed}. No "
        "test image was looked at."
    )
    return [f"# {line}" for line in textwrap.wrap(text, 118)]
