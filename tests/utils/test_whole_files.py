"""Files that appear whole or not at all: full disks at every size, damage, what killed processes left."""

import contextlib
import os
import resource
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_tkd.config.flagfile import read_flag_lines
from keras_tkd.utils.checkpoint_files import CheckpointFiles
from keras_tkd.utils.files import (
    atomic_folder,
    atomic_write,
    hash_file,
    hash_folder,
    read_json,
    remove_unfinished,
    save_model,
    write_json,
)


@contextlib.contextmanager
def room_for(size):
    """Lets no file of this process grow beyond so many bytes, as a quota or a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def make_model(value):
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
    model.set_weights([np.full_like(weight, value) for weight in model.get_weights()])
    return model


def test_a_file_holds_the_model_and_not_what_trained_it(tmp_path):
    model = make_model(1.0)
    alone = save_model(model, tmp_path / "alone.keras").stat().st_size
    model.compile(keras.optimizers.SGD(0.0, momentum=0.9), "mse", metrics=["mae"])
    model.fit(np.zeros((4, 64)), np.zeros((4, 64)), verbose=0)
    assert save_model(model, tmp_path / "trained.keras").stat().st_size == alone
    found = keras.saving.load_model(tmp_path / "trained.keras")
    assert not found.compiled
    assert all(np.array_equal(a, b) for a, b in zip(found.get_weights(), model.get_weights(), strict=True))
    # The model itself can go on training.
    assert model.compiled and model.optimizer.iterations == 1
    model.fit(np.zeros((4, 64)), np.zeros((4, 64)), verbose=0)
    assert model.optimizer.iterations == 2


def write_checkpoint(path, value):
    CheckpointFiles(path).write(int(value), 0, [np.full((64, 64), value)], {})


WRITERS = {
    "model.keras": lambda path, value: save_model(make_model(value), path),
    "record.json": lambda path, value: write_json(path, {"values": [value] * 2000}),
    "checkpoints": write_checkpoint,
}


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_without_room_the_old_file_stays_and_the_error_names_the_new_one(name, tmp_path):
    write = WRITERS[name]
    write(tmp_path / name, 1.0)
    before = content(tmp_path)
    whole = max(map(len, before.values()))
    refused = 0
    for size in [0, 1, *range(500, whole, 2500), whole - 1]:
        with room_for(size):
            with pytest.raises(OSError) as error:
                write(tmp_path / name, 2.0)
        assert str(tmp_path / name) in str(error.value) and "cannot be written" in str(error.value)
        assert "still there" in str(error.value)
        assert content(tmp_path) == before
        refused += 1
    assert refused > 4
    # What was refused works once there is room.
    write(tmp_path / name, 2.0)
    assert content(tmp_path) != before


def test_an_error_says_how_much_is_needed_and_how_much_is_free(tmp_path):
    # 64 * 64 + 64 numbers of four bytes.
    with room_for(1000), pytest.raises(OSError, match=r"It needs about 16,640 bytes. [\d,]+ are free on its disk"):
        save_model(make_model(1.0), tmp_path / "model.keras")


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match=f"{tmp_path}/run/model.json cannot be written"):
        write_json(tmp_path / "run" / "model.json", {})


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'{"a": 1}}', b'{"a":' * 10**5])
def test_what_is_no_json_is_named(text, tmp_path):
    (tmp_path / "record.json").write_bytes(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/record.json is damaged: it holds no JSON"):
        read_json(tmp_path / "record.json")


@pytest.mark.parametrize(("text", "kind"), [("[1]", "list"), ("3", "int"), ("null", "NoneType"), ('"a"', "str")])
def test_what_is_no_object_is_named(text, kind, tmp_path):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/record.json is damaged: it must hold a JSON object.*a {kind}"):
        read_json(tmp_path / "record.json")


@pytest.mark.parametrize("how", ["large", "endless"])
def test_no_more_is_read_than_a_record_may_have(how, tmp_path):
    path = tmp_path / "record.json"
    if how == "large":
        with open(path, "wb") as file:
            file.truncate(2**40)  # a hole: it takes no room on the disk
    else:
        path.symlink_to("/dev/zero")
    for read in (read_json, read_flag_lines):
        with pytest.raises(ValueError, match=f"{path} is damaged: it is larger than the 134,217,728 bytes"):
            read(path)


def test_a_file_that_is_not_there_is_none(tmp_path):
    assert read_json(tmp_path / "record.json") is None and hash_file(tmp_path / "model.keras") is None


def test_a_hash_is_that_of_the_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    # FIPS 180-4's example.
    assert hash_file(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_hash_of_a_folder_is_that_of_its_names_and_bytes(tmp_path):
    hashes = [hash_folder(tmp_path)]
    (tmp_path / "b" / "c").mkdir(parents=True)
    # Folders without files are none.
    assert hash_folder(tmp_path) == hashes[0]
    for name, content in (("b/c/d", b"1"), ("a", b"2"), ("a", b"1"), ("b/c/e", b"")):
        (tmp_path / name).write_bytes(content)
        hashes.append(hash_folder(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b" / "a")
    hashes.append(hash_folder(tmp_path))
    assert len(set(hashes)) == 6
    (tmp_path / "b" / "a").rename(tmp_path / "a")
    assert hash_folder(tmp_path) == hashes[4]


def test_what_is_written_reaches_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr("os.fsync", lambda handle: order.append("fsync"))
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda *paths: (order.append("replace"), replace(*paths)))
    with atomic_write(tmp_path / "file") as unfinished:
        unfinished.write_text("whole")
    # The file, its name, and then the folder that the name is in.
    assert order == ["fsync", "replace", "fsync"]


def write_folder(path, value, fail=False):
    with atomic_folder(path) as unfinished:
        (unfinished / "inner").mkdir()
        (unfinished / "inner" / "numbers").write_text(f"{value} " * 2000)
        if fail:
            raise KeyboardInterrupt
        (unfinished / "last").write_text("whole")


def test_a_folder_appears_whole_and_replaces_another(tmp_path):
    path = tmp_path / "above" / "folder"
    write_folder(path, 1.0)
    (path / "old").write_text("")
    before = content(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        write_folder(path, 2.0, fail=True)
    with room_for(100), pytest.raises(OSError, match=f"{path} cannot be written"):
        write_folder(path, 2.0)
    assert content(tmp_path) == before
    write_folder(path, 2.0)
    assert content(tmp_path) == {
        "above/folder/inner/numbers": b"2.0 " * 2000,
        "above/folder/last": b"whole",
    }


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_folder_that_does_not_get_its_name_leaves_the_old_one(error, tmp_path, monkeypatch):
    """The old one has given its name up already when the new one fails to take it."""
    path, replace = tmp_path / "folder", os.replace
    write_folder(path, 1.0)
    before = content(tmp_path)

    def fail(one, other):
        if os.path.basename(one).startswith(".unfinished") and os.path.basename(other) == "folder":
            monkeypatch.setattr(os, "replace", replace)
            raise error
        replace(one, other)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_folder(path, 2.0)
    assert content(tmp_path) == before


def test_a_link_to_a_folder_stays_one(tmp_path):
    write_folder(tmp_path / "disk" / "folder", 1.0)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "folder")
    write_folder(tmp_path / "link", 2.0)
    assert (tmp_path / "link").is_symlink()
    assert content(tmp_path / "disk") == {"folder/inner/numbers": b"2.0 " * 2000, "folder/last": b"whole"}


def test_unfinished_folders_are_removed(tmp_path):
    with contextlib.suppress(SystemExit), atomic_folder(tmp_path / "folder") as unfinished:
        # As a process that is killed leaves it.
        (tmp_path / unfinished.name.replace(str(os.getpid()), "1")).mkdir()
        raise SystemExit
    (left,) = tmp_path.iterdir()
    (left / "file").write_text("")
    remove_unfinished(tmp_path)
    assert not [*tmp_path.iterdir()]


KILLED = """
import os, signal, sys
from keras_tkd.utils.files import atomic_folder

