"""Folders of results, written atomically and never confused with those of another run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.guard import reading
from keras_scnn.storage.remote import RemotePath, local_path, place
from keras_scnn.storage.text import json_text, read_json


def real_path(path: str | os.PathLike) -> Path:
    """The path with links resolved; circular links are kept (``Path.resolve`` raises there)."""
    return Path(os.path.realpath(path))


def check_out(path: str | os.PathLike | RemotePath, option: str = "") -> None:
    """Raise an OSError if a folder for results cannot be created or written to.

    Nothing is created: a command checks before its work, and creates the folder for the first
    result. A bucket must exist. A URL that can only be read is a ValueError.

    Args:
        path: the folder.
        option: the command's option that gives it, for the message; '' for ``--out``.
    """
    path = place(path)
    if isinstance(path, RemotePath):
        path.check_out()
        return
    local_path(path)
    named = f"{option} {path}".lstrip()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{named}: is a file; the results need a folder")
    home = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        raise OSError(f"{named}: cannot be written, since {home} is not a writable folder")


@dataclass(frozen=True)
class Results:
    """The results of some photos in a folder.

    A result is a JSON file, ``NAME.json``, and the files beside it. The JSON lists the photos and
    the files of the result, so that a later run deletes only results of its own photos.

    Attributes:
        out: the folder.
        photos: that the results are of.
        inputs: files that are never deleted or overwritten, even if an earlier run wrote them.
    """

    out: Path
    photos: tuple[Path, ...]
    inputs: frozenset[Path] = field(default=frozenset())

    @property
    def _of(self) -> list[str]:
        return [os.path.abspath(photo) for photo in self.photos]

    def remove_earlier(self, names: Iterable[str]) -> None:
        """Delete results of these photos that an earlier run wrote under one of the names."""
        for name in names:
            for file in self._earlier(name):
                (self.out / file).unlink(missing_ok=True)

    def earlier_names(self, stem: str) -> list[str]:
        """The names, beginning with ``stem``, of all results of these photos."""
        if not self.out.is_dir():
            return []
        paths = [self.out / name for name in os.listdir(self.out) if name.startswith(stem)]
        notes = {path.stem: _note(path) for path in paths if path.suffix == ".json"}
        return [name for name, note in notes.items() if note and note["photos"] == self._of]

    def check_free(self, file: str) -> None:
        """Raise a ValueError if a file in the folder exists and is not a result of these photos."""
        path = self.out / file
        if not os.path.lexists(path) or file in self._earlier(path.stem):
            return
        note = _note(path) if path.suffix == ".json" else None
        photos = " and ".join(map(str, self.photos))
        whose = "those of " + " and ".join(note["photos"]) if note else f"{path}, another file"
        raise ValueError(
            f"{photos}: its results would overwrite {whose}; rename the photo, move the existing "
            "files away, or give another --out"
        )

    def publish(self, name: str, numbers: dict, write: Callable[[Path], None]) -> Path:
        """Write a result atomically.

        Args:
            name: of the result, without a suffix.
            numbers: content of its JSON file.
            write: called with a path without suffix; writes the other files, whose names begin
                with that path's name.

        Returns:
            the result's path without suffix.

        Raises:
            ValueError: a file of that name exists, and is not a result of these photos.
        """
        self.check_free(f"{name}.json")
        with staged_folder(self.out) as aside:
            write(aside / name)
            files = sorted(path.name for path in aside.iterdir())
            for file in set(files).difference(self._earlier(name)):
                self.check_free(file)
            self.remove_earlier([name])  # only now that the new one is complete
            note = aside / f"{name}.json"
            content = {"photos": self._of, **numbers, "files": files}
            note.write_text(json_text(content))
            for file in (note.name, *files):  # JSON first: it lists the files if a run is killed
                os.replace(aside / file, self.out / file)
        return self.out / name

    def _earlier(self, name: str) -> list[str]:
        """Files of an earlier result of these photos under a name, without inputs, JSON last."""
        note = self.out / f"{name}.json"
        content = _note(note)
        if content is None or content["photos"] != self._of:
            return []
        names = [*(Path(file).name for file in content["files"]), note.name]
        return [one for one in names if real_path(self.out / one) not in self.inputs]


def listed_files(note: Path) -> frozenset[str]:
    """Names of the files that a result's JSON file lists; empty for any other file."""
    content = _note(note)
    return frozenset() if content is None else frozenset(content["files"])


def _note(path: Path) -> dict | None:
    """The content of a result's JSON file; None for any other file."""
    try:
        with reading(path, "the numbers of a result"):
            content = read_json(path)
            lists = content["photos"], content["files"]
            are_lists = all(isinstance(part, list) for part in lists)
            is_result = are_lists and all(isinstance(name, str) for part in lists for name in part)
            return content if is_result else None
    except (OSError, ValueError):
        return None
