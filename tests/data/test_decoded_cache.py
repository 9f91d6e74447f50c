"""A cache of decoded images: what memory holds, whole or not there, and of these files or refused."""

import os
import resource
import shutil
import threading

import numpy as np
import PIL.Image
import pytest

from keras_tkd.data import decoded_cache, image_decoding, image_reading, iterate_batches, load, triplet_dataset

PER_CLASS = 6


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            # Formats of both decoders, and of different sizes.
            image = PIL.Image.fromarray(rng.integers(0, 256, (5 + number % 2, 6, 3), np.uint8))
            image.save(tmp_path / "pets" / name / f"{number}.{('jpg', 'bmp')[number % 2]}")
    return tmp_path / "pets"


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "caches" / "pets"


@pytest.fixture
def decodes(monkeypatch):
    """The files that were decoded, in any place."""
    names = []
    for module in (image_reading, image_decoding):
        read_image = module.read_image

        def read(path, *arguments, read_image=read_image):
            names.append(os.path.basename(path))
            return read_image(path, *arguments)

        monkeypatch.setattr(module, "read_image", read)
    return names


def load_pets(folder, cache=None, **arguments):
    return load(folder, **{"image_size": 4, "decoded_cache": cache} | arguments)


def get_images(splits):
    return [np.concatenate([*iterate_batches(images, 5)]) for images in (splits.train_images, splits.test_images)]


def assert_same(found, expected):
    for images, others in zip(get_images(found), get_images(expected), strict=True):
        np.testing.assert_array_equal(images, others)
    assert found.split == expected.split and found.bad_images == expected.bad_images


@pytest.mark.parametrize("shuffle_window", [None, 4])
def test_files_are_decoded_once_for_all(shuffle_window, folder, cache, decodes):
    expected = load_pets(folder)
    decodes.clear()
    # Streamed or not, it is the same cache.
    first = load_pets(folder, cache, shuffle_window=shuffle_window)
    assert len(decodes) == 2 * PER_CLASS
    assert_same(first, expected)
    second = load_pets(folder, str(cache), shuffle_window=4)
    assert_same(second, expected)
    without = load_pets(folder, shuffle_window=4)
    np.testing.assert_array_equal(second.train_images.identity, without.train_images.identity)
    decodes.clear()
    assert_same(second, load_pets(folder, cache))
    # Another division is of the same files.
    other = load_pets(folder, cache, test_fraction=0.5, split_seed=3)
    assert not decodes
    assert_same(other, load_pets(folder, test_fraction=0.5, split_seed=3))


def test_batches_are_those_of_memory(folder, cache, decodes):
    held, kept = load_pets(folder), load_pets(folder, cache, shuffle_window=100)
    decodes.clear()
    found, expected = (triplet_dataset(x.train_images, x.train_labels, 4, seed=1) for x in (kept, held))
    for (batch, label), (other, other_label) in zip(found, expected, strict=True):
        assert batch.keys() == other.keys() and np.array_equal(label, other_label)
        assert all(np.array_equal(batch[key], other[key]) for key in batch)
    assert not decodes


def test_writing_to_an_image_changes_no_file(folder, cache):
    load_pets(folder, cache)
    pixels = decoded_cache._map_array(cache / "decoded" / "images.npy")
    before = pixels.copy()
    pixels[:] = 7
    np.testing.assert_array_equal(np.load(cache / "decoded" / "images.npy"), before)


def touch(folder):
    os.utime(folder / "cat" / "0.jpg", (1, 1))


def add(folder):
    shutil.copy(folder / "cat" / "0.jpg", folder / "cat" / "9.jpg")


def rename(folder):
    (folder / "cat" / "0.jpg").rename(folder / "cat" / "00.jpg")


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (touch, {}, "differs is fingerprint. Files were added, removed, renamed or written to"),
        (rename, {}, "differs is fingerprint. Files were"),
        (add, {}, "made of 12 files of .*pets, .* these are 13 files of .*pets, .*differs is files, fingerprint"),
        (lambda _: None, {"image_size": 5}, "image_size=4x4, .*image_size=5x5: what differs is image_size"),
        (lambda _: None, {"max_pixels": 100}, "what differs is max_pixels"),
    ],
)
def test_a_cache_of_other_images_is_refused(change, arguments, words, folder, cache, decodes):
    load_pets(folder, cache)
    change(folder)
    decodes.clear()
    with pytest.raises(ValueError, match=f"`decoded_cache` .--decoded_cache.*{cache}.*{words}.*Remove it, or choose"):
        load_pets(folder, cache, **arguments)
    assert not decodes


def test_a_folder_that_moves_keeps_its_cache(folder, cache, decodes):
    load_pets(folder, cache)
    moved = folder.rename(folder.with_name("moved"))
    decodes.clear()
    load_pets(moved, cache)
    assert not decodes


