"""Architectures against the papers: sizes derived by hand, what distillation reads, files."""

import keras
import numpy as np
import pytest

from keras_tkd import models

CIFAR, DIGITS = (32, 32, 3), (8, 8, 1)

# Trainable parameters. 3x3 convolution: 9 * in * out + out; BatchNorm: 2 * channels; dense: in * out + out.
SMALL_PARAMETERS = {
    # convolutions: 896 + 9,248 + 18,496 + 36,928 + 73,856 = 139,424
    #   3->32: 864 + 32; 32->32: 9,216 + 32; 32->64: 18,432 + 64; 64->64: 36,864 + 64; 64->128: 73,728 + 128
    # BatchNorm:    2 * (32 + 32 + 64 + 64 + 128) = 640
    # dense:        32 pixels halved three times are 4: 4 * 4 * 128 = 2,048 inputs
    #   2,048 * 512 + 512 = 1,049,088; 512 * 128 + 128 = 65,664; 128 * 10 + 10 = 1,290
    "tkd_teacher": (CIFAR, 139_424 + 640 + 1_049_088 + 65_664 + 1_290, 1_256_106),
    # convolutions: 896 + 9,248 + 18,496 = 28,640; dense: 4 * 4 * 64 = 1,024 inputs, 131,072 + 128; 1,290
    "tkd_student": (CIFAR, 28_640 + 131_200 + 1_290, 161_130),
    # convolutions: 3->16: 432 + 16; 16->32: 4,608 + 32; 32->64: 18,432 + 64; BatchNorm: 2 * (16 + 32 + 64)
    "tkd_student_2022": (CIFAR, 448 + 4_640 + 18_496 + 224 + 131_200 + 1_290, 156_298),
    # convolutions: 1->32: 288 + 32; 32->64: 18,432 + 64; 64->64: 36,864 + 64; BatchNorm: 2 * 64
    # dense: 8 pixels halved twice are 2: 2 * 2 * 64 = 256 inputs, 16,384 + 64; 64 * 10 + 10
    "digits_teacher": (DIGITS, 320 + 18_496 + 36_928 + 128 + 16_448 + 650, 72_970),
    # convolutions: 1->4: 36 + 4; 4->8: 288 + 8; dense: 2 * 2 * 8 = 32 inputs, 320 + 10
    "digits_student": (DIGITS, 40 + 296 + 330, 666),
}

# Trainable parameters for 100 classes, as the literature quotes them (None: not quoted).
RESNET_PARAMETERS = {
    "resnet8": None,
    "resnet14": None,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": None,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
}

# Shapes of stage1, stage2, ..., features, embedding.
SHAPES = {
    "tkd_teacher": [(16, 16, 32), (8, 8, 32), (4, 4, 128), (8, 8, 128), (128,)],
    "tkd_student": [(16, 16, 32), (8, 8, 32), (4, 4, 64), (8, 8, 64), (128,)],
    "tkd_student_2022": [(16, 16, 16), (8, 8, 32), (4, 4, 64), (8, 8, 64), (128,)],
    "digits_teacher": [(4, 4, 64), (2, 2, 64), (4, 4, 64), (64,)],
    "digits_student": [(4, 4, 4), (2, 2, 8), (4, 4, 8), (32,)],
    **{
        name: [(32, 32, 16 * k), (16, 16, 32 * k), (8, 8, 64 * k), (8, 8, 64 * k), (64 * k,)]
        for name in RESNET_PARAMETERS
        for k in [4 if name.endswith("x4") else 1]
    },
}

# Small ones of each kind, for what a forward pass or a file must show.
RUN = [*SMALL_PARAMETERS, "resnet8", "resnet8x4"]


def image_shape(name):
    return DIGITS if name.startswith("digits") else CIFAR


def make(name, classes=10):
    return models.build(name, image_shape(name), classes)


