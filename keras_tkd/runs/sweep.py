"""A comparison: several methods over several seeds in one folder, and what it shows."""

import contextlib
import dataclasses
import io
import pathlib
import time

from keras_tkd.config.fields import list_left_to_data, resolve_auto
from keras_tkd.data.datasets import check_outside
from keras_tkd.reports.comparison import (
    BASELINE,
    ComparedRun,
    Comparison,
    judge_comparison,
    read_comparison,
)
from keras_tkd.reports.comparison_tables import format_csv, format_markdown
from keras_tkd.reports.schema import Results
from keras_tkd.runs.early_checks import check_without_data
from keras_tkd.runs.given import list_changed, read_data_hashes
from keras_tkd.runs.images import load_splits
from keras_tkd.runs.inputs import load_distillation_inputs, load_teacher_inputs
from keras_tkd.runs.layout import COMPARISON, check_own, check_workdir
from keras_tkd.runs.results import describe_versions
from keras_tkd.runs.run import open_run
from keras_tkd.runs.shared_cache import choose_shared_cache
from keras_tkd.runs.sweep_jobs import Failure, run_all
from keras_tkd.runs.sweep_plan import (
    TEACHER,
    check_numbers,
    check_pairs,
    check_recorded,
    choose_by_data,
    complete,
    find_differences,
    format_shared_flags,
    list_steps,
    make_configs,
)
from keras_tkd.runs.sweep_progress import SweepProgress
from keras_tkd.runs.sweep_settings import describe_lines, read_settings
from keras_tkd.utils.files import check_writable, write_json, write_text
from keras_tkd.utils.locks import FolderLock

__all__ = ["MARKDOWN", "TABLE", "compare"]

TABLE = "results.csv"
MARKDOWN = "table.md"


def compare(config, path, methods, seeds, parallel=1):
    """Trains a student by each of several methods over several seeds, and decides which are better than the baseline.

    Each run is a run of `distill` in a folder of its own, `DIR/METHOD/seedN`; the teacher's, of `train_teacher`, is
    `DIR/teacher`. Within a seed all students start from the same weights and see the same images in the same order;
    over all seeds they have one teacher, and one cache of what its losses read.

    A comparison that was interrupted is taken up, with the run that was going on. Methods and seeds that the folder has
    beside those given stay in the comparison. A run that fails does not stop the others, and is tried again the next
    time; a training that was stopped at chance is not, unless `at_chance="warn"` is asked for or its folder is gone.

    Args:
        config: `DistillConfig` with what all runs share. Its own method is passed over, and its seed is the teacher's.
        path: the comparison's folder.
        methods: names of methods, or lists of losses with `+` between such as `"kd@temperature=2:0.5+sp"`; the baseline
            need not be among them. `"kd=tuned/kd/best.flags"` has settings of its own, of that flagfile, and a name
            that is no method's is a variant: see `read_settings`.
        seeds: seeds of the runs; fewer than three show nothing over seeds.
        parallel: number of runs at once. More than one are processes of their own, each with its share of the threads:
            results are the same with `deterministic`, and else differ as they do between machines.

    Returns:
        The `Comparison`, as in `comparison.json`; beside that are `results.csv` and `table.md`.

    Raises:
        ValueError: what cannot be compared, before anything is trained; another comparison's folder; data that have
            changed since the comparison began.
        BlockingIOError: another process is at work in the folder.
    """
    folder, seeds = pathlib.Path(path).absolute(), tuple(seeds)
    check_workdir(path)
    check_numbers(seeds, parallel)
    check_own(folder, COMPARISON)
    check_writable(folder, "workdir")
    check_outside(config.dataset, config.labels, folder, "workdir")
    lock = FolderLock(folder)
    lock.check_free()
    # What is wrong of any method's run, before data are loaded to choose what nobody gave.
    settings = read_settings(methods)
    for each in make_configs(config, settings, settings).values():
        check_without_data(each.resolved(), undecided=list_left_to_data(each))
    comparison, steps, found = _plan(config, folder, methods, seeds)
    folder.mkdir(parents=True, exist_ok=True)
    lock.take()
    try:
        return _run(comparison, steps, found, folder, parallel)
    finally:
        lock.release()


