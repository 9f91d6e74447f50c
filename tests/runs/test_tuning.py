"""Tunings: spaces and studies with outcomes that are given, and one on a part of digits, an epoch or two at a time."""

import csv
import dataclasses
import importlib.util
import json
import pathlib
import shlex
import signal
import time

import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend

from keras_tkd.config import DistillConfig
from keras_tkd.config.fields import list_left_to_data
from keras_tkd.config.flagfile import read_flags
from keras_tkd.reports.tuning import Outcome, TunedTrial, Tuning, read_tuning
from keras_tkd.runs import images, stages, tune, tuning_trials
from keras_tkd.runs import tuning as tuning_module
from keras_tkd.runs.sweep_plan import format_shared_flags, make_configs
from keras_tkd.runs.sweep_settings import read_settings
from keras_tkd.runs.tuning_flags import write_flagfiles
from keras_tkd.runs.tuning_jobs import JOURNAL, Study, run_studies
from keras_tkd.runs.tuning_space import Parameter, apply_values, make_spaces, parse_space
from keras_tkd.runs.tuning_study import run_study
from keras_tkd.utils.locks import FolderLock

BASE = DistillConfig(
    epochs=4, teacher_epochs=4, batch_size=32, learning_rate=0.02, train_fraction=0.8, teacher_cache="workdir"
)
SPACE = {"learning_rate": Parameter(0.01, 0.25, 0.05), "kd.temperature": Parameter(1.0, 8.0, 4.0)}


def make_space(method, ranges=(), **settings):
    config = DistillConfig(**settings)
    configs = {name: each.resolved() for name, each in make_configs(config, [method]).items()}
    spaces = make_spaces(configs, parse_space(ranges))
    return configs[method], spaces[method], spaces["baseline"]


def test_ranges_lie_around_the_published_values():
    """A fifth to five times the learning rate, a tenth to ten times a weight, a quarter to four times a margin."""
    _, space, alone = make_space("kd+tkd@margin=2", learning_rate=0.05)
    assert alone == {"learning_rate": Parameter(0.01, 0.25, 0.05)}
    assert space == {
        "learning_rate": Parameter(0.01, 0.25, 0.05),
        "kd.temperature": Parameter(1.0, 8.0, 4.0),
        "kd.weight": Parameter(0.09, 9.0, 0.9),
        "tkd.margin": Parameter(0.5, 8.0, 2.0),
        "tkd.weight": Parameter(0.2, 20.0, 2.0),
    }
    assert list(make_space("rkd")[1]) == ["learning_rate", "rkd.weight_1", "rkd.weight_2"]
    assert list(make_space("kd@temperature=9+kd")[1])[1:4] == ["kd.temperature", "kd.weight", "kd_2.temperature"]
    assert make_space("kd@temperature=9")[1]["kd.temperature"] == Parameter(1.0, 9.0, 9.0)


