"""Draw the model frame on the mean head, and the image frame at a photo's first pixels.

python tools/draw_frames.py            # writes docs/frames.png
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np

from keras_scnn.geometry.camera import compose, project
from keras_scnn.geometry.rotations import rotation_from_euler
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruction.drawing import draw_mesh
from keras_scnn.settings import command
from keras_scnn.storage import atomic_path

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is set

DOCS = Path(__file__).resolve().parents[1] / "docs"
SIZE, SCALE, AXIS_MM = 480, 1.45, 120.0
TURN = np.radians([-14.0, -28.0, 0.0])
BOX = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1}
COLORS = ("#c62828", "#2e7d32", "#1565c0")


def draw_model_frame(axes, model: MorphableModel) -> None:
    """The mean head, turned, with its axes."""
    camera = compose(rotation_from_euler(TURN), SCALE, np.array([0.58 * SIZE, 0.5 * SIZE, 0.0]))
    background = np.full((SIZE, SIZE, 3), 255, np.uint8)
    axes.imshow(draw_mesh(background, model, project(camera, model.mean)))
    ends = project(camera, np.vstack([np.zeros(3), AXIS_MM * np.eye(3)]))[:, :2]
    names = ("x, to the image's right", "y, up", "z, towards the viewer")
    for end, name, color, below in zip(ends[1:], names, COLORS, (6, 6, -14), strict=True):
        axes.annotate("", end, ends[0], arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2.5})
        axes.annotate(
            name, end, (0, below), textcoords="offset points", color=color, ha="center", bbox=BOX
        )
    axes.set_title("model frame, mm")
    axes.axis("off")


def draw_image_frame(axes) -> None:
    """The first pixels of a photo: centers at integers."""
    shades = np.random.default_rng(3).uniform(0.72, 0.95, (4, 5))
    axes.imshow(shades, cmap="gray", vmin=0, vmax=1)
    for y, x in np.ndindex(shades.shape):
        axes.plot(x, y, ".", color="black", ms=4)
        axes.annotate(f"({x}, {y})", (x, y), (0, 5), textcoords="offset points", ha="center")
    arrow = {"arrowstyle": "-|>", "lw": 2.5}
    axes.annotate("", (4.9, 0), (0, 0), arrowprops=arrow | {"color": COLORS[0]})
    axes.annotate("", (0, 3.9), (0, 0), arrowprops=arrow | {"color": COLORS[1]})
    axes.set_xlabel("x, right")
    axes.set_ylabel("y, down")
    axes.set_xlim(-0.7, 5.1)
    axes.set_ylim(4.1, -0.7)
    axes.set_title("image frame, px: pixel centers at integers")


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DOCS / "frames.png")
    args = parser.parse_args(argv)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.8), width_ratios=(1, 1.15))
    draw_model_frame(left, MorphableModel.open_face())
    draw_image_frame(right)
    figure.tight_layout()
    with atomic_path(args.out) as path:
        figure.savefig(path, format="png", dpi=90)


if __name__ == "__main__":
    sys.exit(main())
