"""Architectures of `keras.applications` as teachers and students: against Keras's own bodies and preprocessing."""

import inspect

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from keras_tkd import models
from keras_tkd.models import applications
from keras_tkd.utils.layer_outputs import LayerOutputs
from keras_tkd.utils.model_files import load_model
from keras_tkd.utils.pixel_scaling import scale_pixels

SHAPE = (32, 32, 3)
MOBILE = "keras_applications/MobileNet@alpha=0.25"
PIXELS = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype="uint8")


def preprocess(family, images):
    # A copy: Keras's function may change its argument.
    return getattr(keras.applications, family).preprocess_input(np.array(images, "float32"))


def mobile_net():
    """Keras's own body, with weights that differ from each other's."""
    keras.utils.set_random_seed(1)
    body = keras.applications.MobileNet(include_top=False, weights=None, alpha=0.25, input_shape=SHAPE, pooling="avg")
    generator = np.random.default_rng(1)
    body.set_weights([w + generator.uniform(0, 0.1, w.shape) for w in body.get_weights()])
    return body


def read(model, name, images):
    return LayerOutputs(model, [name])(images)[1][name].numpy()


@pytest.mark.parametrize("family", applications._FAMILIES)
def test_pixels_are_scaled_as_keras_scales_them(family):
    mode, _ = applications._FAMILIES[family]
    pixels = keras.Input(SHAPE)
    scaled = scale_pixels(pixels, mode)
    # What scales inside has a function for it that does nothing.
    seen = PIXELS.astype("float32") if mode == "none" else keras.Model(pixels, scaled).predict_on_batch(PIXELS)
    np.testing.assert_allclose(seen, preprocess(family, PIXELS), rtol=1e-5, atol=1e-4)


def test_every_architecture_of_keras_is_one():
    offered = {name for name, value in vars(keras.applications).items() if inspect.isfunction(value)}
    assert set(applications._list_architectures()) == offered and len(offered) >= 40


@pytest.mark.parametrize("family", applications._FAMILIES)
def test_the_least_size_is_keras_s_own(family):
    minimum = applications._FAMILIES[family][1]
    name = next(name for name in applications._list_architectures() if applications._get_family(name) == family)
    make = getattr(keras.applications, name)
    with pytest.raises(ValueError, match=f"at least {minimum}x{minimum}"):
        make(include_top=False, weights=None, input_shape=(minimum - 1, minimum - 1, 3))
    with pytest.raises(ValueError, match=rf"{name} at least {minimum} pixels.*--image_size={minimum}"):
        models.build(f"keras_applications/{name}", (minimum, minimum - 1, 3), 2)


# Parameters of the bodies as Keras publishes them (its files with `notop`), and of a dense layer from their widths.
@pytest.mark.parametrize(
    ("spec", "side", "parameters"),
    [
        ("keras_applications/VGG16", 32, 14_714_688 + 512 * 10 + 10),
        ("keras_applications/MobileNetV3Small", 32, 939_120 + 576 * 10 + 10),
        ("keras_applications/Xception", 71, 20_861_480 + 2048 * 10 + 10),
    ],
)
def test_bodies_are_the_published_ones(spec, side, parameters):
    model = models.build(spec, (side, side, 3), 10)
    assert model.count_params() == parameters and model.output_shape == (None, 10)


@pytest.mark.parametrize("kind", [".weights.h5", ".h5"])
def test_a_file_of_weights_gives_keras_s_own_body(kind, tmp_path):
    body = mobile_net()
    path = tmp_path / f"body{kind}"
    if kind == ".h5":
        # As Keras's published files are.
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, body)
    else:
        body.save_weights(path)
    model = models.build(MOBILE, SHAPE, 5, weights=path)
    expected = body.predict_on_batch(preprocess("mobilenet", PIXELS))
    np.testing.assert_allclose(read(model, "embedding", PIXELS), expected, rtol=1e-4, atol=1e-5)
    assert read(model, "features", PIXELS).shape == (3, 1, 1, 256)
    # Without the file, the body is another.
    assert np.abs(read(models.build(MOBILE, SHAPE, 5), "embedding", PIXELS) - expected).max() > 0.01


