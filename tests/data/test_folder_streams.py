"""Folders and tables of images that are streamed: the bytes of memory, and windows that are fair draws."""

import collections
import functools
import io
import os

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from scipy.stats import chi2

from keras_tkd.data import (
    ImageStream,
    crop_and_flip,
    image_dataset,
    image_decoding,
    iterate_batches,
    load,
    pair_dataset,
    streaming,
    triplet_dataset,
    view_batches,
)
from keras_tkd.data.stream_errors import explain_stream_errors

CLASSES, PER_CLASS, BATCH = ("ant", "bee", "cat"), 20, 8
TRAIN = 48  # four fifths of 20 in each of 3 classes
crop_by_one = functools.partial(crop_and_flip, padding=1)
SEEN = {"seed": 5, "augment": crop_by_one}


def pillow(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(image):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # stands on its side
    return pillow(image, "JPEG", exif=exif)


# What TensorFlow decodes by itself, and what it does not.
WRITERS = {
    "rgb.png": lambda image: pillow(image, "PNG"),
    "grey.png": lambda image: pillow(image.convert("L"), "PNG"),
    "palette.png": lambda image: pillow(image.quantize(16), "PNG"),
    "alpha.png": lambda image: pillow(image.convert("RGBA").rotate(20), "PNG"),
    "deep.png": lambda image: pillow(PIL.Image.fromarray(257 * np.asarray(image.convert("L"), np.uint16)), "PNG"),
    "rgb.jpg": lambda image: pillow(image, "JPEG"),
    "grey.jpg": lambda image: pillow(image.convert("L"), "JPEG"),
    "cmyk.jpg": lambda image: pillow(image.convert("CMYK"), "JPEG"),
    "turned.jpg": turned,
    "a.webp": lambda image: pillow(image, "WEBP"),
    "a.bmp": lambda image: pillow(image, "BMP"),
    "a.gif": lambda image: pillow(image, "GIF"),
    "a.tif": lambda image: pillow(image, "TIFF"),
}


def write_noise(root, kinds=tuple(WRITERS), classes=CLASSES, per_class=PER_CLASS, size=None):
    """Writes images of noise, no two alike: of each kind in turn, and of sizes around 9x12 unless one is given."""
    rng = np.random.default_rng(0)
    for number in range(len(classes) * per_class):
        height, width = size or (9 + number % 3, 12 - number % 4)
        kind = kinds[number % len(kinds)]
        image = PIL.Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        path = root / classes[number // per_class] / f"{number:03d}_{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(WRITERS[kind](image))
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="module")
def held(folder):
    return load(folder, image_size=8)


def streamed(folder, shuffle_window=20, **arguments):
    return load(folder, **{"image_size": 8, "shuffle_window": shuffle_window} | arguments)


def triplets(splits, batch_size=BATCH, **arguments):
    return triplet_dataset(splits.train_images, splits.train_labels, batch_size, **{"seed": 0} | arguments)


def one_pass(dataset):
    return list(dataset.as_numpy_iterator())


def joined(batches, key):
    return np.concatenate([batch[key] for batch, _ in batches])


def assert_equal(found, expected):
    tf.nest.map_structure(np.testing.assert_array_equal, found, expected)


def find_ids(images, splits):
    """The ids of images by their pixels, which no two samples share."""
    ids = {image.tobytes(): index for index, image in enumerate(splits.train_images)}
    assert len(ids) == len(splits.train_images)
    return np.array([ids[image.tobytes()] for image in images])


def assert_same_splits(found, expected):
    for part in ("train", "validation", "test"):
        labels, images = (getattr(expected, f"{part}_{name}") for name in ("labels", "images"))
        if labels is None:
            assert getattr(found, f"{part}_labels") is None
            continue
        np.testing.assert_array_equal(getattr(found, f"{part}_labels"), labels)
        stream = getattr(found, f"{part}_images")
        assert isinstance(stream, ImageStream) and stream.shape == images.shape and stream.dtype == images.dtype
        np.testing.assert_array_equal(np.concatenate([*iterate_batches(stream, 7)]), images)
        np.testing.assert_array_equal(stream[np.array([len(images) - 1, 0])], images[[-1, 0]])
    assert found.split == expected.split and found.class_names == expected.class_names
    assert found.skipped == expected.skipped and found.bad_images == expected.bad_images


# The bytes


def test_all_formats_have_the_bytes_of_memory(folder, held):
    assert held.train_images.shape == (TRAIN, 8, 8, 3)
    assert_same_splits(streamed(folder), held)


@pytest.mark.parametrize("kinds", [("rgb.jpg", "a.bmp"), ("grey.png", "grey.jpg")], ids=["colour", "grey"])
def test_images_keep_their_own_size(kinds, tmp_path):
    write_noise(tmp_path, kinds, size=(7, 5))
    held = load(tmp_path)
    assert held.image_shape == (7, 5, 1 if kinds[0] == "grey.png" else 3)
    assert_same_splits(load(tmp_path, shuffle_window=20), held)


def test_names_need_not_be_text(tmp_path):
    for number, name in enumerate((b"caf\xe9", "naïve".encode())):
        os.makedirs(os.path.join(os.fsencode(tmp_path), name))
        for kind in ("rgb.png", "a.bmp"):
            image = PIL.Image.fromarray(np.full((2, 2, 3), number, np.uint8))
            with open(os.path.join(os.fsencode(tmp_path), name, kind.encode()), "wb") as file:
                file.write(WRITERS[kind](image))
    splits = load(tmp_path, shuffle_window=4)
    # Names in sorted order: what is no text comes after the letters.
    assert [splits.train_images[:][:, 0, 0, 0].tolist(), splits.test_images[:][:, 0, 0, 0].tolist()] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("layout", ["divided", "table"])
def test_other_layouts(layout, folder, tmp_path):
    root, arguments = folder, {}
    if layout == "divided":
        root = tmp_path
        for part in ("train", "val"):
            (tmp_path / part).symlink_to(folder)
    else:
        files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
        rows = [f"{file},{file[0]},{number // 2}" for number, file in enumerate(files)]
        (tmp_path / "labels.csv").write_text("\n".join(["file,label,group", *rows[::-1]]))
        arguments = {"labels": tmp_path / "labels.csv"}
    expected = load(root, image_size=8, **arguments)
    found = streamed(root, **arguments)
    assert_same_splits(found, expected)
    if layout == "table":
        assert_same_splits(found.with_validation(0.3, 0), expected.with_validation(0.3, 0))


def test_some_of_the_samples(folder, held):
    def some(splits):
        return splits.with_classes(["cat", "ant"]).with_validation(0.3, 0).with_train_fraction(0.5, 0)

    found, expected = some(streamed(folder, shuffle_window=5)), some(held)
    assert_same_splits(found, expected)
    batches = one_pass(triplets(found, batch_size=4))
    index = joined(batches, "index")
    np.testing.assert_array_equal(np.sort(index), np.arange(len(expected.train_images)))
    np.testing.assert_array_equal(joined(batches, "image"), expected.train_images[index])


# Batches


@pytest.mark.parametrize("make", [triplet_dataset, pair_dataset, image_dataset])
@pytest.mark.parametrize("training", [True, False])
def test_a_window_that_holds_all_gives_the_batches_of_memory(folder, held, make, training):
    stream = streamed(folder, shuffle_window=TRAIN)
    found, expected = (
        make(splits.train_images, splits.train_labels, BATCH, **SEEN, training=training, initial_epoch=2)
        for splits in (stream, held)
    )
    assert found.element_spec == expected.element_spec and len(found) == len(expected)
    assert_equal(one_pass(found), one_pass(expected))


def test_each_sample_is_an_anchor_once_beside_images_of_its_window(folder, held):
    splits = streamed(folder)  # three windows of 16
    assert (splits.train_images.window_count, splits.train_images.window_size) == (3, 16)
    dataset = triplets(splits, positives="same_class")
    passes = [one_pass(dataset) for _ in range(2)]
    for batches in passes:
        index = joined(batches, "index")
        np.testing.assert_array_equal(np.sort(index), np.arange(TRAIN))
        np.testing.assert_array_equal(joined(batches, "image"), held.train_images[index])
        labels = held.train_labels
        for role, same in (("negative", False), ("positive", True)):
            drawn = find_ids(joined(batches, role), held)
            assert ((labels[drawn] == labels[index]) == same).all()
            for start in range(0, TRAIN, 16):
                assert set(drawn[start : start + 16]) <= set(index[start : start + 16])
    assert not np.array_equal(joined(passes[0], "index"), joined(passes[1], "index"))


def test_windows_are_drawn_from_all_orders_alike(folder):
    """The files are in the order of their classes; what shares a window must not depend on it."""
    images, passes = streamed(folder).train_images, 200
    first, together = np.zeros(TRAIN), 0
    # One data set of all passes: to make one for each costs far more than the windows.
    seeds = tf.data.Dataset.range(passes).map(lambda seed: tf.stack([seed, 7]))
    windows = list(seeds.flat_map(lambda seed: images.windows(seed).take(1)).as_numpy_iterator())
    assert len(windows) == passes
    for window in windows:
        ids = window.ids
        assert (np.diff(ids) > 0).all()
        first[ids] += 1
        together += np.count_nonzero(np.diff(ids) == 1)
    # A sample is in the first of three windows with probability 1/3, anew in each pass; 47 degrees of freedom, since
    # sixteen are in it.
    variance = passes * 1 / 3 * 2 / 3 * TRAIN / (TRAIN - 1)
    assert ((first - passes / 3) ** 2 / variance).sum() < chi2.isf(1e-6, TRAIN - 1)
    # And so are 47 pairs of neighbours, each with probability 16/48 * 15/47: five a pass, of variance below five.
    assert abs(together - 5 * passes) < 5 * (5 * passes) ** 0.5


def test_batches_do_not_depend_on_the_number_of_threads(folder, monkeypatch):
    expected = one_pass(triplets(streamed(folder), augment=crop_by_one))
    monkeypatch.setattr(streaming, "PARALLEL_DECODES", 1)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 3
    assert_equal(one_pass(triplets(streamed(folder), augment=crop_by_one).with_options(options)), expected)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_pass_starts_at_any_step_of_any_epoch(folder, step):
    """Windows of 12 and batches of 8: the batches of a window do not begin where batches of the epoch do."""
    splits = streamed(folder, shuffle_window=12)
    dataset = triplets(splits, augment=crop_by_one)
    passes = [one_pass(dataset) for _ in range(2)]
    rest = triplets(splits, augment=crop_by_one, initial_epoch=1, initial_step=step)
    assert rest.cardinality() == 6 - step
    assert_equal(one_pass(rest), passes[1][step:])


def test_views_are_those_of_memory(folder, held):
    arguments = {"batch_size": 20, "views": 2, **SEEN}
    expected = one_pass(view_batches(held.train_images, **arguments))
    assert_equal(one_pass(view_batches(streamed(folder).train_images, **arguments)), expected)
    # From the second batch of the second view on.
    assert_equal(one_pass(view_batches(streamed(folder).train_images, first=4, **arguments)), expected[4:])


def test_evaluation_finds_negatives_though_files_are_in_the_order_of_classes(folder, held):
    # Windows of 16 in the order of ids would hold one class each.
    dataset = triplets(streamed(folder), training=False)
    batches = one_pass(dataset)
    assert_equal(one_pass(dataset), batches)
    index = joined(batches, "index")
    np.testing.assert_array_equal(index, np.concatenate([np.arange(first, TRAIN, 3) for first in range(3)]))
    np.testing.assert_array_equal(joined(batches, "image"), held.train_images[index])
    negatives = find_ids(joined(batches, "negative"), held)
    assert (held.train_labels[negatives] != held.train_labels[index]).all()
    np.testing.assert_array_equal(negatives % 3, index % 3)


def test_evaluation_without_drawn_images_keeps_the_order_of_ids(folder, held):
    splits = streamed(folder)
    batches = one_pass(image_dataset(splits.train_images, splits.train_labels, BATCH, seed=0, training=False))
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), held.train_images)


