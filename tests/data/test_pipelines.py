"""What the pipelines promise: batches as a pure function of (seed, epoch, step), negatives of other classes."""

import functools
import gc
import itertools
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import chi2

from keras_tkd.data import (
    class_batches,
    crop_and_flip,
    image_dataset,
    make_view_seeds,
    pair_dataset,
    triplet_dataset,
)
from keras_tkd.data.arrays import allocate_aligned

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


@functools.cache
def passes_of_cropped_triplets():
    dataset = triplets(augment=crop_by_one)
    return [one_pass(dataset) for _ in range(3)]


@pytest.mark.parametrize("calls, threads", [(1, 1), (8, 8), (8, 1)])
def test_batches_do_not_depend_on_the_number_of_threads(calls, threads, monkeypatch):
    expected = passes_of_cropped_triplets()
    monkeypatch.setattr("keras_tkd.data.anchors.PARALLEL_CALLS", calls)
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
            view = crop_by_one(images[index], make_view_seeds(index, 3, epoch)) if training else images[index]
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


def test_negatives_may_be_drawn_by_other_labels():
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
    images = allocate_aligned((IMAGES.size + 1,))[start : start + IMAGES.size].reshape(IMAGES.shape)
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
    images = allocate_aligned((64, 64, 64, 1))
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
        ({"positives": "other_class"}, "`positives`.*same_class.*positives='other_class'"),
        ({"teacher_images": IMAGES[:-1]}, "`teacher_images`.*23 images, 22 teacher_images"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        triplets(**arguments)


# Positives, and images for the teacher


def test_positives_are_other_samples_of_the_class():
    passes = 150
    dataset = triplets(positives="same_class")
    assert set(dataset.element_spec[0]) == {"image", "index", "negative", "positive"}
    batches = one_pass(dataset.repeat(passes))
    anchors, positives = joined(batches, "index"), sample(joined(batches, "positive"))
    assert (LABELS[positives] == LABELS[anchors]).all() and (positives != anchors).all()
    for label in np.unique(LABELS):
        # Pairs of a class of n: n (n - 1), each as likely.
        size = (LABELS == label).sum()
        of_class = LABELS[anchors] == label
        pairs = Counter(zip(anchors[of_class].tolist(), positives[of_class].tolist(), strict=True))
        assert len(pairs) <= size * (size - 1)
        assert_equally_often(np.array([*pairs.values()] + [0] * (size * (size - 1) - len(pairs))))
    # What came without positives comes with them.
    for one, other in zip(
        one_pass(triplets(augment=crop_by_one)), one_pass(triplets(augment=crop_by_one)), strict=True
    ):
        for name in ("image", "negative", "index"):
            np.testing.assert_array_equal(one[0][name], other[0][name])


def test_a_sample_that_is_alone_in_its_class_is_its_own_positive():
    labels = np.arange(COUNT)
    batches = one_pass(triplets(labels, positives="same_class"))
    np.testing.assert_array_equal(sample(joined(batches, "positive")), joined(batches, "index"))
    one_class = one_pass(triplets(np.zeros(COUNT), positives="same_class", negatives=None))
    assert (sample(joined(one_class, "positive")) != joined(one_class, "index")).all()


def test_positives_go_by_the_labels_though_negatives_go_by_others():
    named = np.arange(COUNT) % 2
    batches = one_pass(triplets(positives="same_class", negative_labels=named))
    index = joined(batches, "index")
    assert (LABELS[sample(joined(batches, "positive"))] == LABELS[index]).all()
    assert (named[sample(joined(batches, "negative"))] != named[index]).all()


@pytest.mark.parametrize("training", [True, False])
def test_the_teacher_sees_the_same_view_of_its_own_image(training):
    images = np.random.default_rng(0).integers(0, 200, (COUNT, 6, 4, 2), dtype=np.uint8)
    dataset = triplets(images=images, teacher_images=images + 50, augment=crop_by_one, training=training)
    for batch, _ in dataset.as_numpy_iterator():
        padding = batch["image"] == 0 if training else np.zeros_like(batch["image"], bool)
        shown = batch["teacher_image"][~padding]
        np.testing.assert_array_equal(shown, batch["image"][~padding] + 50)
    # Other images of another form; without augmentation they come as they are.
    tall = np.arange(COUNT, dtype="float32")[:, None] * np.ones((1, 3), "float32")
    batches = one_pass(triplets(teacher_images=tall))
    np.testing.assert_array_equal(joined(batches, "teacher_image"), tall[joined(batches, "index")])


# Pairs


def pairs(labels=LABELS, batch_size=BATCH, *, images=IMAGES, seed=0, **arguments):
    return pair_dataset(images, labels, batch_size, seed=seed, **arguments)


def test_half_of_the_partners_are_of_the_class():
    passes = 150
    batches = one_pass(pairs().repeat(passes))
    anchors, same, partners = joined(batches, "index"), joined(batches, "same"), sample(joined(batches, "partner"))
    assert same.dtype == bool
    np.testing.assert_array_equal(LABELS[anchors] == LABELS[partners], same)
    np.testing.assert_array_equal(joined(batches), LABELS[anchors])
    assert (partners != anchors).all()
    # 3450 fair coins, by sample and by pass: standard deviations of 0.0085, 0.04 and 0.1.
    assert abs(same.mean() - 0.5) < 0.05
    table = np.take_along_axis(same.reshape(passes, COUNT), anchors.reshape(passes, COUNT).argsort(axis=1), axis=1)
    assert np.abs(table.mean(axis=0) - 0.5).max() < 0.2 and np.abs(table.mean(axis=1) - 0.5).max() < 0.5
    assert abs((table[1:] == table[:-1]).mean() - 0.5) < 0.05
    for label in np.unique(LABELS):
        of_class = LABELS[anchors] == label
        mates = np.bincount(partners[of_class & same], minlength=COUNT)
        others = np.bincount(partners[of_class & ~same], minlength=COUNT)
        assert mates[LABELS != label].sum() == others[LABELS == label].sum() == 0
        assert_equally_often(mates[LABELS == label])
        assert_equally_often(others[LABELS != label])


def test_pairs_have_the_triplets_anchors_and_guarantees():
    arguments = {"seed": 3, "augment": crop_by_one}
    dataset = pairs(**arguments)
    assert int(dataset.cardinality()) == STEPS
    assert set(dataset.element_spec[0]) == {"image", "partner", "same", "index", "view"}
    passes = [one_pass(dataset) for _ in range(2)]
    anchors = triplets(**arguments)
    for found in passes:
        expected = one_pass(anchors)
        for key in ("image", "index"):
            np.testing.assert_array_equal(joined(found, key), joined(expected, key))
    assert differ(passes[0], passes[1], "same") and differ(passes[0], passes[1], "partner")
    assert_equal(one_pass(pairs(**arguments, initial_epoch=1)), passes[1])
    assert differ(passes[0], one_pass(pairs(seed=4)), "same")
    # Partners are views, too: all pixels are the sample's own or padding.
    views = joined(passes[0], "partner")
    assert all(set(np.unique(view)) <= {0, which + 1} for view, which in zip(views, sample(views), strict=True))
    assert (views == 0).any()


def test_pairs_outside_training():
    dataset = pairs(training=False, augment=crop_by_one)
    first = one_pass(dataset)
    assert_equal(one_pass(dataset), first)
    np.testing.assert_array_equal(joined(first, "image"), IMAGES)
    assert (joined(first, "partner") > 0).all() and joined(first, "same").any() and not joined(first, "same").all()


def test_partners_by_other_classes_than_the_labels():
    named = np.arange(COUNT) % 2
    batches = one_pass(pairs(partner_labels=named).repeat(10))
    anchors, same, partners = joined(batches, "index"), joined(batches, "same"), sample(joined(batches, "partner"))
    np.testing.assert_array_equal(named[anchors] == named[partners], same)
    assert same.any() and not same.all()
    np.testing.assert_array_equal(joined(batches), LABELS[anchors])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": LABELS[:-1]}, "`labels`.*23 images.*22"),
        ({"partner_labels": LABELS[:-1]}, "`partner_labels`.*23 images.*22"),
        ({"labels": np.full(COUNT, 3)}, "two classes.*3"),
        ({"batch_size": 0}, "`batch_size`.*batch_size=0"),
        ({"seed": -1}, "`seed`.*seed=-1"),
    ],
)
def test_errors_of_pairs(arguments, message):
    with pytest.raises(ValueError, match=message):
        pairs(**arguments)


