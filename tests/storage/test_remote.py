import builtins
import errno
import json
import os
import pickle
import platform
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from stores import FailingStore, fsspec, get, http_server, memory_url, put

from keras_scnn import train
from keras_scnn.data.records import save_records
from keras_scnn.data.synthesis.rendered_people import (
    SyntheticConfig,
    cached_records,
    render_records,
)
from keras_scnn.export.artifacts import export_preset
from keras_scnn.models import load_preset, save_preset
from keras_scnn.storage import claims
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.remote import RemotePath, StoreError, is_url, place, published
from keras_scnn.storage.shards import claimed_folder


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(claims, "SETTLE", 0)
    monkeypatch.setattr(claims, "PATIENCE", 0.3)
    monkeypatch.setattr(claims, "BEAT", 0.05)
    monkeypatch.setattr("keras_scnn.storage.remote.WAITS", (0.01,))


def test_paths_and_urls_are_distinguished():
    assert place("photos/a") == Path("photos/a") and place(Path("x")) == Path("x")
    assert place("s3://photos/") == RemotePath("s3://photos") and is_url("s3://photos")
    assert place("file:///data/a%20b") == Path("/data/a b") and not is_url("C://photos")
    inside = place("s3://photos") / "sub/a b#?.jpg"
    assert (inside.url, inside.name, inside.suffix) == (
        "s3://photos/sub/a b#?.jpg", "a b#?.jpg", ".jpg",
    )  # fmt: skip
    assert pickle.loads(pickle.dumps(inside)) == inside  # noqa: S301
    with pytest.raises(ValueError, match="a chain of URLs"):
        place("zip://x::s3://photos/a.zip")
    assert place("file://localhost/data") == Path("/data")
    assert place("file:///data/run#1?") == Path("/data/run#1?")  # not another folder, /data/run
    with pytest.raises(ValueError, match="file://results/run: on the host 'results'"):
        place("file://results/run")
    for url in ("file://", "file://localhost"):  # not the current folder
        with pytest.raises(ValueError, match=f"{url}: names no file or folder"):
            place(url)


def test_a_file_is_published_atomically():
    home = place(memory_url())
    with published(home / "part.bin") as temporary:
        temporary.write_bytes(b"whole")
        assert not (home / "part.bin").is_file()
    assert (home / "part.bin").read_bytes() == b"whole"
    with pytest.raises(ZeroDivisionError), published(home / "part.bin") as temporary:
        temporary.write_bytes(b"half")
        _ = 1 / 0
    assert get(home.url) == {"part.bin": b"whole"} and not temporary.exists()


def test_an_object_is_put_once_under_its_own_name(monkeypatch):
    """Renaming in a bucket is a second upload and a deletion."""
    store, home, seen = fsspec.get_filesystem_class("memory"), place(memory_url()), []
    write = store.pipe_file
    monkeypatch.setattr(
        store,
        "pipe_file",
        lambda self, path, *rest, **more: (seen.append(path), write(self, path, *rest, **more)),
    )
    (home / "part.bin").write_bytes(b"whole")
    assert [Path(path).name for path in seen] == ["part.bin"]


def test_other_stores_get_a_file_under_another_name_first(tmp_path, monkeypatch):
    fsspec.register_implementation(
        "disk", "fsspec.implementations.local.LocalFileSystem", clobber=True
    )
    from fsspec.implementations.local import LocalFileSystem

    monkeypatch.setattr(
        LocalFileSystem,
        "_strip_protocol",
        classmethod(lambda cls, path: str(path).removeprefix("disk://")),
    )
    seen = []
    write = LocalFileSystem.pipe_file
    monkeypatch.setattr(
        LocalFileSystem,
        "pipe_file",
        lambda self, path, *rest, **more: (seen.append(path), write(self, path, *rest, **more)),
    )
    file = place(f"disk://{tmp_path}/results/faces/part.bin")
    file.write_bytes(b"one")
    file.write_bytes(b"two")
    assert file.read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "results" / "faces").iterdir()] == ["part.bin"]
    assert all(Path(path).name.startswith(".partial-") for path in seen)


