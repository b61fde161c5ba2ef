"""Teeth and lining of a rendered mouth whose colors are known."""

import cv2
import numpy as np
import pytest
from rendered_mouth import LIPS, TEETH, lab_of, lining, mouth_albedo, mouth_photo
from rendered_skin import SIZE, even_light, side_light

from keras_scnn.geometry.colors import PLAIN_MOUTH, PLAIN_TEETH, lab_from_linear, linear_from_srgb
from keras_scnn.texturing.atlas import Atlas
from keras_scnn.texturing.mouth import MouthColors, _teeth_color, edge_width, is_tooth, teeth_share
from keras_scnn.texturing.skin import ColorModel
from keras_scnn.texturing.texture import PosedPhoto, person_texture, photo_texture
from keras_scnn.texturing.views import view_of


@pytest.fixture(scope="module")
def atlas(open_face) -> Atlas:
    return Atlas.of(open_face, SIZE)


@pytest.fixture(scope="module")
def albedo(atlas) -> np.ndarray:
    return mouth_albedo(atlas)


@pytest.fixture(scope="module")
def opened(open_face, albedo):
    return mouth_photo(open_face, albedo)


def lab_of_color(color) -> np.ndarray:
    return lab_from_linear(linear_from_srgb(np.array([color])))[0]


def is_models(atlas: Atlas, texture: np.ndarray) -> bool:
    """Whether teeth and lining are the face model's own."""
    plain = person_texture(atlas.model, [])
    return bool((texture == plain)[atlas.teeth | lining(atlas)].all())


@pytest.mark.parametrize("yaw", [0, 20])
def test_teeth_and_lining_of_an_open_mouth_are_the_photos(atlas, albedo, yaw):
    photo = mouth_photo(atlas.model, albedo, yaw=yaw)
    lab, truth = lab_of(photo_texture(atlas.model, *photo)), lab_from_linear(albedo)
    plain = lab_of(person_texture(atlas.model, []))
    for part in (atlas.teeth, lining(atlas)):
        error, before = (
            np.median(np.linalg.norm(found - truth, axis=-1)[part]) for found in (lab, plain)
        )
        assert error < 4 < 10 < before


def test_teeth_that_are_seen_are_taken_texel_by_texel(atlas, albedo):
    """With a line at each 7 mm, as between teeth."""
    lined = np.where(
        atlas.teeth[..., None] & (np.arange(SIZE) % 7 < 3)[:, None], 0.7 * albedo, albedo
    )
    image, posed = mouth_photo(atlas.model, lined)
    seen = atlas.teeth & (view_of(atlas, image, posed).seen > 0.9)
    assert seen.sum() > 60
    found = lab_of(photo_texture(atlas.model, image, posed))[seen][:, 0]
    wanted = lab_from_linear(lined)[seen][:, 0]
    assert np.corrcoef(found, wanted)[0, 1] > 0.8
    assert np.std(found) > 0.5 * np.std(wanted)


@pytest.mark.integration
def test_no_lip_lands_on_the_teeth_where_the_fit_is_off(atlas, opened):
    image, posed = opened
    for shift in (-6.0, -3.0, 3.0, 6.0):
        texture = photo_texture(atlas.model, image, posed + [0, shift, 0])
        reddest = np.percentile(lab_of(texture)[atlas.teeth][:, 1], 99)
        assert reddest < lab_of_color(LIPS)[1] / 3


def test_teeth_have_no_seam(atlas, opened):
    """They are smooth, so neighbors differ little where the seen part ends too."""
    texture = photo_texture(atlas.model, *opened).astype(int)
    own = person_texture(atlas.model, []).astype(int)
    inside = cv2.erode(np.uint8(atlas.teeth), np.ones((3, 3))) > 0
    steps = [np.abs(np.diff(t, axis=0)).max(axis=-1)[inside[1:]] for t in (texture, own)]
    assert np.percentile(steps[0], 99) <= np.percentile(steps[1], 99) + 6


