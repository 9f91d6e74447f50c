"""Runs with a teacher's outputs alone are the runs with that teacher; what cannot be one is refused before any work."""

import json
import re

import keras
import numpy as np
import pytest
import rounding
import tensorflow as tf

from keras_tkd import data
from keras_tkd.config import DistillConfig
from keras_tkd.reports.schema import Results
from keras_tkd.reports.tables import format_table
from keras_tkd.runs import commands
from keras_tkd.runs.inputs import load_distillation_inputs

QUICK = {"dataset": "digits", "method": "kd", "epochs": 2, "batch_size": 256, "learning_rate": 0.05, "baseline": "none"}


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


@pytest.fixture(scope="module")
def teacher(splits):
    """Knows digits without any training: the nearest mean of a class, by |x - m|^2 = |x|^2 - 2 (x m - |m|^2 / 2)."""
    pixels = splits.train_images.reshape(-1, 64) / 255
    means = np.stack([pixels[splits.train_labels == label].mean(axis=0) for label in range(10)])
    inputs = keras.Input((8, 8, 1))
    features = keras.layers.Flatten(name="features")(keras.layers.Rescaling(1 / 255)(inputs))
    logits = keras.layers.Dense(10)
    model = keras.Model(inputs, logits(features))
    logits.set_weights([means.T, -np.square(means).sum(axis=1) / 2])
    return model


@pytest.fixture(scope="module")
def outputs(splits, teacher):
    """What the teacher says of all images, and its features."""
    both = keras.Model(teacher.input, [teacher.output, teacher.get_layer("features").output])
    arrays = {}
    for part in ("train", "test"):
        logits, features = both.predict(getattr(splits, f"{part}_images"), verbose=0)
        arrays |= {part: logits, f"{part}/features": features}
    return arrays


def save(path, arrays, leave_out=(), **more):
    np.savez(path, **{name: array for name, array in arrays.items() if name not in leave_out}, **more)
    return str(path)


def distill(path, file, **settings):
    return commands.distill(DistillConfig(**QUICK | {"teacher_outputs": str(file)} | settings), path)


def load_outputs(file, **settings):
    return load_distillation_inputs(
        DistillConfig(**QUICK | {"teacher_outputs": str(file)} | settings).resolved()
    ).outputs


def history(workdir):
    return json.loads((workdir / "checkpoints" / "student" / "record.json").read_text())["history"]


def check_history(found, expected, names):
    """A teacher's outputs of other batches are sums of 64 pixels in another order; two epochs have six steps each."""
    for one, other in zip(expected, found, strict=True):
        for name in names:
            rtol, atol = rounding.of_sums(64, 2 * 6), rounding.of_soft_targets(4, 10)
            np.testing.assert_allclose(other[name], one[name], rtol, atol, err_msg=name)


@pytest.mark.parametrize("layers", [None, "features"])
def test_the_run_with_outputs_is_the_run_with_the_teacher(layers, teacher, outputs, tmp_path, capsys):
    settings = {"baseline": "train"}
    if layers:
        settings = {"method": "sp", "teacher_layers": (layers,), "student_layers": ("embedding",)}
    teacher.save(tmp_path / "teacher.keras")
    path = {"teacher_path": (str(tmp_path / "teacher.keras"),), "teacher_cache": "workdir"}
    live = commands.distill(DistillConfig(**QUICK | settings | path), tmp_path / "live")
    file = save(tmp_path / "outputs.npz", outputs, [] if layers else ["train/features", "test/features"])
    given = distill(tmp_path / "given", file, **settings)
    names = ("loss", settings.get("method", "kd"), "val_loss", "val_agreement")
    check_history(history(tmp_path / "given"), history(tmp_path / "live"), names)
    assert given["teacher"]["test_accuracy"] == live["teacher"]["test_accuracy"] > 0.8
    assert given["student"]["agreement"] == pytest.approx(live["student"]["agreement"], abs=1 / 359)
    found = given["teacher"]["outputs"]
    assert len(found.pop("sha256")) == 64
    expected = {"file": file, "given_as": "logits", "views": 1, "layers": [layers] if layers else []}
    assert found == expected and "parameters" not in given["teacher"]
    assert f"Teacher: the logits in {file}. No teacher is run" in capsys.readouterr().out
    assert re.search(r"^teacher +\d\d\.\d\d % +- ", format_table([given]), re.MULTILINE)
    assert Results.from_dict(given).teacher.outputs["views"] == 1


def test_a_single_array_has_the_test_images_after_the_others(outputs, tmp_path):
    np.save(tmp_path / "a.npy", np.concatenate([outputs["train"], outputs["test"]]))
    found = load_outputs(tmp_path / "a.npy")
    np.testing.assert_array_equal(found.caches["train"].outputs["logits"][0], outputs["train"])
    np.testing.assert_array_equal(found.caches["held_out"].outputs["logits"][0], outputs["test"])
    np.testing.assert_array_equal(found.test_logits, outputs["test"])
    np.save(tmp_path / "b.npy", outputs["train"][:-1])
    with pytest.raises(ValueError, match=r"1,438 training images and, after them, the 359 .* of shape \(1437, 10\)"):
        load_outputs(tmp_path / "b.npy")


