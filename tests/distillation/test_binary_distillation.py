"""Images of several classes, and heads of one output: distilled by a loss that takes each class for a yes or no."""

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TeacherEnsemble
from keras_tkd.losses import BinarySoftTargets, ContrastiveRepresentation, Hint, SoftTargets
from keras_tkd.teachers import ends_in_sigmoid, logits_model

CLASSES = 3
BINARY_LOSS = keras.losses.BinaryCrossentropy(from_logits=True)
X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
# Of none, of one, of two and of three classes.
SEVERAL = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]] * 3)


def model(name, outputs=CLASSES, activation=None):
    layers = [keras.Input((5,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(outputs, activation)]
    return keras.Sequential(layers, name=name)


def compiled(losses, loss=BINARY_LOSS, outputs=CLASSES, teacher=None, **options):
    distiller = Distiller(teacher or model("teacher", outputs), model("student", outputs), losses)
    distiller.compile("sgd", loss, **{"run_eagerly": True} | options)
    return distiller


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("kind", ["int64", "float32", "bool"])
def test_a_step_is_the_two_losses_by_hand(kind):
    distiller = compiled(BinarySoftTargets(temperature=2.0), metrics=[keras.metrics.BinaryAccuracy(threshold=0)])
    z_t, z_s = (np.asarray(m(X), "float64") for m in (distiller.teacher, distiller.student))
    logs = distiller.evaluate(X, SEVERAL.astype(kind), batch_size=12, verbose=0, return_dict=True)
    label_loss = -np.mean(np.where(SEVERAL, np.log(sigmoid(z_s)), np.log(sigmoid(-z_s))))
    p, q = sigmoid(z_t / 2), sigmoid(z_s / 2)
    divergence = 4 * np.mean(p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
    assert logs["student_loss"] == pytest.approx(label_loss, rel=1e-5)
    assert logs["binary_kd"] == pytest.approx(divergence, rel=1e-5)
    assert logs["loss"] == pytest.approx(label_loss + divergence, rel=1e-5)
    # Of all yes and no, not of the largest outputs.
    assert logs["agreement"] == pytest.approx(np.mean((z_t > 0) == (z_s > 0)))
    assert logs["binary_accuracy"] == pytest.approx(np.mean((z_s > 0) == SEVERAL))


def test_a_student_learns_what_its_teacher_says():
    distiller = compiled(BinarySoftTargets())
    distiller.student_loss_weight = 0.0
    distiller.compile(keras.optimizers.Adam(0.1), BINARY_LOSS)
    history = distiller.fit(X, SEVERAL, epochs=40, verbose=0).history
    assert history["binary_kd"][-1] < 0.1 * history["binary_kd"][0]


@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_a_head_of_one_output(shape):
    distiller = compiled(BinarySoftTargets(), outputs=1, metrics=[keras.metrics.BinaryAccuracy(threshold=0)])
    z_t, z_s = (np.asarray(m(X))[:, 0] for m in (distiller.teacher, distiller.student))
    labels = X[:, 0] > 0
    logs = distiller.evaluate(X, labels.reshape(shape), verbose=0, return_dict=True)
    assert logs["agreement"] == pytest.approx(np.mean((z_t > 0) == (z_s > 0)))
    assert logs["binary_accuracy"] == pytest.approx(np.mean((z_s > 0) == labels))
    assert logs["binary_kd"] > 0
    # Keras's choice by that name takes 0.5 for the threshold of a logit.
    with pytest.raises(ValueError, match="yes begins at 0.*'accuracy'.*threshold=0"):
        compiled(BinarySoftTargets(), outputs=1, metrics=["accuracy"]).fit(X, labels, verbose=0)


def test_layers_beside_the_classes():
    history = compiled([BinarySoftTargets(), Hint("hidden", "hidden")]).fit(X, SEVERAL, verbose=0).history
    assert history["binary_kd"][0] > 0 and history["fitnet"][0] > 0


def test_agreement_of_layers_alone_is_that_of_the_labels_loss():
    distiller = compiled(Hint("hidden", "hidden"))
    z_t, z_s = (np.asarray(m(X)) for m in (distiller.teacher, distiller.student))
    agreement = distiller.evaluate(X, SEVERAL, verbose=0, return_dict=True)["agreement"]
    assert agreement == pytest.approx(np.mean((z_t > 0) == (z_s > 0)))


def test_the_loss_goes_with_classes_of_which_an_image_has_one():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller = compiled(BinarySoftTargets(), loss, metrics=["accuracy"])
    z_t, z_s = (np.asarray(m(X)).argmax(-1) for m in (distiller.teacher, distiller.student))
    logs = distiller.evaluate(X, np.arange(12) % 3, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx(np.mean(z_s == np.arange(12) % 3))
    assert logs["agreement"] == pytest.approx(np.mean(z_t == z_s))


class TestRefused:
    @pytest.mark.parametrize("label", [2, -1, 0.5, np.nan])
    def test_labels_that_are_no_yes_or_no(self, label):
        labels = np.where(np.arange(36).reshape(12, 3) == 16, label, SEVERAL)
        distiller = compiled(BinarySoftTargets())
        if label == 0.5:  # a share is one
            return distiller.fit(X, labels, verbose=0)
        with pytest.raises(ValueError, match=rf"binary_kd take each class for a yes or no.*: a label {label:g} in"):
            distiller.fit(X, labels, verbose=0)

    def test_class_ids_of_one_output(self):
        with pytest.raises(ValueError, match="binary_kd take each class for a yes or no. Received: a label 2"):
            compiled(BinarySoftTargets(), outputs=1).fit(X, np.arange(12) % 3, verbose=0)

    def test_class_ids_where_the_labels_loss_reads_rows(self):
        with pytest.raises(ValueError, match="BinaryCrossentropy.*a row of 3 for each image"):
            compiled(BinarySoftTargets()).fit(X, np.arange(12) % 3, verbose=0)

    @pytest.mark.parametrize("metric", ["accuracy", keras.metrics.CategoricalAccuracy(), "TopKCategoricalAccuracy"])
    def test_a_metric_of_the_one_class_of_an_image(self, metric):
        for losses in (BinarySoftTargets(), Hint("hidden", "hidden")):
            distiller = compiled(losses, metrics=[metric])
            with pytest.raises(ValueError, match=r"(?i)accuracy are of images of one class.*BinaryAccuracy\(thresh"):
                distiller.fit(X, SEVERAL, verbose=0)

    def test_a_softmax_loss_beside_it(self):
        with pytest.raises(ValueError, match="kd are of images of one class each.*softmax.*BinarySoftTargets"):
            compiled([BinarySoftTargets(), SoftTargets()]).fit(X, SEVERAL, verbose=0)

    def test_a_loss_that_reads_the_one_class_of_the_label(self):
        """Of two classes, where a second one could be a smoothed label's."""
        loss = ContrastiveRepresentation([0, 1] * 6, teacher_layers="hidden", student_layers="hidden", negatives=2)
        distiller = compiled([BinarySoftTargets(), loss], outputs=2)
        batch = {"image": X, "index": np.arange(12)}
        with pytest.raises(ValueError, match="crd are of images of one class each. Received: .* with 2 classes"):
            distiller.fit(batch, np.ones((12, 2)), verbose=0)

    @pytest.mark.parametrize(("average", "weights"), [("probabilities", None), ("losses", None), ("logits", "entropy")])
    def test_an_ensemble_that_takes_softmaxes(self, average, weights):
        ensemble = TeacherEnsemble([model("a"), model("b")], average=average, teacher_weights=weights)
        with pytest.raises(ValueError, match=f"'binary_kd' takes each class for a yes.*average='{average}'.*'logits'"):
            compiled(BinarySoftTargets(), teacher=ensemble)

    def test_and_one_that_averages_logits_is_taken(self):
        a, b = model("a"), model("b")
        distiller = compiled(BinarySoftTargets(), teacher=TeacherEnsemble([a, b], average="logits"))
        z = (np.asarray(a(X)) + np.asarray(b(X))) / 2
        agreement = distiller.evaluate(X, SEVERAL, verbose=0, return_dict=True)["agreement"]
        assert agreement == pytest.approx(np.mean((z > 0) == (np.asarray(distiller.student(X)) > 0)))


class TestSigmoidAtTheEnd:
    @pytest.mark.parametrize("head", ["dense", "activation", "operation", "nested", "cast"])
    def test_is_taken_off_exactly(self, head):
        inputs = keras.Input((5,))
        dense = keras.layers.Dense(CLASSES, "sigmoid" if head == "dense" else None)
        outputs = {
            "dense": lambda: dense(inputs),
            "activation": lambda: keras.layers.Activation("sigmoid")(dense(inputs)),
            "operation": lambda: keras.ops.sigmoid(dense(inputs)),
            "nested": lambda: keras.Model(i := keras.Input((5,)), keras.activations.sigmoid(dense(i)))(inputs),
            "cast": lambda: keras.layers.Activation("sigmoid", dtype="float32")(dense(inputs)),
        }
        given = keras.Model(inputs, outputs[head](), name="several")
        kernel, bias = dense.get_weights()
        # Saturated: no logarithm of a probability of 1 gives the logit back.
        x = 100 * X
        assert ends_in_sigmoid(given) and np.asarray(given(x)).max() == 1
        logits = logits_model(given, multi_label=True)
        assert not ends_in_sigmoid(logits)
        np.testing.assert_allclose(np.asarray(logits(x)), x @ kernel + bias, rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(np.asarray(given(x)), sigmoid(np.asarray(logits(x), "float64")), atol=1e-6)

    def test_what_else_is_returned_as_it_is(self):
        for activation in (None, "softmax", "relu"):
            given = model("other", activation=activation)
            assert logits_model(given, multi_label=True) is given

    def test_the_error_says_so(self):
        with pytest.raises(ValueError, match=r"sigmoid.*logits_model\(teacher, multi_label=True\).*BinarySoftTargets"):
            compiled(BinarySoftTargets(), teacher=model("teacher", activation="sigmoid"))


class TestCheckOfTheFirstBatch:
    def test_no_class_is_named(self):
        found = compiled(BinarySoftTargets()).check((X, np.eye(CLASSES)[np.arange(12) % 3]))
        assert [row.term for row in found.rows] == ["student_loss", "binary_kd"]
        assert all(row.accuracy is None and row.confidence is None for row in found.models)
        assert not found.warnings
