import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from keras_scnn import convert_parameters
from keras_scnn.face_models.correspondence import Correspondence, make_correspondence
from keras_scnn.geometry.camera import compose, decompose, project
from keras_scnn.parameters import FaceParameters


def a_face(model, seed=0, lead=()):
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3)).as_matrix()
    pose = compose(rotation, 1.7, np.array([60.0, 50.0, 0.0]))
    weights = rng.uniform(0, 0.8, (*lead, model.n_expression))
    weights *= rng.uniform(size=weights.shape) < 0.3  # most are 0, the bound
    identity = rng.normal(size=(*lead, model.n_identity))
    return FaceParameters(np.broadcast_to(pose, (*lead, 3, 4)), identity, weights)


def mesh_of(model, face):
    return model.vertices(face.identity, face.expression)


def moved(model, seed):
    """The same faces: meters, turned, other vertex numbers, another basis of the same people."""
    rng = np.random.default_rng(seed)
    rotation = Rotation.from_euler("xyz", rng.uniform(-3, 3, 3)).as_matrix()
    order = rng.permutation(model.n_vertices)
    number, turn = np.argsort(order), np.linalg.qr(rng.normal(size=(model.n_identity,) * 2))[0]

    def basis(array):
        return np.einsum("ij,njk->nik", rotation, array[order]) / 1000

    target = model.replace(
        name="moved", mean=model.mean[order] @ rotation.T / 1000 + rng.normal(size=3),
        identity_basis=basis(model.identity_basis) @ turn,
        expression_basis=basis(model.expression_basis), triangles=number[model.triangles],
        landmark_indices=number[model.landmark_indices], regions=model.regions[order],
        landmark_offsets=None, mediapipe_indices=None, uv=None, mirror=None,
    )  # fmt: skip
    return target, order


