"""The work of one process of a folder job: detect, reconstruct, write a part."""

from __future__ import annotations

import itertools
import platform
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

from keras_scnn.folders.batch import BatchReconstructor, BatchSettings, FoundFaces, Read
from keras_scnn.folders.table import write_part
from keras_scnn.io import read_reduced
from keras_scnn.meshes.files import mesh_files
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.reconstruction.reconstructor import provenance
from keras_scnn.storage import short_name
from keras_scnn.storage.atomic import staged_folder
from keras_scnn.storage.guard import reading
from keras_scnn.storage.images import ReducedImage, decode_reduced
from keras_scnn.storage.remote import THREADS, Place, RemotePath, StoreError
from keras_scnn.storage.shards import PLAN
from keras_scnn.storage.text import read_json

FACES, MESHES = "faces", "meshes"
AHEAD = 2 * THREADS  # photos of a store that are prefetched


@dataclass(eq=False)
class FolderJob:
    """Everything that a worker needs to make any part.

    Attributes:
        folder, out: folders of photos and of results.
        settings: that the results depend on.
        about: metadata of each part.
        keys: for each part, digests of the settings and photos that it must be made from.
    """

    folder: Place
    out: Place
    settings: BatchSettings
    about: dict
    keys: list[str]

    def make(self, number: int, names: list[str]) -> tuple[list[tuple[str, str]], int]:
        """Write one part; return its failures and its number of faces.

        Raises:
            StoreError: all photos are unreachable.
            OSError: the part cannot be written.
        """
        if self.settings.meshes:
            for name in names:
                self._remove_meshes(name)
        batch = self._reconstruct(self._photos(names))
        failures = [(names[row], reason) for row, reason in sorted(batch.failures.items())]
        key = batch.failures.key(self.keys[number])
        about = {**self.about, "part": number, "photos": len(names), "key": key}
        write_part(part_path(self.out, number), batch.table, batch.sizes, about, failures)
        return failures, len(batch.rows)

    def check_host(self) -> None:
        """Check that this host makes the same results, in the same folder, as the first one.

        Raises:
            ValueError: it lacks the preset, or has another version of the package or of the
                preset, another runtime, or other folders.
        """
        host = platform.node()
        try:
            found = provenance(self.settings.preset)
        except (ImportError, OSError, ValueError) as error:
            raise ValueError(f"{host}: {error}; all hosts need the preset") from error
        for key, value in found.items():
            if self.about[key] != value:
                raise ValueError(
                    f"{host}: {key} is {value}, but {self.about[key]} on the host that started the "
                    "run; all hosts need the same"
                )
        shared = "all hosts need one shared folder, or a URL"
        if isinstance(self.folder, Path) and not self.folder.is_dir():
            raise ValueError(f"{host}: {self.folder} does not exist; {shared}")
        plan = read_json(self.out / PLAN) if (self.out / PLAN).is_file() else {"none": ""}
        if any(self.about.get(key) != value for key, value in plan.items()):
            raise ValueError(f"{host}: {self.out} is not the folder of the run; {shared}")

    @cached_property
    def _reconstruct(self) -> BatchReconstructor:
        with_faces = self._write_meshes if self.settings.meshes else None
        return BatchReconstructor(self.settings, with_faces)

    def _photos(self, names: list[str]) -> Iterator[tuple[str, Read]]:
        """Each photo's name and reader; photos of a store are prefetched in parallel."""
        if not isinstance(self.folder, RemotePath):
            yield from ((name, partial(self._read, name)) for name in names)
            return
        waiting: deque[tuple[str, Read]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for name in names:
                    content = pool.submit((self.folder / name).read_bytes)
                    waiting.append((name, partial(_decode, self.folder, name, content)))
                    if len(waiting) >= AHEAD:
                        yield waiting.popleft()
                while waiting:
                    yield waiting.popleft()
            finally:
                pool.shutdown(cancel_futures=True)

    def _read(self, name: str) -> ReducedImage:
        try:
            return read_reduced(self.folder / name)
        except FileNotFoundError:
            if isinstance(self.folder, Path) and not self.folder.is_dir():
                raise StoreError(f"{self.folder}: the folder no longer exists") from None
            raise

    def _write_meshes(self, faces: Faces, homes: list[tuple[FoundFaces, int]]) -> None:
        for face, (photo, i) in zip(faces, homes, strict=True):
            name = self._mesh_name(photo.name, i)
            with nullcontext(self.out) if isinstance(self.out, Path) else staged_folder() as home:
                path = home / name
                path.parent.mkdir(parents=True, exist_ok=True)
                face.write_mesh(path, photo.image, self.settings.mesh_options)
                for file in path.parent.iterdir() if home is not self.out else ():
                    (self.out / file.relative_to(home).as_posix()).write_bytes(file.read_bytes())

    def _mesh_name(self, photo: str, face: int) -> Path:
        """The path of a mesh within ``out``."""
        place = Path(MESHES, photo)
        return place.with_name(f"{short_name(f'{place.name}_{face}')}.{self.settings.meshes}")

    def _remove_meshes(self, photo: str) -> None:
        """Delete the meshes of an earlier run, in which the photo may have had more faces."""
        found: list = []
        for face in itertools.count():
            names = mesh_files(self._mesh_name(photo, face))
            files = [file for n in names if (file := self.out / n.as_posix()).is_file()]
            if not files:
                break
            found += files
        for file in reversed(found):  # if this is killed, the numbers of the rest have no gap
            file.unlink()


def _decode(folder: RemotePath, name: str, content: Future) -> ReducedImage:
    try:
        data = content.result()
    except (FileNotFoundError, PermissionError) as error:
        try:
            folder.check()  # is only this photo unavailable, or the whole folder?
        except OSError as folder_error:
            raise StoreError(str(folder_error)) from error
        raise
    with reading(name, "a readable image"):
        return decode_reduced(data)


def part_path(out: Place, number: int) -> Place:
    """The Parquet file of a shard."""
    return out / FACES / f"part-{number:05d}.parquet"
