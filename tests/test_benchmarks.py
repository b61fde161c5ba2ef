"""Benchmarks report what fails, instead of its time."""

import importlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch) -> Callable[[str], ModuleType]:
    """Imports a script of benchmarks/ by name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.mark.integration
def test_a_command_with_another_exit_status_has_no_time(benchmark):
    start_up = benchmark("start_up")
    assert start_up.cpu_seconds(["-c", "exit(3)"], 1, status=3) > 0
    with pytest.raises(RuntimeError, match=r"-c exit\('no'\): status 1, not 0: \['no'\]"):
        start_up.cpu_seconds(["-c", "exit('no')"], 1, status=0)


@pytest.mark.integration
def test_a_batch_command_that_fails_has_no_speed(benchmark, tmp_path, capfd):
    batch_throughput = benchmark("batch_throughput")
    with pytest.raises(subprocess.CalledProcessError):
        batch_throughput.whole_command(tmp_path / "none", tmp_path / "out", 10, 1)
    assert "crops/s" not in capfd.readouterr().out


@pytest.mark.integration
def test_a_server_that_does_not_start_is_named(benchmark):
    pytest.importorskip("psutil")
    with pytest.raises(RuntimeError, match="the server of none ended with status 2"):
        benchmark("server_load").Server("none")


def test_a_folder_without_annotated_photos_is_refused(benchmark, tmp_path):
    pytest.importorskip("skimage")
    with pytest.raises(FileNotFoundError, match=r"no \.pts files; it must have them beside"):
        benchmark("finding_faces").read_faces(tmp_path, 1)
