"""The atlas, and which of its texels a photo shows, and as skin."""

import dataclasses

import numpy as np
import pytest
from rendered_skin import SIZE, SKIN, photo_of, skin_albedo

from keras_scnn.geometry.colors import (
    lab_from_linear,
    light_from_lab,
    linear_from_srgb,
    srgb_from_linear,
)
from keras_scnn.texturing.atlas import Atlas
from keras_scnn.texturing.painting import mouth_light
from keras_scnn.texturing.skin import find_colors
from keras_scnn.texturing.views import black_bars, view_of


@pytest.fixture(scope="module")
def atlas(open_face) -> Atlas:
    return Atlas.of(open_face, SIZE)


def test_colors_are_those_of_the_standard():
    """sRGB 188 is half of the light (IEC 61966-2-1); L*a*b* of sRGB red is 53.24, 80.09, 67.20."""
    assert linear_from_srgb(np.array([188 / 255]))[0] == pytest.approx(0.5029, abs=1e-3)
    values = np.linspace(0, 1, 50)
    np.testing.assert_allclose(srgb_from_linear(linear_from_srgb(values)), values, atol=1e-5)
    np.testing.assert_allclose(
        lab_from_linear(np.array([[1.0, 0, 0]]))[0], (53.24, 80.09, 67.20), atol=0.1
    )
    np.testing.assert_allclose(light_from_lab((53.24, 80.09, 67.20)), (1, 0, 0), atol=0.01)
    assert lab_from_linear(np.zeros((0, 3))).shape == (0, 3)


def test_zones_are_alike_on_both_sides(atlas):
    for name in ("cheeks", "chin", "features", "beard", "temples", "eyes", "brows"):
        zone = getattr(atlas.zones, name)
        assert 0 < zone.sum() < atlas.skin.sum()
        assert (zone != zone[:, ::-1]).sum() < 0.05 * zone.sum() + 20, name


@pytest.mark.parametrize("size", [0.9, 1.15, 1000.0])
def test_zones_do_not_depend_on_the_size_of_the_model(open_face, atlas, size):
    scaled = Atlas.of(open_face.replace(mean=open_face.mean * np.float32(size)), SIZE)
    for field in dataclasses.fields(atlas.zones):
        zone, expected = (getattr(one.zones, field.name) for one in (scaled, atlas))
        np.testing.assert_allclose(zone, expected, atol=1e-3, err_msg=field.name)
    np.testing.assert_allclose(mouth_light(scaled), mouth_light(atlas), atol=1e-5)


def test_the_gutter_has_the_color_of_the_nearest_texel(atlas):
    y, x = np.mgrid[:SIZE, :SIZE]
    filled = atlas.gutter_filled(np.stack([x, y], axis=-1))
    np.testing.assert_array_equal(filled[atlas.mask], np.stack([x, y], axis=-1)[atlas.mask])
    rng = np.random.default_rng(0)
    inside = np.argwhere(atlas.mask)[:, ::-1]
    outside = np.argwhere(~atlas.mask)[:, ::-1]
    for column, row in rng.permutation(outside)[:30]:
        least = np.linalg.norm(inside - (column, row), axis=1).min()
        distance = np.linalg.norm(filled[row, column] - (column, row))
        assert distance <= 1.05 * least + 1  # OpenCV's distance is nearly exact


def test_only_what_faces_the_viewer_and_is_in_front_is_seen(open_face, atlas):
    image, posed = photo_of(open_face, skin_albedo(), 50)
    seen = view_of(atlas, image, posed).seen
    cheeks = atlas.zones.cheeks
    far, near = sorted(
        (seen[:, :256][cheeks[:, :256]].mean(), seen[:, 256:][cheeks[:, 256:]].mean())
    )
    assert far < 0.25 and near > 0.8
    assert not seen[~atlas.mask].any()


def test_black_bars_are_black_areas_at_an_edge():
    image = np.full((60, 80, 3), 120, np.uint8)
    image[:20] = 3
    image[40:50, 30:40] = 0  # a pupil, or dark hair: not at the edge
    bars = black_bars(image)
    assert bars[:20].all() and not bars[24:].any()


@pytest.fixture(scope="module")
def bearded(open_face):
    """Skin with a beard and scalp hair."""
    atlas, albedo = Atlas.of(open_face, SIZE), skin_albedo()
    dark = np.float32(linear_from_srgb(np.array([0.16, 0.11, 0.08])))
    beard = atlas.zones.beard & (atlas.zones.up < -75)
    albedo[beard | (atlas.zones.scalp_slant > 40)] = dark
    return albedo, beard


def test_beard_and_scalp_hair_are_the_persons(open_face, atlas, bearded):
    albedo, beard = bearded
    view = view_of(atlas, *photo_of(open_face, albedo))
    person = find_colors(atlas, lab_from_linear(view.color), view.seen)
    skin = lab_from_linear(linear_from_srgb(SKIN)[None])[0]
    assert np.linalg.norm(person.skin.center - skin) < 4
    assert person.beard.center[0] < 20 and person.hair.center[0] < 20
    assert person.hairline == pytest.approx(40, abs=8)
    inside = beard & atlas.zones.chin & (view.seen > 0.9)
    assert person.keep[inside].mean() > 0.6


def test_a_bald_and_bare_face_has_neither(open_face, atlas):
    view = view_of(atlas, *photo_of(open_face, skin_albedo()))
    person = find_colors(atlas, lab_from_linear(view.color), view.seen)
    assert person.beard is None and person.hair is None


def test_without_visible_skin_there_are_no_colors(open_face, atlas):
    image, posed = photo_of(open_face, skin_albedo())
    view = view_of(atlas, image, posed + [5000, 0, 0])
    assert not view.seen.any()
    assert find_colors(atlas, lab_from_linear(view.color), view.seen) is None
