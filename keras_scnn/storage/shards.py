"""Long jobs in shards: on all cores, resumable, with the same result for any number of workers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol, TypeVar

from keras_scnn.storage.atomic import PARTIAL
from keras_scnn.storage.claims import NOTE, Check, sole_run
from keras_scnn.storage.guard import is_of_content, reading
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.remote import Place, RemotePath, published
from keras_scnn.storage.text import json_text, read_json

K = TypeVar("K")
PLAN = "plan.json"
AGAIN = "/again"  # suffix of the key of a part that must be made again
# A worker is a single-threaded process.
WORKER_ENVIRONMENT = {
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_job: ShardJob  # in a worker process


class ShardJob(Protocol):
    """Everything that a worker needs to make any shard; it can be pickled."""

    def make(self, number: int, names: list[str]) -> Any:
        """Write a shard atomically, and return a summary of it."""


class Failures(dict[K, str]):
    """Why photos failed, by their names or numbers.

    Attributes:
        passing: photos that may succeed later with unchanged files, since the machine lacked
            something: see ``is_of_content``. Missing files do not count: once added, they have
            changed.
    """

    def __init__(self) -> None:
        self.passing: set[K] = set()

    def note(self, photo: K, error: BaseException, reason: str = "") -> None:
        """Add a failure; the reason is by default the error's text."""
        self[photo] = reason or str(error)
        is_missing = isinstance(error, FileNotFoundError) and not is_of_package(error)
        if not is_missing and not is_of_content(error):
            self.passing.add(photo)

    def key(self, key: str) -> str:
        """The key of a part; with failures that may pass, one that makes the next run repeat it."""
        return f"{key}{AGAIN}" if self.passing else key


def is_of_package(error: FileNotFoundError) -> bool:
    """Whether the missing file belongs to a package that is not installed completely."""
    return isinstance(error.__cause__, ImportError)


def digest(value: Any) -> str:
    """SHA-256, as 64 hexadecimal digits, of any value that JSON can represent."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    value = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def fingerprint(path: Path) -> list[int]:
    """Size (bytes) and modification time (ns) of a file; [] if there is none."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


@contextlib.contextmanager
def claimed_folder(folder: Place, plan: dict, what: str) -> Iterator[Check]:
    """During the block, be the only run that writes to a folder, following one plan.

    The plan is written into the folder; partial files of a killed run are deleted.

    Args:
        folder: created if missing.
        plan: everything that determines the results, as JSON values.
        what: what the folder contains, for messages.

    Yields:
        the function from ``claims.sole_run``, which raises if another run has taken over.

    Raises:
        ValueError: the folder has another plan, a damaged one, or other files and no plan.
        OSError: it cannot be written, or another run writes to it.
    """
    check_out(folder)
    plan, path = json.loads(json.dumps(plan)), folder / PLAN
    _check_claim(folder, plan, what)
    if isinstance(folder, Path):
        folder.mkdir(parents=True, exist_ok=True)
    with sole_run(folder) as check:
        _check_claim(folder, plan, what)  # again: another run may have used it until now
        _remove_partial(folder)
        with published(path) as temporary:
            temporary.write_text(json_text(plan))
        yield check
        _remove_partial(folder)  # of a killed worker, whose part another worker has made


def _remove_partial(folder: Place) -> None:
    """Delete partial files of a folder that only this run uses."""
    if isinstance(folder, Path):
        for leftover in list(folder.rglob(PARTIAL)):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)


def _check_claim(folder: Place, plan: dict, what: str) -> None:
    if (folder / PLAN).is_file():
        _check_same(folder, plan, what)
    elif not is_unused(folder):
        raise ValueError(f"{folder} is not empty, and holds no {what}; choose another folder")


def is_unused(folder: Place) -> bool:
    """Whether a folder is missing, empty, or contains only leftovers of a killed run."""
    if isinstance(folder, RemotePath):
        return folder.is_empty(but=(NOTE,))
    return not folder.is_dir() or all(path.match(PARTIAL) for path in folder.iterdir())


def _check_same(folder: Place, plan: dict, what: str) -> None:
    path = folder / PLAN
    what_it_is = f"the plan of {what}; delete {folder} then"
    with reading(str(path), what_it_is):
        there = dict(read_json(path, what_it_is))
    differing = [key for key in {**there, **plan} if there.get(key) != plan.get(key)]
    if differing:
        listed = "; ".join(_difference(key, there.get(key), plan.get(key)) for key in differing)
        raise ValueError(
            f"{folder} holds {what} of other photos or settings ({listed}); choose another "
            "folder, or delete it"
        )


def _difference(key: str, there: Any, now: Any) -> str:
    if isinstance(there, dict) and isinstance(now, dict):
        keys = [each for each in {**there, **now} if there.get(each) != now.get(each)]
        return "; ".join(
            _difference(f"{key}.{each}", there.get(each), now.get(each)) for each in keys
        )
    short = all(len(str(value)) <= 60 for value in (there, now))
    return f"{key}: {there!r} there, {now!r} now" if short else f"{key} differs"


def run_shards(
    job: ShardJob, shards: dict[int, list[str]], workers: int | None
) -> Iterator[tuple[int, Any]]:
    """Make shards, in several processes if there is more than one worker.

    A script calls this under ``if __name__ == "__main__"``. The processes end with the one that
    started them, even if it is killed.

    Args:
        job: makes them.
        shards: names by number.
        workers: processes; None for one per core.

    Yields:
        each shard's number and the result of ``job.make``, in order of completion.

    Raises:
        RuntimeError: a process died.
    """
    workers = min(workers or os.cpu_count() or 1, len(shards))
    if workers <= 1:
        yield from ((number, job.make(number, names)) for number, names in shards.items())
        return
    spawn, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, spawn, _start_worker, (job,)) as pool:
        running = {pool.submit(_make, number, part): number for number, part in shards.items()}
        try:
            for done in as_completed(running):
                yield running[done], done.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a worker process died (was there too little memory?); the same command continues "
                "after the last complete shard"
            ) from error
        except (KeyboardInterrupt, SystemExit):
            for worker in set(multiprocessing.active_children()) - others:  # not the caller's own
                worker.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(job: ShardJob) -> None:
    import cv2  # imported late, so that commands start faster

    global _job
    _job = job
    cv2.setNumThreads(1)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """Exit when the parent is killed: a worker would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(number: int, names: Sequence[str]) -> Any:
    return _job.make(number, list(names))


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """``WORKER_ENVIRONMENT`` for the processes that the block starts."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ.update(WORKER_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
