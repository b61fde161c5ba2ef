"""The texture map of a face model: what lies at each texel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np

from keras_scnn.geometry.rasterizer import RasterBuffers, interpolate, rasterize
from keras_scnn.morphable_model import REGIONS, MorphableModel

SKIN, MOUTH, TEETH, *EYES = range(len(REGIONS))
OUTSIDE = 255  # the region of texels without a triangle
BROWS = (range(17, 22), range(22, 27))  # landmarks
LIDS = (range(36, 42), range(42, 48))
OUTER_LIPS, INNER_LIPS, NOSTRILS = range(48, 60), range(60, 68), range(31, 36)
MOUTH_MARKS = range(48, 68)
OUTER_EYE_CORNERS = [36, 45]
EYES_APART = 87.0  # mm between them in the open face model


@dataclass(frozen=True, eq=False)
class Atlas:
    """The texels of a face model at one size.

    Attributes:
        model: with uv.
        size: S, texels per side.
        texels: the triangle at each texel.
        region: (S, S) uint8, as in ``MorphableModel.regions``; a triangle with a skin vertex is
            skin; ``OUTSIDE`` without a triangle.
        nearest: (S, S) int32, flat index of the nearest texel of the face: the texel itself, or
            another one in the gutter between the charts.
    """

    model: MorphableModel
    size: int
    texels: RasterBuffers
    region: np.ndarray
    nearest: np.ndarray

    @classmethod
    @lru_cache(maxsize=4)
    def of(cls, model: MorphableModel, size: int) -> Atlas:
        """The atlas; the last few are cached. ValueError if the model has no uv."""
        flat = np.column_stack([texel_of(model, size), np.zeros(model.n_vertices)])
        texels = rasterize(flat, model.triangles, size, size, cull_back_faces=False)
        of_triangle = model.vertex_regions[model.triangles].min(axis=1)
        region = np.where(texels.mask, of_triangle[texels.triangle], OUTSIDE).astype(np.uint8)
        outside = np.uint8(~texels.mask)
        _, label = cv2.distanceTransformWithLabels(
            outside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        flat_of_label = np.zeros(label.max() + 1, np.int32)
        inside = np.flatnonzero(texels.mask)
        flat_of_label[label.ravel()[inside]] = inside
        return cls(model, size, texels, region, flat_of_label[label])

    @property
    def mask(self) -> np.ndarray:
        """(S, S) bool: where the face is."""
        return self.texels.mask

    @property
    def skin(self) -> np.ndarray:
        """(S, S) bool: where its skin is."""
        return self.mask & (self.region == SKIN)

    @property
    def teeth(self) -> np.ndarray:
        """(S, S) bool: where its teeth are."""
        return self.mask & (self.region == TEETH)

    @cached_property
    def scale(self) -> float:
        """Ratio of the mean faces' sizes, the model's to the open face model's.

        The size is the distance of the outer eye corners.
        """
        return eyes_apart(self.model, self.model.mean) / EYES_APART

    @cached_property
    def mean_face(self) -> np.ndarray:
        """(N, 3) mm, the model's mean face at the size of the open face model's."""
        return self.model.mean / self.scale

    def at_texels(self, attributes: np.ndarray) -> np.ndarray:
        """(S, S, C) float32 of vertex attributes (N, C)."""
        return interpolate(self.texels, self.model.triangles, attributes)

    def gutter_filled(self, picture: np.ndarray) -> np.ndarray:
        """The picture (S, S, C) with its gutter filled from the nearest texels of the face."""
        return picture.reshape(-1, picture.shape[-1])[self.nearest]

    @cached_property
    def zones(self) -> Zones:
        """The parts of the face."""
        return Zones.of(self)


@dataclass(frozen=True, eq=False)
class Zones:
    """The parts of a face on its texture map, by the landmarks of the mean face.

    Lengths are in mm of the open face model, see ``Atlas.mean_face``.

    Attributes:
        up, front: (S, S) float32, mm above the brows, and in front of the ears.
        middle: (S, S) bool: between the outer eye corners.
        cheeks: (S, S) bool, skin that hair, brows and beard seldom cover.
        moustache, chin: (S, S) bool: their middle, which a beard covers.
        face: (S, S) bool: in front of the ears, below the scalp.
        features: (S, S) bool: brows, eyes, nostrils, lips, whose colors are not the skin's.
        eyes, lips, brows: (S, S) bool: single features; eyes include all between brow and cheek.
        lids: (S, S) bool: the part of the eyes within the rims of glasses.
        bridge: (S, S) bool: of the nose, between the eyes.
        beard: (S, S) bool: where a beard grows.
        temples: (S, S) bool: beside the forehead, down to the ears, where hair may grow.
        brow_strokes: (S, S) float32, 0 to 1: where brows are painted.
        scalp_slant: (S, S) float32, mm: height above the brows, plus the drop of a hairline towards
            the ears; -1000 where no scalp hair grows.
    """

    up: np.ndarray
    front: np.ndarray
    middle: np.ndarray
    cheeks: np.ndarray
    moustache: np.ndarray
    chin: np.ndarray
    face: np.ndarray
    features: np.ndarray
    eyes: np.ndarray
    lids: np.ndarray
    bridge: np.ndarray
    lips: np.ndarray
    brows: np.ndarray
    beard: np.ndarray
    temples: np.ndarray
    brow_strokes: np.ndarray
    scalp_slant: np.ndarray

    @classmethod
    def of(cls, atlas: Atlas) -> Zones:
        """The zones of a map, placed by the landmarks of its model's mean face."""
        skin = atlas.skin
        marks = atlas.mean_face[atlas.model.landmark_indices]
        brow, nose, lip = marks[[19, 24], 1].mean(), marks[33, 1], marks[57, 1]
        eye, ear, chin = marks[36:48, 1].mean(), marks[[0, 16], 2].mean(), marks[8, 1]
        x, y, z = np.moveaxis(atlas.at_texels(atlas.mean_face), -1, 0)
        side, up, front = np.abs(x), y - brow, z - ear
        half = EYES_APART / 2  # from the middle to an outer eye corner
        features = {
            "brows": _hulls(atlas, BROWS, 5),
            "eyes": _hulls(atlas, LIDS, 8),
            "lips": _hulls(atlas, (OUTER_LIPS,), 1.5),
        }
        strokes = _brow_strokes(atlas, 3.2)
        nostrils = _hulls(atlas, (NOSTRILS,), 4)
        is_feature = skin & np.any([nostrils, *features.values()], axis=0)
        is_ear = skin & (front < -5) & (up < 2)
        cheeks = (y < eye - 11) & (y > nose) & (side < 0.9 * half)
        return cls(
            up=up, front=front, middle=skin & (side < 0.9 * half),
            cheeks=skin & cheeks & ~is_feature,
            moustache=skin & (y < nose - 4) & (y > marks[51, 1] + 2)
            & (side < 0.4 * half) & ~is_feature,
            chin=skin & (y < lip - 4) & (y > chin) & (side < 0.4 * half) & ~is_feature,
            face=skin & (front > 20) & (up < 45) & (y > chin),
            features=is_feature,
            beard=skin & (y < nose - 3) & (front > 12) & ~features["lips"],
            lids=skin & _hulls(atlas, LIDS, 2),
            bridge=skin & (side < 6) & (up < -8) & (y > eye - 4),
            temples=skin & ~is_ear & (front < 62) & (up > -12),
            brow_strokes=strokes,
            scalp_slant=np.where(
                is_ear | (up < -10), -1e3, up - np.minimum(front - 46, 0)
            ).astype(np.float32),
            **{name: skin & zone for name, zone in features.items()},
        )  # fmt: skip


