"""The splits of a data set: training, test, and perhaps validation and open-set samples."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from keras_tkd.data.arrays import allocate_aligned
from keras_tkd.data.classes import class_indices
from keras_tkd.data.partition import group_split, stratified_split
from keras_tkd.data.streaming import ImageStream
from keras_tkd.utils.multi_hot import count_classes, is_multi_hot

__all__ = ["Splits", "take_rows"]


@dataclasses.dataclass(frozen=True, eq=False)
class Splits:
    """The samples of one data set, divided into splits.

    Attributes:
        name: the name it was loaded by.
        train_images: `(n, height, width, channels)`, uint8, 0..255; likewise `test_images`. Arrays, or where they are
            larger than memory, an `ImageStream`.
        train_labels: `(n,)`, int32, `0 <= label < num_classes`; of images of several classes multi-hot rows,
            `(n, num_classes)`, uint8. Likewise `test_labels`.
        class_names: one name per class; a label is an index into it.
        validation_images, validation_labels: as above, or None where `with_validation` was not called.
        split: for a folder that `load` divided itself, `{"train": paths, "test": paths}`, later also
            `"validation"` and `"open_set"`: relative to the folder, in the order of the samples. None for every
            other data set.
        open_set_images, open_set_identities: as above, of the classes that `with_open_set` took out, which no model
            is trained on; an identity is an index into `open_set_names`. None where it was not called.
        open_set_names: one name per identity.
        all_class_names: for a choice of classes (`with_classes`), the names of all that there were. None for all.
        train_groups: `(n,)`, the group of each training sample, where a table of labels names them: `with_validation`
            leaves no group on both sides. None where there are no groups.
        skipped: for folders, what was not read: a dict from a reason to paths relative to the folder.
        bad_images: for folders, the files that `skip_bad_images` left out, relative to the folder, each with why.
        loaded: a dict from `"train"` and `"test"` to the ids of the samples that were loaded, in their order: of a
            folder the files' paths relative to it, else positions from 0. It stays as it is when samples are moved.
        positions: where in `loaded` the samples of each part are; those of `"validation"` are among `"train"`'s.
        teacher: the `Splits` of the same samples in the size that a teacher sees them in, where that is another one
            (`load(..., teacher_image_size=...)`); None where it is not. What moves samples moves them here too.
        view_size: `(height, width)` of the student's images where a teacher sees others: in both, augmentation draws
            its places for images of this size (`make_augmentation`). None where there is one size.
    """

    name: str
    train_images: np.ndarray | ImageStream
    train_labels: np.ndarray
    test_images: np.ndarray | ImageStream
    test_labels: np.ndarray
    class_names: tuple[str, ...]
    validation_images: np.ndarray | ImageStream | None = None
    validation_labels: np.ndarray | None = None
    split: dict[str, list[str]] | None = None
    open_set_images: np.ndarray | None = None
    open_set_identities: np.ndarray | None = None
    open_set_names: tuple[str, ...] | None = None
    all_class_names: tuple[str, ...] | None = None
    train_groups: np.ndarray | None = None
    skipped: dict[str, list[str]] | None = None
    bad_images: tuple[str, ...] = ()
    loaded: dict[str, Sequence] | None = None
    positions: dict[str, np.ndarray] | None = None
    teacher: "Splits | None" = None
    view_size: tuple[int, int] | None = None

    def __post_init__(self):
        # As they are loaded; what moves samples passes their positions on.
        if self.positions is None:
            labels = {part: getattr(self, f"{part}_labels") for part in ("train", "test", "validation")}
            places = {part: range(len(of)) for part, of in labels.items() if of is not None}
            object.__setattr__(self, "loaded", places | (self.loaded or {}))
            object.__setattr__(self, "positions", {part: np.arange(len(of)) for part, of in places.items()})

    @property
    def num_classes(self):
        """The number of classes."""
        return len(self.class_names)

    @property
    def multi_label(self):
        """True if an image may have several classes: labels are multi-hot rows."""
        return is_multi_hot(self.test_labels)

    @property
    def image_shape(self):
        """`(height, width, channels)`, in pixels."""
        return self.train_images.shape[1:]

    @property
    def for_teacher(self):
        """The `Splits` that a teacher sees: these, or `teacher`."""
        return self.teacher or self

    @property
    def held_out(self):
        """`(images, labels)` that training is measured on after each epoch: validation's, or without it the test's."""
        if self.validation_images is None:
            return self.test_images, self.test_labels
        return self.validation_images, self.validation_labels

    def with_teacher_images(self, train_images, test_images):
        """Returns the same with images of another size for a teacher, of the same samples in the same order."""
        size = tuple(self.image_shape[:2])
        teacher = dataclasses.replace(self, train_images=train_images, test_images=test_images, view_size=size)
        return dataclasses.replace(self, teacher=teacher, view_size=size)

    def get_ids(self, part):
        """Returns the ids of a part's samples in their order: paths, or positions among those that were loaded."""
        return list(map(self.loaded.get(part, self.loaded["train"]).__getitem__, self.positions[part]))

    def count_images(self):
        """Returns the number of images of each class in each part: a dict of dicts, by names of parts and classes."""
        counts = {}
        for part in ("train", "validation", "test"):
            labels = getattr(self, f"{part}_labels")
            if labels is not None:
                counts[part] = _count(labels, self.class_names)
        if self.open_set_identities is not None:
            counts["open_set"] = _count(self.open_set_identities, self.open_set_names)
        return counts

    def with_validation(self, fraction, seed):
        """Moves a stratified share of the training samples into a validation split.

        Rows are copied once, so drop the old `Splits` to have the images in memory once again. Where a table of labels
        names groups, whole groups are moved.

        Args:
            fraction: the share of each class's training samples to take, `0 <= fraction < 1`. Each class
                keeps and gives at least one sample. 0 returns `self`.
            seed: of the choice; the same seed takes the same samples.

        Returns:
            A `Splits` with `validation_images` and `validation_labels`; the test samples are the same arrays.

        Raises:
            ValueError: for another fraction, if a class has a single training sample (or group), or if there already is
                a validation split.
        """
        if fraction == 0:
            return self
        if not 0 < fraction < 1:
            raise ValueError(f"`fraction` must be at least 0 and less than 1. Received: fraction={fraction}")
        if self.validation_images is not None:
            raise ValueError(
                f"`{self.name}` already has {len(self.validation_images)} validation images. "
                "Call `with_validation` once, on the splits that `load` returned."
            )
        if self.train_groups is None:
            kept, taken = stratified_split(self.train_labels, fraction, seed, self.class_names)
        else:
            kept, taken = group_split(self.train_labels, self.train_groups, fraction, seed, self.class_names)
        rest = self._keep(train=kept)
        return dataclasses.replace(
            rest,
            validation_images=take_rows(self.train_images, taken),
            validation_labels=self.train_labels[taken],
            split=self.split and rest.split | {"validation": [self.split["train"][index] for index in taken]},
            positions=rest.positions | {"validation": self.positions["train"][taken]},
            teacher=self.teacher and self.teacher.with_validation(fraction, seed),
        )

    def with_classes(self, classes):
        """Keeps the samples of some classes, whose labels become 0, 1, ... in the order given.

        Rows are copied once, so drop the old `Splits` to have the images in memory once again.

        Args:
            classes: list of at least two names or indices.

        Returns:
            A `Splits` with these classes, and the names of all in `all_class_names`.

        Raises:
            ValueError: unknown classes, fewer than two, one given twice, or one without training or test samples.
        """
        self._check_one_class("Classes are chosen")
        chosen = class_indices(classes, self.class_names)
        if len(chosen) < 2:
            raise ValueError(f"`classes` must be at least two. Received: classes={list(classes)}")
        # The new label of each old one; -1 for classes that are left out.
        renumbered = np.full(self.num_classes, -1, np.int32)
        renumbered[list(chosen)] = np.arange(len(chosen))
        labels = {part: getattr(self, f"{part}_labels") for part in ("train", "test", "validation")}
        rows = {part: np.flatnonzero(renumbered[own] >= 0) for part, own in labels.items() if own is not None}
        for part, kept in rows.items():
            if lacking := set(chosen) - set(labels[part][kept].tolist()):
                name = self.class_names[min(lacking)]
                raise ValueError(
                    f"`classes` must have {part} images. Received: class '{name}' of `{self.name}`, with none"
                )
        return dataclasses.replace(
            self._keep(**rows),
            **{f"{part}_labels": renumbered[labels[part][kept]] for part, kept in rows.items()},
            class_names=tuple(self.class_names[index] for index in chosen),
            # After a second choice, these are still the classes of the data set and not those of the first choice.
            all_class_names=self.all_class_names or self.class_names,
            teacher=self.teacher and self.teacher.with_classes(classes),
        )

    def with_train_fraction(self, fraction, seed):
        """Keeps a stratified share of the training samples; None keeps all and returns `self`.

        Args:
            fraction: the share of each class's training samples to keep, `0 < fraction <= 1`, one sample at least.
            seed: of the choice; the same seed keeps the same samples.

        Raises:
            ValueError: another fraction, or a class with a single training sample.
        """
        if fraction is None or fraction == 1:
            return self
        if not 0 < fraction < 1:
            raise ValueError(f"`fraction` must be greater than 0 and at most 1. Received: fraction={fraction}")
        # Those that are taken are kept here: so a smaller share of the same seed is a part of a larger one.
        _, kept = stratified_split(self.train_labels, fraction, seed, self.class_names)
        teacher = self.teacher and self.teacher.with_train_fraction(fraction, seed)
        return dataclasses.replace(self._keep(train=kept), teacher=teacher)

    def with_open_set(self, classes):
        """Takes all images of some classes out of training and test: identities that no model sees in training.

        The classes that are left are numbered anew, from 0, in the same order. Rows are copied once, as in
        `with_validation`, before which this is called.

        Args:
            classes: ids of the classes, at least two; all of them leave nothing to train on.

        Returns:
            A `Splits` with `open_set_images`, first those of the training split, then those of the test split,
            `open_set_identities` and `open_set_names`.

        Raises:
            ValueError: for ids that there are not, for one class, and if there already is an open set or a
                validation split.
        """
        self._check_one_class("Classes are taken out")
        classes = np.unique(np.asarray(classes, int))
        if len(classes) < 2 or classes[0] < 0 or classes[-1] >= self.num_classes:
            raise ValueError(
                f"`classes` must be at least 2 ids of the {self.num_classes} classes of `{self.name}`. "
                f"Received: classes={classes.tolist()}"
            )
        if self.open_set_images is not None or self.validation_images is not None:
            raise ValueError(
                f"`{self.name}` already has an open set or a validation split. "
                "Call `with_open_set` once, on the splits that `load` returned."
            )
        is_unseen = np.isin(np.arange(self.num_classes), classes)
        # The new id of each class: its place among the classes that are kept, or among those that are taken out.
        places = np.where(is_unseen, np.cumsum(is_unseen), np.cumsum(~is_unseen)).astype(np.int32) - 1
        seen, unseen = {}, {}
        for part, labels in (("train", self.train_labels), ("test", self.test_labels)):
            seen[part], unseen[part] = (np.flatnonzero(is_unseen[labels] == side) for side in (False, True))
        rest, split = self._keep(**seen), self.split
        if split is not None:
            split = rest.split | {"open_set": [split[part][index] for part in unseen for index in unseen[part]]}
        train, test = len(unseen["train"]), len(unseen["test"])
        # Straight into one array: joining two copies would hold the images once more.
        open_set_images = allocate_aligned((train + test, *self.image_shape))
        np.take(self.train_images, unseen["train"], axis=0, out=open_set_images[:train], mode="clip")
        np.take(self.test_images, unseen["test"], axis=0, out=open_set_images[train:], mode="clip")
        return dataclasses.replace(
            rest,
            train_labels=places[rest.train_labels],
            test_labels=places[rest.test_labels],
            class_names=tuple(name for name, out in zip(self.class_names, is_unseen, strict=True) if not out),
            split=split,
            open_set_images=open_set_images,
            open_set_identities=places[
                np.concatenate([self.train_labels[unseen["train"]], self.test_labels[unseen["test"]]])
            ],
            open_set_names=tuple(self.class_names[index] for index in classes),
            teacher=self.teacher and self.teacher.with_open_set(classes),
        )

    def _check_one_class(self, what):
        if self.multi_label:
            raise ValueError(
                f"{what} where an image has one class. Received: `{self.name}`, whose images have several. Leave the "
                "others out of the table of labels"
            )

    def _keep(self, **rows):
        """Returns the same with some samples alone of each part that is named, by their rows; the images are copied."""
        fields = {"positions": self.positions | {part: self.positions[part][kept] for part, kept in rows.items()}}
        for part, kept in rows.items():
            fields[f"{part}_images"] = take_rows(getattr(self, f"{part}_images"), kept)
            fields[f"{part}_labels"] = getattr(self, f"{part}_labels")[kept]
        if self.split is not None:
            paths = {part: [self.split[part][index] for index in kept] for part, kept in rows.items()}
            fields["split"] = self.split | paths
        if self.train_groups is not None and "train" in rows:
            fields["train_groups"] = self.train_groups[rows["train"]]
        return dataclasses.replace(self, **fields)


def _count(labels, names):
    return dict(zip(names, count_classes(labels, len(names)).tolist(), strict=True))


def take_rows(array, indices):
    """Returns some rows of an array, copied once into an aligned array; or the stream of some images of a stream."""
    if isinstance(array, ImageStream):
        return array.take(indices)
    rows = allocate_aligned((len(indices), *array.shape[1:]), array.dtype)
    # The default mode buffers the output, which is a second copy; the indices are valid in any mode.
    return np.take(array, indices, axis=0, out=rows, mode="clip")
