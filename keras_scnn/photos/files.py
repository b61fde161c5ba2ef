"""Which files of a folder are photos: one definition for every command."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from keras_scnn.storage.outputs import listed_files, real_path
from keras_scnn.storage.remote import RemotePath
from keras_scnn.storage.shards import PLAN
from keras_scnn.storage.text import counted

# Formats that ``io.read_image`` reads; for HEIC it asks for the extra 'heif'.
PHOTO_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"),
    *(".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpx", ".ppm", ".pgm", ".heic", ".heif"),
)
VIDEO_SUFFIXES = (
    *(".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mpg", ".mpeg"),
    *(".mts", ".m2ts", ".ts", ".vob", ".m2v", ".3g2", ".wmv", ".flv", ".ogv", ".mxf"),
)
SHOWN = 5
UNREADABLE = "/ (unreadable)"


@dataclass(frozen=True)
class PhotoFiles:
    """The files of a folder and its sub-folders: sorted paths relative to it, with '/'.

    Attributes:
        photos: files with the suffix of a photo, except pictures that belong to results.
        passed_over: all others; linked folders that were visited already, ending in '/'; and
            folders that may not be read, ending in '/ (unreadable)'.
        marks: for object stores, by path: a value that changes with the photo (ETag, or time and
            size).
    """

    photos: tuple[str, ...]
    passed_over: tuple[str, ...]
    marks: dict[str, list] = field(default_factory=dict)


def is_photo(name: str | os.PathLike) -> bool:
    """Whether a file's name has the suffix of a photo."""
    return Path(name).suffix.lower() in PHOTO_SUFFIXES


def is_video(name: str | os.PathLike) -> bool:
    """Whether a file's name has the suffix of a video."""
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def either_case(suffix: str) -> tuple[str, str]:
    """A suffix in lower and upper case: some systems write '.JPG'."""
    return suffix.lower(), suffix.upper()


def beside(file: Path, suffix: str) -> Path:
    """The file of the same name with another suffix in either case; lower case if there is none."""
    lower, upper = (file.with_suffix(one) for one in either_case(suffix))
    return upper if upper.is_file() and not lower.is_file() else lower


def check_single_photos(paths: Sequence[Path]) -> None:
    """Raise a ValueError for a folder, or for a file with the suffix of a video."""
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give one folder alone, or single photos")
        if is_video(path):
            raise ValueError(f"{path} is a video; give one video alone")


def find_photos(folder: str | os.PathLike, *without: str | os.PathLike | None) -> PhotoFiles:
    """Search a folder and its sub-folders, linked ones too, each once.

    Photos in sub-folders of results (with a ``plan.json``) are passed over, and so are those listed
    by the JSON file of a result beside them: they are pictures of meshes and textures. A link to a
    folder inside ``folder`` is always passed over, since its target is found at its own place. Of
    several links to one folder elsewhere, the first one is followed.

    Args:
        folder: the folder; one that does not exist has no files.
        without: files and folders to ignore, such as one for results.

    Raises:
        OSError: the folder itself may not be read, or the disk fails.
    """
    folder, seen = Path(folder), set()
    root = real_path(folder)
    skipped = {real_path(place) for place in without if place is not None}
    files: list[str] = []

    def note_unreadable(error: OSError) -> None:
        place = Path(error.filename)
        if place == folder and isinstance(error, FileNotFoundError):
            return
        if place == folder or not isinstance(error, PermissionError | FileNotFoundError):
            raise error
        files.append(f"{place.relative_to(folder).as_posix()}{UNREADABLE}")

    for home, inner, names in os.walk(folder, onerror=note_unreadable, followlinks=True):
        real, inside = real_path(home), Path(home).relative_to(folder)
        if real in seen or (os.path.islink(home) and real.is_relative_to(root) and real != root):
            inner.clear()
            files.append(f"{inside.as_posix()}/")
            continue
        seen.add(real)
        inner[:] = [name for name in sorted(inner) if real_path(Path(home) / name) not in skipped]
        files += [(inside / name).as_posix() for name in names if real / name not in skipped]
    results = _result_folders(files)
    found = (name for name in files if is_photo(name) and not name.endswith("/"))
    photos = {name for name in found if not name.startswith(results)}
    photos -= _listed_by_results(folder, photos, set(files))
    return PhotoFiles(tuple(sorted(photos)), tuple(sorted(set(files) - photos)))


def _listed_by_results(folder: Path, pictures: set[str], files: set[str]) -> set[str]:
    """Pictures that ``NAME.json`` lists as files of a result.

    They are ``NAME.png`` and ``NAME_overlay.png``, or ``NAME-curves.png`` from ``evaluate``.

    Args:
        folder: the paths are relative to it.
        pictures: paths of the pictures in it.
        files: paths of all files in it.
    """
    stems = {name.rpartition(".")[0] for name in pictures}
    stems |= {stem.rpartition(mark)[0] for stem in stems for mark in "_-"}
    notes = [PurePosixPath(note) for stem in stems if (note := f"{stem}.json") in files]
    return {(n.parent / file).as_posix() for n in notes for file in listed_files(folder / n)}


def _result_folders(names: Iterable[str]) -> tuple[str, ...]:
    """Sub-folders of results, such as those of ``reconstruct``, each ending in '/'."""
    return tuple(name.removesuffix(PLAN) for name in names if name.endswith(f"/{PLAN}"))


def find_remote_photos(folder: RemotePath, *without: RemotePath) -> PhotoFiles:
    """``find_photos`` for a folder of an object store; errors as ``RemotePath.files``.

    Keys such as 'a/../b.jpg', which as paths would lead elsewhere, are passed over.
    """
    skipped = tuple(f"{place.url.removeprefix(f'{folder.url}/')}/" for place in without)
    marks = {name: m for name, m in folder.files().items() if not name.startswith(skipped)}
    results = _result_folders(marks)
    found = (name for name in marks if is_photo(name) and _is_inside(name))
    photos = tuple(name for name in found if not name.startswith(results))
    passed_over = tuple(sorted(set(marks) - set(photos)))
    return PhotoFiles(photos, passed_over, {name: marks[name] for name in photos})


def _is_inside(name: str) -> bool:
    """Whether a store's key is the canonical path of a file within a folder."""
    return not {"", ".", ".."} & set(name.split("/")) and "\\" not in name


def people_of(listing: PhotoFiles) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The people of a people folder: each sub-folder is a person, with photos at any depth.

    Returns:
        the photos by person, and all other files; photos outside of sub-folders are among these.
    """
    people: dict[str, list[str]] = {}
    for name in listing.photos:
        person, _, inside = name.partition("/")
        if inside:
            people.setdefault(person, []).append(name)
    loose = [name for name in listing.photos if "/" not in name]
    return people, tuple(sorted([*listing.passed_over, *loose]))


def describe_passed_over(names: Sequence[str]) -> str:
    """'6 files passed over: a.mov, b.txt, ... (5 .mov, 1 .txt)'; '' for none."""
    if not names:
        return ""
    kinds = Counter(_kind(name) for name in names)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    listed = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
    return f"{counted(len(names), 'file')} passed over: {listed} ({counts})"


def _kind(name: str) -> str:
    if name.endswith(UNREADABLE):
        return "unreadable folder"
    if name.endswith("/"):
        return "linked folder"
    loose = "loose " if is_photo(name) else ""
    return f"{loose}{Path(name).suffix.lower() or 'without suffix'}"
