"""Make faces/: photos, boxes, crops and outputs, which any port of a bundle must reproduce.

    python tests/golden/make_faces.py

The photos are parts of scikit-image's astronaut (Eileen Collins, NASA, public domain): upright,
turned by 35 degrees, and upside down. Outputs are those of the Keras network in float32. To be
made again if the preset changes; the test fails then.

``faces.json`` has the preset with its digest and, for each photo ``NAME.png``: ``boxes``, the
squares of both passes (center x, y in box coordinates, side, and angle, radians, clockwise), whose
crops are ``NAME-first.png``, which the network sees mirrored, and ``NAME-second.png``;
``landmarks`` (68, 3) px of the photo; ``pose`` (3, 4), photo from model; ``blendshapes``.
``NAME-vertices.bin``: (N, 3) float32, little-endian, mm.
"""

import json
from pathlib import Path

import cv2
import numpy as np

from keras_scnn import Preset, Reconstructor, load_preset
from keras_scnn.geometry.camera import angle_in_image, project, transform_camera
from keras_scnn.geometry.crops import invert_affine
from keras_scnn.io import write_image
from keras_scnn.models.inference import predict
from keras_scnn.models.presets import preset_digest
from keras_scnn.photos.cropping import FaceCrop, crop_face, crop_upright
from keras_scnn.photos.detection import LargestFaceDetector

FOLDER, PRESET = Path(__file__).with_name("faces"), "mobile"
LEFT, TOP, SIDE = 100, 0, 240  # px, of the part that shows the face
DIGITS = 5


def photos() -> dict[str, np.ndarray]:
    """(SIDE, SIDE, 3) uint8 RGB, by name."""
    from skimage.data import astronaut

    image = astronaut()
    turn = cv2.getRotationMatrix2D((LEFT + SIDE / 2, TOP + SIDE / 2), 35, 1)
    tilted = cv2.warpAffine(image, turn, image.shape[1::-1])
    window = np.s_[TOP : TOP + SIDE, LEFT : LEFT + SIDE]
    named = {"upright": image, "tilted": tilted, "upside-down": image[window][::-1, ::-1]}
    return {name: np.ascontiguousarray(photo[window] if len(photo) > SIDE else photo)
            for name, photo in named.items()}  # fmt: skip


def reconstruct(reconstructor: Reconstructor, photo: np.ndarray) -> tuple[dict, list, np.ndarray]:
    """A case of faces.json, the crops of both passes, and the vertices."""
    size, box = reconstructor.preset.input_size, LargestFaceDetector()(photo)
    (face,) = reconstructor.reconstruct_boxes(photo, [box])
    first = crop_face(photo, box, size)
    crops = [first, crop_upright(photo, *_seen(reconstructor.preset, first.mirrored()), size)]
    case = {
        "boxes": [_square(crop, size) for crop in crops],
        "landmarks": _rounded(face.landmarks),
        "pose": _rounded(face.parameters.pose),
        "blendshapes": dict(
            zip(face.model.expression_names, _rounded(face.parameters.expression), strict=True)
        ),
    }
    return case, [crop.image for crop in crops], face.vertices.astype("<f4")


def _seen(preset: Preset, crop: FaceCrop) -> tuple[np.ndarray, float]:
    """Landmarks (68, 3) found in a crop, px of the photo, and the head's turn, radians."""
    found = predict(preset, crop.image[None])
    pose = transform_camera(invert_affine(crop.crop_from_image), found.parameters.pose[0])
    shape = found.parameters.identity[0], found.parameters.expression[0]
    return project(pose, preset.face_model.landmarks(*shape)), float(angle_in_image(pose))


def _square(crop: FaceCrop, size: int) -> dict:
    image_from_crop = invert_affine(crop.crop_from_image)
    across, down = image_from_crop[:, 0]
    x, y = image_from_crop @ [(size - 1) / 2, (size - 1) / 2, 1] + 0.5
    square = {"x": x, "y": y, "side": size * np.hypot(across, down)}
    return {k: round(float(v), DIGITS) for k, v in square.items()} | {
        "angle": round(float(np.arctan2(down, across)), DIGITS + 2)
    }


def _rounded(array: np.ndarray) -> list:
    return np.round(np.float64(array), DIGITS).tolist()


def cases() -> dict[str, tuple[np.ndarray, dict, list, np.ndarray]]:
    """Photo, case, crops and vertices, by name."""
    reconstructor = Reconstructor(load_preset(PRESET))
    return {name: (photo, *reconstruct(reconstructor, photo)) for name, photo in photos().items()}


def main() -> None:
    """Write the files."""
    content: dict = {"preset": PRESET, "digest": preset_digest(PRESET), "cases": {}}
    for name, (photo, case, crops, vertices) in cases().items():
        content["cases"][name] = case
        write_image(FOLDER / f"{name}.png", photo)
        for crop, which in zip(crops, ("first", "second"), strict=True):
            write_image(FOLDER / f"{name}-{which}.png", crop)
        (FOLDER / f"{name}-vertices.bin").write_bytes(vertices.tobytes())
    (FOLDER / "faces.json").write_text(json.dumps(content) + "\n")


if __name__ == "__main__":
    main()
