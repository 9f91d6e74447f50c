"""What is measured on images that no model was trained on."""

import keras
import numpy as np
import pytest
from keras import layers
from scipy import stats
from worker_threads import run_workers

from keras_tkd import evaluation


class Recorder(keras.Model):
    """Sums each image's pixels into two classes; keeps each batch's size and whether it trained."""

    def __init__(self, as_dict=False, **arguments):
        super().__init__(**arguments)
        self.as_dict, self.seen = as_dict, []

    def call(self, x, training=None):
        self.seen.append((x.shape[0], training))
        total = keras.ops.sum(keras.ops.cast(x, self.compute_dtype), axis=(1, 2, 3))
        logits = keras.ops.stack([total, -total], axis=-1)
        return {"logits": logits, "other": total} if self.as_dict else logits


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("batch_size, batches", [(4, [4, 4, 2]), (5, [5, 5]), (10, [10]), (256, [10])])
def test_logits_of_all_images_in_batches(batch_size, batches, as_dict):
    images = np.arange(10 * 4, dtype="uint8").reshape(10, 2, 2, 1)
    model = Recorder(as_dict)
    outputs = evaluation.logits(model, images, batch_size)
    assert model.seen == [(size, False) for size in batches]
    # Image i holds 4i, 4i + 1, 4i + 2, 4i + 3: their sum is 16i + 6.
    sums = 16.0 * np.arange(10) + 6
    np.testing.assert_array_equal(outputs, np.stack([sums, -sums], axis=-1))
    assert outputs.dtype == np.float32


def test_images_of_another_size_are_resized():
    """A model of four pixels on images of sixteen in one colour, which resizing leaves as they are."""
    model = keras.Sequential([keras.Input((2, 2, 1)), layers.Flatten(), layers.Dense(2, kernel_initializer="ones")])
    images = np.repeat(np.arange(3, dtype="uint8"), 16).reshape(3, 4, 4, 1)
    np.testing.assert_allclose(evaluation.logits(model, images), [[0, 0], [4, 4], [8, 8]], rtol=1e-6)


def test_logits_of_a_low_precision_model_are_float32():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, dtype="mixed_bfloat16")])
    outputs = evaluation.logits(model, np.ones((3, 2), "float32"))
    assert isinstance(outputs, np.ndarray) and outputs.dtype == np.float32


@pytest.mark.parametrize("batch_size", [2, 256])
def test_embeddings_are_a_layers_outputs(batch_size):
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(2, use_bias=False, name="embedding")], name="backbone")
    model = keras.Sequential([keras.Input((3,)), inner, layers.Dense(2, activation="softmax", name="logits")])
    kernel = np.arange(6.0).reshape(3, 2)
    inner.set_weights([kernel])
    images = np.arange(15, dtype="uint8").reshape(5, 3)
    outputs = evaluation.embeddings(model, images, "backbone/embedding", batch_size)
    np.testing.assert_array_equal(outputs, images @ kernel)
    assert outputs.dtype == np.float32
    np.testing.assert_array_equal(evaluation.embeddings(inner, images), images @ kernel)
    with pytest.raises(ValueError, match="no output of that name.*'embedding'.*'backbone'"):
        evaluation.embeddings(model, images)


def test_accuracy_and_agreement():
    outputs = np.array([[1, 3, 2], [5, 0, 0], [-3, -2, -1], [0, 1, 0]])  # classes 1, 0, 2, 1
    assert evaluation.accuracy(outputs, [1, 0, 0, 2]) == 0.5
    assert evaluation.accuracy(outputs, np.array([1, 0, 2, 1])) == 1.0
    assert evaluation.accuracy(outputs, [0, 1, 0, 0]) == 0.0
    teacher = np.array([[0, 9, 0], [0, 9, 0], [0, 9, 0], [0, 9, 0]])  # class 1 four times
    assert evaluation.agreement(outputs, teacher) == 0.5
    assert evaluation.agreement(outputs, 7 * outputs) == 1.0


def test_standard_error():
    assert evaluation.standard_error(0.1, 10_000) == pytest.approx(0.003)  # sqrt(0.1 * 0.9 / 10,000)
    assert evaluation.standard_error(1.0, 50) == 0.0


@pytest.mark.parametrize(
    "counts, below, above",
    [
        # 10 classes of 1,000: 0.1 + 2 * sqrt(0.09 / 10,000) = 0.1 + 2 * 0.003 = 0.1060
        ([1_000] * 10, 0.1059, 0.1061),
        # 10 classes of 36: 0.1 + 2 * sqrt(0.09 / 360) = 0.1 + 2 * 0.01581 = 0.1316
        # 47 right are 0.1306, 48 are 0.1333
        ([36] * 10, 47 / 360, 48 / 360),
        # 90 of 100 in one class: 0.9 + 2 * sqrt(0.09 / 100) = 0.9 + 2 * 0.03 = 0.96
        ([90, 10], 0.95, 0.97),
        # 300 and 100: 0.75 + 2 * sqrt(0.1875 / 400) = 0.75 + 2 * 0.02165 = 0.7933
        ([100, 300], 0.7932, 0.7934),
    ],
)
def test_at_chance_up_to_two_standard_errors_above_the_commonest_class(counts, below, above):
    labels = np.repeat(np.arange(len(counts)) * 5 - 2, counts)  # class ids of any values
    assert evaluation.at_chance(below, labels) is True
    assert evaluation.at_chance(0.0, labels) is True
    assert evaluation.at_chance(above, labels) is False


