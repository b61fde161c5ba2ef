"""Agreement of an exported file, in its own runtime, with the Keras network.

The reference shares only the branch with the exported graph: it decodes in NumPy, with
``MorphableModel`` and ``geometry``, like ``keras_scnn.reconstruct``.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from keras_scnn.evaluation.nme import normalized_mean_error
from keras_scnn.export.crops import Crops
from keras_scnn.export.drift import (
    Drift,
    Outputs,
    output_drift,
    output_mismatches,
    reference_outputs,
)
from keras_scnn.export.formats import QUANTIZE
from keras_scnn.export.runtimes import (
    Runner,
    is_bundle,
    median_milliseconds,
    open_artifact,
    run_all,
)
from keras_scnn.models import Preset
from keras_scnn.storage import atomic_path
from keras_scnn.storage.text import json_text, open_utf8

THREADS = (1, 2)


@dataclass(frozen=True)
class Limits(Drift):
    """Largest allowed difference from Keras, for each number in ``Drift``.

    Attributes:
        nme_loss_points: largest allowed increase of the landmark error, percentage points.
    """

    nme_loss_points: float


# float32 differs in the order of summation; float16 keeps 11 bits of a weight; 8-bit formats keep
# 8. The increase of the landmark error and the mean vertex distance are promised by the project;
# the others are at most about 2 to 4 times the presets' values on photos. In the order of QUANTIZE:
_LIMITS = {
    "landmark_px": (0.01, 0.05, 0.2, 0.3),
    "landmark_p99_px": (0.05, 0.25, 1.0, 2.0),
    "vertex_mm": (0.005, 0.02, 0.2, 0.2),
    "vertex_p99_mm": (0.02, 0.1, 0.5, 1.0),
    "rotation_degrees": (0.02, 0.1, 0.5, 1.0),
    "depth_px": (0.01, 0.05, 0.5, 1.0),
    "euler_degrees": (0.02, 0.1, 0.5, 1.0),
    "scale_percent": (0.01, 0.05, 0.5, 1.0),
    "translation_px": (0.01, 0.05, 0.5, 1.0),
    "camera_px": (0.01, 0.05, 0.5, 1.0),
    "coefficient": (0.001, 0.02, 0.1, 0.3),
    "feature_degrees": (0.02, 0.5, 10.0, 10.0),
    "nme_loss_points": (0.01, 0.01, 0.05, 0.05),
}
LIMITS = {
    precision: Limits(**{name: row[i] for name, row in _LIMITS.items()})
    for i, precision in enumerate(QUANTIZE)
}


@dataclass(frozen=True)
class ExportCheck(Drift):
    """Measurements of one file, besides ``Drift``.

    Attributes:
        file: its name.
        precision: see ``formats.QUANTIZE``.
        crops: the source of the crops.
        bytes: size.
        milliseconds: median time per crop by number of threads, '1' and '2'; for a SavedModel,
            'default', TensorFlow's own choice.
        nme_percent, keras_nme_percent, nme_loss_points: landmark error of the file and of Keras
            against annotated landmarks, and the difference; None without annotation.
        limits: those of ``precision``, or those given.
        broken: descriptions of the numbers above their limits.
    """

    file: str
    precision: str
    crops: str
    bytes: int
    milliseconds: dict[str, float]
    nme_percent: float | None
    keras_nme_percent: float | None
    nme_loss_points: float | None
    limits: Limits
    broken: tuple[str, ...] = ()


class VerificationError(ValueError):
    """A file disagrees with Keras by more than its limits allow."""


def verify(
    path: str | os.PathLike,
    preset: Preset,
    crops: Crops,
    precision: str = "float32",
    limits: Limits | None = None,
    repeats: int = 100,
    vertices: bool = False,
    expected: Outputs | None = None,
) -> ExportCheck:
    """Measure an exported file against Keras.

    Args:
        path: of the file or folder.
        preset: from which it was made.
        crops: held-out crops.
        precision: determines the limits if ``limits`` is None.
        limits: see ``Limits``.
        repeats: number of timed runs.
        vertices: whether all vertices must be among the outputs.
        expected: ``reference_outputs`` of the preset and the crops, if already computed.

    Returns:
        the numbers; ``broken`` is empty if the file agrees with Keras.

    Raises:
        FileNotFoundError, ValueError: see ``open_artifact``.
        VerificationError: an output is missing or has another shape.
    """
    path, limits = Path(path), limits or LIMITS[precision]
    run = open_artifact(path)
    outputs = run_all(run, crops.images)
    if wrong := output_mismatches(outputs, preset, vertices):
        raise VerificationError(f"{path.name}: disagrees with Keras: {'; '.join(wrong)}")
    expected = expected or reference_outputs(preset, crops.images)
    drift = asdict(output_drift(outputs, expected, preset))
    nme, keras_nme, loss = _landmark_errors(outputs, expected, crops)
    return ExportCheck(
        file=path.name,
        precision=precision,
        crops=crops.source,
        bytes=_size(path),
        milliseconds=_milliseconds(path, run, crops.images[:1], repeats),
        limits=limits,
        nme_percent=nme,
        keras_nme_percent=keras_nme,
        nme_loss_points=loss,
        broken=broken_limits({**drift, "nme_loss_points": loss}, limits),
        **drift,
    )


def _landmark_errors(
    outputs: Outputs, expected: Outputs, crops: Crops
) -> tuple[float | None, float | None, float | None]:
    """Normalized mean errors of the file and of Keras, and their difference; None if unknown."""
    if crops.landmarks is None:
        return None, None, None
    mine, keras = (
        float(normalized_mean_error(points["landmarks"], crops.landmarks).mean())
        for points in (outputs, expected)
    )
    return mine, keras, mine - keras


def broken_limits(numbers: dict[str, float | None], limits: Limits) -> tuple[str, ...]:
    """Descriptions of the numbers that are above their limits, or NaN."""
    allowed = asdict(limits)
    return tuple(
        f"{name} is {value:.4g}, the limit is {allowed[name]:g}"
        for name, value in numbers.items()
        if name in allowed and value is not None and not value <= allowed[name]
    )


def _milliseconds(path: Path, run: Runner, crop: np.ndarray, repeats: int) -> dict[str, float]:
    """Median time by number of threads, or for a SavedModel with the default number."""
    # TensorFlow's number of threads can be set only once per process.
    if path.is_dir() and not is_bundle(path):
        return {"default": median_milliseconds(run, crop, repeats)}
    runners = {n: run if n == 1 else open_artifact(path, n) for n in THREADS}
    return {str(n): median_milliseconds(one, crop, repeats) for n, one in runners.items()}


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def write_report(folder: Path, name: str, result: ExportCheck, metadata: dict) -> list[Path]:
    """Write ``name.json`` and the model card ``name.md`` to a folder; return their paths."""
    report = {"verification": asdict(result), "metadata": metadata}
    texts = {".json": json_text(report), ".md": model_card(result, metadata)}
    for suffix, text in texts.items():
        with atomic_path(folder / f"{name}{suffix}") as temporary, open_utf8(temporary) as file:
            file.write(text)
    return [folder / f"{name}{suffix}" for suffix in texts]


def model_card(result: ExportCheck, metadata: dict) -> str:
    """The report as Markdown."""
    rows = [("size", f"{result.bytes / 1e6:.2f} MB", "")]
    for threads, value in result.milliseconds.items():
        rows.append((f"median time, threads: {threads}", f"{value:.3f} ms", ""))
    for name, limit in asdict(result.limits).items():
        value = getattr(result, name)
        rows.append((name, "not measured" if value is None else f"{value:.4f}", f"{limit:g}"))
    outputs = [
        f"| {name} | {tuple(outputs['shape'])} | {outputs['unit']} |"
        for name, outputs in metadata["outputs"].items()
    ]
    side = metadata["crop"]["size"]
    parts = [
        f"# {result.file}",
        f"`{metadata['preset']}` ({metadata['encoder']}), {result.precision}, exported by "
        f"{metadata['made_by']} and compared with the Keras network on {result.crops}.",
        "| measured | value | limit |\n|---|---|---|\n"
        + "\n".join(f"| {' | '.join(row)} |" for row in rows),
        f"Input `image`: (1, {side}, {side}, 3) uint8 RGB. Outputs, float32, without the batch "
        "axis:",
        "| output | shape | unit |\n|---|---|---|\n" + "\n".join(outputs),
        f"Crop: {metadata['crop']['text']}",
        f"Face model: {metadata['face_model']['name']}, {metadata['face_model']['license']}",
    ]
    card = metadata["card"] and "## Card of the preset\n\n" + metadata["card"]
    return "\n\n".join(part for part in [*parts, card] if part) + "\n"
