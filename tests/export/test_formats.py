"""Exported files: opened in their runtimes, and held against the same sums in NumPy within bounds of their rounding."""

import dataclasses
import importlib.util
import json
import sys
import zipfile

import keras
import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_tkd import teachers
from keras_tkd.export import FORMATS, export_model, open_model
from keras_tkd.export.inference import check_operations, split_preprocessing
from keras_tkd.export.runtimes import SavedModel
from keras_tkd.models import digits_student

CLASSES = 64
NAMES = tuple(f"class {number}" for number in range(CLASSES))
RNG = np.random.default_rng(0)
# Black and white are among them, so that int8's range is that of pixels, and each pixel a step of it.
IMAGES = RNG.integers(0, 256, (40, 16, 16, 1), dtype="uint8")
IMAGES[0, :8], IMAGES[0, 8:] = 0, 255
WEIGHTS, BIAS = (RNG.uniform(-1, 1, shape).astype("float32") for shape in ((256, CLASSES), CLASSES))
INT8 = {"calibration_images": IMAGES}


def build_dense():
    """A model of one product, of enough weights that the dynamic range format stores them in int8 (1,024)."""
    layers = [keras.layers.Flatten(), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input((16, 16, 1)), *layers], name="dense")
    model.set_weights([WEIGHTS, BIAS])
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports") / "dense"
    return export_model(build_dense(), folder, tuple(FORMATS), class_names=NAMES, **INT8)


def bound_error(kind):
    """How far outputs may be from the exact ones, `(samples, classes)`, by what the format rounds."""
    x, w = IMAGES.reshape(len(IMAGES), -1).astype("float64"), np.abs(WEIGHTS.astype("float64"))
    products = x @ w + np.abs(BIAS)
    # A sum of n float32 numbers is off by n / 2^24 of the sum of their sizes, at most.
    bound = 257 * 2.0**-24 * products
    # Half a step of what weights are stored in, for every pixel: 2^-11 of a number (2^-25 of tiny ones), or a step of
    # int8, of which the largest weight is 127.
    step = w.max() / 127
    pixels = x.sum(1, keepdims=True)
    if kind == "litert_float16":
        bound += 2.0**-11 * products + 2.0**-25 * pixels
    elif kind == "litert_dynamic":
        # Each batch of inputs is rounded too: 127 steps, or 255 of the same range.
        input_step = x.max() / 127
        bound += pixels * step / 2 + w.sum(0) * input_step / 2 + 256 * step * input_step / 4
    elif kind == "litert_int8":
        exact = x @ WEIGHTS + BIAS
        # Outputs have 255 steps from the least to the largest, 0 among them; 1 % for how the step itself is stored. A
        # bias has steps of pixel and weight: at most half of the latter's.
        bound += pixels * step / 2 + 1.01 * np.ptp([0, exact.min(), exact.max()]) / 255 / 2 + step / 2
    return bound


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_gives_the_outputs_of_the_model(name, exported):
    exact = IMAGES.reshape(len(IMAGES), -1).astype("float64") @ WEIGHTS + BIAS
    run = open_model(exported.paths[name])
    outputs = run(IMAGES)
    bound = bound_error(name)
    assert outputs.dtype == "float32" and (np.abs(outputs - exact) <= bound).all()
    # The bound tells the model from another: it is small against what tells the classes apart.
    assert bound.max() < exact.std() / 4
    # Batches of any size, one after the other.
    for start, stop in ((0, 1), (1, 8), (8, 9)):
        np.testing.assert_allclose(run(IMAGES[start:stop]), outputs[start:stop], atol=2 * bound.max())


def test_what_is_stored_is_as_large_as_it_says(exported):
    weights = WEIGHTS.size
    sizes = {name: path.stat().st_size for name, path in exported.paths.items() if path.is_file()}
    of_weights = {"litert_float32": 4, "onnx": 4, "litert_float16": 2, "litert_dynamic": 1, "litert_int8": 1}
    # 8 kB for all that is no weight, less than half of the smallest file's weights.
    assert sizes.keys() == of_weights.keys()
    for name, count in of_weights.items():
        assert count * weights < sizes[name] < count * weights + 8192, name


