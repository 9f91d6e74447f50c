"""A teacher cache that several workers build together: the same files as one makes, each image by one of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from worker_threads import run_workers

from keras_tkd import TeacherCache
from keras_tkd.data import crop_and_flip

# Two views of 11 images in batches of 2: twelve batches, of which those of one image end each view.
IMAGES = np.random.default_rng(0).integers(1, 256, (11, 6, 6, 1), dtype=np.uint8)
SEEN = {"augment": crop_and_flip, "seed": 5, "views": 2, "batch_size": 2, "progress": False}


class Noting(keras.layers.Layer):
    """Flattens images, and notes how many."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def call(self, images):
        count = tf.numpy_function(lambda count: self.rows.append(int(count)) or count, [tf.shape(images)[0]], tf.int32)
        with tf.control_dependencies([count]):
            return keras.ops.reshape(keras.ops.cast(images, "float32"), (-1, 36))

    def compute_output_shape(self, shape):
        return shape[0], 36


def teacher(weight=0.5):
    """A teacher whose logits are the pixels times a weight, and the list of the numbers of images that it saw."""
    noting = Noting()
    scale = keras.layers.EinsumDense("ab,b->ab", 36)
    model = keras.Sequential([keras.Input((6, 6, 1)), noting, scale])
    scale.kernel.assign(np.full(36, weight))
    return model, noting.rows


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name[0] != "."}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    TeacherCache.build(teacher()[0], IMAGES, folder, **SEEN)
    return read_files(folder)


@pytest.mark.parametrize("count", [2, 5])
def test_workers_build_what_one_builds(one, tmp_path, count):
    def build(worker):
        model, rows = teacher()
        cache = TeacherCache.build(model, IMAGES, tmp_path, workers=worker, **SEEN)
        return cache.outputs["logits"], rows

    built = run_workers(count, build)
    assert read_files(tmp_path) == one
    # Twelve batches of two images, of which number 5 and number 11 have one; all but worker 0 compare the finished
    # cache with the teacher on eleven samples.
    sizes = [1 if number in (5, 11) else 2 for number in range(12)]
    for index, (outputs, rows) in enumerate(built):
        np.testing.assert_array_equal(outputs, built[0][0])
        assert rows == sizes[index::count] + [11] * (index > 0)


def test_a_cache_that_was_interrupted_goes_on(one, tmp_path):
    class Stop(Exception):
        pass

    def build(worker, stop_after=None):
        model, rows = teacher()
        if stop_after is not None and worker.is_chief:
            gather = worker.gather_rows

            def gather_rows(given):
                if worker.gathered == stop_after:
                    raise Stop
                return gather(given)

            worker.gather_rows = gather_rows
        TeacherCache.build(model, IMAGES, tmp_path, workers=worker, **SEEN)
        return rows

    with pytest.raises(Stop):
        run_workers(2, lambda worker: build(worker, stop_after=2))
    # Four batches are kept. Of the eight after them, with one worker more, each makes every third.
    assert run_workers(3, build) == [[2, 2, 2], [1, 2, 1, 11], [2, 2, 11]]
    assert read_files(tmp_path) == one
    # What is finished is opened, and looked at by each.
    assert run_workers(2, build) == [[11], [11]]


def test_another_teacher_on_one_worker_is_named(tmp_path):
    def build(worker):
        TeacherCache.build(teacher(0.5 + worker.share[0])[0], IMAGES, tmp_path, workers=worker, **SEEN)

    with pytest.raises(ValueError, match="must build a teacher cache by the same teacher"):
        run_workers(2, build)


def test_an_output_that_is_not_finite_is_named_by_whoever_finds_it(tmp_path):
    images = IMAGES.astype("float32")
    images[3] = np.nan

    def build(worker):
        with np.errstate(invalid="ignore"):
            TeacherCache.build(teacher()[0], images, tmp_path, workers=worker, **SEEN | {"augment": None, "views": 1})

    # Batch 1, of worker 1.
    with pytest.raises(ValueError, match="not finite for sample 3 in view 0, nor are its pixels"):
        run_workers(2, build)


def test_a_folder_that_one_does_not_see_is_named(tmp_path):
    def build(worker):
        TeacherCache.build(teacher()[0], IMAGES, tmp_path / str(worker.share[0]), workers=worker, **SEEN)

    with pytest.raises(ValueError, match="All workers must see the folder of the teacher cache"):
        run_workers(2, build)
