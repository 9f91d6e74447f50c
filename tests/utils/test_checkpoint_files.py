"""Checkpoints that are whole, and those that are not."""

import hashlib
import io
import json
import os
import pickle
import re
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_tkd.utils import checkpoint_files
from keras_tkd.utils.checkpoint_files import CheckpointFiles

ARRAYS = [np.arange(6, dtype="float32").reshape(2, 3), np.array(7, "int64"), np.zeros((0, 2), "uint32")]


def write(folder, *places):
    files = CheckpointFiles(folder)
    for epoch, step in places:
        files.write(epoch, step, [ARRAYS[0] + epoch, *ARRAYS[1:]], {"history": [{"loss": epoch + step / 8}]})
    return files


def test_what_was_written_is_read(tmp_path):
    read = write(tmp_path / "new", (3, 5)).read_newest()
    assert (read.epoch, read.step, read.about) == (3, 5, {"history": [{"loss": 3.625}]})
    for found, expected in zip(read.arrays, [ARRAYS[0] + 3, *ARRAYS[1:]], strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_bfloat16_loses_nothing(tmp_path):
    values = np.array([1.0, -2.5, 3e38], ml_dtypes.bfloat16)
    files = CheckpointFiles(tmp_path)
    files.write(0, 1, [values], {})
    np.testing.assert_array_equal(files.read_newest().arrays[0].astype(ml_dtypes.bfloat16), values)


def test_what_is_read_is_in_memory_once(tmp_path):
    """Beside it no more than pieces of the file, a MiB each: a state may be as large as the memory that is left."""
    arrays = [np.full(2**19, number, "float64") for number in range(4)]
    files, size = CheckpointFiles(tmp_path), sum(array.nbytes for array in arrays)
    files.write(1, 0, arrays, {})
    tracemalloc.start()
    read = files.read_newest()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(read.arrays, arrays)
    assert size <= peak < 1.5 * size


def test_there_is_none_in_a_folder_that_is_not_there(tmp_path):
    assert CheckpointFiles(tmp_path / "none").read_newest() is None


def test_the_newest_two_are_kept_in_the_order_of_the_training(tmp_path):
    files = write(tmp_path, (0, 9), (0, 10), (9, 0), (9, 200), (10, 0))
    assert len(list(tmp_path.iterdir())) == 2
    read = files.read_newest()
    assert (read.epoch, read.step) == (10, 0)
    (tmp_path / "epoch-000010-step-000000000.npz").unlink()
    read = files.read_newest()
    assert (read.epoch, read.step) == (9, 200)


def damages(content):
    """The file cut off at many places, and with a bit turned over in each of many bytes."""
    for length in (0, 1, len(content) // 2, len(content) - 1):
        yield content[:length]
    for place in range(0, len(content), 37):
        yield content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
    yield content + b"0"


def test_a_damaged_one_is_named_and_the_one_before_it_used(tmp_path, capsys):
    files = write(tmp_path, (1, 0), (2, 0))
    newest = tmp_path / "epoch-000002-step-000000000.npz"
    content = newest.read_bytes()
    for damaged in damages(content):
        newest.write_bytes(damaged)
        assert files.read_newest().epoch == 1
        assert f"{newest} is damaged" in capsys.readouterr().out
    # Training goes on from the first: what is newer than its next one is of no more use.
    files.write(1, 4, ARRAYS, {})
    names = {path.stem for path in tmp_path.iterdir()}
    assert names == {"epoch-000001-step-000000000", "epoch-000001-step-000000004"}
    assert files.read_newest().step == 4


def test_all_damaged_is_none(tmp_path, capsys):
    files = write(tmp_path, (1, 0), (2, 0))
    for path in tmp_path.iterdir():
        path.write_bytes(b"PK")
    assert files.read_newest() is None
    assert capsys.readouterr().out.count("is damaged") == 2


def test_a_failure_to_write_leaves_what_there_was(tmp_path, monkeypatch):
    files = write(tmp_path, (1, 0))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(path, **arrays):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_files.np, "savez", fail)
    with pytest.raises(OSError, match="epoch-000002.*cannot be written: No space left.*about 32 bytes.*are free"):
        files.write(2, 0, ARRAYS, {})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("act", [lambda files: files.write(1, 0, ARRAYS, {}), CheckpointFiles.remove])
def test_what_killed_writes_left_is_removed(act, tmp_path):
    """Each is as large as the whole state, and of a process that is gone, or whose number another one has."""
    files = write(tmp_path, (0, 8))
    for process in (1, os.getpid()):
        (tmp_path / f".unfinished-{process}-epoch-000000-step-000000009.npz").write_bytes(b"half")
    others = {".unfinished-1-student.keras", "notes"}
    for name in others:
        (tmp_path / name).write_text("somebody's")
    act(files)
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith("epoch")} == others


def test_a_disk_that_killed_writes_filled_has_room_again(tmp_path, monkeypatch):
    """They are removed before anything is written."""
    left = tmp_path / ".unfinished-1-epoch-000000-step-000000009.npz"
    left.write_bytes(b"half")
    save = np.savez

    def save_with_room(path, **arrays):
        assert not left.exists()
        save(path, **arrays)

    monkeypatch.setattr(checkpoint_files.np, "savez", save_with_room)
    assert write(tmp_path, (1, 0)).read_newest().epoch == 1


