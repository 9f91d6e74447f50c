"""Runs whose images stay on disk: the run in memory where one window holds all, and the cache by ids of samples."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import TeacherCache, data, evaluation
from keras_tkd.config import DistillConfig
from keras_tkd.runs import commands
from keras_tkd.runs.images import hash_data

QUICK = {"dataset": "shades", "epochs": 2, "batch_size": 32, "learning_rate": 0.02, "baseline": "none"}
SEEN = {"seed": 3, "augment": data.crop_and_flip, "views": 2}


@pytest.fixture(scope="module")
def teacher():
    """Knows the three classes by their brightness, 40, 120 and 200: logits are -(brightness - that of the class)^2."""
    shades = np.array([40.0, 120.0, 200.0]) / 40
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 40)])
    model.add(keras.layers.GlobalAveragePooling2D())
    model.add(keras.layers.Dense(3))
    model.layers[-1].set_weights([np.tile(2 * shades / 3, (3, 1)), -(shades**2)])
    return model


@pytest.fixture(scope="module")
def teacher_path(teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    teacher.save(path)
    return str(path)


@pytest.fixture(scope="module")
def distill(stored, teacher_path):
    def run(workdir, callbacks=(), **settings):
        arguments = {"data_dir": str(stored), "teacher_path": teacher_path, "method": "kd"}
        return commands.distill(DistillConfig(**QUICK | arguments | settings), workdir, callbacks=callbacks)

    return run


def history(workdir):
    return json.loads((workdir / "checkpoints" / "student" / "record.json").read_text())["history"]


def test_a_window_that_holds_all_makes_the_run_in_memory(distill, tmp_path):
    for name, shuffle_window in (("held", None), ("streamed", 120)):
        distill(tmp_path / name, shuffle_window=shuffle_window, method="tkd", teacher_cache=str(tmp_path / "cache"))
    held, streamed = (history(tmp_path / name) for name in ("held", "streamed"))
    for one, other in zip(held, streamed, strict=True):
        # What is not a time.
        names = [name for name in one if "second" not in name]
        assert {"loss", "tkd", "val_loss", "val_tkd"} <= set(names)
        assert [one[name] for name in names] == [other[name] for name in names]
    assert "--shuffle_window=120" in (tmp_path / "streamed" / "flags.flags").read_text()


def test_a_run_of_small_windows_and_fewer_samples(distill, tmp_path):
    results = distill(
        tmp_path,
        method="tkd",
        shuffle_window=40,
        validation_fraction=0.2,
        train_fraction=0.8,
        negative_classes="teacher",
        augmentation="crop",
        teacher_views=1,
        teacher_cache="workdir",
    )
    assert results["teacher"]["test_accuracy"] == 1 and results["test_samples"] == 18
    # Accuracies are those of the file, on the images that the fractions leave.
    splits = data.load("shades", training_folder(tmp_path)).with_validation(0.2, 0).with_train_fraction(0.8, 0)
    student = keras.saving.load_model(tmp_path / "student.keras", compile=False)
    for part in ("train", "test"):
        images, labels = getattr(splits, f"{part}_images"), getattr(splits, f"{part}_labels")
        accuracy = evaluation.accuracy(evaluation.logits(student, images), labels)
        assert results["student"][f"{part}_accuracy"] == pytest.approx(accuracy)
    assert TeacherCache.open(tmp_path / "teacher_cache" / "train").samples == len(splits.train_labels)


def training_folder(workdir):
    lines = (workdir / "flags.flags").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("--data_dir="))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The shades that the teacher knows, thirty of each, as files of noise."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for shade in (40, 120, 200):
        (root / f"{shade:03d}").mkdir()
        for number in range(30):
            image = rng.integers(shade - 20, shade + 20, (8, 8, 3)).astype(np.uint8)
            (root / f"{shade:03d}" / f"{number:02d}.png").write_bytes(tf.io.encode_png(image).numpy())
    return root


def test_runs_of_a_folder_share_the_caches(distill, pictures, tmp_path):
    """The classes of 24 training images are larger than windows of 18, and all lie in the order of their names."""
    shared = {
        "dataset": str(pictures),
        "data_dir": None,
        "method": "tkd",
        "teacher_cache": str(tmp_path / "cache"),
        "batch_size": 16,
    }
    decoded = {"decoded_cache": str(tmp_path / "decoded")}
    settings = {"held": {}, "streamed": {"shuffle_window": 18}, "kept": {"shuffle_window": 18} | decoded}
    histories = {}
    for name, own in settings.items():
        # The cache of the first run is by ids of samples, and serves them all.
        results = distill(tmp_path / name, **shared | own)
        assert results["teacher"]["test_accuracy"] == 1
        histories[name] = [
            {key: value for key, value in epoch.items() if "second" not in key} for epoch in history(tmp_path / name)
        ]
    assert histories["streamed"] == histories["kept"] != histories["held"]
    assert {"val_tkd", "val_loss"} <= set(histories["streamed"][0])


@pytest.mark.parametrize(("content", "says"), [(None, "vanish"), (b"another", "change")])
def test_a_picture_that_changes_during_training_ends_it_by_its_name(content, says, distill, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    paths = sorted((tmp_path / "pictures").rglob("*.png"))

    def spoil(epoch, logs):
        for path in paths:
            path.unlink() if content is None else path.write_bytes(content)

    with pytest.raises(
        ValueError, match=rf"^An image must not {says} while .*: {tmp_path}/pictures/.*\.png\. Put back"
    ):
        distill(
            tmp_path / "run",
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=spoil)],
            **{"dataset": str(tmp_path / "pictures"), "data_dir": None, "batch_size": 16, "shuffle_window": 18},
        )


def test_a_folder_that_changed_is_told_apart_without_being_decoded(pictures, tmp_path):
    def find_hashes():
        return hash_data(data.load(tmp_path / "pictures", shuffle_window=30))

    (tmp_path / "pictures").mkdir()
    for folder in pictures.iterdir():
        (tmp_path / "pictures" / folder.name).mkdir()
        for path in folder.iterdir():
            (tmp_path / "pictures" / folder.name / path.name).write_bytes(path.read_bytes())
    before = find_hashes()
    assert find_hashes() == before
    (changed,) = data.load(tmp_path / "pictures").split["train"][:1]
    image = np.zeros((8, 8, 3), np.uint8)
    (tmp_path / "pictures" / changed).write_bytes(tf.io.encode_png(image).numpy())
    after = find_hashes()
    assert {name for name in before if before[name] != after[name]} == {"images of train"}


def test_the_cache_of_a_stream_is_that_of_the_array(stored, teacher, tmp_path):
    held, streamed = data.load("shades", stored), data.load("shades", stored, shuffle_window=40)
    caches = {
        name: TeacherCache.build(
            teacher, splits.train_images, tmp_path / name, dtype="float32", batch_size=50, progress=False, **SEEN
        )
        for name, splits in (("held", held), ("streamed", streamed))
    }
    assert caches["held"].made_from == caches["streamed"].made_from
    np.testing.assert_array_equal(caches["held"].outputs["logits"], caches["streamed"].outputs["logits"])
    # Either opens the other's, after it has looked at all images and asked the teacher for some.
    TeacherCache.build(teacher, streamed.train_images, tmp_path / "held", dtype="float32", **SEEN)
    with pytest.raises(ValueError, match="samples 120 there, 60 here"):
        half = streamed.train_images.take(np.arange(60))
        TeacherCache.build(teacher, half, tmp_path / "held", dtype="float32", **SEEN)

    dataset = data.triplet_dataset(streamed.train_images, streamed.train_labels, 32, **SEEN)
    seen = set()
    for _ in range(2):
        for batch, _ in caches["streamed"].attach(dataset).as_numpy_iterator():
            seen |= set(zip(batch["index"].tolist(), batch["view"].tolist(), strict=True))
            expected = teacher(batch["image"], training=False)
            np.testing.assert_allclose(batch["teacher"]["logits"], expected, rtol=1e-5, atol=1e-5)
    assert len(seen) == 240


def test_windows_that_cannot_be_are_refused_before_any_work(tmp_path):
    streamed = {"dataset": "shades", "shuffle_window": 40, "batch_size": 32}
    for setting, message in [
        ({"shuffle_window": 0}, "`shuffle_window` must be >= 1"),
        ({"batch_size": 41}, "`shuffle_window` must be a batch or more. Received: shuffle_window=40, batch_size=41"),
        ({"dataset": "digits"}, "`shuffle_window`.*digits"),
        ({"open_set_fraction": 0.5}, "`open_set_fraction`.*`shuffle_window`"),
    ]:
        with pytest.raises(ValueError, match=message):
            DistillConfig(**streamed | setting)
    assert dataclasses.asdict(DistillConfig(**streamed))["shuffle_window"] == 40
