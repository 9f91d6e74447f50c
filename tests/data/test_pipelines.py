"""What the pipelines promise: batches as a pure function of (seed, epoch, step), negatives of other classes."""

import functools
import gc
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chi2

from keras_tkd.data import crop_and_flip, image_dataset, pipelines, triplet_dataset, view_seeds
from keras_tkd.data.splits import aligned_empty

# 23 samples in four classes of 3, 5, 7 and 8, in no order and with ids of any values.
LABELS = np.random.default_rng(0).permutation(np.repeat([-5, 0, 7, 1000], [3, 5, 7, 8]))
COUNT, BATCH, STEPS = 23, 5, 5  # batches of 5, 5, 5, 5, 3
# The pixels of sample i are all i + 1: an image says which sample it is, and zeros are padding.
IMAGES = np.broadcast_to(np.arange(1, COUNT + 1, dtype="uint8")[:, None, None, None], (COUNT, 6, 4, 2)).copy()
crop_by_one = functools.partial(crop_and_flip, padding=1)


def triplets(labels=LABELS, batch_size=BATCH, *, images=IMAGES, seed=0, **arguments):
    return triplet_dataset(images, labels, batch_size, seed=seed, **arguments)


def sample(images):
    """Which samples the images show, cropped or not."""
    return np.max(images, axis=(1, 2, 3)).astype(int) - 1


def one_pass(dataset):
    """A pass as a list of batches, `(dict, label)` of arrays."""
    return list(dataset.as_numpy_iterator())


def joined(batches, key=None):
    return np.concatenate([label if key is None else batch[key] for batch, label in batches])


def assert_equal(passes, others):
    tf.nest.map_structure(np.testing.assert_array_equal, passes, others)


def differ(passes, others, key="index"):
    return not np.array_equal(joined(passes, key), joined(others, key))


def assert_equally_often(counts):
    """Chi-square: counts so uneven come from equal probabilities less than once in a million times."""
    expected = counts.sum() / counts.size
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, counts.size - 1)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("batch_size, sizes", [(5, [5, 5, 5, 5, 3]), (23, [23]), (100, [23]), (1, [1] * 23)])
def test_a_pass_is_every_sample_once_in_batches_of_known_number(batch_size, sizes, training):
    dataset = triplets(batch_size=batch_size, training=training)
    assert int(dataset.cardinality()) == len(sizes) == len(dataset)
    for _ in range(3):
        batches = one_pass(dataset)
        assert [len(label) for _, label in batches] == sizes
        assert [len(batch[key]) for batch, _ in batches for key in batch] == np.repeat(sizes, 3).tolist()
        index = joined(batches, "index")
        assert sorted(index) == list(range(COUNT))
        np.testing.assert_array_equal(joined(batches), LABELS[index])
        # What comes under "image" and "negative" are the images themselves.
        np.testing.assert_array_equal(joined(batches, "image"), IMAGES[index])
        negative = joined(batches, "negative")
        np.testing.assert_array_equal(negative, IMAGES[sample(negative)])
        assert (LABELS[sample(negative)] != LABELS[index]).all()
        if not training:
            np.testing.assert_array_equal(index, np.arange(COUNT))


def test_negatives_are_drawn_afresh_and_uniform_over_other_classes():
    passes = 150
    batches = one_pass(triplets().repeat(passes))
    anchors = joined(batches, "index")
    negatives = sample(joined(batches, "negative"))
    assert len(anchors) == passes * COUNT
    for label in np.unique(LABELS):
        counts = np.bincount(negatives[LABELS[anchors] == label], minlength=COUNT)
        assert counts[LABELS == label].sum() == 0
        assert_equally_often(counts[LABELS != label])  # at least 3 * 150 draws over 20 samples: 22 of each
    # Drawn afresh: an anchor's negatives of two passes agree in 1 of 15 to 20 cases, by chance; the deviation of that
    # share over 149 * 23 pairs is 0.0043 at most.
    by_anchor = np.argsort(anchors.reshape(passes, COUNT), axis=1)
    table = np.take_along_axis(negatives.reshape(passes, COUNT), by_anchor, axis=1)
    assert 1 / 20 - 0.025 < (table[1:] == table[:-1]).mean() < 1 / 15 + 0.025


def test_negatives_of_a_step_tell_nothing_of_the_next_ones():
    images = np.arange(400, dtype="int32")[:, None, None, None]
    batches = one_pass(triplets(np.arange(400) % 2, batch_size=20, images=images))
    anchors = joined(batches, "index").reshape(20, 20) % 2
    negatives = joined(batches, "negative").reshape(20, 20)
    # Anchors of one class at the same place of successive batches: their negatives agree in 1 of 200 cases.
    agreeing = (negatives[1:] == negatives[:-1])[anchors[1:] == anchors[:-1]]
    assert len(agreeing) > 100 and agreeing.mean() < 0.1


