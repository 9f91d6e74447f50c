"""One run in one folder: its configuration, stale models that are trained again, and callbacks."""

import dataclasses
import gc
import json
import weakref

import keras
import pytest

from keras_tkd import data, models
from keras_tkd.config import DistillConfig, TeacherTrainingConfig
from keras_tkd.config.fields import option
from keras_tkd.config.flagfile import format_flags
from keras_tkd.reports.schema import ModelResult
from keras_tkd.runs import commands, stages
from keras_tkd.runs.baseline import read_baseline
from keras_tkd.runs.inputs import Inputs
from keras_tkd.runs.measuring import MeasuredTeacher
from keras_tkd.runs.run import Run, open_run
from keras_tkd.runs.workdir import Workdir
from keras_tkd.utils.files import hash_file, save_model

QUICK = {"dataset": "digits", "epochs": 2, "batch_size": 64, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


class TestConfiguration:
    def test_is_resolved_when_the_run_is_opened_and_again_with_its_inputs(self, splits, tmp_path):
        run = open_run("distill", DistillConfig(method="kd"), tmp_path / "run")
        assert (run.config.temperature, run.config.teacher_cache) == (4.0, "auto")
        assert not (tmp_path / "run").exists()
        run.resolve_config(dataclasses.replace(run.config, teacher_cache="workdir"))
        run.begin(Inputs(splits))
        header, *lines = (tmp_path / "run" / "flags.flags").read_text().splitlines()
        command = f"python scripts/distill.py --flagfile={run.path}/flags.flags --workdir={run.path}"
        assert header == f"# To run this again: {command}"
        assert {"--temperature=4.0", "--teacher_cache=workdir"} <= set(lines)

    def test_does_not_change_once_the_run_has_begun(self, splits, tmp_path):
        run = open_run("distill", DistillConfig(method="kd"), tmp_path / "run")
        run.begin(Inputs(splits))
        with pytest.raises(RuntimeError, match="does not change once it has begun"):
            run.resolve_config(dataclasses.replace(run.config, epochs=3))
        with pytest.raises(AttributeError):
            run.config = DistillConfig(method="sp")
        assert run.config.method == "kd" and run.config.epochs == 30


@pytest.mark.parametrize(
    ("change", "other_file", "refused"),
    [
        ({"teacher_preprocessing": ("unit",)}, False, False),
        ({"teacher_classes": tuple("9876543210")}, False, False),
        # Nothing is trained again for these.
        ({"tensorboard": "off"}, False, True),
        ({"teacher_preprocessing": ("unit",)}, True, True),
    ],
)
def test_a_teachers_layers_may_be_others_by_flags(change, other_file, refused, splits, tmp_path):
    path = tmp_path / "t.keras"

    def begin(layers, existing="refuse", **settings):
        given = DistillConfig(method="kd", epochs=1, teacher_path=str(path), **settings).resolved()
        run = Run(given, Workdir(tmp_path / "run", format_flags(given), existing))
        with run:
            run.begin(Inputs(splits, fingerprint="aa", architecture=layers))

    path.write_bytes(b"teacher")
    begin("11")
    (tmp_path / "run" / "student.keras").write_bytes(b"student")
    if other_file:
        path.write_bytes(b"another")
    if refused:
        with pytest.raises(ValueError, match="another teacher: the layers of --teacher_path have"):
            begin("22", "continue", **change)
        return
    begin("22", "continue", **change)
    # Interrupted, it goes on.
    begin("22", **change)


def test_results_of_version_1_are_those_of_a_finished_run(tmp_path, capsys):
    config = DistillConfig(method="baseline").resolved()
    flags = format_flags(config)
    results = {"method": "baseline", "dataset": "digits", "seed": 0, "epochs": 30, "test_samples": 359, "flags": flags}
    student = {"test_accuracy": 0.9, "parameters": 666, "at_chance": False, "train_accuracy": 0.95}
    results |= {"teacher": None, "baseline": None, "student": student | {"epochs_to_baseline": None}}
    (tmp_path / "flags.flags").write_text("\n".join(flags))
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "student.keras").touch()
    assert commands.distill(config, tmp_path) == results | {"version": 2}
    assert "Finished already" in capsys.readouterr().out
    # And its student is another run's baseline.
    other = DistillConfig(method="kd", baseline=str(tmp_path)).resolved()
    baseline = read_baseline(other)
    assert (baseline.test_accuracy, baseline.train_accuracy) == (0.9, 0.95)
    (tmp_path / "results.json").write_text(json.dumps(results | {"version": 9}))
    for read in (lambda: commands.distill(config, tmp_path), lambda: read_baseline(other)):
        with pytest.raises(ValueError, match="version=9"):
            read()


