"""The teacher cache: the teacher's own outputs for the very images that the student sees, or an error."""

import functools
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import rounding
import tensorflow as tf

from keras_tkd import Distiller, TeacherCache, TeacherEnsemble
from keras_tkd.data import (
    Mixing,
    crop_and_flip,
    image_dataset,
    make_augmentation,
    make_view_seeds,
    pair_dataset,
    triplet_dataset,
)
from keras_tkd.losses import SimilarityPreserving, SoftTargets, TripletDistillation
from keras_tkd.teacher_cache import builder
from keras_tkd.teacher_cache.checksums import extend_checksums
from keras_tkd.teacher_cache.files import CacheFiles
from keras_tkd.teacher_cache.fingerprints import describe_function, hash_layers, hash_weights
from keras_tkd.utils.locks import wait_for_folder
from keras_tkd.utils.saved_models import load_saved_model

COUNT, CLASSES, VIEWS, SEED = 14, 3, 3, 5
IMAGES = np.random.default_rng(0).integers(1, 256, (COUNT, 6, 5, 2), dtype=np.uint8)
LABELS = np.arange(COUNT) % CLASSES
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ACCURACY = keras.metrics.SparseCategoricalAccuracy  # made before the step, which is then traced once
crop = functools.partial(crop_and_flip, padding=2)
SEEN = {"augment": crop, "seed": SEED, "views": VIEWS}
CHEAP = {"dtype": "float16", "batch_size": 4, "progress": False}


