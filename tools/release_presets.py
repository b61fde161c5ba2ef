"""Make presets of the package of training runs.

    python tools/release_presets.py mobile=RUN accurate=RUN [--out keras_scnn/assets/presets]

A preset is a run's network without the paths of the machine that trained it. A card that is there
stays; the calibration comes from ``keras_scnn.evaluate --people --calibrate``.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from keras_scnn.models import Preset, load_preset, save_preset

PRESETS = Path(__file__).resolve().parents[1] / "keras_scnn" / "assets" / "presets"
TERMS = "trained on AFLW, 300-W and CelebA, research data sets with their own terms: research only"
OF_NO_USE = ("run", "cache", "data", "start")  # paths of the machine that trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--out", type=Path, default=PRESETS)
    args = parser.parse_args()
    for name, run in (text.split("=", 1) for text in args.runs):
        save_preset(args.out / name, released(load_preset(run)))
        print(f"written: {args.out / name}")


def released(trained: Preset) -> Preset:
    """A run's preset, with the license and with what matters of its settings."""
    settings = trained.metadata["config"]
    config = {name: value for name, value in settings.items() if name not in OF_NO_USE}
    state = {name: trained.metadata["state"][name] for name in ("step", "seconds")}
    metadata = {"license": TERMS, "config": config, "state": state}
    return dataclasses.replace(trained, metadata=metadata)


if __name__ == "__main__":
    main()
