"""Make presets of the package of training runs.

    python tools/release_presets.py mobile=RUN accurate=0.3*RUN,0.7*RUN --people RECORDS

A preset is a run's network without the paths of the machine that trained it; of several runs of one
network, one going on where the other ended, it has the weighted mean of the weights (Wortsman et
al., "Model Soups", 2022). The scatter of one person's shapes is learned from --people, face records
that the runs were trained on, but for the last --held-out people. --features, the same of all
photos with the recognizer's embeddings, solves the feature head anew for photos as they are, since
training turns, moves and recolors them. A card that is there stays; the calibration comes from
``keras_scnn.evaluate --people --calibrate``.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np

from keras_scnn.data.labels.identity_labels import comparable_embeddings
from keras_scnn.data.mixture import Mixture, open_mixture
from keras_scnn.data.records import FaceRecords, load_records, split_people
from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.protocols.identity import learn_covariance
from keras_scnn.training.warm_start import copy_network, solve_dense

PRESETS = Path(__file__).resolve().parents[1] / "keras_scnn" / "assets" / "presets"
TERMS = "trained on AFLW, 300-W and CelebA, research data sets with their own terms: research only"
OF_NO_USE = ("run", "cache", "data", "start")  # paths of the machine that trained


def main() -> None:
    """Make the presets of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--people", type=Path, metavar="RECORDS", help="of people trained on")
    parser.add_argument("--features", metavar="RECORDS,RECORDS", help="of photos trained on")
    parser.add_argument("--held-out", type=int, default=30, help="of these people, the last (30)")
    parser.add_argument("--out", type=Path, default=PRESETS)
    args = parser.parse_args()
    records = args.people and load_records(args.people)
    for name, text in (text.split("=", 1) for text in args.runs):
        preset = released(*read_runs(text))
        if records is not None:
            preset = with_covariance(preset, records, args.held_out)
        if args.features:
            solve_features(preset, open_mixture(args.features), args.held_out)
        save_preset(args.out / name, preset)
        print(f"written: {args.out / name}")


def read_runs(text: str) -> tuple[list[Preset], list[float]]:
    """The presets of ``RUN,RUN`` or ``SHARE*RUN,SHARE*RUN``, and the share of each, of sum 1."""
    parts = [part.rpartition("*") for part in text.split(",")]
    shares = np.array([float(share or 1) for share, _, _ in parts])
    return [load_preset(run) for _, _, run in parts], (shares / shares.sum()).tolist()


def released(runs: list[Preset], shares: list[float]) -> Preset:
    """The mean of the runs' networks, with the license and with what matters of the settings."""
    last = runs[-1]
    for earlier in runs[:-1]:
        copy_network(earlier.core, earlier, last.space.whitening)
    total = [
        sum(share * np.asarray(weight) for share, weight in zip(shares, same, strict=True))
        for same in zip(*(run.core.weights for run in runs), strict=True)
    ]
    for weight, value in zip(last.core.weights, total, strict=True):
        weight.assign(value)
    told = []
    for run in runs:
        config = {k: v for k, v in run.metadata["config"].items() if k not in OF_NO_USE}
        state = {k: run.metadata["state"][k] for k in ("step", "seconds")}
        told.append({"config": config, "state": state})
    history = told[0] if len(runs) == 1 else {"runs": told, "shares": shares}
    return dataclasses.replace(last, metadata={"license": TERMS, **history})


def with_covariance(preset: Preset, records: FaceRecords, held_out: int) -> Preset:
    """The preset with its within-person covariance of shapes; see ``learn_covariance``."""
    seen, _ = split_people(records.identity, held_out)
    return dataclasses.replace(
        preset, within_person_covariance=learn_covariance(preset, records, seen)
    )


def solve_features(preset: Preset, mixture: Mixture, held_out: int) -> None:
    """Set the feature head to the ridge regression of the recognizer's embeddings.

    Raises:
        ValueError: the feature is not as long as the embeddings, or no photo has one.
    """
    layer = preset.core.get_layer("features_linear")
    embeddings = comparable_embeddings(mixture.records, mixture.source)
    if embeddings is None or embeddings.shape[1] != layer.units:
        raise ValueError(f"--features: embeddings of {layer.units} numbers are needed")
    seen, _ = split_people(mixture.records.identity, held_out)
    chosen = seen[np.isfinite(embeddings[seen]).all(axis=1)]
    solve_dense(preset.core, layer, mixture.records.images[chosen], embeddings[chosen])


if __name__ == "__main__":
    main()
