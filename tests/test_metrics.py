"""What the triplets of an embedding look like in the logs of plain `fit`, against loops over all triplets."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd.losses import LogitRegression, TripletLoss
from keras_tkd.metrics import TripletStatistics
from keras_tkd.miners import MINERS, random_other_class, random_same_class

# On a line: rows at 0, 3, 7 and -5, of classes 0, 0, 1, 1.
LINE = np.array([[0.0], [3.0], [7.0], [-5.0]], "float32")
PLACES = np.array([0, 0, 1, 1])
# From 0: positive 3; negatives 7, 5. From 3: positive 3; 4, 8. From 7: positive 12; 7, 4. From -5: 12; 5, 8.
# Margin 2: an anchor's violated ones are those nearer than its positive and 2, not those that are just as far.
BY_HAND = {
    # Negatives 5, 4, and, as none is beyond 12, the farthest, 7 and 8; all but the first, 3 - 5 + 2, are too near.
    "semi_hard": (7.5, 6.0, 0.75),
    # Negatives 5, 4, 4 and 5.
    "hard": (7.5, 4.5, 0.75),
    # Means of negatives 6, 6, 5.5 and 6.5; violated are none, one of two, both, both.
    "all": (7.5, 6.0, 0.625),
}


def numbers(logs, prefix="triplet_"):
    return [float(logs[prefix + name]) for name in ("positive_distance", "negative_distance", "violated")]


@pytest.mark.parametrize("miner", BY_HAND)
def test_by_hand(miner):
    statistics = TripletStatistics(TripletLoss(margin=2.0, miner=miner))
    assert numbers(statistics(PLACES[:, None], LINE)) == pytest.approx(BY_HAND[miner], rel=1e-6)


# Batches with a class of one each, and a batch of one class, which has no triplet.
LABELS = np.array([3, 8, 3, 5, 8, 3, 0, 5, 8, 8, 8, 3] + [4] * 4)
EMBEDDINGS = (np.random.default_rng(0).normal(size=(16, 3)) + 0.6 * LABELS[:, None]).astype("float32")
BATCHES = [slice(0, 8), slice(8, 12), slice(12, 16)]


def oracle(miner, margin, seed):
    """Means over each anchor's triplets, for all rows of all batches that have one."""
    rows = []
    for batch in BATCHES:
        labels, x = LABELS[batch], EMBEDDINGS[batch].astype("float64")
        mates, others = (choose(labels, [seed, 0])[0].numpy() for choose in (random_same_class, random_other_class))
        for i, row in enumerate(x):
            to = [float(np.linalg.norm(row - other)) for other in x]
            positives = [to[j] for j in range(len(x)) if labels[j] == labels[i] and j != i]
            negatives = [to[j] for j in range(len(x)) if labels[j] != labels[i]]
            if not positives or not negatives:
                continue
            triplets = {
                "random": [(to[mates[i]], to[others[i]])],
                "hard": [(max(positives), min(negatives))],
                "all": [(p, n) for p in positives for n in negatives],
                "semi_hard": [(p, min([n for n in negatives if n > p], default=max(negatives))) for p in positives],
            }[miner]
            rows.append(np.mean([(p, n, p - n + margin > 0) for p, n in triplets], axis=0))
    return np.array(rows)


@pytest.mark.parametrize("miner", MINERS)
def test_means_over_all_anchors_that_have_a_triplet(miner):
    """Batches of other sizes, two anchors without a positive, and a batch without a negative."""
    statistics = TripletStatistics(TripletLoss(margin=0.5, miner=miner, seed=4))
    for batch in BATCHES:
        statistics.update_state(LABELS[batch], EMBEDDINGS[batch])
    expected = oracle(miner, 0.5, 4)
    assert len(expected) == 16 - 4 - 2 and 0 < expected[:, 2].mean() < 1
    assert numbers(statistics.result()) == pytest.approx(expected.mean(axis=0), rel=1e-5)


def test_without_a_triplet_nothing_is_said():
    statistics = TripletStatistics(TripletLoss())
    assert numbers(statistics([1, 1], [[0.0], [9.0]])) == [0.0, 0.0, 0.0]
    statistics.update_state(PLACES, LINE)
    assert numbers(statistics.result())[0] == 7.5
    statistics.reset_state()
    assert numbers(statistics.result()) == [0.0, 0.0, 0.0]


def identity():
    """A model whose output is its input, and that training leaves alone."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    loss = TripletLoss(margin=2.0, miner="all")
    statistics = [TripletStatistics(loss)], [TripletStatistics(loss, name="weighted")]
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=statistics[0], weighted_metrics=statistics[1])
    return model


def test_in_fit_under_the_margin_of_the_moment_and_from_a_file(tmp_path):
    model = identity()
    # By hand: the first anchor counts three times, the last not at all.
    weights = np.array([3.0, 1.0, 1.0, 0.0])
    logs = model.fit(LINE, PLACES, 4, 2, 0, validation_data=(LINE, PLACES), sample_weight=weights).history
    for epoch in range(2):
        each = {name: values[epoch] for name, values in logs.items()}
        assert numbers(each) == numbers(each, "val_triplet_") == pytest.approx(BY_HAND["all"], rel=1e-6)
        # (3 * 3 + 3 + 12) / 5, (3 * 6 + 6 + 5.5) / 5, (3 * 0 + 1 / 2 + 1) / 5.
        assert numbers(each, "weighted_") == pytest.approx([4.8, 5.9, 0.3], rel=1e-6)
    # Without retracing: nearer than their positive are all negatives of the last two, and none of the first two.
    model.loss.margin = 0.0
    assert model.evaluate(LINE, PLACES, verbose=0, return_dict=True)["triplet_violated"] == 0.5
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").evaluate(LINE, PLACES, verbose=0, return_dict=True)
    assert numbers(again) == pytest.approx([7.5, 6.0, 0.5], rel=1e-6)


def test_violated_are_the_anchors_that_have_a_loss():
    """One triplet an anchor: the mean of those whose value is not zero."""
    loss = TripletLoss(margin=0.2, miner="random", reduction=None)
    labels, embeddings = LABELS[:12], EMBEDDINGS[:12]
    values = loss(labels, embeddings).numpy()
    has_triplet = labels != 0
    assert 0 < (values[has_triplet] > 0).sum() < 11
    violated = numbers(TripletStatistics(loss)(labels, embeddings))[2]
    assert violated == pytest.approx((values[has_triplet] > 0).mean(), rel=1e-6)


def test_compiled_by_xla():
    statistics = TripletStatistics(TripletLoss(margin=2.0, miner="all"))
    tf.function(statistics.update_state, jit_compile=True)(tf.constant(PLACES), tf.constant(LINE))
    assert numbers(statistics.result()) == pytest.approx(BY_HAND["all"], rel=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="`loss` must be a keras_tkd.losses.TripletLoss.*LogitRegression"):
        TripletStatistics(LogitRegression())
    with pytest.raises(ValueError, match=r"compares embeddings.*labels \(10, 4\)"):
        TripletStatistics(TripletLoss())(np.eye(10)[:, :4], EMBEDDINGS[:10])
