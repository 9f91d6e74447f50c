"""Models from Keras's files, which may come from anybody: nothing in one is run, and its size bounds what it takes.

Keras has guards of its own. These are stricter where a model of images needs less, cannot be switched off, and speak
before anything is built.
"""

import io
import json
import pathlib
import re
import stat
import sys
import textwrap
import warnings
import zipfile

import h5py
import keras

from keras_tkd.utils.keras_graph import load_guarded

__all__ = ["load_model", "load_weights"]

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_HDF5 = (".h5", ".hdf5")
_CONFIG_BYTES = 2**24  # thirty times that of a ResNet-152

# Keras packs nothing: a model takes about what its file has. Packed again, trained weights lose a tenth, and far more
# only where most of them are zeros.
_EXPANSION = 20
_ALWAYS = 2**26  # bytes that any file may take: too few to do harm

# What Keras stores with code inside, and runs when it is asked to trust a file.
_CODE = {
    "__lambda__": "the code of a Python lambda",
    "TFSMLayer": "the path of a TensorFlow SavedModel",
    "TorchModuleWrapper": "a pickled module of PyTorch",
}
# Of functions, Keras writes the names of these alone. It would find anything that it exports, also what writes files or
# fetches them.
_TABLES = {
    f"keras.{table}" for table in ("activations", "constraints", "initializers", "losses", "metrics", "regularizers")
}
# From these packages of Keras's makers it takes nothing but classes of layers, models and the like.
_PACKAGES = ("keras_hub.", "keras_cv.", "keras_nlp.")
_UNKNOWN_CLASS = re.compile("Unknown (layer|activation|object)|Could not locate")  # as Keras calls it
_REGISTER = (
    "Register your own with `keras.saving.register_keras_serializable` before the file is loaded, in a run by "
    "--custom_objects=MODULE"
)


def load_model(path, argument="path", trust_code=False):
    """Loads a Keras model from a `.keras` file or a legacy HDF5 file, with its weights and its precision policy.

    It is not compiled. Nothing in the file is run. It may name layers of Keras, its activations and the like, and what
    this program registered with `keras.saving.register_keras_serializable`. Archive, arrays and weights may take twenty
    times the file's bytes, and 64 MiB in any case; that is checked before they take them.

    Args:
        path: the file.
        argument: what an error calls it.
        trust_code: whether code in the file may be run after all, such as a Lambda layer's, by somebody who knows who
            wrote it. The bounds hold all the same.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file that is no such model, is damaged, holds code, or would take more. The message names the
            file and says why.
    """
    path = pathlib.Path(path)
    try:
        max_bytes = max(_ALWAYS, _EXPANSION * path.stat().st_size)
        if path.suffix.lower() in _HDF5:
            _check_weights(path, max_bytes)
            config = _read_hdf5_config(path)
        else:
            with zipfile.ZipFile(path) as archive:
                _check_entries(archive, max_bytes)
                config = _read_config(archive)
                _check_weights(io.BytesIO(archive.read(_WEIGHTS)), max_bytes)
        if not trust_code:
            _check_config(config)
        with load_guarded(max_bytes, safe_mode=not trust_code):
            return keras.saving.load_model(path, compile=False, safe_mode=not trust_code)
    except FileNotFoundError:
        raise
    except Exception as error:  # A broken file fails in zipfile, json, h5py or any layer's constructor.
        # Keras wraps the reason in what it was building, and quotes configurations: as long as a file likes.
        reason = str(error).rpartition("Exception encountered:")[2].partition("Full object config:")[0]
        reason = textwrap.shorten(reason or type(error).__name__, 400, placeholder=" ...")
        # Not all files name the modules of their classes, and Keras's own advice is for programs.
        advice = f". {_REGISTER}" if _UNKNOWN_CLASS.search(reason) else ""
        raise ValueError(
            f"`{argument}` must be a Keras model that can be loaded. Received: {argument}={str(path)!r}. "
            f"Loading says: {reason}{advice}"
        ) from error


def load_weights(model, path, argument="path"):
    """Loads weights into a model of the same architecture from an HDF5 file, Keras's of now or before.

    Args:
        model: a built `keras.Model`.
        path: the file, which ends with `.h5` or `.hdf5`.
        argument: what an error calls it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another kind, of another architecture, or whose arrays lie elsewhere or would take more
            than twenty times its bytes.
    """
    path = pathlib.Path(path)
    received = f"Received: {argument}={str(path)!r}"
    if not path.is_file():
        raise FileNotFoundError(f"`{argument}` must be an existing file of weights. {received}")
    if path.suffix.lower() not in _HDF5:
        raise ValueError(f"`{argument}` must be a file that ends with {' or '.join(_HDF5)}. {received}")
    try:
        _check_weights(path, max(_ALWAYS, _EXPANSION * path.stat().st_size))
        with warnings.catch_warnings():
            # A hundred lines on how Keras looks for weights, before the one error that counts.
            warnings.simplefilter("ignore")
            model.load_weights(path)
    except Exception as error:  # A broken file fails in h5py, or anywhere in Keras.
        reason = textwrap.shorten(str(error) or type(error).__name__, 400, placeholder=" ...")
        raise ValueError(f"`{argument}` must be weights of this model. {received}. Loading says: {reason}") from error


