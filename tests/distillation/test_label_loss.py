"""The loss on the labels and the metrics are given logits: what takes something else is refused, in every form."""

import functools

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TriKD
from keras_tkd.distillation.label_readers import check_label_metrics
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
    "short": "crossentropy",
    "divergence": "kl_divergence",
    "divergence as an object": LOSSES.KLDivergence(),
    "poisson": LOSSES.poisson,
    "overlap": LOSSES.Dice,
    "overlap, partial": functools.partial(LOSSES.tversky, alpha=0.3),
    "generalized": LOSSES.CategoricalGeneralizedCrossEntropy(),
    "logarithms": "msle",
    "embeddings": LOSSES.Circle(),
}


class Divergence(LOSSES.Loss):
    """A user's own, by the name of one of Keras's."""

    name = "kl_divergence"

    def call(self, y_true, y_pred):
        return keras.ops.logsumexp(y_pred, axis=-1)


def kl_divergence(y_true, y_pred):
    return keras.ops.logsumexp(y_pred, axis=-1)


ON_LOGITS = {
    "none": None,
    "object": LOSSES.SparseCategoricalCrossentropy(from_logits=True),
    "partial": functools.partial(LOSSES.sparse_categorical_crossentropy, from_logits=True),
    "list": [LOSSES.SparseCategoricalCrossentropy(from_logits=True)],
    "own": lambda y, z: keras.ops.logsumexp(z, axis=-1),
    "own, by a name of Keras's": kl_divergence,
    "own object": Divergence(),
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


METRICS = keras.metrics
METRICS_ON_PROBABILITIES = {
    "area": (METRICS.AUC(), r"'AUC' among.*from_logits=False"),
    "name": ("auc", r"'auc' among.*from_logits=False"),
    "crossentropy": (METRICS.SparseCategoricalCrossentropy(), r"from_logits=False"),
    "function": (METRICS.kl_divergence, r"'kl_divergence' among.*takes probabilities\."),
    "class": (METRICS.Poisson, r"takes numbers > 0"),
    "threshold": (METRICS.BinaryAccuracy(), r"threshold=0\.5"),
    "threshold of a function": (METRICS.binary_accuracy, r"threshold=0\.5"),
    "thresholds": (METRICS.Precision(), r"thresholds=0\.5"),
    "thresholds that are said": (METRICS.Recall(thresholds=[0.0, 0.3]), r"thresholds=\[0\.0, 0\.3\]"),
    "searched threshold": (METRICS.PrecisionAtRecall(0.9), "takes probabilities"),
    "ids": (METRICS.MeanIoU(3), "takes class ids"),
    "equality": (METRICS.Accuracy(), "class ids, which it compares"),
}
METRICS_ON_LOGITS = {
    "accuracy": "accuracy",
    "object": METRICS.SparseCategoricalAccuracy(),
    "top k": METRICS.SparseTopKCategoricalAccuracy(2),
    "logits": METRICS.SparseCategoricalCrossentropy(from_logits=True),
    "own": lambda y, z: keras.ops.logsumexp(z, axis=-1),
}


@pytest.mark.parametrize("kind", METRICS_ON_PROBABILITIES)
def test_a_metric_on_probabilities_is_refused(kind):
    metric, rule = METRICS_ON_PROBABILITIES[kind]
    with pytest.raises(ValueError, match=f"A metric must take logits.*Received: .*{rule}.*'accuracy'"):
        check_label_metrics(["accuracy", metric])


def test_metrics_are_looked_at_in_every_place_of_compile(make):
    for place in ({"metrics": [METRICS.AUC()]}, {"weighted_metrics": {"logits": METRICS.AUC()}}):
        with pytest.raises(ValueError, match="A metric must take logits"):
            make().compile("sgd", ON_LOGITS["object"], **place)
    with pytest.raises(ValueError, match="A metric must take logits"):
        make().compile("sgd", ON_LOGITS["object"], None, ["auc"])


@pytest.mark.parametrize(
    "metric",
    [
        METRICS.AUC(from_logits=True),
        METRICS.BinaryAccuracy(threshold=0.0),
        METRICS.Precision(thresholds=0),
        METRICS.Recall(top_k=1),
        METRICS.F1Score(),
        METRICS.OneHotIoU(3, [0]),
        "mse",
    ],
)
def test_a_metric_of_rows_that_logits_are_fit_for_is_taken(metric):
    check_label_metrics([metric])


def test_metrics_on_logits_are_taken(make):
    model = make()
    model.compile("sgd", ON_LOGITS["object"], metrics=list(METRICS_ON_LOGITS.values()), run_eagerly=True)
    history = model.fit(X, Y, verbose=0).history
    assert {"accuracy", "sparse_top_k_categorical_accuracy", "sparse_categorical_crossentropy"} < set(history)


def test_a_loss_or_metric_of_rows_is_told_of_class_ids_and_the_other_way_round(make):
    rows = np.eye(3, dtype="float32")[Y]
    wrong = [
        ({"loss": "mse"}, Y, r"loss on the labels, mean_squared_error, .* needs a row of 3 .*class ids, .*to_categ"),
        ({"loss": LOSSES.Hinge()}, Y[:, None], r"loss on the labels, Hinge, .* needs a row of 3"),
        ({"loss": None, "metrics": ["mae"]}, Y, r"metric, MeanAbsoluteError, .* needs a row of 3 .*'accuracy'"),
        ({"loss": ON_LOGITS["object"]}, rows, r"reads class ids\. Received: rows.*argmax.*CategoricalCrossentropy"),
    ]
    for arguments, labels, rule in wrong:
        model = make()
        model.compile("sgd", run_eagerly=True, **arguments)
        with pytest.raises(ValueError, match=rule):
            model.fit(X, labels, verbose=0)
        with pytest.raises(ValueError, match=rule):
            model.check((X, labels))
    model = make()
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    assert model.fit(X, rows, verbose=0).history["student_loss"][0] > 0


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
