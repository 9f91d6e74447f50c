"""Means over an epoch of losses that pick partners in the batch: over the images that have one, in whatever order."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_tkd import Distiller, TeacherEnsemble
from keras_tkd.losses import LogitRegression, PairDistillation, TripletDistillation

CLASSES = 3
LABEL_LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Batches of four: all of one class, of two, of one, of one, and two images of one.
SORTED = np.repeat(np.arange(CLASSES), 6)
SHUFFLED = np.random.default_rng(3).permutation(SORTED)


def linear(name, kernel):
    model = keras.Sequential([keras.Input((CLASSES,)), keras.layers.Dense(CLASSES, use_bias=False)], name=name)
    model.set_weights([np.asarray(kernel, "float32")])
    return model


AXES = np.eye(CLASSES)


def compiled(losses, weights=None, teacher=5.0 * AXES, student=2.0 * AXES):
    teacher = teacher if isinstance(teacher, keras.Model) else linear("teacher", teacher)
    distiller = Distiller(teacher, linear("student", student), losses, weights)
    distiller.compile(keras.optimizers.SGD(0.0), LABEL_LOSS)
    return distiller


def one_hot(labels):
    return np.eye(CLASSES, dtype="float32")[labels]


@pytest.mark.parametrize("miner", ["random", "semi_hard", "hard", "all"])
def test_the_order_of_the_validation_set_does_not_change_its_loss(miner):
    """An image's value is the same with every negative here: the classes are alike, and an image is its class."""
    # 5 from 2 on one axis, and on two: 3 - sqrt(29) + 5. The label's: -log(e^2 / (e^2 + 2)).
    tkd, label = 8 - np.sqrt(29), np.log1p(2 * np.exp(-2.0))
    distiller = compiled(TripletDistillation(margin=5.0, miner=miner), [0.5])
    for labels in (SHUFFLED, SORTED, SORTED[::-1]):
        training = one_hot(SHUFFLED), SHUFFLED
        logs = distiller.fit(*training, 4, validation_data=(one_hot(labels), labels), shuffle=False, verbose=0).history
        assert logs["val_loss"] == pytest.approx([label + 0.5 * tkd], rel=1e-6)
        assert logs["val_tkd"] == pytest.approx([tkd], rel=1e-6)
        assert logs["val_tkd_positive_distance"] == pytest.approx([3.0], rel=1e-6)
        assert logs["val_tkd_negative_distance"] == pytest.approx([np.sqrt(29)], rel=1e-6)
        assert logs["val_tkd_violated"] == [1.0]