def test_listings_give_names_and_fingerprints(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a b%.jpg").write_bytes(b"123")
    (tmp_path / "c.jpg").write_bytes(b"1")
    home = memory_url()
    put(home, tmp_path)
    with http_server(tmp_path) as url:
        for folder in (place(home), place(url)):
            before = folder.files()
            assert list(before) == ["c.jpg", "sub/a b%.jpg"]
            assert [mark[0] for mark in before.values()] == [1, 3]
            assert all(stamp for _, stamp in before.values())
            assert (folder / "sub/a b%.jpg").read_bytes() == b"123"
        os.utime(tmp_path / "c.jpg", (1e9, 1e9))
        assert place(url).files()["c.jpg"] != before["c.jpg"]
        with pytest.raises(FileNotFoundError, match=f"{url}/none: no such file, folder or bucket"):
            (place(url) / "none").read_bytes()
        with pytest.raises(ValueError, match="http can be read only"):
            check_out(place(url))
    with pytest.raises(StoreError, match=f"{url}: the store fails"):
        place(url).files()
    with pytest.raises(StoreError, match=f"{url}/c.jpg: the store fails"):
        (place(url) / "c.jpg").read_bytes()
    with pytest.raises(NotADirectoryError, match=r"c\.jpg: is a file; expected a folder"):
        (place(home) / "c.jpg").files()


@pytest.mark.parametrize(
    ("url", "missing", "advice"),
    [
        ("s3://photos", "fsspec", r"s3://photos: .*pip install '\.\[remote\]'"),
        ("s3://photos", "s3fs", r"s3://photos: .*pip install '\.\[remote\]'"),
        ("gs://photos", "gcsfs", "gs://photos: .*pip install gcsfs"),
        ("abfs://photos", "adlfs", "abfs://photos: .*pip install adlfs"),
        ("sftp://host/photos", "paramiko", r"pip install 'fsspec\[sftp\]'"),
    ],
)
def test_a_missing_package_is_named_with_the_command(monkeypatch, url, missing, advice):
    original = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == missing:
            raise ImportError(f"No module named '{name}'")
        return original(name, *arguments, **options)

    for name in [n for n in sys.modules if n.split(".")[0] == missing]:
        if missing != "fsspec":
            monkeypatch.delitem(sys.modules, name)
    sys.modules["fsspec.registry"]._registry.pop(url.partition("://")[0], None)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=advice):
        place(url).files()


def test_an_unknown_kind_of_store_is_named():
    with pytest.raises(ValueError, match=r"nonsense://photos: Protocol not known"):
        place("nonsense://photos").files()


def test_a_store_that_cannot_be_connected_to_is_named(monkeypatch):
    def fail(url):
        raise OSError(errno.EHOSTUNREACH, "No route to host")

    monkeypatch.setattr(fsspec.core, "url_to_fs", fail)  # as fsspec's ftp does
    with pytest.raises(StoreError, match=r"ftp://far/file: the store fails \(.*No route to host"):
        RemotePath("ftp://far/file").read_bytes()


def answer(status: int) -> Exception:
    """An error as aiohttp's, with the status of HTTP."""
    error = Exception(f"status {status}")
    error.status = status
    return error


def test_denied_and_full_stores_are_named():
    home = place("failing://results")
    FailingStore.left = 0
    for error, kind, words in (
        (OSError(errno.ENOSPC, "No space left on device"), StoreError, "No space left on device"),
        (PermissionError("Access Denied"), PermissionError, "denies access .*credentials"),
        (answer(401), PermissionError, "denies access .status 401.; check rights"),
        (answer(403), PermissionError, "denies access .status 403.; check rights"),
        (answer(500), StoreError, "fails .status 500."),
    ):
        FailingStore.error = error
        with pytest.raises(kind, match=f"failing://results/a: the store .*{words}"):
            (home / "a").write_bytes(b"1")


def claim(home):
    with claimed_folder(home, {"x": 1}, "things"):
        pass


