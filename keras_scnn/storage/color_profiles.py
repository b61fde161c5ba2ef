"""ICC color profiles (ICC.1): the colors that a photo's numbers mean, as sRGB."""

from __future__ import annotations

import functools
import io
from typing import NamedTuple

import numpy as np
import PIL.Image
from PIL import ImageCms

MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of Pillow, by a profile's color space
PROFILES_KEPT = 16
ROUNDING = 2  # of 255; copies of sRGB's profile differ by so much


class _Conversion(NamedTuple):
    mode: str
    transform: ImageCms.ImageCmsTransform


def is_srgb(profile: bytes) -> bool:
    """Whether a profile leaves all numbers as they are: sRGB's own, or one that cannot be used."""
    return _conversion(profile) is None


def in_srgb(image: PIL.Image.Image, profile: bytes | None) -> PIL.Image.Image:
    """A picture whose numbers are sRGB's.

    Args:
        image: of the mode RGB, L or CMYK.
        profile: of its file, or None.

    Returns:
        it as RGB; or as it is, where it has no profile or sRGB's own, or where the profile is
        damaged or for pixels of another kind.
    """
    conversion = _conversion(profile) if profile else None
    if conversion is None or conversion.mode != image.mode:
        return image
    return conversion.transform.apply(image)


@functools.lru_cache(PROFILES_KEPT)
def _conversion(profile: bytes) -> _Conversion | None:
    """To sRGB; None where nothing changes."""
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = MODES.get(own.profile.xcolor_space)
        if mode is None:
            return None
        transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):  # damaged; the photo can still be seen
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
