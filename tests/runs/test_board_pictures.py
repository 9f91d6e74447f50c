"""Pictures for TensorBoard, by their pixels, and the triplets that they show."""

import numpy as np
import pytest

from keras_tkd.runs.board_pictures import draw_confusion, draw_sprite, draw_triplet
from keras_tkd.runs.board_triplets import choose_triplets, measure_triplets

WHITE, BLUE, RED = (255, 255, 255), (26, 115, 232), (197, 57, 41)


def find(picture, color):
    """First and last row and column of the pixels of a color, and how many there are."""
    rows, columns = np.nonzero((picture == color).all(axis=-1))
    return (rows.min(), rows.max(), columns.min(), columns.max()), len(rows)


def test_cells_of_a_confusion_are_coloured_by_their_share_of_the_row():
    # 128 classes have cells of 512 / 128 = 4 pixels, without text. All of class 0 are right, all of class 1 taken for
    # class 0, a quarter of class 2 for class 127; the others have no images.
    matrix = np.zeros((128, 128), int)
    matrix[0, 0], matrix[1, 0], matrix[2, 2], matrix[2, 127] = 5, 3, 6, 2
    picture = draw_confusion(matrix, [str(n) for n in range(128)])
    (top, bottom, left, right), count = find(picture, BLUE)
    assert (bottom - top, right - left, count) == (3, 3, 16)
    assert find(picture, RED) == ((top + 4, bottom + 4, left, right), 16)
    # The root of 1 / 4 is a half: in the middle between white and red.
    assert np.abs(picture[top + 8, left + 4 * 127].astype(int) - np.mean([WHITE, RED], axis=0)).max() <= 1
    assert (picture[top + 12, left + 4 * 64] == WHITE).all()


@pytest.mark.parametrize("names", [["a", "b"], ["a class of a long name", "猫"]])
def test_a_small_confusion_has_room_for_counts_and_names(names):
    picture = draw_confusion([[3, 0], [0, 12]], names)
    # Two blue cells of 40 pixels, but for the white counts in them: the rest of the picture is no such blue.
    (top, bottom, left, right), count = find(picture, BLUE)
    assert (bottom - top + 1, right - left + 1) == (80, 80) and 2 * 1600 - 300 < count < 2 * 1600
    assert (picture[: top - 1] < 128).any() and (picture[top:, : left - 1] < 128).any()


@pytest.mark.parametrize(("distances", "color"), [((1.0, 2.0), BLUE), ((2.0, 1.0), RED), ((1.0, 1.0), RED)])
def test_the_frame_of_a_triplet_says_whether_the_positive_is_nearer(distances, color):
    images = np.full((3, 2, 2, 1), 128, np.uint8)
    picture = draw_triplet(images, ["a", "a", "b"], distances)
    # Two frames of 4 pixels around squares of 96.
    assert find(picture, color)[1] == 2 * (104**2 - 96**2)
    assert find(picture, (128, 128, 128))[1] >= 3 * 96**2


def test_thumbnails_are_in_rows_of_a_square():
    images = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    sprite = draw_sprite(images, 4)
    # Three columns and two rows for five; the sixth place is white.
    assert sprite.shape == (8, 12, 3)
    assert sprite[::4, ::4, 0].tolist() == [[0, 1, 2], [3, 4, 255]]


@pytest.mark.parametrize(("shape", "rows"), [((4, 8), [0, 2, 2, 0]), ((16, 32), [0, 2, 2, 0]), ((8, 8), [2] * 4)])
def test_a_thumbnail_keeps_its_shape(shape, rows):
    sprite = draw_sprite(np.zeros((1, *shape, 4), np.uint8), 4)
    # Twice as wide as high: two of four rows, in the middle.
    assert [int((row == 0).all(axis=-1).sum()) // 2 for row in sprite] == rows


def test_negatives_are_the_nearest_of_another_class():
    labels = np.array([1, 0, 0, 1, 2])
    logits = np.array([[0.0], [10.0], [11.0], [4.0], [30.0]])
    # Class 0: images 1 and 2, and the nearest to 1 of another class is 3. Class 1: 0 and 3, nearest to 0 is 1. Class 2
    # has one image.
    assert choose_triplets(labels, logits, 6).tolist() == [[1, 2, 3], [0, 3, 1]]
    assert choose_triplets(labels, logits, 1).tolist() == [[1, 2, 3]]
    assert measure_triplets(logits, np.array([[1, 2, 3], [0, 3, 1]])).tolist() == [[1, 6], [4, 10]]


def test_distances_are_euclidean():
    logits = np.array([[0.0, 0.0], [3.0, 4.0], [5.0, 12.0]])
    assert measure_triplets(logits, np.array([[0, 1, 2]])).tolist() == [[5, 13]]


@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 1, 1]])
def test_without_two_of_a_class_or_another_class_there_is_no_triplet(labels):
    assert choose_triplets(np.array(labels), np.zeros((3, 2)), 6).shape == (0, 3)
