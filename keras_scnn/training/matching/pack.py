"""Photos packed for an accelerator's memory: one file of JPEGs, each a crop with a margin.

The margin shows the photo around the crop, a sixth of the crop's side wide, so that the crop can be
shifted and rotated without loss.
"""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from keras_scnn.data.labels.fit import fit_options
from keras_scnn.data.mixture import Mixture
from keras_scnn.data.records import FaceRecords, photos_of_each
from keras_scnn.fitting import fit_landmarks
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.io import read_image
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout
from keras_scnn.photos.cropping import FaceBox, crop_face
from keras_scnn.settings import folders_of
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.guard import reading
from keras_scnn.storage.images import decode_plain_jpeg
from keras_scnn.storage.text import json_text

FORMAT, VERSION = "keras_scnn.photo_pack", 4
PER_PHOTO, OF_RECORDS = (
    ("limits", "single_identity", "source"),
    ("parameters", "landmarks", "identity", "mirror", "weight"),
)
MARGIN_SHARE, QUALITY = 1 / 6, 93
# Mean difference of gray values between a crop and the same crop of its photo: 2.5 at most for the
# right photo (a JPEG), 27 or more for another one, of 92 photos of AFLW and CelebA.
MAX_DIFFERENCE = 12.0
MIN_PHOTOS = 2  # photos of a person from which the joint fit differs from fits to single photos


@dataclass(frozen=True, eq=False)
class Pack:
    """n photos and their labels.

    Attributes:
        mixture: the crops, as records, and the number of each photo's data set.
        frames: (n, F, F, 3) uint8 RGB, the crops with their margins.
        margin: px on each side.
        limits: (n, 4) float32: the first and last x, y of the frame that show the photo.
        single_identity: (n, K) float32 identity coefficients, each photo fitted separately.
    """

    mixture: Mixture
    frames: np.ndarray
    margin: int
    limits: np.ndarray
    single_identity: np.ndarray


def write_pack(
    path: str | os.PathLike, mixture: Mixture, model: MorphableModel, folders: str = ""
) -> None:
    """Pack face records, without mirror images of people: batches mirror photos themselves.

    The people's numbers of mirror images are kept, so that ``split_people`` holds out the same
    people as of the records.

    Args:
        path: of the file, ``.npz``.
        mixture: face records.
        model: their face model, with the landmark offsets that they were fitted with.
        folders: comma-separated, of the photos that each folder of records was made from; '': only
            the crops are packed, and their margins show no photo.

    Raises:
        FileNotFoundError: a photo is missing.
        ValueError: there is not one folder of photos for each folder of records, a crop is not of a
            photo, such as that of a turned copy, or a photo cannot be read, or is another one.
    """
    mixture = mixture.without_mirror_images()
    records, names = mixture.records, folders_of(folders)
    if names and len(names) != mixture.source.max() + 1:
        raise ValueError(
            f"photo_folders: {len(names)} folders for {mixture.source.max() + 1} of records; give "
            "one for each"
        )
    size = records.images.shape[1]
    margin = round(MARGIN_SHARE * size)
    jobs, make = range(len(records)), partial(_crop_frame, records)
    if names:
        make = partial(_photo_frame, records, photo_paths(mixture, names))
    with ThreadPoolExecutor() as pool:
        framed = list(tqdm(pool.map(partial(make, margin), jobs), total=len(records), desc="pack"))
    files, limits = zip(*framed, strict=True)
    mirror = np.full(len(records), -1) if records.mirror is None else records.mirror
    write_npz(
        path,
        FORMAT,
        VERSION,
        files=np.frombuffer(b"".join(files), np.uint8),
        sizes=np.array([len(file) for file in files]),
        limits=np.array(limits, np.float32),
        margin=margin,
        landmarks=records.landmarks,
        weight=np.float32(records.weights()),
        parameters=records.parameters,
        single_identity=single_fits(mixture, model),
        identity=records.identity,
        mirror=np.int32(mirror),
        source=mixture.source,
        landmark_offsets=model.landmark_offsets,
        face_model=np.array(model.name),
        config=np.array(json_text(records.config)),
    )


def read_pack(path: str | os.PathLike) -> Pack:
    """Read a file of ``write_pack``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another format or version.
    """
    arrays = read_npz(path, FORMAT, VERSION)
    with reading(path, "a pack of photos (delete it to pack them again)"):
        return _pack(arrays)


def _pack(arrays: dict[str, np.ndarray]) -> Pack:
    frames, margin = read_frames(arrays["files"], arrays["sizes"]), int(arrays["margin"])
    count, side = frames.shape[:2]
    if frames.shape != (count, side, side, 3) or not 0 < 2 * margin < side:
        raise ValueError(f"frames of the shape {frames.shape} with a margin of {margin} px")
    config = json.loads(str(arrays["config"]))
    if not isinstance(config, dict):
        raise ValueError("the settings of the records are not a table")
    lengths = {name: len(arrays[name]) for name in (*PER_PHOTO, *OF_RECORDS)}
    if set(lengths.values()) != {count}:
        raise ValueError(f"{count} photos, but {lengths}")
    records = FaceRecords(
        np.ascontiguousarray(frames[:, margin:-margin, margin:-margin]),
        arrays["parameters"],
        arrays["landmarks"],
        arrays["identity"],
        str(arrays["face_model"]),
        {**config, "landmark_offsets": arrays["landmark_offsets"].tolist()},
        weight=arrays["weight"],
        mirror=arrays["mirror"],
    )
    mixture = Mixture(records, arrays["source"])
    return Pack(mixture, frames, margin, arrays["limits"], arrays["single_identity"])


