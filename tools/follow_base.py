"""Give a preset with whole recognizers the expressions of a new version of its base.

    python tools/follow_base.py PRESET BASE OUT --labels FILE.npz

`identity` and `open-identity` have the pose and the expressions of their bases, `mobile` and
`open`, and take over what changed there: the heads for expression and gaze, and the expression
coefficients of the last layer. Their identity layer has these coefficients among its inputs, and so
have the landmarks that align the recognizers' chips. So that shapes and features stay as they are,
what depended on a changed coefficient becomes a linear function of the new parameters that predicts
the old coefficient, fitted to crops in FILE (of ``learn_gaze.py``).

Run it before BASE replaces the base in the package, since PRESET is loaded with the old one. OUT
has all weights; when BASE is in the package, leave out those of the base:
``save_preset(FOLDER, load_preset(OUT), base=NAME)``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.encoders import build_encoder
from keras_scnn.models.heads import FINE
from keras_scnn.models.identity_encoder import PREFIX
from keras_scnn.models.preset_network import with_settings
from keras_scnn.settings import command
from keras_scnn.storage.outputs import check_out
from learn_gaze import read_labels
from map_identity import both_views

MOST_CROPS = 4000
SUM = "parameters_sum"  # the layer of all whitened parameters, before the identity layer


def first_parameters(preset: Preset, crops: np.ndarray) -> np.ndarray:
    """(2 n, P) whitened parameters of n crops and of their mirror images, before the identity
    layer."""
    return np.concatenate(both_views(preset, SUM, crops))


def with_base(preset: Preset, base: Preset) -> Preset:
    """The preset with the expressions of a base with its encoder: their heads, and coefficients.

    Raises:
        ValueError: the two have different face models, whitening or encoders.
    """
    same = preset.face_model.digest == base.face_model.digest
    mine, theirs = preset.space.whitening, base.space.whitening
    same &= np.array_equal(mine.mean, theirs.mean) and np.array_equal(mine.scale, theirs.scale)
    if not same:
        raise ValueError("the base has another face model, or another whitening")
    own, others = ({w.path: w for w in each.core.weights} for each in (preset, base))
    encoder = {w.path for w in build_encoder(preset.encoder, preset.input_size).weights}
    if any(not np.array_equal(own[path], others[path]) for path in encoder):
        raise ValueError("the base has another encoder")
    heads = {name: getattr(base, name) for name in ("expression_channels", "gaze_channels")}
    followed, of_heads = with_settings(preset, new=(FINE,), **heads)
    for weight in of_heads:
        weight.assign(others[weight.path])
    columns, layer = preset.layout.expression, followed.core.get_layer("parameters")
    kernel, bias = layer.get_weights()
    theirs_kernel, theirs_bias = base.core.get_layer("parameters").get_weights()
    kernel[:, columns], bias[columns] = theirs_kernel[:, columns], theirs_bias[columns]
    layer.set_weights([kernel, bias])
    return followed


def changed_columns(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Indices of the whitened parameters that differ between (m, P) and (m, P)."""
    return np.flatnonzero(np.abs(new - old).max(axis=0) > 1e-2)


def keep_shapes(preset: Preset, old: np.ndarray, new: np.ndarray) -> dict[str, float]:
    """Change the identity layer so that shapes depend on new parameters as they did on old ones.

    Args:
        preset: with the new base.
        old, new: (m, P) whitened parameters of the same crops.

    Returns:
        the RMS distance, in mm, between shapes before and after; and what it would be unchanged.
    """
    layer, changed = preset.core.get_layer(f"{PREFIX}shape"), changed_columns(old, new)
    kernel, bias = (np.float64(part) for part in layer.get_weights())
    fit, constant = linear_fit(new, old[:, changed])
    used, to_mm = kernel[changed].copy(), preset.space.shape_basis
    kernel[changed] = 0
    kernel[: new.shape[1]] += fit @ used
    layer.set_weights([kernel, bias + constant @ used])
    misses = {"kept": new @ fit + constant - old[:, changed], "unchanged": (new - old)[:, changed]}
    return {name: _root_mean_square(miss @ used @ to_mm) for name, miss in misses.items()}


def keep_chips(preset: Preset, old: np.ndarray, new: np.ndarray) -> dict[str, float]:
    """Change the recognizers' landmarks as ``keep_shapes`` the shapes; RMS distances in mm."""
    moved = {}
    before, after = (preset.space.parameters(part) for part in (old, new))
    changed = changed_columns(old, new) - preset.layout.identity.start
    coefficients = np.c_[after.identity, after.expression]
    wanted = np.c_[before.identity, before.expression][:, changed]
    fit, constant = linear_fit(coefficients, wanted)
    for name in preset.recognizers.split("+"):
        points = preset.core.get_layer(f"{PREFIX}{name}_points")
        basis, mean = np.float64(points.point_basis), np.float64(points.point_mean)
        used = basis[changed].copy()
        basis[changed] = 0
        points.point_basis.assign(basis + fit @ used)
        points.point_mean.assign(mean + constant @ used)
        misses = coefficients @ fit + constant - wanted, coefficients[:, changed] - wanted
        rows = [(miss @ used).reshape(-1, 3) for miss in misses]
        moved |= {f"{name} kept": _root_mean_square(rows[0])}
        moved |= {f"{name} unchanged": _root_mean_square(rows[1])}
    return moved


def linear_fit(inputs: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (D, C) and constant (C,) of the linear regression of (m, C) targets on (m, D)."""
    rows = np.c_[np.float64(inputs), np.ones(len(inputs))]
    fit = np.linalg.lstsq(rows, np.float64(targets), rcond=1e-6)[0]
    return fit[:-1], fit[-1]


def _root_mean_square(rows: np.ndarray) -> float:
    """Of the lengths of (m, D) rows, rounded."""
    return round(float(np.sqrt(np.square(rows).sum(axis=1).mean())), 4)


@command
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("base")
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", required=True, type=Path, help="file of learn_gaze.py")
    args = parser.parse_args(argv)
    check_out(args.out)
    preset, base = load_preset(args.preset), load_preset(args.base)
    if not preset.recognizers:
        parser.error(f"preset '{args.preset}' has no recognizers; its base is a part of itself")
    crops = read_labels(args.labels)[0].crops
    crops = np.random.default_rng(0).permutation(crops)[:MOST_CROPS]
    followed = with_base(preset, base)
    old, new = (first_parameters(each, crops) for each in (preset, followed))
    note = {
        "gaze": base.metadata.get("gaze"),
        "shapes_moved_mm": keep_shapes(followed, old, new),
        "chips_moved_mm": keep_chips(followed, old, new),
    }
    metadata = preset.metadata | {"followed_base": note}
    save_preset(args.out, dataclasses.replace(followed, metadata=metadata))
    print(json.dumps(note))


if __name__ == "__main__":
    sys.exit(main())
