"""A picture of two faces: photos, neutral shapes in one pose, and where they differ."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.cropping import FaceBox, crop_face
from keras_scnn.drawing import draw_view
from keras_scnn.morphable_model import MorphableModel

VIEWS_DEGREES = (0.0, 45.0)  # front and three-quarter
PHOTO_MARGIN = 1.7  # what is shown of a photo, in sides of the face's box
SIZE = 480  # px of each picture
VIEW_MARGIN = 0.04  # of a view's side is white around every face
COLORS = "YlOrRd"  # light where nothing differs, so that the shading shows the face
LEAST_TOP_MM = 1.0  # the scale of two equal faces must not blow up rounding errors


def draw_comparison(
    path: str | os.PathLike,
    model: MorphableModel,
    photos: tuple[np.ndarray, np.ndarray],
    boxes: tuple[FaceBox, FaceBox],
    shapes: np.ndarray,
    labels: tuple[str, str],
    title: str,
) -> None:
    """Draw two people side by side into a picture file.

    Args:
        path: the picture.
        model: of both faces.
        photos: (H, W, 3) uint8 RGB each.
        boxes: of the face in each photo.
        shapes: (2, N, 3) neutral vertices, mm, model frame, as they are to be compared.
        labels: beside the rows.
        title: over everything.
    """
    from matplotlib.figure import Figure  # slow to import; no display is needed

    figure = Figure(figsize=(11.5, 6.2), layout="constrained")
    figure.suptitle(title, fontsize=13)
    axes = figure.subplots(2, 2 + len(VIEWS_DEGREES))
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for row, photo, box, shape, label in zip(axes, photos, boxes, shapes, labels, strict=True):
        row[0].imshow(_face_of(photo, box))
        row[0].set_ylabel(label, fontsize=10)
        for axis, yaw in zip(row[1:-1], VIEWS_DEGREES, strict=True):
            axis.imshow(_view(model, shape, yaw))
    for axis, text in zip(axes[0], _titles(), strict=True):
        axis.set_title(text, fontsize=10)
    top = _draw_difference(axes[:, -1], model, np.linalg.norm(shapes[0] - shapes[1], axis=-1))
    bar = figure.colorbar(_scale(top), ax=axes[:, -1], shrink=0.7, aspect=25)
    bar.set_label("distance of corresponding points, mm", fontsize=9)
    figure.savefig(Path(path), dpi=120)


def _titles() -> list[str]:
    return ["photo", "neutral shape", "three-quarter view", "difference, on the mean face"]


def _face_of(photo: np.ndarray, box: FaceBox) -> np.ndarray:
    """A square about the face, moved into the photo as far as it goes."""
    extent = np.array(photo.shape[1::-1])
    side = max(min(PHOTO_MARGIN * box.width, *extent), box.width)
    center = (box.as_array()[:2] + box.as_array()[2:]) / 2
    inside = np.clip(
        center, np.minimum(side / 2, extent / 2), np.maximum(extent - side / 2, extent / 2)
    )
    return crop_face(photo, FaceBox.square(inside, side), SIZE).image


def _view(model: MorphableModel, shape: np.ndarray, yaw: float, **colors) -> np.ndarray:
    """``draw_view`` without its white margin."""
    margin = round(VIEW_MARGIN * SIZE)
    return draw_view(model, shape, yaw, SIZE, **colors)[margin:-margin, margin:-margin]


def _scale(top: float):
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    return ScalarMappable(Normalize(0, top), COLORS)


def _draw_difference(axes, model: MorphableModel, distance: np.ndarray) -> float:
    """Draw (N,) mm onto the mean face, and return the value of the scale's end."""
    top = max(float(np.ceil(2 * np.percentile(distance, 99.5)) / 2), LEAST_TOP_MM)
    albedo = _scale(top).to_rgba(distance)[:, :3] * 255
    for axis, yaw in zip(axes, VIEWS_DEGREES, strict=True):
        axis.imshow(_view(model, model.mean, yaw, albedo=albedo))
    return top
