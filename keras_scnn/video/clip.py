"""Read the frames of video files with PyAV (FFmpeg's libraries; extra 'video').

Not with OpenCV's ``VideoCapture``, although OpenCV is required anyway: its time stamps are wrong
for variable frame rates, it takes a damaged frame for the end of the file, and it cannot write
H.264.

Frames are numbered in display order by their time stamps, so that a frame has the same number, and
the same image, whether the file is read from its start or from the middle.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from keras_scnn.storage.guard import FileError, existing_file, reading
from keras_scnn.video.hdr import sdr_from_hdr

if TYPE_CHECKING:
    import av

WHAT = "a video that can be read"
# Pixels of a frame: allowed in any file, at most, and per byte of the file between these. 4K video
# has 8.8 million, 8K 35 million; a small file that declares more is an attack.
FREE_PIXELS, MAX_PIXELS, MAX_PIXELS_PER_BYTE = 9_000_000, 50_000_000, 256
HD_LINES = 720  # with at least this height, a picture of unspecified color space is in BT.709
BT709, UNSPECIFIED, BT601 = 1, 2, 5  # matrix coefficients (ITU-T H.273, table 4)
LIMITED, FULL = 1, 2  # ranges of luma: 16 to 235, or 0 to 255
CONSTANT = 0.9  # share of intervals equal to the usual one, from which on the rate is constant
LEAST_GAP = 0.5  # s beyond the usual interval
SEEK_MARGIN = Fraction(1, 2)  # s; some files' indexes are off by a few frames


def require_av() -> None:
    """Raise an ImportError that tells what to install if PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "video needs PyAV, which is not installed: pip install '.[video]'"
        ) from error


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a clip.

    Attributes:
        number: from 0, in display order.
        seconds: since the first frame.
        image: (H, W, 3) uint8 RGB, upright, with square pixels.
    """

    number: int
    seconds: float
    image: np.ndarray


@dataclass(frozen=True, eq=False)
class Clip:
    """A video file, opened by ``open_clip``.

    Attributes:
        path: of the file.
        stamps: (n,) int64 increasing time stamps of the frames, in units of ``time_base``; n above
            0.
        time_base: s.
        rate: frames per second: the declared rate, or that of most frames if they contradict it.
        size: width and height, px, of the upright frames.
        pixel_aspect: width over height of a stored pixel.
        is_counted: whether frames are numbered by counting decoded frames, because the file has
            only decoding time stamps (AVI with B-frames); every read then starts at frame 0.
        missing_seconds: s of the declared duration after the last frame; 0 for a complete file.
        can_seek: whether reads may start in the middle. False for MPEG program streams (.mpg,
            .vob): few of their frames have time stamps, and after seeking the others are guessed
            wrong.
    """

    path: Path
    stamps: np.ndarray
    time_base: Fraction
    rate: Fraction
    size: tuple[int, int]
    pixel_aspect: float = 1.0
    is_counted: bool = False
    missing_seconds: float = 0.0
    can_seek: bool = True

    def __len__(self) -> int:
        return len(self.stamps)

    def part(self, number: int, size: int) -> tuple[int, int]:
        """The first frame of a part, of ``size`` frames each, and the first one after the part."""
        return number * size, min((number + 1) * size, len(self))

    @cached_property
    def seconds(self) -> np.ndarray:
        """(n,) float64 times of the frames, s since the first one."""
        return (self.stamps - self.stamps[0]) * float(self.time_base)

    @cached_property
    def gaps(self) -> list[tuple[float, float]]:
        """Gaps without frames: start, in seconds since the first frame, and length in seconds.

        Only in clips whose other frames have a constant rate; at a variable rate a long interval
        is a still picture. Gaps of half a second or less are left out.
        """
        steps = np.diff(self.seconds)
        if len(steps) < 2:
            return []
        usual = float(np.median(steps))
        slack = max(0.1 * usual, 1.5 * float(self.time_base))  # stamps are rounded
        if (np.abs(steps - usual) < slack).mean() < CONSTANT:
            return []
        places = np.flatnonzero(steps - usual > LEAST_GAP)
        return [(float(self.seconds[i]) + usual, float(steps[i]) - usual) for i in places]

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """The frames from ``start`` to ``stop``, without those that cannot be decoded.

        Args:
            start, stop: numbers of frames, ``stop`` excluded; None: to the end.

        Raises:
            FileError: the file can no longer be opened.
        """
        stop = len(self) if stop is None else min(stop, len(self))
        if not 0 <= start < stop:
            return
        with reading(self.path, WHAT):
            for number, frame in self._numbered(start):
                if number >= stop:
                    return
                if number >= start:
                    image = upright(frame, self.pixel_aspect)
                    if image.shape[1::-1] != self.size:  # streams may change their size
                        image = cv2.resize(image, self.size, interpolation=cv2.INTER_AREA)
                    yield Frame(number, float(self.seconds[number]), image)

    def _numbered(self, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with increasing numbers, from ``start`` or from an earlier one."""
        last = -1
        for frame in self._decoded(start):
            number = last + 1 if self.is_counted else self._number(frame)
            if number > last:
                last = number
                yield number, frame

    def _number(self, frame: av.VideoFrame) -> int:
        stamp = frame.dts if frame.pts is None else frame.pts
        return -1 if stamp is None else int(np.searchsorted(self.stamps, stamp, "right")) - 1

    def _decoded(self, start: int) -> Iterator[av.VideoFrame]:
        """All frames from a little before ``start``, or all of the file."""
        if start and self.can_seek and not self.is_counted:
            with _opened(self.path) as (container, stream):
                frames = self._sought(container, stream, start)
                first = next(frames, None)
                if first is not None and self._number(first) <= start:
                    yield first
                    yield from frames
                    return
        with _opened(self.path) as (container, stream):
            yield from _decode(container, stream)

    def _sought(self, container, stream, start: int) -> Iterator[av.VideoFrame]:
        """The frames after seeking to ``start``; none if the file cannot be seeked."""
        import av

        target = int(self.stamps[start] - SEEK_MARGIN / self.time_base)
        try:
            container.seek(max(target, int(self.stamps[0])), stream=stream, backward=True)
        except av.FFmpegError:
            return iter(())
        return _decode(container, stream)