def test_int8_computes_in_integers_alone(exported):
    kinds = {name: [kind for _, kind in open_model(path).operations] for name, path in exported.paths.items()}
    assert "FULLY_CONNECTED" in kinds["litert_int8"]
    interpreter = Interpreter(str(exported.paths["litert_int8"]))
    interpreter.allocate_tensors()
    details = {item["name"]: item["dtype"] for item in interpreter.get_tensor_details()}
    # Its two ends alone are float.
    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    assert [end["dtype"] for end in ends] == [np.float32, np.float32]
    assert sorted(name for name, dtype in details.items() if dtype is np.float32) == sorted(end["name"] for end in ends)


def test_an_operation_without_integers_is_an_error(tmp_path):
    images = keras.Input((4, 4, 1))
    waves = keras.ops.sin(keras.layers.Flatten()(images))
    model = keras.Model(images, keras.layers.Dense(2)(waves), name="waves")
    arguments = {"class_names": "ab", "calibration_images": IMAGES[:, :4, :4]}
    with pytest.raises(ValueError, match="Model 'waves' cannot be written as 'litert_int8'. .*no int8 form of SIN"):
        export_model(model, tmp_path / "out", "litert_int8", **arguments)
    export_model(model, tmp_path / "out", "litert_float32", **arguments)


def test_int8_at_both_ends(tmp_path, exported):
    paths = export_model(
        build_dense(), tmp_path / "o", "litert_int8", class_names=NAMES, int8_interface="int8", **INT8
    ).paths
    run = open_model(paths["litert_int8"])
    # 0..255 in 255 steps from -128: each pixel is a step.
    scale, zero_point = run.quantization["input"]
    assert (scale, zero_point) == (1.0, -128)
    interpreter = Interpreter(str(paths["litert_int8"]))
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert taken["dtype"] is given["dtype"] is np.int8
    interpreter.set_tensor(taken["index"], (IMAGES[:1].astype(int) - 128).astype("int8"))
    interpreter.invoke()
    scale, zero_point = run.quantization["output"]
    by_hand = scale * (interpreter.get_tensor(given["index"]).astype(float) - zero_point)
    np.testing.assert_allclose(run(IMAGES[:1]), by_hand, rtol=1e-6)
    # The file with floats at its ends does the same in between.
    np.testing.assert_allclose(open_model(exported.paths["litert_int8"])(IMAGES[:1]), by_hand, rtol=1e-6)


def test_the_names_of_the_classes_travel_along(exported):
    text = "".join(f"{name}\n" for name in NAMES)
    folder = exported.paths["onnx"].parent
    assert (folder / "labels.txt").read_text() == text
    assert (folder / "saved_model" / "assets.extra" / "labels.txt").read_text() == text
    for path in folder.glob("*.tflite"):
        with zipfile.ZipFile(path) as archive:
            (entry,) = archive.infolist()
            # LiteRT maps files into memory, and reads what is attached where it stands.
            assert entry.compress_type == zipfile.ZIP_STORED and archive.read("labels.txt").decode() == text
    (entry,) = onnx.load(exported.paths["onnx"]).metadata_props
    assert entry.key == "class_names" and json.loads(entry.value) == list(NAMES)


def test_ends_have_names(exported):
    graph = onnx.load(exported.paths["onnx"]).graph
    ends = [*graph.input, *graph.output]
    assert [end.name for end in ends] == ["image", "output"]
    assert [end.type.tensor_type.shape.dim[0].dim_param for end in ends] == ["batch", "batch"]
    signature = SavedModel(exported.paths["saved_model"])._signature
    assert set(signature.structured_input_signature[1]) == {"image"} and set(signature.structured_outputs) == {"output"}


# Preprocessing.


def test_pixels_are_scaled_outside(tmp_path):
    keras.utils.set_random_seed(0)
    model = digits_student((8, 8, 1), 10)
    pixels = RNG.integers(0, 256, (20, 8, 8, 1), dtype="uint8")
    formats = ("saved_model", "litert_float32", "litert_int8", "onnx")
    exported = export_model(
        model,
        tmp_path / "out",
        formats,
        class_names=range(10),
        preprocessing="outside",
        calibration_images=pixels,
        int8_interface="int8",
    )
    (step,) = exported.preprocessing
    assert step == {"layer": "rescaling", "class": "Rescaling", "scale": 1 / 255, "offset": 0.0}
    scaled = pixels.astype("float32") * np.float32(step["scale"])
    np.testing.assert_allclose(exported.scaling.predict_on_batch(pixels), scaled, rtol=1e-6)
    expected = model.predict_on_batch(pixels)
    for name in set(formats) - {"litert_int8"}:
        # Ten times what float32 rounds of outputs near 1.
        np.testing.assert_allclose(open_model(exported.paths[name])(scaled), expected, atol=1e-5, err_msg=name)
    # Calibrated on scaled images: 255 steps of 1 / 255.
    scale, zero_point = open_model(exported.paths["litert_int8"]).quantization["input"]
    assert scale == pytest.approx(1 / 255, rel=0.01) and zero_point == -128