class _Canary:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def declare(shape, dtype="<f4"):
    """An array file that declares a shape, and holds 8 bytes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue() + bytes(8)


def pack(entries, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return file.getvalue()


def save_array(value):
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return file.getvalue()


ABOUT = save_array(np.array(json.dumps({"history": []})))
LARGE = save_array(np.zeros(10**6))
FORGED = {
    "an array of 4 TB": (pack({"about": ABOUT, "0": declare((10**12,))}), "declared with 4,000,000,000"),
    "lengths that cancel": (
        pack({"about": ABOUT, "0": declare((10**12,)), "1": declare((-(10**12),))}),
        "declared with 8,000,000,000",
    ),
    "packed zeros": (pack({"about": ABOUT, "0": LARGE}, zipfile.ZIP_DEFLATED), "declared with 8,000,"),
    "pickled objects": (pack({"about": ABOUT, "0": declare((1,), "|O")}), "[Oo]bject"),
    "another format": (pack({"about": ABOUT, "0": b"\x93NUMPY\x03\x00" + bytes(100)}), "another version of NumPy's"),
    "a gap": (pack({"about": ABOUT, "1": save_array(np.zeros(3))}), "it holds no checkpoint"),
    "nothing about it": (pack({"0": save_array(np.zeros(3))}), "it holds no checkpoint"),
    "a long tale": (pack({"about": save_array(np.array("[" * 10**5))}), "it holds no checkpoint"),
    "a deep header": (pack({"about": b"\x93NUMPY\x01\x00\x28\x23" + b"-" * 8999 + b"3"}), "it holds no checkpoint"),
    "no archive": (b"PK", "it holds no checkpoint"),
    "a list about it": (pack({"about": save_array(np.array("[1]"))}), "must be a dict, and is a list"),
    "arrays of text": (pack({"about": ABOUT, "0": save_array(np.array("abc"))}), "hold numbers, .*<U3"),
}


def test_what_it_is_about_is_read_as_a_string_too(tmp_path):
    archive = pack({"about": ABOUT, "0": save_array(ARRAYS[0])})
    (tmp_path / "epoch-000002-step-000000003.npz").write_bytes(archive + hashlib.sha256(archive).digest())
    read = CheckpointFiles(tmp_path).read_newest()
    assert (read.epoch, read.step, read.about) == (2, 3, {"history": []})
    np.testing.assert_array_equal(read.arrays, ARRAYS[:1])


def test_a_character_of_what_it_is_about_takes_a_byte(tmp_path):
    CheckpointFiles(tmp_path / "short").write(0, 1, ARRAYS, {"text": ""})
    CheckpointFiles(tmp_path / "long").write(0, 1, ARRAYS, {"text": 1000 * "a"})
    sizes = [next((tmp_path / name).iterdir()).stat().st_size for name in ("short", "long")]
    assert sizes[1] - sizes[0] == 1000


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_one_with_a_right_checksum_is_not_used(kind, tmp_path, capsys):
    archive, reason = FORGED[kind]
    files = write(tmp_path, (1, 0))
    newest = tmp_path / "epoch-000002-step-000000000.npz"
    newest.write_bytes(archive + hashlib.sha256(archive).digest())
    assert files.read_newest().epoch == 1
    assert re.search(f"{newest} is damaged, and is not used: .*{reason}", capsys.readouterr().out)


def test_what_does_not_say_of_itself_what_it_should_is_not_used(tmp_path, capsys):
    files = write(tmp_path, (1, 0), (2, 0))

    def check(about):
        if about["history"][0]["loss"] == 2:
            raise ValueError("no history of ours")

    assert files.read_newest(check).epoch == 1
    assert "epoch-000002-step-000000000.npz is damaged, and is not used: no history of ours" in capsys.readouterr().out


def put_folder(path):
    path.mkdir()
    (path / "own").write_text("somebody's")


PRETENDERS = {
    "a folder": put_folder,
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
}


@pytest.mark.parametrize("kind", PRETENDERS)
def test_what_only_has_the_name_of_one_is_named_and_never_read(kind, tmp_path, capsys):
    """A pipe would wait for ever, and a device never end."""
    files = write(tmp_path, (1, 0))
    path = tmp_path / "epoch-000002-step-000000000.npz"
    PRETENDERS[kind](path)
    assert files.read_newest().epoch == 1
    assert f"{path} is damaged, and is not used: it is no file" in capsys.readouterr().out
    # What goes on makes room as ever; a folder has what may be somebody's own.
    files.write(1, 1, ARRAYS, {})
    files.remove()
    assert [each.name for each in tmp_path.iterdir()] == ([path.name] if kind == "a folder" else [])
    assert kind != "a folder" or (path / "own").read_text() == "somebody's"


def test_one_that_cannot_be_read_is_named(tmp_path, capsys, monkeypatch):
    files = write(tmp_path, (1, 0), (2, 0))
    open_path = checkpoint_files.pathlib.Path.open

    def fail(path, *arguments):
        if "000002" in path.name:
            raise OSError(5, "Input/output error")
        return open_path(path, *arguments)

    monkeypatch.setattr(checkpoint_files.pathlib.Path, "open", fail)
    assert files.read_newest().epoch == 1
    assert re.search("epoch-000002.*is not used: .*Input/output error", capsys.readouterr().out)


def test_a_pickle_in_one_is_not_loaded(tmp_path, capsys):
    canary = tmp_path / "canary"
    content = declare((1,), "|O")[:-8] + pickle.dumps(np.array([_Canary(canary)]))
    archive = pack({"about": ABOUT, "0": content})
    with np.load(io.BytesIO(archive), allow_pickle=True) as entries:
        entries["0"]
    assert canary.exists()  # where it is loaded, it writes
    canary.unlink()
    path = tmp_path / "epoch-000002-step-000000000.npz"
    path.write_bytes(archive + hashlib.sha256(archive).digest())
    assert CheckpointFiles(tmp_path).read_newest() is None
    assert not canary.exists() and f"{path} is damaged" in capsys.readouterr().out
