"""Shards on a Ray cluster (extra 'ray'): one actor per core, each set up as a local worker.

Ray starts actors and reports those that died; complete shards are known from their files, as
without Ray. A shard whose actor or node died is repeated by another actor, under the same name.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2

from keras_scnn.folders.job import FolderJob
from keras_scnn.models.presets import FOLDER, preset_folder
from keras_scnn.storage.downloads import split_digest
from keras_scnn.storage.remote import is_url
from keras_scnn.storage.shards import WORKER_ENVIRONMENT

TRIES = 5  # of a shard whose actors die: its photos may be the cause
STARTS = 20  # actors that may die, one after the other, before any works
CONNECT = 10.0  # seconds for a cluster to answer
WAIT = 300.0  # seconds to wait for a free core
GOES_ON = "the same command continues after the last complete part"

Shard = tuple[int, list[str]]


def require_ray() -> None:
    """Check that Ray is installed, and that a cluster answers at RAY_ADDRESS, if that is set.

    Ray itself retries for minutes.

    Raises:
        ImportError: Ray is missing; says what to install.
        OSError: no cluster answers there.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("this needs Ray, which is not installed: pip install '.[ray]'") from error
    address = os.environ.get("RAY_ADDRESS", "")
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal() and not ray.is_initialized():
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
        except (OSError, OverflowError) as error:
            raise OSError(f"RAY_ADDRESS is {address}: no Ray cluster answers ({error})") from error


def run_on_ray(
    job: FolderJob, shards: dict[int, list[str]], workers: int | None
) -> Iterator[tuple[int, Any]]:
    """Make shards in actors of a Ray cluster: of RAY_ADDRESS, a running one, or a new local one.

    Args:
        job: makes them; pickled.
        shards: names by number.
        workers: actors; None for one per core of the cluster.

    Yields:
        each shard's number and the result of ``job.make``, in order of completion.

    Raises:
        RuntimeError: actors die repeatedly on one shard, or none starts.
        ValueError: a host has another version of the package or preset, or lacks the folders.
    """
    import ray

    if not shards:
        return
    with connected():
        cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
        count = min(workers or cores, len(shards))
        yield from _Pool(ray.put(_anywhere(job)), deque(shards.items()), count).run()


def _anywhere(job: FolderJob) -> FolderJob:
    """The job with absolute paths: actors have another working directory.

    A preset of the package may have another path on another host, and each host fetches that of a
    URL into its own cache.
    """
    settings, home = job.settings, preset_folder(job.settings.preset)
    if home.parent != FOLDER and not is_url(split_digest(settings.preset)[0]):
        settings = replace(settings, preset=str(home.absolute()))
    folder, out = (p.absolute() if isinstance(p, Path) else p for p in (job.folder, job.out))
    return replace(job, folder=folder, out=out, settings=settings)


@contextlib.contextmanager
def connected(show_output: bool = False) -> Iterator[None]:
    """A connection to a cluster; it ends with the block unless it existed before.

    Args:
        show_output: print what the actors print.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handler = signal.getsignal(signal.SIGTERM)
    ray.init(log_to_driver=show_output, logging_level=logging.ERROR, include_dashboard=False)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has replaced it
    try:
        yield
    finally:
        ray.shutdown()


class _Worker:
    """An actor: a process on one core."""

    def start(self, job: FolderJob) -> None:
        os.environ.update(WORKER_ENVIRONMENT)
        cv2.setNumThreads(1)
        job.check_host()
        self._job = job

    def make(self, number: int, names: list[str]) -> Any:
        return self._job.make(number, names)


@dataclass(eq=False)
class _Pool:
    """Actors; ``busy`` has each one with its shard, or None while it starts."""

    job: Any
    waiting: deque[Shard]
    count: int
    busy: dict[Any, tuple[Any, Shard | None]] = field(default_factory=dict)
    deaths: Counter = field(default_factory=Counter)

    def run(self) -> Iterator[tuple[int, Any]]:
        """Yield the number and result of each shard as it is done; lost actors are replaced."""
        import ray

        for _ in range(self.count):
            self._hire()
        try:
            while self.busy:
                done, _ = ray.wait(list(self.busy), timeout=WAIT)
                if not done and all(shard is None for _, shard in self.busy.values()):
                    raise RuntimeError(f"no core of the Ray cluster is free; {GOES_ON}")
                for ref in done:
                    yield from self._settle(ref, *self.busy.pop(ref))
        finally:
            for actor, _ in self.busy.values():
                ray.kill(actor)

    def _settle(self, ref: Any, actor: Any, shard: Shard | None) -> Iterator[tuple[int, Any]]:
        """Yield a result and give the actor its next shard; requeue the shard of a dead actor."""
        import ray

        try:
            result = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:  # the actor or its node died
            self._count_death(shard, error)
            if shard is not None:
                self.waiting.appendleft(shard)
            if self.waiting:
                self._hire()
            return
        self.deaths.pop(None, None)
        if self.waiting:
            following = self.waiting.popleft()
            self.busy[actor.make.remote(*following)] = actor, following
        if shard is not None:
            yield shard[0], result

    def _hire(self) -> None:
        import ray

        actor: Any = ray.remote(num_cpus=1, max_restarts=0)(_Worker).remote()
        self.busy[actor.start.remote(self.job)] = actor, None

    def _count_death(self, shard: Shard | None, error: Exception) -> None:
        number = None if shard is None else shard[0]
        self.deaths[number] += 1
        most = TRIES if shard else max(STARTS, 2 * self.count)
        if self.deaths[number] >= most:
            over = "before one could work" if shard is None else f"on part {number}"
            why = str(error).strip().splitlines()[0]
            raise RuntimeError(f"{most} workers died {over} ({why}); {GOES_ON}") from error
