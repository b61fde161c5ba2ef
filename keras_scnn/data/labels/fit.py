"""From labeled photos to face records: crop the photos, and fit the face model to the landmarks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from keras_scnn.data.labels.recognizer import shared_teacher
from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.records import FaceRecords
from keras_scnn.data.synthesis.turned_copies import check_can_turn
from keras_scnn.fitting import FitOptions, FitResult, fit_landmarks, fit_person_landmarks
from keras_scnn.geometry.alignment import apply_affine
from keras_scnn.geometry.camera import project, transform_camera
from keras_scnn.models.recognizers.chips import EMBEDDING_SIZE
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import FaceParameters, ParameterLayout
from keras_scnn.photos.cropping import FaceBox, FaceCrop, box_from_landmarks, crop_face
from keras_scnn.settings import check_types
from keras_scnn.storage.shards import Failures

FIT = FitOptions(identity_sd=1.0, expression_sd=0.5, iterations=15, tolerance=1e-3)
# Real people vary less than the open face model's random ones: fitted to 68 landmarks of 200 people
# with 20 photos each, its largest components have standard deviations of 0.2 to 0.5.
OPEN_IDENTITY_SD = 0.4
MAX_RESIDUAL = 0.08  # of the crop's side: above it, the labels are not those of a face
LEAST_SPAN = 10.0  # px of the photo, spanned by a face's landmarks
LEAST_INSIDE = 1 / 3  # of the landmarks lie within the photo, even of faces at its edge
Labeled = tuple[LabeledPhoto, FaceCrop]


@dataclass(frozen=True, eq=False)
class Labeling:
    """Settings of the conversion from photos to records.

    Attributes:
        model: the face model, with the landmark offsets of the annotation.
        crop_size: px.
        joint: all photos of one person get one identity, from a fit to all of them.
        turned: number of copies of each photo with the face turned, see ``turned_copies``.
        teacher: embed each photo by ``recognizer`` if the source does not do it.

    Raises:
        ValueError: a value has the wrong type, or faces are to be turned and the model has no uv.
    """

    model: MorphableModel
    crop_size: int = 120
    joint: bool = True
    turned: int = 0
    teacher: bool = False

    def __post_init__(self) -> None:
        check_types(self, int, bool)
        if self.turned:
            check_can_turn(self.model)

    @property
    def _layout(self) -> ParameterLayout:
        return ParameterLayout(self.model.n_identity, self.model.n_expression)

    def get_ready(self) -> None:
        """Open what all photos need, so that its absence is reported before any is read.

        Raises:
            FileNotFoundError: the recognizer is needed and not installed.
        """
        if self.teacher:
            shared_teacher()

    def records(
        self, source: PhotoSource, names: list[str]
    ) -> tuple[list[str], FaceRecords | None, Failures[str]]:
        """Read, crop and fit photos; of each person, all photos must be among the names, or none.

        Returns:
            the key of each record's person; the records in the order of the names, with people
            numbered from 0 (None if no photo is left); and by name, why photos were left out.
        """
        labeled: dict[str, Labeled] = {}
        left_out: Failures[str] = Failures()
        for name in names:
            try:
                photo = source.load(name)
                labeled[name] = self._crop(photo)
            except (OSError, ValueError) as error:
                left_out.note(name, error)
        landmarks = {n: _in_crop(photo, crop) for n, (photo, crop) in labeled.items()}
        fits, misfits = self._sound_fits(labeled, landmarks)
        left_out |= misfits
        kept = [name for name in labeled if name not in left_out]
        people = [labeled[name][0].person for name in kept]
        records = None
        if kept:
            size = source.embedding_size or EMBEDDING_SIZE * self.teacher
            records = self._stack(kept, labeled, landmarks, fits, size)
        return people, records, left_out

    def _crop(self, photo: LabeledPhoto) -> Labeled:
        """The photo, with its embedding if ``teacher`` is set, and its crop."""
        known = photo.weight > 0
        if known.sum() < 4:
            raise ValueError(f"{photo.name}: {known.sum()} landmarks are known; 4 are needed")
        if not np.isfinite(photo.landmarks[known, :2]).all():
            raise ValueError(f"{photo.name}: a landmark with a weight above 0 is not finite")
        box = box_from_landmarks(photo.landmarks[known])
        if photo.box is not None:
            box = FaceBox(*photo.box.tolist())
        image = photo.read_image()
        _check_place(photo.name, photo.landmarks[known, :2], image)
        if self.teacher and photo.embedding is None:
            embedding = shared_teacher()(image, photo.landmarks)
            photo = dataclasses.replace(photo, embedding=embedding)
        return photo, crop_face(image, box, self.crop_size)

    def _sound_fits(
        self, labeled: dict[str, Labeled], landmarks: dict[str, np.ndarray]
    ) -> tuple[dict, dict[str, str]]:
        """The fits whose residual is small enough, and by name, why other photos are left out.

        A photo with wrong labels spoils the identity that it shares with the person's others, and
        so their residuals too: only the worst one of each person is left out at a time, and the
        others are fitted again without it.
        """
        fits, misfits = self._fits(labeled, landmarks), dict[str, str]()
        limit = MAX_RESIDUAL * self.crop_size
        while any(residual > limit for _, _, residual in fits.values()):
            people: dict[str, list[str]] = {}
            for name in fits:
                person = labeled[name][0].person if self.joint else name
                people.setdefault(person, []).append(name)
            for names in people.values():
                worst = max(names, key=lambda name: fits[name][2])
                _, _, residual = fits[worst]
                if residual <= limit:
                    continue
                misfits[worst] = (
                    f"the fitted face model misses its landmarks by {residual:.1f} px in a crop of "
                    f"{self.crop_size} px; at most {limit:.1f} px"
                )
                del fits[worst]
                others = {name: labeled[name] for name in names if name != worst}
                fits |= self._fits(others, landmarks)
        return fits, misfits

    def _fits(self, labeled: dict[str, Labeled], landmarks: dict[str, np.ndarray]) -> dict:
        """Parameter vector, landmarks and residual (px) of each photo."""
        given = {n: one for n, one in labeled.items() if one[0].parameters is not None}
        fits = {name: self._given(*one) for name, one in given.items()}
        people: dict[tuple, list[str]] = {}
        for name, (photo, _) in labeled.items():
            if name not in fits:
                flat = bool(np.isnan(landmarks[name][photo.weight > 0, 2]).any())
                people.setdefault((photo.person if self.joint else None, flat), []).append(name)
        single: dict[bool, list[str]] = {False: [], True: []}
        for (_, flat), names in people.items():
            if self.joint and len(names) > 1:
                fits |= self._fit(fit_person_landmarks, names, flat, labeled, landmarks)
            else:
                single[flat] += names
        for flat, names in single.items():
            if names:
                fits |= self._fit(fit_landmarks, names, flat, labeled, landmarks)
        return fits

    def _fit(self, fit, names, flat: bool, labeled, landmarks) -> dict:
        points = np.stack([landmarks[name] for name in names])[..., : 2 if flat else 3]
        weight = np.stack([labeled[name][0].weight for name in names])
        result: FitResult = fit(self.model, points, weight, fit_options(self.model))
        vectors = result.parameters.to_vector()
        fits = zip(vectors, result.landmarks, result.residual_px, strict=True)
        return dict(zip(names, fits, strict=True))

    def _given(self, photo: LabeledPhoto, crop: FaceCrop) -> tuple:
        """The source's own fit, transformed to the crop: parameter vector, landmarks, and 0 px."""
        assert photo.parameters is not None  # see ``_fits``
        given = FaceParameters.from_vector(photo.parameters, self._layout)
        pose = transform_camera(crop.crop_from_image, given.pose)
        shape = self.model.landmarks(given.identity, given.expression)
        return dataclasses.replace(given, pose=pose).to_vector(), project(pose, shape), 0.0

    def _stack(self, names, labeled, landmarks, fits, size: int) -> FaceRecords:
        photos = [labeled[name][0] for name in names]
        points = np.stack([landmarks[name] for name in names])
        fitted = np.stack([fits[name][1] for name in names])
        weight = np.stack([photo.weight for photo in photos]).astype(np.float32)
        points = np.where(np.isnan(points) | (weight[..., None] <= 0), fitted, points)
        people = {person: i for i, person in enumerate(dict.fromkeys(p.person for p in photos))}
        embedding = None
        if size:
            embedding = np.full((len(photos), size), np.nan, np.float32)
            for row, photo in zip(embedding, photos, strict=True):
                if photo.embedding is not None:
                    row[:] = photo.embedding
        return FaceRecords(
            images=np.stack([labeled[name][1].image for name in names]),
            parameters=np.stack([fits[name][0] for name in names]).astype(np.float32),
            landmarks=points.astype(np.float32),
            identity=np.array([people[photo.person] for photo in photos], np.int32),
            face_model=self.model.name,
            weight=weight,
            name=np.array(names),
            crop_from_image=np.stack([labeled[name][1].crop_from_image for name in names]).astype(
                np.float32
            ),
            embedding=embedding,
        )


