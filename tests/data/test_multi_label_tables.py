"""Images of several classes: a table that names them, splits that keep each class on both sides, batches of rows."""

import keras
import numpy as np
import pytest

from keras_tkd import data
from keras_tkd.data.partition import group_split, stratified_split

NAMES = ("cat", "dog", "owl")
# By file: none, one, two and three classes.
LABELS = ["", "owl", "dog|cat", " cat | owl|", "cat|dog|owl"] * 4
ROWS = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [1, 1, 1]] * 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty pictures, each of a grey value of its own, and a table of their classes."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(20):
        keras.utils.save_img(folder / f"{number:02}.png", np.full((4, 4, 1), 10 * number), scale=False)
    return folder


def write(folder, labels, split=None, name="labels.csv"):
    columns = [[f"{number:02}.png", label] for number, label in enumerate(labels)]
    columns = columns if split is None else [[*row, part] for row, part in zip(columns, split, strict=True)]
    header = ["file", "label"] + ["split"] * (split is not None)
    (folder / name).write_text("\n".join(",".join(row) for row in [header, *columns]))
    return folder / name


def numbers(images):
    """Which pictures they are, by their grey."""
    return images[:, 0, 0, 0] // 10


def load(folder, labels=LABELS, split=None, **arguments):
    return data.load(folder, labels=write(folder, labels, split), multi_label=True, **arguments)


def test_a_table_names_several_classes(folder):
    splits = load(folder, split=["train", "test"] * 10)
    assert splits.class_names == NAMES and splits.num_classes == 3 and splits.multi_label
    np.testing.assert_array_equal(numbers(splits.train_images), range(0, 20, 2))
    np.testing.assert_array_equal(splits.train_labels, ROWS[::2])
    np.testing.assert_array_equal(splits.test_labels, ROWS[1::2])
    # Each of the five kinds is twice in the half.
    assert splits.count_images()["train"] == {"cat": 6, "dog": 4, "owl": 6}


def write_matrix(folder, rows, names=("Owl", "cat", "dog")):
    lines = ["file,{},split", *(f"{number:02}.png,{{}},{part}" for number, part in enumerate(["train", "test"] * 10))]
    fields = [",".join(names), *(",".join(map(str, row)) for row in rows)]
    path = folder / "matrix.csv"
    path.write_text("\n".join(line.format(row) for line, row in zip(lines, fields, strict=True)))
    return path


def test_a_table_may_have_a_column_for_each_class(folder):
    """In the columns' order and by their names as they stand, with 1 and 0, or 1.0 and 0.0."""
    rows = ROWS[:, [2, 0, 1]].tolist()
    rows[4] = ["1.0", "1", " 1"]
    rows[5] = ["0.0", "0", "0.0"]
    splits = data.load(folder, labels=write_matrix(folder, rows), multi_label=True)
    assert splits.class_names == ("Owl", "cat", "dog")
    np.testing.assert_array_equal(splits.train_labels, ROWS[::2, [2, 0, 1]])
    np.testing.assert_array_equal(splits.test_labels, ROWS[1::2, [2, 0, 1]])


