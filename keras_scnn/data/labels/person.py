"""Choose the person's face in each photo, and leave out photos that do not show the person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from keras_scnn.data.labels.landmarker import FoundFace
from keras_scnn.fitting import FitOptions, FitResult, fit_landmarks, fit_person_landmarks
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.cropping import box_from_landmarks
from keras_scnn.photos.detection import no_face

# If FaceMesh's score is lower, or it and the preset differ by more, in percent of the crop's side,
# one of them is wrong: in 2 % of CelebA's photos, mostly with yaws of 40 degrees or more, where
# FaceMesh fails.
MIN_MESH_SCORE, MAX_DISAGREEMENT = 0.5, 4.0
# Limit of the median distance of an embedding to those of the person's other photos. With 90 people
# of CelebA and photos of two strangers added to each, it finds 99 % of the strangers, and rejects
# 2.8 % of the people's own photos.
MAX_DISTANCE = 0.7
MIN_SIZE = 0.4  # relative to the photo's largest face; smaller ones are in the background


@dataclass(frozen=True, eq=False)
class Candidate:
    """A face that may be the person's, and its embedding by the recognizer if there is one."""

    face: FoundFace
    embedding: np.ndarray | None = None


def plausible_faces(faces: list[FoundFace], shape: tuple[int, ...]) -> list[FoundFace]:
    """The faces on which both networks agree, the largest and most central first.

    Args:
        faces: all detected faces, highest score first.
        shape: of the photo, (H, W, ...).

    Raises:
        ValueError: there is none; the message tells why the highest-scoring face was rejected.
    """
    if not faces:
        raise ValueError(no_face(shape, tiles=False))
    good = [face for face in faces if _flaw(face) is None]
    if not good:
        raise ValueError(_flaw(faces[0]))
    largest = max(_side(face) for face in good)
    near = [face for face in good if _side(face) >= MIN_SIZE * largest]
    return sorted(near, key=lambda face: -_side(face) * _centrality(face, shape))


def choose_faces(
    photos: dict[str, list[Candidate]],
) -> tuple[dict[str, Candidate], dict[str, str]]:
    """Choose one face in each photo.

    Without embeddings, or with fewer than three photos, it is the first one. Otherwise it is the
    one nearest to the first ones of the other photos; the photo is left out if even this face is
    another person's.

    Args:
        photos: candidates by the photo's name, the most likely first; no list is empty.

    Returns:
        the faces by the photos' names, and why photos were left out, by name.
    """
    first = {name: candidates[0] for name, candidates in photos.items()}
    if len(photos) < 3 or any(c.embedding is None for c in first.values()):
        return first, {}
    chosen = {name: _nearest(candidates, name, first) for name, candidates in photos.items()}
    distances = {name: _distance(candidate, name, chosen) for name, candidate in chosen.items()}
    strangers = {
        name: f"another person by the recognizer: {distance:.2f} from the median of the person's "
        f"other photos; at most {MAX_DISTANCE:g}"
        for name, distance in distances.items()
        if distance > MAX_DISTANCE
    }
    return {name: c for name, c in chosen.items() if name not in strangers}, strangers


def _flaw(face: FoundFace) -> str | None:
    if not np.isfinite(face.landmarks).all():
        return "the landmarks are not finite"
    if face.mesh_score < MIN_MESH_SCORE:
        return (
            f"FaceMesh finds no face in it (score {face.mesh_score:.2f}, yaw "
            f"{face.yaw_degrees:.0f} degrees); the face may be turned too far"
        )
    if face.disagreement > MAX_DISAGREEMENT:
        return (
            f"landmarks of FaceMesh and of the preset differ by {face.disagreement:.1f} % of the "
            f"crop's side (yaw {face.yaw_degrees:.0f} degrees); at most {MAX_DISAGREEMENT:g} %"
        )
    return None


def _side(face: FoundFace) -> float:
    return float((face.box[2:] - face.box[:2]).max())


def _centrality(face: FoundFace, shape: tuple[int, ...]) -> float:
    """1 at the photo's center, 0.5 at its corners."""
    half = np.array(shape[1::-1]) / 2
    return float(
        1 - 0.5 * np.linalg.norm((face.box[:2] + face.box[2:]) / 2 - half) / np.hypot(*half)
    )