@pytest.mark.parametrize("command", ["distill", "train_teacher"])
def test_results_that_say_nothing_of_what_was_trained_are_measured_again(command, tmp_path, capsys):
    make_config = DistillConfig if command == "distill" else TeacherTrainingConfig
    config = make_config().resolved()
    other = {"test_accuracy": 0.9, "parameters": 666}
    results = {"method": "kd", "dataset": "digits", "seed": 0, "epochs": 30, "test_samples": 359, "version": 2}
    name = "teacher" if command == "distill" else "student"
    (tmp_path / "flags.flags").write_text("\n".join(format_flags(config)))
    (tmp_path / f"{name}.keras").touch()
    files = {f"{name}.keras": hash_file(tmp_path / f"{name}.keras")}
    with open_run(command, config, tmp_path) as run:
        flags = format_flags(run.config)
    (tmp_path / "results.json").write_text(json.dumps(results | {name: other, "flags": flags, "files": files}))
    with open_run(command, config, tmp_path) as run:
        assert not run.finished
    missing = "student" if command == "distill" else "teacher"
    assert f"results.json is damaged: it says nothing of the {missing}. What it" in capsys.readouterr().out


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithNewSetting(DistillConfig):
    """A flag whose author forgot to say what it decides."""

    new: float = option(0.0, "A new setting.")


def test_a_setting_that_was_forgotten_leaves_no_stale_model_in_place(splits, tmp_path, monkeypatch):
    trained = []

    def fit_stage(run, stage, inputs, fitted, *, files, **more):
        trained.append(stage.name)
        for path, model in files.items():
            save_model(model, path)
        stage.finish([{"loss": 1.0}], 1.0, files)

    def train_all(config):
        """Names of the stages that are trained for a configuration in the same folder."""
        trained.clear()
        run = Run(config.resolved(), Workdir(tmp_path, format_flags(config), "continue"))
        teacher, student = (models.build(f"digits_{role}", splits.image_shape, 10) for role in ("teacher", "student"))
        inputs = Inputs(splits, student, teacher)
        teacher = stages.train_teacher(run, inputs).model
        stages.train_baseline(run, inputs)
        stages.train_student(run, inputs, MeasuredTeacher(teacher, None, ModelResult(parameters=1)))
        return list(trained)

    monkeypatch.setattr(stages, "fit_stage", fit_stage)
    settings = {"method": "kd", "teacher_cache": "off"}
    assert train_all(WithNewSetting(**settings)) == ["teacher", "baseline", "student"]
    assert train_all(WithNewSetting(**settings)) == []
    assert train_all(WithNewSetting(**settings, new=1.0)) == ["teacher", "baseline", "student"]
    # What says what it decides: the student's temperature, its architecture, the teacher's epochs, nothing.
    settings["new"] = 1.0
    assert train_all(WithNewSetting(**settings, temperature=2.0)) == ["student"]
    assert train_all(WithNewSetting(**settings)) == ["student"]
    assert train_all(WithNewSetting(**settings, teacher_epochs=3)) == ["teacher", "student"]
    settings |= {"dataset": "cifar10", "teacher_epochs": 3}
    assert train_all(WithNewSetting(**settings)) == ["teacher", "baseline", "student"]
    assert train_all(WithNewSetting(**settings, data_dir="elsewhere")) == []


