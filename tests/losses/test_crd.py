"""Contrastive representation: draws, memory bank, normalizers. What holds for every loss: `test_contract.py`."""

import math

import keras
import numpy as np
import oracles
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TeacherEnsemble
from keras_tkd.losses import ContrastiveRepresentation

# Classes of 7, 4 and 1.
LABELS = [0, 2, 0, 1, 0, 0, 1, 0, 1, 0, 1, 0]


def built(width=2, **arguments):
    """Heads that change nothing but the norm."""
    arguments = {"labels": LABELS, "feature_size": width, "negatives": 4, "temperature": 0.5, **arguments}
    loss = ContrastiveRepresentation(**{"reduction": None, "dtype": "float64", **arguments})
    loss.build((None, width), (None, width))
    for head in loss.layers[:2]:
        head.set_weights([np.eye(width), np.zeros(width)])
    return loss


def bank_of(loss):
    return loss.layers[2]


def y_true_of(features, index, **more):
    return {"features": np.array(features), "labels": np.array(LABELS)[index], "index": np.array(index), **more}


def random_units(seed, count):
    return np.array([oracles.unit(row) for row in np.random.default_rng(seed).normal(size=(count, 2))])


# Draws


def test_negatives_are_of_other_classes():
    loss = built(negatives=9)
    for step in range(50):
        drawn = loss.draw(tf.constant(LABELS, "int64"), tf.constant(step)).numpy()
        assert drawn.shape == (12, 9)
        assert np.all(np.array(LABELS)[drawn] != np.array(LABELS)[:, None])


def test_negatives_are_uniform():
    """Of a sample of the class of 7 the 5 others, and so on: each as likely as the next."""
    loss = built(negatives=12)
    draws = loss.draw(tf.constant([0, 1, 2] * 1000, "int64"), tf.constant(0)).numpy().reshape(1000, 3, 12)
    for row in range(3):
        others = np.flatnonzero(np.array(LABELS) != row)
        counts = np.array([np.sum(draws[:, row] == other) for other in others])
        expected = 12000 / len(others)
        # Five standard deviations of a binomial count.
        assert np.all(np.abs(counts - expected) < 5 * math.sqrt(expected))
    # Rows, and draws of a row, are independent: two of 5 agree one time in five.
    pairs = draws[:, 0, 0] == draws[:, 0, 1]
    assert abs(pairs.mean() - 1 / 5) < 5 * math.sqrt(0.16 / 1000)


def test_seed_and_step_determine_the_draws():
    labels = tf.constant(LABELS, "int64")

    def draw(seed, step):
        return built(seed=seed, negatives=12).draw(labels, tf.constant(step)).numpy()

    assert np.array_equal(draw(3, 7), draw(3, 7))
    for other in ((3, 8), (4, 7), (7, 3)):
        assert np.mean(draw(3, 7) != draw(*other)) > 0.5
    loss = built(seed=3, negatives=12)
    for options in ({}, {"jit_compile": True}):
        compiled = tf.function(loss.draw, **options)
        assert np.array_equal(compiled(labels, tf.constant(7)), draw(3, 7))
    # The loss goes by the step it is given; none is step 0.
    values = [loss(y_true_of(np.eye(2), [0, 1], **step), np.eye(2)) for step in ({"step": 1}, {"step": 0}, {})]
    assert np.array_equal(values[1], values[2]) and not np.array_equal(values[0], values[1])


def test_classes_may_have_any_ids():
    ids = np.array([-5, 10**6, 77])
    loss = built(labels=ids[LABELS], negatives=9)
    drawn = loss.draw(tf.constant(ids[LABELS]), tf.constant(0)).numpy()
    assert np.all(np.array(LABELS)[drawn] != np.array(LABELS)[:, None])


def test_classes_that_float32_cannot_tell_apart():
    """2^24 and 2^24 + 1: the negative of each sample is the other."""
    labels = np.array([2**24, 2**24 + 1])
    loss = built(labels=labels, negatives=2, dtype="float32")
    for memory in (bank_of(loss).teacher, bank_of(loss).student):
        memory.assign(np.eye(2))
    bank_of(loss).log_normalizers.assign(np.log([2.0, 2.0]))
    bank_of(loss).normalized.assign([1.0, 1.0])
    values = loss({"features": np.eye(2), "labels": labels, "index": np.array([0, 1])}, np.eye(2))
    # Each direction, at temperature 0.5 and Z = N = M: the positive's product is 1, both negatives' are 0.
    expected = 2 * oracles.contrast([1.0, 0.0], [1.0, 0.0], [[0.0, 1.0]] * 2, 0.5, 2.0, 2)
    assert values.numpy() == pytest.approx([expected] * 2, rel=1e-6)


