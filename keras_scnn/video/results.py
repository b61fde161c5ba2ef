"""The result files of a clip: its tracks as a table, and each face as GLB and CSV."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.folders.table import DETECTED, columns, joined, vector_sizes, write_part
from keras_scnn.meshes.animation import motion_of
from keras_scnn.meshes.face import FaceLook, write_face_animation
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.reconstruction.faces import Faces, Reconstruction
from keras_scnn.texturing.texture import vertex_colors
from keras_scnn.video.clip import Clip
from keras_scnn.video.live_link import has_shapes, write_live_link
from keras_scnn.video.tracks import ClipPerson, Track, face_box

TRACK_KEYS = {
    "frame": "number of the frame, from 0, in the order in which frames are shown",
    "seconds": "since the first frame",
    "track": "number of the face's track, from 0, in the order in which tracks begin",
    "tracklet": "number in the track, from 0; a cut, or a gap of over a second, ends a tracklet",
    "seen": "whether the face was found in this frame; else pose and expression are interpolated",
}
TABLE, GROUP_FRAMES = "faces.parquet", 1024  # number of frames written at once


def write_tracks(path: Path, tracks: Sequence[Track], about: dict[str, Any]) -> None:
    """Write a table with one row per face and frame, in the order of the frames.

    Args:
        path: of the Parquet file.
        tracks: at least one.
        about: settings and versions, for the schema's metadata.
    """
    model, last = tracks[0].model, max(int(track.frames[-1]) for track in tracks)
    sizes = vector_sizes(model.n_identity, model.n_expression, 0)
    parts = (_table(tracks, n, n + GROUP_FRAMES, sizes) for n in range(0, last + 1, GROUP_FRAMES))
    write_part(path, parts, sizes, about, [], TRACK_KEYS)


def _table(tracks: Sequence[Track], start: int, stop: int, sizes: dict) -> dict:
    """The rows of the frames from ``start`` to ``stop``, excluded."""
    limits = [np.searchsorted(track.frames, (start, stop)).tolist() for track in tracks]
    own = [(i, t, slice(*at)) for i, (t, at) in enumerate(zip(tracks, limits, strict=True))]
    there = [_rows(*row) for row, at in zip(own, limits, strict=True) if at[0] < at[1]]
    table = joined(there, sizes, TRACK_KEYS)
    order = np.lexsort((table["track"], table["frame"]))
    return {name: np.asarray(values)[order] for name, values in table.items()}


def _rows(number: int, track: Track, part: slice) -> dict[str, np.ndarray]:
    frames, seen = track.frames[part], track.seen[part]
    identity = np.broadcast_to(track.identity, (len(frames), len(track.identity)))
    parameters = FaceParameters(track.pose[part], identity, track.expression[part])
    boxes = zip(track.boxes[part], track.scores[part], strict=True)
    own = columns(Faces(track.model, parameters, tuple(face_box(*row) for row in boxes)), True)
    return {
        "frame": frames.astype(np.int32),
        "seconds": track.seconds[part],
        "track": np.full(len(frames), number, np.int32),
        "tracklet": track.tracklets[part].astype(np.int32),
        "seen": seen,
        **own,
        **{name: np.where(seen, own[name], np.nan) for name in DETECTED},
    }


def frame_look(clip: Clip, number: int, face: Reconstruction, baked: bool = False) -> FaceLook:
    """The colors of a face in one of a clip's frames; none if the face model has no uv.

    With ``baked`` they include the frame's light.
    """
    frame = next(clip.frames(number, number + 1), None)
    if frame is None or face.model.uv is None:
        return FaceLook()
    texture = face.texture(frame.image, baked)
    return FaceLook(texture, vertex_colors(face.model, texture))


def write_face_files(
    stem: Path, track: Track, clip: Clip, look: FaceLook, options: MeshOptions
) -> list[Path]:
    """Write ``stem``.glb, and ``stem``.csv if the face model has ARKit's expressions.

    Returns:
        the paths of the files.
    """
    path = stem.with_name(f"{stem.name}.glb")
    motion = motion_of(track.seconds, track.pose, track.expression, track.tracklets, clip.size)
    write_face_animation(path, track.model, track.identity, motion, look, options)
    if not has_shapes(track.model):
        return [path]
    table = stem.with_name(f"{stem.name}.csv")
    moving = track.seconds, track.pose, track.expression
    write_live_link(table, track.model, *moving, float(clip.rate))
    return [path, table]


def face_stem(out: str | os.PathLike, number: int) -> Path:
    """The path of a track's files, without their suffixes."""
    return Path(out) / f"face_{number}"


def track_summary(track: Track, person: ClipPerson) -> dict[str, Any]:
    """Summary of a track, for JSON."""
    return {
        "first_frame": int(track.frames[0]),
        "last_frame": int(track.frames[-1]),
        "frames": len(track),
        "frames_seen": int(track.seen.sum()),
        "tracklets": len(person.tracklets),
        "best_frame": person.best[0],
        "frames_like_somebody_else": person.strange,
        "identity": track.identity.tolist(),
    }


def no_csv_message(model: MorphableModel) -> str:
    """The message for a face model whose expressions a Live Link Face CSV cannot hold."""
    return f"no Live Link Face CSV: face model '{model.name}' has none of ARKit's expressions"
