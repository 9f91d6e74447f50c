"""TensorFlow's SavedModels as Keras models; those that would do more than compute are refused, not loaded."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.utils.saved_models import is_saved_model, load_saved_model

X = np.random.default_rng(0).integers(0, 256, (5, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6, 6, 3))
    maps = keras.layers.Conv2D(4, 3, name="maps")(keras.layers.Rescaling(1 / 255)(inputs))
    outputs = keras.layers.Flatten()(keras.layers.BatchNormalization()(maps))
    return keras.Model(inputs, keras.layers.Dense(3)(outputs))


class Program(tf.Module):
    """What anybody may put into a SavedModel: a classifier, and a function that writes a file."""

    def __init__(self, path):
        self.path = str(path)

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def predict(self, x):
        return 2 * x

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def write(self, x):
        tf.io.write_file(self.path, "written")
        return x

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def write_if_negative(self, x):
        return tf.cond(tf.reduce_sum(x) < 0, lambda: self.write(x), lambda: x)

    @tf.function(input_signature=[tf.TensorSpec((None, 4)), tf.TensorSpec((None, 4))])
    def add(self, x, y):
        return x + y


def write_initializer(folder, path):
    """A SavedModel with a table that TensorFlow fills from a file when it loads it."""
    (folder.parent / "words.txt").write_text("a\nb\n")
    program = Program(path)
    source = tf.lookup.TextFileInitializer(
        str(folder.parent / "words.txt"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, -1
    )
    program.table = tf.lookup.StaticHashTable(source, 0)
    tf.saved_model.save(program, str(folder), signatures=program.predict)


@pytest.mark.parametrize("save", [lambda model, path: model.export(path, verbose=False), tf.saved_model.save])
def test_it_computes_what_the_model_did(save, model, tmp_path):
    save(model, str(tmp_path / "saved"))
    assert is_saved_model(tmp_path / "saved") and not is_saved_model(tmp_path)
    loaded = load_saved_model(tmp_path / "saved")
    np.testing.assert_array_equal(loaded(X), model(X))
    # Also where statistics of BatchNorm would move.
    np.testing.assert_array_equal(loaded(X, training=True), model(X))
    assert loaded.input_shape == (None, 6, 6, 3) and loaded.output_shape == (None, 3)
    found = {weight.shape: np.asarray(weight) for weight in loaded.weights}
    assert len(loaded.weights) == len(model.weights)
    np.testing.assert_array_equal(found[3, 3, 3, 4], model.get_layer("maps").kernel)


def test_several_outputs_have_their_names(model, tmp_path):
    outputs = {"scores": model.output, "maps": model.get_layer("maps").output}
    keras.Model(model.input, outputs).export(str(tmp_path / "saved"), verbose=False)
    loaded = load_saved_model(tmp_path / "saved")
    assert {name: output.shape for name, output in loaded.output.items()} == {
        "scores": (None, 3),
        "maps": (None, 4, 4, 4),
    }
    np.testing.assert_array_equal(loaded(X)["scores"], model(X))


class Two(tf.Module):
    """Says half of a number, and predicts twice of it."""

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def encode(self, x):
        return x / 2

    @tf.function(input_signature=[tf.TensorSpec((None, 4))])
    def predict(self, x):
        return 2 * x


@pytest.mark.parametrize(("name", "found"), [("serving_default", True), ("predict", False)])
def test_of_several_signatures_one_must_be_the_default(name, found, tmp_path):
    """The first by its name would be the encoder's."""
    module = Two()
    tf.saved_model.save(module, str(tmp_path / "a"), signatures={"encode": module.encode, name: module.predict})
    if found:
        np.testing.assert_array_equal(load_saved_model(tmp_path / "a")(np.ones((1, 4))), np.full((1, 4), 2))
    else:
        with pytest.raises(ValueError, match="has the signatures encode, predict, and none is called serving_default"):
            load_saved_model(tmp_path / "a")
    tf.saved_model.save(module, str(tmp_path / "b"), signatures={"predict": module.predict})
    np.testing.assert_array_equal(load_saved_model(tmp_path / "b")(np.ones((1, 4))), np.full((1, 4), 2))


@pytest.mark.parametrize("name", ["write", "write_if_negative", "predict"])
def test_one_that_writes_files_is_not_loaded(name, tmp_path):
    canary = tmp_path / "canary"
    program = Program(canary)
    tf.saved_model.save(program, str(tmp_path / "saved"), signatures=getattr(program, name))
    # The last predicts without it, and has it beside what predicts.
    with pytest.raises(ValueError, match="SavedModel that can be loaded.*saved'.*'WriteFile' reaches files"):
        load_saved_model(tmp_path / "saved")
    assert not canary.exists()


def test_one_that_reads_files_as_it_is_loaded_is_not(tmp_path):
    write_initializer(tmp_path / "saved", tmp_path / "canary")
    with pytest.raises(ValueError, match="File.* reaches files"):
        load_saved_model(tmp_path / "saved")


def test_python_in_one_is_not_run(tmp_path):
    ran = []

    class Calling(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 4))])
        def predict(self, x):
            return tf.ensure_shape(tf.numpy_function(lambda x: ran.append(1) or x, [x], tf.float32), (None, 4))

    module = Calling()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.predict)
    with pytest.raises(ValueError, match="PyFunc.* reaches"):
        load_saved_model(tmp_path / "saved")
    assert not ran


def remove_weights(folder):
    for path in (folder / "variables").iterdir():
        path.unlink()


def cut(folder):
    file = folder / "saved_model.pb"
    file.write_bytes(file.read_bytes()[:1000])


BROKEN = {
    "cut": (cut, "damaged"),
    "text": (lambda folder: (folder / "saved_model.pb").write_text("a teacher"), "0 graphs"),
    "empty": (lambda folder: (folder / "saved_model.pb").write_text(""), "0 graphs"),
    "no weights": (remove_weights, "variables"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_one_is_refused_in_a_sentence(kind, model, tmp_path):
    folder = tmp_path / "saved"
    model.export(str(folder), verbose=False)
    damage, reason = BROKEN[kind]
    damage(folder)
    rule = f"`teacher_path` must be a SavedModel that can be loaded. Received: teacher_path='{re.escape(str(folder))}'"
    with pytest.raises(ValueError, match=f"{rule}.*{reason}") as refusal:
        load_saved_model(folder, "teacher_path")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("name", "reason"), [("add", "takes x, y"), (None, "has no signature")])
def test_one_that_takes_no_images_is_refused(name, reason, tmp_path):
    class Adding(tf.Module):
        add = Program.add

    module = Adding() if name else tf.Module()
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures=module.add if name else None)
    with pytest.raises(ValueError, match=reason):
        load_saved_model(tmp_path / "saved")
