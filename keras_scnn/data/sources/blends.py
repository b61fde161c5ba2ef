"""New, artificial people: blends of the faces of two photos.

With few people, a network memorizes their embeddings. A blend of two faces in similar poses, one
warped to the landmarks of the other, is a new person to the recognizer, which embeds it like a
photo; so there are as many people as pairs of photos. After Beyer et al., "Knowledge Distillation:
A Good Teacher Is Patient and Consistent", 2022, who mix images; here they are warped first, since
a recognizer expects faces. ``training.matching.batches`` blends on an accelerator, with the same
``geometry.bending``.
"""

from __future__ import annotations

import cv2
import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.records import FaceRecords, split_people
from keras_scnn.geometry.bending import REACH, bend, grid_points, interpolate_grid
from keras_scnn.geometry.camera import project
from keras_scnn.geometry.similarities import Array
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.storage.text import counted

MAX_DEGREES = 60.0  # of yaw and of roll: beyond, the landmarks fold over
EULER_WEIGHTS = (1.0, 1.0, 0.5)  # weights of pitch, yaw and roll in the distance of poses
CANDIDATES = 300  # guests drawn, of which the one in the most similar pose is taken
SHARES = (0.35, 0.65)  # range of the guest's weight
GRID = 21  # points along an image's side at which the warp is computed


class BlendedFaces(PhotoSource):
    """Blends of crops: the host's geometry, with an appearance between the host's and the guest's.

    The labels are those of the host: landmarks, their weights, and parameters. The identity of the
    blend is known only to a recognizer (``Labeling.teacher``). Host, guest and the guest's share
    depend only on the blend's number.

    Args:
        records: crops to blend.
        model: the parameters' face model.
        count: number of blends, 1 or more.
        held_out: number of people that are not used, those that training on the records holds out
            (``split_people``).

    Raises:
        ValueError: count or held_out is out of range, or fewer than two people have a photo with
            yaw and roll below 60 degrees.
    """

    def __init__(
        self,
        records: FaceRecords,
        model: MorphableModel,
        count: int,
        held_out: int = 0,
    ):
        if count < 1 or held_out < 0:
            raise ValueError(
                f"count is {count} and held_out {held_out}; they must be at least 1 and 0"
            )
        self._count, self._records = count, records
        layout = ParameterLayout(model.n_identity, model.n_expression)
        fitted = FaceParameters.from_vector(records.parameters.astype(np.float64), layout)
        self._euler = records.euler_degrees()
        shapes = model.landmarks(fitted.identity, fitted.expression)
        self._points = project(fitted.pose, shapes)[..., :2].astype(np.float32)
        people = np.unique(records.identity)
        seen, _ = split_people(records.identity, held_out, records.mirror)
        self._chosen, self._person = seen[can_blend(self._euler[seen])], records.either_side()
        if len(np.unique(self._person[self._chosen])) < 2:
            raise ValueError(
                f"{counted(len(people), 'person')}, {held_out} of them held out: fewer than two "
                f"are left with a face turned by less than {MAX_DEGREES:g} degrees; a blend takes "
                "two"
            )

    def names(self) -> list[str]:
        return [f"blend/{number:07d}" for number in range(self._count)]

    def person(self, name: str) -> str:
        return name

    def load(self, name: str) -> LabeledPhoto:
        """A blend, whose crop is the whole image."""
        host, guest, share = self.draw(name)
        records = self._records
        size = records.images.shape[1]
        return LabeledPhoto(
            name=name,
            person=name,
            landmarks=records.landmarks[host].astype(np.float64),
            weight=records.weights(host).astype(np.float64),
            image=lambda: self._blend(host, guest, share),
            box=np.array([0.0, 0.0, size, size]),
            parameters=records.parameters[host].astype(np.float64),
        )

    def draw(self, name: str) -> tuple[int, int, float]:
        """Indices of a blend's host and guest in the records, and the guest's share."""
        rng = np.random.default_rng([0, int(name.rpartition("/")[2])])
        return *self._pair(rng), rng.uniform(*SHARES)

    def _pair(self, rng: np.random.Generator) -> tuple[int, int]:
        """Indices of a random photo, and of a photo of another person in a similar pose."""
        person = self._person  # a person and the mirror image count as one person
        host = rng.choice(self._chosen)
        others = rng.choice(self._chosen, CANDIDATES)
        others = others[person[others] != person[host]]
        if not len(others):
            others = self._chosen[person[self._chosen] != person[host]]
        turned = pose_distance(self._euler[others], self._euler[host])
        return int(host), int(others[turned.argmin()])

    def _blend(self, host: int, guest: int, share: float) -> np.ndarray:
        one, other = (np.asarray(self._records.images[[i]])[0] for i in (host, guest))
        bent = _bend(other, self._points[guest], self._points[host])
        mixed = (1 - share) * one.astype(np.float32) + share * bent
        return (mixed + 0.5).astype(np.uint8)


def can_blend(euler: np.ndarray) -> np.ndarray:
    """(n,) bool: whether faces with Euler angles (n, 3), degrees, may be blended with others."""
    return np.abs(euler[:, 1:]).max(axis=1) < MAX_DEGREES


def pose_distance(one: Array, other: Array) -> Array:
    """(...) weighted L1 distance of Euler angles (..., 3), degrees; NumPy or JAX arrays."""
    return abs(one - other) @ np.array(EULER_WEIGHTS, np.float32)


def _bend(image: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Warp a square image to move the points ``before`` to ``after``; its edge is replicated.

    Args:
        image: (S, S, 3) uint8.
        before, after: (n, 2) px.
    """
    size = len(image)
    grid = grid_points(size, GRID)[None]
    coarse = bend(grid, np.float32(after)[None], np.float32(before)[None], REACH * size)
    place = interpolate_grid(coarse, size)[0].astype(np.float32)
    return cv2.remap(
        image, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
