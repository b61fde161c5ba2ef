from functools import partial

import keras
import numpy as np
import pytest

from keras_scnn.geometry.camera import project
from keras_scnn.losses import (
    WPDC,
    LandmarkDistance,
    ParameterLoss,
    VertexDistance,
    embedding_distance,
    landmark_distance,
    relational_loss,
    vertex_distance,
)
from keras_scnn.losses.regression import opening_distance, wpdc
from keras_scnn.losses.vertex_effect import VertexEffect
from keras_scnn.parameters import FaceParameters, ParameterLayout, ParameterSpace


@pytest.fixture
def vectors(tiny_face_model):
    layout = ParameterLayout(tiny_face_model.n_identity, tiny_face_model.n_expression)
    return np.random.default_rng(0).normal(size=(2, 3, layout.size)).astype(np.float32)


def posed_vertices(model, whitening, whitened):
    """The posed vertices by NumPy, with the library's face model and camera."""
    layout = ParameterLayout(model.n_identity, model.n_expression)
    parameters = FaceParameters.from_vector(whitening.unwhiten(whitened), layout)
    return project(parameters.pose, model.vertices(parameters.identity, parameters.expression))


def test_the_effect_of_each_parameter_is_how_far_the_vertices_move(
    tiny_face_model, tiny_whitening, vectors
):
    target = vectors[0][:1]
    effect = np.asarray(VertexEffect.of(ParameterSpace(tiny_face_model, tiny_whitening))(target))[0]
    before = posed_vertices(tiny_face_model, tiny_whitening, target)[0]
    for i in range(target.shape[1]):
        moved = target.copy()
        moved[0, i] += 1
        after = posed_vertices(tiny_face_model, tiny_whitening, moved)[0]
        assert effect[i] == pytest.approx(np.linalg.norm(after - before), rel=2e-3), i


def test_wpdc_is_the_slow_loop_of_the_paper(tiny_face_model, tiny_whitening, vectors):
    target, predicted = vectors
    total = 0.0
    for p, q in zip(target, predicted, strict=True):
        before = posed_vertices(tiny_face_model, tiny_whitening, p[None])
        weights = []
        for i in range(len(p)):  # only parameter i as predicted, all others true
            mixed = p.copy()
            mixed[i] = q[i]
            after = posed_vertices(tiny_face_model, tiny_whitening, mixed[None])
            weights.append(np.linalg.norm(after - before))
        total += np.sum(np.array(weights) / max(weights) * (p - q) ** 2)
    loss = WPDC(ParameterSpace(tiny_face_model, tiny_whitening))(target, predicted)
    assert float(loss) == pytest.approx(total / len(target), rel=2e-3)


def test_a_perfect_prediction_costs_nothing(tiny_face_model, tiny_whitening, vectors):
    target = vectors[0]
    assert float(WPDC(ParameterSpace(tiny_face_model, tiny_whitening))(target, target)) == 0
    distance = float(
        VertexDistance(ParameterSpace(tiny_face_model, tiny_whitening))(target, target)
    )
    assert distance == pytest.approx(0, abs=2e-6)


def test_vertex_distance_is_the_mean_length_between_the_posed_faces(
    tiny_face_model, tiny_whitening, vectors
):
    faces = [posed_vertices(tiny_face_model, tiny_whitening, side) for side in vectors]
    expected = np.linalg.norm(faces[0] - faces[1], axis=-1).mean()
    loss = VertexDistance(ParameterSpace(tiny_face_model, tiny_whitening))(*vectors)
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_vertex_distance_by_hand():
    # Distances 5 (3-4-5 triangle) and 2: mean 3.5.
    target = np.zeros((1, 2, 3), np.float32)
    predicted = np.float32([[[3, 4, 0], [0, 0, 2]]])
    assert float(vertex_distance(target, predicted)) == pytest.approx(3.5, rel=1e-5)


