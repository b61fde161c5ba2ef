"""Files and folders at URLs, through fsspec.

``s3://`` and ``http://`` need the extra 'remote', ``hf://`` the extra 'hub'; ``memory://`` neither.
Objects are read and written as a whole. fsspec is imported when a URL is used; local paths stay
``pathlib.Path``.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from keras_scnn.storage.atomic import atomic_path, partial_name, staged_folder

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # a single letter is a drive on Windows
WAS_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:[/\\]")  # a URL that ``Path`` has changed
READ_ONLY = ("http", "https")
# An object in these appears only once it is complete; in other stores it is renamed afterwards.
BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "az", "oci", "oss")
PUT_WHOLE = (*BUCKETS, "memory")
OF_EXTRA = dict.fromkeys(("s3", "s3a", "http", "https"), "'.[remote]'") | {"hf": "'.[hub]'"}
WAITS = (0.5, 2.0)  # seconds before a retry over HTTP; other stores' packages retry themselves
STAMPS = ("ETag", "etag", "md5", "LastModified", "Last-Modified", "mtime", "modified", "created")
THREADS = 16  # requests at once


class StoreError(OSError):
    """A store, or a folder of photos, is unreachable; no single file is the cause."""


@dataclass(frozen=True)
class RemotePath:
    """A file or a folder of a store, with the needed part of the interface of ``pathlib.Path``.

    Errors of all methods name the URL:

    - ImportError: the store's package is missing; says what to install.
    - ValueError: there is no such kind of store.
    - FileNotFoundError: no such file, folder or bucket.
    - PermissionError: the store denies access.
    - StoreError: anything else, such as a store that does not answer or is full.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        inside = urllib.parse.quote(name) if self.protocol in READ_ONLY else name
        return RemotePath(f"{self.url}/{inside}")

    @property
    def protocol(self) -> str:
        """The URL's scheme in lower case, such as 's3'."""
        return self.url.partition("://")[0].lower()

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.url.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The suffix of the name, with its dot."""
        return Path(self.name).suffix

    def read_bytes(self) -> bytes:
        """The whole content."""
        return self._ask(lambda fs, path: fs.cat_file(path))

    def write_bytes(self, content: bytes) -> None:
        """Write the file atomically: no reader sees a part of it."""
        write = _put if self.protocol in PUT_WHOLE else _put_aside
        self._ask(lambda fs, path: write(fs, path, content))

    def is_file(self) -> bool:
        """Whether there is such a file."""
        try:
            return self._ask(_info)["type"] == "file"
        except FileNotFoundError:
            return False

    def unlink(self) -> None:
        """Delete the file."""
        self._ask(lambda fs, path: fs.rm_file(path))

    def check(self) -> None:
        """Raise one of the errors above if the folder is unreachable or does not exist."""
        self._ask(_list)

    def check_out(self) -> None:
        """As ``check``, for a folder for results, which may be new in an existing bucket.

        Raises:
            ValueError: the store can only be read.
        """
        if self.protocol in READ_ONLY:
            raise ValueError(f"{self}: {self.protocol} can be read only; give another store")
        try:
            self.check()
        except FileNotFoundError:
            if self.protocol in BUCKETS:
                RemotePath("/".join(self.url.split("/")[:3])).check()

    def files(self) -> dict[str, list]:
        """All files of the folder and its sub-folders, sorted, each with a fingerprint.

        Returns:
            [size, stamp] by the path within the folder, '/' between its parts; the stamp is a
            checksum or time, '' if the store has none.
        """
        fs, root = self._opened()
        fs.invalidate_cache()
        # By default, a walk through a store with folders skips those that cannot be listed.
        walk = {} if self.protocol in PUT_WHOLE else {"on_error": "raise"}
        found = self._ask(lambda fs, path: fs.find(path, detail=True, **walk))
        if set(found) == {root}:
            raise NotADirectoryError(f"{self}: is a file; expected a folder")
        if self.protocol in READ_ONLY:
            links = [key for key in found if "?" not in key]
            with ThreadPoolExecutor(THREADS) as pool:  # a page of links gives only names
                infos = list(pool.map(lambda key: RemotePath(key)._ask(_info), links))
            found = dict(zip(links, infos, strict=True))
        inside = {key.removeprefix(root).lstrip("/"): _mark(info) for key, info in found.items()}
        if self.protocol in READ_ONLY:
            inside = {urllib.parse.unquote(name): mark for name, mark in inside.items()}
        return {name: inside[name] for name in sorted(inside) if name}

    def is_empty(self, but: tuple[str, ...] = ()) -> bool:
        """Whether the folder is missing, or directly contains nothing except names in ``but``."""
        root = self._opened()[1].rstrip("/")
        try:
            there = {str(path).rstrip("/") for path in self._ask(_list)}
        except FileNotFoundError:
            return True
        return there <= {root, *(f"{root}/{name}" for name in but)}

    def _opened(self) -> tuple[Any, str]:
        try:
            import fsspec
        except ImportError as error:
            extra = OF_EXTRA.get(self.protocol, "'.[remote]'")
            what = f"a URL needs fsspec, which is not installed: pip install {extra}"
            raise ImportError(f"{self}: {what}") from error
        try:
            return fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise ImportError(f"{self}: {error}: pip install {self._package()}") from error
        except ValueError as error:
            raise ValueError(f"{self}: {error}") from error
        except OSError as error:  # some kinds connect at once
            raise StoreError(f"{self}: the store fails ({_line(error)})") from error

    def _package(self) -> str:
        from fsspec.registry import known_implementations

        known = known_implementations.get(self.protocol, {}).get("class", "")
        package = known.partition(".")[0]
        if self.protocol in OF_EXTRA:
            return OF_EXTRA[self.protocol]
        return f"'fsspec[{self.protocol}]'" if package in ("", "fsspec") else package

    def _ask(self, call: Callable[[Any, str], Any]) -> Any:
        """The result of ``call(fs, path)`` with the store's fsspec object; errors as above."""
        fs, path = self._opened()
        for wait in (*(WAITS if self.protocol in READ_ONLY else ()), None):
            try:
                return call(fs, path)
            except ImportError as error:
                raise ImportError(f"{self}: {error}: pip install {self._package()}") from error
            except FileNotFoundError as error:
                raise FileNotFoundError(f"{self}: no such file, folder or bucket") from error
            except Exception as error:  # each store has types of its own
                if isinstance(error, PermissionError) or _status(error) in (401, 403):
                    why = f"the store denies access ({_line(error)}); check rights and credentials"
                    raise PermissionError(f"{self}: {why}") from error
                if wait is None:
                    raise StoreError(f"{self}: the store fails ({_line(error)})") from error
                time.sleep(wait)
        raise AssertionError("unreachable")