def test_the_steps_of_a_scaling_are_told_with_their_numbers():
    images = keras.Input((4, 4, 3))
    normalize = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0], name="norm")
    x = normalize(keras.layers.Rescaling(0.5, offset=-1.0, name="half")(images))
    model = keras.Model(images, keras.layers.Dense(2, name="head")(keras.layers.GlobalAveragePooling2D()(x)))
    scaling, rest, steps = split_preprocessing(model)
    assert steps == [
        {"layer": "half", "class": "Rescaling", "scale": 0.5, "offset": -1.0},
        {"layer": "norm", "class": "Normalization", "mean": [1.0, 2.0, 3.0], "variance": [4.0, 5.0, 6.0]},
    ]
    pixels = RNG.uniform(0, 255, (2, 4, 4, 3)).astype("float32")
    by_hand = (pixels * 0.5 - 1 - [1, 2, 3]) / np.sqrt([4.0, 5.0, 6.0])
    np.testing.assert_allclose(scaling(pixels), by_hand, rtol=1e-5)
    np.testing.assert_allclose(rest(scaling(pixels)), model(pixels), rtol=1e-5)
    # A model inside the model, as `with_preprocessing` puts in front, with channels in another order.
    inner = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    _, _, steps = split_preprocessing(teachers.with_preprocessing(inner, "caffe"))
    assert [step["class"] for step in steps] == ["Flip", "Rescaling"]
    assert steps[0]["axis"] == -1 and steps[1]["offset"] == [-103.939, -116.779, -123.68]
    # Or a sequential one, as ConvNeXt begins with.
    stem = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Rescaling(0.25, name="quarter")], name="stem")
    _, _, steps = split_preprocessing(keras.Model(images, inner(stem(images))))
    assert steps == [{"layer": "quarter", "class": "Rescaling", "scale": 0.25, "offset": 0.0}]


def test_only_what_comes_first_and_alone_is_a_scaling():
    with pytest.raises(ValueError, match="Received: model 'dense', which begins with 'flatten.*'. Use .*inside"):
        split_preprocessing(build_dense())
    # The pixels themselves go on, too: without the scaling, they would be missing.
    images = keras.Input((2, 2, 1))
    scaled = keras.layers.Rescaling(2.0, name="twice")(images)
    for parts in ([scaled, images], [images, scaled]):
        both = keras.layers.Flatten()(keras.layers.Concatenate(name="both")(parts))
        with pytest.raises(ValueError, match="begins with ('twice', 'both'|'both', 'twice')"):
            split_preprocessing(keras.Model(images, keras.layers.Dense(2)(both)))


# Nothing of training.


def build_with_training_layers():
    images = keras.Input((4, 4, 1))
    x = keras.layers.GaussianNoise(1.0, name="noise")(images)
    x = keras.layers.RandomFlip(name="flip")(x)
    x = keras.layers.BatchNormalization(epsilon=0.0, name="norm")(x)
    x = keras.layers.Dropout(0.5, name="drop")(keras.layers.Flatten()(x))
    model = keras.Model(images, keras.layers.Dense(2, name="head")(x), name="trained")
    # gamma, beta, mean and variance
    model.get_layer("norm").set_weights([np.array([value]) for value in (2.0, 0.0, 3.0, 4.0)])
    return model


def test_layers_of_training_leave_nothing(tmp_path):
    model = build_with_training_layers()
    formats = ("saved_model", "litert_float32", "onnx")
    exported = export_model(model, tmp_path / "out", formats, class_names="ab")
    assert exported.training_layers == ["noise", "flip", "drop"]
    pixels = RNG.uniform(0, 255, (6, 4, 4, 1)).astype("float32")
    kernel, bias = model.get_layer("head").get_weights()
    # Normalized by the statistics that were learned: 2 * (x - 3) / sqrt(4).
    expected = (pixels - 3).reshape(6, -1) @ kernel + bias
    for name, path in exported.paths.items():
        run = open_model(path)
        np.testing.assert_allclose(run(pixels), expected, rtol=1e-4, atol=1e-3, err_msg=name)
        assert not [kind for _, kind in run.operations if "random" in kind.lower() or "assign" in kind.lower()]


