import dataclasses
import inspect
import os
import socket
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from keras_tkd.data import datasets, image_list
from keras_tkd.data.arrays import allocate_aligned
from keras_tkd.data.datasets import LOADERS, TABLE_LOADERS, Loader, load
from keras_tkd.data.image_reading import make_reader
from keras_tkd.data.partition import draw_open_set_classes, stratified_split
from keras_tkd.data.splits import Splits


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("load used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    # TensorFlow's own file system would read the community's list, past Python's sockets.
    monkeypatch.setattr("tensorflow_datasets.core.community.community_register", refuse)


def write_image(path, image, encode=tf.io.encode_png):
    """Writes an array, or a constant colour given as (height, width, channels, value)."""
    if isinstance(image, tuple):
        image = np.full(image[:3], image[3], np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image).numpy())


def write_classes(folder, **counts):
    """Writes `count` grey 2x2 images per class; the n-th image of the whole folder has the constant n."""
    value = 0
    for name, count in counts.items():
        for index in range(count):
            write_image(folder / name / f"{index:02d}.png", (2, 2, 1, value))
            value += 1
    return str(folder)


def png_bytes(width, height, bit_depth, colour_type, rows, palette=b""):
    """A PNG of the kinds that TensorFlow does not write."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0))
    palette = chunk(b"PLTE", palette) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + header + palette + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# Arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (7, 5, 3), (100, 32, 32, 3)])
def test_aligned_empty(shape, dtype):
    # Several at a time: one alone may be aligned by chance.
    for array in [allocate_aligned(shape, dtype) for _ in range(5)]:
        assert array.shape == shape
        assert array.dtype == dtype
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous and array.flags.writeable


def test_aligned_empty_defaults_to_pixels():
    assert allocate_aligned((2, 3)).dtype == np.uint8


def test_aligned_arrays_do_not_overlap():
    first, second = allocate_aligned((1000,)), allocate_aligned((1000,))
    first[:] = 1
    second[:] = 2
    assert first.sum() == 1000


# Stratified splits


def taken_per_class(counts, fraction, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    kept, taken = stratified_split(labels, fraction, seed, [f"class {label}" for label in range(len(counts))])
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    assert list(kept) == sorted(kept) and list(taken) == sorted(taken)
    return np.bincount(labels[taken], minlength=len(counts)).tolist()


@pytest.mark.parametrize(
    "counts, fraction, taken",
    [
        ([10, 5], 0.2, [2, 1]),
        ([10, 20, 30], 0.5, [5, 10, 15]),
        ([7, 8], 0.2, [1, 2]),  # 1.4 and 1.6
        ([2, 3], 0.01, [1, 1]),  # a class gives at least one
        ([2, 3], 0.99, [1, 2]),  # and keeps at least one
    ],
)
def test_every_class_gives_its_share(counts, fraction, taken):
    assert taken_per_class(counts, fraction) == taken


def test_a_split_depends_on_its_seed_alone():
    labels = np.array([0, 1] * 50)

    def split(seed):
        return stratified_split(labels, 0.3, seed, "ab")[1].tolist()

    assert split(3) == split(3)
    assert split(3) != split(4)


def test_a_class_with_one_sample_cannot_be_split():
    with pytest.raises(ValueError, match="at least 2 images.*1 image of class `dog`"):
        stratified_split(np.array([0, 0, 1]), 0.5, 0, ("cat", "dog"))


# Splits


def numbered_splits(counts=(10, 5), **fields):
    """Training images whose pixels are their own index."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    images = np.broadcast_to(np.arange(len(labels), dtype=np.uint8)[:, None, None, None], (len(labels), 2, 3, 1))
    return Splits(
        name="numbered",
        train_images=images.copy(),
        train_labels=labels,
        test_images=np.zeros((4, 2, 3, 1), np.uint8),
        test_labels=np.zeros(4, np.int32),
        class_names=("cat", "dog"),
        **fields,
    )


def test_splits_describe_themselves():
    splits = numbered_splits()
    assert splits.num_classes == 2
    assert splits.image_shape == (2, 3, 1)
    assert splits.validation_images is None and splits.validation_labels is None
    assert splits.split is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        splits.name = "other"


def test_validation_is_taken_out_of_the_training_samples():
    splits = numbered_splits()
    divided = splits.with_validation(0.4, seed=7)

    assert np.bincount(divided.validation_labels).tolist() == [4, 2]
    assert np.bincount(divided.train_labels).tolist() == [6, 3]
    train, validation = divided.train_images[:, 0, 0, 0], divided.validation_images[:, 0, 0, 0]
    assert sorted([*train, *validation]) == list(range(15))
    for images, labels in ((train, divided.train_labels), (validation, divided.validation_labels)):
        assert labels.tolist() == [int(index >= 10) for index in images]  # each image kept its label
        assert labels.dtype == np.int32
    for images in (divided.train_images, divided.validation_images):
        assert images.shape[1:] == (2, 3, 1)
        assert images.dtype == np.uint8
        assert images.ctypes.data % 64 == 0
    assert divided.test_images is splits.test_images
    assert divided.class_names == splits.class_names
    assert splits.validation_images is None and len(splits.train_images) == 15


def test_validation_depends_on_its_seed():
    splits = numbered_splits(counts=(100, 100))

    def validation(seed):
        return splits.with_validation(0.5, seed).validation_images[:, 0, 0, 0].tolist()

    assert validation(1) == validation(1)
    assert validation(1) != validation(2)


def test_no_validation_is_the_same_splits():
    splits = numbered_splits()
    assert splits.with_validation(0, seed=0) is splits


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_validation_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match=f"`fraction` must be at least 0 and less than 1.*fraction={fraction}"):
        numbered_splits().with_validation(fraction, seed=0)


