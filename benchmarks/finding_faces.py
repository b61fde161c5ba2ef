"""Measure face detection: rotated faces, many faces in one image, and photos in packages.

    python benchmarks/finding_faces.py FOLDER [--every 32] [--pictures OUT]

FOLDER has photos with their 68 landmarks (.jpg and .pts, as in 300-W). ``turned``: each photo is
rotated clockwise around its face; a face is correct if the mean error of its landmarks is less than
10 % of the square root of their box's area. ``montages``: 12 faces, cut out at 1.15 times their
standard crops, among 12 pieces of photos of objects. ``photos``: photos from scikit-image and
Matplotlib with a known number of faces, and the astronaut at JPEG qualities from 30 to 100.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
import skimage.data
from matplotlib.cbook import get_sample_data

from keras_scnn.io import read_image, write_image
from keras_scnn.photos.blazeface import intersection_over_union
from keras_scnn.photos.cropping import box_from_landmarks, crop_rotated
from keras_scnn.reconstruction.reconstructor import Reconstructor

HIT_IOU, RIGHT = 0.3, 0.1
DEGREES, CONTEXT = range(0, 181, 15), 2.2
ROWS, COLUMNS, CELL, MARGIN, MONTAGES = 4, 6, 240, 1.15, 12
THINGS = ("coffee", "rocket", "chelsea", "coins", "clock", "page", "brick", "gravel", "moon")
THINGS += ("hubble_deep_field", "logo")
QUALITIES = range(30, 101, 5)


def read_faces(folder: Path, every: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(photo, (68, 2) landmarks in px from 0) of every n-th .pts file.

    Raises:
        FileNotFoundError: there is none.
    """
    points = sorted(folder.glob("*.pts"))[::every]
    if not points:
        raise FileNotFoundError(f"{folder}: no .pts files; it must have them beside .jpg photos")
    return [
        (read_image(path.with_suffix(".jpg")), np.loadtxt(path, skiprows=3, max_rows=68) - 1)
        for path in points
    ]


def turned(photo: np.ndarray, landmarks: np.ndarray, degrees: float, times: float, side: int):
    """The square around a face, ``times`` its standard crop, rotated clockwise, with landmarks."""
    box = box_from_landmarks(landmarks)
    center = box.center
    crop = crop_rotated(photo, center, times * box.width, -np.radians(degrees), side)
    affine = crop.crop_from_image
    return crop.image, landmarks @ affine[:, :2].T + affine[:, 2]


def measure_turned(reconstructor: Reconstructor, faces) -> None:
    """Print how many faces are found in photos rotated by each of ``DEGREES``."""
    print("degrees  photos  found  right  score of right and wrong ones (median, largest)")
    for degrees in DEGREES:
        right, wrong = [], []
        for photo, landmarks in faces:
            side = round(CONTEXT * box_from_landmarks(landmarks).width)
            image, points = turned(photo, landmarks, degrees, CONTEXT, side)
            try:
                face = reconstructor.largest(image)
            except ValueError:
                continue
            error = np.linalg.norm(face.landmarks[:, :2] - points, axis=1).mean()
            good = error < RIGHT * np.sqrt(np.prod(np.ptp(landmarks, axis=0)))
            (right if good else wrong).append(face.box.score)
        scores = "  ".join(f"{np.median(s):.2f} {max(s):.2f}" if s else "-" for s in (right, wrong))
        print(f"{degrees:7} {len(faces):7} {len(right) + len(wrong):6} {len(right):6}  {scores}")


def things() -> list[np.ndarray]:
    """Photos without faces, (H, W, 3) uint8."""
    images = [getattr(skimage.data, name)() for name in THINGS]
    images += [*skimage.data.stereo_motorcycle()[:2], skimage.data.astronaut()[190:]]
    return [np.dstack([image] * 3) if image.ndim == 2 else image[..., :3] for image in images]


