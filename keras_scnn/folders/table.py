"""Tables of reconstructed faces: Parquet files, one row a face (extra 'batch').

Units and frames are those of ``geometry.camera``: pixels of the upright photo (EXIF orientation
applied), pixel centers at integers from 0, y down, depth larger nearer to the viewer; millimeters
for the face model. Each column's description is in its field metadata too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_scnn.geometry.camera import decompose
from keras_scnn.geometry.rotations import euler_from_rotation
from keras_scnn.reconstruction.faces import Faces
from keras_scnn.storage import atomic_path
from keras_scnn.storage.guard import reading

if TYPE_CHECKING:
    import pyarrow

FORMAT, VERSION = "keras_scnn.faces", 2
ABOUT, FAILURES = b"keras_scnn", b"keras_scnn.failures"
TEXT = {
    "photo": "path of the photo, relative to the folder, '/' between its parts",
    "face": "number of the face in its photo, from 0, highest score first",
    "width": "of the photo, px",
    "height": "of the photo, px",
    "score": "of the detector, 0 to 1; null where none ran",
    "quality": "the photo's worth for the person's shape, 1: clear; null where no detector ran",
    "box": "x0, y0, x1, y1 of the square about the face, px, half-open",
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
WHOLE, DETECTED = ("face", "width", "height"), ("score", "quality")


def require_pyarrow() -> None:
    """Raise an ImportError that says what to install, where pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "Parquet needs pyarrow, which is not installed: pip install '.[batch]'"
        ) from error


def columns(faces: Faces, scored: bool) -> dict[str, np.ndarray]:
    """Everything that a table holds but for the photo, by column: (M,) or (M, size) arrays.

    Args:
        faces: M of them.
        scored: whether the boxes have a detector's score; NaN stands for null.
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


def schema(sizes: dict[str, int]) -> pyarrow.Schema:
    """The schema of a table; ``sizes`` says how many numbers a vector column has, 0 for none."""
    import pyarrow as pa

    def kind(name: str):
        if name == "photo":
            return pa.string()
        if name in WHOLE:
            return pa.int32()
        return pa.list_(pa.float32(), sizes[name]) if name in sizes else pa.float32()

    names = [name for name in TEXT if sizes.get(name) != 0]
    about = {name: {"description": TEXT[name]} for name in names}
    return pa.schema([pa.field(n, kind(n), n in DETECTED, about[n]) for n in names])


def vector_sizes(n_identity: int, n_expression: int, n_features: int) -> dict[str, int]:
    """How many numbers each vector column has."""
    fixed = {"box": 4, "image_from_model": 12, "rotation": 9, "translation": 2, "landmarks": 204}
    return {
        **fixed,
        "identity": n_identity,
        "expression": n_expression,
        "features": n_features,
    }


def write_part(
    path: Path,
    table: dict[str, np.ndarray | list],
    sizes: dict[str, int],
    about: dict[str, Any],
    failures: list[tuple[str, str]],
) -> None:
    """Write one file, whole or not at all, with checksums.

    Args:
        path: of the file.
        table: every column's values.
        sizes: from ``vector_sizes``.
        about: settings and versions, for the schema's metadata; must fit JSON.
        failures: photos of this part that gave no face, and why.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {ABOUT: json.dumps({"format": FORMAT, "version": VERSION, **about})}
    metadata[FAILURES] = json.dumps(failures)
    layout = schema(sizes).with_metadata(metadata)
    arrays = [_array(table[field.name], field.type) for field in layout]
    with atomic_path(path) as temporary:
        pq.write_table(
            pa.table(arrays, schema=layout),
            temporary,
            compression="zstd",
            use_dictionary=["photo"],
            write_page_checksum=True,
        )


def _array(values, kind) -> pyarrow.Array:
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(kind):
        missing = np.isnan(values) if pa.types.is_floating(kind) else None
        return pa.array(values, kind, mask=missing)
    flat = pa.array(np.asarray(values, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)


def read_part(path: Path) -> tuple[dict[str, Any], list[tuple[str, str]], int] | None:
    """The settings, failures and number of faces of a file of ``write_part``.

    All of the file is read, so that damage anywhere in it is found. None: it is damaged.

    Raises:
        ValueError: it is a sound Parquet file, but not one of faces.
    """
    import pyarrow.parquet as pq

    try:
        with (
            reading(path, "a sound Parquet file"),
            pq.ParquetFile(path, page_checksum_verification=True) as file,
        ):
            rows = sum(len(batch) for batch in file.iter_batches())
            metadata = file.schema_arrow.metadata or {}
    except (OSError, ValueError):
        return None
    with reading(path, "one of faces, though a Parquet file; move it away"):
        about, failures = json.loads(metadata[ABOUT]), json.loads(metadata[FAILURES])
        if (about["format"], about["version"]) != (FORMAT, VERSION):
            raise ValueError(f"of version {about['version']}")
        return about, [tuple(failure) for failure in failures], rows