class Listener(keras.callbacks.Callback):
    """Writes down what it sees of each epoch, adds to the logs, and stops every training after its first epoch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append((type(self.model).__name__, self.model.name, epoch))
        assert {"loss", "val_accuracy", "learning_rate"} <= set(logs)
        logs["mine"] = 0.25
        self.model.stop_training = True


def record(path, stage):
    return json.loads((path / "checkpoints" / stage / "record.json").read_text())


def test_callbacks_take_part_in_every_training_and_may_end_it(tmp_path, capsys):
    listener = Listener()
    config = DistillConfig(**QUICK, method="kd")
    results = commands.distill(config, tmp_path, callbacks=[listener])
    on_labels = [("Functional", f"digits_{role}", 0) for role in ("teacher", "student")]
    trainings = [*on_labels, ("Distiller", "distiller", 0)]
    assert listener.seen == trainings
    for stage in ("teacher", "baseline", "student"):
        # One of two epochs, and done.
        kept = record(tmp_path, stage)
        assert kept["finished"] and [epoch["mine"] for epoch in kept["history"]] == [0.25]
    assert results["epochs"] == 2
    assert [results[role]["epochs"] for role in ("teacher", "baseline", "student")] == [1, 1, 1]
    # They are no part of what the run is.
    (tmp_path / "results.json").unlink()
    again = commands.distill(config, tmp_path)
    # What a call of the models took is measured anew.
    assert again.pop("latency_ms").keys() == results.pop("latency_ms").keys()
    assert again == results and listener.seen == trainings
    repeated = commands.distill(config, tmp_path, callbacks=[listener])
    assert repeated.pop("latency_ms") and repeated == results and listener.seen == trainings


def test_callbacks_take_part_in_the_training_of_a_teacher_and_of_online_ones(tmp_path):
    listener = Listener()
    few = QUICK | {"train_fraction": 0.1}
    results = commands.train_teacher(TeacherTrainingConfig(**few), tmp_path / "teacher", callbacks=[listener])
    assert results["epochs"] == 2 and results["teacher"]["epochs"] == 1
    assert listener.seen == [("Functional", "digits_teacher", 0)]
    assert record(tmp_path / "teacher", "teacher")["finished"]
    config = DistillConfig(**few, method="dml", baseline="none")
    results = commands.distill(config, tmp_path / "dml", callbacks=[listener])
    assert listener.seen[1:] == [("TriKD", "trikd", 0)]
    assert [pair["student"]["epochs"] for pair in results["generations"]] == [1] and results["student"]["epochs"] == 1


@pytest.mark.parametrize(("cache", "held"), [("workdir", False), ("off", True)])
def test_with_a_cache_nobody_holds_the_teacher_while_the_student_learns(cache, held, splits, tmp_path, monkeypatch):
    kernels, found = [], []
    set_up = stages.set_up_distillation

    def watched_set_up(run, inputs, teacher):
        kernels.append(weakref.ref(teacher.trainable_variables[0]))
        return set_up(run, inputs, teacher)

    def look(*arguments, **options):
        gc.collect()
        found.append(kernels[0]() is not None)
        raise InterruptedError

    monkeypatch.setattr(stages, "set_up_distillation", watched_set_up)
    monkeypatch.setattr(stages, "Distiller", look)
    monkeypatch.setattr(commands, "check_teacher", lambda *arguments: None)  # one that knows nothing will do
    save_model(models.build("digits_teacher", splits.image_shape, splits.num_classes), tmp_path / "teacher.keras")
    settings = {"method": "kd", "baseline": "none", "teacher_path": str(tmp_path / "teacher.keras")}
    with pytest.raises(InterruptedError):
        commands.distill(DistillConfig(**settings, teacher_cache=cache), tmp_path / "run")
    assert found == [held]


class Rates(keras.callbacks.Callback):
    """Sets the learning rate at the end of each step, and writes down what an epoch's first step is done with."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.seen.append(float(self.model.optimizer.learning_rate))

    def on_train_batch_end(self, batch, logs=None):
        self.model.optimizer.learning_rate = 1e-3


def test_the_schedule_sets_the_rate_at_the_start_of_each_epoch(tmp_path):
    rates = Rates()
    settings = QUICK | {"schedule": "step", "schedule_epochs": (1,), "train_fraction": 0.1}
    commands.train_teacher(TeacherTrainingConfig(**settings), tmp_path, callbacks=[rates])
    assert rates.seen == pytest.approx([0.05, 0.005])


