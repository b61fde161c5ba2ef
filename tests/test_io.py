import struct
import subprocess
import sys

import cv2
import numpy as np
import PIL.Image
import pytest

from keras_scnn.io import read_image, read_reduced, write_image
from keras_scnn.storage.images import PILLOWS_LIMIT_LIFTED, image_size

EXIF_ORIENTATION = 0x0112
WRONG_IMAGES = {
    "gray, which was mirrored": np.zeros((4, 6), np.uint8),
    "with alpha, which became red": np.zeros((4, 6, 4), np.uint8),
    "0 to 1, which became black": np.zeros((4, 6, 3)),
    "a batch": np.zeros((1, 4, 6, 3), np.uint8),
    "without pixels": np.zeros((0, 6, 3), np.uint8),
    "a list": np.zeros((4, 6, 3), np.uint8).tolist(),
    "nothing": None,
}


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def test_a_written_picture_reads_back_the_same(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)
    # Pillow is another reader than the writer's OpenCV, so red is red.
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(tmp_path / "a.png")), picture)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_results_are_written_atomically(tmp_path, picture):
    with pytest.raises(OSError, match=r"missing"):
        write_image(tmp_path / "missing" / "a.png", picture)
    assert list(tmp_path.iterdir()) == []


# What must be done to the stored pixels to see the picture, by the EXIF standard (2.32, 4.6.4).
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_photo_is_turned_upright(tmp_path, picture, orientation):
    exif = PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    PIL.Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), UPRIGHT[orientation](picture))


def test_gray_becomes_three_equal_channels(tmp_path, picture):
    PIL.Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    expected = np.repeat(picture[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_16_bits_become_8(tmp_path):
    wide = np.array([[0, 257, 128 * 257], [1000, 65534, 65535]], np.uint16)
    PIL.Image.fromarray(wide).save(tmp_path / "a.png")
    # 65535 / 255 = 257; 1000 / 257 = 3.9.
    expected = np.array([[0, 1, 128], [4, 255, 255]])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], expected)


@pytest.mark.parametrize("kind", ["float32", "int32"])
def test_pixels_whose_white_is_not_known_are_refused(tmp_path, kind):
    """Values from 0 to 255 in 32 bits were nearly black."""
    picture = PIL.Image.fromarray(np.full((5, 4), 200, kind))
    picture.save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif: .* pixels; save it with 8 or 16 bits"):
        read_image(tmp_path / "a.tif")


def tiff(bits: int, photometric: int, planes: int, content: bytes, tags=()) -> bytes:
    """A TIFF of 4 x 4 px (TIFF 6.0): planes 1 are pixel by pixel, 2 channel by channel.

    ``tags`` are added, or left out if None.
    """
    channels = 3 if photometric == 2 else 1
    size = 8 + len(content)
    strip = len(content) // (channels if planes == 2 else 1)
    strips = [8 + i * strip for i in range(len(content) // strip)]
    rows = {256: [4], 257: [4], 258: [bits] * channels, 259: [1], 262: [photometric], 273: strips,
            277: [channels], 278: [4], 279: [strip] * len(strips), 284: [planes]}  # fmt: skip
    rows = {tag: values for tag, values in (rows | dict(tags)).items() if values is not None}
    ends, table = b"", struct.pack("<H", len(rows))
    after = size + 2 + 12 * len(rows) + 4
    for tag, values in rows.items():
        packed = struct.pack(f"<{len(values)}H", *values)
        if len(packed) > 4:
            packed, ends = struct.pack("<I", after + len(ends)), ends + packed
        table += struct.pack("<HHI4s", tag, 3, len(values), packed)
    return struct.pack("<2sHI", b"II", 42, size) + content + table + bytes(4) + ends


@pytest.mark.parametrize(
    ("bits", "photometric", "planes"),
    [(12, 1, 1), (16, 0, 1), (16, 2, 2)],
    ids=["12 bits, nearly black", "0 is white, inverted", "planes, noise"],
)
def test_kinds_of_tiff_that_pillow_reads_wrong_are_refused(tmp_path, bits, photometric, planes):
    content = np.random.default_rng(0).bytes(2 * bits * (3 if photometric == 2 else 1))
    (tmp_path / "a.tif").write_bytes(tiff(bits, photometric, planes, content))
    with pytest.raises(ValueError, match=rf"a\.tif: .*TIFF of {bits} bits.* save it as PNG"):
        read_image(tmp_path / "a.tif")


def test_usual_kinds_of_tiff_are_read(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (4, 4, 3))
    wide = (values * 257).astype("<u2")
    planes = np.moveaxis(values, -1, 0).astype(np.uint8)
    gray = values[..., :1].repeat(3, axis=-1)
    for file, expected in (
        (tiff(16, 2, 1, wide.tobytes()), values),
        (tiff(16, 1, 1, wide[..., 0].tobytes()), gray),
        (tiff(8, 2, 2, planes.tobytes()), values),
        (tiff(8, 0, 1, (255 - planes[0]).tobytes()), gray),
    ):
        (tmp_path / "a.tif").write_bytes(file)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), expected)


