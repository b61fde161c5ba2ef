import dataclasses

import numpy as np
import pytest

from keras_scnn.face_models import load_face_model
from keras_scnn.morphable_model import MorphableModel, mirror_matrices
from keras_scnn.storage import read_npz, write_npz

FORMAT, VERSION = "keras_scnn.morphable_model", 1
ARRAYS = (
    "mean", "identity_basis", "expression_basis", "triangles", "landmark_indices",
    "expression_bounds", "landmark_offsets",
)  # fmt: skip


def slow_vertices(model, identity, expression):
    """One face (N, 3), one number at a time in float64."""
    vertices = np.zeros((model.n_vertices, 3))
    for n in range(model.n_vertices):
        for axis in range(3):
            value = float(model.mean[n, axis])
            for k, weight in enumerate(identity):
                value += weight * float(model.identity_basis[n, axis, k])
            for k, weight in enumerate(expression):
                value += weight * float(model.expression_basis[n, axis, k])
            vertices[n, axis] = value
    return vertices


@pytest.fixture
def weights(tiny_face_model):
    rng = np.random.default_rng(11)
    k, expressions = tiny_face_model.n_identity, tiny_face_model.n_expression
    return rng.normal(size=(2, 3, k)), rng.uniform(0, 1, (2, 3, expressions))


def test_vertices_of_a_batch_agree_with_a_slow_loop(tiny_face_model, weights):
    identity, expression = weights
    vertices = tiny_face_model.vertices(identity, expression)
    assert vertices.shape == (2, 3, 70, 3) and vertices.dtype == np.float32
    for index in np.ndindex(2, 3):
        expected = slow_vertices(tiny_face_model, identity[index], expression[index])
        np.testing.assert_allclose(vertices[index], expected, atol=1e-4)


def test_without_weights_the_face_is_the_mean(tiny_face_model, weights):
    np.testing.assert_array_equal(tiny_face_model.vertices(), tiny_face_model.mean)
    identity = weights[0][0, 0]
    np.testing.assert_allclose(
        tiny_face_model.vertices(identity),
        tiny_face_model.vertices(identity, np.zeros(5)),
        atol=1e-5,
    )


def test_identity_and_expression_batches_broadcast(tiny_face_model, weights):
    one, many = weights[0][0, 0], weights[1]
    vertices = tiny_face_model.vertices(one, many)
    np.testing.assert_allclose(vertices[1, 2], tiny_face_model.vertices(one, many[1, 2]), atol=1e-4)


def test_the_vertices_of_the_mean_are_a_writable_copy(tiny_face_model):
    tiny_face_model.vertices()[:] = 0
    assert np.abs(tiny_face_model.mean).max() > 1


def test_landmarks_are_vertices_plus_offsets(tiny_face_model, weights):
    vertices = tiny_face_model.vertices(*weights)[..., tiny_face_model.landmark_indices, :]
    np.testing.assert_allclose(
        tiny_face_model.landmarks(*weights), vertices + tiny_face_model.landmark_offsets, atol=1e-4
    )
    np.testing.assert_allclose(
        tiny_face_model.landmarks(*weights, with_offsets=False), vertices, atol=1e-4
    )


def test_the_landmark_basis_makes_the_landmarks(tiny_face_model, weights):
    mean, identity_basis, expression_basis = tiny_face_model.landmark_basis()
    identity, expression = weights[0][0, 1], weights[1][0, 1]
    np.testing.assert_allclose(
        mean + identity_basis @ identity + expression_basis @ expression,
        tiny_face_model.landmarks(identity, expression),
        atol=1e-4,
    )


def test_identity_weights_are_root_mean_square_displacements(tiny_face_model):
    for k, weight in enumerate(tiny_face_model.identity_weights_mm):
        squares = [
            sum(float(c) ** 2 for c in tiny_face_model.identity_basis[n, :, k]) for n in range(70)
        ]
        assert weight == pytest.approx((sum(squares) / 70) ** 0.5, rel=1e-5)


