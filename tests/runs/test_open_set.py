"""Runs that are verified on identities which nothing was trained on: of digits, and of a folder of small images."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

from keras_tkd import data, evaluation, models
from keras_tkd.config import DistillConfig, EvaluateConfig, TeacherTrainingConfig
from keras_tkd.runs import commands

OPEN = {"dataset": "digits", "open_set_fraction": 0.4}
QUICK = OPEN | {"epochs": 2, "batch_size": 64, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("teacher")
    return workdir, commands.train_teacher(TeacherTrainingConfig(**QUICK), workdir)


@pytest.fixture(scope="module")
def sp_run(tmp_path_factory, teacher_run):
    workdir = tmp_path_factory.mktemp("sp")
    config = DistillConfig(**QUICK, method="sp", teacher_path=str(teacher_run[0]))
    return workdir, commands.distill(config, workdir)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Six identities, each of its own colour, with noise; the last has a single image."""
    generator = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("faces")
    for name, count in (("ada", 6), ("bob", 6), ("cleo", 6), ("dan", 6), ("eva", 6), ("fay", 1)):
        (folder / name).mkdir()
        colour = generator.uniform(40, 210, 3)
        for index in range(count):
            pixels = np.clip(generator.normal(colour, 10, (8, 8, 3)), 0, 255).astype("uint8")
            tf.io.write_file(str(folder / name / f"{index}.png"), tf.io.encode_png(pixels))
    return folder


def measure_auc(path, images, identities, layer="embedding"):
    """By the matrix of all cosines, of the layer's outputs in the saved file."""
    model = keras.saving.load_model(path)
    rows = keras.Model(model.inputs, model.get_layer(layer).output).predict(images, verbose=0).astype("float64")
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    upper = np.triu_indices(len(rows), 1)
    same = identities[:, None] == identities
    return roc_auc_score(same[upper], (rows @ rows.T)[upper])


def test_every_model_is_verified_on_digits_it_never_saw(sp_run, teacher_run):
    workdir, results = sp_run
    whole = data.load("digits")
    unseen = json.loads((workdir / "split.json").read_text())["open_set_classes"]
    assert len(unseen) == 4
    images, labels = (
        np.concatenate(parts)
        for parts in ((whole.train_images, whole.test_images), (whole.train_labels, whole.test_labels))
    )
    chosen = np.isin(labels, [int(name) for name in unseen])
    files = {
        "teacher": teacher_run[0] / "teacher.keras",
        "baseline": workdir / "baseline.keras",
        "student": workdir / "student.keras",
    }
    for role, path in files.items():
        verified = results[role]["verification"]
        assert verified["auc"] == pytest.approx(measure_auc(path, images[chosen], labels[chosen]), abs=1e-4)
        assert (verified["images"], verified["identities"], verified["pairs"]) == (chosen.sum(), 4, "all")
    aucs = [results[role]["verification"]["auc"] for role in files]
    assert len(set(aucs)) == 3 and min(aucs) > 0.55
    assert results["teacher"]["verification"] == teacher_run[1]["teacher"]["verification"]


def test_accuracy_is_that_of_the_classes_that_were_trained_on(sp_run):
    workdir, results = sp_run
    whole = data.load("digits")
    unseen = [int(name) for name in json.loads((workdir / "split.json").read_text())["open_set_classes"]]
    seen = np.setdiff1d(np.arange(10), unseen)
    chosen = np.isin(whole.test_labels, seen)
    outputs = evaluation.logits(keras.saving.load_model(workdir / "student.keras"), whole.test_images[chosen])
    assert outputs.shape == (results["test_samples"], 6)
    assert results["student"]["test_accuracy"] == np.mean(seen[outputs.argmax(-1)] == whole.test_labels[chosen])


