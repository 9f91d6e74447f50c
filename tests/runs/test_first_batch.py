"""The check of the first batch in runs, models that must stay as they are, and outputs that are not finite."""

import dataclasses
import types

import keras
import numpy as np
import pytest

from keras_tkd import data, models
from keras_tkd.config import DistillConfig, EvaluateConfig, TeacherTrainingConfig
from keras_tkd.config.flagfile import format_flags
from keras_tkd.distillation.self_check import SelfCheck
from keras_tkd.reports.schema import ModelResult
from keras_tkd.runs import checks, commands, stages
from keras_tkd.runs.inputs import Inputs
from keras_tkd.runs.measuring import MeasuredTeacher
from keras_tkd.runs.run import Run, open_run
from keras_tkd.runs.workdir import Workdir

SPLITS = data.load("digits")
SETTINGS = {"dataset": "digits", "batch_size": 64, "epochs": 1}


def build(name, seed=0):
    keras.utils.set_random_seed(seed)
    return models.build(name, SPLITS.image_shape, 10)


class Warned:
    """A model that would be trained, of which something is to be said."""

    def __init__(self, *warnings):
        self.warnings, self.seen = list(warnings), []

    def check(self, batch, inspection):
        self.seen.append((batch, inspection))
        return SelfCheck(2, [], [], self.warnings)


def look(check, model):
    config = DistillConfig(method="kd", check=check)
    asked = []

    def pipeline(images, labels, **arguments):
        asked.append(arguments)
        return ["first", "second"]

    run = types.SimpleNamespace(config=config)
    checks.check_first_batch(run, Inputs(SPLITS), model, pipeline, "inspection")
    return asked


class TestCheckOfTheFirstBatch:
    def test_warnings_are_printed(self, capsys):
        model = Warned("Mind the gap.")
        (asked,) = look("warn", model)
        assert model.seen == [("first", "inspection")] and asked["training"] is True and asked["seed"] == 0
        assert capsys.readouterr().out.splitlines() == ["Self-check on a batch of 2 images", "Warning: Mind the gap."]

    def test_strict_makes_them_errors(self, capsys):
        look("strict", Warned())
        with pytest.raises(
            ValueError, match="--check=strict nothing.*Received: Mind the gap. Mind that, .*--check=warn"
        ):
            look("strict", Warned("Mind the gap.", "Mind that,"))
        assert "Mind the gap" in capsys.readouterr().out

    def test_off_looks_at_nothing(self, capsys):
        model = Warned("Mind the gap.")
        assert look("off", model) == [] and not model.seen and not capsys.readouterr().out

    @pytest.mark.parametrize("cache", ["off", "workdir"])
    def test_comes_before_the_student_is_trained(self, cache, tmp_path, monkeypatch):
        """Teacher and student are exchanged; with a cache no teacher is in memory then, and it was looked at before."""
        monkeypatch.setattr(stages, "fit_stage", None)
        config = DistillConfig(**SETTINGS, method="kd", check="strict", teacher_cache=cache).resolved()
        few = SPLITS.with_train_fraction(0.1, 0)
        inputs = Inputs(few, build("digits_teacher"), build("digits_student"))
        run = Run(config, Workdir(tmp_path, format_flags(config)))
        teacher = MeasuredTeacher(inputs.take_teacher(), None, ModelResult(parameters=666))
        with pytest.raises(ValueError, match="has 666 parameters, fewer than the student's 72,970"):
            stages.train_student(run, inputs, teacher)

    @pytest.mark.parametrize("cache", ["off", "workdir"])
    def test_comes_before_the_baseline_where_that_is_trained(self, cache, tmp_path, monkeypatch, capsys):
        """Teacher and student are exchanged, as above. Nothing is said twice."""
        trained = []
        monkeypatch.setattr(stages, "fit_stage", lambda run, stage, *_, **__: trained.append(stage.name))
        monkeypatch.setattr(stages, "_read_trained", lambda stage: stage)
        config = DistillConfig(**SETTINGS, method="tkd", negative_classes="teacher", teacher_cache=cache).resolved()

        def begin(folder, config):
            inputs = Inputs(SPLITS.with_train_fraction(0.1, 0), build("digits_teacher"), build("digits_student"))
            run = Run(config, Workdir(tmp_path / folder, format_flags(config)))
            return run, inputs, MeasuredTeacher(inputs.take_teacher(), None, ModelResult(parameters=666))

        run, inputs, teacher = begin("warn", config)
        stages.train_baseline(run, inputs, teacher)
        said = capsys.readouterr().out
        assert "has 666 parameters, fewer than the student's 72,970" in said and trained == ["baseline"]
        stages.train_student(run, inputs, teacher)
        assert trained == ["baseline", "student"] and "Self-check" not in capsys.readouterr().out
        with pytest.raises(ValueError, match="has 666 parameters, fewer than the student's 72,970"):
            stages.train_baseline(*begin("strict", dataclasses.replace(config, check="strict")))
        stages.train_baseline(*begin("off", dataclasses.replace(config, check="off")))
        assert trained == ["baseline", "student", "baseline"]

    def test_changes_no_bit_of_what_is_trained(self, tmp_path):
        """crd has layers of its own; dropout draws in every step."""
        keras.utils.set_random_seed(0)
        teacher = commands.train_teacher(
            TeacherTrainingConfig(**SETTINGS | {"epochs": 3, "learning_rate": 0.05}), tmp_path / "teacher"
        )
        assert not teacher["teacher"]["at_chance"]
        settings = SETTINGS | {"method": "crd", "student_model": "digits_teacher", "train_fraction": 0.1}
        weights = []
        for check in ("warn", "off"):
            config = DistillConfig(**settings, teacher_path=str(tmp_path / "teacher"), check=check)
            commands.distill(config, tmp_path / check)
            files = [tmp_path / check / f"{role}.keras" for role in ("baseline", "student")]
            weights.append([array for file in files for array in keras.saving.load_model(file).get_weights()])
        assert all(map(np.array_equal, *weights))

    def test_a_run_that_goes_on_may_have_another_value(self, tmp_path):
        config = DistillConfig(method="kd").resolved()
        begun = Run(config, Workdir(tmp_path, format_flags(config)))
        begun.begin(Inputs(SPLITS))
        begun.__exit__(None, None, None)
        assert "--check=warn" in (tmp_path / "flags.flags").read_text().splitlines()
        build("digits_student").save(tmp_path / "teacher.keras")  # something that was trained
        assert open_run("distill", DistillConfig(method="kd", check="off"), tmp_path).config.check == "off"
        with pytest.raises(ValueError, match="another experiment"):
            open_run("distill", DistillConfig(method="kd", epochs=7), tmp_path)


