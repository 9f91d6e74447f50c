"""Runs in which teacher and student learn together, on digits, a few epochs at a time."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

from keras_tkd import data, evaluation
from keras_tkd.callbacks import BackupState
from keras_tkd.config import DistillConfig
from keras_tkd.runs import commands, generations, inputs, stages
from keras_tkd.utils.files import hash_file

QUICK = {"dataset": "digits", "epochs": 2, "batch_size": 128, "learning_rate": 0.05, "validation_fraction": 0.2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("trikd")
    config = DistillConfig(**QUICK, method="trikd", generations=2)
    return workdir, config, commands.distill(config, workdir)


def weights(path):
    return keras.saving.load_model(path).get_weights()


def equal(first, second):
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_workdir_keeps_every_generation_and_hands_over_the_best(run):
    workdir, _, results = run
    splits = data.load("digits").with_validation(0.2, 0)
    accuracies = []
    for number, described in enumerate(results["generations"], 1):
        folder = workdir / "generations" / str(number)
        student, teacher = (keras.saving.load_model(folder / f"{role}.keras") for role in ("student", "teacher"))
        assert len(student.trainable_variables) == 6 and student.count_params() == 666
        outputs = [evaluation.logits(model, splits.test_images) for model in (student, teacher)]
        assert described["student"]["test_accuracy"] == evaluation.accuracy(outputs[0], splits.test_labels)
        assert described["teacher"]["test_accuracy"] == evaluation.accuracy(outputs[1], splits.test_labels)
        assert described["student"]["agreement"] == evaluation.agreement(*outputs)
        on_training = evaluation.logits(student, splits.train_images)
        assert described["student"]["train_accuracy"] == evaluation.accuracy(on_training, splits.train_labels)
        held_out = evaluation.logits(student, splits.validation_images)
        accuracies.append(evaluation.accuracy(held_out, splits.validation_labels))
        assert described["validation_accuracy"] == accuracies[-1]
        assert list((workdir / "logs" / "generations" / str(number) / "student" / "train").glob("events*"))
    chosen = int(np.argmax(accuracies)) + 1
    assert results["generation"] == chosen and len(accuracies) == 2
    for role in ("student", "teacher"):
        assert results[role] == results["generations"][chosen - 1][role]
        assert equal(weights(workdir / f"{role}.keras"), weights(workdir / f"generations/{chosen}/{role}.keras"))
    assert results["baseline"]["parameters"] == 666
    assert json.loads((workdir / "results.json").read_text()) == results


def test_each_generation_has_the_student_before_it_as_its_anchor(run, tmp_path, monkeypatch):
    workdir, config, _ = run
    anchors = []

    def look(config, teacher, student, anchor):
        anchors.append(anchor.get_weights())
        raise InterruptedError

    monkeypatch.setattr(generations, "make_trikd", look)
    for number, expected in [(1, workdir / "baseline.keras"), (2, workdir / "generations/1/student.keras")]:
        record = workdir / "checkpoints" / "generations" / str(number) / "student" / "record.json"
        kept = record.read_text()
        record.write_text(json.dumps(json.loads(kept) | {"finished": False}))
        results = workdir / "results.json"
        finished = results.read_text()
        results.unlink()
        with pytest.raises(InterruptedError):
            commands.distill(config, workdir)
        record.write_text(kept)
        results.write_text(finished)
        assert equal(anchors[-1], weights(expected))


def test_best_is_by_validation_and_without_it_the_last():
    def of(*accuracies):
        return [generations.Generation(i, None, None, None, a) for i, a in enumerate(accuracies, 1)]

    assert generations.choose_best(of(0.5, 0.9, 0.7)).number == 2
    assert generations.choose_best(of(None, None, None)).number == 3


def test_more_generations_keep_those_there_are(run, tmp_path_factory, monkeypatch):
    workdir = tmp_path_factory.mktemp("more")
    shutil.copytree(run[0], workdir, dirs_exist_ok=True)
    trained = []
    fit_stage = stages.fit_stage
    monkeypatch.setattr(stages, "fit_stage", lambda *a, **k: (trained.append(a[1].name), fit_stage(*a, **k)))
    results = commands.distill(dataclasses.replace(run[1], generations=3), workdir, existing="continue")
    assert trained == ["generations/3/student"] and len(results["generations"]) == 3
    assert results["generations"][:2] == run[2]["generations"]


def test_interrupted_generation_goes_on_to_the_same_weights(run, tmp_path, monkeypatch):
    """Both models, both optimizers: what went on after an interruption is what was never interrupted."""
    workdir, config, results = run
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "generations" / "2")
    (tmp_path / "results.json").unlink()
    trained = []
    fit_stage = stages.fit_stage
    monkeypatch.setattr(stages, "fit_stage", lambda *a, **k: (trained.append(a[1].name), fit_stage(*a, **k)))
    monkeypatch.setattr(BackupState, "on_epoch_end", stop_after(BackupState.on_epoch_end))
    with pytest.raises(KeyboardInterrupt):
        commands.distill(config, tmp_path)
    monkeypatch.setattr(BackupState, "on_epoch_end", stop_after.original)
    again = commands.distill(config, tmp_path)
    assert trained == 2 * ["generations/2/student"]
    assert again["generation"] == results["generation"]
    for generation in (1, 2):
        for role in ("student", "teacher"):
            file = f"generations/{generation}/{role}.keras"
            assert equal(weights(tmp_path / file), weights(workdir / file)), file


def stop_after(on_epoch_end):
    """Breaks off after the first epoch of a generation."""
    stop_after.original = on_epoch_end

    def once(self, epoch, logs=None):
        on_epoch_end(self, epoch, logs)
        # The one training of the run that is done again: that of the second generation.
        if epoch == 0:
            raise KeyboardInterrupt

    return once


def test_mutual_learning_has_no_anchor_and_no_generations(tmp_path):
    config = DistillConfig(**QUICK | {"validation_fraction": 0.0}, method="dml", baseline="none", train_fraction=0.1)
    results = commands.distill(config, tmp_path)
    assert results["baseline"] is None and results["generation"] == 1 and len(results["generations"]) == 1
    assert not (tmp_path / "baseline.keras").exists()
    flags = (tmp_path / "flags.flags").read_text()
    assert "--teacher_training=online" in flags and "anchor" not in flags and "generations" not in flags


def test_offline_teacher_is_trained_before(tmp_path):
    config = DistillConfig(**QUICK, method="trikd", teacher_training="offline", baseline="none", teacher_epochs=2)
    config = dataclasses.replace(config, batch_size=64, teacher_learning_rate=0.05)
    results = commands.distill(config, tmp_path)
    assert "generations" not in results and (tmp_path / "checkpoints" / "teacher").exists()


def test_baseline_of_an_anchored_run_is_its_anchor(tmp_path):
    """`--baseline=none` spares no training where the student alone is the anchor; then it is reported as well."""
    results = commands.distill(DistillConfig(**QUICK | {"epochs": 1}, method="trikd", baseline="none"), tmp_path)
    assert results["baseline"]["parameters"] == 666


def record_anchors(config, workdir, monkeypatch):
    """The weights of the first generation's student and anchor, and the stages that were trained before it."""
    seen, trained = [], []
    fit_stage = stages.fit_stage
    monkeypatch.setattr(stages, "fit_stage", lambda *a, **k: (trained.append(a[1].name), fit_stage(*a, **k)))

    def look(config, teacher, student, anchor):
        seen.extend([student.get_weights(), anchor.get_weights()])
        raise InterruptedError

    monkeypatch.setattr(generations, "make_trikd", look)
    with pytest.raises(InterruptedError):
        commands.distill(config, workdir)
    return *seen, trained