@pytest.fixture
def other_pixels(folder):
    """A file of the size and the time of another, whose pixels differ."""
    path = folder / "cat" / "1.bmp"
    content, times = bytearray(path.read_bytes()), path.stat()

    def change():
        content[-3] ^= 255  # in the last row of pixels, which end a BMP; at its very end, rows are filled up
        path.write_bytes(content)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    return change


def test_other_pixels_of_the_same_sizes_and_times_are_refused(folder, cache, other_pixels):
    load_pets(folder, cache)
    other_pixels()
    message = "of 12 files that were compared 1 have other contents in .*pets.*: cat/1.bmp. Remove it, or choose"
    with pytest.raises(ValueError, match=f"`decoded_cache` .*{cache}, which was made of .*pets, and {message}"):
        load_pets(folder, cache)


def test_of_another_folder_all_files_are_compared(folder, cache, other_pixels, monkeypatch):
    """Of the folder itself only the first is, here, and another look is too dear."""
    monkeypatch.setattr(decoded_cache, "_SAMPLE", 1)
    load_pets(folder, cache)
    shutil.copytree(folder, folder.with_name("copy"))
    load_pets(folder.with_name("copy"), cache)
    other_pixels()
    load_pets(folder, cache)
    variant = folder.rename(folder.with_name("variant"))
    with pytest.raises(ValueError, match="made of .*pets, and of 12 .* 1 have other .*variant.*: cat/1.bmp"):
        load_pets(variant, cache)


@pytest.mark.parametrize("file", ["images.npy", "checksums.npy"])
def test_a_flipped_bit_is_damage(file, folder, cache):
    load_pets(folder, cache)
    path = cache / "decoded" / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is damaged. Remove it"):
        load_pets(folder, cache)


def test_what_is_no_cache_is_refused_and_kept(folder, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=f"{tmp_path}/notes, which holds something else: thesis.txt. Choose another"):
        load_pets(folder, tmp_path / "notes")
    with pytest.raises(ValueError, match="thesis.txt, which is no folder"):
        load_pets(folder, tmp_path / "notes" / "thesis.txt")
    assert (tmp_path / "notes" / "thesis.txt").read_text() == "precious"


@pytest.mark.parametrize("place", ["cache", "cat/cache", ".cache"])
def test_a_cache_in_the_data_set_is_refused_before_anything_is_read(place, folder, decodes, monkeypatch):
    for given in (folder / place, os.path.join("pets", place), folder.parent / "link" / place):
        (folder.parent / "link").unlink(missing_ok=True)
        (folder.parent / "link").symlink_to(folder)
        monkeypatch.chdir(folder.parent)
        with pytest.raises(ValueError, match=f"outside the data set's.*{place}', which is inside .*Choose another"):
            load_pets(folder, given)
    assert not decodes and sorted(os.listdir(folder)) == ["cat", "dog"]


@pytest.mark.parametrize("file", ["images.npy", "checksums.npy", "decoded.json"])
def test_a_damaged_cache_is_refused(file, folder, cache):
    load_pets(folder, cache)
    path = cache / "decoded" / file
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        load_pets(folder, cache)


@pytest.mark.parametrize("file", ["decoded.json", "images.npy", "checksums.npy"])
def test_a_byte_is_damaged_anywhere(file, folder, cache, monkeypatch):
    """Whatever the byte says: the cache is refused by its name, or what it gives is what it gave."""
    spoil(folder / "cat" / "0.jpg")
    caches = []
    monkeypatch.setattr(
        image_reading, "DecodedCache", lambda *given: caches.append(decoded_cache.DecodedCache(*given)) or caches[-1]
    )
    load_pets(folder, cache, skip_bad_images=True)
    # The files of the data set are what they were.
    monkeypatch.setattr(decoded_cache, "find_other_files", lambda *_: [])
    whole = caches[0].open()
    assert whole.bad == ["cat/0.jpg"]
    path = cache / "decoded" / file
    content = path.read_bytes()
    for place in range(len(content) if file == "decoded.json" else 128):
        for value in b'1"' if file == "decoded.json" else b"1i>\x00":
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            try:
                found = caches[0].open()
            except ValueError as error:
                assert str(cache) in str(error), (place, value)
            else:
                assert found.bad == whole.bad and found.pixels.dtype == np.uint8, (place, value)
                np.testing.assert_array_equal(found.pixels, whole.pixels)
                np.testing.assert_array_equal(found.checksums, whole.checksums)


def test_what_a_killed_process_left_is_removed(folder, cache):
    left = cache / ".unfinished-1-decoded"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    assert_same(load_pets(folder, cache), load_pets(folder))
    assert [path.name for path in cache.iterdir()] == ["decoded"]


def test_a_disk_without_room_is_said_before_anything_is_decoded(folder, cache, decodes, monkeypatch):
    usage = shutil._ntuple_diskusage(1000, 900, 100)
    monkeypatch.setattr(decoded_cache.shutil, "disk_usage", lambda _: usage)
    # 12 images of 4x4x3 bytes.
    with pytest.raises(OSError, match=f"{cache}/.*cannot be written: No space.*576 bytes are needed.* 100 are free"):
        load_pets(folder, cache)
    assert not decodes and not cache.exists()