def network(seed, width=4, activation="relu", classes=CLASSES):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(width, 3, activation=activation, name="features"),
            keras.layers.Flatten(),
            keras.layers.Dense(classes, name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def teacher():
    return network(1)


@pytest.fixture(scope="module")
def pixels():
    """A teacher whose logits are the pixels that it sees."""
    return keras.Sequential([keras.Input((6, 5, 2)), keras.layers.Rescaling(1.0), keras.layers.Flatten()])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, teacher):
    """A finished cache; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("caches") / "finished"
    build(teacher, folder, losses=[SimilarityPreserving("features", "features")])
    return folder


def build(teacher, folder, images=IMAGES, **arguments):
    return TeacherCache.build(teacher, images, folder, **SEEN | CHEAP | arguments)


def correlation(image, kernel, bias):
    """Valid correlation of one image with a kernel, by loops, in float64."""
    height, width = image.shape[0] - 2, image.shape[1] - 2
    result = np.empty((height, width, kernel.shape[-1]))
    for row, column in np.ndindex(height, width):
        result[row, column] = np.einsum("hwc,hwcd->d", image[row : row + 3, column : column + 3], kernel) + bias
    return result


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_rows_are_what_the_teacher_says_of_each_view(dtype, teacher, tmp_path):
    losses = [SoftTargets(), SimilarityPreserving("features", "features")]
    cache = build(teacher, tmp_path / "cache", losses=losses, dtype=dtype)
    assert (cache.views, cache.samples) == (VIEWS, COUNT)
    assert cache.shapes == {"logits": (None, CLASSES), "features": (None, 4, 3, 4)}
    kernel, bias, weights, offset = (w.astype("float64") for w in teacher.get_weights())
    for view, i in np.ndindex(VIEWS, COUNT):
        image = crop(IMAGES[i : i + 1], make_view_seeds([i], SEED, view)).numpy()[0] / 255
        features = np.maximum(correlation(image, kernel, bias), 0)
        expected = {"features": features, "logits": features.reshape(-1) @ weights + offset}
        for name, array in cache.outputs.items():
            assert array.dtype == dtype
            # Half a unit in the last of 11 bits is 2^-11 of a value.
            np.testing.assert_allclose(array[view, i], expected[name], rtol=2**-11 + 1e-5, atol=1e-6)
    rounded = any((np.float32(array) != np.float16(array)).any() for array in cache.outputs.values())
    assert rounded == (dtype == "float32")


@pytest.mark.parametrize("make", [triplet_dataset, pair_dataset])
def test_the_student_sees_what_the_teacher_saw_to_the_bit(make, pixels, tmp_path):
    cache = build(pixels, tmp_path / "cache")
    dataset = make(IMAGES, LABELS, 4, **SEEN)
    attached = cache.attach(dataset)
    assert int(attached.cardinality()) == int(dataset.cardinality())
    seen = set()
    for _ in range(2 * VIEWS):
        for batch, label in attached.as_numpy_iterator():
            np.testing.assert_array_equal(batch["teacher"]["logits"], batch["image"].reshape(len(label), -1))
            assert batch["teacher"]["logits"].dtype == np.float32
            seen |= set(zip(batch["index"], batch["view"], strict=True))
    assert seen == set(itertools.product(range(COUNT), range(VIEWS)))


def test_without_augmentation_there_is_one_view_and_the_seed_is_nothing_to_it(pixels, tmp_path):
    plain = {"augment": None, "views": 1}
    cache = build(pixels, tmp_path / "cache", **plain)
    build(pixels, tmp_path / "cache", **plain, seed=SEED + 1)
    for training in (True, False):
        dataset = cache.attach(triplet_dataset(IMAGES, LABELS, 4, seed=7, training=training), key="anchor")
        for batch, _ in dataset.as_numpy_iterator():
            assert "teacher" not in batch
            np.testing.assert_array_equal(batch["anchor"]["logits"], batch["image"].reshape(-1, 60))


def test_a_single_loss_is_taken_as_by_the_distiller(teacher, tmp_path):
    assert set(build(teacher, tmp_path, losses=SimilarityPreserving("features", "features")).shapes) == {
        "logits",
        "features",
    }


def test_rows_are_shared_and_not_copied(finished):
    cache = TeacherCache.open(finished)
    attached = cache.attach(triplet_dataset(IMAGES, LABELS, 4, **SEEN))
    for array in cache.outputs.values():
        array[:] = 7
    for batch, _ in attached:
        for output in batch["teacher"].values():
            assert (output.numpy() == 7).all()


def test_nothing_is_rounded_unless_asked_for(pixels, tmp_path):
    fine = keras.Sequential([pixels, keras.layers.Rescaling(1 + 2**-20)])
    cache = TeacherCache.build(fine, IMAGES, tmp_path / "cache", progress=False)
    # Eight bits of a pixel and twenty more are beyond the 24 of float32 for some, and beyond the 11 of float16 for all.
    np.testing.assert_array_equal(cache.outputs["logits"][0], IMAGES.reshape(COUNT, -1) * np.float32(1 + 2**-20))
    assert (cache.outputs["logits"] != cache.outputs["logits"].astype("float16")).all()


def test_images_of_another_size_than_the_teachers_are_resized_for_it(tmp_path):
    teacher = keras.Sequential([keras.Input((3, 5, 2)), keras.layers.Flatten()])
    cache = build(teacher, tmp_path / "cache", dtype="float32", augment=None, views=1)
    expected = tf.image.resize(IMAGES, (3, 5), antialias=True).numpy().reshape(COUNT, -1)
    np.testing.assert_allclose(cache.outputs["logits"][0], expected, rtol=1e-6)


class TestTraining:
    """Twenty steps, five to an epoch: the losses of kd, tkd with drawn negatives and sp on features, side by side."""

    LOSSES = {"kd": SoftTargets, "tkd": TripletDistillation, "sp": lambda: SimilarityPreserving("features", "features")}

    def distiller(self, teacher, losses):
        distiller = Distiller(teacher, network(2), losses, [0.9, 0.5, 10.0], 0.1)
        distiller.compile(keras.optimizers.SGD(0.05, momentum=0.9), LABEL_LOSS, metrics=[ACCURACY("accuracy")])
        return distiller

    def test_losses_are_those_of_the_live_teacher(self, teacher, tmp_path):
        losses = [make() for make in self.LOSSES.values()]
        cache = build(teacher, tmp_path / "train", losses=losses, dtype="float32")
        held_out = build(teacher, tmp_path / "held_out", losses=losses, dtype="float32", augment=None, views=1)

        def batches(training):
            return triplet_dataset(IMAGES, LABELS, 3, **SEEN, training=training)

        live = self.distiller(teacher, losses)
        cached = self.distiller(None, losses)
        histories, first_steps = [], []
        for distiller, train, test in (
            (live, batches(True), batches(False)),
            (cached, cache.attach(batches(True)), held_out.attach(batches(False))),
        ):
            steps = []
            watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda _, logs, steps=steps: steps.append(logs))
            given = {"validation_data": test, "validation_freq": 4, "callbacks": [watch]}
            histories.append(distiller.fit(train, epochs=4, verbose=0, shuffle=False, **given).history)
            assert len(steps) == 20
            first_steps.append(steps[0])
        live, cached = histories
        assert set(live) == set(cached) and {*self.LOSSES, "agreement", "val_tkd", "val_agreement"} <= set(live)
        # For the cache the teacher saw the images in other batches, where sums, the longest of 4 * 3 * 4 terms, are
        # taken in another order. Of the losses kd's has the largest parts, at T = 4.
        rtol, atol = rounding.of_sums(4 * 3 * 4), rounding.of_soft_targets(4, 3)
        for name in (*self.LOSSES, "loss", "student_loss"):
            np.testing.assert_allclose(first_steps[1][name], first_steps[0][name], rtol, atol, err_msg=name)
            for key in (name, f"val_{name}"):
                np.testing.assert_allclose(cached[key], live[key], 20 * rtol, atol, err_msg=key)
        assert live["loss"][-1] < live["loss"][0]

    def test_a_distiller_without_a_teacher_is_saved_and_goes_on(self, finished, teacher, tmp_path):
        losses = [make() for make in self.LOSSES.values()]
        batches = TeacherCache.open(finished).attach(triplet_dataset(IMAGES, LABELS, 7, **SEEN))
        distiller = self.distiller(None, losses)
        distiller.fit(batches, verbose=0, shuffle=False)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.saving.load_model(tmp_path / "distiller.keras")
        assert loaded.teacher is None
        one, other = (d.evaluate(batches.take(1), verbose=0, return_dict=True) for d in (distiller, loaded))
        assert one.keys() == other.keys()

    def test_a_batch_without_outputs_is_one_clear_error(self):
        distiller = self.distiller(None, [make() for make in self.LOSSES.values()])
        with pytest.raises(ValueError, match="Without a teacher, batches must bring its outputs"):
            distiller.fit(triplet_dataset(IMAGES, LABELS, COUNT, seed=0), verbose=0)

    def test_classes_are_checked_by_the_caches_shapes(self, finished):
        distiller = Distiller(None, network(2, classes=CLASSES + 1), SoftTargets())
        with pytest.raises(ValueError, match=r"\(None, 3\), student \(None, 4\)"):
            distiller.build({"image": (None, 6, 5, 2), "teacher": TeacherCache.open(finished).shapes})


def softer(weights):
    model = network(1)
    model.set_weights([weights[0] * 0.99, *weights[1:]])
    return model


def test_a_copy_of_a_saved_model_is_the_same_teacher(teacher, tmp_path, monkeypatch):
    """And so is another export, whose file is another one."""
    for name in ("saved", "again"):
        teacher.export(str(tmp_path / name), verbose=False)
    built = build(load_saved_model(tmp_path / "saved"), tmp_path / "cache")
    shutil.copytree(tmp_path / "saved", tmp_path / "copies" / "of_mine")
    monkeypatch.chdir(tmp_path)
    for path in ("saved", tmp_path / "copies" / "of_mine", "again"):
        same = build(load_saved_model(path), tmp_path / "cache")
        np.testing.assert_array_equal(same.outputs["logits"], built.outputs["logits"])


def scale(factor):
    """A teacher with a constant that no layer's settings hold."""
    inputs = keras.Input((6, 5, 2))
    return keras.Model(inputs, network(1)(keras.ops.multiply(inputs, np.full((1, 6, 5, 2), factor, "float32"))))


