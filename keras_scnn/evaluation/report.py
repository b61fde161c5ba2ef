"""Results as a table and as a picture."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.evaluation.nme import YAW_BINS_DEGREES

DARK, LIGHT = "#1f4e79", "#b8c4d0"


def results_table(results: dict) -> str:
    """The results of ``evaluate`` as lines of text.

    Args:
        results: a results dataclass as nested dictionaries (``dataclasses.asdict``).
    """
    rows = table_rows(results)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def table_rows(results: dict) -> list[tuple[str, str]]:
    """Name and value of each row of the table."""
    landmarks, pose = results["landmarks"], results["pose"]
    rows = [
        (f"landmark error, |yaw| {low}-{high}", f"{error:6.2f} %   ({count} faces)")
        for (low, high), error, count in zip(
            YAW_BINS_DEGREES, landmarks["bins_percent"], landmarks["bins_count"], strict=True
        )
        if count
    ]
    rows.append(("landmark error, mean of bins", f"{landmarks['mean_percent']:6.2f} %"))
    rows += [
        (f"pose error, {name}", f"{pose[f'{name}_degrees']:6.2f} degrees")
        for name in ("yaw", "pitch", "roll", "mean")
    ]
    return rows + (_identity_rows(results) if "shape" in results else [])


def _identity_rows(results: dict) -> list[tuple[str, str]]:
    shape = results["shape"]
    rows = [
        ("vertex error, neutral shape", f"{shape['vertex_mm']:6.2f} mm"),
        ("vertex error of the mean face", f"{shape['mean_face_mm']:6.2f} mm"),
        ("vertex error, relative", f"{shape['relative']:6.2f}"),
    ]
    for kind in ("shape", "feature"):
        told = results[f"{kind}_verification"]
        if told is None:
            continue
        rows += [
            (f"intra / inter distance, {kind}s", f"{results[f'{kind}_ratio']:6.2f}"),
            (
                f"verification by {kind}",
                f"{told['accuracy_percent']:6.2f} %   (AUC {told['auc']:.3f})",
            ),
        ]
    return rows


def plot_results(results: dict, path: str | os.PathLike, title: str) -> None:
    """Draw the results as bars into a picture file."""
    from matplotlib.figure import Figure  # slow to import; no display is needed

    figure = Figure(figsize=(12 if "shape" in results else 8, 3.2), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 4 if "shape" in results else 2)
    _plot_landmarks(axes[0], results["landmarks"])
    _plot_pose(axes[1], results["pose"])
    if "shape" in results:
        _plot_shape(axes[2], results["shape"])
        _plot_verification(axes[3], results)
    figure.savefig(Path(path), dpi=120)


def _plot_landmarks(axis, landmarks: dict) -> None:
    bins = zip(YAW_BINS_DEGREES, landmarks["bins_percent"], landmarks["bins_count"], strict=True)
    shown = {f"{low}-{high}": error for (low, high), error, count in bins if count}
    names, values = [*shown, "mean"], [*shown.values(), landmarks["mean_percent"]]
    _bars(axis, names, values, "landmark error, % of box", "{:.2f}")
    axis.set_xlabel("|yaw|, degrees")


def _plot_pose(axis, pose: dict) -> None:
    names = ["yaw", "pitch", "roll", "mean"]
    _bars(axis, names, [pose[f"{n}_degrees"] for n in names], "pose error, degrees", "{:.2f}")


def _plot_shape(axis, shape: dict) -> None:
    values = [shape["vertex_mm"], shape["mean_face_mm"]]
    _bars(axis, ["network", "mean face"], values, "vertex error, mm", "{:.2f}", [DARK, LIGHT])


def _plot_verification(axis, results: dict) -> None:
    kinds = [kind for kind in ("shape", "feature") if results[f"{kind}_verification"]]
    values = [results[f"{kind}_verification"]["accuracy_percent"] for kind in kinds]
    _bars(axis, [f"by {kind}" for kind in kinds], values, "verification, %", "{:.1f}")
    axis.axhline(50, color="gray", linestyle="--", linewidth=1)
    axis.set_ylim(0, 105)


def _bars(axis, names, values, title: str, label: str, colors=DARK) -> None:
    bars = axis.bar(names, values, color=colors, width=0.65)
    axis.bar_label(bars, [label.format(value) for value in values], padding=2, fontsize=8)
    axis.set_title(title, fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(y=0.15)


CURVES = {
    "loss": "loss",
    "landmarks_a_loss": "landmark distance, 10 px",
    "parameter_distance_loss": "contrast of shapes",
    "feature_similarity_loss": "identity loss of features",
}


def plot_curves(curves: dict[str, np.ndarray], path: str | os.PathLike) -> None:
    """Draw losses over steps, for training and validation people, into a picture file.

    Args:
        curves: ``step`` and the losses by Keras's names, (epochs,) each.
        path: the picture.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3), layout="constrained")
    for axis, (name, title) in zip(figure.subplots(1, len(CURVES)), CURVES.items(), strict=True):
        axis.plot(curves["step"], curves[name], color=DARK, label="training")
        axis.plot(curves["step"], curves[f"val_{name}"], color="#c55a11", label="unseen people")
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
        axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(Path(path), dpi=120)