def _plan(config, folder, methods, seeds):
    """Checks what is to be run, on the data, which are loaded once and free again afterwards: each run has its own.

    Returns:
        The `Comparison` as far as it is known, its steps, and what the folder has of each by its path.
    """
    chosen, splits = choose_by_data(config)
    config = complete(config, chosen)
    comparison = _open(config, folder, methods, seeds, chosen)
    configs = make_configs(config, comparison.methods, comparison.settings)
    configs = {name: complete(each, chosen) for name, each in configs.items()}
    # What the checks print, the runs print as well.
    with contextlib.redirect_stdout(io.StringIO()):
        # All methods have the same: what decides the data is part of the budget.
        splits = splits or load_splits(configs[BASELINE].resolved())
        checked = {method: _check_method(each, folder, seeds, splits) for method, each in configs.items()}
        configs = {method: each for method, (each, _) in checked.items()}
        data = checked[BASELINE][1]
        _check_data(comparison, data, folder)
        comparison = dataclasses.replace(comparison, data=data)
        steps = list_steps(config, configs, comparison.seeds, folder)
        found = {step.path: _read_finished(step) or _recall_stopped(step, comparison, folder) for step in steps}
        for step in steps:
            if step.method == TEACHER and found[step.path] is None:
                load_teacher_inputs(step.config, splits)
    return comparison, steps, found


def _run(comparison, steps, found, folder, parallel):
    """Runs what is not finished; writes the comparison's files whenever a run ends, and returns the `Comparison`."""
    outcomes = {path: results for path, results in found.items() if results is not None}
    waiting = [step for step in steps if step.path not in outcomes]
    comparison = _write(comparison, steps, outcomes, folder)
    progress = SweepProgress(steps, found, folder, parallel)
    began = time.perf_counter()
    with contextlib.closing(run_all(waiting, outcomes, folder, parallel)) as ended:
        for step, outcome, took in ended:
            outcomes[step.path] = outcome
            comparison = _write(comparison, steps, outcomes, folder)
            progress.report(step, _describe_step(step, outcome, folder), took)
    if waiting:
        progress.close(time.perf_counter() - began)
    return comparison


def _open(config, folder, methods, seeds, chosen):
    """Returns the `Comparison` of a folder, as far as it is known, with the methods and seeds that are to be added."""
    flags, path = format_shared_flags(config, chosen), folder / COMPARISON
    common = {"dataset": config.dataset, "epochs": config.epochs, "task": config.task if config.multi_label else None}
    new = Comparison(methods=(BASELINE,), seeds=(), flags=flags, **common)
    settings, recorded = read_settings(methods, config), read_comparison(path)
    found = recorded or new
    there, here = find_differences(found.flags, flags)
    if there or here:
        raise ValueError(
            f"{folder} holds another comparison: there {' '.join(sorted(there)) or '(nothing)'}, here "
            f"{' '.join(sorted(here)) or '(nothing)'}. Choose another --workdir, or remove the folder"
        )
    try:
        check_recorded(config, found.methods, found.seeds, found.settings)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}. Put it back, or remove it") from error
    for method, own in settings.items():
        before = found.settings.get(method, ())
        if recorded and method in found.methods and own != before:
            raise ValueError(
                "A method has the same settings in all of a comparison. "
                f"Received: {method} with {describe_lines(own)}; "
                f"in {folder} it has {describe_lines(before)}. Choose another --workdir"
            )
    # What a file of an earlier version does not say, one of its runs does.
    recorded = filter(None, (read_data_hashes(folder / run.path) for run in found.runs))
    return dataclasses.replace(
        new,
        # An earlier comparison's methods count among those that verdicts are corrected for, named or not.
        methods=tuple(dict.fromkeys((BASELINE, *found.methods, *settings))),
        settings=found.settings | {method: own for method, own in settings.items() if own},
        seeds=tuple(sorted({*found.seeds, *seeds})),
        runs=found.runs,
        data=found.data or next(recorded, None),
    )