def test_no_more_negatives_than_samples():
    assert built(negatives=5000).draw(tf.constant([0], "int64"), tf.constant(0)).shape == (1, 12)


# Values in training


@pytest.mark.parametrize("negatives", [1, 3])
def test_value_where_nothing_is_alike(negatives):
    """All products 0: Z = M, so exp(0) / Z is the noise's 1 / M, and the odds are 1 to N.

    Each direction: log(1 + N) + N log(1 + 1 / N).
    """
    loss = built(negatives=negatives)
    for memory in (bank_of(loss).teacher, bank_of(loss).student):
        memory.assign(np.zeros((12, 2)))
    value = loss(y_true_of(np.eye(2), [0, 3]), np.eye(2), training=True)
    expected = 2 * (math.log(1 + negatives) + negatives * math.log(1 + 1 / negatives))
    assert value.numpy() == pytest.approx([expected] * 2, rel=1e-12)


def scores(embeddings, rows, index, drawn, temperature):
    """Positive first, then the negatives: `(batch, 1 + negatives)`."""
    return np.array(
        [
            [oracles.dot(v, rows[k]) / temperature for k in (i, *others)]
            for v, i, others in zip(embeddings, index, drawn, strict=True)
        ]
    )


def test_value_and_normalizers_of_the_first_two_batches():
    """The positive is the sample's own row of the other network's bank. Z is M times the first batch's mean."""
    loss = built(seed=1)
    bank = bank_of(loss)
    index = [4, 1, 8]
    normalizers = None
    for step in range(2):
        before = [random_units(10 + step, 12), random_units(20 + step, 12)]
        for memory, rows in zip((bank.teacher, bank.student), before, strict=True):
            memory.assign(rows)
        teacher, student = random_units(30 + step, 3), random_units(40 + step, 3)
        drawn = loss.draw(tf.constant(LABELS, "int64").numpy()[index], tf.constant(step)).numpy()
        if step == 0:
            both = [scores(v, rows, index, drawn, 0.5) for v, rows in zip((student, teacher), before, strict=True)]
            normalizers = [12 * np.mean(np.exp(score)) for score in both]
        expected = [
            sum(
                oracles.contrast(v[i], rows[index[i]], [rows[n] for n in drawn[i]], 0.5, z, 12)
                for v, rows, z in zip((student, teacher), before, normalizers, strict=True)
            )
            for i in range(3)
        ]
        # Three times as long vectors: the heads' outputs are brought to norm 1.
        found = loss(y_true_of(3.0 * teacher, index, step=step), 3.0 * student, training=True)
        assert found.numpy() == pytest.approx(expected, rel=1e-10)
        assert bank.log_normalizers.numpy() == pytest.approx(np.log(normalizers), rel=1e-12)
        assert bank.normalized.numpy().tolist() == [1.0, 1.0]


def test_outside_training_nothing_is_kept():
    loss = built()
    before = bank_of(loss).get_weights()
    first = loss(y_true_of(np.eye(2), [0, 3]), np.eye(2))
    assert all(np.array_equal(a, b) for a, b in zip(before, bank_of(loss).get_weights(), strict=True))
    assert np.array_equal(loss(y_true_of(np.eye(2), [0, 3]), np.eye(2), training=False), first)
    assert bank_of(loss).normalized.numpy().tolist() == [0.0, 0.0]
    # The images are none of the bank's: their index does not matter.
    assert np.array_equal(loss({**y_true_of(np.eye(2), [0, 3]), "index": np.array([11, 10])}, np.eye(2)), first)


def test_gradient_reaches_student_and_heads_alone():
    loss = built()
    student = tf.constant(random_units(5, 2))
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(y_true_of(random_units(6, 2), [0, 3]), student, training=True)
    heads = [variable for layer in loss.layers for variable in layer.trainable_variables]
    assert [tuple(variable.shape) for variable in heads] == [(2, 2), (2,), (2, 2), (2,)]
    for slope in tape.gradient(value, [student, *(variable.value for variable in heads)]):
        assert np.any(np.abs(slope) > 1e-3)


# The bank


