"""All photos of one person as one face, behind ``Reconstructor.fit_person``.

A photo's weight is its quality (see ``quality``), reduced if it disagrees with the other photos
(see ``fuse``). Weighting by the strength of the expression helped one network and harmed the other.

Mean distance between two fused galleries of one person over that between galleries of two people,
for the two networks in ``quality``, against plain means: 0.483 (plain 0.496) and 0.258 (0.268) for
5 photos each; 0.386 (0.404) and 0.201 (0.211) for 10; with a stranger among the 5, 0.586 (0.613)
and 0.339 (0.408). The AUC for 5 photos each falls with the first network (from 87.0 to 86.5 %), and
rises in all other cases.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

from keras_scnn.fitting import FitOptions, fit_landmarks
from keras_scnn.io import read_image
from keras_scnn.meshes.face import FaceLook, write_face_mesh
from keras_scnn.meshes.files import check_format
from keras_scnn.meshes.options import MeshOptions
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.reconstruction.faces import Reconstruction, features_of
from keras_scnn.settings import typed
from keras_scnn.shape_distance import shape_coordinates
from keras_scnn.storage.text import counted
from keras_scnn.texturing.texture import PosedPhoto, person_texture, texture_size, vertex_colors

ROUNDS = 20
AGREEMENT_SD = 2.0


@dataclass(frozen=True, eq=False)
class Fusion:
    """n measurements combined into one.

    Attributes:
        weights: (n,) float64, at least 0, of sum 1.
        center: (D,) the weighted mean.
        distance: (n,) of each measurement from the weighted mean of the others.
    """

    weights: np.ndarray
    center: np.ndarray
    distance: np.ndarray


def others_center(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(n, D): for each of n vectors (n, D) the weighted mean of the others.

    If all others have a weight of 0, it is the vector itself.
    """
    total = (weights.sum() - weights)[:, None]
    others = (weights @ vectors - weights[:, None] * vectors) / np.where(total > 0, total, 1)
    return np.where(total > 1e-12, others, vectors)


def fuse(vectors: np.ndarray, quality: np.ndarray) -> Fusion:
    """The weighted mean in which measurements far from the others count less.

    Iteratively re-weighted least squares with Huber's weights (Huber, "Robust Estimation of a
    Location Parameter", 1964) on the distance from the weighted mean of the others: within
    ``AGREEMENT_SD`` robust standard deviations above the median distance a measurement keeps its
    quality as its weight; beyond that the weight falls with the inverse of the distance's square,
    faster than Huber's own, because what disagrees may be another person altogether.

    Args:
        vectors: (n, D), n above 0, whose Euclidean distance measures how much two disagree.
        quality: (n,) at least 0, with a positive sum: the expected inverse variance.

    Raises:
        ValueError: wrong shapes or values.
    """
    vectors, quality = np.asarray(vectors, np.float64), np.asarray(quality, np.float64)
    if vectors.ndim != 2 or quality.shape != vectors.shape[:1] or not len(vectors):
        raise ValueError(
            f"vectors and quality have the shapes {vectors.shape} and {quality.shape}; they must "
            "be (n, D) and (n,), n above 0"
        )
    if not (quality >= 0).all() or not 0 < quality.sum() < np.inf:
        raise ValueError("quality must be finite and at least 0, with a positive sum")
    if not np.isfinite(vectors).all():
        raise ValueError("vectors must be finite")
    weights = quality / quality.sum()
    for _ in range(ROUNDS):
        distance = np.linalg.norm(vectors - others_center(vectors, weights), axis=1)
        limit = max(robust_limit(distance[quality > 0], AGREEMENT_SD), ROUNDING)
        far = distance > limit
        fresh = quality * np.where(far, limit / np.where(far, distance, 1), 1) ** 2
        fresh = fresh / fresh.sum()
        done, weights = np.allclose(fresh, weights, atol=1e-6), fresh
        if done:
            break
    distance = np.linalg.norm(vectors - others_center(vectors, weights), axis=1)
    return Fusion(weights, weights @ vectors, distance)


def robust_limit(distance: np.ndarray, deviations: float) -> float:
    """``deviations`` robust standard deviations above the median of (n,) distances."""
    spread = scipy.stats.median_abs_deviation(distance, scale="normal")
    return float(np.median(distance) + deviations * spread)


Photo = np.ndarray | str | os.PathLike
# A photo is taken to show another person if its distance from the person's other photos is more
# than this multiple of the median photo's. With one stranger among 5 or 10 photos, the identity
# network finds 38 and 44 % of them, and rejects 0.5 and 0.7 % of the person's own photos (1.5 and
# 1.2 % without a stranger); the other network, which hardly distinguishes people, finds 5 %.
FAR_SHAPE, FAR_FEATURE = 3.0, 2.0
ROUNDING = 1e-6  # distance of equal photos, mm or of unit features
MIN_PHOTOS = 3  # if two photos disagree, either may show the stranger
# Pose and expression are refitted to the landmarks that the network predicted, with the shared
# identity; the expression stays close to the network's.
REFINEMENT = FitOptions(expression_sd=0.1)


