"""The teacher cache of a run: the same experiment with and without it, decided once, refused where it would not be."""

import gc
import json
import re
import shutil
import weakref

import keras
import numpy as np
import pytest
import rounding

from keras_tkd import data, models
from keras_tkd.config import DistillConfig
from keras_tkd.runs import cached_teacher, commands, distillation_setup
from keras_tkd.runs.inputs import Inputs
from keras_tkd.runs.run import Run
from keras_tkd.runs.workdir import Workdir

# An epoch of `QUICK` has ceil(1438 / 256) steps.
STEPS = 6
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


def of_other_batches(steps):
    """How far values of a training may be from those with a cache, whose teacher saw the images in other batches.

    In a batch of another size sums are taken in another order. The longest of the teacher's has 3 * 3 * 64 terms.
    """
    return rounding.of_sums(3 * 3 * 64, steps)


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
            np.testing.assert_allclose(other[name], one[name], rtol=of_other_batches(3 * STEPS), err_msg=name)
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


@pytest.mark.parametrize("teachers", [1, 2])
def test_a_second_run_in_low_precision_reads_the_cache_of_the_first(teachers, teacher_path, tmp_path):
    """It is looked at before the teacher, which a file holds in float32, computes in the precision of the run."""
    paths = [str(shutil.copy(teacher_path, tmp_path / f"{name}.keras")) for name in range(teachers)]
    settings = {"method": "kd", "precision": "mixed_bfloat16", "teacher_cache": str(tmp_path / "cache"), "epochs": 1}
    settings |= {"teacher_average": "losses"} if teachers > 1 else {}
    first = distill(tmp_path / "first", tuple(paths), **settings)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")}
    second = distill(tmp_path / "second", tuple(paths), **settings)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.*")} == written and written
    assert second["student"] | {"seconds": None} == first["student"] | {"seconds": None}
    with pytest.raises(ValueError, match="architecture .* there, .* here"):
        distill(tmp_path / "third", tuple(paths), **settings | {"precision": "float32"})