def name_images(images, rows):
    """The outputs of each image, by its bytes: those of equal images are equal."""
    return {image.tobytes(): row for image, row in zip(images, rows, strict=True)}


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("settings", [{"validation_fraction": 0.2}, {"train_fraction": 0.5}])
def test_rows_follow_the_images_that_are_kept(settings, ids, splits, outputs, tmp_path):
    """Of digits all rows are given; a run keeps some of the images, in an order of its own."""
    arrays = {part: outputs[part] for part in ("train", "test")}
    if ids:
        order = np.random.default_rng(0).permutation(1438)
        arrays |= {"train": outputs["train"][order], "train_ids": order}
    config = DistillConfig(**QUICK | {"teacher_outputs": save(tmp_path / "a.npz", arrays)} | settings).resolved()
    inputs = load_distillation_inputs(config)
    rows = name_images(splits.train_images, outputs["train"]) | name_images(splits.test_images, outputs["test"])
    for images, cache in (
        (inputs.splits.train_images, inputs.outputs.caches["train"]),
        (inputs.splits.held_out[0], inputs.outputs.caches["held_out"]),
    ):
        expected = [rows[image.tobytes()] for image in images]
        np.testing.assert_array_equal(cache.outputs["logits"][0], expected)
    assert 0 < len(inputs.splits.train_images) < 1438
    np.testing.assert_array_equal(inputs.outputs.test_logits, outputs["test"])


def test_classes_are_chosen_as_of_a_model(splits, outputs, tmp_path):
    file = save(tmp_path / "a.npz", outputs)
    found = load_outputs(file, classes=("7", "1", "4"))
    rows = np.isin(splits.train_labels, [7, 1, 4])
    np.testing.assert_array_equal(found.caches["train"].outputs["logits"][0], outputs["train"][rows][:, [7, 1, 4]])
    wide = {part: np.pad(outputs[part], ((0, 0), (2, 0)), constant_values=-9) for part in ("train", "test")}
    found = load_outputs(save(tmp_path / "b.npz", wide), teacher_classes=tuple(map(str, range(2, 12))))
    np.testing.assert_array_equal(found.test_logits, outputs["test"])


def test_files_of_a_folder_by_their_names(tmp_path):
    """Twelve files whose pixels and rows are their number, and which the run divides by a seed of its own."""
    numbers, names = range(12), []
    for number in numbers:
        names.append(f"{'ab'[number % 2]}/{number}.png")
        path = tmp_path / "photos" / names[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_png(np.full((8, 8, 1), number, np.uint8)).numpy())
    rows = np.array([[100.0 + number, 50 + number] if number % 2 == 0 else [number, 99 + number] for number in numbers])
    # All files in both parts: which of them are for testing only the run knows.
    arrays = {"train": rows, "test": rows, "train_ids": names, "test_ids": names}
    settings = {"dataset": str(tmp_path / "photos"), "test_fraction": 0.3, "validation_fraction": 0.3}
    config = DistillConfig(**QUICK | settings | {"teacher_outputs": save(tmp_path / "a.npz", arrays)}).resolved()
    inputs = load_distillation_inputs(config)
    seen = []
    for part, found in (
        ("train", inputs.outputs.caches["train"].outputs["logits"][0]),
        ("validation", inputs.outputs.caches["held_out"].outputs["logits"][0]),
        ("test", inputs.outputs.test_logits),
    ):
        of_images = getattr(inputs.splits, f"{part}_images")[:, 0, 0, 0].tolist()
        np.testing.assert_array_equal(found, rows[of_images])
        seen += of_images
    assert sorted(seen) == list(numbers)


def test_without_test_images_the_accuracy_is_not_known(outputs, tmp_path, capsys):
    file = save(tmp_path / "a.npz", outputs, ["test"])
    with pytest.raises(ValueError, match="it lacks test, .*--validation_fraction.* It holds train, "):
        load_outputs(file)
    results = distill(tmp_path / "run", file, validation_fraction=0.2)
    assert "test_accuracy" not in results["teacher"] and "agreement" not in results["student"]
    assert "Teacher: test accuracy not known" in capsys.readouterr().out
    assert re.search(r"^teacher +- ", format_table([results]), re.MULTILINE)


def make_views(teacher, splits, seed=0):
    views = data.view_batches(splits.train_images, 512, augment=data.AUGMENTATIONS["crop"], seed=seed, views=2)
    answers = [np.asarray(teacher(images)) for images in views.as_numpy_iterator()]
    return np.concatenate(answers).reshape(2, len(splits.train_images), 10)