def test_ranges_are_given_by_a_name_or_its_last_part():
    ranges = [
        "temperature=2..3",
        "kd.temperature=4",
        "learning_rate=0.1..0.2",
        "margin=0..1e1",
        "student_loss_weight=.5",
    ]
    _, space, alone = make_space("kd+tkd_soft", ranges)
    assert space["kd.temperature"] == Parameter(4, 4, 4) and not space["tkd_soft.margin"].log
    assert space["tkd_soft.temperature"] == Parameter(2, 3, 1) and space["tkd_soft.margin"] == Parameter(0, 10, 5)
    assert space["learning_rate"] == alone["learning_rate"] == Parameter(0.1, 0.2, 0.1)
    assert space["student_loss_weight"] == Parameter(0.5, 0.5, 1.0) and len(alone) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperature", "list of name=low..high"),
        ("temperature=1..x", "list of name=low..high"),
        ("temperature=8..1", "must have 0 < low <= high"),
        ("learning_rate=0..1", "must have 0 < low <= high"),
        ("kd.weight=-1..1", "must have 0 <= low <= high"),
        ("weight=1..1e39", "must have 0 <= low <= high, and finite"),
        ("learning_rat=0.1..1", "must name what is tuned: learning_rate, kd.temperature, temperature, kd.weight"),
        ("margin=1..2", "range of 'margin', which none of baseline, kd has"),
    ],
)
def test_ranges_that_mean_nothing_are_refused_before_any_work(text, message, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load_data", None)
    with pytest.raises(ValueError, match=message):
        tune(BASE, tmp_path / "t", ["kd"], 1, space=[text])
    with pytest.raises(ValueError, match="'weight' twice"):
        tune(BASE, tmp_path / "t", ["kd"], 1, space=["weight=1..2", "weight=1..3"])
    assert not (tmp_path / "t").exists()


def test_values_become_settings():
    config, _, _ = make_space("kd")
    applied = apply_values(config, {"learning_rate": 0.02, "kd.temperature": 2.0, "kd.weight": 0.5})
    expected = {"learning_rate": 0.02, "temperature": 2.0, "distillation_loss_weights": (0.5,)}
    assert applied == dataclasses.replace(config, **expected) and applied.student_loss_weight == 0.1
    config, _, _ = make_space("rkd+kd@temperature=3")
    values = {"rkd.weight_1": 1.0, "rkd.weight_2": 2.0, "kd.temperature": 5.0, "student_loss_weight": 0.5}
    applied = apply_values(config, values)
    assert applied.losses == ("rkd:1.0/2.0", "kd@temperature=5.0:0.9") and applied.student_loss_weight == 0.5


def measure(values, epoch=3):
    """A made-up accuracy: the better the closer to a learning rate of 0.03, and to a temperature of 2."""
    distance = abs(np.log(values["learning_rate"] / 0.03)) + abs(np.log(values["kd.temperature"] / 2))
    return float(np.exp(-distance)) * (epoch + 1) / 4


def evaluate(number, values, report):
    """Four epochs, of which the last is reported twice."""
    for epoch in (0, 1, 2, 3, 3):
        if report(epoch, measure(values, epoch)) and epoch < 3:
            return Outcome((), "pruned")
    return Outcome((measure(values),))


def run_trials(folder, evaluate=evaluate, trials=12, seed=0, name="kd"):
    study = run_study(name, folder / "j", SPACE, trials=trials, seed=seed, warmup_steps=1, evaluate=evaluate)
    return [dataclasses.replace(trial, seconds=0.0) for trial, _ in study]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return run_trials(tmp_path_factory.mktemp("study"))


def test_a_study_starts_from_the_methods_own_settings_and_gets_better(uninterrupted):
    first, *others = uninterrupted
    assert first.settings == {"learning_rate": 0.05, "kd.temperature": 4.0}
    # exp(-(log 5/3 + log 2)): 3/5 of a half.
    assert first.accuracy == pytest.approx(0.3)
    finished = [trial for trial in others if trial.status == "finished"]
    assert max(trial.accuracy for trial in finished) > 0.3
    assert {trial.status for trial in others} == {"finished", "pruned"}
    for trial in uninterrupted:
        assert all(SPACE[name].low <= value <= SPACE[name].high for name, value in trial.settings.items())
        assert all(value == float(f"{value:.3g}") for value in trial.settings.values())


def test_pruned_trials_were_below_the_median_of_those_before(uninterrupted):
    for trial in uninterrupted:
        if trial.status == "pruned":
            before = uninterrupted[: trial.number]
            # All accuracies of a trial stand in one proportion to its last.
            ended = [each.accuracy for each in before if each.status == "finished"]
            assert len(ended) >= 5 and measure(trial.settings) < np.median(ended)
            assert trial.accuracy is None and not trial.accuracies


@pytest.mark.parametrize("at", [(2, 0), ("last", 0), ("last", 3)])
def test_an_interrupted_study_ends_with_the_same_trials(at, uninterrupted, tmp_path):
    """Killed in a trial, before or after some of its reports; the line that was being written is torn."""
    calls = []
    if at[0] == "last":
        at = max(trial.number for trial in uninterrupted if trial.status == "finished"), at[1]
        assert at[0] > 5  # by then the sampler learns from the trials before

    def interrupt(number, values, report):
        def counted(epoch, accuracy):
            if (number, epoch) == at:
                raise KeyboardInterrupt
            return report(epoch, accuracy)

        return evaluate(number, values, counted)

    def go_on(number, values, report):
        calls.append(number)
        return evaluate(number, values, report)

    with pytest.raises(KeyboardInterrupt):
        run_trials(tmp_path, interrupt)
    with open(tmp_path / "j", "ab") as file:
        file.write(b'{"op_code":')
    assert run_trials(tmp_path, go_on) == uninterrupted
    assert calls == list(range(at[0], 12))


@pytest.fixture
def journal(tmp_path):
    """A journal of two trials, and what they were."""
    trials = run_trials(tmp_path, trials=2)
    return tmp_path / "j", trials


def test_a_trial_that_was_ended_early_tells_the_sampler_nothing_more_once_it_is_taken_up(uninterrupted, tmp_path):
    """Its training goes on for an epoch, where it was interrupted after the state of its last one was written."""
    pruned = next(trial.number for trial in uninterrupted if trial.status == "pruned")

    def interrupt(number, values, report):
        outcome = evaluate(number, values, report)
        if number == pruned:
            raise KeyboardInterrupt
        return outcome

    def go_on(number, values, report):
        if number == pruned:
            assert report(3, 0.9)
            return Outcome((), "pruned")
        return evaluate(number, values, report)

    with pytest.raises(KeyboardInterrupt):
        run_trials(tmp_path, interrupt)
    assert run_trials(tmp_path, go_on) == uninterrupted
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "j")))
    reported = optuna.load_study(study_name="kd", storage=storage).trials[pruned].intermediate_values
    assert 3 not in reported and reported[1] == measure(uninterrupted[pruned].settings, 1)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b"null", b'{"op_code": 77}', b'{"op_code": 4}', b"{}"])
