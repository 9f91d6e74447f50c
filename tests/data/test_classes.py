"""Some classes of a data set: which are meant, and what is left of the samples."""

import numpy as np
import pytest

from keras_tkd.data import Splits, class_indices

NAMES = ("cat", "dog", "bird", "fish")


@pytest.mark.parametrize(
    "classes, names, indices",
    [
        (["cat"], NAMES, (0,)),
        (("fish", "cat", "bird"), NAMES, (3, 0, 2)),
        (["3", 0, np.int64(1)], NAMES, (3, 0, 1)),
        # What is a name is no index, whatever it looks like; an integer is one.
        (["2", 1], ("2", "0", "a"), (0, 1)),
        (["2", 2], ("2", "0", "a"), (0, 2)),
    ],
)
def test_names_and_indices(classes, names, indices):
    assert class_indices(classes, names) == indices


@pytest.mark.parametrize(
    "classes, message",
    [
        (["cat", "brid"], "`mine` must be names.*indices from 0 to 3.*'brid'.*Nearest names: bird"),
        (["4"], "from 0 to 3.*'4'"),
        ([4], "from 0 to 3.*4"),
        ([-1], "from 0 to 3.*-1"),
        (["-1"], "from 0 to 3.*'-1'"),
        ([], r"`mine` must be at least one class, and none twice.*\[\]"),
        (["cat", "dog", "0"], r"none twice.*\['cat', 'dog', '0'\]"),
    ],
)
def test_classes_that_are_none(classes, message):
    with pytest.raises(ValueError, match=message):
        class_indices(classes, NAMES, "mine")


def numbered(*shape):
    """Images whose pixels are their own number."""
    return np.arange(shape[0], dtype=np.uint8)[:, None, None, None] * np.ones(shape, np.uint8)


def splits(**fields):
    """Three training images of each class, in turn, and four test images, one of each."""
    values = {
        "name": "pets",
        "train_images": numbered(12, 2, 3, 1),
        "train_labels": np.arange(12, dtype=np.int32) % 4,
        "test_images": numbered(4, 2, 3, 1),
        "test_labels": np.array([3, 2, 1, 0], np.int32),
        "class_names": NAMES,
    }
    return Splits(**values | fields)


def test_the_samples_of_some_classes_are_renumbered_in_the_order_given():
    whole = splits(split={"train": [f"{i}.png" for i in range(12)], "test": list("abcd")})
    some = whole.with_classes(["fish", "1"])
    assert some.class_names == ("fish", "dog") and some.num_classes == 2 and some.all_class_names == NAMES
    # Of 0, 1, ... the images of class 3 are 3, 7, 11, those of class 1 are 1, 5, 9.
    assert some.train_images[:, 0, 0, 0].tolist() == [1, 3, 5, 7, 9, 11]
    assert some.train_labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert some.test_images[:, 0, 0, 0].tolist() == [0, 2] and some.test_labels.tolist() == [0, 1]
    assert some.train_images.shape == (6, 2, 3, 1) and some.train_images.ctypes.data % 64 == 0
    assert some.train_labels.dtype == some.test_labels.dtype == np.int32
    assert some.split == {"train": [f"{i}.png" for i in (1, 3, 5, 7, 9, 11)], "test": ["a", "c"]}
    # The whole is as it was.
    assert whole.class_names == NAMES and whole.all_class_names is None and len(whole.train_labels) == 12
    assert len(whole.split["train"]) == 12


def test_some_of_some_classes_still_know_all():
    some = splits().with_classes([3, 1, 0]).with_classes(["cat", 0])
    assert some.class_names == ("cat", "fish") and some.all_class_names == NAMES
    assert some.test_labels.tolist() == [1, 0]


def test_validation_goes_with_them():
    divided = splits().with_validation(0.34, seed=0).with_classes(["bird", "cat"])
    assert np.bincount(divided.train_labels).tolist() == [2, 2]
    assert np.bincount(divided.validation_labels).tolist() == [1, 1]
    of = np.array([2, 0])[divided.validation_labels]
    assert (divided.validation_images[:, 0, 0, 0] % 4).tolist() == of.tolist()
    # In the other order, too.
    assert np.bincount(splits().with_classes([0, 1]).with_validation(0.34, seed=0).validation_labels).tolist() == [1, 1]


def test_classes_that_leave_nothing_to_tell_apart_or_to_test():
    with pytest.raises(ValueError, match=r"at least two.*\['cat'\]"):
        splits().with_classes(["cat"])
    with pytest.raises(ValueError, match="test images.*class 'dog' of `pets`"):
        splits(test_labels=np.array([3, 2, 2, 0], np.int32)).with_classes(["cat", "dog"])


@pytest.mark.parametrize("files", [None, {"train": [f"{i}.png" for i in range(12)], "test": list("abcd")}])
def test_every_sample_knows_where_it_was_loaded_from(files):
    """Through all that moves samples; an image's pixels are its number."""
    moved = splits(loaded=files).with_open_set([1, 3]).with_classes(["bird", "cat"])
    moved = moved.with_validation(0.4, seed=1).with_train_fraction(0.6, seed=2)
    # Of three training images of two classes one each is held out, and one of the two others kept; of test images two.
    for part, count in (("train", 2), ("validation", 2), ("test", 2)):
        numbers = getattr(moved, f"{part}_images")[:, 0, 0, 0].tolist()
        named = files and files["test" if part == "test" else "train"]
        assert len(numbers) == count
        assert moved.get_ids(part) == (numbers if files is None else [named[number] for number in numbers])
