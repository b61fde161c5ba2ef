"""Plots of results: bars with intervals, error curves, ROC, and the losses of a training run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from keras_scnn.evaluation.bootstrap import numbers
from keras_scnn.evaluation.nme import YAW_BINS_DEGREES
from keras_scnn.storage.text import printable

YAW_STEP_DEGREES = 10.0
MIN_FACES = 3


def cumulative_error(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cumulative error curve.

    Args:
        errors: (M,) of the faces, M above 0.

    Returns:
        (M + 1,) ascending errors, from 0, and for each the share of faces, 0 to 1, whose error is
        at most that.
    """
    errors = np.sort(np.asarray(errors, np.float64))
    return np.concatenate([[0], errors]), np.arange(len(errors) + 1) / len(errors)


def error_against_yaw(errors: np.ndarray, yaw_degrees: np.ndarray) -> np.ndarray:
    """Mean error in bins of signed yaw, with a bootstrap percentile interval for each.

    Args:
        errors: (M,) of the faces.
        yaw_degrees: (M,).

    Returns:
        (B, 4) float64: center of the bin in degrees, a multiple of ``YAW_STEP_DEGREES``; mean;
        low and high end of the 95 % interval. Bins with fewer than 3 faces are left out.
    """
    from scipy.stats import bootstrap  # slow to import

    errors = np.asarray(errors, np.float64)
    place = np.round(np.asarray(yaw_degrees) / YAW_STEP_DEGREES)
    rows = []
    for middle in np.unique(place):
        part = errors[place == middle]
        if len(part) < MIN_FACES:
            continue
        rng = np.random.default_rng(0)
        ends = bootstrap((part,), np.mean, n_resamples=999, method="percentile", rng=rng)
        rows.append((middle * YAW_STEP_DEGREES, part.mean(), *ends.confidence_interval))
    return np.array(rows).reshape(-1, 4)


DARK, LIGHT, SECOND = "#1f4e79", "#b8c4d0", "#c55a11"
ERRORS = {"error_2d": ("2D", DARK), "error_3d": ("3D", SECOND)}
KINDS = {"shape": DARK, "scaled_shape": "#7a5ba6", "feature": SECOND}
PROBABILITIES = KINDS | {"both": "#5a8f29"}
MIN_FAR = 1e-3


def plot_results(results: dict, path: str | os.PathLike, title: str) -> None:
    """Plot the results as bars with their intervals, and save the figure.

    Args:
        results: a results dataclass as nested dictionaries (``dataclasses.asdict``).
        path: of the image file.
        title: of the figure.
    """
    panels = [panel for panel in _bar_panels() if _known(results, panel[1])]
    figure, axes = _figure(len(panels), title)
    for axis, (name, bars, unit) in zip(axes, panels, strict=True):
        _draw_bars(axis, results, _known(results, bars))
        axis.set_title(f"{name}, {unit}" if unit else name, fontsize=10)
        if name.startswith("verification"):
            axis.axhline(50, color="gray", linestyle="--", linewidth=1)
    figure.savefig(Path(path), dpi=120)


def _bar_panels() -> list[tuple[str, dict[str, str], str]]:
    """For each panel: title, the path of the number by the bar's label, and unit."""
    yaw = [f"{low}-{high}" for low, high in YAW_BINS_DEGREES]
    panels = []
    for name, title in (("landmarks", "2D"), ("landmarks_3d", "3D"), ("reannotated", "re-annot.")):
        bars = {label: f"{name}.bins_percent.{i}" for i, label in enumerate(yaw)}
        panels.append((f"landmarks {title} by |yaw|", bars | {"mean": f"{name}.mean_percent"}, "%"))
    angles = ("yaw", "pitch", "roll", "mean")
    panels.append(("pose error", {n: f"pose.{n}_degrees" for n in angles}, "degrees"))
    for name in ("shape", "shape68"):
        bars = {"network": f"{name}.vertex_mm", "mean face": f"{name}.mean_face_mm"}
        if name == "shape68":
            bars["own mean"] = "model_mean_mm"
        panels.append(("neutral shape, aligned", bars, "mm"))
    accuracy = {f"by {_label(kind)}": f"{kind}_verification.accuracy_percent" for kind in KINDS}
    panels.append(("verification", accuracy, "%"))
    ranks = {
        f"{_label(kind)} rank {rank}".replace(" ", "\n"): f"{kind}_retrieval.rank{rank}_percent"
        for kind in KINDS
        for rank in (1, 5)
    }
    panels.append(("retrieval", ranks, "%"))
    return panels


