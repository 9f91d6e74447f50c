"""Runs on mixed images: the student alone sees them too, a cache keeps what the teacher says, and a run goes on."""

import json
import re

import keras
import numpy as np
import pytest
import rounding

from keras_tkd import data, models
from keras_tkd.config import DistillConfig
from keras_tkd.runs import cached_teacher, commands
from keras_tkd.runs.distillation_setup import make_held_out_batches, make_training_batches

QUICK = {"dataset": "digits", "epochs": 3, "batch_size": 256, "learning_rate": 0.05, "method": "kd"}
MIXED = {"augmentation": "crop+cutout@size=0.25", "mixup": 0.4, "cutmix": 1.0}


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, splits):
    """The folder of two runs on two mixed views, with the teacher and with its cache."""
    folder = tmp_path_factory.mktemp("runs")
    keras.utils.set_random_seed(0)
    teacher = models.build("digits_teacher", splits.image_shape, splits.num_classes)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    teacher.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    teacher.fit(splits.train_images, splits.train_labels, batch_size=64, epochs=1, verbose=0)
    teacher.save(folder / "teacher.keras")
    settings = QUICK | MIXED | {"teacher_views": 2, "teacher_path": str(folder / "teacher.keras")}
    for cache, baseline in (("off", "train"), ("workdir", "none")):
        commands.distill(DistillConfig(**settings, teacher_cache=cache, baseline=baseline), folder / cache)
    return folder


def history(run, name="student"):
    return json.loads((run / "checkpoints" / name / "record.json").read_text())["history"]


def test_with_a_cache_a_run_on_mixed_images_is_the_run_without(runs):
    live, cached = history(runs / "off"), history(runs / "workdir")
    assert np.load(runs / "workdir" / "teacher_cache" / "train" / "logits.npy").shape == (2, 1438, 10)
    # For the cache the teacher saw the images in other batches, where sums, the longest of 3 * 3 * 64 terms, are taken
    # in another order. Three epochs have ceil(1438 / 256) steps each.
    rtol = rounding.of_sums(3 * 3 * 64, 3 * 6)
    for one, other in zip(live, cached, strict=True):
        for name in ("loss", "kd", "student_loss", "val_kd", "val_student_loss", "accuracy", "val_accuracy"):
            np.testing.assert_allclose(other[name], one[name], rtol=rtol, err_msg=name)


def test_the_student_alone_learns_from_the_same_images(runs):
    results = json.loads((runs / "off" / "results.json").read_text())
    assert {"--mixup=0.4", "--cutmix=1.0", "--augmentation=crop+cutout@size=0.25"} <= set(results["flags"])
    last = history(runs / "off", "baseline")[-1]
    assert results["baseline"]["test_accuracy"] == pytest.approx(last["val_accuracy"], abs=1e-6)


def test_mixed_labels_keep_the_students_loss_high_while_whole_images_become_easy(runs, tmp_path):
    # On mixed labels no model has a small loss: of two classes in halves, it is log 2 at best.
    settings = QUICK | {"epochs": 8, "batch_size": 64, "mixup": 0.4, "cutmix": 1.0, "teacher_cache": "off"}
    commands.distill(DistillConfig(**settings, teacher_path=str(runs / "teacher.keras")), tmp_path / "run")
    last = history(tmp_path / "run", "baseline")[-1]
    assert last["loss"] > last["val_loss"] + 0.3


@pytest.mark.parametrize("config", [DistillConfig(**QUICK | MIXED), DistillConfig(**QUICK)], ids=["mixed", "plain"])
def test_labels_are_rows_where_images_are_mixed_and_held_out_images_are_whole(config, splits):
    _, labels = next(iter(make_training_batches(config, splits, data.image_dataset)))
    images, held_out = next(iter(make_held_out_batches(config, splits, data.image_dataset)))
    np.testing.assert_array_equal(images, splits.test_images[:256])
    if config.mixes:
        assert ((labels.numpy() > 0).sum(axis=1) == 2).mean() > 0.5
        np.testing.assert_array_equal(held_out, np.eye(10)[splits.test_labels[:256]])
    else:
        assert labels.shape == (256,)
        np.testing.assert_array_equal(held_out, splits.test_labels[:256])


def test_of_a_stream_nothing_is_kept(capsys):
    config = DistillConfig(method="kd", mixup=0.2, dataset="cifar10", shuffle_window=500, teacher_views=2)
    assert cached_teacher.resolve_teacher_cache(config, None, None).teacher_cache == "off"
    assert re.match("Teacher cache: off, as images of a stream are mixed inside windows", capsys.readouterr().out)
