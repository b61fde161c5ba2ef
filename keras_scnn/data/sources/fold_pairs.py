"""Pairs files with folds by person: CSV with the columns ``first,second,same,fold``.

``first`` and ``second`` are photos, relative to a root folder; ``same`` is 1 if they show one
person, and 0 if they show two; ``fold`` is the number of the pair's fold. No person is in two
folds, so a threshold chosen on the other folds is tested on new people (as in Labeled Faces in the
Wild; Huang et al., 2007). The folder of a photo identifies its person.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from keras_scnn.data.sources.photo_lists import ListedPairs, PhotoList
from keras_scnn.storage.guard import reading
from keras_scnn.storage.outputs import real_path
from keras_scnn.storage.text import counted, utf8_text

COLUMNS = ("first", "second", "same", "fold")
EXPECTED = "expected a CSV file with the columns first,second,same,fold"


def read_fold_pairs(file: str | os.PathLike, root: str | os.PathLike) -> ListedPairs:
    """Read a pairs file with folds by person.

    Args:
        file: see the module's docstring.
        root: folder to which the photos' paths are relative; a photo that is not there is searched
            relative to the parent of the file's folder.

    Returns:
        the pairs; ``person`` is equal for photos in one folder, or in folders that a pair with
        ``same`` 1 joins.

    Raises:
        FileNotFoundError: the file, the root or a photo is missing.
        ValueError: a column is missing or damaged; all pairs have the same value of ``same``; a
            photo is paired with itself, or twice with the same photo; there is only one fold; a
            fold has only one person, or a person is in two folds; or ``same`` contradicts the
            folders.
    """
    file, root = Path(file), Path(root)
    rows = _rows(file, root)
    names = sorted({name for row in rows for name in row[:2]})
    position = {name: i for i, name in enumerate(names)}
    first, second = np.array([[position[name] for name in row[:2]] for row in rows]).T
    same, fold = (np.array([row[i] for row in rows]) for i in (2, 3))
    person = _people(names, first[same == 1], second[same == 1])
    _check(file, names, person, first, second, same)
    _check_folds(file, names, person, first, second, fold)
    paths = tuple(_find(file, root, name) for name in names)
    return ListedPairs(PhotoList(paths, person), first, second, fold)


def _rows(file: Path, root: Path) -> list[tuple[str, str, int, int]]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such pairs file; {EXPECTED}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; the photos of {file.name} are in it")
    with reading(file, "a text file"):
        text = utf8_text(file)
        reader = csv.DictReader(io.StringIO(text, newline=""))
        first_line = next(iter(text.splitlines()), "")
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise ValueError(
                f"{file}: no column {', '.join(sorted(missing))}; {EXPECTED}; its first line is "
                f"'{first_line[:80]}'"
            )
        rows = [_row(file, reader.reader.line_num, row) for row in reader]
    if not rows:
        raise ValueError(f"{file}: no pairs below the header; {EXPECTED}")
    (pair, times), *_ = Counter(tuple(sorted(row[:2])) for row in rows).most_common(1)
    if times > 1:
        raise ValueError(f"{file}: {pair[0]} and {pair[1]} are paired {times} times; list it once")
    return rows


def _row(file: Path, number: int, row: dict) -> tuple[str, str, int, int]:
    first, second, same, fold = (str(row[c] or "").strip() for c in COLUMNS)
    if not first or not second or same not in ("0", "1") or not fold.isdecimal():
        raise ValueError(
            f"{file}, line {number}: {first},{second},{same},{fold}; expected two photos, "
            "same 0 or 1, and a fold's number from 0"
        )
    if "\\" in first + second:
        raise ValueError(f"{file}, line {number}: {first},{second}; write / between folders")
    first, second = (PurePosixPath(name).as_posix() for name in (first, second))  # "./a" is "a"
    if first == second:
        raise ValueError(f"{file}, line {number}: {first} is paired with itself")
    return first, second, int(same), int(fold)


def _people(names: list[str], first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n,) person numbers of photos: equal in one folder, or if joined by pairs of one person."""
    folders, person = np.unique([str(Path(name).parent) for name in names], return_inverse=True)
    edges = np.ones(len(first)), (person[first], person[second])
    joined = coo_array(edges, shape=(len(folders), len(folders)))
    return connected_components(joined, directed=False)[1][person]


def _check(file: Path, names, person, first, second, same) -> None:
    wrong = np.flatnonzero((same == 0) & (person[first] == person[second]))
    if len(wrong):
        i = wrong[0]
        raise ValueError(
            f"{file}: {names[first[i]]} and {names[second[i]]} have same 0, but are of one person "
            "by their folder or by other pairs"
        )
    if len(np.unique(same)) < 2:
        raise ValueError(
            f"{file}: {counted(len(same), 'pair')}, all with same {same[0]}; pairs with same 1 and "
            "with same 0 are needed"
        )


def _check_folds(file: Path, names, person, first, second, fold) -> None:
    numbers = np.unique(fold)
    if len(numbers) < 2:
        raise ValueError(f"{file}: only one fold; 2 or more needed, for thresholds from the others")
    owner: dict[int, int] = {}
    for number in numbers:
        members = _members(person, first[fold == number], second[fold == number])
        if len(members) < 2:
            raise ValueError(f"{file}: fold {number} has the pairs of one person; 2 or more needed")
        for one in members:
            if owner.setdefault(one, number) != number:
                photo = names[int(np.flatnonzero(person == one)[0])]
                raise ValueError(
                    f"{file}: the person of {photo} is in the folds {owner[one]} and {number}; a "
                    "person must be in only one"
                )


def _members(person: np.ndarray, first: np.ndarray, second: np.ndarray) -> list[int]:
    return np.unique(np.concatenate([person[first], person[second]])).tolist()


def _find(file: Path, root: Path, name: str) -> Path:
    places = [root / name, real_path(file).parent.parent / name]
    for path in places:
        if path.is_file():
            return path
    raise FileNotFoundError(f"{file}: no photo {name}; looked for {places[0]} and {places[1]}")