@pytest.mark.parametrize("line", [0, 2, -1])
def test_a_damaged_journal_is_named_and_stays(content, line, journal):
    path, _ = journal
    lines = path.read_bytes().splitlines()
    lines[line] = content
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=f"{path} is damaged: .*Put it back, or remove it"):
        run_trials(path.parent, trials=2)
    assert path.read_bytes() == before


def test_a_trial_without_its_outcome_is_damage(journal):
    path, _ = journal
    lines = [line for line in path.read_bytes().splitlines() if b"accuracies" not in line]
    path.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ValueError, match=f"{path} is damaged: KeyError: 'accuracies'"):
        run_trials(path.parent, trials=2)


def test_a_torn_line_is_cut_off_in_place(journal, monkeypatch):
    """What is written anew is nothing for a moment, in which a process may be killed."""
    path, trials = journal
    before = path.read_bytes()
    path.write_bytes(before + b'{"op_code":')
    monkeypatch.setattr(pathlib.Path, "write_bytes", None)
    assert run_trials(path.parent, trials=2) == trials
    # Optuna writes down that the study was opened.
    assert path.read_bytes().startswith(before) and all(map(json.loads, path.read_bytes().splitlines()))


def test_a_lock_of_a_killed_process_is_not_waited_for(journal, monkeypatch):
    path, trials = journal
    path.with_name("j.lock").symlink_to(path)

    def wait(seconds):
        raise AssertionError("waited")

    monkeypatch.setattr(time, "sleep", wait)
    assert run_trials(path.parent) == run_trials(path.parent)
    assert not path.with_name("j.lock").is_symlink()


def test_more_trials_are_added_and_methods_do_not_share_random_numbers(uninterrupted, tmp_path):
    assert run_trials(tmp_path, trials=7) == uninterrupted[:7]
    assert run_trials(tmp_path) == uninterrupted
    assert run_trials(tmp_path, name="other", trials=2)[1].settings != uninterrupted[1].settings
    assert run_trials(tmp_path, name="third", seed=1, trials=2)[1].settings != uninterrupted[1].settings


