"""What is collected of a run's models: on random pictures, by models that were not trained."""

import types

import keras
import numpy as np
import pytest

from keras_tkd import evaluation, models
from keras_tkd.config import DistillConfig
from keras_tkd.reports.observations import read_observations
from keras_tkd.reports.schema import ModelResult
from keras_tkd.runs.inputs import Inputs
from keras_tkd.runs.measuring import MeasuredTeacher
from keras_tkd.runs.observing import Observer

SAMPLES = 40


def make_inputs(shape=(8, 8, 1), num_classes=3):
    generator = np.random.default_rng(0)
    splits = types.SimpleNamespace(
        test_images=generator.integers(0, 256, (SAMPLES, *shape), dtype="uint8"),
        test_labels=np.arange(SAMPLES) % 3,
        num_classes=num_classes,
        image_shape=shape,
        multi_label=False,
    )
    splits.for_teacher = splits
    return Inputs(splits, student=build("digits_student", shape))


def build(name, shape, seed=0):
    keras.utils.set_random_seed(seed)
    return models.build(name, shape, 3)


def observe(folder, inputs, method="tkd", **trained):
    config = DistillConfig(method=method).resolved()
    observer = Observer(types.SimpleNamespace(path=folder, config=config), inputs)
    teacher = build("digits_student", inputs.splits.image_shape, seed=1)
    logits = evaluation.logits(teacher, inputs.splits.test_images)
    observer.add_teacher(MeasuredTeacher(teacher, logits, ModelResult()))
    observer.write(build("digits_student", inputs.splits.image_shape, seed=2), **trained)
    return read_observations(folder / "observations.npz"), logits


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    inputs = make_inputs()
    baseline = build("digits_student", (8, 8, 1), seed=3)
    found, logits = observe(tmp_path_factory.mktemp("observed"), inputs, baseline=baseline)
    return found, logits, inputs


def test_all_test_images_are_predicted(observed):
    found, logits, inputs = observed
    assert set(found.classes) == set(found.confidences) == {"teacher", "baseline", "student"}
    assert found.classes["teacher"].tolist() == logits.argmax(-1).tolist()
    student = build("digits_student", (8, 8, 1), seed=2)
    assert found.classes["student"].tolist() == evaluation.predict_classes(student, inputs.splits.test_images).tolist()
    assert found.labels.tolist() == inputs.splits.test_labels.tolist()


def test_embeddings_are_those_of_the_layer(observed):
    found, _, inputs = observed
    student = build("digits_student", (8, 8, 1), seed=2)
    expected = evaluation.embeddings(student, inputs.splits.test_images)[found.embedded]
    np.testing.assert_allclose(found.embeddings["student"], expected, rtol=1e-5)


def test_a_model_without_embeddings_shows_its_outputs(tmp_path):
    inputs = make_inputs()
    images = inputs.splits.test_images
    plain = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    config = DistillConfig(method="kd").resolved()
    observer = Observer(types.SimpleNamespace(path=tmp_path, config=config), inputs)
    observer.add_teacher(MeasuredTeacher(None, np.eye(3)[inputs.splits.test_labels], ModelResult()))
    observer.write(plain)
    found = read_observations(tmp_path / "observations.npz")
    np.testing.assert_allclose(found.embeddings["student"], evaluation.logits(plain, images)[found.embedded], rtol=1e-5)
    assert found.embeddings["teacher"].tolist() == np.eye(3)[found.labels[found.embedded]].tolist()
    assert found.is_right("teacher").all() and "baseline" not in found.classes


def test_distances_of_triplets_are_the_losss(observed):
    """`||z_t(a) - z_s(a)||` and `||z_t(a) - z_s(n)||`, by the student as it was given and as it is trained."""
    found, logits, inputs = observed
    anchors, negatives = found.triplets.T
    assert len(found.triplets) == 6 and (found.labels[anchors] != found.labels[negatives]).all()
    for time, seed in (("before", 0), ("after", 2)):
        student = evaluation.logits(build("digits_student", (8, 8, 1), seed), inputs.splits.test_images)
        for column, images in enumerate((anchors, negatives)):
            expected = [np.linalg.norm(logits[a] - student[i]) for a, i in zip(anchors, images, strict=True)]
            assert found.distances[time][:, column] == pytest.approx(expected, rel=1e-4)


def test_pictures_are_of_triplets_and_differences(observed):
    found, _, inputs = observed
    for image in found.triplets.ravel():
        assert np.array_equal(found.find_picture(image), inputs.splits.test_images[image])
    teacher, student = found.is_right("teacher"), found.is_right("student")
    for differing, worse in ((teacher & ~student, "student"), (student & ~teacher, "teacher")):
        ids = np.flatnonzero(differing)
        surest = sorted(ids, key=lambda image: -found.confidences[worse][image])[:8]
        assert len(ids) and all(found.find_picture(image) is not None for image in surest)


def test_large_pictures_are_made_small_and_strange_ones_are_left_out(tmp_path):
    found, _ = observe(tmp_path, make_inputs((100, 50, 3)), method="kd")
    assert found.pictures.shape[1:] == (64, 32, 3) and not len(found.triplets)
    found, _ = observe(tmp_path, make_inputs((8, 8, 2)), method="kd")
    assert not len(found.pictures)


@pytest.mark.parametrize("several", [False, True])
def test_where_images_have_no_single_class_nothing_is_written(several, tmp_path):
    inputs = make_inputs(num_classes=3 if several else 0)
    if several:
        inputs.splits.test_labels, inputs.splits.multi_label = np.ones((SAMPLES, 3), "int32"), True
    observer = Observer(types.SimpleNamespace(path=tmp_path, config=DistillConfig(method="tkd").resolved()), inputs)
    observer.add_teacher(None)
    observer.write(inputs.student)
    assert not list(tmp_path.iterdir())
