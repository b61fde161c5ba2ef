"""From photos to rows of faces: the work on a shard, the same for every engine."""

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
from keras_scnn.settings import DEFAULT_PRESET, check_types, typed, whole
from keras_scnn.storage.guard import reading
from keras_scnn.storage.images import ReducedImage, decode_reduced
from keras_scnn.storage.remote import StoreError
from keras_scnn.storage.shards import Failures

if TYPE_CHECKING:
    import pyarrow

SHARD_PHOTOS = 256
GROUP_FACES = 8 * MAX_BATCH
GROUP_PIXELS = 50_000_000  # at most 150 MB of photos, or a single larger one, wait for the network
PATH, BYTES, FAILED_COLUMN = "path", "bytes", "failed"


@dataclass(frozen=True)
class BatchSettings:
    """Settings that the results depend on.

    Attributes:
        preset: name, folder or URL; a ``Path`` becomes text.
        crops: the photos are standard crops of one face; nothing is detected.
        tiles: whether to look for small faces too, see ``FaceDetector``.
        meshes: 'obj', 'ply', 'glb', or None for no meshes.
        mesh_options: what the mesh files contain.
        shard_photos: photos per Parquet file, 1 or more.

    Raises:
        ValueError: ``meshes`` is not a mesh format, ``shard_photos`` is not a whole number of 1 or
            more, or another value has the wrong type.
    """

    preset: str = DEFAULT_PRESET
    crops: bool = False
    tiles: bool = True
    meshes: str | None = None
    mesh_options: MeshOptions = MeshOptions()
    shard_photos: int = SHARD_PHOTOS

    def __post_init__(self) -> None:
        check_types(self, str, bool)  # they must fit JSON
        typed(self.mesh_options, MeshOptions, "mesh_options")
        object.__setattr__(self, "shard_photos", whole("shard_photos", self.shard_photos))
        if self.meshes is not None:
            check_mesh_format("meshes", self.meshes)


Read = Callable[[], ReducedImage]
"""Reads a photo; raises an error if that fails."""


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
    """The results of a batch of photos.

    Attributes:
        table: each column's values, one row per face, in the order of the photos.
        rows: (M,) int, the number of each face's photo in the batch.
        failures: why photos gave no face, by their number in the batch.
        sizes: from ``table.vector_sizes``.
    """

    table: dict[str, np.ndarray | list]
    rows: np.ndarray
    failures: Failures[int]
    sizes: dict[str, int]


@dataclass(eq=False)
class BatchReconstructor:
    """Detects and reconstructs the faces of photos; the network is loaded at the first batch.

    Args:
        settings: for reconstruction.
        with_faces: called with the faces of some photos, and each face's photo and number in it.
    """

    settings: BatchSettings
    with_faces: Callable[[Faces, list[tuple[FoundFaces, int]]], None] | None = field(default=None)

    @cached_property
    def reconstructor(self) -> Reconstructor:
        """The reconstructor of the preset in this process."""
        detector = None if self.settings.crops else FaceDetector(tiles=self.settings.tiles)
        return Reconstructor.from_preset(self.settings.preset, detector)

    def __call__(self, photos: Iterable[tuple[str, Read]]) -> BatchFaces:
        """The faces of named photos. A photo that fails is recorded, whatever its decoder raises.

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
        """Groups of photos, each complete at ``GROUP_FACES`` faces or ``GROUP_PIXELS`` pixels."""
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
        """Rows and table of a group; of its photos one by one if they fail together.

        If each of several photos fails alone too, or memory is short, the error is raised, since
        photos are not the cause.
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

    The network is loaded once per process, and again if the preset has changed. See docs/scale.md
    for Ray, Dask and Spark.

    Args:
        table: one row per photo. ``path``, text: its name in the result, and the local path or URL
            of fsspec that it is read from; ``bytes``, binary, optional: the file's content, never
            null, in which case no file is read. ``ray.data.read_binary_files`` gives both columns.
        settings: for reconstruction; without meshes.

    Returns:
        the columns of the Parquet files of ``reconstruct_folder``, one row per face in the order of
        the photos; and ``failed``, text, null for a face. A photo without a face has one row with
        the reason in ``failed``, in which all other columns but ``photo`` are null. The schema's
        metadata contain preset and version.

    Raises:
        ImportError: pyarrow is missing.
        FileNotFoundError: there is no such preset.
        ValueError: a column is missing or of another type, or the settings ask for meshes.
        OSError: a store of photos is unreachable; the failure of a single photo raises nothing.
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
    """One per process, for the preset with this digest: a name may mean another preset later."""
    return BatchReconstructor(settings)


def _inputs(table: pyarrow.Table) -> tuple[list[str], list[bytes | None]]:
    """Names and contents of photos; contents are None if files are to be read."""
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
    """Raise a ValueError for a name that is not UTF-8, as Parquet and JSON require."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError("its name is not UTF-8; rename it") from error


def _reason(error: Exception, name: str) -> str:
    """The error's text without a leading path of the photo."""
    text = str(error) or type(error).__name__
    before, colon, rest = text.partition(f"{name}: ")
    return rest if colon and (not before or before.endswith(("/", "\\"))) else text
