"""Files of a folder at a URL, fetched once into the user's cache, verified and stored atomically.

The cache is ``$XDG_CACHE_HOME/keras_scnn`` (``~/.cache/keras_scnn``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.claims import in_turn
from keras_scnn.storage.remote import URL, RemotePath
from keras_scnn.storage.shards import file_digest

NOTE = "fetched.json"  # the URL that the files are from, and their digest
DIGEST = re.compile(r"[0-9a-f]{64}")
FRAGMENT = "sha256="


def user_cache() -> Path:
    """The user's folder for files that can be made or fetched again."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "keras_scnn"


def split_digest(path: str, digest: str | None = None) -> tuple[str, str]:
    """A path, or a URL without its fragment ``#sha256=...``; and the digest, '' for none.

    Raises:
        ValueError: another fragment, an invalid SHA-256 digest, or two different ones.
    """
    bare, _, fragment = path.partition("#") if URL.match(path) else (path, "", "")
    digests = {digest.lower()} if digest else set()
    if bare != path:
        if not fragment.startswith(FRAGMENT):
            raise ValueError(f"{path}: the part from # on must be #{FRAGMENT} and 64 digits")
        digests.add(fragment.removeprefix(FRAGMENT).lower())
    if not all(map(DIGEST.fullmatch, digests)):
        raise ValueError(f"{path}: a SHA-256 digest has 64 hexadecimal digits")
    if len(digests) > 1:
        raise ValueError(f"{path}: the digest in the URL differs from the one given")
    return (bare.rstrip("/") if URL.match(path) else bare), "".join(digests)


def files_digest(folder: Path, names: Sequence[str]) -> str:
    """One SHA-256 for the existing files: of the output of ``sha256sum NAME NAME ...``."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    lines = [f"{file_digest(p)}  {p.name}\n" for p in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checked_digest(folder: Path, names: Sequence[str], wanted: str, where: object = None) -> str:
    """The ``files_digest``; raises a ValueError if it differs from ``wanted`` ('' accepts any).

    The error names ``where``, the files' origin, instead of the folder.
    """
    found = files_digest(folder, names)
    if wanted and found != wanted:
        where = where or folder
        raise ValueError(f"{where}: the files have the digest {found}; expected {wanted}")
    return found


def fetch_folder(
    url: RemotePath,
    names: Sequence[str],
    optional: Sequence[str],
    check: Callable[[Path], object],
    digest: str = "",
) -> Path:
    """The cache's copy of a folder at a URL, fetched if it is not there.

    An existing copy is used without contacting the store, unless ``digest`` is another one's.

    Args:
        url: of the folder.
        names: of the required files. optional: of further files, fetched if they exist.
        check: called with a folder; raises a ValueError if its files are not of the right kind.
        digest: expected ``files_digest``; '' accepts any.

    Raises:
        ImportError, OSError: as ``RemotePath``; a file is missing, or the store unreachable.
        ValueError: the digest differs, or ``check`` refuses the files; nothing new is kept.
    """
    home = user_cache() / "presets"
    folder = home / hashlib.sha256(url.url.encode()).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    with in_turn(home):  # processes of this machine may fetch at once
        known = _known_digest(folder, names)
        if not known or digest not in ("", known):
            _replace(folder, url, digest, (names, optional), check)
    return folder


def _replace(
    folder: Path,
    url: RemotePath,
    wanted: str,
    names: tuple[Sequence[str], Sequence[str]],
    check: Callable[[Path], object],
) -> None:
    with staged_folder(folder.parent) as stage:
        _fetch(url, stage, *names)
        found = checked_digest(stage, (*names[0], *names[1]), wanted, url)
        try:
            check(stage)
        except ValueError as error:
            what = str(error).replace(str(stage), url.url)
            raise ValueError(what if what.startswith(url.url) else f"{url}: {what}") from error
        (stage / NOTE).write_text(json.dumps({"url": url.url, "sha256": found}) + "\n")
        if folder.exists():
            shutil.rmtree(folder)
        stage.rename(folder)


def _fetch(store: RemotePath, stage: Path, names: Sequence[str], optional: Sequence[str]) -> None:
    for name in (*names, *optional):
        try:
            content = (store / name).read_bytes()
        except FileNotFoundError:
            if name in optional:
                continue
            raise
        (stage / name).write_bytes(content)


def _known_digest(folder: Path, names: Sequence[str]) -> str:
    """The digest of the fetched files; '' if one of ``names`` is missing."""
    try:
        digest = str(json.loads((folder / NOTE).read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return digest if all((folder / name).is_file() for name in names) else ""