def _nearest(candidates: list[Candidate], name: str, faces: dict[str, Candidate]) -> Candidate:
    return min(candidates, key=lambda candidate: _distance(candidate, name, faces))


def _distance(candidate: Candidate, name: str, faces: dict[str, Candidate]) -> float:
    """Median distance of a candidate's embedding to those of the other photos' faces."""
    others = [_embedding(face) for other, face in faces.items() if other != name]
    apart = np.linalg.norm(np.stack(others) - _embedding(candidate), axis=1)
    return float(np.median(apart))


def _embedding(candidate: Candidate) -> np.ndarray:
    assert candidate.embedding is not None  # one recognizer embeds all candidates, or none
    return candidate.embedding


# A photo is left out if its excess is 3.5 robust standard deviations (Iglewicz and Hoaglin 1993)
# above the median of the person's photos and above MIN_EXCESS, or if the residual of its own fit is
# above MAX_RESIDUAL. All are percent of the standard crop's side. With 81 people of CelebA and
# photos of two strangers added to each, this finds 29 % of the strangers, and rejects 1.6 % of the
# people's own photos. Landmarks hardly separate people; ``recognizer`` does.
OUTLIER_SD, MIN_EXCESS, MAX_RESIDUAL = 3.5, 0.3, 2.0
ROUNDS = 2  # more would reject the worst of the good photos
# A wide prior: with a narrow one all residuals are too large for a stranger's to stand out.
SEARCH = FitOptions(noise_mm=2.0)


def residual_percent(fit: FitResult, landmarks: np.ndarray) -> np.ndarray:
    """(B,) RMS distance of fitted to given landmarks, percent of the standard crop's side."""
    sides = np.array([box_from_landmarks(points[:, :2]).width for points in landmarks])
    return 100 * fit.residual_px / sides


def excess_limit(excess: np.ndarray) -> float:
    """The excess above which a photo is an outlier, from the median and MAD of all photos.

    Args:
        excess: (M,) by how much each photo's residual in the joint fit exceeds that of its own fit,
            percent of the crop's side; M above 0.
    """
    spread = scipy.stats.median_abs_deviation(excess, scale="normal")
    return float(max(np.median(excess) + OUTLIER_SD * spread, MIN_EXCESS))


def find_misfits(model: MorphableModel, landmarks: np.ndarray) -> dict[int, str]:
    """Find the photos whose landmarks no face fits, or not that of the person's other photos.

    One identity is fitted to all photos of the person, with a pose and an expression for each.
    Outliers (see ``excess_limit``) are left out, and so are those of a second fit without them.

    Args:
        model: the face model, with the landmark offsets of the annotation.
        landmarks: (n, 68, 3) px and depth, image frame of each photo, all known; n above 0.

    Returns:
        by index, why each of these photos is to be left out.
    """
    landmarks = np.asarray(landmarks, np.float64)
    own = residual_percent(fit_landmarks(model, landmarks, options=SEARCH), landmarks)
    reasons = {int(i): _failed(own[i]) for i in np.flatnonzero(own > MAX_RESIDUAL)}
    for _ in range(ROUNDS):
        kept = np.setdiff1d(np.arange(len(landmarks)), list(reasons))
        if not len(kept):
            break
        fit = fit_person_landmarks(model, landmarks[kept], options=SEARCH)
        excess = residual_percent(fit, landmarks[kept]) - own[kept]
        limit = excess_limit(excess)
        bad = excess > limit
        pairs = zip(kept[bad], excess[bad], strict=True)
        reasons |= {int(i): _misfit(value, limit) for i, value in pairs}
        if not bad.any():
            break
    return reasons


def _failed(residual: float) -> str:
    return (
        f"the fit misses its landmarks by {residual:.2f} % of the crop's side; at most "
        f"{MAX_RESIDUAL:g} %"
    )


def _misfit(excess: float, limit: float) -> str:
    return (
        f"the person's shape misses its landmarks by {excess:.2f} % of the crop's side more than "
        f"the photo's own fit; at most {limit:.2f} % for this person"
    )