def test_landmark_distance_weighs_and_ignores_depth():
    # Distances 5 and 1 with weights 1 and 3: (5 + 3) / 4 = 2 px, 0.1 in units of 20 px.
    target = np.float32([[[0, 0, 1], [0, 0, 3], [9, 9, 0]]])
    predicted = np.float32([[[3, 4, 70], [0, 1, -8], [0, 0, 0]]])
    assert float(landmark_distance(target, predicted)) == pytest.approx(2, rel=1e-5)
    assert float(LandmarkDistance(unit=20)(target, predicted)) == pytest.approx(0.1, rel=1e-5)


def test_depth_counts_where_it_is_known_without_its_origin():
    # No distance in the image; depths are off by 1, 1, 4, that is by -1, -1, 2 from their mean.
    target = np.float32([[[5, 5, 0, 1], [6, 6, 0, 1], [7, 7, 0, 1]]])
    predicted = np.float32([[[5, 5, 1], [6, 6, 1], [7, 7, 4]]])
    result = float(landmark_distance(target, predicted, unit=2.0, depth_weight=0.3))
    assert result == pytest.approx(0.3 * (4 / 3) / 2, abs=1e-4)
    for without in (landmark_distance, LandmarkDistance(2.0)):  # a weight of depth
        assert float(without(target, predicted)) == pytest.approx(0, abs=1e-4)


def test_depth_counts_by_its_weight():
    """Weights 1, 3 and 0: depth errors 2 and 6 (mean 5 by weight) are off it by 3 and 1."""
    target = np.float32([[[5, 5, 0, 1], [6, 6, 0, 3], [7, 7, 0, 0]]])
    predicted = np.float32([[[5, 5, 2], [6, 6, 6], [7, 7, 999]]])
    result = float(landmark_distance(target, predicted, depth_weight=0.5))
    assert result == pytest.approx(0.5 * (1 * 3 + 3 * 1) / 4, abs=1e-4)


def test_a_negative_weight_is_no_label():
    target = np.float32([[[0, 0, 1], [0, 0, -5]]])
    predicted = np.float32([[[3, 4], [1e6, 0]]])
    assert float(landmark_distance(target, predicted)) == pytest.approx(5, rel=1e-5)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_labels_of_weight_0_or_less_may_be_nan(weight):
    """As missing points of CFP are: they change neither the loss nor its gradient."""
    rng = np.random.default_rng(0)
    target, points = rng.normal(size=(1, 68, 4)).astype(np.float32), rng.normal(size=(68, 3))
    target[..., 3] = np.where(np.arange(68) < 40, weight, 1)
    unknown = np.where(target[..., 3:] > 0, target, np.float32([np.nan] * 3 + [weight]))
    found = []
    for labels in (target, unknown):
        network = keras.Sequential([keras.Input((68,)), keras.layers.Embedding(68, 3)])
        network.set_weights([points])
        network.compile("sgd", LandmarkDistance(depth_weight=0.5, opening_weight=1.0))
        (loss,) = network.fit(np.arange(68)[None], labels, verbose=0).history["loss"]
        found.append((loss, network.get_weights()[0]))
    assert found[0][0] == found[1][0] > 0
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert not np.allclose(found[1][1], points)


def test_columns_of_labels_are_declared():
    depths = np.float32([[[0, 0, -40], [0, 0, 10]]])
    predicted = np.float32([[[3, 4, -40], [0, 2, 10]]])
    loss = LandmarkDistance(depth_weight=1.0, columns="xyd")
    assert float(loss(depths, predicted)) == pytest.approx(3.5, rel=1e-5)
    assert float(loss(depths, predicted + [0, 0, 9])) == pytest.approx(3.5, rel=1e-5)
    flat = LandmarkDistance(columns="xy")(depths[..., :2], predicted)
    assert float(flat) == pytest.approx(3.5, rel=1e-5)
    with pytest.raises(ValueError, match="have 3 columns"):
        LandmarkDistance(columns="xydw")(depths, predicted)
    with pytest.raises(ValueError, match="columns is 'depth'"):
        LandmarkDistance(columns="depth")
    with pytest.raises(ValueError, match="have 2 columns"):
        landmark_distance(depths[..., :2], predicted)
    again = LandmarkDistance.from_config(loss.get_config())
    assert float(again(depths, predicted)) == pytest.approx(3.5, rel=1e-5)


