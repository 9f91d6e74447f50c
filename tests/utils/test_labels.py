"""Labels of every kind, at every entrance: taken as class ids, or one clear sentence."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TriKD, evaluation
from keras_tkd.data import class_batches, pair_dataset, triplet_dataset
from keras_tkd.losses import (
    ContrastiveRepresentation,
    DecoupledTargets,
    Hint,
    PairDistillation,
    SoftTargets,
    TripletDistillation,
)
from keras_tkd.miners import MINERS, POSITIVE_MINERS
from keras_tkd.utils.labels import read_class_ids

IDS = np.arange(12) % 3
TWO = np.arange(12) % 2
NUMBERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"]
TAKEN = {name: (IDS.astype(name), IDS) for name in NUMBERS} | {
    "column": (IDS[:, None], IDS),
    "objects": (IDS.astype(object), IDS),
    "booleans": (TWO > 0, TWO),
}
NAMES = np.array(["cat", "dog", "owl"])[IDS]
REFUSED = {
    "names": (NAMES, "Received: <U3 such as .*cat.*numpy.unique"),
    "bytes": (NAMES.astype("S"), "numpy.unique"),
    "objects": (NAMES.astype(object), "Received: object.*numpy.unique"),
    "halves": (IDS + 0.5, "12 that are not whole, such as 0.5"),
    "missing": (np.where(IDS == 2, np.nan, IDS), "4 that are not whole, such as nan"),
}
ROWS = {"one-hot": np.eye(3)[IDS], "one-hot booleans": np.eye(3, dtype=bool)[IDS]}
X = np.random.default_rng(0).normal(size=(12, 5)).astype("float32")
IMAGES = np.arange(12, dtype="uint8")[:, None, None, None] * np.ones((1, 4, 4, 1), "uint8")


@pytest.mark.parametrize("kind", TAKEN)
def test_whole_numbers_are_read(kind):
    labels, expected = TAKEN[kind]
    ids = read_class_ids(labels)
    assert ids.dtype.kind in "iu" and ids.shape == (12,) and np.array_equal(ids, expected)
    assert np.array_equal(read_class_ids(labels.tolist()), expected)
    if kind in NUMBERS and kind[0] != "f":
        assert ids.dtype == kind


def test_large_ids_keep_their_digits():
    assert read_class_ids(np.array([2**62, 2**62 + 1])).tolist() == [2**62, 2**62 + 1]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_number_is_refused(kind):
    labels, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=f"`given` must be class ids, whole numbers.*{reason}"):
        read_class_ids(labels, "given")


PIPELINES = {
    "triplets": lambda labels: triplet_dataset(IMAGES, labels, 4, seed=0, positives="same_class"),
    "negatives of others": lambda labels: triplet_dataset(IMAGES, TWO, 4, seed=0, negative_labels=labels),
    "pairs": lambda labels: pair_dataset(IMAGES, labels, 4, seed=0),
    "partners of others": lambda labels: pair_dataset(IMAGES, TWO, 4, seed=0, partner_labels=labels),
    "classes": lambda labels: class_batches(IMAGES, labels, classes_per_batch=2, samples_per_class=2, seed=0),
}


@functools.cache
def batches_of_plain_ids(pipeline, ids):
    return list(PIPELINES[pipeline](np.array(ids)).as_numpy_iterator())


@pytest.mark.parametrize("pipeline", PIPELINES)
class TestPipelines:
    @pytest.mark.parametrize("kind", TAKEN)
    def test_batches_are_those_of_plain_ids(self, pipeline, kind):
        labels, expected = TAKEN[kind]
        found = list(PIPELINES[pipeline](labels).as_numpy_iterator())
        plain = batches_of_plain_ids(pipeline, tuple(expected))
        assert len(found) >= 3
        tf.nest.map_structure(np.testing.assert_array_equal, found, plain)

    @pytest.mark.parametrize("kind", REFUSED)
    def test_what_is_no_number_is_refused(self, pipeline, kind):
        labels, reason = REFUSED[kind]
        with pytest.raises(ValueError, match=f"labels` must be class ids.*{reason}"):
            PIPELINES[pipeline](labels)

    @pytest.mark.parametrize("kind", ROWS)
    def test_rows_are_refused(self, pipeline, kind):
        with pytest.raises(ValueError, match=r"labels` must be class ids.*\(12, 3\).*argmax"):
            PIPELINES[pipeline](ROWS[kind])


def linear(name):
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="logits")], name=name)


def losses():
    return [SoftTargets(), TripletDistillation(), DecoupledTargets(), PairDistillation()]


def compiled(model, rows=False, eagerly=True):
    kind = keras.losses.CategoricalCrossentropy if rows else keras.losses.SparseCategoricalCrossentropy
    # Op by op: labels of each dtype would be traced anew.
    model.compile(keras.optimizers.SGD(0.0), kind(from_logits=True), run_eagerly=eagerly)
    return model


@pytest.mark.parametrize(
    "make", [lambda: Distiller(linear("t"), linear("s"), losses()), lambda: TriKD(*map(linear, "ts"))]
)
class TestFit:
    def test_numbers_train_as_plain_ids_do(self, make):
        model = compiled(make())
        expected = {}
        for kind in ("uint8", "float32", "objects", "booleans"):
            labels, ids = TAKEN[kind]
            key = tuple(ids)
            if key not in expected:
                expected[key] = model.evaluate(X, ids, 6, verbose=0, return_dict=True)
            assert model.evaluate(X, labels, 6, verbose=0, return_dict=True) == pytest.approx(expected[key]), kind
        # Held out, in a list as in a tuple.
        held_out = [(X, TAKEN["objects"][0]), [X, TAKEN["objects"][0]]]
        histories = [model.fit(X, IDS, 6, verbose=0, validation_data=each).history for each in held_out]
        assert histories[0]["val_loss"] == histories[1]["val_loss"]
        # Traced, and in a model of its own: TensorFlow forgets the rank of what came in two.
        assert (
            "val_loss"
            in compiled(make(), eagerly=False)
            .fit(X, IDS[:, None], validation_data=(X, IDS[:, None]), verbose=0)
            .history
        )
        data = tf.data.Dataset.from_tensor_slices((X, TWO > 0)).batch(6)
        history = model.fit(data, validation_data=data, verbose=0).history
        assert history["val_loss"] == pytest.approx([expected[tuple(TWO)]["loss"]])

    @pytest.mark.parametrize("kind", ROWS)
    def test_rows_train(self, make, kind):
        ids = compiled(make()).evaluate(X, IDS, 6, verbose=0, return_dict=True)
        rows = compiled(make(), rows=True).fit(X, ROWS[kind], 6, verbose=0).history
        assert set(ids) == set(rows)

    @pytest.mark.parametrize("kind", REFUSED)
    def test_what_is_no_number_is_refused(self, make, kind):
        labels, reason = REFUSED[kind]
        model = compiled(make())
        with pytest.raises(ValueError, match=f"`y` must be class ids.*{reason}"):
            model.fit(X, labels, verbose=0)
        with pytest.raises(ValueError, match=f"`y` must be class ids.*{reason}"):
            model.fit(X, IDS, validation_data=(X, labels), verbose=0)
        with pytest.raises(ValueError, match=f"`y` must be class ids.*{reason}"):
            model.evaluate(X, labels, verbose=0)

    def test_names_in_a_dataset_are_refused(self, make):
        with pytest.raises(ValueError, match="must be class ids, whole numbers. Received: strings.*numpy.unique"):
            compiled(make()).fit(tf.data.Dataset.from_tensor_slices((X, NAMES)).batch(4), verbose=0)


def test_targets_of_another_kind_are_not_read():
    distiller = Distiller(linear("t"), linear("s"), Hint("logits", "logits"))
    distiller.compile("sgd", lambda y, z: keras.ops.square(y - z[:, 0]))
    assert len(distiller.fit(X, IDS + 0.5, verbose=0).history["fitnet"]) == 1


@pytest.mark.parametrize("kind", TAKEN)
def test_evaluation_and_crd_take_numbers(kind):
    labels, expected = TAKEN[kind]
    outputs = np.eye(3)[IDS]
    assert evaluation.accuracy(outputs, labels) == np.mean(IDS == expected)
    assert evaluation.at_chance(1.0, labels) is False
    assert ContrastiveRepresentation(labels, negatives=3).labels == expected.tolist()


@pytest.mark.parametrize("kind", REFUSED)
def test_evaluation_and_crd_refuse_what_is_no_number(kind):
    labels, reason = REFUSED[kind]
    for read in (lambda: evaluation.accuracy(np.eye(3)[IDS], labels), lambda: evaluation.at_chance(1.0, labels)):
        with pytest.raises(ValueError, match=f"`labels` must be class ids.*{reason}"):
            read()
    with pytest.raises(ValueError, match=f"`labels` must be class ids.*{reason}"):
        ContrastiveRepresentation(labels, negatives=3)


def test_evaluation_refuses_rows_and_other_lengths():
    with pytest.raises(ValueError, match=r"class ids.*\(12, 3\).*argmax"):
        evaluation.accuracy(np.eye(3)[IDS], ROWS["one-hot"])
    with pytest.raises(ValueError, match=r"a class id for each row.*\(12, 3\), labels of shape \(11,\)"):
        evaluation.accuracy(np.eye(3)[IDS], IDS[:11])


def test_losses_by_hand_name_what_they_read():
    y_true = {"logits": np.eye(3)[IDS], "labels": NAMES}
    for loss in (DecoupledTargets(), TripletDistillation()):
        with pytest.raises(ValueError, match=f"'{loss.name}': labels must be class ids, whole numbers"):
            loss(y_true, np.eye(3)[IDS])


EVERY_MINER = {function.__name__: function for table in (MINERS, POSITIVE_MINERS) for function in table.values()}


@pytest.mark.parametrize("miner", EVERY_MINER)
class TestMiners:
    def mine(self, miner, labels):
        distances = tf.constant(np.abs(X[:, :1] - X[:, 0]))
        return EVERY_MINER[miner](labels, tf.constant([0, 1]), distances, distances[:, 0])

    @pytest.mark.parametrize("kind", [*NUMBERS, "booleans"])
    def test_numbers_are_taken(self, miner, kind):
        labels, ids = TAKEN[kind]
        for found, expected in zip(self.mine(miner, labels), self.mine(miner, ids), strict=True):
            np.testing.assert_array_equal(found, expected)

    @pytest.mark.parametrize("labels", [*ROWS.values(), IDS[:, None], NAMES], ids=[*ROWS, "column", "names"])
    def test_what_is_no_number_for_each_row_is_refused(self, miner, labels):
        with pytest.raises(ValueError, match=r"`labels` must be class ids, numbers of shape \(batch,\). Received: "):
            self.mine(miner, labels)
