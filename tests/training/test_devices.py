"""Several devices of one host give the losses and weights of one."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from training.group_run import GROUPS, PAIRS
from xla_flags import FAST

from keras_scnn.training.checkpoints import read_curves
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.distribution import check_distributed_backend, choose_devices

SCRIPT = Path(__file__).with_name("group_run.py")
STEPS = 4
RUNS = {
    "pairs": [PAIRS | {"devices": n} for n in ("1", "all")],
    "groups": [GROUPS | {"devices": n} for n in ("1", "all")],
}


# The processes of these tests compile the same programs: each is compiled once.
PROGRAMS = tempfile.TemporaryDirectory(prefix="jax-programs-")
COMPILED_ONCE = {
    "JAX_COMPILATION_CACHE_DIR": PROGRAMS.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def environment(devices: int, backend: str = "jax") -> dict[str, str]:
    """The environment of a process with a number of CPU devices."""
    paths = [str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]
    flags = f"--xla_force_host_platform_device_count={devices} {FAST}"
    own = {"PYTHONPATH": os.pathsep.join(paths), "XLA_FLAGS": flags, "KERAS_BACKEND": backend}
    return os.environ | own | COMPILED_ONCE


def train_all(folder: Path, runs: dict[str, list[dict]], devices: int, backend="jax") -> None:
    """Train all runs, in one process with ``devices`` devices."""
    settings = []
    for mode, each in runs.items():
        for one in each:
            path = folder / f"{mode}-{one['devices']}"
            own = {"run": str(path), "cache": str(folder / "cache"), "steps": STEPS}
            settings.append(one | own | {"weights": f"{path}.npz"})
    (folder / "settings.json").write_text(json.dumps(settings))
    words = [sys.executable, SCRIPT, folder / "settings.json"]
    words += [str(devices)] if backend == "tensorflow" else []
    own = environment(devices, backend)
    done = subprocess.run(words, env=own, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    train_all(folder, RUNS, 4)
    return folder


def assert_same_run(one: Path, other: Path, rtol: float = 1e-4) -> None:
    """Curves, and the weights beside the run folders."""
    mine, theirs = read_curves(one), read_curves(other)
    for name in set(mine) - {"seconds"}:
        np.testing.assert_allclose(mine[name], theirs[name], rtol, 1e-5, err_msg=name)
    mine, theirs = (np.load(f"{path}.npz", allow_pickle=False) for path in (one, other))
    for name in mine.files:
        np.testing.assert_allclose(mine[name], theirs[name], rtol, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", RUNS)
def test_four_devices_train_as_one(folder, mode):
    """With all pairs of the batch compared, batch norm over all of it, and the same random pixels.

    Plain gradient steps: weights that are equal after them had equal gradients.
    """
    assert_same_run(folder / f"{mode}-1", folder / f"{mode}-all")
    weights = np.load(folder / f"{mode}-1.npz", allow_pickle=False)
    assert max(np.abs(weights[name]).max() for name in weights.files) > 0.01


ON_DEVICE = GROUPS | {"augment_on": "device"}
PARTS = ON_DEVICE | {"accumulate": 2, "optimizer": "adamw", "weight_average": 0.9}
HALF = GROUPS | {"precision": "mixed_float16"}  # Keras's blur of the network has no float16


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine
@pytest.mark.parametrize(
    ("count", "settings"),
    [
        pytest.param(2, PARTS, id="2-groups-in-parts"),
        pytest.param(2, HALF, id="2-groups-float16"),
        pytest.param(4, PAIRS, id="4-pairs"),
    ],
)
def test_replicas_of_tensorflow_train_as_one_device(tmp_path, count, settings):
    """With the same random changes in the network, batch norm, and gradients that are clipped."""
    pytest.importorskip("tensorflow")
    runs = {"run": [settings | {"devices": n} for n in ("1", "all")]}
    train_all(tmp_path, runs, count, "tensorflow")
    assert_same_run(tmp_path / "run-1", tmp_path / "run-all")


def test_more_devices_than_there_are_and_rows_that_do_not_divide_are_refused(monkeypatch):
    jax = pytest.importorskip("jax")
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(ValueError, match="devices is 99; Keras's backend has "):
        choose_devices(TrainConfig(devices="99"))
    four = [SimpleNamespace(process_index=0, platform="cpu", id=i) for i in (2, 0, 3, 1)]
    monkeypatch.setattr(jax, "devices", lambda: four)
    assert choose_devices(TrainConfig(devices="2")) == ["cpu:0", "cpu:1"]
    with pytest.raises(ValueError, match="a batch of 6 rows .* among 4 devices"):
        choose_devices(TrainConfig(devices="all", batch_size=6))
    with pytest.raises(ValueError, match="32 rows .* among 4 devices, each in 16 parts"):
        choose_devices(TrainConfig(devices="all", accumulate=16))
    place = {"hosts": 2, "coordinator": "a:1", "minutes": 0.0}
    monkeypatch.setattr(four[0], "process_index", 1)
    with pytest.raises(ValueError, match="the hosts have 3, 1 devices: give --devices 1"):
        choose_devices(TrainConfig(devices="all", **place))
    assert choose_devices(TrainConfig(**place)) == ["cpu:0", "cpu:2"]


def test_the_devices_of_tensorflow_are_those_of_one_host(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    names = [f"/device:GPU:{i}" for i in range(4)]
    monkeypatch.setattr("keras_scnn.training.distribution.device_names", lambda: names)
    assert choose_devices(TrainConfig(devices="2")) == names[:2]
    with pytest.raises(ValueError, match="devices is 5; Keras's backend has 4 here"):
        choose_devices(TrainConfig(devices="5"))
    with pytest.raises(ValueError, match="a batch of 6 rows .* among 4 devices"):
        choose_devices(TrainConfig(devices="all", batch_size=6))
    check_distributed_backend(TrainConfig(devices="all"))
    hosts = TrainConfig(hosts=2, coordinator="a:1", minutes=0.0)
    message = "several hosts need JAX as Keras's backend, which is tensorflow"
    with pytest.raises(ValueError, match=message):
        check_distributed_backend(hosts)


def test_other_backends_are_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "torch")
    message = "need TensorFlow or JAX as Keras's backend, which is torch: set"
    with pytest.raises(ValueError, match=message):
        check_distributed_backend(TrainConfig(devices="all"))
