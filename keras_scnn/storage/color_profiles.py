"""ICC color profiles (ICC.1): conversion of photos to sRGB."""

from __future__ import annotations

import functools
import io
from typing import NamedTuple

import numpy as np
import PIL.Image
from PIL import ImageCms

MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of Pillow, by a profile's color space
PROFILES_KEPT = 16
ROUNDING = 2  # of 255; the largest difference between copies of sRGB's profile


class _Conversion(NamedTuple):
    mode: str
    transform: ImageCms.ImageCmsTransform


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
