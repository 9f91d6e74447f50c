"""Settings of a run's images."""

import dataclasses
import numbers
import os

from keras_tkd.config import multi_label_rules
from keras_tkd.config.fields import ReadWhen, check, check_choice, get_default, option
from keras_tkd.config.flagfile import can_hold, get_value_type
from keras_tkd.utils.choices import BUILT_IN_DATASETS, MAX_PIXELS, TASKS
from keras_tkd.utils.number_checks import is_finite, is_whole

__all__ = ["DataConfig", "VERIFYING"]

# What is a value of a field's type, and how an error calls it.
_KINDS = {
    bool: (lambda value: isinstance(value, bool), "True or False"),
    int: (is_whole, "a whole number between -2^31 and 2^31"),
    # NaN passes some comparisons and infinity others: neither is a setting of anything.
    float: (is_finite, "a finite number, 0 or of 1.2e-38 to at most 3.4e38"),
    str: (lambda value: isinstance(value, str), "text"),
}
# What a text must be, to be a line of a flagfile, which is in UTF-8.
_WRITABLE = (
    "`{name}` must be text that a flagfile can hold: not empty, on one line, in UTF-8, no white space at its ends. "
    "Rename the file or folder; a class may be given by its index"
)


def _is_from_files(config):
    return config.reads_files


