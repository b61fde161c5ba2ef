import io
import re

import numpy as np
import PIL.Image
import pytest
from skimage import data

from keras_scnn.storage.images import _jpeg_profile, decode_image, decode_plain_jpeg

SCAN = b"\xff\xda"  # a marker of JPEG
PHOTO = data.astronaut()[:151, :202]


def encoded(image: np.ndarray = PHOTO, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 95])
def test_the_pixels_are_those_that_pil_gives(subsampling, progressive, quality):
    file = encoded(subsampling=subsampling, progressive=progressive, quality=quality)
    expected = np.asarray(PIL.Image.open(io.BytesIO(file)))
    np.testing.assert_array_equal(decode_plain_jpeg(file), expected)


def test_gray_becomes_three_equal_channels():
    file = encoded(mode="L")
    expected = np.asarray(PIL.Image.open(io.BytesIO(file)))
    result = decode_plain_jpeg(file)
    assert result.shape == (151, 202, 3)
    np.testing.assert_array_equal(result, np.repeat(expected[..., None], 3, axis=-1))


def test_a_profile_in_parts_is_put_together_by_their_numbers():
    """ICC.1:2022, B.4; Pillow writes 65,519 bytes a part."""
    profile = np.random.default_rng(0).bytes(150_000)
    file = encoded(icc_profile=profile)
    assert PIL.Image.open(io.BytesIO(file)).info["icc_profile"] == profile
    assert _jpeg_profile(file) == profile
    parts = [match.start() for match in re.finditer(b"\xff\xe2..ICC_PROFILE\0", file, re.DOTALL)]
    first, second, third = parts
    swapped = file[:first] + file[second:third] + file[first:second] + file[third:]
    assert _jpeg_profile(swapped) == profile


def test_more_scans_than_a_photo_has_are_refused():
    """1,000 scans of 24 million pixels, 136 kB, took 59 s."""
    file = encoded(progressive=True)
    assert file.count(SCAN) == 10  # libjpeg's jpeg_simple_progression
    last = file.rindex(SCAN)
    with pytest.raises(ValueError, match="110 scans: far more than a photo has"):
        decode_image(file[:-2] + 100 * file[last:-2] + file[-2:])


def test_scans_by_chance_in_a_video_after_the_photo_are_no_scans():
    video = np.random.default_rng(0).bytes(20_000_000)
    assert 200 < video.count(SCAN) < 400
    np.testing.assert_array_equal(decode_image(encoded() + video), decode_image(encoded()))


def turned() -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(exif=exif)


def without_adobes_segment() -> bytes:
    """CMYK, with components named 1 to 4, as those of YCbCr are (ITU-T T.81, B.2.2)."""
    file = encoded(mode="CMYK")
    at = file.index(b"\xff\xee")
    assert file[at + 4 : at + 9] == b"Adobe"
    bare = bytearray(file[:at] + file[at + 2 + int.from_bytes(file[at + 2 : at + 4], "big") :])
    frame, scan = bare.index(b"\xff\xc0"), bare.index(b"\xff\xda")
    bare[frame + 10 : frame + 20 : 3] = bare[scan + 5 : scan + 13 : 2] = bytes([1, 2, 3, 4])
    return bytes(bare)


@pytest.mark.parametrize(
    "file",
    [
        *(turned(), encoded(mode="CMYK"), without_adobes_segment(), encoded()[:-300]),
        *(encoded()[:200], b"", b"\xff\xd8\xff\xd9"),
    ],
    ids=["EXIF", "CMYK", "CMYK, not Adobe's", "cut", "header", "empty", "nothing in it"],
)
def test_unusual_files_are_left_to_pillow(file):
    assert decode_plain_jpeg(file) is None


def test_a_cut_file_is_an_error_and_a_turned_one_is_turned():
    with pytest.raises(ValueError, match="truncated"):
        decode_image(encoded()[:-300])
    assert decode_image(turned()).shape == (202, 151, 3)


def test_random_damage_gives_pixels_or_a_value_error():
    rng = np.random.default_rng(0)
    whole = np.frombuffer(encoded(), np.uint8)
    for _ in range(200):
        damaged = whole.copy()
        damaged[rng.integers(2, len(whole), 6)] = rng.integers(0, 256, 6)
        try:
            result = decode_image(damaged.tobytes())
        except ValueError:
            continue
        assert result.ndim == 3 and result.shape[2] == 3 and result.dtype == np.uint8
