"""The runs of a comparison, planned before the first of them: which there are, and on which others each builds."""

import dataclasses
import pathlib
import re
import urllib.parse

from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.config.fields import (
    COMPARED,
    FREE,
    check_choice,
    get_default,
    has_default,
    list_deciding,
    list_left_to_data,
    resolve_auto,
)
from keras_tkd.config.flagfile import format_flags, parse_lines, read_flags
from keras_tkd.methods.combination import parse_entry
from keras_tkd.methods.registry import METHODS
from keras_tkd.reports.comparison import BASELINE
from keras_tkd.runs.defaults import choose_defaults

__all__ = [
    "Step",
    "TEACHER",
    "check_numbers",
    "check_pairs",
    "check_recorded",
    "choose_by_data",
    "choose_method",
    "complete",
    "find_differences",
    "format_shared_flags",
    "list_steps",
    "make_configs",
    "name_folder",
]

TEACHER = "teacher"
# What an entry of a list says for its own losses. For all methods alike it would be nobody's published value.
_ARGUMENTS_OF_ENTRIES = ("temperature", "margin", "teacher_layers", "student_layers", "miner")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One run of a comparison.

    Attributes:
        method: its method, as it was given; `TEACHER` for that of the teacher.
        seed: its seed.
        command: name of the command in `keras_tkd.runs`.
        config: its configuration.
        path: its folder.
        needs: folders of the runs that it builds on.
    """

    method: str
    seed: int
    command: str
    config: DistillConfig | TeacherTrainingConfig
    path: pathlib.Path
    needs: tuple[pathlib.Path, ...] = ()

    @property
    def title(self):
        """The run's name for people."""
        return self.method if self.method == TEACHER else f"{self.method}, seed {self.seed}"


def choose_by_data(config):
    """Chooses what is left to the data, once for all runs; returns it as a dict, and the data if they were loaded."""
    # A method that has both networks, even if a trained teacher is given: one whose teacher learns beside the student.
    # Where no method has such a teacher, this one would not read what was given, such as the teacher's image size.
    frozen = config.multi_label or config.teacher_image_size is not None
    asking = resolve_auto(config, method="kd" if frozen else "dml", losses=None)
    chosen, splits = choose_defaults(asking.resolved())
    decided = set(list_left_to_data(asking)) - set(list_left_to_data(chosen))
    named = [field.name for field in dataclasses.fields(chosen) if field.name in decided]
    return {name: getattr(chosen, name) for name in named}, splits


def complete(config, chosen):
    """Returns a configuration with what the data decided, as far as it reads that and nobody gave it."""
    return dataclasses.replace(config, **{name: chosen[name] for name in list_left_to_data(config) if name in chosen})


def make_configs(base, methods, settings=None):
    """Makes the configuration of each method that is compared, before its seed and what it builds on.

    Args:
        base: `DistillConfig` with what all runs share; its own method and losses are passed over.
        methods: names of methods, or lists of losses with `+` between, each as `--losses` has it.
        settings: dict from a method to the lines of a flagfile with what it has of its own; see `read_settings`.

    Returns:
        dict from a method, as it was given, to its `DistillConfig`; the baseline is the first in any case.

    Raises:
        ValueError: an unknown method, two that are the same training, one that cannot have the shared settings;
            settings that belong to a single method.
    """
    _check_shared(base)
    listed = [text for text in map(str.strip, methods) if text != BASELINE]
    if not listed:
        raise ValueError(f"`methods` must name one besides the baseline. Received: methods={','.join(methods)!r}")
    configs, seen, settings = {}, {}, settings or {}
    for text in (BASELINE, *listed):
        configs[text] = choose_method(base, text, settings.get(text, ()))
        recipe = configs[text].recipe
        # The sum of its losses is in no order.
        same = dataclasses.replace(recipe, summary="", terms=tuple(sorted(recipe.terms, key=repr)))
        other = seen.setdefault(repr((same, settings.get(text, ()))), text)
        if other != text:
            raise ValueError(f"`methods` must differ. Received: {other!r} and {text!r}, which are the same training")
    _check_budgets(configs)
    return configs


