"""The loss on the labels is given logits: one that takes probabilities is refused, in every form that Keras takes."""

import functools

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TriKD
from keras_tkd.losses import SoftTargets

X = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
Y = np.arange(6) % 3
LOSSES = keras.losses
ON_PROBABILITIES = {
    "name": "sparse_categorical_crossentropy",
    "name of a class": "CategoricalCrossentropy",
    "binary": "binary_crossentropy",
    "function": LOSSES.sparse_categorical_crossentropy,
    "partial": functools.partial(LOSSES.categorical_crossentropy, label_smoothing=0.1),
    "class": LOSSES.SparseCategoricalCrossentropy,
    "object": LOSSES.CategoricalFocalCrossentropy(),
    "said": LOSSES.BinaryFocalCrossentropy(from_logits=False),
    "list": ["sparse_categorical_crossentropy"],
    "dict": {"logits": LOSSES.SparseCategoricalCrossentropy(), "other": None},
}
ON_LOGITS = {
    "none": None,
    "object": LOSSES.SparseCategoricalCrossentropy(from_logits=True),
    "partial": functools.partial(LOSSES.sparse_categorical_crossentropy, from_logits=True),
    "list": [LOSSES.SparseCategoricalCrossentropy(from_logits=True)],
    "own": lambda y, z: keras.ops.logsumexp(z, axis=-1),
    "no crossentropy": "categorical_hinge",
}


def linear(name):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name=name)


@pytest.fixture(params=["Distiller", "TriKD"])
def make(request):
    if request.param == "TriKD":
        return lambda: TriKD(linear("teacher"), linear("student"))
    return lambda: Distiller(linear("teacher"), linear("student"), SoftTargets())


@pytest.mark.parametrize("form", ON_PROBABILITIES)
def test_a_loss_on_probabilities_is_refused(make, form):
    with pytest.raises(
        ValueError, match="must take logits.*Received: loss=.*SparseCategoricalCrossentropy.from_logits=Tr"
    ):
        make().compile("adam", ON_PROBABILITIES[form])
    with pytest.raises(ValueError, match="must take logits"):
        make().compile(loss=ON_PROBABILITIES[form])


@pytest.mark.parametrize("form", ON_LOGITS)
def test_a_loss_on_logits_is_taken(make, form):
    model = make()
    # Op by op: a step is quicker run once than traced.
    model.compile("adam", ON_LOGITS[form], metrics=None, run_eagerly=True)
    labels = np.eye(3)[Y] if form == "no crossentropy" else Y
    assert ("student_loss" in model.fit(X, labels, verbose=0).history) == (form != "none")


def test_other_outputs_may_be_probabilities():
    inputs = keras.Input((4,))
    outputs = {"logits": keras.layers.Dense(3)(inputs), "known": keras.layers.Dense(1, "sigmoid")(inputs)}
    distiller = Distiller(linear("teacher"), keras.Model(inputs, outputs), SoftTargets())
    label_loss = LOSSES.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", {"logits": label_loss, "known": "binary_crossentropy"})
    assert "student_loss" in distiller.fit(X, {"logits": Y, "known": (Y > 0)[:, None]}, verbose=0).history


def test_what_is_no_loss_is_refused_as_keras_does(make):
    with pytest.raises(ValueError, match="Could not interpret loss identifier: no_such_loss"):
        make().compile("sgd", "no_such_loss")


def test_a_compiled_model_comes_back_from_its_file(make, tmp_path):
    model = make()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), ON_LOGITS["object"])
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.from_logits is True
    for again in (model, loaded):
        again.fit(X, Y, shuffle=False, verbose=0)
    for ours, theirs in zip(model.student.get_weights(), loaded.student.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