def test_normals_of_a_tetrahedron_point_outward():
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 10.0
    model = MorphableModel(
        name="tetrahedron", mean=corners, identity_basis=np.zeros((4, 3, 1)),
        expression_basis=np.zeros((4, 3, 1)),
        triangles=[[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]],
        landmark_indices=np.zeros(68), expression_names=["none"], expression_bounds=[[0, 1]],
    )  # fmt: skip
    # By symmetry each corner's normal points away from the center.
    np.testing.assert_allclose(model.normals(corners), corners / np.sqrt(300), atol=1e-6)


def test_expressions_are_clipped_to_their_bounds(tiny_face_model):
    model = tiny_face_model.replace(
        expression_bounds=[[0, 1], [-1, 1], [0, 0.5], [-np.inf, np.inf], [0, 1]]
    )
    clipped = model.clip_expression(np.array([[2.0, -3, 1, 9, 0.25]]))
    np.testing.assert_allclose(clipped, [[1, -1, 0.5, 9, 0.25]])


def test_truncation_keeps_the_leading_components(tiny_face_model, weights):
    small = tiny_face_model.truncated(2, 3)
    assert small.expression_names == ("unit0", "unit1", "unit2")
    identity, expression = weights[0][0, 0], weights[1][0, 0]
    padded = np.r_[identity[:2], np.zeros(4)], np.r_[expression[:3], np.zeros(2)]
    np.testing.assert_allclose(
        small.vertices(identity[:2], expression[:3]), tiny_face_model.vertices(*padded), atol=1e-4
    )


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((7, 2), "n_identity is 7; face model 'tiny' has"),
        ((2, 6), "n_expression is 6; face model 'tiny' has"),
        ((-1, 2), "n_identity is -1; it must be 0 or more"),
        ((1.5, 2), "n_identity is 1.5; it must be a whole number"),
        ((2, True), "n_expression is True; it must be a whole number"),
    ],
)
def test_components_out_of_range_are_refused(tiny_face_model, counts, message):
    with pytest.raises(ValueError, match=message):
        tiny_face_model.truncated(*counts)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_cannot_be_changed(tiny_face_model, name):
    with pytest.raises(ValueError, match="read-only"):
        getattr(tiny_face_model, name)[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(tiny_face_model, name, None)


def test_the_callers_arrays_stay_writable_and_apart(tiny_face_model):
    mean = np.zeros((70, 3), np.float32)
    model = tiny_face_model.replace(mean=mean)
    mean[0] = 5
    assert (model.mean == 0).all()


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(mean=np.zeros((70, 2))), r"mean has the shape \(70, 2\)"),
        (dict(mean=np.zeros(210)), "mean has the shape"),
        (dict(mean=np.full((70, 3), np.nan)), "mean has values that are not finite"),
        (dict(identity_basis=np.zeros((69, 3, 4))), "identity_basis has the shape"),
        (dict(expression_basis=np.zeros((70, 3))), "expression_basis has the shape"),
        (dict(expression_bounds=np.zeros((4, 2))), r"expression_bounds .* must be \(5, 2\)"),
        (dict(expression_names=["a", "b"]), "2 names for 5"),
        (dict(triangles=[[0, 1, 70]]), "triangles .* out of range.* 0 to 69"),
        (dict(triangles=[[0, 1, -1]]), "triangles .* out of range"),
        (dict(landmark_indices=np.arange(67)), r"landmark_indices .* must be \(68,\)"),
        (dict(landmark_indices=np.arange(68) + 3), "landmark_indices .* out of range"),
        (dict(landmark_offsets=np.zeros((67, 3))), r"landmark_offsets .* must be \(68, 3\)"),
        (dict(uv=np.zeros((71, 2))), "uv has the shape"),
        (dict(uv=np.full((70, 2), 511.0)), "uv .* out of range: 511 to 511; it must lie in 0 to 1"),
        (dict(uv=np.full((70, 2), -0.5)), "uv .* out of range: -0.5 to -0.5"),
        (dict(mediapipe_indices=np.zeros(467)), "mediapipe_indices has the shape"),
        (dict(regions=np.zeros(3)), "regions has the shape"),
        (dict(mirror=np.full(70, 70)), "mirror .* out of range"),
        (dict(landmark_indices=np.arange(68) + 0.7), "landmark_indices .* must be whole numbers"),
        (dict(triangles=[[0, 1, 2.9]]), "triangles .* must be whole numbers"),
        (dict(triangles=[[0, 1, np.nan]]), "triangles .* must be whole numbers"),
        (dict(triangles=[[0, 1, 2**32 + 2]]), "triangles .* out of range.* 0 to 69"),
        (dict(triangles=[["a", "b", "c"]]), "triangles has the dtype <U1; it must be numeric"),
        (dict(triangles=[[0, 1, 2], [0, 1]]), "triangles is not an array"),
        (dict(mean=None), "mean has the dtype object; it must be numeric"),
        (dict(mediapipe_indices=np.full(468, -0.5)), "mediapipe_indices .* must be whole numbers"),
        (dict(regions=np.full(70, 300)), "regions .* out of range.* 0 to 4"),
        (dict(regions=np.full(70, 5)), "regions .* out of range.* 0 to 4"),
        (dict(regions=np.full(70, 0.5)), "regions .* must be whole numbers"),
        (dict(mirror=np.zeros(70, int)), "mirror .* is not its own inverse"),
        (dict(mirror=np.roll(np.arange(70), 1)), "mirror .* is not its own inverse"),
        (
            dict(expression_bounds=[[0, 1]] * 4 + [[1, 0]]),
            "no weight for 'unit4': 1 to 0",
        ),
        (dict(expression_bounds=[[0, np.nan]] * 5), "bounds .* no weight for 'unit0': 0 to nan"),
        (dict(expression_bounds=[[np.inf, np.inf]] * 5), "bounds .* no weight for 'unit0'"),
        (dict(expression_names=["a", "b", "c", "b", "d"]), "expression_names .* has 'b' more than"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tiny_face_model, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_face_model.replace(**changes)


@pytest.mark.parametrize(
    "identity, expression, message",
    [
        (np.zeros(5), None, r"identity has the shape \(5,\); its last axis must be 6"),
        (None, np.zeros((2, 6)), r"expression has the shape \(2, 6\); its last axis must be 5"),
        (np.float32(1), None, "identity has the shape"),
    ],
)
def test_weights_of_another_length_are_refused(tiny_face_model, identity, expression, message):
    with pytest.raises(ValueError, match=message):
        tiny_face_model.vertices(identity, expression)


@pytest.fixture
def full_model(tiny_face_model):
    """A model with every optional part."""
    rng = np.random.default_rng(2)
    return tiny_face_model.replace(
        uv=rng.uniform(size=(70, 2)), mediapipe_indices=rng.integers(0, 70, 468),
        regions=rng.integers(0, 5, 70), mirror=np.arange(70)[::-1], license="CC0",
        expression_bounds=[[-np.inf, np.inf]] * 5,
    )  # fmt: skip


@pytest.mark.parametrize("which", ["tiny_face_model", "full_model"])
def test_a_saved_model_is_restored_completely(tmp_path, request, which):
    model = request.getfixturevalue(which)
    model.save(tmp_path / "face.npz")
    back = MorphableModel.load(tmp_path / "face.npz")
    for field in dataclasses.fields(MorphableModel):
        saved, loaded = getattr(model, field.name), getattr(back, field.name)
        if isinstance(saved, np.ndarray):
            np.testing.assert_array_equal(loaded, saved)
            assert loaded.dtype == saved.dtype and not loaded.flags.writeable
        else:
            assert loaded == saved


def test_quantized_bases_are_scaled_on_loading(tmp_path, tiny_face_model):
    path = tmp_path / "face.npz"
    tiny_face_model.save(path)
    arrays = read_npz(path, FORMAT, VERSION)
    basis = arrays["identity_basis"]
    scale = np.abs(basis).max(axis=(0, 1)) / 32767
    arrays["identity_basis"] = np.round(basis / scale).astype(np.int16)
    write_npz(path, FORMAT, VERSION, identity_basis_scale=scale, **arrays)
    loaded = MorphableModel.load(path).identity_basis
    assert loaded.dtype == np.float32
    # Rounding to the nearest step errs by half a step.
    assert (np.abs(loaded - basis) <= 0.51 * scale).all()


def test_a_file_without_an_array_is_refused(tmp_path, tiny_face_model):
    path = tmp_path / "face.npz"
    tiny_face_model.save(path)
    arrays = read_npz(path, FORMAT, VERSION)
    del arrays["triangles"]
    write_npz(path, FORMAT, VERSION, **arrays)
    with pytest.raises(ValueError, match="face.npz: a face model needs the arrays triangles"):
        MorphableModel.load(path)


def test_a_file_whose_arrays_do_not_fit_is_refused_by_name(tmp_path, tiny_face_model):
    path = tmp_path / "face.npz"
    tiny_face_model.save(path)
    arrays = read_npz(path, FORMAT, VERSION) | {"mean": np.zeros((3, 3))}
    write_npz(path, FORMAT, VERSION, **arrays)
    with pytest.raises(ValueError, match="face.npz: "):
        MorphableModel.load(path)


def test_a_missing_and_a_truncated_file_are_refused(tmp_path, tiny_face_model):
    path = tmp_path / "face.npz"
    with pytest.raises(FileNotFoundError, match="face.npz"):
        MorphableModel.load(path)
    tiny_face_model.save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="not a readable .npz"):
        MorphableModel.load(path)