def read_frames(files: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n, F, F, 3) uint8 RGB of concatenated JPEG files.

    Raises:
        ValueError: one is not a JPEG file, has another size than the first, or is truncated.
    """
    if files.dtype != np.uint8 or sizes.ndim != 1 or not len(sizes) or (sizes <= 0).any():
        raise ValueError("the photos' bytes are not uint8, or their sizes are not above 0")
    if int(sizes.sum()) != files.size:
        raise ValueError(f"photos of {int(sizes.sum()):,} bytes, but there are {files.size:,}")
    images: list[np.ndarray] = []
    for start, size in zip(np.cumsum(sizes) - sizes, sizes, strict=True):
        image = decode_plain_jpeg(files[start : start + size].tobytes())
        if image is None or image.shape != (images or [image])[0].shape:
            raise ValueError(f"photo {len(images)} is not a JPEG file of the others' size")
        images.append(image)
    return np.stack(images)


def photo_paths(mixture: Mixture, folders: list[str]) -> list[Path]:
    """The photo that each crop was made from, by the folder of photos for each folder of records.

    Raises:
        FileNotFoundError: a photo is missing.
        ValueError: the records do not name their photos, or a crop is not one of a photo.
    """
    records = mixture.records
    if records.name is None or records.crop_from_image is None:
        raise ValueError("photo_folders: the records do not name their photos")
    named = zip(mixture.source.tolist(), records.name.tolist(), strict=True)
    paths = [Path(folders[source]) / name for source, name in named]
    for path, matrix in zip(paths, records.crop_from_image, strict=True):
        if not np.isfinite(matrix).all():
            raise ValueError(
                f"photo_folders: '{path.name}' is no photo; leave out records with turned copies "
                "or without crop_from_image"
            )
        if not path.is_file():
            raise FileNotFoundError(f"photo_folders: {path}: no such photo")
    return paths


def _photo_frame(records: FaceRecords, paths: list[Path], margin: int, row: int):
    assert records.crop_from_image is not None  # checked by ``photo_paths``
    crop = np.asarray(records.images[[row]])[0]
    framed = frame(read_image(paths[row]), records.crop_from_image[row], len(crop), margin)
    again = read_frames(np.frombuffer(framed[0], np.uint8), np.array([len(framed[0])]))[0]
    difference = np.abs(again[margin:-margin, margin:-margin] - crop.astype(float)).mean()
    if difference > MAX_DIFFERENCE:
        raise ValueError(
            f"photo_folders: {paths[row]}: does not show what the crop of this name shows (mean "
            f"difference {difference:.0f}); give the photos that the records were made from"
        )
    return framed


def _crop_frame(records: FaceRecords, margin: int, row: int):
    matrix = np.array([[1.0, 0, 0], [0, 1, 0]])
    return frame(np.asarray(records.images[[row]])[0], matrix, records.images.shape[1], margin)


def frame(
    image: np.ndarray, crop_from_image: np.ndarray, size: int, margin: int
) -> tuple[bytes, np.ndarray]:
    """A crop with its margin.

    Args:
        image: (H, W, 3) uint8 RGB, the photo.
        crop_from_image: (2, 3) px of the photo to px of the crop, without rotation.
        size: of the crop, px.
        margin: px on each side.

    Returns:
        the JPEG, and (4,) float64, the first and last x, y of it that show the photo (x, y, x, y).
    """
    to_crop, whole = np.float64(crop_from_image), size + 2 * margin
    first, scale = invert_affine(to_crop) @ [-0.5, -0.5, 1], to_crop[0, 0]
    center = first + 0.5 + size / 2 / scale
    framed = crop_face(image, FaceBox.square(center, whole / scale), whole)
    last = np.array(image.shape[1::-1]) - 1.0
    ends = [framed.crop_from_image @ [*point, 1] for point in ([0, 0], last)]
    limits = np.clip([np.ceil(ends[0] - 1e-6), np.floor(ends[1] + 1e-6)], 0, whole - 1)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return cv2.imencode(".jpg", framed.image[..., ::-1], options)[1].tobytes(), limits.ravel()


def single_fits(mixture: Mixture, model: MorphableModel) -> np.ndarray:
    """(n, K) float32 identity coefficients, each photo fitted separately.

    Those of a person with one photo are taken from the records.
    """
    records = mixture.records
    identity = records.parameters[:, ParameterLayout(model.n_identity, 0).identity].copy()
    joint = np.flatnonzero(photos_of_each(records.identity) >= MIN_PHOTOS)
    if len(joint):
        points = records.landmarks[joint].astype(np.float64)[..., :2]
        weight = None if records.weight is None else records.weight[joint]
        fits = fit_landmarks(model, points, weight, fit_options(model))
        identity[joint] = fits.parameters.identity
    return identity