@dataclass(frozen=True, eq=False)
class Person:
    """One person in n photos.

    Attributes:
        model: the face model.
        identity: (K,) float64 coefficients of the fused face, in standard deviations.
        weights: (n,) float64, at least 0, of sum 1: how much each photo counted.
        faces: n reconstructions with this identity, each with the pose and the expression of its
            photo; None for the photos that did not count.
        outliers: photos that look like another person: reasons by index. Of single strangers'
            photos among 5 or 10, a third to a half are recognized (by ``mobile``).
        left_out: photos that cannot be read or show no face: reasons by index.
        features: (F,) weighted mean of the features, of unit length; None without a feature head.
    """

    model: MorphableModel
    identity: np.ndarray
    weights: np.ndarray
    faces: tuple[Reconstruction | None, ...]
    outliers: dict[int, str]
    left_out: dict[int, str]
    features: np.ndarray | None = None

    @property
    def neutral_vertices(self) -> np.ndarray:
        """(N, 3) float32, mm, model frame: the person without expression."""
        return self.model.vertices(self.identity)

    def texture(self, photos: Iterable[Photo], baked: bool = False) -> np.ndarray:
        """One texture from all photos that count: at each texel those that show it best.

        Args:
            photos: those that this person was made from, in the same order. Only one is held in
                memory at a time.
            baked: with the lighting of the photo with the largest weight; False removes it.

        Returns:
            (S, S, 3) uint8 RGB, first row at v = 1; S is 512, 1024 or 2048, by the largest face.

        Raises:
            ValueError: another number of photos, a photo that is invalid or of another size than
                the one that was reconstructed, or a model without uv.
        """
        photos = check_photos(photos)
        if len(photos) != len(self.faces):
            raise ValueError(
                f"{counted(len(photos), 'photo')} for a person made from {len(self.faces)}; give "
                "the same ones again"
            )
        best_first = np.argsort(-self.weights, kind="stable")
        used = [(i, face) for i in best_first if (face := self.faces[i]) is not None]
        sizes = [texture_size(self.model, face.posed_vertices) for _, face in used]
        posed = (_posed(face, photos[i]) for i, face in used)
        return person_texture(self.model, posed, max(sizes), baked)

    def write_mesh(
        self,
        path: str | os.PathLike,
        photos: Iterable[Photo] | None = None,
        options: MeshOptions = MeshOptions(),
    ) -> None:
        """Write the person without expression; GLB has a morph target for each expression.

        Args:
            path: .obj, .ply or .glb, as for ``Reconstruction.write_mesh``.
            photos: those that this person was made from, for the texture; None for a plain mesh.
            options: unit, parts, and whether the texture keeps a photo's lighting.

        Raises:
            ValueError: as for ``texture``; unknown suffix, a unit that the format does not support,
                an unknown part, or options that are not ``MeshOptions``.
        """
        typed(options, MeshOptions, "options")
        check_format(path, options.unit)
        look = FaceLook()
        if photos is not None and self.model.uv is not None:
            texture = self.texture(photos, options.baked)
            look = FaceLook(texture, vertex_colors(self.model, texture))
        neutral = np.zeros(self.model.n_expression)
        write_face_mesh(path, self.model, self.identity, neutral, look, options=options)


def reconstruct_person(
    photos: Iterable[Photo], reconstruct: Callable[[np.ndarray], Reconstruction]
) -> Person:
    """Fuse all photos of one person into one identity.

    Args:
        photos: (H, W, 3) uint8 RGB each, or paths.
        reconstruct: from a photo to its face; raises a ValueError if there is none.

    Raises:
        ValueError: ``photos`` is a single photo, empty, or contains anything but photos; or none
            shows a face.
    """
    photos = check_photos(photos)
    by_position, left_out = _reconstructed(photos, reconstruct)
    if not by_position:
        first = f"the first: {left_out[0]}" if left_out else "no photo was given"
        raise ValueError(f"none of {counted(len(photos), 'photo')} shows a face; {first}")
    faces = list(by_position.values())
    weights, reasons = person_weights(faces)
    identity = weights @ np.stack([face.parameters.identity for face in faces])
    of_photo = dict(zip(by_position, weights.tolist(), strict=True))
    shared = (
        with_identity(by_position[i], identity) if of_photo.get(i) else None
        for i in range(len(photos))
    )
    return Person(
        model=faces[0].model,
        identity=identity,
        weights=np.array([of_photo.get(i, 0.0) for i in range(len(photos))]),
        faces=tuple(shared),
        outliers={list(by_position)[i]: reason for i, reason in reasons.items()},
        left_out=left_out,
        features=_mean_direction(faces, weights),
    )