class TestFrozenModels:
    def test_that_changed_are_an_error(self):
        teacher = build("digits_student")
        with checks.check_unchanged({"teacher": teacher, "anchor": None}):
            teacher.set_weights(teacher.get_weights())
        with pytest.raises(ValueError, match="The teacher must stay as it is, and its weights have changed"):
            with checks.check_unchanged({"teacher": teacher}):
                teacher.trainable_variables[0].assign_add(np.full(teacher.trainable_variables[0].shape, 1e-6))

    def test_leave_no_student_of_a_training_that_changed_them(self, tmp_path):
        config = DistillConfig(**SETTINGS, method="kd").resolved()
        run = Run(config, Workdir(tmp_path, format_flags(config)))
        stage, teacher, student = run.open_stage("student", {}), build("digits_student"), build("digits_student")
        fitted = build("digits_student")
        fitted.compile("sgd")

        def fit(batches, **arguments):
            teacher.trainable_variables[0].assign(teacher.trainable_variables[0] + 1)
            fitted.stop_training = True

        fitted.fit = fit
        with pytest.raises(ValueError, match="The teacher must stay as it is"):
            stages.fit_stage(
                run,
                stage,
                SPLITS,
                fitted,
                title="Student",
                pipeline=data.image_dataset,
                files={stage.model_path: student},
                frozen={"teacher": teacher},
            )
        assert not stage.model_path.exists() and not run.open_stage("student", {}).finished


class TestOutputsThatAreNotFinite:
    @pytest.fixture(scope="class")
    @staticmethod
    def files(tmp_path_factory):
        folder = tmp_path_factory.mktemp("models")
        whole, broken = build("digits_student"), build("digits_student")
        kernel = broken.get_layer("conv1").kernel
        kernel.assign(kernel * np.float32("nan"))
        whole.save(folder / "whole.keras")
        broken.save(folder / "broken.keras")
        return types.SimpleNamespace(whole=str(folder / "whole.keras"), broken=str(folder / "broken.keras"))

    def test_are_refused_by_evaluate(self, files):
        message = r"must be finite.*'digits_student' are not. Received: 359 of 359 images.*'conv1/kernel' holds"
        for config in (
            EvaluateConfig(dataset="digits", model_path=files.broken),
            EvaluateConfig(dataset="digits", model_path=files.whole, teacher_path=(files.broken,)),
        ):
            with pytest.raises(ValueError, match=message):
                commands.evaluate(config)

    def test_of_a_teacher_are_no_chance(self, files, tmp_path):
        config = DistillConfig(**SETTINGS, method="kd", teacher_path=(files.broken,), baseline="none")
        with pytest.raises(ValueError, match="must be finite.*'conv1/kernel' holds such numbers itself"):
            commands.distill(config, tmp_path / "run")

    def test_of_whole_weights_are_the_pixels(self):
        outputs = np.zeros((4, 10), "float32")
        outputs[1, 3] = np.inf
        with pytest.raises(ValueError, match="Received: 1 of 4 images.*its weights are finite. Look at the pixels"):
            checks.check_finite(build("digits_student"), outputs)
        checks.check_finite(build("digits_student"), None)
