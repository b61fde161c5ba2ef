"""HDR video (HLG or PQ) as players show it on an SDR screen.

ITU-R BT.2100-2, tables 4 and 5; diffuse white is at 203 cd/m² (ITU-R BT.2408-7, section 2.1), and
what is brighter is clipped.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

from keras_scnn.geometry.colors import srgb_from_linear

PQ, HLG = 16, 18  # transfer characteristics (ITU-T H.273, table 3)
WHITE = 203.0  # cd/m²
PEAK_HLG, GAMMA_HLG = 1000.0, 1.2  # of the reference display: cd/m², and its system gamma
LUMA = np.array([[0.2627, 0.6780, 0.0593]], np.float32)  # of BT.2020 red, green and blue
BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]],
    np.float32,
)  # ITU-R BT.2407-0, section 2
STEPS = 4096  # of light, in the table of sRGB values


def sdr_from_hdr(image: np.ndarray, transfer: int) -> np.ndarray:
    """An HDR picture as sRGB; any other picture as it is.

    Args:
        image: (H, W, 3) uint8 nonlinear R'G'B', full range; of BT.2020 in HDR.
        transfer: transfer characteristics of the picture; ``PQ`` or ``HLG`` in HDR.

    Returns:
        (H, W, 3) uint8.
    """
    if transfer not in (PQ, HLG):
        return image
    light = cv2.LUT(image, _lights(transfer))
    if transfer == HLG:  # the system's opto-optical transfer function
        luminance = np.float32(cv2.transform(light, LUMA))
        light = light * (PEAK_HLG / WHITE * luminance ** (GAMMA_HLG - 1))[..., None]
    steps = cv2.transform(light, BT709_FROM_BT2020) * (STEPS - 1) + 0.5
    return _srgb_of_steps()[np.clip(steps, 0, STEPS - 1).astype(np.uint16)]


@functools.cache
def _lights(transfer: int) -> np.ndarray:
    """Light (256,) float32 of 8-bit values: in PQ relative to ``WHITE``, in HLG of the scene."""
    signal = np.arange(256) / 255
    light = _pq_light(signal) / WHITE if transfer == PQ else _hlg_scene_light(signal)
    return light.astype(np.float32)


@functools.cache
def _srgb_of_steps() -> np.ndarray:
    """sRGB (STEPS,) uint8 of light from 0 to 1."""
    return np.round(255 * srgb_from_linear(np.linspace(0, 1, STEPS))).astype(np.uint8)


def _pq_light(signal: np.ndarray) -> np.ndarray:
    """Light on the display, cd/m², of PQ's R', G' or B' of 0 to 1 (the EOTF)."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    root = signal ** (1 / m2)
    return 10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1)


def _hlg_scene_light(signal: np.ndarray) -> np.ndarray:
    """Light of the scene, 0 to 1, of HLG's R', G' or B' of 0 to 1 (the inverse OETF)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