@pytest.mark.parametrize(
    "make", [lambda other: network(1, activation="tanh" if other else "relu"), lambda other: scale(2 if other else 1)]
)
def test_a_saved_model_of_the_same_weights_that_computes_otherwise_is_another_teacher(make, tmp_path):
    hashes = []
    for other in (False, True):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        make(other).export(str(tmp_path / "saved"), verbose=False)
        loaded = load_saved_model(tmp_path / "saved")
        hashes.append((hash_weights(loaded), hash_layers(loaded)))
    assert hashes[0][0] == hashes[1][0] and hashes[0][1] != hashes[1][1]


class TestAnythingElseIsRefused:
    @pytest.mark.parametrize(
        ("key", "there", "here", "change"),
        [
            ("teacher", r"\w{32}", r"\w{32}", lambda teacher: {"teacher": softer(teacher.get_weights())}),
            ("architecture", r"\w{32}", r"\w{32}", lambda teacher: {"teacher": network(1, activation="tanh")}),
            ("images", r"\w{32}", r"\w{32}", lambda _: {"images": IMAGES[::-1]}),
            ("samples", "14", "13", lambda _: {"images": IMAGES[:-1]}),
            ("seed", "5", "6", lambda _: {"seed": 6}),
            ("views", "3", "2", lambda _: {"views": 2}),
            ("augmentation", r"crop_and_flip\(padding=2\)", r"crop_and_flip\(padding=1\)", lambda _: {"augment": one}),
            ("augmentation", r"crop_and_flip\(padding=2\)", "None", lambda _: {"augment": None, "views": 1}),
            ("dtype", "float16", "float32", lambda _: {"dtype": "float32"}),
            ("outputs", r"\['features', 'logits'\]", r"\['logits'\]", lambda _: {"losses": []}),
            ("preprocessing", "None", "caffe", lambda _: {"about": {"preprocessing": "caffe"}}),
        ],
    )
    def test_with_both_values_and_the_way_out(self, key, there, here, change, finished, teacher):
        given = {"teacher": teacher, "losses": [SimilarityPreserving("features", "features")]} | change(teacher)
        before = {path.name: path.stat().st_mtime_ns for path in finished.iterdir()}
        with pytest.raises(ValueError, match=f"{key} {there} there, {here} here.*remove this one and build it anew"):
            build(folder=finished, **given)
        assert {path.name: path.stat().st_mtime_ns for path in finished.iterdir()} == before

    def test_an_augmentation_that_does_something_else_under_the_same_name(self, teacher, tmp_path):
        def augment(images, seeds, bound=[2]):  # noqa: B006
            return crop_and_flip(images, seeds, padding=bound[0])

        build(teacher, tmp_path / "cache", augment=augment)
        augment.__defaults__[0][0] = 1
        with pytest.raises(ValueError, match=r"some_views \w{32} there, \w{32} here"):
            build(teacher, tmp_path / "cache", augment=augment)

    def test_what_open_expects(self, finished):
        assert TeacherCache.open(finished, seed=SEED, views=VIEWS).views == VIEWS
        with pytest.raises(ValueError, match="seed 5 there, 6 here; views 3 there, 4 here"):
            TeacherCache.open(finished, seed=6, views=4)

    def test_rows_that_are_not_the_teachers(self, teacher, tmp_path):
        build(teacher, tmp_path / "cache")
        logits = np.lib.format.open_memmap(tmp_path / "cache" / "logits.npy", "r+")
        logits[VIEWS - 1, COUNT - 1, 2] += 0.25
        logits.flush()
        # Of whole files, which hold what was written: it was the wrong thing that was.
        checksums = {"logits": extend_checksums([], 0, logits.reshape(COUNT * VIEWS, CLASSES))}
        CacheFiles(tmp_path / "cache").record_progress({"rows": COUNT * VIEWS, "checksums": checksums})
        with pytest.raises(ValueError, match="does not hold what the teacher says: 'logits' of sample 13 in view 2"):
            build(teacher, tmp_path / "cache")

    def test_unless_it_is_to_be_rebuilt(self, teacher, tmp_path, capsys):
        folder, other = tmp_path / "cache", softer(teacher.get_weights())
        build(teacher, folder, losses=[SimilarityPreserving("features", "features")])
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match="a folder of its own.*notes.txt"):
            build(other, folder, rebuild=True)
        assert (folder / "notes.txt").read_text() == "mine"
        (folder / "notes.txt").unlink()
        build(teacher, folder, losses=[SimilarityPreserving("features", "features")])
        capsys.readouterr()
        rebuilt = build(other, folder, views=2, rebuild=True).outputs
        assert "made from something else: it is built anew" in capsys.readouterr().out
        assert rebuilt.keys() == {"logits"} and not (folder / "features.npy").exists()
        np.testing.assert_array_equal(rebuilt["logits"], build(other, tmp_path / "new", views=2).outputs["logits"])
        # What fits is kept.
        before = (folder / "logits.npy").stat().st_mtime_ns
        build(other, folder, views=2, rebuild=True)
        assert (folder / "logits.npy").stat().st_mtime_ns == before and not capsys.readouterr().out

    def test_the_teacher_of_a_file_is_the_teacher(self, finished, teacher, tmp_path):
        teacher.save(tmp_path / "teacher.keras")
        loaded = keras.saving.load_model(tmp_path / "teacher.keras")
        loaded.trainable = False
        build(loaded, finished, losses=[SimilarityPreserving("features", "features")])