class TestAuto:
    """1,438 images for training and 359 for testing, 1,797 in an epoch.

    The teacher has 73,098 parameters: 9 * 32 + 32 and 288 * 64 + 64 and 576 * 64 + 64 of its convolutions, 4 * 64 of
    the BatchNorm, 256 * 64 + 64 and 64 * 10 + 10 of its dense layers. 54,722 images times these are just above 4e9.
    """

    def resolve(self, splits, tmp_path, **settings):
        config = DistillConfig(**QUICK | {"method": "kd", "epochs": 60} | settings)
        teacher = models.build("digits_teacher", splits.image_shape, splits.num_classes)
        inputs = Inputs(splits, teacher=teacher)
        return cached_teacher.resolve_teacher_cache(config, tmp_path / "run", inputs).teacher_cache

    @pytest.mark.parametrize(
        ("settings", "decision", "printed"),
        [
            # 60 * 1797 images; 1797 images, and as many rows of ten numbers of four bytes.
            ({}, "workdir", "73,098 parameters sees 107,820 images .* without one, 1,797 .* of 71,880 bytes. On: in "),
            ({"teacher_cache_dtype": "float16"}, "workdir", "35,940 bytes"),
            ({"epochs": 1}, "off", "1,797 images .* without one, 1,797 with one .* Off: .* are 0.0e.00, and 4.0e.09 "),
            # 30 * 1797 = 53,910 images saved, and 31 * 1797 = 55,707.
            ({"epochs": 31}, "off", "Off: images saved x parameters are 3.9e.09, and 4.0e.09 are worth a cache"),
            ({"epochs": 32}, "workdir", "57,504 images .* without one, 1,797 with one .* On: in"),
            # 2 * 1438 + 359 images.
            (CROPPED, "workdir", "107,820 images .* without one, 3,235 with one of 129,400 bytes. On"),
            ({"augmentation": "crop"}, "off", "Off: each epoch shows fresh views.*--teacher_views=K"),
            # 40 * 1438 + 359 images: less than 54,722 of 107,820 are saved.
            (CROPPED | {"teacher_views": 40}, "off", "57,879 with one .* Off: images saved x parameters are 3.7e.09"),
            ({"teacher_cache": "off"}, "off", None),
            ({"teacher_cache": "here"}, "here", None),
        ],
    )
    def test_decides_by_counts_that_it_prints(self, settings, decision, printed, splits, tmp_path, capsys):
        assert self.resolve(splits, tmp_path, **settings) == decision
        output = capsys.readouterr().out
        if printed is None:
            assert not output
        else:
            assert re.fullmatch(f"Teacher cache: .*{printed}.*\n", output), output
        assert not (tmp_path / "run").exists()

    def test_is_bounded_in_size(self, splits, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(cached_teacher, "_LARGEST_SIZE", 71_879)
        assert self.resolve(splits, tmp_path) == "off"
        assert "Off: it would take more than 71,879 bytes" in capsys.readouterr().out
        monkeypatch.setattr(cached_teacher, "_LARGEST_SIZE", 71_880)
        assert self.resolve(splits, tmp_path) == "workdir"

    @pytest.mark.parametrize("cache", ["auto", "workdir", "elsewhere"])
    def test_a_disk_without_room_is_refused_before_any_work(self, cache, splits, tmp_path, monkeypatch):
        folder = tmp_path / ("elsewhere" if cache == "elsewhere" else "run/teacher_cache")
        settings = {"teacher_cache": str(folder) if cache == "elsewhere" else cache}
        usage = type("Usage", (), {"free": 71_879})
        monkeypatch.setattr(cached_teacher.shutil, "disk_usage", lambda _: usage)
        with pytest.raises(OSError, match=f"in {folder} takes 71,880 .* 71,879 are free.*--teacher_cache=off"):
            self.resolve(splits, tmp_path, **settings)
        assert not list(tmp_path.iterdir())
        # Nor is it where no cache is asked for, and where a part of it is there.
        assert self.resolve(splits, tmp_path, teacher_cache="off") == "off"
        (folder / "train").mkdir(parents=True)
        (folder / "train" / "logits.npy").write_bytes(b"1")
        self.resolve(splits, tmp_path, **settings)

    def test_with_and_without_is_the_same_experiment(self, teacher_path, tmp_path, monkeypatch):
        monkeypatch.setattr(cached_teacher, "_WORTH_SAVING", 1)
        students = []
        for cache in ("off", "auto"):
            distill(tmp_path / cache, teacher_path, method="kd", teacher_cache=cache)
            students.append(keras.saving.load_model(tmp_path / cache / "student.keras").get_weights())
        assert (tmp_path / "auto" / "teacher_cache" / "train" / "logits.npy").exists()
        for live, cached in zip(*students, strict=True):
            # Gradients, of the order of 1, move the weights by the learning rate.
            np.testing.assert_allclose(cached, live, rtol=0, atol=0.05 * of_other_batches(3 * STEPS))

    def test_what_it_decided_is_the_experiment(self, teacher_path, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(cached_teacher, "_WORTH_SAVING", 1)
        results = distill(tmp_path / "run", teacher_path, method="kd")
        assert "On: in " in capsys.readouterr().out
        assert "--teacher_cache=workdir" in results["flags"]
        assert (tmp_path / "run" / "teacher_cache" / "train" / "logits.npy").exists()
        # The same command again, with a version that would decide otherwise.
        monkeypatch.setattr(cached_teacher, "_WORTH_SAVING", 10**12)
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


@pytest.mark.parametrize("place", ["own", "named", "linked"])
def test_a_runs_own_cache_is_made_again_where_the_run_was_changed(place, splits, tmp_path):
    folder = tmp_path / ("run/teacher_cache" if place == "own" else "elsewhere")
    if place == "linked":
        (tmp_path / "run").mkdir()
        folder.mkdir()
        (tmp_path / "run" / "teacher_cache").symlink_to(folder)
    teacher = models.build("digits_student", splits.image_shape, splits.num_classes)

    def build(**settings):
        cache = str(folder) if place == "named" else "workdir"
        config = DistillConfig(**QUICK, method="kd", teacher_path="t.keras", teacher_cache=cache, **settings).resolved()
        run = Run(config, Workdir(tmp_path / "run", [], "continue"))
        return cached_teacher.build(run, Inputs(splits), teacher)

    build()
    if place == "own":
        assert build(teacher_cache_dtype="float16")["held_out"].outputs["logits"].dtype == "float16"
        return
    # Other runs may read one that lies elsewhere.
    with pytest.raises(ValueError, match="was made from something else: dtype float32 there, float16 here"):
        build(teacher_cache_dtype="float16")


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
    # Two generations of two epochs, the second with the first's student for its anchor. A divergence is, besides, the
    # small rest of ten differences of log-probabilities near 2.3, each rounded to 2.4e-7.
    rtol, atol = of_other_batches(2 * 2 * STEPS), 10 * np.log(10) * rounding.EPS
    for one, other in zip(sum(live, []), sum(cached, []), strict=True):
        for name in ("teacher_anchor", "student_anchor", "loss", "val_teacher_anchor"):
            np.testing.assert_allclose(other[name], one[name], rtol=rtol, atol=atol, err_msg=name)


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
        assert curves[1][name] == pytest.approx(curves[0][name], rel=of_other_batches(STEPS))
