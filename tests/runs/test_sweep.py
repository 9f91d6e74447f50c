"""Comparisons of several methods over several seeds, on digits, an epoch at a time."""

import collections
import csv
import dataclasses
import json
import shutil
import signal
import urllib.parse

import keras
import numpy as np
import PIL.Image
import pytest
from page_reading import Page

from keras_tkd import data, models
from keras_tkd.config import DistillConfig
from keras_tkd.config.flagfile import read_flags
from keras_tkd.reports.comparison import ComparedRun, Comparison, read_comparison
from keras_tkd.reports.comparison_tables import describe_comparison
from keras_tkd.reports.observations import read_observations
from keras_tkd.runs import commands, compare, images, results, stages, sweep, sweep_plan, sweep_progress, write_report
from keras_tkd.runs.images import hash_data, load_splits
from keras_tkd.runs.sweep_plan import list_steps, make_configs
from keras_tkd.runs.sweep_settings import read_settings
from keras_tkd.utils.files import save_model

BASE = DistillConfig(epochs=1, teacher_epochs=2, batch_size=64, learning_rate=0.05, teacher_cache="workdir")


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after three steps."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 2:
            signal.raise_signal(signal.SIGINT)


def interrupt_kd(config, path, existing="refuse", callbacks=()):
    callbacks = [Interrupt()] if config.method == "kd" else []
    return DISTILL(config, path, existing, callbacks)


DISTILL = commands.distill


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison that was interrupted in the middle of a training, and gone on with; and its folder."""
    folder = tmp_path_factory.mktemp("comparison") / "c"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "distill", interrupt_kd)
        with pytest.raises(KeyboardInterrupt):
            compare(BASE, folder, ["kd"], [0, 1])
    halfway = read_comparison(folder / "comparison.json")
    assert [(run.method, run.status) for run in halfway.runs] == [
        ("teacher", "finished"),
        ("baseline", "finished"),
        ("kd", "waiting"),
        ("baseline", "waiting"),
        ("kd", "waiting"),
    ]
    assert list((folder / "kd" / "seed0" / "checkpoints").rglob("*.npz"))
    return folder, compare(BASE, folder, ["kd"], [0, 1])


def weights(path):
    return keras.saving.load_model(path).get_weights()


def test_an_interrupted_run_ends_as_one_that_was_not(compared, tmp_path):
    folder, _ = compared
    config = DistillConfig(**read_flags(DistillConfig, (folder / "kd/seed0/flags.flags").read_text()))
    commands.distill(config, tmp_path)
    there, here = weights(folder / "kd/seed0/student.keras"), weights(tmp_path / "student.keras")
    assert all(np.array_equal(a, b) for a, b in zip(there, here, strict=True))


def test_each_run_is_a_run_of_its_own(compared, untrained):
    """It is finished for `distill`, by the flags that it left."""
    folder, comparison = compared
    assert len(comparison.runs) == 5
    for run in comparison.runs[1:]:
        path = folder / run.path
        config = DistillConfig(**read_flags(DistillConfig, (path / "flags.flags").read_text()))
        assert commands.distill(config, path) == json.loads((path / "results.json").read_text())
        assert config.seed == run.seed and config.method == run.method
        if run.method == "kd":
            assert config.teacher_path == (str(folder / "teacher"),)
            assert config.baseline == str(folder / "baseline" / f"seed{run.seed}")


def test_numbers_are_those_of_the_runs(compared):
    folder, comparison = compared
    for run in comparison.runs[1:]:
        results = json.loads((folder / run.path / "results.json").read_text())
        assert run.test_accuracy == results["student"]["test_accuracy"] and run.seconds > 0
        assert run.status == ("collapsed" if results["student"]["at_chance"] else "finished") and run.error is None
        if run.method == "kd":
            alone = json.loads((folder / f"baseline/seed{run.seed}/results.json").read_text())
            assert run.baseline_accuracy == alone["student"]["test_accuracy"]
            assert run.agreement == results["student"]["agreement"]
    assert comparison.test_samples == 359 and comparison.parameters == 666 and comparison.epochs == 1
    assert comparison.teacher_accuracy == comparison.runs[0].test_accuracy
    assert comparison.methods == ("baseline", "kd") and comparison.seeds == (0, 1)
    assert list(comparison.verdicts) == ["kd"] and comparison.verdicts["kd"].decision == "NOT SHOWN"


def test_its_files_say_the_same(compared):
    folder, comparison = compared
    assert read_comparison(folder / "comparison.json") == comparison
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [(row["method"], float(row["test_accuracy"])) for row in rows] == [
        (run.method, run.test_accuracy) for run in comparison.runs
    ]
    assert (folder / "table.md").read_text().startswith("| method | test accuracy |")


def test_its_page_shows_the_models_of_one_seed(compared):
    """In the page's accuracies of observed models are those of the runs, and the student alone is that of the seed."""
    folder, comparison = compared
    page = Page(write_report(folder).read_text())
    assert page.embedded == json.loads((folder / "comparison.json").read_text())
    observed = read_observations(folder / "kd" / "seed0" / "observations.npz")
    values = {float(cell["data-value"]) for cell in page.cells}
    accuracies = {run.test_accuracy for run in comparison.runs if run.seed == 0}
    assert accuracies <= values
    assert observed.is_right("student").mean() in accuracies and observed.is_right("teacher").mean() in accuracies
    alone = read_observations(folder / "baseline" / "seed0" / "observations.npz")
    assert alone.is_right("student").mean() in accuracies and set(alone.classes) == {"student"}
    named = {row["model"] for row in page.list_values() if "count" in row}
    assert named == {"teacher", "student alone", "kd"}


