"""The parts of face models, and the back that closes a head."""

import numpy as np
import pytest
import trimesh

from keras_scnn.meshes.parts import cap_rim, face_parts, open_rims


def test_the_parts_are_all_triangles_once_and_a_back(open_face):
    parts = face_parts(open_face)
    back = parts.pop("back")
    every = np.concatenate(list(parts.values()))
    assert sorted(map(tuple, every)) == sorted(map(tuple, open_face.triangles))
    assert set(parts) == {"skin", "mouth", "teeth", "tongue", "eye_left", "eye_right"}
    # The card: 72 vertices an eyeball, 226 of the tongue, the last ones.
    assert [len(np.unique(parts[name])) for name in ("eye_left", "eye_right")] == [72, 72]
    np.testing.assert_array_equal(np.unique(parts["tongue"]), range(3716 - 226, 3716))
    assert (open_face.mean[parts["eye_left"], 0] > 0).all()  # the subject's left
    assert len(back) == len(np.unique(back)) - 2  # no vertex but the rim's


def test_a_model_without_regions_is_skin_alone(open_face):
    parts = face_parts(open_face.replace(regions=None))
    assert list(parts) == ["skin"]
    np.testing.assert_array_equal(parts["skin"], open_face.triangles)


def test_a_model_without_the_tongues_unit_has_its_tongue_in_the_mouth(open_face):
    bases = slice(0, 51)
    other = open_face.replace(
        expression_basis=open_face.expression_basis[..., bases],
        expression_names=open_face.expression_names[bases],
        expression_bounds=open_face.expression_bounds[bases],
    )
    whole, parts = face_parts(open_face), face_parts(other)
    assert "tongue" not in parts
    assert len(parts["mouth"]) == len(whole["mouth"]) + len(whole["tongue"])
    with pytest.raises(ValueError, match="unknown part 'tongue'; choose from skin, eyes, mouth"):
        face_parts(other, ("tongue",))


def test_rims_of_a_closed_and_of_a_cut_sphere():
    sphere = trimesh.creation.icosphere(subdivisions=3)
    assert open_rims(sphere.faces) == []
    cut = sphere.faces[(sphere.vertices[sphere.faces, 2] > -0.5).all(axis=1)]
    (rim,) = open_rims(cut)
    back = cap_rim(rim, sphere.vertices[:, 1])
    assert len(rim) == len(set(rim)) and len(back) == len(rim) - 2
    closed = trimesh.Trimesh(sphere.vertices, np.concatenate([cut, back]), process=False)
    assert closed.is_watertight and closed.is_winding_consistent
    assert 2 < closed.volume < sphere.volume  # outward, so positive


@pytest.mark.parametrize("count", [3, 4, 7])
def test_a_level_rim_is_closed_too(count):
    triangles = cap_rim(np.arange(count), np.zeros(count))
    assert len(triangles) == count - 2
    assert open_rims(triangles)[0].tolist() in ([0, *range(count - 1, 0, -1)],)


@pytest.mark.parametrize("start", range(6))
def test_a_rim_is_bridged_from_side_to_side_at_similar_heights(start):
    """By hand: 0 is the top, 1 and 2 one side, 3 the bottom, 4 and 5 the other side."""
    height = np.array([4.0, 3.0, 1.0, 0.0, 1.5, 2.5])
    triangles = cap_rim(np.roll(np.arange(6), start), height)
    expected = {(0, 1, 5), (1, 4, 5), (1, 2, 4), (2, 3, 4)}
    assert {tuple(sorted(t)) for t in triangles.tolist()} == expected


def test_the_back_closes_all_but_the_lids_and_the_teeth(open_face):
    parts = face_parts(open_face)
    every = np.concatenate(list(parts.values()))
    mesh = trimesh.Trimesh(open_face.mean, every, process=False)
    edges, counts = np.unique(mesh.edges_sorted, axis=0, return_counts=True)
    assert mesh.is_winding_consistent and counts.max() == 2
    open_regions = open_face.regions[edges[counts == 1]]
    rims = trimesh.graph.connected_components(edges[counts == 1])
    assert sorted(map(len, rims)) == [28, 28, 38, 38]  # two eyes' lids, two rows of teeth
    assert set(open_regions.ravel()) == {0, 2}


@pytest.mark.parametrize("unit", [None, "jawOpen", "tongueOut", "jawLeft", "cheekPuff"])
def test_the_back_is_behind_all_that_is_inside(open_face, unit):
    expression = np.array([float(name == unit) for name in open_face.expression_names])
    vertices, parts = open_face.vertices(expression=expression), face_parts(open_face)
    # The back goes straight from side to side, so its depth is that of the rim at a height.
    rim = vertices[np.unique(parts["back"])]
    rim = rim[rim[:, 0] >= 0]
    rim = rim[np.argsort(rim[:, 1])]
    inner = [parts[name] for name in ("mouth", "teeth", "tongue", "eye_left", "eye_right")]
    inside = vertices[np.unique(np.concatenate(inner))]
    behind = np.interp(inside[:, 1], rim[:, 1], rim[:, 2])
    assert (inside[:, 2] - behind).min() > 2  # mm
