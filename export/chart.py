"""The texture map of a face model for the browser page: a table of constants and a file of maps.

The page makes textures in the same way as ``keras_scnn.texturing``. The constants and maps of those
modules are exported, so that they are defined in only one place.
"""

from __future__ import annotations

from dataclasses import fields
from types import ModuleType

import numpy as np

from keras_scnn.geometry import shading
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.texturing import atlas, blending, eyes, light, mouth, painting, skin, views
from keras_scnn.texturing.texture import LEAST_SIZE

MODULES = (atlas, blending, eyes, light, mouth, painting, shading, skin, views)
MM, SHARE = 8, 64  # integers per unit in the maps: lengths in 1/8 mm, shares of 1 in 1/64
SHARES = ("brow_strokes", "mouth_light")
LIPS = {
    "all": atlas.MOUTH_MARKS,
    "inner": atlas.INNER_LIPS,
    "upper": mouth.UPPER_LIP,
    "lower": mouth.LOWER_LIP,
}
MOST_NUMBERS = 64  # in an exported constant; longer ones are tables that the page computes itself


def describe_chart(model: MorphableModel) -> tuple[dict, bytes]:
    """The texture map as ``Chart`` in web/src/atlas.ts, and the contents of its file of maps.

    A model without texture coordinates gets those of the mean face's front view. The file is a
    sequence of (S, S) int16 maps, each number as its difference from the previous one, which
    compresses well.
    """
    if model.uv is None:
        half = np.abs(model.mean[:, :2]).max()
        model = model.replace(uv=0.5 + 0.48 * model.mean[:, :2] / half)
    chart = atlas.Atlas.of(model, LEAST_SIZE)
    _, first, place = np.unique(model.mean, axis=0, return_index=True, return_inverse=True)
    maps = _maps(chart)
    table = {
        "triangles": model.triangles.ravel().tolist(),
        "uv": np.round(np.float64(model.uv), 6).ravel().tolist(),
        "regions": model.vertex_regions.tolist(),
        "place": first[place.reshape(-1)].tolist(),
        "is_symmetric": model.mirror is not None,
        "lips": {name: model.landmark_indices[marks].tolist() for name, marks in LIPS.items()},
        "texture": {
            "size": LEAST_SIZE,
            "maps": list(maps),
            "zones": _zone_names(chart.zones),
            "scales": {name: SHARE if name in SHARES else MM for name in maps},
            "eyes": [_eye(eye) for eye in eyes.eye_charts(chart)],
            "disks": {
                "thin": _half_widths(atlas.disk(LEAST_SIZE / skin.THIN)),
                "edge": _half_widths(atlas.disk(LEAST_SIZE / skin.EDGE)),
            },
            "unknown_skin": skin.UNKNOWN.skin.center.tolist(),
            "constants": {m.__name__.rpartition(".")[2]: constants(m) for m in MODULES},
        },
    }
    return table, b"".join(map(_differences, maps.values()))


def constants(module: ModuleType) -> dict:
    """The numbers, and short arrays of numbers, among a module's upper-case names."""
    found = {}
    for name, value in vars(module).items():
        if not name.isupper() or isinstance(value, str | range):
            continue
        try:
            array = np.asarray(value)
        except ValueError:  # ragged
            continue
        if array.dtype.kind in "iuf" and array.size <= MOST_NUMBERS:
            found[name] = array.tolist()
    return found


def _zone_names(zones: atlas.Zones) -> list[str]:
    return [field.name for field in fields(zones) if getattr(zones, field.name).dtype == bool]


def _maps(chart: atlas.Atlas) -> dict[str, np.ndarray]:
    """(S, S) int16 each: zones as bits, other maps in units of 1 / MM or 1 / SHARE."""
    zones, names = chart.zones, _zone_names(chart.zones)
    bits = sum(getattr(zones, name).astype(np.int32) << i for i, name in enumerate(names))
    measures = {f.name: getattr(zones, f.name) for f in fields(zones) if f.name not in names}
    measures["mouth_light"] = painting.mouth_light(chart)
    return {"zones": np.asarray(bits).astype(np.uint16).view(np.int16)} | {
        name: np.round(measure * (SHARE if name in SHARES else MM)).astype(np.int16)
        for name, measure in measures.items()
    }


def _differences(numbers: np.ndarray) -> bytes:
    flat = numbers.ravel().astype(np.int32)
    return np.diff(flat, prepend=0).astype("<i2").tobytes()  # wraps around, like the page's sums


def _eye(eye: eyes.EyeChart) -> dict:
    rows, columns = eye.window
    x, y = eye.x[0], eye.y[:, 0]
    edges = columns.start, rows.start, columns.stop, rows.stop
    sides = dict(zip(("left", "top", "right", "bottom"), map(int, edges), strict=True))
    middle = [columns.start - x[0] / eye.step, rows.start - y[0] / eye.step]
    return {"window": sides, "middle": [float(v) for v in middle], "step": float(eye.step)}


def _half_widths(shape: np.ndarray) -> list[int]:
    """The half width of each row of a symmetric shape; -1 for an empty row."""
    return [(int(row.sum()) - 1) // 2 if row.any() else -1 for row in shape]
