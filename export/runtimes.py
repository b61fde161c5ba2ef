"""Run exported files in their users' runtimes: LiteRT, ONNX Runtime and TensorFlow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_scnn.export.bundle import DESCRIPTION, NETWORK
from keras_scnn.export.saved_model import METADATA
from keras_scnn.export.tflite import SIGNATURE
from keras_scnn.storage.tflite import checked_threads, open_interpreter, read_lite_file

Outputs = dict[str, np.ndarray]
Runner = Callable[[np.ndarray], Outputs]
WARM_UP = 5


def open_artifact(path: str | os.PathLike, threads: int = 1) -> Runner:
    """A function from one crop (1, S, S, 3) uint8 to named outputs, in the file's own runtime.

    Args:
        path: a .tflite or .onnx file, or the folder of a bundle or SavedModel.
        threads: for LiteRT and ONNX Runtime.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the file is damaged or of an unknown kind, or ``threads`` is invalid.
        ImportError: the runtime is not installed.
    """
    path, threads = Path(path), checked_threads(threads)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such exported file")
    if is_bundle(path):
        return _open_tflite(path / NETWORK, threads)
    if path.is_dir():
        return _open_saved_model(path, threads)
    if path.suffix not in _RUNTIMES:
        known = ", ".join(_RUNTIMES)
        raise ValueError(f"{path}: not an exported file: {known}, or a SavedModel's folder")
    return _RUNTIMES[path.suffix](path, threads)


def is_bundle(path: Path) -> bool:
    """Whether a path is a bundle's folder, whose network is run."""
    return (path / DESCRIPTION).is_file()


def _open_tflite(path: Path, threads: int) -> Runner:
    content, _ = read_lite_file(path)
    try:
        runner = open_interpreter(content, threads).get_signature_runner(SIGNATURE)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: LiteRT cannot run it: {error}") from error
    return lambda crop: runner(image=crop)


def _open_onnx(path: Path, threads: int) -> Runner:
    try:
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"{path}: needs pip install '.[onnx]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime exports no common base class of its errors
        raise ValueError(f"{path}: ONNX Runtime cannot open it: {error}") from error
    names = [output.name for output in session.get_outputs()]
    return lambda crop: dict(zip(names, session.run(names, {"image": crop}), strict=True))


def _open_saved_model(path: Path, _: int) -> Runner:
    import tensorflow as tf

    if not (path / "assets.extra" / METADATA).is_file():
        why = f"assets.extra/{METADATA} is missing"
        raise ValueError(f"{path}: not a SavedModel of keras_scnn: {why}")
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # OSError, ValueError, protobuf's DecodeError, ...
        raise ValueError(f"{path}: TensorFlow cannot load it: {error}") from error

    def runner(crop: np.ndarray) -> Outputs:
        outputs = loaded.signatures[SIGNATURE](image=crop)  # signatures need ``loaded`` alive
        return {name: value.numpy() for name, value in outputs.items()}

    return runner


_RUNTIMES = {".tflite": _open_tflite, ".onnx": _open_onnx}


def run_all(runner: Runner, crops: np.ndarray) -> Outputs:
    """Outputs for (M, S, S, 3) uint8 crops, one at a time: (M, ...) by name."""
    rows = [{k: v[0].copy() for k, v in runner(crop[None]).items()} for crop in crops]
    return {name: np.stack([one[name] for one in rows]) for name in rows[0]}


def median_milliseconds(runner: Runner, crop: np.ndarray, repeats: int = 100) -> float:
    """Median time for one crop (1, S, S, 3), ms, after some warm-up runs."""
    for _ in range(WARM_UP):
        runner(crop)
    times = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter()
        runner(crop)
        times[i] = time.perf_counter() - start
    return float(np.median(times) * 1e3)
