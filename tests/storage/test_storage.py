import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_scnn.storage import atomic, atomic_path, read_npz, write_npz
from keras_scnn.storage.arrays import read_arrays
from keras_scnn.storage.guard import allowed_bytes, check_size


def test_arrays_are_read_back_as_they_were_written(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "names": np.array(["x", "y"])}
    write_npz(tmp_path / "file.npz", "kind", 2, **arrays)
    back = read_npz(tmp_path / "file.npz", "kind", 2)
    assert back.keys() == arrays.keys()
    for key, value in arrays.items():
        np.testing.assert_array_equal(back[key], value)


def test_a_file_may_unpack_to_64_mib_and_four_times_its_size():
    allowed = allowed_bytes(1000)
    assert allowed == 64 * 1024 * 1024 + 4000
    check_size("a", allowed, allowed)
    with pytest.raises(ValueError, match=r"a declares 67,112,865 bytes; .* to 67,112,864"):
        check_size("a", allowed + 1, allowed)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_threads_may_write_one_file_at_once(tmp_path):
    path, both = tmp_path / "file.txt", threading.Barrier(2)

    def write(text):
        with atomic_path(path) as temporary:
            temporary.write_text(text)
            both.wait(10)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["one", "two"]))
    assert path.read_text() in ("one", "two") and list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.npz"):
        read_npz(tmp_path / "nowhere.npz", "kind", 1)


@pytest.mark.parametrize("kind, version", [("other", 1), ("kind", 2)])
def test_another_format_or_version_is_refused(tmp_path, kind, version):
    write_npz(tmp_path / "file.npz", "kind", 1, a=np.zeros(1))
    with pytest.raises(ValueError, match=f"expected '{kind}' version {version}"):
        read_npz(tmp_path / "file.npz", kind, version)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "file.npz"
    write_npz(path, "kind", 1, a=np.random.default_rng(0).random(1000))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="not a readable .npz file"):
        read_npz(path, "kind", 1)


def test_a_pickled_array_is_refused(tmp_path):
    path = tmp_path / "file.npz"
    np.savez(path, format="kind", version=1, a=np.array([{"evil": 1}], dtype=object))
    with pytest.raises(ValueError, match="not a readable .npz file"):
        read_npz(path, "kind", 1)


def dead_process() -> int:
    """The ID of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


@pytest.mark.parametrize("order", "<>")
def test_text_beyond_unicode_is_refused(tmp_path, order):
    """NumPy reads it, and Python raises a SystemError when it is used."""
    codes = np.array([ord("a"), sys.maxunicode], f"{order}u4")
    np.savez(tmp_path / "a.npz", name=codes.view(f"{order}U2"))
    assert read_arrays(tmp_path / "a.npz")["name"].item() == f"a{chr(sys.maxunicode)}"
    codes[1] += 1
    np.savez(tmp_path / "a.npz", name=codes.view(f"{order}U2"))
    with pytest.raises(ValueError, match=r"a.npz: .*name.npy contains characters beyond those of"):
        read_arrays(tmp_path / "a.npz")


def test_leftovers_of_a_killed_process_are_removed_by_the_next_write(tmp_path, monkeypatch):
    mine = atomic.partial_name("x.npz")
    dead = mine.replace(f"-{os.getpid()}-", f"-{dead_process()}-")
    elsewhere = ".partial-00000000-1-x.npz"  # another machine's, on a shared disk
    for name in (mine, dead, elsewhere):
        (tmp_path / name).write_text("half")
    (tmp_path / dead.replace("x.npz", "folder") / "deep").mkdir(parents=True)
    monkeypatch.setattr(atomic, "_cleaned", set())
    write_npz(tmp_path / "file.npz", "kind", 1, a=np.zeros(1))
    assert {p.name for p in tmp_path.iterdir()} == {mine, elsewhere, "file.npz"}
