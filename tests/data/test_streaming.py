"""What holds of images that are streamed from disk: what holds in memory, inside a window."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from scipy.stats import chi2

from keras_tkd.data import (
    ImageStream,
    class_batches,
    crop_and_flip,
    image_dataset,
    iterate_batches,
    load,
    make_view_seeds,
    pair_dataset,
    streaming,
    triplet_dataset,
    view_batches,
)

COUNT, BATCH = 120, 16  # four files of 40, 1, 55 and 24
crop_by_one = functools.partial(crop_and_flip, padding=1)
SEEN = {"seed": 5, "augment": crop_by_one}


@pytest.fixture(scope="module")
def held(stored):
    return load("shades", stored)


def streamed(stored, shuffle_window=50, **arguments):
    return load("shades", stored, shuffle_window=shuffle_window, **arguments)


def triplets(splits, batch_size=BATCH, **arguments):
    arguments = {"seed": 0} | arguments
    return triplet_dataset(splits.train_images, splits.train_labels, batch_size, **arguments)


def one_pass(dataset):
    return list(dataset.as_numpy_iterator())


def joined(batches, key):
    return np.concatenate([batch[key] for batch, _ in batches])


def assert_equal(found, expected):
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


def find_ids(images, splits):
    """The ids of images by their pixels, which no two samples share."""
    ids = {image.tobytes(): index for index, image in enumerate(splits.train_images)}
    return np.array([ids[image.tobytes()] for image in images])


def split_into_windows(index, size):
    return [index[start : start + size] for start in range(0, len(index), size)]


@pytest.mark.parametrize("image_size", [None, 5])
def test_a_stream_stands_for_the_array(stored, image_size):
    array, stream = load("shades", stored, image_size=image_size), streamed(stored, image_size=image_size)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(stream, f"{part}_labels"), getattr(array, f"{part}_labels"))
        rows, images = getattr(stream, f"{part}_images"), getattr(array, f"{part}_images")
        assert isinstance(rows, ImageStream)
        assert len(rows) == len(images) and rows.shape == images.shape and rows.dtype == images.dtype
        np.testing.assert_array_equal(np.concatenate([*iterate_batches(rows, 7)]), images)
        for index in (slice(5), slice(10, 14), np.array([len(images) - 1, 0]), slice(0, 0)):
            np.testing.assert_array_equal(rows[index], images[index])
    assert stream.train_labels.dtype == array.train_labels.dtype and stream.class_names == array.class_names
    # Across the borders between files, which are at 40, 41 and 96.
    ids = np.array([39, 40, 41, 95, 96])
    np.testing.assert_array_equal(stream.train_images[ids], array.train_images[ids])


@pytest.mark.parametrize("make", [triplet_dataset, pair_dataset, image_dataset])
def test_a_window_that_holds_all_gives_the_batches_of_memory(stored, held, make):
    stream = streamed(stored, shuffle_window=COUNT)
    found, expected = (
        make(splits.train_images, splits.train_labels, BATCH, **SEEN, initial_epoch=2) for splits in (stream, held)
    )
    assert found.element_spec == expected.element_spec and len(found) == len(expected)
    for _ in range(2):
        assert_equal(one_pass(found), one_pass(expected))


@pytest.mark.parametrize("shuffle_window, size", [(50, 40), (BATCH, 15), (119, 60), (10_000, COUNT)])
def test_windows_are_of_one_size_at_most_that_asked_for(stored, shuffle_window, size):
    images = streamed(stored, shuffle_window).train_images
    for seed in (None, tf.constant([0, 0], tf.int64)):
        windows = one_pass(images.windows(seed))
        assert [len(window.ids) for window in windows] == [size] * (COUNT // size)
        for window in windows:
            assert (np.diff(window.ids) > 0).all()
        ids = np.concatenate([window.ids for window in windows])
        np.testing.assert_array_equal(np.sort(ids), np.arange(COUNT))
        assert (seed is None) == np.array_equal(ids, np.arange(COUNT)) or size == COUNT


def test_each_sample_is_an_anchor_once_in_batches_of_known_number(stored, held):
    dataset = triplets(streamed(stored), positives="same_class")
    assert len(dataset) == 8  # ceil(120 / 16), though 16 does not divide the windows of 40
    for _ in range(2):
        batches = one_pass(dataset)
        assert [len(label) for _, label in batches] == [16] * 7 + [8]
        index = joined(batches, "index")
        np.testing.assert_array_equal(np.sort(index), np.arange(COUNT))
        np.testing.assert_array_equal(joined(batches, "image"), held.train_images[index])
        np.testing.assert_array_equal(np.concatenate([label for _, label in batches]), held.train_labels[index])


def test_extra_images_are_uniform_over_the_window(stored, held):
    labels, draws = held.train_labels, {"negative": [], "positive": []}
    rng = np.random.default_rng(0)
    dataset = triplets(streamed(stored), positives="same_class")
    for _ in range(20):
        batches = one_pass(dataset)
        # Windows come one after another: the first 40 anchors are the first window.
        windows = split_into_windows(joined(batches, "index"), 40)
        for role in draws:
            for window, drawn in zip(
                windows, split_into_windows(find_ids(joined(batches, role), held), 40), strict=True
            ):
                for anchor, companion in zip(window, drawn, strict=True):
                    is_mate = labels[window] == labels[anchor]
                    candidates = window[is_mate & (window != anchor) if role == "positive" else ~is_mate]
                    (place,) = np.flatnonzero(np.sort(candidates) == companion)
                    draws[role].append((place + rng.random()) / len(candidates))
    for found in draws.values():
        # Places among the candidates, made continuous: uniform in [0, 1), 2,400 of them.
        counts = np.histogram(found, 20, (0, 1))[0]
        assert counts.sum() == 2400
        assert ((counts - 120) ** 2 / 120).sum() < chi2.isf(1e-6, 19)


def test_each_pass_is_the_next_epoch_and_has_windows_of_its_own(stored):
    splits = streamed(stored)
    dataset = triplets(splits, augment=crop_by_one)
    passes = [one_pass(dataset) for _ in range(3)]
    assert_equal(one_pass(triplets(splits, augment=crop_by_one, initial_epoch=2)), passes[2])
    windows = [
        frozenset(map(frozenset, split_into_windows(joined(batches, "index").tolist(), 40))) for batches in passes
    ]
    assert len(set(windows)) == 3
    # A window mixes files.
    assert all(len({np.searchsorted([40, 41, 96], i, "right") for i in window}) > 1 for window in windows[0])
    other = one_pass(triplets(splits, augment=crop_by_one, seed=1))
    assert not np.array_equal(joined(other, "index"), joined(passes[0], "index"))


@pytest.mark.parametrize("calls, threads", [(1, 1), (8, 4)])
def test_batches_do_not_depend_on_the_number_of_threads(stored, calls, threads, monkeypatch):
    expected = one_pass(triplets(streamed(stored), augment=crop_by_one))
    monkeypatch.setattr(streaming, "PARALLEL_DECODES", calls)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    assert_equal(one_pass(triplets(streamed(stored), augment=crop_by_one).with_options(options)), expected)


def test_views_are_those_of_images_in_memory(stored, held):
    dataset = triplets(streamed(stored), **SEEN, views=2, initial_epoch=1)
    for batch, _ in one_pass(dataset):
        index = batch["index"]
        np.testing.assert_array_equal(
            batch["image"], crop_by_one(held.train_images[index], make_view_seeds(index, 5, 1)).numpy()
        )
    arguments = {"batch_size": 50, "views": 2, **SEEN}
    expected = one_pass(view_batches(held.train_images, **arguments))
    assert_equal(one_pass(view_batches(streamed(stored).train_images, **arguments)), expected)
    # From the second batch of the second view on.
    assert_equal(one_pass(view_batches(streamed(stored).train_images, first=4, **arguments)), expected[4:])


def test_evaluation_has_its_own_order_and_fixed_negatives(stored, held):
    dataset = triplets(streamed(stored), training=False, augment=crop_by_one)
    batches = one_pass(dataset)
    assert_equal(one_pass(dataset), batches)
    np.testing.assert_array_equal(joined(batches, "image"), held.train_images)
    negatives = find_ids(joined(batches, "negative"), held)
    np.testing.assert_array_equal(negatives // 40, np.arange(COUNT) // 40)
    assert (held.train_labels[negatives] != held.train_labels).all()


def test_other_classes_and_a_teachers_images_go_by_id(stored, held):
    named = np.arange(COUNT) % 2
    shown = np.arange(COUNT, dtype="float32")[:, None]
    batches = one_pass(triplets(streamed(stored), negative_labels=named, teacher_images=shown))
    index = joined(batches, "index")
    assert (named[find_ids(joined(batches, "negative"), held)] != named[index]).all()
    np.testing.assert_array_equal(joined(batches, "teacher_image")[:, 0], index)


def test_a_window_of_one_class_says_so(stored):
    images = streamed(stored, shuffle_window=40).train_images
    labels = (np.arange(COUNT) >= 40).astype(int)  # a window of class 0, two of class 1
    dataset = triplet_dataset(images, labels, BATCH, seed=0, training=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="two classes.*larger `shuffle_window`"):
        one_pass(dataset)
    assert len(one_pass(triplet_dataset(images, labels, BATCH, seed=0, negatives=None, positives="same_class"))) == 8


def test_some_of_the_samples(stored, held):
    def some(splits):
        splits = splits.with_classes(["light", "dark"]).with_validation(0.3, 0)
        return splits.with_train_fraction(0.5, 0)

    found, expected = some(streamed(stored, shuffle_window=20)), some(held)
    for part in ("train", "validation", "test"):
        images = getattr(found, f"{part}_images")
        np.testing.assert_array_equal(getattr(found, f"{part}_labels"), getattr(expected, f"{part}_labels"))
        in_memory = getattr(expected, f"{part}_images")
        np.testing.assert_array_equal(np.concatenate([*iterate_batches(images, 8)]), in_memory)
        np.testing.assert_array_equal(images[:3], in_memory[:3])
    batches = one_pass(triplets(found, batch_size=8))
    index = joined(batches, "index")
    np.testing.assert_array_equal(np.sort(index), np.arange(len(expected.train_images)))
    np.testing.assert_array_equal(joined(batches, "image"), expected.train_images[index])


def test_what_needs_an_array_says_so(stored):
    splits = streamed(stored)
    with pytest.raises(TypeError, match="120 images.*without `shuffle_window`"):
        np.asarray(splits.train_images)
    with pytest.raises(TypeError, match="without `shuffle_window`"):
        class_batches(splits.train_images, splits.train_labels, classes_per_batch=2, samples_per_class=2, seed=0)
    with pytest.raises(TypeError, match="without `shuffle_window`"):
        splits.with_open_set([0, 1])


@pytest.mark.parametrize(
    "name, arguments, message",
    [
        ("shades", {"shuffle_window": 0}, "`shuffle_window` must be >= 1.*shuffle_window=0"),
        ("digits", {}, "`shuffle_window`.*digits.*Leave it out"),
        ("shades", {"open_set_fraction": 1}, "`open_set_fraction`.*open_set_fraction=1, shuffle_window=50"),
    ],
)
def test_what_is_not_streamed(stored, name, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(name, stored, **{"shuffle_window": 50} | arguments)


def test_another_file_format_is_refused(stored, monkeypatch):
    monkeypatch.setattr(tfds.core.DatasetInfo, "file_format", tfds.core.FileFormat.RIEGELI)
    with pytest.raises(ValueError, match="`shuffle_window`.*TFRecord.*Received: shades, prepared as riegeli"):
        streamed(stored)


@pytest.mark.parametrize("step", [1, 3, 7])
def test_a_pass_starts_at_any_step_of_any_epoch(stored, step):
    """Windows of 50 and batches of 16: the batches of a window do not begin where batches of the epoch do."""
    splits = streamed(stored)
    dataset = triplets(splits, augment=crop_by_one)
    passes = [one_pass(dataset) for _ in range(2)]
    rest = triplets(splits, augment=crop_by_one, initial_epoch=1, initial_step=step)
    assert rest.cardinality() == 8 - step
    assert_equal(one_pass(rest), passes[1][step:])
