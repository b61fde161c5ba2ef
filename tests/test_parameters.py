import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_scnn.parameters import FaceParameters, ParameterLayout, ParameterSpace, Whitening


def test_the_parts_of_a_vector_follow_one_another_without_a_gap():
    layout = ParameterLayout(n_identity=40, n_expression=10)
    assert layout.size == 62  # 3DDFA's 62 parameters: 12 + 40 + 10
    order = np.arange(62)
    parts = [order[layout.pose], order[layout.identity], order[layout.expression]]
    np.testing.assert_array_equal(np.concatenate(parts), order)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 3))
def test_vectors_and_parts_convert_into_each_other(n_identity, n_expression, batch):
    layout = ParameterLayout(n_identity, n_expression)
    vector = np.random.default_rng(batch).normal(size=(batch, layout.size)).astype(np.float32)
    parameters = FaceParameters.from_vector(vector, layout)
    assert parameters.pose.shape == (batch, 3, 4)
    assert parameters.layout == layout
    np.testing.assert_array_equal(parameters.to_vector(), vector)


def test_the_pose_is_row_major():
    parameters = FaceParameters.from_vector(np.arange(14.0), ParameterLayout(1, 1))
    np.testing.assert_array_equal(parameters.pose[1], [4, 5, 6, 7])


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match="must be 62"):
        FaceParameters.from_vector(np.zeros((2, 61)), ParameterLayout(40, 10))


@pytest.mark.parametrize(
    ("pose", "identity", "expression", "message"),
    [
        ((4, 3), (5,), (2,), r"pose has the shape \(4, 3\); it must be \(..., 3, 4\)"),
        ((7, 12), (7, 5), (7, 2), r"pose has the shape \(7, 12\)"),
        ((7, 3, 4), (5,), (7, 2), r"identity has the shape \(5,\); .* it must be \(7, n\)"),
        ((3, 4), (5,), (7, 2), r"expression has the shape \(7, 2\); .* it must be \(n\)"),
        ((3, 4), (), (2,), r"identity has the shape \(\)"),
    ],
)
def test_parts_that_do_not_fit_make_no_vector(pose, identity, expression, message):
    face = FaceParameters(np.zeros(pose), np.zeros(identity), np.zeros(expression))
    with pytest.raises(ValueError, match=message):
        face.to_vector()


def test_whitened_samples_have_mean_zero_and_deviation_one():
    samples = np.random.default_rng(0).normal(5, 3, size=(500, 4))
    whitening = Whitening.from_samples(samples)
    whitened = whitening.whiten(samples)
    np.testing.assert_allclose(whitened.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(whitened.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(whitening.unwhiten(whitened), samples, atol=1e-4)


@pytest.mark.parametrize("shape", [(), (4, 1), (3,), (2, 5)])
def test_only_vectors_of_all_parameters_are_whitened(shape):
    whitening = Whitening(np.zeros(4), np.ones(4))
    for change in (whitening.whiten, whitening.unwhiten):
        with pytest.raises(ValueError, match="its last axis must be 4"):
            change(np.zeros(shape))


def test_the_callers_arrays_do_not_change_a_whitening():
    mean = np.zeros(2, np.float32)
    whitening = Whitening(mean, np.ones(2))
    mean[:] = 5
    assert (whitening.mean == 0).all()
    for array in (whitening.mean, whitening.scale):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_parameter_that_never_varies_keeps_a_usable_scale():
    whitening = Whitening.from_samples(np.full((10, 2), 7.0))
    np.testing.assert_array_equal(whitening.whiten([7.0, 7.0]), [0, 0])
    assert (whitening.scale > 0).all()


@pytest.mark.parametrize(
    "mean, scale, message",
    [
        ([0.0, 0.0], [1.0], "shapes"),
        ([0.0], [0.0], "above 0"),
        ([0.0], [np.inf], "scale must be finite"),
        ([0.0], [np.nan], "scale must be finite"),
        ([np.nan], [1.0], "mean must be finite"),
    ],
)
def test_a_whitening_that_cannot_work_is_refused(mean, scale, message):
    with pytest.raises(ValueError, match=message):
        Whitening(mean, scale)


@pytest.mark.parametrize("sizes", [(-1, 2), (3, -2), (1.5, 2), ("3", 2), (True, 2)])
def test_a_layout_of_invalid_sizes_is_refused(sizes):
    """A negative size would index from the end of a vector, or of the expression."""
    with pytest.raises(ValueError, match="n_(identity|expression) is .*0 or more"):
        ParameterLayout(*sizes)
    assert ParameterLayout(np.int64(3), 0).size == 15


def test_a_space_of_other_types_is_refused(open_face):
    whitening = Whitening(np.zeros(144), np.ones(144))
    with pytest.raises(
        ValueError, match="face_model is 'open_face' .str.; it must be a MorphableM"
    ):
        ParameterSpace("open_face", whitening)
    with pytest.raises(ValueError, match="whitening is .* .ndarray.; it must be a Whitening"):
        ParameterSpace(open_face, np.zeros(144))