@pytest.mark.parametrize(
    "callback",
    [keras.callbacks.ReduceLROnPlateau(monitor="loss"), keras.callbacks.LearningRateScheduler(lambda epoch: 0.1)],
)
@pytest.mark.parametrize(
    ("command", "config"), [(commands.distill, DistillConfig()), (commands.train_teacher, TeacherTrainingConfig())]
)
def test_callbacks_that_set_the_rate_are_refused(callback, command, config, tmp_path):
    rule = f"The learning rate of a run.*Received: callbacks with a {type(callback).__name__}.*`schedule`"
    with pytest.raises(ValueError, match=rule):
        command(config, tmp_path / "run", callbacks=[keras.callbacks.Callback(), callback])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("callbacks", "received"),
    [
        (None, "callbacks=None.*callbacks=\\[callback\\]"),
        (keras.callbacks.History(), "callbacks=<.*History object.*callbacks=\\[callback\\]"),
        (keras.callbacks.History, "callbacks=<class.*History"),
        (
            [keras.callbacks.History()] * 2 + [keras.callbacks.History],
            ".*History'> among them. Make an instance: History",
        ),
        (("history",), "'history' among them"),
    ],
)
@pytest.mark.parametrize(
    ("command", "config"), [(commands.distill, DistillConfig()), (commands.train_teacher, TeacherTrainingConfig())]
)
def test_callbacks_must_be_a_list_of_them(callbacks, received, command, config, tmp_path):
    with pytest.raises(ValueError, match=f"`callbacks` must be a list or tuple of.*Received: {received}"):
        command(config, tmp_path / "run", callbacks=callbacks)
    assert not (tmp_path / "run").exists()


class AddsText(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["note"] = "fine"


def test_what_a_callback_adds_to_the_logs_must_be_a_number(tmp_path):
    config = TeacherTrainingConfig(**QUICK | {"train_fraction": 0.1})
    with pytest.raises(ValueError, match=r"must be numbers.*logs\['note'\] = 'fine'"):
        commands.train_teacher(config, tmp_path / "run", callbacks=[AddsText()])


class TestFilesThatARunReads:
    """Those of models it is given: exchanged after it began, or in the folder that it is to overwrite."""

    SETTINGS = QUICK | {"epochs": 1, "train_fraction": 0.1, "method": "baseline"}

    def save_student(self, path, seed):
        keras.utils.set_random_seed(seed)
        models.build("digits_student", (8, 8, 1), 10).save(path)

    def test_a_student_that_was_exchanged_is_refused(self, tmp_path):
        path = tmp_path / "student.keras"
        self.save_student(path, 1)
        config = DistillConfig(**self.SETTINGS, student_model=str(path))
        commands.distill(config, tmp_path / "run")
        (tmp_path / "run" / "results.json").unlink()
        before = path.read_bytes()
        self.save_student(path, 2)
        for existing in ("refuse", "continue"):
            with pytest.raises(ValueError, match=f"began with another model: the file of --student_model={path} has"):
                commands.distill(config, tmp_path / "run", existing)
        path.write_bytes(before)
        commands.distill(config, tmp_path / "run")

    @pytest.mark.parametrize("name", ["teacher_path", "student_model", "teacher_model", "baseline", "labels"])
    def test_a_file_that_would_be_removed_is_refused(self, name, tmp_path):
        run = tmp_path / "run"
        run.mkdir()
        for file in ("teacher.keras", "student.keras", "flags.flags"):
            (run / file).write_text(file)
        path = {"teacher_path": run, "baseline": run, "student_model": run / "student.keras"}
        settings = {"method": "kd", name: str(path.get(name, run / "teacher.keras"))}
        # Of a folder of images; digits have no table.
        settings = QUICK | settings | ({"dataset": str(tmp_path)} if name == "labels" else {})
        with pytest.raises(ValueError, match=f"removes the files of the run.*{name}='{settings[name]}'. Copy it"):
            commands.distill(DistillConfig(**settings), run, "overwrite")
        assert sorted(path.name for path in run.iterdir()) == ["flags.flags", "student.keras", "teacher.keras"]