def fit_options(model: MorphableModel) -> FitOptions:
    """Options of fits to photos of real people, with a prior for the face model's identity."""
    if model.name == "open_face":
        return dataclasses.replace(FIT, identity_sd=OPEN_IDENTITY_SD)
    return FIT


def _check_place(name: str, points: np.ndarray, image: np.ndarray) -> None:
    """Raise a ValueError if landmarks (n, 2) seem not to be in px, or to be of another photo."""
    height, width = image.shape[:2]
    span, edges = np.ptp(points, axis=0).max(), np.array([width, height]) - 0.5
    is_inside = ((points >= -0.5) & (points <= edges)).all(axis=1)
    if span < LEAST_SPAN or is_inside.mean() < LEAST_INSIDE:
        raise ValueError(
            f"{name}: its landmarks span {span:.1f} px, and {is_inside.sum()} of {len(points)} lie "
            f"within the photo of {width} x {height} px: are they its own, in pixels?"
        )


def _in_crop(photo: LabeledPhoto, crop: FaceCrop) -> np.ndarray:
    """(68, 3) landmarks in crop px; depth in px of the crop's scale, mean 0 over the known ones."""
    matrix = crop.crop_from_image
    points = apply_affine(matrix, photo.landmarks[:, :2])
    depth = photo.landmarks[:, 2] * np.sqrt(np.linalg.det(matrix[:, :2]))
    known = np.isfinite(depth) & (photo.weight > 0)
    center = depth[known].mean() if known.any() else 0
    return np.column_stack([points, depth - center])
