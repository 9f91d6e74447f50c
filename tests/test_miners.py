"""Who is whose negative or positive inside a batch."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chi2

from keras_tkd.miners import (
    MINERS,
    POSITIVE_MINERS,
    count_up_to,
    every_other_class,
    every_same_class,
    fair_coin,
    farthest_same_class,
    hard,
    random_other_class,
    random_same_class,
    semi_hard,
)

MODES = {
    "eager": random_other_class,
    "function": tf.function(random_other_class),
    "jit": tf.function(random_other_class, jit_compile=True),
}
every_mode = pytest.mark.parametrize("mode", MODES)


def mine(labels, seed=(0, 0), mode="eager"):
    index, valid = MODES[mode](tf.constant(labels), tf.constant(seed))
    assert index.dtype == "int32" and valid.dtype == "bool"
    assert index.shape == valid.shape == (len(labels),)
    return index.numpy(), valid.numpy()


def test_table_of_miners():
    assert MINERS == {"random": random_other_class, "semi_hard": semi_hard, "hard": hard, "all": every_other_class}
    assert set(POSITIVE_MINERS) == set(MINERS)


@every_mode
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_never_the_anchors_class(mode, classes):
    labels = np.random.default_rng(0).integers(0, classes, 50)
    assert len(set(labels)) == classes
    for step in range(20):
        index, valid = mine(labels, (1, step), mode)
        assert valid.all()
        assert np.all(labels[index] != labels)


@every_mode
def test_a_lonely_class_in_the_batch(mode):
    """One row against all others: it may choose, they may not."""
    index, valid = mine([4, 4, 9, 4, 4], mode=mode)
    assert valid.all()
    assert index[[0, 1, 3, 4]].tolist() == [2, 2, 2, 2]
    assert index[2] in (0, 1, 3, 4)


def chi_square(counts):
    """Sum of (observed - expected)^2 / expected, all cells expected alike."""
    expected = np.sum(counts) / np.size(counts)
    return np.sum((counts - expected) ** 2 / expected)


def draws(labels, seeds, jit_compile=False, draw=lambda labels, seed: random_other_class(labels, seed)[0]):
    """One row of choices per seed."""
    labels = tf.constant(labels)

    @tf.function(jit_compile=jit_compile)
    def run(seeds):
        return tf.map_fn(lambda seed: tf.cast(draw(labels, seed), "int32"), seeds, fn_output_signature="int32")

    return run(tf.constant(seeds)).numpy()


# How often a chi-square statistic may exceed its threshold where all is as it should be. The seeds are fixed:
# a test that passes keeps passing, and one that fails has found a miner that prefers some rows.
RARE = 1e-5


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("varies", ["seed", "step"])
def test_uniform_over_all_rows_of_other_classes(varies, jit_compile):
    """Classes of unequal sizes, mixed: each row of another class is as likely as the next."""
    labels = np.array([0, 1, 0, 2, 0, 1, 0, 0, 1, 2, 0, 1])
    numbers = np.arange(3000)
    fixed = np.full(3000, 17)
    seeds = np.stack([numbers, fixed] if varies == "seed" else [fixed, numbers], axis=1)
    chosen = draws(labels, seeds, jit_compile)
    for row, label in enumerate(labels):
        counts = np.bincount(chosen[:, row], minlength=len(labels))
        others = labels != label
        assert counts[~others].sum() == 0
        assert chi_square(counts[others]) < chi2.isf(RARE, others.sum() - 1), f"row {row}: {counts}"


def test_rows_choose_independently():
    """Rows 0 and 2 are of one class and have the same six candidates: all 36 pairs of choices are alike."""
    labels = np.array([0, 1, 0, 2, 0, 1, 0, 0, 1, 2, 0, 1])
    chosen = draws(labels, np.stack([np.arange(3600), np.zeros(3600, int)], axis=1))
    pairs = np.zeros((12, 12))
    np.add.at(pairs, (chosen[:, 0], chosen[:, 2]), 1)
    candidates = np.flatnonzero(labels != 0)
    assert chi_square(pairs[np.ix_(candidates, candidates)]) < chi2.isf(RARE, 35)


def test_consecutive_steps_choose_independently():
    labels = np.array([0, 1, 1, 1, 1, 2, 2])
    chosen = draws(labels, np.stack([np.zeros(3600, int), np.arange(3600)], axis=1))[:, 0] - 1
    pairs = np.zeros((6, 6))
    np.add.at(pairs, (chosen[:-1], chosen[1:]), 1)
    assert chi_square(pairs) < chi2.isf(RARE, 35)


@every_mode
def test_same_seed_same_negatives(mode):
    labels = np.random.default_rng(0).integers(0, 5, 60)
    first, _ = mine(labels, (3, 4), mode)
    again, _ = mine(labels, (3, 4), mode)
    assert np.array_equal(first, again)
    # 60 rows with about 48 candidates each: another seed agrees by chance in one row or two.
    for other in [(3, 5), (4, 4), (4, 3), (-3, 4), (0, 0)]:
        index, _ = mine(labels, other, mode)
        assert np.sum(index == first) < 15, other


def test_every_mode_picks_the_same_negatives():
    """A run that is compiled differently is still the same run."""
    labels = np.random.default_rng(0).integers(0, 5, 60)
    expected, _ = mine(labels, (3, 4))
    for mode in MODES:
        assert np.array_equal(mine(labels, (3, 4), mode)[0], expected), mode


NAMES = {
    "negative": np.array([-1, -2, -3]),
    # Beyond int32, and closer to each other than float64 can tell.
    "huge": np.array([2**62, 2**62 + 1, 2**62 - 1]),
    "int64's ends": np.array([-(2**63), 0, 2**63 - 1]),
    "float32": np.array([0.1, 0.25, -3.5], "float32"),
    "float64": np.array([1e300, -1e300, 0.0]),
    "uint8": np.array([0, 128, 255], "uint8"),
    "int8": np.array([-128, 0, 127], "int8"),
    "int32": np.array([2**31 - 1, -(2**31), 7], "int32"),
}


@pytest.mark.parametrize("names", NAMES)
def test_any_number_may_name_a_class(names):
    classes = np.random.default_rng(0).integers(0, 3, 40)
    index, valid = mine(NAMES[names][classes])
    assert valid.all()
    assert np.all(classes[index] != classes)
    # About 13 anchors of each class meet both other classes.
    met = set(zip(classes.tolist(), classes[index].tolist(), strict=True))
    assert met == {(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)}


@every_mode
@pytest.mark.parametrize("labels", [[7], [0], [-1], [3, 3, 3, 3], [0.5, 0.5]], ids=str)
def test_batch_of_a_single_class_has_no_negatives(mode, labels):
    index, valid = mine(labels, mode=mode)
    assert not valid.any()
    # Meaningless, but fit to gather with.
    assert np.all((index >= 0) & (index < len(labels)))


def test_unknown_batch_size():
    traces = []

    @tf.function(input_signature=[tf.TensorSpec([None], "int64"), tf.TensorSpec([2], "int64")])
    def run(labels, seed):
        traces.append("a trace runs this line, a call of the graph does not")
        return random_other_class(labels, seed)

    for rows in (2, 5, 33):
        labels = np.arange(rows) % 2
        index, valid = run(tf.constant(labels), tf.constant([5, 6], "int64"))
        assert np.array_equal(index, mine(labels, (5, 6))[0])
        assert np.all(labels[index.numpy()] != labels) and valid.numpy().all()
    index, valid = run(tf.constant([1], "int64"), tf.constant([5, 6], "int64"))
    assert index.shape == (1,) and valid.numpy().tolist() == [False]
    assert len(traces) == 1


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_empty_batch_has_no_negatives(mode):
    """A replica without samples, as the last batch of an epoch may leave one."""
    mine(np.zeros(0, "int32"), mode=mode)


# Positives


LABELS = np.array([0, 1, 0, 2, 0, 1, 0, 0, 1, 2, 0, 1, 9])


@pytest.mark.parametrize("jit_compile", [False, True])
def test_positives_are_uniform_over_the_other_rows_of_the_class(jit_compile):
    seeds = np.stack([np.full(3000, 3), np.arange(3000)], axis=1)
    chosen = draws(LABELS, seeds, jit_compile, lambda labels, seed: random_same_class(labels, seed)[0])
    for row, label in enumerate(LABELS[:-1]):
        counts = np.bincount(chosen[:, row], minlength=len(LABELS))
        mates = (LABELS == label) & (np.arange(len(LABELS)) != row)
        assert counts[~mates].sum() == 0
        # The classes of two leave no choice.
        assert mates.sum() == 1 or chi_square(counts[mates]) < chi2.isf(RARE, mates.sum() - 1), f"row {row}: {counts}"


@pytest.mark.parametrize("mode", ["eager", "function", "jit"])
def test_a_row_that_is_alone_in_its_class_is_its_own_positive(mode):
    run = random_same_class if mode == "eager" else tf.function(random_same_class, jit_compile=mode == "jit")
    for seed in range(5):
        index, valid = run(tf.constant(LABELS), tf.constant([seed, 0]))
        assert index.dtype == "int32" and valid.dtype == "bool"
        assert valid.numpy().tolist() == [True] * 12 + [False]
        assert index[-1] == 12
    assert run(tf.constant([5, 5]), tf.constant([0, 0]))[0].numpy().tolist() == [1, 0]
    if mode != "jit":
        assert run(tf.zeros([0], "int32"), tf.constant([0, 0]))[0].shape == (0,)


def test_negative_positive_and_coin_of_one_seed_are_independent():
    """Row 0 of class 0 has four mates, five others, and a coin: all 40 outcomes are alike."""
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2, 2])

    def outcome(labels, seed):
        negative, positive = random_other_class(labels, seed)[0], random_same_class(labels, seed)[0]
        return (negative - 5) * 8 + (positive - 1) * 2 + tf.cast(fair_coin(labels, seed), "int32")

    counts = np.bincount(draws(labels, np.stack([np.arange(4000)] * 2, axis=1), draw=outcome)[:, 0], minlength=40)
    assert chi_square(counts) < chi2.isf(RARE, 39)


def test_coins_of_a_batch_and_of_successive_steps_are_fair():
    heads = draws(np.arange(100), np.stack([np.zeros(100, int), np.arange(100)], axis=1), draw=fair_coin)
    # 10,000 fair coins: a standard deviation of 0.005; so have the shares of neighbours that agree.
    for share in (heads.mean(), (heads[1:] == heads[:-1]).mean(), (heads[:, 1:] == heads[:, :-1]).mean()):
        assert abs(share - 0.5) < 0.03


# Negatives by distance


def farther_or_farthest(distances, others, positive):
    """Semi-hard as the docstring has it, row by row: the distance of the row that is chosen, or None."""
    found = [d for d, other in zip(distances, others, strict=True) if other]
    farther = [d for d in found if d > positive]
    return min(farther) if farther else max(found, default=None)


def assert_chosen(index, valid, labels, distances, expected):
    """Expected distances, None where there is nothing to choose; of equal distances any row will do."""
    for row, (place, is_valid, distance) in enumerate(zip(index, valid, expected, strict=True)):
        assert is_valid == (distance is not None)
        assert 0 <= place < len(labels)
        if is_valid:
            assert labels[place] != labels[row] and distances[row, place] == distance


CLASSES = {
    "three": np.random.default_rng(0).integers(0, 3, 17),
    "lonely": np.array([4, 4, 9, 4, 4]),
    "each its own": np.arange(6),
    "one": np.array([3, 3, 3]),
    "a single row": np.array([3]),
}


# One compilation for each combination: few of them.
COMBINATIONS = [("eager", dtype, list(CLASSES)) for dtype in ("float16", "float32", "float64")]
COMBINATIONS += [("function", "float32", ["three"]), ("jit", "float32", ["three"])]


@pytest.mark.parametrize("mode, dtype, batches", COMBINATIONS)
@pytest.mark.parametrize("spread", ["continuous", "ties", "infinite"])
def test_choices_by_distance_against_brute_force(mode, dtype, batches, spread):
    rng = np.random.default_rng(1)
    for labels in map(CLASSES.get, batches):
        n = len(labels)
        distances = rng.integers(0, 4, (n, n)) if spread == "ties" else rng.uniform(0, 5, (n, n))
        distances, positive = distances.astype(dtype), distances[:, 0].astype(dtype)
        if spread == "infinite":
            distances[:] = np.inf
        others = labels[:, None] != labels
        expected = {
            hard: [min(d[o], default=None) for d, o in zip(distances, others, strict=True)],
            semi_hard: [farther_or_farthest(*row) for row in zip(distances, others, positive, strict=True)],
        }
        for miner, choices in expected.items():
            run = miner if mode == "eager" else tf.function(miner, jit_compile=mode == "jit")
            index, valid = run(*map(tf.constant, (labels, [0, 0], distances, positive)))
            assert index.dtype == "int32" and valid.dtype == "bool"
            assert_chosen(index.numpy(), valid.numpy(), labels, distances, choices)


def test_semi_hard_by_hand():
    labels = np.array([0, 1, 1, 1, 0])
    distances = np.array([[9.0, 1.0, 2.0, 3.0, 0.0]] * 5)
    # Of 1, 2, 3: the next beyond 0.5, beyond 1 (not 1 itself), beyond 2.5; none beyond 3, so the farthest.
    for positive, chosen in [(0.5, 1), (1.0, 2), (2.5, 3), (3.0, 3), (4.0, 3)]:
        index, valid = semi_hard(labels, None, distances, np.full(5, positive))
        assert index[0] == chosen and valid[0]


def test_semi_hard_for_several_positives_of_an_anchor():
    rng = np.random.default_rng(2)
    labels, distances, positives = np.arange(7) % 3, rng.uniform(size=(7, 7)), rng.uniform(size=(7, 4))
    index, valid = semi_hard(labels, distances=distances, positive_distances=positives)
    assert index.shape == valid.shape == (7, 4)
    for column in range(4):
        one, also = semi_hard(labels, distances=distances, positive_distances=positives[:, column])
        assert np.array_equal(index[:, column], one) and np.array_equal(valid[:, column], also)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_all_rows_of_other_classes(jit_compile):
    index, valid = tf.function(every_other_class, jit_compile=jit_compile)(tf.constant([5, 7, 5]))
    assert index.dtype == "int32" and valid.dtype == "bool"
    assert index.numpy().tolist() == [[0, 1, 2]] * 3
    assert valid.numpy().tolist() == [[False, True, False], [True, False, True], [False, True, False]]


@pytest.mark.parametrize("mode", ["eager", "function", "jit"])
def test_other_rows_of_the_class(mode):
    def run(labels, distances):
        return every_same_class(labels), farthest_same_class(labels, None, distances)

    run = run if mode == "eager" else tf.function(run, jit_compile=mode == "jit")
    # The row itself, at 9, is no positive; rows 0, 2 and 3 are of one class, row 1 is alone.
    distances = [[9.0, 8.0, 1.0, 2.0], [0.0] * 4, [0.0, 5.0, 9.0, 0.0], [3.0, 7.0, 3.5, 9.0]]
    (index, valid), (farthest, exists) = run(tf.constant([4, 6, 4, 4]), tf.constant(distances))
    assert index.dtype == farthest.dtype == "int32" and valid.dtype == exists.dtype == "bool"
    assert index.numpy().tolist() == [[0, 1, 2, 3]] * 4
    assert valid.numpy().astype(int).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [1, 0, 1, 0]]
    assert exists.numpy().tolist() == [True, False, True, True]
    assert farthest.numpy()[[0, 2, 3]].tolist() == [3, 0, 2]


ANY = {**MINERS, "same": random_same_class, "farthest": farthest_same_class}


INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


@pytest.mark.parametrize(
    "dtype, jit_compile", [(dtype, False) for dtype in INTEGERS] + [("int8", True), ("uint16", True), ("uint64", True)]
)
def test_labels_of_any_integer_dtype(dtype, jit_compile):
    """Ids at both ends of the type's range; every miner chooses as for the same classes named 0, 1, 2."""
    classes = np.random.default_rng(0).integers(0, 3, 9)
    ends = np.iinfo(dtype)
    labels = np.array([ends.min, ends.max, ends.max - 1], dtype)[classes]
    distances = np.random.default_rng(1).uniform(size=(9, 9))

    @tf.function(jit_compile=jit_compile)
    def run(labels):
        return {name: miner(labels, [1, 2], distances, distances[:, 3]) for name, miner in ANY.items()}

    for name, (index, valid) in run(tf.constant(labels)).items():
        index, valid = (np.array(x).reshape(9, -1) for x in (index, valid))
        expected = ANY[name](classes, [1, 2], distances, distances[:, 3])
        assert np.array_equal(valid, np.array(expected[1]).reshape(9, -1))
        same = classes[index] == classes[:, None]
        assert np.all(same[valid] == (name in ("same", "farthest")))