@pytest.mark.parametrize("augment", [None, crop_by_one])
def test_each_pass_is_the_next_epoch(augment):
    dataset = triplets(augment=augment)
    passes = [one_pass(dataset) for _ in range(4)]
    for one, other in itertools.combinations(passes, 2):
        assert differ(one, other) and differ(one, other, "negative")
    for epoch in (0, 2):
        later = triplets(augment=augment, initial_epoch=epoch)
        assert_equal([one_pass(later) for _ in range(4 - epoch)], passes[epoch:])
    # The same through `repeat`.
    assert_equal(one_pass(triplets(augment=augment).repeat(4)), sum(passes, []))


def test_two_data_sets_count_their_passes_alone():
    one, other = triplets(), triplets()
    first, second = one_pass(one), one_pass(one)
    assert_equal(one_pass(other), first)
    interleaved = zip(one, other, strict=True)  # pass 2 of one, pass 1 of the other
    assert_equal(
        [[x.numpy() for x in tf.nest.flatten(batch)] for _, batch in interleaved],
        [[*tf.nest.flatten(batch)] for batch in second],
    )
    assert_equal(one_pass(triplets(initial_epoch=3)), one_pass(one))


def test_seeds_differ_and_a_seed_is_a_seed():
    passes = {seed: one_pass(triplets(seed=seed, augment=crop_by_one)) for seed in (0, 1, 2**30 - 1)}
    for one, other in itertools.combinations(passes.values(), 2):
        assert differ(one, other) and differ(one, other, "image") and differ(one, other, "negative")
    for seed, batches in passes.items():
        assert_equal(one_pass(triplets(seed=seed, augment=crop_by_one)), batches)


@pytest.mark.parametrize("calls, threads", [(1, 1), (8, 8), (8, 1)])
def test_batches_do_not_depend_on_the_number_of_threads(calls, threads, monkeypatch):
    expected = [one_pass(dataset) for dataset in [triplets(augment=crop_by_one)] * 3]
    monkeypatch.setattr(pipelines, "PARALLEL_CALLS", calls)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    dataset = triplets(augment=crop_by_one).with_options(options)
    assert_equal([one_pass(dataset) for _ in range(3)], expected)


@pytest.mark.parametrize("training", [True, False])
def test_views_are_those_of_sample_seed_and_epoch(training):
    images = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 4, 2), dtype=np.uint8)
    dataset = triplets(images=images, seed=3, augment=crop_by_one, training=training, initial_epoch=2)
    for epoch in (2, 3):
        for batch, _ in dataset.as_numpy_iterator():
            index = batch["index"]
            view = crop_by_one(images[index], view_seeds(index, 3, epoch)) if training else images[index]
            np.testing.assert_array_equal(batch["image"], view)


def test_negatives_are_augmented_views_of_samples_of_other_classes():
    batches = one_pass(triplets(augment=crop_by_one).repeat(10))
    index, negatives = joined(batches, "index"), joined(batches, "negative")
    shown = sample(negatives)
    assert (LABELS[shown] != LABELS[index]).all()
    # Every pixel is the sample's own or padding; 8 of the 9 crops by one pixel show padding.
    assert all(set(np.unique(view)) <= {0, which + 1} for view, which in zip(negatives, shown, strict=True))
    padded = (negatives == 0).any(axis=(1, 2, 3)).mean()
    assert abs(padded - 8 / 9) < 6 * (8 / 81 / 230) ** 0.5
    # A sample's view as a negative has nothing to do with the one it has as an anchor of the same pass: of 23 images
    # all of one colour that are cropped in 9 ways, all 23 alike would be a chance of 1 in 9^23.
    first = one_pass(triplets(augment=crop_by_one))
    anchors = dict(zip(joined(first, "index"), joined(first, "image"), strict=True))
    drawn = joined(first, "negative")
    assert any((view != anchors[which]).any() for view, which in zip(drawn, sample(drawn), strict=True))


def test_evaluation_has_its_own_order_no_augmentation_and_fixed_negatives():
    dataset = triplets(training=False, augment=crop_by_one)
    first, second = one_pass(dataset), one_pass(dataset)
    assert_equal(first, second)
    np.testing.assert_array_equal(joined(first, "image"), IMAGES)
    np.testing.assert_array_equal(joined(first), LABELS)
    assert_equal(one_pass(triplets(training=False)), first)
    assert differ(first, one_pass(triplets(training=False, seed=1)), "negative")


def test_negatives_may_be_told_apart_by_other_classes_than_the_labels():
    named = np.arange(COUNT) % 2  # what a teacher names: not the labels
    batches = one_pass(triplets(negative_labels=named).repeat(20))
    index, negatives = joined(batches, "index"), sample(joined(batches, "negative"))
    assert (named[index] != named[negatives]).all()
    assert (LABELS[index] == LABELS[negatives]).any()
    np.testing.assert_array_equal(joined(batches), LABELS[index])
    # The order is that of the labels' negatives.
    np.testing.assert_array_equal(index[:COUNT], joined(one_pass(triplets()), "index"))