def test_another_runs_student_alone_is_the_anchor_and_is_not_trained_again(run, tmp_path, monkeypatch):
    config = dataclasses.replace(run[1], baseline=str(run[0]), generations=1)
    student, anchor, trained = record_anchors(config, tmp_path, monkeypatch)
    assert equal(anchor, weights(run[0] / "baseline.keras")) and not equal(anchor, student) and trained == []


def test_another_anchor_makes_the_generations_stale(run, tmp_path, monkeypatch):
    """Two runs of one budget whose students alone differ: what was trained beside the one is not kept for the other."""
    shutil.copytree(run[0], tmp_path / "other")
    student = keras.saving.load_model(run[0] / "baseline.keras", compile=False)
    student.set_weights([2 * weight for weight in student.get_weights()])
    student.save(tmp_path / "other" / "baseline.keras")
    # As if that run had trained it: a file that its results are not about is refused.
    results = json.loads((tmp_path / "other" / "results.json").read_text())
    results["files"]["baseline.keras"] = hash_file(tmp_path / "other" / "baseline.keras")
    (tmp_path / "other" / "results.json").write_text(json.dumps(results))
    config = dataclasses.replace(run[1], baseline=str(run[0]), generations=1)
    commands.distill(config, tmp_path / "run")
    trained = []
    fit_stage = stages.fit_stage
    monkeypatch.setattr(stages, "fit_stage", lambda *a, **k: (trained.append(a[1].name), fit_stage(*a, **k)))
    for folder, expected in ((run[0], []), (tmp_path / "other", ["generations/1/student"])):
        config = dataclasses.replace(config, baseline=str(folder))
        commands.distill(config, tmp_path / "run", existing="continue")
        assert trained == expected


def test_another_run_without_the_student_alone_has_no_anchor(run, tmp_path):
    shutil.copy(run[0] / "results.json", tmp_path)
    config = dataclasses.replace(run[1], baseline=str(tmp_path))
    with pytest.raises(ValueError, match="must be the run that trained the student alone.*without baseline.keras"):
        commands.distill(config, tmp_path / "run")


def test_an_untrained_anchor_does_not_start_where_the_student_starts(run, tmp_path, monkeypatch):
    config = dataclasses.replace(run[1], baseline="none", anchor="random", generations=1)
    student, anchor, trained = record_anchors(config, tmp_path, monkeypatch)
    assert trained == []
    # Kernels; biases start at zero in every network.
    assert not any(np.array_equal(a, b) for a, b in zip(student, anchor, strict=True) if a.any())


@pytest.mark.parametrize("reaches", [True, False])
def test_whether_the_students_term_reaches_the_teacher_is_a_setting(reaches):
    config = DistillConfig(method="trikd", student_term_reaches_teacher=reaches).resolved()
    models = [inputs.build_model(f"digits_{role}", data.load("digits"), 0, role) for role in ("teacher", "student")]
    assert generations.make_trikd(config, *models, None).student_term_reaches_teacher is reaches
