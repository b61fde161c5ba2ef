"""Groups of people: CSV with the column ``person`` and one column for each attribute.

``person`` is the folder of a person's photos as in a pairs file, or the last parts of its path;
every other column is an attribute (sex, age group, skin tone, ...), whose values are the groups. An
empty cell means unknown.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_scnn.storage.guard import reading
from keras_scnn.storage.text import counted, utf8_text

PERSON = "person"
EXPECTED = "expected a CSV file with the column person and a column for each attribute"
MAX_GROUPS = 20


def read_groups(file: str | os.PathLike) -> dict[str, dict[str, str]]:
    """Read a file of groups.

    Returns:
        by attribute: the group of each person, by the person's folder; unknown ones are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no column 'person' or no attribute, a row is incomplete, a person is
            listed twice, or an attribute has more than 20 groups, like a number or a name.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file of groups; {EXPECTED}")
    with reading(file, "a text file"):
        lines = csv.reader(io.StringIO(utf8_text(file), newline=""))
        table = [(lines.line_num, [cell.strip() for cell in row]) for row in lines if row]
    (_, columns), *rows = table or [(0, [])]
    if PERSON not in columns or len(set(columns)) < len(columns) or len(columns) < 2:
        raise ValueError(f"{file}: the columns are {', '.join(columns) or 'none'}; {EXPECTED}")
    people: dict[str, list[str]] = {}
    for number, row in rows:
        if len(row) != len(columns):
            what = f"{counted(len(row), 'cell')} for {len(columns)} columns"
        elif not (person := row[columns.index(PERSON)].strip("/")):
            what = "no person"
        elif person in people:
            what = f"{person} is listed twice"
        else:
            people[person] = row
            continue
        raise ValueError(f"{file}, line {number}: {what}; {EXPECTED}")
    groups = {
        name: {person: row[i] for person, row in people.items() if row[i]}
        for i, name in enumerate(columns)
        if name != PERSON
    }
    for name, of in groups.items():
        if len(count := set(of.values())) > MAX_GROUPS:
            raise ValueError(f"{file}: {name} has {len(count)} groups; {MAX_GROUPS} at most")
    return groups


def groups_of_photos(
    groups: dict[str, dict[str, str]], paths: Sequence[Path]
) -> dict[str, np.ndarray]:
    """By attribute: (n,) the group of each photo's person, '' if unknown."""
    ends = [
        ["/".join(path.parent.parts[i:]) for i in range(len(path.parent.parts))] for path in paths
    ]
    return {
        name: np.array([next((of[end] for end in each if end in of), "") for each in ends])
        for name, of in groups.items()
    }
