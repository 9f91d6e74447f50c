"""The formats of exported models: a model is written in several, and a file is opened in its format's runtime.

Every format is made of one graph: the model's inference, `InferenceModel`. The SavedModel is that graph as it is, and
LiteRT's files are converted from it; `writers` has how.
"""

import dataclasses
import functools
import importlib.util
import pathlib
import re
import tempfile
import textwrap
import typing
import warnings

import keras
import tensorflow as tf

from keras_tkd.export import writers
from keras_tkd.export.inference import InferenceModel, check_operations, check_shippable, split_preprocessing
from keras_tkd.export.runtimes import LiteRT, OnnxRuntime, SavedModel
from keras_tkd.utils import choices
from keras_tkd.utils.files import atomic_folder, check_writable
from keras_tkd.utils.keras_graph import flatten_layers
from keras_tkd.utils.naming import is_one_line
from keras_tkd.utils.native_output import hide_native_output

__all__ = [
    "Exported",
    "FORMATS",
    "Format",
    "RECORD",
    "check_packages",
    "check_replaceable",
    "export_model",
    "open_model",
]

RECORD = "export.json"  # what was measured of the files; who measures them writes it
# Keras's layers that are there for training.
_TRAINING_LAYERS = tuple(
    layer for name, layer in vars(keras.layers).items() if re.search("^Random|Dropout|Noise|Mix|^RandAugment", name)
)


@dataclasses.dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        filename: name of the file, or of the folder, that holds the model.
        write: function of a `Source` and the path to write to.
        runtime: class of `keras_tkd.export.runtimes` that opens the file.
        extra: the extra of this package that installs what is needed beside it; None where nothing is.
        packages: the packages that it needs.
    """

    filename: str
    write: typing.Callable
    runtime: type
    extra: str | None = None
    packages: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """Files that `export_model` has written, and what to know of them.

    Attributes:
        paths: dict from the name of a format to its file, or folder.
        scaling: model from pixels 0..255 to what the files take; None where they take pixels.
        preprocessing: list of dicts, the steps of this scaling, with their numbers; empty where the files take pixels.
        training_layers: names of the model's layers that act in training alone, of which the files hold nothing.
    """

    paths: dict[str, pathlib.Path]
    scaling: keras.Model | None
    preprocessing: list[dict]
    training_layers: list[str]


def export_model(
    model,
    folder,
    formats=("saved_model",),
    *,
    class_names,
    image_shape=None,
    preprocessing="inside",
    calibration_images=None,
    int8_interface="float32",
    existing="refuse",
):
    """Writes a model in several formats into a folder, with the names of its classes; the folder appears whole.

    What is written is inference alone: `model(images, training=False)`. Each file is opened again, and its operations
    are looked through: one that draws random numbers or changes the model is an error.

    Args:
        model: functional or sequential `keras.Model` from images to one output for each class, in float32.
        folder: where to write. It holds `labels.txt`, a class's name in each line, and for each format its file.
        formats: names in `FORMATS`.
        class_names: names of the classes, in the order of the outputs. ONNX files have them as `class_names` in their
            metadata, as JSON; LiteRT files and SavedModels have `labels.txt` attached.
        image_shape: `(height, width, channels)`, in pixels, for a model that takes images of any size; else None.
        preprocessing: `"inside"`: the files take what the model takes; or `"outside"`: the model's first layers, which
            scale its pixels, are taken off, and who runs the files scales them.
        calibration_images: for `"litert_int8"`, images `(samples, height, width, channels)` as the model takes them,
            from whose activations the ranges of int8 are read: of the training images some hundred.
        int8_interface: what `"litert_int8"` takes and returns: `"float32"`, or `"int8"`, which the device quantizes.
        existing: what to do where the folder holds something: `"refuse"`, or `"overwrite"`, which removes what an
            earlier export left, once all is written.

    Returns:
        `Exported`.

    Raises:
        ValueError: a model, images or names that cannot be exported; packages that a format needs and that are not
            installed; layers of training that would act in inference; a folder that holds something else.
    """
    formats, class_names = _check_arguments(model, formats, class_names, preprocessing, int8_interface, existing)
    shape = _choose_shape(model, image_shape)
    if "litert_int8" in formats and (calibration_images is None or not len(calibration_images)):
        raise ValueError("`calibration_images` are needed for 'litert_int8', which reads its ranges from them")
    check_replaceable(folder, existing)
    scaling, shipped, described = None, model, []
    if preprocessing == "outside":
        scaling, shipped, described = split_preprocessing(model)
        shape = tuple(a if a is not None else b for a, b in zip(shipped.input_shape[1:], shape, strict=True))
        if calibration_images is not None:
            calibration_images = keras.ops.convert_to_numpy(scaling(calibration_images, training=False))
    paths = {name: pathlib.Path(folder) / FORMATS[name].filename for name in formats}
    with tempfile.TemporaryDirectory() as temporary, atomic_folder(folder) as unfinished:
        labels = "".join(f"{name}\n" for name in class_names)
        (unfinished / writers.LABELS).write_text(labels, encoding="utf-8")
        source = writers.Source(
            InferenceModel(shipped),
            tf.TensorSpec((None, *shape), tf.float32, name=writers.INPUT),
            pathlib.Path(temporary) / "saved_model",
            labels,
            calibration_images,
            int8_interface,
        )
        # The graph of all formats is looked through first: its names are nearest to the layers'.
        _write("saved_model", writers.write_saved_model, source, source.saved_model)
        check_operations(SavedModel(source.saved_model).operations, shipped, "An exported model")
        for name, path in paths.items():
            path = unfinished / path.name
            _write(name, FORMATS[name].write, source, path)
            check_operations(open_model(path).operations, shipped, f"The file of format '{name}'")
        # Another export may have come first.
        check_replaceable(folder, existing)
    return Exported(paths=paths, scaling=scaling, preprocessing=described, training_layers=_list_training_layers(model))


def open_model(path):
    """Opens an exported file in the runtime that it is for: LiteRT, ONNX Runtime or, for a folder, TensorFlow.

    Args:
        path: a `.tflite` or an `.onnx` file, or a SavedModel's folder.

    Returns:
        A function from images, float32 or uint8 `(batch, height, width, channels)`, on the scale that the file takes,
        to float32 `(batch, classes)`. LiteRT and ONNX Runtime compute by one thread.

    Raises:
        ValueError: another kind of file; the runtime is not installed.
        FileNotFoundError: there is none.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"`path` must be an exported model. Received: {str(path)!r}, which is not there")
    ending = path.suffix if path.is_file() else ""
    for name, each in FORMATS.items():
        if pathlib.Path(each.filename).suffix == ending:
            check_packages([name])
            return each.runtime(path)
    raise ValueError(f"`path` must be a .tflite or .onnx file, or a SavedModel's folder. Received: {str(path)!r}")


