"""Give a preset with whole recognizers the expressions of a new version of its base.

    python tools/follow_base.py PRESET BASE OUT --labels FILE.npz

`identity` and `open-identity` have the pose and the expressions of their bases, `mobile` and
`open`, and take over what changed there: the expression head and the expression coefficients of the
last layer. Their identity layer has these coefficients among its inputs. So that shapes stay as
they are, the part that depended on a changed coefficient becomes a linear function of the new
parameters that predicts the old coefficient, fitted to the crops in FILE (of ``learn_gaze.py``).

Run it before BASE replaces the base in the package, since PRESET is loaded with the old one. OUT
has all weights; when BASE is in the package, leave out those of the base:
``save_preset(FOLDER, load_preset(OUT), base=NAME)``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import keras
import numpy as np

from keras_scnn.models import Preset, load_preset, save_preset
from keras_scnn.models.encoders import PREFIX, build_encoder
from keras_scnn.models.flip_averaging import build_flip_averaged
from keras_scnn.models.heads import FINE, build_branch
from keras_scnn.storage import read_npz
from map_identity import BATCH, in_mm

SUM = "parameters_sum"  # the layer of all whitened parameters, before the identity layer


def first_parameters(preset: Preset, crops: np.ndarray) -> np.ndarray:
    """(2 n, P) whitened parameters of n crops and of their mirror images, before the identity
    layer."""
    network = keras.Model(preset.core.input, preset.core.get_layer(SUM).output)
    views = (crops, np.ascontiguousarray(crops[:, :, ::-1]))
    return np.concatenate([network.predict(view, BATCH, verbose=0) for view in views])


def with_base(preset: Preset, base: Preset) -> Preset:
    """The preset with the encoder, expression head and expression coefficients of another base.

    Raises:
        ValueError: the two have different face models or whitening.
    """
    same = preset.face_model.digest == base.face_model.digest
    mine, theirs = preset.space.whitening, base.space.whitening
    if not same or not np.array_equal([*vars(mine).values()], [*vars(theirs).values()]):
        raise ValueError("the base has another face model, or another whitening")
    branch = build_branch(
        build_encoder(preset.encoder, preset.input_size), preset.layout, preset.feature_size,
        preset.feature_channels, preset.has_identity_encoder, preset.has_joint_head,
        base.expression_channels, preset.recognizers,
    )  # fmt: skip
    own = {w.path: w for w in preset.core.weights}
    new = {w.path: w for w in base.core.weights if w.path.startswith(FINE)}
    for weight in branch.weights:
        weight.assign((own | new)[weight.path])
    columns = preset.layout.expression
    kernel, bias = branch.get_layer("parameters").get_weights()
    theirs_kernel, theirs_bias = base.core.get_layer("parameters").get_weights()
    kernel[:, columns], bias[columns] = theirs_kernel[:, columns], theirs_bias[columns]
    branch.get_layer("parameters").set_weights([kernel, bias])
    if preset.is_flip_averaged:
        branch = build_flip_averaged(branch, preset.space)
    return dataclasses.replace(preset, branch=branch)


def keep_shapes(preset: Preset, old: np.ndarray, new: np.ndarray) -> dict[str, float]:
    """Change the identity layer so that shapes depend on new parameters as they did on old ones.

    Args:
        preset: with the new base.
        old, new: (m, P) whitened parameters of the same crops.

    Returns:
        the RMS distance, in mm, between shapes before and after; and what it would be unchanged.
    """
    layer = preset.core.get_layer(f"{PREFIX}shape")
    kernel, bias = (np.float64(part) for part in layer.get_weights())
    changed = np.flatnonzero(np.abs(new - old).max(axis=0) > 1e-2)
    rows = np.c_[new, np.ones(len(new))]
    fit = np.linalg.lstsq(rows, old[:, changed], rcond=1e-6)[0]
    used, to_mm = kernel[changed].copy(), in_mm(preset)
    kernel[changed] = 0
    kernel[: new.shape[1]] += fit[:-1] @ used
    layer.set_weights([kernel, bias + fit[-1] @ used])
    misses = {"kept": rows @ fit - old[:, changed], "unchanged": (new - old)[:, changed]}
    return {
        name: round(float(np.sqrt((np.square(miss @ used @ to_mm)).sum(axis=1).mean())), 4)
        for name, miss in misses.items()
    }


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset")
    parser.add_argument("base")
    parser.add_argument("out", type=Path)
    parser.add_argument("--labels", required=True, type=Path, help="file of learn_gaze.py")
    args = parser.parse_args()
    preset, base = load_preset(args.preset), load_preset(args.base)
    if not preset.recognizers:
        parser.error(f"preset '{args.preset}' has no recognizers; its base is a part of itself")
    crops = read_npz(args.labels, "keras_scnn.gaze_labels", 1)["crops"]
    followed = with_base(preset, base)
    parts = (first_parameters(each, crops) for each in (preset, followed))
    note = {"gaze": base.metadata.get("gaze"), "shapes_moved_mm": keep_shapes(followed, *parts)}
    metadata = preset.metadata | {"followed_base": note}
    save_preset(args.out, dataclasses.replace(followed, metadata=metadata))
    print(json.dumps(note))


if __name__ == "__main__":
    main()
