"""Presets: a folder with weights and everything else that is needed to use them.

``preset.json`` names the encoder, the face model and the sizes; ``weights.npz`` holds the
network's kernels in half precision, and the whitening and landmark offsets in single precision.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_scnn.face_models import load_face_model
from keras_scnn.models.encoders import PREFIX, build_encoder
from keras_scnn.models.flip_averaging import build_mirrored
from keras_scnn.models.heads import build_branch
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening
from keras_scnn.storage import atomic_path, read_npz, write_npz

FORMAT, VERSION = "keras_scnn.preset", 1
FOLDER = Path(__file__).parent.parent / "assets" / "presets"
SETTINGS, WEIGHTS = "preset.json", "weights.npz"
NETWORK = "network/"


@dataclass(frozen=True, eq=False)
class Preset:
    """A trained single-image network and what its numbers mean.

    Attributes:
        branch: from ``build_branch``, or such a one within ``build_mirrored``.
        space: of the branch's parameters; its face model has the landmark offsets of the training.
        encoder: name of the encoder.
        shape_scatter: (K, K) float32, mm², how this network's neutral shapes of one person's photos
            differ (``shape_distance.person_scatter``); None where that was not measured.
        metadata: anything that fits JSON: data, seed, results, license.
    """

    branch: keras.Model
    space: ParameterSpace
    encoder: str
    metadata: dict = field(default_factory=dict)
    shape_scatter: np.ndarray | None = None

    @property
    def core(self) -> keras.Model:
        """What is trained: the branch, or the one that a mirrored branch asks twice."""
        inner = [layer for layer in self.branch.layers if layer.name == "branch"]
        return inner[0] if inner else self.branch

    @property
    def is_mirrored(self) -> bool:
        """The branch looks at the crop and at its mirror image."""
        return self.core is not self.branch

    @property
    def input_size(self) -> int:
        """Width and height of the crop, px."""
        return self.branch.input_shape[1]

    @property
    def face_model(self) -> MorphableModel:
        """The face model of the parameter space."""
        return self.space.face_model

    @property
    def layout(self) -> ParameterLayout:
        """Where pose, identity and expression stand in the branch's parameters."""
        return self.space.layout

    @property
    def feature_size(self) -> int:
        """Length of the identity feature; 0 where the network has no feature head."""
        features = self.branch.output.get("features")
        return 0 if features is None else features.shape[-1]

    @property
    def feature_channels(self) -> int:
        """Channels of a feature head that weighs places; 0 where it has none, or another one."""
        layers = [layer for layer in self.core.layers if layer.name == "features_mix"]
        return layers[0].filters if layers else 0

    @property
    def has_identity_encoder(self) -> bool:
        """A second encoder tells people apart; see ``models.identity_encoder``."""
        return any(layer.name.startswith(PREFIX) for layer in self.core.layers)


