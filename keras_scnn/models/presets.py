"""Presets: folders with weights and everything else that is needed to use them.

``preset.json`` names the encoder, the face model and the sizes; ``weights.npz`` holds the
network's kernels in half precision, and the whitening and landmark offsets in single precision.
``network.tflite``, if present, is the same network for ``models.litert``. Keras is imported only
when a network is built, so ``read_preset`` works without it.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_scnn.face_models import FACE_MODEL, face_model_beside, keep_face_model
from keras_scnn.models.backend import check_data_format
from keras_scnn.models.encoder_table import MAX_INPUT_SIZE, check_input_size
from keras_scnn.models.preset_network import (
    CHANNELS,
    Preset,
    PresetData,
    build_network,
    network_settings,
)
from keras_scnn.models.shared_weights import (
    FORMAT,
    NETWORK,
    VERSION,
    WEIGHTS,
    base_arrays,
    check_sources,
    compact,
    is_own,
    packaged_arrays,
    sources_of,
)
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.parameters import ParameterSpace, Whitening
from keras_scnn.settings import did_you_mean
from keras_scnn.storage import read_npz, write_npz
from keras_scnn.storage.atomic import staged_files
from keras_scnn.storage.downloads import checked_digest, fetch_folder, files_digest, split_digest
from keras_scnn.storage.guard import existing_file, reading
from keras_scnn.storage.outputs import real_path
from keras_scnn.storage.remote import RemotePath, local_path, place
from keras_scnn.storage.text import json_text, read_json, write_json

if TYPE_CHECKING:
    import keras

FOLDER = Path(__file__).parent.parent / "assets" / "presets"
SETTINGS = "preset.json"
LITE_FILE = "network.tflite"
FILES, OPTIONAL = (SETTINGS, WEIGHTS), (FACE_MODEL, LITE_FILE)
SIZES = ("feature_size", *CHANNELS, "n_identity", "n_expression")
FITTING = f"a preset whose {SETTINGS} and {WEIGHTS} fit"


def save_preset(folder: str | os.PathLike, preset: Preset, base: str = "") -> None:
    """Write the folder's files together, so that none is left beside one of an older preset.

    A face model other than the embedded one is among them. A preset is loaded as the network that
    its settings describe, in float32 and trainable. Anything that they do not describe is rejected:
    LoRA, quantized weights, layers that were added, removed or changed. Weights of recognizers that
    equal those of the installed packages are not written.

    Args:
        folder: created if missing.
        preset: to write.
        base: name of a preset of the package; weights equal to its own are not written.

    Raises:
        FileNotFoundError: the package has no preset ``base``.
        ValueError: the network is not the one that the settings describe, has a weight that is not
            finite or too large for half precision, or its metadata does not fit JSON.
    """
    folder, settings = local_path(folder), _settings_of(preset)
    settings |= sources_of(preset.core, preset.recognizers, FOLDER / base if base else None)
    _check_describes(settings, preset)
    text = json_text(settings)
    shared = base_arrays(settings, FOLDER) | packaged_arrays(preset.core, settings)
    arrays = {NETWORK + w.path: compact(w) for w in preset.core.weights if is_own(w, shared)}
    arrays["whitening_mean"] = preset.space.whitening.mean
    arrays["whitening_scale"] = preset.space.whitening.scale
    arrays["landmark_offsets"] = preset.face_model.landmark_offsets
    if preset.within_person_covariance is not None:
        arrays["shape_scatter"] = np.float32(preset.within_person_covariance)
    with staged_files(folder) as aside:
        write_npz(aside / WEIGHTS, FORMAT, VERSION, **arrays)
        (aside / SETTINGS).write_text(text)
        keep_face_model(aside, preset.face_model, folder)


def _settings_of(preset: Preset) -> dict:
    return {
        "format": FORMAT,
        "version": VERSION,
        **network_settings(preset),
        "mirrored": preset.is_flip_averaged,
        "face_model": preset.face_model.name,
        "face_model_digest": preset.face_model.digest,
        "n_identity": preset.face_model.n_identity,
        "n_expression": preset.face_model.n_expression,
        "metadata": preset.metadata,
    }


def _check_describes(settings: dict, preset: Preset) -> None:
    """Reject a network that ``_build`` would not reproduce."""
    from keras_scnn.models.same_network import check_same_network

    try:
        check_input_size(preset.input_size)
        expected = build_network(settings, preset.layout)
    except ValueError as error:
        raise ValueError(f"the preset cannot be saved: {error}") from error
    check_same_network(preset.core, expected, f"a preset of {settings['encoder']}")


def write_metadata(folder: str | os.PathLike, name: str, value: Any) -> None:
    """Set one metadata entry of a preset or run folder, atomically.

    Args:
        folder: given by path; presets of the package are not looked up by name.
        name: of the entry.
        value: anything that fits JSON.

    Raises:
        FileNotFoundError: there is no such folder, or it has no settings.
        ValueError: the settings are damaged or of another version, or the value does not fit JSON.
    """
    folder = Path(folder)
    settings = read_settings(folder / SETTINGS)
    settings["metadata"] = dict(settings.get("metadata", {})) | {name: value}
    write_json(folder / SETTINGS, settings)


def load_preset(
    name_or_path: str | os.PathLike,
    face_model: MorphableModel | None = None,
    digest: str | None = None,
) -> Preset:
    """Load a preset of the package by name, or any preset or run folder by path or URL.

    Args:
        name_or_path: a folder, the name of one in the package, or a URL such as
            ``hf://owner/name``, ``s3://bucket/folder``, ``https://host/folder`` (extras 'hub',
            'remote'), which may end in ``#sha256=`` and a digest. preset.json, weights.npz and,
            if present, face_model.npz and network.tflite are fetched into the user's cache, once.
        face_model: that of the training; None: the embedded one, or the folder's face_model.npz.
        digest: SHA-256 of the output of ``sha256sum preset.json weights.npz face_model.npz
            network.tflite`` for those that are there (of a folder, network.tflite may be left out);
            None: not checked.

    Raises:
        FileNotFoundError: there is no such folder, or a file of it is missing.
        ImportError: a URL needs a package; names what to install.
        OSError: a store is unreachable or denies access.
        ValueError: a file is damaged, of another version, or does not fit the rest; or the files
            have another digest; or the face model is not the one that the network was trained
            with; or Keras is set to channels first.
    """
    home = preset_folder(name_or_path, digest)  # before Keras starts
    check_data_format()
    folder, settings, arrays, data = _read(home, face_model)
    with reading(folder, FITTING):
        branch = build_network(settings, data.layout)
    _fill(folder, branch, settings, arrays)
    if settings.get("mirrored"):
        from keras_scnn.models.flip_averaging import build_flip_averaged

        branch = build_flip_averaged(branch, data.space)
    return Preset(branch, data.space, data.encoder, data.metadata, data.within_person_covariance)


def read_preset(
    name_or_path: str | os.PathLike, face_model: MorphableModel | None = None
) -> PresetData:
    """A preset without its network, and without Keras; arguments and errors as ``load_preset``."""
    return _read(name_or_path, face_model)[-1]


def _read(
    name_or_path: str | os.PathLike, face_model: MorphableModel | None
) -> tuple[Path, dict, dict[str, np.ndarray], PresetData]:
    """The folder, its settings and arrays, and the preset that they describe."""
    folder = preset_folder(name_or_path)
    settings = read_settings(folder / SETTINGS)
    own = read_npz(folder / WEIGHTS, FORMAT, VERSION)
    arrays = base_arrays(settings, FOLDER) | own
    with reading(folder, FITTING):
        _check_sizes(settings, arrays)
        model = face_model or face_model_beside(folder / SETTINGS, settings["face_model"])
        model = model.truncated(settings["n_identity"], settings["n_expression"])
        data = _data(settings, arrays, model.replace(landmark_offsets=arrays["landmark_offsets"]))
    _check_digest(folder / SETTINGS, settings, data.face_model)
    return folder, settings, arrays, data


def _check_sizes(settings: dict, arrays: dict[str, np.ndarray]) -> None:
    """Reject sizes larger than any array of the weights, before a network is allocated."""
    largest = max((n for array in arrays.values() for n in array.shape), default=0)
    sizes = {name: settings.get(name, 0) for name in SIZES}
    for name, size in (sizes | {"input_size": settings["input_size"]}).items():
        limit = MAX_INPUT_SIZE if name == "input_size" else largest
        if type(size) is not int or not 0 <= size <= limit:
            raise ValueError(f"{name} is {size!r}; it must be a whole number from 0 to {limit}")


def _check_digest(path: Path, settings: dict, model: MorphableModel) -> None:
    """Reject a face model that the network was not trained with.

    Presets from before 0.2.0 have no digest; they used an earlier open face model.
    """
    wanted = settings.get("face_model_digest")
    if wanted is None and model.name != "open_face":
        return
    if wanted != model.digest:
        made = f"with digest {wanted[:12]}" if wanted else "of keras_scnn 0.1"
        raise ValueError(
            f"{path}: the network was trained with the face model '{settings['face_model']}' "
            f"{made}, but '{model.name}' here has digest {model.digest[:12]}: pass the face model "
            "that it was trained with, or retrain the preset"
        )


def list_presets() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{SETTINGS}"))


def preset_folder(name_or_path: str | os.PathLike, digest: str | None = None) -> Path:
    """The folder of a preset: the package's by name, the given one, or a URL's in the cache.

    Arguments and errors as ``load_preset``.
    """
    name, wanted = split_digest(os.fspath(name_or_path), digest)
    home = place(name)
    if isinstance(home, RemotePath):
        return fetch_folder(home, FILES, OPTIONAL, _check_files, wanted)
    # A folder of that name that is no preset does not hide the package's; a path is used as it is.
    homes = (home, FOLDER / name) if name == os.path.basename(name) else (home,)
    folders = [folder for folder in homes if name and folder.is_dir()]
    if folders:
        folder = next((one for one in folders if (one / SETTINGS).is_file()), folders[0])
        if wanted and wanted != files_digest(folder, (*FILES, FACE_MODEL)):
            checked_digest(folder, (*FILES, *OPTIONAL), wanted)  # the last may be made locally
        return folder
    known = ", ".join(list_presets()) or "none"
    raise FileNotFoundError(
        f"no preset '{name_or_path}'{did_you_mean(str(name_or_path), list_presets())}: "
        f"give a preset folder, a run folder, a URL, or one of: {known}"
    )


def preset_name(name_or_path: str | os.PathLike) -> str:
    """The last part of a preset's name, path or URL, for files and titles.

    >>> preset_name("s3://bucket/mobile#sha256=" + 64 * "0")
    'mobile'

    Raises:
        ValueError: the part of a URL from # on is no digest.
    """
    return real_path(split_digest(os.fspath(name_or_path))[0]).name


def _check_files(folder: Path) -> None:
    """Reject a download that is not a preset before it is cached."""
    read_settings(folder / SETTINGS)
    read_npz(folder / WEIGHTS, FORMAT, VERSION)
    if (folder / FACE_MODEL).is_file():
        MorphableModel.load(folder / FACE_MODEL)


def preset_digest(name_or_path: str | os.PathLike) -> str:
    """64 hexadecimal digits that two presets share only if their networks give equal outputs.

    SHA-256 of all settings but the metadata and of the weights file; errors as ``load_preset``.
    """
    folder = preset_folder(name_or_path)
    settings = {k: v for k, v in read_settings(folder / SETTINGS).items() if k != "metadata"}
    weights = existing_file(folder / WEIGHTS, "a preset's weights").read_bytes()
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode() + weights).hexdigest()


def read_settings(path: Path) -> dict:
    """The settings in a preset's ``preset.json``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or of another version.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a preset folder has {SETTINGS}")
    what = "the settings of a preset"
    with reading(path, what):
        settings = read_json(path, what)
        kind = settings["format"], settings["version"]
        if not isinstance(metadata := settings.get("metadata", {}), dict):
            raise ValueError(f"metadata is {str(metadata)[:40]}, not a table")
        check_sources(settings)
    if kind != (FORMAT, VERSION):
        raise ValueError(f"{path}: {kind[0]} version {kind[1]}; expected {FORMAT} {VERSION}")
    return settings