def open_clip(path: Path) -> Clip:
    """Open a video file: read its index, and decode only its first frame.

    Args:
        path: of a file in any format that FFmpeg reads.

    Raises:
        FileNotFoundError: there is no such file.
        FileError: it is not a video, or damaged.
        ValueError: it has no video stream, or no frame that can be decoded; or its frames are too
            large.
        ImportError: PyAV is missing.
    """
    require_av()
    existing_file(path, "a video")
    with reading(path, WHAT), _opened(path) as (container, stream):
        stored, end = _stamps(container, stream)
        stamps = np.unique(stored)
        if not len(stamps):
            raise ValueError(f"{path}: no frame in it; was it cut off, or is the recording empty?")
        base, length = Fraction(stream.time_base), int(stamps[-1] - stamps[0])
        rate = _rate(stamps, base, Fraction(stream.average_rate or 0))
        in_order, reorders = bool((np.diff(stored) > 0).all()), stream.codec_context.has_b_frames
        aspect = _aspect(stream)
        lasting = max(length * base + 1 / rate, (end - int(stamps[0])) * base)
        missing = _declared(container, stream) - float(lasting)
        can_seek = container.format.name != "mpeg"  # a program stream (ISO/IEC 13818-1)
    least = 0.5 + 0.01 * float(length * base)  # audio may be a little longer
    missing = missing if missing > least else 0.0
    size, is_counted = _size(path, aspect), in_order and reorders
    return Clip(path, stamps, base, rate, size, aspect, is_counted, missing, can_seek)


def _rate(stamps: np.ndarray, base: Fraction, declared: Fraction) -> Fraction:
    """Frames per second: the declared rate, unless it is 0 or the usual interval contradicts it."""
    if len(stamps) < 2:
        return (declared or Fraction(25)).limit_denominator(1001)
    intervals = np.diff(stamps)
    middle = np.quantile(intervals, 0.5, method="lower")
    usual = intervals[np.abs(intervals - middle) <= 1]  # stamps are rounded
    interval = Fraction(int(usual.sum()), len(usual)) * base
    if not declared or abs(1 / declared - interval) > base:
        return (1 / interval).limit_denominator(1001)
    return declared.limit_denominator(1001)