def tiled(side: int) -> bytes:
    """A gray TIFF of 4 x 4 px in one tile, whose first pixels are those of 16 px a row."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tile = {322: [side], 323: [side], 324: [8], 325: [values.size]}
    return tiff(8, 1, 1, values.tobytes(), {273: None, 278: None, 279: None} | tile)


def test_a_tiff_whose_tile_is_far_larger_than_the_file_is_refused(tmp_path):
    """A tile is decoded whole: an image of 16 x 16 px in 1 MB took 1.1 GB."""
    (tmp_path / "a.tif").write_bytes(tiled(16))
    expected = 16 * np.arange(4)[:, None] + np.arange(4)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], expected)
    (tmp_path / "a.tif").write_bytes(tiled(20000))
    with pytest.raises(ValueError, match=r"a\.tif: .*20000 x 20000 px in .* far more pixels"):
        read_image(tmp_path / "a.tif")


def test_gray_of_any_depth_of_pgm_is_read(tmp_path):
    """Netpbm: the greatest value of the header is white."""
    for greatest in (1, 200, 255, 1000, 65535):
        values = np.array([[0, greatest]], ">u2" if greatest > 255 else "u1").tobytes()
        (tmp_path / "a.pgm").write_bytes(b"P5 2 1 %d\n" % greatest + values)
        assert read_image(tmp_path / "a.pgm").tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("channels", [3, 4])
def test_jpeg_2000_of_16_bits_per_color_is_refused(tmp_path, channels):
    """Pillow 13 reads its white as black."""
    cv2.imwrite(str(tmp_path / "a.jp2"), np.full((32, 32, channels), 65535, np.uint16))
    with pytest.raises(ValueError, match=r"a\.jp2: .*JPEG 2000 of 16 bits .*save it as PNG"):
        read_image(tmp_path / "a.jp2")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_jpeg_2000_is_read(tmp_path, dtype):
    most = np.iinfo(dtype).max
    values = np.repeat(np.array([[0, most // 2, most]], dtype), 64, axis=0).repeat(64, axis=1)
    lossless = [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000]
    cv2.imwrite(str(tmp_path / "a.jp2"), values, lossless)
    expected = np.round(values / most * 255)[..., None]
    assert np.abs(read_image(tmp_path / "a.jp2") - expected).max() <= 1


def test_16_bits_that_repeat_8_become_those(tmp_path):
    eight = np.arange(256, dtype=np.uint16).reshape(16, 16)
    PIL.Image.fromarray(eight << 8 | eight).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 1], eight)


def test_transparent_pixels_become_white(tmp_path, picture):
    alpha = np.full((8, 12, 1), 255, np.uint8)
    alpha[:, 6:] = 0
    PIL.Image.fromarray(np.concatenate([picture, alpha], axis=-1)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image[:, :6], picture[:, :6])
    assert (image[:, 6:] == 255).all()


YCBCR = pytest.param(
    "YCbCr",
    marks=pytest.mark.xfail(
        int(PIL.__version__.split(".")[0]) < 13,
        reason="Pillow before 13, as for Python 3.10, reads YCbCr in TIFF as RGB and padding",
        strict=True,
    ),
)


@pytest.mark.parametrize("mode", ["P", "1", "L", "LA", "RGBA", "CMYK", YCBCR])
def test_every_color_mode_becomes_rgb(tmp_path, mode):
    image = PIL.Image.new("RGB", (5, 4), "white").convert(mode)
    name = tmp_path / ("a.tif" if mode in ("CMYK", "YCbCr") else "a.png")
    image.save(name)
    result = read_image(name)
    assert result.shape == (4, 5, 3) and result.dtype == np.uint8
    assert result.min() >= 254


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [PIL.Image.new("RGB", (6, 6), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.gif")[0, 0], [255, 0, 0])


def test_a_missing_photo_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nobody\.jpg"):
        read_image(tmp_path / "nobody.jpg")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "broken.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.png: not a readable image"):
        read_image(tmp_path / "broken.png")


def test_a_truncated_photo_is_named(tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    with pytest.raises(ValueError, match=r"a\.jpg: not a readable image"):
        read_image(tmp_path / "a.jpg")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("name", ["photo.jpg", "photo.eps"])
def test_a_format_that_is_no_photo_is_refused_whatever_its_name(tmp_path, name, monkeypatch):
    # Pillow would start Ghostscript.
    monkeypatch.setattr("subprocess.check_call", lambda *_: pytest.fail("a program was started"))
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(ValueError, match=f"{name}: not a readable image"):
        read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "MPO", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000"])
def test_photos_of_the_wanted_formats_are_read(tmp_path, kind):
    PIL.Image.new("RGB", (32, 16), (200, 200, 200)).save(tmp_path / "a.bin", kind)
    assert abs(read_image(tmp_path / "a.bin").astype(int) - 200).max() <= 1


def test_a_header_that_declares_far_more_pixels_than_the_file_can_hold_is_refused(tmp_path):
    PIL.Image.new("RGB", (32, 24)).save(tmp_path / "a.bmp")
    content = bytearray((tmp_path / "a.bmp").read_bytes())
    content[22:26] = (1_900_000).to_bytes(4, "little")  # the height, 61 million pixels in all
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(ValueError, match="a.bmp: .* 32 x 1900000 px in .* far more pixels"):
        read_image(tmp_path / "a.bmp")


@pytest.mark.parametrize(
    "error", [RuntimeError("bit"), NotImplementedError(), KeyError("x"), OSError("cut")]
)
def test_whatever_a_decoder_raises_is_the_photos_failure(tmp_path, monkeypatch, error):
    def broken(*_):
        raise error

    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", broken)
    with pytest.raises(ValueError, match=r"a\.png: not a readable image"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("image", WRONG_IMAGES.values(), ids=WRONG_IMAGES)
def test_an_image_of_another_kind_is_not_written(tmp_path, image):
    with pytest.raises(ValueError, match="a.png: image has the shape .*expected"):
        write_image(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


SIZES = [(1, (80, 60)), (2, (81, 60)), (4, (160, 130)), (8, (400, 200))]


@pytest.mark.parametrize(("factor", "size"), SIZES)
def test_very_large_jpegs_are_read_reduced(tmp_path, monkeypatch, factor, size):
    """With limits for small pictures; 200 million pixels are in the next test."""
    for name in ("MAX_WHOLE_PIXELS", "MAX_PIXELS"):
        monkeypatch.setattr(f"keras_scnn.storage.images.{name}", 80 * 60)
    y, x = np.mgrid[: size[1], : size[0]]
    bands = 255 * x / size[0], 255 * y / size[1], 0 * x + 90
    picture = np.stack(bands, axis=-1).astype(np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for path, options in ((tmp_path / "a.jpg", {}), (tmp_path / "b.jpg", {"exif": exif})):
        PIL.Image.fromarray(picture).save(path, quality=95, **options)
        assert read_reduced(path).reduced_by == factor
        found = read_image(path)
        expected = np.rot90(picture, -1) if options else picture
        assert found.shape[:2] == tuple(-(-n // factor) for n in expected.shape[:2])
        rows, columns = (
            np.minimum(np.arange(n) * factor + factor // 2, m - 1)
            for n, m in zip(found.shape, expected.shape[:2], strict=False)
        )
        apart = np.abs(found.astype(int) - expected[np.ix_(rows, columns)])
        assert apart.mean() < 6


READ = """
import resource, sys
from keras_scnn.io import read_image
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
image = read_image(sys.argv[1])
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(*image.shape, image.min(), image.max(), grown // 1024)
"""


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
def test_a_photo_of_200_million_pixels_is_read_in_bounded_memory(tmp_path):
    path = tmp_path / "large.jpg"
    PIL.Image.new("L", (16320, 12240), 120).save(path)
    done = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True)
    height, width, channels, low, high, grown_mb = map(int, done.stdout.split())
    assert (height, width, channels) == (6120, 8160, 3) and 119 <= low <= high <= 121
    assert grown_mb < 400  # 150 MB of pixels; whole they were 600 MB


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: data[:5000], "far more pixels than a photo has"),
        (lambda data: data[:-80000], "truncated"),
    ],
)
def test_a_large_jpeg_that_is_hostile_or_cut_is_refused(tmp_path, spoil, reason):
    path = tmp_path / "large.jpg"
    PIL.Image.new("L", (12000, 9000), 120).save(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=f"large.jpg: .*{reason}"):
        read_image(path)


@pytest.mark.parametrize(
    "content",
    [b"\0\0\0\x18ftypisom", b"\0\0\0\x14ftypqt  ", b"RIFF\1\2\3\4AVI LIST", b"\x1aE\xdf\xa3"],
)
def test_a_video_is_reported_as_one(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content + bytes(64))
    with pytest.raises(
        ValueError, match=r"a.jpg: .*a video; give single frames, or rename it .* \(.mp4"
    ):
        read_image(tmp_path / "a.jpg")


def test_a_folder_is_no_photo(tmp_path):
    with pytest.raises(OSError, match=f"{tmp_path.name}: a folder; expected a photo"):
        read_image(tmp_path)


def test_very_large_photos_give_no_warning_of_pillow(tmp_path):
    path = tmp_path / "large.jpg"
    PIL.Image.new("L", (16320, 12240), 120).save(path)
    assert image_size(path.read_bytes()) == (16320, 12240)
    header = b"P5 20000 10000 255\n"  # 200 million pixels of a format without compression
    (tmp_path / "large.pgm").write_bytes(header + bytes(99))
    with pytest.raises(ValueError, match="large.pgm: .*far more pixels than a photo has"):
        read_image(tmp_path / "large.pgm")


LARGE = {
    "png": {},
    "tif": {"compression": "tiff_deflate"},
    "webp": {"lossless": True},
    "bmp": {},
    "ppm": {},
    "jp2": {},
    "gif": {},
    "jpg": {"progressive": True, "quality": 95, "subsampling": 0},
}
TURNED = ("png", "tif", "webp", "jpg")  # can store EXIF's orientation, here a quarter turn
TURNED_FIRST = ("tif",)  # turned before they are reduced, which moves cut blocks to another edge
MODES = ("RGB", "RGBA", "L", "LA", "P", "I;16", "CMYK")


def noise(width: int, height: int) -> np.ndarray:
    """A smooth image that is about as hard to compress as a photo."""
    small = np.random.default_rng(0).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3))
    picture = PIL.Image.fromarray(small.astype(np.uint8))
    return np.asarray(picture.resize((width, height), PIL.Image.Resampling.BICUBIC))


def lower_limits(monkeypatch, pixels: int) -> None:
    """Reduce photos of more than ``pixels`` pixels, in several strips."""
    monkeypatch.setattr("keras_scnn.storage.images.MAX_WHOLE_PIXELS", pixels)
    monkeypatch.setattr("keras_scnn.storage.images.MAX_UNREDUCED_PIXELS", 4 * pixels)
    monkeypatch.setattr("keras_scnn.storage.images.MAX_PIXELS", pixels)
    monkeypatch.setattr("keras_scnn.storage.images.STRIP_PIXELS", 1000)


def halved(picture: np.ndarray) -> np.ndarray:
    """Means of blocks of 2 x 2 pixels, which the edges may cut."""
    counts = np.ones(picture.shape[:2])
    padded, counts = (
        np.pad(a, [(0, n % 2) for n in a.shape[:2]] + [(0, 0)] * (a.ndim - 2))
        for a in (picture.astype(float), counts)
    )
    sums = [a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2] for a in (padded, counts)]
    return sums[0] / sums[1][..., None]


@pytest.mark.parametrize("suffix", LARGE)
@pytest.mark.parametrize("is_turned", [False, True])
def test_large_photos_of_any_format_are_read_reduced(tmp_path, monkeypatch, suffix, is_turned):
    """With limits for small pictures; docs/reliability.md has what 200 million pixels take."""
    if is_turned and suffix not in TURNED:
        pytest.skip("no EXIF in this format")
    path, options = tmp_path / f"a.{suffix}", dict(LARGE[suffix])
    if is_turned:
        options["exif"] = PIL.Image.Exif()
        options["exif"][0x0112] = 6
    PIL.Image.fromarray(noise(121, 91)).save(path, **options)
    whole = read_image(path)
    assert read_reduced(path).reduced_by == 1
    lower_limits(monkeypatch, 80 * 60)
    limit = PIL.Image.MAX_IMAGE_PIXELS
    assert read_reduced(path).reduced_by == 2
    found = read_image(path)
    assert found.shape == ((61, 46, 3) if is_turned else (46, 61, 3)) and found.dtype == np.uint8
    turns = int(is_turned and suffix not in TURNED_FIRST)
    apart = np.abs(found - np.rot90(halved(np.rot90(whole, turns)), -turns))
    assert apart.mean() < 4 if suffix == "jpg" else apart.max() < 1
    assert sorted(image_size(path.read_bytes())) == [91, 121]
    assert limit == PIL.Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("suffix", "options", "most"),
    [("png", {}, 1), ("webp", {"lossless": True}, 1), ("jpg", {"quality": 100}, 8)],
)
def test_a_large_photo_is_turned_upright(tmp_path, monkeypatch, orientation, suffix, options, most):
    """The three decoders of large photos apply EXIF's orientation in three places."""
    picture, exif = noise(120, 90), PIL.Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    PIL.Image.fromarray(picture).save(tmp_path / f"a.{suffix}", exif=exif, **options)
    lower_limits(monkeypatch, 80 * 60)
    found = read_image(tmp_path / f"a.{suffix}").astype(float)
    np.testing.assert_allclose(found, halved(UPRIGHT[orientation](picture)), atol=most)


@pytest.mark.parametrize("mode", MODES)
def test_large_photos_of_any_kind_of_pixels_are_read_reduced(tmp_path, monkeypatch, mode):
    picture, path = PIL.Image.fromarray(noise(121, 91)), tmp_path / "a.tif"
    if mode == "I;16":
        picture = PIL.Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        picture = picture.convert(mode)
        picture.putalpha(PIL.Image.fromarray(noise(121, 91)[..., 0]))
    else:
        picture = picture.convert(mode)
    picture.save(path)
    whole = read_image(path)
    lower_limits(monkeypatch, 80 * 60)
    assert np.abs(read_image(path) - halved(whole)).max() < 1


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
def test_large_photos_beyond_bounded_memory_are_refused(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a.{suffix}"
    PIL.Image.fromarray(noise(201, 161)).save(path, **LARGE[suffix])
    lower_limits(monkeypatch, 80 * 60)
    with pytest.raises(ValueError, match=rf"a\.{suffix}: .*201 x 161 px .*more than 19,200 pixels"):
        read_image(path)
    PIL.Image.new("RGB", (161, 119), "gray").save(path, **LARGE[suffix])
    monkeypatch.setattr(
        "keras_scnn.storage.images.LARGE_PIXELS_PER_BYTE", 161 * 119 / path.stat().st_size / 2
    )
    with pytest.raises(ValueError, match=rf"a\.{suffix}: .*far more pixels than a large photo has"):
        read_image(path)


def test_a_large_webp_photo_has_to_be_opaque(tmp_path, monkeypatch):
    picture = PIL.Image.fromarray(noise(121, 91)).convert("RGBA")
    picture.putalpha(100)
    picture.save(tmp_path / "a.webp", lossless=True)
    lower_limits(monkeypatch, 80 * 60)
    with pytest.raises(ValueError, match=r"a\.webp: .*must be opaque"):
        read_image(tmp_path / "a.webp")


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        (".pgm", "could not be written"),  # gray alone
        *(
            (end, "unknown image format")
            for end in (".pbm", ".hdr", ".ras", ".pic", ".pfm", ".exr")
        ),
    ],
)
def test_images_are_not_written_in_formats_that_cannot_be_read(tmp_path, suffix, reason):
    path = tmp_path / f"picture{suffix}"
    with pytest.raises(ValueError, match=f"picture{suffix}: {reason}"):
        write_image(path, np.zeros((4, 4, 3), np.uint8))
    assert not path.exists()


