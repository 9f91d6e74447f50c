"""Which dicts are batches, and that what `data` writes and what `batches` knows are the same keys."""

import inspect

import numpy as np
import pytest

from keras_tkd import TeacherCache, batches
from keras_tkd.batches import KEYS, get_class_ids, make_batch
from keras_tkd.data import Mixing, crop_and_flip, pair_dataset, triplet_dataset
from keras_tkd.losses import PairDistillation, TripletDistillation
from keras_tkd.teachers.ensemble_reader import EnsembleReader, make_teacher_reader

IMAGES = np.zeros((6, 8, 8, 1), "uint8")
LABELS = np.arange(6) % 3


class TestMakeBatch:
    @pytest.mark.parametrize("x", ["an array", {"a": 1, "b": 2}, ["one", "two"]], ids=str)
    def test_whatever_has_no_image_is_the_models_own(self, x):
        assert make_batch(x) == {"image": x}
        assert make_batch(x, ("a", "b")) == {"image": x}

    def test_a_dict_of_known_keys_is_a_batch(self):
        x = dict.fromkeys(KEYS, 0)
        assert make_batch(x) is x
        assert make_batch({"image": 1}) == {"image": 1}

    def test_a_models_own_dict_goes_to_it_whole(self):
        x = {"image": 1, "tabular": 2}
        assert make_batch(x, ("tabular", "image")) == {"image": x}
        nested = {"image": x, "negative": x}
        assert make_batch(nested, ("tabular", "image")) is nested

    @pytest.mark.parametrize(
        ("key", "meant"),
        [
            ("negatives", "negative"),
            ("Image", "image"),
            ("teachers", "teacher"),
            ("teacher_images", "teacher_image"),
            ("idx", "index"),
            ("partners", "partner"),
        ],
    )
    def test_an_unknown_key_is_refused_with_the_nearest(self, key, meant):
        with pytest.raises(ValueError, match=rf"Received: \['{key}'\]. Did you mean '{meant}'\?"):
            make_batch({"image": 1, key: 2})

    @pytest.mark.parametrize("names", [(), ("pic", "tab")], ids=["unknown", "known"])
    @pytest.mark.parametrize("key", ["Image", "images", "img", "imgae"])
    def test_a_misspelt_image_is_refused_with_what_is_meant(self, key, names):
        with pytest.raises(ValueError, match=f"must have \"image\".*Did you mean 'image' by '{key}'"):
            make_batch({key: 1, "negative": 2}, names)

    @pytest.mark.parametrize("x", [{"negative": 1}, {"a": 1, "negatives": 2}], ids=str)
    def test_keys_of_a_batch_without_an_image(self, x):
        with pytest.raises(ValueError, match='must have "image".*Received: ') as error:
            make_batch(x)
        assert "mean" not in str(error.value)

    def test_inputs_of_a_model_among_other_keys(self):
        names = ("pic", "tab")
        with pytest.raises(ValueError, match=r"alone: \['pic', 'tab'\]. Received: also \['negative'\]"):
            make_batch({"pic": 1, "tab": 2, "negative": 3}, names)
        inputs = {"pic": 1, "tab": 2}
        for batch in ({"image": inputs | {"negatives": 3}}, {"image": inputs, "negative": inputs | {"negatives": 3}}):
            with pytest.raises(ValueError, match=r"under \"(image|negative)\" must .*also \['negatives'\]"):
                make_batch(batch, names)
        assert make_batch({"image": inputs, "negative": inputs}, names) == {"image": inputs, "negative": inputs}

    def test_a_model_whose_inputs_are_named_like_entries_of_a_batch(self):
        x = {"images": 1, "index": 2}
        assert make_batch(x, ("images", "index")) == make_batch({"image": x}) == {"image": x}

    def test_same_goes_with_a_partner(self):
        with pytest.raises(ValueError, match='"same" and without "partner"'):
            make_batch({"image": 1, "same": 2})
        batch = {"image": 1, "same": 2, "partner": 3}
        assert make_batch(batch) is batch

    def test_what_a_cache_leaves_beside_the_outputs_is_a_batch(self):
        """Images of the teacher's own stay where its outputs are kept: those of the data are not taken out."""
        batch = {"image": 1, "teacher_image": 2, "teacher": {"logits": 3}}
        assert make_batch(batch) is batch

    def test_a_key_that_is_near_to_none(self):
        with pytest.raises(ValueError, match=r"Received: \['tabular'\]. The inputs of .* under \"image\"") as error:
            make_batch({"image": 1, "tabular": 2})
        assert "mean" not in str(error.value)
        with pytest.raises(ValueError, match=r"such as \['image', 'tabular'\] of this student, go together"):
            make_batch({"image": 1, "tabular": 2, "index": 3}, ("image", "tabular"))


@pytest.mark.parametrize("y", [[2, 0], [[2], [0]], [[0, 0, 1], [1, 0, 0]]], ids=str)
def test_class_ids_are_read_from_labels_of_the_logits_too(y):
    y = np.array(y)
    for labels in (y, {"logits": y, "embedding": np.zeros((2, 4))}):
        np.testing.assert_array_equal(get_class_ids(labels), [2, 0])
    assert get_class_ids({"embedding": y}) is None and get_class_ids([y, y]) is None and get_class_ids(None) is None


def test_pipelines_write_every_key_that_is_known_and_no_other():
    """But those of models' outputs, which a `TeacherCache` writes under the key that it is given."""
    seen = {"seed": 0, "augment": crop_and_flip, "teacher_images": IMAGES}
    datasets = (
        triplet_dataset(IMAGES, LABELS, 2, positives="same_class", **seen),
        pair_dataset(IMAGES, LABELS, 2, seed=0),
        triplet_dataset(IMAGES, LABELS, 2, negatives=None, mix=Mixing(3, mixup=1.0), **seen),
    )
    written = {key for dataset in datasets for key in dataset.element_spec[0]}
    assert written == set(KEYS) - {batches.TEACHER, batches.ANCHOR}


def test_outputs_of_the_teacher_stand_under_its_role():
    """Rooms below `batches` know the key as their own word."""
    key = inspect.signature(TeacherCache.attach).parameters["key"].default
    assert key == batches.TEACHER == make_teacher_reader(None).role == EnsembleReader.role


def test_losses_read_the_keys_of_extra_images():
    """They stand below `batches` too: a key that they misspelt would be mined for in the batch instead."""
    read = set()

    class Recorded(dict):
        def __getitem__(self, key):
            read.add(key)
            return super().__getitem__(key)

    extra = {key: {"logits": f"those of {key}"} for key in batches.EXTRA_IMAGES}
    student = Recorded(extra, logits="its own", **{batches.SAME: "same"})
    for loss in (TripletDistillation(), PairDistillation()):
        loss.inputs({"logits": "the teacher's"}, student, None, None)
    assert read == {*batches.EXTRA_IMAGES, batches.SAME, "logits"}
