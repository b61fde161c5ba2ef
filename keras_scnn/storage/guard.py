"""The guard shared by all readers: any error while a file is read names the file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

MEBIBYTE = 1 << 20
FREE_BYTES = 64 * MEBIBYTE  # size that a file may always unpack to, however small it is
TIMES_THE_FILE = 4


class FileError(ValueError):
    """A file is invalid; the message begins with its name."""


@contextlib.contextmanager
def reading(path: str | os.PathLike, what: str) -> Iterator[None]:
    """Turn any exception of the block into one that names the file.

    Parsers raise almost any type for a damaged file, and the types change between versions, so
    readers do not list them. An error that already names a file (from an inner guard or the file
    system) is passed on unchanged, so that the right one of several files is named.

    Args:
        path: the file that the block reads.
        what: what the file should be, with its article: "a readable .npz file".

    Raises:
        FileError: a ValueError, for any other exception of the block.
        OSError: from the file system, which names the file.
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
    """Whether the file's content causes the error, so that it would occur on any machine.

    A missing package, too little memory, missing rights or a failing disk are the machine's: the
    file may be readable later. So is every ``OSError``; as the cause of another error, only one
    with an errno, since parsers raise OSErrors without errno for damaged files.
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
    """The error's text in one line, preceded by its type unless a ValueError or OSError."""
    text = " ".join(str(error).split())
    if text and isinstance(error, ValueError | OSError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def allowed_bytes(file_bytes: int) -> int:
    """Bytes that the arrays of a file may take in memory: 64 MiB + 4 times the file's size.

    Real models and labels contain noise, which hardly compresses; files that unpack to more are
    attacks.
    """
    return FREE_BYTES + TIMES_THE_FILE * file_bytes


def check_size(name: str, declared: int, allowed: int) -> None:
    """Refuse a too large array before memory is allocated for it.

    Args:
        name: of the array, for the message.
        declared: its size, bytes.
        allowed: largest size, bytes; see ``allowed_bytes``.

    Raises:
        ValueError: it is larger than allowed.
    """
    if declared > allowed:
        raise ValueError(
            f"{name} declares {declared:,} bytes; a file of this size may unpack to {allowed:,}"
        )


def existing_file(path: str | os.PathLike, expected: str) -> Path:
    """The path of a file, which must exist; the error says what file was expected.

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