def test_each_file_is_decoded_once_in_a_pass(tmp_path, monkeypatch):
    """Also where every anchor has a negative and a positive."""
    splits = load(write_noise(tmp_path, ("a.bmp",), size=(4, 4)), shuffle_window=20)
    decoded = collections.Counter()

    def read(path, *arguments):
        decoded[path] += 1
        return read_image(path, *arguments)

    read_image = image_decoding.read_image
    monkeypatch.setattr(image_decoding, "read_image", read)
    assert len(one_pass(triplets(splits, positives="same_class"))) == 6
    assert decoded == {str(tmp_path / file): 1 for file in splits.split["train"]}


# Files that cannot be read


@pytest.mark.parametrize("skip", [False, True])
def test_bad_files_are_named_at_the_start(skip, tmp_path):
    write_noise(tmp_path / "with")
    bad = sorted((tmp_path / "with").rglob("*_rgb.*"))[:5]
    for path in bad:
        # The header is whole: only decoding shows what is missing.
        path.write_bytes(path.read_bytes()[:-20])
    if skip:
        write_noise(tmp_path / "without")
        for path in bad:
            (tmp_path / "without" / path.relative_to(tmp_path / "with")).unlink()
        found = streamed(tmp_path / "with", skip_bad_images=True)
        assert len(found.bad_images) == 5
        expected = load(tmp_path / "without", image_size=8)
        np.testing.assert_array_equal(found.train_images[:], expected.train_images)
        assert found.split == expected.split
    else:
        with pytest.raises(ValueError, match="Received: 5 of .* that are not: ") as error:
            streamed(tmp_path / "with")
        assert all(str(path) in str(error.value) for path in bad)


