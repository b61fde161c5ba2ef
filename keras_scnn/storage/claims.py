"""Exclusive use of a folder of results by one run at a time."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from keras_scnn.storage.atomic import fcntl, is_running
from keras_scnn.storage.remote import Place, RemotePath

NOTE = "run.json"  # in a store: names the run that writes there
# Seconds between updates of a note; without a change after which its run is dead; until the later
# of two simultaneous notes has replaced the other.
BEAT, PATIENCE, SETTLE = 5.0, 16.0, 1.0

Check = Callable[[], None]


@contextlib.contextmanager
def sole_run(folder: Place) -> Iterator[Check]:
    """Be the only run that writes to a folder, until the block or the process ends.

    A local folder is locked; the lock ends with the process. A store has no locks: the run updates
    a note in it every few seconds, and a note without updates is of a run that was killed.

    Yields:
        a function that raises an OSError if another run has taken over.

    Raises:
        OSError: another run writes to it.
    """
    if isinstance(folder, RemotePath):
        with _noted(folder / NOTE) as check:
            yield check
        return
    with _locked(folder):
        yield lambda: None


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise OSError(_busy(folder, "another run")) from error
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """A lock for each folder: one process of this machine at a time is in the block."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _noted(note: RemotePath) -> Iterator[Check]:
    me = {"id": uuid.uuid4().hex, "host": platform.node(), "pid": os.getpid(), "of": _pids()}
    _wait_for_end(note)
    _write(note, me, 0)
    time.sleep(SETTLE)  # if two runs begin at once, the later note remains
    ended = threading.Event()
    state = _Beat(note, me, ended)
    state.check()
    state.start()
    try:
        yield state.check_seen
    finally:
        ended.set()
        state.join()
        with contextlib.suppress(OSError):
            if (_read(note) or {}).get("id") == me["id"]:
                note.unlink()


class _Beat(threading.Thread):
    """Changes the note, and notices if another run has written its own."""

    def __init__(self, note: RemotePath, me: dict, ended: threading.Event):
        super().__init__(daemon=True)
        self._note, self._me, self._ended = note, me, ended
        self._other: dict | None = None

    def run(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT) and self._other is None:
            with contextlib.suppress(OSError):  # the run itself will encounter it
                self._look()
                beat += 1
                if self._other is None and not self._ended.is_set():
                    _write(self._note, self._me, beat)

    def check(self) -> None:
        self._look()
        self.check_seen()

    def check_seen(self) -> None:
        if self._other is not None:
            raise OSError(_busy(self._note, _run(self._other)))

    def _look(self) -> None:
        there = _read(self._note)
        if there is not None and there["id"] != self._me["id"]:
            self._other = there


def _wait_for_end(note: RemotePath) -> None:
    """Return once the note is gone or its run is dead; raise an OSError if the note changes."""
    there = _read(note)
    if there is None or _is_dead(there):
        return
    print(f"{note}: waiting {PATIENCE:g} s to see whether {_run(there)} still runs", flush=True)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(min(1.0, PATIENCE / 4))
        now = _read(note)
        if now is None:
            return
        if now != there:
            raise OSError(_busy(note, _run(now)))


def _pids() -> str:
    """The scope of process IDs: this boot and PID namespace on Linux, '' elsewhere.

    Containers with the same host name have their own process IDs.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _is_dead(there: dict) -> bool:
    """Whether a note is of a process in the scope of this one that no longer runs."""
    here = there["host"] == platform.node() and there.get("of") == _pids()
    return here and not is_running(int(there["pid"]))


def _read(note: RemotePath) -> dict | None:
    """The note; None if it is missing or damaged."""
    try:
        there = json.loads(note.read_bytes())
        return there if {"id", "host", "pid"} <= there.keys() else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _write(note: RemotePath, me: dict, beat: int) -> None:
    note.write_bytes(json.dumps({**me, "beat": beat}).encode())


def _run(there: dict) -> str:
    return f"the run of process {there['pid']} on {there['host']}"


def _busy(folder: Place, who: str) -> str:
    return f"{folder}: {who} writes there; wait until it ends, or choose another folder"
