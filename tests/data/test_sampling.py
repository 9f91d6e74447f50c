"""Orders that are permutations, and negatives that are uniform over all other classes."""

import itertools
from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chi2

from keras_tkd.data.sampling import ClassOrder, ClassSampler, _count_earlier_equals, check_two_classes, shuffle_samples

ONCE_IN_A_MILLION = 1e-6


def assert_equally_often(counts):
    """Chi-square: counts so uneven come from equal probabilities less than once in a million times."""
    counts = np.asarray(counts)
    expected = counts.sum() / counts.size
    assert expected >= 5
    statistic = ((counts - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(ONCE_IN_A_MILLION, counts.size - 1)


def order(count, seed, epoch):
    return shuffle_samples(count, seed, epoch).numpy()


@pytest.mark.parametrize("count", [1, 2, 7, 128, 1_000])
def test_an_order_is_a_permutation(count):
    for seed, epoch in itertools.product((0, 1, 2**30 - 1), (0, 1, 100)):
        samples = order(count, seed, epoch)
        assert samples.dtype == np.int64
        np.testing.assert_array_equal(np.sort(samples), np.arange(count))
        np.testing.assert_array_equal(samples, order(count, seed, tf.constant(epoch, tf.int64)))


def test_orders_differ_between_epochs_and_seeds():
    keys = [(seed, epoch) for seed in (0, 1, 2) for epoch in (0, 1, 2)]
    keys += [(2**bit, 0) for bit in range(2, 30)] + [(0, 2**bit) for bit in range(2, 20)]
    orders = np.stack([order(1_000, *key) for key in keys] + [np.arange(1_000)])
    # Two random orders agree in one place on average; in 20 less than once in 10^18 times.
    agreeing = (orders[:, None] == orders[None]).sum(-1)
    assert np.argwhere(np.triu(agreeing, 1) >= 20).tolist() == []


@pytest.mark.parametrize("count", [1_437, 50_000])
def test_an_order_tells_nothing_of_another(count):
    """Correlations of independent orders are 0 with a standard deviation of 1 / sqrt(count)."""
    orders = [order(count, *key) for key in ((0, 0), (0, 1), (0, 2), (1, 0))]
    for one, other in itertools.combinations([*orders, np.arange(count)], 2):
        assert abs(np.corrcoef(one, other)[0, 1]) * count**0.5 < 6
    # Neither do neighbours know of each other.
    for samples in orders:
        assert abs(np.corrcoef(samples[:-1], samples[1:])[0, 1]) * count**0.5 < 6


@pytest.mark.parametrize("count, draws", [(2, 100), (3, 120), (4, 240)])
def test_all_orders_occur_equally_often(count, draws):
    counts = Counter(tuple(order(count, key % 10, key // 10)) for key in range(draws))
    assert_equally_often([counts[samples] for samples in itertools.permutations(range(count))])


# Classes of 1, 2, 5 and 12 samples in no order; ids of any values.
LABELS = np.array([7, 1000, 7, -2, 7, 1000, 7, 0, 7] + [1000] * 8 + [7, 1000, -2])


def drawn(anchor, count=20_000, seed=(1, 2), labels=LABELS):
    anchors = tf.fill([count], tf.constant(anchor, tf.int64))
    return ClassSampler(labels).draw_other_class(anchors, tf.constant(seed, tf.int64)).numpy()


@pytest.mark.parametrize("label", [-2, 0, 7, 1000])
def test_negatives_are_uniform_over_all_samples_of_all_other_classes(label):
    anchor = int(np.flatnonzero(LABELS == label)[-1])
    counts = np.bincount(drawn(anchor), minlength=len(LABELS))
    assert counts[LABELS == label].sum() == 0
    assert_equally_often(counts[LABELS != label])


@pytest.mark.parametrize("labels, anchor, negative", [([5, 5, 5, -1], 1, 3), ([5, -1, -1, -1], 2, 0), ([1, 0], 0, 1)])
def test_a_single_sample_of_another_class_is_always_the_negative(labels, anchor, negative):
    assert set(drawn(anchor, 100, labels=labels)) == {negative}


def test_each_anchor_of_a_batch_has_its_own_negative():
    anchors = tf.tile(tf.range(len(LABELS), dtype=tf.int64), [500])
    negatives = ClassSampler(LABELS).draw_other_class(anchors, tf.constant([0, 0], tf.int64)).numpy()
    assert negatives.dtype == np.int64
    assert (LABELS[anchors] != LABELS[negatives]).all()
    # Neighbours' draws tell nothing of each other: anchors 2 and 4 are of class 7, with 15 others each.
    table = negatives.reshape(500, -1)
    others = np.flatnonzero(LABELS != 7)
    pairs = np.searchsorted(others, table[:, 2]) // 5 * 3 + np.searchsorted(others, table[:, 4]) // 5
    assert_equally_often(np.bincount(pairs, minlength=9))


def test_the_seed_alone_decides():
    np.testing.assert_array_equal(drawn(0), drawn(0))
    # Two independent draws out of m others agree in 1 of m cases: over 20,000, within 6 deviations.
    others = (LABELS != LABELS[0]).sum()
    for seed in ((1, 3), (2, 2), (2, 1)):
        share = (drawn(0) == drawn(0, seed=seed)).mean()
        assert abs(share - 1 / others) < 6 * (1 / others / 20_000) ** 0.5


@pytest.mark.parametrize("labels", [[3, 3, 3], [0]])
def test_one_class_has_no_negatives(labels):
    with pytest.raises(ValueError, match=f"two classes.*{labels[0]}"):
        check_two_classes(labels)
    with pytest.raises(tf.errors.InvalidArgumentError, match="two classes"):
        drawn(0, 5, labels=labels)


def drawn_mates(anchor, count=20_000, seed=(1, 2)):
    anchors = tf.fill([count], tf.constant(anchor, tf.int64))
    return ClassSampler(LABELS).draw_same_class(anchors, tf.constant(seed, tf.int64)).numpy()


@pytest.mark.parametrize("label", [-2, 7, 1000])
def test_samples_of_the_same_class_are_uniform_over_its_others(label):
    same_class = np.flatnonzero(LABELS == label)
    for anchor in (same_class[0], same_class[-1], same_class[len(same_class) // 2]):
        counts = np.bincount(drawn_mates(int(anchor)), minlength=len(LABELS))
        mates = same_class[same_class != anchor]
        assert counts.sum() == counts[mates].sum()
        if len(mates) > 1:
            assert_equally_often(counts[mates])


def test_a_sample_that_is_alone_in_its_class_is_its_own_mate():
    alone = int(np.flatnonzero(LABELS == 0)[0])
    assert set(drawn_mates(alone, 100)) == {alone}
    one_class = ClassSampler([3, 3]).draw_same_class(tf.constant([0, 1], tf.int64), tf.constant([0, 0]))
    assert one_class.numpy().tolist() == [1, 0]


def test_earlier_equals_by_hand():
    assert _count_earlier_equals(tf.constant([4, 2, 4, 4, 2, 9])).numpy().tolist() == [0, 0, 1, 2, 1, 0]


def class_order(per_batch, per_class, labels=LABELS, seed=0):
    return ClassOrder(labels, per_batch, per_class, seed, seed + 2**30)


# Of the four classes, of 1, 2, 5 and 12 samples. Rounds of ceil(4 / P) batches of P K samples, until 20 are shown.
@pytest.mark.parametrize(
    "per_batch, per_class, rounds, round_steps",
    [(4, 1, 5, 1), (4, 3, 2, 1), (2, 2, 3, 2), (3, 2, 2, 2), (3, 4, 1, 2), (1, 1, 5, 4), (4, 100, 1, 1)],
)
def test_class_order_keeps_its_promises(per_batch, per_class, rounds, round_steps):
    order = class_order(per_batch, per_class)
    assert order.batch_size == per_batch * per_class
    assert order.count == rounds * round_steps * order.batch_size
    for epoch in (0, 1, 5):
        samples = order(epoch).numpy()
        assert samples.dtype == np.int64 and samples.shape == (order.count,)
        np.testing.assert_array_equal(samples, order(tf.constant(epoch, tf.int64)))
        classes = LABELS[samples].reshape(rounds, round_steps, per_batch, per_class)
        assert np.all(classes == classes[..., :1])
        for row in classes[..., 0]:
            # Each batch of different classes, each round of all of them, once or, to fill it, twice.
            assert all(len(set(batch)) == per_batch for batch in row.tolist())
            counts = Counter(row.ravel().tolist())
            assert set(counts) == set(LABELS) and set(counts.values()) <= {1, 2}
            assert sum(counts.values()) == round_steps * per_batch
        for label in np.unique(LABELS):
            shown = samples[LABELS[samples] == label]
            size = (LABELS == label).sum()
            # Walk after walk through the class, each the same permutation.
            assert len(set(shown[:size].tolist())) == min(size, len(shown))
            np.testing.assert_array_equal(shown, np.resize(shown[:size], len(shown)))
            in_batch = shown.reshape(-1, per_class)
            assert all(len(set(row)) == min(per_class, size) for row in in_batch.tolist())


def test_class_orders_differ_between_epochs_and_seeds():
    orders = [class_order(2, 2, seed=seed)(epoch).numpy() for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6


def test_classes_meet_equally_often_and_samples_come_equally_often():
    labels = np.repeat(np.arange(4), 3)

    def orders(labels):
        order = tf.function(class_order(2, 1, labels))
        return np.stack([order(epoch).numpy() for epoch in tf.range(200, dtype=tf.int64)])

    # Batches of two classes with one sample each, rounds of two batches: three rounds show twelve samples.
    epochs = orders(labels)
    batches = np.sort(labels[epochs].reshape(-1, 2), axis=1)
    met = Counter(map(tuple, batches.tolist()))
    # A round is one of three ways to make two pairs of four classes.
    ways = [met[(0, 1)], met[(0, 2)], met[(0, 3)]]
    assert ways == [met[(2, 3)], met[(1, 3)], met[(1, 2)]] and sum(ways) == 600
    assert_equally_often(ways)
    # Three samples of each class in an epoch: all of three, and any three of four.
    assert np.array_equal(np.bincount(epochs.ravel()), np.full(12, 200))
    shown = np.bincount(orders(np.repeat(np.arange(2), [4, 2])).ravel(), minlength=6)
    assert shown[:4].sum() == shown[4:].sum() == 600
    assert_equally_often(shown[:4])


@pytest.mark.parametrize("per_batch, per_class", [(0, 1), (5, 1), (2, 0), (-1, 3)])
def test_class_order_out_of_range(per_batch, per_class):
    with pytest.raises(ValueError, match=f"classes_per_batch={per_batch}, samples_per_class={per_class}, .* 4 classes"):
        class_order(per_batch, per_class)