def test_without_negatives():
    batches = one_pass(triplets(negatives=None))
    assert all(set(batch) == {"image", "index"} for batch, _ in batches)
    np.testing.assert_array_equal(joined(batches, "index"), joined(one_pass(triplets()), "index"))
    assert len(one_pass(triplets(np.zeros(COUNT, int), negatives=None))) == STEPS  # one class will do


@pytest.mark.parametrize("training", [True, False])
def test_images_alone_come_in_the_order_of_the_triplets(training):
    arguments = {"seed": 4, "augment": crop_by_one, "training": training, "initial_epoch": 2}
    alone, triples = image_dataset(IMAGES, LABELS, BATCH, **arguments), triplets(**arguments)
    assert int(alone.cardinality()) == STEPS
    for _ in range(3):
        assert_equal(one_pass(alone), [(batch["image"], label) for batch, label in one_pass(triples)])


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int32", "float64"])
def test_pixels_keep_their_dtype(dtype):
    dataset = triplets(images=IMAGES.astype(dtype), augment=crop_by_one)
    elements, _ = dataset.element_spec
    assert elements["image"].dtype == elements["negative"].dtype == dtype
    batch, _ = next(dataset.as_numpy_iterator())
    assert batch["image"].dtype == batch["negative"].dtype == dtype
    assert elements["image"].shape.as_list() == [None, 6, 4, 2]


def laid_out(kind):
    """IMAGES in memory of some kind; whether TensorFlow can share it."""
    if kind == "list":
        return IMAGES.tolist()
    if kind == "strided":
        return np.repeat(IMAGES, 2, axis=0)[::2]
    start = 1 if kind == "unaligned" else 0
    images = aligned_empty((IMAGES.size + 1,))[start : start + IMAGES.size].reshape(IMAGES.shape)
    images[:] = IMAGES
    if kind == "read-only":
        images.flags.writeable = False
    return images


@pytest.mark.parametrize("kind", ["aligned", "unaligned", "strided", "read-only", "list"])
def test_images_in_memory_of_any_kind(kind):
    batches = one_pass(triplets(images=laid_out(kind), training=False))
    np.testing.assert_array_equal(joined(batches, "image"), IMAGES)


def test_aligned_memory_is_shared():
    images = laid_out("aligned")
    dataset = triplets(images=images, training=False)
    images[3] = 200
    np.testing.assert_array_equal(joined(one_pass(dataset), "image"), images)


def test_shared_memory_lives_as_long_as_the_data_set():
    images = aligned_empty((64, 64, 64, 1))
    images[:] = np.arange(64)[:, None, None, None]
    dataset = triplets(np.arange(64), images=images, training=False)
    del images
    gc.collect()
    others = [np.full((64, 64, 64, 1), 255, "uint8") for _ in range(20)]
    shown = joined(one_pass(dataset), "image")
    assert (shown == np.arange(64)[:, None, None, None]).all() and len(others) == 20


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": LABELS[:-1]}, "`labels`.*23 images.*22"),
        ({"labels": LABELS[:-1], "negatives": None}, "`labels`.*23 images.*22"),
        ({"labels": np.eye(COUNT)}, r"`labels`.*23 images.*\(23, 23\)"),
        ({"labels": [], "images": IMAGES[:0], "negatives": None}, "`labels`.*0 images"),
        ({"negative_labels": LABELS[:-1]}, "`negative_labels`.*23 images.*22"),
        ({"labels": np.full(COUNT, 3)}, "two classes.*3"),
        ({"negative_labels": np.full(COUNT, 3)}, "two classes.*3"),
        ({"batch_size": 0}, "`batch_size`.*batch_size=0"),
        ({"seed": -1}, "`seed`.*seed=-1"),
        ({"seed": 2**30}, f"`seed`.*seed={2**30}"),
        ({"negatives": "in_batch"}, "`negatives`.*other_class.*negatives='in_batch'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        triplets(**arguments)


class Recorder(keras.Model):
    """Keeps the index of every batch it is trained or tested on."""

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(), initializer="zeros")
        self.trained, self.tested = [], []

    def train_step(self, data):
        self.trained.append(data[0]["index"].numpy())
        return {"loss": self.weight}

    def test_step(self, data):
        self.tested.append(data[0]["index"].numpy())
        return {"loss": self.weight}


@pytest.mark.parametrize("initial_epoch", [0, 2])
def test_epochs_of_fit_are_passes(initial_epoch):
    model = Recorder()
    model.compile("sgd", run_eagerly=True)
    model.fit(
        triplets(initial_epoch=initial_epoch),
        epochs=initial_epoch + 2,
        initial_epoch=initial_epoch,
        validation_data=triplets(training=False),
        verbose=0,
    )
    assert [len(index) for index in model.trained] == [5, 5, 5, 5, 3] * 2
    passes = [joined(one_pass(triplets(initial_epoch=initial_epoch + epoch)), "index") for epoch in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(model.trained), np.concatenate(passes))
    np.testing.assert_array_equal(np.concatenate(model.tested), np.tile(np.arange(COUNT), 2))
