"""Video files to frames: formats, times, turned pictures, and what is wrong with files."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clip_files import BT601, BT709, luma_and_differences, turn, write_clip, write_sound

from keras_scnn.storage.guard import FileError
from keras_scnn.video.clip import open_clip
from keras_scnn.video.run import _Run

FRAMES = 30


def pictures(count: int = FRAMES, height: int = 48, width: int = 80) -> list[np.ndarray]:
    """Gray levels that rise by the frame, with a green corner at the top left."""
    images = [np.full((height, width, 3), 20 + 7 * i, np.uint8) for i in range(count)]
    for image in images:
        image[: height // 4, : width // 4] = (0, 255, 0)
    return images


def level(image: np.ndarray) -> int:
    """The number of a picture, by its gray in the middle."""
    middle = image[image.shape[0] // 2, image.shape[1] // 2]
    return round((float(middle.mean()) - 20) / 7)


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {"bf": "2", "g": "10"}),
        ("a.mkv", "libx264", {"bf": "2", "g": "300"}),
        ("a.webm", "libvpx-vp9", {"deadline": "realtime"}),
        ("a.avi", "mpeg4", {"bf": "0", "b": "9000000"}),
        ("b.avi", "libx264", {"bf": "2"}),  # its time stamps are of the order of storage
        ("a.mov", "mpeg4", {"bf": "2", "g": "12", "b": "9000000"}),
        ("a.mpg", "mpeg1video", {}),
    ],
)
def test_frames_have_one_number_however_they_are_reached(tmp_path, name, codec, options):
    clip = open_clip(write_clip(tmp_path / name, pictures(), codec=codec, options=options))
    assert (len(clip), clip.size, clip.rate, clip.missing_seconds) == (FRAMES, (80, 48), 25, 0)
    whole = list(clip.frames())
    assert [frame.number for frame in whole] == list(range(FRAMES))
    assert [level(frame.image) for frame in whole] == list(range(FRAMES))
    np.testing.assert_allclose([frame.seconds for frame in whole], np.arange(FRAMES) / 25)
    for start, stop in ((0, 1), (7, 9), (22, 26), (29, None)):
        part = list(clip.frames(start, stop))
        assert [frame.number for frame in part] == list(range(start, stop or FRAMES))
        assert all(np.array_equal(f.image, whole[f.number].image) for f in part)


@pytest.mark.parametrize("name", ["a.mpg", "a.vob"])
def test_a_program_stream_has_the_same_frames_from_its_middle_on(tmp_path, name):
    """FFmpeg guesses time stamps after seeking in one: from its middle on it had other frames."""
    bits = np.arange(60)[:, None] >> np.arange(8) & 1
    images = [np.tile(np.uint8(60 + 140 * row).repeat(16)[:, None], (96, 1, 3)) for row in bits]
    options = {"bf": "2", "g": "12"}
    clip = open_clip(write_clip(tmp_path / name, images, codec="mpeg2video", options=options))
    for start in range(len(images)):
        frame = next(clip.frames(start, start + 1))
        shown = frame.image[48, 8::16].mean(axis=1) > 130
        assert (frame.number, shown.tolist()) == (start, bits[start].astype(bool).tolist())


def test_a_name_with_a_colon_is_a_file_and_no_address(tmp_path, monkeypatch):
    write_clip(tmp_path / "a.mp4", pictures(2)).rename(tmp_path / "12:30.mp4")
    monkeypatch.chdir(tmp_path)
    clip = open_clip(Path("12:30.mp4"))
    assert len(list(clip.frames())) == 2
    assert not list(clip.frames(2)) and not list(clip.frames(1, 1))


def test_a_list_of_files_is_no_video(tmp_path):
    write_clip(tmp_path / "b.mp4", pictures(2))
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile b.mp4\n")
    with pytest.raises(ValueError, match=r"a\.mp4: a list of files, not a video"):
        open_clip(tmp_path / "a.mp4")


def test_a_clip_whose_sound_is_longer_is_whole(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000)
        for image in pictures(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
        for i in range(30):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
            silence.sample_rate, silence.pts = 8000, 800 * i
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
    assert open_clip(path).missing_seconds == 0


def test_a_clip_whose_last_frame_is_held_is_whole(tmp_path):
    """As in recordings of a screen: the last of ten frames lasts three seconds."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        packets = []
        for image in pictures(10):
            packets += stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24"))
        packets += stream.encode()
        packets[-1].duration = int(3 / packets[-1].time_base)
        container.mux(packets)
    with av.open(str(path)) as container:
        assert container.duration / 1e6 == pytest.approx(9 / 25 + 3, abs=0.01)
    clip = open_clip(path)
    assert (len(clip), clip.missing_seconds) == (10, 0)


