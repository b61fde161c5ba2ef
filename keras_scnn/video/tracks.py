"""The tracks of a clip: which faces of its frames are one person, the shape, and the smooth motion.

A face is tracked through each shot (``tracking``). If the preset's features are calibrated,
tracklets of one person at different times become one track. The track's identity is fused from its
best frames like that of several photos of a person (``reconstruction.person``), and is the same in
every frame; each frame's pose is adapted to it so that the landmarks stay where the network saw
them, and pose and expression are smoothed.
"""

from __future__ import annotations

import dataclasses
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from keras_scnn.evaluation.calibration import probability
from keras_scnn.geometry.alignment import similarity_alignment
from keras_scnn.geometry.camera import FLIP, compose, decompose
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.faces import Reconstruction, features_of
from keras_scnn.reconstruction.person import person_weights
from keras_scnn.video.smoothing import smooth
from keras_scnn.video.tracking import Tracker

SAMPLES = 32  # most frames of a tracklet that are fused: the best one of each of equal intervals
SAME_PERSON = 0.95  # probability from which on a tracklet is joined to a person
LEAST_FRAMES = 5  # seen in fewer frames, it is a false detection, or too short to be useful


@dataclass(eq=False)
class BestFrames:
    """The best faces of a sequence of any length, one in each of at most ``size`` equal intervals.

    Attributes:
        size: the largest number of faces that are kept.
        length: number of frames in an interval; doubled when there are too many intervals.
        best: by interval: quality, frame and face.
    """

    size: int = SAMPLES
    length: int = 1
    best: dict[int, tuple[float, int, Reconstruction]] = field(default_factory=dict)

    def add(self, frame: int, face: Reconstruction) -> None:
        """Add a face; frames are added in their order."""
        self._put(face.quality, frame, face)
        while len(self.best) > self.size:
            self.length *= 2
            kept, self.best = self.best, {}
            for item in kept.values():
                self._put(*item)

    def _put(self, worth: float, frame: int, face: Reconstruction) -> None:
        there = self.best.get(frame // self.length)
        if there is None or worth > there[0]:
            self.best[frame // self.length] = worth, frame, face


@dataclass(eq=False)
class Tracklet:
    """A face tracked without a break; a cut, or a gap of more than a second, ends it.

    Attributes:
        frames: numbers of the frames in which it was seen.
        samples: its best faces.
    """

    frames: list[int] = field(default_factory=list)
    samples: BestFrames = field(default_factory=BestFrames)

    @property
    def features(self) -> np.ndarray | None:
        """(F,) the normalized mean of the samples' features; None without a feature head."""
        faces = [face for _, _, face in self.samples.best.values()]
        if (own := features_of(faces)) is None:
            return None
        mean = np.mean(own, axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


@dataclass(frozen=True, eq=False)
class ClipPerson:
    """The tracklets of one person, and the identity.

    Attributes:
        tracklets: numbers, in temporal order.
        identity: (K,) float64, standard deviations; the same in all frames.
        best: number of the frame that shows the face best, and its face with this identity.
        strange: number of sampled frames that look like another person; they are left out of the
            identity.
    """

    tracklets: tuple[int, ...]
    identity: np.ndarray
    best: tuple[int, Reconstruction]
    strange: int


@dataclass(frozen=True, eq=False)
class Track:
    """The motion of a face in n frames.

    Attributes:
        model: the face model.
        identity: (K,) standard deviations; the same in all frames.
        frames: (n,) int64 increasing numbers of frames.
        seconds: (n,) float64 times of the frames.
        tracklets: (n,) int64 number of each frame's tracklet in the track, from 0; the motion is
            continuous within a tracklet.
        pose: (n, 3, 4) image_from_model, px per mm, scaled rotations.
        expression: (n, L) weights within the model's bounds.
        boxes: (n, 4) px, x0, y0, x1, y1.
        scores: (n,) detection scores, 0 to 1; 0 where the face was not seen.
        seen: (n,) bool; False where pose and expression are interpolated.
    """

    model: MorphableModel
    identity: np.ndarray
    frames: np.ndarray
    seconds: np.ndarray
    tracklets: np.ndarray
    pose: np.ndarray
    expression: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    seen: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)

    def face(self, i: int) -> Reconstruction:
        """The face in the i-th of the track's frames."""
        parameters = FaceParameters(self.pose[i], self.identity, self.expression[i])
        return Reconstruction(self.model, parameters, face_box(self.boxes[i], self.scores[i]))


def face_box(edges: np.ndarray, score: float) -> FaceBox:
    """A box from (4,) px, x0, y0, x1, y1."""
    x0, y0, x1, y1 = map(float, edges)
    return FaceBox(x0, y0, x1, y1, float(score))


def faces_of(model: MorphableModel, rows: dict[str, np.ndarray]) -> list[Reconstruction]:
    """The faces of a frame's rows, see ``frames.seen_frames``, as copies of the data."""
    pose = rows["image_from_model"].reshape(-1, 3, 4)
    features = rows.get("features")
    return [
        Reconstruction(
            model,
            FaceParameters(
                pose[i].copy(), rows["identity"][i].copy(), rows["expression"][i].copy()
            ),
            face_box(rows["box"][i], rows["score"][i]),
            None if features is None else features[i].copy(),
        )
        for i in range(len(pose))
    ]


def find_tracklets(
    model: MorphableModel,
    frames: Iterable[tuple[int, float, dict[str, np.ndarray]]],
    seconds: np.ndarray,
    cuts: set[int],
) -> tuple[list[Tracklet], np.ndarray]:
    """Track the faces of a clip.

    Args:
        model: the face model.
        frames: of ``frames.seen_frames``.
        seconds: (frames,) times of all frames of the clip.
        cuts: numbers of the frames that begin a shot.

    Returns:
        the tracklets, and (rows,) the number of each row's tracklet.
    """
    tracker, numbers = Tracker(), []
    tracklets: list[Tracklet] = []
    for number, _, rows in frames:
        own = tracker.update(
            float(seconds[number]), rows["box"], rows.get("features"), number in cuts
        )
        for tracklet, face in zip(own.tolist(), faces_of(model, rows), strict=True):
            if tracklet == len(tracklets):
                tracklets.append(Tracklet())
            tracklets[tracklet].frames.append(number)
            tracklets[tracklet].samples.add(number, face)
        numbers.append(own)
    return tracklets, np.concatenate(numbers) if numbers else np.zeros(0, np.int64)


def find_people(
    tracklets: Sequence[Tracklet], calibration: dict | None, least_frames: int = LEAST_FRAMES
) -> list[ClipPerson]:
    """Group the tracklets by person, and fuse each person's identity.

    Args:
        tracklets: of a clip.
        calibration: of ``calibration.checked_calibration``; without it no tracklets are joined.
        least_frames: people seen in fewer frames are left out.

    Returns:
        the people in order of appearance.
    """
    if not tracklets:
        return []
    numbers = _people(tracklets, (calibration or {}).get("feature"))
    groups = [np.flatnonzero(numbers == person).tolist() for person in range(numbers.max() + 1)]
    counts = [sum(len(tracklets[i].frames) for i in group) for group in groups]
    kept = [group for group, count in zip(groups, counts, strict=True) if count >= least_frames]
    return [_person(group, tracklets) for group in kept]


def _people(tracklets: Sequence[Tracklet], curve: dict | None) -> np.ndarray:
    """(n,) the person of each tracklet: the most probable one not seen at that time, or a new one.

    It is the mean over the person's tracklets of the probability from calibrated features.
    """
    own, numbers = [tracklet.features for tracklet in tracklets], np.arange(len(tracklets))
    features = [one for one in own if one is not None]
    if curve is None or len(features) < len(tracklets):
        return numbers
    table, count = np.array(features), 0
    last = np.array([tracklet.frames[-1] for tracklet in tracklets])
    for i in range(len(tracklets)):
        same = probability(curve, table[:i] @ table[i])
        busy = last[:i] >= tracklets[i].frames[0]
        sizes = np.maximum(np.bincount(numbers[:i], minlength=1), 1)
        likely = np.bincount(numbers[:i], same, minlength=1) / sizes
        likely[numbers[:i][busy]] = 0
        is_known = likely.max() >= SAME_PERSON
        numbers[i] = np.argmax(likely) if is_known else count
        count += not is_known
    return numbers


def _person(group: list[int], tracklets: Sequence[Tracklet]) -> ClipPerson:
    samples = [item for i in group for item in tracklets[i].samples.best.values()]
    weights, strange = person_weights([face for _, _, face in samples])
    identity = weights @ np.stack([face.parameters.identity for _, _, face in samples])
    kept = [item for i, item in enumerate(samples) if i not in strange]
    _, frame, face = max(kept, key=lambda item: item[0])
    best = with_shape(face, identity)
    return ClipPerson(tuple(group), identity, (frame, best), len(strange))


def with_shape(face: Reconstruction, identity: np.ndarray) -> Reconstruction:
    """The face with another identity (K,), posed to keep its landmarks as close as possible."""
    seen = face.parameters
    pose = pose_of(face.model, identity, seen.expression[None], face.landmarks[None])[0]
    return dataclasses.replace(face, parameters=FaceParameters(pose, identity, seen.expression))


def pose_of(
    model: MorphableModel, identity: np.ndarray, expression: np.ndarray, landmarks: np.ndarray
) -> np.ndarray:
    """The cameras that bring a face's landmarks nearest to given ones (Umeyama 1991).

    Args:
        model: the face model.
        identity: (K,).
        expression: (n, L).
        landmarks: (n, 68, 3) px and depth, image frame.

    Returns:
        (n, 3, 4) image_from_model, exact scaled rotations.
    """
    shape = np.broadcast_to(identity, (len(expression), len(identity)))
    own = model.landmarks(shape, expression)
    scale, rotation, shift = similarity_alignment(own, landmarks @ FLIP)
    return compose(rotation, scale, shift @ FLIP)


def smooth_tracks(
    model: MorphableModel,
    people: Sequence[ClipPerson],
    frames: Iterable[tuple[int, float, dict[str, np.ndarray]]],
    numbers: np.ndarray,
    seconds: np.ndarray,
) -> list[Track]:
    """The tracks of people, with smooth motion.

    Args:
        model: the face model.
        people: of ``find_people``.
        frames: the same as for ``find_tracklets``.
        numbers: (rows,) the tracklet of each row, of ``find_tracklets``.
        seconds: (frames,) times of all frames of the clip.

    Returns:
        a track for each person.
    """
    home = {s: (p, i) for p, person in enumerate(people) for i, s in enumerate(person.tracklets)}
    seen = {place: _Rows(model) for place in home.values()}
    row = 0
    for number, _, rows in frames:
        own = numbers[row : row + len(rows["frame"])]
        row += len(own)
        for i, place in enumerate(map(home.get, own.tolist())):
            if place is not None:
                seen[place].add(number, people[place[0]].identity, rows, i)
    return [
        _track(model, person, [seen[p, i] for i in range(len(person.tracklets))], seconds)
        for p, person in enumerate(people)
    ]


@dataclass(eq=False)
class _Rows:
    """Pose, expression, box and score in each frame of a tracklet, as float32 to save memory."""

    model: MorphableModel
    frames: array = field(default_factory=lambda: array("q"))
    numbers: array = field(default_factory=lambda: array("f"))

    def add(self, frame: int, identity: np.ndarray, rows: dict, i: int) -> None:
        expression, landmarks = rows["expression"][i], rows["landmarks"][i].reshape(1, 68, 3)
        pose = pose_of(self.model, identity, expression[None], landmarks)
        values = pose.ravel(), expression, rows["box"][i], rows["score"][i : i + 1]
        self.frames.append(frame)
        self.numbers.frombytes(np.concatenate(values).astype(np.float32).tobytes())

    def columns(self) -> tuple[np.ndarray, ...]:
        """Frames (n,), poses (n, 3, 4), expressions (n, L), boxes (n, 4) and scores (n,)."""
        table = np.frombuffer(self.numbers, np.float32).reshape(len(self.frames), -1)
        pose, expression, boxes, scores = np.split(table, [12, table.shape[1] - 5, -1], axis=1)
        frames = np.frombuffer(self.frames, np.int64)
        return frames, pose.reshape(-1, 3, 4), expression, boxes, scores[:, 0]


def _track(model: MorphableModel, person: ClipPerson, shots: list, seconds: np.ndarray) -> Track:
    parts = [_motion(model, shot, seconds) for shot in shots]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    frames, pose, expression, boxes, scores, seen = columns
    shot = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    times = seconds[frames]
    return Track(model, person.identity, frames, times, shot, pose, expression, boxes, scores, seen)


def _motion(model: MorphableModel, rows: _Rows, seconds: np.ndarray) -> tuple:
    """Frames, smooth poses and expressions, boxes, scores and ``seen`` of one tracklet."""
    known, pose, expression, boxes, scores = rows.columns()
    frames = np.arange(known[0], known[-1] + 1)
    times, at = seconds[frames], seconds[known]
    pose = smooth_pose(times, _between(pose, at, times))
    expression = np.float32(smooth(times, _interpolated(expression, at, times)))
    seen = np.isin(frames, known)
    score = np.zeros(len(frames))
    score[seen] = scores
    boxes = _interpolated(boxes, at, times)
    return frames, pose, model.clip_expression(expression), boxes, score, seen


def _interpolated(values: np.ndarray, at: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(n, C) values at the times (n,), interpolated from (m, C) values at the times (m,)."""
    if len(at) == len(times):
        return np.float64(values)
    return np.stack([np.interp(times, at, column) for column in values.T], axis=1)


def _between(pose: np.ndarray, at: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(n, 3, 4) cameras interpolated at all times; rotations along the shortest path."""
    if len(at) == len(times):
        return np.float64(pose)
    rotation, scale, shift = decompose(np.float64(pose))
    turned = Slerp(at, Rotation.from_matrix(rotation))(times).as_matrix()
    rest = np.exp(_interpolated(np.log(scale)[:, None], at, times)[:, 0])
    return compose(turned, rest, _interpolated(shift, at, times))


def smooth_pose(seconds: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Cameras (n, 3, 4) smoothed without lag: rotation, scale and translation as one motion."""
    rotation, scale, shift = decompose(pose)
    turns = Rotation.from_matrix(rotation).as_quat()
    for i in range(1, len(turns)):  # q and -q are one rotation
        turns[i] *= np.sign(turns[i] @ turns[i - 1]) or 1.0
    motion = smooth(seconds, np.c_[turns, np.log(scale), shift], together=True)
    rotation = Rotation.from_quat(motion[:, :4]).as_matrix()
    return compose(rotation, np.exp(motion[:, 4]), motion[:, 5:])