def test_without_a_labeled_landmark_the_loss_is_exactly_zero():
    target = np.zeros((2, 68, 3), np.float32)
    assert float(landmark_distance(target, np.ones((2, 68, 3), np.float32))) == 0


def test_openings_are_compared_not_positions():
    """One lid pair is 3 px open, not 7; that all points are moved by 5 px does not count."""
    true = np.zeros((1, 68, 3))
    true[..., 2] = 1
    ours = np.full((1, 68, 2), 5.0)
    true[0, 37, 1], ours[0, 37, 1] = -7, 5 - 3
    error = float(opening_distance(true, ours, unit=2.0))
    assert error == pytest.approx(4 / 2 / 7, abs=1e-4)  # of seven pairs
    true[0, 41, 2] = 0  # a pair counts by its less certain point
    assert float(opening_distance(true, ours)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unit": 0.0}, "unit is 0.0; it must be above 0"),
        ({"depth_weight": -1.0}, "depth_weight is -1.0; it must be 0 or more"),
        ({"opening_weight": float("nan")}, "opening_weight is nan; it must be 0 or more"),
    ],
)
def test_numbers_of_the_landmark_distance_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LandmarkDistance(**options)


@pytest.mark.parametrize("name", ["wpdc_weight", "shape_weight"])
def test_weights_of_the_parameter_loss_out_of_range_are_refused(
    tiny_face_model, tiny_whitening, name
):
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    weights = {"wpdc_weight": 1.0, "shape_weight": 1.0, name: -1.0}
    with pytest.raises(ValueError, match=f"{name} is -1.0; it must be 0 or more"):
        ParameterLoss(space, **weights)


def test_the_shape_term_is_the_squared_distance_of_the_vertices(tiny_face_model, tiny_whitening):
    """mm², the mean over the vertices; the components of this model are not orthogonal."""
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    true, ours = np.random.default_rng(0).normal(size=(2, 4, space.layout.size))
    loss = ParameterLoss(space, wpdc_weight=0.0, shape_weight=0.5)
    a, b = (tiny_face_model.vertices(space.parameters(x).identity) for x in (true, ours))
    expected = 0.5 * np.square(a - b).sum(axis=-1).mean()
    assert float(loss(true, ours)) == pytest.approx(expected, rel=1e-4)
    again = ParameterLoss.from_config(loss.get_config())
    assert float(again(true, ours)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "loss", [vertex_distance, landmark_distance, opening_distance, partial(wpdc, effect=1.0)]
)
@pytest.mark.parametrize("kind", ["int32", "float16", "float64"])
def test_labels_of_any_numeric_type_are_compared_in_float32(loss, kind):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 9, (2, 68, 3)).astype(kind)
    predicted = keras.ops.convert_to_tensor(rng.normal(size=(2, 68, 3)), "float32")
    expected = float(loss(keras.ops.convert_to_tensor(labels, "float32"), predicted))
    for given in (labels, keras.ops.convert_to_tensor(labels)):
        value = loss(given, predicted)
        assert keras.backend.standardize_dtype(value.dtype) == "float32"
        assert float(value) == expected


def test_a_function_is_the_mean_over_faces_as_its_class_is(
    tiny_face_model, tiny_whitening, vectors
):
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    target, predicted = vectors
    expected = float(WPDC(space)(target, predicted))
    assert float(wpdc(target, predicted, VertexEffect.of(space)(target))) == pytest.approx(expected)
    rng = np.random.default_rng(3)
    label, points = rng.normal(size=(3, 68, 4)), rng.normal(size=(3, 68, 3))
    label[..., 3] = rng.uniform(0, 1, (3, 68))
    options = {"unit": 2.0, "depth_weight": 0.5}
    expected = float(LandmarkDistance(**options)(label, points))
    assert float(landmark_distance(label, points, **options)) == pytest.approx(expected)
    both = LandmarkDistance(**options, opening_weight=0.25)(label, points)
    opening = 0.25 * float(opening_distance(label, points, unit=2.0))
    assert float(both) == pytest.approx(expected + opening)