def test_each_value_is_a_mean_over_the_images_that_it_counts():
    """By a float64 oracle of the rows: the losses' own means, the total of them, and their statistics."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(18, CLASSES)).astype("float32")
    kernels = rng.normal(size=(2, CLASSES, CLASSES)).astype("float32")
    teacher, student = (x.astype("float64") @ kernel for kernel in kernels)
    distiller = compiled([TripletDistillation(2.0, "all"), LogitRegression()], [0.5, 2.0], *kernels)
    distances = np.linalg.norm(teacher[:, None] - student, axis=-1)
    rows = []
    for start in range(0, 18, 4):
        batch = range(start, min(start + 4, 18))
        for i in batch:
            negatives = np.array([distances[i, j] for j in batch if SORTED[j] != SORTED[i]])
            if negatives.size:
                excess = distances[i, i] - negatives + 2.0
                rows.append((np.maximum(excess, 0).mean(), distances[i, i], negatives.mean(), (excess > 0).mean()))
    # The second batch alone is of two classes, two images of each.
    assert len(rows) == 4
    tkd, positive, negative, violated = np.mean(rows, axis=0)
    regression = ((student - teacher) ** 2).mean()
    label = (np.log(np.exp(student).sum(-1)) - student[np.arange(18), SORTED]).mean()
    logs = distiller.evaluate(x, SORTED, 4, verbose=0, return_dict=True)
    expected = {
        "loss": label + 0.5 * tkd + 2.0 * regression,
        "student_loss": label,
        "tkd": tkd,
        "logits": regression,
        "tkd_positive_distance": positive,
        "tkd_negative_distance": negative,
        "tkd_violated": violated,
    }
    assert {name: logs[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_pairs_count_by_their_kind():
    # Two batches: three pairs within the class at distances 1, 1, 1; then one at 4, and two of others at 2 and 6.
    images, partners = np.zeros((6, CLASSES), "float32"), np.zeros((6, CLASSES), "float32")
    partners[:, 0] = [1, 1, 1, 4, 2, 6]
    same = np.array([1, 1, 1, 1, 0, 0])
    distiller = compiled(PairDistillation(margin=5.0), None, np.eye(CLASSES), np.eye(CLASSES))
    batch = {"image": images, "partner": partners, "same": same}
    logs = distiller.evaluate(batch, np.arange(6) % 3, 3, verbose=0, return_dict=True)
    assert logs["pairs_same_distance"] == pytest.approx((1 + 1 + 1 + 4) / 4)
    assert logs["pairs_other_distance"] == pytest.approx((2 + 6) / 2)
    assert logs["pairs_violated"] == pytest.approx(1 / 2)
    assert logs["pairs"] == pytest.approx((1 + 1 + 1 + 16 + (5 - 2) ** 2 + 0) / 6)


def test_of_several_teachers_an_image_counts_where_each_has_a_value():
    teachers = [linear("first", 5 * np.eye(CLASSES)), linear("second", 5 * np.eye(CLASSES))]
    distiller = compiled(TripletDistillation(), None, TeacherEnsemble(teachers, average="losses"))
    logs = distiller.evaluate(one_hot(SORTED), SORTED, 4, verbose=0, return_dict=True)
    assert logs["tkd"] == pytest.approx(8 - np.sqrt(29), rel=1e-6)
    assert logs["tkd_violated"] == 1.0


class TestNothingToCompare:
    ALONE = np.ones(8, int)

    @pytest.mark.parametrize("eager", [False, True])
    def test_in_training(self, eager):
        distiller = compiled(TripletDistillation())
        distiller.run_eagerly = eager
        with pytest.raises(ValueError, match="'tkd' compares .* epoch of training no batch.*two classes or more"):
            distiller.fit(one_hot(self.ALONE), self.ALONE, 4, verbose=0)
        # The validation's classes do not make up for it, and the right data train with the same Distiller.
        validation = one_hot(SHUFFLED), SHUFFLED
        with pytest.raises(ValueError, match="of training"):
            distiller.fit(one_hot(self.ALONE), self.ALONE, 4, validation_data=validation, verbose=0)
        assert np.isfinite(distiller.evaluate(*validation, 4, verbose=0, return_dict=True)["tkd"])
        assert len(distiller.fit(*validation, 4, epochs=2, verbose=0).history["tkd"]) == 2

    def test_in_validation_and_in_evaluation(self):
        # Sorted, in batches that end where a class does.
        blocks = np.repeat(np.arange(CLASSES), 4)
        distiller = compiled(TripletDistillation())
        with pytest.raises(ValueError, match="epoch of validation.*shuffle them once"):
            validation = one_hot(blocks), blocks
            distiller.fit(one_hot(SHUFFLED), SHUFFLED, 4, validation_data=validation, verbose=0)
        with pytest.raises(ValueError, match="epoch of validation"):
            distiller.evaluate(one_hot(blocks), blocks, 4, verbose=0)

    def test_with_labels_that_share_a_class(self):
        # Distributions whose likeliest class is the first of all: mixed ones, and smoothed ones.
        first = one_hot(np.zeros(18, int))
        distiller = compiled(TripletDistillation())
        distiller.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
        with pytest.raises(ValueError, match='tkd take the label for the one class.*negative_classes="teacher"'):
            distiller.fit(one_hot(SHUFFLED), 0.6 * first + 0.4 * one_hot(SHUFFLED), 4, verbose=0)
        with pytest.raises(ValueError, match="'tkd' compares .*class ids.*negative_classes=\"teacher\""):
            distiller.fit(one_hot(SHUFFLED), 0.6 * first + 0.4 / 3, 4, verbose=0)

    def test_not_with_negatives_that_the_batches_bring(self):
        batch = {"image": one_hot(self.ALONE), "negative": one_hot(self.ALONE - 1)}
        logs = compiled(TripletDistillation()).fit(batch, self.ALONE, 4, verbose=0).history
        assert logs["tkd"] == pytest.approx([8 - np.sqrt(29)], rel=1e-6)


def test_under_xla_and_several_steps_an_execution():
    distiller = compiled(TripletDistillation())
    distiller.compile(keras.optimizers.SGD(0.0), LABEL_LOSS, jit_compile=True, steps_per_execution=2)
    data = tf.data.Dataset.from_tensor_slices((one_hot(SORTED), SORTED)).batch(4, drop_remainder=False)
    logs = distiller.fit(data, verbose=0).history
    assert logs["tkd"] == pytest.approx([8 - np.sqrt(29)], rel=1e-6)
