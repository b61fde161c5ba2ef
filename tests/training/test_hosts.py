"""Several processes on loopback: the same curve for any number of them, even if one is lost."""

import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from training.group_run import PAIRS
from training.test_devices import SCRIPT, assert_same_run, environment

from keras_scnn.training.checkpoints import read_state

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]  # on a busy machine
BOUND = 60  # seconds within which a process must end after another is lost, on a busy machine
STEPS = 8


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Processes:
    """The ranks of one run.

    Args:
        folder: of the run; the settings and the weights are beside it.
        hosts: how many. first: settings of rank 0 alone. steps: of the run.
    """

    def __init__(self, folder, hosts: int, first: dict | None = None, steps: int = STEPS):
        self.folder, self.all = folder, []
        place = {"hosts": hosts, "coordinator": f"127.0.0.1:{free_port()}"} if hosts > 1 else {}
        for rank in range(hosts):
            own = {"run": str(folder), "cache": str(folder.parent / "cache"), **place}
            own |= {"rank": rank, "weights": f"{folder}.npz"}
            path = folder.with_name(f"{folder.name}-{rank}.json")
            own |= {"steps": steps} | ((first or {}) if rank == 0 else {})
            path.write_text(json.dumps([PAIRS | {"augmentation": 0.0} | own]))
            self.all.append(
                subprocess.Popen(
                    [sys.executable, SCRIPT, path],
                    env=environment(1) | {"TF_CPP_MIN_LOG_LEVEL": "3"},
                    stderr=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    text=True,
                )
            )

    def wait_for_step(self, step: int) -> None:
        deadline = time.monotonic() + 240
        while read_state(self.folder).step < step:
            assert all(one.poll() is None for one in self.all), self.all[0].communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def kill(self, rank: int) -> float:
        """Seconds until all others ended, each with one line that says what to do."""
        self.all[rank].send_signal(signal.SIGKILL)
        start = time.monotonic()
        for i, one in enumerate(self.all):
            said = one.communicate(timeout=BOUND)[1]
            if i != rank:
                assert one.returncode == 2, said
                assert said.count("error:") == 1 and "Traceback" not in said, said
                assert "start all ranks again" in said
        return time.monotonic() - start

    def finish(self) -> None:
        for one in self.all:
            said = one.communicate(timeout=240)[1]
            assert one.returncode == 0, said


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of one process that nobody interrupted."""
    folder = tmp_path_factory.mktemp("hosts") / "whole"
    Processes(folder, 1).finish()
    return folder


def test_two_processes_train_as_one(whole):
    folder = whole.with_name("two")
    Processes(folder, 2).finish()
    assert_same_run(whole, folder)
    np.testing.assert_equal(read_state(folder).random, read_state(whole).random)
    assert {p.name for p in folder.glob(".*")} == set()


@pytest.mark.slow
def test_a_signal_to_one_ends_all_after_the_epoch_with_a_checkpoint(whole):
    folder = whole.with_name("stopped")
    processes = Processes(folder, 2, steps=1000)
    processes.wait_for_step(2)
    processes.all[1].send_signal(signal.SIGTERM)
    said = [one.communicate(timeout=240)[1] for one in processes.all]
    step = read_state(folder).step
    assert f"stopped after step {step}; the same command continues from there" in said[0]
    assert [one.returncode for one in processes.all] == [143, 143], said


@pytest.mark.slow
def test_a_full_disk_of_one_ends_all_and_leaves_nothing_half_written(whole):
    folder = whole.with_name("full")
    first, other = Processes(folder, 2, {"disk": "full"}).all
    said = [one.communicate(timeout=240)[1] for one in (first, other)]
    assert [first.returncode, other.returncode] == [2, 2]
    assert [text.count("error:") for text in said] == [1, 1], said
    cause = "checkpoint-2.weights.h5: cannot be written"
    assert cause in said[0] and "rank 0: " in said[1] and cause in said[1]
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.yaml", "inputs.json", "curves.csv"}


@pytest.mark.slow
def test_a_run_continues_on_another_number_of_processes_after_kills(whole):
    """Kills rank 0 of two, with the coordinator, then a rank of four; one process finishes."""
    folder = whole.with_name("killed")
    for hosts, victim, step in ((2, 0, 2), (4, 3, 4)):
        processes = Processes(folder, hosts)
        processes.wait_for_step(step)
        assert processes.kill(victim) < BOUND
    assert step <= read_state(folder).step < STEPS
    Processes(folder, 1).finish()
    assert_same_run(whole, folder)
