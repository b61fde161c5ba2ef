"""A small preset, and files exported from it once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from keras_scnn.data.synthetic import SyntheticConfig, render_person
from keras_scnn.export.tflite import QUANTIZE, write_tflite
from keras_scnn.models import Preset, build_branch, build_encoder, save_preset
from keras_scnn.parameters import ParameterLayout, Whitening

SIZE, IDENTITY, EXPRESSION, FEATURES = 32, 6, 4, 16


@dataclass(frozen=True, eq=False)
class Small:
    """A preset, its folder, crops for it, and where its .tflite files lie, by precision."""

    preset: Preset
    folder: Path
    crops: np.ndarray
    files: dict[str, Path]


def small_whitening(layout: ParameterLayout) -> Whitening:
    """Unit parameters are those of a face in a crop of SIZE px."""
    mean, scale = np.zeros(layout.size), np.full(layout.size, 0.02)
    mean[[0, 5, 10]], mean[[3, 7]] = [0.12, -0.12, 0.12], SIZE / 2
    scale[[3, 7, 11]] = 1.5
    scale[12:] = 1
    return Whitening(mean, scale)


@pytest.fixture(scope="session")
def small_preset(open_face) -> Preset:
    """A random network on 32 px whose outputs vary about as much as those of a trained one."""
    import keras

    keras.utils.set_random_seed(5)
    offsets = np.random.default_rng(1).normal(0, 2, (68, 3))
    model = open_face.truncated(IDENTITY, EXPRESSION).replace(landmark_offsets=offsets)
    layout = ParameterLayout(IDENTITY, EXPRESSION)
    branch = build_branch(build_encoder("mobilenet_0.5", SIZE), layout, FEATURES)
    crops = synthetic_crops().astype(np.float32)
    _settle(branch, crops)
    kernel = branch.get_layer("parameters").kernel
    spread = np.std(np.asarray(branch(crops)["parameters"]), axis=0)
    kernel.assign(np.asarray(kernel) / spread.mean())
    return Preset(branch, model, small_whitening(layout), "mobilenet_0.5", {"license": "none"})


def _settle(branch, crops: np.ndarray) -> None:
    """Give batch normalization the statistics of the crops; a fresh one lets signals die out."""
    import keras

    layers = [
        layer
        for layer in branch._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in layers:
        layer.momentum = 0.0
    branch(crops, training=True)


def synthetic_crops() -> np.ndarray:
    """(24, SIZE, SIZE, 3) uint8."""
    config = SyntheticConfig(people=3, photos=8, size=SIZE)
    return np.concatenate([render_person(config, person)[0] for person in range(3)])


@pytest.fixture(scope="session")
def small(small_preset, tmp_path_factory) -> Small:
    folder = tmp_path_factory.mktemp("exported")
    save_preset(folder / "small", small_preset)
    crops, files = synthetic_crops(), {}
    for precision in QUANTIZE:
        if precision != "float32":
            pytest.importorskip("ai_edge_quantizer")
        files[precision] = folder / f"{precision}.tflite"
        write_tflite(
            files[precision], small_preset, precision, True, crops[::2], "small", "the card"
        )
    return Small(small_preset, folder / "small", crops, files)
