"""The files that are written of a clip: its tracks as a table, and each face as GLB and CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.folders.table import columns, joined, vector_sizes, write_part
from keras_scnn.meshes.animation import motion_of
from keras_scnn.meshes.face import FaceLook, write_face_animation
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.reconstruction.faces import Faces, Reconstruction
from keras_scnn.reconstruction.texture import vertex_colors
from keras_scnn.video.clip import Clip
from keras_scnn.video.live_link import has_shapes, write_live_link
from keras_scnn.video.tracks import ClipPerson, Track, face_box

TRACK_KEYS = {
    "frame": "number of the frame, from 0, in the order in which frames are shown",
    "seconds": "since the first frame",
    "track": "number of the face's track, from 0, in the order in which tracks begin",
    "shot": "number of the track's continuous motion, from 0; a cut or a gap ends it",
    "seen": "whether the face was found in this frame; else pose and expression are interpolated",
}
TABLE = "faces.parquet"


def write_tracks(path: Path, tracks: Sequence[Track], about: dict[str, Any]) -> None:
    """Write a table with a row for each face of each frame, in the frames' order.

    Args:
        path: of the Parquet file.
        tracks: one at least.
        about: settings and versions, for the schema's metadata.
    """
    model = tracks[0].model
    sizes = vector_sizes(model.n_identity, model.n_expression, 0)
    table = joined([_rows(i, track) for i, track in enumerate(tracks)], sizes, TRACK_KEYS)
    order = np.lexsort((table["track"], table["frame"]))
    table = {name: np.asarray(values)[order] for name, values in table.items()}
    write_part(path, table, sizes, about, [], TRACK_KEYS)


def _rows(number: int, track: Track) -> dict[str, np.ndarray]:
    identity = np.broadcast_to(track.identity, (len(track), len(track.identity)))
    parameters = FaceParameters(track.pose, identity, track.expression)
    boxes = zip(track.boxes, track.scores, strict=True)
    faces = Faces(track.model, parameters, tuple(face_box(*row) for row in boxes))
    own = columns(faces, scored=True)
    own["score"] = np.where(track.seen, own["score"], np.nan)
    return {
        "frame": track.frames.astype(np.int32),
        "seconds": track.seconds,
        "track": np.full(len(track), number, np.int32),
        "shot": track.shots.astype(np.int32),
        "seen": track.seen,
        **own,
    }


def look_of(clip: Clip, number: int, face: Reconstruction) -> FaceLook:
    """The colors of a face in one of a clip's frames; none where the face model has no uv."""
    frame = next(clip.frames(number, number + 1), None)
    if frame is None or face.model.uv is None:
        return FaceLook()
    texture = face.texture(frame.image)
    return FaceLook(texture, vertex_colors(face.model, texture))


def write_face_files(
    stem: Path, track: Track, clip: Clip, look: FaceLook, options: MeshOptions
) -> list[Path]:
    """Write ``stem`` + .glb, and .csv where the face model has ARKit's expressions.

    Returns:
        the files.
    """
    path = stem.with_name(f"{stem.name}.glb")
    motion = motion_of(track.seconds, track.pose, track.expression, track.shots, clip.size)
    write_face_animation(path, track.model, track.identity, motion, look, options)
    if not has_shapes(track.model):
        return [path]
    table = stem.with_name(f"{stem.name}.csv")
    moving = track.seconds, track.pose, track.expression
    write_live_link(table, track.model, *moving, float(clip.rate))
    return [path, table]


def face_stem(out: str | os.PathLike, number: int) -> Path:
    """The path of a track's files, without their endings."""
    return Path(out) / f"face_{number}"


def track_summary(track: Track, person: ClipPerson) -> dict[str, Any]:
    """Numbers about a track, for JSON."""
    return {
        "first_frame": int(track.frames[0]),
        "last_frame": int(track.frames[-1]),
        "frames": len(track),
        "frames_seen": int(track.seen.sum()),
        "shots": len(person.sightings),
        "best_frame": person.best[0],
        "frames_like_somebody_else": person.strange,
        "identity": track.identity.tolist(),
    }


def model_without_shapes(model: MorphableModel) -> str:
    """Why there is no CSV."""
    return f"no Live Link Face CSV: face model '{model.name}' has none of ARKit's expressions"