def test_a_disk_that_fills_up_leaves_nothing(folder, cache):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def load_with_little_room(function, *arguments):
        start = begin(function, *arguments)
        # Once room was made: as if somebody else took it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, before[1]))
        return start

    begin = decoded_cache.DecodedWriter.begin
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoded_cache.DecodedWriter, "begin", load_with_little_room)
        try:
            with pytest.raises(OSError, match=f"{cache}/.*cannot be written: File too large"):
                load_pets(folder, cache, image_size=64)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not cache.exists()


def spoil(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("shuffle_window", [None, 4])
def test_bad_images_are_the_same_with_and_without(shuffle_window, folder, cache, decodes):
    for name in ("cat/0.jpg", "dog/1.bmp"):
        spoil(folder / name)
    with pytest.raises(ValueError, match="Received: 2 of .*cat/0.jpg.*dog/1.bmp"):
        load_pets(folder, cache, shuffle_window=shuffle_window)
    assert not cache.exists()
    expected = load_pets(folder, skip_bad_images=True)
    assert expected.bad_images == ("cat/0.jpg cannot be decoded", "dog/1.bmp cannot be decoded")
    for _ in range(2):
        decodes.clear()
        found = load_pets(folder, cache, skip_bad_images=True, shuffle_window=shuffle_window)
        assert_same(found, expected)
    # The second time, those that are left out are looked at again, to say why.
    assert sorted(decodes) == ["0.jpg", "1.bmp"]
    with pytest.raises(ValueError, match="Received: 2 of .*cat/0.jpg.*dog/1.bmp"):
        load_pets(folder, cache, shuffle_window=shuffle_window)


def test_what_is_left_without_bad_images_may_be_grey(folder, cache):
    """The one that is of colour is bad, which its header does not show."""
    for number, path in enumerate(sorted(folder.rglob("*.*"))):
        path.unlink()
        image = PIL.Image.fromarray(np.full((5, 5), 20 * number, np.uint8))
        (image.convert("RGB") if number == 3 else image).save(path.with_suffix(".png"))
    spoil(folder / "cat" / "3.png")
    expected = load_pets(folder, skip_bad_images=True)
    assert expected.image_shape == (4, 4, 1)
    for _ in range(2):
        assert_same(load_pets(folder, cache, skip_bad_images=True), expected)


def test_a_file_that_is_good_again_makes_a_cache_stale(folder, cache):
    path = folder / "cat" / "0.jpg"
    content, times = path.read_bytes(), path.stat()
    path.write_bytes(content[:-20] + bytes(20))
    spoiled = content[:50] + bytes(len(content) - 50)
    path.write_bytes(spoiled)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    load_pets(folder, cache, skip_bad_images=True)
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ValueError, match=f"{cache}, which was made when cat/0.jpg could not be read. Remove it"):
        load_pets(folder, cache, skip_bad_images=True)


def test_of_two_at_once_one_waits_for_the_other(folder, cache, monkeypatch, capsys):
    waits, decoded, found = threading.Event(), [], {}

    def read(*arguments):
        # The first decodes nothing before the second waits.
        assert waits.wait(60)
        decoded.append(arguments[0])
        return read_image(*arguments)

    read_image = image_reading.read_image
    monkeypatch.setattr(image_reading, "read_image", read)
    monkeypatch.setattr(decoded_cache.time, "sleep", lambda _: waits.set())

    def load_as(name):
        found[name] = load_pets(folder, cache)

    threads = [threading.Thread(target=load_as, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(decoded) == 2 * PER_CLASS
    assert_same(found["a"], found["b"])
    assert "Waiting for the decoded images" in capsys.readouterr().err


def test_whoever_waits_for_one_that_fails_builds_itself(folder, cache, monkeypatch):
    """The one that fails leaves nothing behind, not even the folder with the lock."""
    waits, failed, found = threading.Event(), threading.Event(), []
    waiting = threading.Thread(target=lambda: found.append(load_pets(folder, cache)))
    begin = decoded_cache.DecodedWriter.begin

    def fail(*arguments):
        if threading.current_thread() is waiting:
            return begin(*arguments)
        waiting.start()
        assert waits.wait(60)
        raise OSError("no room")

    def sleep(_):
        waits.set()
        assert failed.wait(60)

    monkeypatch.setattr(decoded_cache.DecodedWriter, "begin", fail)
    monkeypatch.setattr(decoded_cache.time, "sleep", sleep)
    with pytest.raises(OSError, match="no room"):
        load_pets(folder, cache)
    assert not cache.exists()
    failed.set()
    waiting.join(120)
    (built,) = found
    assert_same(built, load_pets(folder))
    assert cache.exists()


def test_a_cache_is_for_folders(cache):
    with pytest.raises(ValueError, match=f"`decoded_cache` keeps the images of a folder.*digits.*{cache}. Leave"):
        load("digits", decoded_cache=cache)
