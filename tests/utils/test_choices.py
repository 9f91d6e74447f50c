"""Tables of functions have one for each name that a setting may take."""

import pytest

from keras_tkd.utils.choices import check_complete


def test_a_complete_table_is_given_back():
    functions = {"none": None, "crop": abs}
    assert check_complete(("none", "crop"), functions) is functions


@pytest.mark.parametrize("names", [["none"], ["none", "crop", "flip"], ["none", "flip"], ["crop", "none"]])
def test_a_table_of_other_names_is_an_error_that_names_both(names):
    with pytest.raises(ValueError, match=f"none, crop. Received: {', '.join(names)}"):
        check_complete(("none", "crop"), dict.fromkeys(names))
