"""Reconstruction of all photos of a folder to Parquet: on all cores, in constant memory, resumable.

``out`` contains ``faces/part-00000.parquet`` and so on, each for ``shard_photos`` photos and
written atomically; ``failed.csv`` with each photo that gave no face, and why; ``plan.json``, the
settings and photos of the run; and ``meshes/``, if meshes are written.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from keras_scnn.folders.batch import BatchSettings
from keras_scnn.folders.job import FACES, FolderJob, part_path
from keras_scnn.folders.table import read_part, require_pyarrow
from keras_scnn.meshes.options import check_unit
from keras_scnn.meshes.parts import check_parts
from keras_scnn.models.litert import lite_file
from keras_scnn.models.presets import read_preset
from keras_scnn.photos.files import (
    PHOTO_SUFFIXES,
    PhotoFiles,
    describe_passed_over,
    find_photos,
    find_remote_photos,
)
from keras_scnn.reconstruction.reconstructor import provenance
from keras_scnn.settings import check_workers
from keras_scnn.storage.claims import Check
from keras_scnn.storage.outputs import check_out
from keras_scnn.storage.remote import THREADS, Place, RemotePath, place, published
from keras_scnn.storage.shards import (
    AGAIN,
    claimed_folder,
    digest,
    fingerprint,
    run_shards,
    worker_environment,
)
from keras_scnn.storage.text import open_utf8

FAILED = "failed.csv"
ENGINES = ("local", "ray")
RunShards = Callable[[FolderJob, dict[int, list[str]], int | None], Iterator[tuple[int, Any]]]
FILES = "{}/{}"  # a part's key: digests of plan and photo names, and of the files' fingerprints


@dataclass(frozen=True)
class BatchResult:
    """Numbers of photos, of failed photos, and of faces; names of files passed over."""

    photos: int
    failed: int
    faces: int
    passed_over: tuple[str, ...] = ()


def list_photos(folder: Place, out: Place) -> PhotoFiles:
    """All photos in a folder and its sub-folders, and the files passed over.

    Files in ``out`` are ignored.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder.
        ValueError: it contains no photo.
        OSError: of a store, as ``RemotePath``.
    """
    if isinstance(folder, Path) and not folder.is_dir():
        if folder.exists():
            raise NotADirectoryError(f"{folder}: a file; expected a folder of photos")
        raise FileNotFoundError(f"{folder}: no such folder of photos")
    if isinstance(folder, RemotePath):
        files = find_remote_photos(folder, *([out] if isinstance(out, RemotePath) else []))
    else:
        files = find_photos(folder, out if isinstance(out, Path) else None)
    if not files.photos:
        raise ValueError(
            f"{folder}: no photo in it (looked for {', '.join(PHOTO_SUFFIXES)}); "
            f"{describe_passed_over(files.passed_over) or 'it is empty'}"
        )
    return files


def reconstruct_folder(
    folder: str | os.PathLike | RemotePath,
    out: str | os.PathLike | RemotePath,
    settings: BatchSettings,
    workers: int | None = None,
    command: str = "",
    engine: str = "local",
) -> BatchResult:
    """Reconstruct all faces of all photos of a folder, with a progress bar.

    It may be stopped at any time: the same call then continues after the last complete part. It
    makes parts again that are damaged, whose photos have changed, or with a photo that could not be
    read because of a missing package or missing rights. More than one worker starts processes, so a
    script calls this under ``if __name__ == "__main__"``.

    Args:
        folder: of photos, searched with its sub-folders; or a URL of fsspec (extra 'remote').
        out: folder for the results; or a URL.
        settings: that the results depend on.
        workers: processes, 1 or more; None for one per core.
        command: command line, for the metadata.
        engine: 'local' for processes of this machine, 'ray' for actors of a Ray cluster.

    Raises:
        ImportError: pyarrow is missing, or a package that the URL or the engine needs.
        FileNotFoundError: there is no such folder, preset or bucket.
        ValueError: there is no photo, ``out`` holds other files or results, the mesh options do not
            fit, or the engine or number of workers is invalid.
        OSError: ``out`` cannot be written, another run writes to it, or a store is unreachable.
        RuntimeError: a worker process died; with Ray, too many did, or no core is free.
    """
    require_pyarrow()
    folder, out = place(folder), place(out)
    preset = read_preset(settings.preset)
    if settings.meshes:
        check_unit(settings.mesh_options.unit, f".{settings.meshes}")
        check_parts(preset.face_model, settings.mesh_options.parts)
    run, workers = _engine(engine, workers, (folder, out))
    check_out(out)
    files = list_photos(folder, out)
    size = settings.shard_photos
    shards = [list(files.photos[i : i + size]) for i in range(0, len(files.photos), size)]
    plan = _plan(settings, files)
    about = {**plan, "face_model": preset.face_model.name, "command": command}
    keys = [_key(plan, part, folder, files) for part in shards]
    with claimed_folder(out, plan, "faces") as check:
        if isinstance(out, Path):
            (out / FACES).mkdir(exist_ok=True)
        job = FolderJob(folder, out, settings, about, keys)
        done = _run(job, shards, lambda missing: run(job, missing, workers), check)
    return dataclasses.replace(done, passed_over=files.passed_over)


def _engine(
    name: str, workers: int | None, places: tuple[Place, ...]
) -> tuple[RunShards, int | None]:
    """The function that runs shards, and its number of workers, both checked."""
    if name not in ENGINES:
        raise ValueError(f"engine is '{name}'; choose from {', '.join(ENGINES)}")
    check_workers(workers)
    if any(isinstance(one, RemotePath) and one.protocol == "memory" for one in places):
        if name != "local" or workers not in (None, 1):
            raise ValueError("memory:// needs a single process: use --workers 1, the local engine")
        workers = 1
    if name == "local":
        return run_shards, workers
    from keras_scnn.folders.ray_engine import require_ray, run_on_ray

    require_ray()
    return run_on_ray, workers


def _plan(settings: BatchSettings, files: PhotoFiles) -> dict:
    """Everything that determines the results, as JSON values."""
    return {
        **json.loads(json.dumps(asdict(settings))),
        **provenance(settings.preset),
        "runtime": "litert" if lite_file(settings.preset) else "keras",
        "photos": digest(list(files.photos)),
    }


def _key(plan: dict, part: list[str], folder: Place, files: PhotoFiles) -> str:
    if isinstance(folder, RemotePath):
        marks = [files.marks[name] for name in part]
    else:
        marks = [fingerprint(folder / name) for name in part]
    return FILES.format(digest([plan, part]), digest(marks))


def _run(
    job: FolderJob,
    shards: list[list[str]],
    run: Callable[[dict[int, list[str]]], Iterator[tuple[int, Any]]],
    check: Check,
) -> BatchResult:
    done = _complete_parts(job)
    missing = {n: names for n, names in enumerate(shards) if n not in done}
    photos, left = sum(map(len, shards)), sum(map(len, missing.values()))
    bar = tqdm(total=photos, initial=photos - left, desc="photos", smoothing=0.05)
    try:
        with bar, worker_environment():
            for number, result in run(missing):
                check()
                done[number] = result
                bar.update(len(shards[number]))
    except BaseException:
        with contextlib.suppress(OSError):  # the first error counts
            _write_failures(job.out / FAILED, done)
        raise
    _write_failures(job.out / FAILED, done)
    failed = sum(len(failures) for failures, _ in done.values())
    return BatchResult(photos, failed, sum(faces for _, faces in done.values()))


def _complete_parts(job: FolderJob) -> dict[int, tuple[list, int]]:
    """Failures and number of faces of each complete part; damaged and outdated ones are deleted."""
    done, homes = {}, {part_path(job.out, n).name: n for n in range(len(job.keys))}
    for path, part in _parts_of(job.out):
        number = homes.get(path.name)
        if number is not None and part is None:
            tqdm.write(f"{path}: damaged; it is made again")
            path.unlink()
        elif number is not None and part is not None and _is_outdated(part[0], job.keys[number]):
            again = str(part[0]["key"]).endswith(AGAIN)
            why = "could not be read" if again else "have changed"
            tqdm.write(f"{path}: some of its photos {why}; it is made again")
            path.unlink()
        elif number is None or part is None or part[0].get("key") != job.keys[number]:
            raise ValueError(f"{path}: not from this run; move it away, or choose another --out")
        else:
            done[number] = part[1:]
    return done


def _parts_of(out: Place) -> Iterator[tuple[Place, Any]]:
    """All Parquet parts of a result, each with what ``read_part`` returns."""
    if isinstance(out, Path):
        for path in sorted((out / FACES).iterdir()):
            yield path, read_part(path) if path.suffix == ".parquet" else None
        return
    names: Iterable[str] = ()
    with contextlib.suppress(FileNotFoundError):  # no such folder yet, in stores with folders
        names = (out / FACES).files()
    paths = [out / FACES / name for name in names]
    parquet = [path for path in paths if path.suffix == ".parquet"]
    with ThreadPoolExecutor(THREADS) as pool:
        parts = dict(zip(parquet, pool.map(read_part, parquet), strict=True))
    yield from ((path, parts.get(path)) for path in paths)


def _is_outdated(about: dict, key: str) -> bool:
    """Whether a part has this run's plan and photo names, but must be made again.

    Its files have changed since, or a failure may have passed.
    """
    there = str(about.get("key"))
    return there != key and there.split("/")[0] == key.split("/")[0]


def _write_failures(path: Place, done: dict[int, tuple[list, int]]) -> None:
    failures = [failure for number in sorted(done) for failure in done[number][0]]
    with published(path) as temporary, open_utf8(temporary) as file:
        csv.writer(file).writerows([("photo", "reason"), *failures])