def test_the_cache_is_built_once_for_all(compared):
    folder, _ = compared
    assert [path.name for path in (folder / "teacher_cache").iterdir()] == ["logits"]
    built = [
        path.name for path in (folder / "output").iterdir() if "Teacher cache: the teacher's out" in path.read_text()
    ]
    assert built == ["kd_seed0.txt"]


def refuse_training(*arguments, **more):
    raise AssertionError("nothing must be trained")


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr(stages, "fit_stage", refuse_training)


def end_at_once(run, stage, splits, trained, *, title, files, config=None, **more):
    for path, model in files.items():
        save_model(model, path)
    stage.finish([{"val_accuracy": 0.1}], 1.0, files)
    TRAINED[f"{run.path.parent.name}/{run.path.name}"] += 1


TRAINED = collections.Counter()


@pytest.fixture
def in_no_time(monkeypatch):
    """Trainings that end at once, counted by the last two folders of their run: all models are at chance."""
    TRAINED.clear()
    monkeypatch.setattr(stages, "fit_stage", end_at_once)
    # What only a training reads or a result shows, each of which takes longer than all that a comparison does.
    monkeypatch.setattr(stages, "_make_distiller", lambda *arguments: None)
    monkeypatch.setattr(stages, "check_first_batch", lambda *arguments: None)
    for module in (commands, results):
        monkeypatch.setattr(module, "measure_model_latency", lambda model, images: 1.0)
    return TRAINED


def test_what_the_folder_has_is_not_done_again(compared, untrained, capsys):
    folder, comparison = compared
    again = compare(BASE, folder, ["kd"], [0])
    assert again == comparison
    assert "5 runs, 5 of which are there" in capsys.readouterr().out


def test_methods_and_seeds_are_added(in_no_time, tmp_path):
    config = dataclasses.replace(BASE, teacher_cache="off")
    compare(config, tmp_path, ["kd"], [0])
    assert set(in_no_time) == {f"{tmp_path.name}/teacher", "baseline/seed0", "kd/seed0"}
    in_no_time.clear()
    comparison = compare(config, tmp_path, ["sp"], [2])
    # kd stays in it, and is corrected for.
    assert set(in_no_time) == {"sp/seed0", "baseline/seed2", "kd/seed2", "sp/seed2"}
    assert comparison.methods == ("baseline", "kd", "sp") and comparison.seeds == (0, 2)
    assert list(comparison.verdicts) == ["kd", "sp"]
    # Nothing was learned, and that is said.
    assert {run.status for run in comparison.runs} == {"collapsed"}


