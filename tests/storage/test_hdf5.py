import zlib

import h5py
import numpy as np
import pytest

from keras_scnn.storage.guard import FileError
from keras_scnn.storage.hdf5 import read_datasets


def write(path, **dataset):
    with h5py.File(path, "w") as file:
        file.create_dataset("a", **dataset)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (2, 3)}],
    ids=["contiguous", "the filters of HDF5 itself"],
)
def test_numbers_come_back_as_h5py_wrote_them(tmp_path, order, options):
    for kind in ("f2", "f4", "f8", "i1", "u1", "i4", "u8"):
        numbers = np.arange(35).reshape(5, 7).astype(order + kind)
        back = read_datasets(write(tmp_path / "a.h5", data=numbers, **options), ["a"])["a"]
        np.testing.assert_array_equal(back, numbers)
        assert back.dtype == numbers.dtype


def test_a_filter_that_not_every_library_has_is_refused(tmp_path):
    write(tmp_path / "a.h5", data=np.zeros((5, 7)), compression="lzf")  # h5py's own, 32000
    with pytest.raises(FileError, match=r"a\.h5: .*a: compressed by the filters \[32000\]; use"):
        read_datasets(tmp_path / "a.h5", ["a"])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"data": np.zeros(3, "c16")}, "holds complex128; expected numbers or text"),
        ({"data": np.zeros(3, bool)}, "holds bool; expected numbers or text"),
        ({"data": np.zeros(3, [("x", "f4")])}, "holds .*x.*; expected numbers or text"),
        ({"data": ["one", "two"]}, "holds object; expected numbers or one text"),
        ({"shape": (2,), "dtype": h5py.vlen_dtype(float)}, "holds object; expected numbers or one"),
        ({"data": h5py.Empty("f4")}, "has no values"),
    ],
)
def test_data_of_another_kind_are_refused(tmp_path, dataset, message):
    write(tmp_path / "a.h5", **dataset)
    with pytest.raises(FileError, match=rf"a\.h5: .*a: {message}"):
        read_datasets(tmp_path / "a.h5", ["a"])


def test_datasets_that_are_too_large_only_together_are_refused(tmp_path):
    """Three of 32 MB each; a file of a few kB may unpack to 64 MiB."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name in "abc":
            file.create_dataset(name, (4_000_000,), "f8", chunks=(1000,))
    with pytest.raises(FileError, match=r"a\.h5: .*c declares 32,000,000 bytes"):
        read_datasets(tmp_path / "a.h5", ["a", "b", "c"])


def test_a_text_in_chunks_is_refused(tmp_path):
    """Its length, which is checked before it is read, is not at a known place of the file."""
    write(tmp_path / "a.h5", data=["words"], chunks=(1,))
    with pytest.raises(FileError, match=r"a\.h5: .*a: a string stored in chunks; write it without"):
        read_datasets(tmp_path / "a.h5", ["a"])


def test_a_chunk_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    """20 MB of zeros in a chunk of 8 kB: the library unpacked them all (1 GB from 1 MB)."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (1000,), "f8", chunks=(1000,), compression="gzip")
        data.id.write_direct_chunk((0,), zlib.compress(bytes(20_000_000)))
    with pytest.raises(FileError, match=r"a\.h5: .*a: a chunk unpacks to more than 8,004 bytes"):
        read_datasets(tmp_path / "a.h5", ["a"])


def test_a_chunk_that_skips_its_filter_is_read(tmp_path):
    """As a writer stores it if compression does not pay off (HDF5's filter mask)."""
    numbers = np.arange(20.0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("a", (20,), "f8", chunks=(10,), compression="gzip")
        data.id.write_direct_chunk((0,), numbers[:10].tobytes(), filter_mask=1)
        data.id.write_direct_chunk((10,), zlib.compress(numbers[10:].tobytes()))
    np.testing.assert_array_equal(read_datasets(tmp_path / "a.h5", ["a"])["a"], numbers)


def test_data_compressed_twice_are_refused(tmp_path):
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((10,))
    for _ in range(2):
        layout.set_deflate(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple((10,))
        h5py.h5d.create(file.id, b"a", h5py.h5t.IEEE_F64LE, space, layout)
    with pytest.raises(FileError, match=r"a\.h5: .*a: compressed twice"):
        read_datasets(tmp_path / "a.h5", ["a"])
