"""People folders: one folder per person, any photos in it, labeled by networks.

Unsuitable photos (no face, disagreement of the networks, another person, a failed fit) are left
out, with the reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_scnn.data.labels.landmarker import LANDMARK_PRESET, FoundFace, Landmarker
from keras_scnn.data.labels.person import (
    Candidate,
    choose_faces,
    find_misfits,
    plausible_faces,
)
from keras_scnn.data.labels.recognizer import FaceTeacher, shared_teacher
from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.io import read_image
from keras_scnn.models.recognizers.chips import EMBEDDING_SIZE
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.photos.files import PHOTO_SUFFIXES, find_photos, people_of
from keras_scnn.storage.shards import Failures

CHUNK = 8  # photos held in memory at once


@dataclass(frozen=True, eq=False)
class PersonLabels:
    """The labels of all photos of one person.

    Attributes:
        photos: those with labels, see ``PeopleFolder.load``.
        left_out: why the others have none, by the photos' names.
    """

    photos: list[LabeledPhoto]
    left_out: Failures[str]


class PeopleFolder(PhotoSource):
    """A folder of people: ``folder/PERSON/.../photo.jpg``.

    The photos of a person are labeled together when the first of them is loaded; the labels are
    kept until a photo of another person is loaded, so load photos in the order of ``names``.

    Args:
        folder: its subfolders are the people.
        teacher: embed each face with dlib's recognizer (extra ``teacher``), to find photos of
            strangers, and the person among several faces in a photo.

    Raises:
        FileNotFoundError: there is no such folder, or none of its subfolders has a photo.
    """

    folder: Path
    preset = LANDMARK_PRESET

    def __init__(self, folder: str | os.PathLike, teacher: bool = False):
        self.folder, self._with_teacher = Path(folder), teacher
        self.embedding_size = EMBEDDING_SIZE if teacher else 0
        self._people = scan_people(self.folder)
        self._networks: tuple[Landmarker, FaceTeacher | None] | None = None
        self._last: tuple[str, PersonLabels] | None = None

    def __getstate__(self) -> dict:
        """State for other processes, without the networks, which each process opens itself."""
        return self.__dict__ | {"_networks": None, "_last": None}

    def names(self) -> list[str]:
        return [name for names in self._people.values() for name in names]

    def people(self) -> list[str]:
        """Names of the people's folders, sorted."""
        return list(self._people)

    def person(self, name: str) -> str:
        return name.split("/")[0]

    def load(self, name: str) -> LabeledPhoto:
        """Labels of one photo.

        ``landmarks`` are from the networks; the embedding (128,), with a teacher, is dlib's.

        Raises:
            FileNotFoundError: there is no photo of this name, or a network is not installed.
            ValueError: the photo was left out; the message gives the reason.
            OSError: the photo was left out because of the machine, not because of its content.
        """
        labels = self.label(self.person(name))
        if name in labels.left_out:
            path, reason = str(self.folder / name), labels.left_out[name]
            kind = OSError if name in labels.left_out.passing else ValueError
            raise kind(reason if reason.startswith(path) else f"{path}: {reason}")
        for photo in labels.photos:
            if photo.name == name:
                return photo
        raise FileNotFoundError(f"{self.folder / name}: no photo of this name")

    def read_image(self, name: str) -> np.ndarray:
        """One photo, without labeling it; see ``PhotoSource.read_image``."""
        return read_image(self.folder / name)

    def label(self, person: str) -> PersonLabels:
        """Labels of all photos of a person.

        Raises:
            FileNotFoundError: there is no person of this name, or a network is not installed.
        """
        if person not in self._people:
            raise FileNotFoundError(f"{self.folder / person}: no folder of this name with photos")
        if self._last is None or self._last[0] != person:
            self._last = person, self._label(person)
        return self._last[1]

    def _label(self, person: str) -> PersonLabels:
        faces, left_out = self._faces(self._people[person])
        chosen, strangers = choose_faces(faces)
        left_out |= strangers
        names = list(chosen)
        if names:
            landmarks = np.stack([candidate.face.landmarks for candidate in chosen.values()])
            misfits = find_misfits(self.face_model, landmarks)
            left_out |= {names[i]: reason for i, reason in misfits.items()}
        photos = [self._photo(n, person, chosen[n]) for n in names if n not in left_out]
        return PersonLabels(photos, left_out)

    def _photo(self, name: str, person: str, chosen: Candidate) -> LabeledPhoto:
        landmarks, image = chosen.face.landmarks, self.folder / name
        embedding = chosen.embedding
        return LabeledPhoto(name, person, landmarks, np.ones(68), image, embedding=embedding)

    @property
    def face_model(self) -> MorphableModel:
        """The face model that is fitted, with the preset's landmark offsets."""
        return self._loaded()[0].face_model

    def _loaded(self) -> tuple[Landmarker, FaceTeacher | None]:
        if self._networks is None:
            teacher = shared_teacher() if self._with_teacher else None
            self._networks = Landmarker(), teacher
        return self._networks

    def _faces(self, names: list[str]) -> tuple[dict[str, list[Candidate]], Failures[str]]:
        """Plausible faces of each photo, the most likely first; and why other photos have none."""
        candidates: dict[str, list[Candidate]] = {}
        left_out: Failures[str] = Failures()
        for start in range(0, len(names), CHUNK):
            images = {}
            for name in names[start : start + CHUNK]:
                try:
                    images[name] = read_image(self.folder / name)
                except (OSError, ValueError) as error:
                    left_out.note(name, error)
            faces = self._loaded()[0](list(images.values()))
            for (name, image), rows in zip(images.items(), faces, strict=True):
                try:
                    candidates[name] = self._embedded(image, plausible_faces(rows, image.shape))
                except ValueError as error:
                    left_out[name] = str(error)
        return candidates, left_out

    def _embedded(self, image: np.ndarray, faces: list[FoundFace]) -> list[Candidate]:
        teacher = self._loaded()[1]
        if teacher is None:
            return [Candidate(face) for face in faces]
        return [Candidate(face, teacher(image, face.landmarks)) for face in faces]


def scan_people(folder: Path) -> dict[str, list[str]]:
    """The photos of each person, as ``PERSON/.../photo.jpg``, sorted.

    Raises:
        FileNotFoundError: there is no such folder, or none of its subfolders has a photo.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one folder per person in it")
    people, _ = people_of(find_photos(folder))
    if not people:
        raise FileNotFoundError(
            f"{folder}: no photos ({', '.join(PHOTO_SUFFIXES)}) in folders of people: put the "
            "photos of each person into a folder of its own"
        )
    return people