def test_evaluate_says_the_same(sp_run, teacher_run):
    workdir, results = sp_run
    files = {"model_path": str(workdir / "student.keras"), "teacher_path": str(teacher_run[0])}
    measured = commands.evaluate(EvaluateConfig(**OPEN, **files))
    assert measured["verification"] == results["student"]["verification"]
    assert measured["teacher"]["verification"] == results["teacher"]["verification"]
    assert measured["test_accuracy"] == results["student"]["test_accuracy"]
    # Other layers, one of each model.
    layers = {"embedding_layer": "logits", "teacher_embedding_layer": "flatten"}
    measured = commands.evaluate(EvaluateConfig(**OPEN, **files, **layers))
    splits = data.load("digits", open_set_fraction=0.4)
    opened = splits.open_set_images, splits.open_set_identities
    student, teacher = workdir / "student.keras", teacher_run[0] / "teacher.keras"
    assert measured["verification"]["auc"] == pytest.approx(measure_auc(student, *opened, "logits"), abs=1e-4)
    assert measured["teacher"]["verification"]["auc"] == pytest.approx(
        measure_auc(teacher, *opened, "flatten"), abs=1e-4
    )


@pytest.mark.parametrize("method", ["tkd", "trikd"])
def test_triplets_and_online_teachers_are_verified_beside_another_runs_baseline(method, sp_run, teacher_run, tmp_path):
    teacher = {"teacher_path": str(teacher_run[0])} if method == "tkd" else {}
    results = commands.distill(DistillConfig(**QUICK, method=method, baseline=str(sp_run[0]), **teacher), tmp_path)
    assert results["baseline"] == sp_run[1]["baseline"]
    splits = data.load("digits", open_set_fraction=0.4)
    opened = splits.open_set_images, splits.open_set_identities
    files = {"student": tmp_path, "teacher": teacher_run[0] if teacher else tmp_path}
    for role, folder in files.items():
        expected = measure_auc(folder / f"{role}.keras", *opened)
        assert results[role]["verification"]["auc"] == pytest.approx(expected, abs=1e-4)
    assert results["student"]["verification"]["auc"] not in (expected, sp_run[1]["student"]["verification"]["auc"])


def test_other_teachers_are_verified_by_a_layer_of_theirs(teacher_run, tmp_path):
    teacher = keras.saving.load_model(teacher_run[0] / "teacher.keras")
    pixels = keras.Input((8, 8, 1))
    keras.Model(pixels, teacher(pixels * 255.0), name="unit").save(tmp_path / "unit.keras")  # wants 0..1
    config = {
        "method": "kd",
        "baseline": "none",
        "teacher_path": str(tmp_path / "unit.keras"),
        "teacher_preprocessing": "unit",
        "teacher_embedding_layer": "digits_teacher/embedding",
    }
    results = commands.distill(DistillConfig(**QUICK | {"epochs": 1}, **config), tmp_path / "run")
    expected = teacher_run[1]["teacher"]["verification"]
    assert results["teacher"]["verification"]["auc"] == pytest.approx(expected["auc"], abs=1e-3)


def test_a_folder_of_identities(faces, tmp_path):
    arguments = {"dataset": str(faces), "open_set_fraction": 0.5}
    seed = next(
        s for s in range(99) if "fay" in data.load(str(faces), split_seed=s, open_set_fraction=0.5).open_set_names
    )
    config = TeacherTrainingConfig(**arguments, split_seed=seed, epochs=1, batch_size=8, learning_rate=0.05)
    verified = commands.train_teacher(config, tmp_path)["teacher"]["verification"]
    # Two identities with six images and one with one: 2 * 15 pairs of one; 6 * 6 + 2 * 6 of two.
    assert (verified["same_pairs"], verified["different_pairs"]) == (30, 48)
    split = json.loads((tmp_path / "split.json").read_text())
    assert len(split["open_set_classes"]) == 3 and {path.split("/")[0] for path in split["open_set"]} == set(
        split["open_set_classes"]
    )
    # All of another folder, and other numbers of classes: nothing is said of classes.
    measured = commands.evaluate(
        EvaluateConfig(
            dataset=str(faces),
            open_set_fraction=1.0,
            model_path=str(tmp_path / "teacher.keras"),
            teacher_path=str(tmp_path),
        )
    )
    assert set(measured) == {"parameters", "verification", "teacher"} and "test_accuracy" not in measured["teacher"]
    assert (measured["verification"]["images"], measured["verification"]["identities"]) == (31, 6)
    whole = data.load(str(faces), open_set_fraction=1.0)
    expected = measure_auc(tmp_path / "teacher.keras", whole.open_set_images, whole.open_set_identities)
    assert measured["verification"]["auc"] == pytest.approx(expected, abs=1e-4)


