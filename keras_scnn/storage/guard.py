"""The one guard of all readers: any error while a file is read names the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 1 << 20
FREE_BYTES = 64 * MEBIBYTE  # what any file may unpack to, however small it is
TIMES_THE_FILE = 4


class FileError(ValueError):
    """A file is at fault; the message begins with its name."""


@contextlib.contextmanager
def reading(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Turn any exception of the block into one that names the file.

    Parsers raise nearly any type for a damaged file, and what they raise changes between versions;
    so nobody lists types. What names a file already (an inner guard's error, or one of the file
    system) goes through as it is, so that the right one of several files is blamed.

    Args:
        path: the file that the block reads.
        what: it should be, with its article: "a readable .npz file".

    Raises:
        FileError: a ValueError, for whatever the block raises.
        OSError: of the file system, which names the file.
    """
    try:
        yield
    except Exception as error:
        is_of_file_system = isinstance(error, FileNotFoundError) or (
            isinstance(error, OSError) and error.filename is not None
        )
        is_plain = isinstance(error, ValueError | OSError)
        names_it = is_plain and str(error).startswith(f"{os.fspath(path)}")
        if isinstance(error, FileError) or is_of_file_system or names_it:
            raise
        raise FileError(f"{os.fspath(path)}: not {what}, or damaged: {_reason(error)}") from error


def is_of_content(error: BaseException) -> bool:
    """Whether the file's content causes the error, on every machine and at any time.

    A package, memory or rights that are missing, and a disk that fails, are of the machine: the
    file may be read another time. So is every ``OSError``; as the cause of another error only one
    with a number, since parsers raise those without for damaged files.
    """
    if isinstance(error, OSError):
        return False
    cause: BaseException | None = error
    while cause is not None:
        has_number = isinstance(cause, OSError) and cause.errno is not None
        if has_number or isinstance(cause, ImportError | MemoryError):
            return False
        cause = cause.__cause__
    return True


def _reason(error: Exception) -> str:
    """Its text in one line, after its type where the text alone is not enough."""
    text = " ".join(str(error).split())
    if text and isinstance(error, ValueError | OSError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def allowed_bytes(file_bytes: int) -> int:
    """How much memory the arrays of a file of so many bytes may take: 64 MiB + 4 times the file.

    Real models and labels hold noise, which hardly shrinks; what unpacks to more is an attack.
    """
    return FREE_BYTES + TIMES_THE_FILE * file_bytes


def check_size(name: str, declared: int, allowed: int) -> None:
    """Refuse an array before memory is taken for it.

    Args:
        name: of the array, for the message.
        declared: its size, bytes.
        allowed: see ``allowed_bytes``.

    Raises:
        ValueError: it is larger than allowed.
    """
    if declared > allowed:
        raise ValueError(
            f"{name} declares {declared:,} bytes; a file of this size may unpack to {allowed:,}"
        )


def existing_file(path: str | os.PathLike, expected: str) -> Path:
    """The path of a file that must be there; the error names what was expected instead.

    >>> existing_file("nowhere.pts", "a .pts file")
    Traceback (most recent call last):
    FileNotFoundError: nowhere.pts: no such file; expected a .pts file

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: it is a folder.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder; expected {expected}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {expected}")
    return path