def save_preset(folder: str | os.PathLike, preset: Preset) -> None:
    """Write the folder's two files, each whole or not at all, the settings last."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {NETWORK + w.path: _compact(np.asarray(w)) for w in preset.core.weights}
    arrays["whitening_mean"] = preset.space.whitening.mean
    arrays["whitening_scale"] = preset.space.whitening.scale
    arrays["landmark_offsets"] = preset.face_model.landmark_offsets
    if preset.shape_scatter is not None:
        arrays["shape_scatter"] = np.float32(preset.shape_scatter)
    settings = {
        "format": FORMAT,
        "version": VERSION,
        "encoder": preset.encoder,
        "input_size": preset.input_size,
        "feature_size": preset.feature_size,
        "feature_channels": preset.feature_channels,
        "identity_encoder": preset.has_identity_encoder,
        "mirrored": preset.is_mirrored,
        "face_model": preset.face_model.name,
        "n_identity": preset.face_model.n_identity,
        "n_expression": preset.face_model.n_expression,
        "metadata": preset.metadata,
    }
    write_npz(folder / WEIGHTS, FORMAT, VERSION, **arrays)
    with atomic_path(folder / SETTINGS) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def write_metadata(folder: str | os.PathLike, name: str, value: Any) -> None:
    """Set one entry of the metadata of a preset or run folder, the file whole or not at all.

    Args:
        folder: given by path; presets of the package are not looked up by name.
        name: of the entry.
        value: anything that fits JSON.

    Raises:
        FileNotFoundError: there is no such folder, or it has no settings.
        ValueError: the settings are damaged, or of another version.
    """
    folder = Path(folder)
    settings = _settings(folder / SETTINGS)
    settings["metadata"] = dict(settings.get("metadata", {})) | {name: value}
    with atomic_path(folder / SETTINGS) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n")


def _compact(array: np.ndarray) -> np.ndarray:
    """Kernels in half precision; biases and moving statistics, small and wide-ranged, in single."""
    return array.astype(np.float16 if array.ndim > 1 else np.float32)


def load_preset(
    name_or_path: str | os.PathLike, face_model: MorphableModel | None = None
) -> Preset:
    """Load a preset of the package by name, or any preset or run folder by path.

    Args:
        name_or_path: a folder, or the name of one in the package.
        face_model: the model that the network was trained with, where it is not the embedded one.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ValueError: a file is damaged, of another version, or does not fit the rest.
    """
    folder = find_preset(name_or_path)
    settings = _settings(folder / SETTINGS)
    arrays = read_npz(folder / WEIGHTS, FORMAT, VERSION)
    try:
        return _assemble(settings, arrays, face_model)
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{folder}: {SETTINGS} and {WEIGHTS} do not fit: {error}") from error


def preset_names() -> list[str]:
    """The presets that come with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{SETTINGS}"))


def find_preset(name_or_path: str | os.PathLike) -> Path:
    """The folder of a preset of the package by name, or of any preset or run folder by path.

    Raises:
        FileNotFoundError: there is no such folder; the message lists the package's presets.
    """
    for folder in (Path(name_or_path), FOLDER / name_or_path):
        if folder.is_dir():
            return folder
    known = ", ".join(preset_names()) or "none"
    raise FileNotFoundError(
        f"no preset '{name_or_path}': give a preset folder, a run folder, or one of: {known}"
    )


def _settings(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a preset folder has {SETTINGS}")
    try:
        settings = json.loads(path.read_text())
        found = settings["format"], settings["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the settings of a preset ({error!r})") from error
    if found != (FORMAT, VERSION):
        raise ValueError(f"{path}: {found[0]} version {found[1]}; expected {FORMAT} {VERSION}")
    return settings


def preset_face_model(name_or_path: str | os.PathLike) -> MorphableModel:
    """The face model of a preset, with its landmark offsets; errors as ``load_preset``."""
    folder = find_preset(name_or_path)
    settings = _settings(folder / SETTINGS)
    return _face_model(settings, read_npz(folder / WEIGHTS, FORMAT, VERSION), None)


def _face_model(settings: dict, arrays: dict, face_model: MorphableModel | None) -> MorphableModel:
    model = face_model or load_face_model(settings["face_model"])
    model = model.truncated(settings["n_identity"], settings["n_expression"])
    return model.replace(landmark_offsets=arrays["landmark_offsets"])


def _assemble(settings: dict, arrays: dict, face_model: MorphableModel | None) -> Preset:
    model = _face_model(settings, arrays, face_model)
    encoder = build_encoder(settings["encoder"], settings["input_size"])
    space = ParameterSpace(model, Whitening(arrays["whitening_mean"], arrays["whitening_scale"]))
    channels = settings.get("feature_channels", 0)  # none in presets of before
    two = settings.get("identity_encoder", False)
    branch = build_branch(encoder, space.layout, settings["feature_size"], channels, two)
    for weight in branch.weights:
        value = arrays[NETWORK + weight.path].astype(np.float32)
        if not np.isfinite(value).all():
            raise ValueError(f"weight {weight.path} is not finite")
        weight.assign(value)
    if settings.get("mirrored"):
        branch = build_mirrored(branch, space)
    scatter = arrays.get("shape_scatter")
    if scatter is not None and scatter.shape != (model.n_identity,) * 2:
        raise ValueError(f"shape_scatter is {scatter.shape}, not {(model.n_identity,) * 2}")
    return Preset(branch, space, settings["encoder"], settings["metadata"], scatter)
