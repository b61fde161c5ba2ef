"""Several devices of one host give the losses and weights of one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from training.group_run import GROUPS, PAIRS

from keras_scnn.training.checkpoints import read_curves
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.distribution import check_distributed_backend, choose_devices

SCRIPT = Path(__file__).with_name("group_run.py")
STEPS = 4
RUNS = {
    "pairs": [PAIRS | {"devices": n} for n in ("1", "all")],
    "groups": [GROUPS | {"devices": n} for n in ("1", "all")],
}


def environment(devices: int) -> dict[str, str]:
    """Of a process with so many CPU devices."""
    paths = [str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")]
    flags = f"--xla_force_host_platform_device_count={devices}"
    own = {"PYTHONPATH": os.pathsep.join(paths), "XLA_FLAGS": flags, "KERAS_BACKEND": "jax"}
    return os.environ | own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All runs, in one process of four devices."""
    folder, settings = tmp_path_factory.mktemp("devices"), []
    for mode, runs in RUNS.items():
        for one in runs:
            path = folder / f"{mode}-{one['devices']}"
            own = {"run": str(path), "cache": str(folder / "cache"), "steps": STEPS}
            settings.append(one | own | {"weights": f"{path}.npz"})
    (folder / "settings.json").write_text(json.dumps(settings))
    words = [sys.executable, SCRIPT, folder / "settings.json"]
    done = subprocess.run(words, env=environment(4), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
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


def test_more_devices_than_there_are_and_rows_that_do_not_divide_are_refused(monkeypatch):
    jax = pytest.importorskip("jax")
    with pytest.raises(ValueError, match="devices is 99; there (is|are) "):
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


def test_other_backends_are_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="this is tensorflow: set KERAS_BACKEND=jax"):
        check_distributed_backend(TrainConfig(devices="all"))