def test_a_hole_in_a_clip_of_constant_rate_is_a_failure(tmp_path):
    """As in an incomplete download: 24 frames of 1/25 s are missing after the tenth."""
    seconds = [i / 25 for i in [*range(10), *range(34, 54)]]
    clip = open_clip(write_clip(tmp_path / "a.mkv", pictures(30), seconds))
    ((start, length),) = clip.gaps
    assert (start, length) == pytest.approx((10 / 25, 24 / 25), abs=1e-3)
    lines = _Run._failures(SimpleNamespace(clip=clip), len(clip))
    assert lines == (f"{clip.path}: 1.0 s from 0.4 s on are missing",)


@pytest.mark.parametrize(
    "seconds",
    [
        [i / 25 for i in range(30) if i not in (7, 19)],  # frames that a camera left out
        np.cumsum([0, 2, 0.04, 0.04, 3, 0.1, 1, 0.04, 2.5, 0.6]).tolist(),  # a screen at rest
        [0.0],
        [0.0, 2.0],
    ],
)
def test_other_clips_have_no_hole(tmp_path, seconds):
    clip = open_clip(write_clip(tmp_path / "a.mkv", pictures(len(seconds)), seconds))
    assert clip.gaps == []


def test_a_variable_frame_rate_keeps_its_times(tmp_path):
    seconds = [0.0, 0.04, 0.08, 0.5, 0.52, 0.56, 2.0, 2.04]
    clip = open_clip(write_clip(tmp_path / "a.mp4", pictures(8), seconds))
    np.testing.assert_allclose(clip.seconds, seconds, atol=1e-4)
    assert [level(frame.image) for frame in clip.frames(5)] == [5, 6, 7]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("intervals", "rate"),
    [([1 / 30] * 9, 30), ([1 / 30] * 8 + [2.0], 30), ([0.1, 0.1, 0.02, 0.3], 10), ([0.1, 2.0], 10)],
)
def test_the_rate_is_that_of_most_frames(tmp_path, suffix, intervals, rate):
    """A container's header may hold the rate that its writer was set to, 25 here."""
    seconds = np.cumsum([0.0, *intervals])
    clip = open_clip(write_clip(tmp_path / f"a{suffix}", pictures(len(seconds)), seconds))
    assert float(clip.rate) == pytest.approx(rate, rel=0.002)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_a_picture_is_turned_and_mirrored_as_players_show_it(tmp_path, quarters, mirrored):
    matrix = np.linalg.matrix_power([[0, 1], [-1, 0]], quarters) @ np.diag(
        [-1 if mirrored else 1, 1]
    )
    (a, b), (c, d) = matrix.tolist()
    path = write_clip(tmp_path / "a.mp4", pictures(2))
    clip = open_clip(turn(path, (a, b, 0, c, d, 0, 0, 0, 1)))
    assert clip.size == ((48, 80) if quarters % 2 else (80, 48))
    right, down = [-1, -1] @ matrix  # of the middle, where the stored top left corner is shown
    image = next(clip.frames()).image.astype(int)
    corner = image[-6 if down > 0 else 5, -6 if right > 0 else 5]
    assert corner[1] > 150 > 100 > corner[0]
    others = image[[5, 5, -6, -6], [5, -6, 5, -6]]
    assert (others[:, 1] - others[:, 0] > 100).sum() == 1


