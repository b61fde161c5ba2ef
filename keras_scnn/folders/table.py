"""Tables of reconstructed faces: Parquet files, one row per face (extra 'batch').

Units and frames are those of ``geometry.camera``: pixels of the upright photo (EXIF orientation
applied), pixel centers at integers from 0, y down, depth larger nearer to the viewer; millimeters
for the face model. The field metadata of each column contain its description.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.storage.guard import reading
from keras_scnn.storage.remote import Place, published

if TYPE_CHECKING:
    import pyarrow

FORMAT, VERSION = "keras_scnn.faces", 2
ABOUT, FAILURES = b"keras_scnn", b"keras_scnn.failures"
PHOTO_KEYS = {
    "photo": "path of the photo, relative to the folder, '/' between its parts",
    "face": "number of the face in its photo, from 0, highest score first",
    "width": "of the photo after reduction, px; all other px are of this photo",
    "height": "likewise",
    "photo_reduced_by": "factor that the photo in the file was reduced by: 1, 2, 4 or 8",
}
"""The columns that identify a row, with descriptions; tables of videos have others."""
TEXT = {
    "score": "of the detector, 0 to 1; null without a detector",
    "quality": "expected inverse variance of the shape; 1: frontal, large; null without a detector",
    "box": "x0, y0, x1, y1 of the square around the face, px, half-open",
    "image_from_model": "3x4 camera, row-major: mm of the face model to x, y, depth in px",
    "rotation": "3x3, row-major, of the y-up model frame",
    "pitch": "degrees",
    "yaw": "degrees",
    "roll": "degrees",
    "scale": "px per mm",
    "translation": "x, y where the face model's origin appears, px",
    "identity": "coefficients of the face model, standard deviations",
    "expression": "weights of the face model's expressions",
    "landmarks": "68x3, row-major, iBUG order: x, y, depth in px",
    "features": "identity feature of unit length",
}
KINDS = {
    **dict.fromkeys((*PHOTO_KEYS, "frame", "track", "tracklet"), "int32"),
    "photo": "string",
    "seconds": "float64",
    "seen": "bool",
}
"""Types of columns; all others are float32, or lists of float32."""
DETECTED = ("score", "quality")  # null without a detector


def require_pyarrow() -> None:
    """Raise an ImportError that says what to install if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow, which is not installed: pip install '.[batch]'"
        ) from error


def columns(faces: Faces, scored: bool) -> dict[str, np.ndarray]:
    """The columns of a table except ``PHOTO_KEYS``, by name: (M,) or (M, size) arrays.

    Args:
        faces: M faces.
        scored: whether the boxes have a detector's score; if not, NaN stands for null.
    """
    pose, count = faces.parameters.pose, len(faces)
    rotation, scale, translation = decompose(pose)
    angles = np.degrees(euler_from_rotation(rotation))
    table = {
        "score": np.array([box.score if scored else np.nan for box in faces.boxes]),
        "quality": np.array([face.quality if scored else np.nan for face in faces]),
        "box": np.stack([box.as_array() for box in faces.boxes]),
        "image_from_model": pose.reshape(count, 12),
        "rotation": rotation.reshape(count, 9),
        "pitch": angles[:, 0],
        "yaw": angles[:, 1],
        "roll": angles[:, 2],
        "scale": scale,
        "translation": translation[:, :2],
        "identity": faces.parameters.identity,
        "expression": faces.parameters.expression,
        "landmarks": faces.landmarks.reshape(count, 204),
    }
    return table if faces.features is None else {**table, "features": faces.features}


def schema(sizes: dict[str, int], keys: dict[str, str] = PHOTO_KEYS) -> pyarrow.Schema:
    """The schema of a table.

    Args:
        sizes: length of each vector column; a column of length 0 is left out.
        keys: the columns that identify a row, and their descriptions.
    """
    import pyarrow as pa

    def kind(name: str):
        if name in KINDS:
            return pa.type_for_alias(KINDS[name])
        return pa.list_(pa.float32(), sizes[name]) if name in sizes else pa.float32()

    text = {**keys, **TEXT}
    names = [name for name in text if sizes.get(name) != 0]
    about = {name: {"description": text[name]} for name in names}
    return pa.schema([pa.field(n, kind(n), n in DETECTED, about[n]) for n in names])


def vector_sizes(n_identity: int, n_expression: int, n_features: int) -> dict[str, int]:
    """The length of each vector column."""
    fixed = {"box": 4, "image_from_model": 12, "rotation": 9, "translation": 2, "landmarks": 204}
    return {
        **fixed,
        "identity": n_identity,
        "expression": n_expression,
        "features": n_features,
    }