def subdivided(model):
    """The same surfaces with a vertex in the middle of each edge; the old vertices stay first."""
    t = model.triangles
    edges = np.unique(np.sort(t[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    numbers = {tuple(edge): i + model.n_vertices for i, edge in enumerate(edges.tolist())}
    middles = [[numbers[tuple(sorted((a, b)))] for a, b in ((i, j), (j, k), (k, i))]
               for i, j, k in t.tolist()]  # fmt: skip
    m = np.array(middles)
    parts = [m, np.c_[t[:, 0], m[:, 0], m[:, 2]], np.c_[t[:, 1], m[:, 1], m[:, 0]],
             np.c_[t[:, 2], m[:, 2], m[:, 1]]]  # fmt: skip

    def more(array):
        return np.concatenate([array, array[edges].mean(axis=1)])

    return model.replace(
        mean=more(model.mean), identity_basis=more(model.identity_basis), uv=None, mirror=None,
        expression_basis=more(model.expression_basis), triangles=np.concatenate(parts),
        regions=np.concatenate([model.regions, model.regions[edges[:, 0]]]),
    )  # fmt: skip


def test_a_face_converted_to_its_own_model_comes_back(open_face):
    face = a_face(open_face)
    same, residual = convert_parameters(open_face, open_face, face)
    np.testing.assert_allclose(same.identity, face.identity, atol=1e-3)
    np.testing.assert_allclose(same.expression, face.expression, atol=1e-4)
    np.testing.assert_allclose(same.pose, face.pose, atol=1e-4)
    assert residual < 1e-4


@pytest.mark.integration
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_another_frame_unit_numbering_and_basis_give_the_same_face(open_face, seed):
    source = open_face.truncated(12, 6)
    target, order = moved(source, seed)
    face = a_face(source, seed)
    converted, residual = convert_parameters(source, target, face)
    expected = project(face.pose, mesh_of(source, face))[order]
    shown = project(converted.pose, mesh_of(target, converted))
    # 1.7 px per mm: within 0.01 mm, in depth too.
    np.testing.assert_allclose(shown, expected, atol=0.017)
    assert residual < 0.01


@pytest.mark.parametrize("has_regions, limit_mm, residual_mm", [(0, 0.02, 0.05), (1, 0.2, 0.3)])
def test_another_topology_gives_the_same_face(open_face, has_regions, limit_mm, residual_mm):
    """With regions, a middle where eye and skin meet is looked for in one of them alone."""
    target, face = subdivided(open_face), a_face(open_face)
    target = target if has_regions else target.replace(regions=None)
    converted, residual = convert_parameters(open_face, target, face)
    there = mesh_of(target, converted)[: open_face.n_vertices]
    error = project(converted.pose, there) - project(face.pose, mesh_of(open_face, face))
    assert np.linalg.norm(error, axis=1).max() / 1.7 < limit_mm and residual < residual_mm


@pytest.mark.parametrize("sizes", [(80, 0), (0, 52), (0, 0)])
def test_a_target_may_have_no_identity_or_no_expression(open_face, sizes):
    target, face = open_face.truncated(*sizes), a_face(open_face)
    converted, residual = convert_parameters(open_face, target, face)
    assert (converted.identity.shape, converted.expression.shape) == ((sizes[0],), (sizes[1],))
    assert 0.1 < residual < 10


def test_the_unit_of_a_target_that_cannot_have_the_face_does_not_matter(open_face):
    """The ridge is in the target's unit, so that meters give the coefficients of millimeters."""
    face, few = a_face(open_face), open_face.truncated(8, 4)
    in_meters = few.replace(
        name="meters", mean=few.mean / 1000, landmark_offsets=few.landmark_offsets / 1000,
        identity_basis=few.identity_basis / 1000, expression_basis=few.expression_basis / 1000,
    )  # fmt: skip
    (ours, residual), (same, again) = (
        convert_parameters(open_face, target, face) for target in (few, in_meters)
    )
    assert residual > 0.5  # mm
    assert again == pytest.approx(residual, rel=1e-4)
    np.testing.assert_allclose(same.identity, ours.identity, atol=1e-3)
    np.testing.assert_allclose(same.expression, ours.expression, atol=1e-3)


def test_faces_come_in_any_batch(open_face):
    source = open_face.truncated(8, 4)
    faces = a_face(source, lead=(2, 3))
    own = make_correspondence(source, source)
    converted, residuals = convert_parameters(source, source, faces, own)
    assert residuals.shape == (2, 3) and converted.pose.shape == (2, 3, 3, 4)
    np.testing.assert_allclose(converted.identity, faces.identity, atol=1e-3)
    lists = FaceParameters(faces.pose.tolist(), faces.identity.tolist(), faces.expression.tolist())
    np.testing.assert_array_equal(
        convert_parameters(source, source, lists, own)[0].to_vector(), converted.to_vector()
    )
    none = FaceParameters(*(array[:0] for array in (faces.pose, faces.identity, faces.expression)))
    assert convert_parameters(source, source, none, own)[1].shape == (0, 3)


def test_the_residual_holds_for_points_that_were_not_used(open_face):
    """A target of fewer people: it cannot make the face, and the residual says by how much."""
    target, face = open_face.truncated(20, 52), a_face(open_face)
    every = make_correspondence(open_face, target)
    parts = [every.target_vertices[i::2] for i in (0, 1)]
    half = Correspondence(*(getattr(every, f)[::2] for f in every.__dataclass_fields__))
    converted, residual = convert_parameters(open_face, target, face, half)
    shown = project(converted.pose, mesh_of(target, converted))
    error = np.linalg.norm(shown - project(face.pose, mesh_of(open_face, face)), axis=1) / 1.7
    used, unused = (np.sqrt((error[part] ** 2).mean()) for part in parts)
    assert used == pytest.approx(residual, rel=1e-3) and residual > 0.3
    assert unused == pytest.approx(residual, rel=0.2)


def test_landmarks_alone_bind_a_face_loosely(open_face):
    face, few = a_face(open_face), make_correspondence(open_face, open_face, dense=False)
    converted, residual = convert_parameters(open_face, open_face, face, few)
    # 204 numbers for 132 unknowns and a similarity: no coefficient may explode.
    assert residual < 0.5 and np.abs(converted.identity).max() < 4


def test_expressions_stay_within_bounds_and_the_size_can_be_kept(open_face):
    larger = open_face.replace(mean=open_face.mean * 1.1)
    face = a_face(open_face, 3)
    kept, kept_residual = convert_parameters(open_face, larger, face, with_scale=False)
    free, free_residual = convert_parameters(open_face, larger, face)
    assert decompose(kept.pose)[1] == pytest.approx(1.7, rel=1e-5)
    assert decompose(free.pose)[1] == pytest.approx(1.7 / 1.1, rel=0.02)
    assert free_residual < kept_residual
    for converted in (kept, free):
        np.testing.assert_array_equal(
            open_face.clip_expression(converted.expression), converted.expression
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"identity": np.zeros(79)}, r"identity has the shape \(79,\); .* needs \(80,\)"),
        ({"expression": np.zeros((2, 52))}, r"expression has the shape \(2, 52\)"),
        ({"pose": np.zeros(12)}, r"pose has the shape \(12,\); .* needs \(3, 4\)"),
        ({"identity": np.full(80, np.nan)}, "identity has values that are not finite"),
    ],
)
def test_parameters_that_do_not_fit_the_source_are_refused(open_face, change, message):
    face = a_face(open_face)
    fields = dict(pose=face.pose, identity=face.identity, expression=face.expression) | change
    with pytest.raises(ValueError, match=message):
        convert_parameters(open_face, open_face, FaceParameters(**fields))


@pytest.mark.parametrize("with_scale", ["no", 0, None])
def test_with_scale_is_true_or_false(open_face, with_scale):
    with pytest.raises(ValueError, match="with_scale"):  # 'no' would count as True
        convert_parameters(open_face, open_face, a_face(open_face), with_scale=with_scale)


def test_a_correspondence_of_other_models_is_refused(open_face, tiny_face_model):
    own = make_correspondence(open_face, open_face)
    with pytest.raises(ValueError, match="'tiny' has 70: it was made for other models"):
        convert_parameters(open_face, tiny_face_model, a_face(open_face), own)
    with pytest.raises(ValueError, match="the source's vertex .* 'tiny' has 70"):
        convert_parameters(tiny_face_model, open_face, a_face(tiny_face_model), own)


def test_a_correspondence_can_be_a_file(open_face, tmp_path):
    make_correspondence(open_face, open_face, dense=False).save(tmp_path / "a.npz")
    face = a_face(open_face)
    assert convert_parameters(open_face, open_face, face, tmp_path / "a.npz")[1] < 0.5
    with pytest.raises(FileNotFoundError, match="gone.npz"):
        convert_parameters(open_face, open_face, face, tmp_path / "gone.npz")
