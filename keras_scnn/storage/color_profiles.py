"""Color profiles of photos (ICC.1), or Adobe RGB by EXIF alone: conversion to sRGB."""

from __future__ import annotations

import functools
import io
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import PIL.ExifTags
import PIL.Image
from PIL import ImageCms

MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of Pillow, by a profile's color space
PROFILES_KEPT = 16
ROUNDING = 2  # of 255; the largest difference between copies of sRGB's profile
# Cameras write no profile of Adobe RGB; EXIF has this instead (Exif 2.32, 4.6.7; DCF 2.0).
INTEROPERABILITY_INDEX, ADOBE_RGB_INDEX = 1, "R03"
# Adobe RGB (1998) Color Image Encoding, 4.3.1 and annex C.3: colorants under D50, and gamma.
ADOBE_RGB_COLORANTS = {
    b"rXYZ": (0.60974, 0.31111, 0.01947),
    b"gXYZ": (0.20528, 0.62567, 0.06087),
    b"bXYZ": (0.14919, 0.06322, 0.74457),
}
ADOBE_RGB_GAMMA, D50 = 563 / 256, (0.9642, 1.0, 0.8249)


class _Conversion(NamedTuple):
    mode: str
    transform: ImageCms.ImageCmsTransform


def color_profile(profile: bytes | None, exif: Callable[[], PIL.Image.Exif]) -> bytes | None:
    """The ICC profile of a photo's file, or that of Adobe RGB if its EXIF data name that instead;
    None for sRGB."""
    if profile:
        return profile
    try:
        index = exif().get_ifd(PIL.ExifTags.IFD.Interop).get(INTEROPERABILITY_INDEX)
    except Exception:  # of many types, if the EXIF data are damaged; the photo is still usable
        return None
    return adobe_rgb_profile() if index == ADOBE_RGB_INDEX else None


@functools.cache
def adobe_rgb_profile() -> bytes:
    """A profile of Adobe RGB (1998): colorants and gamma (ICC.1:2010, 7.2, 8.3.3, 10.6, 10.31)."""
    tags = {
        name: struct.pack(">4s4x3i", b"XYZ ", *(round(65536 * value) for value in xyz))
        for name, xyz in {b"wtpt": D50, **ADOBE_RGB_COLORANTS}.items()
    }
    curve = struct.pack(">4s4xIH2x", b"curv", 1, round(256 * ADOBE_RGB_GAMMA))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    at, table, content = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += struct.pack(">4sII", name, at + len(content), len(tag))
        content += tag
    white = (round(65536 * value) for value in D50)
    head = struct.pack(
        ">I4xI4s4s4s12x4s28x3i48x",
        at + len(content), 0x02400000, b"mntr", b"RGB ", b"XYZ ", b"acsp", *white,
    )  # fmt: skip
    return head + table + content


def is_srgb(profile: bytes) -> bool:
    """Whether a profile changes no pixel value: it is sRGB's own, or unusable."""
    return _conversion(profile) is None


def in_srgb(image: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """Convert an image to sRGB.

    Args:
        image: of mode RGB, L or CMYK.
        profile: the ICC profile of its file, or None.

    Returns:
        it as RGB; or unchanged, if it has no profile or sRGB's own, or if the profile is damaged
        or for another mode.
    """
    conversion = _conversion(profile) if profile else None
    if conversion is None or conversion.mode != image.mode:
        return image
    return conversion.transform.apply(image)


@functools.lru_cache(PROFILES_KEPT)
def _conversion(profile: bytes) -> _Conversion | None:
    """The conversion to sRGB; None if it changes nothing."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES.get(own.profile.xcolor_space)
        if mode is None:
            return None
        transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged; the photo is still usable
        return None
    if mode == "CMYK":
        return _Conversion(mode, transform)
    given = _samples().convert(mode)
    made, before = (
        np.asarray(each, np.int16) for each in (transform.apply(given), given.convert("RGB"))
    )
    change = np.abs(made - before)
    return _Conversion(mode, transform) if change.max() > ROUNDING else None


def _samples() -> PIL.Image.Image:
    """Grays and colors of all hues."""
    grays = np.repeat(np.linspace(0, 255, 16)[:, None], 3, axis=1)
    colors = np.stack(np.meshgrid(*[np.linspace(0, 255, 5)] * 3), axis=-1).reshape(-1, 3)
    return PIL.Image.fromarray(np.uint8(np.concatenate([grays, colors]))[None])
