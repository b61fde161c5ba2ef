"""Faces as files that animate."""

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from glb_reader import read_glb
from made_faces import face_of
from scipy.spatial.transform import Rotation
from skimage import data

from keras_scnn import write_mesh
from keras_scnn.io import read_image
from keras_scnn.meshes.face import LEAST_TURN
from keras_scnn.meshes.files import PLY_FROM_MODEL
from keras_scnn.meshes.options import PARTS, MeshOptions
from keras_scnn.meshes.parts import face_parts
from keras_scnn.reconstruction.faces import Reconstruction
from keras_scnn.reconstruction.reconstructor import Reconstructor

PHOTO = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
EYE_UNITS = ("eyeBlink", "eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint")


@pytest.fixture(scope="module")
def face(open_face) -> Reconstruction:
    return face_of(open_face)


@pytest.fixture(scope="module")
def path(face, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("face") / "anna.glb"
    face.write_mesh(path, PHOTO)
    return path


@pytest.fixture(scope="module")
def glb(path):
    return read_glb(path)


def test_only_parts_that_show_the_texture_have_its_coordinates(glb):
    """The validator, which reports unused ones, needs npm."""
    parts = [part for mesh in glb.json["meshes"] for part in mesh["primitives"]]
    materials = [glb.json["materials"][part["material"]] for part in parts]
    shown = ["baseColorTexture" in one["pbrMetallicRoughness"] for one in materials]
    assert ["TEXCOORD_0" in part["attributes"] for part in parts] == shown
    assert {True, False} == set(shown)


def test_nodes_meshes_and_materials_have_names(glb):
    assert {node["name"] for node in glb.json["nodes"]} == {
        "face", "head", "eye_left", "eye_right", "photo_camera",
    }  # fmt: skip
    assert [mesh["name"] for mesh in glb.json["meshes"]] == ["head", "eye_left", "eye_right"]
    names = [material["name"] for material in glb.json["materials"]]
    assert sorted(names) == sorted(PARTS)
    used = [names[primitive["material"]] for primitive in glb.mesh("head")["primitives"]]
    assert sorted(used) == sorted(set(PARTS) - {"eyes"})
    extras = glb.json["asset"]["extras"]
    assert extras["unit"] == "m" and "face looks to +z" in extras["axes"]
    assert extras["face_model"] == "open_face"


def test_the_head_has_all_52_morph_targets_by_arkits_names(glb, open_face):
    head = glb.mesh("head")
    names = head["extras"]["targetNames"]
    assert names == list(open_face.expression_names) and len(set(names)) == 52
    assert {"jawOpen", "tongueOut", "eyeBlinkLeft", "mouthSmileRight"} <= set(names)
    for primitive in head["primitives"]:
        assert len(primitive["targets"]) == len(head["weights"]) == 52
        targets = [t[kind] for t in primitive["targets"] for kind in ("POSITION", "NORMAL")]
        whole = ["bufferView" in glb.json["accessors"][i] for i in targets]
        # Sparse or zeros, but for small parts, which move as one.
        assert not (primitive is head["primitives"][0] and any(whole))


def places(open_face) -> dict[tuple[str, str], np.ndarray]:
    """The model's vertices of each primitive, by its node and material."""
    parts = face_parts(open_face)
    eyes = {(name, "eyes"): np.unique(parts.pop(name)) for name in ("eye_left", "eye_right")}
    return {("head", name): np.unique(part) for name, part in parts.items()} | eyes


def test_the_photos_weights_give_the_photos_face(glb, face, open_face):
    for (node, part), vertices in places(open_face).items():
        apart = glb.posed(node, part) * 1000 - face.vertices[vertices]
        assert np.abs(apart).max() < 0.01  # mm
        neutral = glb.posed(node, part, weights=[0] * len(glb.mesh(node)["weights"]))
        assert np.abs(neutral * 1000 - face.neutral_vertices[vertices]).max() < 0.01


def test_normals_have_unit_length_and_follow_the_morph_targets(glb, face, open_face):
    for node, part in places(open_face):
        normals = glb.array(glb.primitives(node)[part]["attributes"]["NORMAL"])
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    is_jaw = np.float64([n == "jawOpen" for n in glb.mesh("head")["extras"]["targetNames"]])
    moved = open_face.normals(open_face.vertices(face.parameters.identity, is_jaw))

    def degrees(weights):
        """Angles between the file's normals of the skin and those of the moved face."""
        found = glb.posed("head", "skin", "NORMAL", weights)
        cosines = (found * moved[np.unique(face_parts(open_face)["skin"])]).sum(axis=1)
        cosines /= np.linalg.norm(found, axis=1)
        return np.degrees(np.arccos(np.clip(cosines, -1, 1)))

    # Smaller turns are left out (``LEAST_TURN``); without any, shading would not follow the jaw.
    assert degrees(is_jaw).max() < 6.1 and degrees(0 * is_jaw).max() > 30


def test_turns_of_normals_too_small_to_see_take_no_space(glb):
    targets = glb.primitives("head")["skin"]["targets"]
    turns = np.stack([glb.array(target["NORMAL"]) for target in targets])
    lengths = np.linalg.norm(turns, axis=-1)
    assert lengths[lengths > 0].min() >= LEAST_TURN - 1e-6
    assert 0.01 < (lengths > 0).mean() < 0.3


def test_normals_are_one_where_skin_and_mouth_meet(glb, open_face):
    at = places(open_face)
    shared = np.intersect1d(at["head", "skin"], at["head", "mouth"])
    assert len(shared) > 30  # the lips' inner line
    both = [
        glb.array(glb.primitives("head")[part]["attributes"]["NORMAL"])[
            np.searchsorted(at["head", part], shared)
        ]
        for part in ("skin", "mouth")
    ]
    np.testing.assert_array_equal(*both)


def test_eyes_turn_about_their_centers(glb):
    for name in ("eye_left", "eye_right"):
        side = name.removeprefix("eye_").capitalize()
        assert set(glb.mesh(name)["extras"]["targetNames"]) == {f"{n}{side}" for n in EYE_UNITS}
        radii = np.linalg.norm(
            glb.array(glb.mesh(name)["primitives"][0]["attributes"]["POSITION"]), axis=1
        )
        # The model's card: eyeballs of 24 mm in the mean face; this person has other ones.
        assert 0.011 < radii.mean() < 0.0135 and np.ptp(radii) < 0.001
    assert glb.node("eye_left")["translation"][0] > 0.02  # the subject's left is at x > 0


def pixels(glb, points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Points in meters through the file's camera: glTF 2.0, 3.10.3 and its projection matrix."""
    node = glb.node("photo_camera")
    lens = glb.json["cameras"][node["camera"]]["orthographic"]
    seen = Rotation.from_quat(node["rotation"]).inv().apply(points - node["translation"])
    assert (-lens["zfar"] < seen[:, 2]).all() and (seen[:, 2] < -lens["znear"]).all()
    device = seen[:, :2] / [lens["xmag"], lens["ymag"]]  # -1 to 1 over the picture's edges
    # The left edge of the first pixel is at -0.5: centers are at integers.
    return (device * [1, -1] + 1) / 2 * size - 0.5


def test_the_camera_shows_the_face_where_the_photo_does(glb, face):
    seen = pixels(glb, face.vertices / 1000, (400, 300))
    np.testing.assert_allclose(seen, face.posed_vertices[:, :2], atol=1e-3)
    camera = glb.json["cameras"][0]
    assert camera["extras"]["photo_size"] == [400, 300]
    lens = camera["orthographic"]
    assert lens["xmag"] / lens["ymag"] == pytest.approx(400 / 300)  # square pixels here


def test_a_regressed_camera_without_right_angles_is_met_within_half_a_pixel(tmp_path):
    photo = data.astronaut()
    face = Reconstructor.from_preset("mobile").largest(photo)
    face.write_mesh(tmp_path / "a.glb", photo)
    points = face.model.landmarks(face.parameters.identity, face.parameters.expression)
    seen = pixels(read_glb(tmp_path / "a.glb"), points / 1000, (512, 512))
    assert np.abs(seen - face.landmarks[:, :2]).max() < 0.5


@pytest.mark.integration
def test_neutral_has_zero_weights_in_glb_and_the_neutral_shape_elsewhere(face, glb, tmp_path):
    neutral = MeshOptions(neutral=True)
    face.write_mesh(tmp_path / "a.glb", PHOTO, neutral)
    other = read_glb(tmp_path / "a.glb")
    for name, part in (("head", "skin"), ("eye_left", "eyes")):
        assert not any(other.mesh(name)["weights"]) and any(glb.mesh(name)["weights"])
        zeros = [0] * len(glb.mesh(name)["weights"])
        expected = glb.posed(name, part, weights=zeros)
        np.testing.assert_array_equal(other.posed(name, part), expected)
    for options, expected in ((neutral, face.neutral_vertices), (MeshOptions(), face.vertices)):
        face.write_mesh(tmp_path / "a.obj", PHOTO, options)
        found = obj_vertices(tmp_path / "a.obj")[: len(expected)]
        np.testing.assert_allclose(found * 1000, expected, atol=1e-3)


def obj_vertices(path: Path) -> np.ndarray:
    lines = path.read_text().splitlines()
    return np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_a_vertex_in_no_triangle_keeps_its_place(tiny_face_model, tmp_path, suffix):
    used = (tiny_face_model.triangles != 3).all(axis=1)
    model = tiny_face_model.replace(triangles=tiny_face_model.triangles[used])
    face = face_of(model)
    face.write_mesh(tmp_path / f"a.{suffix}", None, MeshOptions("mm"))
    vertices = vertices_of(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(vertices[: model.n_vertices], face.vertices, atol=1e-3)
    face.write_mesh(tmp_path / f"b.{suffix}", None, MeshOptions("mm", parts=("skin",)))
    assert len(vertices_of(tmp_path / f"b.{suffix}")) == model.n_vertices - 1


def vertices_of(path: Path) -> np.ndarray:
    """(N, 3) in the model frame, in the file's order; trimesh leaves some of an OBJ file out."""
    if path.suffix == ".ply":
        return trimesh.load(path, process=False).vertices @ PLY_FROM_MODEL
    rows = [line.split()[1:] for line in path.read_text().splitlines() if line.startswith("v ")]
    return np.array(rows, float)


def test_an_invalid_file_name_is_refused_before_the_texture_is_computed(face, monkeypatch):
    def never(*_):
        raise AssertionError("the texture was computed")

    monkeypatch.setattr("keras_scnn.reconstruction.faces.photo_texture", never)
    with pytest.raises(ValueError, match="suffix '.stl'"):
        face.write_mesh("a.stl", PHOTO)
    with pytest.raises(FileNotFoundError, match="no/a.glb: there is no folder no; create it first"):
        face.write_mesh("no/a.glb", PHOTO)
    with pytest.raises(ValueError, match="GLB is always in meters"):
        face.write_mesh("a.glb", PHOTO, MeshOptions("mm"))


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_parts_alone_have_their_triangles_and_no_other_vertex(face, open_face, tmp_path, suffix):
    options = MeshOptions(parts=("eyes", "teeth"))
    face.write_mesh(tmp_path / f"a.{suffix}", PHOTO, options)
    mesh = trimesh.load(tmp_path / f"a.{suffix}", process=False, force="mesh")
    parts = face_parts(open_face, options.parts)
    assert set(parts) == {"eye_left", "eye_right", "teeth"}
    assert len(mesh.faces) == sum(map(len, parts.values()))
    assert len(mesh.vertices) == len(np.unique(np.concatenate(list(parts.values()))))


def test_the_back_of_a_ply_has_the_rims_median_color(face, tmp_path):
    colors, count = face.write_mesh(tmp_path / "a.ply", PHOTO), face.model.n_vertices
    rim = np.unique(face_parts(face.model)["back"])
    found = trimesh.load(tmp_path / "a.ply", process=False).visual.vertex_colors[:, :3]
    np.testing.assert_array_equal(found[:count], colors)
    expected = np.median(colors[rim], axis=0).astype(np.uint8)
    np.testing.assert_array_equal(found[count:], np.tile(expected, (len(rim), 1)))


def test_colors_of_the_parts_are_the_same_kind_in_obj_and_glb(face, glb, tmp_path):
    face.write_mesh(tmp_path / "a.obj", PHOTO)
    blocks = (tmp_path / "a.mtl").read_text().split("newmtl ")[1:]
    written = {block.split()[0]: block for block in blocks}
    assert set(written) == set(PARTS)
    for material in glb.json["materials"]:
        look = material["pbrMetallicRoughness"]
        assert look["metallicFactor"] == 0  # glTF's default is metal (2.0, 5.22.5)
        textured = "baseColorTexture" in look
        assert textured == (material["name"] != "back")
        assert textured == ("map_Kd a_texture.png" in written[material["name"]])
        if not textured:
            color = np.float64(written[material["name"]].split()[2:5])
            np.testing.assert_allclose(color, look["baseColorFactor"][:3], atol=1e-5)
            assert look["baseColorFactor"][3] == 1
    np.testing.assert_array_equal(read_image(tmp_path / "a_texture.png"), face.texture(PHOTO))


def test_without_a_photo_there_is_neither_texture_nor_camera(face, tmp_path):
    assert face.write_mesh(tmp_path / "a.glb") is None
    glb = read_glb(tmp_path / "a.glb")
    assert not {"cameras", "textures", "images"} & set(glb.json)
    face.write_mesh(tmp_path / "b.obj")
    lines = [line.split()[1:] for line in (tmp_path / "b.obj").open() if line.startswith("vt ")]
    np.testing.assert_allclose(np.float64(lines)[: len(face.model.uv)], face.model.uv, atol=1e-6)
    assert {p.name for p in tmp_path.iterdir()} == {"a.glb", "b.obj"}


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_trimesh_reads_all_of_them(face, tmp_path):
    for suffix in ("obj", "ply", "glb"):
        face.write_mesh(tmp_path / f"a.{suffix}", PHOTO)
        mesh = trimesh.load(tmp_path / f"a.{suffix}", force="mesh", process=False)
        assert 3716 <= len(mesh.vertices) < 3900  # some readers split the lips between materials
        assert len(mesh.faces) == 7284  # 7,200 of the model and 84 of the back
        height = np.ptp(mesh.vertices[:, 2 if suffix == "ply" else 1])
        assert height == pytest.approx(np.ptp(face.vertices[:, 1]) / 1000, rel=0.1)


def test_a_model_of_other_expressions_has_them_by_its_own_names(tiny_face_model, tmp_path):
    """No regions, no uv, weights in standard deviations: one part, seen from both sides."""
    face = face_of(tiny_face_model)
    face.parameters.expression[:] = [-2.5, 3, 0, 1, 0.25]
    face.write_mesh(tmp_path / "a.glb", PHOTO)
    glb = read_glb(tmp_path / "a.glb")
    head = glb.mesh("head")
    assert head["extras"]["targetNames"] == list(tiny_face_model.expression_names)
    np.testing.assert_allclose(glb.posed("head", "skin") * 1000, face.vertices, atol=1e-3)
    (material,) = glb.json["materials"]
    assert material["doubleSided"] and material["name"] == "skin"
    assert [node["name"] for node in glb.json["nodes"]] == ["head", "face", "photo_camera"]


@pytest.mark.parametrize("is_closed", [False, True])
def test_arrays_with_open_rims_are_seen_from_both_sides(tmp_path, is_closed):
    ball = trimesh.creation.icosphere(subdivisions=1, radius=80)
    faces = ball.faces if is_closed else ball.faces[ball.triangles_center[:, 2] > 0]
    write_mesh(tmp_path / "a.glb", np.array(ball.vertices), np.array(faces))
    (material,) = read_glb(tmp_path / "a.glb").json["materials"]
    assert material.get("doubleSided", False) is not is_closed


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
@pytest.mark.parametrize("part", ["identity", "expression"])
def test_coefficients_that_are_not_finite_are_refused(face, tmp_path, part, suffix):
    values = getattr(face.parameters, part).copy()
    values[-1] = np.nan  # as those of landmarks without a fit
    wrong = replace(face, parameters=replace(face.parameters, **{part: values}))
    with pytest.raises(ValueError, match=rf"a\.{suffix}: {part} of shape .* finite numbers"):
        wrong.write_mesh(tmp_path / f"a.{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("count", [51, 53])
def test_a_glb_file_is_refused_weights_for_other_expressions(face, tmp_path, count):
    parameters = replace(face.parameters, expression=np.full(count, 0.25))
    with pytest.raises(ValueError, match=rf"expression of shape \({count},\); it must be 52"):
        replace(face, parameters=parameters).write_mesh(tmp_path / "a.glb")


@pytest.mark.parametrize("kind", [list, set, iter])
def test_the_order_of_the_parts_does_not_matter(kind):
    given = MeshOptions(parts=kind(["back", "skin", "back"]))
    assert given == MeshOptions(parts=("skin", "back"))


def test_a_part_that_the_model_lacks_is_refused(tiny_face_model, open_face, tmp_path):
    with pytest.raises(ValueError, match="unknown part 'teeth'; choose from skin"):
        face_of(tiny_face_model).write_mesh(tmp_path / "a.ply", None, MeshOptions(parts=("teeth",)))
    with pytest.raises(ValueError, match="unknown part 'eye'.*did you mean 'eyes'"):
        MeshOptions(parts=("skin", "eye"))
    for nothing in ((), "skin"):
        with pytest.raises(ValueError, match="give a tuple of skin, eyes"):
            MeshOptions(parts=nothing)
    with pytest.raises(ValueError, match=r"a\.glb: GLB is always in meters, not in 'mm'"):
        face_of(open_face).write_mesh(tmp_path / "a.glb", None, MeshOptions("mm"))
    with pytest.raises(ValueError, match="options is 'mm'.*must be MeshOptions"):
        face_of(open_face).write_mesh(tmp_path / "a.obj", None, "mm")
    assert not list(tmp_path.iterdir())


VALIDATE = """
import fs from "fs"; import { createRequire } from "module";
const { validateBytes } = createRequire(process.cwd() + "/package.json")("gltf-validator");
for (const file of process.argv.slice(2)) {
  const report = await validateBytes(new Uint8Array(fs.readFileSync(file)));
  console.log(JSON.stringify(report.issues.messages));
}
"""


@pytest.mark.integration
@pytest.mark.skipif(not shutil.which("npm"), reason="needs Node.js with npm")
def test_khronos_validator_reports_nothing(face, path, tiny_face_model, tmp_path):
    """No error, no warning, no information, no hint; of all kinds of files."""
    words = ["npm", "install", "--no-audit", "--no-fund", "gltf-validator@2.0.0-dev.3.10"]
    asked = subprocess.run(words, cwd=tmp_path, capture_output=True, timeout=120)
    if asked.returncode:
        pytest.skip("npm's registry cannot be reached")
    face.write_mesh(tmp_path / "plain.glb")
    face.write_mesh(tmp_path / "eyes.glb", PHOTO, MeshOptions(parts=("eyes", "teeth")))
    face.write_mesh(tmp_path / "skin.glb", PHOTO, MeshOptions(neutral=True, parts=("skin",)))
    face_of(tiny_face_model).write_mesh(tmp_path / "tiny.glb", PHOTO)
    (tmp_path / "validate.mjs").write_text(VALIDATE)
    names = [str(path), "plain.glb", "eyes.glb", "skin.glb", "tiny.glb"]
    done = subprocess.run(
        ["node", "validate.mjs", *names],
        cwd=tmp_path, env=os.environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[]"] * len(names)
