"""The description of the texture map for the browser page."""

import re

import cv2
import numpy as np
import pytest

from keras_scnn.export.chart import MODULES, constants, describe_chart
from keras_scnn.export.website import SOURCES
from keras_scnn.texturing import light, painting, skin
from keras_scnn.texturing.atlas import Atlas


@pytest.fixture(scope="module")
def chart(open_face):
    table, file = describe_chart(open_face)
    size = table["texture"]["size"]
    differences = np.frombuffer(file, "<i2").reshape(-1, size * size)
    # As the page reads it: sums of 16 bits that wrap around.
    maps = np.cumsum(differences, axis=1, dtype=np.int16).reshape(-1, size, size)
    return table, dict(zip(table["texture"]["maps"], maps, strict=True))


def test_zones_come_as_bits(open_face, chart):
    table, maps = chart
    zones, bits = Atlas.of(open_face, 512).zones, maps["zones"].view(np.uint16)
    names = table["texture"]["zones"]
    assert {"cheeks", "lips", "temples"} < set(names) and len(names) <= 16
    for i, name in enumerate(names):
        np.testing.assert_array_equal((bits >> i) & 1, getattr(zones, name))


def test_measures_come_within_a_step(open_face, chart):
    table, maps = chart
    atlas = Atlas.of(open_face, 512)
    names = ("up", "front", "scalp_slant", "brow_strokes")
    expected = {name: getattr(atlas.zones, name) for name in names}
    for name, measure in (expected | {"mouth_light": painting.mouth_light(atlas)}).items():
        scale = table["texture"]["scales"][name]
        np.testing.assert_allclose(maps[name] / scale, measure, atol=0.51 / scale)
        assert np.ptp(maps[name]) > 50


def test_constants_are_those_of_the_modules():
    assert constants(light)["RIDGE"] == light.RIDGE.tolist()
    assert constants(skin)["BINS_MM"] == skin.BINS_MM.tolist()
    assert constants(painting)["LIP_TINT"] == painting.LIP_TINT.tolist()
    assert "UNKNOWN" not in constants(skin)


def test_disks_are_opencvs(chart):
    rows = chart[0]["texture"]["disks"]["edge"]
    radius = (len(rows) - 1) // 2
    disk = np.zeros((len(rows), len(rows)), np.uint8)
    for i, half in enumerate(rows):
        disk[i, radius - half : radius + half + 1] = 1
    np.testing.assert_array_equal(
        disk, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    )
    assert radius == round(512 / skin.EDGE)


def test_vertices_of_a_seam_have_one_place(open_face):
    mean = open_face.mean.copy()
    mean[7] = mean[5]
    place = describe_chart(open_face.replace(mean=mean))[0]["place"]
    assert place[7] == 5 and place[8] == 8 and len(set(place)) == len(place) - 1


def test_a_model_without_a_texture_map_has_its_front_view(open_face):
    table, _ = describe_chart(open_face.replace(uv=None))
    uv = np.reshape(table["uv"], (-1, 2))
    assert uv.min() >= 0 and uv.max() <= 1
    tip, eye = open_face.landmark_indices[[30, 36]]
    assert uv[tip, 0] == pytest.approx(0.5, abs=0.01) and uv[eye, 1] > uv[tip, 1]
    mirrored = uv[open_face.mirror] * [-1, 1] + [1, 0]
    np.testing.assert_allclose(mirrored, uv, atol=1e-3)


def test_the_page_knows_the_constants_by_their_names():
    """TypeScript cannot check this: a name that had changed was undefined in the browser."""
    text = (SOURCES / "src" / "atlas.ts").read_text()
    (body,) = re.findall(
        r"^export interface Constants \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE
    )
    parts = re.split(r"^  (\w+): ", body, flags=re.MULTILINE)[1:]
    wanted = dict(zip(parts[::2], parts[1::2], strict=True))
    modules = {module.__name__.rpartition(".")[2]: module for module in MODULES}
    assert set(wanted) == set(modules) and "IRIS_COLOR" in wanted["eyes"]
    for name, use in wanted.items():
        assert set(re.findall(r"\b[A-Z][A-Z_0-9]+\b", use)) <= set(constants(modules[name])), name
