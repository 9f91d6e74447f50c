"""What is measured on images that no model was trained on."""

import keras
import numpy as np
import pytest
from keras import layers

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