def piece(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """A random square part of a photo, at least half as wide, rotated by random quarter turns."""
    extent = int(min(image.shape[:2]) * rng.uniform(0.5, 1))
    y, x = (rng.integers(0, n - extent + 1) for n in image.shape[:2])
    part = cv2.resize(
        image[y : y + extent, x : x + extent], (side, side), interpolation=cv2.INTER_AREA
    )
    return np.rot90(part, rng.integers(4))


def montage(faces, others, rng: np.random.Generator, is_turned: bool):
    """An image, and the standard crops (N, 4) of its faces."""
    picture = np.full((ROWS * CELL, COLUMNS * CELL, 3), rng.integers(0, 256, 3), np.uint8)
    cells, boxes = rng.permutation(ROWS * COLUMNS), []
    for i, cell in enumerate(cells):
        side = int(rng.integers(CELL // 3, CELL + 1))
        row, column = divmod(int(cell), COLUMNS)
        y, x = np.array([row, column]) * CELL + rng.integers(0, CELL - side + 1, 2)
        if i % 2:
            picture[y : y + side, x : x + side] = piece(
                others[rng.integers(len(others))], side, rng
            )
            continue
        degrees = rng.uniform(-180, 180) if is_turned else 0
        photo, landmarks = faces[rng.integers(len(faces))]
        image, points = turned(photo, landmarks, degrees, MARGIN, side)
        picture[y : y + side, x : x + side] = image
        center, width = (points.min(axis=0) + points.max(axis=0)) / 2 + [x, y], side / MARGIN
        boxes.append(np.r_[center - width / 2, center + width / 2])
    return picture, np.array(boxes)


def measure_montages(reconstructor: Reconstructor, faces, out: Path | None) -> None:
    """Print precision and recall on montages of faces, (photo, landmarks), and objects."""
    print("montages       faces  found  of them right  precision  recall")
    for name, is_turned in (("upright faces", False), ("turned faces", True)):
        rng, known, shown, hits = np.random.default_rng(0), 0, 0, 0
        for number in range(MONTAGES):
            picture, boxes = montage(faces, things(), rng, is_turned)
            detected = reconstructor.detect(picture)
            edges = np.reshape([box.as_array() for box in detected], (-1, 4))
            overlap = intersection_over_union(boxes[:, None], edges)
            known, shown = known + len(boxes), shown + len(edges)
            hits += int((overlap > HIT_IOU).any(axis=1).sum())
            if out is not None:
                write_image(out / f"{name[:7].strip()}-{number}.png", drawn(picture, boxes, edges))
        print(f"{name:13} {known:6} {shown:6} {hits:15} {hits / shown:10.3f} {hits / known:7.3f}")


def drawn(picture: np.ndarray, boxes: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Known boxes in white, found ones in green."""
    picture = picture.copy()
    for edges, color in ((boxes, (255, 255, 255)), (shown, (0, 255, 0))):
        for x0, y0, x1, y1 in np.rint(edges).astype(int).tolist():
            cv2.rectangle(picture, (x0, y0), (x1, y1), color, 2)
    return picture


def shipped_photos():
    """(name, photo, number of faces) of photos in installed packages."""
    for name in (*THINGS, "retina", "horse", "grass", "colorwheel", "text"):
        image = np.uint8(getattr(skimage.data, name)())
        yield name, np.dstack([image] * 3) if image.ndim == 2 else image[..., :3], 0
    for name, image in zip(("left", "right"), skimage.data.stereo_motorcycle()[:2], strict=True):
        yield f"motorcycle {name}", image, 0
    yield "camera", np.dstack([skimage.data.camera()] * 3), 1
    with get_sample_data("grace_hopper.jpg") as file:
        yield "grace hopper", cv2.imdecode(np.frombuffer(file.read(), np.uint8), 1)[..., ::-1], 1
    astronaut = skimage.data.astronaut()
    for quality in QUALITIES:
        code = cv2.imencode(".jpg", astronaut[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        yield f"astronaut, JPEG {quality}", cv2.imdecode(code, 1)[..., ::-1], 1


def measure_photos(reconstructor: Reconstructor) -> None:
    total = np.zeros(3, int)
    for name, image, count in shipped_photos():
        shown = len(reconstructor.detect(np.ascontiguousarray(image)))
        total += [count, shown, min(count, shown)]
        if shown != count:
            print(f"  {name}: {shown} faces found, {count} in the photo")
    print("shipped photos: {} faces, {} found, {} of them right".format(*total))


def main() -> None:
    """Count found and missed faces, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=32, help="use every n-th photo (32)")
    parser.add_argument("--pictures", type=Path, help="folder for the montages with their boxes")
    args = parser.parse_args()
    faces = read_faces(args.folder, args.every)
    if args.pictures is not None:
        args.pictures.mkdir(parents=True, exist_ok=True)
    reconstructor = Reconstructor.from_preset()
    measure_photos(reconstructor)
    measure_montages(reconstructor, faces, args.pictures)
    measure_turned(reconstructor, faces)


if __name__ == "__main__":
    main()
