"""A bundle: a folder with everything an app needs to go from a photo to blendshapes and a mesh.

``detector.tflite``, ``facemesh.tflite`` (which confirms uncertain faces), ``network.tflite``,
``triangles.bin``, ``uv.bin`` if the face model has texture coordinates, and ``bundle.json``, which
describes each tensor and file and has every number needed to get from the photo to the crop.
``examples/`` has programs that read it.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from keras_scnn.export.metadata import build_metadata
from keras_scnn.export.pipeline import describe_check, describe_detector
from keras_scnn.export.tflite import SIGNATURE, write_tflite
from keras_scnn.photos.blazeface import model_path
from keras_scnn.photos.facemesh import MODEL_FILE
from keras_scnn.storage.text import json_text

if TYPE_CHECKING:
    from keras_scnn.export.artifacts import Subject

FORMAT, VERSION = "keras_scnn.bundle", 1
DESCRIPTION = "bundle.json"
DETECTOR, CHECK, NETWORK = "detector.tflite", "facemesh.tflite", "network.tflite"
TRIANGLES, UV = "triangles.bin", "uv.bin"
OF_NETWORK = ("quantize", "input", "outputs", "parameters", "whitening")
FRAME = "model frame: x to the image's right for a frontal face, y up, z towards the viewer"


def write_bundle(folder: Path, subject: Subject, precision: str) -> None:
    """Write the bundle of a preset to a new folder; errors as ``tflite.write_tflite``.

    Args:
        folder: must not exist yet.
        subject: the preset; all vertices are an output, regardless of ``subject.vertices``.
        precision: of the network, one of ``formats.QUANTIZE``.
    """
    folder.mkdir()
    preset, crops = subject.preset, subject.calibration.images
    name, card, converted = subject.name, subject.card, subject.converted(True)
    write_tflite(folder / NETWORK, preset, precision, True, crops, name, card, converted)
    shutil.copyfile(model_path(), folder / DETECTOR)
    shutil.copyfile(model_path(MODEL_FILE), folder / CHECK)
    model = preset.face_model
    (folder / TRIANGLES).write_bytes(model.triangles.astype("<u4").tobytes())
    if model.uv is not None:
        (folder / UV).write_bytes(model.uv.astype("<f4").tobytes())
    content = describe_bundle(subject, precision) | {"files": _files(folder)}
    (folder / DESCRIPTION).write_text(json_text(content))


def describe_bundle(subject: Subject, precision: str) -> dict:
    """The contents of ``bundle.json`` without ``files``."""
    metadata = build_metadata(subject.preset, subject.name, precision, True, subject.card)
    network = {key: metadata.pop(key) for key in OF_NETWORK}
    return metadata | {
        "format": FORMAT,
        "version": VERSION,
        "digest": subject.digest,
        "detector": {"file": DETECTOR, **describe_detector()},
        "check": {"file": CHECK, **describe_check()},
        "network": {"file": NETWORK, "signature": SIGNATURE, **network},
        "mesh": _describe_mesh(subject),
    }


def _describe_mesh(subject: Subject) -> dict:
    model = subject.preset.face_model
    triangles = {
        "file": TRIANGLES,
        "shape": list(model.triangles.shape),
        "dtype": "uint32, little-endian",
        "text": "indices of vertices from 0, counter-clockwise seen from outside",
    }
    uv = {
        "file": UV,
        "shape": [model.n_vertices, 2],
        "dtype": "float32, little-endian",
        "text": "texture coordinates, 0 to 1, u to the right, v up",
    }
    return {
        "vertices": {"output": "vertices", "unit": "mm", "frame": FRAME},
        "in_crop": "pose[:, :3] @ vertex + pose[:, 3]: px of the crop, y down, depth to the viewer",
        "triangles": triangles,
        "uv": None if model.uv is None else uv,
    }


def _files(folder: Path) -> dict:
    """Size in bytes and SHA-256 of each file, by name."""
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    return {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in contents.items()
    }
