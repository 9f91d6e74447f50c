"""Operations on the values of pixels, beside Pillow's own."""

import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest
from scipy.stats import kstest

from keras_tkd.data import color_jitter, colors
from keras_tkd.data.draws import COLOR_JITTER, draw_fraction

RNG = np.random.default_rng(0)
IMAGES = np.concatenate(
    [
        RNG.integers(0, 256, (6, 20, 24, 3)),
        # Dull and bright ones, and ones of a few values, as drawings have them.
        RNG.integers(90, 130, (3, 20, 24, 3)),
        RNG.choice([3, 200, 201], (2, 20, 24, 3)),
        np.full((1, 20, 24, 3), 77),
    ]
).astype("uint8")
FACTORS = np.array([0, 0.1, 0.3, 0.5, 0.9, 1, 1.1, 1.3, 1.5, 1.7, 1.9, 0.7], "float32")
ENHANCED = {
    "brightness": PIL.ImageEnhance.Brightness,
    "contrast": PIL.ImageEnhance.Contrast,
    "saturation": PIL.ImageEnhance.Color,
    "sharpness": PIL.ImageEnhance.Sharpness,
}


def pillow(image):
    return PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ENHANCED)
def test_a_factor_per_image(name, channels):
    images = IMAGES[..., :channels]
    views = np.asarray(getattr(colors, f"adjust_{name}")(images, FACTORS))
    assert views.dtype == np.uint8 and views.shape == images.shape
    for image, view, factor in zip(images, views, FACTORS, strict=True):
        expected = np.asarray(ENHANCED[name](pillow(image)).enhance(float(factor))).reshape(image.shape)
        # Pillow cuts off what it blends, where this rounds.
        assert np.abs(view.astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(views[5], images[5])  # the factor 1


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_posterize(bits):
    expected = [np.asarray(PIL.ImageOps.posterize(pillow(image), bits)) for image in IMAGES]
    np.testing.assert_array_equal(colors.posterize(IMAGES, bits), expected)


@pytest.mark.parametrize("threshold", [0, 100, 256])
def test_solarize(threshold):
    expected = [np.asarray(PIL.ImageOps.solarize(pillow(image), threshold)) for image in IMAGES]
    np.testing.assert_array_equal(colors.solarize(IMAGES, threshold), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name, error", [("equalize", 0), ("autocontrast", 1)])
def test_functions_of_histograms(name, error, channels):
    images = IMAGES[..., :channels]
    views = getattr(colors, name)(images).numpy()
    for image, view in zip(images, views, strict=True):
        expected = np.asarray(getattr(PIL.ImageOps, name)(pillow(image))).reshape(image.shape)
        assert np.abs(view.astype(int) - expected).max() <= error
    # A single value has nothing to be spread.
    np.testing.assert_array_equal(views[-1], images[-1])


def test_equalize_of_many_pixels_of_one_value():
    # 300 pixels of 9 and 100 others: each step takes more than one.
    image = np.concatenate([np.full(300, 9), np.arange(100)]).astype("uint8").reshape(1, 20, 20, 1)
    expected = np.asarray(PIL.ImageOps.equalize(pillow(image[0]))).reshape(image.shape)
    np.testing.assert_array_equal(colors.equalize(image), expected)


def test_jitter_is_brightness_contrast_and_saturation_in_turn_by_factors_of_its_seeds():
    seeds = np.arange(len(IMAGES)) * 90_001
    expected = IMAGES
    for number, name in enumerate(("brightness", "contrast", "saturation")):
        factors = 1 + 0.4 * (2 * draw_fraction(seeds, COLOR_JITTER + number).numpy() - 1)
        expected = np.asarray(getattr(colors, f"adjust_{name}")(expected, factors.astype("float32")))
    views = color_jitter(IMAGES, seeds).numpy()
    np.testing.assert_array_equal(views, expected)
    assert (views != IMAGES).any(axis=(1, 2, 3))[:6].all()


def test_brightness_of_jitter_is_uniform():
    # A single pixel of one channel is its own mean: contrast leaves it, and it has no saturation.
    views = color_jitter(np.full((4_000, 1, 1, 1), 100, "uint8"), np.arange(4_000) * 311, strength=0.5).numpy()
    assert views.min() >= 50 and views.max() <= 150
    assert (
        kstest(views.ravel() + np.random.default_rng(0).uniform(-0.5, 0.5, 4_000), "uniform", (50, 100)).pvalue > 1e-6
    )


@pytest.mark.parametrize("images", [IMAGES.astype("float32"), IMAGES[..., :2]], ids=["float32", "two channels"])
def test_pixels_that_are_no_colours_are_refused(images):
    with pytest.raises(
        ValueError, match=r"'color_jitter' reads pixels of uint8.*Received: (float32|uint8), shape .*as uint8"
    ):
        color_jitter(images, np.arange(len(images)))