def preset_face_model(name_or_path: str | os.PathLike) -> MorphableModel:
    """The face model of a preset, with its landmark offsets; errors as ``load_preset``."""
    return read_preset(name_or_path).face_model


def _data(settings: dict, arrays: dict, model: MorphableModel) -> PresetData:
    space = ParameterSpace(model, Whitening(arrays["whitening_mean"], arrays["whitening_scale"]))
    covariance = arrays.get("shape_scatter")
    if covariance is not None and covariance.shape != (model.n_identity,) * 2:
        raise ValueError(f"shape_scatter is {covariance.shape}, not {(model.n_identity,) * 2}")
    sizes = settings["input_size"], settings["feature_size"]
    return PresetData(space, settings["encoder"], *sizes, settings["metadata"], covariance)


def _fill(folder: Path, branch: keras.Model, settings: dict, arrays: dict) -> None:
    """Set a branch's weights, including those of packaged recognizers."""
    arrays = arrays | packaged_arrays(branch, settings)  # not in ``reading``: its errors are clear
    with reading(folder, FITTING):
        for weight in branch.weights:
            value = arrays[NETWORK + weight.path].astype(np.float32)
            if not np.isfinite(value).all():
                raise ValueError(f"weight {weight.path} is not finite")
            weight.assign(value)