one = functools.partial(crop_and_flip, padding=1)


class TestBadArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"views": 0}, "`views` must be >= 1.*views=0"),
            ({"views": 2, "augment": None}, "1 without `augment`.*views=2"),
            ({"views": None}, "`views` must be the number.*views=None"),
            ({"dtype": "int8"}, "`dtype` must be one of float16, float32.*dtype='int8'"),
            ({"seed": -1}, "`seed` must be in.*seed=-1"),
            ({"batch_size": 0}, "`batch_size` must be >= 1.*batch_size=0"),
            ({"images": IMAGES[:0]}, "`images` must hold a sample"),
            ({"losses": [SimilarityPreserving("nowhere", "features")]}, "nowhere"),
        ],
    )
    def test_before_anything_is_written(self, arguments, message, teacher, tmp_path):
        with pytest.raises(ValueError, match=message):
            build(teacher, tmp_path / "cache", **arguments)
        assert not (tmp_path / "cache").exists()

    def test_batches_that_do_not_fit(self, finished, teacher, tmp_path):
        cache = TeacherCache.open(finished)
        plain = build(teacher, tmp_path / "cache", augment=None, views=1)
        with pytest.raises(ValueError, match="A cache is attached to batches"):
            cache.attach(image_dataset(IMAGES, LABELS, 4, **SEEN))
        with pytest.raises(ValueError, match="cache of augmentation=crop_and_flip.*without augmentation"):
            cache.attach(triplet_dataset(IMAGES, LABELS, 4, seed=SEED))
        with pytest.raises(ValueError, match="cache of augmentation=None, batches with augmentation"):
            plain.attach(triplet_dataset(IMAGES, LABELS, 4, **SEEN))

    @pytest.mark.parametrize("change", [{"initial_epoch": VIEWS}, {"images": np.concatenate([IMAGES, IMAGES[:1]])}])
    def test_a_view_or_a_sample_that_is_not_there(self, change, finished):
        images = change.pop("images", IMAGES)
        fresh = triplet_dataset(images, np.arange(len(images)) % 2, len(images), augment=crop, seed=SEED, **change)
        with pytest.raises(tf.errors.InvalidArgumentError, match="holds 3 views of 14 samples"):
            list(TeacherCache.open(finished).attach(fresh))

    @pytest.mark.parametrize(
        ("scale", "message"), [(1e6, "float16 ends at 65504.*dtype='float32'"), (np.nan, "is not finite")]
    )
    def test_outputs_that_float16_does_not_hold(self, scale, message, tmp_path):
        loud = keras.Sequential([keras.Input((6, 5, 2)), keras.layers.Rescaling(scale), keras.layers.Flatten()])
        with pytest.raises(ValueError, match=message):
            build(loud, tmp_path / "cache")
        if scale == 1e6:
            assert build(loud, tmp_path / "wide", dtype="float32").outputs["logits"].max() == 255e6


