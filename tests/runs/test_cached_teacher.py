"""The teacher cache of a run: the same experiment with and without it, decided once, refused where it would not be."""

import gc
import json
import re
import shutil
import weakref

import keras
import numpy as np
import pytest

from keras_tkd import data, models
from keras_tkd.config import DistillConfig
from keras_tkd.runs import cached_teacher, commands, distillation_setup
from keras_tkd.runs.inputs import Inputs
from keras_tkd.runs.run import Run
from keras_tkd.runs.workdir import Workdir

QUICK = {"dataset": "digits", "epochs": 3, "batch_size": 256, "learning_rate": 0.05, "baseline": "none"}
CROPPED = {"augmentation": "crop", "teacher_views": 2}


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


@pytest.fixture(scope="module")
def teacher_path(tmp_path_factory, splits):
    """A teacher that knows more than chance."""
    keras.utils.set_random_seed(0)
    model = models.build("digits_teacher", splits.image_shape, splits.num_classes)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.fit(splits.train_images, splits.train_labels, batch_size=64, epochs=1, verbose=0)
    path = tmp_path_factory.mktemp("teacher") / "teacher.keras"
    model.save(path)
    return str(path)


def distill(path, teacher_path, **settings):
    return commands.distill(DistillConfig(**QUICK | {"teacher_path": teacher_path} | settings), path)


def history(workdir):
    return json.loads((workdir / "checkpoints" / "student" / "record.json").read_text())["history"]


@pytest.fixture(scope="module")
def live_and_cached(tmp_path_factory, teacher_path):
    """A run of tkd with drawn negatives on two views, with the teacher and with its cache, and the cache."""
    folder = tmp_path_factory.mktemp("runs")
    for name, cache in (("live", "off"), ("cached", str(folder / "cache"))):
        distill(
            folder / name, teacher_path, method="tkd", teacher_cache=cache, teacher_cache_dtype="float32", **CROPPED
        )
    return folder


def test_a_run_with_the_cache_is_the_run_without(live_and_cached):
    live, cached = history(live_and_cached / "live"), history(live_and_cached / "cached")
    assert len(live) == 3
    for one, other in zip(live, cached, strict=True):
        for name in ("loss", "tkd", "student_loss", "val_loss", "val_tkd", "tkd_positive_distance"):
            np.testing.assert_allclose(other[name], one[name], rtol=1e-4, err_msg=name)
    assert {path.name for path in (live_and_cached / "cache").iterdir()} == {"train", "held_out"}
    shapes = {part: np.load(live_and_cached / "cache" / part / "logits.npy").shape for part in ("train", "held_out")}
    assert shapes == {"train": (2, 1438, 10), "held_out": (1, 359, 10)}
    assert "--teacher_views=2" in (live_and_cached / "cached" / "flags.flags").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "seed 0 there, 1 here"),
        ({"augmentation": "crop_flip"}, "augmentation crop there, crop_and_flip here"),
        ({"teacher_views": 3}, "views 2 there, 3 here"),
        ({"test_fraction": 0.2, "split_seed": 1}, "images .* there"),
        ({"teacher_cache_dtype": "float16"}, "dtype float32 there, float16 here"),
        (
            {"teacher_layers": ("embedding",), "student_layers": ("embedding",), "method": "pkt"},
            "outputs .'logits'. there",
        ),
    ],
)
def test_another_experiment_does_not_get_it(change, message, live_and_cached, teacher_path, tmp_path):
    settings = {"method": "kd", "teacher_cache": str(live_and_cached / "cache"), "teacher_cache_dtype": "float32"}
    with pytest.raises(ValueError, match=f"{message}.*Choose another folder, or remove this one"):
        distill(tmp_path / "run", teacher_path, **settings | CROPPED | change)
    assert not (tmp_path / "run" / "student.keras").exists()