def test_pillows_limit_is_back_once_the_last_thread_is_done():
    before = PIL.Image.MAX_IMAGE_PIXELS
    with PILLOWS_LIMIT_LIFTED.held():
        with PILLOWS_LIMIT_LIFTED.held():
            pass
        assert PIL.Image.MAX_IMAGE_PIXELS is None
    assert before == PIL.Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".jpg", {}),
        (".jpg", {"exif": True}),
        (".png", {}),
        (".webp", {"lossless": True}),
        (".tif", {}),
        (".tif", {"exif": True}),
        (".gif", {}),
        (".bmp", {}),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photos_of_any_format_are_writable_arrays(tmp_path, picture, suffix, options, mode):
    if options.pop("exif", False):
        options = {"exif": PIL.Image.Exif()}
        options["exif"][EXIF_ORIENTATION] = 6
    PIL.Image.fromarray(picture).convert(mode).save(tmp_path / f"a{suffix}", **options)
    image = read_image(tmp_path / f"a{suffix}")
    assert image.flags.writeable and image.flags.c_contiguous
    image[:] = 0
    assert read_image(tmp_path / f"a{suffix}").any()


def test_pixels_that_are_writable_are_not_copied(monkeypatch, tmp_path, picture):
    PIL.Image.fromarray(picture).save(tmp_path / "a.jpg")
    pixels = np.zeros((8, 12, 3), np.uint8)
    monkeypatch.setattr("keras_scnn.storage.images.decode_plain_jpeg", lambda _: pixels)
    assert read_image(tmp_path / "a.jpg") is pixels
