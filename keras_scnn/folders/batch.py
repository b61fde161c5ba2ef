"""Photos to rows of faces: the one code of a shard, whichever engine runs it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_scnn.folders.table import as_arrow, columns, joined, require_pyarrow, vector_sizes
from keras_scnn.geometry.crops import SQUARE_TOLERANCE
from keras_scnn.io import read_reduced
from keras_scnn.meshes.options import MeshOptions, check_mesh_format
from keras_scnn.models.inference import MAX_BATCH
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.photos.detection import FaceDetector, no_face
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.reconstruction.reconstructor import PASSES, Reconstructor, provenance
from keras_scnn.settings import DEFAULT_PRESET, check_types, whole
from keras_scnn.storage.guard import reading
from keras_scnn.storage.images import ReducedImage, decode_reduced
from keras_scnn.storage.remote import StoreError
from keras_scnn.storage.shards import Failures

if TYPE_CHECKING:
    import pyarrow

SHARD_PHOTOS = 256
GROUP_FACES = 8 * MAX_BATCH
GROUP_PIXELS = 50_000_000  # 150 MB of photos wait for the network at most, but for a larger one
PATH, BYTES, FAILED_COLUMN = "path", "bytes", "failed"


@dataclass(frozen=True)
class BatchSettings:
    """Settings on which the results depend.

    Attributes:
        preset: name, folder or URL; a ``Path`` becomes text.
        crops: the photos are standard crops of one face; nothing is detected.
        tiles: look for small faces too, see ``FaceDetector``.
        meshes: 'obj', 'ply', 'glb', or None for no meshes.
        mesh_options: what is written of each face.
        shard_photos: in one Parquet file, 1 or more.

    Raises:
        ValueError: ``meshes`` is no format of a mesh, ``shard_photos`` no number of photos, or
            another value of another type.
    """

    preset: str = DEFAULT_PRESET
    crops: bool = False
    tiles: bool = True
    meshes: str | None = None
    mesh_options: MeshOptions = MeshOptions()
    shard_photos: int = SHARD_PHOTOS

    def __post_init__(self) -> None:
        check_types(self, str, bool)  # they must fit JSON
        object.__setattr__(self, "shard_photos", whole("shard_photos", self.shard_photos))
        if self.meshes is not None:
            check_mesh_format("meshes", self.meshes)


Read = Callable[[], ReducedImage]
"""Reads a photo; raises what is wrong with it."""


@dataclass(frozen=True, eq=False)
class FoundFaces:
    """A photo (``ReducedImage``) and its boxes; ``row`` is its number in the batch."""

    row: int
    name: str
    image: np.ndarray
    reduced_by: int
    boxes: list[FaceBox]


@dataclass(eq=False)
class BatchFaces:
    """What became of a batch of photos.

    Attributes:
        table: every column's values, one row a face, in the order of the photos.
        rows: (M,) int, the number of each face's photo in the batch.
        failures: why photos gave no face, by their number in the batch.
        sizes: of ``table.vector_sizes``.
    """

    table: dict[str, np.ndarray | list]
    rows: np.ndarray
    failures: Failures[int]
    sizes: dict[str, int]


@dataclass(eq=False)
class BatchReconstructor:
    """Detects and reconstructs the faces of photos; the network is loaded at the first batch.

    Args:
        settings: how.
        with_faces: called with the faces of some photos, and each one's photo and number in it.
    """

    settings: BatchSettings
    with_faces: Callable[[Faces, list[tuple[FoundFaces, int]]], None] | None = field(default=None)

    @cached_property
    def reconstructor(self) -> Reconstructor:
        """The preset's, in this process."""
        detector = None if self.settings.crops else FaceDetector(tiles=self.settings.tiles)
        return Reconstructor.from_preset(self.settings.preset, detector)

    def __call__(self, photos: Iterable[tuple[str, Read]]) -> BatchFaces:
        """The faces of named photos. One photo's failure is noted, whatever its decoder raises.

        Raises:
            StoreError: raised by a photo's reader.
        """
        preset = self.reconstructor.preset
        layout = preset.layout
        sizes = vector_sizes(layout.n_identity, layout.n_expression, preset.feature_size)
        failures: Failures[int] = Failures()
        parts = [
            p for group in self._groups(photos, failures) for p in self._parts(group, failures)
        ]
        rows = [row for part_rows, _ in parts for row in part_rows]
        table = joined([table for _, table in parts], sizes)
        return BatchFaces(table, np.array(rows, int), failures, sizes)

    def _groups(
        self, photos: Iterable[tuple[str, Read]], failures: Failures[int]
    ) -> Iterator[list[FoundFaces]]:
        """Photos that together have some batches of faces, or are as large as may be."""
        group, faces, pixels = [], 0, 0
        for row, (name, read) in enumerate(photos):
            try:
                photo = self._find(row, name, read)
            except StoreError:
                raise
            except Exception as error:
                failures.note(row, error, _reason(error, name))
                continue
            group.append(photo)
            faces, pixels = faces + len(photo.boxes), pixels + photo.image.size // 3
            if faces >= GROUP_FACES or pixels >= GROUP_PIXELS:
                yield group
                group, faces, pixels = [], 0, 0
        if group:
            yield group

    def _find(self, row: int, name: str, read: Read) -> FoundFaces:
        _check_name(name)
        image, factor = read()
        if self.settings.crops:
            height, width = image.shape[:2]
            if abs(width / height - 1) > SQUARE_TOLERANCE:
                raise ValueError(f"{width} x {height} px; a face crop is square")
            return FoundFaces(row, name, image, factor, [FaceBox(0, 0, width, height)])
        boxes = self.reconstructor.detect(image)
        if not boxes:
            raise ValueError(no_face(image.shape, self.settings.tiles))
        return FoundFaces(row, name, image, factor, boxes)

    def _parts(self, group: list[FoundFaces], failures: Failures[int]) -> list[tuple[list, dict]]:
        """Rows and table of a group; of its photos one by one where they fail together.

        Where each of several fails alone too, or memory is short, the fault is not the photos'.
        """
        homes = [(photo, i) for photo in group for i in range(len(photo.boxes))]
        try:
            faces = self._faces(homes)
            numbers = columns(faces, scored=not self.settings.crops)
        except MemoryError:
            raise
        except Exception as error:
            if len(group) > 1:
                parts = [part for photo in group for part in self._parts([photo], failures)]
                if not parts:
                    raise
                return parts
            failures.note(group[0].row, error, _reason(error, group[0].name))
            return []
        if self.with_faces is not None:
            self.with_faces(faces, homes)
        shapes = [photo.image.shape for photo, _ in homes]
        table = {
            "photo": [photo.name for photo, _ in homes],
            "face": np.array([i for _, i in homes], np.int32),
            "width": np.array([shape[1] for shape in shapes], np.int32),
            "height": np.array([shape[0] for shape in shapes], np.int32),
            "photo_reduced_by": np.array([photo.reduced_by for photo, _ in homes], np.int32),
            **numbers,
        }
        return [([photo.row for photo, _ in homes], table)]

    def _faces(self, homes: list[tuple[FoundFaces, int]]) -> Faces:
        images = [photo.image for photo, _ in homes]
        boxes = [photo.boxes[i] for photo, i in homes]
        passes = 1 if self.settings.crops else PASSES
        return self.reconstructor.reconstruct_many(images, boxes, passes)


