import contextlib
import dataclasses
import errno
import json
import multiprocessing
import resource
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from stores import fsspec, http_server, memory_url, put, s3_server

from keras_scnn.data.mixture import open_mixture
from keras_scnn.data.records import (
    FORMAT,
    VERSION,
    FaceRecords,
    checksum,
    finish_records,
    load_records,
    write_shard,
)
from keras_scnn.data.remote_records import CachedFile, open_face_records
from keras_scnn.data.sharded_images import ShardedImages
from keras_scnn.storage import bounded, read_npz, write_npz
from keras_scnn.train import main
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.digests import run_digests
from keras_scnn.training.records import open_records

SHARDS = 5


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("keras_scnn.storage.remote.WAITS", (0.01,))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Records in five shards of different sizes, with names of different lengths."""
    home = tmp_path_factory.mktemp("records")
    rng = np.random.default_rng(0)
    for number in range(SHARDS):
        count = 4 + number
        records = FaceRecords(
            rng.integers(0, 256, (count, 8, 8, 3), np.uint8),
            rng.normal(size=(count, 14)).astype(np.float32),
            rng.normal(size=(count, 68, 3)).astype(np.float32),
            np.int32(2 * number + np.arange(count) % 2),
            "open_face",
            weight=rng.random((count, 68)).astype(np.float32),
            name=np.array([f"{'x' * number}/{i}.jpg" for i in range(count)]),
        )
        write_shard(home, number, records)
    finish_records(home, SHARDS, "open_face", {"seed": 5})
    return home


def same(one: FaceRecords, two: FaceRecords) -> None:
    assert one.arrays() == two.arrays()
    assert (one.face_model, one.config) == (two.face_model, two.config)
    for name in one.arrays():
        np.testing.assert_array_equal(
            np.asarray(getattr(one, name)), np.asarray(getattr(two, name))
        )


def fetched(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*.images.npy"))


@pytest.mark.parametrize("store", ["memory", "http"])
def test_records_of_a_store_are_those_of_the_folder(tmp_path, folder, store):
    home = memory_url()
    put(home, folder)
    with http_server(folder) as url:
        records = open_face_records(home if store == "memory" else url, tmp_path)
        assert fetched(tmp_path) == ["00000.images.npy"]  # for the photos' size
        np.testing.assert_array_equal(records.images[[0, 12]], load_records(folder).images[[0, 12]])
        assert fetched(tmp_path) == ["00000.images.npy", "00002.images.npy"]
        same(records, load_records(folder))
    assert not list(tmp_path.rglob("*.npz")) and isinstance(records.images, ShardedImages)
    assert not records.landmarks.flags.writeable  # memory-mapped


def test_a_second_run_fetches_only_the_manifest(tmp_path, folder, monkeypatch):
    home = memory_url()
    put(home, folder)
    same(open_face_records(home, tmp_path), load_records(folder))
    fs = fsspec.filesystem("memory")
    read, asked = type(fs).cat_file, []
    monkeypatch.setattr(
        type(fs), "cat_file", lambda self, path, *a, **k: (asked.append(path), read(self, path))[1]
    )
    same(open_face_records(home, tmp_path), load_records(folder))
    assert [path.rpartition("/")[2] for path in asked] == ["manifest.json"]


@pytest.mark.parametrize("name", ["00001.images.npy", "landmarks.npy", "labels.json"])
@pytest.mark.parametrize("kept", [0, 0.5, -1])
def test_damaged_or_incomplete_files_are_fetched_again(tmp_path, folder, name, kept):
    home = memory_url()
    put(home, folder)
    same(open_face_records(home, tmp_path), load_records(folder))
    (path,) = tmp_path.rglob(name)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))] if kept >= 0 else content[:-1] + b"~")
    same(open_face_records(home, tmp_path), load_records(folder))


def test_threads_that_ask_for_one_shard_fetch_it_once(tmp_path, folder, monkeypatch):
    home = memory_url()
    put(home, folder)
    file = open_face_records(home, tmp_path).images._files[2]
    content, asked, both = CachedFile.content, [], threading.Barrier(2)

    def slow(self):
        asked.append(self)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # the other thread should not arrive here
        return content(self)

    monkeypatch.setattr(CachedFile, "content", slow)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: file.local(), range(2)))
    assert paths == [file.path] * 2 and len(asked) == 1


def test_a_store_whose_files_are_not_those_of_the_manifest_is_named(tmp_path, folder):
    home = memory_url()
    put(home, folder)
    fs, root = fsspec.core.url_to_fs(home)
    records = open_face_records(home, tmp_path)
    fs.pipe_file(f"{root}/00003.images.npy", fs.cat_file(f"{root}/00003.images.npy")[:-7])
    assert len(records.images[:10]) == 10
    message = f"{home}/00003.images.npy: damaged, or not the file listed in manifest.json"
    with pytest.raises(ValueError, match=message):
        records.images[20]
    fs.rm(f"{root}/00003.images.npy")
    with pytest.raises(FileNotFoundError, match=f"{home}/00003.images.npy: no such file"):
        records.images[20]
    fs.rm(f"{root}/manifest.json")
    with pytest.raises(FileNotFoundError, match=f"{home}: no complete face records"):
        open_face_records(home, tmp_path)
    fs.pipe_file(f"{root}/manifest.json", b"{")
    with pytest.raises(ValueError, match=f"{home}/manifest.json: not a manifest"):
        open_face_records(home, tmp_path)
    assert not list(tmp_path.rglob(".partial-*"))


def test_an_array_of_a_store_does_not_become_a_file_elsewhere(tmp_path, folder):
    hostile = Path(shutil.copytree(folder, tmp_path / "hostile"))
    for number in range(SHARDS):
        labels, note = hostile / f"{number:05d}.labels.npz", hostile / f"{number:05d}.json"
        arrays = read_npz(labels, FORMAT, VERSION)
        write_npz(labels, FORMAT, VERSION, **arrays, **{"../../evil": arrays["identity"]})
        entry = json.loads(note.read_text())
        entry["crc32"][labels.name] = checksum(labels)
        note.write_text(json.dumps(entry))
    finish_records(hostile, SHARDS, "open_face", {})
    home = memory_url()
    put(home, hostile)
    with pytest.raises(ValueError, match="records of a store have an array named '../../evil'"):
        open_face_records(home, tmp_path / "a" / "cache")
    assert not list(tmp_path.rglob("evil*"))


def test_a_store_that_is_out_of_reach_is_not_taken_for_a_damaged_file(
    tmp_path, folder, monkeypatch
):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with http_server(folder) as url:
        records = open_face_records(url, tmp_path)
        (folder / "00003.labels.npz").rename(tmp_path / "aside")
        try:
            with pytest.raises(FileNotFoundError, match=f"{url}/00003.labels.npz: no such file"):
                open_face_records(url, tmp_path / "new")
        finally:
            (tmp_path / "aside").rename(folder / "00003.labels.npz")
    with pytest.raises(OSError, match=f"{url}/00003.images.npy: the store fails"):
        records.images[20]
    with pytest.raises(OSError, match=f"{url}/manifest.json: the store fails"):
        open_face_records(url, tmp_path)
    with pytest.raises(ImportError, match="gs://photos/manifest.json: .*pip install gcsfs"):
        open_face_records("gs://photos", tmp_path)


def test_other_contents_at_one_url_are_other_records(tmp_path, folder):
    home, other = memory_url(), tmp_path / "other"
    put(home, folder)
    same(open_face_records(home, tmp_path / "cache"), load_records(folder))
    config = dataclasses.replace(TrainConfig(), data=home)
    before = run_digests(config)["data"]
    shutil.copytree(folder, other)
    finish_records(other, SHARDS - 1, "open_face", {"seed": 6})
    put(home, other)
    same(open_face_records(home, tmp_path / "cache"), load_records(other))
    assert run_digests(config)["data"] != before


def test_a_full_disk_is_named(tmp_path, folder, monkeypatch):
    home = memory_url()
    put(home, folder)
    records = open_face_records(home, tmp_path)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device: .*00002.images.npy"):
        records.images[12]
    monkeypatch.undo()
    assert records.images[12].shape == (8, 8, 3) and not list(tmp_path.rglob(".partial-*"))


def test_several_sources_are_one_mixture(tmp_path, folder):
    home = memory_url()
    put(home, folder)
    mixture = open_mixture(f"{home}, {folder}", "2,1", tmp_path)
    assert len(mixture.records) == 2 * len(load_records(folder))
    whole = np.asarray(load_records(folder).images)
    np.testing.assert_array_equal(mixture.records.images[[30, 40]], whole[[0, 10]])
    np.testing.assert_array_equal(mixture.records.images[[0, 10]], whole[[0, 10]])


def bytes_in(cache: Path) -> int:
    return sum(path.stat().st_size for path in cache.rglob("*.images.npy"))


def test_a_bounded_cache_keeps_the_shards_that_were_used_last(tmp_path, folder):
    """Shards of 4 to 8 photos of 192 bytes, each with a header of 128 bytes."""
    home, bound = memory_url(), 3000
    put(home, folder)
    images = open_face_records(home, tmp_path, bound).images
    starts = [0, 4, 9, 15, 22]
    for number in (1, 0, 2):  # 1088 + 896 bytes, and 1280 more, which are too many
        images[starts[number]]
    assert fetched(tmp_path) == ["00000.images.npy", "00002.images.npy"]
    whole = np.asarray(load_records(folder).images)
    for index in np.random.default_rng(0).integers(0, len(whole), (20, 3)):
        np.testing.assert_array_equal(images[index], whole[index])
        assert bytes_in(tmp_path) <= bound
    same(open_face_records(home, tmp_path, bound), load_records(folder))
    assert bytes_in(tmp_path) <= bound
    assert images.most_bytes(2) == 1664 + 1472


def test_shards_that_fill_a_cache_exactly_stay(tmp_path, folder):
    home = memory_url()
    put(home, folder)
    images = open_face_records(home, tmp_path, 1088 + 896).images
    assert images[[4, 0]].shape == (2, 8, 8, 3)
    assert bytes_in(tmp_path) == 1088 + 896
    images[9]  # 1280 bytes in the place of both
    assert fetched(tmp_path) == ["00002.images.npy"]


def test_a_shard_in_use_is_not_removed(tmp_path, folder, monkeypatch):
    home = memory_url()
    put(home, folder)
    images = open_face_records(home, tmp_path, 3000).images
    first, *_, last = images._files
    with images.bound.in_use([first]):
        assert images[[5, 10, 16]].shape == (3, 8, 8, 3)  # one after the other, beside it
        assert "00000.images.npy" in fetched(tmp_path)
    monkeypatch.setattr("keras_scnn.storage.bounded.PATIENCE", 0.0)
    full = pytest.raises(OSError, match=f"{tmp_path}: its 3000 bytes are full and in use by other")
    with images.bound.in_use([last]), full:  # 1664 of them
        images[16]
    assert images[16].shape == (8, 8, 3)
    open_face_records(home, tmp_path)  # without a bound: all that is there is in use
    with pytest.raises(OSError, match="are full and in use by other runs"):
        images[25]


def test_a_bound_that_is_too_small_is_named(tmp_path, folder):
    home = memory_url()
    put(home, folder)
    with pytest.raises(ValueError, match=f"{tmp_path}: 896 bytes .* limit of the cache, 800"):
        open_face_records(home, tmp_path, 800)
    config = TrainConfig(data=home, cache=str(tmp_path), cache_gigabytes=3e-6, batch_size=2)
    with pytest.raises(ValueError, match="cache_gigabytes is 3e-06: the 4 photos .* 5.5e-06 GB"):
        open_records(config)
    assert open_records(dataclasses.replace(config, cache_gigabytes=6e-6)).records.images.bound
    with pytest.raises(ValueError, match="cache_gigabytes is 1e-12: the 4 photos"):  # not unbounded
        open_records(dataclasses.replace(config, cache_gigabytes=1e-12))
    hosts = {"hosts": 2, "coordinator": "host:1"}
    with pytest.raises(ValueError, match="the 2 photos of a batch"):  # of this one of two processes
        open_records(dataclasses.replace(config, minutes=0, **hosts))


def test_local_shards_do_not_count_as_fetched(tmp_path, folder):
    home = memory_url()
    put(home, folder)
    alone = open_face_records(home, tmp_path, 3000).images
    mixture = open_mixture(f"{home},{folder}", "", tmp_path, 3000)
    assert mixture.records.images.most_bytes(100) == alone.most_bytes(100)


def test_all_files_that_wait_for_room_give_up_together(tmp_path, folder, monkeypatch):
    home, waited = memory_url(), []
    put(home, folder)
    images = open_face_records(home, tmp_path, 2000).images
    first, second, *_, last = images._files
    clock = SimpleNamespace(
        monotonic=lambda: sum(waited), sleep=waited.append, time_ns=time.time_ns
    )
    monkeypatch.setattr("keras_scnn.storage.bounded.time", clock)
    full = pytest.raises(OSError, match="are full and in use by other runs")
    with images.bound.in_use([last]), full, images.bound.in_use([first, second]):
        pass  # 1664 bytes, and neither 896 nor 1088 more have room
    assert sum(waited) == pytest.approx(bounded.PATIENCE, abs=2 * bounded.PAUSE)


def _sums(url: str, cache: Path, queue, bound: int | None = None) -> None:
    records = open_face_records(url, cache, bound)
    queue.put(int(np.asarray(records.images).astype(int).sum()))


@pytest.mark.integration
@pytest.mark.parametrize("bound", [None, 3000])
def test_processes_that_begin_together_share_a_cache(tmp_path, folder, bound):
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.Queue()
    with http_server(folder) as url:
        words = url, tmp_path, queue, bound
        several = [spawn.Process(target=_sums, args=words) for _ in range(3)]
        for process in several:
            process.start()
        sums = [queue.get(timeout=60) for _ in several]
        for process in several:
            process.join()
    assert sums == [int(np.asarray(load_records(folder).images).astype(int).sum())] * 3


def test_more_shards_than_open_files_are_read(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    paths = [tmp_path / f"{i}.npy" for i in range(400)]
    for i, path in enumerate(paths):
        np.save(path, np.full((2, 1, 1, 3), i % 256, np.uint8))
    resource.setrlimit(resource.RLIMIT_NOFILE, (350, hard))
    try:
        images = ShardedImages(paths)
        expected = np.repeat(np.arange(400) % 256, 2)
        np.testing.assert_array_equal(images[:][:, 0, 0, 0], expected)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.integration
def test_training_opens_records_on_s3(tmp_path, folder, capsys):
    pytest.importorskip("moto", reason="extra 'test' is not installed")
    config = TrainConfig(data="s3://photos/records", cache=str(tmp_path / "cache"))
    with s3_server(["photos"]):
        put(config.data, folder)
        same(open_records(config).records, load_records(folder))
        for url, problem in (
            ("s3://photos/none", "no complete face records (manifest.json is missing)"),
            ("s3://nowhere/records", "no complete face records"),
        ):
            assert main(["--data", url, "--run", str(tmp_path / "run")]) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert f"error: {url}: {problem}" in line
    assert not (tmp_path / "run").exists()
