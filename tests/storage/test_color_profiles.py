"""Photos whose ICC profile is not sRGB."""

import io

import numpy as np
import PIL.ExifTags
import PIL.Image
import pytest
from icc_profiles import cmyk_profile, gray_profile, rgb_profile, xyz_of

from keras_scnn.storage import images
from keras_scnn.storage.images import decode_image, decode_plain_jpeg

# Skin, a leaf, the sky, and gray.
COLORS = np.array([[200, 120, 100], [60, 140, 50], [90, 140, 220], [128, 128, 128]], np.uint8)
PHOTO = np.repeat(np.repeat(COLORS[None], 16, axis=0), 16, axis=1)
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
LOSSY = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
}


def light(numbers: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values (IEC 61966-2-1), 0 to 1."""
    v = numbers / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)


def numbers(light: np.ndarray) -> np.ndarray:
    v = np.clip(light, 0, 1)
    return 255 * np.where(v <= 0.0031308, 12.92 * v, 1.055 * v ** (1 / 2.4) - 0.055)


def srgb_of_p3(colors: np.ndarray) -> np.ndarray:
    """CSS Color 4, 12: from linear Display P3 over XYZ to linear sRGB."""
    return numbers(light(colors) @ np.linalg.solve(xyz_of("srgb"), xyz_of("p3")).T)


def encoded(image: PIL.Image.Image, kind: str, profile: bytes | None, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, icc_profile=profile, **options)
    return file.getvalue()


def middles(image: np.ndarray) -> np.ndarray:
    """The (4, 3) colors in the middle of the four fields."""
    return image[8, 8::16].astype(float)


@pytest.mark.parametrize("kind", [*LOSSLESS, *LOSSY])
def test_display_p3_becomes_srgb_in_every_format(kind):
    options = (LOSSLESS | LOSSY)[kind]
    file = encoded(PIL.Image.fromarray(PHOTO), kind, rgb_profile("p3"), **options)
    expected = srgb_of_p3(COLORS)
    assert np.abs(expected - COLORS).max() > 10  # the error without the conversion, toward gray
    np.testing.assert_allclose(
        middles(decode_image(file)), expected, atol=3 if kind in LOSSY else 1
    )


def test_heic_of_a_phone_is_in_display_p3():
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    image = pillow_heif.from_bytes("RGB", (64, 16), PHOTO.tobytes())
    image.info["icc_profile"] = rgb_profile("p3")
    image.save(file, quality=-1, chroma=444)
    np.testing.assert_allclose(middles(decode_image(file.getvalue())), srgb_of_p3(COLORS), atol=4)


@pytest.mark.parametrize(
    "profile", [None, rgb_profile("srgb"), b"damaged", rgb_profile("p3")[:200]]
)
def test_other_pixels_stay_as_they_are(profile):
    """sRGB's own profile, a damaged one, or none; a JPEG of them needs no slower reader."""
    file = encoded(PIL.Image.fromarray(PHOTO), "PNG", profile)
    np.testing.assert_array_equal(decode_image(file), PHOTO)
    assert decode_plain_jpeg(encoded(PIL.Image.fromarray(PHOTO), "JPEG", profile)) is not None


def test_a_profile_for_pixels_of_another_kind_is_ignored():
    file = encoded(PIL.Image.fromarray(PHOTO), "PNG", gray_profile(1.0))
    np.testing.assert_array_equal(decode_image(file), PHOTO)


@pytest.mark.parametrize("kind", ["L", "LA", "I;16", "jpeg"])
def test_gray_of_another_gamma_becomes_srgb(kind):
    """A number of gamma 1 is the share of light itself: half the light is 188 in sRGB."""
    gray = np.full((16, 16), 128, np.uint8)
    array = {"LA": np.dstack([gray, gray * 0 + 255]), "I;16": np.uint16(gray) * 257}.get(kind, gray)
    file = encoded(
        PIL.Image.fromarray(array), "JPEG" if kind == "jpeg" else "PNG", gray_profile(1.0)
    )
    expected = numbers(np.array(128 / 255))
    np.testing.assert_allclose(decode_image(file), expected, atol=1)
    assert abs(expected - 188) < 1


def test_cmyk_has_the_colors_of_its_ink():
    """L* 50 is 18.4 % of the light (CIE 15), 119 in sRGB; without the profile, ink is black."""
    ink = PIL.Image.new("CMYK", (16, 16), (0, 0, 0, 255))
    file = encoded(ink, "JPEG", cmyk_profile(50), quality=100)
    np.testing.assert_allclose(decode_image(file), 119, atol=1)
    assert decode_image(encoded(ink, "JPEG", None)).max() < 5


def test_a_large_photo_is_converted_too(monkeypatch):
    monkeypatch.setattr("keras_scnn.storage.images.MAX_WHOLE_PIXELS", PHOTO.size // 3 - 1)
    expected = srgb_of_p3(COLORS)
    for kind, options in {**LOSSLESS, "JPEG": LOSSY["JPEG"]}.items():
        file = encoded(PIL.Image.fromarray(PHOTO), kind, rgb_profile("p3"), **options)
        image = decode_image(file)
        assert image.shape == (8, 32, 3)
        np.testing.assert_allclose(image[4, 4::8], expected, atol=3)


def test_a_long_profile_in_several_segments_is_read():
    profile = rgb_profile("p3") + bytes(100_000)  # a JPEG's segment has 65,519 bytes of it
    file = encoded(PIL.Image.fromarray(PHOTO), "JPEG", profile, **LOSSY["JPEG"])
    assert file.count(b"ICC_PROFILE") == 2
    np.testing.assert_allclose(middles(decode_image(file)), srgb_of_p3(COLORS), atol=3)


# Adobe RGB (1998) Color Image Encoding, 4.3.4.1: linear sRGB from linear Adobe RGB, both under D65.
SRGB_FROM_ADOBE = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]])