# Batches of classes


def by_class(labels=LABELS, per_batch=2, per_class=3, *, images=IMAGES, seed=0, **arguments):
    return class_batches(
        images, labels, classes_per_batch=per_batch, samples_per_class=per_class, seed=seed, **arguments
    )


def test_batches_of_classes():
    dataset = by_class()
    # Rounds of 2 batches of 6: two rounds show 23 samples.
    assert int(dataset.cardinality()) == 4
    for _ in range(3):
        batches = one_pass(dataset)
        assert [label.shape for _, label in batches] == [(6,)] * 4
        for images, label in batches:
            np.testing.assert_array_equal(images, IMAGES[sample(images)])
            np.testing.assert_array_equal(label, LABELS[sample(images)])
            assert sorted(Counter(label.tolist()).values()) == [3, 3] and len(set(sample(images))) == 6
        for half in (batches[:2], batches[2:]):
            assert set(np.concatenate([label for _, label in half])) == set(LABELS)
        shown = sample(np.concatenate([images for images, _ in batches]))
        # Six of each class: those of 3 twice, those of 5 at least once, those of 7 and 8 at most once.
        for label, low, high in [(-5, 2, 2), (0, 1, 2), (7, 0, 1), (1000, 0, 1)]:
            counts = np.bincount(shown, minlength=COUNT)[LABELS == label]
            assert counts.sum() == 6 and low <= counts.min() and counts.max() <= high


