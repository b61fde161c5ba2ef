"""Match the faces of a frame to those of the previous frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

MAX_GAP = 1.0  # s for which a face may be hidden or missed
MAX_MOVE = 0.7  # largest distance of a face from where it is expected, in sides of its box
GAP_MOVE = 1.0  # added to MAX_MOVE for each second in which the face was not seen
FEATURE_COST = 1.0  # of orthogonal features, in units of a distance of one side
LEAST_COSINE = 0.1  # below, it is another person; features of one person agree far better
FEATURE_SHARE, SPEED_SHARE = 0.1, 0.5  # weights of a new frame in a track's moving averages
NONE = 1e6


@dataclass(eq=False)
class _Active:
    """The last state of a track: center (2,) and side of the box, px; velocity (2,), px/s."""

    number: int
    seconds: float
    center: np.ndarray
    side: float
    speed: np.ndarray
    features: np.ndarray | None

    def cost(self, seconds: float, center, side: float, features) -> float:
        """Cost of assigning a face to this track, from 0; ``NONE`` if it is impossible."""
        gap = seconds - self.seconds
        expected = self.center + self.speed * min(gap, 0.2)  # motions do not last longer
        apart = float(np.linalg.norm(center - expected)) / self.side
        apart += abs(float(np.log(side / self.side)))
        if apart > MAX_MOVE + GAP_MOVE * gap:
            return NONE
        if features is None or self.features is None:
            return apart
        cosine = float(features @ self.features / max(np.linalg.norm(self.features), 1e-12))
        return NONE if cosine < LEAST_COSINE else apart + FEATURE_COST * (1 - cosine)

    def update(self, seconds: float, center, side: float, features) -> None:
        step = max(seconds - self.seconds, 1e-6)
        self.speed = self.speed + SPEED_SHARE * ((center - self.center) / step - self.speed)
        self.seconds, self.center, self.side = seconds, center, side
        if features is not None and self.features is not None:
            self.features = self.features + FEATURE_SHARE * (features - self.features)


class Tracker:
    """Assigns the faces of each frame to tracks.

    The assignment minimizes the sum of costs (Kuhn 1955): the distance from the track's expected
    position, the change in size, and the difference of the features, which distinguishes people
    whose paths cross. A track ends if it is not seen for ``MAX_GAP`` seconds; at a cut, all tracks
    end.
    """

    def __init__(self) -> None:
        self._count = 0
        self._active: list[_Active] = []
        self._before = -np.inf

    def update(
        self,
        seconds: float,
        boxes: np.ndarray,
        features: np.ndarray | None = None,
        is_cut: bool = False,
    ) -> np.ndarray:
        """The tracks of a frame's faces.

        Args:
            seconds: time of the frame, increasing from call to call.
            boxes: (m, 4) px, x0, y0, x1, y1.
            features: (m, F) of unit length, or None.
            is_cut: the frame begins a shot.

        Returns:
            (m,) int64 numbers of tracks, from 0 in the order in which they appear.
        """
        # Tracks of the previous frame continue even if frames are farther apart than that.
        oldest = np.inf if is_cut else min(seconds - MAX_GAP, self._before)
        self._before = seconds
        self._active = [track for track in self._active if track.seconds >= oldest]
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        centers, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2] - boxes[:, 0]
        own = [None] * len(boxes) if features is None else list(features)
        faces = list(zip(centers, sides.tolist(), own, strict=True))
        known = self._assigned(seconds, faces)
        return np.array([self._track(i, seconds, *f, known) for i, f in enumerate(faces)], np.int64)

    def _assigned(self, seconds: float, faces: list[tuple]) -> dict[int, _Active]:
        """The tracks of the faces that continue one, by the face's index."""
        if not faces or not self._active:
            return {}
        costs = np.array([[t.cost(seconds, *face) for t in self._active] for face in faces])
        pairs = zip(*linear_sum_assignment(costs), strict=True)
        return {int(i): self._active[j] for i, j in pairs if costs[i, j] < NONE}

    def _track(self, i: int, seconds: float, center, side: float, features, known) -> int:
        if i in known:
            known[i].update(seconds, center, side, features)
            return known[i].number
        track = _Active(self._count, seconds, center, side, np.zeros(2), features)
        self._active.append(track)
        self._count += 1
        return track.number