@pytest.fixture
def pictures(tmp_path):
    """A folder of two classes of pictures."""
    for name, value in (("dark", 20), ("light", 200)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            pixels = np.full((8, 8, 3), value + i, "uint8")
            PIL.Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    return str(tmp_path / "pictures")


def test_what_nobody_gave_is_chosen_by_the_data_once(in_no_time, pictures, tmp_path, capsys):
    config = DistillConfig(dataset=pictures, teacher_cache="off")
    comparison = compare(config, tmp_path / "c", ["kd", "dml"], [0])
    assert capsys.readouterr().out.count("Not given and chosen") == 1
    assert {"--epochs=100", "--batch_size=16", "--learning_rate=0.01"} <= set(comparison.flags)
    assert len(in_no_time) == 4 and comparison.epochs == 100
    for run in comparison.runs:
        assert "--epochs=100" in (tmp_path / "c" / run.path / "flags.flags").read_text()


def test_what_was_given_is_said_even_if_it_is_the_default(pictures, tmp_path):
    """For these pictures others would be chosen: 100 epochs of batches of 16."""
    config = DistillConfig(dataset=pictures, teacher_cache="off", epochs=30, batch_size=128)
    comparison, *_ = sweep._plan(config, tmp_path / "c", ["kd"], (0,))
    assert {"--epochs=30", "--batch_size=128"} <= set(comparison.flags)
    # One of an earlier version left it out, and is the same all the same.
    flags = tuple(line for line in comparison.flags if line not in ("--epochs=30", "--batch_size=128"))
    (tmp_path / "c").mkdir()
    path = tmp_path / "c" / "comparison.json"
    path.write_text(json.dumps(dataclasses.replace(comparison, flags=flags).to_dict()))
    assert sweep._plan(config, tmp_path / "c", ["kd"], (0,))[0] == comparison
    with pytest.raises(ValueError, match="there --batch_size=128 --epochs=30, here --batch_size=16 --epochs=100"):
        sweep._plan(DistillConfig(dataset=pictures, teacher_cache="off"), tmp_path / "c", ["kd"], (0,))


@pytest.mark.parametrize("left_to_data", [True, False])
def test_data_are_loaded_once_to_check_all_methods(left_to_data, pictures, tmp_path, monkeypatch):
    loaded, load = [], data.load
    monkeypatch.setattr(data, "load", lambda *args, **more: loaded.append(args) or load(*args, **more))
    settings = {"dataset": pictures, "teacher_cache": "off"}
    if not left_to_data:
        settings |= {"epochs": 1, "batch_size": 8, "learning_rate": 0.1}
        settings |= {"teacher_model": "digits_teacher", "student_model": "digits_student"}
    comparison, steps, _ = sweep._plan(DistillConfig(**settings), tmp_path / "c", ["kd", "sp", "dml"], (0, 1))
    assert len(steps) == 9 and len(loaded) == 1
    # The same data that each run would say that it has.
    assert comparison.data == hash_data(load_splits(steps[0].config))


@pytest.mark.parametrize(("first", "second"), [("dml", "kd"), ("kd", "dml"), ("trikd", "sp")])
def test_methods_are_added_in_any_order(first, second, in_no_time, tmp_path):
    config = DistillConfig(method=first, epochs=1, teacher_epochs=None)
    compare(config, tmp_path, [first], [0])
    comparison = compare(dataclasses.replace(config, method=second), tmp_path, [second], [0])
    assert comparison.methods == ("baseline", first, second)
    with pytest.raises(ValueError, match="holds another comparison: there --epochs=1, here --epochs=2"):
        compare(dataclasses.replace(config, epochs=2), tmp_path, [second], [0])


def test_a_student_alone_that_is_another_is_not_compared_with(in_no_time, tmp_path):
    config = dataclasses.replace(BASE, teacher_cache="off")
    compare(config, tmp_path, ["kd"], [0])
    path = tmp_path / "kd" / "seed0" / "results.json"
    values = json.loads(path.read_text())
    values["baseline"]["test_accuracy"] += 0.25
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="kd/seed0 was measured beside another student alone.*Remove kd/seed0"):
        compare(config, tmp_path, ["kd"], [0])


def test_an_ensemble_of_teachers_is_compared(in_no_time, tmp_path):
    for seed, name in enumerate("ab"):
        keras.utils.set_random_seed(seed)
        save_model(models.build("digits_teacher", (8, 8, 1), 10), tmp_path / f"{name}.keras")
    paths = tuple(str(tmp_path / f"{name}.keras") for name in "ab")
    config = DistillConfig(
        epochs=1, teacher_path=paths, teacher_average="losses", teacher_cache="off", teacher_weights=("1", "2")
    )
    comparison = compare(config, tmp_path / "c", ["kd"], [0])
    assert set(in_no_time) == {"baseline/seed0", "kd/seed0"}
    assert [run.status for run in comparison.runs] == ["collapsed", "collapsed"]


def test_a_folder_for_the_cache_is_looked_at_in_the_precision_that_runs_choose(in_no_time, tmp_path):
    keras.utils.set_random_seed(0)
    save_model(models.build("digits_teacher", (8, 8, 1), 10), tmp_path / "teacher.keras")
    given = {"teacher_path": (str(tmp_path / "teacher.keras"),), "teacher_cache": str(tmp_path / "cache")}
    compare(DistillConfig(epochs=1, precision="auto", **given), tmp_path / "c", ["kd"], [0])
    assert set(in_no_time) == {"baseline/seed0", "kd/seed0"}