def write_part(
    path: Place,
    table: dict[str, np.ndarray | list] | Iterable[dict[str, np.ndarray | list]],
    sizes: dict[str, int],
    about: dict[str, Any],
    failures: list[tuple[str, str]],
    keys: dict[str, str] = PHOTO_KEYS,
) -> None:
    """Write one file atomically, with checksums.

    Args:
        path: of the file, or its URL.
        table: each column's values; or several such tables, one after the other.
        sizes: from ``vector_sizes``.
        about: settings and versions, for the schema's metadata, as JSON values.
        failures: photos of this part that gave no face, and why.
        keys: as for ``schema``.
    """
    import pyarrow.parquet as pq

    layout = _described(schema(sizes, keys), about, failures)
    words = ["photo"] if "photo" in keys else False
    options = {"compression": "zstd", "use_dictionary": words, "write_page_checksum": True}
    with (
        published(path) as temporary,
        temporary.open("wb") as home,  # not by pyarrow, which needs UTF-8 paths
        pq.ParquetWriter(home, layout, **options) as file,
    ):
        for part in [table] if isinstance(table, dict) else table:
            file.write_table(_filled(part, layout))


def as_arrow(
    table: dict[str, np.ndarray | list], sizes: dict[str, int], about: dict[str, Any]
) -> pyarrow.Table:
    """The table that ``write_part`` writes, in memory; same arguments."""
    return _filled(table, _described(schema(sizes), about))


def _described(
    layout: pyarrow.Schema, about: dict, failures: list[tuple[str, str]] | None = None
) -> pyarrow.Schema:
    metadata = {ABOUT: json.dumps({"format": FORMAT, "version": VERSION, **about})}
    if failures is not None:
        metadata[FAILURES] = json.dumps(failures)
    return layout.with_metadata(metadata)


def _filled(table: dict[str, np.ndarray | list], layout: pyarrow.Schema) -> pyarrow.Table:
    import pyarrow as pa

    return pa.table([_array(table[field.name], field.type) for field in layout], schema=layout)


def joined(
    tables: list[dict], sizes: dict[str, int], keys: dict[str, str] = PHOTO_KEYS
) -> dict[str, np.ndarray | list]:
    """Tables concatenated; a table without rows if there are none."""
    if tables:
        return {key: np.concatenate([np.asarray(t[key]) for t in tables]) for key in tables[0]}
    names = {**keys, **TEXT}
    return {name: np.zeros((0, sizes[name])) if name in sizes else [] for name in names}


def _array(values, kind) -> pyarrow.Array:
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(kind):
        missing = np.isnan(np.asarray(values)) if pa.types.is_floating(kind) else None
        return pa.array(values, kind, mask=missing)
    flat = pa.array(np.asarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)


def read_part(path: Place) -> tuple[dict[str, Any], list[tuple[str, str]], int] | None:
    """The settings, failures and number of faces of a file of ``write_part``; None if damaged.

    The whole file is read, so that damage anywhere in it is found.

    Raises:
        ValueError: it is an undamaged Parquet file, but not one of faces.
        OSError: it cannot be opened; or as ``RemotePath``.
    """
    import pyarrow.parquet as pq

    source = _opened(path)
    try:
        with (
            reading(str(path), "a sound Parquet file"),
            source,
            pq.ParquetFile(source, page_checksum_verification=True) as file,
        ):
            rows = sum(len(batch) for batch in file.iter_batches())
            metadata = file.schema_arrow.metadata or {}
    except (OSError, ValueError):
        return None
    with reading(str(path), "one of faces, though a Parquet file; move it away"):
        about, failures = json.loads(metadata[ABOUT]), json.loads(metadata[FAILURES])
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ValueError(f"of version {about['version']}")
        return about, [tuple(failure) for failure in failures], rows


def _opened(path: Place) -> BinaryIO:
    """An open file; pyarrow opens no path that is not UTF-8."""
    return path.open("rb") if isinstance(path, Path) else io.BytesIO(path.read_bytes())


def read_about(path: Path) -> dict[str, Any]:
    """The settings that a file of ``write_part`` was written with."""
    import pyarrow.parquet as pq

    with reading(path, "a sound Parquet file of faces"), _opened(path) as file:
        return json.loads((pq.read_schema(file).metadata or {})[ABOUT])


def read_columns(
    path: Path, within: tuple[str, float, float] | None = None
) -> dict[str, np.ndarray]:
    """The columns of a file of ``write_part``, vectors as (n, size) arrays.

    Args:
        path: of the file.
        within: (column, low, high): read only rows with low <= value < high.
    """
    import pyarrow.parquet as pq

    limits = None
    if within is not None:
        name, low, high = within
        limits = [(name, ">=", low), (name, "<", high)]
    with reading(path, "a sound Parquet file of faces"), _opened(path) as file:
        table = pq.read_table(file, filters=limits)
        return {name: _rows(table[name]) for name in table.column_names}


def _rows(column) -> np.ndarray:
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)