def replace(one, other, replace=os.replace):
    # The old folder has given its name up, and the new one has not taken it.
    if os.path.basename(other) == "folder":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(one, other)

os.replace = replace
with atomic_folder(sys.argv[1]) as unfinished:
    (unfinished / "new").touch()
"""


@pytest.fixture
def killed(tmp_path):
    """A folder whose writer was killed between its two renamings; gives the content of the old one."""
    write_folder(tmp_path / "folder", 1.0)
    before = content(tmp_path)
    ended = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "folder"])
    assert ended.returncode == -signal.SIGKILL and not (tmp_path / "folder").exists()
    return before


def test_a_folder_that_lost_its_name_to_a_kill_gets_it_back(killed, tmp_path):
    remove_unfinished(tmp_path)
    assert content(tmp_path) == killed


def test_the_next_writer_gives_it_back_too(killed, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "folder", 2.0, fail=True)
    found = content(tmp_path)
    assert {name: value for name, value in found.items() if name.startswith("folder/")} == killed
    write_folder(tmp_path / "folder", 3.0)
    assert content(tmp_path / "folder")["inner/numbers"] == b"3.0 " * 2000


def test_what_a_new_folder_replaced_is_removed_and_keeps_apart_from_others(tmp_path):
    """A process was killed after both renamings; the names of both folders have hyphens."""
    for name in ("folder", ".replaced-1-folder", ".replaced-1-other-folder"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    remove_unfinished(tmp_path)
    assert content(tmp_path) == {"folder/file": b"folder", "other-folder/file": b".replaced-1-other-folder"}


def test_a_writer_leaves_a_folder_alone_whose_name_ends_like_its_own(tmp_path):
    """Another process may be replacing that one just now."""
    (tmp_path / ".replaced-1-other-folder").mkdir()
    with atomic_folder(tmp_path / "folder") as unfinished:
        (unfinished / "file").write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".replaced-1-other-folder", "folder"]
