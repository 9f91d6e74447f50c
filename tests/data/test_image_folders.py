"""Folders and tables of images: what is read, what is not and why, and files that cannot be read."""

import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.data.datasets import load
from keras_tkd.data.image_folder import is_part
from keras_tkd.data.partition import group_split
from keras_tkd.utils.naming import name_some


def write(root, *files):
    """Writes files below a folder: images of 2x2 grey pixels, each of them its place in the order of the arguments."""
    for value, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            path.write_bytes(tf.io.encode_png(np.full((2, 2, 1), value, np.uint8)).numpy())
        else:
            path.write_bytes(b"no image")
    return root


def pixels(images):
    return images[:, 0, 0, 0].tolist()


# Layouts


@pytest.mark.parametrize("held_out", ["test", "val", "valid", "validation"])
def test_the_held_out_folder_has_any_of_its_names(held_out, tmp_path):
    parts = ("train/cat/a.png", "train/dog/a.png", f"{held_out}/cat/a.png", f"{held_out}/dog/a.png")
    splits = load(write(tmp_path, *parts))
    assert pixels(splits.train_images) == [0, 1] and pixels(splits.test_images) == [2, 3]
    assert splits.class_names == ("cat", "dog") and splits.test_labels.tolist() == [0, 1]
    assert splits.split is None and not splits.skipped
    write(tmp_path, f"{held_out}/emu/a.png")
    with pytest.raises(ValueError, match=f"`train` and `{held_out}` must have the same .*`train` lacks .* `emu`"):
        load(tmp_path)


@pytest.mark.parametrize(("train", "held_out"), [("Train", "Test"), ("TRAIN", "Valid"), ("Training", "Testing")])
def test_folders_of_splits_may_be_written_otherwise(train, held_out, tmp_path):
    splits = load(write(tmp_path, *(f"{part}/{name}/a.png" for part in (train, held_out) for name in ("cat", "dog"))))
    assert pixels(splits.train_images) == [0, 1] and pixels(splits.test_images) == [2, 3]
    assert splits.class_names == ("cat", "dog") and splits.split is None
    write(tmp_path, f"{train}/emu/a.png")
    with pytest.raises(ValueError, match=f"`{train}` and `{held_out}` must have .*`{held_out}` lacks .* `emu`"):
        load(tmp_path)


def test_of_two_folders_of_a_split_it_is_the_one_that_is_written_as_it_is_named(tmp_path):
    parts = [f"{part}/{name}/a.png" for part in ("train", "Training", "test") for name in ("cat", "dog")]
    splits = load(write(tmp_path, *parts))
    assert pixels(splits.train_images) == [0, 1]
    assert splits.skipped == {"files and folders beside the two splits": ["Training"]}


def test_splits_are_no_classes(tmp_path):
    """With `nested` the images below them would be theirs."""
    write(tmp_path, *(f"{part}/{name}/{n}.png" for part in ("val", "Test") for name in ("cat", "dog") for n in "ab"))
    with pytest.raises(ValueError, match="must have `train` and one of .* with Test, val alone. Add the other"):
        load(tmp_path, nested=True)


def test_beside_test_val_is_not_read_and_said(tmp_path):
    parts = [f"{part}/{name}/a.png" for part in ("train", "val", "test") for name in ("cat", "dog")]
    splits = load(write(tmp_path, *parts, "notes.txt", ".hidden/a.png"))
    assert pixels(splits.train_images) == [0, 1] and pixels(splits.test_images) == [4, 5]
    assert splits.skipped == {
        "hidden files and folders": [".hidden"],
        "files and folders beside the two splits": ["notes.txt", "val"],
    }


def test_two_held_out_folders_are_one_too_many(tmp_path):
    write(tmp_path, *(f"{part}/{name}/a.png" for part in ("train", "val", "valid") for name in ("cat", "dog")))
    with pytest.raises(ValueError, match="One folder beside `train` .* with val, valid. Name the one .* `test`"):
        load(tmp_path)