@pytest.mark.parametrize("make", [WPDC, VertexDistance, lambda space: ParameterLoss(space, 1, 1)])
def test_losses_of_parameters_need_a_space(make):
    with pytest.raises(ValueError, match="space is 'x' .str.; it must be a ParameterSpace"):
        make("x")


@pytest.mark.parametrize(
    ("options", "columns", "predicted", "given"),
    [
        ({}, 3, 3, "'xyw', predictions 3"),
        ({"columns": "xy"}, 2, 3, "'xy', predictions 3"),
        ({}, 4, 2, "'xydw', predictions 2"),
    ],
)
def test_a_weight_of_depth_needs_depths(options, columns, predicted, given):
    loss = LandmarkDistance(depth_weight=0.5, **options)
    with pytest.raises(ValueError, match=f"depth_weight is 0.5, but labels .* {given}; give"):
        loss(np.zeros((2, 68, columns)), np.zeros((2, 68, predicted)))


POINTS = np.ones((4, 68, 4), np.float32)
VECTORS = np.ones((4, 11), np.float32)


@pytest.mark.parametrize("rows", [1, 3, 0])
@pytest.mark.parametrize(
    ("loss", "labels", "outputs"),
    [
        (landmark_distance, POINTS, POINTS[..., :3]),
        (landmark_distance, POINTS, POINTS[:, :1, :3]),
        (opening_distance, POINTS, POINTS[..., :3]),
        (vertex_distance, POINTS[..., :3], POINTS[..., :3]),
        (vertex_distance, POINTS[..., :1], POINTS[..., :3]),
        (lambda true, ours: wpdc(true, ours, VECTORS), VECTORS, VECTORS),
        (embedding_distance, VECTORS, VECTORS),
        (embedding_distance, VECTORS[:, :1], VECTORS),
        (relational_loss, VECTORS, VECTORS[:, :5]),
    ],
)
def test_labels_that_do_not_match_the_predictions_are_refused(loss, labels, outputs, rows):
    with pytest.raises(ValueError, match=r"labels have the shape .* and predictions .* not match"):
        loss(labels[:rows], outputs)


@pytest.mark.parametrize("rows", [1, 3])
def test_parameters_that_do_not_match_are_refused(tiny_face_model, tiny_whitening, rows):
    space = ParameterSpace(tiny_face_model, tiny_whitening)
    vectors = np.ones((4, tiny_whitening.mean.size), np.float32)
    for loss in (WPDC(space), ParameterLoss(space, 1.0, 1.0), VertexDistance(space)):
        with pytest.raises(ValueError, match="they do not match"):
            loss(vectors[:rows], vectors)


def test_the_losses_of_an_empty_batch_are_0():
    assert float(landmark_distance(POINTS[:0], POINTS[:0, :, :3])) == 0
    assert float(embedding_distance(VECTORS[:0], VECTORS[:0])) == 0
    assert float(wpdc(VECTORS[:0], VECTORS[:0], VECTORS[:0])) == 0
    assert float(vertex_distance(POINTS[:0, :, :3], POINTS[:0, :, :3])) == 0


def test_losses_of_parameters_need_those_of_their_space(tiny_face_model, tiny_whitening):
    space, size = ParameterSpace(tiny_face_model, tiny_whitening), tiny_whitening.mean.size
    vectors = np.ones((4, size + 3), np.float32)
    for loss in (WPDC(space), ParameterLoss(space, 1.0, 1.0)):
        with pytest.raises(ValueError, match=f"have {size + 3} parameters; the space has {size}"):
            loss(vectors, vectors)
