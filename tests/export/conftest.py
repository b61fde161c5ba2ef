"""A small preset, and files exported from it once, when they are first asked for."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.export import website
from keras_scnn.export.drift import Outputs, reference_outputs
from keras_scnn.export.tflite import convert_preset, write_tflite
from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening
from keras_scnn.settings import DEFAULT_PRESET
from keras_scnn.training.warm_start import copy_encoder

SIZE, IDENTITY, EXPRESSION, FEATURES = 64, 6, 4, 16


class Files(dict[str, Path]):
    """Files by precision, each written on first use: a conversion takes seconds."""

    def __init__(self, write: Callable[[str], Path]):
        super().__init__()
        self._write = write

    def __missing__(self, precision: str) -> Path:
        self[precision] = self._write(precision)
        return self[precision]


@dataclass(frozen=True, eq=False)
class Small:
    """A preset, its folder, crops for it, and where its .tflite files lie, by precision."""

    preset: Preset
    folder: Path
    crops: np.ndarray
    files: Files
    converted: Callable[[], bytes]

    @functools.cached_property
    def expected(self) -> Outputs:
        """The predictions of Keras for the crops."""
        return reference_outputs(self.preset, self.crops)


@pytest.fixture(scope="session")
def small_preset() -> Preset:
    """The released network on 64 px instead of 120, with few coefficients and all heads.

    A random network would not do: it is far more sensitive to rounding than a trained one.
    """
    released = load_preset("aflw-mobilenet-0.5")
    layout = ParameterLayout(IDENTITY, EXPRESSION)
    model = released.face_model.truncated(IDENTITY, EXPRESSION)
    branch = build_branch(
        build_encoder("mobilenet_0.5", SIZE), layout, FEATURES, expression_channels=8
    )
    old = released.layout
    kept = np.r_[0:12, 12 : 12 + IDENTITY, old.expression.start : old.expression.start + EXPRESSION]
    copy_encoder(branch, released.branch)
    head = [w[..., kept] for w in released.branch.get_layer("parameters").get_weights()]
    branch.get_layer("parameters").set_weights(head)
    zoom = np.where(np.arange(layout.size) < 12, SIZE / released.input_size, 1)
    mean, scale = (
        released.space.whitening.mean[kept] * zoom,
        released.space.whitening.scale[kept] * zoom,
    )
    whitening = Whitening(mean, scale)
    return Preset(branch, ParameterSpace(model, whitening), "mobilenet_0.5", {"license": "none"})


def synthetic_crops() -> np.ndarray:
    """(24, SIZE, SIZE, 3) uint8."""
    config = SyntheticConfig(people=3, photos=8, size=SIZE)
    return np.concatenate([render_person(config, person)[0] for person in range(3)])


@pytest.fixture(scope="session")
def small(small_preset, tmp_path_factory) -> Small:
    folder = tmp_path_factory.mktemp("exported")
    save_preset(folder / "small", small_preset)
    crops = synthetic_crops()

    converted = functools.cache(lambda: convert_preset(small_preset, True))

    def write(precision: str) -> Path:
        if precision != "float32":
            pytest.importorskip("ai_edge_quantizer")
        path = folder / f"{precision}.tflite"
        notes = "small", "the card"
        write_tflite(path, small_preset, precision, True, crops[::2], *notes, converted())
        return path

    return Small(small_preset, folder / "small", crops, Files(write), converted)


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """The files of the default preset that the page loads."""
    folder = tmp_path_factory.mktemp("model")
    website.write_model(folder, load_preset(DEFAULT_PRESET), DEFAULT_PRESET, "float16")
    return folder
