"""JSON and YAML files, read under the guard that all readers share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from keras_scnn.storage.guard import reading

MAX_YAML_BYTES, MAX_YAML_DEPTH = 1 << 16, 16


def read_json(path: str | os.PathLike, what: str = "a readable JSON file") -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        what: it should be, with its article, for the message.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON, or nested too deeply.
    """
    path = Path(path)
    with reading(path, what):
        return json.loads(path.read_text(encoding="utf-8"))


def read_plain_yaml(path: str | os.PathLike, what: str = "a YAML file") -> Any:
    """The content of a YAML file of plain values: no aliases, and lists and tables 16 deep.

    An alias repeats what stands elsewhere, so a few lines can mean billions of values.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no YAML, has an alias, or is longer than 64 KiB or nested too deeply.
    """
    path = Path(path)
    with reading(path, what):
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ValueError(f"longer than {MAX_YAML_BYTES:,} bytes")
        text = path.read_text(encoding="utf-8")
        _check_events(text)
        return yaml.safe_load(text)


def _check_events(text: str) -> None:
    """Raise a ValueError at the first alias or depth too many, before anything is built."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"an alias, *{event.anchor}; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH:
            raise ValueError(f"nested more than {MAX_YAML_DEPTH} deep")