def test_a_trial_that_fails_is_recorded_and_not_repeated(tmp_path):
    def fail(number, values, report):
        return Outcome((), "failed", "it broke") if number == 1 else evaluate(number, values, report)

    trials = run_trials(tmp_path, fail, trials=3)
    assert [trial.status for trial in trials] == ["finished", "failed", "finished"]
    assert trials[1].error == "it broke" and trials[1].accuracy is None
    assert run_trials(tmp_path, None, trials=3) == trials


class Untouchable(np.ndarray):
    """Images that nobody may look at."""

    def __getitem__(self, key):
        raise AssertionError("test images were read")

    __array_ufunc__ = __array_function__ = __getitem__

    def __array__(self, *arguments, **more):
        raise AssertionError("test images were read")


def disturb(config, path, splits, ends):
    """The second trial of kd receives Ctrl-C in its second epoch; that of the student alone fails."""

    def interrupt(epoch, accuracy):
        if epoch == 1:
            signal.raise_signal(signal.SIGINT)
        return ends(epoch, accuracy)

    if path.parts[-3:-1] == ("baseline", "trial1"):
        raise FloatingPointError("the loss is\nnot finite")
    return TRAIN(config, path, splits, interrupt if path.parts[-3:-1] == ("kd", "trial1") else ends)