def test_the_light_is_taken_out_of_teeth_or_baked_in(atlas, albedo):
    image, posed = mouth_photo(atlas.model, albedo, light=side_light())
    lab = lab_of(photo_texture(atlas.model, image, posed))
    error = np.linalg.norm(lab - lab_from_linear(albedo), axis=-1)
    assert np.median(error[atlas.teeth]) < 7
    seen = atlas.teeth & (view_of(atlas, image, posed).seen > 0.9)
    baked = photo_texture(atlas.model, image, posed, baked=True)
    column, row = np.moveaxis(atlas.at_texels(posed)[..., :2], -1, 0).round().astype(int)
    shown = image[row[seen], column[seen]].astype(int)
    assert np.median(np.abs(baked[seen] - shown)) <= 12


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("closed", {"units": {}}),
        ("hardly open", {"units": {"jawOpen": 0.1}}),
        ("turned", {"yaw": 40}),
    ],
)
def test_a_mouth_that_is_not_well_seen_is_the_models(atlas, albedo, name, change):
    assert is_models(atlas, photo_texture(atlas.model, *mouth_photo(atlas.model, albedo, **change)))


@pytest.mark.parametrize(("sigma", "blurred"), [(3, False), (9, True)])
def test_a_blurred_mouth_is_the_models(atlas, albedo, sigma, blurred):
    """The lips are 27 px apart; in the middle of 9 px of blur the lining is dark still."""
    image, posed = mouth_photo(atlas.model, albedo, {"jawOpen": 0.5})
    image = cv2.GaussianBlur(image, (0, 0), sigma)
    assert is_models(atlas, photo_texture(atlas.model, image, posed)) == blurred


@pytest.mark.parametrize(("px", "small"), [(260, False), (210, True)])
def test_a_mouth_of_few_pixels_is_the_models(atlas, albedo, px, small):
    """The lips are 6.7 and 5.4 px apart."""
    photo = mouth_photo(atlas.model, albedo, {"jawOpen": 0.15}, px=px)
    assert is_models(atlas, photo_texture(atlas.model, *photo)) == small


def test_a_hidden_or_cut_off_mouth_is_the_models(atlas, opened):
    image, posed = opened
    x, y = posed[atlas.model.landmark_indices[62], :2].round().astype(int)
    hand = np.zeros(image.shape[:2], bool)
    hand[y : y + 10, x : x + 10] = True
    assert is_models(atlas, photo_texture(atlas.model, image, posed, hidden=hand))
    assert is_models(atlas, photo_texture(atlas.model, image[: y + 8], posed))


@pytest.mark.parametrize(
    ("color", "width", "length"),
    [(None, 0, 0), ((30, 10, 12), 1, 1), ((250, 245, 240), 2, 0.1), ((86, 70, 68), 8, 1)],
)
def test_a_closed_mouth_that_is_fitted_as_open_is_the_models(atlas, albedo, color, width, length):
    """Also with a line between the lips, a wet highlight there, or a pale shadow (L* 31)."""
    closed, _ = mouth_photo(atlas.model, albedo, {})
    _, posed = mouth_photo(atlas.model, albedo, {"jawOpen": 0.25})
    if color:
        lips = posed[atlas.model.landmark_indices[60:68], :2]
        middle = (lips[2] + lips[6]) / 2
        ends = middle + length * (lips[[0, 4]] - middle)
        line = np.array([ends[0], middle, ends[1]]).round().astype(np.int32)
        cv2.polylines(closed, [line], False, color, width)
    assert is_models(atlas, photo_texture(atlas.model, closed, posed))


@pytest.mark.parametrize("color", [(0.75, 0.60, 0.35), (0.55, 0.53, 0.50)])
def test_teeth_that_are_brown_or_gray_are_the_models(atlas, albedo, color):
    """Seen beside skin that is as dark: tinted light, or none."""
    dark = 0.45 * albedo
    dark[atlas.teeth] = linear_from_srgb(np.array(color))
    texture = photo_texture(atlas.model, *mouth_photo(atlas.model, dark))
    plain = person_texture(atlas.model, [])
    assert (texture == plain)[atlas.teeth].all()