def test_a_picture_is_turned_as_the_file_says(tmp_path):
    clip = open_clip(turn(write_clip(tmp_path / "a.mp4", pictures(2))))
    assert clip.size == (48, 80)
    image = next(clip.frames()).image
    assert image.shape == (80, 48, 3)  # a quarter clockwise: top left comes to top right
    assert image[5, -5, 1] > 200 and image[5, -5, 0] < 60 and image[5, 5, 1] < 60


def test_metadata_may_be_in_any_encoding(tmp_path):
    path = write_clip(tmp_path / "a.mp4", pictures(3))
    content = path.read_bytes()
    assert b"Lavf" in content  # the name of the muxer
    path.write_bytes(content.replace(b"Lavf", b"L\xe9vf"))  # not UTF-8
    assert len(open_clip(path)) == 3


def test_pixels_that_are_not_square_become_square(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = 2
        for image in pictures(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    clip = open_clip(path)
    assert clip.size == (160, 48) and next(clip.frames()).image.shape == (48, 160, 3)


INTERLACED = {"x264-params": "tff=1", "crf": "8"}


@pytest.mark.parametrize("height", [48, 52])
def test_of_an_interlaced_frame_one_field_is_shown(tmp_path, height):
    """A bar moves between the fields; the frame's lines would show it at both places in turn."""
    images = []
    for i in range(6):
        both = np.full((2, height, 80, 3), 40, np.uint8)
        for field in range(2):
            both[field, :, 8 * i + 16 * field : 8 * i + 16 * field + 8] = 220
        images.append(np.where(np.arange(height)[:, None, None] % 2, both[1], both[0]))
    clip = open_clip(write_clip(tmp_path / "a.mp4", images, options=INTERLACED))
    for i, frame in enumerate(clip.frames()):
        assert frame.image.shape == (height, 80, 3)
        np.testing.assert_allclose(frame.image[:, 8 * i + 2 : 8 * i + 6], 220, atol=12)
        np.testing.assert_allclose(frame.image[:, 8 * i + 18 : 8 * i + 22], 40, atol=12)
    (frame,) = clip.frames(3, 4)
    assert np.array_equal(frame.image, list(clip.frames())[3].image)


def test_lines_of_an_interlaced_frame_stay_where_they_are(tmp_path):
    ramp = np.repeat(np.linspace(20, 230, 96).astype(np.uint8)[:, None, None], 80, axis=1)
    images = [np.repeat(ramp, 3, axis=2)] * 3
    clips = [
        open_clip(write_clip(tmp_path / name, images, options=options))
        for name, options in (("a.mp4", INTERLACED), ("b.mp4", {"crf": "8"}))
    ]
    first, second = (next(clip.frames()).image.astype(int) for clip in clips)
    difference = first - second  # of half a line, 1.1 gray levels, in the mean, if it were moved
    assert np.abs(difference).max() <= 4 and abs(difference[8:-8].mean()) < 0.3


@pytest.mark.parametrize(
    ("height", "shares", "named", "options"),
    [
        (480, BT601, None, {}),
        (720, BT709, None, {}),
        (480, BT709, 1, {}),
        (720, BT601, 6, {}),
        (720, BT709, None, INTERLACED),
        (480, BT601, None, INTERLACED),
        (720, BT601, 6, INTERLACED),
    ],
)
def test_colors_are_those_that_players_show(tmp_path, height, shares, named, options):
    """As the file names them (ITU-T H.273, table 4); else BT.601 up to standard definition, and
    BT.709 above. Skin was darker by 9 in high definition.
    """
    skin = (200, 120, 100)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={**options, "crf": "1"})
        stream.height, stream.width, stream.pix_fmt = height, 64, "yuv420p"
        frame = av.VideoFrame(64, height, "yuv420p")
        if named:
            frame.colorspace = stream.codec_context.colorspace = named
        for plane, value in zip(frame.planes, luma_and_differences(skin, shares), strict=True):
            plane.update(bytes([round(value)]) * plane.buffer_size)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux([*stream.encode(frame), *stream.encode()])
    (frame,) = open_clip(tmp_path / "a.mp4").frames()
    np.testing.assert_allclose(frame.image[height // 2, 32], skin, atol=3)


def test_a_file_that_is_cut_off_gives_what_is_there_and_says_what_is_missing(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (48, 80, 3), np.uint8) for _ in range(50)]
    path = write_clip(tmp_path / "a.mp4", images, faststart=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    clip = open_clip(path)
    assert 10 < len(clip) < 40
    assert clip.missing_seconds == pytest.approx(2 - len(clip) / 25, abs=0.05)
    assert len(list(clip.frames())) >= len(clip) - 1


def test_a_file_that_is_cut_off_within_its_header_is_named(tmp_path):
    """Before the codec's description (stsd: ISO/IEC 14496-12, 8.5.2)."""
    path = write_clip(tmp_path / "a.mp4", pictures(2), faststart=True)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"stsd")])
    with pytest.raises(
        FileError, match=r"a.mp4: its video has no readable codec; was the file cut"
    ):
        open_clip(path)


