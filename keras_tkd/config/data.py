"""Which images a run is about."""

import dataclasses
import os

from keras_tkd.config.fields import check, check_choice, is_whole, option
from keras_tkd.config.flagfile import value_type

# The settings that decide what a model is trained on.
DATA = (
    "dataset",
    "classes",
    "image_size",
    "test_fraction",
    "split_seed",
    "open_set_fraction",
    "shuffle_window",
    "validation_fraction",
    "train_fraction",
    "augmentation",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and which of them are for testing."""

    dataset: str = option(
        "digits", "'digits', a name of tensorflow-datasets (with --data_dir), or a folder of class folders."
    )
    data_dir: str | None = option(None, "Folder of prepared tensorflow-datasets.")
    classes: tuple[str, ...] | None = option(
        None, "Only the images of these classes, by name or index; they become the classes 0, 1, ... in this order."
    )
    image_size: int | None = option(None, "Resize images to this many pixels, height and width.")
    test_fraction: float = option(0.2, "Share held out for testing where a folder has no train/ and test/.")
    split_seed: int = option(0, "Seed of all splits; apart from --seed, so that runs share their test images.")
    open_set_fraction: float | None = option(
        None, "Share of the classes (identities) that no model is trained on: their images test verification."
    )
    shuffle_window: int | None = option(
        None,
        "Leave the images of a data set of tensorflow-datasets on disk, and hold so many at a time, within which they "
        "are shuffled and negatives drawn; all images are held in memory if not given.",
    )
    embedding_layer: str | None = option(
        None, "Layer whose outputs verification compares; 'embedding', as in this package's models, if not given."
    )

    @property
    def irrelevant_fields(self):
        """Names of the fields that nothing in this run reads."""
        return []

    def __post_init__(self):
        if self.classes:
            several = len(set(self.classes)) == len(self.classes) > 1
            check(several, "`classes` must be at least two, none twice", self, "classes")
        for field in dataclasses.fields(self):
            choices = field.metadata.get("choices")
            value = getattr(self, field.name)
            if value_type(field)[1] and isinstance(value, (str, os.PathLike)):
                value = (os.fspath(value),)
                object.__setattr__(self, field.name, value)
            if choices and not (value is None and field.default is None):
                for part in value if isinstance(value, tuple) else [value]:
                    check_choice(field.name, part, choices)
            if value_type(field)[0] is int and not (value is None and field.default is None):
                parts = value if isinstance(value, (tuple, list)) else [value]
                check(all(map(is_whole, parts)), f"`{field.name}` must be a whole number", self, field.name)
        check(
            0 < self.test_fraction < 1, "`test_fraction` must be between 0 and 1, both exclusive", self, "test_fraction"
        )
        check(0 <= self.split_seed < 2**30, "`split_seed` must be in [0, 2^30)", self, "split_seed")
        if self.image_size is not None:
            check(self.image_size >= 1, "`image_size` must be >= 1", self, "image_size")
        if self.open_set_fraction is not None:
            rule = "`open_set_fraction` must be above 0 and at most 1"
            check(0 < self.open_set_fraction <= 1, rule, self, "open_set_fraction")
        if self.shuffle_window is not None:
            check(self.shuffle_window >= 1, "`shuffle_window` must be >= 1", self, "shuffle_window")
            rule = "`shuffle_window` streams data sets of tensorflow-datasets; digits are held in memory"
            check(self.dataset != "digits", rule, self, "dataset", "shuffle_window")
            rule = "`open_set_fraction` takes images out of memory: it does not go with `shuffle_window`"
            check(self.open_set_fraction is None, rule, self, "open_set_fraction", "shuffle_window")
        for name in ("embedding_layer", "teacher_embedding_layer"):
            given = getattr(self, name, None) is not None
            check(not given or self.open_set_fraction, f"`{name}` goes with `open_set_fraction`", self, name)