_FROM_FILES = ReadWhen(
    _is_from_files,
    "`{name}` is not read with `digits`, which are built in and have a split of their own",
)
_OF_FOLDERS = ReadWhen(_is_from_files, "`{name}` is for folders of images: `digits` are built in")
VERIFYING = ReadWhen(lambda config: config.open_set_fraction, "`{name}` goes with `open_set_fraction`")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Settings of the images, and of the split into training and test."""

    dataset: str = option(
        "digits",
        "'digits', a name of tensorflow-datasets (with --data_dir), or a folder of class folders.",
        decides="data",
        names_file=True,
    )
    data_dir: str | None = option(
        None, "Folder of prepared tensorflow-datasets.", decides="nothing", read_when=_FROM_FILES
    )
    classes: tuple[str, ...] | None = option(
        None,
        "Only the images of these classes, by name or index; they become the classes 0, 1, ... in this order.",
        decides="data",
    )
    image_size: int | None = option(None, "Resize images to this many pixels, height and width.", decides="data")
    nested: bool = option(
        False,
        "Take the images in sub-folders of a class folder for the class's; they are left out if not given.",
        decides="data",
        read_when=_OF_FOLDERS,
        yields_to="labels",
    )
    labels: str | None = option(
        None,
        "Table (CSV) of the files of a folder, in place of class folders: columns file and label; split (train, test) "
        "if it is divided, group for files of which none are to stand on both sides.",
        decides="data",
        names_file=True,
        read_when=_OF_FOLDERS,
    )
    task: str = option(
        "single_label",
        "'single_label': each image has one class; 'multi_label': any number, named in the column label of --labels "
        "with | between them.",
        TASKS,
        decides="data",
        read_when=_OF_FOLDERS,
    )
    skip_bad_images: bool = option(
        False,
        "Leave out images of a folder that cannot be read, and list them in the results; they are an error if not "
        "given.",
        decides="data",
        read_when=_OF_FOLDERS,
    )
    test_fraction: float = option(
        0.2,
        "Share held out for testing where neither a folder (train/ and test/) nor a table of labels says it.",
        decides="data",
        read_when=_FROM_FILES,
    )
    split_seed: int = option(
        0, "Seed of all splits; apart from --seed, so that runs share their test images.", decides="data"
    )
    open_set_fraction: float | None = option(
        None,
        "Share of the classes (identities) that no model is trained on: their images test verification.",
        decides="data",
    )
    shuffle_window: int | None = option(
        None,
        "Leave the images of a folder or of a data set of tensorflow-datasets on disk, and hold so many at a time, "
        "within which they are shuffled and negatives drawn; all images are held in memory if not given.",
        decides="data",
    )
    decoded_cache: str | None = option(
        None,
        "Folder that keeps the images of a folder decoded and resized, for all runs with the same files and size; they "
        "are decoded anew if not given.",
        decides="nothing",
        read_when=_OF_FOLDERS,
    )
    custom_objects: tuple[str, ...] | None = option(
        None,
        "Python modules that are imported before model files are loaded, and that register the classes in these with "
        "keras.saving.register_keras_serializable. Their code is run.",
        decides="training",
    )
    # It decides what is refused, and nothing of what is loaded.
    max_pixels: int | None = option(
        None,
        f"Pixels that an image of a folder may have; {MAX_PIXELS:,} if not given. One with more is refused before it "
        "is decoded: a small file may stand for gigabytes.",
        decides="nothing",
        read_when=ReadWhen(_is_from_files, "`{name}` bounds the images of folders: `digits` are built in"),
    )
    embedding_layer: str | None = option(
        None,
        "Layer whose outputs verification compares; 'embedding', as in this package's models, if not given.",
        decides="measurement",
        read_when=VERIFYING,
    )

    @property
    def multi_label(self):
        """True if an image may have several classes."""
        return self.task == "multi_label"

    @property
    def has_teacher(self):
        """True if a teacher takes part in the run."""
        return True

    @property
    def takes_trained_teacher(self):
        """True if the run may be given a teacher that was trained before."""
        return True

    @property
    def irrelevant_fields(self):
        """Names of the fields that nothing in this run reads."""
        return [field.name for field in dataclasses.fields(self) if self._unmet(field)]

    def explain_refusal(self, name):
        """Returns why a field, one of the irrelevant ones, is not read."""
        field = next(field for field in dataclasses.fields(self) if field.name == name)
        why_not = self._unmet(field)[0].why_not or f"{self._reader} does not read `{{name}}`"
        return why_not.format(name=name)

    @property
    def _reader(self):
        """The subject of an error that refuses a setting."""
        return "This run"

    def _unmet(self, field):
        """Returns the conditions of reading a field that do not hold."""
        return [condition for condition in field.metadata["read_when"] if not condition.holds(self)]

    def __post_init__(self):
        self._convert()
        self._check_values()
        # Before the rules: a broken rule of what nothing reads is not what is to be mended.
        self._check_read()
        self._check_rules()
        # Last: what a rule says of an empty text is more to the point.
        self._check_writable()

    def _convert(self):
        """Gives each setting its one form, past `frozen`, as `__post_init__` may."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = os.fspath(value) if isinstance(value, os.PathLike) else value
            if get_value_type(field)[1]:
                # A single value stands for a tuple of one.
                value = (value,) if isinstance(value, (str, numbers.Number)) else value
                value = tuple(value) if isinstance(value, list) else value
            object.__setattr__(self, field.name, value)

    def _check_values(self):
        """Raises `ValueError` for a value that is none of its field's choices, or not of its field's kind."""
        for field in dataclasses.fields(self):
            kind, several = get_value_type(field)
            choices = field.metadata["choices"]
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            parts = value if several and isinstance(value, tuple) else [value]
            compose = field.metadata["composed_by"]
            if choices and not compose:
                for part in parts:
                    check_choice(field.name, part, choices)
            holds, of_its_kind = _KINDS[kind]
            # Classes may be indices, and weights numbers or a name, that a flag gives as text.
            right = isinstance(value, (tuple, str)) if several and kind is str else all(map(holds, parts))
            rule = f"`{field.name}` must be {'a list, of ' * several}{of_its_kind}; leave it out for its default"
            check(right, rule, self, field.name)
            if compose:
                compose(value)

    def _check_read(self):
        """Raises `ValueError` for a setting that nothing in this run reads."""
        # A flag that is silently ignored makes another experiment than its author thinks.
        for name in self.irrelevant_fields:
            check(getattr(self, name) == get_default(type(self), name), self.explain_refusal(name), self, name)

    def _check_writable(self):
        """Raises `ValueError` for a text that `flags.flags` would not give back: the run could not be taken up."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if get_value_type(field)[0] is str and value:
                check(can_hold(value), _WRITABLE.format(name=field.name), self, field.name)
            # An empty list is one that is not given.
            check(value != "", f"`{field.name}` must not be empty; leave it out for its default", self, field.name)

    @property
    def reads_files(self):
        """True if the images may be in files. Whether a name is a folder or a prepared data set, only loading tells."""
        return self.dataset not in BUILT_IN_DATASETS

    def _check_rules(self):
        """Raises `ValueError` for settings that break a rule, each by itself or together."""
        if self.classes:
            several = len(set(self.classes)) == len(self.classes) > 1
            check(several, "`classes` must be at least two, none twice", self, "classes")
        check(
            0 < self.test_fraction < 1, "`test_fraction` must be between 0 and 1, both exclusive", self, "test_fraction"
        )
        check(0 <= self.split_seed < 2**30, "`split_seed` must be in [0, 2^30)", self, "split_seed")
        if self.image_size is not None:
            check(self.image_size >= 1, "`image_size` must be >= 1", self, "image_size")
        if self.open_set_fraction is not None:
            rule = "`open_set_fraction` must be above 0 and at most 1"
            check(0 < self.open_set_fraction <= 1, rule, self, "open_set_fraction")
        if self.labels is not None:
            check(self.labels, "`labels` must be the path of a table", self, "labels")
        multi_label_rules.check_data(self)
        if self.max_pixels is not None:
            check(self.max_pixels >= 1, "`max_pixels` must be >= 1", self, "max_pixels")
        if self.shuffle_window is not None:
            check(self.shuffle_window >= 1, "`shuffle_window` must be >= 1", self, "shuffle_window")
            # Whether another name is one of tensorflow-datasets, only loading tells.
            rule = "`shuffle_window` streams data sets of tensorflow-datasets and folders; digits are held in memory"
            check(self.dataset not in BUILT_IN_DATASETS, rule, self, "dataset", "shuffle_window")
            rule = "`open_set_fraction` takes images out of memory: it does not go with `shuffle_window`"
            check(self.open_set_fraction is None, rule, self, "open_set_fraction", "shuffle_window")
