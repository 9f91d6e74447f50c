"""The writers of exported models: each format from one graph of the model's inference."""

import dataclasses
import json
import pathlib
import shutil
import zipfile

import numpy as np
import tensorflow as tf

from keras_tkd.export.inference import InferenceModel
from keras_tkd.export.runtimes import LiteRT

__all__ = [
    "INPUT",
    "LABELS",
    "Source",
    "copy_saved_model",
    "keep_float32",
    "store_float16",
    "store_int8",
    "write_int8",
    "write_litert",
    "write_onnx",
    "write_saved_model",
]

LABELS = "labels.txt"
# Names in the files.
INPUT = "image"
_OUTPUT = "output"


@dataclasses.dataclass(frozen=True)
class Source:
    """All that a format is written from.

    Attributes:
        model: the model's inference.
        signature: what it takes.
        saved_model: path of its SavedModel, which is written first.
        labels: the contents of `labels.txt`.
        calibration_images: `(samples, height, width, channels)`, from which the ranges of int8 are read; or None.
        int8_interface: what an int8 file takes and returns, `"float32"` or `"int8"`.
    """

    model: InferenceModel
    signature: tf.TensorSpec
    saved_model: pathlib.Path
    labels: str
    calibration_images: np.ndarray | None
    int8_interface: str


def write_saved_model(source, path):
    """Writes the SavedModel of which all formats are made, with the names of the classes beside it."""
    source.model.export(str(path), format="tf_saved_model", input_signature=[source.signature], verbose=False)
    # A folder of that name is TensorFlow's place for what it does not read itself.
    extra = path / "assets.extra"
    extra.mkdir()
    (extra / LABELS).write_text(source.labels, encoding="utf-8")


def copy_saved_model(source, path):
    """Writes the SavedModel as a format of its own."""
    shutil.copytree(source.saved_model, path)


def write_litert(source, path, configure):
    """Writes a LiteRT file, with the names of the classes behind it.

    Args:
        source: the `Source`.
        path: of the file.
        configure: function `(converter, source)` that says which numbers the file stores, and computes with.
    """
    # From the SavedModel, not from a function of the model: variables of that would stay variables, and the file would
    # run, on weights that nobody has set.
    converter = tf.lite.TFLiteConverter.from_saved_model(str(source.saved_model))
    configure(converter, source)
    path.write_bytes(converter.convert())
    # Files that belong to a model stand behind it as an archive that is not compressed, which LiteRT passes over.
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(LABELS, source.labels)


def keep_float32(converter, source):
    """Has a converter store and compute float32."""
    converter.optimizations = []


def store_float16(converter, source):
    """Has a converter store weights as float16, in half of the room."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]


def store_int8(converter, source):
    """Has a converter store weights as int8, in a quarter of the room."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]


def _compute_int8(converter, source):
    """Has a converter store and compute int8, in ranges that it reads from the calibration images."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    images = source.calibration_images.astype("float32", copy=False)
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if source.int8_interface == "int8":
        converter.inference_input_type = converter.inference_output_type = tf.int8


def write_int8(source, path):
    """Writes a LiteRT file that computes in int8 alone.

    Raises:
        ValueError: operations that would be left in floats.
    """
    write_litert(source, path, _compute_int8)
    # The converter is asked for integers alone, and all the same leaves some operations in floats, between others that
    # convert their numbers there and back.
    left = LiteRT(path).float_operations
    if left:
        kinds = ", ".join(sorted({kind for _, kind in left}))
        raise ValueError(f"there is no int8 form of {kinds}, which would compute in floats")


def write_onnx(source, path):
    """Writes an ONNX file, with the names of the classes in its metadata, and has it checked."""
    import onnx

    source.model.export(str(path), format="onnx", input_signature=[source.signature], verbose=False)
    model = onnx.load(path)
    _name_ends(model.graph)
    onnx.helper.set_model_props(model, {"class_names": json.dumps(source.labels.splitlines())})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _name_ends(graph):
    """Gives the output of an ONNX graph and the size of a batch names that say what they are."""
    (output,) = graph.output
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_OUTPUT if name == output.name else name for name in names]
    output.name = _OUTPUT
    for end in (*graph.input, output):
        end.type.tensor_type.shape.dim[0].dim_param = "batch"