class TestOutputsThatAreNotFinite:
    @pytest.mark.parametrize(
        ("where", "message"),
        [
            ((9, 2, 3, 1), "'logits' is not finite for sample 9 in view 0, nor are its pixels"),
            (None, "'logits' is not finite for sample 4 in view 0, though its pixels are: the teacher is at fault"),
        ],
    )
    def test_are_blamed_on_the_image_or_on_the_teacher(self, where, message, tmp_path):
        images = IMAGES.astype("float32")
        images[4, 0, 0, 0] = 300.0
        if where:
            images[where] = np.nan
        # One number of one image: the logarithm of a negative one, where the teacher is at fault.
        pixels = keras.Input((6, 5, 2))
        outputs = keras.layers.Flatten()(pixels)
        teacher = keras.Model(pixels, outputs if where else keras.ops.log(299.0 - outputs))
        with pytest.raises(ValueError, match=message):
            build(teacher, tmp_path / "cache", images, augment=None, views=1)

    def test_are_no_agreement_with_a_teacher_of_today(self, teacher, tmp_path, monkeypatch):
        broken = softer(teacher.get_weights())
        broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
        monkeypatch.setattr(builder.fingerprints, "hash_weights", lambda _: "1")
        build(teacher, tmp_path / "cache")
        with pytest.raises(ValueError, match="not finite for sample 0 in view 2, though its pixels are"):
            build(broken, tmp_path / "cache")

    def test_are_found_when_a_batch_is_read(self, finished):
        cache = TeacherCache.open(finished)
        attached = cache.attach(triplet_dataset(IMAGES, LABELS, COUNT, **SEEN))
        cache.outputs["features"][:, 7, 1, 2, 3] = np.inf
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)teacher cache.*not finite.*\[7\]"):
            next(iter(attached))


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def interrupt_after(batches, error, monkeypatch):
    """Lets the source of images fail after so many batches; returns how many the teacher was shown, in the end."""
    shown = []
    original = builder.CacheRecipe.make_batches

    def failing(recipe, *arguments):
        for batch in original(recipe, *arguments):
            if len(shown) == batches:
                raise error
            shown.append(len(batch))
            yield batch

    monkeypatch.setattr(builder.CacheRecipe, "make_batches", failing)
    return shown


