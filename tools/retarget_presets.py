"""Rewrite presets of an older face model for the embedded one, in closed form.

    git show 766df82:keras_scnn/assets/open_face/open_face.npz > old.npz
    python tools/retarget_presets.py old.npz PRESET_FOLDER...

The layer `parameters`, and the layer by which an expression head adds to it, are linear, so a
linear map of parameters is a change of their weights: pose is mapped by the similarity between the
two mean faces, identity by the least-squares map of the neutral shapes, and each expression weight
by the ratio of the two units. Presets with recognizers are rejected: their identity has its own
layers (make them again from the rewritten preset, with make_identity_preset.py). Afterwards write
network.tflite again: python -m keras_scnn.export PRESET --attach.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.linalg import block_diag

from keras_scnn.face_models import FACE_MODEL
from keras_scnn.geometry.alignment import apply_similarity, similarity_alignment
from keras_scnn.models.heads import FINE, GAZE
from keras_scnn.models.presets import FORMAT, NETWORK, SETTINGS, VERSION, WEIGHTS, read_settings
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import POSE_SIZE, ParameterLayout
from keras_scnn.settings import command
from keras_scnn.shape_distance import shape_basis
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.atomic import staged_files
from keras_scnn.storage.text import json_text

KERNEL, BIAS = f"{NETWORK}parameters/kernel", f"{NETWORK}parameters/bias"
LANDMARK_WEIGHT = 5.0  # of a landmark; other vertices of the skin have a weight of 1
RIDGE_MM = 0.05  # penalty of a coefficient of 1, as a displacement of each vertex
LEAST_SCALE = 1e-3  # of the whitening, as in Whitening.from_samples
REAL_SD = 0.4  # of people's identity coefficients in the older model


@dataclass(frozen=True)
class Retargeting:
    """The map from parameters of one face model to those of another.

    Attributes:
        scale, rotation, shift: old frame from new frame: ``scale * rotation @ x + shift``.
        identity, offset: (K', K) and (K',): new coefficients from old ones.
        expression: (L', L): new weights from old ones.
    """

    scale: float
    rotation: np.ndarray
    shift: np.ndarray
    identity: np.ndarray
    offset: np.ndarray
    expression: np.ndarray

    def matrix(self) -> tuple[np.ndarray, np.ndarray]:
        """(P', P) and (P',): new parameter vectors from old ones."""
        frame = np.eye(4)
        frame[:3, :3], frame[:3, 3] = self.scale * self.rotation, self.shift
        pose = np.kron(np.eye(3), frame.T)  # each row of the camera is multiplied from the right
        offset = np.zeros(POSE_SIZE + len(self.identity) + len(self.expression))
        offset[POSE_SIZE : POSE_SIZE + len(self.offset)] = self.offset
        return block_diag(pose, self.identity, self.expression), offset


def find_retargeting(old: MorphableModel, new: MorphableModel) -> Retargeting:
    """The map between two models whose first vertices correspond."""
    rows, weight = _skin(old)
    root = np.sqrt(weight)[:, None, None]
    scale, rotation, shift = similarity_alignment(new.mean[rows], old.mean[rows], weight)
    turned = scale * np.einsum("ij,njk->nik", rotation, np.float64(new.identity_basis[rows]))
    mean = apply_similarity(scale, rotation, shift, new.mean[rows])
    basis = (root * turned).reshape(-1, new.n_identity)
    apart = root * np.dstack([old.identity_basis[rows], (old.mean[rows] - mean)[..., None]])
    ridge = RIDGE_MM**2 * weight.sum() * np.eye(new.n_identity)
    apart = apart.reshape(len(basis), -1)
    solved = np.linalg.solve(basis.T @ basis + ridge, basis.T @ apart)
    ratios = _unit_ratios(old, new, scale * rotation)
    return Retargeting(float(scale), rotation, shift, solved[:, :-1], solved[:, -1], ratios)


def _skin(model: MorphableModel) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the compared vertices, and their weights."""
    rows = np.flatnonzero(model.regions == 0)
    return rows, np.where(np.isin(rows, model.landmark_indices), LANDMARK_WEIGHT, 1.0)


def _unit_ratios(old: MorphableModel, new: MorphableModel, frame: np.ndarray) -> np.ndarray:
    """(L', L): for units of equal name, the multiple of the new one that fits the old one best."""
    ratios = np.zeros((new.n_expression, old.n_expression))
    rows, weight = _skin(old)
    for column, name in enumerate(old.expression_names):
        row = new.expression_names.index(name)
        before, after = old.expression_basis[rows, :, column], new.expression_basis[rows, :, row]
        after = after @ frame.T
        length = weight @ (after**2).sum(axis=1)
        ratios[row, column] = weight @ (before * after).sum(axis=1) / length
    return ratios


def checked_settings(folder: Path, old: MorphableModel, new: MorphableModel) -> dict:
    """The settings of a preset that can be rewritten.

    Raises:
        FileNotFoundError: the folder is not a preset.
        ValueError: the preset is already for the new model, or for neither of the two (presets of
            version 0.1 do not say for which), or has recognizers.
    """
    settings = read_settings(folder / SETTINGS)
    digest = settings.get("face_model_digest", old.digest)
    if digest == new.digest:
        raise ValueError(f"{folder}: is already for the face model {new.digest[:12]}")
    if digest != old.digest:
        raise ValueError(
            f"{folder}: is for the face model {digest[:12]}, but the older one has the digest "
            f"{old.digest[:12]}"
        )
    if settings.get("recognizers"):
        raise ValueError(f"{folder}: has recognizers; only presets without them can be rewritten")
    return settings


def retarget(folder: Path, old: MorphableModel, new: MorphableModel) -> None:
    """Rewrite one preset's files, all or nothing; errors as ``checked_settings``."""
    settings = checked_settings(folder, old, new)
    arrays = read_npz(folder / WEIGHTS, FORMAT, VERSION)
    mapping = find_retargeting(old, new)
    matrix, offset = mapping.matrix()
    scale, mean = np.float64(arrays["whitening_scale"]), np.float64(arrays["whitening_mean"])
    fresh_mean = matrix @ mean + offset
    fresh_scale = np.maximum(np.sqrt((matrix * scale) ** 2 @ np.ones(len(scale))), LEAST_SCALE)
    before, after = (ParameterLayout(m.n_identity, m.n_expression) for m in (old, new))
    whitened = matrix * scale / fresh_scale[:, None]  # of the network's outputs
    arrays[KERNEL] = (np.float64(arrays[KERNEL]) @ whitened.T).astype(np.float16)
    arrays[BIAS] = (whitened @ arrays[BIAS]).astype(np.float32)
    units = whitened[after.expression, before.expression]
    for linear in (f"{NETWORK}{prefix}linear/" for prefix in (FINE, GAZE)):
        if (kernel := f"{linear}kernel") in arrays:
            arrays[kernel] = (np.float64(arrays[kernel]) @ units.T).astype(np.float16)
            arrays[f"{linear}bias"] = (units @ arrays[f"{linear}bias"]).astype(np.float32)
    arrays["whitening_mean"] = fresh_mean.astype(np.float32)
    arrays["whitening_scale"] = fresh_scale.astype(np.float32)
    arrays["landmark_offsets"] = _offsets(arrays, mean[before.identity], mapping, old, new)
    if "shape_scatter" in arrays:
        arrays["shape_scatter"] = _covariance(arrays["shape_scatter"], mapping, old, new)
    settings |= {"n_identity": new.n_identity, "n_expression": new.n_expression}
    settings |= {"face_model_digest": new.digest}
    settings["metadata"]["retargeted_from_face_model"] = old.digest
    with staged_files(folder) as aside:
        write_npz(aside / WEIGHTS, FORMAT, VERSION, **arrays)
        (aside / SETTINGS).write_text(json_text(settings))
    (folder / FACE_MODEL).unlink(missing_ok=True)  # the older one


def _offsets(arrays, identity, mapping: Retargeting, old, new) -> np.ndarray:
    """(68, 3) landmark offsets that keep the mean person's landmarks in place."""
    before = old.landmarks(identity, with_offsets=False) + arrays["landmark_offsets"]
    in_new = (before - mapping.shift) @ mapping.rotation / mapping.scale
    after = new.landmarks(mapping.identity @ identity + mapping.offset, with_offsets=False)
    return (in_new - after).astype(np.float32)


def _covariance(covariance, mapping: Retargeting, old, new) -> np.ndarray:
    """The within-person covariance in the new model's shape coordinates."""
    before, after = (shape_basis(model).T for model in (old, new))
    change = after @ mapping.identity @ np.linalg.inv(before)
    return (change @ covariance @ change.T).astype(np.float32)


def report(old: MorphableModel, new: MorphableModel) -> str:
    """Lines to print: the error in mm for 500 random people's shapes, and the units' ratios."""
    mapping = find_retargeting(old, new)
    identity = REAL_SD * np.random.default_rng(0).standard_normal((500, old.n_identity))
    before = old.vertices(identity)
    after = new.vertices(identity @ mapping.identity.T + mapping.offset)[:, : old.n_vertices]
    lines = []
    for name, rows in (("skin", _skin(old)[0]), ("68 landmarks", old.landmark_indices)):
        aligned = similarity_alignment(after[:, rows], before[:, rows])
        left = apply_similarity(*aligned, after[:, rows]) - before[:, rows]
        spread = before[:, rows] - old.mean[rows]
        rms, total = (np.sqrt((part**2).sum(axis=-1).mean()) for part in (left, spread))
        lines.append(f"{name}: error {rms:.2f} mm; people differ from the mean by {total:.2f} mm")
    ratios = mapping.expression.max(axis=1)
    changed = [f"{n} {r:.2f}" for n, r in zip(new.expression_names, ratios, strict=True)]
    return "\n".join([*lines, "expression weights times: " + ", ".join(changed)])


@command
def main(argv: list[str] | None = None) -> None:
    """Rewrite the given presets, and print how well the models agree."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old_model", type=Path, help="the face model .npz of the presets")
    parser.add_argument("presets", type=Path, nargs="*", help="folders, rewritten in place")
    args = parser.parse_args(argv)
    old, new = MorphableModel.load(args.old_model), MorphableModel.open_face()
    for folder in args.presets:
        checked_settings(folder, old, new)  # before the first one is rewritten
    print(report(old, new))
    for folder in args.presets:
        retarget(folder, old, new)
        print(f"rewrote {folder}")


if __name__ == "__main__":
    sys.exit(main())