def test_the_look_at_the_graph_sees_what_acts(tmp_path):
    """`model.export` leaves open whether it trains: augmentation says yes, and a BatchNorm behind it follows."""
    model = build_with_training_layers()
    model.export(str(tmp_path / "plain"), verbose=False)
    with pytest.raises(ValueError, match="of which 'flip', 'norm' would act in inference .*AssignVariableOp"):
        check_operations(SavedModel(tmp_path / "plain").operations, model, "A model")


class AlwaysNoisy(keras.layers.Layer):
    """Adds noise whatever `training` is."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.seeds = keras.random.SeedGenerator(0)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


class Counter(keras.layers.Layer):
    """Counts its calls, in training or not."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        return x


@pytest.mark.parametrize(("layer", "kind"), [(AlwaysNoisy, "StatelessRandomNormal"), (Counter, "AssignVariableOp")])
def test_a_layer_that_acts_in_inference_is_refused_by_name(layer, kind, tmp_path):
    inner = keras.Sequential([keras.Input((4, 4, 1)), layer(name="restless")], name="inner")
    layers = [inner, keras.layers.Flatten(), keras.layers.Dense(2)]
    model = keras.Sequential([keras.Input((4, 4, 1)), *layers], name="outer")
    with pytest.raises(ValueError, match=f"model 'outer', of which 'restless' would act in inference .*{kind}"):
        export_model(model, tmp_path / "out", class_names="ab")
    assert not [*tmp_path.iterdir()]


# What is refused, and what stays.


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("onnx", "onnxruntime", "onnx"), ("onnx", "tf2onnx", "onnx"), ("litert_int8", "ai_edge_litert", "litert")],
)
def test_a_missing_package_is_one_sentence_with_the_extra(name, package, extra, tmp_path, monkeypatch, exported):
    monkeypatch.setitem(sys.modules, package, None)
    assert importlib.util.find_spec(package) is None
    sentence = rf'Format .* needs {package}, not installed here. .* pip install "keras_tkd\[{extra}\]"'
    with pytest.raises(ValueError, match=sentence):
        export_model(build_dense(), tmp_path / "out", ("saved_model", name), class_names=NAMES, **INT8)
    with pytest.raises(ValueError, match=sentence):
        open_model(exported.paths[name])
    assert not [*tmp_path.iterdir()]


def test_an_export_that_comes_first_is_not_replaced(tmp_path, monkeypatch):
    folder, own = tmp_path / "out", FORMATS["litert_float32"]

    def write_after_another(source, path):
        folder.mkdir()
        (folder / "labels.txt").write_text("another's")
        own.write(source, path)

    monkeypatch.setitem(FORMATS, "litert_float32", dataclasses.replace(own, write=write_after_another))
    with pytest.raises(ValueError, match=f"{folder} holds an export already: labels.txt"):
        export_model(build_dense(), folder, "litert_float32", class_names=NAMES)
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("labels.txt", "another's")]
    assert [*tmp_path.iterdir()] == [folder]


@pytest.mark.parametrize("name", ["two\nlines", "two\u2028lines", "end\r"])
def test_names_of_several_lines_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="a name of one line for each of the model's"):
        export_model(build_dense(), tmp_path / "out", class_names=[*NAMES[:-1], name])


def test_an_export_is_replaced_only_where_that_is_said(tmp_path):
    folder = tmp_path / "out"
    export_model(build_dense(), folder, class_names=NAMES)
    (folder / "export.json").write_text("{}")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    arguments = {"class_names": NAMES, **INT8}
    with pytest.raises(ValueError, match=f"{folder} holds an export already: export.json, labels.txt, saved_model"):
        export_model(build_dense(), folder, "litert_int8", **arguments)
    # What fails on the way leaves the old one.
    with pytest.raises(ValueError, match="'restless' would act"):
        noisy = keras.Sequential([AlwaysNoisy(name="restless"), build_dense()])
        noisy.build((None, 16, 16, 1))
        export_model(noisy, folder, existing="overwrite", **arguments)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    export_model(build_dense(), folder, "litert_float32", existing="overwrite", **arguments)
    assert sorted(path.name for path in folder.iterdir()) == ["labels.txt", "model_float32.tflite"]
    assert [*tmp_path.iterdir()] == [folder]
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds files that no export wrote: thesis.txt"):
        export_model(build_dense(), folder, existing="overwrite", **arguments)
    assert (folder / "thesis.txt").read_text() == "mine"


