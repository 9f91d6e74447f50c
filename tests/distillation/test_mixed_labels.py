"""Labels of mixed images in a Distiller: what learns from them, what is measured, and which losses refuse them."""

import keras
import numpy as np
import pytest

from keras_tkd import Distiller, TeacherEnsemble, TriKD
from keras_tkd.data import Mixing, image_dataset, triplet_dataset
from keras_tkd.losses import (
    ContrastiveRepresentation,
    DecoupledTargets,
    HardTargets,
    NormalizedTargets,
    PairDistillation,
    SimilarityPreserving,
    SoftTargets,
    TripletDistillation,
)

CLASSES = 3
X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
Y = np.arange(12) % CLASSES
SHARES = np.linspace(0.1, 0.9, 12)[:, None]
MIXED = SHARES * np.eye(CLASSES)[Y] + (1 - SHARES) * np.eye(CLASSES)[(Y + 1) % CLASSES]
ROWS = keras.losses.CategoricalCrossentropy(from_logits=True)


def model(name, shape=(5,)):
    layers = [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(4, name="hidden")]
    return keras.Sequential([*layers, keras.layers.Dense(CLASSES)], name=name)


def compiled(loss, **options):
    distiller = Distiller(model("teacher"), model("student"), loss)
    distiller.compile("sgd", ROWS, metrics=["accuracy"], **options)
    return distiller


def test_the_loss_is_that_of_the_shares_and_the_accuracy_that_of_the_larger():
    distiller = compiled([SoftTargets(), HardTargets(), SimilarityPreserving("hidden", "hidden")])
    logits = distiller.student.predict(X, verbose=0).astype(float)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    result = distiller.evaluate(X, MIXED.astype("float32"), verbose=0, return_dict=True)
    assert result["student_loss"] == pytest.approx(-(MIXED * log_p).sum(axis=1).mean(), rel=1e-5)
    # Below a half of its own class an image is of the other.
    larger = np.where(SHARES[:, 0] > 0.5, Y, (Y + 1) % CLASSES)
    assert result["accuracy"] == pytest.approx(np.mean(logits.argmax(axis=1) == larger))
    history = distiller.fit(X, MIXED, verbose=0).history
    assert history["kd"][0] > 0 and history["hard"][0] > 0 and history["sp"][0] > 0


def test_a_teacher_that_learns_learns_from_mixed_labels_too():
    trikd = TriKD(model("teacher"), model("student"))
    trikd.compile("sgd", ROWS)
    z = trikd.teacher.predict(X, verbose=0).astype(float)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    result = trikd.evaluate(X, MIXED.astype("float32"), verbose=0, return_dict=True)
    assert result["teacher_loss"] == pytest.approx(-(MIXED * log_p).sum(axis=1).mean(), rel=1e-5)


ONE_CLASS = {
    "dkd": lambda: DecoupledTargets(),
    "nkd": lambda: NormalizedTargets(),
    "tkd": lambda: TripletDistillation(),
    "pairs": lambda: PairDistillation(),
    "crd": lambda: ContrastiveRepresentation(Y, 4, 3, teacher_layers="hidden", student_layers="hidden"),
}


class TestOneClass:
    @pytest.mark.parametrize("name", ONE_CLASS)
    def test_is_read_by_losses_that_refuse_mixed_labels(self, name):
        distiller = compiled(ONE_CLASS[name](), run_eagerly=True)
        batch = {"image": X, "index": np.arange(12)} if name == "crd" else X
        with pytest.raises(
            ValueError, match=rf"The losses {name} take the label.*0\.\d\d of a second class.*SoftTargets"
        ):
            distiller.fit(batch, MIXED, verbose=0)

    @pytest.mark.parametrize("name", ONE_CLASS)
    def test_of_a_smoothed_label_is_taken(self, name):
        smooth = 0.9 * np.eye(CLASSES)[Y] + 0.1 / CLASSES
        batch = {"image": X, "index": np.arange(12)} if name == "crd" else X
        history = compiled(ONE_CLASS[name](), run_eagerly=True).fit(batch, smooth, verbose=0).history
        assert len(history[name]) == 1

    def test_is_told_by_the_teacher_where_the_loss_says_so(self):
        loss = TripletDistillation(negative_classes="teacher")
        history = compiled(loss, run_eagerly=True).fit(X, MIXED, verbose=0).history
        assert len(history["tkd"]) == 1

    def test_is_read_by_teachers_weighted_by_confidence(self):
        ensemble = TeacherEnsemble([model("a"), model("b")], average="losses", teacher_weights="confidence")
        distiller = Distiller(ensemble, model("student"), SoftTargets())
        distiller.compile("sgd", ROWS, run_eagerly=True)
        with pytest.raises(ValueError, match="The losses kd take the label for the one class"):
            distiller.fit(X, MIXED, verbose=0)


def test_rows_are_named_to_a_loss_on_the_labels_that_reads_ids():
    distiller = Distiller(model("teacher"), model("student"), SoftTargets())
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="reads class ids. Received: rows.*CategoricalCrossentropy"):
        distiller.fit(X, MIXED, verbose=0)


def test_pipelines_of_mixed_images_train_and_validate():
    images = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), dtype="uint8")
    mix = Mixing(CLASSES, mixup=0.2, cutmix=1.0)
    distiller = Distiller(model("teacher", (4, 4, 1)), model("student", (4, 4, 1)), SoftTargets())
    distiller.compile("sgd", ROWS, metrics=["accuracy"])
    held_out = image_dataset(images, Y, 6, seed=0, mix=mix, training=False)
    training = triplet_dataset(images, Y, 6, negatives=None, seed=0, mix=mix)
    history = distiller.fit(training, validation_data=held_out, epochs=2, verbose=0, shuffle=False).history
    right = (distiller.student.predict(images, verbose=0).argmax(axis=1) == Y).mean()
    assert history["val_accuracy"][-1] == pytest.approx(right)