def reconstruct_batch(
    table: pyarrow.Table, settings: BatchSettings = BatchSettings()
) -> pyarrow.Table:
    """The faces of a table of photos, for engines that map a function over Arrow tables.

    The network is loaded once a process, and again where the preset has changed. See
    docs/scale.md for Ray, Dask and Spark.

    Args:
        table: one row a photo. ``path``, text: its name in the result, and where it is read from,
            a local path or a URL of fsspec; ``bytes``, binary: its file's content, never null, for
            a file that is not read then (both columns are those of ``ray.data.read_binary_files``).
        settings: how; without meshes.

    Returns:
        the columns of the Parquet files of ``reconstruct_folder``, one row a face in the order of
        the photos, and ``failed``, text: null for a face; a photo that gave none has one row with
        the reason, in which all but ``photo`` and ``failed`` is null. The schema's metadata name
        preset and version.

    Raises:
        ImportError: pyarrow is missing.
        FileNotFoundError: there is no such preset.
        ValueError: a column is missing or of another type, or the settings ask for meshes.
        OSError: a store of photos is out of reach; a photo's own failure raises nothing.
    """
    require_pyarrow()
    if settings.meshes:
        raise ValueError("settings.meshes: a table holds no meshes; reconstruct_folder writes them")
    names, contents = _inputs(table)
    versions = provenance(settings.preset)
    worker = _worker(settings, versions["preset_digest"])
    batch = worker(
        (name, functools.partial(_read, name, content))
        for name, content in zip(names, contents, strict=True)
    )
    about = {
        **{key: asdict(settings)[key] for key in ("preset", "crops", "tiles")},
        **versions,
        "face_model": worker.reconstructor.preset.face_model.name,
    }
    return _with_failures(batch, names, about)