def test_batches_of_classes_are_functions_of_seed_epoch_and_step():
    dataset = by_class(augment=crop_by_one)
    passes = [one_pass(dataset) for _ in range(3)]
    later = by_class(augment=crop_by_one, initial_epoch=1)
    assert_equal([one_pass(later), one_pass(later)], passes[1:])

    def labels(batches):
        return np.concatenate([label for _, label in batches])

    assert not np.array_equal(labels(passes[0]), labels(passes[1]))
    assert not np.array_equal(labels(passes[0]), labels(one_pass(by_class(seed=1))))
    still = by_class(training=False, augment=crop_by_one)
    first = one_pass(still)
    assert_equal(one_pass(still), first)
    assert all((images > 0).all() for images, _ in first)


def test_a_sample_that_is_repeated_is_a_new_view():
    images = np.random.default_rng(0).integers(1, 256, (2, 6, 4, 2), dtype=np.uint8)
    dataset = by_class([0, 1], 2, 40, images=images, augment=functools.partial(crop_and_flip, padding=2))
    ((views, label),) = one_pass(dataset)
    for which in (0, 1):
        # 40 draws of 25 crops, mirrored or not.
        assert len({view.tobytes() for view in views[label == which]}) > 15


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"labels": LABELS[:-1]}, "`labels`.*23 images.*22"),
        ({"per_batch": 5}, "`classes_per_batch`.*classes_per_batch=5.*4 classes"),
        ({"per_class": 0}, "`samples_per_class`.*samples_per_class=0"),
        ({"seed": 2**30}, f"`seed`.*seed={2**30}"),
    ],
)
def test_errors_of_batches_of_classes(arguments, message):
    with pytest.raises(ValueError, match=message):
        by_class(**arguments)


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


def dataset_of(make, **arguments):
    arguments |= {"seed": 3, "augment": crop_by_one}
    if make == "classes":
        return class_batches(IMAGES, LABELS, classes_per_batch=2, samples_per_class=2, **arguments)
    pipeline = {"triplets": triplet_dataset, "pairs": pair_dataset, "images": image_dataset}[make]
    return pipeline(IMAGES, LABELS, BATCH, **arguments)


@functools.cache
def passes_of(make):
    dataset = dataset_of(make)
    return [one_pass(dataset) for _ in range(3)]


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("make", ["triplets", "pairs", "images", "classes"])
def test_a_pass_starts_at_any_step_of_any_epoch(make, step):
    passes = passes_of(make)
    rest = dataset_of(make, initial_epoch=1, initial_step=step)
    assert rest.cardinality() == len(passes[1]) - step
    assert_equal(one_pass(rest), passes[1][step:])
    # Every pass leaves the same number out.
    assert_equal(one_pass(rest), passes[2][step:])


@pytest.mark.parametrize("step", [-1, STEPS])
def test_a_step_that_no_epoch_has_is_refused(step):
    with pytest.raises(ValueError, match=rf"initial_step.*\[0, {STEPS}\).*initial_step={step}"):
        triplets(initial_step=step)