@pytest.mark.parametrize("pair", [("tkd", "tkd:2.0"), ("tkd", "tkd@margin=5"), ("kd+sp", "sp+kd")])
def test_one_training_is_not_two_methods(pair, tmp_path, untrained):
    with pytest.raises(ValueError, match="`methods` must differ.*are the same training"):
        compare(BASE, tmp_path, pair, [0])


def test_online_teachers_of_each_seed_have_a_cache_of_their_own(tmp_path):
    config = dataclasses.replace(BASE, teacher_cache="c")
    steps = list_steps(config, make_configs(config, ["trikd"]), (3, 4), tmp_path)
    caches = [step.config.teacher_cache for step in steps if step.method == "trikd"]
    assert caches == ["c/trikd_seed3", "c/trikd_seed4"]


def test_outputs_of_views_must_be_of_every_seed(pictures, tmp_path, untrained):
    splits = data.load(pictures)
    rng = np.random.default_rng(0)
    # Right with certainty on all images and views.
    train, test = (np.eye(2)[labels] * 9 for labels in (splits.train_labels, splits.test_labels))
    train = np.stack([train, train]) + rng.uniform(size=(2, *train.shape)) / 10
    np.savez(tmp_path / "views.npz", train=train, test=test, augmentation="crop", seed=0)
    config = DistillConfig(
        method="kd", dataset=pictures, teacher_outputs=str(tmp_path / "views.npz"), augmentation="crop",
        teacher_views=2, epochs=1, batch_size=8, learning_rate=0.01, student_model="digits_student",
    )  # fmt: skip
    with pytest.raises(ValueError, match="seed"):
        compare(config, tmp_path / "c", ["kd"], [0, 1])
    assert not (tmp_path / "c").exists()


def test_a_run_that_fails_stops_those_alone_that_build_on_it(in_no_time, tmp_path, monkeypatch, capsys):
    config = dataclasses.replace(BASE, teacher_cache="off")

    def fail(config, path, *arguments):
        if (config.method, config.seed) in (("kd", 0), ("baseline", 1)):
            raise FloatingPointError("the loss is\nnot finite")
        return DISTILL(config, path, *arguments)

    monkeypatch.setattr(commands, "distill", fail)
    comparison = compare(config, tmp_path, ["kd", "tkd"], [0, 1])
    found = {(run.method, run.seed): (run.status, run.error) for run in comparison.runs}
    reason = "FloatingPointError: the loss is not finite"
    assert found["kd", 0] == found["baseline", 1] == ("failed", reason)
    assert found["tkd", 0] == found["baseline", 0] == ("collapsed", None)
    left_out = ("waiting", "left out, for it builds on baseline/seed1")
    assert found["kd", 1] == found["tkd", 1] == left_out
    shown = capsys.readouterr().out
    assert f"kd, seed 0: FAILED: {reason}" in shown and "7/7" in shown
    assert "Traceback" in (tmp_path / "output" / "kd_seed0.txt").read_text() and "Traceback" not in shown
    # The next time it is tried again, and nothing else is.
    monkeypatch.setattr(commands, "distill", DISTILL)
    in_no_time.clear()
    again = compare(config, tmp_path, ["kd", "tkd"], [0, 1])
    assert set(in_no_time) == {"kd/seed0", "baseline/seed1", "kd/seed1", "tkd/seed1"}
    assert not [run for run in again.runs if run.error]


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_training_that_is_stopped_at_chance_has_collapsed(parallel, tmp_path, monkeypatch):
    """1,438 training images are 45 steps of 32 in each of the three epochs in which a model must leave chance."""
    config = DistillConfig(epochs=4, batch_size=32, learning_rate=1e-20, teacher_model="digits_student")
    comparison = compare(config, tmp_path, ["kd"], [0], parallel)
    found = {run.method: run for run in comparison.runs}
    for method in ("teacher", "baseline"):
        run = found[method]
        assert run.status == "collapsed" and run.test_accuracy is None
        assert "after 3 epochs (135 steps) it still answers at chance" in run.error and "Error" not in run.error
        assert f"Collapsed: {method}, seed 0: {run.error}" in describe_comparison(comparison)
        # Flags that a comparison has.
        assert "another --workdir" in run.error and "kd:0.5" in run.error
        assert "--existing" not in run.error and "--distillation_loss_weights" not in run.error
    assert (
        found["kd"].status == "waiting" and found["kd"].error == "left out, for it builds on baseline/seed0 and teacher"
    )
    tried = []

    def fail(config, path, *arguments):
        tried.append(path.name)
        raise RuntimeError

    for command in ("distill", "train_teacher"):
        monkeypatch.setattr(commands, command, fail)
    again = compare(config, tmp_path, ["kd"], [0])
    assert again.runs[:2] == comparison.runs[:2] and again.runs[2].status == "waiting" and not tried
    # It is tried again where its training was removed, and where it is to go on at chance.
    shutil.rmtree(tmp_path / "baseline" / "seed0")
    compare(config, tmp_path, ["kd"], [0])
    assert tried == ["seed0"]
    compare(dataclasses.replace(config, at_chance="warn"), tmp_path, ["kd"], [0])
    assert tried == ["seed0", "teacher", "seed0"]