def test_one_run_at_a_time_writes_to_a_store(capsys):
    home = place(memory_url())
    with claimed_folder(home, {"x": 1}, "things") as check:
        with pytest.raises(OSError, match="the run of process .* writes there"):
            claim(home)
        check()
    assert set(get(home.url)) == {"plan.json"}
    with claimed_folder(home, {"x": 1}, "things") as check:
        (home / "run.json").write_bytes(json.dumps({"id": "b", "host": "there", "pid": 7}).encode())
        for _ in range(100):
            claims.time.sleep(0.02)
            try:
                check()
            except OSError as error:
                assert "process 7 on there writes there" in str(error)
                break
        else:
            raise AssertionError("the other run was not seen")
    assert json.loads(get(home.url)["run.json"])["id"] == "b"  # not ours to delete


def test_of_two_runs_that_begin_at_once_the_one_whose_note_stands_goes_on(monkeypatch):
    home = place(memory_url())
    other = json.dumps({"id": "b", "host": "there", "pid": 7}).encode()

    def sleep(_):
        (home / "run.json").write_bytes(other)

    monkeypatch.setattr(claims, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    with pytest.raises(OSError, match="the run of process 7 on there writes there"):
        claim(home)
    assert get(home.url) == {"run.json": other}


HERE = {"host": platform.node(), "of": claims._pids()}


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"host": "elsewhere"},
        {"of": "a-boot pid:[7]"},  # a container of this host name, or this machine some boots ago
        {"of": None},  # of a version that did not note it
    ],
)
def test_a_store_is_free_when_its_run_was_killed(other, capsys):
    """At once if this process can check that, otherwise when the note stops changing."""
    home = place(memory_url())
    note = {"id": "a", "pid": 2**22 + 1, **HERE, **other}  # above Linux's highest number
    (home / "run.json").write_bytes(json.dumps(note).encode())
    with claimed_folder(home, {"x": 1}, "things") as check:
        check()
    assert set(get(home.url)) == {"plan.json"}
    assert ("waiting" in capsys.readouterr().out) == bool(other)


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux")
def test_processes_of_this_boot_and_namespace_know_each_other():
    code = "from keras_scnn.storage import claims; print(claims._pids())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == claims._pids() and "pid:[" in done.stdout


def test_a_url_where_a_local_folder_is_needed_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for path in (Path("s3://bucket/out"), Path("memory://out")):
        with pytest.raises(ValueError, match=f"{path}: a URL; .* a local folder only"):
            check_out(path)
    assert train.main(["--run", "s3://bucket/run", "--steps", "1"]) == 2
    assert "s3:/bucket/run: a URL" in capsys.readouterr().err
    assert train.main(["--cache", memory_url(), "--run", "a", "--steps", "1"]) == 2
    assert "a URL; this is written to a local folder only" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "write",
    [
        lambda url: export_preset("aflw-mobilenet-0.5", url),
        lambda url: save_preset(url, load_preset("aflw-mobilenet-0.5")),
        lambda url: save_records(url, None),
        lambda url: cached_records(SyntheticConfig(people=1), url),
        lambda url: render_records(SyntheticConfig(people=1), url),
    ],
    ids=["export_preset", "save_preset", "save_records", "cached_records", "render_records"],
)
def test_functions_make_no_folder_of_the_name_of_a_url(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="a URL; this is written to a local folder only"):
        write(memory_url())
    assert not list(tmp_path.iterdir())


def test_a_folder_in_a_folder_of_one_name_is_not_empty():
    home = place(memory_url())
    (home / home.name / "a").write_bytes(b"1")
    assert not home.is_empty() and place(f"{home}/new").is_empty()


def test_a_store_of_something_else_or_of_another_plan_is_refused():
    home = place(memory_url())
    (home / "holiday.jpg").write_bytes(b"1")
    with pytest.raises(ValueError, match="is not empty, and holds no things"):
        claim(home)
    assert set(get(home.url)) == {"holiday.jpg"}
    (home / "holiday.jpg").unlink()
    (home / "plan.json").write_bytes(b'{"x": 2}')
    with pytest.raises(ValueError, match="x: 2 there, 1 now"):
        claim(home)
    assert get(home.url) == {"plan.json": b'{"x": 2}'}


@pytest.mark.parametrize("url", ["s3://", "memory://", "s3:///"])
def test_a_url_without_a_bucket_is_refused(url):
    with pytest.raises(ValueError, match="names no bucket or folder"):
        place(url)
