"""The triplet loss for embeddings, against a naive oracle in float64 that loops over all triplets."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.data import class_batches
from keras_tkd.losses import TripletLoss, triplet_loss
from keras_tkd.miners import MINERS, random_other_class, random_same_class

# A class of one, and classes of two to four.
LABELS = np.array([3, 8, 3, 5, 8, 3, 0, 5, 8, 8])
EMBEDDINGS = np.random.default_rng(0).normal(size=(10, 3))


def distance(u, v):
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(u, v, strict=True)))


def pairs_of(miner, positives, negatives):
    """The pairs of a positive's and a negative's distance that count, by the docstring."""
    if miner == "hard":
        return [(max(positives), min(negatives))]
    if miner == "all":
        return [(p, n) for p in positives for n in negatives]
    return [(p, min([n for n in negatives if n > p], default=max(negatives))) for p in positives]


def oracle(labels, embeddings, margin, miner):
    values = []
    mates, others = (choose(labels, [4, 0])[0].numpy() for choose in (random_same_class, random_other_class))
    for i, row in enumerate(embeddings):
        to = [distance(row, other) for other in embeddings]
        positives = [to[j] for j, label in enumerate(labels) if label == labels[i] and j != i]
        negatives = [to[j] for j, label in enumerate(labels) if label != labels[i]]
        pairs = []
        if positives and negatives:
            pairs = [(to[mates[i]], to[others[i]])] if miner == "random" else pairs_of(miner, positives, negatives)
        found = [max(p - n + margin, 0.0) for p, n in pairs]
        values.append(sum(found) / len(found) if found else 0.0)
    return np.array(values)


def value_and_slope(loss, labels, embeddings, weights=None):
    embeddings = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(embeddings)
        value = loss(labels, embeddings, weights)
    return value, tape.gradient(value, embeddings)


def central_slope(function, x, h=1e-6):
    slope = np.zeros_like(x)
    for entry in np.ndindex(x.shape):
        ends = [x.copy(), x.copy()]
        ends[0][entry] += h
        ends[1][entry] -= h
        slope[entry] = (function(ends[0]) - function(ends[1])) / (2 * h)
    return slope


every_miner = pytest.mark.parametrize("miner", MINERS)


@pytest.mark.parametrize(
    "miner, mode",
    [*((miner, "eager") for miner in MINERS), ("semi_hard", "function"), ("semi_hard", "jit"), ("all", "jit")],
)
def test_value_and_gradient_are_the_oracles(miner, mode):
    loss = TripletLoss(margin=0.5, miner=miner, seed=4, reduction="sum", dtype="float64")
    weights = np.linspace(0.5, 2.0, 10)

    def run(labels, embeddings):
        return value_and_slope(loss, labels, embeddings, weights)

    if mode != "eager":
        signature = [tf.TensorSpec([None], "int64"), tf.TensorSpec([None, 3], "float64")]
        run = tf.function(run, jit_compile=mode == "jit", input_signature=signature)
    value, slope = run(tf.constant(LABELS), tf.constant(EMBEDDINGS))

    def total(embeddings):
        return float(np.dot(weights, oracle(LABELS, embeddings, 0.5, miner)))

    assert value.numpy() == pytest.approx(total(EMBEDDINGS), rel=1e-10)
    assert slope.numpy() == pytest.approx(central_slope(total, EMBEDDINGS), abs=1e-7)


@every_miner
@pytest.mark.parametrize("margin", [0.0, 0.05, 10.0])
def test_many_rows_and_other_margins(miner, margin):
    """Of margin 10 every triplet is violated, of margin 0 those that are in the wrong order."""
    rng = np.random.default_rng(1)
    labels, embeddings = rng.integers(0, 5, 60), rng.normal(size=(60, 8))
    expected = oracle(labels, embeddings, margin, miner)
    assert np.any(expected > 0)
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        loss = TripletLoss(margin=margin, miner=miner, seed=4, reduction=None, dtype=dtype)
        assert loss(labels, embeddings).numpy() == pytest.approx(expected, rel=tolerance, abs=tolerance)


# Distances 3, 4 and 5, on a line: rows at 0, 3, 7 and -5, of classes 0, 0, 1, 1.
LINE = [[0.0], [3.0], [7.0], [-5.0]]
# From 0: positive 3; negatives 7, 5. From 3: positive 3; 4, 8. From 7: positive 12; 7, 4. From -5: 12; 5, 8.
BY_HAND = {
    # Margin 3. The next beyond the positive: 3 - 5 + 3, 3 - 4 + 3; none, so the farthest: 12 - 7 + 3, 12 - 8 + 3.
    "semi_hard": [1.0, 2.0, 8.0, 7.0],
    # The nearest: 3 - 5 + 3, 3 - 4 + 3, 12 - 4 + 3, 12 - 5 + 3.
    "hard": [1.0, 2.0, 11.0, 10.0],
    # The mean over both: (0 + 1) / 2, (2 + 0) / 2, (8 + 11) / 2, (10 + 7) / 2.
    "all": [0.5, 1.0, 9.5, 8.5],
}


@pytest.mark.parametrize("miner", BY_HAND)
def test_by_hand(miner):
    assert triplet_loss([0, 0, 1, 1], tf.constant(LINE), 3.0, miner).numpy() == pytest.approx(BY_HAND[miner], rel=1e-6)
    loss = TripletLoss(margin=3.0, miner=miner)
    assert float(loss([[0], [0], [1], [1]], LINE)) == pytest.approx(np.mean(BY_HAND[miner]), rel=1e-6)
    loss.margin = 0.0
    assert float(loss([0, 0, 1, 1], LINE)) < np.mean(BY_HAND[miner])


@every_miner
@pytest.mark.parametrize("labels", [np.zeros(10, int), np.arange(10)], ids=["one class", "ten classes"])
def test_no_triplet_is_no_value_and_no_gradient(miner, labels):
    value, slope = value_and_slope(TripletLoss(miner=miner), labels, EMBEDDINGS)
    assert value.numpy() == 0.0 and np.array_equal(slope, np.zeros_like(EMBEDDINGS))


@every_miner
def test_equal_embeddings_have_the_margin_and_no_direction(miner):
    value, slope = value_and_slope(TripletLoss(miner=miner, reduction=None), [0, 0, 1, 1], np.ones((4, 3)))
    assert value.numpy() == pytest.approx(np.full(4, 0.2), rel=1e-6)
    assert np.array_equal(slope, np.zeros((4, 3)))


@every_miner
def test_a_nan_is_not_swallowed(miner):
    broken = EMBEDDINGS.copy()
    broken[2, 1] = np.nan
    assert np.isnan(TripletLoss(miner=miner, reduction=None)(LABELS, broken).numpy()[2])


@every_miner
def test_half_precision_embeddings_have_a_float32_loss(miner):
    embeddings = tf.cast(EMBEDDINGS, "float16")
    values = TripletLoss(miner=miner, seed=4, reduction=None)(LABELS, embeddings)
    assert values.dtype == "float32"
    exact = oracle(LABELS, tf.cast(embeddings, "float64").numpy(), 0.2, miner)
    assert values.numpy() == pytest.approx(exact, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_labels_are_not_rounded_to_the_losss_dtype(dtype):
    labels = 2**40 + np.array([0, 0, 1, 1])
    value = TripletLoss(margin=3.0, miner="hard", dtype=dtype)(labels, LINE)
    assert float(value) == 6.0


def test_weights_are_those_of_keras():
    values = oracle(LABELS, EMBEDDINGS, 0.2, "semi_hard")
    weights = np.arange(10.0)
    # One row is alone in its class: it has no triplet, and does not count.
    counted = np.array([list(LABELS).count(label) > 1 for label in LABELS])
    assert counted.sum() == 9
    loss = TripletLoss(dtype="float64")
    assert float(loss(LABELS, EMBEDDINGS)) == pytest.approx(values[counted].mean(), rel=1e-10)
    expected = (values * weights)[counted].mean()
    assert float(loss(LABELS, EMBEDDINGS, weights)) == pytest.approx(expected, rel=1e-10)


def test_config_round_trip():
    arguments = {"margin": 0.7, "miner": "hard", "seed": 3, "name": "own", "reduction": "sum", "dtype": "float64"}
    loss = TripletLoss(**arguments)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(loss))))
    assert type(again) is TripletLoss and again.get_config() == loss.get_config() == arguments
    assert keras.saving.get_registered_name(TripletLoss) == "keras_tkd>TripletLoss"
    defaults = TripletLoss()
    assert (defaults.margin, defaults.miner, defaults.seed, defaults.name) == (0.2, "semi_hard", 0, "triplet")


def test_errors():
    with pytest.raises(ValueError, match="`margin` must be a number >= 0"):
        TripletLoss(margin=-1)
    with pytest.raises(ValueError, match=r"`miner` must be one of \['all', 'hard', 'random', 'semi_hard'\]"):
        TripletLoss(miner="hardest")
    with pytest.raises(ValueError, match=r"'triplet' compares embeddings .*labels \(10, 4\)"):
        TripletLoss()(np.eye(10)[:, :4], EMBEDDINGS)
    with pytest.raises(ValueError, match=r"'triplet' compares embeddings .*embeddings \(10, 3, 1\)"):
        TripletLoss()(LABELS, EMBEDDINGS[..., None])
    with pytest.raises(ValueError, match=r"'triplet' reads batches of equal size.*\(10, 3\), \(1,\)"):
        TripletLoss()(LABELS[:1], EMBEDDINGS)


def test_fit_pulls_classes_apart(tmp_path):
    """Four classes told apart by one of eight inputs each, hidden in noise; through fit, saving, and loading."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    images = (rng.normal(size=(80, 8)) + 3.0 * np.eye(8)[labels]).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.03), TripletLoss(margin=1.0))
    dataset = class_batches(images, labels, classes_per_batch=4, samples_per_class=5, seed=0)
    before = model.evaluate(images, labels, batch_size=80, verbose=0)
    model.fit(dataset, epochs=15, verbose=0)
    assert model.evaluate(images, labels, batch_size=80, verbose=0) < 0.6 * before
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    after = model.evaluate(images, labels, batch_size=80, verbose=0)
    assert again.evaluate(images, labels, batch_size=80, verbose=0) == pytest.approx(after, rel=1e-6)


@pytest.mark.parametrize("attribute", ["miner", "seed"])
def test_what_a_traced_step_would_not_follow_cannot_be_set(attribute):
    loss = TripletLoss()
    with pytest.raises(AttributeError, match=f"`{attribute}` of a TripletLoss cannot be set"):
        setattr(loss, attribute, "hard")
