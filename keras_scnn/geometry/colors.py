"""Conversions between sRGB, linear RGB (light) and CIE L*a*b*; plain colors of the mouth."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike

# Of parts that no photo shows; sRGB, 0 to 1.
PLAIN_MOUTH, PLAIN_TEETH = (0.42, 0.17, 0.16), (0.87, 0.84, 0.77)


def linear_from_srgb(color: np.ndarray) -> np.ndarray:
    """Light (..., 3) float32, 0 to 1, of sRGB 0 to 1 (IEC 61966-2-1)."""
    color = np.float32(color)
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(light: np.ndarray) -> np.ndarray:
    """sRGB (..., 3) float32, 0 to 1, of light, clipped to 0 to 1."""
    light = np.clip(np.float32(light), 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def lab_from_linear(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (..., 3) float32 of light (..., 3): L 0 to 100, D65."""
    srgb = srgb_from_linear(light)
    if not srgb.size:
        return srgb
    flat = np.ascontiguousarray(srgb.reshape(-1, 1, 3), np.float32)
    return cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(srgb.shape)


def light_from_lab(lab: ArrayLike) -> np.ndarray:
    """Light (3,) float32 of one color in CIE L*a*b*."""
    srgb = cv2.cvtColor(np.asarray(lab, np.float32).reshape(1, 1, 3), cv2.COLOR_LAB2RGB)
    return linear_from_srgb(np.clip(srgb, 0, 1)).ravel()