def test_the_digest_is_of_the_geometry_and_survives_saving(tiny_face_model, tmp_path):
    model = tiny_face_model
    assert len(model.digest) == 64 and int(model.digest, 16)
    model.save(tmp_path / "model.npz")
    assert MorphableModel.load(tmp_path / "model.npz").digest == model.digest
    free = {"name": "other", "license": "none", "landmark_offsets": np.ones((68, 3))}
    assert model.replace(**free).digest == model.digest


@pytest.mark.parametrize(
    "field", ["mean", "identity_basis", "expression_basis", "expression_bounds"]
)
def test_other_geometry_has_another_digest(tiny_face_model, field):
    changed = getattr(tiny_face_model, field) * np.float32(1.0001)
    changed[..., 0] += 1e-3
    assert tiny_face_model.replace(**{field: changed}).digest != tiny_face_model.digest


def test_fewer_components_and_renamed_expressions_have_another_digest(tiny_face_model):
    model = tiny_face_model
    renamed = model.replace(expression_names=[f"other{i}" for i in range(model.n_expression)])
    digests = {m.digest for m in (model, model.truncated(3, 5), model.truncated(6, 3), renamed)}
    assert len(digests) == 4


@pytest.mark.parametrize("name", ["flame", "flame.v2", "flame.npy"])
def test_a_model_is_saved_only_with_the_suffix_npz(tmp_path, tiny_face_model, name):
    with pytest.raises(ValueError, match=f"{name}: .* name must end in .npz; use '{name}.npz'"):
        tiny_face_model.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
    tiny_face_model.save(tmp_path / f"{name}.NPZ")
    assert load_face_model(tmp_path / f"{name}.NPZ").digest == tiny_face_model.digest


@pytest.mark.parametrize("counts", [(80, 0), (0, 52)])
def test_a_model_without_a_kind_of_components_has_an_empty_matrix_for_it(open_face, counts):
    matrices = mirror_matrices(open_face.truncated(*counts))
    for matrix, whole, count in zip(matrices, mirror_matrices(open_face), counts, strict=True):
        np.testing.assert_allclose(matrix, whole[:count, :count], atol=1e-5)
        assert matrix.shape == (count, count)


def test_a_model_and_what_contains_it_are_shown_in_few_characters(tiny_face_model):
    sizes = (tiny_face_model.n_vertices, tiny_face_model.n_identity, tiny_face_model.n_expression)
    text = repr(tiny_face_model)
    assert len(text) < 100 and tiny_face_model.name in text
    assert all(str(size) in text for size in sizes)
