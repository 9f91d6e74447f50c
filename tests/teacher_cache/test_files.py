"""The files of a cache under a kill, a full disk and a folder that cannot be written; no TensorFlow is needed."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest

from keras_tkd.teacher_cache import files
from keras_tkd.teacher_cache.files import CacheFiles
from keras_tkd.teacher_cache.writer import RowWriter

ROWS = (3, 1000)
OUTPUTS = {"logits": (10,), "nested/block:pre_activation": (2, 3)}
MADE_FROM = {"dtype": "float32", "seed": 0}


def rows(name, start, count):
    """Numbers that say which row they are of."""
    shape = OUTPUTS[name]
    return np.broadcast_to(np.arange(start, start + count)[(..., *[None] * len(shape))], (count, *shape)).astype(
        "float32"
    )


def fill(files, stop=ROWS[0] * ROWS[1], batch=50, pause=0.0):
    begin = files.rows_written
    with RowWriter(files) as row_writer:
        for start in range(begin, stop, batch):
            row_writer.append({name: rows(name, start, min(batch, stop - start)) for name in OUTPUTS})
            time.sleep(pause)


def begun(folder):
    files = CacheFiles(folder)
    with files.lock_for_writing():
        files.create(MADE_FROM, ROWS, OUTPUTS)
    return files


def assert_whole(folder):
    arrays = CacheFiles(folder).open_arrays()
    for name, shape in OUTPUTS.items():
        np.testing.assert_array_equal(arrays[name], rows(name, 0, 3000).reshape(*ROWS, *shape))
    assert sorted(path.name for path in folder.iterdir()) == [
        "logits.npy",
        "manifest.json",
        "nested%2Fblock%3Apre_activation.npy",
        "progress.json",
    ]


def test_files_are_ordinary_numpy_files(tmp_path):
    fill(begun(tmp_path / "cache"))
    assert_whole(tmp_path / "cache")
    np.testing.assert_array_equal(np.load(tmp_path / "cache" / "logits.npy")[1, 7], np.full(10, 1007))


KILLED = """
import pathlib, sys
sys.path.insert(0, sys.argv[2])
import test_files as t
from keras_tkd.teacher_cache import writer
writer._RECORD_SECONDS = 0.02
t.fill(t.begun(pathlib.Path(sys.argv[1])), pause=0.01)
"""


def test_a_killed_writing_is_continued(tmp_path):
    folder = tmp_path / "cache"
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), os.path.dirname(__file__)])
    try:
        deadline = time.monotonic() + 60
        while not 0 < (CacheFiles(folder).rows_written if (folder / "progress.json").exists() else 0):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    files = CacheFiles(folder)
    assert 0 < files.rows_written < 3000
    with pytest.raises(ValueError, match=f"not finished: {files.rows_written:,} of 3,000"):
        files.open_arrays()
    with files.lock_for_writing():
        fill(files)
    assert_whole(folder)


def test_what_killed_builders_left_half_written_is_removed(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    # One of a process that is gone, and one of a process that got the number of one that is gone.
    left = [folder / ".unfinished-99999999-manifest.json", folder / f".unfinished-{os.getppid()}-progress.json"]
    others = [folder / ".unfinished-99999999-student.keras", folder / ".hidden"]
    for path in left + others:
        path.write_text("{")
    with CacheFiles(folder).lock_for_writing():
        assert set(folder.iterdir()) == set(others)


def test_a_full_disk_loses_nothing(tmp_path):
    """The system refuses what is beyond a size of file, as it refuses what is beyond a full disk."""
    files = begun(tmp_path / "cache")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large. 1,200 of 3,000 rows are kept: build again to go on"):
            with files.lock_for_writing():
                fill(files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # 50,000 bytes hold the header of 128 and 1,246 rows of ten numbers: 24 batches of 50.
    assert files.rows_written == 1200
    fill(files)
    assert_whole(tmp_path / "cache")


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 191_999})
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    # 3,000 rows of 10 + 6 numbers of 4 bytes.
    with pytest.raises(OSError, match="192,000 bytes are still to be written, and 191,999 are free.*Choose another"):
        begun(tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    usage.free += 1
    fill(begun(tmp_path / "cache"), stop=1500)
    usage.free = 95_999
    with pytest.raises(OSError, match="96,000 bytes.*95,999 are free.*1,500 of 3,000 rows are kept"):
        with CacheFiles(tmp_path / "cache").lock_for_writing():
            fill(CacheFiles(tmp_path / "cache"))


def test_a_folder_that_cannot_be_made_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):
        with pytest.raises(OSError, match=f"cannot be written to {folder}: .*Choose another folder"):
            begun(folder)

    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "write_json", refuse)
    with pytest.raises(OSError, match="cannot be written to .*: Permission denied. .*hoose another"):
        begun(tmp_path / "cache")


def flip(path, byte, bit=0):
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished cache; tests damage copies of it."""
    folder = tmp_path_factory.mktemp("files") / "finished"
    fill(begun(folder))
    return folder