TREE = ("cat/1.png", "cat/old/2.png", "cat/old/more/3.png", "cat/z.png", "dog/1.png", "dog/2.png")


def test_sub_folders_are_named(tmp_path):
    splits = load(write(tmp_path, *TREE), test_fraction=0.01)
    assert len(splits.train_images) + len(splits.test_images) == 4
    assert splits.skipped == {"sub-folders of classes, which --nested reads": ["cat/old"]}


def test_nested_reads_sub_folders(tmp_path):
    for part in ("train", "val"):
        write(tmp_path / "two", *(f"{part}/{file}" for file in TREE))
    write(tmp_path / "one", *TREE)
    (tmp_path / "one" / "cat" / "old" / "again").symlink_to(tmp_path / "one" / "cat")
    splits = load(tmp_path / "two", nested=True)
    assert pixels(splits.train_images) == pixels(splits.test_images) == [0, 1, 2, 3, 4, 5]
    assert splits.train_labels.tolist() == [0, 0, 0, 0, 1, 1] and not splits.skipped
    splits = load(tmp_path / "one", nested=True, test_fraction=0.5)
    assert sorted(splits.split["train"] + splits.split["test"]) == sorted(TREE)
    assert splits.skipped == {"links to folders, below classes": ["cat/old/again"]}


