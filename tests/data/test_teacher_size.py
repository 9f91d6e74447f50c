"""A teacher's images of another size: the same pixels of the same files, and the same part of them in every view."""

import numpy as np
import PIL.Image
import pytest

from keras_tkd.data import (
    Mixing,
    crop_and_flip,
    image_decoding,
    image_reading,
    load,
    make_augmentation,
    pair_dataset,
    triplet_dataset,
)

SEEDS = np.arange(60) * 35_000_000 + 17
SMALL = np.random.default_rng(0).integers(1, 256, (len(SEEDS), 8, 12, 3), dtype="uint8")
SIZE = SMALL.shape[1:3]


def enlarge(images, factor):
    """Each pixel becomes a square of equal ones, which an operation on places must keep together."""
    return images.repeat(factor, 1).repeat(factor, 2)


class TestViews:
    @pytest.mark.parametrize("factor", [2, 3])
    @pytest.mark.parametrize(
        "name", ["crop@padding=3", "crop_flip", "horizontal_flip", "cutout", "crop+cutout@size=0.3"]
    )
    def test_the_larger_image_shows_the_same_part(self, name, factor):
        augment = make_augmentation(name, drawn_for=SIZE)
        shown = augment(SMALL, SEEDS).numpy()
        np.testing.assert_array_equal(shown, make_augmentation(name)(SMALL, SEEDS))
        np.testing.assert_array_equal(augment(enlarge(SMALL, factor), SEEDS), enlarge(shown, factor))

    def test_crops_of_any_size_are_off_by_half_a_pixel_at_most(self):
        def find_offsets(height):
            # Rows hold their number, from 1; of a row in the middle of the view, it tells where the view begins.
            rows = np.ones((len(SEEDS), 1, 1, 1)) * np.arange(1.0, height + 1)[:, None, None]
            augment = make_augmentation("crop@padding=3", drawn_for=(12, 12))
            view = augment(np.tile(rows, (1, 1, height, 1)), SEEDS).numpy()
            middle = height // 2
            return view[:, middle, middle, 0] - (middle + 1)

        small, large = find_offsets(12), find_offsets(28)
        assert set(small) == {-3, -2, -1, 0, 1, 2, 3}
        assert np.abs(large - small * 28 / 12).max() <= 0.5
        # And 7/3 is no whole number: rounded down, some would be farther off.
        assert np.abs(large - small * 28 / 12).max() > 0.3

    def test_resized_crops_enlarge_the_same_part(self):
        def show(size):
            # A slope, which bilinear enlargement keeps: each pixel tells how far right it was, as a share.
            slope = (np.arange(size) + 0.5) / size
            images = np.tile(slope[None, None, :, None], (len(SEEDS), size, 1, 1))
            return make_augmentation("resized_crop@area=0.3", drawn_for=(16, 16))(images, SEEDS).numpy()

        small, large = show(16), show(48)
        blocks = large.reshape(len(SEEDS), 16, 3, 16, 3, 1).mean((2, 4))
        # At its edges a part goes on as its outermost pixel, whose middle is nearer to the edge in the larger image.
        np.testing.assert_allclose(blocks[:, :, 2:-2], small[:, :, 2:-2], atol=1e-6)
        assert small[:, :, 8].std() > 0.05

    def test_cutmix_pastes_the_same_box_and_mixes_labels_alike(self):
        mix = Mixing(4, cutmix=1.0, drawn_for=SIZE)
        mixed, shares = mix.mix_images(SMALL, SMALL[::-1], SEEDS)
        large, large_shares = mix.mix_images(enlarge(SMALL, 3), enlarge(SMALL[::-1], 3), SEEDS)
        np.testing.assert_array_equal(large, enlarge(mixed.numpy(), 3))
        np.testing.assert_array_equal(large_shares, shares)
        np.testing.assert_array_equal(mixed, Mixing(4, cutmix=1.0).mix_images(SMALL, SMALL[::-1], SEEDS)[0])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three classes of noise, 20 files each of sizes around 24x30, as WebP, which is decoded by Python."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for number in range(60):
        path = root / "abc"[number // 20] / f"{number}.webp"
        path.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (24 + number % 3, 30 - number % 4, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(path, lossless=True)
    return root


def assert_same(one, other):
    for part in ("train", "test", "validation"):
        images, labels = getattr(one, f"{part}_images"), getattr(one, f"{part}_labels")
        np.testing.assert_array_equal(images, getattr(other, f"{part}_images"))
        np.testing.assert_array_equal(labels, getattr(other, f"{part}_labels"))


def change(splits):
    return splits.with_classes(["c", "a"]).with_validation(0.25, 3).with_train_fraction(0.5, 4)


class TestLoad:
    def test_both_sizes_are_those_of_the_files_decoded_once(self, folder, monkeypatch):
        alone, teacher = (load(folder, image_size=size) for size in (6, 16))
        decoded = []
        read_image = image_reading.read_image
        monkeypatch.setattr(
            image_reading, "read_image", lambda path, *args: decoded.append(path) or read_image(path, *args)
        )
        both = load(folder, image_size=6, teacher_image_size=16)
        assert len(decoded) == len(set(decoded)) == 60
        assert_same(change(both), change(alone))
        assert_same(change(both).for_teacher, change(teacher))
        assert both.teacher.image_shape == (16, 16, 3) and both.view_size == both.teacher.view_size == (6, 6)
        assert alone.for_teacher is alone and alone.view_size is None

    def test_an_open_set_is_taken_out_in_both_sizes(self, folder):
        classes = {"image_size": 6, "open_set_fraction": 1.0}
        both, teacher = load(folder, teacher_image_size=16, **classes), load(folder, **classes | {"image_size": 16})
        np.testing.assert_array_equal(both.for_teacher.open_set_images, teacher.open_set_images)
        np.testing.assert_array_equal(both.open_set_images, load(folder, **classes).open_set_images)

    def test_small_stored_images_are_enlarged_for_the_teacher(self, stored):
        for name, data_dir in (("digits", None), ("shades", str(stored))):
            both = load(name, data_dir, teacher_image_size=16)
            assert_same(both.with_validation(0.5, 0), load(name, data_dir).with_validation(0.5, 0))
            teacher = load(name, data_dir, image_size=16).with_validation(0.5, 0)
            assert_same(both.with_validation(0.5, 0).for_teacher, teacher)

    def test_a_cache_of_one_size_is_refused(self, folder, tmp_path):
        with pytest.raises(ValueError, match="`decoded_cache` holds images of one size.*teacher_image_size=16"):
            load(folder, image_size=6, teacher_image_size=16, decoded_cache=tmp_path)
        with pytest.raises(ValueError, match="`teacher_image_size` must be a positive integer.*teacher_image_size=0"):
            load(folder, image_size=6, teacher_image_size=0)


SHOWN = {"seed": 5, "augment": make_augmentation("crop_flip", drawn_for=(6, 6))}


def first_epochs(make_dataset, splits, **more):
    dataset = make_dataset(
        splits.train_images, splits.train_labels, 8, teacher_images=splits.teacher.train_images, **SHOWN, **more
    )
    return [batch for _ in range(2) for batch in dataset.as_numpy_iterator()]


class TestStreams:
    @pytest.mark.parametrize("make_dataset", [triplet_dataset, pair_dataset])
    def test_a_window_of_all_samples_makes_the_batches_of_memory(self, folder, make_dataset):
        sizes = {"image_size": 6, "teacher_image_size": 16}
        held, streamed = load(folder, **sizes), load(folder, shuffle_window=60, **sizes)
        for (one, label), (other, same_label) in zip(
            first_epochs(make_dataset, held), first_epochs(make_dataset, streamed), strict=True
        ):
            assert one["teacher_image"].shape[1:] == (16, 16, 3)
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])
            np.testing.assert_array_equal(label, same_label)

    def test_in_small_windows_each_sample_has_its_own_and_is_decoded_once(self, folder, stored, monkeypatch):
        decoded = []
        read_image = image_decoding.read_image

        def count(path, *arguments):
            decoded.append(path)
            return read_image(path, *arguments)

        monkeypatch.setattr(image_decoding, "read_image", count)
        for name, data_dir in ((folder, None), ("shades", str(stored))):
            sizes = {"image_size": 6, "teacher_image_size": 16}
            held, streamed = (load(name, data_dir, shuffle_window=window, **sizes) for window in (None, 13))
            decoded.clear()
            dataset = triplet_dataset(
                streamed.train_images,
                streamed.train_labels,
                8,
                seed=1,
                negatives=None,
                teacher_images=streamed.teacher.train_images,
            )
            batches = [batch for batch, _ in dataset.as_numpy_iterator()]
            index = np.concatenate([batch["index"] for batch in batches])
            assert sorted(index) == list(range(len(held.train_labels))) != list(index)
            for key, splits in (("image", held), ("teacher_image", held.teacher)):
                shown = np.concatenate([batch[key] for batch in batches])
                np.testing.assert_array_equal(shown, splits.train_images[index])
            assert len(decoded) == len(set(decoded)) == (48 if data_dir is None else 0)

    def test_what_cannot_be_shown_side_by_side_is_refused(self, folder):
        sizes = {"image_size": 6, "teacher_image_size": 16}
        held, streamed, other = (load(folder, shuffle_window=window, **sizes) for window in (None, 60, 60))
        for images, teacher_images in (
            (streamed.train_images, other.teacher.train_images),
            (streamed.train_images.take([0, 1, 2]), streamed.teacher.train_images.take([0, 1, 3])),
        ):
            labels = streamed.train_labels[: len(images)]
            with pytest.raises(ValueError, match="side by side must be of the same samples"):
                triplet_dataset(images, labels, 2, seed=0, negatives=None, teacher_images=teacher_images)
        with pytest.raises(ValueError, match="With images in memory, `teacher_images` must be an array"):
            triplet_dataset(
                held.train_images,
                held.train_labels,
                2,
                seed=0,
                augment=crop_and_flip,
                teacher_images=streamed.teacher.train_images,
            )