def test_every_miner_takes_batches_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec([None], "int64"), tf.TensorSpec([None, None]), tf.TensorSpec([None])])
    def run(labels, distances, positives):
        return {name: miner(labels, [0, 1], distances, positives) for name, miner in ANY.items()}

    for rows in (6, 1, 0):
        distances = np.random.default_rng(rows).uniform(size=(rows, rows)).astype("float32")
        arguments = np.arange(rows) % 2, distances, np.full(rows, 0.5, "float32")
        for name, (index, valid) in run(*arguments).items():
            expected_shape = (rows, rows) if name == "all" else (rows,)
            assert index.shape == valid.shape == expected_shape
            expected = ANY[name](arguments[0], [0, 1], *arguments[1:])
            assert np.array_equal(index, expected[0]) and np.array_equal(valid, expected[1])


def test_count_up_to_by_hand():
    values, limits = [[3.0, 1.0, 2.0], [5.0, 5.0, np.inf]], [[0.0, 1.0, 2.5, 9.0], [4.0, 5.0, 6.0, 5.0]]
    for jit_compile in (False, True):
        counted = tf.function(count_up_to, jit_compile=jit_compile)(tf.constant(values), tf.constant(limits))
        assert counted.numpy().tolist() == [[0, 1, 2, 3], [0, 2, 2, 2]]


@pytest.mark.parametrize(
    "miner, missing",
    [
        (random_other_class, "seed"),
        (random_same_class, "seed"),
        (hard, "distances"),
        (farthest_same_class, "distances"),
        (semi_hard, "distances"),
        (semi_hard, "positive_distances"),
    ],
)
def test_what_a_miner_needs_must_be_given(miner, missing):
    arguments = {"seed": [0, 0], "distances": np.zeros((3, 3)), "positive_distances": np.zeros(3)}
    with pytest.raises(ValueError, match=f"`{miner.__name__}` needs `{missing}`. Received: {missing}=None"):
        miner(np.arange(3), **{**arguments, missing: None})
