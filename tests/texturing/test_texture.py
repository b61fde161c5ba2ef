import cv2
import numpy as np
import pytest
from rendered_skin import SIZE, SKIN, even_light, photo_of, side_light, skin_albedo
from skimage import data

from keras_scnn.geometry.colors import lab_from_linear, linear_from_srgb
from keras_scnn.morphable_model import MorphableModel
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.texturing.atlas import EYES, OUTSIDE, Atlas
from keras_scnn.texturing.texture import (
    MOST_SIZE,
    PosedPhoto,
    person_texture,
    photo_texture,
    seen_texture,
    texture_size,
    vertex_colors,
)

HAIR, HAND = (38, 26, 20), (226, 190, 175)


@pytest.fixture(scope="module")
def atlas(open_face) -> Atlas:
    return Atlas.of(open_face, SIZE)


def lab_of(texture: np.ndarray) -> np.ndarray:
    return lab_from_linear(linear_from_srgb(texture / 255))


def distance(texture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(S, S) of L*a*b*, after one gain: brightness of light cannot be separated from albedo."""
    light = linear_from_srgb(texture / 255)
    gain = np.median(truth / np.maximum(light, 1e-3), axis=(0, 1))
    return np.linalg.norm(lab_from_linear(light * gain) - lab_from_linear(truth), axis=-1)


def bare(atlas: Atlas) -> np.ndarray:
    """The face's skin without features."""
    return atlas.zones.face & ~atlas.zones.features


@pytest.mark.parametrize("yaw", [0, 30])
def test_the_light_is_taken_out(open_face, atlas, yaw):
    albedo = skin_albedo()
    image, posed = photo_of(open_face, albedo, yaw, side_light())
    errors = {}
    for baked in (False, True):
        texture = photo_texture(open_face, image, posed, baked)
        errors[baked] = np.median(distance(texture, albedo)[bare(atlas)])
    assert errors[False] < 2.5
    assert errors[False] < 0.4 * errors[True]


def test_a_baked_texture_is_the_photo(open_face, atlas):
    image, posed = photo_of(open_face, skin_albedo(), 0, side_light())
    texture = photo_texture(open_face, image, posed, baked=True)
    column, row = np.moveaxis(atlas.at_texels(posed)[..., :2], -1, 0).round().astype(int)
    cheeks = atlas.zones.cheeks
    shown = image[row[cheeks], column[cheeks]].astype(int)
    assert np.percentile(np.abs(texture[cheeks] - shown), 95) <= 6


@pytest.mark.parametrize("yaw", [0, 35, -60])
def test_the_hidden_side_comes_from_the_other_one(open_face, atlas, yaw):
    albedo = skin_albedo()
    image, posed = photo_of(open_face, albedo, yaw)
    error = distance(photo_texture(open_face, image, posed), albedo)
    assert np.percentile(error[bare(atlas)], 90) < 5


def test_the_side_that_is_seen_is_not_mixed_with_the_hidden_one(open_face, atlas):
    albedo = skin_albedo(stripes=0.2)
    image, posed = photo_of(open_face, albedo)
    error = distance(photo_texture(open_face, image, posed), albedo)[atlas.zones.cheeks]
    mirrored = distance(photo_texture(open_face, image, posed)[:, ::-1], albedo)[atlas.zones.cheeks]
    assert np.median(error) < 2.5 < np.median(mirrored)


@pytest.mark.parametrize("size", [0.9, 1.15])
def test_a_texture_does_not_depend_on_the_size_of_the_model(open_face, atlas, size):
    albedo = skin_albedo()
    albedo[atlas.zones.scalp_slant > 45] = linear_from_srgb(np.array([0.2, 0.15, 0.1]))
    image, posed = photo_of(open_face, albedo, 20)
    scaled = open_face.replace(mean=open_face.mean * np.float32(size))
    texture, expected = (photo_texture(model, image, posed) for model in (scaled, open_face))
    assert np.mean(distance(texture, linear_from_srgb(expected / 255)) > 1) < 1e-3


def texels_under(
    atlas: Atlas, posed: np.ndarray, mask: np.ndarray, texels: np.ndarray | None = None
) -> np.ndarray:
    """(S, S) bool: texels, by default bare skin, whose place in the photo is in a mask of it."""
    column, row = np.moveaxis(atlas.at_texels(posed)[..., :2], -1, 0).round().astype(int)
    height, width = mask.shape
    inside = mask[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return inside & (bare(atlas) if texels is None else texels)


def strip(image: np.ndarray, posed: np.ndarray, landmark: int, model) -> np.ndarray:
    """(H, W) bool: a strand from above the face down over a landmark to the photo's edge."""
    mask = np.zeros(image.shape[:2], bool)
    x = round(float(posed[model.landmark_indices[landmark], 0]))
    mask[:, x - 9 : x + 10] = True
    return mask


def test_hair_over_a_cheek_is_neither_kept_nor_mirrored(open_face, atlas):
    image, posed = photo_of(open_face, skin_albedo())
    covered = strip(image, posed, 48, open_face)  # the image's left corner of the mouth
    image[covered] = HAIR
    texture = photo_texture(open_face, image, posed)
    under = texels_under(atlas, posed, covered) & (atlas.zones.up < -12)
    under &= atlas.zones.front > 40
    lightness, skin = lab_of(texture)[..., 0], lab_of(np.uint8(255 * SKIN)[None])[0, 0]
    for texels in (under, under[:, ::-1]):
        assert texels.sum() > 1000
        assert (lightness[texels] > skin - 12).mean() > 0.98


@pytest.mark.parametrize("baked", [False, True])
def test_a_mirrored_photo_gives_the_mirrored_texture(open_face, atlas, baked):
    """With a strand of hair over one eye, light from one side, and the face turned."""
    image, posed = photo_of(open_face, skin_albedo(stripes=0.05), 20, side_light())
    image[strip(image, posed, 37, open_face)] = HAIR
    texture = photo_texture(open_face, image, posed, baked)
    moved = posed[open_face.mirror] * [-1, 1, 1] + [image.shape[1] - 1, 0, 0]
    mirrored = photo_texture(open_face, image[:, ::-1], moved, baked)
    apart = np.abs(texture.astype(int) - mirrored[:, ::-1]).max(axis=-1)
    sides = atlas.skin | np.isin(atlas.region, EYES)  # the map of the mouth is not symmetric
    assert np.percentile(apart[sides], 99.5) <= 2
    colors = [vertex_colors(open_face, each).astype(int) for each in (texture, mirrored)]
    assert np.abs(colors[0][open_face.mirror] - colors[1]).mean() < 1


def test_what_is_around_a_face_does_not_change_its_texture(open_face):
    image, posed = photo_of(open_face, skin_albedo(), 30, side_light())
    wide = np.random.default_rng(0).integers(30, 256, (400, 450, 3), np.uint8)
    wide[60:360, 70:370] = image
    texture = photo_texture(open_face, image, posed)
    there = photo_texture(open_face, wide, posed + [70, 60, 0])
    np.testing.assert_allclose(there, texture, rtol=0, atol=2)  # but for the vertices' rounding


def test_teeth_do_not_land_on_the_lips(atlas):
    """In an open smile the reconstruction puts the lips over the teeth."""
    photo = data.astronaut()
    (face,) = Reconstructor.from_preset()(photo)
    lab = lab_of(face.texture(photo))
    middle = atlas.zones.lips & (np.abs(np.arange(SIZE) - SIZE // 2) < 20)
    skin = np.median(lab[atlas.zones.cheeks], axis=0)
    assert middle.sum() > 1000
    assert (lab[middle, 1] > skin[1]).mean() > 0.9  # lips are redder than skin, teeth are not


@pytest.mark.parametrize("radius", [24, 19])  # px: on bare skin; and small ones, about the lids
def test_rims_of_glasses_are_not_skin(open_face, atlas, radius):
    image, posed = photo_of(open_face, skin_albedo())
    points = posed[open_face.landmark_indices, :2]
    before, middles = image.copy(), [points[36:42].mean(axis=0), points[42:48].mean(axis=0)]
    for x, y in middles:
        cv2.circle(image, (round(x), round(y) + 4), radius, (15, 15, 18), 4)
    height = round(middles[0][1])
    left, right = (round(x) for x, _ in middles)
    cv2.line(image, (left + radius, height), (right - radius, height), 0, 5)
    drawn, zones = (image != before).any(axis=-1), atlas.zones
    lightness, skin = lab_of(photo_texture(open_face, image, posed))[..., 0], 67.5  # L* of SKIN
    about_lids = zones.eyes & ~zones.lids & ~zones.brows
    rims = texels_under(atlas, posed, drawn, bare(atlas) if radius == 24 else about_lids)
    assert rims.sum() > 1000
    assert (lightness[rims] > skin - 12).mean() > 0.97


def test_make_up_about_the_eyes_stays(open_face, atlas):
    dark = skin_albedo()
    zones = atlas.zones
    shadow = zones.eyes & ~zones.brows & ~zones.lids
    dark[shadow] *= 0.25
    texture = photo_texture(open_face, *photo_of(open_face, dark))
    inside = cv2.erode(np.uint8(shadow), np.ones((3, 3))) > 0
    assert np.median(lab_of(texture)[inside][:, 0]) < 45  # of skin 67


def test_the_seen_texture_keeps_what_the_photo_shows(open_face, atlas):
    image, posed = photo_of(open_face, skin_albedo(), light=side_light())
    covered = strip(image, posed, 48, open_face)
    image[covered] = HAIR
    texture = seen_texture(open_face, image, posed)
    under = cv2.erode(np.uint8(texels_under(atlas, posed, covered)), np.ones((9, 9))) > 0
    assert np.abs(texture[under & atlas.zones.cheeks].astype(int) - HAIR).max() <= 4
    other = cv2.dilate(np.uint8(under), np.ones((25, 25))) == 0
    baked = photo_texture(open_face, image, posed, baked=True).astype(int)
    difference = np.abs(texture - baked)[other & other[:, ::-1] & atlas.zones.cheeks]
    assert np.percentile(difference, 90) <= 4


def test_known_occluders_are_left_out(open_face, atlas):
    """A hand has the skin's color, so that only ``hidden`` can tell it."""
    image, posed = photo_of(open_face, skin_albedo())
    hand = np.zeros(image.shape[:2], bool)
    x, y = posed[open_face.landmark_indices[48], :2].round().astype(int)
    hand[y - 25 : y + 26, x - 25 : x + 26] = True
    image[hand] = HAND
    texels = cv2.erode(np.uint8(texels_under(atlas, posed, hand)), np.ones((9, 9))) > 0
    error = {}
    for known in (False, True):
        hidden = hand if known else None
        texture = photo_texture(open_face, image, posed, hidden=hidden)
        error[known] = np.median(distance(texture, skin_albedo())[texels])
    assert error[True] < 3 < error[False]


def test_no_skin_is_on_the_eyeballs(open_face, atlas):
    """The photo shows nothing but skin, where the model's eyes are too."""
    image, posed = photo_of(open_face, skin_albedo())
    lab = lab_of(photo_texture(open_face, image, posed))
    skin = lab_of(np.uint8(255 * SKIN)[None])[0]
    for eye in EYES:
        ball = atlas.mask & (atlas.region == eye)
        assert (np.linalg.norm(lab[ball] - skin, axis=-1) > 8).all()
        row, column = np.argwhere(ball).mean(axis=0).round().astype(int)
        assert lab[row, column, 0] < 10  # the pupil


def test_texels_outside_of_the_face_have_no_region(open_face):
    """Whatever the last triangle is: here one of an eye."""
    of_eyes = np.isin(open_face.regions[open_face.triangles].min(axis=1), EYES)
    triangles = open_face.triangles[np.argsort(of_eyes, kind="stable")]
    atlas = Atlas.of(open_face.replace(triangles=triangles), SIZE)
    assert atlas.region.dtype == np.uint8
    np.testing.assert_array_equal(atlas.region == OUTSIDE, ~atlas.mask)


def eyes_painted(model, iris) -> np.ndarray:
    """Skin with eyes: a disk of 27 degrees of a chart whose edge is half a turn away."""
    albedo = skin_albedo()
    for eye in EYES:
        ball = (model.uv[model.regions == eye] * [1, -1] + [0, 1]) * (SIZE - 1)
        middle, radius = (ball.max(axis=0) + ball.min(axis=0)) / 2, np.ptp(ball, axis=0).max() / 2
        for share, color in ((1.1, (0.8, 0.78, 0.76)), (27 / 180, iris), (9 / 180, (0.02,) * 3)):
            light = tuple(map(float, linear_from_srgb(np.array(color))))
            center = tuple(int(v) for v in middle.round())
            cv2.circle(albedo, center, round(radius * share), light, -1)
    return albedo


@pytest.mark.parametrize("iris", [(0.30, 0.45, 0.62), (0.32, 0.20, 0.12)])
def test_irises_have_the_persons_color(open_face, atlas, iris):
    image, posed = photo_of(open_face, eyes_painted(open_face, iris), px=520)
    lab = lab_of(photo_texture(open_face, image, posed))
    ball = atlas.mask & (atlas.region == EYES[0])
    row, column = np.argwhere(ball).mean(axis=0).round().astype(int)
    radius = np.ptp(np.argwhere(ball)[:, 0]) / 2
    found = lab[row, column + round(radius * 20 / 180)]
    wanted = lab_of(np.uint8(255 * np.array(iris))[None])[0]
    assert np.linalg.norm(found[1:] - wanted[1:]) < 10  # a* and b*: blue is not brown


def test_a_black_bar_does_not_enter_the_texture(open_face, atlas):
    image, posed = photo_of(open_face, skin_albedo())
    brow = round(float(posed[open_face.landmark_indices[19], 1]))
    image[: brow - 12] = 0
    lightness = lab_of(photo_texture(open_face, image, posed))[..., 0]
    assert lightness[atlas.skin & ~atlas.zones.features].min() > 30


def test_a_filled_side_has_no_seam(open_face, atlas):
    """The albedo is smooth, so neighbors differ little, across the border of what is seen too."""
    image, posed = photo_of(open_face, skin_albedo(), 45, side_light())
    texture = photo_texture(open_face, image, posed).astype(int)
    inside = cv2.erode(np.uint8(bare(atlas)), np.ones((5, 5))) > 0
    for axis in (0, 1):
        step = np.abs(np.diff(texture, axis=axis)).max(axis=-1)
        assert np.percentile(step[inside[1:] if axis == 0 else inside[:, 1:]], 99.9) <= 6


def test_of_several_photos_each_side_comes_from_the_one_that_shows_it(open_face, atlas):
    albedo = skin_albedo(stripes=0.25, width=1 / 30)
    photos = [PosedPhoto(*photo_of(open_face, albedo, yaw)) for yaw in (-50, 50)]
    cheeks = atlas.zones.cheeks & (np.abs(np.arange(SIZE) - SIZE / 2) > 20)
    both = np.median(distance(person_texture(open_face, photos), albedo)[cheeks])
    one = np.median(distance(person_texture(open_face, photos[:1]), albedo)[cheeks])
    assert both < 0.6 * one


@pytest.mark.integration
def test_of_several_photos_the_larger_one_counts_where_both_show_a_texel(open_face, atlas):
    albedo = skin_albedo(stripes=0.25)
    large, small = (PosedPhoto(*photo_of(open_face, albedo, px=px)) for px in (400, 60))
    both, one = (
        np.median(distance(person_texture(open_face, photos), albedo)[atlas.zones.cheeks])
        for photos in ([small, large], [small])
    )
    assert both < 0.6 * one


def test_a_texel_that_differs_in_a_single_photo_is_left_out(open_face, atlas):
    """A scarf of about the skin's color, before the larger of two faces."""
    best, other = photo_of(open_face, skin_albedo()), photo_of(open_face, skin_albedo(), px=400)
    covered = strip(*other, 48, open_face)
    other[0][covered] = (150, 110, 85)
    under = texels_under(atlas, other[1], covered) & atlas.zones.cheeks
    texture = person_texture(open_face, [PosedPhoto(*best), PosedPhoto(*other)])
    assert under.sum() > 300
    assert np.percentile(distance(texture, skin_albedo())[under], 90) < 3


@pytest.mark.parametrize(("px", "size"), [(300, 512), (700, 1024), (4000, 2048)])
def test_the_size_follows_the_photo(open_face, px, size):
    posed = open_face.vertices() * [px / 280, -px / 280, px / 280]
    assert texture_size(open_face, posed) == size


@pytest.mark.integration
def test_a_large_texture_shows_more_of_a_large_photo(open_face):
    albedo = skin_albedo(stripes=0.25, size=1024, width=1 / 220)
    photo = PosedPhoto(*photo_of(open_face, albedo, px=700))
    cheeks, errors = Atlas.of(open_face, 1024).zones.cheeks, []
    for size in (512, 1024):
        texture = person_texture(open_face, [photo], size)
        assert texture.shape == (size, size, 3)
        whole = cv2.resize(texture, (1024, 1024), interpolation=cv2.INTER_CUBIC)
        errors.append(np.median(distance(whole[cheeks][None], albedo[cheeks][None])))
    assert errors[1] < 0.75 * errors[0]


def test_a_vertex_has_the_color_of_its_texel(open_face):
    """u = 0 is the outer edge of the first texel, as in OBJ and glTF."""
    middle = (np.arange(SIZE) + 0.5) / SIZE
    u, v = np.meshgrid(middle, 1 - middle)
    texture = (np.stack([u, v, u], axis=-1) * 255).round().astype(np.uint8)
    colors = vertex_colors(open_face, texture)
    np.testing.assert_allclose(colors[:, :2], np.clip(open_face.uv, 0, 1) * 255, atol=1.5)


def test_a_mesh_of_more_vertices_than_opencv_maps_at_once_has_colors(open_face):
    texture = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
    once, n = vertex_colors(open_face, texture), open_face.n_vertices
    copies = 65_534 // n + 1
    model = MorphableModel(
        name="copies",
        mean=np.tile(open_face.mean, (copies, 1)),
        identity_basis=np.zeros((copies * n, 3, 0)),
        expression_basis=np.zeros((copies * n, 3, 0)),
        triangles=open_face.triangles,
        landmark_indices=open_face.landmark_indices,
        expression_names=(),
        expression_bounds=np.zeros((0, 2)),
        uv=np.tile(open_face.uv, (copies, 1)),
    )
    np.testing.assert_array_equal(vertex_colors(model, texture), np.tile(once, (copies, 1)))


def test_a_gray_photo_makes_a_gray_face(open_face, atlas):
    image, posed = photo_of(open_face, skin_albedo(), 30, side_light())
    gray = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1).astype(np.uint8)
    texture = photo_texture(open_face, gray, posed)
    assert np.ptp(texture[atlas.mask].astype(int), axis=-1).max() <= 6


@pytest.mark.parametrize("shift", [2000, -2000])
def test_a_face_outside_of_the_photo_has_a_plain_skin(open_face, atlas, shift):
    image, posed = photo_of(open_face, skin_albedo())
    texture = photo_texture(open_face, image, posed + [shift, 0, 0])
    assert texture.shape == (SIZE, SIZE, 3)
    assert texture[atlas.zones.cheeks].std(axis=0).max() < 1


@pytest.mark.integration
@pytest.mark.parametrize("axis, shown", [(0, 0), (1, 1)])
def test_a_face_of_which_a_rim_is_in_the_photo_has_a_plain_skin(open_face, atlas, axis, shown):
    """The rim of a large photo, shrunk to the texture's size, is less than a pixel wide."""
    image, posed = photo_of(open_face, skin_albedo())
    place = np.float64(posed) * [20, 20, 20]
    place[:, axis] -= place[:, axis].max() - shown
    photo = np.full((20 * len(image), 40, 3), 90, np.uint8)
    photo = photo if axis == 0 else photo.transpose(1, 0, 2)
    texture = photo_texture(open_face, photo, place)
    assert len(texture) > SIZE
    step = len(texture) // SIZE
    assert texture[::step, ::step][atlas.zones.cheeks].std(axis=0).max() < 1


def test_no_photo_at_all_is_a_plain_skin_too(open_face, atlas):
    texture = person_texture(open_face, [])
    assert texture.shape == (SIZE, SIZE, 3)
    assert texture[atlas.zones.cheeks].std(axis=0).max() < 1


def test_a_black_photo_gives_a_black_face(open_face, atlas):
    """No division by zero, no light where there is none."""
    image, posed = photo_of(open_face, skin_albedo(), light=even_light() * 0)
    assert photo_texture(open_face, image, posed)[atlas.zones.cheeks].max() <= 2


def test_an_invalid_photo_is_refused(open_face):
    image, posed = photo_of(open_face, skin_albedo())
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        photo_texture(open_face, image / 255, posed)
    with pytest.raises(ValueError, match=r"must be \(3716, 3\), and finite"):
        photo_texture(open_face, image, posed[:100])
    with pytest.raises(ValueError, match="finite"):
        photo_texture(open_face, image, posed * np.nan)
    with pytest.raises(ValueError, match=r"hidden is \(5, 5\) bool; it must be \(300, 300\) bool"):
        photo_texture(open_face, image, posed, hidden=np.zeros((5, 5), bool))
    with pytest.raises(ValueError, match=r"hidden is \(2, 2\) list; it must be \(300, 300\) bool"):
        photo_texture(open_face, image, posed, hidden=[[True, False], [False, True]])
    for size in (256, 2 * MOST_SIZE):
        with pytest.raises(ValueError, match=f"size is {size}; a texture has 512 to 2048"):
            person_texture(open_face, [], size)


def test_a_model_without_uv_is_refused(open_face):
    image, posed = photo_of(open_face, skin_albedo())
    with pytest.raises(ValueError, match="has no uv"):
        photo_texture(open_face.replace(uv=None), image, posed)
    with pytest.raises(ValueError, match="has no uv"):
        vertex_colors(open_face.replace(uv=None), np.zeros((SIZE, SIZE, 3), np.uint8))
