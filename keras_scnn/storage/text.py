"""JSON and YAML files, read under the guard of all readers; strictly valid JSON is written."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import yaml

from keras_scnn.storage.atomic import atomic_path
from keras_scnn.storage.guard import FileError, reading
from keras_scnn.storage.remote import RemotePath, place

MAX_YAML_BYTES, MAX_YAML_DEPTH, MAX_YAML_VALUES = 1 << 16, 16, 100_000
# Numbers that YAML 1.1 reads in an unexpected base: 010 as 8, and 10:30 as 630.
OTHER_BASES = re.compile(r"[-+]?0[0-7_]+|.*:.*")


def read_json(path: str | os.PathLike | RemotePath, what: str = "a readable JSON file") -> Any:
    """The content of a JSON file.

    Args:
        path: the file, or its URL.
        what: what the file should be, with its article, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not valid JSON, or nested too deeply.
        OSError: as ``RemotePath``.
    """
    home = place(path)
    content = home.read_bytes()
    with reading(str(home), what):
        try:
            return json.loads(content.decode("utf-8-sig"))
        except json.JSONDecodeError as error:
            start = f"line {error.lineno}, column {error.colno}"
            raise ValueError(f"it is not valid JSON from {start} on") from error


def json_text(content: Any) -> str:
    """Indented JSON, with a final line break, with non-finite numbers as null.

    NumPy's scalars are written as Python's.

    Raises:
        ValueError: JSON cannot represent a value.
    """
    try:
        return json.dumps(finite_or_none(content), indent=2, allow_nan=False) + "\n"
    except TypeError as error:
        raise ValueError(f"a value cannot be written as JSON: {error}") from error


def write_json(path: str | os.PathLike, content: Any, durable: bool = False) -> None:
    """Write ``json_text`` of the content; atomic, durable and errors as ``atomic_path``."""
    with atomic_path(path, durable) as temporary:
        temporary.write_text(json_text(content))


def finite_or_none(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by None, also in dictionaries and sequences."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        return {name: finite_or_none(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_plain_yaml(path: str | os.PathLike, what: str = "a YAML file") -> Any:
    """The content of a YAML file of plain values.

    An alias repeats another part of the file, so that a few lines can expand to billions of values;
    they are counted expanded. Numbers in base 8 or 60 (``010``, ``10:30``) are read as text.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, is longer than 64 KiB, nested more than 16 deep, expands to more
            than 100,000 values, or gives a name twice.
    """
    path = Path(path)
    with reading(path, what):
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ValueError(f"longer than {MAX_YAML_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        _check_events(text)
        return yaml.load(text, _PlainLoader)  # a SafeLoader


def failure(path: os.PathLike, error: Exception) -> str:
    """Why a file of a batch failed, in one line that begins with its path; the error may begin so,
    or not name it at all, as if a disk is full."""
    return f"{path}: {str(error).removeprefix(f'{path}: ')}"


def counted(number: int, noun: str) -> str:
    """'1 photo', '3 photos', '1 person' or '2 people': a number and a regular noun, or 'person'."""
    if number == 1:
        return f"{number} {noun}"
    return f"{number} people" if noun == "person" else f"{number} {noun}s"


def utf8_text(path: str | os.PathLike) -> str:
    """The content of a UTF-8 text file, without byte order mark, line endings unchanged.

    Raises:
        FileError: it is in another encoding, such as UTF-16.
        OSError: it cannot be read.
    """
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path}: not a text file in UTF-8; save it as such") from error


def open_utf8(path: Path) -> TextIO:
    """Open a text file for writing in UTF-8, with line endings as given.

    Bytes of a photo's or folder's name that are not UTF-8 are written unchanged.
    """
    return path.open("w", newline="", encoding="utf-8", errors="surrogateescape")


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, without its unexpected readings of values."""

    def compose_mapping_node(self, anchor):
        """Raise a ValueError for a name that is given twice; PyYAML takes its last value."""
        node = super().compose_mapping_node(anchor)
        given = set()
        for key, _ in node.value:
            name = key.tag, key.value
            if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
                if name in given:
                    line = key.start_mark.line + 1
                    raise ValueError(f"line {line} gives '{key.value}' again; give it once")
                given.add(name)
        return node

    def resolve(self, kind, value, implicit):
        """The tag that PyYAML gives a value, but text for a number in base 8 or 60."""
        tag = super().resolve(kind, value, implicit)
        is_number = kind is yaml.ScalarNode and tag.endswith((":int", ":float"))
        if is_number and OTHER_BASES.fullmatch(value):
            return self.DEFAULT_SCALAR_TAG
        return tag


def _check_events(text: str) -> None:
    """Raise a ValueError for too many values or too deep nesting, before anything is built."""
    values = 0
    sizes: dict[str, int] = {}  # numbers of values, by anchor
    within: list[tuple[str | None, int]] = []  # anchor, and values before, of each open collection
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} contains itself, or is not defined")
            values += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = within.pop()
            sizes |= {anchor: values - before + 1} if anchor else {}
        elif isinstance(event, yaml.NodeEvent):
            values += 1
            if isinstance(event, yaml.CollectionStartEvent):
                within.append((event.anchor, values))
            elif event.anchor:
                sizes[event.anchor] = 1
        if len(within) > MAX_YAML_DEPTH or values > MAX_YAML_VALUES:
            raise ValueError(
                f"nested more than {MAX_YAML_DEPTH} deep, or more than {MAX_YAML_VALUES:,} values"
            )


def printable(name: str) -> str:
    """A file's name as printable text: bytes that are not UTF-8 become question marks.

    >>> printable("a\\udcff.jpg")
    'a?.jpg'
    """
    return name.encode("utf-8", "replace").decode()