@pytest.mark.parametrize("momentum, mode", [(0.5, "eager"), (0.0, "eager"), (0.75, "eager"), (0.5, "jit")])
def test_bank_moves_the_rows_of_the_batch(momentum, mode):
    """From (1, 0) to (0, 1): (m, 1 - m) at norm 1. The student's own embedding goes to its own bank."""
    loss = built(momentum=momentum)
    bank = bank_of(loss)
    for memory in (bank.teacher, bank.student):
        memory.assign(np.tile([1.0, 0.0], (12, 1)))
    y_true = y_true_of([[0.0, 1.0], [0.0, 5.0]], [8, 2], step=np.int64(0))
    student = np.array([[0.0, -2.0], [3.0, 0.0]])
    if mode == "jit":
        run = tf.function(lambda *pair: loss(*pair, training=True), jit_compile=True)
        run({name: tf.constant(value) for name, value in y_true.items()}, tf.constant(student))
    else:
        loss(y_true, student, training=True)
    norm = math.hypot(momentum, 1 - momentum)
    expected = np.tile([1.0, 0.0], (12, 1))
    expected[[8, 2]] = [momentum / norm, (1 - momentum) / norm]
    assert bank.teacher.numpy() == pytest.approx(expected, rel=1e-12)
    # The second stays where it is: momentum (1, 0) + (1 - momentum) (1, 0).
    expected[8], expected[2] = [momentum / norm, -(1 - momentum) / norm], [1.0, 0.0]
    assert bank.student.numpy() == pytest.approx(expected, rel=1e-12)


def test_bank_starts_spread_out():
    """Components of variance 1 / size, as those of a vector of norm 1 have."""
    loss = built(width=64, labels=[0, 1] * 100)
    teacher, student = (memory.numpy() for memory in (bank_of(loss).teacher, bank_of(loss).student))
    for rows in (teacher, student):
        # Of 12800 numbers, uniform: the variance's standard deviation is 0.8 %.
        assert np.mean(rows**2) == pytest.approx(1 / 64, rel=0.05)
        assert abs(np.mean(rows)) < 5 * math.sqrt(1 / 64 / 12800)
        assert np.max(np.abs(rows)) <= math.sqrt(3 / 64)
    assert not np.array_equal(teacher, student)


def test_a_nan_stays_out_of_the_bank():
    loss = built()
    before = [memory.numpy() for memory in (bank_of(loss).teacher, bank_of(loss).student)]
    student = np.array([[0.0, 1.0], [np.nan, 1.0]])
    value = loss(y_true_of([[np.inf, 1.0], [1.0, 0.0]], [0, 3]), student, training=True)
    assert np.all(np.isnan(value))
    after = [memory.numpy() for memory in (bank_of(loss).teacher, bank_of(loss).student)]
    assert np.array_equal(after[0][0], before[0][0]) and not np.array_equal(after[0][3], before[0][3])
    assert np.array_equal(after[1][3], before[1][3]) and not np.array_equal(after[1][0], before[1][0])
    # Nor do the normalizers come of such a batch.
    assert bank_of(loss).normalized.numpy().tolist() == [0.0, 0.0]
    assert np.all(np.isfinite(loss(y_true_of(np.eye(2), [0, 3]), np.eye(2), training=True)))
    assert bank_of(loss).normalized.numpy().tolist() == [1.0, 1.0]


