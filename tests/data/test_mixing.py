"""mixup and CutMix: shares, boxes and partners are as they are defined, and a batch is a function of its seeds."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.stats import beta, chi2, kstest

from keras_tkd.data import (
    Mixing,
    crop_and_flip,
    image_dataset,
    make_view_seeds,
    mix_batches,
    pair_dataset,
    triplet_dataset,
    view_batches,
)

SEEDS = np.arange(4_000) * 536_000 + 17
COUNT, CLASSES = 11, 4
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 6, 8, 3), dtype="uint8")
LABELS = np.random.default_rng(1).integers(0, CLASSES, COUNT)
BOTH = Mixing(CLASSES, mixup=0.4, cutmix=1.0)


def assert_equally_often(counts):
    expected = counts.sum() / counts.size
    assert expected >= 5 and ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-6, counts.size - 1)


class TestMixup:
    @pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
    def test_shares_are_of_the_beta_distribution(self, alpha):
        images = np.zeros((len(SEEDS), 1, 1, 1), "float32")
        _, shares = Mixing(3, mixup=alpha).mix_images(images, images, SEEDS)
        assert kstest(shares.numpy(), beta(alpha, alpha).cdf).pvalue > 1e-6

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_images_and_labels_are_mixed_by_the_same_shares(self, dtype):
        mix, seeds = Mixing(CLASSES, mixup=1.0), SEEDS[:COUNT]
        own, other = IMAGES.astype(dtype), IMAGES[::-1].astype(dtype)
        mixed, shares = mix.mix_images(own, other, seeds)
        assert mixed.dtype == dtype
        part = shares.numpy().astype(float)
        for i in range(COUNT):
            expected = part[i] * own[i] + (1 - part[i]) * other[i]
            # A whole number is the nearest one.
            np.testing.assert_allclose(mixed[i], expected, atol=0.5001 if dtype == "uint8" else 1e-4)
        rows = mix.mix_labels(LABELS, LABELS[::-1], shares).numpy()
        expected = part[:, None] * np.eye(CLASSES)[LABELS] + (1 - part[:, None]) * np.eye(CLASSES)[LABELS[::-1]]
        np.testing.assert_allclose(rows, expected, atol=1e-6)


class TestCutMix:
    def test_a_box_of_the_partner_whose_share_is_the_labels(self):
        own, other = np.zeros((len(SEEDS), 12, 16, 2), "uint8"), np.ones((len(SEEDS), 12, 16, 2), "uint8")
        mixed, shares = Mixing(3, cutmix=1.0).mix_images(own, other, SEEDS)
        pasted = mixed.numpy()
        np.testing.assert_array_equal(pasted[..., 0], pasted[..., 1])
        np.testing.assert_allclose(shares, 1 - pasted.mean(axis=(1, 2, 3)), atol=1e-6)
        centres, whole = np.zeros((12, 16), int), 0
        for box in pasted[..., 0]:
            rows, columns = (np.flatnonzero(box.any(axis=axis)) for axis in (1, 0))
            assert box.sum() == len(rows) * len(columns)
            # A box that touches no edge has its sides in the image's own ratio, rounded.
            if len(rows) and rows[0] > 0 and rows[-1] < 11 and columns[0] > 0 and columns[-1] < 15:
                assert abs(len(rows) / 12 - len(columns) / 16) <= 0.5 / 12 + 0.5 / 16
                whole += 1
            # A box of one pixel lies where its centre is.
            if len(rows) == len(columns) == 1:
                centres[rows[0], columns[0]] += 1
        assert whole > 100 and centres.sum() > 5

    def test_shares_before_boxes_are_cut_off_are_of_the_beta_distribution(self):
        images = np.zeros((len(SEEDS), 64, 64, 1), "uint8")
        mixed, _ = Mixing(3, cutmix=1.0).mix_images(images, images + 1, SEEDS)
        # With alpha = 1 the area s^2 of a square box in a square of side 1 is uniform: E[s^k] = 2 / (k + 2). Of a side
        # s with its centre anywhere, s - s^2 / 4 is inside on average, and E[(s - s^2 / 4)^2] of the area.
        expected = 2 / 4 - 2 / 5 / 2 + 2 / 6 / 16
        assert mixed.numpy().mean() == pytest.approx(expected, abs=0.02)


def test_a_coin_for_each_image_where_both_are_given():
    own, other = np.zeros((len(SEEDS), 4, 4, 1), "float32"), np.ones((len(SEEDS), 4, 4, 1), "float32")
    mix = Mixing(3, mixup=2.0, cutmix=1.0)
    mixed, shares = mix.mix_images(own, other, SEEDS)
    mixed, shares = mixed.numpy(), shares.numpy()
    blended, blended_shares = (part.numpy() for part in Mixing(3, mixup=2.0).mix_images(own, other, SEEDS))
    pasted, pasted_shares = (part.numpy() for part in Mixing(3, cutmix=1.0).mix_images(own, other, SEEDS))
    by_mixup = (mixed == blended).all(axis=(1, 2, 3)) & (shares == blended_shares)
    by_cutmix = (mixed == pasted).all(axis=(1, 2, 3)) & (shares == pasted_shares)
    assert (by_mixup != by_cutmix).all()
    assert_equally_often(np.bincount(by_mixup))


def test_every_sample_is_the_partner_of_one_in_each_view_and_of_others_in_another():
    places = np.arange(1_000)
    first, second = (BOTH.draw_partners(places, 3, view, 1_000).numpy() for view in (0, 1))
    for partners in (first, second):
        np.testing.assert_array_equal(np.sort(partners), places)
    assert (first == second).sum() < 10 and (first == places).sum() < 10
    assert (BOTH.draw_partners(places, 4, 0, 1_000).numpy() == first).sum() < 10
    # Alone as in any batch.
    assert BOTH.draw_partners(places[7:8], 3, 0, 1_000).numpy() == first[7:8]


def mixed_by_hand(view, seed, augment, mix=BOTH):
    """Images and labels of all samples in one view."""
    seeds = make_view_seeds(np.arange(COUNT), seed, view)
    shown = augment(IMAGES, seeds).numpy() if augment else IMAGES
    partners = mix.draw_partners(np.arange(COUNT), seed, view, COUNT).numpy()
    images, shares = mix.mix_images(shown, shown[partners], seeds)
    rows = np.eye(CLASSES)
    shares = shares.numpy()[:, None]
    return images.numpy(), shares * rows[LABELS] + (1 - shares) * rows[LABELS[partners]]


@pytest.mark.parametrize("augment", [None, crop_and_flip])
@pytest.mark.parametrize("views", [None, 2])
def test_a_pipeline_shows_samples_mixed_in_the_same_view(views, augment):
    arguments = {"seed": 9, "augment": augment, "mix": BOTH, "views": views}
    dataset = triplet_dataset(IMAGES, LABELS, 4, negatives=None, teacher_images=IMAGES, **arguments)
    plain = image_dataset(IMAGES, LABELS, 4, **arguments)
    for _ in range(4):
        for (batch, label), (images, rows) in zip(dataset, plain, strict=True):
            assert set(batch) == {"image", "teacher_image", "index", "mixed_view"}
            (view,) = set(batch["mixed_view"].numpy())
            by_id, labels = mixed_by_hand(int(view), 9, augment)
            for key in ("image", "teacher_image"):
                np.testing.assert_array_equal(batch[key], by_id[batch["index"].numpy()])
            np.testing.assert_allclose(label, labels[batch["index"].numpy()], atol=1e-6)
            np.testing.assert_array_equal(images, batch["image"])
            np.testing.assert_array_equal(rows, label)


def test_what_a_cache_is_computed_from_is_what_training_shows():
    by_view = list(view_batches(IMAGES, 4, seed=9, augment=crop_and_flip, mix=BOTH, views=2).as_numpy_iterator())
    for view in range(2):
        shown = np.concatenate(by_view[3 * view : 3 * view + 3])
        np.testing.assert_array_equal(shown, mixed_by_hand(view, 9, crop_and_flip)[0])


def test_a_pass_begins_at_any_epoch_and_step_with_any_number_of_threads():
    def one_pass(dataset, threads=None):
        if threads:
            options = tf.data.Options()
            options.threading.private_threadpool_size = threads
            dataset = dataset.with_options(options)
        return list(dataset.as_numpy_iterator())

    def make(**more):
        return image_dataset(IMAGES, LABELS, 3, **{"seed": 9, "augment": crop_and_flip, "mix": BOTH} | more)

    dataset = make()
    first, second = one_pass(dataset), one_pass(dataset)
    assert not np.array_equal(first[0][0], second[0][0])
    tf.nest.map_structure(np.testing.assert_array_equal, one_pass(make(initial_epoch=1, initial_step=2)), second[2:])
    for threads in (1, 7):
        tf.nest.map_structure(np.testing.assert_array_equal, one_pass(make(), threads), first)
    assert not np.array_equal(one_pass(make(seed=8))[0][0], first[0][0])


def test_outside_of_training_nothing_is_mixed_and_labels_are_rows():
    ((images, rows),) = image_dataset(IMAGES, LABELS, COUNT, seed=9, mix=BOTH, training=False)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(rows, np.eye(CLASSES)[LABELS])


class TestMixBatches:
    @staticmethod
    def dataset(labels=LABELS):
        return tf.data.Dataset.from_tensor_slices((IMAGES, labels)).batch(4)

    def test_images_are_mixed_inside_their_batch(self):
        # Images that show their sample alone: a mixed one tells of which two it is, and in which shares.
        images = np.eye(COUNT, dtype="float32").reshape(COUNT, 1, COUNT, 1)
        dataset = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4)
        mixed = list(mix_batches(dataset, Mixing(CLASSES, mixup=1.0), seed=3).as_numpy_iterator())
        assert [len(rows) for _, rows in mixed] == [4, 4, 3]
        for number, (shown, rows) in enumerate(mixed):
            weights = shown[:, 0, :, 0]
            own = np.arange(4 * number, 4 * number + len(rows))
            outside = np.ones(COUNT, bool)
            outside[own] = False
            assert not weights[:, outside].any() and ((weights > 0).sum(axis=1) <= 2).all()
            np.testing.assert_allclose(rows, weights @ np.eye(CLASSES)[LABELS], atol=1e-6)

    def test_a_batch_is_a_function_of_seed_and_number(self):
        first, again = (list(mix_batches(self.dataset(), BOTH, seed=3).as_numpy_iterator()) for _ in range(2))
        tf.nest.map_structure(np.testing.assert_array_equal, first, again)
        other = list(mix_batches(self.dataset(), BOTH, seed=4).as_numpy_iterator())
        assert not np.array_equal(first[0][1], other[0][1])
        twice = list(mix_batches(self.dataset().repeat(2), BOTH, seed=3).as_numpy_iterator())
        tf.nest.map_structure(np.testing.assert_array_equal, twice[:3], first)
        assert not np.array_equal(twice[3][1], first[0][1])

    def test_labels_that_are_no_classes(self):
        with pytest.raises(tf.errors.InvalidArgumentError, match="class ids from 0 to 3"):
            list(mix_batches(self.dataset(LABELS + 1), BOTH, seed=3))

    @pytest.mark.parametrize("dataset", [lambda make: make(np.eye(4)[LABELS]), lambda make: make().unbatch()])
    def test_batches_of_another_form(self, dataset):
        with pytest.raises(ValueError, match=r"must be \(images, labels\).*Received: \(TensorSpec"):
            mix_batches(dataset(self.dataset), BOTH, seed=3)


@pytest.mark.parametrize(
    "given",
    [{}, {"mixup": 0.0}, {"cutmix": -1.0}, {"mixup": 0.2, "cutmix": float("nan")}, {"mixup": True}],
    ids=str,
)
def test_numbers_out_of_range_are_refused(given):
    with pytest.raises(ValueError, match="`mixup` and `cutmix` must be numbers > 0.*Received: mixup="):
        Mixing(10, **given)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="`num_classes` must be >= 2.*num_classes=1"):
        Mixing(1, mixup=0.2)


def test_labels_without_a_class_are_refused():
    with pytest.raises(ValueError, match="class ids from 0 to 3. Received: 4.*Number the classes from 0"):
        image_dataset(IMAGES, np.arange(COUNT) % 5, 4, seed=0, mix=BOTH)


def test_what_is_no_mixing_is_refused():
    with pytest.raises(ValueError, match=r"`mix` must be a keras_tkd.data.Mixing.*Received: mix=0.2"):
        image_dataset(IMAGES, LABELS, 4, seed=0, mix=0.2)


def test_images_of_two_classes_get_no_negatives():
    with pytest.raises(ValueError, match="Mixed images are of two classes.*`mix` with negative images.*negatives=None"):
        triplet_dataset(IMAGES, LABELS, 4, seed=0, mix=BOTH)
    with pytest.raises(TypeError, match="mix"):
        pair_dataset(IMAGES, LABELS, 4, seed=0, mix=BOTH)
