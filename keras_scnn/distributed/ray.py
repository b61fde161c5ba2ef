"""Training on a Ray cluster: ``python -m keras_scnn.distributed.ray --hosts 4 --minutes 0 ...``.

The options are those of ``keras-scnn train``, except rank and coordinator. One actor per host runs
one rank; if one is lost, all are ended and started again, and continue from the last checkpoint.
The run folder must be an absolute path that all hosts can access: rank 0 may move to another host.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import Any

from keras_scnn.folders.ray_engine import connected, require_ray
from keras_scnn.settings import (
    CommandParser,
    add_options,
    check_at_least,
    command,
    from_options,
)
from keras_scnn.storage.remote import url_host
from keras_scnn.training.config import TrainConfig

START = 300.0  # seconds to wait for Ray to start all ranks
ENDING = 30.0  # seconds to wait for the cause from other ranks, once one is lost


def train_on_ray(
    config: TrainConfig,
    resources: Mapping[str, float] | None = None,
    restarts: int = 3,
    work: Callable[[TrainConfig], Any] | None = None,
) -> None:
    """Train on ``config.hosts`` hosts of the Ray cluster that is connected, or a local one.

    Args:
        config: settings; rank and coordinator are set here.
        resources: of each host: ``num_cpus``, ``num_gpus`` and others of ``ray.remote``.
        restarts: how often a group that lost a process is started again.
        work: what each rank does; None: ``keras_scnn.training.run.train``.

    Raises:
        ImportError: the extra is not installed.
        ValueError: the run folder of several hosts is not an absolute path.
        ValueError, FileNotFoundError, RuntimeError: as training; these are not retried.
        OSError: more ranks were lost than ``restarts``, or the cluster has no free resources.
    """
    if config.hosts > 1 and not os.path.isabs(config.run):
        raise ValueError(
            f"run is '{config.run}'; with hosts {config.hosts} it must be an absolute path that "
            "all of them can access"
        )
    require_ray()
    with connected(show_output=True):
        for attempt in range(restarts + 1):
            lost = _train_once(config, dict(resources or {"num_cpus": 1}), work or _train)
            if lost is None:
                return
            print(f"attempt {attempt + 1}: {lost}; all ranks are started again", file=sys.stderr)
    raise OSError(f"{config.run}: {restarts + 1} groups of {config.hosts} ranks were lost")


def _train(config: TrainConfig) -> None:
    from keras_scnn.training.run import train

    train(config)


class _Rank:
    """One rank, in a process of its own that Ray starts."""

    def address(self) -> str:
        """HOST:PORT of a free port of this host."""
        import ray

        with socket.socket() as one:
            one.bind(("", 0))
            return f"{url_host(ray.util.get_node_ip_address())}:{one.getsockname()[1]}"

    def train(self, config: TrainConfig, work: Callable[[TrainConfig], Any]) -> None:
        """Do one rank's work; its result stays here."""
        work(config)


def _train_once(config: TrainConfig, resources: dict, work: Callable) -> str | None:
    """Train as one group; return what was lost, None for nothing."""
    import ray

    own = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    options = {"runtime_env": {"env_vars": own}, "scheduling_strategy": "SPREAD", **resources}
    made = ray.remote(_Rank).options(**options)
    ranks: list[Any] = [made.remote() for _ in range(config.hosts)]
    try:
        first, *others = _places(ranks, resources)
        place = first if others else ""
        tasks = [
            rank.train.remote(dataclasses.replace(config, rank=i, coordinator=place), work)
            for i, rank in enumerate(ranks)
        ]
        return _outcome(tasks)
    except ray.exceptions.RayActorError as error:
        return _line(error)
    finally:
        for rank in ranks:
            ray.kill(rank)


def _places(ranks: list, resources: dict) -> list[str]:
    """The addresses of all ranks, once Ray has started them.

    Raises:
        OSError: the cluster has no free resources for one of them.
    """
    import ray

    try:
        return ray.get([rank.address.remote() for rank in ranks], timeout=START)
    except ray.exceptions.GetTimeoutError:
        raise OSError(
            f"Ray did not start all of {len(ranks)} ranks within {START:.0f} s; each needs a host "
            f"with {resources} free"
        ) from None


def _outcome(tasks: list) -> str | None:
    """Wait for all; return what was lost, or raise a rank's own error, which takes precedence."""
    import ray

    lost, waiting = None, list(tasks)
    while waiting:
        done, waiting = ray.wait(waiting, timeout=None if lost is None else ENDING)
        if not done:
            break
        try:
            ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, TimeoutError):
                raise cause from None
            lost = _line(cause)
        except ray.exceptions.RayError as error:
            lost = lost or _line(error)
    return lost


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


@command
def main(arguments: list[str] | None = None) -> None:
    """The command; ``arguments`` as on the command line."""
    parser = CommandParser("train", __doc__)
    parser.prog = "python -m keras_scnn.distributed.ray"
    parser.add_argument("--cpus", type=float, default=1.0, help="of each host, for its rank (1)")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each host, for its rank (0)")
    parser.add_argument("--restarts", type=int, default=3, help="after the loss of a rank (3)")
    add_options(parser, TrainConfig)
    options = parser.parse_args(arguments)
    parser.check(options, check_at_least, "cpus", "gpus", "restarts")
    if {"rank", "coordinator"} & set(vars(options)):
        raise ValueError("rank and coordinator are set by Ray; leave them out")
    options.coordinator = "ray:1"  # a placeholder until rank 0 has a host
    resources = {"num_cpus": options.cpus, "num_gpus": options.gpus}
    train_on_ray(from_options(TrainConfig, options), resources, options.restarts)


if __name__ == "__main__":
    sys.exit(main())
