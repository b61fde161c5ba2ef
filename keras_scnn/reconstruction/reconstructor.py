"""``Reconstructor``: photos, boxes and crops to 3D faces."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence

import numpy as np

import keras_scnn
from keras_scnn.geometry.camera import angle_in_image, transform_camera
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.models.inference import Network, keras_network, open_network, predict
from keras_scnn.models.preset_network import Preset, PresetData
from keras_scnn.models.presets import preset_digest
from keras_scnn.photos.cropping import (
    FaceBox,
    FaceCrop,
    crop_face,
    crop_upright,
    listed_boxes,
    second_box,
)
from keras_scnn.photos.detection import Detector, FaceDetector, LargestFaceDetector
from keras_scnn.reconstruction.faces import Faces, Reconstruction
from keras_scnn.reconstruction.person import Person, Photo, reconstruct_person
from keras_scnn.settings import DEFAULT_PRESET

# The first pass uses the crop's mirror image, the second one a crop around the landmarks found
# there, with the head upright. So features are averaged over mirror images at no extra cost.
PASSES = 2
PROCEDURE = "first pass mirrored; photos in sRGB"
"""Change this whenever ``Reconstructor`` gives other numbers for the same preset."""


def provenance(preset: str | os.PathLike) -> dict[str, str]:
    """The versions on which, besides settings, the predictions of ``Reconstructor`` depend.

    Stored results contain them, so that a run is not continued with other predictions.

    Args:
        preset: name, folder or URL.

    Returns:
        the digest of the preset, the package's version, and ``PROCEDURE``.

    Raises:
        FileNotFoundError: there is no such preset.
    """
    return {
        "preset_digest": preset_digest(preset),
        "keras_scnn_version": keras_scnn.__version__,
        "procedure": PROCEDURE,
    }


class Reconstructor:
    """Finds every face of a photo and reconstructs it.

    Args:
        preset: the trained network, or its data if ``network`` is given.
        detector: finds the faces; None makes a ``FaceDetector`` on first use.
        network: runs the preset's branch on (M, S, S, 3) uint8 crops; None makes a
            ``BatchedNetwork`` (compiled Keras).
    """

    def __init__(
        self,
        preset: Preset | PresetData,
        detector: Detector | None = None,
        network: Network | None = None,
    ):
        self.preset, self._detector = preset, detector
        self._largest = None if detector is None else LargestFaceDetector(detector)
        self._network = keras_network(preset) if network is None else network

    @classmethod
    def from_preset(
        cls,
        name_or_path: str | os.PathLike = DEFAULT_PRESET,
        detector: Detector | None = None,
    ) -> Reconstructor:
        """Load a preset that comes with the package, or a preset or run folder.

        If the folder has a LiteRT file of its weights, as the package's presets do, that is run,
        and Keras is not imported; see ``models.inference.open_network``.

        Args:
            name_or_path: a preset's name, a preset or run folder, or a URL; see ``load_preset``.
            detector: as above.

        Raises:
            FileNotFoundError: there is no such preset, or a file of it is missing.
            ImportError, OSError: of a URL, as ``load_preset``.
            ValueError: a file is damaged, or does not match the others.
        """
        preset, network = open_network(name_or_path)
        return cls(preset, detector, network)

    def __call__(self, image: np.ndarray) -> list[Reconstruction]:
        """The faces of an (H, W, 3) uint8 RGB photo, highest score first; [] for none."""
        boxes = self.detect(image)
        return self.reconstruct_boxes(image, boxes) if boxes else []

    def detect(self, image: np.ndarray) -> list[FaceBox]:
        """The standard crops of the faces of an (H, W, 3) uint8 RGB photo, highest score first."""
        if self._detector is None:
            self._detector = FaceDetector()
        return self._detector.detect(image)

    def largest(self, image: np.ndarray) -> Reconstruction:
        """The largest face of an (H, W, 3) uint8 RGB photo; ValueError if there is none."""
        return self.reconstruct_boxes(image, [self.find_largest(image)])[0]

    @property
    def find_largest(self) -> LargestFaceDetector:
        """Finds the largest face of a photo with the given detector, or else with the default."""
        if self._largest is None:
            self._largest = LargestFaceDetector()
        return self._largest

    def fit_person(self, photos: Iterable[Photo]) -> Person:
        """One face of all photos of one person, the largest face of each; see ``person``.

        Args:
            photos: (H, W, 3) uint8 RGB each, or paths, which are read one at a time.

        Raises:
            ValueError: ``photos`` is a single photo, empty, or contains anything but photos; or
                none shows a face.
        """
        return reconstruct_person(photos, self.largest)

    def reconstruct_boxes(
        self, image: np.ndarray, boxes: list[FaceBox], passes: int = PASSES
    ) -> list[Reconstruction]:
        """Faces in given boxes, one for each; ``passes`` and errors as ``reconstruct_many``."""
        boxes = listed_boxes("boxes", boxes)
        return list(self.reconstruct_many([image] * len(boxes), boxes, passes))

    def reconstruct_many(
        self, images: Sequence[np.ndarray], boxes: Sequence[FaceBox], passes: int = PASSES
    ) -> Faces:
        """Faces of many photos at once.

        Args:
            images: M photos, (H, W, 3) uint8 RGB; one with several faces is repeated.
            boxes: M square boxes, px of these photos.
            passes: 1 predicts from the crops of the boxes; 2 predicts from their mirror images, and
                again from crops around the landmarks found there, rotated so that the head is
                upright. Features are the mean of both passes, all else is from the second one.

        Raises:
            ValueError: there is no box, one is not a ``FaceBox`` or not square, an image is not a
                photo, the numbers of images and boxes differ, or ``passes`` is neither 1 nor 2.
        """
        images, boxes = list(images), listed_boxes("boxes", boxes)
        if not boxes:
            raise ValueError("there is no box; give at least one")
        if passes not in (1, 2):
            raise ValueError(f"passes is {passes!r}; it must be 1 or 2")
        if len(images) != len(boxes):
            raise ValueError(f"{len(images)} images, {len(boxes)} boxes; give one box per image")
        size = self.preset.input_size
        crops = [crop_face(*pair, size) for pair in zip(images, boxes, strict=True)]
        sizes = tuple((image.shape[1], image.shape[0]) for image in images)
        if passes == 1:
            return dataclasses.replace(self._predict(crops, boxes), photo_sizes=sizes)
        first = self._predict([crop.mirrored() for crop in crops], boxes)
        second_boxes, second_crops = list(boxes), crops
        angles = angle_in_image(first.parameters.pose)
        rows = zip(images, first.landmarks, angles, strict=True)
        for i, (image, landmarks, angle) in enumerate(rows):
            second_boxes[i] = second_box(landmarks, boxes[i])
            if second_boxes[i] is not boxes[i]:
                second_crops[i] = crop_upright(image, landmarks, angle, size)
        second = self._predict(second_crops, second_boxes)
        features = _mean_features(first, second)
        return dataclasses.replace(second, features=features, photo_sizes=sizes)

    def _predict(self, crops: list[FaceCrop], boxes: Sequence[FaceBox]) -> Faces:
        predictions = predict(self.preset, np.stack([crop.image for crop in crops]), self._network)
        image_from_crop = invert_affine(np.stack([crop.crop_from_image for crop in crops]))
        pose = transform_camera(image_from_crop, predictions.parameters.pose)
        parameters = dataclasses.replace(predictions.parameters, pose=pose)
        return Faces(predictions.face_model, parameters, tuple(boxes), predictions.features)


def _mean_features(first: Faces, second: Faces) -> np.ndarray | None:
    """(M, F) of unit length; None if there are none."""
    if first.features is None:
        return None
    mean = first.features + second.features
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)