@pytest.mark.parametrize(
    ("change", "methods", "seeds", "message"),
    [
        ({}, ["tkdd"], [0], "Did you mean 'tkd'"),
        ({}, ["kd@margin=3"], [0], "'kd' knows the arguments temperature"),
        # The published numbers, written out.
        ({}, ["kd+sp", "kd@temperature=4+sp"], [0], "`methods` must differ"),
        ({}, ["baseline"], [0], "one besides the baseline"),
        ({}, ["at@teacher_layers=no@student_layers=no"], [0], "no"),
        ({}, ["kd"], [], "`seeds` must be"),
        ({}, ["kd"], [1, 1], "`seeds` must be"),
        ({}, ["kd"], [-1], "`seed` must be in"),
        ({"method": "kd", "temperature": 2.0}, ["kd"], [0], "takes no `temperature`"),
        # As it would stand in --methods.
        ({"method": "kd", "temperature": 2.0}, ["kd"], [0], "in --methods: kd@temperature=2. Received"),
        ({"method": "at", "distillation_loss_weights": 10.0}, ["at"], [0], "in --methods: at:10. Received"),
        ({"method": "tkd", "distillation_loss_weights": (0.5,)}, ["kd"], [0], "in --methods: tkd:0.5. Received"),
        ({"method": "rkd", "distillation_loss_weights": (1, 2)}, ["kd"], [0], "in --methods: rkd:1/2. Received"),
        (
            {"method": "at", "teacher_layers": ("a", "b"), "student_layers": ("c", "d")},
            ["at"],
            [0],
            r"in --methods: at@teacher_layers=a\+b@student_layers=c\+d. Received",
        ),
        ({"baseline": "none"}, ["kd"], [0], "takes no `baseline`"),
        ({"teacher_path": "t.keras", "teacher_head": "new"}, ["kd"], [0], "takes no `teacher_head`.*Train it once"),
        ({"method": "trikd", "generations": 2, "validation_fraction": None}, ["trikd"], [0], "the same budget"),
        ({"student_model": "resnet999"}, ["kd"], [0], "resnet999"),
        ({"teacher_path": "nowhere.keras"}, ["kd"], [0], "nowhere.keras"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_training(change, methods, seeds, message, tmp_path, untrained):
    config = DistillConfig(epochs=1, **change)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        compare(config, tmp_path / "c", methods, seeds)
    assert not (tmp_path / "c").exists()


def test_a_comparison_needs_a_folder(tmp_path, untrained):
    (tmp_path / "file").write_text("mine")
    for path in ("", " ", tmp_path / "file"):
        with pytest.raises(ValueError, match="`workdir` must name a folder. Received: workdir="):
            compare(BASE, path, ["kd"], [0])
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["flags.flags", "tuning.json"])
def test_the_folder_of_something_else_is_refused_before_any_work(name, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load_data", None)
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="must be a comparison's own folder. Received: .*, which is a (run|tuning)'s"):
        compare(BASE, tmp_path, ["kd"], [0])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_parallel_must_be_a_number_of_runs(tmp_path, untrained):
    with pytest.raises(ValueError, match="`parallel` must be a whole number >= 1. Received: parallel=0"):
        compare(BASE, tmp_path / "c", ["kd"], [0], parallel=0)


def test_another_comparisons_folder_is_refused(compared, untrained):
    folder, _ = compared
    before = (folder / "comparison.json").read_bytes()
    other = dataclasses.replace(BASE, epochs=2)
    with pytest.raises(ValueError, match="another comparison: there --epochs=1, here --epochs=2"):
        compare(other, folder, ["kd"], [0])
    with pytest.raises(ValueError, match="which is a run's"):
        compare(BASE, folder / "kd" / "seed0", ["kd"], [0])
    assert (folder / "comparison.json").read_bytes() == before
    # The method that shared flags name is none of theirs.
    compare(dataclasses.replace(BASE, method="sp"), folder, ["kd"], [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ["baseline", "kdd"]}, "`methods` must be.*'kdd'"),
        ({"methods": ["baseline", "kd@margin=3"]}, "'kd' knows the arguments temperature"),
        ({"seeds": [-1]}, r"`seed` must be in \[0, 2\^30\). Received: seed=-1"),
    ],
)
def test_what_a_comparisons_file_cannot_say_is_blamed_on_the_file(change, message, tmp_path, untrained):
    flags = sweep_plan.format_shared_flags(BASE, {})
    written = Comparison(methods=("baseline", "sp"), seeds=(0,), flags=flags, dataset="digits", epochs=1).to_dict()
    path = tmp_path / "comparison.json"
    path.write_text(json.dumps(written | change))
    with pytest.raises(ValueError, match=f"{path} is damaged: .*{message}.*Put it back, or remove it"):
        compare(BASE, tmp_path, ["kd"], [0])
    assert json.loads(path.read_text())["methods"] == list((written | change)["methods"])