@functools.lru_cache(maxsize=1)
def _worker(settings: BatchSettings, digest: str) -> BatchReconstructor:
    """One for a process, of the preset with this digest: a name may stand for others later."""
    return BatchReconstructor(settings)


def _inputs(table: pyarrow.Table) -> tuple[list[str], list[bytes | None]]:
    """Names and contents of photos; contents are None where there are to be read."""
    import pyarrow as pa

    kinds = {
        PATH: ((pa.types.is_string, pa.types.is_large_string), "text"),
        BYTES: ((pa.types.is_binary, pa.types.is_large_binary), "binary"),
    }
    if PATH not in table.column_names:
        raise ValueError(f"table: its columns are {table.column_names}; '{PATH}' is needed")
    for name, (tests, what) in kinds.items():
        if name in table.column_names and not any(is_it(table[name].type) for is_it in tests):
            raise ValueError(f"table: column '{name}' is {table[name].type}; it must be {what}")
    if table[PATH].null_count:
        raise ValueError(f"table: {table[PATH].null_count} photos have no '{PATH}'")
    names = table[PATH].to_pylist()
    if BYTES not in table.column_names:
        return names, [None] * len(names)
    return names, [b"" if content is None else content for content in table[BYTES].to_pylist()]


def _read(name: str, content: bytes | None) -> ReducedImage:
    if content is None:
        return read_reduced(name)
    if not content:
        raise ValueError(f"'{BYTES}' is null or empty in its row; give the content of its file")
    with reading(name, "a readable image"):
        return decode_reduced(content)


def _with_failures(batch: BatchFaces, names: list[str], about: dict[str, Any]) -> pyarrow.Table:
    import pyarrow as pa

    faces = as_arrow(batch.table, batch.sizes, about)
    faces = faces.append_column(FAILED_COLUMN, pa.nulls(len(faces), pa.string()))
    schema = pa.schema([f.with_nullable(True) for f in faces.schema], faces.schema.metadata)
    failed = pa.table(
        {
            "photo": pa.array([names[row] for row in batch.failures], pa.string()),
            FAILED_COLUMN: pa.array(list(batch.failures.values()), pa.string()),
        }
    )
    every = pa.concat_tables([faces.cast(schema), failed], promote_options="default")
    order = np.argsort(np.concatenate([batch.rows, list(batch.failures)]), kind="stable")
    return every.take(order).combine_chunks().replace_schema_metadata(schema.metadata)


def _check_name(name: str) -> None:
    """Parquet and JSON hold text, and a file's name may be any bytes."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError("its name is not UTF-8; rename it") from error


def _reason(error: Exception, name: str) -> str:
    """The error's text without the path of the photo, which ends with its name."""
    text = str(error) or type(error).__name__
    before, colon, rest = text.partition(f"{name}: ")
    return rest if colon and (not before or before.endswith(("/", "\\"))) else text
