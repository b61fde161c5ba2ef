"""The preset and card that a release makes from its training runs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import yaml

from keras_scnn.data.labels.identity_labels import comparable_embeddings
from keras_scnn.data.mixture import Mixture, open_mixture
from keras_scnn.data.records import split_people
from keras_scnn.evaluation.report import results_table
from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.presets import (
    FORMAT,
    NETWORK,
    SETTINGS,
    VERSION,
    WEIGHTS,
    write_metadata,
)
from keras_scnn.protocols.identity import learn_covariance
from keras_scnn.storage import read_npz
from keras_scnn.training.digests import content_digest, data_digests
from keras_scnn.training.warm_start import copy_network, solve_dense

OF_THE_MACHINE = (
    "run",
    "cache",
    "cache_gigabytes",
    "data",
    "photo_folders",
    "recognizer",
    "sface",
    "start",
    "tensorboard",
)


def assemble(
    out: Path,
    folders: list[Path],
    shares: list[float],
    data: str,
    held_out: int,
    with_features: bool,
    license_text: str,
) -> None:
    """Write the preset of consecutive runs, each started from the previous one.

    Args:
        out: the preset's folder.
        folders: of the runs.
        shares: weight of each run, see ``averaged``.
        data: face records that the runs were trained on, separated by commas, those of people last;
            the within-person covariance is that of shapes predicted from their photos.
        held_out: number of people, the last of the records, to leave out.
        with_features: whether to solve the feature head, see ``solve_features``.
        license_text: for the metadata.

    Raises:
        FileNotFoundError, ValueError: a run or the records are missing or damaged, or do not fit.
    """
    runs = [load_preset(folder) for folder in folders]
    preset = averaged(runs, shares, license_text)
    mixture = open_mixture(data)
    seen, _ = split_people(mixture.records.identity, held_out, mixture.records.mirror)
    if with_features:
        solve_features(preset, mixture, seen)
    preset = with_covariance(preset, mixture, seen)
    digests = {
        "start": runs[0].metadata.get("digests", {}).get("start", ""),
        "data": data_digests(data),
    }
    save_preset(out, preset)
    write_metadata(out, "digests", digests | {"result": content_digest(out)})


def averaged(runs: list[Preset], shares: list[float], license_text: str) -> Preset:
    """The weighted mean of the runs' weights (Wortsman et al., "Model Soups", 2022).

    Args:
        runs: presets with ``config`` and ``state`` in their metadata; those with a share above 0
            have the same network. The last one is changed to the mean.
        shares: weight of each run, with any sum above 0. A run of share 0 is only the start of the
            next; the last has a share above 0.
        license_text: for the metadata, beside the settings that do not depend on the machine.

    Raises:
        ValueError: runs with a share above 0 have different networks.
    """
    last, weights = runs[-1], (np.array(shares) / np.sum(shares)).tolist()
    used = [(run, weight) for run, weight in zip(runs, weights, strict=True) if weight]
    if len({tuple((w.path, tuple(w.shape)) for w in run.core.weights) for run, _ in used}) > 1:
        raise ValueError("runs of different networks have no mean; give the earlier ones share 0")
    for earlier, _ in used[:-1]:
        copy_network(earlier.core, earlier, last.space.whitening)
    total = [
        sum(share * np.asarray(weight) for (_, share), weight in zip(used, same, strict=True))
        for same in zip(*(run.core.weights for run, _ in used), strict=True)
    ]
    for weight, value in zip(last.core.weights, total, strict=True):
        weight.assign(value)
    histories = [_history(run) for run in runs]
    history = histories[0] if len(runs) == 1 else {"runs": histories, "shares": weights}
    return dataclasses.replace(last, metadata={"license": license_text, **history})


def _history(run: Preset) -> dict:
    """Settings and state of a run, without those of the machine, such as paths."""
    config = {k: v for k, v in run.metadata["config"].items() if k not in OF_THE_MACHINE}
    return {"config": config, "state": {k: run.metadata["state"][k] for k in ("step", "seconds")}}


def with_covariance(preset: Preset, mixture: Mixture, seen: np.ndarray) -> Preset:
    """The preset with its shapes' within-person covariance, see ``learn_covariance``."""
    covariance = learn_covariance(preset, mixture.records, seen)
    return dataclasses.replace(preset, within_person_covariance=covariance)


def solve_features(preset: Preset, mixture: Mixture, seen: np.ndarray) -> None:
    """Set the feature head to the ridge regression of the recognizer's embeddings.

    Training rotates, moves and recolors photos; this solves the head for unaugmented ones.

    Raises:
        ValueError: there are no embeddings, or features have another length.
    """
    layer = preset.core.get_layer("features_linear")
    embeddings = comparable_embeddings(mixture.records, mixture.source)
    if embeddings is None or embeddings.shape[1] != layer.units:
        raise ValueError(f"solve_features: embeddings of length {layer.units} are needed")
    chosen = seen[np.isfinite(embeddings[seen]).all(axis=1)]
    solve_dense(preset.core, layer, mixture.records.images[chosen], embeddings[chosen])


def card(name: str, folder: Path, plan: dict, results: dict[str, dict]) -> str:
    """The text of a preset's CARD.md.

    Args:
        name: of the preset.
        folder: of the preset.
        plan: how it was made.
        results: of ``keras_scnn.evaluate``, by the name of the measurement.
    """
    settings = json.loads((folder / SETTINGS).read_text())
    metadata, weights = settings["metadata"], sum(w.size for w in _weights(folder))
    size = (folder / WEIGHTS).stat().st_size / 2**20
    made = yaml.safe_dump({k: v for k, v in plan.items() if k != "about"}, sort_keys=False)
    parts = [f"# {name}"] + ([plan["about"].strip()] if plan["about"] else [])
    parts.append(
        f"Encoder `{settings['encoder']}`, {settings['input_size']} px crops, "
        f"{weights / 1e6:.1f} million weights in {size:.1f} MiB."
    )
    parts += ["## Terms", metadata["license"], "## How it was made"]
    parts.append(f"`keras-scnn release` with this plan:\n\n```yaml\n{made}```")
    parts.append("Digests (SHA-256):\n\n" + _listed(metadata["digests"]))
    for what, numbers in results.items():
        parts += [f"## Results: {what}", f"```\n{results_table(numbers)}\n```"]
    return "\n\n".join(parts) + "\n"


def _weights(folder: Path) -> list[np.ndarray]:
    arrays = read_npz(folder / WEIGHTS, FORMAT, VERSION)
    return [array for key, array in arrays.items() if key.startswith(NETWORK)]


def _listed(digests: dict) -> str:
    flat = {"result": digests["result"], "start": digests["start"]}
    flat |= {f"data {one}": value for one, value in digests["data"].items()}
    return "\n".join(f"- {what}: `{value}`" for what, value in flat.items())