Place: TypeAlias = Path | RemotePath


def place(path: str | os.PathLike | RemotePath) -> Place:
    """A local path as ``Path``, a URL as ``RemotePath``; ``file://`` is a local path.

    Raises:
        ValueError: a chain of URLs, a URL that names no bucket or folder, or a file on another
            host.
    """
    if isinstance(path, RemotePath):
        return path
    text = os.fspath(path)
    match = URL.match(text) if isinstance(text, str) else None
    if match is None:
        return Path(path)
    if "::" in text:
        raise ValueError(f"{text}: a chain of URLs; give the URL of a plain folder")
    if match[1].lower() == "file":
        host, slash, path = text[match.end() :].partition("/")  # '#' and '?' are of the path
        if host not in ("", "localhost"):  # file://a/b is not a/b, and would become /b
            raise ValueError(f"{text}: on the host '{host}'; a local path begins with file:///")
        if not slash:
            raise ValueError(f"{text}: names no file or folder")
        return Path(urllib.request.url2pathname(slash + path))
    if not text[match.end() :].strip("/"):
        raise ValueError(f"{text}: names no bucket or folder")
    return RemotePath(text.rstrip("/"))


def is_url(path: str | os.PathLike | RemotePath) -> bool:
    """Whether a path is a URL of a store."""
    return isinstance(place(path), RemotePath)


def url_host(host: str) -> str:
    """A host as written in a URL, an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def local_path(path: str | os.PathLike) -> Path:
    """A path that must be local.

    Raises:
        ValueError: a URL was given, which would become a folder named 's3:'.
    """
    if WAS_URL.match(os.fsdecode(path)):
        raise ValueError(f"{path}: a URL; this is written to a local folder only")
    return Path(path)


@contextlib.contextmanager
def published(path: Place) -> Iterator[Path]:
    """A temporary local path; its file replaces ``path`` if the block ends without an error.

    Yields:
        as ``atomic_path``; for a URL, a path with the same name in a temporary folder.
    """
    if isinstance(path, Path):
        with atomic_path(path) as temporary:
            yield temporary
        return
    with staged_folder() as home:
        yield home / path.name
        path.write_bytes((home / path.name).read_bytes())


def _list(fs: Any, path: str) -> list[str]:
    fs.invalidate_cache()  # other processes write there too
    return fs.ls(path, detail=False)


def _info(fs: Any, path: str) -> dict:
    fs.invalidate_cache()
    return fs.info(path)


def _put(fs: Any, path: str, content: bytes) -> None:
    fs.pipe_file(path, content)


def _put_aside(fs: Any, path: str, content: bytes) -> None:
    """Write under another name, then rename, as ``atomic_path`` does."""
    home, _, name = path.rpartition("/")
    aside = f"{home}/{partial_name(name)}"
    fs.makedirs(home, exist_ok=True)
    try:
        fs.pipe_file(aside, content)
        fs.mv(aside, path)
    except BaseException:
        with contextlib.suppress(Exception):
            fs.rm_file(aside)
        raise


def _mark(info: dict) -> list:
    stamp = next((str(info[key]) for key in STAMPS if info.get(key)), "")
    return [info.get("size"), stamp]


def _status(error: Exception) -> int:
    """The HTTP status of an error, 0 for none."""
    return getattr(error, "status", 0)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
