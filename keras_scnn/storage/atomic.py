"""Files and folders written whole or not at all; what a killed process left half-written goes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

# The machine and the process stand in the name, so that what belongs to a live one is kept.
_HOST = f".partial-{zlib.crc32(platform.node().encode()):08x}-"
_cleaned: set[str] = set()  # folders, once a process


def partial_name(rest: str) -> str:
    """The name of a file or folder that this process has not finished."""
    return f"{_HOST}{os.getpid()}-{rest}"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its name when the block ends without an error.

    Args:
        path: of the file.
        durable: write it through to the disk, so that it outlasts a loss of power.

    Yields:
        a path with the same suffix, to be written by the block.
    """
    path = Path(path)
    _clean_once(path.parent)
    # A long name has no room for more, so it is the name's digest that makes it one of its own.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    suffix = "".join(path.suffixes[-2:])  # Keras wants ".weights.h5" whole
    suffix = suffix if len(suffix) <= 24 else path.suffix[-24:]
    temporary = path.with_name(partial_name(f"{digest}{suffix}"))
    try:
        yield temporary
        if durable:
            _write_through(temporary)
        os.replace(temporary, path)
        if durable and os.name == "posix":
            _write_through(path.parent)  # the new name
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(parent: str | os.PathLike) -> Iterator[Path]:
    """A new folder in ``parent``, on the file system of what is moved out of it; then removed."""
    _clean_once(Path(parent))
    with tempfile.TemporaryDirectory(
        prefix=partial_name(""), dir=parent, ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def _write_through(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clean_once(folder: Path) -> None:
    if (key := os.path.abspath(folder)) not in _cleaned:
        _cleaned.add(key)
        remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove the unfinished files and folders of this machine's processes that have ended."""
    for path in folder.glob(f"{_HOST}*"):
        number = path.name.removeprefix(_HOST).partition("-")[0]
        if not number.isdigit() or _is_running(int(number)):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name != "posix":
        return True  # there, signal 0 would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True