class TestWritingThatWasCutOff:
    @pytest.mark.parametrize("batches", [0, 2, 4, 9])  # none; inside a view; at its end; inside the last one
    def test_is_continued_to_the_same_bits(self, batches, teacher, finished, tmp_path, monkeypatch, capsys):
        arguments = {"folder": tmp_path / "cache", "losses": [SimilarityPreserving("features", "features")]}
        with monkeypatch.context() as patch:
            shown = interrupt_after(batches, KeyboardInterrupt(), patch)
            with pytest.raises(KeyboardInterrupt):
                build(teacher, **arguments)
        rows = sum(shown)
        with pytest.raises(ValueError, match=f"not finished: {rows} of 42 rows are written. Build it again"):
            TeacherCache.open(tmp_path / "cache")
        with pytest.raises(ValueError, match="seed 5 there, 6 here"):
            build(teacher, **arguments, seed=6)
        # Bytes that nothing vouches for, as a kill leaves them.
        with open(tmp_path / "cache" / "logits.npy", "ab") as file:
            file.write(b"x" * 11)
        shown = interrupt_after(99, None, monkeypatch)
        build(teacher, **arguments, progress=True)
        assert sum(shown) == COUNT * VIEWS - rows
        assert (f"{rows:,} are there" in capsys.readouterr().out) == (rows > 0)
        assert read_files(tmp_path / "cache") == read_files(finished)

    def test_truncated_files_are_refused(self, teacher, finished, tmp_path):
        folder = tmp_path / "cache"
        for name, keep in (("logits.npy", 130), ("features.npy", 0)):
            folder.mkdir(exist_ok=True)
            for path in finished.iterdir():
                (folder / path.name).write_bytes(path.read_bytes())
            size = (folder / name).stat().st_size
            (folder / name).write_bytes((folder / name).read_bytes()[:keep])
            for use in (
                TeacherCache.open,
                lambda folder: build(teacher, folder, losses=[SimilarityPreserving(*2 * ["features"])]),
            ):
                with pytest.raises(
                    ValueError, match=f"{name} is truncated: it has {keep} bytes, and should have {size:,}.*remove"
                ):
                    use(folder)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("manifest.json", "{", "no teacher cache that can be read"),
            ("manifest.json", '{"format": 1}', "its format is 1, and this version reads 2"),
            ("manifest.json", '{"format": 99}', "its format is 99, and this version reads 2"),
            ("progress.json", "", "progress.json cannot be read"),
        ],
    )
    def test_records_that_cannot_be_read(self, name, text, message, finished, tmp_path):
        for path in finished.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{message}.*remove this one and build it anew"):
            TeacherCache.open(tmp_path)

    def test_no_cache(self, teacher, tmp_path):
        with pytest.raises(ValueError, match="no teacher cache in .*TeacherCache.build"):
            TeacherCache.open(tmp_path / "nothing")
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(ValueError, match="holds thesis.tex. Choose an empty or a new folder"):
            build(teacher, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


# Dies at a step of writing: before the system is asked to sync or to move a file, or with a half of the bytes written.
KILLED = """
import os, pathlib, signal, sys
from keras_tkd.teacher_cache import writer

folder, tests, steps = sys.argv[1:]
left = int(steps)

def count():
    global left
    left -= 1
    return left == 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def counted(function):
    return lambda *arguments, **named: die() if count() else function(*arguments, **named)

def half_written(file, data, write=writer._write_all):
    data = memoryview(data).cast("B")
    if count():
        write(file, data[: len(data) // 2])
        die()
    write(file, data)

os.fsync, os.replace, writer._write_all = counted(os.fsync), counted(os.replace), half_written
writer._RECORD_SECONDS = 0.0  # each batch counts at once: there is something to go on from
sys.path[:0] = [tests, os.path.dirname(tests)]
import test_cache as t
t.build(t.network(1), pathlib.Path(folder), losses=[t.SimilarityPreserving("features", "features")])
"""


def test_a_builder_that_is_killed_again_and_again_ends_in_the_same_bits(teacher, finished, tmp_path):
    """Three kills at steps drawn at random: before a sync, before a file is moved, and with half of a batch written."""
    folder = tmp_path / "cache"
    written = []
    for steps in np.random.default_rng(7).integers(2, 24, 3):
        command = [sys.executable, "-c", KILLED, str(folder), os.path.dirname(__file__), str(steps)]
        killed = subprocess.run(command, capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        written.append(CacheFiles(folder).rows_written)
    # Each went on where the one before it had been killed, and none came to the end of three views.
    assert 0 < written[0] < written[1] < written[2] < VIEWS * COUNT
    build(teacher, folder, losses=[SimilarityPreserving("features", "features")])
    assert read_files(folder) == read_files(finished)


class TestSeveralProcesses:
    def test_one_builds_and_the_other_waits(self, teacher, tmp_path, capsys):
        folder = tmp_path / "cache"
        folder.mkdir()
        caches = []
        thread = threading.Thread(target=lambda: caches.append(build(teacher, folder)))
        with wait_for_folder(folder, "building the teacher cache"):
            thread.start()
            thread.join(timeout=0.5)
            assert not (folder / "manifest.json").exists()
            # The other one builds it meanwhile.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("keras_tkd.utils.locks.fcntl", None)
                build(teacher, folder)
            before = read_files(folder)
        thread.join()
        assert "waiting for it" in capsys.readouterr().out
        assert caches[0].views == VIEWS and read_files(folder) == before

    def test_a_finished_cache_is_read_where_nothing_can_be_written(self, finished, teacher):
        mode = finished.stat().st_mode
        finished.chmod(0o555)
        try:
            one, other = (
                TeacherCache.open(finished),
                build(teacher, finished, losses=[SimilarityPreserving(*2 * ["features"])]),
            )
        finally:
            finished.chmod(mode)
        for name in one.outputs:
            np.testing.assert_array_equal(one.outputs[name], other.outputs[name])
        # A row that someone overwrites in memory stays out of the file.
        one.outputs["logits"][:] = 0
        assert (np.load(finished / "logits.npy") != 0).any() and (other.outputs["logits"] != 0).any()


def test_progress_is_at_most_about_ten_lines(teacher, tmp_path, capsys):
    build(teacher, tmp_path / "cache", progress=True, batch_size=1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Teacher cache: the teacher's outputs for 14 images in 3 views"
    assert lines[-1].startswith("  42/42 images") and 3 < len(lines) <= 12


def test_manifest_says_what_it_was_made_with(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    assert manifest["outputs"] == {"logits": [3], "features": [4, 3, 4]}
    assert manifest["versions"]["tensorflow"] == tf.__version__
    assert CacheFiles(finished).rows_written == COUNT * VIEWS


def test_how_an_ensemble_combines_its_teachers_is_part_of_it(teacher, tmp_path):
    teachers = [teacher, network(2)]
    build(TeacherEnsemble(teachers, average="logits", teacher_weights=[0.5, 0.5]), tmp_path / "cache")
    with pytest.raises(ValueError, match=r"combined \['logits', .*there, \['logits', .*here"):
        build(TeacherEnsemble(teachers, average="logits", teacher_weights=[0.25, 0.75]), tmp_path / "cache")
    with pytest.raises(ValueError, match=r"combined \['logits', .*there, \['probabilities', .*here"):
        build(TeacherEnsemble(teachers, average="probabilities", teacher_weights=[0.5, 0.5]), tmp_path / "cache")


class TestMixedImages:
    """A mixed image, with its partner, share and box, is a function of sample and view: so it comes again."""

    MIX = Mixing(CLASSES, mixup=0.5, cutmix=1.0)

    @pytest.mark.parametrize("augment", [None, crop])
    def test_the_teacher_saw_what_the_student_sees(self, augment, pixels, tmp_path):
        seen = {"seed": SEED, "views": VIEWS, "augment": augment, "mix": self.MIX}
        cache = TeacherCache.build(pixels, IMAGES, tmp_path, **seen, batch_size=4, progress=False)
        dataset = cache.attach(triplet_dataset(IMAGES, LABELS, 5, negatives=None, **seen))
        shown = set()
        for _ in range(2 * VIEWS):
            for batch, _ in dataset.as_numpy_iterator():
                np.testing.assert_array_equal(batch["teacher"]["logits"], batch["image"].reshape(-1, 60))
                shown |= set(zip(batch["index"], batch["mixed_view"], strict=True))
        assert len(shown) == COUNT * VIEWS
        # Opened again, it is compared with the teacher on mixed images.
        assert TeacherCache.build(pixels, IMAGES, tmp_path, **seen, progress=False).made_from["mixing"]

    def test_another_mixing_or_none_is_refused(self, pixels, tmp_path):
        seen = {"seed": SEED, "views": VIEWS, "augment": crop}
        build(pixels, tmp_path / "mixed", mix=self.MIX)
        with pytest.raises(ValueError, match="mixing mixup=0.5, cutmix=1.0 there, mixup=0.5, cutmix=None here"):
            build(pixels, tmp_path / "mixed", mix=Mixing(CLASSES, mixup=0.5))
        with pytest.raises(ValueError, match="mixing mixup=0.5, cutmix=1.0 there, None here"):
            build(pixels, tmp_path / "mixed")
        mixed = TeacherCache.open(tmp_path / "mixed")
        with pytest.raises(ValueError, match="cache of mixing=mixup=0.5, cutmix=1.0, batches without mixed"):
            mixed.attach(triplet_dataset(IMAGES, LABELS, 5, negatives=None, **seen))
        plain = build(pixels, tmp_path / "plain")
        with pytest.raises(ValueError, match="cache of mixing=None, batches of mixed images"):
            plain.attach(triplet_dataset(IMAGES, LABELS, 5, negatives=None, mix=self.MIX, **seen))

    def test_a_cache_from_before_there_was_mixing_is_the_same(self, pixels, tmp_path):
        build(pixels, tmp_path)
        manifest = json.loads((tmp_path / "manifest.json").read_text())
        assert manifest["made_from"]["mixing"] is None
        files = CacheFiles(tmp_path)
        del files.manifest["made_from"]["mixing"]
        files.check_made_from({"mixing": None})


def test_operations_in_turn_are_named_in_words():
    augment = make_augmentation("crop@padding=2+horizontal_flip")
    assert describe_function(augment) == "_apply_in_turn(operations=crop(padding=2) + horizontal_flip)"