# Rows of 40 bytes after a header of 128. The blocks begin at rows 0, 1024 and 2048 of 3000, a thousand to a view.
@pytest.mark.parametrize(
    ("damage", "block"),
    [
        (lambda path: flip(path, 128), "sample 0 in view 0 to sample 23 in view 1"),
        (lambda path: flip(path, 128 + 1024 * 40 - 1, 7), "sample 0 in view 0 to sample 23 in view 1"),
        (lambda path: flip(path, 128 + 1024 * 40), "sample 24 in view 1 to sample 47 in view 2"),
        (lambda path: flip(path, 128 + 3000 * 40 - 1, 3), "sample 48 in view 2 to sample 999 in view 2"),
        (lambda path: zero(path, 1200, 90), "sample 24 in view 1 to sample 47 in view 2"),
    ],
)
def test_rows_that_changed_are_refused_by_name(damage, block, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "cache")
    damage(tmp_path / "cache" / "logits.npy")
    message = f"cache/logits.npy is damaged: its rows from {block} are not those .*remove this one and build it anew"
    with pytest.raises(ValueError, match=message):
        CacheFiles(tmp_path / "cache").open_arrays()


def zero(path, first, count):
    content = bytearray(path.read_bytes())
    content[128 + first * 40 : 128 + (first + count) * 40] = bytes(count * 40)
    path.write_bytes(content)


def test_a_header_that_changed_is_refused_or_says_the_same(finished, tmp_path):
    path = tmp_path / "cache" / "logits.npy"
    shutil.copytree(finished, tmp_path / "cache")
    before, refused = path.read_bytes(), 0
    for byte in range(128):
        for bit in range(8):
            flip(path, byte, bit)
            try:
                arrays = CacheFiles(tmp_path / "cache").open_arrays()
            except ValueError as error:
                assert "logits.npy is" in str(error) and "build it anew" in str(error)
                refused += 1
            else:
                np.testing.assert_array_equal(arrays["logits"], rows("logits", 0, 3000).reshape(*ROWS, 10))
            path.write_bytes(before)
    # All flips in the magic string, the version, the length, and the words and numbers of 57 letters and more.
    assert refused > 8 * 60


@pytest.mark.parametrize("begin", [b"PK\x03\x04", b"\x93NUMPY\x01\x00\x28\x23" + b"-" * 8999 + b"3"])
def test_a_file_of_another_kind_is_refused(begin, finished, tmp_path):
    """As an archive's, and a header that is nested deeper than Python's parser goes."""
    shutil.copytree(finished, tmp_path / "cache")
    path = tmp_path / "cache" / "logits.npy"
    path.write_bytes(begin + path.read_bytes()[len(begin) :])
    with pytest.raises(ValueError, match="logits.npy is damaged: its header cannot be read. .*build it anew"):
        CacheFiles(tmp_path / "cache").open_arrays()


def test_rows_that_changed_are_not_built_upon(tmp_path):
    files = begun(tmp_path / "cache")
    fill(files, stop=1500)
    flip(files.path("logits"), 128 + 40 * 1100)
    with pytest.raises(ValueError, match="damaged: its rows from sample 24 in view 1 to sample 499 in view 1"):
        fill(files)


