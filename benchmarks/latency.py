"""Measure the time per face: exported files, reference networks, and the steps for a photo.

    python benchmarks/latency.py [PRESET ...] [--threads 1] [--rounds 40]

All run in turn, round by round, so that other load on the machine affects them equally; use the
ratios. The reference networks are a MobileNet-0.5 and a MobileNet-1.0 with 62 outputs in ONNX
Runtime, the architecture of 3DDFA_V2's networks (untrained: the time does not depend on the
weights). Needs the extras ``onnx`` and ``quantize``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import cv2
import numpy as np
from tqdm import tqdm

from keras_scnn.export.lite import LiteReconstructor
from keras_scnn.export.onnx import OPSET, write_onnx
from keras_scnn.export.runtimes import open_artifact
from keras_scnn.export.tflite import write_tflite
from keras_scnn.models import Preset, load_preset
from keras_scnn.models.presets import list_presets
from keras_scnn.photos.cropping import box_from_landmarks, crop_face
from keras_scnn.photos.detection import LargestFaceDetector

YARDSTICK_OUTPUTS, CALIBRATION, BURST = 62, 64, 5
Work = Callable[[], object]


def yardstick(encoder: str, size: int, crop: np.ndarray, threads: int) -> Work:
    """A reference network with 62 outputs, run by ONNX Runtime."""
    import keras
    import onnxruntime
    import tensorflow as tf
    import tf2onnx

    from keras_scnn.models import build_encoder

    base = build_encoder(encoder, size)
    model = keras.Model(base.input, keras.layers.Dense(YARDSTICK_OUTPUTS)(base.output))
    specification = [tf.TensorSpec((1, size, size, 3), tf.float32, name="image")]
    proto, _ = tf2onnx.convert.from_keras(model, specification, opset=OPSET)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    name, image = session.get_inputs()[0].name, crop.astype(np.float32)
    return lambda: session.run(None, {name: image})


def exported(name: str, preset: Preset, crop: np.ndarray, folder: Path, threads: int):
    """(label, work) for a preset's network in Keras and for each of its files."""
    import tensorflow as tf

    image = tf.constant(crop.astype(np.float32))
    call = tf.function(lambda x: preset.branch(x, training=False))
    yield f"{name} Keras", lambda: call(image)
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (CALIBRATION, *crop.shape[1:]), np.uint8)
    files = {p: folder / f"{name}-{p}.tflite" for p in ("float32", "float16", "int8")}
    for precision, path in files.items():
        write_tflite(path, preset, precision, False, crops, name)
    files["ONNX"] = folder / f"{name}.onnx"
    write_onnx(files["ONNX"], preset, name=name)
    for label, path in files.items():
        run = open_artifact(path, threads)
        yield f"{name} {label}", lambda run=run: run(crop)


def photo_to_mesh(preset: Preset, folder: Path, threads: int) -> dict[str, Work]:
    """From JPEG bytes to a mesh, and each step of it, for scikit-image's astronaut (512 x 512)."""
    from skimage.data import astronaut

    looks = []  # only the last one needs the mesh
    for vertices in (False, True):
        path = folder / f"vertices-{vertices}.tflite"
        write_tflite(path, preset, "float32", vertices)
        looks.append(LiteReconstructor(path, threads))
    lite, find = looks[-1], LargestFaceDetector()
    photo = astronaut()
    content = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    first = find(photo)

    def decode():
        return cv2.imdecode(content, cv2.IMREAD_COLOR_RGB)

    def whole():
        """From JPEG bytes to vertices (N, 3)."""
        image = decode()
        box = find(image)
        for look in looks:
            crop = crop_face(image, box, look.input_size)
            outputs = look(crop.image)
            affine = crop.crop_from_image
            points = (outputs["landmarks"][:, :2] - affine[:, 2]) / np.diag(affine[:, :2])
            box = box_from_landmarks(points)
        return outputs["vertices"]

    cropped = crop_face(photo, first, lite.input_size).image
    return {
        "photo to mesh, whole": whole,
        "  decode JPEG": decode,
        "  find the face": lambda: find(photo),
        "  crop, once of twice": lambda: crop_face(photo, first, lite.input_size),
        "  network, first look": lambda: looks[0](cropped),
        "  network and mesh, second look": lambda: lite(cropped),
    }


def median_ms(works: dict[str, Work], rounds: int) -> dict[str, float]:
    """Median ms of each work; all run in turn, in bursts."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        for _ in range(BURST):
            work()
    for _ in tqdm(range(rounds), desc="rounds"):
        for name, work in works.items():
            for _ in range(BURST):
                start = time.perf_counter()
                work()
                times[name].append(time.perf_counter() - start)
    return {name: 1e3 * float(np.median(taken)) for name, taken in times.items()}


def main() -> None:
    """Time all presets, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("presets", nargs="*", default=list_presets())
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    loaded = {Path(name).name: load_preset(name) for name in args.presets}
    size = next(iter(loaded.values())).input_size
    crop = np.random.default_rng(1).integers(0, 256, (1, size, size, 3), np.uint8)
    with tempfile.TemporaryDirectory() as place:
        works: dict[str, Work] = {
            f"yardstick {name} ONNX": yardstick(name, size, crop, args.threads)
            for name in ("mobilenet_0.5", "mobilenet_1.0")
        }
        for name, preset in loaded.items():
            works |= dict(exported(name, preset, crop, Path(place), args.threads))
        works |= photo_to_mesh(next(iter(loaded.values())), Path(place), args.threads)
        medians = median_ms(works, args.rounds)
    unit = medians["yardstick mobilenet_0.5 ONNX"]
    print(f"threads: {args.threads}; median of {args.rounds} rounds of {BURST}")
    for name, value in medians.items():
        print(f"{name:45} {value:8.3f} ms {value / unit:8.2f} x")


if __name__ == "__main__":
    main()