def test_teeth_in_a_lips_shade_do_not_darken_the_others():
    """Half of them lie in the shade; the lightest 40 % have the color."""
    lab = np.repeat([[80.0, 2, 6], [64.0, 6, 12]], 50, axis=0)
    found = lab_from_linear(_teeth_color(lab)[None])[0]
    np.testing.assert_allclose(found, [80, 2, 6], atol=0.5)


def test_gums_on_most_of_the_teeth_are_not_taken(atlas, albedo):
    """Teeth have their color, but none is where the model's are."""
    seen = np.float32(atlas.teeth)
    skin = ColorModel(lab_of_color((0.80, 0.60, 0.50)), np.ones(3))
    picture = albedo.copy()
    assert teeth_share(atlas, picture, seen, skin).sum() > 0.9 * seen.sum()
    picture[atlas.teeth & (np.arange(SIZE) % 5 < 3)] = linear_from_srgb(np.array(LIPS))
    assert not teeth_share(atlas, picture, seen, skin).any()


def test_parts_missing_in_a_photo_come_from_another_in_its_light():
    teeth, lining = np.full(3, 0.6), np.full(3, 0.02)
    found = MouthColors(teeth).filled(MouthColors(teeth / 2, lining), np.array([2.0, 1.0, 1.0]))
    np.testing.assert_array_equal(found.teeth, teeth)
    np.testing.assert_allclose(found.lining, [0.04, 0.02, 0.02])
    assert MouthColors().filled(MouthColors(), np.ones(3)).teeth is None


@pytest.mark.integration
def test_of_several_photos_the_one_that_shows_the_mouth_gives_it(atlas, albedo, opened):
    """The open one has less light, which must not make the teeth dark."""
    closed = PosedPhoto(*mouth_photo(atlas.model, albedo, {}))
    dim = PosedPhoto(*mouth_photo(atlas.model, albedo, light=even_light() * 0.7))
    lab = lab_of(person_texture(atlas.model, [closed, dim]))
    error = np.linalg.norm(lab - lab_from_linear(albedo), axis=-1)
    for part in (atlas.teeth, lining(atlas)):
        assert np.median(error[part]) < 8
    assert is_models(atlas, person_texture(atlas.model, [closed, closed]))


@pytest.mark.integration
def test_a_large_texture_has_the_photos_teeth_too(open_face, opened):
    large = Atlas.of(open_face, 1024)
    teeth = np.median(
        lab_of(person_texture(open_face, [PosedPhoto(*opened)], 1024))[large.teeth], axis=0
    )
    small = Atlas.of(open_face, SIZE).teeth
    other = np.median(lab_of(photo_texture(open_face, *opened))[small], axis=0)
    np.testing.assert_allclose(teeth, other, atol=3)


def test_teeth_are_light_and_less_red_than_skin():
    skin = ColorModel(lab_of_color((0.80, 0.60, 0.50)), np.ones(3))
    colors = [PLAIN_TEETH, TEETH, LIPS, PLAIN_MOUTH, (0.80, 0.60, 0.50), (0.3, 0.3, 0.3)]
    found = is_tooth(np.array([lab_of_color(color) for color in colors]), skin)
    assert found.tolist() == [True, True, False, False, False, False]


@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_an_edge_has_the_width_of_its_blur(sigma):
    """A step blurred by a Gaussian is 1 / (sigma sqrt(2 pi)) of its height steep."""
    step = np.zeros((80, 80, 3), np.uint8)
    step[:, 40:] = 200
    box = np.array([[0.0, 0.0], [79.0, 79.0]])
    width = edge_width(cv2.GaussianBlur(step, (0, 0), sigma), box)
    assert width == pytest.approx(sigma * np.sqrt(2 * np.pi), rel=0.1)