def test_validation_is_made_once():
    with pytest.raises(ValueError, match="`numbered` already has 6 validation images"):
        numbered_splits().with_validation(0.4, seed=0).with_validation(0.4, seed=0)


def test_validation_needs_two_samples_of_a_class():
    with pytest.raises(ValueError, match="1 image of class `dog`"):
        numbered_splits(counts=(10, 1)).with_validation(0.2, seed=0)


def test_validation_copies_each_row_once():
    images = np.zeros((1000, 32, 32, 3), np.uint8)
    labels = np.arange(1000, dtype=np.int32) % 2
    splits = Splits("zeros", images, labels, images[:1], labels[:1], ("cat", "dog"))
    tracemalloc.start()
    try:
        splits.with_validation(0.5, seed=0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert images.nbytes <= peak < 1.1 * images.nbytes


# Open sets


def lettered_splits():
    """Six classes a..f: the label in the first pixel, the sample's own number in the second; 4 and 2 images of each."""
    arrays = []
    for count, first in ((4, 0), (2, 100)):
        labels = np.tile(np.arange(6, dtype=np.int32), count)
        images = np.stack([labels, first + np.arange(6 * count)], axis=-1).astype(np.uint8).reshape(-1, 1, 2, 1)
        arrays += [images, labels]
    return Splits("lettered", *arrays, tuple("abcdef"))


def test_an_open_set_is_in_neither_training_nor_test():
    divided = lettered_splits().with_open_set([4, 1])
    assert divided.class_names == ("a", "c", "d", "f") and divided.num_classes == 4
    assert divided.open_set_names == ("b", "e")
    for images, names, labels, counts in (
        (divided.train_images, divided.class_names, divided.train_labels, [4, 4, 4, 4]),
        (divided.test_images, divided.class_names, divided.test_labels, [2, 2, 2, 2]),
        (divided.open_set_images, divided.open_set_names, divided.open_set_identities, [6, 6]),
    ):
        assert images.dtype == np.uint8 and labels.dtype == np.int32 and images.ctypes.data % 64 == 0
        assert np.bincount(labels).tolist() == counts
        # Under its new number, each image has its old name.
        assert [names[label] for label in labels] == ["abcdef"[old] for old in images[:, 0, 0, 0]]
    # Nothing is lost; the open set has the training images first, each part is in its old order.
    numbers = [images[:, 0, 1, 0].tolist() for images in (divided.train_images, divided.test_images)]
    assert all(part == sorted(part) for part in numbers)
    own = divided.open_set_images[:, 0, 1, 0].tolist()
    assert own == [1, 4, 7, 10, 13, 16, 19, 22, 101, 104, 107, 110]
    assert sorted(sum(numbers, own)) == [*range(24), *range(100, 112)]


def test_an_open_set_of_all_classes():
    divided = lettered_splits().with_open_set(range(6))
    assert divided.num_classes == len(divided.train_images) == len(divided.test_labels) == 0
    assert divided.image_shape == (1, 2, 1) and len(divided.open_set_images) == 36
    assert divided.open_set_identities.tolist() == 6 * list(range(6))


@pytest.mark.parametrize("classes", [[], [3], [3, 3], [-1, 2], [2, 6]])
def test_an_open_set_is_two_classes_at_least(classes):
    with pytest.raises(
        ValueError, match=r"`classes` must be at least 2 ids of the 6 classes of `lettered`.*classes=\["
    ):
        lettered_splits().with_open_set(classes)


def test_an_open_set_is_made_once_and_first():
    splits = lettered_splits()
    for made in (splits.with_open_set([0, 1]), splits.with_validation(0.5, seed=0)):
        with pytest.raises(ValueError, match="already has an open set or a validation split"):
            made.with_open_set([2, 3])
    divided = splits.with_open_set([0, 1]).with_validation(0.5, seed=0)
    assert np.bincount(divided.validation_labels).tolist() == [2, 2, 2, 2] and len(divided.open_set_images) == 12


@pytest.mark.parametrize(
    "classes, fraction, taken",
    [(10, 0.4, 4), (10, 0.34, 3), (10, 0.001, 2), (10, 0.999, 8), (4, 0.25, 2), (5, 1, 5), (3, 1, 3)],
)
def test_how_many_classes_are_in_an_open_set(classes, fraction, taken):
    drawn = draw_open_set_classes([str(index) for index in range(classes)], fraction, 0).tolist()
    assert len(set(drawn)) == taken and drawn == sorted(drawn) and set(drawn) <= set(range(classes))


def test_an_open_set_depends_on_split_seed_alone():
    names = [str(index) for index in range(50)]
    first, again, other = (draw_open_set_classes(names, 0.5, seed).tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_an_open_set_needs_four_classes():
    with pytest.raises(ValueError, match="at least 4 classes.*Received: 3 classes, a, b, c"):
        draw_open_set_classes(("a", "b", "c"), 0.5, 0)


def test_digits_with_an_open_set():
    whole, divided = load("digits"), load("digits", open_set_fraction=0.4)
    assert len(divided.class_names) == 6 and len(divided.open_set_names) == 4
    assert sorted(divided.class_names + divided.open_set_names) == list(whole.class_names)
    # The other digits' test images are those that they are without it.
    seen = np.isin(whole.test_labels, [int(name) for name in divided.class_names])
    np.testing.assert_array_equal(divided.test_images, whole.test_images[seen])
    assert [int(divided.class_names[label]) for label in divided.test_labels] == whole.test_labels[seen].tolist()
    assert len(divided.train_images) + len(divided.test_images) + len(divided.open_set_images) == 1797


def test_a_folder_with_an_open_set(tmp_path):
    counts = {"ada": 3, "bob": 1, "cleo": 1, "dan": 4, "eva": 5, "fay": 6}
    folder = write_classes(tmp_path, **counts)
    first = {name: sum(list(counts.values())[:place]) for place, name in enumerate(counts)}
    # A seed that leaves out the two of a single image; trained on, they would be an error.
    names = tuple(counts)
    seed = next(seed for seed in range(100) if draw_open_set_classes(names, 0.5, seed).tolist() == [1, 2, 4])
    divided = load(folder, open_set_fraction=0.5, split_seed=seed, test_fraction=0.34)
    assert divided.class_names == ("ada", "dan", "fay") and divided.open_set_names == ("bob", "cleo", "eva")
    assert np.bincount(divided.open_set_identities).tolist() == [1, 1, 5]
    # A third, rounded, of 3, 4 and 6.
    assert np.bincount(divided.test_labels).tolist() == [1, 1, 2]
    for key, images, labels, names in (
        ("train", divided.train_images, divided.train_labels, divided.class_names),
        ("test", divided.test_images, divided.test_labels, divided.class_names),
        ("open_set", divided.open_set_images, divided.open_set_identities, divided.open_set_names),
    ):
        for path, image, label in zip(divided.split[key], images, labels, strict=True):
            name, file = path.split("/")
            assert names[label] == name and image[0, 0, 0] == first[name] + int(file[:2])
    assert sum(map(len, divided.split.values())) == sum(counts.values())


def test_an_open_set_of_a_folder_that_is_divided_is_listed(tmp_path):
    divided = load(write_classes(tmp_path, cat=4, dog=4, emu=4, fox=4), test_fraction=0.5).with_open_set([1, 3])
    assert len(divided.split["open_set"]) == 8
    for path, image in zip(divided.split["open_set"], divided.open_set_images, strict=True):
        name, file = path.split("/")
        assert image[0, 0, 0] == int(file[:2]) + {"dog": 4, "fox": 12}[name]


def test_an_open_set_of_train_and_test_folders(tmp_path):
    write_classes(tmp_path / "train", a=2, b=2, c=2, d=2)
    write_classes(tmp_path / "test", a=1, b=1, c=1, d=1)
    divided = load(str(tmp_path), open_set_fraction=0.5)
    assert (len(divided.train_images), len(divided.test_images), len(divided.open_set_images)) == (4, 2, 6)
    assert divided.split is None


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_open_set_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match=f"`open_set_fraction` must be.*open_set_fraction={fraction}"):
        load("digits", open_set_fraction=fraction)


# Digits

# round(value * 255 / 16) for value = 0..16: steps of 15.9375.
DIGIT_PIXELS = np.array([0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255], dtype=np.uint8)


def test_digits():
    splits = load("digits")
    assert splits.name == "digits"
    assert splits.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert splits.image_shape == (8, 8, 1)
    assert splits.split is None
    # A fifth of 178, 182, 177, 183, 181, 182, 181, 179, 174 and 180.
    assert np.bincount(splits.test_labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert len(splits.train_images) == 1797 - 359

    original = load_digits()
    expected = zip(DIGIT_PIXELS[original.images.astype(int)], original.target, strict=True)
    received = [
        *zip(splits.train_images, splits.train_labels, strict=True),
        *zip(splits.test_images, splits.test_labels, strict=True),
    ]
    assert sorted((image.tobytes(), int(label)) for image, label in received) == sorted(
        (image.tobytes(), int(label)) for image, label in expected
    )
    for images, labels in (
        (splits.train_images, splits.train_labels),
        (splits.test_images, splits.test_labels),
    ):
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        assert images.ctypes.data % 64 == 0


def test_digits_are_split_by_split_seed():
    first, again, other = load("digits"), load("digits", split_seed=0), load("digits", split_seed=1)
    np.testing.assert_array_equal(first.test_images, again.test_images)
    assert not np.array_equal(first.test_images, other.test_images)


def test_digits_always_have_the_same_number_of_test_images():
    assert len(load("digits", test_fraction=0.5).test_images) == 359


def test_digits_are_resized():
    assert load("digits", image_size=16).image_shape == (16, 16, 1)


# Folders


def test_a_folder_is_split_by_class(tmp_path):
    folder = write_classes(tmp_path / "pets", dog=5, cat=10)  # dogs are 0..4, cats 5..14
    splits = load(folder)

    assert splits.name == folder
    assert splits.class_names == ("cat", "dog")
    assert splits.image_shape == (2, 2, 1)
    assert np.bincount(splits.train_labels).tolist() == [8, 4]
    assert np.bincount(splits.test_labels).tolist() == [2, 1]
    assert sorted([*splits.train_images[:, 1, 1, 0], *splits.test_images[:, 1, 1, 0]]) == list(range(15))
    assert sorted(splits.split) == ["test", "train"]
    for key, images, labels in (
        ("train", splits.train_images, splits.train_labels),
        ("test", splits.test_images, splits.test_labels),
    ):
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        assert images.ctypes.data % 64 == 0
        assert splits.split[key] == sorted(splits.split[key])
        for path, image, label in zip(splits.split[key], images, labels, strict=True):
            name, file = path.split("/")
            assert splits.class_names[label] == name
            assert image[0, 0, 0] == int(file[:2]) + (5 if name == "cat" else 0)


def test_a_folders_split_depends_on_split_seed_and_test_fraction(tmp_path):
    folder = write_classes(tmp_path, cat=20, dog=20)
    assert load(folder, split_seed=0).split == load(folder, split_seed=0).split
    assert load(folder, split_seed=0).split != load(folder, split_seed=1).split
    assert len(load(folder, test_fraction=0.5).test_images) == 20


def test_validation_of_a_folder_is_listed(tmp_path):
    splits = load(write_classes(tmp_path, cat=10, dog=10))
    divided = splits.with_validation(0.25, seed=0)
    assert divided.split["test"] == splits.split["test"]
    assert sorted(divided.split["train"] + divided.split["validation"]) == splits.split["train"]
    for path, image in zip(divided.split["validation"], divided.validation_images, strict=True):
        name, file = path.split("/")
        assert image[0, 0, 0] == int(file[:2]) + (10 if name == "dog" else 0)
    assert "validation" not in splits.split


def test_train_and_test_folders_are_the_splits(tmp_path):
    write_classes(tmp_path / "train", cat=3, dog=1)
    write_classes(tmp_path / "test", cat=1, dog=2)
    (tmp_path / "notes").mkdir()
    splits = load(str(tmp_path))
    assert splits.class_names == ("cat", "dog")
    assert splits.train_images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert splits.train_labels.tolist() == [0, 0, 0, 1]
    assert splits.test_images[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert splits.test_labels.tolist() == [0, 1, 1]
    assert splits.split is None


@pytest.mark.parametrize("odd, lacking", [("train", "test"), ("test", "train")])
def test_train_and_test_need_the_same_classes(tmp_path, odd, lacking):
    for split in ("train", "test"):
        write_classes(tmp_path / split, cat=2, dog=2)
    write_classes(tmp_path / odd, bird=2)
    with pytest.raises(ValueError, match=f"same class folders.*`{lacking}` lacks the class `bird`"):
        load(str(tmp_path))


def test_png_and_jpeg_are_read_whatever_the_case(tmp_path):
    for name in ("a", "b"):
        write_image(tmp_path / name / "1.png", (8, 8, 1, 10))
        write_image(tmp_path / name / "2.PNG", (8, 8, 1, 20))
        write_image(tmp_path / name / "3.jpg", (8, 8, 1, 30), tf.io.encode_jpeg)
        write_image(tmp_path / name / "4.JPEG", (8, 8, 1, 40), tf.io.encode_jpeg)
        write_image(tmp_path / name / "5.jpg", (8, 8, 1, 50))  # a PNG by content
    splits = load(str(tmp_path))
    images = np.concatenate([splits.train_images, splits.test_images])
    assert images.shape == (10, 8, 8, 1)
    # A constant image has no frequencies for JPEG to lose.
    assert sorted(images[:, 3, 3, 0]) == [10, 10, 20, 20, 30, 30, 40, 40, 50, 50]


def test_other_files_are_ignored(tmp_path):
    folder = write_classes(tmp_path, cat=2, dog=2)
    (tmp_path / ".cache").mkdir()
    (tmp_path / "labels.csv").write_text("cat")
    (tmp_path / "cat" / "Thumbs.db").write_bytes(b"no image")
    (tmp_path / "cat" / "._00.png").write_bytes(b"no image")
    (tmp_path / "cat" / "more.png").mkdir()
    splits = load(folder)
    assert splits.class_names == ("cat", "dog")
    assert len(splits.train_images) + len(splits.test_images) == 4


def test_images_are_in_the_order_of_their_names(tmp_path):
    for split in ("train", "test"):
        for value, file in enumerate(["b/10.png", "b/2.png", "a/x.png", "C/x.png"]):
            write_image(tmp_path / split / file, (1, 1, 1, value))
    splits = load(str(tmp_path))
    assert splits.class_names == ("C", "a", "b")
    assert splits.train_images.ravel().tolist() == [3, 2, 0, 1]


def write_two_kinds(folder, first, second):
    """One image of each kind per class: the sorted training images are first, second, first, second."""
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for file, content in (("1.png", first), ("2.png", second)):
                path = folder / split / name / file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    return str(folder)


def encoded(*pixels):
    """A PNG of one row."""
    return tf.io.encode_png(np.array([pixels], np.uint8)).numpy()


def test_grey_becomes_colour_beside_colour(tmp_path):
    images = load(write_two_kinds(tmp_path, encoded([7]), encoded([1, 2, 3]))).train_images
    assert images[:2].tolist() == [[[[7, 7, 7]]], [[[1, 2, 3]]]]


def test_alpha_is_put_on_white(tmp_path):
    # 7 with an opacity of 9 in 255: 255 - 248 * 9 / 255 = 246.2
    colour = load(write_two_kinds(tmp_path / "colour", encoded([1, 2, 3, 0]), encoded([7, 9]))).train_images
    assert colour[:2].tolist() == [[[[255, 255, 255]]], [[[246, 246, 246]]]]
    grey = load(write_two_kinds(tmp_path / "grey", encoded([5]), encoded([7, 9]))).train_images
    assert grey[:2].tolist() == [[[[5]]], [[[246]]]]
    opaque = load(write_two_kinds(tmp_path / "opaque", encoded([1, 2, 3, 255]), encoded([7, 255]))).train_images
    assert opaque[:2].tolist() == [[[[1, 2, 3]]], [[[7, 7, 7]]]]


def test_palettes_are_colour(tmp_path):
    palette = png_bytes(2, 1, 8, 3, b"\0\0\1", palette=bytes([1, 2, 3, 4, 5, 6]))
    images = load(write_two_kinds(tmp_path, palette, encoded([7], [8]))).train_images
    assert images[:2].tolist() == [[[[1, 2, 3], [4, 5, 6]]], [[[7, 7, 7], [8, 8, 8]]]]


def test_sixteen_bits_become_eight(tmp_path):
    sixteen = png_bytes(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0x8000, 0x0100))
    images = load(write_two_kinds(tmp_path, sixteen, encoded([7], [8]))).train_images
    assert images[:2].tolist() == [[[[128], [1]]], [[[7], [8]]]]


def test_images_are_resized(tmp_path):
    # Antialiased, halving weighs pixels at distances 0.5 and 1.5 by 3 and 1. The left result has the first
    # three, 3 + 3 + 1 = 7: 3 * 70 / 7 = 30; the right one has the last three, 1 + 3 + 3: 1 * 70 / 7 = 10.
    # Without antialiasing they would be the means of two, 35 and 0.
    wide = encoded([0], [70], [0], [0])
    images = load(write_two_kinds(tmp_path, wide, encoded([10], [20])), image_size=(1, 2)).train_images
    assert images.shape == (4, 1, 2, 1)
    assert images[:2, 0, :, 0].tolist() == [[30, 10], [10, 20]]


def test_resized_pixels_are_rounded(tmp_path):
    # 3 * 2 / 7 = 0.86
    images = load(write_two_kinds(tmp_path, encoded([2], [0], [0], [0]), encoded([0], [0])), image_size=(1, 2))
    assert images.train_images[0, 0, :, 0].tolist() == [1, 0]


def test_image_size_is_height_and_width(tmp_path):
    folder = write_classes(tmp_path, cat=2, dog=2)
    assert load(folder, image_size=(3, 5)).image_shape == (3, 5, 1)
    assert load(folder, image_size=4).image_shape == (4, 4, 1)
    assert load(folder, image_size=2).train_images[0].tolist() == load(folder).train_images[0].tolist()


def test_images_of_different_sizes_need_a_size(tmp_path):
    folder = write_classes(tmp_path, cat=2, dog=2)
    write_image(tmp_path / "dog" / "wide.png", (3, 7, 1, 0))
    with pytest.raises(ValueError, match=r"--image_size.*0\d\.png with 2x2 pixels.*wide\.png with 3x7"):
        load(folder, test_fraction=0.01)
    assert load(folder, image_size=4).image_shape == (4, 4, 1)


def test_a_folder_without_classes(tmp_path):
    write_image(tmp_path / "1.png", (2, 2, 1, 0))
    with pytest.raises(ValueError, match=f"one folder per class. Received: {tmp_path}"):
        load(str(tmp_path))


def test_a_folder_with_one_class(tmp_path):
    with pytest.raises(ValueError, match="at least 2 classes.*class folder `cat`"):
        load(write_classes(tmp_path, cat=3))


def test_a_class_without_images(tmp_path):
    folder = write_classes(tmp_path, cat=2, dog=2)
    (tmp_path / "bird").mkdir()
    (tmp_path / "bird" / "Thumbs.db").write_bytes(b"")
    with pytest.raises(ValueError, match=f"PNG or JPEG.*Received: {tmp_path / 'bird'}, which has none, but 1 .db f"):
        load(folder)


def test_a_class_with_one_image(tmp_path):
    with pytest.raises(ValueError, match="at least 2 images.*class `dog`"):
        load(write_classes(tmp_path, cat=3, dog=1))


@pytest.mark.parametrize("file", ["broken.png", "broken.jpg"])
@pytest.mark.parametrize("how", ["empty", "text", "half", "header", "gif", "bmp", "no header"])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, file, how):
    folder = write_classes(tmp_path, cat=2, dog=2)
    noise = np.random.default_rng(0).integers(0, 256, (2, 2, 3), np.uint8)
    whole = (tf.io.encode_png if file.endswith("png") else tf.io.encode_jpeg)(noise).numpy()
    content = {
        "empty": b"",
        "text": b"no image",
        "half": whole[: -len(whole) // 4],
        "header": whole[:10],
        "bmp": struct.pack("<2sIIIIIIHHIIIIII", b"BM", 58, 0, 54, 40, 2, 2, 1, 24, 0, 4, 0, 0, 0, 0),
        "no header": png_bytes(2, 2, 8, 0, b"\0\0\0\0\0\0").replace(b"IHDR", b"IEND"),
        "gif": b"GIF89a\2\0\2\0\0\0\0,\0\0\0\0\2\0\2\0\0",
    }[how]
    (tmp_path / "cat" / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"whole .*PNG or JPEG file. Received: {tmp_path}/cat/{file}, which"):
        load(folder)


def declare(file, height, width):
    """An image file of a few bytes whose header declares a size."""
    if file.endswith("png"):
        return png_bytes(width, height, 8, 2, b"\0")
    if file.endswith("bmp"):
        return struct.pack("<2sIIIIIIHHIIIIII", b"BM", 58, 0, 54, 40, width, height, 1, 24, 0, 4, 0, 0, 0, 0)
    content = tf.io.encode_jpeg(np.zeros((1, 1, 3), np.uint8)).numpy()
    size = content.index(b"\xff\xc0") + 5  # after the frame's marker, length and precision
    return content[:size] + struct.pack(">HH", height, width) + content[size + 4 :]


@pytest.mark.parametrize("file", ["bomb.png", "bomb.jpg", "bomb.bmp"])
def test_an_image_of_too_many_pixels_is_not_decoded(file, tmp_path, monkeypatch):
    folder = write_classes(tmp_path, cat=2, dog=2)
    (tmp_path / "dog" / file).write_bytes(declare(file, 60_000, 50_000))

    def decode(*_, **__):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(tf.io, "decode_image", decode)
    message = rf"at most 67,108,864 pixels. Received: {tmp_path}/dog/{file}, .* 60000x50000 .*--max_pixels"
    with pytest.raises(ValueError, match=message):
        load(folder, image_size=2)
    with pytest.raises(ValueError, match="at most 100 pixels.*60000x50000"):
        load(folder, image_size=2, max_pixels=100)


def test_as_many_pixels_are_taken_as_are_allowed(tmp_path):
    folder = write_classes(tmp_path, cat=2, dog=2)
    write_image(tmp_path / "dog" / "wide.png", (2, 3, 1, 7))
    assert load(folder, image_size=2, max_pixels=6).image_shape == (2, 2, 1)
    with pytest.raises(ValueError, match=r"at most 5 pixels. Received: .*wide\.png, .* 2x3 pixels"):
        load(folder, image_size=2, max_pixels=5)


def test_a_file_that_no_image_needs_is_not_read(tmp_path):
    folder = write_classes(tmp_path, cat=2, dog=2)
    for name, size, limit, max_pixels in (("a", 2**40, "536,870,912", None), ("b", 2**26 + 1, "67,108,864", 1000)):
        path = tmp_path / "dog" / f"{name}.png"
        with open(path, "wb") as file:
            file.write(declare(path.name, 2, 2))
            file.truncate(size)  # a hole, which takes no room on the disk
        with pytest.raises(ValueError, match=f"at most {limit} bytes. Received: {path} with {size:,}.*--max_pixels"):
            load(folder, max_pixels=max_pixels)
        path.unlink()


def test_pixels_are_bounded_in_folders_alone(tmp_path):
    write_tfds(tmp_path, train=[sample(0, 0)], test=[sample(1, 1)])
    for name in ("digits", "tiny_shapes"):
        with pytest.raises(ValueError, match=f"`max_pixels` bounds .* a folder.*{name} with max_pixels=100. Leave it"):
            load(name, tmp_path, max_pixels=100)
    with pytest.raises(ValueError, match="`max_pixels` must be >= 1, or None. Received: max_pixels=0"):
        load(write_classes(tmp_path / "pets", cat=2, dog=2), max_pixels=0)


def test_a_folder_that_does_not_exist(tmp_path):
    missing = str(tmp_path / "pets")
    with pytest.raises(FileNotFoundError, match=f"folder.*does not exist. Received: {missing}"):
        load(missing)
    with pytest.raises(FileNotFoundError, match="does not exist. Received: missing/pets"):
        load("missing/pets")


def test_a_folder_in_the_current_directory(tmp_path, monkeypatch):
    write_classes(tmp_path / "pets", cat=2, dog=2)
    monkeypatch.chdir(tmp_path)
    assert load("pets").class_names == ("cat", "dog")
    assert load(tmp_path / "pets").class_names == ("cat", "dog")  # a path object


def test_a_folder_does_not_hide_a_data_set(tmp_path, monkeypatch):
    write_classes(tmp_path / "cifar10", cat=2, dog=2)
    write_classes(tmp_path / "digits", cat=2, dog=2)
    (tmp_path / "prepared").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("digits").num_classes == 10
    assert load("./digits").num_classes == 2
    assert load("./cifar10").num_classes == 2
    with pytest.raises(FileNotFoundError, match="`cifar10` is not prepared"):
        load("cifar10", "prepared")


# Which function a loader passes `**reading` on to.
PASSED_ON = {
    "load_folder": image_list.read_list,
    "load_table": image_list.read_list,
    "load_divided_folder": image_list.read_divided,
    "load_divided_table": image_list.read_divided,
}


@pytest.mark.parametrize("loader", [*LOADERS, *TABLE_LOADERS], ids=lambda loader: loader.load.__name__)
def test_a_loader_reads_what_its_row_says(loader):
    functions = [loader.load]
    if loader.load.__name__ in PASSED_ON:
        functions += [PASSED_ON[loader.load.__name__], image_list._read, make_reader]
    names = dict.fromkeys(name for function in functions for name in inspect.signature(function).parameters)
    # What these functions give one another.
    between = {"reading", "images", "divide", "split_is_ours"}
    assert ["name", *loader.reads] == [name for name in names if name not in between]


def test_all_but_what_is_built_in_is_streamed():
    assert [loader.takes("digits") for loader in LOADERS if "shuffle_window" not in loader.reads] == [True]
    assert [loader.takes("cifar10") for loader in LOADERS if "shuffle_window" in loader.reads] == [False, False, True]
    assert all("shuffle_window" in loader.reads for loader in TABLE_LOADERS)


def test_another_kind_of_data_set_is_one_row(monkeypatch):
    def load_stripes(name, split_seed, size):
        images = np.zeros((4, *size, 1), np.uint8)
        return Splits(name, images, np.arange(4) % 2, images[:2], np.arange(2), (f"seed {split_seed}", "other"))

    row = Loader(lambda name: name.startswith("stripes:"), load_stripes, ("split_seed", "size"))
    monkeypatch.setattr(datasets, "LOADERS", (row, *LOADERS))
    splits = load("stripes:up", image_size=3, split_seed=7)
    assert (splits.name, splits.image_shape, splits.class_names) == ("stripes:up", (3, 3, 1), ("seed 7", "other"))
    with pytest.raises(ValueError, match="`shuffle_window`.*Received: stripes:up with shuffle_window=4"):
        load("stripes:up", image_size=3, shuffle_window=4)
    assert load("digits").num_classes == 10


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_classes(tmp_path / "pets", cat=2, dog=2)
    assert load("~/pets").class_names == ("cat", "dog")


# tensorflow-datasets


def write_tfds(data_dir, features=None, supervised_keys=None, **splits):
    """Prepares `tiny_shapes` in a directory, as `download_and_prepare` leaves a real one."""
    features = {
        "image": tfds.features.Image(shape=(2, 2, 3)),
        "label": tfds.features.ClassLabel(names=["circle", "square", "star"]),
        **(features or {}),
    }

    class TinyShapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            kept = {key: feature for key, feature in features.items() if feature is not None}
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(kept),
                supervised_keys=supervised_keys,
                disable_shuffling=True,
            )

        def _split_generators(self, _):
            return {name: self._generate_examples(samples) for name, samples in splits.items()}

        def _generate_examples(self, samples):
            yield from enumerate(samples)

    TinyShapes(data_dir=data_dir).download_and_prepare()
    return data_dir


def sample(value, label, shape=(2, 2, 3), **others):
    return {"image": np.full(shape, value, np.uint8), "label": label, **others}


def test_tfds(tmp_path):
    # 200 images take more than one batch of a pipeline that reads little at a time.
    train = [sample(value, value % 3) for value in range(200)]
    write_tfds(tmp_path, train=train, test=[sample(250, 2), sample(251, 0)])
    splits = load("tiny_shapes", str(tmp_path))

    assert splits.name == "tiny_shapes"
    assert splits.class_names == ("circle", "square", "star")
    assert splits.image_shape == (2, 2, 3)
    assert splits.train_images[:, 1, 1, 2].tolist() == list(range(200))
    assert splits.train_labels.tolist() == [value % 3 for value in range(200)]
    assert splits.test_images[:, 0, 0, 0].tolist() == [250, 251]
    assert splits.test_labels.tolist() == [2, 0]
    assert splits.split is None
    for images, labels in (
        (splits.train_images, splits.train_labels),
        (splits.test_images, splits.test_labels),
    ):
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        assert images.ctypes.data % 64 == 0


def test_tfds_is_read_in_small_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("keras_tkd.data.tfds._READ_BYTES", 40)  # three images of 12 bytes
    write_tfds(tmp_path, train=[sample(value, 0) for value in range(10)], test=[sample(0, 0)])
    sizes = []
    batched = tf.data.Dataset.batch
    monkeypatch.setattr(
        tf.data.Dataset,
        "batch",
        lambda self, size, **kwargs: sizes.append(size) or batched(self, size, **kwargs),
    )
    assert load("tiny_shapes", tmp_path).train_images[:, 0, 0, 0].tolist() == list(range(10))
    assert sizes == [3, 3]


def test_tfds_with_a_version(tmp_path):
    write_tfds(tmp_path, train=[sample(0, 0)], test=[sample(0, 0)])
    assert load("tiny_shapes:1.0.0", tmp_path).num_classes == 3


def test_tfds_validation_stands_in_for_a_missing_test_split(tmp_path):
    write_tfds(tmp_path / "both", train=[sample(1, 0)], validation=[sample(2, 0)], test=[sample(3, 0)])
    write_tfds(tmp_path / "one", train=[sample(1, 0)], validation=[sample(2, 0)])
    assert load("tiny_shapes", tmp_path / "both").test_images[0, 0, 0, 0] == 3
    assert load("tiny_shapes", tmp_path / "one").test_images[0, 0, 0, 0] == 2


@pytest.mark.parametrize("present", ["train", "test"])
def test_tfds_needs_both_splits(tmp_path, present):
    write_tfds(tmp_path, **{present: [sample(0, 0)]})
    with pytest.raises(ValueError, match=rf"`train` and `test`.*tiny_shapes, with the splits \['{present}'\]"):
        load("tiny_shapes", tmp_path)


def test_tfds_reads_the_supervised_keys(tmp_path):
    # As in cifar100: a second label, and features that neither batch nor decode to one shape.
    features = {
        "coarse": tfds.features.ClassLabel(names=["round", "pointed"]),
        "mask": tfds.features.Image(shape=(None, None, 1)),
    }
    train = [sample(n, 2 - n, coarse=n, mask=np.zeros((n + 1, 1, 1), np.uint8)) for n in range(2)]
    write_tfds(tmp_path, features, ("image", "coarse"), train=train, test=train)
    splits = load("tiny_shapes", tmp_path)
    assert splits.class_names == ("round", "pointed")
    assert splits.train_labels.tolist() == [0, 1]
    assert splits.image_shape == (2, 2, 3)


@pytest.mark.parametrize(
    "features",
    [
        {"label": tfds.features.Scalar(np.int64)},
        {"label": None},
        {"image": tfds.features.Tensor(shape=(2, 2, 3), dtype=np.uint8)},
        {"image": tfds.features.Image(shape=(2, 2, 3), dtype=np.uint16)},
        {"image": None},
    ],
    ids=["number", "no label", "tensor", "16 bits", "no image"],
)
def test_tfds_needs_images_and_class_labels(tmp_path, features):
    example = {key: value for key, value in sample(0, 0).items() if features.get(key, key) is not None}
    if features.get("image") is not None:
        example["image"] = example["image"].astype(features["image"].np_dtype)
    write_tfds(tmp_path, features, train=[example], test=[example])
    with pytest.raises(ValueError, match="uint8 `Image` as its input and a `ClassLabel`.*tiny_shapes"):
        load("tiny_shapes", tmp_path)


def test_tfds_with_nested_supervised_keys(tmp_path):
    nested = ({"pixels": "image"}, "label")
    write_tfds(tmp_path, supervised_keys=nested, train=[sample(0, 0)], test=[sample(0, 0)])
    with pytest.raises(ValueError, match="uint8 `Image` as its input"):
        load("tiny_shapes", tmp_path)


def test_tfds_labels_are_checked(tmp_path):
    # What test splits without published labels hold.
    write_tfds(tmp_path, train=[sample(0, 0)], test=[sample(0, 1), sample(0, -1)])
    with pytest.raises(ValueError, match="number of classes, 3. Received: labels from -1 to 1 in the split `test`"):
        load("tiny_shapes", tmp_path)


def test_tfds_labels_above_the_classes(tmp_path):
    write_tfds(tmp_path, train=[sample(0, 0), sample(0, 2)], test=[sample(0, 1)])
    names = tmp_path / "tiny_shapes" / "1.0.0" / "label.labels.txt"
    names.write_text("circle\nsquare\n")
    features = names.with_name("features.json")
    features.write_text(features.read_text().replace('"numClasses": "3"', '"numClasses": "2"'))
    with pytest.raises(ValueError, match="number of classes, 2. Received: labels from 0 to 2 in the split `train`"):
        load("tiny_shapes", tmp_path)


def test_tfds_images_of_different_sizes_need_a_size(tmp_path):
    features = {"image": tfds.features.Image(shape=(None, None, 1))}
    samples = [sample(9, 0, (3, 4, 1)), sample(8, 1, (6, 2, 1))]
    write_tfds(tmp_path, features, train=samples, test=samples)
    with pytest.raises(ValueError, match="images of tiny_shapes differ in size: pass `image_size`"):
        load("tiny_shapes", tmp_path)
    splits = load("tiny_shapes", tmp_path, image_size=(5, 7))
    assert splits.image_shape == (5, 7, 1)
    assert splits.train_images.dtype == np.uint8
    assert splits.train_images[:, 2, 2, 0].tolist() == [9, 8]


def test_tfds_images_are_resized(tmp_path):
    # As for folders: 3 * 70 / 7 and 70 / 7.
    features = {"image": tfds.features.Image(shape=(1, 4, 1))}
    samples = [{"image": np.array([[[0], [70], [0], [0]]], np.uint8), "label": 0}]
    write_tfds(tmp_path, features, train=samples, test=samples)
    assert load("tiny_shapes", tmp_path, image_size=(1, 2)).train_images.ravel().tolist() == [30, 10]


@pytest.mark.parametrize("name, nearest", [("cifr10", "cifar10"), ("digit", "digits"), ("mnst", "mnist")])
def test_an_unknown_name_lists_the_nearest(tmp_path, name, nearest):
    with pytest.raises(ValueError, match=rf"Received: {name}. Nearest names: .*\b{nearest}\b"):
        load(name, tmp_path)


@pytest.mark.parametrize("name", ["qqqqqq", "not a name", "", "huggingface:qqqqqq", "kubric:qqqqqq"])
def test_an_unknown_name_without_a_near_one(tmp_path, name):
    with pytest.raises(ValueError, match=f"`digits`, a folder.*Received: {name}. Nearest names: none"):
        load(name, tmp_path)


def test_an_unknown_config_is_reported_by_tfds(tmp_path):
    with pytest.raises(ValueError, match="BuilderConfig runes not found"):
        load("emnist/runes", tmp_path)


@pytest.mark.parametrize("name, folder", [("cifar10", "cifar10"), ("emnist/letters", "emnist/letters")])
def test_a_data_set_that_is_not_prepared(tmp_path, name, folder):
    with pytest.raises(FileNotFoundError) as raised:
        load(name, tmp_path)
    message = str(raised.value)
    assert f"`{name}` is not prepared: looked in {tmp_path}/{folder}/" in message
    assert f"tfds.builder('{name}', data_dir='{tmp_path}').download_and_prepare()" in message
    assert "--data_dir" in message
    assert os.listdir(tmp_path) == []  # nothing was begun


# Arguments


@pytest.mark.parametrize("name", ["digits", "cifar10", "no such name"])
def test_data_dir_must_exist(tmp_path, name):
    missing = tmp_path / "missing"
    with pytest.raises(FileNotFoundError, match=f"`data_dir` does not exist.*data_dir={missing}"):
        load(name, missing)


@pytest.mark.parametrize("fraction", [0, 1, 1.5, -0.2, float("nan")])
def test_test_fraction_is_checked(fraction):
    with pytest.raises(ValueError, match=f"between 0 and 1, both exclusive. Received: test_fraction={fraction}$"):
        load("digits", test_fraction=fraction)


@pytest.mark.parametrize("size", [0, -8, 8.5, "8", (8,), (8, 8, 3), (8, 0), (8, 8.0)])
def test_image_size_is_checked(size):
    with pytest.raises(ValueError, match="`image_size` must be a positive integer, or a pair"):
        load("digits", image_size=size)


@pytest.mark.parametrize("progress", [False, True])
def test_progress_is_shown_if_asked_for(tmp_path, capsys, progress):
    folder = write_classes(tmp_path / "pets", cat=5, dog=5)
    write_tfds(tmp_path, train=[sample(0, 0)] * 7, test=[sample(0, 0)] * 3)
    for name, counts in ((folder, ("8/8", "2/2")), ("tiny_shapes", ("7/7", "3/3"))):
        capsys.readouterr()
        load(name, tmp_path, progress=progress)
        shown = capsys.readouterr().out
        assert bool(shown) == progress
        assert all(count in shown for count in counts) == progress


def test_progress_is_about_ten_lines_for_each_split(tmp_path, capsys):
    folder = write_classes(tmp_path / "pets", cat=100, dog=100)
    load(folder, progress=True, test_fraction=0.5)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("Reading")] == ["Reading 100 images"] * 2
    assert sum("/100 images" in line for line in lines) == len(lines) - 2 == 20