def test_a_list_of_losses_is_one_method():
    """A `+` between two methods begins another loss, between layers another layer."""
    layers = "at@teacher_layers=stage1+stage2@student_layers=stage1+stage2:3"
    configs = make_configs(BASE, [f"kd:0.5+{layers}+sp", "kd@temperature=2"])
    assert configs[f"kd:0.5+{layers}+sp"].losses == ("kd:0.5", layers, "sp")
    assert configs["kd@temperature=2"].losses == ("kd@temperature=2",)
    assert configs["baseline"].losses is None and configs["baseline"].teacher_path is None


def test_the_plan(tmp_path):
    """Seed after seed; what a method does not read it is not given."""
    config = dataclasses.replace(BASE, seed=7)
    steps = list_steps(config, make_configs(config, ["kd", "trikd"]), (3, 4), tmp_path)
    assert [step.title for step in steps] == [
        "teacher",
        *(f"{method}, seed {seed}" for seed in (3, 4) for method in ("baseline", "kd", "trikd")),
    ]
    teacher, baseline, kd, trikd = steps[:4]
    assert (teacher.config.seed, teacher.config.epochs, teacher.command) == (7, 2, "train_teacher")
    assert baseline.needs == () and kd.needs == (baseline.path, teacher.path) and trikd.needs == (baseline.path,)
    assert trikd.config.teacher_path is None and trikd.config.baseline == str(baseline.path)
    given = dataclasses.replace(BASE, teacher_path=("t.keras",), teacher_epochs=None)
    steps = list_steps(given, make_configs(given, ["kd"]), (3,), tmp_path)
    assert [step.title for step in steps] == ["baseline, seed 3", "kd, seed 3"]
    assert steps[1].config.teacher_path == ("t.keras",)
    given = dataclasses.replace(BASE, teacher_outputs="t.npz", teacher_epochs=None, teacher_cache="auto")
    steps = list_steps(given, make_configs(given, ["kd"]), (3,), tmp_path)
    assert [(step.title, step.config.teacher_outputs) for step in steps] == [
        ("baseline, seed 3", None),
        ("kd, seed 3", "t.npz"),
    ]


@pytest.mark.parametrize("change", [{"augmentation": "crop"}, {"mixup": 0.2}, {}])
def test_views_of_a_seed_have_a_cache_of_their_own(change, tmp_path):
    config = dataclasses.replace(
        BASE, method="kd", teacher_cache="c", **change, **({"teacher_views": 2} if change else {})
    )
    steps = list_steps(config, make_configs(config, ["kd"]), (3, 4), tmp_path)
    caches = [step.config.teacher_cache for step in steps if step.method == "kd"]
    assert caches == (["c_seed3", "c_seed4"] if change else ["c", "c"])


def test_folders_of_methods_differ_and_are_folders_and_addresses():
    methods = (
        "rkd:25/50",
        "rkd:25_50",
        "rkd:25%2F50",
        "rkd:25~2F50",
        "kd+sp",
        "kd-sp",
        "kd@temperature=2:0.5",
        "kd&#?",
    )
    names = [sweep_plan.name_folder(method) for method in methods]
    assert len(set(names)) == len(methods) and not any("/" in name for name in names)
    assert names[4] == "kd-sp" and names[6] == methods[6]
    # As TensorBoard's projector asks for them.
    assert [urllib.parse.parse_qs(urllib.parse.urlsplit(f"?run={name}").query)["run"] for name in names] == [
        [name] for name in names
    ]


