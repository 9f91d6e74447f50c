"""Crops, mirroring and Cutout: each view is what its definition says of its seed's box, alone or in any batch."""

import numpy as np
import PIL.Image
import pytest
from scipy.stats import chi2, kstest

from keras_tkd.data import compose, crop, crop_and_flip, cutout, horizontal_flip, make_augmentation, resized_crop
from keras_tkd.data.crops import draw_crop_boxes

SEEDS = np.arange(4_000) * 536_000 + 17
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 24, 32, 3), dtype="uint8")


def assert_equally_often(counts):
    """Chi-square: counts so uneven come from equal probabilities less than once in a million times."""
    counts = np.asarray(counts)
    expected = counts.sum() / counts.size
    assert expected >= 5 and ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, counts.size - 1)


class TestResizedCrop:
    @pytest.mark.parametrize("area", [0.08, 0.5])
    def test_boxes_have_the_shares_ratios_and_places_that_are_said(self, area):
        top, left, rows, columns = (np.asarray(part) for part in draw_crop_boxes(SEEDS, 200, 200, area))
        assert (top >= 0).all() and (left >= 0).all() and (top + rows <= 200).all() and (left + columns <= 200).all()
        # Sides are rounded to whole pixels, of 56 at least: by 0.9 % at most.
        share, ratio = rows * columns / 200**2, columns / rows
        assert share.min() >= area * 0.98 and share.max() <= 1
        assert ratio.min() >= 0.75 * 0.98 and ratio.max() <= 4 / 3 / 0.98
        assert kstest(share, "uniform", (area, 1 - area)).pvalue > 1e-6
        # Where every ratio fits, it is log-uniform; and so is its inverse.
        small = share < 0.7
        assert kstest(np.log(ratio[small]), "uniform", (np.log(0.75), 2 * np.log(4 / 3))).pvalue > 1e-6
        # A corner is uniform over the places that are left.
        for start, length in ((top, rows), (left, columns)):
            loose = length < 150
            places = (start[loose] + 0.5) / (201 - length[loose])
            assert kstest(places, "uniform").pvalue > 1e-6

    def test_of_the_whole_area_there_is_one_box(self):
        boxes = np.array(draw_crop_boxes(SEEDS[:50], 24, 24, 1.0))
        np.testing.assert_array_equal(boxes, np.tile([[0], [0], [24], [24]], (1, 50)))

    @pytest.mark.parametrize("height, width", [(10, 100), (100, 10)])
    def test_images_far_from_square_give_what_they_have(self, height, width):
        top, left, rows, columns = (np.asarray(part) for part in draw_crop_boxes(SEEDS, height, width, 0.5))
        # Half of the area or more in a ratio of at most 4/3 would be taller, or wider, than the image.
        long, short = (columns, rows) if width > height else (rows, columns)
        assert (short == 10).all() and long.min() >= 10 and long.max() <= 100
        assert (top + rows <= height).all() and (left + columns <= width).all()

    def test_a_view_is_its_box_enlarged(self):
        seeds = SEEDS[: len(IMAGES)]
        views = resized_crop(IMAGES, seeds, area=0.2).numpy()
        assert views.dtype == np.uint8 and views.shape == IMAGES.shape
        for image, view, *box in zip(IMAGES, views, *draw_crop_boxes(seeds, 24, 32, 0.2), strict=True):
            top, left, rows, columns = map(int, box)
            part = PIL.Image.fromarray(image[top : top + rows, left : left + columns])
            expected = np.asarray(part.resize((32, 24), PIL.Image.Resampling.BILINEAR)).astype(int)
            # Pillow rounds in between, after one of the two directions.
            assert np.abs(view - expected).max() <= 1

    def test_by_hand(self):
        # The whole image stays as it is; of floats, nothing is rounded.
        images = np.array([0.25, 1, 4, 9], "float32").reshape(1, 2, 2, 1)
        np.testing.assert_array_equal(resized_crop(images, [5], area=1.0), images)


def test_mirroring_is_that_of_crop_and_flip():
    images, seeds = np.repeat(IMAGES, 100, axis=0), SEEDS
    views = horizontal_flip(images, seeds).numpy()
    np.testing.assert_array_equal(views, crop_and_flip(images, seeds, padding=0))
    mirrored = (views == images[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((views == images).all(axis=(1, 2, 3)) != mirrored).all()
    assert_equally_often(np.bincount(mirrored))


def test_crop_and_mirroring_in_turn_are_both_at_once():
    seeds = SEEDS[: len(IMAGES)]
    both = crop_and_flip(IMAGES, seeds)
    np.testing.assert_array_equal(compose(crop, horizontal_flip)(IMAGES, seeds), both)
    np.testing.assert_array_equal(make_augmentation("crop+horizontal_flip")(IMAGES, seeds), both)


class TestCutout:
    @pytest.mark.parametrize("size, side", [(0.5, 4), (0.25, 2), (0.375, 3), (0.01, 1)])
    def test_a_square_of_zeros_with_its_centre_anywhere(self, size, side):
        views = cutout(np.ones((len(SEEDS), 8, 10, 2), "float32"), SEEDS, size=size).numpy()
        assert set(np.unique(views)) == {0, 1}
        np.testing.assert_array_equal(views[..., 0], views[..., 1])
        gone, centres = views[..., 0] == 0, np.zeros((8, 10), int)
        for square in gone:
            rows, columns = (np.flatnonzero(square.any(axis=axis)) for axis in (1, 0))
            assert square.sum() == len(rows) * len(columns)
            # Cut off at an edge only if it touches that edge.
            assert len(rows) == side or rows[0] == 0 or rows[-1] == 7
            assert len(columns) == side or columns[0] == 0 or columns[-1] == 9
            assert 1 <= len(rows) <= side and 1 <= len(columns) <= side
            # The last row and column of a square that begins at the edge tell where it would begin.
            top = rows[0] if rows[0] > 0 else rows[-1] + 1 - side
            left = columns[0] if columns[0] > 0 else columns[-1] + 1 - side
            centres[top + side // 2, left + side // 2] += 1
        assert_equally_often(centres)

    def test_all_else_stays(self):
        views = cutout(IMAGES, SEEDS[: len(IMAGES)]).numpy()
        kept = (views != 0).any(axis=-1)
        np.testing.assert_array_equal(views[kept], IMAGES[kept])
        # Of 24 x 32 pixels a square of 12 x 12, or the part of it that lies inside.
        assert 0 < (~kept).mean(axis=(1, 2)).max() <= 144 / 768 + 1e-3
