"""The overlay video: a clip with its faces drawn over it, in parts that are joined at the end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from keras_scnn.folders.table import read_columns
from keras_scnn.geometry.camera import project
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruction.drawing import draw_landmarks, draw_mesh
from keras_scnn.storage import atomic_path
from keras_scnn.storage.guard import reading
from keras_scnn.video.clip import BT709, Clip

OPACITY, HIDDEN_OPACITY = 0.6, 0.25
ALBEDOS = ((214, 190, 176), (150, 185, 214), (176, 208, 150), (214, 178, 120), (196, 160, 205))
CODECS = (("libx264", {"crf": "20", "preset": "veryfast", "bf": "0"}), ("mpeg4", {"qscale": "3"}))
OVERLAY, PIXELS = "overlay.mp4", "yuv420p"
MPEG4_DENOMINATORS = 1 << 16  # limit (excluded) of a time base's denominator in MPEG-4


def draw_faces(
    image: np.ndarray,
    model: MorphableModel,
    tracks: Sequence[int],
    posed: np.ndarray,
    landmarks: np.ndarray,
    seen: Sequence[bool],
) -> np.ndarray:
    """A copy of a frame with the meshes and landmarks of m faces drawn over it.

    Args:
        image: (H, W, 3) uint8 RGB.
        model: of the faces.
        tracks: m track numbers, which determine the colors.
        posed: (m, N, 3) vertices: px and depth, image frame.
        landmarks: (m, 68, 3) px and depth, image frame.
        seen: m; a face that was not found in this frame has a fainter mesh and no landmarks.
    """
    image, limit = image.copy(), np.array(image.shape[1::-1])
    for track, vertices, points, is_seen in zip(tracks, posed, landmarks, seen, strict=True):
        low = np.clip(np.floor(vertices[:, :2].min(axis=0)).astype(int) - 1, 0, limit)
        high = np.clip(np.ceil(vertices[:, :2].max(axis=0)).astype(int) + 2, 0, limit)
        if (high <= low).any():
            continue
        around = np.s_[low[1] : high[1], low[0] : high[0]]
        part, albedo = np.ascontiguousarray(image[around]), np.array(ALBEDOS[track % len(ALBEDOS)])
        opacity = OPACITY if is_seen else HIDDEN_OPACITY
        image[around] = draw_mesh(part, model, vertices - [*low, 0], albedo, opacity)
        image = draw_landmarks(image, points) if is_seen else image
    return image


@dataclass(eq=False)
class OverlayJob:
    """Draws and encodes any part of the overlay video.

    Attributes:
        clip: the video.
        table: Parquet file of its tracks.
        folder: of the parts.
        model: the face model.
        part_frames: number of frames per part.
    """

    clip: Clip
    table: Path
    folder: Path
    model: MorphableModel
    part_frames: int

    def make(self, number: int, names: list[str]) -> int:
        """Write one part; returns its number of frames. ``names`` is unused."""
        start, stop = self.clip.part(number, self.part_frames)
        rows = read_columns(self.table, ("frame", start, stop))
        with atomic_path(self.path(number)) as temporary:
            return write_video(
                temporary, self.clip, self.clip.size[::-1], self._drawn(start, stop, rows)
            )

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"part-{number:05d}.mp4"

    def _drawn(self, start: int, stop: int, rows: dict) -> Iterator[tuple[int, np.ndarray]]:
        pose, points = rows["image_from_model"].reshape(-1, 3, 4), rows["landmarks"]
        for frame in self.clip.frames(start, stop):
            own = np.flatnonzero(rows["frame"] == frame.number)
            shapes = self.model.vertices(rows["identity"][own], rows["expression"][own])
            posed, landmarks = project(pose[own], shapes), points[own].reshape(-1, 68, 3)
            about = posed, landmarks, rows["seen"][own].tolist()
            tracks = rows["track"][own].tolist()
            yield frame.number, draw_faces(frame.image, self.model, tracks, *about)


def write_video(
    path: Path, clip: Clip, shape: tuple[int, int], frames: Iterable[tuple[int, np.ndarray]]
) -> int:
    """Write frames with a clip's times: as H.264 if FFmpeg has the encoder, else as MPEG-4.

    Args:
        path: of the MP4 file.
        clip: for the times.
        shape: height and width of the frames; odd ones are padded by one pixel.
        frames: their numbers in the clip, increasing, and their images, (H, W, 3) uint8 RGB.

    Returns:
        the number of frames; if it is 0, the file is empty.

    Raises:
        OSError: the file cannot be written.
    """
    with _writing(path):
        return _encode(path, clip, shape, frames)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Convert FFmpeg's errors to OSErrors."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise OSError(f"{path}: could not be written ({error.strerror})") from error


def _encode(path: Path, clip: Clip, shape: tuple[int, int], frames: Iterable) -> int:
    import av

    codec, options = next((c for c in CODECS if c[0] in av.codecs_available), CODECS[-1])
    count = 0
    with av.open(os.path.abspath(path), "w") as container:
        stream = container.add_stream(codec, rate=clip.rate, options=dict(options))
        stream.height, stream.width = (size + size % 2 for size in shape)
        stream.pix_fmt, stream.codec_context.thread_count = PIXELS, 1
        stream.codec_context.colorspace = BT709
        base = _time_base(clip, codec)
        stream.time_base = stream.codec_context.time_base = base
        for number, image in frames:
            edges = [(0, size % 2) for size in image.shape[:2]]
            image = np.pad(image, [*edges, (0, 0)], mode="edge") if any(map(sum, edges)) else image
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(format=PIXELS, dst_colorspace=BT709)
            frame.time_base = base
            frame.pts = round(int(clip.stamps[number] - clip.stamps[0]) * clip.time_base / base)
            container.mux(stream.encode(frame))
            count += 1
        if count:
            container.mux(stream.encode())
    if not count:
        path.write_bytes(b"")
    return count


def _time_base(clip: Clip, codec: str) -> Fraction:
    """The clip's time base, or 1/60,000 s if that is too fine for MPEG-4."""
    fits = codec != "mpeg4" or clip.time_base.denominator < MPEG4_DENOMINATORS
    return clip.time_base if fits else Fraction(1, 60_000)


def join(parts: Sequence[Path], path: Path) -> None:
    """Concatenate the parts of a video without encoding them again.

    Args:
        parts: files of ``write_video``, in order; empty ones are skipped.
        path: of the joined video.

    Raises:
        FileError: a part is damaged.
        OSError: the file cannot be written.
    """
    import av

    with atomic_path(path) as to, _writing(path), av.open(os.path.abspath(to), "w") as whole:
        stream = None
        for part in (part for part in parts if part.stat().st_size):
            with (
                reading(part, "a part of the overlay; delete it"),
                av.open(os.path.abspath(part)) as container,
            ):
                source = container.streams.video[0]
                if stream is None:
                    stream = whole.add_stream_from_template(source)
                    stream.time_base = source.time_base
                for packet in container.demux(source):
                    if packet.size:
                        packet.stream = stream
                        whole.mux(packet)