def build_half(policy="mixed_bfloat16"):
    images = keras.Input((4, 4, 1))
    x = keras.layers.Dense(3, dtype=policy, name="half")(keras.layers.Flatten()(images))
    return keras.Model(images, keras.layers.Activation("linear", dtype="float32")(x), name="m")


def build_quantized():
    model = build_dense()
    model.quantize("int8")
    return model


def build_words():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)], name="words")


@pytest.mark.parametrize(
    ("build", "arguments", "words"),
    [
        (build_dense, {"formats": "tflite"}, "`formats` must be one of saved_model, .*Received: formats='tflite'"),
        (build_dense, {"formats": ()}, "`formats` must be one of"),
        (build_dense, {"formats": "litert_int8"}, "`calibration_images` are needed for 'litert_int8'"),
        (build_dense, {"preprocessing": "none"}, "`preprocessing` must be one of inside, outside. .*'none'"),
        (build_dense, {"int8_interface": "uint8"}, "`int8_interface` must be one of float32, int8. .*'uint8'"),
        (build_dense, {"existing": "continue"}, "`existing` must be one of refuse, overwrite"),
        (build_dense, {"class_names": "abc"}, "a name of one line for each of the model's 64 outputs. .* 3 names"),
        (build_dense, {"class_names": ["a\nb", *NAMES[1:]]}, "a name of one line for each"),
        (build_dense, {"image_shape": (8, 8, 1)}, r"`image_shape` must be .*\(8, 8, 1\).* takes \(16, 16, 1\)"),
        (build_dense, {"preprocessing": "outside"}, "begins with 'flatten"),
        (build_half, {"class_names": "abc"}, "must compute in float32. .*'half' computes in bfloat16. Set"),
        (
            lambda: build_half("float16"),
            {"class_names": "abc"},
            "'half' computes in float16. Its weights are float16: copy",
        ),
        (build_quantized, {}, "must have float weights.* was quantized by Keras. Export the model it was made of"),
        (build_words, {"class_names": "ab"}, r"must be a functional .* Received: model 'words' .*\(None, 5\)"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(build, arguments, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        export_model(build(), tmp_path / "out", **{"class_names": NAMES, **arguments})
    assert not [*tmp_path.iterdir()]


def test_a_model_of_any_size_is_written_for_one(tmp_path):
    images = keras.Input((None, None, 1))
    model = keras.Model(images, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(images)))
    with pytest.raises(ValueError, match=r"image_shape=None, and model .* takes \(None, None, 1\)"):
        export_model(model, tmp_path / "out", class_names="ab")
    path = export_model(model, tmp_path / "out", "litert_float32", class_names="ab", image_shape=(9, 7, 1)).paths[
        "litert_float32"
    ]
    pixels = RNG.uniform(0, 255, (3, 9, 7, 1)).astype("float32")
    np.testing.assert_allclose(open_model(path)(pixels), model(pixels), rtol=1e-4, atol=1e-3)


def test_what_is_no_exported_model_is_not_opened(tmp_path):
    with pytest.raises(FileNotFoundError, match="which is not there"):
        open_model(tmp_path / "model.onnx")
    (tmp_path / "model.h5").write_text("")
    with pytest.raises(ValueError, match="must be a .tflite or .onnx file, or a SavedModel's folder"):
        open_model(tmp_path / "model.h5")


def test_what_a_converter_refuses_is_named(tmp_path, monkeypatch):
    def fail(model, *arguments, **more):
        raise RuntimeError("no such operation\nat line 1")

    monkeypatch.setattr(onnx, "load", fail)
    with pytest.raises(ValueError, match="Model 'dense' cannot be written as 'onnx'. The reason given: no such oper"):
        export_model(build_dense(), tmp_path / "out", "onnx", class_names=NAMES)
    assert not [*tmp_path.iterdir()]