TRAIN = tuning_trials._train


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A tuning whose test images nobody may look at; one trial failed, one was interrupted; and its folder."""
    folder = tmp_path_factory.mktemp("tuning") / "t"

    def load(config):
        splits = LOAD(config)
        return dataclasses.replace(
            splits, test_images=splits.test_images.view(Untouchable), test_labels=splits.test_labels.view(Untouchable)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning_trials, "load_splits", load)
        patch.setattr(tuning_trials, "_train", disturb)
        with pytest.raises(KeyboardInterrupt):
            tune(BASE, folder, ["kd"], 2, [7])
        halfway = read_tuning(folder / "tuning.json")
        assert [(trial.method, trial.status) for trial in halfway.results] == [
            ("baseline", "finished"),
            ("baseline", "failed"),
            ("kd", "finished"),
        ]
        assert list((folder / "kd" / "trial1").rglob("*.npz"))
        patch.setattr(tuning_trials, "_train", TRAIN)
        return folder, tune(BASE, folder, ["kd"], 2, [7])


LOAD = tuning_trials.load_splits


def test_methods_at_once_find_what_they_find_one_after_another(tuned, tmp_path):
    """Each in a process of its own. In the other tuning one trial was made to fail, and one was interrupted."""
    _, expected = tuned
    found = tune(BASE, tmp_path / "t", ["kd"], 2, [7], parallel=2)
    assert read_tuning(tmp_path / "t" / "tuning.json") == found
    # Whichever ended first.
    places = [(trial.method, trial.number) for trial in found.results]
    assert places == [("baseline", 0), ("baseline", 1), ("kd", 0), ("kd", 1)]
    assert [trial.settings for trial in found.results] == [trial.settings for trial in expected.results]
    for here, there in zip(found.results, expected.results, strict=True):
        assert here.status == "finished"
        if there.status == "finished":
            assert here.accuracies == there.accuracies
    assert (found.spaces, found.data, found.flags) == (expected.spaces, expected.data, expected.flags)


def test_a_process_that_fails_is_told_of(tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "baseline").write_text("a file, where the method's folder would be")
    config = dataclasses.replace(BASE, method="baseline", teacher_cache="auto", teacher_epochs=None)
    config = dataclasses.replace(config.resolved(), validation_fraction=0.2)
    study = Study(
        method="baseline", config=config, space={"learning_rate": SPACE["learning_rate"]}, folder=tmp_path, trials=1,
        seeds=(7,), sampler_seed=0,
    )  # fmt: skip
    with pytest.raises(ChildProcessError, match="baseline: .*File exists.*baseline'. The same command goes on"):
        list(run_studies([study], None, parallel=2))


def test_a_tuning_reads_no_test_image_and_goes_on(tuned):
    folder, tuning = tuned
    assert [(trial.method, trial.number, trial.status) for trial in tuning.results] == [
        ("baseline", 0, "finished"),
        ("baseline", 1, "failed"),
        ("kd", 0, "finished"),
        ("kd", 1, "finished"),
    ]
    assert tuning.results[1].error == "FloatingPointError: the loss is not finite"
    # A fifth of the training images, class by class.
    assert tuning.validation_fraction == 0.2 and 280 <= tuning.validation_samples <= 295
    assert "labels of test" in tuning.data and tuning.data["labels of test"] == tuning.data["labels of validation"]
    assert not list(folder.rglob("results.json"))


def test_one_teacher_one_cache_and_what_each_trial_has(tuned):
    folder, tuning = tuned
    assert len(list(folder.rglob("teacher.keras"))) == 1
    assert [path.name for path in folder.rglob("teacher_cache/*")] == ["logits"]
    for trial in tuning.list_trials("kd"):
        text = (folder / "kd" / f"trial{trial.number}" / "seed7" / "flags.flags").read_text()
        config = DistillConfig(**read_flags(DistillConfig, text))
        assert config.teacher_path == (str(folder / "teacher"),) and config.seed == 7
        assert config.temperature == trial.settings["kd.temperature"]
        assert config.distillation_loss_weights == (trial.settings["kd.weight"],)
        assert config.learning_rate == trial.settings["learning_rate"] and config.validation_fraction == 0.2


def test_its_files_say_what_it_found(tuned):
    folder, tuning = tuned
    assert read_tuning(folder / "tuning.json") == tuning
    best = json.loads((folder / "tuning.json").read_text())["best"]
    assert best["baseline"] == 0 and best["kd"] == tuning.find_best("kd").number
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [(row["method"], row["number"], row["status"]) for row in rows] == [
        (trial.method, str(trial.number), trial.status) for trial in tuning.results
    ]
    assert rows[0]["kd.weight"] == "" and float(rows[2]["kd.weight"]) == 0.9
    header = [line for line in (folder / "kd" / "best.flags").read_text().splitlines() if line.startswith("#")]
    said = " ".join(line.removeprefix("# ") for line in header)
    for words in ("the best of 2 trials", f"by {tuning.validation_samples} images", "seed 7;", "(2 finished)"):
        assert words in said


def test_a_comparison_takes_its_flagfiles(tuned):
    """Each method's own settings are those of its best trial; what all share is what the tuning was given."""
    folder, tuning = tuned
    shared = DistillConfig(**read_flags(DistillConfig, (folder / "shared.flags").read_text()))
    assert shared == dataclasses.replace(BASE, teacher_learning_rate=0.02)
    methods = [f"{name}={folder}/{name}/best.flags" for name in ("baseline", "kd")]
    settings = read_settings(methods, shared)
    configs = make_configs(shared, settings, settings)
    best = tuning.find_best("kd").settings
    assert configs["baseline"].learning_rate == tuning.find_best("baseline").settings["learning_rate"]
    kd = configs["kd"]
    assert (kd.learning_rate, kd.temperature, kd.distillation_loss_weights) == (
        best["learning_rate"],
        best["kd.temperature"],
        (best["kd.weight"],),
    )
    assert kd.validation_fraction is None and kd.train_fraction == 0.8
    command = (folder / "shared.flags").read_text()
    assert "scripts/compare.py" in command and f"kd={folder}/kd/best.flags" in command and "--seeds=0,1,2" in command


