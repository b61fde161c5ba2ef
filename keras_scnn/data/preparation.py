"""Turn a data set into a folder of face records: on all cores, in constant memory, resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from keras_scnn.data.labels.fit import Labeling
from keras_scnn.data.photo_source import PhotoSource
from keras_scnn.data.records import (
    MANIFEST,
    finish_records,
    read_manifest,
    read_shard,
    write_shard,
)
from keras_scnn.data.synthesis.turned_copies import with_turned_copies
from keras_scnn.models.presets import preset_digest
from keras_scnn.settings import check_workers
from keras_scnn.storage.guard import reading
from keras_scnn.storage.shards import claimed_folder, digest, fingerprint, run_shards

SHARD_PHOTOS = 500


@dataclass(frozen=True, eq=False)
class Job:
    """Everything that a worker needs to make any shard.

    Attributes:
        source: of the photos.
        labeling: how they are cropped and fitted.
        folder: of the records.
        people: the number of each person.
        keys: for each shard, the digest of the files and the preset that it is made from.
    """

    source: PhotoSource
    labeling: Labeling
    folder: Path
    people: dict[str, int]
    keys: list[str]

    def make(self, number: int, names: list[str]) -> int:
        """Write one shard and return the number of its photos."""
        persons, records, left_out = self.labeling.records(self.source, names)
        if records is not None:
            identity = np.array([self.people[person] for person in persons], np.int32)
            twins = [self.source.mirror_of(person) for person in persons]
            numbers = [-1 if twin is None else self.people.get(twin, -1) for twin in twins]
            mirror = np.array(numbers, np.int32)
            records = dataclasses.replace(records, identity=identity, mirror=mirror)
            if self.labeling.turned:
                model, turned = self.labeling.model, self.labeling.turned
                records, missing = with_turned_copies(records, self.source, model, turned)
                left_out |= missing
                left_out.passing |= missing.passing
        write_shard(self.folder, number, records, left_out, left_out.key(self.keys[number]))
        return len(names)


def prepare(
    source: PhotoSource,
    folder: str | os.PathLike,
    labeling: Labeling,
    config: dict,
    workers: int | None = None,
    command: str = "",
) -> dict:
    """Write all photos of a source to a folder of face records, with a progress bar.

    It may be stopped at any time: the same call then continues after the last complete shard. It
    remakes shards whose photos or labels, or the preset that predicts labels, have changed, and
    those with a photo that could not be read because a package or a permission was missing. The
    result does not depend on the number of workers. More than one worker starts processes, so a
    script must call this under ``if __name__ == "__main__"``.

    Args:
        source: the photos.
        folder: of the records.
        labeling: how they are cropped and fitted.
        config: settings that determine the records, for the manifest; serializable as JSON.
        workers: processes, 1 or more; None for one per core.
        command: recorded in the manifest too, unless the folder's manifest already has a command.

    Returns:
        the manifest: ``count``, ``left_out`` (reasons by photo), and more.

    Raises:
        NoRecordsError: all photos were left out.
        ValueError: the folder has records of other photos or settings, or the number of workers is
            invalid.
        OSError: another run writes to the folder.
        FileNotFoundError: the recognizer of ``labeling`` is not installed.
    """
    check_workers(workers)
    folder = Path(folder)
    names = source.names()
    shards = plan_shards(names, [source.person(name) for name in names])
    people = {p: i for i, p in enumerate(sorted({source.person(name) for name in names}))}
    offsets = labeling.model.landmark_offsets
    config = {
        **config,
        "landmark_offsets": np.round(offsets.astype(float), 4).tolist(),
        "face_model_digest": labeling.model.digest,
    }
    made_by = [preset_digest(source.preset)] if source.preset else []
    keys = [digest([*map(fingerprint, source.inputs(part)), *made_by]) for part in shards]
    job = Job(source, labeling, folder, people, keys)
    with claimed_folder(folder, {"photos": digest(shards), "config": config}, "records"):
        config["command"] = _first_command(folder, command)
        _make_shards(job, shards, workers)
        return finish_records(folder, len(shards), labeling.model.name, config)


def _first_command(folder: Path, command: str) -> str:
    """The command in a folder's manifest, by default ``command``.

    Runs and derived records compare digests of manifests: equal records keep theirs.
    """
    path = folder / MANIFEST
    with contextlib.suppress(OSError, ValueError), reading(path, "a manifest of face records"):
        return str(read_manifest(path)["config"]["command"])
    return command


def _make_shards(job: Job, shards: list[list[str]], workers: int | None) -> None:
    """Make the shards that are missing, damaged, or made from other files."""
    there = [read_shard(job.folder, n, key) is not None for n, key in enumerate(job.keys)]
    missing = {n: names for n, names in enumerate(shards) if not there[n]}
    if missing:
        job.labeling.get_ready()
        job.source.get_ready()
        (job.folder / MANIFEST).unlink(missing_ok=True)
        photos, left = sum(map(len, shards)), sum(map(len, missing.values()))
        with tqdm(total=photos, initial=photos - left, desc="photos", smoothing=0.1) as progress:
            for _, done in run_shards(job, missing, workers):
                progress.update(done)


def plan_shards(names: list[str], persons: list[str]) -> list[list[str]]:
    """Split photos into shards of ``SHARD_PHOTOS`` or somewhat more, without splitting a person.

    Args:
        names: of the photos.
        persons: the person in each.
    """
    by_person: dict[str, list[str]] = {}
    for name, person in zip(names, persons, strict=True):
        by_person.setdefault(person, []).append(name)
    shards: list[list[str]] = [[]]
    for part in by_person.values():
        if len(shards[-1]) >= SHARD_PHOTOS:
            shards.append([])
        shards[-1] += part
    return shards