def _check_data(comparison, data, folder):
    """Raises `ValueError` where the images and labels are not those that a comparison began with.

    Args:
        comparison: the `Comparison`, as its folder has it.
        data: hashes of what there is now, see `hash_data`.
        folder: the comparison's.
    """
    # Seeds on two data sets would be compared as if they were on one, with the same flags.
    changed = list_changed(comparison.data or {}, data)
    if changed:
        raise ValueError(
            f"All runs of a comparison must have the same data. Received: {', '.join(changed)} that have changed since "
            f"the comparison in {folder} began. Put them back, or choose another --workdir, or remove the folder"
        )


def _check_method(config, folder, seeds, splits):
    """Returns a method's configuration with its teacher cache decided, and the hashes of its data.

    What cannot be trained is refused here.
    """
    # Without what does not exist yet: the baseline of a seed, and a teacher that is trained first.
    single = resolve_auto(config, baseline="none") if config.has_teacher else config
    single = single.resolved()
    # A file of outputs for views is of one seed.
    for seed in seeds if single.teacher_outputs else seeds[:1]:
        inputs = load_distillation_inputs(dataclasses.replace(single, seed=seed), splits)
    if not inputs.splits.num_classes:
        raise ValueError(
            "Methods are compared by the accuracy on classes that the student knows. Received: open_set_fraction="
            f"{config.open_set_fraction}, which leaves none. Give less than 1"
        )
    if "teacher_cache" in single.irrelevant_fields or single.online:
        return config, inputs.data
    return resolve_auto(config, teacher_cache=choose_shared_cache(single, folder, inputs)), inputs.data


def _read_finished(step):
    """Returns the results of a run that is finished, else None; refuses a folder that the run may not have."""
    with open_run(step.command, step.config, step.path) as run:
        return run.results


def _recall_stopped(step, comparison, folder):
    """Returns the `Failure` of a run that was stopped at chance earlier, and would be again; else None."""
    path = str(step.path.relative_to(folder))
    stopped = [run.error for run in comparison.runs if run.path == path and run.status == "collapsed" and run.error]
    again = step.config.at_chance == "warn" or not step.path.is_dir()
    return Failure(stopped[0], "collapsed") if stopped and not again else None


def _describe_step(step, outcome, folder):
    """Returns the `ComparedRun` of a step; its outcome is results, a `Failure`, or None where it has not ended."""
    described = ComparedRun(method=step.method, seed=step.seed, path=str(step.path.relative_to(folder)))
    if outcome is None:
        return described
    if isinstance(outcome, Failure):
        return dataclasses.replace(described, status=outcome.status, error=outcome.message)
    results = Results.from_dict(outcome)
    model = results.teacher if step.method == TEACHER else results.student
    return dataclasses.replace(
        described,
        status="collapsed" if model.at_chance else "finished",
        seconds=results.train.seconds,
        test_accuracy=model.test_accuracy,
        baseline_accuracy=results.baseline.test_accuracy if results.baseline else None,
        agreement=model.agreement,
        epochs=results.count_epochs(model),
    )


def _write(comparison, steps, outcomes, folder):
    """Writes what is known of a comparison into its folder; returns it as a `Comparison`."""
    results, teacher = {}, None
    for step in steps:
        outcome = outcomes.get(step.path)
        if isinstance(outcome, dict):
            found = Results.from_dict(outcome)
            # That of all; a teacher that learns with a student is that student's own.
            if step.method == TEACHER or step.config.takes_trained_teacher:
                teacher = teacher or found.teacher
            if step.method != TEACHER:
                results.setdefault(step.method, []).append(found)
    check_pairs(results)
    runs = [run for each in results.values() for run in each]
    others = [method for method in comparison.methods if method != BASELINE]
    comparison = dataclasses.replace(
        comparison,
        test_samples=runs[0].test_samples if runs else None,
        parameters=runs[0].student.parameters if runs else None,
        teacher_accuracy=teacher and teacher.test_accuracy,
        runs=tuple(_describe_step(step, outcomes.get(step.path), folder) for step in steps),
        verdicts=judge_comparison(others, comparison.seeds, results),
        versions=describe_versions(),
    )
    write_json(folder / COMPARISON, comparison.to_dict())
    write_text(folder / TABLE, format_csv(comparison))
    write_text(folder / MARKDOWN, format_markdown(comparison))
    return comparison
