"""A group of two ranks on a local Ray cluster, of which one is killed; and what is refused."""

import dataclasses
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from keras_scnn.distributed.ray import main, train_on_ray
from keras_scnn.training.config import TrainConfig
from keras_scnn.training.distribution import join_group

pytest.importorskip("ray")


def meet(marks: str, config: TrainConfig) -> None:
    """The work of each rank: rank 1 is killed in the first try; then both count processes."""
    mark = Path(marks) / "killed"
    if config.rank and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with join_group(config) as group:
        import jax

        assert jax.process_count() == 2
        total = group.all_max([config.rank])[0]
        (Path(marks) / f"rank-{config.rank}").write_text(f"{jax.process_index()} {total}")


def refuse(config: TrainConfig) -> None:
    raise ValueError("data: no such records")


@pytest.fixture(scope="module")
def cluster():
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers have no such module
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def config(tmp_path):
    place = {"coordinator": "ray:1", "join_seconds": 60.0}
    return TrainConfig(run=str(tmp_path / "run"), hosts=2, minutes=0.0, **place)


@pytest.mark.integration
def test_a_group_that_lost_a_rank_is_started_again(cluster, config, tmp_path, monkeypatch, capsys):
    # Rank 0 waits for rank 1, and reports nothing.
    monkeypatch.setattr("keras_scnn.distributed.ray.ENDING", 5.0)
    train_on_ray(config, work=partial(meet, str(tmp_path)))
    assert [(tmp_path / f"rank-{i}").read_text() for i in (0, 1)] == ["0 1", "1 1"]
    assert "attempt 1" in capsys.readouterr().err


@pytest.mark.integration
def test_permanent_errors_are_not_retried(cluster, config):
    with pytest.raises(ValueError, match="data: no such records"):
        train_on_ray(config, work=refuse)


@pytest.mark.integration
@pytest.mark.parametrize("hosts", [1, 2])
def test_resources_that_the_cluster_does_not_have_are_waited_for_a_while(
    cluster, config, monkeypatch, hosts
):
    monkeypatch.setattr("keras_scnn.distributed.ray.START", 2.0)
    alone = dataclasses.replace(config, hosts=hosts)
    with pytest.raises(OSError, match=rf"all of {hosts} ranks within 2 s.*'num_cpus': 64"):
        train_on_ray(alone, {"num_cpus": 64}, work=refuse)


WAIT = """
import sys, time
from keras_scnn.distributed import ray
from keras_scnn.settings import command

def wait(config):
    print("rank is there", flush=True)
    time.sleep(600)

@command
def main(arguments=None):
    ray.train_on_ray(ray.TrainConfig(run="a", minutes=0.0), work=wait)

sys.exit(main())
"""


@pytest.mark.integration
def test_sigterm_ends_the_command_without_a_trace(tmp_path):
    root = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "RAY_ADDRESS": ""}
    environment |= {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", WAIT], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as run:  # fmt: skip
        next(line for line in run.stdout if "rank is there" in line)
        run.terminate()
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, "though Ray raises a KeyboardInterrupt"
    assert "SIGTERM" not in errors and "Traceback" not in errors and "@" not in errors, errors


def test_the_run_folder_of_several_hosts_is_an_absolute_path(config):
    """A relative one would be another folder on each host."""
    with pytest.raises(ValueError, match="run is 'runs/x'; with hosts 2 it must be an absolute"):
        train_on_ray(dataclasses.replace(config, run="runs/x"), work=refuse)


def test_rank_and_minutes_cannot_be_chosen(capsys):
    assert main(["--hosts", "2", "--minutes", "0", "--rank", "1"]) == 2
    assert "rank and coordinator are set by Ray" in capsys.readouterr().err
    assert main(["--hosts", "2"]) == 2
    assert "give --minutes 0" in capsys.readouterr().err
