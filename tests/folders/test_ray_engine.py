import dataclasses
import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_scnn.folders.batch import BatchSettings
from keras_scnn.folders.folder import reconstruct_folder
from keras_scnn.folders.job import FolderJob
from keras_scnn.folders.ray_engine import _anywhere
from keras_scnn.models import load_preset, save_preset
from keras_scnn.reconstruct import main
from keras_scnn.storage.remote import place

ray = pytest.importorskip("ray", reason="extra 'ray' is not installed")
pq = pytest.importorskip("pyarrow.parquet", reason="extra 'batch' is not installed")

ROOT = Path(__file__).resolve().parents[2]
CROPS = BatchSettings(crops=True, shard_photos=1)


@pytest.fixture(scope="module")
def local(tmp_path_factory, crop_folder):
    out = tmp_path_factory.mktemp("local")
    reconstruct_folder(crop_folder, out, CROPS, workers=1)
    return parts_of(out)


def parts_of(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "faces").iterdir()}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, as processes of this machine."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(PYTHONPATH=str(ROOT), RAY_USAGE_STATS_ENABLED="0")
    options = {"num_cpus": 1, "object_store_memory": 80_000_000}
    watch = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000}
    watch |= {"health_check_failure_threshold": 5}
    head = {**options, "include_dashboard": False, "_system_config": watch}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    second = cluster.add_node(**options)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster, second
    ray.shutdown()
    cluster.shutdown()
    os.environ.clear()
    os.environ.update(before)


def actor_processes() -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid=,args="], capture_output=True, text=True).stdout
    return [int(row.split()[0]) for row in listing.splitlines() if "ray::_Worker" in row]


class DeadlyJob(FolderJob):
    """A folder job with a photo that kills any process that reads it."""

    def make(self, number, names):
        if names == ["03.png"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().make(number, names)


class SlowJob(FolderJob):
    """A folder job slow enough that a test can kill a worker."""

    def make(self, number, names):
        time.sleep(0.3)
        return super().make(number, names)


@pytest.mark.integration
def test_killed_actors_and_a_killed_node_neither_lose_nor_duplicate_photos(
    tmp_path, crop_folder, local, cluster, monkeypatch
):
    nodes, second = cluster
    monkeypatch.setattr("keras_scnn.folders.folder.FolderJob", SlowJob)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    killed = []

    def kill(*_):
        done = len(list((tmp_path / "out" / "faces").glob("part-*")))
        if done >= 2 * (1 + len(killed)) and len(killed) < 3 and actor_processes():
            if len(killed) < 2:
                killed.append(actor_processes()[0])
                os.kill(killed[-1], signal.SIGKILL)
            else:
                killed.append("node")
                nodes.remove_node(second, allow_graceful=False)
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    before = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        done = reconstruct_folder(crop_folder, tmp_path / "out", CROPS, engine="ray")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(killed) == 3 and killed[-1] == "node"
    assert (done.photos, done.failed, done.faces) == (13, 2, 11)
    assert parts_of(tmp_path / "out") == local


@pytest.mark.integration
def test_an_error_in_a_worker_is_one_line(tmp_path, crop_folder, cluster, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = [str(crop_folder), "--out", str(out), "--crops", "--engine", "ray"]
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr("keras_scnn.__version__", "99.0")
    assert main(arguments) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "keras_scnn_version is 0.2.0, but 99.0 on the host that started the run" in line
    monkeypatch.undo()
    assert not list((out / "faces").iterdir())
    monkeypatch.setattr("keras_scnn.folders.folder.FolderJob", DeadlyJob)
    with pytest.raises(RuntimeError, match=r"5 workers died on part 3 \(.*the same command conti"):
        reconstruct_folder(crop_folder, tmp_path / "deadly", CROPS, workers=1, engine="ray")
    assert "part-00003.parquet" not in parts_of(tmp_path / "deadly")
    monkeypatch.undo()
    monkeypatch.chdir(crop_folder)
    done = reconstruct_folder(".", tmp_path / "deadly", CROPS, workers=1, engine="ray")
    assert done.faces == 11


def test_paths_are_absolute_for_actors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_preset(tmp_path / "own", load_preset("mobile"))
    settings = BatchSettings(preset="own")
    job = _anywhere(FolderJob(place("photos"), place("s3://out"), settings, {}, []))
    assert (job.folder, job.out) == (tmp_path / "photos", place("s3://out"))
    assert job.settings.preset == str(tmp_path / "own")
    packaged = FolderJob(place("photos"), place("out"), BatchSettings(), {}, [])
    assert _anywhere(packaged).settings == BatchSettings()
    monkeypatch.setattr("keras_scnn.folders.ray_engine.preset_folder", lambda _: tmp_path / "0f")
    for url in ("s3://bucket/own", f"https://host/own#sha256={64 * '0'}"):  # fetched by each host
        job = FolderJob(place("photos"), place("out"), BatchSettings(preset=url), {}, [])
        assert _anywhere(job).settings.preset == url


def test_without_ray_the_extra_is_named(tmp_path, crop_folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    arguments = [str(crop_folder), "--out", str(tmp_path / "out"), "--engine", "ray"]
    assert main(arguments) == 2
    assert "pip install '.[ray]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_named_before_the_work(
    tmp_path, crop_folder, monkeypatch, capsys
):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    arguments = [str(crop_folder), "--out", str(tmp_path / "out"), "--engine", "ray"]
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:99999"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert main(arguments) == 2
        assert f"error: RAY_ADDRESS is {address}: no Ray cluster answers" in (
            capsys.readouterr().err
        )
    assert not (tmp_path / "out").exists()


def test_an_unknown_engine_is_refused(tmp_path, crop_folder):
    with pytest.raises(ValueError, match="engine is 'spark'; choose from local, ray"):
        reconstruct_folder(crop_folder, tmp_path / "out", CROPS, engine="spark")


@pytest.mark.parametrize("wrong", ["folder", "out"])
def test_a_host_without_the_folders_is_named(tmp_path, crop_folder, wrong):
    reconstruct_folder(crop_folder, tmp_path, CROPS, workers=1)
    about = json.loads((tmp_path / "plan.json").read_text())
    places = {"folder": crop_folder, "out": tmp_path, wrong: tmp_path / "elsewhere"}
    job = FolderJob(settings=CROPS, about=about, keys=[], **places)
    why = "(does not exist|is not the folder of the run); all hosts need one shared folder"
    with pytest.raises(ValueError, match=f"elsewhere {why}"):
        job.check_host()
    good = FolderJob(crop_folder, tmp_path, CROPS, about, [])
    good.check_host()
    absent = dataclasses.replace(good, settings=BatchSettings(preset="/nowhere/own"))
    with pytest.raises(ValueError, match=f"{platform.node()}: no preset '/nowhere/own'"):
        absent.check_host()
    good.about["preset_digest"] = "0"
    with pytest.raises(ValueError, match="preset_digest is .*, but 0 on the host that started"):
        good.check_host()
