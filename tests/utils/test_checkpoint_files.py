"""Checkpoints that are whole, and those that are not."""

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