RECORDS = ["manifest.json", "progress.json"]
DAMAGES = {
    "": [b"\x80\xff\x00PK", b"", b"[" * 100_000, b"{", b'{"rows": 1}{}'],
    "must hold a JSON object, and holds a (list|str|int|bool|NoneType)": [b"null", b"[]", b'"rows"', b"3000", b"true"],
}
DAMAGES = [(message, content) for message, contents in DAMAGES.items() for content in contents]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(("message", "content"), DAMAGES, ids=range(len(DAMAGES)))
def test_a_record_of_another_form_is_refused_by_name(message, content, name, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "cache")
    (tmp_path / "cache" / name).write_bytes(content)
    message = f"cache holds no teacher cache .*{name} cannot be read: .*{message}.*build it anew"
    with pytest.raises(ValueError, match=message) as error:
        CacheFiles(tmp_path / "cache").open_arrays()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_without_one_of_its_entries_or_with_another_is_refused(name, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "cache")
    record = json.loads((finished / name).read_text())
    changes = [record | {key: changed} for key in record for changed in (None, [], {}, -1, "x")]
    changes += [{other: record[other] for other in record if other != key} for key in record]
    for change in changes:
        (tmp_path / "cache" / name).write_text(json.dumps(change))
        with pytest.raises(ValueError, match=f"{name} cannot be read: (it is not as it was written|its format is)"):
            CacheFiles(tmp_path / "cache").open_arrays()


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_with_a_flipped_bit_is_refused_or_says_the_same(name, finished, tmp_path):
    path = tmp_path / "cache" / name
    shutil.copytree(finished, tmp_path / "cache")
    before = path.read_bytes()
    for byte in range(len(before)):
        flip(path, byte, byte % 8)
        try:
            files = CacheFiles(tmp_path / "cache")
            kept = files.manifest, files.progress
        except ValueError as error:
            assert f"{name} cannot be read" in str(error) and "build it anew" in str(error)
        else:
            assert kept == (CacheFiles(finished).manifest, CacheFiles(finished).progress)
        path.write_bytes(before)


def test_checksums_do_not_depend_on_batches_or_interruptions(tmp_path):
    expected = [zlib.crc32(rows("logits", start, min(1024, 3000 - start)).tobytes()) for start in (0, 1024, 2048)]
    whole, parts = begun(tmp_path / "whole"), begun(tmp_path / "parts")
    fill(whole)
    for stop, batch in ((7, 3), (1024, 500), (2500, 2500), (3000, 1)):
        fill(parts, stop, batch)
    assert whole.progress == parts.progress
    assert whole.progress["checksums"]["logits"] == expected


def test_a_file_of_another_form_is_refused(tmp_path):
    fill(begun(tmp_path / "cache"))
    np.save(tmp_path / "cache" / "logits.npy", np.zeros((3000, 10), "float32"))
    with pytest.raises(ValueError, match=r"shape \(3000, 10\).*should have \(3, 1000, 10\)"):
        CacheFiles(tmp_path / "cache").open_arrays()


def forge(folder, **changes):
    """Writes another manifest into a cache, with a checksum that is right."""
    record = json.loads((folder / "manifest.json").read_text()) | changes
    record.pop("crc32")
    crc32 = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    (folder / "manifest.json").write_text(json.dumps(record | {"crc32": crc32}))


def test_a_forged_manifest_takes_no_memory_and_loads_no_objects(finished, tmp_path):
    folder = tmp_path / "cache"
    shutil.copytree(finished, folder)
    manifest = CacheFiles(folder).manifest
    # Of both files: the header of the array is that of the manifest.
    forge(folder, outputs={"logits": [10**12]})
    header = CacheFiles(folder).make_header("logits")
    (folder / "logits.npy").write_bytes(header + bytes(1000))
    with pytest.raises(ValueError, match=r"logits.npy is truncated: it has 1,\d+ bytes, and should have 12,000,000"):
        CacheFiles(folder).open_arrays()
    # Bytes that are taken for Python's objects would be addresses of memory.
    forge(folder, outputs={"logits": [10]}, made_from=manifest["made_from"] | {"dtype": "O"})
    header = CacheFiles(folder).make_header("logits")
    (folder / "logits.npy").write_bytes(header + bytes(3000 * 10 * 8))
    with pytest.raises(ValueError, match="logits.npy is damaged: its header cannot be read"):
        CacheFiles(folder).open_arrays()