@pytest.mark.parametrize("kind", ["rgb.jpg", "a.bmp"])
def test_a_file_that_changes_while_it_is_in_use_is_named(kind, tmp_path):
    splits = load(write_noise(tmp_path, (kind,), size=(4, 4)), shuffle_window=20)
    path = tmp_path / splits.split["train"][5]
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(tf.errors.OpError, match=f"must not change while it is in use(.|\n)*{path.name}"):
        one_pass(triplets(splits))


@pytest.mark.parametrize("kind", ["rgb.jpg", "a.bmp"])
@pytest.mark.parametrize(("change", "says"), [("grow", "change .* another file .*"), ("go", "vanish|another file")])
def test_what_a_changed_file_ends_a_pass_with_is_one_sentence(change, says, kind, tmp_path):
    splits = load(write_noise(tmp_path, (kind,), size=(4, 4)), shuffle_window=20)
    path = tmp_path / splits.split["train"][5]
    if change == "grow":
        path.write_bytes(path.read_bytes() + b"more")
    else:
        path.unlink()
    with pytest.raises(ValueError, match=f"^An image must not .*({says})") as raised, explain_stream_errors():
        one_pass(triplets(splits))
    text = str(raised.value)
    assert f": {path}. Put back what was there" in text and "\n" not in text and "node" not in text
    assert raised.value.__suppress_context__