def _label(kind: str) -> str:
    return kind.replace("_", " ")


def _known(results: dict, bars: dict[str, str]) -> dict[str, str]:
    values = numbers(results)
    return {label: path for label, path in bars.items() if not np.isnan(values.get(path, np.nan))}


def _draw_bars(axis, results: dict, bars: dict[str, str]) -> None:
    numbers_by_path, intervals = numbers(results), results.get("intervals", {})
    values = np.array([numbers_by_path[path] for path in bars.values()])
    ends = np.array([intervals.get(path, (np.nan, np.nan)) for path in bars.values()])
    low, high = ends.T
    colors = [LIGHT if "mean face" in label or "own" in label else DARK for label in bars]
    reach = _reach(values, low, high)
    drawn = axis.bar(list(bars), values, color=colors, width=0.65, yerr=reach, ecolor="gray")
    axis.bar_label(drawn, [f"{value:.2f}" for value in values], padding=2, fontsize=8)
    axis.tick_params(labelsize=8)
    axis.margins(y=0.15)


def _reach(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(2, n) lengths of error bars, down and up; 0 on a side on which the interval is not."""
    return np.maximum(np.nan_to_num(np.stack([values - low, high - values])), 0)


def plot_details(results: dict, path: str | os.PathLike, title: str) -> None:
    """Plot cumulative error, error against yaw, ROC and reliability, and save the figure.

    Args:
        results: as for ``plot_results``; panels without data in its 'curves' are left out.
        path: of the image file.
        title: of the figure.
    """
    curves = results.get("curves", {})
    panels = []
    if "error_2d" in curves:
        panels += [_draw_cumulative, _draw_yaw]
    if "roc" in curves:
        panels.append(_draw_roc)
    if curves.get("reliability"):
        panels.append(_draw_reliability)
    figure, axes = _figure(len(panels), title, width=4.2)
    for axis, draw in zip(axes, panels, strict=True):
        draw(axis, curves)
        axis.legend(
            frameon=False, fontsize=8, loc="lower right" if draw is _draw_cumulative else None
        )
    figure.savefig(Path(path), dpi=120)


def _draw_cumulative(axis, curves: dict) -> None:
    for name, (label, color) in ERRORS.items():
        error, share = cumulative_error(np.array(curves[name]))
        axis.step(error, 100 * share, where="post", color=color, label=label)
    axis.set(
        xlim=(0, _limit(curves)),
        ylim=(0, 100),
        xlabel="error, % of the box",
        ylabel="faces, %",
    )
    axis.set_title("cumulative error", fontsize=10)
    axis.grid(alpha=0.3)


def _limit(curves: dict) -> float:
    """Upper limit of the error axes, chosen so that a few failures do not compress the rest."""
    return max(1.2 * np.percentile(curves["error_3d"], 98), 0.1)


def _draw_yaw(axis, curves: dict) -> None:
    yaw = np.array(curves["yaw_degrees"])
    for name, (label, color) in ERRORS.items():
        errors = np.array(curves[name])
        if name == "error_2d":
            axis.scatter(yaw, errors, s=4, color=LIGHT, linewidths=0)
        middle, mean, low, high = error_against_yaw(errors, yaw).T
        axis.plot(middle, mean, color=color, marker="o", markersize=3, label=f"{label}, mean")
        axis.fill_between(middle, low, high, color=color, alpha=0.2, linewidth=0)
    axis.set(xlim=(-100, 100), xlabel="yaw, degrees", ylabel="error, % of the box")
    axis.set_ylim(0, _limit(curves))
    axis.set_title("error against yaw (dots: 2D, a face each)", fontsize=10)


def _draw_roc(axis, curves: dict) -> None:
    for kind, roc in curves["roc"].items():
        far = np.maximum(roc["far"], MIN_FAR / 10)
        axis.plot(far, 100 * np.array(roc["tar"]), color=KINDS[kind], label=f"by {_label(kind)}")
    chance = np.geomspace(MIN_FAR, 1, 100)
    axis.plot(chance, 100 * chance, color="gray", linestyle="--", linewidth=1, label="chance")
    axis.set_xscale("log")
    axis.set(xlim=(MIN_FAR, 1), ylim=(0, 100))
    axis.set(xlabel="pairs of two people accepted", ylabel="pairs of one person accepted, %")
    axis.set_title("ROC", fontsize=10)
    axis.grid(alpha=0.3)


def _draw_reliability(axis, curves: dict) -> None:
    for kind, curve in curves["reliability"].items():
        sizes = 4 + 200 * np.array(curve["share"])
        points = curve["predicted"], curve["observed"]
        axis.plot(*points, color=PROBABILITIES[kind], label=f"by {_label(kind)}")
        axis.scatter(*points, sizes, PROBABILITIES[kind], linewidths=0)
    axis.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1, label="perfect")
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="predicted probability", ylabel="pairs of one person")
    axis.set_title("reliability on people held out", fontsize=10)
    axis.grid(alpha=0.3)


CURVES = {
    "loss": "loss",
    "landmarks_a_loss": "landmark distance, 10 px",
    "parameter_distance_loss": "contrast of shapes",
    "feature_similarity_loss": "identity loss of features",
    "landmarks_loss": "landmark distance, 10 px",
    "shape_loss": "contrast of shapes",
    "features_loss": "contrast of features",
    "embedding_loss": "distance to the teacher",
    "shape_relative": "shape error / mean face's",
    "shape_size": "size of shapes / labels'",
}


def plot_curves(curves: dict[str, np.ndarray], path: str | os.PathLike) -> None:
    """Plot losses over steps, for training and validation people, and save the figure.

    Args:
        curves: ``step`` and the losses by Keras's names, (epochs,) each; those in ``CURVES`` are
            plotted.
        path: of the image file.

    Raises:
        ValueError: there is none of these losses.
    """
    drawn = {name: title for name, title in CURVES.items() if name in curves}
    if not drawn:
        raise ValueError(f"curves has {sorted(curves)}; expected one of {', '.join(CURVES)}")
    figure, axes = _figure(len(drawn), "")
    for axis, (name, title) in zip(axes, drawn.items(), strict=True):
        parts = {name: (DARK, "training"), f"val_{name}": (SECOND, "unseen people")}
        if f"val_{name}" not in curves:
            parts = {name: (SECOND, "unseen people")}
        for column, (color, label) in parts.items():
            axis.plot(curves["step"], curves[column], color=color, label=label)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("step")
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(Path(path), dpi=120)


def plot_variants(
    variants: dict[str, dict],
    measures: dict[str, str],
    path: str | os.PathLike,
    constant: dict[str, float] | None = None,
) -> None:
    """Plot each measure of several variants, with its interval, and save the figure.

    Args:
        variants: by variant and then by measure: 'mean', 'low' and 'high'.
        measures: titles by measure; measures that no variant has are left out.
        path: of the image file.
        constant: measures of a constant prediction, by name, drawn as dashed lines.
    """
    drawn = [name for name in measures if any(name in part for part in variants.values())]
    title = "dashed: training mean, chance" if constant else ""
    figure, axes = _figure(len(drawn), title, width=2.6)
    for axis, name in zip(axes, drawn, strict=True):
        having = {variant: part[name] for variant, part in variants.items() if name in part}
        mean, low, high = (
            np.array([one[key] for one in having.values()]) for key in ("mean", "low", "high")
        )
        reach = _reach(mean, low, high)
        axis.errorbar(list(having), mean, yerr=reach, fmt="o", color=DARK, ecolor="gray", capsize=3)
        if constant and name in constant:
            axis.axhline(constant[name], color="gray", linestyle="--", linewidth=1)
        axis.set_title(measures[name].replace(", ", ",\n"), fontsize=8)
        axis.tick_params(labelsize=7)
        axis.margins(x=0.15)
    figure.savefig(Path(path), dpi=120)


def _figure(panels: int, title: str, width: float = 3.0):
    """A figure with its axes in one row."""
    from matplotlib.figure import Figure  # slow to import; no display is needed

    figure = Figure(figsize=(max(6.0, width * panels), 3.2), layout="constrained")
    if title:
        figure.suptitle(printable(title), parse_math=False)  # may contain a folder's name
    axes = figure.subplots(1, panels, squeeze=False)[0] if panels else []
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes
