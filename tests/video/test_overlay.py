import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest
from clip_files import BT709, luma_and_differences, write_clip

from keras_scnn.geometry.camera import compose, project
from keras_scnn.video import overlay
from keras_scnn.video.clip import open_clip
from keras_scnn.video.overlay import draw_faces, join, write_video


@pytest.mark.parametrize(("height", "width"), [(48, 80), (47, 81)])
def test_parts_joined_are_the_clip_at_its_own_times(tmp_path, height, width):
    images = [np.full((48, 80, 3), 20 + 10 * i, np.uint8) for i in range(12)]
    times = [0, 0.04, 0.08, 0.2, 0.24, 0.28, 0.32, 0.9, 0.94, 0.98, 1.0, 1.04]
    clip = open_clip(write_clip(tmp_path / "a.mp4", images, times))
    large = [np.full((height, width, 3), 20 + 10 * i, np.uint8) for i in range(12)]
    parts = []
    for start in (0, 5, 10):
        parts.append(tmp_path / f"part-{start}.mp4")
        frames = [(i, large[i]) for i in range(start, min(start + 5, 12))]
        assert write_video(parts[-1], clip, (height, width), iter(frames)) == len(frames)
    nothing = tmp_path / "none.mp4"  # a stretch in which no frame can be decoded
    assert write_video(nothing, clip, (height, width), iter(())) == 0
    join([nothing, *parts, nothing], tmp_path / "whole.mp4")
    whole = open_clip(tmp_path / "whole.mp4")
    np.testing.assert_allclose(whole.seconds, times, atol=1e-3)
    assert whole.size == (80 + 2 * (width > 80), 48)
    levels = [frame.image[20, 20].mean() for frame in whole.frames()]
    np.testing.assert_allclose(levels, 20 + 10 * np.arange(12), atol=4)
    with av.open(str(tmp_path / "whole.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize("height", [480, 720])
def test_colors_are_named_in_the_file_so_that_players_show_them(tmp_path, height):
    """Players take large pictures that do not name their colors for BT.709, others for BT.601."""
    skin = (200, 120, 100)
    images = [np.full((height, 64, 3), skin, np.uint8)] * 2
    clip = open_clip(write_clip(tmp_path / "a.mp4", images))
    write_video(tmp_path / "part.mp4", clip, (height, 64), enumerate(images))
    join([tmp_path / "part.mp4"], tmp_path / "whole.mp4")
    with av.open(str(tmp_path / "whole.mp4")) as container:
        frame = next(container.decode(video=0))
        assert frame.colorspace == 1  # BT.709 (ITU-T H.273, table 4)
    stored = [np.frombuffer(plane, np.uint8)[plane.line_size + 9] for plane in frame.planes]
    np.testing.assert_allclose(stored, luma_and_differences(skin, BT709), atol=2)


def test_without_h264_fine_time_stamps_are_rounded(tmp_path, monkeypatch):
    monkeypatch.setattr(overlay, "CODECS", overlay.CODECS[1:])
    times = np.array([0, 0.04, 0.08, 0.2])
    source = write_clip(tmp_path / "a.mp4", [np.full((48, 80, 3), 90, np.uint8)] * 4, times)
    clip = dataclasses.replace(
        open_clip(source),
        stamps=np.round(times * 90_000).astype(np.int64),
        time_base=Fraction(1, 90_000),  # MPEG-4 allows 65,535 ticks a second at most
    )
    frames = [(i, np.full((48, 80, 3), 90, np.uint8)) for i in range(4)]
    assert write_video(tmp_path / "b.mp4", clip, (48, 80), iter(frames)) == 4
    np.testing.assert_allclose(open_clip(tmp_path / "b.mp4").seconds, times, atol=1e-4)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_faces_are_drawn_where_they_are_and_in_colors_of_their_own(open_face):
    image = np.zeros((200, 300, 3), np.uint8)
    centers = np.array([[80.0, 100, 0], [220.0, 100, 0], [900.0, 100, 0], [0.0, 0, 0]])
    cameras = compose(np.stack([np.eye(3)] * 4), np.full(4, 0.5), centers)
    posed = project(cameras, np.stack([open_face.mean] * 4))
    landmarks = project(cameras, np.stack([open_face.landmarks()] * 4))
    seen = [True, True, True, False]
    drawn = draw_faces(image, open_face, [0, 1, 2, 3], posed, landmarks, seen)
    assert not image.any()
    left, right = drawn[80:120, 60:100].astype(float), drawn[80:120, 200:240].astype(float)
    assert left.mean() > 60 and right.mean() > 60
    assert left[..., 0].mean() > left[..., 2].mean() and right[..., 2].mean() > right[..., 0].mean()
    assert not drawn[:, 145:155].any()
    assert 10 < drawn[0:20, 0:20].mean() < 60  # the last one reaches out, and is faint