@pytest.mark.parametrize(
    ("change", "more", "message"),
    [
        ({"learning_rate": 0.1}, {}, "holds another tuning.*flags="),
        ({"seed": 1}, {}, "holds another tuning"),
        ({"validation_fraction": 0.1}, {}, "another tuning.*validation_fraction=0.1"),
        ({}, {"seeds": [8]}, "another tuning.*seeds="),
        ({}, {"space": ["weight=1..2"]}, "another tuning.*spaces="),
        ({}, {"trials": 1}, "has 2 trials of each method.*trials=1"),
    ],
)
def test_another_tuning_is_not_mixed_in(change, more, message, tuned, monkeypatch):
    folder, _ = tuned
    monkeypatch.setattr(stages, "fit_stage", None)
    with pytest.raises(ValueError, match=message):
        tune(dataclasses.replace(BASE, **change), folder, ["kd"], **{"trials": 2, "seeds": [7]} | more)


def test_an_accuracy_that_changed_in_the_journal_is_damage(tuned, tmp_path, monkeypatch):
    folder, tuning = tuned
    monkeypatch.setattr(stages, "fit_stage", None)
    path = folder / "kd" / JOURNAL
    before = path.read_bytes()
    best = tuning.find_best("kd")
    path.write_bytes(before.replace(f'"seconds":{best.seconds}'.encode(), b'"seconds":7777.0'))
    try:
        with pytest.raises(ValueError, match=f"they differ in trial {best.number} of kd. Put both back, or remove"):
            tune(BASE, folder, ["kd"], 2, [7])
    finally:
        path.write_bytes(before)
    assert read_tuning(folder / "tuning.json") == tuning


def test_the_folder_says_of_which_tuning_it_is_before_the_first_trial_has_ended(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning_trials, "_train", interrupt)
    # Nothing of the teacher is asked here.
    monkeypatch.setattr(tuning_module, "obtain_teacher", lambda *_: ("teacher",))
    with pytest.raises(KeyboardInterrupt):
        tune(BASE, tmp_path / "t", ["kd"], 1, [7])
    assert read_tuning(tmp_path / "t" / "tuning.json").results == ()
    with pytest.raises(ValueError, match="holds another tuning. Received: seeds="):
        tune(BASE, tmp_path / "t", ["kd"], 1, [8])