# Of LABELS the first two are 0 and 2. An index of 2^32 would be 0 in 32 bits.
UNKNOWN = {
    "behind the last": (12, 0, '"index" 12 with `labels` of 12 samples'),
    "negative": (-1, 0, '"index" -1 with `labels` of 12 samples'),
    "far": (2**32, 0, '"index" 4294967296 with `labels` of 12 samples'),
    "relabelled": (1, 0, r"\"index\" 1 with another label than 2, `labels\[1\]`"),
}


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize("mode", ["eager", "graph", "jit"])
def test_samples_of_other_data_are_refused(kind, mode):
    index, label, message = UNKNOWN[kind]
    loss = built()
    before = bank_of(loss).get_weights()
    y_true = {"features": np.eye(2), "labels": np.array([0, label]), "index": np.array([0, index])}
    if mode == "eager":
        with pytest.raises(ValueError, match=f"'crd' keeps an embedding of each training sample.*{message}"):
            loss(y_true, np.eye(2), training=True)
    else:
        run = tf.function(lambda *pair: loss(*pair, training=True), jit_compile=mode == "jit")
        values = run({name: tf.constant(value) for name, value in y_true.items()}, tf.constant(np.eye(2)))
        assert np.isnan(values[1])
    assert all(np.array_equal(a, b) for a, b in zip(before, bank_of(loss).get_weights(), strict=True))


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
@pytest.mark.parametrize("ensemble", [False, True])
def test_a_fit_on_samples_of_other_data_is_refused(options, ensemble):
    def model(name):
        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)], name=name)

    teacher = TeacherEnsemble([model("a"), model("b")], average="losses") if ensemble else model("a")
    x, y = np.eye(2, dtype="float32")[[0, 1] * 6], np.array(LABELS)
    for kind, (index, label, message) in UNKNOWN.items():
        distiller = Distiller(teacher, model("s"), ContrastiveRepresentation(LABELS, 2, 3))
        distiller.compile("sgd", **options)
        moved = np.array([index, *range(1, 12)]), np.array([label, *LABELS[1:]])
        # Outside training the images are others, whose ids mean nothing to the bank.
        distiller.evaluate({"image": x, "index": moved[0]}, moved[1], verbose=0)
        before = distiller.get_weights()
        with pytest.raises(ValueError, match=message):
            distiller.fit({"image": x, "index": moved[0]}, moved[1], verbose=0)
        # Only the number of steps went on.
        changed = [not np.array_equal(a, b) for a, b in zip(before, distiller.get_weights(), strict=True)]
        assert sum(changed) <= 1, kind
    # The note is forgotten: what follows is of other data.
    assert distiller.fit({"image": x, "index": np.arange(12)}, y, verbose=0).history["crd"][0] > 0


# What is an error


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": [1, 1, 1]}, "two classes or more"),
        ({"labels": [[0, 1], [1, 0]]}, "class ids of all training samples"),
        ({"labels": []}, "two classes or more"),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\)"),
        ({"momentum": -0.1}, r"`momentum` must be in \[0, 1\)"),
        ({"negatives": 0}, "`negatives` must be >= 1"),
        ({"negatives": 2.5}, "`negatives` must be >= 1, whole numbers"),
        ({"feature_size": 0}, "`feature_size` and `negatives` must be >= 1"),
        ({"temperature": 0.0}, "`temperature` must be a number > 0"),
        ({"dtype": "float16"}, "`dtype` must be float32 or float64"),
        ({"dtype": "bfloat16"}, "`dtype` must be float32 or float64"),
    ],
)
def test_arguments_out_of_range_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        ContrastiveRepresentation(**{"labels": LABELS, **arguments})


def test_defaults_are_the_papers():
    loss = ContrastiveRepresentation(LABELS)
    assert (loss.feature_size, loss.negatives, loss.temperature, loss.momentum) == (128, 16384, 0.07, 0.5)
    assert loss.seed == 0


def test_numbers_may_be_those_of_numpy():
    loss = built(width=np.int64(3), negatives=np.int64(2), seed=np.int64(1))
    assert bank_of(loss).teacher.shape == (12, 3) and loss.draw(tf.constant([0], "int64"), 0).shape == (1, 2)


def test_layers_must_be_built():
    loss = ContrastiveRepresentation(LABELS)
    assert loss.layers == []
    with pytest.raises(ValueError, match=r"loss.build\(teacher_shape, student_shape\)"):
        loss(y_true_of(np.eye(2), [0, 3]), np.eye(2))
    for shapes in (([(None, 2)], (None, 2)), ((None, 3, 2), (None, 2)), ((None, 2), (None, 4, 4, None))):
        with pytest.raises(ValueError, match="reads one layer of each model, vectors or maps of known width"):
            loss.build(*shapes)
    loss.build((None, 4, 4, 3), (None, 2))
    layers = list(loss.layers)
    loss.build((None, 4, 4, 3), (None, 2))
    assert all(a is b for a, b in zip(loss.layers, layers, strict=True)) and len(layers) == 3


def test_inputs_are_features_labels_and_index():
    loss = ContrastiveRepresentation(LABELS, teacher_layers="t", student_layers="s")
    teacher, student = {"logits": 0, "t": "teacher's"}, {"logits": 0, "s": "student's", "step": 5}
    y_true, y_pred = loss.inputs(teacher, student, "labels", "index")
    assert y_true == {"features": "teacher's", "labels": "labels", "index": "index", "step": 5}
    assert y_pred == "student's"
    for given in ((None, "index"), ("labels", None)):
        with pytest.raises(ValueError, match="'crd' reads labels and the samples' ids"):
            loss.inputs(teacher, student, *given)
