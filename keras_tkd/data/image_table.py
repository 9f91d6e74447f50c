"""A table of image files and their labels as a data set."""

import collections
import csv
import os

import numpy as np

from keras_tkd.data.image_list import HELD_OUT, ImageList, find_split, read_divided, read_list
from keras_tkd.utils.multi_hot import count_classes
from keras_tkd.utils.naming import name_some

__all__ = ["SEPARATOR", "is_divided_table", "load_divided_table", "load_table"]

SEPARATOR = "|"  # between the classes of an image, in its field of the column `label`

_COLUMNS = ("file", "label", "split", "group")
_NO, _YES = ("0", "0.0"), ("1", "1.0")  # in a column that is a class
_DELIMITERS = ",;\t"
# That a first line may have: of many classes with long names, and not of a file of another kind with a single line.
_HEADER_CHARACTERS = 2**24


def is_divided_table(labels):
    """Returns whether a table has a column `split`, which says which images are for what."""
    return "split" in _read_header(labels)


def load_divided_table(name, *, labels, multi_label, **reading):
    """Loads the images of a table with a column `split`.

    Args:
        name, labels, multi_label: see `keras_tkd.data.load`.
        **reading: how its files are read, see `read_divided`.
    """
    images = _read_table(name, labels, multi_label)
    sides = {False: "train", True: "test"}
    for side, part in sides.items():
        counts = count_classes(images.labels[images.is_test == side], len(images.class_names))
        if not counts.all():
            raise ValueError(
                f"`split` must put images of every class on both sides. Received: {labels}, where class "
                f"'{images.class_names[int(np.argmin(counts))]}' has none in `{part}`"
            )
    if images.groups is not None:
        both = set(images.groups[images.is_test]) & set(images.groups[~images.is_test])
        if both:
            raise ValueError(
                f"A group must not stand on both sides of `split`. Received: {labels}, where these do: "
                f"{name_some(sorted(both))}. Leave `split` out to have the groups divided"
            )
    return read_divided(name, images, **reading)


def load_table(name, *, labels, multi_label, **reading):
    """Loads the images of a table without a column `split`.

    Args:
        name, labels, multi_label: see `keras_tkd.data.load`.
        **reading: how they are divided and its files are read, see `read_list`.
    """
    return read_list(name, _read_table(name, labels, multi_label), **reading)


def _read_table(name, labels, multi_label):
    """Returns the `ImageList` of a table, whose rows are the samples, in their order.

    Args:
        name, labels: see `Loader` and `load`.
        multi_label: whether a label may name several classes, with `SEPARATOR` between them, or none.
    """
    root = os.path.expanduser(name)
    if not os.path.isdir(root):
        raise ValueError(f"`labels` names the files of a folder of images. Received: labels={labels}, dataset={name}")
    rows, columns = _read_rows(labels, multi_label)
    skipped = {}
    is_test = None
    if "split" in _read_header(labels):
        rows, is_test = _divide(rows, labels, skipped)
    _check_files(root, [row["file"] for row in rows], labels)
    given = [row["classes"] for row in rows]
    class_names = columns or _sort_names({name for each in given for name in each})
    if len(class_names) < 2:
        found = f"the single label '{class_names[0]}'" if class_names else "none in its column `label`"
        raise ValueError(f"A data set must have at least 2 classes. Received: {labels}, with {found}")
    positions = {name: index for index, name in enumerate(class_names)}
    places = [[positions[name] for name in each] for each in given]
    groups = np.array([row["group"] for row in rows], object) if "group" in rows[0] else None
    return ImageList(
        root=root,
        class_names=class_names,
        files=[os.path.normpath(row["file"]) for row in rows],
        labels=_make_multi_hot(places, len(class_names)) if multi_label else np.array(places, np.int32)[:, 0],
        skipped=skipped,
        is_test=is_test,
        groups=groups,
    )


def _sort_names(names):
    # Numbers in the order of numbers: they are often the outputs of a teacher.
    by_number = all(name.isascii() and name.isdecimal() for name in names)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if by_number else None))


def _split_label(label):
    """Returns the names of the classes in a label, none of an empty one; white space around a name is not its own."""
    return [name for name in map(str.strip, label.split(SEPARATOR)) if name]


def _make_multi_hot(places, num_classes):
    rows = np.zeros((len(places), num_classes), np.uint8)
    for row, classes in zip(rows, places, strict=True):
        row[classes] = 1
    return rows


def _divide(rows, labels, skipped):
    """Returns the rows that are for training and testing, and whether each is for testing."""
    for row in rows:
        split = find_split(row["split"])
        if split is None:
            raise ValueError(
                f"`split` must be one of train, {', '.join(HELD_OUT)}. Received: {labels}, where '{row['file']}' has "
                f"'{row['split']}'"
            )
        row["split"] = split
    there = {row["split"] for row in rows}
    test = next((part for part in HELD_OUT if part in there), None)
    others = sorted(there - {"train", test})
    if test != "test" and others:
        raise ValueError(
            f"One value of `split` must stand for the test images. Received: {labels}, with {test}, {', '.join(others)}"
            ". Call the one that is meant 'test'"
        )
    for row in rows:
        if row["split"] in others:
            skipped.setdefault(f"files whose `split` is `{row['split']}`, beside `test`", []).append(row["file"])
    rows = [row for row in rows if row["split"] in ("train", test)]
    return rows, np.array([row["split"] == test for row in rows])


