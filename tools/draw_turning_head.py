"""Draw docs/turning_head.gif: a photo, its head turning, untextured and textured, and expressions.

    python tools/draw_turning_head.py [PRESET]

The photo is scikit-image's astronaut (NASA, public domain). The heads are those that
``reconstruct`` writes: neutral, with the skin's own colors (without the photo's lighting) under a
plain light; the expressions are ARKit's, applied to the person. Needs scikit-image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw
from skimage import data

from draw_face_model import expression_weights
from keras_scnn import Reconstructor
from keras_scnn.geometry.colors import linear_from_srgb, srgb_from_linear
from keras_scnn.geometry.shading import render
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import crop_face
from keras_scnn.reconstruction.drawing import draw_view, posed_for_view
from keras_scnn.settings import DEFAULT_PRESET, command

OUT = Path(__file__).parents[1] / "docs" / "turning_head.gif"
SIZE, FRAMES, DEGREES, MILLISECONDS = 200, 40, 50.0, 90
CUT = 4  # px, the white margin at a view's left and right
EXPRESSIONS = (
    {"eyeBlink": 1.0},
    {"mouthSmile": 0.9, "cheekSquint": 0.5},
    {"jawOpen": 0.7, "browInnerUp": 0.8, "eyeWide": 0.6},
    {"mouthPucker": 0.9},
)
# Spherical harmonics of a soft light from the upper left; irradiance 1 on a surface that faces it.
LIGHT = np.array([1.96, 0.31, 0.80, -0.31, 0, 0, 0, 0, 0])[:, None] * np.ones(3)


def skin_view(
    model: MorphableModel, vertices: np.ndarray, yaw_degrees: float, texture: np.ndarray
) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8 RGB: textured vertices (N, 3) mm, in the view of ``draw_view``."""
    large = 2 * SIZE
    posed = posed_for_view(vertices, yaw_degrees, large)
    white = np.full((large, large, 3), 255, np.uint8)
    linear = linear_from_srgb(texture / 255)
    picture, mask = render(posed, model.triangles, model.uv, 255 * linear, LIGHT, white)
    colors = np.where(mask[..., None], 255 * srgb_from_linear(picture / 255) + 0.5, picture)
    return cv2.resize(np.uint8(colors), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def frames(reconstructor: Reconstructor, photo: np.ndarray) -> list[Image.Image]:
    """The frames of the animation: one turn to both sides, then the expressions."""
    face = reconstructor.largest(photo)
    model, identity, texture = face.model, face.parameters.identity, face.texture(photo)
    crop = crop_face(photo, face.box, SIZE).image
    yaws = DEGREES * np.sin(np.linspace(0, 2 * np.pi, FRAMES, endpoint=False))
    steps = [(yaw, {}) for yaw in yaws]
    for weights in EXPRESSIONS:
        shares = np.sin(np.linspace(0, np.pi, 9))
        steps += [(0.0, {name: share * top for name, top in weights.items()}) for share in shares]
    pictures = []
    for yaw, weights in steps:
        vertices = model.vertices(identity, expression_weights(model, weights))
        clay = draw_view(model, vertices, yaw, SIZE)
        skin = skin_view(model, vertices, yaw, texture)
        parts = [crop, *(view[:, CUT:-CUT] for view in (clay, skin))]
        picture = Image.fromarray(np.hstack(parts))
        if weights:
            names = ", ".join(weights)
            ImageDraw.Draw(picture).text((SIZE + 6, SIZE - 14), names, fill=(90, 90, 90))
        pictures.append(picture)
    return pictures


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", nargs="?", default=DEFAULT_PRESET)
    pictures = frames(Reconstructor.from_preset(parser.parse_args(argv).preset), data.astronaut())
    some = np.vstack([np.asarray(one) for one in pictures[::12]])
    palette = Image.fromarray(some).quantize(255, Image.Quantize.MAXCOVERAGE)
    small = [one.quantize(255, palette=palette, dither=Image.Dither.NONE) for one in pictures]
    small[0].save(OUT, save_all=True, append_images=small[1:], duration=MILLISECONDS, loop=0)
    print(f"wrote {OUT}, {OUT.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    sys.exit(main())
