"""Digests of the inputs of a run or a release, to detect changes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from keras_scnn.data.remote_records import manifest_of
from keras_scnn.settings import folders_of
from keras_scnn.storage.guard import reading
from keras_scnn.storage.outputs import real_path
from keras_scnn.storage.remote import Place, RemotePath, place
from keras_scnn.storage.shards import digest, file_digest, fingerprint
from keras_scnn.storage.text import read_json, write_json
from keras_scnn.training.config import TrainConfig

INPUTS = "inputs.json"
FILES = ("face_model", "recognizer", "sface")  # settings that may name a file or folder
# Each stands for its folder: a preset's weights; the manifest of face records, with all checksums.
DECIDING = ("weights.npz", "manifest.json")


def content_digest(path: Place, without: Sequence[Path] = (), with_times: bool = False) -> str:
    """SHA-256 of a file, of a preset's weights, or of the manifest of face records.

    Of any other folder, of the names and sizes of its files. A URL must be of face records.

    Args:
        path: of the file or folder.
        without: folders inside of it that are ignored, such as those of results.
        with_times: of any other folder, also of the files' modification times, which reveal changes
            that keep the size, but differ between copies.
    """
    if isinstance(path, RemotePath):
        return digest(manifest_of(path))
    for name in DECIDING:
        if (path / name).is_file():
            return file_digest(path / name)
    if path.is_file():
        return file_digest(path)
    home = real_path(path)
    others = [folder for one in without if home in (folder := real_path(one)).parents]
    files = sorted(p for p in home.rglob("*") if p.is_file() and not set(others) & set(p.parents))
    facts = [fingerprint(p) if with_times else [p.stat().st_size] for p in files]
    return digest([[str(p.relative_to(home)), *fact] for p, fact in zip(files, facts, strict=True)])


def data_digests(folders: str) -> dict[str, str]:
    """Digests of face records or packs, given as comma-separated paths, by their ``short_ends``.

    The rest of the paths, which differs between machines, is left out.
    """
    places = [place(folder) for folder in folders_of(folders)]
    return dict(zip(short_ends(places), map(content_digest, places), strict=True))


def short_ends(places: list[Place]) -> list[str]:
    """The last parts of paths, as few as tell them apart.

    >>> short_ends([Path("/disk/a/records"), Path("b/records")])
    ['a/records', 'b/records']
    """
    parts = [str(one).replace(os.sep, "/").split("/") for one in places]
    ends: list[str] = []
    for count in range(1, 1 + max(map(len, parts), default=0)):
        ends = ["/".join(one[-count:]) for one in parts]
        if len(set(ends)) == len(ends):
            break
    return ends


def run_digests(config: TrainConfig) -> dict:
    """Digests of a run's inputs: 'start', '' for none; 'data', see ``data_digests``; and of the
    files of ``FILES`` that the settings name."""
    from keras_scnn.models.presets import preset_folder

    given = {name: getattr(config, name) for name in FILES}
    defaults = {one.name: one.default for one in dataclasses.fields(config)}
    return {
        "start": content_digest(preset_folder(config.start)) if config.start else "",
        "data": data_digests(config.data),
        **{n: content_digest(Path(one)) for n, one in given.items() if one != defaults[n]},
    }


def group_facts(config: TrainConfig) -> dict[str, str]:
    """What must be the same in all processes of a run, as text; or a 'problem' with the inputs."""
    package = Path(__file__).parents[1]
    code = [[str(p.relative_to(package)), file_digest(p)] for p in sorted(package.rglob("*.py"))]
    versions = [f"{name} {version(name)}" for name in ("keras", "jax", "numpy")]
    try:
        inputs = digest(run_digests(config))[:12]
    except (OSError, ValueError) as error:
        return {"problem": str(error)}
    return {
        "versions": ", ".join(versions),
        "code": digest(code)[:12],
        "settings": digest(config.of_all_processes())[:12],
        "data": inputs,
    }


def check_inputs(folder: Path, config: TrainConfig) -> None:
    """Check that a resumed run has the inputs that it began with; record those of a new run.

    Raises:
        ValueError: the files have changed since the run began.
    """
    path, now = folder / INPUTS, run_digests(config)
    if path.is_file():
        what = "the digests of a run's inputs"
        with reading(path, what):
            there = dict(read_json(path, what))
        there = {name: now[name] for name in FILES if name in now} | there  # absent before 0.3
        if changed := [name for name in now if there.get(name) != now[name]]:
            raise ValueError(
                f"{folder} holds a run whose {' and '.join(changed)} had other contents when it "
                "began; choose another folder, or delete it"
            )
    write_json(path, now)