def test_views_are_those_that_the_student_sees(teacher, splits, outputs, tmp_path):
    views = make_views(teacher, splits)
    file = save(tmp_path / "a.npz", {"train": views, "test": outputs["test"]}, augmentation="crop", seed=0)
    settings = {"augmentation": "crop", "teacher_views": 2}
    distill(tmp_path / "given", file, **settings)
    teacher.save(tmp_path / "teacher.keras")
    live = QUICK | settings | {"teacher_path": (str(tmp_path / "teacher.keras"),), "teacher_cache": "off"}
    commands.distill(DistillConfig(**live), tmp_path / "live")
    check_history(history(tmp_path / "given"), history(tmp_path / "live"), ["kd"])
    for change, message in (
        ({"seed": 1}, r"say of which they are. Received: .*'seed': 0.*'seed': 1"),
        ({"augmentation": "crop_flip"}, "Received: {'augmentation': 'crop'.*{'augmentation': 'crop_flip'"),
        ({"teacher_views": 3}, r"shape \(2, 1438, 10\), teacher_views=3"),
        ({"validation_fraction": 0.1}, "whole training set. Received: 1,29[0-9] of its 1,438"),
        ({"augmentation": "none", "teacher_views": None}, "of several views are for training with augmentation"),
    ):
        with pytest.raises(ValueError, match=message):
            load_outputs(file, **settings | change)
    with pytest.raises(ValueError, match=r"'train' of shape \(views, samples, classes\). Received: shape \(1438, 10\)"):
        load_outputs(save(tmp_path / "b.npz", outputs), **settings)


@pytest.mark.parametrize("name", ["crop+horizontal_flip", "cutout@size=0.25"])
def test_views_of_any_augmentation(name, outputs, tmp_path):
    views = np.stack([outputs["train"], outputs["train"] + 1])
    file = save(tmp_path / "a.npz", {"train": views, "test": outputs["test"]}, augmentation=name, seed=0)
    cache = load_outputs(file, augmentation=name, teacher_views=2).caches["train"]
    np.testing.assert_array_equal(cache.outputs["logits"], views)
    for operation in name.split("@")[0].split("+"):
        assert operation in cache.made_from["augmentation"]


def test_negatives_by_the_classes_that_the_teacher_names(splits, outputs, tmp_path):
    found = load_outputs(save(tmp_path / "a.npz", outputs))
    np.testing.assert_array_equal(found.predict_classes(), outputs["train"].argmax(-1))
    results = distill(tmp_path / "run", tmp_path / "a.npz", method="tkd", negative_classes="teacher", epochs=1)
    assert results["teacher"]["test_accuracy"] > 0.8


def test_a_changed_file_is_refused(outputs, tmp_path):
    file = save(tmp_path / "a.npz", outputs)
    distill(tmp_path / "run", file, epochs=1)
    before = (tmp_path / "run" / "student.keras").read_bytes()
    # The finished run is shown again, and nothing is done.
    distill(tmp_path / "run", file, epochs=1)
    save(tmp_path / "a.npz", outputs | {"train": 2 * outputs["train"]})
    message = "another teacher: the file of --teacher_outputs has changed since. Put the file back"
    with pytest.raises(ValueError, match=message):
        distill(tmp_path / "run", file, epochs=1)
    # So is that of a run that was interrupted.
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(ValueError, match=message):
        distill(tmp_path / "run", file, epochs=1)
    assert (tmp_path / "run" / "student.keras").read_bytes() == before
    config = DistillConfig(**QUICK | {"teacher_outputs": file, "epochs": 1})
    again = commands.distill(config, tmp_path / "run", existing="continue")
    assert (tmp_path / "run" / "student.keras").read_bytes() != before and again["teacher"]["outputs"]["file"] == file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": lambda rows: rows[::-1]}, "train of .*a.npz` must agree .* rows seem to be in another order"),
        (
            {"test": lambda rows: np.random.default_rng(0).permutation(rows)},
            "test of .*a.npz` must agree .* rows seem to be in another order",
        ),
        ({"train": lambda rows: rows[:, ::-1]}, "columns seem to be in another order"),
        ({"train": lambda rows: rows[1:]}, r"a row for each of the 1,438 images .*'train_ids'.* of shape \(1437, 10\)"),
        ({"test": lambda rows: rows[:, :9]}, r"a column for each class. Received: {'train': \(10,\), 'test': \(9,\)}"),
        (
            dict.fromkeys(("train", "test"), lambda rows: rows[:, :9]),
            "with 9 outputs.*10 classes.*Leave out .*--classes",
        ),
        ({"test": lambda rows: rows + np.inf}, "finite numbers"),
        ({"method": "sp"}, "it lacks train/[a-z]+, .*add them, name others with --teacher_layers"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(change, message, outputs, tmp_path):
    arrays = {part: change.get(part, lambda rows: rows)(outputs[part]) for part in ("train", "test")}
    settings = {"method": change["method"]} if "method" in change else {}
    if settings:
        settings |= {"teacher_layers": ("embedding",), "student_layers": ("embedding",)}
    with pytest.raises(ValueError, match=message) as error:
        distill(tmp_path / "run", save(tmp_path / "a.npz", arrays), **settings)
    assert not (tmp_path / "run").exists()
    # There is no model that could get one.
    assert "teacher_head" not in str(error.value)


def test_a_file_of_outputs_is_no_model(outputs, tmp_path):
    config = QUICK | {"teacher_path": (save(tmp_path / "a.npz", outputs),)}
    with pytest.raises(ValueError, match="`teacher_path` must be a model. .*--teacher_outputs"):
        load_distillation_inputs(DistillConfig(**config).resolved())