def check_replaceable(folder, existing):
    """Raises `ValueError` for a folder that an export may not replace."""
    folder = pathlib.Path(folder)
    if not folder.exists():
        check_writable(folder, "output")
        return
    if not folder.is_dir():
        raise ValueError(f"What is exported goes into a folder. Received a file: {folder}")
    held = sorted(path.name for path in folder.iterdir())
    others = [name for name in held if name not in _OWN_FILES]
    if others:
        raise ValueError(f"{folder} holds files that no export wrote: {', '.join(others)}. Choose another folder")
    if held and existing != "overwrite":
        raise ValueError(
            f"{folder} holds an export already: {', '.join(held)}. Choose another folder, or replace it: "
            "existing='overwrite'"
        )


def _check_arguments(model, formats, class_names, preprocessing, int8_interface, existing):
    """Returns formats and names as tuples; raises `ValueError` for arguments that are none of what they may be."""
    formats = (formats,) if isinstance(formats, str) else tuple(formats)
    rules = [("formats", each, choices.EXPORT_FORMATS) for each in formats or (None,)]
    rules += [
        ("preprocessing", preprocessing, choices.PREPROCESSING_PLACES),
        ("int8_interface", int8_interface, choices.INT8_INTERFACES),
        ("existing", existing, ("refuse", "overwrite")),
    ]
    for argument, value, allowed in rules:
        if value not in allowed:
            raise ValueError(f"`{argument}` must be one of {', '.join(allowed)}. Received: {argument}={value!r}")
    check_packages(formats)
    check_shippable(model)
    class_names = tuple(map(str, class_names))
    outputs = model.output_shape[-1]
    if len(class_names) != outputs or not all(map(is_one_line, class_names)):
        raise ValueError(
            f"`class_names` must be a name of one line for each of the model's {outputs} outputs. "
            f"Received: {len(class_names)} names, {class_names}"
        )
    return formats, class_names


def check_packages(formats):
    """Raises `ValueError` for formats whose packages are not installed."""
    for name in formats:
        missing = [package for package in FORMATS[name].packages if importlib.util.find_spec(package) is None]
        if missing:
            raise ValueError(
                f"Format '{name}' needs {' and '.join(missing)}, not installed here. "
                f'Install the extra: pip install "keras_tkd[{FORMATS[name].extra}]"'
            )


def _choose_shape(model, image_shape):
    """Returns `(height, width, channels)` of the images that the files take."""
    taken = tuple(model.input_shape[1:])
    shape = taken if image_shape is None else tuple(image_shape)
    fits = len(shape) == 3 and all(a in (None, b) for a, b in zip(taken, shape, strict=True))
    if None in shape or not fits:
        raise ValueError(
            "`image_shape` must be (height, width, channels) of images that the model takes. Received: "
            f"image_shape={image_shape}, and model '{model.name}' takes {taken}"
        )
    return shape


def _list_training_layers(model):
    """Returns the names of the layers that change nothing in inference, by Keras's own account of what they are."""
    return [layer.name for layer in flatten_layers(model, include_self=False) if isinstance(layer, _TRAINING_LAYERS)]


def _write(name, write, source, path):
    """Writes one format; what its converter raises, in whatever way, becomes one sentence."""
    try:
        with hide_native_output(), warnings.catch_warnings():
            # Converters warn of their own insides.
            warnings.simplefilter("ignore")
            write(source, path)
    except Exception as error:
        reason = textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" ...")
        raise ValueError(
            f"Model '{source.model.name}' cannot be written as '{name}'. The reason given: {reason}"
        ) from error


_LITERT = {"runtime": LiteRT, "extra": "litert", "packages": ("ai_edge_litert",)}

FORMATS = choices.check_complete(
    choices.EXPORT_FORMATS,
    {
        "saved_model": Format("saved_model", writers.copy_saved_model, SavedModel),
        **{
            f"litert_{kind}": Format(f"model_{kind}.tflite", write, **_LITERT)
            for kind, write in (
                ("float32", functools.partial(writers.write_litert, configure=writers.keep_float32)),
                ("float16", functools.partial(writers.write_litert, configure=writers.store_float16)),
                ("dynamic", functools.partial(writers.write_litert, configure=writers.store_int8)),
                ("int8", writers.write_int8),
            )
        },
        "onnx": Format("model.onnx", writers.write_onnx, OnnxRuntime, "onnx", ("onnx", "onnxruntime", "tf2onnx")),
    },
)
_OWN_FILES = (writers.LABELS, RECORD, *(each.filename for each in FORMATS.values()))
