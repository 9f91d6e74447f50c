"""Observations as a file: what was written is read, and anything else is refused."""

import dataclasses
import zipfile

import numpy as np
import pytest

from keras_tkd.reports.observations import Observations, read_observations, write_observations


def make_observations(**more):
    fields = {
        "labels": np.array([0, 1, 2, 1], "int32"),
        "classes": {"teacher": np.array([0, 1, 2, 2], "int32"), "student": np.array([0, 2, 2, 1], "int32")},
        "confidences": {"teacher": np.full(4, 0.9, "float32"), "student": np.full(4, 0.6, "float32")},
        "embedded": np.array([0, 3]),
        "embeddings": {"student": np.ones((2, 5), "float32")},
        "pictured": np.array([1, 3]),
        "pictures": np.stack([np.full((2, 3, 1), value, "uint8") for value in (10, 30)]),
        "triplets": np.array([[0, 3]]),
        "distances": {"before": np.array([[5.0, 6.0]]), "after": np.array([[2.0, 9.0]])},
    }
    return Observations(**fields | more)


def test_what_was_written_is_read(tmp_path):
    written = make_observations()
    write_observations(tmp_path / "o.npz", written)
    read = read_observations(tmp_path / "o.npz")
    for field in dataclasses.fields(Observations):
        np.testing.assert_equal(getattr(read, field.name), getattr(written, field.name))
    assert read_observations(tmp_path / "nothing.npz") is None


def test_pictures_are_found_by_the_images_ids():
    observations = make_observations()
    assert observations.find_picture(3)[0, 0, 0] == 30 and observations.find_picture(2) is None
    assert observations.is_right("teacher").tolist() == [True, True, True, False]
    # Where images cannot be shown, ids are known and pictures are not.
    assert make_observations(pictures=np.empty((0, 0, 0, 0), "uint8")).find_picture(3) is None


@pytest.mark.parametrize(
    "change",
    [
        {"classes": {"student": np.zeros(3, "int32")}},
        {"classes": {"teacher": np.zeros(4, "int32")}, "confidences": {"teacher": np.zeros(4, "float32")}},
        {"confidences": {"teacher": np.zeros(4, "float32")}},
        {"confidences": {"student": np.zeros((4, 1), "float32")}},
        {"pictured": np.array([1, 4])},
        {"embedded": np.array([-1, 0])},
        {"embeddings": {"student": np.ones((3, 5), "float32")}},
        {"pictures": np.zeros((1, 2, 3, 1), "uint8")},
        {"triplets": np.array([[0, 4]])},
        {"distances": {"before": np.array([[5.0, 6.0]])}},
        {"labels": np.array([0, 1, -2, 1], "int32")},
    ],
)
def test_arrays_that_do_not_go_together_are_damage(change, tmp_path):
    write_observations(tmp_path / "o.npz", make_observations(**change))
    with pytest.raises(ValueError, match="o.npz is damaged: it holds no observations"):
        read_observations(tmp_path / "o.npz")


def test_a_file_of_another_kind_is_damage(tmp_path):
    path = tmp_path / "o.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="o.npz is damaged"):
        read_observations(path)
    # One of a few bytes that declares terabytes is not begun with.
    with zipfile.ZipFile(path, "w") as archive, archive.open("labels.npy", "w") as entry:
        header = {"descr": "<i4", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(entry, header)
    with pytest.raises(ValueError, match="its arrays are declared with 4,000,000,000,000 bytes"):
        read_observations(path)
