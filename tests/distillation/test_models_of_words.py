"""Models that take no images: nothing runs them on random numbers, which may be no words of theirs."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_tkd import Distiller, teachers
from keras_tkd.losses import SoftTargets

WORDS = np.random.default_rng(0).integers(0, 50, (8, 6))
TEXTS = np.array([["a b"], ["b c"], ["c a"], ["a"]] * 2, object)
Y = np.arange(8) % 3
HEADS = {
    "linear": lambda: [layers.Dense(3)],
    "cast": lambda: [layers.Dense(3), layers.Dropout(0.1), layers.Activation("linear", dtype="float32")],
    # Of these, the last operation alone does not say whether it gives probabilities.
    "own function": lambda: [layers.Dense(3, lambda x: 2 * x)],
    "scaled": lambda: [layers.Dense(3), layers.Rescaling(2.0)],
}


def of_ids(name, head, dtype):
    body = [keras.Input((6,), dtype=dtype), layers.Embedding(50, 4), layers.GlobalAveragePooling1D()]
    return keras.Sequential([*body, *HEADS[head]()], name=name)


def of_texts(name, head):
    vector = layers.TextVectorization(max_tokens=5, output_sequence_length=4, vocabulary=["a", "b", "c"])
    inputs = x = keras.Input((1,), dtype="string")
    for layer in [vector, layers.Embedding(5, 4), layers.GlobalAveragePooling1D(), *HEADS[head]()]:
        x = layer(x)
    return keras.Model(inputs, x, name=name)


class OfIds(keras.Model):
    def __init__(self, name):
        super().__init__(name=name)
        self.embedding, self.head = layers.Embedding(50, 4), layers.Dense(3)

    def call(self, ids):
        return self.head(keras.ops.mean(self.embedding(ids), axis=1))


def distill(teacher, student, x):
    distiller = Distiller(teacher, student, SoftTargets())
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)
    return distiller.fit(data, validation_data=data, verbose=0).history


@pytest.mark.parametrize("dtype", ["int32", "float32"])
@pytest.mark.parametrize("head", HEADS)
def test_ids_of_a_small_vocabulary(head, dtype):
    history = distill(of_ids("teacher", head, dtype), of_ids("student", head, dtype), WORDS)
    assert history["kd"][0] > 0 and history["val_kd"][0] > 0


def test_models_without_a_graph():
    models = OfIds("teacher"), OfIds("student")
    for model in models:
        model(WORDS)
    assert distill(*models, WORDS)["kd"][0] > 0


@pytest.mark.parametrize("head", HEADS)
def test_texts(head):
    assert distill(of_texts("teacher", head), of_texts("student", head), tf.constant(TEXTS, tf.string))["kd"][0] > 0


def test_a_softmax_that_the_graph_shows_is_found_without_a_run():
    for end in ([layers.Dense(3, "softmax")], [layers.Dense(3), layers.Softmax()]):
        HEADS["softmax"] = lambda end=end: [*end, layers.Activation("linear", dtype="float32")]
        for model in (of_ids("teacher", "softmax", "int32"), of_texts("teacher", "softmax")):
            assert teachers.ends_in_softmax(model)
    del HEADS["softmax"]


class Counting(layers.Layer):
    """Counts its calls on values, not on symbols."""

    runs = 0

    def call(self, x):
        if tf.executing_eagerly() and not isinstance(x, keras.KerasTensor):
            Counting.runs += 1
        return x


@pytest.mark.parametrize("end, runs", [(layers.Dense(3), 0), (layers.Rescaling(1.0), 1)])
def test_a_model_is_run_where_its_graph_does_not_show_its_end(end, runs):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, end(Counting()(inputs)))
    Counting.runs = 0
    assert not teachers.ends_in_softmax(model)
    assert Counting.runs == runs
