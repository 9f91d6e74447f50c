"""Model files that were made to do harm: nothing in them is run or written, and no memory is taken for them."""

import io
import json
import stat
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras.src.saving.serialization_lib import SafeModeScope

from keras_tkd.utils.model_files import load_model

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
X = np.array([[1.0, -2.0, 3.0, -4.0]], "float32")


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
def doubled(x):
    return 2 * x


@keras.saving.register_keras_serializable(package="keras_tkd_tests")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def make(*layers):
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(2, name="logits")])


def save(folder, model=None):
    path = folder / "model.keras"
    (model or make()).save(path)
    return path


def rewrite(path, change=None, compression=zipfile.ZIP_STORED, **added):
    """Writes an archive again: with the bytes of entries changed by name, and with more entries."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, function in (change or {}).items():
        entries[name] = function(entries[name])
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in (entries | added).items():
            archive.writestr(name, content)
    return path


def rewrite_logits(path, **settings):
    """Writes other settings of the last layer into a file."""

    def edit(content):
        config = json.loads(content)
        config["config"]["layers"][-1]["config"] |= settings
        return json.dumps(config)

    return rewrite(path, {CONFIG: edit})


def insert_layer(path, **layer):
    """Writes a layer before the last one into a file."""

    def edit(content):
        config = json.loads(content)
        config["config"]["layers"].insert(1, {"registered_name": None, "config": {}, **layer})
        return json.dumps(config)

    return rewrite(path, {CONFIG: edit})


def check_refused(path, reason):
    """Asserts that a file is refused with one sentence that names it, and for a few megabytes of memory."""
    tracemalloc.start()
    try:
        message = f"`path` must be a Keras model that can be loaded. Received: path='{path}'.*{reason}"
        with pytest.raises(ValueError, match=message) as refusal:
            load_model(path)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()
    assert len(str(refusal.value)) < 1000 and "\n" not in str(refusal.value)
    return refusal


TAKEN = {
    "registered function": lambda: keras.layers.Lambda(doubled),
    "registered layer": lambda: Doubled(),
    "activation": lambda: keras.layers.Lambda(keras.activations.relu, arguments={"max_value": 2}),
    "function": lambda: keras.layers.Dense(3, keras.activations.silu, kernel_initializer=keras.initializers.HeNormal()),
    "layer": lambda: keras.layers.Dense(3, keras.layers.LeakyReLU(), kernel_regularizer="l2", dtype="mixed_float16"),
    "model": lambda: make(keras.layers.BatchNormalization()),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_what_computes_is_loaded(kind, tmp_path):
    model = make(TAKEN[kind]())
    loaded = load_model(save(tmp_path, model))
    np.testing.assert_array_equal(loaded(X), model(X))
    assert [layer.dtype_policy.name for layer in loaded.layers] == [layer.dtype_policy.name for layer in model.layers]


def test_what_a_model_was_compiled_with_is_not_read(tmp_path):
    model = make()
    model.compile(loss=lambda y, z: z, optimizer="adam")
    loaded = load_model(save(tmp_path, model))
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded(X), model(X))


# Code


def test_a_lambda_is_not_run(tmp_path):
    canary = tmp_path / "canary"
    name = str(canary)
    path = save(tmp_path, make(keras.layers.Lambda(lambda x: __import__("pathlib").Path(name).touch() or x)))
    canary.unlink()
    # A program that told Keras to trust all files is not told by the file.
    with SafeModeScope(False):
        check_refused(path, "holds a `__lambda__`, the code of a Python lambda, which is never run. Write it as a ")
    assert not canary.exists()
    keras.saving.load_model(path, compile=False, safe_mode=False)
    assert canary.exists()  # the file was loaded


def test_guards_of_keras_cannot_be_switched_off(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a\nb")
    lookup = keras.layers.StringLookup(vocabulary=["a"])
    path = save(tmp_path, keras.Sequential([keras.Input((1,), dtype="string"), lookup]))

    def edit(content):
        config = json.loads(content)
        config["config"]["layers"][-1]["config"]["vocabulary"] = str(secret)
        return json.dumps(config)

    rewrite(path, {CONFIG: edit})
    with SafeModeScope(False):
        check_refused(path, "outside of the model archive")


@pytest.mark.parametrize("kind", ["TFSMLayer", "TorchModuleWrapper"])
def test_programs_of_other_libraries_are_not_read(kind, tmp_path):
    path = insert_layer(save(tmp_path), module="keras.layers", class_name=kind, config={"filepath": str(tmp_path)})
    check_refused(path, f"holds a `{kind}`")


NAMES = {
    "a command": {"module": "os", "class_name": "system", "registered_name": "os>system"},
    "a process": {"module": "subprocess", "class_name": "Popen", "config": {"args": ["touch", "canary"]}},
    "a module of this package": {"module": "keras_tkd.utils.files", "class_name": "function", "config": "write_text"},
    "a file writer": {"module": "keras.utils", "class_name": "function", "config": "save_img"},
    "a download": {"module": "keras.utils", "class_name": "get_file"},
    "a random number": {"module": "keras.random", "class_name": "function", "config": "normal"},
    "a hidden download": {
        "module": "keras.applications.resnet50",
        "class_name": "function",
        "config": "decode_predictions",
    },
    "the way to trust": {"module": "keras.config", "class_name": "function", "config": "enable_unsafe_deserialization"},
    "the old backend": {"module": "keras._legacy.backend", "class_name": "function", "config": "set_value"},
    "a function of Keras's own": {"module": "keras.src.utils.io_utils", "class_name": "print_msg"},
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("place", ["layer", "function", "activation"])
def test_what_may_run_code_is_not_looked_up(kind, place, tmp_path):
    named = {"config": {}, "registered_name": None, **NAMES[kind]}
    path = save(tmp_path)
    if place == "layer":
        insert_layer(path, **named)
    elif place == "function":
        settings = {"function": named, "arguments": {"path": str(tmp_path / "canary")}}
        insert_layer(path, module="keras.layers", class_name="Lambda", config=settings)
    else:
        rewrite_logits(path, activation=named)
    name = named["config"] if named["class_name"] == "function" else named["class_name"]
    check_refused(path, f"names `{named['module']}.{name}`, which is no layer of Keras.*register_keras_serializable")


def test_what_is_built_into_python_is_not_looked_up(tmp_path):
    for name in ("eval", "exec", "open", "__import__"):
        named = {"module": "builtins", "class_name": "function", "config": name, "registered_name": name}
        path = insert_layer(save(tmp_path), module="keras.layers", class_name="Lambda", config={"function": named})
        check_refused(path, f"Could not locate function '{name}'")


# Places


@pytest.mark.parametrize("name", ["../canary", "assets/../../canary", "/canary", "..\\canary", "a\\..\\..\\canary"])
def test_entries_stay_in_the_archive(name, tmp_path):
    path = rewrite(save(tmp_path), **{name: b"out", "assets/a": b"in"})
    check_refused(path, "its entry '.*canary' leads out of the archive")
    assert [file.name for file in tmp_path.iterdir()] == ["model.keras"]


def test_links_in_an_archive_are_refused(tmp_path):
    link = zipfile.ZipInfo("assets")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(save(tmp_path), "a") as archive:
        archive.writestr(link, str(tmp_path))
    check_refused(tmp_path / "model.keras", "its entry 'assets' leads out of the archive")


def edit_weights(path, edit):
    """Writes the weights' file of an archive again, after `edit(file, kernel's path in it)`."""

    def change(content):
        file = io.BytesIO(content)
        with h5py.File(file, "r+") as weights:
            kernel = next(name for name in list_datasets(weights) if weights[name].shape == (4, 2))
            edit(weights, kernel)
        return file.getvalue()

    return rewrite(path, {WEIGHTS: change})


def list_datasets(weights):
    names = []
    weights.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def replace_by(make_one):
    def edit(weights, name):
        del weights[name]
        make_one(weights, name)

    return edit


def test_weights_of_another_file_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(32))
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["kernel"] = np.zeros((4, 2), "float32")
    layout = h5py.VirtualLayout((4, 2), "float32")
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "kernel", (4, 2))
    external, link = [(str(secret), 0, 32)], h5py.ExternalLink(str(tmp_path / "secret.h5"), "kernel")
    makers = [
        lambda file, name: file.create_dataset(name, (4, 2), "float32", external=external),
        lambda file, name: file.create_virtual_dataset(name, layout),
        lambda file, name: file.update({name: link}),
        lambda file, name: file.update({name: h5py.SoftLink("/elsewhere")}),
    ]
    for maker in makers:
        check_refused(edit_weights(save(tmp_path), replace_by(maker)), "its weights .*/vars/0 lie elsewhere")


# Sizes


def test_what_unpacks_to_far_more_is_not_unpacked(tmp_path):
    path = rewrite(save(tmp_path), compression=zipfile.ZIP_DEFLATED, **{"assets/zeros": bytes(2**26)})
    assert path.stat().st_size < 2**17
    check_refused(path, r"it unpacks to 67,\d+,\d+ bytes, and its size allows 67,108,864")


def test_a_model_may_unpack_to_as_much_as_its_size_allows(tmp_path):
    load_model(rewrite(save(tmp_path), compression=zipfile.ZIP_DEFLATED, **{"assets/zeros": bytes(2**25)}))


def test_a_configuration_is_bounded(tmp_path):
    path = rewrite(save(tmp_path), {CONFIG: lambda content: content + b" " * 2**24}, zipfile.ZIP_DEFLATED)
    check_refused(path, r"its config.json has 16,77\d,\d+ bytes, and may have 16,777,216")
    nested = b"[" * 10**5 + b"]" * 10**5
    check_refused(rewrite(save(tmp_path), {CONFIG: lambda content: nested}), "its config.json is nested too deep")
    check_refused(rewrite(save(tmp_path), {CONFIG: lambda content: b"[1]"}), "describes no model: it holds a list")


def test_weights_that_are_not_there_are_not_read(tmp_path):
    def declare(file, name):
        file.create_dataset(name, (10**11,), "float32", chunks=(1024,))

    path = edit_weights(save(tmp_path), replace_by(declare))
    check_refused(path, r"its weights are declared with 400,000,000,\d+ bytes, and its size allows 67,108,864")


def test_layers_beyond_the_size_of_the_file_are_not_built(tmp_path):
    reason = "its layers have weights of more than 67,108,864 bytes, which its size does not allow"
    # A kernel of 4 x 2^30 numbers.
    check_refused(rewrite_logits(save(tmp_path), units=2**30), reason)

    def widen(content):
        config = json.loads(content)
        for layer in config["config"]["layers"][1:]:
            layer["config"]["units"] = 2400
            del layer["build_config"]
        return json.dumps(config)

    # Of four layers three have 2400^2 numbers of 4 bytes, 23 MB each.
    model = make(*[keras.layers.Dense(3) for _ in range(3)])
    check_refused(rewrite(save(tmp_path, model), {CONFIG: widen}), reason)
    # The guard went with the file.
    assert keras.layers.Dense(5000)(np.zeros((1, 5000), "float32")).shape == (1, 5000)


def test_a_file_without_its_parts_is_refused(tmp_path):
    for name in (CONFIG, WEIGHTS):
        path = save(tmp_path)
        with zipfile.ZipFile(path) as archive:
            entries = {entry: archive.read(entry) for entry in archive.namelist() if entry != name}
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in entries.items():
                archive.writestr(entry, content)
        check_refused(path, f"no item named '{name}'")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.keras")