def _check_files(root, files, labels):
    """Raises `ValueError` for files that lead out of the folder, are named twice, or are not there."""
    normal = [os.path.normpath(file) for file in files]
    outside = [
        file
        for file, path in zip(files, normal, strict=True)
        if os.path.isabs(path) or path.split(os.sep)[0] == os.pardir
    ]
    if outside:
        raise ValueError(
            f"`file` must be a path inside the folder of images, {root}. Received: {labels}, with {name_some(outside)}"
        )
    if twice := [path for path, count in collections.Counter(normal).items() if count > 1]:
        raise ValueError(f"A file must stand once in a table. Received: {labels}, with twice: {name_some(twice)}")
    if missing := [path for path in normal if not os.path.isfile(os.path.join(root, path))]:
        raise ValueError(
            f"Every `file` must be there, below the folder of images, {root}. Received: {labels}, with "
            f"{len(missing):,} that are not: {name_some(missing)}"
        )


def _read_header(labels):
    """Returns the names of a table's columns."""
    with _open(labels) as lines:
        return _reader(lines, labels).fieldnames


def _read_rows(labels, multi_label):
    """Reads a table: returns its rows, dicts of the columns that are read and of `"classes"`, names in a list.

    With them the columns that are classes, a tuple, of a table of several without a column `label`; empty of others.
    """
    # An image of several classes may have none of them.
    needed = {"file", "split", "group"} | ({"label"} if not multi_label else set())
    rows = []
    with _open(labels) as lines:
        reader = _reader(lines, labels)
        wanted = [name for name in _COLUMNS if name in reader.fieldnames]
        columns = ()
        if multi_label and "label" not in wanted:
            columns = tuple(name for name in reader.fieldnames if name not in _COLUMNS)
        if not columns and "label" not in wanted:
            raise _lacks("label", labels, reader.fieldnames, ", or one for each class" * multi_label)
        line = 1  # the header, which was read before
        try:
            for row in reader:
                line = reader.line_num + 1
                where = f"{labels}, line {line}"
                if None in row:
                    raise ValueError(
                        f"A row must have as many fields as there are columns, {len(reader.fieldnames)}. "
                        f"Received: {where}, with more: put a field with a delimiter in it into quotes"
                    )
                values = {name: (row[name] or "").strip() for name in wanted}
                if empty := [name for name in wanted if name in needed and not values[name]]:
                    raise ValueError(f"`{empty[0]}` must not be empty. Received: {where}, where it is")
                # Columns that are not read may be left out at the end.
                if short := [name for name in wanted if row[name] is None]:
                    raise ValueError(
                        f"A row must have a field for each column that is read. Received: {where}, which ends before "
                        f"`{short[0]}`. Where an image has no class, leave the field empty"
                    )
                if "\0" in values["file"]:
                    raise ValueError(f"`file` must be a path. Received: {where}: {values['file']!r}")
                own = _split_label(values["label"]) if multi_label and not columns else [values.get("label")]
                values["classes"] = _list_yes(row, columns, where) if columns else own
                rows.append(values)
        except UnicodeDecodeError as error:
            raise _unreadable(labels, error) from error
        except csv.Error as error:
            said = (
                f"{error}, in the row after line {line}. A field with a quote in it stands in quotes, the quote twice"
            )
            raise _unreadable(labels, said) from error
    if not rows:
        raise ValueError(f"A table of labels must have rows. Received: {labels}, which has none below its header")
    return rows, columns


def _list_yes(row, columns, where):
    """Lists the columns, each of which is a class, in which a row has 1; every other must be 0."""
    fields = {name: (row[name] or "").strip() for name in columns}
    if odd := [name for name, field in fields.items() if field not in _NO + _YES]:
        raise ValueError(
            "A table of several classes without a column `label` has a column for each class, with 1 for yes and 0 for "
            f"no. Received: {where}, with {fields[odd[0]]!r} for '{odd[0]}'. Take out columns that are no classes"
        )
    return [name for name, field in fields.items() if field in _YES]


def _open(labels):
    path = os.path.expanduser(labels)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"`labels` must be a table, a CSV file. Received: labels={labels}, which is no file here. If it lies in "
            "the folder of images, name its folder too"
        )
    # With or without the mark that Excel puts before UTF-8.
    return open(path, newline="", encoding="utf-8-sig")


def _reader(lines, labels):
    """Returns a `csv.DictReader` of a table. Columns that are read have their names in lower case."""
    try:
        header = lines.readline(_HEADER_CHARACTERS + 1)
        if len(header) > _HEADER_CHARACTERS:
            raise _unreadable(labels, f"its first line has more than {_HEADER_CHARACTERS:,} characters")
        # Some countries' Excel writes semicolons.
        delimiter = max(_DELIMITERS, key=header.count)
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    except (csv.Error, UnicodeDecodeError) as error:
        raise _unreadable(labels, error) from error
    # Others may be classes, whose names stay as they are.
    names = [name.lower() if name.lower() in _COLUMNS else name for name in names]
    if "file" not in names:
        raise _lacks("file", labels, names)
    if len(set(names)) < len(names):
        raise ValueError(f"Columns must have different names. Received: {labels}, with {name_some(names)}")
    # Strictly: else a quote that nothing closes would take all rows up to the next one for a single field.
    return csv.DictReader(lines, fieldnames=names, delimiter=delimiter, strict=True)


def _lacks(column, labels, names, otherwise=""):
    return ValueError(
        f"A table of labels must have the columns `file` and `label`{otherwise}. Received: {labels}, which lacks "
        f"`{column}` among its columns: {name_some(names)}. Name them in the first line"
    )


def _unreadable(labels, error):
    return ValueError(f"A table of labels must be CSV, in UTF-8. Received: labels={labels}. Reading says: {error}")