def test_damaged_frames_are_left_out_and_the_rest_keeps_its_numbers(tmp_path):
    rng = np.random.default_rng(0)
    images = [np.uint8(i * 7 + rng.integers(0, 20, (48, 80, 3))) for i in range(30)]
    path = write_clip(tmp_path / "a.mkv", images, codec="ffv1", options={"slicecrc": "1"})
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(content)
    clip = open_clip(path)
    numbers = [frame.number for frame in clip.frames()]
    assert numbers == sorted(set(numbers)) and len(numbers) > 10 and numbers[-1] < 30


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp4", b"no video", "not a video that can be read, or damaged: moov atom not found"),
        ("a.mkv", b"", "not a video that can be read, or damaged"),
        ("a.webm", b"\x1aE\xdf\xa3" + bytes(300), "not a video that can be read, or damaged"),
    ],
)
def test_files_that_are_not_videos_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=f"{name}: {message}"):
        open_clip(tmp_path / name)


def test_a_file_that_is_not_there_or_has_no_picture_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a.mp4: no such file; expected a video"):
        open_clip(tmp_path / "a.mp4")
    with pytest.raises(IsADirectoryError, match=f"{tmp_path.name}: is a folder; expected a video"):
        open_clip(tmp_path)
    with pytest.raises(ValueError, match=r"b.mp4: no video in it, only audio"):
        open_clip(write_sound(tmp_path / "b.mp4"))


def test_frames_too_large_for_the_file_are_refused(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", pictures(2))
    monkeypatch.setattr("keras_scnn.video.clip.FREE_PIXELS", 1000)
    monkeypatch.setattr("keras_scnn.video.clip.MAX_PIXELS_PER_BYTE", 0.1)
    with pytest.raises(ValueError, match=r"a.mp4: frames of 80 x 48 px, more than a file of this"):
        open_clip(path)


def test_a_stream_that_changes_its_size_gives_frames_of_one(tmp_path):
    """MPEG-TS repeats its headers, so files put one after the other are a file."""
    parts = [
        write_clip(tmp_path / name, pictures(10, *size), [s / 25 for s in range(start, start + 10)])
        for name, size, start in (("a.ts", (48, 80), 0), ("b.ts", (96, 160), 10))
    ]
    path = tmp_path / "c.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    images = [frame.image for frame in open_clip(path).frames()]
    assert len(images) >= 18 and {image.shape for image in images} == {(48, 80, 3)}
    assert images[-1][5, 5, 1] > 200 and images[-1][5, 5, 0] < 60


def test_a_video_without_frames_is_named(tmp_path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 48, "yuv420p"
        container.start_encoding()
    with pytest.raises(ValueError, match=r"a.avi: no frame in it; was it cut off"):
        open_clip(path)
