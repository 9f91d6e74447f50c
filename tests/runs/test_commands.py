"""Whole runs, on digits, a few epochs at a time."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, data, evaluation, models
from keras_tkd.callbacks import BackupState
from keras_tkd.config import DistillConfig, EvaluateConfig, TeacherTrainingConfig
from keras_tkd.config.flagfile import read_flags
from keras_tkd.evaluation import predictions
from keras_tkd.reports import tables
from keras_tkd.runs import commands, fitting, optimization, stages

QUICK = {"dataset": "digits", "epochs": 2, "batch_size": 256, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    """A teacher of two epochs that knows more than chance, and its results."""
    workdir = tmp_path_factory.mktemp("teacher")
    return workdir, commands.train_teacher(TeacherTrainingConfig(**QUICK | {"batch_size": 64}), workdir)


@pytest.fixture(scope="module")
def tkd_run(tmp_path_factory, teacher_run):
    workdir = tmp_path_factory.mktemp("tkd")
    config = DistillConfig(**QUICK, method="tkd", teacher_path=str(teacher_run[0]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictions, "_collect", note_passes)
        return workdir, config, commands.distill(config, workdir)


PASSES, COLLECT = [], predictions._collect


def note_passes(model, images, layer, *arguments):
    """Notes the models whose logits for all test images are computed."""
    if layer == "logits" and len(images) == len(test_split()[1]):
        PASSES.append(model)
    return COLLECT(model, images, layer, *arguments)


def test_each_model_is_run_over_the_test_images_once(tkd_run):
    """The teacher, the student before its training, the student alone and the student; however many read the logits."""
    assert len(PASSES) == len({id(model) for model in PASSES}) == 4


def test_workdir_holds_what_a_run_leaves(tkd_run):
    workdir, _, results = tkd_run
    names = {path.name for path in workdir.iterdir()}
    files = {"student.keras", "baseline.keras", "results.json", "observations.npz", "flags.flags"}
    assert names == files | {"logs", "checkpoints"}
    assert json.loads((workdir / "results.json").read_text()) == results
    for stage in ("baseline", "student"):
        for run in ("train", "held_out"):
            assert list((workdir / "logs" / stage / run).glob("events*"))
    # The student's weights: conv 1 -> 4 (3x3), conv 4 -> 8 (3x3), dense 32 -> 10: 40 + 296 + 330.
    assert results["student"]["parameters"] == results["baseline"]["parameters"] == 666
    assert results["method"] == "tkd" and results["dataset"] == "digits"
    assert results["seed"] == 0 and results["epochs"] == 2 and results["test_samples"] == len(test_split()[1])
    assert results["train"]["seconds"] > 0 and results["train"]["images_per_second"] > 0
    assert all(results["latency_ms"][role] > 0 for role in ("teacher", "student"))


def test_split():
    splits = data.load("digits")
    return splits.test_images, splits.test_labels


test_split.__test__ = False


def test_accuracy_is_that_of_the_file_handed_over(tkd_run, teacher_run):
    workdir, _, results = tkd_run
    images, labels = test_split()
    outputs = {
        "student": evaluation.logits(keras.saving.load_model(workdir / "student.keras"), images),
        "baseline": evaluation.logits(keras.saving.load_model(workdir / "baseline.keras"), images),
        "teacher": evaluation.logits(keras.saving.load_model(teacher_run[0] / "teacher.keras"), images),
    }
    for role, z in outputs.items():
        assert results[role]["test_accuracy"] == np.mean(z.argmax(-1) == labels)
    for role in ("student", "baseline"):
        assert results[role]["agreement"] == np.mean(outputs[role].argmax(-1) == outputs["teacher"].argmax(-1))
    right, alone = (outputs[role].argmax(-1) == labels for role in ("student", "baseline"))
    counts = sum(r and not a for r, a in zip(right, alone, strict=True)), sum(alone > right)
    assert (results["student"]["gained"], results["student"]["lost"]) == counts and all(counts)


def test_no_file_carries_our_freezing(tkd_run, teacher_run):
    for path in (tkd_run[0] / "student.keras", tkd_run[0] / "baseline.keras", teacher_run[0] / "teacher.keras"):
        model = keras.saving.load_model(path)
        fresh = models.build(f"digits_{'teacher' if 'teacher' in path.name else 'student'}", (8, 8, 1), 10)
        assert len(model.trainable_variables) == len(fresh.trainable_variables)
        assert all(layer.trainable for layer in model._flatten_layers())
        assert all(layer.dtype_policy.name == "float32" for layer in model._flatten_layers())


def test_flags_file_holds_the_resolved_experiment(tkd_run):
    workdir, config, results = tkd_run
    text = (workdir / "flags.flags").read_text()
    assert [line for line in text.splitlines() if line.startswith("--")] == results["flags"]
    resolved = ("--margin=5.0", "--distillation_loss_weights=2.0", "--student_loss_weight=1.0", "--negatives=drawn")
    for flag in resolved:
        assert flag in results["flags"]
    assert config.margin is None


def test_listed_losses_are_logged_each_and_their_flags_run_them_again(tmp_path, teacher_run, capsys):
    losses = ("kd@temperature=2:0.1", "kd@temperature=8:0.1", "tkd:0.5", "sp:10")
    settings = QUICK | {"epochs": 1, "baseline": "none"}
    config = DistillConfig(**settings, losses=losses, teacher_path=str(teacher_run[0]))
    results = commands.distill(config, tmp_path)
    # Before the student is trained each term has its row in the self-check, and there is nothing to warn of.
    printed = capsys.readouterr().out
    rows = printed.partition("Self-check on a batch of 256 images\n")[2].splitlines()
    assert [line.split()[0] for line in rows[:6]] == ["term", "student_loss", "kd", "kd_2", "tkd", "sp"]
    assert "Warning" not in printed
    title = "kd@temperature=2.0:0.1 + kd@temperature=8.0:0.1 + tkd@margin=5.0:0.5 + sp:10.0"
    assert results["method"] == title and f"{title} on digits" in tables.format_table([results])
    record = json.loads((tmp_path / "checkpoints" / "student" / "record.json").read_text())
    terms = {"kd", "kd_2", "tkd", "sp"}
    assert terms | {f"val_{term}" for term in terms} | {"tkd_violated"} <= set(record["history"][0])
    again = DistillConfig(**read_flags(DistillConfig, (tmp_path / "flags.flags").read_text()))
    assert again.losses == tuple(title.split(" + ")) and again.recipe == config.recipe
    capsys.readouterr()
    assert commands.distill(again, tmp_path) == results
    assert "Finished already" in capsys.readouterr().out


def test_finished_run_is_not_run_again(tkd_run, capsys):
    workdir, config, results = tkd_run
    times = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    assert commands.distill(config, workdir) == results
    assert "Finished already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == times


def test_other_experiment_is_refused_and_nothing_changes(tkd_run):
    workdir, config, _ = tkd_run
    times = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with pytest.raises(ValueError, match=r"another experiment.*--margin=5.0.*--margin=1.0"):
        commands.distill(dataclasses.replace(config, margin=1.0), workdir)
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == times


def test_continue_keeps_what_the_changed_flag_does_not_concern(tmp_path):
    config = DistillConfig(**QUICK | {"epochs": 1, "batch_size": 64}, method="tkd")
    first = commands.distill(config, tmp_path)
    times = {
        name: (tmp_path / name).stat().st_mtime_ns for name in ("teacher.keras", "baseline.keras", "student.keras")
    }
    second = commands.distill(dataclasses.replace(config, margin=1.0), tmp_path, existing="continue")
    changed = [name for name, time in times.items() if (tmp_path / name).stat().st_mtime_ns != time]
    assert changed == ["student.keras"]
    assert first["baseline"] == second["baseline"] and first["teacher"] == second["teacher"]
    assert "--margin=1.0" in second["flags"]


@pytest.mark.parametrize("what", ["teacher", "student"])
def test_interrupted_training_goes_on_to_the_same_weights(what, tmp_path, monkeypatch, teacher_run):
    """Dropout, momentum, shuffling, augmentation and negatives included."""
    settings = QUICK | {"epochs": 4, "augmentation": "crop"}

    def run(workdir):
        if what == "teacher":
            commands.train_teacher(TeacherTrainingConfig(**settings), workdir)
        else:
            config = DistillConfig(**settings, method="tkd", teacher_path=str(teacher_run[0]), baseline="none")
            commands.distill(config, workdir)
        return keras.saving.load_model(workdir / f"{what}.keras").get_weights()

    class Cut(BackupState):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fitting, "BackupState", Cut)
        run(tmp_path / "cut")
    assert not (tmp_path / "cut" / "results.json").exists()
    resumed, whole = run(tmp_path / "cut"), run(tmp_path / "whole")
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    record = json.loads((tmp_path / "cut" / "checkpoints" / what / "record.json").read_text())
    assert len(record["history"]) == 4


def test_baseline_and_student_start_from_the_same_weights(tmp_path, teacher_run):
    settings = QUICK | {"learning_rate": 1e-20, "epochs": 1}
    config = DistillConfig(**settings, method="kd", teacher_path=str(teacher_run[0]), seed=3)
    results = commands.distill(config, tmp_path)
    student, baseline = (
        keras.saving.load_model(tmp_path / f"{n}.keras").get_weights() for n in ("student", "baseline")
    )
    keras.utils.set_random_seed(3)
    fresh = models.build("digits_student", (8, 8, 1), 10).get_weights()
    for a, b, c in zip(student, baseline, fresh, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
        np.testing.assert_allclose(a, c, atol=1e-12)
    # A student that learned nothing is at chance, and the result says so.
    assert results["student"]["at_chance"] is True


def test_chance_is_warned_of_after_the_first_epochs(tmp_path, capsys, teacher_run):
    settings = QUICK | {"learning_rate": 1e-20, "epochs": 3}
    commands.distill(DistillConfig(**settings, method="baseline"), tmp_path)
    assert "is at chance" in capsys.readouterr().out


class TestBaselineOfAnotherRun:
    def test_is_taken_if_the_budget_is_equal(self, tkd_run, tmp_path, teacher_run):
        workdir, config, results = tkd_run
        kd = DistillConfig(**QUICK, method="kd", teacher_path=str(teacher_run[0]), baseline=str(workdir))
        taken = commands.distill(kd, tmp_path)
        assert taken["baseline"] == results["baseline"]
        assert not (tmp_path / "baseline.keras").exists()
        # The images on which it disagrees with the student alone are counted by the other run's file.
        images, labels = test_split()
        models = [keras.saving.load_model(path) for path in (tmp_path / "student.keras", workdir / "baseline.keras")]
        right, alone = (evaluation.logits(model, images).argmax(-1) == labels for model in models)
        assert (taken["student"]["gained"], taken["student"]["lost"]) == (sum(right > alone), sum(alone > right))

    def test_disagreements_are_not_said_without_its_file(self, tkd_run, tmp_path, teacher_run):
        (tmp_path / "other").mkdir()
        shutil.copy(tkd_run[0] / "results.json", tmp_path / "other")
        kd = DistillConfig(**QUICK, method="kd", teacher_path=str(teacher_run[0]), baseline=str(tmp_path / "other"))
        results = commands.distill(kd, tmp_path / "run")
        assert results["baseline"] == tkd_run[2]["baseline"] and "gained" not in results["student"]

    @pytest.mark.parametrize(
        ("change", "message"), [({"epochs": 3}, "epochs 2 there, 3 here"), ({"seed": 1}, "seed 0 there")]
    )
    def test_is_refused_if_not(self, tkd_run, tmp_path, teacher_run, change, message):
        settings = QUICK | change
        config = DistillConfig(**settings, method="kd", teacher_path=str(teacher_run[0]), baseline=str(tkd_run[0]))
        with pytest.raises(ValueError, match=message):
            commands.distill(config, tmp_path / "new")
        assert not (tmp_path / "new").exists()

    def test_needs_a_finished_run(self, tmp_path, teacher_run):
        config = DistillConfig(**QUICK, method="kd", teacher_path=str(teacher_run[0]), baseline=str(tmp_path))
        with pytest.raises(ValueError, match="`baseline` must be"):
            commands.distill(config, tmp_path / "new")


class TestTeachersOfOthers:
    def test_softmax_is_taken_off_and_said(self, teacher_run, tmp_path, capsys):
        teacher = keras.saving.load_model(teacher_run[0] / "teacher.keras")
        with_softmax = keras.Model(teacher.inputs, keras.layers.Softmax()(teacher.outputs[0]), name="theirs")
        with_softmax.save(tmp_path / "theirs.keras")
        config = DistillConfig(**QUICK, method="kd", baseline="none", teacher_path=str(tmp_path / "theirs.keras"))
        results = commands.distill(config, tmp_path / "run")
        assert "ends in a softmax" in capsys.readouterr().out
        assert results["teacher"]["test_accuracy"] == teacher_run[1]["teacher"]["test_accuracy"]

    def test_preprocessing_is_put_before_it(self, teacher_run, tmp_path):
        teacher = keras.saving.load_model(teacher_run[0] / "teacher.keras")
        pixels = keras.Input((8, 8, 1))
        unit = keras.Model(pixels, teacher(pixels * 255.0), name="unit")  # wants 0..1
        unit.save(tmp_path / "unit.keras")
        arguments = QUICK | {"method": "kd", "baseline": "none", "teacher_path": str(tmp_path / "unit.keras")}
        results = commands.distill(DistillConfig(**arguments, teacher_preprocessing="unit"), tmp_path / "run")
        assert results["teacher"]["test_accuracy"] == pytest.approx(
            teacher_run[1]["teacher"]["test_accuracy"], abs=0.01
        )

    def test_of_another_size_gets_the_images_resized(self, teacher_run, tmp_path):
        teacher = keras.saving.load_model(teacher_run[0] / "teacher.keras")
        pixels = keras.Input((16, 16, 1))
        keras.Model(pixels, teacher(keras.layers.AveragePooling2D(2)(pixels))).save(tmp_path / "wide.keras")
        arguments = QUICK | {"baseline": "none", "teacher_path": str(tmp_path / "wide.keras")}
        for cache in ("off", "workdir"):
            config = DistillConfig(**arguments, method="kd", teacher_cache=cache)
            results = commands.distill(config, tmp_path / cache)
            # Twice as large and pooled again, the images are a little smoother than they were.
            assert results["teacher"]["test_accuracy"] == pytest.approx(
                teacher_run[1]["teacher"]["test_accuracy"], abs=0.05
            )

    def test_at_chance_is_an_error_where_warnings_are(self, tmp_path, capsys):
        keras.utils.set_random_seed(0)  # some starting weights are above chance by luck
        models.build("digits_teacher", (8, 8, 1), 10).save(tmp_path / "untrained.keras")
        settings = QUICK | {"method": "kd", "teacher_path": str(tmp_path / "untrained.keras"), "epochs": 1}
        config = DistillConfig(**settings, check="strict")
        with pytest.raises(ValueError, match="more than chance.*teacher_preprocessing"):
            commands.distill(config, tmp_path / "run")
        # Unless it was asked for, that is a warning: the user may know more of the teacher than a test does.
        results = commands.distill(DistillConfig(**settings, baseline="none"), tmp_path / "warned")
        assert results["teacher"]["at_chance"] and results["student"]
        shown = capsys.readouterr().out
        assert shown.count("Warning: The teacher must know more than chance") == 1 and "untrained.keras on dig" in shown

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda path: None, FileNotFoundError, "missing.keras"),
            (lambda path: path.write_text("no model"), ValueError, "must be a Keras model"),
            (lambda path: models.build("digits_teacher", (8, 8, 1), 7).save(path), ValueError, "7"),
            (lambda path: models.build("digits_teacher", (8, 8, 3), 10).save(path), ValueError, r"\(8, 8, 3\)"),
        ],
    )
    def test_bad_files_before_any_work(self, make, error, message, tmp_path):
        path = tmp_path / "missing.keras"
        make(path)
        with pytest.raises(error, match=message):
            commands.distill(DistillConfig(**QUICK, method="kd", teacher_path=str(path)), tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestSeveralTeachers:
    def test_each_is_shown_and_the_ensemble_teaches(self, teacher_run, tmp_path, monkeypatch):
        """The second is the first on other pixels: the ensemble knows what both know."""
        teacher = keras.saving.load_model(teacher_run[0] / "teacher.keras")
        pixels = keras.Input((8, 8, 1))
        keras.Model(pixels, teacher(pixels * 255.0)).save(tmp_path / "unit.keras")
        ensemble = {
            "teacher_path": (str(teacher_run[0]), str(tmp_path / "unit.keras")),
            "teacher_preprocessing": ("none", "unit"),
            "teacher_average": "losses",
            "teacher_weights": "confidence",
        }
        config = DistillConfig(**QUICK, **ensemble, method="kd", baseline="none", precision="mixed_bfloat16")
        teachers = []

        def watched(teacher, *arguments, **options):
            teachers.extend(teacher.teachers)
            return Distiller(teacher, *arguments, **options)

        monkeypatch.setattr(stages, "Distiller", watched)
        results = commands.distill(config, tmp_path / "run")
        # Logits are computed in float32, whatever the precision.
        assert teachers[0].get_layer("logits").compute_dtype == "float32"
        assert {layer.compute_dtype for layer in teachers[0].layers} == {"float32", "bfloat16"}
        single = teacher_run[1]["teacher"]
        for described, parameters in ((results["teacher"], 2), *((each, 1) for each in results["teachers"])):
            assert described["test_accuracy"] == pytest.approx(single["test_accuracy"], abs=0.01)
            assert described["parameters"] == parameters * single["parameters"]
        assert len(results["teachers"]) == 2 and results["teachers"][0]["agreement"] > 0.99
        student = str(tmp_path / "run" / "student.keras")
        measured = commands.evaluate(EvaluateConfig(**ensemble, model_path=student))
        assert measured["agreement"] == pytest.approx(results["student"]["agreement"], abs=0.01)
        assert [each["parameters"] for each in measured["teachers"]] == [single["parameters"]] * 2

    def test_one_that_knows_nothing_is_named(self, teacher_run, tmp_path):
        keras.utils.set_random_seed(0)  # some starting weights are above chance by luck
        models.build("digits_teacher", (8, 8, 1), 10).save(tmp_path / "untrained.keras")
        paths = (str(teacher_run[0]), str(tmp_path / "untrained.keras"))
        config = DistillConfig(**QUICK, method="kd", teacher_path=paths, teacher_average="logits", check="strict")
        with pytest.raises(ValueError, match="more than chance.*untrained.keras"):
            commands.distill(config, tmp_path / "run")

    def test_layers_need_the_average_of_losses(self, teacher_run, tmp_path):
        copy = tmp_path / "copy.keras"
        copy.write_bytes((teacher_run[0] / "teacher.keras").read_bytes())
        config = DistillConfig(
            **QUICK, method="sp", teacher_path=(str(teacher_run[0]), str(copy)), teacher_average="logits"
        )
        with pytest.raises(ValueError, match="'features'.*average='losses'"):
            commands.distill(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


class TestRefusedBeforeAnyWork:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"dataset": "digitz"}, "digits"),
            ({"student_model": "digits_studnt"}, "digits_student"),
            ({"teacher_model": "digits_teachr"}, "digits_teacher"),
            ({"teacher_layers": ("nowhere",), "student_layers": ("logits",)}, "nowhere"),
            ({"dataset": "cifar10", "data_dir": "nowhere"}, "nowhere"),
        ],
    )
    def test_names_what_is_wrong(self, change, message, tmp_path):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            commands.distill(DistillConfig(**QUICK | {"method": "kd"} | change), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_student_without_trainable_weights(self, tmp_path):
        frozen = models.build("digits_student", (8, 8, 1), 10)
        frozen.trainable = False
        frozen.save(tmp_path / "frozen.keras")
        config = DistillConfig(**QUICK, method="kd", student_model=str(tmp_path / "frozen.keras"))
        with pytest.raises(ValueError, match="trainable weights"):
            commands.distill(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_leaves_no_result(tmp_path, teacher_run):
    settings = QUICK | {"learning_rate": 1e30, "schedule": "constant"}
    config = DistillConfig(**settings, method="logits", teacher_path=str(teacher_run[0]), baseline="none")
    with pytest.raises(FloatingPointError, match="not finite at step"):
        commands.distill(config, tmp_path)
    assert not (tmp_path / "results.json").exists() and not (tmp_path / "student.keras").exists()


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_hands_over_float32(precision, tmp_path, teacher_run):
    config = DistillConfig(
        **QUICK,
        method="tkd",
        negatives="in_batch",
        precision=precision,
        baseline="none",
        teacher_path=str(teacher_run[0]),
    )
    results = commands.distill(config, tmp_path)
    model = keras.saving.load_model(tmp_path / "student.keras")
    assert {layer.dtype_policy.name for layer in model._flatten_layers()} == {"float32"}
    images, labels = test_split()
    assert evaluation.accuracy(evaluation.logits(model, images), labels) == results["student"]["test_accuracy"]


def test_folder_of_images_with_its_split_in_the_workdir(tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 210)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.clip(rng.normal(level, 10, (12, 10, 3)), 0, 255).astype("uint8")
            tf.io.write_file(str(tmp_path / "pictures" / name / f"{i}.png"), tf.io.encode_png(pixels))
    config = DistillConfig(
        dataset=str(tmp_path / "pictures"),
        image_size=8,
        method="tkd",
        epochs=8,
        batch_size=8,
        learning_rate=0.05,
        teacher_epochs=10,
        validation_fraction=0.25,
        negative_classes="teacher",
    )
    results = commands.distill(config, tmp_path / "run")
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    # 20 images a class: 4 for testing; of the 16 left, 4 for validation.
    assert {part: len(files) for part, files in split.items()} == {"train": 24, "validation": 8, "test": 8}
    assert results["test_samples"] == 8 and results["teacher"]["test_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"schedule": "constant"}, [0.5, 0.5, 0.5, 0.5]),
        ({"schedule": "step", "schedule_epochs": (1, 3), "schedule_factor": 0.1}, [0.5, 0.05, 0.05, 0.005]),
        # 0.5 * (1 + cos(pi * e / 4)) / 2 of 0.5
        ({"schedule": "cosine"}, [0.5, 0.25 * (1 + np.sqrt(0.5)), 0.25, 0.25 * (1 - np.sqrt(0.5))]),
        # Thirds of 0.5, up to it; then 0.5 * (1 + cos(pi * (e - 2) / 2)) / 2.
        ({"schedule": "cosine", "learning_rate_warmup_epochs": 2}, [0.5 / 3, 1 / 3, 0.5, 0.25]),
        ({"schedule": "constant", "learning_rate_warmup_epochs": 1}, [0.25, 0.5, 0.5, 0.5]),
        (
            {"schedule": "step", "schedule_epochs": (2, 3), "learning_rate_warmup_epochs": 1},
            [0.25, 0.5, 0.05, 0.005],
        ),
        ({"schedule": "cosine", "learning_rate_warmup_epochs": 4}, [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_learning_rate_of_each_epoch(settings, expected):
    config = TeacherTrainingConfig(epochs=4, learning_rate=0.5, **settings)
    rates = [optimization.compute_learning_rate(config, epoch) for epoch in range(4)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_weight_decay_is_coupled_and_in_no_file(tmp_path):
    """Two steps of momentum by hand: v <- m v - lr (g + wd w); biases and BatchNorm's weights decay too."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(2, name="logits"), keras.layers.BatchNormalization()]
    )
    model.set_weights(
        [np.arange(6.0).reshape(3, 2), np.array([1.0, -2.0]), np.ones(2), np.full(2, 0.5), np.zeros(2), np.ones(2)]
    )
    before = [w.copy() for w in model.get_weights()]
    optimization.add_weight_decay(model, 0.1)
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), lambda y, z: keras.ops.sum(z, -1) * 0.0)
    model.fit(np.zeros((1, 3)), np.zeros((1, 2)), epochs=2, verbose=0)
    # w1 = w (1 - 0.02); v2 = 0.9 (-0.02 w) - 0.02 w1 = -0.0376 w; w2 = (0.98 - 0.0376) w.
    for old, new in zip(before[:4], model.get_weights()[:4], strict=True):
        np.testing.assert_allclose(new, 0.9424 * old, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert all(variable.regularizer is None for variable in loaded.trainable_variables)