def test_efficient_net_with_weights_scales_as_keras_s_own_does(tmp_path, monkeypatch):
    """Keras's EfficientNetB0 has a layer more if its weights are downloaded: here `get_file` gives a local file."""

    def make(**more):
        return keras.applications.EfficientNetB0(include_top=False, input_shape=SHAPE, pooling="avg", **more)

    keras.utils.set_random_seed(1)
    body, path = make(weights=None), tmp_path / "b0_notop.weights.h5"
    normalization = next(layer for layer in body.layers if isinstance(layer, keras.layers.Normalization))
    # ImageNet's, as in the published files.
    normalization.adapt_mean.assign([0.485, 0.456, 0.406])
    normalization.adapt_variance.assign([0.229, 0.224, 0.225])
    normalization.finalize_state()
    body.save_weights(path)
    monkeypatch.setattr("keras.src.applications.efficientnet.file_utils.get_file", lambda *_, **__: str(path))
    expected = make(weights="imagenet").predict_on_batch(PIXELS)
    model = models.build("keras_applications/EfficientNetB0", SHAPE, 5, weights=path)
    spread = np.ptp(expected)
    np.testing.assert_allclose(read(model, "embedding", PIXELS), expected, atol=1e-4 * spread)
    assert np.abs(body.predict_on_batch(PIXELS) - expected).max() > 0.01 * spread


def test_grey_images_are_three_equal_channels():
    keras.utils.set_random_seed(0)
    colour = models.build(MOBILE, SHAPE, 5)
    keras.utils.set_random_seed(0)
    grey = models.build(MOBILE, (32, 32, 1), 5)
    images = PIXELS[..., :1]
    np.testing.assert_allclose(grey.predict_on_batch(images), colour.predict_on_batch(np.repeat(images, 3, -1)))


def test_names_weights_and_files_depend_on_the_seed_alone(tmp_path):
    def make():
        keras.utils.set_random_seed(3)
        return models.build("keras_applications/MobileNetV3Small@alpha=0.5@minimalistic=True", SHAPE, 5)

    # MobileNetV3 leaves the names of some layers to Keras, which numbers them.
    first = make()
    keras.layers.ReLU()
    second = make()
    assert [layer.name for layer in first.layers] == [layer.name for layer in second.layers]
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    first.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(PIXELS), second.predict_on_batch(PIXELS))


def test_arguments_change_the_body():
    # MobileNetV2's last convolution has 1280 channels for any alpha up to 1, and 1280 alpha beyond.
    model = models.build("keras_applications/MobileNetV2@alpha=1.4", SHAPE, 5)
    assert model.get_layer("embedding").output.shape == (None, 1792)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("MobilNetV2", r"must name an architecture.*keras_applications/MobilNetV2.*Did you mean MobileNetV2"),
        ("", r"must name an architecture.*Names: ConvNeXtBase, .*Xception"),
        ("MobileNetV2@alhpa=0.5", r"MobileNetV2 takes these arguments here, each once: alpha\..*Did you mean alpha"),
        ("MobileNetV2@alpha=0.5@alpha=1", "each once: alpha"),
        ("ResNet50@alpha=0.5", "ResNet50 takes no arguments here"),
        ("MobileNet@dropout=0.5", "each once: alpha, depth_multiplier"),
        ("MobileNetV2@alpha", "`alpha` of MobileNetV2 must be a number > 0"),
        ("MobileNetV2@alpha=0", "must be a number > 0"),
        ("MobileNetV2@alpha=nan", "must be a number > 0"),
        ("MobileNetV2@alpha=4.01", "`alpha` of MobileNetV2 must be a number > 0, and 4 at most"),
        ("MobileNetV3Small@alpha=1e9", "must be a number > 0, and 4 at most"),
        ("MobileNet@depth_multiplier=9", "must be a whole number >= 1, and 8 at most"),
        ("MobileNet@depth_multiplier=1.5", "must be a whole number >= 1"),
        ("MobileNetV3Small@minimalistic=yes", "must be True or False"),
        ("MobileNet@alpha=0.01", "MobileNet cannot be built so.*alpha=0.01"),
        ("MobileNetV2@weights=imagenet", "nothing is downloaded: name it with --student_model_weights=FILE"),
    ],
)
def test_specifications_are_refused_in_a_sentence(spec, says):
    with pytest.raises(ValueError, match=rf"(?s){says}"):
        models.build(f"keras_applications/{spec}", SHAPE, 5, "student_model")


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match=r"1 or 3 channels.*\(32, 32, 4\)"):
        models.build(MOBILE, (32, 32, 4), 5)


def test_files_of_other_weights_are_refused(tmp_path):
    body = mobile_net()
    body.save_weights(tmp_path / "body.weights.h5")
    (tmp_path / "noise.h5").write_bytes(b"noise")
    for spec, file, error, says in [
        ("MobileNet@alpha=0.5", "body.weights.h5", ValueError, "body of MobileNet alone.*notop"),
        ("MobileNetV2", "body.weights.h5", ValueError, "body of MobileNetV2 alone"),
        ("MobileNet@alpha=0.25", "noise.h5", ValueError, "student_model_weights=.*noise.h5"),
        ("MobileNet@alpha=0.25", "body.keras", FileNotFoundError, "student_model_weights=.*body.keras"),
    ]:
        with pytest.raises(error, match=rf"(?s){says}"):
            models.build(f"keras_applications/{spec}", SHAPE, 5, "student_model", tmp_path / file)