def _check_entries(archive, max_bytes):
    """Raises `ValueError` for an archive whose entries lie outside it, or are too large together."""
    for entry in archive.infolist():
        parts = entry.filename.replace("\\", "/").split("/")
        if parts[0] == "" or ".." in parts or stat.S_ISLNK(entry.external_attr >> 16):
            raise ValueError(f"its entry {entry.filename!r} leads out of the archive, which a model's never does")
    # No entry gives more than it declares: what is behind that is not read.
    declared = sum(entry.file_size for entry in archive.infolist())
    if declared > max_bytes:
        raise ValueError(f"it unpacks to {declared:,} bytes, and its size allows {max_bytes:,}")


def _read_config(archive):
    """Returns the configuration that a `.keras` archive holds."""
    size = archive.getinfo(_CONFIG).file_size
    if size > _CONFIG_BYTES:
        raise ValueError(f"its {_CONFIG} has {size:,} bytes, and may have {_CONFIG_BYTES:,}")
    return _parse_config(archive.read(_CONFIG), _CONFIG)


def _read_hdf5_config(path):
    """Returns the configuration that a legacy HDF5 file holds."""
    with h5py.File(path) as file:
        # HDF5 has attributes of at most 64 KB in the object's header, and larger ones in the file itself.
        config = file.attrs.get("model_config")
    if config is None:
        raise ValueError("it holds weights alone, or no model of Keras. Save the whole model: `model.save(path)`")
    return _parse_config(config, "model_config")


def _parse_config(text, name):
    try:
        config = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"its {name} is nested too deep") from error
    if not isinstance(config, dict):
        raise ValueError(f"its {name} describes no model: it holds a {type(config).__name__}")
    return config


def _check_config(config):
    """Raises `ValueError` for a configuration that names what could run code."""
    # How the model was compiled is not read, and may name losses that nothing here knows.
    waiting = [config | {"compile_config": None}]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            _check_object(part)
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def _check_object(part):
    """Raises `ValueError` for a part of a configuration that describes an object with code, or one that may run it."""
    kind, module = part.get("class_name"), part.get("module")
    # A list is no name, and Keras will say so.
    if not isinstance(kind, str):
        return
    # Before Keras 3 a Lambda layer had its code as a list.
    settings = part.get("config")
    legacy = kind == "Lambda" and isinstance(settings, dict) and isinstance(settings.get("function"), list)
    if kind in _CODE or legacy:
        raise ValueError(
            f"it holds a `{kind}`, {_CODE.get(kind, _CODE['__lambda__'])}, which is never run. Write it as a layer, "
            "with `keras.saving.register_keras_serializable`, and save the model again; or, of a teacher whose maker "
            "you know, pass --trust_teacher_code"
        )
    # A function is named by its configuration. Keras takes one under the name of a class, too.
    name = part.get("config") if kind == "function" else kind
    registered = part.get("registered_name") if kind != "function" else name
    if not isinstance(module, str) or not isinstance(name, str) or kind.startswith("__"):
        return
    # "builtins" are Keras's own tables of functions, not Python's.
    if module == "builtins" or module in _TABLES or module.startswith(_PACKAGES):
        return
    if keras.saving.get_registered_object(registered or name) is not None:
        return
    # A layer, a model, an initializer: whatever Keras makes of a configuration is an object of a class.
    if module.partition(".")[0] != "keras" or not isinstance(getattr(sys.modules.get(module), name, None), type):
        raise ValueError(
            f"it names `{module}.{name}`, which is no layer of Keras, and none of its activations and the like. "
            + _REGISTER
        )


def _check_weights(file, max_bytes):
    """Raises `ValueError` for an HDF5 file whose arrays lie in other files, or are too large together."""
    links, arrays = {}, {}
    # Only collected: HDF5, which calls these, loses errors on the way.
    with h5py.File(file) as weights:
        weights.visititems_links(lambda name, link: links.update({name: type(link)}))
        weights.visititems(lambda name, item: arrays.update({name: item} if isinstance(item, h5py.Dataset) else {}))
        elsewhere = [name for name, kind in links.items() if kind is not h5py.HardLink]
        elsewhere += [name for name, array in arrays.items() if array.external or array.is_virtual]
        if elsewhere:
            raise ValueError(f"its weights {elsewhere[0]} lie elsewhere, which a model's never do")
        declared = sum(array.nbytes for array in arrays.values())
    # Chunks that were never written take no room in the file, and are read as zeros.
    if declared > max_bytes:
        raise ValueError(f"its weights are declared with {declared:,} bytes, and its size allows {max_bytes:,}")
