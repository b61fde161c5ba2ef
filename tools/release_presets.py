"""Make the presets ``mobile`` and ``accurate`` of a training run.

    python tools/release_presets.py RUN [--out keras_scnn/assets/presets]

``mobile`` is the run's network; ``accurate`` asks the same network twice, about the crop and about
its mirror image, and takes the mean.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from keras_scnn.models import build_mirrored, load_preset, save_preset

PRESETS = Path(__file__).resolve().parents[1] / "keras_scnn" / "assets" / "presets"
TERMS = "trained on AFLW, 300-W and CelebA, research data sets with their own terms: research only"
OF_NO_USE = ("run", "cache", "data")  # paths of the machine that trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=PRESETS)
    args = parser.parse_args()
    trained = load_preset(args.run)
    settings = trained.metadata["config"]
    config = {name: value for name, value in settings.items() if name not in OF_NO_USE}
    state = {name: trained.metadata["state"][name] for name in ("step", "seconds")}
    metadata = {"license": TERMS, "config": config, "state": state}
    mobile = dataclasses.replace(trained, metadata=metadata)
    mirrored = build_mirrored(mobile.branch, mobile.face_model, mobile.whitening)
    accurate = dataclasses.replace(mobile, branch=mirrored)
    for name, preset in (("mobile", mobile), ("accurate", accurate)):
        save_preset(args.out / name, preset)
        print(f"written: {args.out / name}")


if __name__ == "__main__":
    main()
