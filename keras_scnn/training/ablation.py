"""Training with and without the losses that compare people."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_scnn.storage.atomic import staged_files
from keras_scnn.storage.text import json_text
from keras_scnn.training.config import TrainConfig

CONTRAST = ("contrast_weight", "shape_likeness_weight")
IDENTITY = ("feature_weight", "embedding_weight", "likeness_weight", "teacher_share")
NUMBERS, PICTURE = "ablation.json", "ablation.png"
VARIANTS = {
    "regression": CONTRAST + IDENTITY,
    "contrast": IDENTITY,
    "identity": CONTRAST,
    "both": (),
}
"""Variants, and the settings that each sets to 0."""
MEASURES = {
    "landmarks.mean_percent": "landmark error, mean of bins, %",
    "pose.mean_degrees": "pose error, degrees",
    "shape.relative": "neutral shape error, relative to the mean face",
    "shape.explained_variance": "explained variance of the shape",
    "shape_ratio": "distance within / between people, shape",
    "shape_verification.accuracy_percent": "verification by shape, %",
    "scaled_shape_verification.accuracy_percent": "verification by scaled shape, %",
    "feature_verification.accuracy_percent": "verification by feature, %",
}


@dataclass(frozen=True)
class Measure:
    """One number of one variant.

    Attributes:
        mean: over the seeds.
        low, high: means over the seeds of the ends of the 95 % bootstrap intervals over people.
        spread: largest minus smallest over the seeds.
    """

    mean: float
    low: float
    high: float
    spread: float


def ablate(
    config: TrainConfig,
    folder: Path,
    seeds: tuple[int, ...],
    variants: tuple[str, ...] = tuple(VARIANTS),
) -> tuple[dict[str, dict[str, Measure]], dict[str, float]]:
    """Train and measure variants, and measure a constant prediction.

    Args:
        config: settings of the run with all losses; its run and seed are not used.
        folder: for the runs, ``ablation.json`` and ``ablation.png``, which replace those of an
            earlier ablation once all runs are measured.
        seeds: one run of each variant per seed.
        variants: names in ``VARIANTS``.

    Returns:
        for each variant, a ``Measure`` for each name in ``MEASURES`` that all its runs have; and
        these measures of a constant prediction (``protocols.records.baseline``), the mean over the
        runs, by name.

    Raises:
        ValueError: the settings ask for several hosts, or two variants have the same settings.
    """
    if config.hosts > 1:
        raise ValueError(f"hosts is {config.hosts}; an ablation trains on one host")
    check_different(config, variants)
    from keras_scnn.evaluation.plots import plot_variants
    from keras_scnn.training.run import train  # starts Keras
    from keras_scnn.training.summary import read_constant

    measures, constants = {}, []
    for name in variants:
        results = []
        for seed in seeds:
            print(f"--- {name}, seed {seed}", flush=True)
            settings = settings_of(config, folder, name, seed)
            found = train(settings)
            assert found is not None  # it is None only with several hosts
            results.append(dataclasses.asdict(found))
            constants.append(read_constant(Path(settings.run)))
        measures[name] = summary(results)
    constant = mean_constant(constants, set().union(*measures.values()))
    written = {v: {m: dataclasses.asdict(x) for m, x in f.items()} for v, f in measures.items()}
    with staged_files(folder) as aside:
        content = {"seeds": list(seeds), "config": dataclasses.asdict(config), "found": written}
        (aside / NUMBERS).write_text(json_text(content | {"constant": constant}))
        plot_variants(written, MEASURES, aside / PICTURE, constant)
    return measures, constant


def check_different(config: TrainConfig, variants: tuple[str, ...]) -> None:
    """Raise a ValueError if two variants have the same settings, so they would be one network."""
    for i, name in enumerate(variants):
        for other in variants[:i]:
            if _values(config, name) == _values(config, other):
                apart = sorted(set(VARIANTS[name]) ^ set(VARIANTS[other]))
                raise ValueError(
                    f"variants {other} and {name} have the same settings, since "
                    f"{', '.join(apart)} are 0; give one of these, or leave a variant out"
                )


def _values(config: TrainConfig, variant: str) -> dict[str, Any]:
    return dataclasses.asdict(settings_of(config, Path(), variant, 0)) | {"run": ""}


def settings_of(config: TrainConfig, folder: Path, variant: str, seed: int) -> TrainConfig:
    """The settings of one run of an ablation."""
    values: dict[str, Any] = dict.fromkeys(VARIANTS[variant], 0.0)
    values |= {"run": str(folder / f"{variant}-{seed}"), "seed": seed}
    return dataclasses.replace(config, **values)


def summary(results: list[dict]) -> dict[str, Measure]:
    """The measures of one variant from the results of its seeds."""
    from keras_scnn.evaluation.bootstrap import numbers

    values, measures = [numbers(result) for result in results], {}
    for path in MEASURES:
        mine = np.array([value.get(path, np.nan) for value in values])
        if np.isnan(mine).any():
            continue
        ends = [result["intervals"].get(path, (np.nan, np.nan)) for result in results]
        low, high = np.mean(ends, axis=0)
        spread = float(np.ptp(mine))
        measures[path] = Measure(float(mine.mean()), float(low), float(high), spread)
    return measures


def mean_constant(constants: list[dict[str, float]], measured: set[str]) -> dict[str, float]:
    """The mean over runs of those measures of a constant prediction that all runs have, and that
    were measured of a network too: chance levels are known without any pair."""
    shared = [path for path in MEASURES if path in measured and all(path in c for c in constants)]
    return {path: float(np.mean([one[path] for one in constants])) for path in shared}


def table(measures: dict[str, dict[str, Measure]], constant: dict[str, float]) -> str:
    """Text, a row per measure, a column per variant and one for a constant prediction.

    Measures that no variant has are left out. A variant's cell is the mean [interval] ± half the
    seeds' spread.
    """
    from keras_scnn.training.summary import CONSTANT_LABEL  # its module imports Keras

    cells = [["", *measures, CONSTANT_LABEL]]
    for path, label in MEASURES.items():
        if not any(path in one for one in measures.values()):
            continue
        row = [label]
        for one in measures.values():
            m = one.get(path)
            row.append(f"{m.mean:.2f} [{m.low:.2f}, {m.high:.2f}] ±{m.spread / 2:.2f}" if m else "")
        row.append(f"{constant[path]:.2f}" if path in constant else "")
        cells.append(row)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
