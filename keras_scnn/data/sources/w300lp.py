"""Reader of 300W-LP: folders of .jpg and .mat pairs.

Zhu et al., "Face Alignment Across Large Poses: A 3D Solution", 2016: 3,837 photos of AFW, HELEN,
IBUG and LFPW, each rendered in further poses (61,225 images), and the mirror image of each (folders
``*_Flip``). A file is named ``HELEN/HELEN_232194_1_0.jpg``: data set, photo, the number of the face
in the photo (not in LFPW), and the number of the pose; 0 is the photo itself.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from keras_scnn.data.photo_source import LabeledPhoto, PhotoSource
from keras_scnn.data.sources.bfm_full import FullBfm
from keras_scnn.data.sources.bfm_landmarks import BfmLandmarks
from keras_scnn.data.sources.mat_files import PHOTO_SIZE, BfmAnnotation, read_bfm_annotation
from keras_scnn.photos.files import beside, either_case

DATA_SETS = ("AFW", "HELEN", "IBUG", "LFPW")
MIRRORED = "_Flip"
FOLDERS = tuple(name + suffix for name in DATA_SETS for suffix in ("", MIRRORED))
COPY = re.compile(r"_\d+$")
PAPER_COMPONENTS = 40, 10  # identity and expression, as predicted by the field's networks


class W300LP(PhotoSource):
    """300W-LP in its published folders.

    A person is one face of one photo, in all its poses. The mirror image of a person is given by
    ``mirror_of``, and never counts as somebody else. The parameters are for photos of 450 x 450 px;
    a photo of another size is refused when it is read.

    Args:
        folder: contains AFW, AFW_Flip, HELEN, ..., or some of these.
        basis: decodes the parameters to 68 landmarks; required for the published files of 300W-LP.
            For files with pt3d_68 (as in AFLW2000-3D) these landmarks are used: they are the
            annotation itself, which the basis reproduces except for rounding.
        bfm: the user's own Basel Face Model: each photo then has the annotation's own parameters,
            and no face model needs to be fitted. It replaces ``basis``.
        components: how many of its identity and expression components are kept; the paper's
            networks regress 40 and 10.

    Raises:
        FileNotFoundError: there is no such folder, or it has none of the data sets.
        ValueError: there is no basis, and the files have no landmarks.
    """

    folder: Path
    labels = (".mat",)

    def __init__(
        self,
        folder: str | os.PathLike,
        basis: BfmLandmarks | None = None,
        bfm: FullBfm | None = None,
        components: tuple[int, int] = PAPER_COMPONENTS,
    ):
        self.folder, self._bfm, self._components = Path(folder), bfm, components
        self.basis = bfm.landmarks() if basis is None and bfm is not None else basis
        self._names = scan_300w_lp(self.folder)
        if self.basis is None:
            self._check_landmarks()

    def names(self) -> list[str]:
        return list(self._names)

    def person(self, name: str) -> str:
        """The data set's folder, photo and face: ``HELEN_Flip/232194_1``."""
        folder, file = name.split("/")
        photo = COPY.sub("", Path(file).stem)
        return f"{folder}/{photo.removeprefix(folder.removesuffix(MIRRORED) + '_')}"

    def mirror_of(self, person: str) -> str | None:
        folder, photo = person.split("/")
        if folder.endswith(MIRRORED):
            return f"{folder.removesuffix(MIRRORED)}/{photo}"
        return f"{folder}{MIRRORED}/{photo}"

    def load(self, name: str) -> LabeledPhoto:
        """Labels of one photo, with ``parameters`` if there is a Basel Face Model."""
        image = self.folder / name
        if not image.is_file():
            raise FileNotFoundError(f"{image}: no such photo; photos and .mat files come in pairs")
        annotation, parameters = read_bfm_annotation(beside(image, ".mat")), None
        if self._bfm is not None:
            parameters = self._bfm.parameters(annotation, *self._components).to_vector()
        return LabeledPhoto(
            name=name,
            person=self.person(name),
            landmarks=self._landmarks(image, annotation),
            weight=np.ones(68),
            image=image,
            parameters=parameters,
            size=None if annotation.landmarks is not None and self._bfm is None else PHOTO_SIZE,
        )

    def _landmarks(self, image: Path, annotation: BfmAnnotation) -> np.ndarray:
        if annotation.landmarks is not None:
            return annotation.landmarks
        if self.basis is None:
            raise ValueError(
                f"{beside(image, '.mat')}: no pt3d_68; give the landmark basis (--basis) "
                "that decodes Shape_Para, Exp_Para and Pose_Para (bfm_landmarks68.npz)"
            )
        return self.basis.decode(annotation.shape, annotation.expression, annotation.pose)

    def _check_landmarks(self) -> None:
        """Raise a ValueError if the first readable file has no landmarks."""
        for name in self._names:
            path = self.folder / name
            try:
                annotation = read_bfm_annotation(beside(path, ".mat"))
            except (FileNotFoundError, ValueError):
                continue  # reported when it is loaded
            self._landmarks(path, annotation)
            return


def scan_300w_lp(folder: str | os.PathLike) -> list[str]:
    """Names such as ``AFW/AFW_1051618982_1_0.jpg`` of all photos, also of .mat files without one.

    Raises:
        FileNotFoundError: there is no such folder, or it has none of the data sets.
    """
    folder = Path(folder)
    folders = [name for name in FOLDERS if (folder / name).is_dir()]
    if not folders:
        raise FileNotFoundError(
            f"{folder}: none of the folders of 300W-LP is there ({', '.join(FOLDERS)})"
        )
    names = []
    for name in folders:
        photos: dict[str, str] = {}  # suffixes by stem; .JPG and .MAT are sorted first
        for stem, suffix in sorted(
            os.path.splitext(entry.name) for entry in os.scandir(folder / name)
        ):
            if suffix in either_case(".jpg"):
                photos[stem] = suffix
            elif suffix in either_case(".mat"):
                photos.setdefault(stem, ".jpg")
        names += [f"{name}/{stem}{suffix}" for stem, suffix in photos.items()]
    if not names:
        raise FileNotFoundError(f"{folder}: no .jpg and .mat pairs in {', '.join(folders)}")
    return names
