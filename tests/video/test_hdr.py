"""HDR pictures become sRGB."""

from fractions import Fraction

import av
import numpy as np
import pytest

from keras_scnn.video.clip import open_clip
from keras_scnn.video.hdr import HLG, PQ, sdr_from_hdr

SKIN = (200, 120, 100)  # sRGB
STEP = {PQ: 4, HLG: 3}  # of 255: one 8-bit step of the signal, rounded twice
# ITU-R BT.2087-0, section 2: linear BT.2020 of linear BT.709
BT2020_FROM_BT709 = [[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]]


def srgb(light: float) -> float:
    """IEC 61966-2-1, above its linear part."""
    return 255 * (1.055 * light ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("transfer, white", [(PQ, 0.58), (HLG, 0.75)])
def test_grays_have_the_brightness_that_the_standard_names(transfer, white):
    """ITU-R BT.2408-7, table 1: diffuse white has 203 cd/m² and a gray card 26, at 38 % of both."""
    signals = np.uint8(np.round(255 * np.array([0, 0.38, white, 1])))
    image = np.repeat(signals[:, None], 3, axis=1)[None]
    shown = sdr_from_hdr(image, transfer)
    assert shown.shape == (1, 4, 3) and shown.dtype == np.uint8
    np.testing.assert_allclose(shown[0, 0], 0, atol=1)
    np.testing.assert_allclose(shown[0, 1], srgb(26 / 203), atol=3)
    np.testing.assert_allclose(shown[0, 2], 255, atol=3)
    np.testing.assert_array_equal(shown[0, 3], 255)  # highlights are clipped


@pytest.mark.parametrize("transfer", [None, 1, 2, 13])  # BT.709, unspecified, sRGB
def test_other_pictures_stay_as_they_are(transfer):
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert sdr_from_hdr(image, transfer) is image


def signal_of(color, transfer: int) -> np.ndarray:
    """PQ's or HLG's R'G'B' of an sRGB color, white at 203 cd/m²: ITU-R BT.2100-2, tables 4 and 5.

    The forward functions, where the module has the inverse ones.
    """
    light = BT2020_FROM_BT709 @ ((np.array(color) / 255 + 0.055) / 1.055) ** 2.4 * 203
    if transfer == PQ:
        y = (light / 10_000) ** (2610 / 16384)
        return ((3424 / 4096 + 2413 / 128 * y) / (1 + 2392 / 128 * y)) ** (2523 / 32)
    luminance = light @ [0.2627, 0.6780, 0.0593]
    scene = light / 1000 * (luminance / 1000) ** (1 / 1.2 - 1)
    log = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), log)


@pytest.mark.parametrize("transfer", [PQ, HLG])
@pytest.mark.parametrize("color", [SKIN, (60, 90, 180), (40, 160, 60)])
def test_colors_are_those_of_an_sdr_picture(color, transfer):
    image = np.uint8(np.round(255 * signal_of(color, transfer)))[None, None]
    np.testing.assert_allclose(sdr_from_hdr(image, transfer)[0, 0], color, atol=STEP[transfer])


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_clip_in_hdr_has_the_colors_of_its_sdr_copy(tmp_path, transfer):
    """As phones record it: 10 bits, luma and chroma of BT.2020. It was dark and pale."""
    red, green, blue = signal_of(SKIN, transfer)
    luma = 0.2627 * red + 0.6780 * green + 0.0593 * blue
    planes = 64 + 876 * luma, 512 + 896 * (blue - luma) / 1.8814, 512 + 896 * (red - luma) / 1.4746
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        frame = av.VideoFrame(64, 48, "yuv420p10le")
        for owner in (frame, stream.codec_context):
            owner.colorspace, owner.color_primaries, owner.color_trc = 9, 9, transfer
        for plane, value in zip(frame.planes, planes, strict=True):
            plane.update(np.full(plane.buffer_size // 2, round(value), "<u2").tobytes())
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux([*stream.encode(frame), *stream.encode()])
    (frame,) = open_clip(tmp_path / "a.mkv").frames()
    np.testing.assert_allclose(frame.image[24, 32], SKIN, atol=STEP[transfer])
