"""Augmentations by name: what the names mean, and that the functions have the arguments that are known of them."""

import inspect

import pytest

from keras_tkd.data import AUGMENTATIONS, make_augmentation
from keras_tkd.utils.augmentation_names import ARGUMENTS, parse_augmentation


def test_operations_in_their_order_with_arguments():
    assert parse_augmentation("none") == []
    assert parse_augmentation("crop") == [("crop", {})]
    text = "resized_crop@area=0.25 + rand_augment@operations=3@magnitude=9+cutout@size=1"
    expected = [("resized_crop", {"area": 0.25}), ("rand_augment", {"operations": 3, "magnitude": 9})]
    assert parse_augmentation(text) == [*expected, ("cutout", {"size": 1.0})]
    assert type(parse_augmentation(text)[2][1]["size"]) is float


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("crop_flp", "one of none, crop, .*joined by.*'crop_flp'. Did you mean 'crop_flip'"),
        ("crop+none", "or none alone"),
        ("crop_flip+cutout+crop", "with crop twice; crop_flip is crop.horizontal_flip"),
        ("cutout+cutout@size=0.25", "no operation twice: both would draw the same.*with cutout twice$"),
        ("cutout@padding=4", "Operation 'cutout' of `augmentation` has the arguments size"),
        ("horizontal_flip@size=1", "has no argument"),
        ("resized_crop@area=1.5", "`area` of resized_crop in `augmentation` must be a number from 0.001 to 1"),
        (
            "rand_augment@operations=2.5",
            "`operations` of rand_augment in `augmentation` must be a whole number from 1 to 8",
        ),
        ("rand_augment@magnitude=-1", "a whole number from 0 to 30"),
    ],
)
def test_anything_else_is_refused_with_the_text(text, message):
    with pytest.raises(ValueError, match=message) as error:
        parse_augmentation(text)
    assert f"Received: augmentation={text!r}" in str(error.value)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_functions_have_these_arguments(name):
    parameters = inspect.signature(AUGMENTATIONS[name]).parameters.values()
    settable = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
    # What tells crop_flip from crop, and what the run says, of which images places are drawn.
    for name_of_no_setting in ("flip", "drawn_for"):
        settable.pop(name_of_no_setting, None)
    assert settable.keys() == ARGUMENTS[name].keys()
    for argument, (kind, least, largest) in ARGUMENTS[name].items():
        assert type(settable[argument]) is kind and least <= settable[argument] <= largest


def test_what_has_no_arguments_is_known_too():
    for name in AUGMENTATIONS.keys() - ARGUMENTS.keys() - {"none"}:
        assert len(inspect.signature(AUGMENTATIONS[name]).parameters) == 2


def test_augmentations_are_made_of_their_names():
    assert make_augmentation("none") is None
    assert make_augmentation("crop_flip") is AUGMENTATIONS["crop_flip"]
    made = make_augmentation("cutout@size=0.25")
    assert made.func is AUGMENTATIONS["cutout"] and made.keywords == {"size": 0.25}
