"""Lists of photos by person: people folders, and pairs files in the format of LFW.

LFW is "Labeled Faces in the Wild" (Huang et al., 2007). A pairs file is text: a header with the
number of folds and the number of pairs of each kind per fold ('10 300'; a single number is that of
pairs, in one fold), then for each fold its pairs of one person, 'name 1 2', and then those of two
people, 'name 1 other 3'. The photos are name/name_0001.jpg and so on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.photos.files import PHOTO_SUFFIXES, find_photos, people_of
from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import counted, utf8_text


@dataclass(frozen=True, eq=False)
class PhotoList:
    """n photos and the people that they show.

    Attributes:
        paths: the files.
        person: (n,) int, equal for photos of one person.
        passed_over: names of files that are not a person's photos, see ``photos.files``.
    """

    paths: tuple[Path, ...]
    person: np.ndarray
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ListedPairs:
    """P pairs of photos from a list.

    Attributes:
        photos: the list.
        first, second: (P,) int indices into the list.
        fold: (P,) int; None if the file has only one.
    """

    photos: PhotoList
    first: np.ndarray
    second: np.ndarray
    fold: np.ndarray | None


def is_people_folder(folder: str | os.PathLike) -> bool:
    """Whether a folder has two or more sub-folders with photos in them."""
    return len(people_of(find_photos(folder))[0]) > 1


def people_photos(folder: str | os.PathLike) -> PhotoList:
    """The sorted photos of a people folder: one sub-folder per person, any file names and depth.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it has fewer than two people.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one sub-folder per person")
    people, passed_over = people_of(find_photos(folder))
    if len(people) < 2:
        raise ValueError(
            f"{folder}: {counted(len(people), 'sub-folder')} with photos; a people folder has one "
            f"for each person, two or more, with {', '.join(PHOTO_SUFFIXES)} files"
        )
    person = np.repeat(np.arange(len(people)), [len(photos) for photos in people.values()])
    paths = tuple(folder / name for photos in people.values() for name in photos)
    return PhotoList(paths, person, passed_over)


def read_pairs(file: str | os.PathLike, folder: str | os.PathLike) -> ListedPairs:
    """Read a pairs file in LFW's format.

    Args:
        file: see the module's docstring.
        folder: of the photos, name/name_0001.jpg; also with the other suffixes of photos, in
            either case. A missing photo is listed as .jpg, so that reading it fails.

    Raises:
        FileNotFoundError: the file or the folder is missing.
        ValueError: the file is not in LFW's format, a photo is paired with itself, or the numbers
            of pairs in a fold differ from the header.
    """
    file, folder = Path(file), Path(folder)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such pairs file")
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of photos, name/name_0001.jpg")
    folds, pairs = _parse(file)
    keys = sorted({key for pair in pairs for key in pair})
    position = {key: i for i, key in enumerate(keys)}
    names = {name: i for i, name in enumerate(sorted({name for name, _ in keys}))}
    found = find_photos(folder, file)
    photos = PhotoList(
        _photo_paths(folder, found.photos, keys),
        np.array([names[name] for name, _ in keys]),
        people_of(found)[1],
    )
    first, second = np.array([[position[key] for key in pair] for pair in pairs]).T
    fold = np.arange(len(pairs)) * folds // len(pairs)
    return ListedPairs(photos, first, second, fold if folds > 1 else None)


def _parse(file: Path) -> tuple[int, list[tuple[tuple[str, int], tuple[str, int]]]]:
    with reading(file, "a text file"):
        text = utf8_text(file)
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, words) for number, words in rows if words]
    header = lines[0][1] if lines else []
    if len(header) not in (1, 2) or not all(word.isdecimal() for word in header):
        raise ValueError(
            f"{file}: the first line of a pairs file is a header such as '10 300'; a file "
            "with the columns first,second,same,fold is for --pairs"
        )
    folds, each = (int(word) for word in (["1"] * (2 - len(header)) + header))
    pairs = [_pair(file, number, words) for number, words in lines[1:]]
    if folds < 1 or not pairs or len(pairs) != 2 * folds * each:
        raise ValueError(
            f"{file}: {counted(len(pairs), 'pair')}; its header says {counted(folds, 'fold')} of "
            f"{counted(each, 'pair')} of one person and {each} of two: {2 * folds * each}"
        )
    _check_kinds(file, folds, each, pairs)
    return folds, pairs


def _check_kinds(file: Path, folds: int, each: int, pairs: list) -> None:
    """Raise a ValueError for a fold with different numbers of pairs of one person and of two."""
    same = np.array([first[0] == second[0] for first, second in pairs]).reshape(folds, -1)
    for fold in np.flatnonzero(same.sum(axis=1) != each)[:1]:
        raise ValueError(
            f"{file}: fold {fold + 1} has {counted(same[fold].sum(), 'pair')} of one person and "
            f"{(~same[fold]).sum()} of two; its header says {each} of each, in every fold"
        )


def _pair(file: Path, number: int, words: list[str]) -> tuple[tuple[str, int], tuple[str, int]]:
    four = words if len(words) != 3 else [*words[:2], words[0], words[2]]
    is_pair = len(four) == 4 and four[1].isdecimal() and four[3].isdecimal()
    if not is_pair or (four[0], int(four[1])) == (four[2], int(four[3])):
        raise ValueError(
            f"{file}, line {number}: '{' '.join(words)}'; a pair is 'name 1 2' or 'name 1 other 3' "
            "of two photos"
        )
    return (four[0], int(four[1])), (four[2], int(four[3]))


def _photo_paths(
    folder: Path, found: Sequence[str], keys: Sequence[tuple[str, int]]
) -> tuple[Path, ...]:
    """The files of names and numbers; of several suffixes, the first in ``PHOTO_SUFFIXES``."""
    order = {suffix: i for i, suffix in enumerate(PHOTO_SUFFIXES)}
    best_last = sorted(found, key=lambda name: -order[Path(name).suffix.lower()])
    files = {Path(name).with_suffix("").as_posix(): name for name in best_last}
    stems = [f"{name}/{name}_{number:04d}" for name, number in keys]
    return tuple(folder / files.get(stem, f"{stem}{PHOTO_SUFFIXES[0]}") for stem in stems)