def test_thousands_of_columns_are_classes(folder):
    """Their names take 84,000 characters; of neighbours one is in a picture, and the other in the next of its side."""
    names = [f"class-{number:014}" for number in range(4000)]
    rows = (np.arange(4000) + np.arange(20)[:, None] // 2) % 2
    splits = data.load(folder, labels=write_matrix(folder, rows.tolist(), names), multi_label=True)
    assert splits.class_names == tuple(names)
    np.testing.assert_array_equal(splits.train_labels, rows[::2])


def test_a_first_line_without_end_is_refused(folder):
    path = folder / "line.csv"
    path.write_text("file,label," + "x" * 2**24)
    with pytest.raises(ValueError, match="must be CSV, in UTF-8. .* its first line has more than 16,777,216 char"):
        data.load(folder, labels=path, multi_label=True)


@pytest.mark.parametrize("field", ["2", "-1", "", "yes"])
def test_a_column_that_is_no_class_is_named(field, folder):
    rows = ROWS.tolist()
    rows[3][1] = field
    with pytest.raises(ValueError, match=f"1 for yes and 0 for no. Received: .*, line 5, with '{field}' for 'cat'"):
        data.load(folder, labels=write_matrix(folder, rows), multi_label=True)
    # Without the task there is nothing to read them as.
    with pytest.raises(ValueError, match="columns `file` and `label`. Received: .* lacks `label`"):
        data.load(folder, labels=write_matrix(folder, rows))


def test_images_keep_their_labels_in_every_split(folder):
    splits = load(folder, test_fraction=0.25).with_validation(0.3, 0)
    parts = [getattr(splits, part) for part in ("train_images", "validation_images", "test_images")]
    labels = [splits.train_labels, splits.validation_labels, splits.test_labels]
    assert sorted(np.concatenate([numbers(part) for part in parts])) == list(range(20))
    for images, rows in zip(parts, labels, strict=True):
        np.testing.assert_array_equal(rows, ROWS[numbers(images)])
        assert rows.any(axis=0).all()
    fewer = splits.with_train_fraction(0.5, 0)
    np.testing.assert_array_equal(fewer.train_labels, ROWS[numbers(fewer.train_images)])


def test_streams_have_the_same(folder):
    whole, stream = load(folder), load(folder, shuffle_window=8)
    np.testing.assert_array_equal(stream.train_labels, whole.train_labels)
    batches = data.image_dataset(stream.train_images, stream.train_labels, 4, seed=0)
    for images, labels in batches.as_numpy_iterator():
        np.testing.assert_array_equal(labels, ROWS[numbers(images)])


def test_without_the_task_a_label_is_one_class(folder):
    splits = data.load(folder, labels=write(folder, ["a|b", "c"] * 10))
    assert splits.class_names == ("a|b", "c") and not splits.multi_label


class TestSplit:
    ROWS = (np.random.default_rng(0).random((400, 5)) < [0.02, 0.1, 0.3, 0.5, 0.9]).astype("uint8")

    def test_each_class_gives_its_share(self):
        names = list("abcde")
        kept, taken = stratified_split(self.ROWS, 0.25, 3, names)
        assert sorted([*kept, *taken]) == list(range(400))
        shares = self.ROWS[taken].sum(0) / self.ROWS.sum(0)
        # Of the rarest it is the nearest number; of those that others divide, about that.
        count = self.ROWS[:, 0].sum()
        assert self.ROWS[taken, 0].sum() == round(0.25 * count)
        np.testing.assert_allclose(shares[1:], 0.25, atol=0.05)
        none = ~self.ROWS.any(axis=1)
        assert none.sum() > 5 and none[taken].sum() == round(0.25 * none.sum())

    def test_the_seed_decides_it(self):
        first, again, other = (stratified_split(self.ROWS, 0.25, seed, list("abcde"))[1] for seed in (3, 3, 4))
        np.testing.assert_array_equal(first, again)
        assert set(first) != set(other)

    def test_a_class_that_cannot_be_on_both_sides(self):
        with pytest.raises(ValueError, match="both sides of a split. Received: class 'b' with 1,"):
            stratified_split(np.array([[1, 1], [1, 0], [1, 0]]), 0.5, 0, ["a", "b"])

    def test_groups_stay_together(self):
        groups = np.arange(400) // 4
        kept, taken = group_split(self.ROWS, groups, 0.25, 0, list("abcde"))
        assert not set(groups[kept]) & set(groups[taken])
        np.testing.assert_allclose((self.ROWS[taken].sum(0) / self.ROWS.sum(0))[1:], 0.25, atol=0.05)
        assert 0 < self.ROWS[taken, 0].sum() < self.ROWS[:, 0].sum()


def test_batches_are_of_rows(folder):
    splits = load(folder)
    for dataset in (data.image_dataset, data.triplet_dataset):
        more = {"negatives": None} if dataset is data.triplet_dataset else {}
        for images, labels in dataset(splits.train_images, splits.train_labels, 4, seed=0, **more).as_numpy_iterator():
            images = images["image"] if isinstance(images, dict) else images
            np.testing.assert_array_equal(labels, ROWS[numbers(images)])


def test_mixed_rows_are_shares_of_both(folder):
    splits = load(folder)
    mix = data.Mixing(3, mixup=0.4)
    batch = data.image_dataset(splits.train_images, splits.train_labels, 64, seed=0, mix=mix)
    images, labels = next(batch.as_numpy_iterator())
    plain, own = next(data.image_dataset(splits.train_images, splits.train_labels, 64, seed=0).as_numpy_iterator())
    # A class that the image has, and its partner has not, is there by the image's share; and the other way round.
    assert labels.dtype == np.float32 and 0 <= labels.min() and labels.max() <= 1
    assert ((labels > 0) & (labels < 1)).any()
    assert ((labels < 1) | (own == 1) | (images[:, 0, 0] == plain[:, 0, 0])).mean() > 0.5
    whole = data.image_dataset(splits.train_images, splits.train_labels, 64, seed=0, mix=mix, training=False)
    np.testing.assert_array_equal(next(whole.as_numpy_iterator())[1], splits.train_labels)
    with pytest.raises(ValueError, match="must be of 4 classes.*3"):
        data.image_dataset(splits.train_images, splits.train_labels, 64, seed=0, mix=data.Mixing(4, mixup=0.4))


class TestRefused:
    def test_without_a_table(self, folder):
        with pytest.raises(ValueError, match="`multi_label` is for .* with a table of `labels`.*multi_label=True"):
            data.load("digits", multi_label=True)

    def test_without_a_class(self, folder):
        with pytest.raises(ValueError, match="at least 2 classes.*none in its column `label`"):
            load(folder, [""] * 20)

    def test_a_class_of_one_side(self, folder):
        with pytest.raises(ValueError, match="class 'dog' has none in `test`"):
            load(folder, ["cat|dog", "cat"] * 10, ["train", "test"] * 10)

    @pytest.mark.parametrize("method", ["with_classes", "with_open_set"])
    def test_choices_of_classes(self, folder, method):
        with pytest.raises(ValueError, match="where an image has one class.*have several"):
            getattr(load(folder), method)([0, 1])

    def test_an_open_set(self, folder):
        with pytest.raises(ValueError, match="open_set_fraction=0.5, multi_label=True"):
            load(folder, open_set_fraction=0.5)

    def test_images_drawn_by_class(self, folder):
        splits = load(folder)
        with pytest.raises(ValueError, match="`labels` must be class ids"):
            data.triplet_dataset(splits.train_images, splits.train_labels, 4, seed=0)
        with pytest.raises(ValueError, match="`labels` must be class ids"):
            data.pair_dataset(splits.train_images, splits.train_labels, 4, seed=0)
        with pytest.raises(ValueError, match="must be multi-hot rows.*from 0 to 5"):
            data.image_dataset(splits.train_images, 5 * splits.train_labels, 4, seed=0)
        with pytest.raises(ValueError, match="one row for each image. Received: 3 images"):
            data.image_dataset(splits.train_images[:3], splits.train_labels, 4, seed=0)