def test_what_is_not_read_is_said(tmp_path):
    # The same file many times is no matter: only names count here.
    others = ["cat/Thumbs.db", "cat/.DS_Store", "cat/b.txt", "dog/a.TXT", "dog/list", "readme.md", ".git/x", "a.png"]
    write(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", *others)
    (tmp_path / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "dog" / "pipe.png")
    splits = load(tmp_path)
    assert splits.skipped == {
        "hidden files and folders": [".git", "cat/.DS_Store"],
        "files beside the class folders": ["a.png", "readme.md"],
        ".db files": ["cat/Thumbs.db"],
        ".txt files": ["cat/b.txt", "dog/a.TXT"],
        "files without an ending": ["dog/list"],
        "links to nothing, and what is no file": ["dog/gone.png", "dog/pipe.png"],
    }


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["train/cat/a.png", "train/dog/a.png"], "train, which has none, but the folders cat, dog. If .* as a split"),
        (["val/cat/a.png", "cat/a.png"], "val, which has none, .* `train` and one of `test`, `val`, `valid`"),
        (["cat/old/a.png", "dog/a.png"], "cat, which has none, but the folders old. If .* `nested` .--nested"),
        (["pets/cat/a.png", "pets/dog/a.png"], "none, but the folders cat, dog. If .* the data set is .*/pets"),
        (["cat/a.heic", "cat/b.heic", "dog/a.png"], "cat, which has none, but 2 .heic files. Convert them"),
        (["train/cat/a.png", "val/a.png"], "one folder per class. Received: .*/val, .* `labels` .--labels"),
    ],
)
def test_a_folder_that_is_meant_otherwise(files, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        load(write(tmp_path, *files))


def test_arguments_of_folders_are_for_folders_alone(tmp_path):
    for arguments in ({"nested": True}, {"skip_bad_images": True}):
        with pytest.raises(ValueError, match=f"a folder of .*digits with {next(iter(arguments))}=True. Leave it out"):
            load("digits", **arguments)
    table = write_table(tmp_path, "file,label", "a.png,a", "b.png,b")
    with pytest.raises(ValueError, match="`nested` is for a folder of class folders; a table of labels has paths"):
        load(tmp_path, labels=table, nested=True)
    with pytest.raises(ValueError, match="`labels` names the files of a folder of images. Received: .*dataset=digits"):
        load("digits", labels=table)


# Tables


def write_table(folder, *lines, name="labels.csv", encoding="utf-8"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("\n".join(lines).encode(encoding))
    return str(path)


def test_a_table_says_the_labels(tmp_path):
    root = write(tmp_path / "all", "z.png", "b/y.png", "x.png", "unnamed.png", "w.png")
    table = write_table(tmp_path, "width,File, label", "9,z.png,cat", "9,./b/y.png,dog", "9,x.png,dog", "9,w.png,cat")
    splits = load(root, labels=pathlib.Path(table), test_fraction=0.5)
    assert splits.class_names == ("cat", "dog")
    # One of each class on each side, in the order of the table.
    named = {"z.png": 0, "b/y.png": 1, "x.png": 2, "w.png": 4}
    labels = {"z.png": 0, "b/y.png": 1, "x.png": 1, "w.png": 0}
    for part, images, given in (
        ("train", splits.train_images, splits.train_labels),
        ("test", splits.test_images, splits.test_labels),
    ):
        assert pixels(images) == [named[file] for file in splits.split[part]]
        assert given.tolist() == [labels[file] for file in splits.split[part]] and sorted(given) == [0, 1]
        assert splits.split[part] == [file for file in named if file in splits.split[part]]
    assert load(root, labels=table, test_fraction=0.5).split == splits.split


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_tables_of_every_office(delimiter, encoding, tmp_path):
    write(tmp_path, "a.png", "ü.png", "a,b;c.png", "d.png")
    lines = ["file,label,split", "a.png,1,train", "ü.png,2,train", '"a,b;c.png",1,val', "d.png,2,val"]
    lines = [line if '"' in line else line.replace(",", delimiter) for line in lines]
    lines[3] = delimiter.join(['"a,b;c.png"', "1", "val"])
    splits = load(tmp_path, labels=write_table(tmp_path, *lines, encoding=encoding))
    assert pixels(splits.train_images) == [0, 1] and pixels(splits.test_images) == [2, 3]
    assert splits.split is None


def test_labels_that_are_numbers_are_in_their_order(tmp_path):
    write(tmp_path, *(f"{value}{part}.png" for value in range(11) for part in "ab"))
    rows = [f"{value}{part}.png,{value}" for value in reversed(range(11)) for part in "ab"]
    splits = load(tmp_path, labels=write_table(tmp_path, "file,label", *rows))
    assert splits.class_names == tuple(str(value) for value in range(11))
    for images, labels in (
        (splits.train_images, splits.train_labels),
        (splits.test_images, splits.test_labels),
    ):
        assert [value // 2 for value in pixels(images)] == labels.tolist()
    # Where one of them is no number, all are words.
    rows += ["x.png,x", "y.png,x"]
    write(tmp_path, "x.png", "y.png")
    names = load(tmp_path, labels=write_table(tmp_path, "file,label", *rows)).class_names
    assert names == ("0", "1", "10", "2", "3", "4", "5", "6", "7", "8", "9", "x")


def test_beside_test_rows_of_val_are_not_read_and_said(tmp_path):
    write(tmp_path, *(f"{n}.png" for n in range(6)))
    rows = ["0.png,a,train", "1.png,b,train", "2.png,a,test", "3.png,b,test", "4.png,a,val", "5.png,b,val"]
    splits = load(tmp_path, labels=write_table(tmp_path, "file,label,split", *rows))
    assert pixels(splits.train_images) == [0, 1] and pixels(splits.test_images) == [2, 3]
    assert splits.skipped == {"files whose `split` is `val`, beside `test`": ["4.png", "5.png"]}


def test_splits_of_a_table_may_be_written_otherwise(tmp_path):
    write(tmp_path, *(f"{n}.png" for n in range(4)))
    rows = ["0.png,a,TRAIN", "1.png,b,Training", "2.png,a,Test", "3.png,b,testing"]
    splits = load(tmp_path, labels=write_table(tmp_path, "file,label,split", *rows))
    assert pixels(splits.train_images) == [0, 1] and pixels(splits.test_images) == [2, 3]


TWO = ("0.png,a", "1.png,b")
BAD_TABLES = {
    "no file": (["name,label", "0.png,a"], "must have the columns `file` and `label`. .* lacks `file` .*: name, label"),
    "no label": (["file", "0.png"], "lacks `label` among its columns: file"),
    "nothing": ([""], "must have the columns `file` and `label`"),
    "no rows": (["file,label"], "must have rows. Received: .*labels.csv, which has none"),
    "no header": (list(TWO), "lacks `file` among its columns: 0.png, a. Name them in the first line"),
    "column twice": (["file,label,label", "0.png,a,b"], "must have different names. .* file, label, label"),
    "missing file": (["file,label", *TWO, "7.png,b", "8.png,a"], "must be there.* with 2 that are not: 7.png, 8.png"),
    "folder": (["file,label", *TWO, "sub,b"], "must be there.* with 1 that are not: sub"),
    "empty label": (["file,label", *TWO, "2.png,"], "`label` must not be empty. .*labels.csv, line 4"),
    "no field": (["file,label", *TWO, "2.png"], "`label` must not be empty. .*labels.csv, line 4"),
    "blank label": (["file,label", "0.png,  ", "1.png,b"], "`label` must not be empty. .*labels.csv, line 2"),
    "empty file": (["file,label", *TWO, ",a"], "`file` must not be empty. .*labels.csv, line 4"),
    "empty group": (["file,label,group", "0.png,a,"], "`group` must not be empty. .*line 2"),
    "too many fields": (["file,label", "0.png,a,b"], "as many fields as there are columns, 2. .*line 2, with more"),
    "twice": (["file,label", *TWO, "./0.png,b"], "must stand once in a table. .* twice: 0.png"),
    "outside": (["file,label", *TWO, "../0.png,b"], "a path inside the folder .* with ../0.png"),
    "around": (["file,label", *TWO, "sub/../../0.png,b"], "a path inside the folder .* with sub/../../0.png"),
    "from the root": (["file,label", *TWO, "/etc/passwd,b"], "a path inside the folder .* with /etc/passwd"),
    "another split": (["file,label,split", "0.png,a,exam"], "one of train, test, val.* '0.png' has 'exam'"),
    "two tests": (
        ["file,label,split", "0.png,a,train", "1.png,a,val", "2.png,b,valid"],
        "One value of `split` .* with val, valid. Call",
    ),
    "one side": (["file,label,split", "0.png,a,train", "1.png,b,train", "2.png,a,test"], "'b' has none in `test`"),
    "no test": (["file,label,split", "0.png,a,train", "1.png,b,train"], "class 'a' has none in `test`"),
    "one label": (["file,label", "0.png,a", "1.png,a"], "at least 2 classes. .* single label 'a'"),
    "single": (["file,label", *TWO, "2.png,a"], "at least 2 images to be split. .* 1 image of class `b`"),
    "group on both sides": (
        ["file,label,split,group", "0.png,a,train,g", "1.png,b,train,h", "2.png,a,test,g", "3.png,b,test,i"],
        "must not stand on both sides of `split`. .* these do: g. Leave `split` out",
    ),
    "one group": (
        ["file,label,group", "0.png,a,g", "1.png,a,g", "2.png,b,h", "3.png,b,i"],
        "at least 2 groups, .* class `a`, number of images: 2, of groups: 1",
    ),
    "bytes": (["file,label", "\0,a"], "`file` must be a path. .*line 2"),
    "open quote": (
        ["file,label,note", "0.png,a,", '1.png,b,"5 inch', "2.png,a,"],
        "unexpected end of data, in the row after line 2",
    ),
    "two open quotes": (
        ["file,label,note", '0.png,a,"5 inch', "1.png,b,", '2.png,a,"5 inch'],
        "must be CSV.* in the row after line 1",
    ),
    "quoted word": (
        ["file,label,note", '0.png,a,"big" cat', "1.png,b,"],
        "in the row after line 1. A field with a quote in it stands in quotes, the quote twice",
    ),
    "line break": (["file,label", "0.png,a", '1.png,"big', 'cat"'], r"must be of one line.*'big\\ncat'.*Take the"),
    "long": (["file,label", "a" * 200_000 + ",b"], "must be CSV, in UTF-8. .*field larger than"),
}


def test_a_quote_is_written_as_the_error_says(tmp_path):
    write(tmp_path, "0.png", "1.png", "2.png", "3.png")
    rows = [f'{n}.png,{"ab"[n % 2]},"""big"" cat"' for n in range(4)]
    splits = load(tmp_path, labels=write_table(tmp_path, "file,label,note", *rows))
    assert len(splits.train_labels) + len(splits.test_labels) == 4


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_table_that_is_wrong_ends_with_one_sentence(name, tmp_path):
    write(tmp_path / "pets", *(f"{n}.png" for n in range(4)))
    (tmp_path / "pets" / "sub").mkdir()
    lines, words = BAD_TABLES[name]
    with pytest.raises(ValueError, match=words) as error:
        load(tmp_path / "pets", labels=write_table(tmp_path, *lines))
    assert "\n" not in str(error.value)


def test_a_row_that_ends_before_its_classes_is_not_one_without(tmp_path):
    write(tmp_path, *(f"{n}.png" for n in range(3)))
    rows = ["file,label,note", "0.png,a|b", "1.png,,none", "2.png"]
    with pytest.raises(ValueError, match="each column that is read. .*labels.csv, line 4, which ends before `label`"):
        load(tmp_path, labels=write_table(tmp_path, *rows), multi_label=True)


def test_the_name_of_a_class_folder_is_of_one_line(tmp_path):
    write(tmp_path, "cat/0.png", "cat/1.png", "dog\u2028x/0.png", "dog\u2028x/1.png")
    with pytest.raises(ValueError, match=r"must be of one line.*'dog\\u2028x'"):
        load(tmp_path)


def test_what_is_no_table(tmp_path):
    write(tmp_path, "0.png")
    message = "`labels` must be a table, .* labels=labels.csv, which is no file here.*name its folder"
    write_table(tmp_path, "file,label")
    with pytest.raises(FileNotFoundError, match=message):
        load(tmp_path, labels="labels.csv")
    with pytest.raises(FileNotFoundError, match="which is no file"):
        load(tmp_path, labels=str(tmp_path))
    with pytest.raises(ValueError, match="must be CSV, in UTF-8"):
        load(tmp_path, labels=write_table(tmp_path, "file,label", "ü.png,a", encoding="latin-1"))
    with pytest.raises(ValueError, match="must be CSV, in UTF-8"):
        load(tmp_path, labels=tmp_path / "0.png")


# Groups


def test_no_group_stands_on_both_sides(tmp_path):
    rows = [f"{n}.png,{'ab'[n % 2]},g{n // 4}" for n in range(40)]
    write(tmp_path, *(f"{n}.png" for n in range(40)))
    splits = load(tmp_path, labels=write_table(tmp_path, "file,label,group", *rows), test_fraction=0.3)
    sides = [{value // 4 for value in pixels(images)} for images in (splits.train_images, splits.test_images)]
    # Ten groups of two images of each class: three of them are the fraction.
    assert [len(side) for side in sides] == [7, 3] and not sides[0] & sides[1]
    divided = splits.with_validation(0.3, 0)
    sides = [{value // 4 for value in pixels(images)} for images in (divided.train_images, divided.validation_images)]
    # 0.3 of seven groups is 2.1.
    assert [len(side) for side in sides] == [5, 2] and not sides[0] & sides[1]
    # What else takes samples out keeps them beside their groups.
    for fewer in (splits.with_train_fraction(0.5, 0), splits.with_classes(["b", "a"]), divided):
        assert fewer.train_groups.tolist() == [f"g{value // 4}" for value in pixels(fewer.train_images)]


def test_groups_of_an_open_set(tmp_path):
    names = [f"{n}.png" for n in range(24)]
    rows = [f"{name},{'abcd'[n % 4]},g{n // 4}" for n, name in enumerate(names)]
    table = write_table(write(tmp_path, *names), "file,label,group", *rows)
    splits = load(tmp_path, labels=table, test_fraction=0.34, open_set_fraction=0.5)
    assert splits.num_classes == 2 and len(splits.open_set_images) == 12
    sides = [{value // 4 for value in pixels(images)} for images in (splits.train_images, splits.test_images)]
    assert [len(side) for side in sides] == [4, 2] and not sides[0] & sides[1]
    assert splits.train_groups.tolist() == [f"g{value // 4}" for value in pixels(splits.train_images)]


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_divided_by_their_share(seed):
    """Of groups of one class each, large and small ones: the share is met to within half of the largest group."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 9, 60)
    groups = np.repeat(np.arange(60), sizes)
    labels = groups % 3
    kept, taken = group_split(labels, groups, 0.25, seed, "abc")
    assert sorted([*kept, *taken]) == list(range(len(labels)))
    assert list(kept) == sorted(kept) and list(taken) == sorted(taken)
    assert not set(groups[kept]) & set(groups[taken])
    for label in range(3):
        assert abs((labels[taken] == label).sum() - 0.25 * (labels == label).sum()) <= 4
    again = group_split(labels, groups, 0.25, seed, "abc")
    assert again[0].tolist() == kept.tolist()
    assert group_split(labels, groups, 0.25, seed + 1, "abc")[1].tolist() != taken.tolist()


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.99])
def test_each_class_is_on_both_sides(fraction):
    # Two large groups of the first class, whose share is less than one of them or more; three of the second.
    groups = np.array([0] * 10 + [1] * 10 + [2] * 2 + [3] * 3 + [4] * 4)
    labels = np.array([0] * 20 + [1] * 9)
    for seed in range(5):
        kept, taken = group_split(labels, groups, fraction, seed, "ab")
        assert set(labels[kept]) == set(labels[taken]) == {0, 1}
        assert not set(groups[kept]) & set(groups[taken])


# Files that cannot be read


def spoil(path, how):
    content = path.read_bytes()
    path.write_bytes({"cut": content[: -len(content) // 3], "empty": b"", "text": b"no image"}[how])


FIVE = [f"{name}/{n}.png" for name in ("cat", "dog") for n in range(5)]
BAD = {"cat/1.png": "cut", "cat/3.png": "empty", "dog/0.png": "text"}


def test_all_that_cannot_be_read_are_named_at_once(tmp_path):
    write(tmp_path, *FIVE)
    for file, how in BAD.items():
        spoil(tmp_path / file, how)
    with pytest.raises(ValueError, match="Received: 3 of .* that are not: .*--skip_bad_images") as error:
        load(tmp_path)
    assert [str(error.value).count(str(tmp_path / file)) for file in FIVE] == [file in BAD for file in FIVE]
    assert "\n" not in str(error.value)
    # What only decoding shows is found in all of them, too.
    for file in FIVE:
        spoil(tmp_path / file, "cut")
    with pytest.raises(ValueError, match="Received: 10 of "):
        load(tmp_path)


def test_many_that_cannot_be_read_are_counted(tmp_path):
    files = [f"{name}/{n:02d}.png" for name in ("cat", "dog") for n in range(20)]
    write(tmp_path, *files)
    for file in files[1:]:
        spoil(tmp_path / file, "text")
    with pytest.raises(ValueError, match="Received: 39 of .* and 29 more. Repair") as error:
        load(tmp_path)
    assert str(error.value).count(".png") == 10


def test_names_are_counted_beyond_ten():
    assert name_some(map(str, range(10))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert name_some(map(str, range(1011))) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1,001 more"


@pytest.mark.parametrize("layout", ["classes", "divided", "table"])
def test_without_bad_images_all_is_as_if_they_were_not_there(layout, tmp_path):
    parts = ("train/", "test/") if layout == "divided" else ("",)
    files = [part + file for part in parts for file in FIVE]
    bad = {part + file: how for part in parts for file, how in BAD.items()}
    for folder in ("with", "without"):
        write(tmp_path / folder, *files)
    for file, how in bad.items():
        spoil(tmp_path / "with" / file, how)
        (tmp_path / "without" / file).unlink()
    labels = {folder: None for folder in ("with", "without")}
    if layout == "table":
        rows = [f"{file},{file[:3]},{file[-5]}" for file in files]
        labels["with"] = write_table(tmp_path, "file,label,group", *rows, name="with.csv")
        rows = [row for row in rows if row.split(",")[0] not in bad]
        labels["without"] = write_table(tmp_path, "file,label,group", *rows, name="without.csv")
    found = load(tmp_path / "with", labels=labels["with"], skip_bad_images=True)
    expected = load(tmp_path / "without", labels=labels["without"])
    assert found.bad_images == tuple(f"{file} cannot be decoded" for file in sorted(bad)) and not expected.bad_images
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert getattr(found, name).tolist() == getattr(expected, name).tolist()
    assert found.split == expected.split and found.class_names == expected.class_names


def test_what_is_too_large_is_left_out_too(tmp_path):
    write(tmp_path, *FIVE)
    path = tmp_path / "cat" / "2.png"
    path.write_bytes(tf.io.encode_png(np.zeros((3, 3, 1), np.uint8)).numpy())
    splits = load(tmp_path, max_pixels=4, skip_bad_images=True)
    assert splits.bad_images == ("cat/2.png has 3x3 pixels",)
    assert splits.image_shape == (2, 2, 1) and len(splits.train_images) + len(splits.test_images) == 9


@pytest.mark.parametrize(
    ("files", "bad", "words"),
    [
        (FIVE, FIVE[:5], "must have an image that can be read. .* class `cat` .* with none after 5 bad .*: cat/0.png"),
        (FIVE, FIVE[:4], "at least 2 images to be split. .* class `cat`"),
        (
            [f"{part}/{name}/0.png" for part in ("train", "val") for name in ("cat", "dog")],
            ["val/dog/0.png"],
            "must have an image for testing .* class `dog` .* with none after 1 bad .*: val/dog/0.png",
        ),
    ],
)
def test_a_class_that_loses_its_images(files, bad, words, tmp_path):
    write(tmp_path, *files)
    for file in bad:
        spoil(tmp_path / file, "text")
    with pytest.raises(ValueError, match=words):
        load(tmp_path, skip_bad_images=True)


def test_images_are_counted(tmp_path):
    write(tmp_path, *(f"{name}/{n}.png" for name, count in (("cat", 10), ("dog", 20)) for n in range(count)))
    splits = load(tmp_path, test_fraction=0.5)
    assert splits.count_images() == {"train": {"cat": 5, "dog": 10}, "test": {"cat": 5, "dog": 10}}
    divided = splits.with_validation(0.2, 0)
    assert divided.count_images() == {
        "train": {"cat": 4, "dog": 8},
        "validation": {"cat": 1, "dog": 2},
        "test": {"cat": 5, "dog": 10},
    }
    unseen = splits.with_open_set([0, 1]).count_images()
    assert unseen == {"train": {}, "test": {}, "open_set": {"cat": 10, "dog": 20}}


@pytest.mark.parametrize(
    ("path", "whole", "divided"),
    [
        (".", True, False),
        ("run", True, False),
        ("a/run", True, False),
        ("train/run", True, True),
        (".run", False, False),
        ("a/.runs/1", False, False),
        ("../run", False, False),
        ("../images2/run", False, False),
    ],
)
def test_what_is_written_inside_a_folder_of_classes_would_be_a_part_of_it(path, whole, divided, tmp_path):
    for folder in ("images/a", "images/b", "splits/train/a", "splits/test/a"):
        (tmp_path / folder).mkdir(parents=True)
    assert is_part(str(tmp_path / "images"), tmp_path / "images" / path) == whole
    assert is_part(str(tmp_path / "splits"), tmp_path / "splits" / path) == divided
    # A link leads to where it leads.
    (tmp_path / "link").symlink_to(tmp_path / "images")
    assert is_part(str(tmp_path / "images"), tmp_path / "link" / "run")