@pytest.mark.parametrize(
    "counts, below, above",
    [
        # Two standard errors above one half are 0.5 + 2 * sqrt(0.25 / 4) = 1: three of four say more than one class.
        ([2, 2], 2 / 4, 3 / 4),
        # 0.9 + 2 * sqrt(0.09 / 10) = 1.0897: nine of ten is what naming one class reaches.
        ([9, 1], 9 / 10, 10 / 10),
        # 0.9 + 2 * sqrt(0.09 / 50) = 0.9849: 49 of 50 are below.
        ([45, 5], 49 / 50, 50 / 50),
        # 4 classes of one image each: 0.25 + 2 * sqrt(0.1875 / 4) = 0.683.
        ([1, 1, 1, 1], 2 / 4, 3 / 4),
    ],
)
def test_of_a_small_or_unbalanced_set_what_naming_one_class_reaches_is_chance(counts, below, above):
    labels = np.repeat(np.arange(len(counts)), counts)
    # As Keras logs them, too.
    for cast in (float, np.float32):
        assert evaluation.at_chance(cast(below), labels) is True
        assert evaluation.at_chance(cast(above), labels) is False
    # Of a single class nothing but that class can be named.
    assert evaluation.at_chance(1.0, np.zeros(sum(counts))) is True


def by_recalls(counts, table):
    """`at_chance` of a model that names class c for `table[i][c]` images of class i."""
    labels = np.repeat(np.arange(len(counts)), counts)
    predicted = np.concatenate([np.repeat(np.arange(len(row)), row) for row in table])
    return evaluation.at_chance(np.mean(labels == predicted), labels, predicted)


class TestAtChanceByRecalls:
    def test_a_model_that_finds_the_rare_class_is_not(self):
        # 49 of 50 right, recalls 1 and 0.8. Guesses that name the second class in 4 of 50: mean recall 1 / 2, deviation
        # sqrt(0.92 * 0.08 / 45 + 0.92 * 0.08 / 5) / 2 = 0.0640.
        assert by_recalls([45, 5], [[45, 0], [1, 4]]) is False
        # 80 of 100 right, where naming one class is right for 90; recalls 0.8 and 0.8 against 1 / 2 + 2 * 0.0731:
        # named in 26 of 100, sqrt(0.74 * 0.26 / 90 + 0.74 * 0.26 / 10) / 2.
        assert by_recalls([90, 10], [[72, 18], [2, 8]]) is False

    def test_a_model_that_names_one_class_is(self):
        assert by_recalls([45, 5], [[45, 0], [5, 0]]) is True
        assert by_recalls([2, 2], [[0, 2], [0, 2]]) is True
        # A class that no image is of: recalls of 0.
        assert by_recalls([30, 30], [[0, 0, 30], [0, 0, 30]]) is True

    def test_a_model_that_guesses_is(self):
        # Names the second class in a tenth of the images of either class; and a little luck: 11 and 2 of 90 and 10,
        # recalls 0.8778 and 0.2 against 1 / 2 + 2 * sqrt(0.87 * 0.13 / 90 + 0.87 * 0.13 / 10) / 2 = 0.612.
        assert by_recalls([90, 10], [[81, 9], [9, 1]]) is True
        assert by_recalls([90, 10], [[79, 11], [8, 2]]) is True

    # Rows are classes. The p-values are 0.0025, 0.14, 0.0052, 0.14, 0.0082, 0.047, 0.012, 0.095, 0.0060, 0.71; naming
    # one class alone is right more often.
    @pytest.mark.parametrize(
        "table",
        [
            *([[40, 5], [1, 4]], [[40, 5], [3, 2]], [[85, 5], [6, 4]], [[85, 5], [8, 2]], [[45, 0], [3, 2]]),
            *([[72, 18], [5, 5]], [[72, 18], [4, 6]], [[60, 30], [4, 6]], [[60, 30], [2, 8]], [[7, 2], [3, 1]]),
        ],
    )
    def test_of_two_classes_it_is_fishers_exact_test(self, table):
        p = stats.fisher_exact(table, alternative="greater").pvalue
        # Of 999 pairings the share that reaches as high is within 0.012 of it, but for one in ten thousand.
        assert by_recalls([sum(row) for row in table], table) is bool(p > 0.025)

    def test_random_guesses_are_as_a_rule(self):
        """Of guesses with every frequency about one in forty is above two standard errors."""
        rng = np.random.default_rng(0)
        labels = np.repeat(np.arange(3), [300, 60, 40])
        found = []
        for shares in rng.dirichlet(np.ones(3), 400):
            predicted = rng.choice(3, len(labels), p=shares)
            found.append(evaluation.at_chance(np.mean(labels == predicted), labels, predicted))
        assert np.mean(found) > 0.93


def test_workers_share_out_the_batches_and_all_have_all():
    images = np.arange(11 * 4, dtype="uint8").reshape(11, 2, 2, 1)
    expected = evaluation.logits(Recorder(), images)

    def predict(worker):
        model = Recorder()
        outputs = evaluation.logits(model, images, 2, worker)
        labels = evaluation.predict_labels(model, images, True, 2, worker)
        classes = evaluation.predict_classes(model, images, 6, worker)
        return outputs, labels, classes, [size for size, _ in model.seen], worker.gathered

    # Six batches of two, one and none left over; and two of six, which three workers do not share.
    for outputs, labels, classes, sizes, gathered in (found := run_workers(3, predict)):
        np.testing.assert_array_equal(outputs, expected)
        np.testing.assert_array_equal(labels, expected > 0)
        np.testing.assert_array_equal(classes, expected.argmax(-1))
        assert labels.dtype == np.uint8 and sizes[-2:] == [6, 5] and gathered == 2
    assert [sizes[:4] for *_, sizes, _ in found] == [[2, 2, 2, 2], [2, 2, 2, 2], [2, 1, 2, 1]]