@pytest.mark.parametrize("name", ["flags.flags", "comparison.json"])
def test_the_folder_of_something_else_is_refused_before_any_work(name, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load_data", None)
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="must be a tuning's own folder. Received: .*, which is a (run|comparison)'s"):
        tune(BASE, tmp_path, ["kd"], 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_in_use_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load_data", None)
    lock = FolderLock(tmp_path)
    lock.take()
    try:
        with pytest.raises(BlockingIOError, match=f"{tmp_path} is in use"):
            tune(BASE, tmp_path, ["kd"], 1)
    finally:
        lock.release()


def write_tuned(shared, folder):
    """Writes the flagfiles of a tuning of kd whose first trials were the best; returns the command that confirms."""
    trial = TunedTrial(method="baseline", number=0, status="finished", accuracy=0.5, seconds=1.0, settings={})
    tuning = Tuning(
        methods=("baseline", "kd"),
        trials=1,
        seeds=(0,),
        sampler_seed=0,
        validation_fraction=0.2,
        validation_samples=10,
        flags=(),
        spaces={},
        results=(trial, dataclasses.replace(trial, method="kd")),
        data={},
        versions={},
    )
    return write_flagfiles(tuning, format_shared_flags(shared, {}, free=True), make_configs(shared, ["kd"]), folder)


def test_the_command_that_confirms_runs_as_it_stands(tmp_path):
    """Of a folder whose name has a comma, a quote and a space."""
    folder = tmp_path / 'a,b "c" d'
    words = shlex.split(write_tuned(DistillConfig(dataset="digits"), folder))
    (methods,) = (word.removeprefix("--methods=") for word in words if word.startswith("--methods="))
    # As absl reads a list.
    (listed,) = csv.reader([methods], strict=True)
    assert listed == [f"{name}={folder}/{name}/best.flags" for name in ("baseline", "kd")]
    assert f"--workdir={folder}_confirmed" in words


# What the data would choose otherwise, each as its default is.
GIVEN = {"epochs": 30, "batch_size": 128, "student_model": "digits_student", "teacher_model": "digits_teacher"}
GIVEN |= {"optimizer": "adam", "learning_rate": 0.1, "weight_decay": 0.0}
# What a run that goes on need not share.
FREE = {"tensorboard": "off", "at_chance": "warn", "checkpoint_steps": 2, "check": "strict"}


def test_what_was_given_is_what_is_confirmed_even_if_it_is_the_default(tmp_path):
    shared = DistillConfig(dataset="photos", teacher_learning_rate=0.1, **GIVEN, **FREE)
    write_tuned(shared, tmp_path)
    read = DistillConfig(**read_flags(DistillConfig, (tmp_path / "shared.flags").read_text()))
    assert read == shared and not list_left_to_data(read)
    best = DistillConfig(**read_flags(DistillConfig, (tmp_path / "kd" / "best.flags").read_text()))
    assert {name: getattr(best, name) for name in GIVEN} == GIVEN and not list_left_to_data(best)


def test_a_comparison_takes_the_flagfiles_of_a_tuning_and_shows_what_it_likes(tmp_path):
    """Each file says what it alone decides: a comparison may have its own pictures, as one that goes on may."""
    write_tuned(DistillConfig(dataset="photos", teacher_learning_rate=0.1, **GIVEN, **FREE), tmp_path)
    shared = DistillConfig(**read_flags(DistillConfig, (tmp_path / "shared.flags").read_text()))
    methods = [f"{name}={tmp_path}/{name}/best.flags" for name in ("baseline", "kd")]
    for base in (shared, dataclasses.replace(shared, tensorboard="scalars")):
        assert "--learning_rate=0.1" in read_settings(methods, base)["kd"]


def test_what_is_there_is_not_trained_again(tuned, monkeypatch):
    folder, tuning = tuned
    monkeypatch.setattr(stages, "fit_stage", None)
    assert tune(BASE, folder, ["kd"], 2, [7]) == tuning


def test_what_goes_by_validation_images_holds_for_trials_and_for_what_confirms(tmp_path, monkeypatch):
    seen = []

    def stop(tuning, shared, configs, *_):
        seen.append((tuning, configs))
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning_module, "_run", stop)
    given = {"validation_fraction": 0.25, "select": "best_validation", "early_stopping_patience": 3}
    with pytest.raises(KeyboardInterrupt):
        tune(dataclasses.replace(BASE, check="strict", **given), tmp_path / "t", ["kd"], 1)
    ((tuning, configs),) = seen
    shared = DistillConfig(**read_flags(DistillConfig, "\n".join(tuning.flags)))
    for config in (shared, configs["baseline"], configs["kd"], configs["kd"].teacher):
        assert {name: getattr(config, name) for name in given} == given
    assert configs["kd"].check == "strict"


def test_a_tuning_without_validation_images_is_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load_data", None)
    with pytest.raises(ValueError, match="held out of the training images. Received: validation_fraction=0. Give a"):
        tune(dataclasses.replace(BASE, validation_fraction=0), tmp_path / "t", ["kd"], 1)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize(
    ("methods", "more", "message"),
    [
        (["dml"], {}, "learns from a trained teacher's model. Received: dml, with a teacher that learns"),
        (["kd", "kd@temperature=2"], {}, "must be of different losses.*'kd' and 'kd@temperature=2'"),
        (["tkdd"], {}, "Did you mean 'tkd'"),
        (["kd"], {"trials": 0}, "`trials` must be"),
        (["kd"], {"seeds": []}, "`seeds` must be"),
        (["kd"], {"parallel": 0}, "`parallel` must be a whole number >= 1. Received: parallel=0"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_any_work(methods, more, message, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load_data", None)
    with pytest.raises(ValueError, match=message):
        tune(BASE, tmp_path / "t", methods, **{"trials": 1} | more)
    assert not (tmp_path / "t").exists()


def test_without_optuna_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'pip install "keras_tkd\[tune\]"'):
        tune(BASE, tmp_path / "t", ["kd"])
