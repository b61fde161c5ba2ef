"""Round a preset's kernels, so that its file becomes half as large.

    python tools/round_weights.py PRESET OUT [--steps 4]

Each output channel's weights are rounded to multiples of a power of two, with at least ``--steps``
steps per standard deviation: such numbers compress well. Kernels of fewer than 2,000 weights and
all other weights are not changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from pathlib import Path

import numpy as np

from keras_scnn.models import load_preset, save_preset
from keras_scnn.models.presets import preset_digest
from keras_scnn.settings import command
from keras_scnn.storage.outputs import check_out

LEAST = 2000


def on_grid(kernel: np.ndarray, steps: float) -> np.ndarray:
    """The kernel (..., C), or (H, W, C, 1) of a depthwise convolution, float32, each channel
    rounded to multiples of a power of two."""
    is_depthwise = kernel.ndim == 4 and kernel.shape[-1] == 1
    within = (0, 1) if is_depthwise else tuple(range(kernel.ndim - 1))
    deviation = kernel.std(axis=within, keepdims=True)
    step = 2.0 ** np.floor(np.log2(np.maximum(deviation, 1e-8) / steps))
    return np.float32(np.round(kernel / step) * step)


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=float, default=4, help="per standard deviation")
    args = parser.parse_args(argv)
    check_out(args.out)
    if not 0 < args.steps < math.inf:
        parser.error(f"--steps is {args.steps:g}; it must be above 0, and finite")
    preset = load_preset(args.preset)
    for weight in preset.core.weights:
        if weight.path.endswith("kernel") and np.prod(weight.shape) >= LEAST:
            weight.assign(on_grid(np.asarray(weight), args.steps))
    note = {"preset": preset_digest(args.preset), "steps": args.steps}
    metadata = preset.metadata | {"rounded": note}
    save_preset(args.out, dataclasses.replace(preset, metadata=metadata))


if __name__ == "__main__":
    sys.exit(main())
