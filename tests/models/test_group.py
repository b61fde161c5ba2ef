import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_scnn.models import build_branch, build_encoder, build_group
from keras_scnn.models.heads import ShapeCode
from keras_scnn.parameters import FaceParameters, ParameterLayout, ParameterSpace

IMAGES = np.random.default_rng(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)


@pytest.fixture
def branch(tiny_face_model):
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    return build_branch(build_encoder("mobilenet_0.5", 32), layout, feature_size=8)


def test_the_outputs_are_the_branchs_and_those_derived_from_them(
    branch, tiny_face_model, tiny_whitening
):
    group = build_group(branch, ParameterSpace(tiny_face_model, tiny_whitening), embedding_size=4)
    outputs, own = group(IMAGES), branch(IMAGES)
    np.testing.assert_allclose(outputs["parameters"], own["parameters"], atol=1e-6)
    np.testing.assert_allclose(outputs["feature_likeness"], outputs["features"])
    np.testing.assert_allclose(outputs["shape_likeness"], outputs["shape"])
    assert outputs["embedding"].shape == (3, 4)
    assert outputs["landmarks"].shape == (3, 68, 3)
    assert set(build_group(branch, ParameterSpace(tiny_face_model, tiny_whitening)).output) == {
        "parameters",
        "landmarks",
        "shape",
        "features",
    }


def test_the_distance_of_shape_codes_is_that_of_the_vertices(tiny_face_model, tiny_whitening):
    """For faces that differ in all components, which are not orthogonal; mm, root mean square."""
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    vectors = np.random.default_rng(0).normal(size=(5, layout.size)).astype(np.float32)
    code = np.asarray(ShapeCode.of(ParameterSpace(tiny_face_model, tiny_whitening))(vectors))
    faces = FaceParameters.from_vector(tiny_whitening.unwhiten(vectors), layout)
    vertices = tiny_face_model.vertices(faces.identity)
    expected = np.sqrt(np.square(vertices[1:] - vertices[0]).sum(axis=-1).mean(axis=-1))
    np.testing.assert_allclose(np.linalg.norm(code[1:] - code[0], axis=-1), expected, rtol=1e-4)


def test_the_origin_of_shape_codes_is_the_whitenings_mean(tiny_face_model, tiny_whitening):
    layer = ShapeCode.of(ParameterSpace(tiny_face_model, tiny_whitening))
    np.testing.assert_array_equal(layer(np.zeros((1, tiny_whitening.mean.size))), 0)


def test_a_shape_code_survives_saving(tiny_face_model, tiny_whitening):
    layer = ShapeCode.of(ParameterSpace(tiny_face_model, tiny_whitening))
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    vectors = np.random.default_rng(0).normal(size=(2, tiny_whitening.mean.size))
    np.testing.assert_array_equal(np.asarray(again(vectors)), np.asarray(layer(vectors)))


def test_a_shape_code_of_an_older_file_computes_what_it_did():
    """Older files have one weight per component instead of a basis."""
    config = {"name": "shape", "dtype": "float32", "first": 1, "weights_mm": [2.0, 3.0]}
    code = ShapeCode.from_config(config)(np.array([[9.0, 1.0, -1.0, 9.0]]))
    np.testing.assert_array_equal(code, [[2.0, -3.0]])


def test_landmarks_may_leave_identity_alone(tiny_face_model, tiny_whitening):
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    for teach in (True, False):
        branch = build_branch(build_encoder("mobilenet_0.5", 32), space.layout, 4)
        group = build_group(branch, space, landmarks_teach_identity=teach)
        head = branch.get_layer("parameters").kernel
        image = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
        with tf.GradientTape() as tape:
            loss = keras.ops.sum(keras.ops.square(group(image)["landmarks"]))
        gradient = np.abs(tape.gradient(loss, head.value)).max(axis=0)
        assert (gradient[space.layout.identity].max() > 0) == teach
        assert gradient[: space.layout.identity.start].max() > 0


@pytest.mark.parametrize("size", [-1, 1.5, "4"])
def test_a_size_of_embeddings_out_of_range_is_refused(
    branch, tiny_face_model, tiny_whitening, size
):
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    with pytest.raises(ValueError, match="embedding_size is .*; it must be .*0 or more"):
        build_group(branch, space, embedding_size=size)