def _aspect(stream) -> float:
    """Width over height of a pixel; 1 for implausible values, which are from damaged files."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 0.25 <= aspect <= 4 else 1.0


def _size(path: Path, pixel_aspect: float) -> tuple[int, int]:
    """Width and height of the first frame, upright."""
    with reading(path, WHAT), _opened(path) as (container, stream):
        first = next(_decode(container, stream), None)
        if first is None:
            raise ValueError(f"{path}: none of its frames can be decoded")
        height, width = upright(first, pixel_aspect).shape[:2]
    return width, height


def upright(frame: av.VideoFrame, pixel_aspect: float = 1.0) -> np.ndarray:
    """(H, W, 3) uint8 RGB: rotated and mirrored by the display matrix, with square pixels."""
    image = _deinterlaced(frame) if frame.interlaced_frame else _rgb(frame)
    if pixel_aspect != 1:
        width = max(1, round(image.shape[1] * pixel_aspect))
        image = cv2.resize(image, (width, image.shape[0]), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(_as_shown(image, frame))


def _deinterlaced(frame: av.VideoFrame) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of an interlaced frame: the lines of the upper field, and between them
    their means, since the other field shows another time.

    Filters that use the frames around it would give other pixels at the borders of a clip's parts.
    """
    import av

    graph = av.filter.Graph()
    base = Fraction(1, 25)  # required, but without effect
    source = graph.add_buffer(None, frame.width, frame.height, frame.format, time_base=base)
    graph.link_nodes(source, graph.add("field", "top"), graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    upper = _rgb(graph.vpull(), frame.height)
    image = np.repeat(upper, 2, axis=0)[: frame.height]
    image[1:-1:2] = (upper[:-1].astype(np.uint16) + upper[1:] + 1) // 2
    return image


def _rgb(frame: av.VideoFrame, lines: int = 0) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of a stored picture, by its color matrix, range and transfer.

    ``lines`` is the height of the whole frame, if this is a field of it.
    """
    if frame.format.is_rgb or len(frame.format.components) < 3:
        return sdr_from_hdr(frame.to_ndarray(format="rgb24"), frame.color_trc)
    own = frame.colorspace
    if own == UNSPECIFIED:  # as players do
        own = BT709 if (lines or frame.height) >= HD_LINES else BT601
    is_full = frame.color_range == FULL or frame.format.name.startswith("yuvj")
    rgb = frame.reformat(
        format="rgb24",
        src_colorspace=own,
        src_color_range=FULL if is_full else LIMITED,
        dst_color_range=FULL,
    )
    return sdr_from_hdr(rgb.to_ndarray(), frame.color_trc)


def _as_shown(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """The stored picture as players show it, according to the file's display matrix.

    The matrix has rows (a, b, u), (c, d, v), (x, y, w); a stored point (x, y) is shown at (a x +
    c y, b x + d y). ``frame.rotation`` would take a mirrored picture for a rotated one.
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its video stream; FFmpeg's log messages are suppressed."""
    import av

    av.logging.set_level(av.logging.PANIC)
    with _readable(path) as container:
        cover = av.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams:
            kinds = sorted({s.type for s in container.streams}) or ["nothing"]
            raise ValueError(f"{path}: no video in it, only {' and '.join(kinds)}")
        if streams[0].codec_context is None:
            raise FileError(
                f"{path}: its video has no readable codec; was the file cut off, or damaged?"
            )
        _check_pixels(path, streams[0])
        streams[0].codec_context.thread_count = 1  # there is a worker process per core
        yield container, streams[0]


def _check_pixels(path: Path, stream) -> None:
    allowed = min(MAX_PIXELS, MAX_PIXELS_PER_BYTE * path.stat().st_size)
    if stream.width * stream.height > max(allowed, FREE_PIXELS):
        size = f"{stream.width} x {stream.height}"
        raise ValueError(f"{path}: frames of {size} px, more than a file of this size may have")


def _readable(path: Path) -> Any:
    """The opened container."""
    import av

    # Before PyAV 19, metadata that are not UTF-8 are an error by default.
    is_old = int(av.__version__.split(".")[0]) < 19
    options: dict[str, Any] = {"metadata_errors": "replace"} if is_old else {}
    try:
        # In a relative path, FFmpeg takes the text before a colon for a protocol.
        container = av.open(os.path.abspath(path), **options)
    except av.FFmpegError as error:
        why = error.log[-1] if error.log else error.strerror
        raise FileError(f"{path}: not {WHAT}, or damaged: {why}") from error
    if "concat" in container.format.name:
        container.close()
        raise FileError(f"{path}: a list of files, not {WHAT}")
    return container


def _stamps(container, stream) -> tuple[np.ndarray, int]:
    """(n,) time stamps of all frames up to where the file is truncated, in the file's order.

    And the time stamp at which the last one ends, if the file has the frames' durations.
    """
    import av

    stamps, ends = [], []
    try:
        for packet in container.demux(stream):
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.size and stamp is not None and not packet.is_discard:
                stamps.append(stamp)
                ends.append(stamp + (packet.duration or 0))
    except av.FFmpegError:
        pass  # the file is truncated here
    return np.array(stamps, np.int64), max(ends, default=0)


def _decode(container, stream) -> Iterator[av.VideoFrame]:
    """All frames that can be decoded, up to where the file is truncated."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            packet = None
        if packet is None:
            return
        with contextlib.suppress(av.FFmpegError):  # a damaged frame
            yield from packet.decode()


def _declared(container, stream) -> float:
    """The declared duration of the video, s; 0 if the file declares none."""
    import av

    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if len(container.streams) > 1:  # the container's duration is that of its longest stream
        return 0.0
    return 0.0 if container.duration is None else container.duration / av.time_base
