"""Files and folders written atomically, and leftovers of other processes."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path

import pytest
from patched_os import patch_os

from keras_scnn.storage import atomic, atomic_path
from keras_scnn.storage.atomic import partial_name, remove_leftovers, staged_files, staged_folder

fcntl = pytest.importorskip("fcntl", reason="no such locks here")


def test_a_file_below_a_file_is_named_as_given(tmp_path):
    (tmp_path / "photo.jpg").touch()
    path = tmp_path / "photo.jpg" / "mesh.obj"
    with pytest.raises(NotADirectoryError) as error, atomic_path(path) as temporary:
        temporary.touch()
    assert error.value.filename == str(path)


def test_a_folder_that_cannot_be_written_to_is_named_without_the_temporary_one(
    tmp_path, monkeypatch
):
    def denied(path, *_args, **_options):
        raise PermissionError(13, "Permission denied", str(path))

    home = tmp_path / "results"
    home.mkdir()
    patch_os(monkeypatch, "mkdir", denied)  # root may write to any folder
    with pytest.raises(PermissionError) as error, staged_folder(home):
        pass
    assert error.value.filename == str(home)


def test_a_failed_write_into_a_relative_folder_is_named_without_the_temporary_one(
    tmp_path, monkeypatch
):
    """From Python 3.12 on, the temporary folder's path is absolute."""
    made = tempfile.mkdtemp

    def absolute(*args, **options):
        return os.path.abspath(made(*args, **options))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "mkdtemp", absolute)
    with pytest.raises(OSError) as error, staged_folder("results") as aside:
        raise OSError(28, "No space left on device", str(aside / "x"))
    assert error.value.filename == "results"


@pytest.mark.parametrize("is_folder", [False, True])
def test_leftovers_of_another_user_are_kept_without_an_error(tmp_path, monkeypatch, is_folder):
    """As in a shared folder for temporary files, each of which belongs to one user."""
    theirs = tmp_path / partial_name("x").replace(f"-{os.getpid()}-", "-999999999-")
    theirs.mkdir() if is_folder else theirs.touch()
    looked_at, unlink = os.stat, os.unlink

    def denied(call):
        def checked(path, *rest, **options):
            inside = Path(path).parent == theirs if call is looked_at else Path(path) == theirs
            if inside:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *rest, **options)

        return checked

    patch_os(monkeypatch, "stat", denied(looked_at))
    patch_os(monkeypatch, "unlink", denied(unlink))
    monkeypatch.setattr(atomic, "_cleaned", set())
    with staged_folder(tmp_path):
        pass
    with atomic_path(tmp_path / "mine") as temporary:
        temporary.touch()
    monkeypatch.undo()
    assert {path.name for path in tmp_path.iterdir()} - {"mine"} <= {theirs.name}
    assert (tmp_path / "mine").is_file() and (is_folder or theirs.is_file())


def test_a_new_folder_is_not_taken_for_a_leftover_before_it_is_locked(tmp_path, monkeypatch):
    """The lock decides; another process may check at any time."""
    flock = fcntl.flock

    def another_looks_before(*arguments):
        monkeypatch.setattr(fcntl, "flock", flock)
        remove_leftovers(tmp_path)
        return flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", another_looks_before)
    with staged_folder(tmp_path) as aside:
        assert aside.is_dir()
        remove_leftovers(tmp_path)
        assert aside.is_dir()


def test_a_folder_in_use_is_kept_even_if_its_process_is_not_visible(tmp_path):
    """As from another container with the same folder and host name."""
    with staged_folder(tmp_path) as aside:
        mine = aside.parent
        unseen = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-999999999-"))
        mine.rename(unseen)
        remove_leftovers(tmp_path)
        unseen.rename(mine)
    assert not list(tmp_path.iterdir())


def test_on_a_file_system_without_locks_the_process_id_decides(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with staged_folder(tmp_path) as aside:
        remove_leftovers(tmp_path)
        assert aside.is_dir()
        of_dead = aside.parent.name.replace(f"-{os.getpid()}-", "-999999999-")
        (tmp_path / of_dead).mkdir()
        remove_leftovers(tmp_path)
        assert aside.is_dir() and not (tmp_path / of_dead).exists()


def test_staged_files_take_the_place_of_earlier_ones_if_all_goes_well(tmp_path):
    for name in ("a.json", "a.txt", "other.txt"):
        (tmp_path / name).write_text("old")
    with contextlib.suppress(RuntimeError), staged_files(tmp_path) as aside:
        (aside / "a.json").write_text("new")
        raise RuntimeError
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}
    with staged_files(tmp_path) as aside:
        for name in ("a.json", "a.txt", "b.txt"):
            (aside / name).write_text("new")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a.json": "new", "a.txt": "new", "b.txt": "new", "other.txt": "old"}


def test_of_staged_files_the_list_of_the_others_is_in_place_first(tmp_path, monkeypatch):
    replace = os.replace

    def killed_after(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt), staged_files(tmp_path) as aside:
        for name in ("a.txt", "b.json", "c.txt"):
            (aside / name).touch()
        monkeypatch.setattr(os, "replace", killed_after)
    assert [path.name for path in tmp_path.iterdir()] == ["b.json"]


def test_a_durable_file_is_flushed_before_it_is_renamed_and_its_folder_after_that(
    tmp_path, monkeypatch
):
    """A power loss leaves the old or the new file, and after the block the new one."""
    fsync, replace, events = os.fsync, os.replace, []

    def synced(descriptor):
        events.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def replaced(*paths):
        events.append("name")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    for durable in (True, False):
        with atomic_path(tmp_path / "a.txt", durable) as temporary:
            temporary.write_text("new")
    assert events == ["file", "name", "folder", "name"]


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("x" * 250 + ".json", ".json"),
        ("run-1.weights.h5", ".weights.h5"),  # Keras checks this suffix
        ("John.A.Smith.of.the.Photographers.obj", ".obj"),
        ("a." + "b" * 253, ""),
    ],
)
def test_a_file_may_have_any_valid_name_and_the_temporary_one_has_its_suffix(
    tmp_path, name, suffix
):
    with atomic_path(tmp_path / name) as temporary:
        temporary.write_text("new")
        assert temporary.name.endswith(suffix)
    assert [path.name for path in tmp_path.iterdir()] == [name]