def check_numbers(seeds, parallel):
    """Raises `ValueError` for seeds, or a number of processes, that a comparison or a tuning cannot have."""
    if not seeds or len(set(seeds)) < len(seeds) or any(type(seed) is not int for seed in seeds):
        raise ValueError(f"`seeds` must be different whole numbers, one or more. Received: seeds={seeds}")
    if type(parallel) is not int or parallel < 1:
        raise ValueError(f"`parallel` must be a whole number >= 1. Received: parallel={parallel!r}")


def check_recorded(base, methods, seeds, settings):
    """Raises `ValueError` for a method or a seed that a comparison with these shared settings cannot have."""
    for method in methods:
        choose_method(base, method, settings.get(method, ()))
    for seed in seeds:
        resolve_auto(base, seed=seed)


def check_pairs(results):
    """Raises `ValueError` for a run whose figures are against another student alone than its seed has now."""
    accuracies = {found.seed: found.student.test_accuracy for found in results.get(BASELINE, ())}
    for method, runs in results.items():
        for found in runs:
            if found.baseline and found.seed in accuracies and found.baseline.test_accuracy != accuracies[found.seed]:
                folder = f"{name_folder(method)}/seed{found.seed}"
                raise ValueError(
                    f"{folder} was measured beside another student alone than that of {BASELINE}/seed{found.seed}: "
                    f"{found.baseline.test_accuracy:.2%} then, {accuracies[found.seed]:.2%} now. Remove {folder}, "
                    "and the same command trains it again"
                )


def list_steps(base, configs, seeds, folder):
    """Lists all runs of a comparison, in an order in which none comes before one that it builds on.

    Seed after seed, so that a comparison which is interrupted has whole seeds. Runs of one seed have the same starting
    weights and order of the images, and all have the same teacher, which is trained with the seed of `base`.

    Args:
        base: as in `make_configs`.
        configs: what that gives.
        seeds: seeds of the runs.
        folder: that of the comparison, absolute.

    Returns:
        list of `Step`.
    """
    steps, teacher_path = [], base.teacher_path
    if not (teacher_path or base.teacher_outputs) and any(config.takes_trained_teacher for config in configs.values()):
        path = folder / TEACHER
        teacher_path = (str(path),)
        config = next(config for config in configs.values() if config.takes_trained_teacher)
        # A method's own learning rate and decay are its student's: the teacher is everybody's.
        everybodys = {name: getattr(base, name) for name in ("learning_rate", "weight_decay", "seed")}
        config = dataclasses.replace(config, **everybodys).teacher
        steps.append(Step(method=TEACHER, seed=base.seed, command="train_teacher", config=config, path=path))
    for seed in seeds:
        baseline = folder / BASELINE / f"seed{seed}"
        for method, config in configs.items():
            settings, needs = {"seed": seed}, []
            if config.has_teacher:
                settings["baseline"] = str(baseline)
                needs.append(baseline)
            if config.takes_trained_teacher and teacher_path:
                settings["teacher_path"] = teacher_path
                # A teacher that was given is there.
                needs += [step.path for step in steps if step.method == TEACHER]
            if config.named_cache:
                # An online teacher's anchor is a student of its own seed.
                if config.online:
                    settings["teacher_cache"] = f"{config.teacher_cache}/{name_folder(method)}_seed{seed}"
                # Under augmentation the views that a cache holds are a seed's own.
                elif config.augments:
                    settings["teacher_cache"] = f"{config.teacher_cache}_seed{seed}"
            path = folder / name_folder(method) / f"seed{seed}"
            config = resolve_auto(config, **settings)
            step = Step(method=method, seed=seed, command="distill", config=config, path=path, needs=tuple(needs))
            steps.append(step)
    return steps


def format_shared_flags(base, chosen, free=False):
    """Returns the lines of a flagfile with what all runs share, whatever the method of `base`.

    Defaults are left out, but for those that somebody gave where the data would decide.

    Args:
        base: as in `make_configs`.
        chosen: dict of the settings that the data decided.
        free: whether what a run that goes on need not share is among them.
    """
    own = ("method", "losses", "baseline", *(() if free else list_deciding(type(base), FREE)))
    default = {field.name: field.default for field in dataclasses.fields(base)}
    equal = [name for name in default if getattr(base, name) == default[name]]
    left_out = tuple(f"--{name}=" for name in (*own, *equal, *chosen))
    lines = [line for line in format_flags(base) if not line.startswith(left_out)]
    unread = set(base.irrelevant_fields)
    given = {name: default[name] for name in equal if name not in unread and not has_default(base, name)}
    return (*lines, *(f"--{name}={value}" for name, value in (given | chosen).items()))


