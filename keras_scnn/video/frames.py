"""The faces of single frames: detected, reconstructed and written in independent parts.

A part is a range of frames. Its content depends only on its own frames and the one before, so that
several processes can make parts, and a killed run resumes after the last complete one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from keras_scnn.folders.table import (
    columns,
    joined,
    read_about,
    read_columns,
    vector_sizes,
    write_part,
)
from keras_scnn.meshes.options import MeshOptions, check_unit
from keras_scnn.models.inference import MAX_BATCH
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.settings import DEFAULT_PRESET, check_score, check_types, typed, whole
from keras_scnn.video.clip import Clip, Frame
from keras_scnn.video.shots import change, may_be_cut, thumbnail

PART_FRAMES = 128
THOROUGH_FRAMES = 32  # interval of the search for small faces, which also runs at possible cuts
GROUP_PIXELS = 25_000_000  # frames that wait for the network are limited to 75 MB, or to one frame
FRAME_KEYS = {
    "frame": "number of the frame, from 0, in the order in which frames are shown",
    "seconds": "since the first frame",
    "face": "number of the face in its frame, from 0, highest score first",
}
FRAMES = "frames"


@dataclass(frozen=True)
class ClipSettings:
    """The settings that determine the results.

    Attributes:
        preset: name, folder or URL; a ``Path`` is converted to text.
        tiles: look for small faces too, see ``FaceDetector``.
        min_score: minimum score of a face, between 0 and 1; None: the detector's defaults.
        mesh_options: how the face meshes are written; always as GLB, in meters, with expressions.
        part_frames: number of frames per Parquet file, 1 or more.

    Raises:
        ValueError: ``part_frames`` or ``min_score`` is out of range, ``mesh_options`` have another
            unit or ask for the neutral face, or a value has the wrong type.
    """

    preset: str = DEFAULT_PRESET
    tiles: bool = True
    min_score: float | None = None
    mesh_options: MeshOptions = MeshOptions()
    part_frames: int = PART_FRAMES

    def __post_init__(self) -> None:
        check_types(self, str, bool)  # they must fit JSON
        object.__setattr__(self, "part_frames", whole("part_frames", self.part_frames))
        if self.min_score is not None:
            check_score("min_score", self.min_score)
            object.__setattr__(self, "min_score", float(self.min_score))  # JSON takes no NumPy type
        typed(self.mesh_options, MeshOptions, "mesh_options")
        check_unit(self.mesh_options.unit, ".glb")
        if self.mesh_options.neutral:
            raise ValueError("mesh_options.neutral is for photos; a video moves the expression")


@dataclass(eq=False)
class _DetectionState:
    """The state of detection after some frames of a part.

    Attributes:
        numbers: of the part's decoded frames so far.
        changes: of these frames, see ``shots.change``.
        boxes: the faces in the last frame.
        before: its thumbnail.
    """

    numbers: list[int] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    boxes: list[FaceBox] = field(default_factory=list)
    before: np.ndarray | None = None


@dataclass(eq=False)
class FramesJob:
    """All that a worker process needs to make any part.

    Attributes:
        clip: the video.
        out: folder of the results, with the parts' folder in it.
        settings: of the results.
        about: metadata for each part.
    """

    clip: Clip
    out: Path
    settings: ClipSettings
    about: dict

    def stretch(self, number: int) -> tuple[int, int]:
        """The first frame of a part, and the first one after it."""
        return self.clip.part(number, self.settings.part_frames)

    def make(self, number: int, names: list[str]) -> int:
        """Write one part; returns its number of decoded frames. ``names`` is unused."""
        start, stop = self.stretch(number)
        state, tables = _DetectionState(), []
        for group in self._groups(self._detected(start, stop, state)):
            tables.append(self._table(group))
        preset = self.reconstructor.preset
        layout = preset.layout
        sizes = vector_sizes(layout.n_identity, layout.n_expression, preset.feature_size)
        numbers, damaged = state.numbers, sorted({*range(start, stop)} - {*state.numbers})
        about = {**self.about, "part": number, "frames": numbers, "changes": state.changes}
        failures = [(str(n), "the frame cannot be decoded") for n in damaged]
        table = joined(tables, sizes, FRAME_KEYS)
        write_part(frames_path(self.out, number), table, sizes, about, failures, FRAME_KEYS)
        return len(numbers)

    @cached_property
    def reconstructor(self) -> Reconstructor:
        return Reconstructor.from_preset(self.settings.preset)

    @cached_property
    def _quick(self) -> FaceDetector:
        return self._detector(tiles=False)

    @cached_property
    def _thorough(self) -> FaceDetector:
        return self._detector(self.settings.tiles)

    def _detector(self, tiles: bool) -> FaceDetector:
        score = self.settings.min_score
        return FaceDetector(tiles=tiles) if score is None else FaceDetector(score, score, tiles)

    def _detected(
        self, start: int, stop: int, state: _DetectionState
    ) -> Iterator[tuple[Frame, list[FaceBox]]]:
        """The frames of a part with the boxes of their faces."""
        for frame in self.clip.frames(max(start - 1, 0), stop):
            small = thumbnail(frame.image)
            differs = 0.0 if state.before is None else change(state.before, small)
            state.before = small
            if frame.number < start:
                continue
            state.changes.append(differs)
            first = not state.numbers or may_be_cut(state.changes)
            state.numbers.append(frame.number)
            if first or not (frame.number - start) % THOROUGH_FRAMES:
                near = () if first else state.boxes
                state.boxes = self._thorough.detect(frame.image, near)
            else:
                state.boxes = self._quick.detect(frame.image, state.boxes)
            yield frame, state.boxes

    @staticmethod
    def _groups(frames: Iterator[tuple[Frame, list[FaceBox]]]) -> Iterator[list]:
        """Faces (frame, index, box) for one batch, or from as many frames as may wait."""
        group, pixels = [], 0
        for frame, boxes in frames:
            group += [(frame, i, box) for i, box in enumerate(boxes)]
            pixels += frame.image.size // 3 if boxes else 0
            if len(group) >= MAX_BATCH or pixels >= GROUP_PIXELS:
                yield group
                group, pixels = [], 0
        if group:
            yield group

    def _table(self, group: list[tuple[Frame, int, FaceBox]]) -> dict[str, np.ndarray | list]:
        images = [frame.image for frame, _, _ in group]
        faces = self.reconstructor.reconstruct_many(images, [box for _, _, box in group])
        return {
            "frame": np.array([frame.number for frame, _, _ in group], np.int32),
            "seconds": np.array([frame.seconds for frame, _, _ in group]),
            "face": np.array([i for _, i, _ in group], np.int32),
            **columns(faces, scored=True),
        }


def frames_path(out: Path, number: int) -> Path:
    """The Parquet file of a part."""
    return out / FRAMES / f"part-{number:05d}.parquet"


def seen_frames(out: Path, parts: int) -> Iterator[tuple[int, float, dict[str, np.ndarray]]]:
    """The decoded frames of a clip in order, from its parts.

    Yields:
        the frame's number; its change from the previous one, see ``shots.change``; and the table
        of its m faces, columns (m, ...) by name.
    """
    for part in range(parts):
        path = frames_path(out, part)
        table, about = read_columns(path), read_about(path)
        starts = np.searchsorted(table["frame"], about["frames"])
        stops = np.searchsorted(table["frame"], about["frames"], side="right")
        rows = zip(about["frames"], about["changes"], starts, stops, strict=True)
        for number, differs, start, stop in rows:
            yield number, differs, {name: values[start:stop] for name, values in table.items()}