class TestRefusedBeforeAnyWork:
    @pytest.mark.parametrize(
        "change, message",
        [
            # The same number of classes, but others: it has seen some of those that it would be verified on.
            ({"split_seed": 1}, r"must not have been trained on.*trained on \d of 4, '\d' for one.*--split_seed"),
            ({"open_set_fraction": 0.3}, "must know the classes.*6 outputs.*7 classes"),
            ({"open_set_fraction": None}, "must know the classes.*6 outputs.*10 classes"),
            ({"embedding_layer": "pool"}, "--embedding_layer.*'pool'.*'embedding'"),
            ({"teacher_embedding_layer": "dense"}, "--teacher_embedding_layer.*'digits_teacher'.*'dense'"),
            ({"embedding_layer": "features"}, r"\(batch, width\).*'features' of shape \(1, 4, 4, 8\)"),
        ],
    )
    def test_by_distill(self, change, message, teacher_run, tmp_path):
        config = DistillConfig(**QUICK | {"method": "sp", "teacher_path": str(teacher_run[0])} | change)
        with pytest.raises(ValueError, match=message):
            commands.distill(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_by_train_teacher(self, tmp_path):
        with pytest.raises(ValueError, match="--embedding_layer.*'dense'.*'embedding'"):
            commands.train_teacher(TeacherTrainingConfig(**QUICK, embedding_layer="dense"), tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_by_evaluate(self, teacher_run):
        model = {"model_path": str(teacher_run[0] / "teacher.keras")}
        with pytest.raises(ValueError, match="must not have been trained on"):
            commands.evaluate(EvaluateConfig(**OPEN, **model, split_seed=1))
        with pytest.raises(ValueError, match="--embedding_layer.*'dense'"):
            commands.evaluate(EvaluateConfig(**OPEN, **model, embedding_layer="dense"))

    def test_the_baseline_of_other_embeddings(self, sp_run, teacher_run, tmp_path):
        config = DistillConfig(
            **QUICK, method="kd", teacher_path=str(teacher_run[0]), baseline=str(sp_run[0]), embedding_layer="logits"
        )
        with pytest.raises(ValueError, match="another budget: embedding_layer None there, logits here"):
            commands.distill(config, tmp_path / "run")


def test_other_embeddings_train_nothing_again(sp_run, teacher_run, tmp_path):
    workdir = pathlib.Path(shutil.copytree(sp_run[0], tmp_path / "run"))
    times = {name: (workdir / name).stat().st_mtime_ns for name in ("student.keras", "baseline.keras")}
    config = DistillConfig(**QUICK, method="sp", teacher_path=str(teacher_run[0]), embedding_layer="logits")
    results = commands.distill(config, workdir, existing="continue")
    assert {name: (workdir / name).stat().st_mtime_ns for name in times} == times
    for role in ("teacher", "baseline", "student"):
        assert results[role]["verification"]["auc"] != sp_run[1][role]["verification"]["auc"]


def test_without_an_open_set_nothing_is_verified(tmp_path):
    models.build("digits_student", (8, 8, 1), 10).save(tmp_path / "student.keras")
    measured = commands.evaluate(EvaluateConfig(model_path=str(tmp_path / "student.keras")))
    assert set(measured) == {"test_accuracy", "parameters", "at_chance"}