def _reconstructed(photos, reconstruct) -> tuple[dict[int, Reconstruction], dict[int, str]]:
    """Faces, and reasons for the photos without one, by index."""
    by_position, left_out = {}, {}
    for i, photo in enumerate(photos):
        try:
            by_position[i] = reconstruct(_image(photo))
        except (OSError, ValueError) as error:
            name = "" if isinstance(photo, np.ndarray) else f"{Path(photo).name}: "
            left_out[i] = str(error) if name and name[:-2] in str(error) else f"{name}{error}"
    return by_position, left_out


def _posed(face: Reconstruction, photo: Photo) -> PosedPhoto:
    image = _image(photo)
    face.check_photo(image)
    return PosedPhoto(image, face.posed_vertices)


def check_photos(photos: Iterable[Photo]) -> list[Photo]:
    """The photos as a list; all photos of a generator are held in memory at once.

    Raises:
        ValueError: it is a single photo, not iterable, or has an item that is neither an array nor
            a path.
    """
    if isinstance(photos, (str, bytes, os.PathLike)) or getattr(photos, "ndim", 4) != 4:
        raise ValueError("photos is a single photo; give a list of photos or paths")
    if not isinstance(photos, Iterable):
        raise ValueError(f"photos is {type(photos).__name__}; give a list of photos or paths")
    photos = list(photos)
    for i, photo in enumerate(photos):
        if not isinstance(photo, Photo):
            kind = type(photo).__name__
            raise ValueError(f"photo {i} is {kind}; expected a path or an (H, W, 3) uint8 array")
    return photos


def _image(photo: Photo) -> np.ndarray:
    return photo if isinstance(photo, np.ndarray) else read_image(photo)


def person_weights(faces: Sequence[Reconstruction]) -> tuple[np.ndarray, dict[int, str]]:
    """The weight of each of n faces for the person, and the faces that look like somebody else.

    Returns:
        (n,) float64 of sum 1, 0 for the outliers; and the reasons, by index.
    """
    identity = np.stack([face.parameters.identity for face in faces])
    shapes = shape_coordinates(faces[0].model, identity)
    quality = np.array([face.quality for face in faces])
    reasons = _far(fuse(shapes, quality), quality, FAR_SHAPE, "shape", "mm")
    if (features := features_of(faces)) is not None:
        reasons |= _far(fuse(features, quality), quality, FAR_FEATURE, "feature", "")
    if len(reasons) > len(faces) / 2:  # there is no majority: the mean of all is used
        reasons = {}
    quality[list(reasons)] = 0
    return fuse(shapes, quality).weights, dict(sorted(reasons.items()))


def _far(fused: Fusion, quality: np.ndarray, times: float, kind: str, unit: str) -> dict[int, str]:
    """Reasons by index; a photo of low quality may be farther away by chance."""
    if len(quality) < MIN_PHOTOS:
        return {}
    distance = fused.distance * np.sqrt(quality / np.median(quality))
    middle = float(np.median(fused.distance))
    return {
        int(i): f"its {kind} is {fused.distance[i]:.2f} {unit}".rstrip()
        + f" away from the person's other photos; the median photo is {middle:.2f}"
        for i in np.flatnonzero(distance > max(times * float(np.median(distance)), ROUNDING))
    }


def _mean_direction(faces: Sequence[Reconstruction], weights: np.ndarray) -> np.ndarray | None:
    if (features := features_of(faces)) is None:
        return None
    mean = weights @ features
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def with_identity(face: Reconstruction, identity: np.ndarray) -> Reconstruction:
    """The same photo's face with another identity (K,), its pose and expression refitted.

    The 68 landmarks are fitted to those that the network predicted in the photo (least squares; see
    ``fitting``); the expression stays close to the network's. The network's pose and expression are
    kept if they fit better, which is possible because its camera, unlike the fitted one, need not
    be an exact scaled rotation.
    """
    seen = face.parameters  # as the network predicted them
    model = face.model.truncated(0, face.model.n_expression).replace(
        mean=face.model.vertices(identity, seen.expression),
        expression_bounds=face.model.expression_bounds - seen.expression[:, None],
    )
    target = face.landmarks[:, :2]
    fit = fit_landmarks(model, target[None], options=REFINEMENT).parameters
    expression = face.model.clip_expression(seen.expression + fit.expression[0])
    refined, kept = (
        dataclasses.replace(face, parameters=FaceParameters(pose, identity, weights))
        for pose, weights in ((fit.pose[0], expression), (seen.pose, seen.expression))
    )
    misses = [np.square(f.landmarks[:, :2] - target).sum() for f in (refined, kept)]
    return refined if misses[0] <= misses[1] else kept
