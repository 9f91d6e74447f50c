"""Files of a teacher's outputs from anybody: arrays of numbers, measured before they are read, or one sentence."""

import io
import os
import re
import zipfile

import numpy as np
import pytest

from keras_tkd.teacher_cache import outputs_file
from keras_tkd.teacher_cache.outputs_file import OutputsFile

TRAIN = np.random.default_rng(0).normal(size=(6, 3))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(save, tmp_path):
    arrays = {"train": TRAIN, "test": TRAIN[:2], "train_ids": np.array(list("abcdef")), "train/block/out": TRAIN[:, :1]}
    save(tmp_path / "a.npz", **arrays, seed=3, augmentation="crop")
    file = OutputsFile(tmp_path / "a.npz")
    assert file.shapes == {name: value.shape for name, value in arrays.items()} | {"seed": (), "augmentation": ()}
    for name, value in arrays.items():
        np.testing.assert_array_equal(file.read(name), value)
    assert [file.read_value(name) for name in ("seed", "augmentation", "kind")] == [3, "crop", None]


def test_a_single_array_is_that_of_training(tmp_path):
    np.save(tmp_path / "a.npy", np.asfortranarray(TRAIN))
    file = OutputsFile(tmp_path / "a.npy")
    assert file.single and file.shapes == {"train": (6, 3)}
    np.testing.assert_array_equal(file.read("train"), TRAIN)


def write_entries(path, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def as_bytes(array, **more):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **more)
    return stream.getvalue()


class Pickled:
    def __reduce__(self):
        return os.mkdir, ("made_by_a_pickle",)


def claim(shape, dtype="<f8"):
    """A header of version 1.0 with nothing behind it."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({shape}), }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


CLAIMED = as_bytes(TRAIN).replace(b"(6, 3)", b"(9, 9)")
BAD = {
    "objects.npz": (lambda path: write_entries(path, train=as_bytes(np.array([Pickled()]))), "Python objects"),
    "objects.npy": (lambda path: path.write_bytes(as_bytes(np.array([Pickled()]))), "Python objects"),
    "claims.npz": (lambda path: write_entries(path, train=CLAIMED), "is of 272 bytes, and should be of 776"),
    "claims.npy": (lambda path: path.write_bytes(CLAIMED), "is of 272 bytes, and should be of 776"),
    "negative.npy": (lambda path: path.write_bytes(as_bytes(TRAIN).replace(b"(6, 3)", b"(-6,3)")), "should be of"),
    "cut.npy": (lambda path: path.write_bytes(as_bytes(TRAIN)[:-1]), "is of 271 bytes"),
    "empty.npy": (lambda path: path.write_bytes(b""), "EOF"),
    "text.npz": (lambda path: path.write_text("train"), "File is not a zip file"),
    "text.npy": (lambda path: path.write_text("train" * 9), "magic"),
    "version.npy": (lambda path: path.write_bytes(as_bytes(TRAIN, version=(3, 0))), r"version \(3, 0\)"),
    "unnamed.npz": (lambda path: np.savez(path, TRAIN), r"entry 'arr_0.npy'.*np.savez\(path, train=..., test=...\)"),
    "misnamed.npz": (lambda path: np.savez(path, train=TRAIN, test_id=[1]), "Did you mean 'test_ids'"),
    "deep.npy": (lambda path: path.write_bytes(claim("1, " + "-" * 9000 + "3")), ""),
    "nothing.npz": (
        lambda path: write_entries(path, train=as_bytes(TRAIN), train_ids=claim("3000000000,", "<U0")),
        r"'train_ids' is empty: it has shape \(3000000000,\) and dtype <U0",
    ),
    "bytes.npz": (lambda path: write_entries(path, train=as_bytes(TRAIN), test_ids=claim("9,", "|S0")), "is empty"),
    "void.npy": (lambda path: path.write_bytes(claim("9, 9", "|V0")), "is empty"),
    "columns.npz": (lambda path: write_entries(path, train=claim("3000000000, 0")), "is empty"),
    "ids.npz": (
        lambda path: np.savez(path, train=TRAIN, train_ids=np.arange(7)),
        r"'train_ids' must be an id for each row .* shape \(7,\), and 'train' has shape \(6, 3\)",
    ),
    "alone.npz": (lambda path: np.savez(path, train=TRAIN, test_ids=[1]), "shape .1,., and there is no 'test'"),
    "escaping.npz": (lambda path: write_entries(path, **{"../train": as_bytes(TRAIN)}), "entry '../train.npy'"),
    "folder.npz": (lambda path: path.mkdir(), "it is no file"),
    "model.keras": (lambda path: path.write_bytes(b""), "another kind of file. A model is given with --teacher_path"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write, message = BAD[name]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=rf"`path` must be a NumPy file .*Received: path='.*{name}'.*{message}"):
        OutputsFile(tmp_path / name)
    assert os.listdir(tmp_path) == [name]


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path` names no file"):
        OutputsFile(tmp_path / "a.npz")


def test_a_flipped_byte_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", train=TRAIN)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    # Among the values, the last of which ends before the archive's list of entries.
    content[content.rindex(b"PK\x01\x02") - 5] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match="Bad CRC-32"):
        OutputsFile(tmp_path / "a.npz").read("train")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_damaged_packed_entry_is_one_sentence(method, tmp_path):
    """Each decompressor has errors of its own, and finds the damage where it likes."""
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("train.npy", as_bytes(TRAIN))
    whole = path.read_bytes()
    np.testing.assert_array_equal(OutputsFile(path).read("train"), TRAIN)
    refused = 0
    # The entry's bytes, behind its header of 30 bytes and its name.
    for place in range(30 + len("train.npy"), whole.index(b"PK\x01\x02"), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            array = OutputsFile(path).read("train")
        except ValueError as error:
            assert re.match("`path` must be a NumPy file .*a.npz', of which is to be said: .", str(error))
            refused += 1
        else:  # a byte that says nothing, such as of the packer's version
            np.testing.assert_array_equal(array, TRAIN)
    assert refused > 50


def test_an_unknown_compression_is_one_sentence(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, train=TRAIN)
    content = bytearray(path.read_bytes())
    # The method stands in the entry's header, and in the archive's list of entries.
    content[8:10] = (97).to_bytes(2, "little")
    start = content.index(b"PK\x01\x02") + 10
    content[start : start + 2] = (97).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="a.npz', of which is to be said: .*compression"):
        OutputsFile(path)


def test_a_bomb_is_not_read(tmp_path, monkeypatch):
    """A file of zeros that takes far more than it has."""
    monkeypatch.setattr(outputs_file, "_ALWAYS", 2**16)
    np.savez_compressed(tmp_path / "a.npz", train=np.zeros((10_000, 100), "float32"))
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(ValueError, match="arrays take 4,000,128 bytes, more than 20 times the .* without compression"):
        OutputsFile(tmp_path / "a.npz")


def test_many_entries_are_refused(tmp_path):
    write_entries(tmp_path / "a.npz", **{f"train/{number}": as_bytes(TRAIN[:1]) for number in range(1001)})
    with pytest.raises(ValueError, match="it has 1,001 entries"):
        OutputsFile(tmp_path / "a.npz")