def test_a_window_of_one_class_is_one_sentence(tmp_path):
    """Of 16 training images one is a bee: three of four windows are without."""
    write_noise(tmp_path, ("rgb.png",), CLASSES[:1], 30, (4, 4))
    write_noise(tmp_path, ("rgb.png",), CLASSES[1:2], 2, (4, 4))
    splits = load(tmp_path, test_fraction=0.5, shuffle_window=4)
    with pytest.raises(ValueError, match="window of streamed images has one. .*--shuffle_window$"):
        with explain_stream_errors():
            one_pass(triplets(splits, batch_size=4))


def test_other_errors_of_tensorflow_pass():
    with pytest.raises(tf.errors.NotFoundError, match="nowhere"), explain_stream_errors():
        tf.io.read_file("nowhere")


def test_images_are_told_apart_without_being_decoded(folder, tmp_path):
    write_noise(tmp_path)
    first = streamed(folder).train_images
    np.testing.assert_array_equal(first.identity, streamed(tmp_path, shuffle_window=7).train_images.identity)
    path = tmp_path / streamed(tmp_path).split["train"][5]
    content = bytearray(path.read_bytes())
    path.write_bytes(content + b"\0")
    (different,) = np.flatnonzero(first.identity != streamed(tmp_path).train_images.identity)
    assert different == len(first.shape) + 5


def test_a_window_must_fit_into_memory(folder):
    with pytest.raises(ValueError, match="must fit into memory. Received: 40 of 10,000,000 x 10,000,000"):
        streamed(folder, image_size=10**7)