def find_differences(there, here):
    """Returns the lines of each of two flagfiles of `format_shared_flags` that the other has not."""
    # What was given and is the default, a file of an earlier version may leave out.
    default = {name: get_default(DistillConfig, name) for name in list_left_to_data(DistillConfig())}
    there, here = (
        {*lines, *(f"--{name}={value}" for name, value in default.items() if name not in parse_lines(lines))}
        for lines in (there, here)
    )
    return there - here, here - there


def name_folder(method):
    """Returns the name of a method's folder: as it was given, with `-` for `+`, and `~2F` for `/` and the like.

    TensorBoard's projector escapes nothing in the addresses that it asks for: `+` would be a space there, `%2F` a `/`.
    """
    quoted = urllib.parse.quote(method, safe="+@=:").replace("-", "%2D").replace("~", "%7E")
    return quoted.replace("+", "-").replace("%", "~")


def choose_method(base, text, settings):
    """Chooses the configuration of one method; what that does not read has its default.

    Args:
        base: as in `make_configs`.
        text: the method, as it was given.
        settings: lines of a flagfile with what it has of its own.

    Raises:
        ValueError: an unknown method, or settings that it cannot have.
    """
    own = read_flags(DistillConfig, "\n".join(settings))
    if text in METHODS or "method" in own:
        return resolve_auto(base, **{"method": text, "losses": None} | own)
    if own.get("losses"):
        return resolve_auto(base, **{"method": get_default(DistillConfig, "method")} | own)
    entries = []
    for part in text.split("+"):
        # Names of layers have a `+` between them too: what does not begin with a method goes on.
        if entries and not re.fullmatch(rf"({'|'.join(METHODS)})([@:].*)?", part.strip()):
            entries[-1] += f"+{part}"
        else:
            entries.append(part.strip())
    if not re.search("[@:+]", text):
        check_choice("methods", text, tuple(METHODS))
    for entry in entries:
        parse_entry(entry)
    return resolve_auto(base, **{"method": get_default(DistillConfig, "method"), "losses": tuple(entries)} | own)


def _check_shared(base):
    """Raises `ValueError` for settings that cannot be those of every method."""
    entries = {name: f"@{name}={_join(getattr(base, name))}" for name in _ARGUMENTS_OF_ENTRIES}
    # Neither goes without the other.
    layers = entries.pop("teacher_layers") + entries.pop("student_layers")
    entries |= {"teacher_layers": layers, "student_layers": layers}
    entries["distillation_loss_weights"] = f":{_join(base.distillation_loss_weights, '/')}"
    method = "kd" if base.losses else base.method
    whys = {name: f"has one of its own, in --methods: {method}{entry}" for name, entry in entries.items()}
    whys["baseline"] = "is compared with the student alone that the comparison trains"
    whys["teacher_head"] = (
        "learns from one teacher, and each run would train a head of its own. Train it once, by scripts/distill.py, "
        "and give that run as --teacher_path"
    )
    for name, why in whys.items():
        value = getattr(base, name)
        if value != get_default(DistillConfig, name):
            raise ValueError(f"A comparison takes no `{name}`: each method {why}. Received: {name}={value!r}")
    if base.distribution == "multi_worker":
        raise ValueError(
            "A comparison starts its runs itself, one process for each, and a run of several workers is started once "
            f"on each of them. Received: distribution={base.distribution!r}. Take 'mirrored', for the GPUs of one "
            "machine, or start single runs with scripts/distill.py"
        )


def _join(value, between="+"):
    """Returns a setting as an entry of a list of losses has it: of a list, with something between its values."""
    values = value if isinstance(value, tuple) else (value,)
    return between.join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)


def _check_budgets(configs):
    """Raises `ValueError` for methods that would have another budget than the baseline."""
    baseline, *others = [config.resolved() for config in configs.values()]
    for name in list_deciding(DistillConfig, COMPARED):
        for method, config in zip(list(configs)[1:], others, strict=True):
            here, there = getattr(baseline, name), getattr(config, name)
            if name not in config.irrelevant_fields and here != there:
                raise ValueError(
                    f"Methods that are compared must have the same budget. Received: {name}={here!r} of the student "
                    f"alone and {there!r} of {method}. Give --{name} for all"
                )