def test_what_is_left_is_estimated():
    estimate = sweep_progress.estimate_seconds
    assert estimate({}, ["kd"]) is None
    # By its own method's mean; of one without by the mean over the methods, 15 and 3.
    assert estimate({"kd": [10, 20], "baseline": [3]}, ["kd", "baseline", "sp"]) == 15 + 3 + 9
    assert estimate({"kd": [10, 20], "baseline": [3]}, ["kd", "baseline", "sp"], parallel=3) == 9
    # The teacher is another kind of model, unless nothing else has ended.
    assert estimate({"teacher": [100], "kd": [10]}, ["sp", "sp"]) == 20
    assert estimate({"teacher": [100]}, ["sp", "sp"]) == 200
    assert estimate({"kd": [10]}, []) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(41.4, "41 s"), (59.6, "1 min 0 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds, text):
    assert sweep_progress.format_duration(seconds) == text


def test_progress_counts_and_refines(tmp_path, capsys):
    steps = list_steps(BASE, make_configs(BASE, ["kd"]), (0, 1), tmp_path)
    found = {step.path: None for step in steps} | {steps[0].path: {"train": {"seconds": 8.0}}}
    progress = sweep_progress.SweepProgress(steps, found, tmp_path, parallel=1)
    run = ComparedRun(method="baseline", seed=0, path="p", status="finished", test_accuracy=0.5)
    progress.report(steps[1], run, 4.0)
    progress.report(steps[2], dataclasses.replace(run, status="failed", error="why"), 6.0)
    lines = capsys.readouterr().out.splitlines()
    # Four runs are taken to last as long as the teacher did; then as the baseline; then one of each kind is left.
    assert lines == [
        f"5 runs, 1 of which are there, in {tmp_path}; about 32 s left",
        "  2/5  baseline, seed 0: 50.00 % in 4 s; about 12 s left",
        "  3/5  kd, seed 0: FAILED: why in 6 s; about 10 s left",
    ]


@pytest.fixture
def own_rate(tmp_path):
    """A flagfile with which kd has a rate, a decay and a temperature of its own, and one of the student alone."""
    (tmp_path / "kd.flags").write_text(
        "# Why.\n--epochs=1\n--method=kd\n--learning_rate=0.01\n--weight_decay=0.002\n--temperature=2.0\n"
    )
    (tmp_path / "alone.flags").write_text("--method=baseline\n--learning_rate=0.02\n")
    return f"kd={tmp_path}/kd.flags", f"baseline={tmp_path}/alone.flags"


def test_a_method_may_have_settings_of_its_own(own_rate, in_no_time, tmp_path):
    config = dataclasses.replace(BASE, teacher_cache="off", teacher_learning_rate=None, weight_decay=0.001)
    comparison = compare(config, tmp_path / "c", [*own_rate, "tkd"], [0])
    assert comparison.methods == ("baseline", "kd", "tkd")
    assert comparison.settings == {
        "kd": ("--learning_rate=0.01", "--weight_decay=0.002", "--temperature=2.0"),
        "baseline": ("--learning_rate=0.02",),
    }
    own = {}
    for run in comparison.runs:
        text = (tmp_path / "c" / run.path / "flags.flags").read_text()
        lines = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
        own[run.method] = lines["--learning_rate"], lines["--weight_decay"]
        assert ("--temperature=2.0" in text) == (run.method == "kd")
    # The teacher, which all share, has the rate and the decay that all share.
    assert own == {
        "teacher": ("0.05", "0.001"),
        "baseline": ("0.02", "0.001"),
        "kd": ("0.01", "0.002"),
        "tkd": ("0.05", "0.001"),
    }
    # The comparison holds them: it goes on without the files, and refuses others.
    for name in ("kd.flags", "alone.flags"):
        (tmp_path / name).unlink()
    again = compare(config, tmp_path / "c", ["tkd"], [0, 1])
    assert again.settings == comparison.settings == read_comparison(tmp_path / "c" / "comparison.json").settings
    with pytest.raises(ValueError, match="same settings.*kd with no settings.*it has --learning_rate=0"):
        compare(config, tmp_path / "c", ["kd"], [0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--learning_rate=x\n", "may name a flagfile"),
        ("learning_rate=1\n", "may name a flagfile"),
        ("--method=tkd\n", "must be of that method.*of tkd"),
        ("--losses=kd,sp\n", r"must be of that method.*of kd\+sp"),
        ("--epochs=2\n", "may set losses, negatives.*learning_rate.*with epochs=2 where the comparison has 1"),
        ("--temperature=0\n", "`temperature` must be > 0"),
        (None, "may name a flagfile.*No such file"),
    ],
)
def test_settings_that_no_method_may_have_are_refused(text, message, tmp_path, untrained):
    if text is not None:
        (tmp_path / "own.flags").write_text(text)
    with pytest.raises(ValueError, match=message):
        compare(BASE, tmp_path / "c", [f"kd={tmp_path}/own.flags"], [0])
    assert not (tmp_path / "c").exists()


def test_a_runs_flagfile_may_name_the_teacher_that_is_there(tmp_path):
    """What neither the comparison nor the method reads is no setting of its own; what the method reads still counts."""
    base = DistillConfig(teacher_path=("there.keras",), learning_rate=0.05)
    (tmp_path / "kd.flags").write_text("--method=kd\n--teacher_model=digits_student\n--learning_rate=0.01\n")
    assert read_settings([f"kd={tmp_path}/kd.flags"], base) == {"kd": ("--learning_rate=0.01",)}
    with pytest.raises(ValueError, match="teacher_model='digits_student' where the comparison has 'digits_teacher'"):
        read_settings([f"kd={tmp_path}/kd.flags"], dataclasses.replace(base, teacher_path=None))
    (tmp_path / "trikd.flags").write_text("--method=trikd\n--anchor_weight=0.5\n")
    with pytest.raises(ValueError, match="anchor_weight=0.5 where the comparison has None"):
        read_settings([f"trikd={tmp_path}/trikd.flags"], base)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine", "--temperature=2\n", "no method's is of a variant.*says neither"),
        ("mine+kd", "--method=kd\n", "must be one word"),
        ("teacher", "--method=kd\n", "none of teacher, teacher_cache, output"),
        ("teacher_cache", "--method=kd\n", "none of teacher, teacher_cache, output"),
        ("output", "--losses=kd\n", "none of teacher, teacher_cache, output"),
        ("mine", "--method=kd\n--temperature=0\n", "`temperature` must be > 0"),
        # Of the method that it is, a variant cannot have what that does not read.
        ("mine", "--method=kd\n--miner=hard\n", "'kd' does not read"),
    ],
)
def test_variants_that_cannot_be_are_refused(name, text, message, tmp_path, untrained):
    (tmp_path / "own.flags").write_text(text)
    with pytest.raises(ValueError, match=message):
        compare(BASE, tmp_path / "c", [f"{name}={tmp_path}/own.flags"], [0])
    assert not (tmp_path / "c").exists()