def count_trainable_parameters(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def pixels(name, count=3):
    return np.random.default_rng(0).integers(0, 256, (count, *image_shape(name)), dtype="uint8")


def resnet_parameters(name, classes):
    """Convolutions without bias, a BatchNorm (2 per channel) after each, one dense layer."""
    k = 4 if name.endswith("x4") else 1
    n = (int(name.removeprefix("resnet").removesuffix("x4")) - 2) // 6
    stem = 32 if k == 4 else 16
    a, b, c = 16 * k, 32 * k, 64 * k
    same_shape = [2 * (9 * w * w + 2 * w) for w in (a, b, c)]

    def changed_shape(v, w):
        return (9 * v * w + 2 * w) + (9 * w * w + 2 * w) + (v * w + 2 * w)

    first = [changed_shape(stem, a) if stem != a else same_shape[0], changed_shape(a, b), changed_shape(b, c)]
    return (9 * 3 * stem + 2 * stem) + sum(first) + (n - 1) * sum(same_shape) + (c * classes + classes)


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def test_every_model_is_checked_here():
    assert list(models.MODELS) == [*SMALL_PARAMETERS, *RESNET_PARAMETERS] == list(SHAPES)


@pytest.mark.parametrize("name", SMALL_PARAMETERS)
def test_parameters_of_small_networks(name):
    shape, derived, published = SMALL_PARAMETERS[name]
    assert derived == published
    assert count_trainable_parameters(models.build(name, shape, 10)) == published


@pytest.mark.parametrize("name", SHAPES)
def test_structure(name):
    model = make(name, classes=100)
    if name in RESNET_PARAMETERS:
        expected = resnet_parameters(name, 100)
        assert RESNET_PARAMETERS[name] in (None, expected)
        assert count_trainable_parameters(model) == expected

    assert model.name == name
    assert model.input_shape == (None, *image_shape(name))
    *stages, features, embedding = SHAPES[name]
    expected = {f"stage{number}": shape for number, shape in enumerate(stages, start=1)}
    expected |= {"features": features, "embedding": embedding, "logits": (100,)}
    read = keras.Model(model.input, {layer: model.get_layer(layer).output for layer in expected})
    assert {layer: tensor.shape[1:] for layer, tensor in read.output.items()} == expected
    assert not any(layer.name == f"stage{len(stages) + 1}" for layer in model.layers)

    assert model.output is model.get_layer("logits").output
    assert model.layers[-1].activation is keras.activations.linear
    # Nothing of ours in the file: it loads where this package is not installed.
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


@pytest.mark.parametrize("name", RUN)
def test_named_tensors_are_what_they_are_called(name):
    model = make(name)
    for layer in model.layers:  # else every BatchNorm is nearly the identity
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(np.random.default_rng(1).uniform(-1, 1, layer.gamma.shape))
    last = f"stage{len(SHAPES[name]) - 2}"
    names = ["features", last, "embedding", "logits"]
    read = keras.Model(model.input, [model.get_layer(layer).output for layer in names])
    features, stage, embedding, logits = map(np.asarray, read(pixels(name)))

    def norm(x):
        layer = model.get_layer("features_norm")
        return layer.gamma * (x - layer.moving_mean) / np.sqrt(layer.moving_variance + 1e-5) + layer.beta

    def relu(x):
        return np.maximum(x, 0)

    def pool(x):
        batch, height, width, channels = x.shape
        return np.reshape(x, (batch, height // 2, 2, width // 2, 2, channels)).max((2, 4))

    after_features = {
        "tkd_teacher": lambda x: pool(norm(relu(x))),
        "tkd_student": lambda x: pool(relu(x)),
        "tkd_student_2022": lambda x: pool(relu(norm(x))),
        "digits_teacher": lambda x: pool(relu(norm(x))),
        "digits_student": lambda x: pool(relu(x)),
        "resnet8": relu,
        "resnet8x4": relu,
    }[name]
    assert features.min() < 0
    np.testing.assert_allclose(stage, after_features(features), rtol=1e-5, atol=1e-5)
    if name in RESNET_PARAMETERS:
        np.testing.assert_allclose(embedding, stage.mean((1, 2)), rtol=1e-5, atol=1e-6)
    dense = model.get_layer("logits")
    expected = embedding @ np.asarray(dense.kernel) + np.asarray(dense.bias)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_resnet_block_adds_its_shortcut():
    model = make("resnet14")
    names = ["stage1_block1_relu", "stage1_block2_conv2_norm", "stage1"]
    names += ["stage2_block1_shortcut_norm", "stage2_block1_conv2_norm", "stage2_block1_sum"]
    read = keras.Model(model.input, [model.get_layer(layer).output for layer in names])
    block, residual, stage, projected, change, total = map(np.asarray, read(pixels("resnet14")))
    np.testing.assert_allclose(stage, np.maximum(block + residual, 0), rtol=1e-5)
    np.testing.assert_allclose(total, projected + change, rtol=1e-5)


@pytest.mark.parametrize("name", ["digits_student", "resnet8"])
def test_pixels_are_scaled_inside(name):
    model = make(name)
    convolution = model.get_layer("conv1" if name == "digits_student" else "stem")
    images = pixels(name)
    got = keras.Model(model.input, convolution.output)(images)

    scaled = np.pad(images / 255, [(0, 0), (1, 1), (1, 1), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(scaled, (3, 3), axis=(1, 2))
    expected = np.einsum("bhwcij,ijcf->bhwf", windows, np.asarray(convolution.kernel))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tkd_teacher", "digits_student", "resnet8"])
def test_logits_are_float32_under_mixed_precision(name, mixed_bfloat16):
    model = make(name)
    names = ["rescaling", "features", "logits"]
    read = keras.Model(model.input, [model.get_layer(layer).output for layer in names])
    scaled, features, logits = read(pixels(name))
    assert (features.dtype, logits.dtype) == ("bfloat16", "float32")
    np.testing.assert_allclose(scaled, pixels(name) / 255, rtol=1e-6)


@pytest.mark.parametrize("name", RUN)
def test_seed_decides_the_weights(name):
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return make(name).get_weights()

    first, again, other = weights(1), weights(1), weights(2)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("name", RUN)
def test_file_gives_the_model_back(name, tmp_path):
    model, path = make(name), tmp_path / "model.keras"
    model.save(path)
    loaded = models.build(path, image_shape(name), 10)
    assert loaded.name == name
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_array_equal(loaded(pixels(name)), model(pixels(name)))


def test_unknown_name():
    with pytest.raises(ValueError, match=r"name='tkd_studnet'.*mean 'tkd_student'.*Names: tkd_teacher, "):
        models.build("tkd_studnet", CIFAR, 10)
    with pytest.raises(ValueError, match=r"name='zzz'\. Names: "):
        models.build("zzz", CIFAR, 10)


@pytest.mark.parametrize("name", SHAPES)
def test_smallest_image(name):
    side = 8 if name.startswith("tkd") else 4
    if name in RUN:
        assert models.build(name, (side, side, 1), 2).output_shape == (None, 2)
    with pytest.raises(ValueError, match=rf"at least \({side}, {side}, 1\).*=\({side}, {side - 1}, 1\)"):
        models.build(name, (side, side - 1, 1), 2)
    with pytest.raises(ValueError, match=r"\(height, width, channels\).*image_shape=\(32, 32\)"):
        models.build(name, (32, 32), 2)


def test_depth_of_a_resnet():
    with pytest.raises(ValueError, match=r"6n \+ 2.*depth=18"):
        models.resnet_cifar.resnet(CIFAR, 10, depth=18)
    with pytest.raises(ValueError, match=r"6n \+ 2.*depth=2"):
        models.resnet_cifar.resnet(CIFAR, 10, depth=2)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.keras"):
        models.build(tmp_path / "nothing.keras", CIFAR, 10)


def test_file_that_is_no_model(tmp_path):
    text = tmp_path / "text.keras"
    text.write_text("no zip")
    with pytest.raises(ValueError, match=r"can be loaded.*text\.keras"):
        models.build(text, CIFAR, 10)

    archive = tmp_path / "archive.keras"
    np.savez(archive.with_suffix(".npz"), weights=np.ones(3))  # a zip file, too
    archive.with_suffix(".npz").rename(archive)
    with pytest.raises(ValueError, match=r"can be loaded.*archive\.keras"):
        models.build(archive, CIFAR, 10)


def test_file_with_two_outputs(tmp_path):
    image = keras.Input(DIGITS)
    flat = keras.layers.Flatten()(image)
    path = tmp_path / "two.keras"
    keras.Model(image, [keras.layers.Dense(10)(flat), keras.layers.Dense(10)(flat)]).save(path)
    with pytest.raises(ValueError, match=r"must have one output, .*two\.keras.*\(None, 10\).*\(None, 10\)"):
        models.build(path, DIGITS, 10)


def test_file_for_other_images_or_classes(tmp_path):
    path = tmp_path / "digits.keras"
    make("digits_student").save(path)
    with pytest.raises(ValueError, match=r"image_shape=\(32, 32, 3\).*digits\.keras.*\(8, 8, 1\)"):
        models.build(path, CIFAR, 10)
    with pytest.raises(ValueError, match=r"num_classes=100.*digits\.keras.*\(10,\)"):
        models.build(path, DIGITS, 100)


@pytest.mark.parametrize("name", ["resnet8", "keras_applications/MobileNetV3Small"])
def test_a_number_of_classes_may_be_numpys(name):
    shape = (32, 32, 3)
    assert models.build(name, shape, np.int64(3)).output_shape == (None, 3)


def test_file_for_images_of_any_size(tmp_path):
    path = tmp_path / "any.keras"
    pool, dense = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)
    keras.Sequential([keras.Input((None, None, 3)), pool, dense]).save(path)
    assert models.build(path, CIFAR, 10).output_shape == (None, 10)
    with pytest.raises(ValueError, match=r"image_shape=\(32, 32, 1\).*\(None, None, 3\)"):
        models.build(path, (32, 32, 1), 10)
