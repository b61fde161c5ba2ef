"""A few files of a folder behind a URL, in the user's cache: fetched once, checked, whole or not.

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

NOTE = "fetched.json"  # which URL the files are of, and their digest
DIGEST = re.compile(r"[0-9a-f]{64}")
FRAGMENT = "sha256="


def user_cache() -> Path:
    """The user's folder for what can be made or fetched anew."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "keras_scnn"


def split_digest(path: str, digest: str | None = None) -> tuple[str, str]:
    """A path or URL without the fragment ``#sha256=...`` of a URL, and the digest, '' for none.

    Raises:
        ValueError: another fragment, no SHA-256 digest, or two different ones.
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
        raise ValueError(f"{path}: the digest in the URL is another than the one given")
    return (bare.rstrip("/") if URL.match(path) else bare), "".join(digests)


def files_digest(folder: Path, names: Sequence[str]) -> str:
    """One SHA-256 of the files that are there: that of what ``sha256sum NAME NAME ...`` prints."""
    paths = [folder / name for name in names if (folder / name).is_file()]
    lines = [f"{file_digest(p)}  {p.name}\n" for p in paths]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def checked_digest(folder: Path, names: Sequence[str], wanted: str, where: object = None) -> str:
    """The ``files_digest``, or a ValueError where another is wanted ('' wants none).

    Error messages name ``where``, the files' origin, instead of the folder.
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
    """The folder of the cache with some files of a URL's folder, fetched where it is not there.

    What is there is used without asking the store, unless another digest is wanted.

    Args:
        url: of a folder.
        names: of the files that must be there. optional: of those that may.
        check: raises a ValueError where the files, in a folder, are not what they should be.
        digest: of ``files_digest``; '' takes what comes.

    Raises:
        ImportError, OSError: as ``RemotePath``; a file is missing, or the store out of reach.
        ValueError: the digest is another, or ``check`` refuses the files; nothing is kept.
    """
    home = user_cache() / "presets"
    folder = home / hashlib.sha256(url.url.encode()).hexdigest()[:16]
    home.mkdir(parents=True, exist_ok=True)
    with in_turn(home):  # processes of this machine may begin together
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
    """The digest of the files that were fetched; '' where they are not all there."""
    try:
        digest = str(json.loads((folder / NOTE).read_text())["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return digest if all((folder / name).is_file() for name in names) else ""
