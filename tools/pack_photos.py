"""Pack face records into one file that a machine with an accelerator trains on from its memory.

    python tools/pack_photos.py PACK.npz RECORDS=PHOTOS [RECORDS=PHOTOS ...]

Every photo of the records becomes a JPEG of 160x160 px: the crop of 120 px with a margin of 20 px
of the photo around it, so that it can be moved and turned without loss. PHOTOS is the folder that
the records were made of. ``tools/distill.py`` reads the pack.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from keras_scnn.data.labels.fit import FIT
from keras_scnn.data.mixture import Mixture, open_mixture
from keras_scnn.face_models import load_face_model
from keras_scnn.fitting import fit_landmarks
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.io import read_image
from keras_scnn.parameters import ParameterLayout
from keras_scnn.photos.cropping import CROP_SIZE, FaceBox, crop_face
from keras_scnn.storage import write_npz

FORMAT, VERSION = "keras_scnn.photo_pack", 1
CROP, MARGIN, QUALITY = CROP_SIZE, 20, 93
FRAME = CROP + 2 * MARGIN


def main() -> None:
    """Pack the records of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("sources", nargs="+", metavar="RECORDS=PHOTOS")
    args = parser.parse_args()
    folders, photos = zip(*(text.split("=", 1) for text in args.sources), strict=True)
    mixture = open_mixture(",".join(folders))
    records = mixture.records
    with ThreadPoolExecutor() as pool:
        paths = [Path(photos[s]) / n for s, n in zip(mixture.source, records.name, strict=True)]
        framed = list(tqdm(pool.map(frame, paths, records.crop_from_image), total=len(paths)))
    files, limits = zip(*framed, strict=True)
    write_npz(
        args.out,
        FORMAT,
        VERSION,
        files=np.frombuffer(b"".join(files), np.uint8),
        sizes=np.array([len(file) for file in files]),
        limits=np.array(limits, np.float32),
        landmarks=np.concatenate([records.landmarks, records.weight[..., None]], axis=-1),
        parameters=records.parameters,
        single_identity=single_fits(mixture),
        identity=records.identity,
        source=mixture.source,
        landmark_offsets=mixture.annotated(load_face_model("open_face")).landmark_offsets,
    )
    print(f"{args.out}: {len(files)} photos, {args.out.stat().st_size / 2**20:.0f} MiB")


def frame(path: Path, crop_from_image: np.ndarray) -> tuple[bytes, np.ndarray]:
    """The JPEG of a frame, and the first and last x, y of it that show the photo (x, y, x, y)."""
    image = read_image(path)
    to_crop = np.float64(crop_from_image)
    first, scale = invert_affine(to_crop) @ [-0.5, -0.5, 1], to_crop[0, 0]
    side, center = FRAME / scale, first + 0.5 + CROP / 2 / scale
    framed = crop_face(image, FaceBox.square(center, side), FRAME)
    last = np.array(image.shape[1::-1]) - 1.0
    ends = [framed.crop_from_image @ [*point, 1] for point in ([0, 0], last)]
    limits = np.clip([np.ceil(ends[0] - 1e-6), np.floor(ends[1] + 1e-6)], 0, FRAME - 1)
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    return cv2.imencode(".jpg", framed.image[..., ::-1], options)[1].tobytes(), limits.ravel()


def single_fits(mixture: Mixture) -> np.ndarray:
    """(n, K) float32 identity coefficients of each photo fitted for itself.

    They are the records' own where a person has one photo.
    """
    records, model = mixture.records, mixture.annotated(load_face_model("open_face"))
    identity = records.parameters[:, ParameterLayout(model.n_identity, 0).identity].copy()
    joint = np.flatnonzero(np.bincount(records.identity)[records.identity] > 1)
    if len(joint):
        points = records.landmarks[joint].astype(np.float64)[..., :2]
        fit = fit_landmarks(model, points, records.weight[joint], FIT)
        identity[joint] = fit.parameters.identity
    return identity


if __name__ == "__main__":
    main()
