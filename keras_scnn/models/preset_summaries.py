"""Summaries of the package's presets, for choosing one; Keras is not imported."""

from __future__ import annotations

from dataclasses import dataclass

from keras_scnn.models.presets import SETTINGS, list_presets, preset_folder, read_settings
from keras_scnn.models.shared_weights import (
    BASE,
    FORMAT,
    NETWORK,
    RECOGNIZERS,
    VERSION,
    WEIGHTS,
)
from keras_scnn.storage import read_npz
from keras_scnn.storage.guard import reading


@dataclass(frozen=True)
class PresetSummary:
    """Size, accuracy and license of a preset.

    Attributes:
        name, encoder, input_size: as in ``Preset``.
        parameters: number of network weights stored in the folder.
        shared: names of the preset and the recognizers whose weights the network uses as well.
        bytes: of the files in the folder.
        results: {measure: {'value', 'unit', 'protocol'}}, as measured at the release.
        license: terms of use, in words.
        needs: what must be installed besides the package; '' if nothing.
    """

    name: str
    encoder: str
    input_size: int
    parameters: int
    shared: tuple[str, ...]
    bytes: int
    results: dict[str, dict]
    license: str
    needs: str


def preset_summaries() -> list[PresetSummary]:
    """The presets that come with the package, by name; Keras is not imported."""
    return [_summary(name) for name in list_presets()]


def _summary(name: str) -> PresetSummary:
    folder = preset_folder(name)
    settings = read_settings(folder / SETTINGS)
    arrays = read_npz(folder / WEIGHTS, FORMAT, VERSION)
    with reading(folder / SETTINGS, "the settings of a preset"):
        metadata = settings["metadata"]
        return PresetSummary(
            name=name,
            encoder=settings["encoder"],
            input_size=settings["input_size"],
            parameters=sum(array.size for key, array in arrays.items() if key.startswith(NETWORK)),
            shared=tuple([settings[BASE]["preset"]] if BASE in settings else [])
            + tuple(settings.get(RECOGNIZERS, ())),
            bytes=sum(path.stat().st_size for path in folder.iterdir()),
            results=metadata.get("results", {}),
            license=metadata.get("license", "not stated"),
            needs=metadata.get("needs", ""),
        )
