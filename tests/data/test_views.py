"""A bounded number of views: the same ones again and again, all of them before any comes back, to the bit."""

import functools

import numpy as np
import pytest

from keras_tkd.data import (
    choose_view,
    crop_and_flip,
    image_dataset,
    make_view_seeds,
    pair_dataset,
    triplet_dataset,
    view_batches,
)

COUNT, VIEWS = 11, 3
IMAGES = np.random.default_rng(0).integers(1, 256, (COUNT, 6, 5, 2), dtype=np.uint8)
LABELS = np.arange(COUNT) % 3
crop = functools.partial(crop_and_flip, padding=2)


def anchors_by_id(batches, role="image"):
    """The images of a pass in the order of the samples' ids, and the numbers of their views."""
    batches = [batch for batch, _ in batches.as_numpy_iterator()]
    index, images, views = (np.concatenate([batch[key] for batch in batches]) for key in ("index", role, "view"))
    order = np.argsort(index)
    np.testing.assert_array_equal(index[order], np.arange(COUNT))
    return images[order], views[order]


@pytest.mark.parametrize("views", [1, 2, 3, 8])
def test_every_cycle_shows_all_views_and_the_first_in_their_own_order(views):
    cycles = 40
    order = np.array([choose_view(epoch, 5, views) for epoch in range(cycles * views)]).reshape(cycles, views)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(views), (cycles, 1)))
    np.testing.assert_array_equal(order[0], np.arange(views))
    if views > 1:
        # Fresh orders afterwards: of 39, more than one, and another seed has others.
        assert len({tuple(cycle) for cycle in order}) > 1
        other = np.array([choose_view(epoch, 6, views) for epoch in range(cycles * views)]).reshape(cycles, views)
        assert not np.array_equal(order, other)


def test_without_a_bound_each_epoch_is_a_view_of_its_own():
    assert [choose_view(epoch, 5) for epoch in (0, 7, 10**6)] == [0, 7, 10**6]


def test_views_come_again_to_the_bit_and_are_those_of_seed_sample_and_number():
    dataset = triplet_dataset(IMAGES, LABELS, 4, seed=9, augment=crop, views=VIEWS)
    seen = {}
    for epoch in range(3 * VIEWS):
        images, views = anchors_by_id(dataset)
        assert len(set(views)) == 1 and views[0] == choose_view(epoch, 9, VIEWS)
        expected = crop(IMAGES, make_view_seeds(np.arange(COUNT), 9, int(views[0]))).numpy()
        np.testing.assert_array_equal(images, expected)
        seen[int(views[0])] = images
    assert sorted(seen) == [0, 1, 2]
    assert all((seen[a] != seen[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))


def test_as_many_views_as_epochs_are_the_views_without_a_bound():
    free = triplet_dataset(IMAGES, LABELS, 4, seed=9, augment=crop)
    bounded = triplet_dataset(IMAGES, LABELS, 4, seed=9, augment=crop, views=4)
    for _ in range(4):
        for (one, _), (other, _) in zip(free.as_numpy_iterator(), bounded.as_numpy_iterator(), strict=True):
            assert set(one) == set(other) == {"image", "negative", "index", "view"}
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])


def test_extra_images_are_fresh_views_however_few_views_the_anchors_have():
    free = triplet_dataset(IMAGES, LABELS, COUNT, seed=9, augment=crop, positives="same_class", initial_epoch=5)
    bounded = triplet_dataset(
        IMAGES, LABELS, COUNT, seed=9, augment=crop, positives="same_class", initial_epoch=5, views=1
    )
    (one, _), (other, _) = (next(iter(dataset.as_numpy_iterator())) for dataset in (free, bounded))
    for role in ("negative", "positive"):
        np.testing.assert_array_equal(one[role], other[role])
    assert (one["image"] != other["image"]).any()
    assert set(one["view"]) == {5} and set(other["view"]) == {0}


def test_all_pipelines_show_the_same_views():
    given = {"seed": 9, "augment": crop, "views": 2, "initial_epoch": 5}
    triplets, pairs, plain = (
        make(IMAGES, LABELS, 4, **given) for make in (triplet_dataset, pair_dataset, image_dataset)
    )
    for (a, _), (b, _), (c, _) in zip(triplets, pairs, plain, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["image"], c)


def test_a_privileged_teachers_images_are_shown_in_the_students_view():
    dataset = triplet_dataset(IMAGES, LABELS, 4, seed=9, augment=crop, views=2, teacher_images=IMAGES + 0)
    for batch, _ in dataset.repeat(3):
        np.testing.assert_array_equal(batch["teacher_image"], batch["image"])


def test_evaluation_knows_no_views():
    dataset = triplet_dataset(IMAGES, LABELS, COUNT, seed=9, augment=crop, views=2, training=False)
    (batch, _) = next(iter(dataset))
    assert "view" not in batch
    np.testing.assert_array_equal(batch["image"], IMAGES)


@pytest.mark.parametrize("views", [0, -1])
def test_views_below_one_are_refused(views):
    for make in (triplet_dataset, pair_dataset, image_dataset):
        with pytest.raises(ValueError, match=f"`views` must be >= 1.*views={views}"):
            make(IMAGES, LABELS, 4, seed=0, augment=crop, views=views)


@pytest.mark.parametrize("augment", [None, crop])
def test_view_batches_are_the_images_of_training_view_by_view(augment):
    batches = list(view_batches(IMAGES, 4, seed=9, augment=augment, views=VIEWS).as_numpy_iterator())
    assert [len(batch) for batch in batches] == [4, 4, 3] * VIEWS
    by_view = np.concatenate(batches).reshape(VIEWS, *IMAGES.shape)
    if augment:
        dataset = triplet_dataset(IMAGES, LABELS, 5, seed=9, augment=augment, views=VIEWS)
        for _ in range(2 * VIEWS):
            images, views = anchors_by_id(dataset)
            np.testing.assert_array_equal(images, by_view[views[0]])
    else:
        np.testing.assert_array_equal(by_view, np.stack([IMAGES] * VIEWS))
    later = list(view_batches(IMAGES, 4, seed=9, augment=augment, views=VIEWS, first=5).as_numpy_iterator())
    assert len(later) == 4
    for one, other in zip(later, batches[5:], strict=True):
        np.testing.assert_array_equal(one, other)