def test_variants_of_a_method_are_compared_by_names_of_their_own(in_no_time, tmp_path):
    variants = {
        "drawn": "--method=tkd\n--negatives=drawn\n",
        "hardest": "--method=tkd\n--negatives=in_batch\n--miner=hard\n",
        "named": "--losses=tkd@margin=3:0.5\n--negatives=in_batch\n--negative_classes=teacher\n",
    }
    for name, text in variants.items():
        (tmp_path / f"{name}.flags").write_text(text)
    config = dataclasses.replace(BASE, teacher_cache="off", teacher_learning_rate=None)
    comparison = compare(config, tmp_path / "c", [f"{name}={tmp_path}/{name}.flags" for name in variants], [0])
    assert comparison.methods == ("baseline", *variants)
    for name, text in variants.items():
        (tmp_path / f"{name}.flags").unlink()
        ran = read_flags(DistillConfig, (tmp_path / "c" / name / "seed0" / "flags.flags").read_text())
        wanted = read_flags(DistillConfig, text)
        assert {key: ran[key] for key in wanted if key != "losses"} == {
            key: value for key, value in wanted.items() if key != "losses"
        }
    assert ran["losses"] == ("tkd@margin=3.0:0.5",)
    # The comparison holds what they are: it goes on without the files.
    again = compare(config, tmp_path / "c", ["kd"], [0, 1])
    assert again.methods == (*comparison.methods, "kd") and len(again.runs) == 1 + 2 * 5


def test_one_method_has_one_of_two_settings(own_rate, tmp_path, untrained):
    with pytest.raises(ValueError, match="`methods` must differ. Received: 'kd' twice"):
        compare(BASE, tmp_path / "c", [*own_rate, "kd"], [0])
