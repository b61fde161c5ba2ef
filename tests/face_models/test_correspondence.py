import numpy as np
import pytest

from keras_scnn.face_models.correspondence import Correspondence, make_correspondence


def arrays(count=12):
    corners = np.arange(3 * count).reshape(count, 3)
    return dict(
        target_vertices=np.arange(count),
        source_vertices=corners,
        source_weights=np.full((count, 3), 1 / 3),
    )


def test_a_model_corresponds_to_itself_at_its_own_vertices(open_face):
    own = make_correspondence(open_face, open_face)
    assert sorted(own.target_vertices) == list(range(open_face.n_vertices))
    sites = own.source_sites(open_face.mean)
    np.testing.assert_allclose(sites, open_face.mean[own.target_vertices], atol=1e-3)


def test_a_site_lies_within_its_triangle(open_face):
    """By the definition: the weighted mean of the corners."""
    own = Correspondence(
        **arrays() | {"source_weights": np.random.default_rng(0).dirichlet([1] * 3, 12)}
    )
    for i, site in enumerate(own.source_sites(open_face.mean)):
        corners = open_face.mean[own.source_vertices[i]]
        expected = sum(w * c for w, c in zip(own.source_weights[i], corners, strict=True))
        np.testing.assert_allclose(site, expected, atol=1e-5)


def test_eyes_are_matched_to_eyes(open_face):
    wider = open_face.replace(mean=open_face.mean * [1.05, 1, 0.95])
    own = make_correspondence(open_face, wider)
    regions = open_face.regions
    np.testing.assert_array_equal(
        regions[own.source_vertices], np.repeat(regions[own.target_vertices][:, None], 3, axis=1)
    )
    assert len(own) > 0.9 * open_face.n_vertices


def test_eyes_meet_eyes_where_one_model_names_no_regions(open_face):
    """Not the lids: nearest points of the whole mesh."""
    own = make_correspondence(open_face, open_face.replace(regions=None))
    corner = own.source_vertices[np.arange(len(own)), own.source_weights.argmax(axis=1)]
    same = open_face.regions[corner] == open_face.regions[own.target_vertices]
    assert same.mean() > 0.99 and len(own) > 0.99 * open_face.n_vertices


def test_a_file_comes_back(tmp_path, open_face):
    own = make_correspondence(open_face, open_face, dense=False)
    own.save(tmp_path / "a.npz")
    back = Correspondence.load(tmp_path / "a.npz")
    for field, array in vars(own).items():
        np.testing.assert_array_equal(getattr(back, field), array)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"target_vertices": np.arange(11)}, "they must be .M,., .M, 3. and .M, 3."),
        ({"target_vertices": np.arange(12.0)}, "target_vertices must be vertex numbers"),
        ({"source_vertices": np.full((12, 3), -1)}, "source_vertices must be vertex numbers"),
        # As int32 it would be vertex 5.
        ({"target_vertices": np.arange(12) + 5 + (1 << 32)}, "target_vertices must be vertex num"),
        ({"source_weights": np.full((12, 3), 0.5)}, "sum to 1"),
        ({"source_weights": np.full((12, 3), np.nan)}, "finite and sum to 1"),
        ({k: v[:9] for k, v in arrays().items()}, "9 corresponding points; at least 10"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Correspondence(**arrays() | change)


def test_a_file_that_lacks_an_array_or_is_another_is_refused(tmp_path, tiny_face_model):
    from keras_scnn.storage import write_npz

    write_npz(tmp_path / "a.npz", "keras_scnn.correspondence", 1, target_vertices=np.arange(12))
    with pytest.raises(ValueError, match="a.npz: source_vertices, source_weights missing"):
        Correspondence.load(tmp_path / "a.npz")
    tiny_face_model.save(tmp_path / "b.npz")
    with pytest.raises(ValueError, match="b.npz: .*expected 'keras_scnn.correspondence'"):
        Correspondence.load(tmp_path / "b.npz")


def test_a_model_without_landmarks_is_refused(open_face):
    blind = open_face.replace(name="blind", landmark_indices=np.zeros(68, int))
    for pair in ((blind, open_face), (open_face, blind)):
        for dense in (True, False):
            with pytest.raises(ValueError, match="landmark_indices of face model 'blind' lie in"):
                make_correspondence(*pair, dense=dense)


def test_models_that_do_not_meet_are_refused(open_face):
    """All skin of the target turned inside out: no normal agrees."""
    inside_out = open_face.replace(name="glove", triangles=open_face.triangles[:, ::-1])
    with pytest.raises(ValueError, match="0 of 3716 vertices of 'glove' lie on 'open_face'"):
        make_correspondence(open_face, inside_out)
