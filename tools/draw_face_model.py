"""Draw the embedded face model: 24 random identities, and a grid of expressions.

    python tools/draw_face_model.py            # writes docs/face_model_*.png

The model has no colors; ``open_face_paint`` paints a simple texture, so that brows, lips and eyes
can be judged.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.mesh import vertex_normals
from keras_scnn.geometry.rasterizer import interpolate, rasterize
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.geometry.shading import sample_texture
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruction.drawing import clay, grid
from keras_scnn.settings import command
from keras_scnn.storage import atomic_path
from open_face_paint import paint_texture

DOCS = Path(__file__).resolve().parents[1] / "docs"
TILE, SUPERSAMPLE = 240, 2
SEED = 7
PEOPLE, COLUMNS = 24, 8
YAWS = np.radians([-30, 0, 30, 0, -15, 15])
EXPOSURE = 1.1
SKINS = np.array([[224, 172, 146], [198, 145, 115], [168, 120, 92], [136, 95, 74], [235, 195, 172]])
HAIRS = np.array([[62, 44, 34], [38, 30, 28], [30, 25, 24], [24, 20, 20], [120, 88, 58]])
BOTH = ("Left", "Right")
EXPRESSIONS: tuple[tuple[str, dict[str, float]], ...] = (
    ("neutral", {}),
    ("smile", {"mouthSmile": 0.8, "cheekSquint": 0.6, "eyeSquint": 0.4}),
    ("laugh", {"mouthSmile": 0.8, "jawOpen": 0.35, "cheekSquint": 0.6, "mouthUpperUp": 0.4}),
    ("jaw open", {"jawOpen": 0.8}),
    ("surprise", {"jawOpen": 0.35, "browInnerUp": 0.9, "browOuterUp": 0.8, "eyeWide": 0.8}),
    ("anger", {"browDown": 1, "noseSneer": 0.6, "mouthPress": 0.7, "eyeSquint": 0.4}),
    ("sadness", {"browInnerUp": 0.9, "mouthFrown": 0.8, "mouthShrugLower": 0.4}),
    ("disgust", {"noseSneer": 1, "mouthUpperUp": 0.7, "browDown": 0.5, "mouthFrown": 0.4}),
    ("eyes closed", {"eyeBlink": 1}),
    ("wink", {"eyeBlinkLeft": 1, "cheekSquintLeft": 0.6, "mouthSmileLeft": 0.5}),
    ("pucker", {"mouthPucker": 1}),
    ("funnel", {"mouthFunnel": 1, "jawOpen": 0.2}),
    ("cheek puff", {"cheekPuff": 0.8}),
    ("lips rolled in", {"mouthRollLower": 0.8, "mouthRollUpper": 0.8}),
    ("tongue out", {"tongueOut": 1, "jawOpen": 0.4}),
    ("look to the left", {"eyeLookOutLeft": 1, "eyeLookInRight": 1}),
)


def expression_weights(model: MorphableModel, named: dict[str, float]) -> np.ndarray:
    """(L,) float32 weights; a name without a side stands for both sides.

    Raises:
        ValueError: the model has no expression of that name.
    """
    weights = np.zeros(model.n_expression, np.float32)
    for name, value in named.items():
        sided = [name] if name in model.expression_names else [name + side for side in BOTH]
        for unit in sided:
            if unit not in model.expression_names:
                raise ValueError(f"face model '{model.name}' has no expression '{unit}'")
            weights[model.expression_names.index(unit)] = value
    return weights


def draw_face(model: MorphableModel, vertices: np.ndarray, yaw: float, texture: np.ndarray):
    """One face on white.

    Args:
        model: gives triangles and uv.
        vertices: (N, 3) mm, model frame.
        yaw: radians, see ``rotation_from_euler``.
        texture: (S, S, 3) float32 in [0, 1], RGB, row 0 at v = 1.

    Returns:
        (TILE, TILE, 3) uint8 RGB.
    """
    size = TILE * SUPERSAMPLE
    rotation = rotation_from_euler([0.0, yaw, 0.0])
    # The mean head is centered in the tile, and all heads have one scale, so that sizes compare.
    middle = (model.mean.max(axis=0) + model.mean.min(axis=0)) / 2
    scale = 0.88 * size / np.ptp(model.mean[:, 1])
    posed = project(compose(rotation, scale, np.full(3, size / 2)), vertices - middle)
    buffers = rasterize(posed, model.triangles, size, size)
    normals = vertex_normals(posed * [1, -1, 1], model.triangles)
    values = interpolate(buffers, model.triangles, np.hstack([model.uv, normals]))
    uv, normals = values[buffers.mask, :2], values[buffers.mask, 2:]
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    image = np.full((size, size, 3), 255.0, np.float32)
    image[buffers.mask] = clay(normals, EXPOSURE * 255 * sample_texture(texture, uv))
    return np.round(cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)).astype(np.uint8)


def draw_identities(model: MorphableModel) -> np.ndarray:
    """A grid of random people: coefficients from the standard normal distribution."""
    rng = np.random.default_rng(SEED)
    tiles = []
    for i in range(PEOPLE):
        vertices = model.vertices(rng.standard_normal(model.n_identity))
        kind = rng.integers(len(SKINS))
        texture = paint_texture(model, SKINS[kind] / 255, HAIRS[kind] / 255)
        tiles.append(draw_face(model, vertices, YAWS[i % len(YAWS)], texture))
    return grid(tiles, COLUMNS)


def draw_expressions(model: MorphableModel) -> np.ndarray:
    """A labeled grid of expressions of the mean face."""
    texture = paint_texture(model, SKINS[0] / 255, HAIRS[0] / 255)
    tiles = []
    for label, named in EXPRESSIONS:
        vertices = model.vertices(expression=expression_weights(model, named))
        tile = draw_face(model, vertices, np.radians(-20), texture)
        cv2.putText(tile, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    return grid(tiles, COLUMNS)


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, help="a face model .npz; default: the embedded one")
    parser.add_argument("--out", type=Path, default=DOCS, help="output folder for the two images")
    args = parser.parse_args(argv)
    model = MorphableModel.load(args.model) if args.model else MorphableModel.open_face()
    args.out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("identities", draw_identities), ("expressions", draw_expressions)):
        path = args.out / f"face_model_{name}.png"
        with atomic_path(path) as temporary:
            picture = cv2.cvtColor(draw(model), cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(temporary), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
