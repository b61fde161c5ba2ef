"""Files and folders that are written atomically; leftovers of killed processes are deleted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows; ``claims`` and ``bounded`` take this name from here
    fcntl = None  # type: ignore[assignment]

PARTIAL, LOCK = ".partial-*", "lock"
# Names contain machine, process and thread, so that files of running processes are kept, and two
# threads may write one file.
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
_HERE, _TEMPORARY = f".partial-{_HOST}-", f"keras_scnn-partial-{_HOST}-"
_cleaned: set[str] = set()  # folders that this process has removed leftovers from


def partial_name(rest: str) -> str:
    """The temporary name of a file that this thread is writing."""
    return f"{_HERE}{os.getpid()}-{threading.get_ident()}-{rest}"


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike, durable: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to ``path`` if the block ends without an error.

    Args:
        path: of the file.
        durable: flush it to the disk, so that it survives a power loss.

    Yields:
        a path with the same suffix, to be written by the block.

    Raises:
        OSError: it cannot be written, for example because the disk is full; names ``path``. That
            it is a folder is noticed before the block runs.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if (folder := os.path.abspath(path.parent)) not in _cleaned:
        _cleaned.add(folder)
        remove_leftovers(path.parent)
    # A long name has no room for a prefix, so its digest makes the temporary name unique.
    digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    suffix = "".join(path.suffixes[-2:])  # Keras requires ".weights.h5"
    suffix = suffix if len(suffix) <= 24 else path.suffix[-24:]
    temporary = path.with_name(partial_name(f"{digest}{suffix}"))
    with _named(path, temporary):
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
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Make OSErrors name ``path``; those of a full disk name no file, others the temporary one.

    NumPy's also lack an errno ("129600 requested and 85888 written").
    """
    try:
        yield
    except OSError as error:
        is_nameless = error.filename is None and type(error) is OSError
        # The paths of ``tempfile`` are absolute from Python 3.12 on.
        beginnings = str(temporary), os.path.abspath(temporary)
        is_temporary = str(error.filename).startswith(beginnings)
        if not is_nameless and not is_temporary:
            raise
        if error.errno is None:
            raise OSError(f"{path}: could not be written ({error})") from error
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


def _write_through(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staged_folder(home: str | os.PathLike | None = None) -> Iterator[Path]:
    """A new folder inside ``home`` that is deleted when the block ends, with or without an error.

    Leftovers of killed processes in ``home`` are deleted first; folders of running ones are kept.

    Args:
        home: created if missing; None for the system's folder for temporary files.
    """
    beginning = _HERE if home else _TEMPORARY
    home = Path(home or tempfile.gettempdir())
    home.mkdir(parents=True, exist_ok=True)
    remove_leftovers(home, beginning)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_named(home, home / beginning))
        prefix = f"{beginning}{os.getpid()}-"
        aside = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, dir=home)))
        _lock(stack.enter_context((aside / "new").open("w")), aside / LOCK)
        (aside / "content").mkdir()
        yield aside / "content"


@contextlib.contextmanager
def staged_files(folder: str | os.PathLike) -> Iterator[Path]:
    """A new folder whose files move into ``folder`` if the block ends without an error.

    All files with these names are removed before the first is moved, so that files of an earlier
    run never lie beside new ones.
    """
    with staged_folder(folder) as aside:
        yield aside
        names = sorted(os.listdir(aside), key=lambda name: not name.endswith(".json"))
        for name in names:
            Path(folder, name).unlink(missing_ok=True)
        for name in names:  # JSON first: it may list the others
            os.replace(aside / name, Path(folder, name))


def remove_leftovers(folder: Path, beginning: str = _HERE) -> None:
    """Delete partial files and folders of this machine's processes that no longer run.

    Those of other users are kept.
    """
    for path in folder.glob(f"{beginning}*"):
        with contextlib.suppress(OSError):  # another user's, or already deleted
            if path.is_dir() and not path.is_symlink():
                if not _is_in_use(path, beginning):
                    shutil.rmtree(path)
            elif not _is_running(path.name.removeprefix(beginning)):
                path.unlink()


def _is_in_use(folder: Path, beginning: str) -> bool:
    """Whether the process that created a staged folder still holds its lock.

    Process IDs are reused, soon in containers; a lock ends with its process.
    """
    if fcntl is None or not (folder / LOCK).is_file():
        return _is_running(folder.name.removeprefix(beginning))
    with (folder / LOCK).open("r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _lock(file: IO[str], name: Path) -> None:
    """Lock a new file, then rename it, so that no process finds it unlocked."""
    if fcntl is not None:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
            os.replace(file.name, name)


def _is_running(name: str) -> bool:
    """Whether the process runs whose ID a partial file's name, without prefix, begins with."""
    number = name.partition("-")[0]
    return not number.isdecimal() or is_running(int(number))


def is_running(process: int) -> bool:
    """Whether a process of this machine runs, given its ID; True if that is unknown."""
    if os.name != "posix":
        return True  # on Windows, signal 0 would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's process
    return True