def in_adobe_rgb(orientation: int = 1, index: str = "R03") -> PIL.Image.Exif:
    """The EXIF data that cameras write in place of a profile."""
    exif = PIL.Image.Exif()
    exif[PIL.ExifTags.Base.Orientation] = orientation
    interoperability = {PIL.ExifTags.Interop.InteropIndex: index}
    exif.get_ifd(PIL.ExifTags.IFD.Exif)[PIL.ExifTags.IFD.Interop] = interoperability
    return exif


def srgb_of_adobe(colors: np.ndarray) -> np.ndarray:
    return numbers((colors / 255) ** (563 / 256) @ SRGB_FROM_ADOBE.T)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [1, 3])
def test_adobe_rgb_of_a_camera_becomes_srgb(kind, orientation):
    """Its files have no profile: skin was too gray by 24 of 255."""
    picture = PHOTO[::-1, ::-1] if orientation == 3 else PHOTO
    options = (LOSSLESS | LOSSY)[kind] | {"exif": in_adobe_rgb(orientation)}
    file = encoded(PIL.Image.fromarray(picture), kind, None, **options)
    expected = srgb_of_adobe(COLORS)
    assert np.abs(expected - COLORS).max() > 20
    atol = 3 if kind in LOSSY else 1
    np.testing.assert_allclose(middles(decode_image(file)), expected, atol=atol)


def test_a_profile_counts_more_than_what_exif_says():
    file = encoded(PIL.Image.fromarray(PHOTO), "PNG", rgb_profile("p3"), exif=in_adobe_rgb())
    np.testing.assert_allclose(middles(decode_image(file)), srgb_of_p3(COLORS), atol=1)


def test_other_photos_of_cameras_are_in_srgb():
    file = encoded(PIL.Image.fromarray(PHOTO), "PNG", None, exif=in_adobe_rgb(index="R98"))
    np.testing.assert_array_equal(decode_image(file), PHOTO)


def test_a_large_photo_of_a_camera_becomes_srgb(monkeypatch):
    monkeypatch.setattr(images, "MAX_WHOLE_PIXELS", PHOTO.size // 3 - 1)
    for kind in ("JPEG", "PNG"):
        options = (LOSSLESS | LOSSY)[kind] | {"exif": in_adobe_rgb()}
        file = encoded(PIL.Image.fromarray(PHOTO), kind, None, **options)
        small = decode_image(file)
        assert small.shape == (8, 32, 3)
        np.testing.assert_allclose(small[4, 4::8], srgb_of_adobe(COLORS), atol=3)


def test_damaged_exif_data_do_not_make_a_photo_unreadable():
    exif = bytearray(in_adobe_rgb().tobytes())
    for at in range(12, len(exif), 5):
        exif[at] ^= 0xA5
    file = encoded(PIL.Image.fromarray(PHOTO), "PNG", None, exif=bytes(exif))
    assert decode_image(file).shape == PHOTO.shape