class TestAuto:
    """1,438 images for training and 359 for testing; the teacher takes a tenth of a second for each."""

    @pytest.fixture(autouse=True)
    def slow(self, monkeypatch):
        monkeypatch.setattr(cached_teacher, "_seconds_per_image", lambda source: 0.1)

    def resolve(self, splits, tmp_path, **settings):
        config = DistillConfig(**QUICK | {"method": "kd"} | settings)
        teacher = models.build("digits_teacher", splits.image_shape, splits.num_classes)
        inputs = Inputs(splits, teacher=teacher)
        return cached_teacher.resolve_teacher_cache(config, tmp_path / "run", inputs).teacher_cache

    @pytest.mark.parametrize(
        ("settings", "decision", "estimate"),
        [
            # 3 * (1438 + 359) / 10 s without; (1438 + 359) / 10 s with, and as many rows of ten numbers of two bytes.
            ({}, "workdir", "about 539.1 s of this run without one, 179.7 s with one of 35,940 bytes. On: in "),
            ({"teacher_cache_dtype": "float32"}, "workdir", "71,880 bytes"),
            ({"epochs": 1}, "off", "179.7 s of this run without one, 179.7 s .* Off: it would save less than 10 s"),
            # (2 * 1438 + 359) / 10 s.
            (CROPPED, "workdir", "539.1 s of this run without one, 323.5 s with one of 64,700 bytes. On"),
            ({"augmentation": "crop"}, "off", "Off: each epoch shows fresh views.*--teacher_views=K"),
            (CROPPED | {"teacher_views": 4}, "off", "539.1 s .* 611.1 s .* Off: it would save less"),
            ({"teacher_cache": "off"}, "off", None),
            ({"teacher_cache": "here"}, "here", None),
        ],
    )
    def test_decides_by_an_estimate_that_it_prints(self, settings, decision, estimate, splits, tmp_path, capsys):
        assert self.resolve(splits, tmp_path, **settings) == decision
        printed = capsys.readouterr().out
        if estimate is None:
            assert not printed
        else:
            assert re.fullmatch(f"Teacher cache: .*{estimate}.*\n", printed), printed
        assert not (tmp_path / "run").exists()

    def test_leaves_half_of_the_disk(self, splits, tmp_path, monkeypatch, capsys):
        usage = type("Usage", (), {"free": 2 * 35_940 - 1})
        monkeypatch.setattr(cached_teacher.shutil, "disk_usage", lambda _: usage)
        assert self.resolve(splits, tmp_path) == "off"
        assert "more than half of the 71,879 bytes that are free" in capsys.readouterr().out
        usage.free += 1
        assert self.resolve(splits, tmp_path) == "workdir"

    def test_what_it_decided_is_the_experiment(self, teacher_path, tmp_path, capsys, monkeypatch):
        results = distill(tmp_path / "run", teacher_path, method="kd")
        assert "On: in " in capsys.readouterr().out
        assert "--teacher_cache=workdir" in results["flags"]
        assert (tmp_path / "run" / "teacher_cache" / "train" / "logits.npy").exists()
        # The same command again, on a day when the estimate would say otherwise.
        monkeypatch.setattr(cached_teacher, "_seconds_per_image", lambda source: 0.0)
        assert distill(tmp_path / "run", teacher_path, method="kd") == results
        assert "Finished already" in capsys.readouterr().out
        # An interrupted run goes on with what it has begun with.
        (tmp_path / "run" / "results.json").unlink()
        shutil.rmtree(tmp_path / "run" / "checkpoints")
        again = distill(tmp_path / "run", teacher_path, method="kd")
        assert (
            again["flags"] == results["flags"]
            and again["student"]["test_accuracy"] == results["student"]["test_accuracy"]
        )
        # One that is to begin anew decides anew.
        config = DistillConfig(**QUICK, teacher_path=teacher_path, method="kd")
        assert "--teacher_cache=off" in commands.distill(config, tmp_path / "run", "overwrite")["flags"]
        assert not (tmp_path / "run" / "teacher_cache").exists()


def test_with_a_cache_nobody_holds_the_teacher(splits, tmp_path):
    config = DistillConfig(**QUICK, method="kd", teacher_cache="workdir").resolved()
    teacher = models.build("digits_teacher", splits.image_shape, splits.num_classes)
    kernel = weakref.ref(teacher.trainable_variables[0])
    run = Run(config, Workdir(tmp_path / "run", []))
    setup = distillation_setup.set_up_distillation(run, Inputs(splits), teacher)
    del teacher
    gc.collect()
    assert kernel() is None and setup.teacher is None
    batch, _ = next(iter(setup.pipeline(splits.train_images, splits.train_labels, training=True, batch_size=8, seed=0)))
    assert batch["teacher"]["logits"].shape == (8, 10)


def test_an_online_teachers_anchor_is_kept_generation_by_generation(tmp_path):
    curves = []
    for cache in ("off", "workdir"):
        settings = {"method": "trikd", "anchor": "random", "generations": 2, "learning_rate": 0.02, "epochs": 2}
        settings |= {"teacher_cache": cache, "teacher_cache_dtype": "float32", **CROPPED}
        commands.distill(DistillConfig(**QUICK | settings), tmp_path / cache)
        records = (tmp_path / cache / "checkpoints" / "generations").glob("*/student/record.json")
        curves.append([json.loads(path.read_text())["history"] for path in sorted(records)])
    folders = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/teacher_cache/*/*"))
    assert folders == [f"workdir/teacher_cache/anchor_{n}/{part}" for n in (1, 2) for part in ("held_out", "train")]
    live, cached = curves
    assert len(live) == 2
    # A divergence is the small rest of ten differences of log-probabilities near 2.3, each rounded to 2.4e-7.
    rounding = 10 * 2.3 * np.finfo("float32").eps
    for one, other in zip(sum(live, []), sum(cached, []), strict=True):
        for name in ("teacher_anchor", "student_anchor", "loss", "val_teacher_anchor"):
            np.testing.assert_allclose(other[name], one[name], rtol=1e-4, atol=rounding, err_msg=name)


def test_an_ensembles_teachers_are_kept_apart(teacher_path, tmp_path):
    other = shutil.copy(teacher_path, tmp_path / "other.keras")
    settings = {"method": "kd", "teacher_path": (teacher_path, str(other)), "teacher_average": "losses", "epochs": 1}
    curves = []
    for cache in ("off", "workdir"):
        settings |= {"teacher_cache": cache, "teacher_cache_dtype": "float32"}
        commands.distill(DistillConfig(**QUICK | settings), tmp_path / cache)
        curves.append(history(tmp_path / cache)[0])
    train = tmp_path / "workdir" / "teacher_cache" / "train"
    assert {path.name for path in train.glob("*.npy")} == {
        "logits.npy",
        "teacher_1%2Flogits.npy",
        "teacher_2%2Flogits.npy",
    }
    for name in ("kd", "val_kd", "loss"):
        assert curves[1][name] == pytest.approx(curves[0][name], rel=1e-4)