def texel_of(model: MorphableModel, size: int) -> np.ndarray:
    """(N, 2) px of the texture. As in OBJ and glTF, u = 0 is the first texel's outer edge."""
    if model.uv is None:
        raise ValueError(f"face model '{model.name}' has no uv, so it cannot carry a texture")
    return (model.uv * [1, -1] + [0, 1]) * size - 0.5


def eyes_apart(model: MorphableModel, points: np.ndarray) -> float:
    """The distance between the outer eye corners of points (N, D), one per vertex."""
    corners = points[model.landmark_indices[OUTER_EYE_CORNERS]]
    return float(np.linalg.norm(corners[1] - corners[0]))


def disk(radius: float) -> np.ndarray:
    """A filled circle for OpenCV's morphology, of an odd side."""
    side = 2 * max(round(radius), 1) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _texels_per_mm(atlas: Atlas) -> float:
    """The map's scale between the outer eye corners."""
    return eyes_apart(atlas.model, texel_of(atlas.model, atlas.size)) / EYES_APART


def _hulls(atlas: Atlas, groups, margin_mm: float) -> np.ndarray:
    """(S, S) bool: the convex hulls of groups of landmarks, with a margin around them."""
    points = texel_of(atlas.model, atlas.size)[atlas.model.landmark_indices]
    mask = np.zeros((atlas.size, atlas.size), np.uint8)
    for group in groups:
        hull = cv2.convexHull(np.float32(points[list(group)])).round().astype(np.int32)
        cv2.fillConvexPoly(mask, hull, 1)
    return cv2.dilate(mask, disk(margin_mm * _texels_per_mm(atlas))) > 0


def _brow_strokes(atlas: Atlas, radius_mm: float) -> np.ndarray:
    """(S, S) float32, 0 to 1: a line along each brow, thin at both ends."""
    model, mask = atlas.model, np.zeros((atlas.size, atlas.size), np.float32)
    points = texel_of(model, atlas.size)[model.landmark_indices]
    radius = radius_mm * _texels_per_mm(atlas)
    for brow, lids in zip(BROWS, LIDS, strict=True):
        line = 0.86 * points[list(brow)] + 0.14 * points[list(lids)].mean(axis=0)
        for t in np.linspace(0, 1, 40):
            at = [np.interp(t * (len(line) - 1), range(len(line)), line[:, i]) for i in (0, 1)]
            size = radius * (0.35 + 0.65 * np.sin(np.pi * t))
            center = tuple(int(round(16 * v)) for v in at)
            cv2.circle(mask, center, int(16 * size), 1.0, -1, cv2.LINE_AA, 4)
    return mask
