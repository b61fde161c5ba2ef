"""Meshes of any origin as OBJ, PLY and GLB."""

import os
from pathlib import Path

import numpy as np
import pytest
import trimesh
from glb_reader import read_glb

from keras_scnn.io import read_image, write_image
from keras_scnn.meshes.files import write_mesh

VERTICES = np.array([[0, 0, 0], [50, 0, 0], [50, 40.125, 0], [0, 40, -12.5]])
TRIANGLES = np.array([[0, 1, 2], [0, 2, 3]])
UV = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
# The first row is at v = 1: the upper left texel belongs to the vertex 3, the lower right to 1.
CORNERS = {0: (250, 0, 0), 1: (0, 250, 0), 2: (0, 0, 250), 3: (250, 250, 0)}


@pytest.fixture
def texture() -> np.ndarray:
    image = np.zeros((16, 16, 3), np.uint8)
    image[8:, :8], image[8:, 8:] = CORNERS[0], CORNERS[1]
    image[:8, 8:], image[:8, :8] = CORNERS[2], CORNERS[3]
    return image


@pytest.mark.parametrize("stem", ["my photo", "größe", "a_b", "a b", "a#b", "x" * 230])
def test_names_in_and_beside_an_obj_are_readable_by_all_readers(tmp_path, texture, stem):
    write_mesh(tmp_path / f"{stem}.obj", VERTICES, TRIANGLES, UV, texture)
    lines = (tmp_path / f"{stem}.obj").read_text(encoding="utf-8").splitlines()
    (material,) = [line.split(" ", 1)[1] for line in lines if line.startswith("mtllib ")]
    words = (tmp_path / material).read_text().split()
    picture = words[words.index("map_Kd") + 1]
    assert (tmp_path / picture).is_file()
    for name in (
        material,
        picture,
        *[w for line in lines if "usemtl" in line for w in line.split()],
    ):
        assert name.isascii() and not set(name) & set(" #")


def test_meshes_whose_names_differ_by_a_space_keep_their_own_textures(tmp_path, texture):
    for stem, image in (("a b", texture), ("a_b", texture[::-1].copy())):
        write_mesh(tmp_path / f"{stem}.obj", VERTICES, TRIANGLES, UV, image)
    first = load(tmp_path / "a b.obj").visual.material.image
    np.testing.assert_array_equal(np.asarray(first.convert("RGB")), texture)


def load(path) -> trimesh.Trimesh:
    return trimesh.load(path, process=False, force="mesh")


# The model frame is y up, the face looks to +z, as glTF 2.0 (3.4) and Blender's importer of OBJ
# have it. Blender's importer of PLY takes coordinates as they are: z is up, the viewer is at -y.
def z_up(rows):
    return np.stack([rows[:, 0], -rows[:, 2], rows[:, 1]], axis=1)


@pytest.mark.parametrize(
    ("unit", "millimeters"), [(None, 1000), ("m", 1000), ("cm", 10), ("mm", 1)]
)
@pytest.mark.parametrize("suffix", [".obj", ".ply"])
def test_vertices_are_in_the_unit_and_the_files_say_so(tmp_path, suffix, unit, millimeters):
    path = tmp_path / f"face{suffix}"
    write_mesh(path, VERTICES, TRIANGLES, **({"unit": unit} if unit else {}))
    mesh = load(path)
    expected = z_up(VERTICES) if suffix == ".ply" else VERTICES
    np.testing.assert_allclose(mesh.vertices * millimeters, expected, atol=1e-4)
    np.testing.assert_array_equal(mesh.faces, TRIANGLES)
    comments = [line for line in path.read_bytes().split(b"\n")[:5] if line[:1] in b"#c"]
    assert comments[0].endswith(b"unit: " + (unit or "m").encode())
    up = b"z up: the face looks to -y" if suffix == ".ply" else b"the face looks to +z"
    assert comments[1].endswith(up)


def test_glb_is_in_meters(tmp_path):
    write_mesh(tmp_path / "face.glb", VERTICES, TRIANGLES)
    mesh = load(tmp_path / "face.glb")
    # glTF 2.0, 3.4: "The units for all linear distances are meters."
    np.testing.assert_allclose(mesh.vertices, VERTICES / 1000, atol=1e-8)
    np.testing.assert_array_equal(mesh.faces, TRIANGLES)


@pytest.mark.parametrize(("suffix", "unit"), [(".glb", "mm"), (".obj", "inch"), (".ply", "")])
def test_a_unit_that_the_format_lacks_is_refused(tmp_path, suffix, unit):
    with pytest.raises(ValueError, match=f"face{suffix}: .*(GLB is always in meters|unknown unit)"):
        write_mesh(tmp_path / f"face{suffix}", VERTICES, TRIANGLES, unit=unit)
    assert list(tmp_path.iterdir()) == []


def split_sphere(n: int = 16) -> tuple[np.ndarray, ...]:
    """A sphere of 70 mm as a map of the world unrolls it: the seam's vertices are there twice."""
    v, u = np.mgrid[0 : n + 1, 0 : 2 * n + 1] / [[[n]], [[2 * n]]]
    around, down = 2 * np.pi * (u % 1), np.pi * v  # the same bits on both sides of the seam
    x, y, z = np.sin(down) * np.sin(around), np.cos(down), np.sin(down) * np.cos(around)
    corner = (np.arange(n)[:, None] * (2 * n + 1) + np.arange(2 * n)).ravel()
    low = corner + 2 * n + 1
    triangles = np.concatenate(
        [np.stack([corner, low, low + 1], axis=1), np.stack([corner, low + 1, corner + 1], axis=1)]
    )
    vertices = 70 * np.stack([x, y, z], axis=-1).reshape(-1, 3)
    return vertices.round(9), triangles, np.stack([u, 1 - v], axis=-1).reshape(-1, 2)


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_normals_are_smooth_across_a_seam_of_the_texture(tmp_path, texture, suffix):
    vertices, triangles, uv = split_sphere()
    write_mesh(tmp_path / f"face{suffix}", vertices, triangles, uv, texture)
    normals = written_normals(tmp_path / f"face{suffix}")
    outward = z_up(vertices) if suffix == ".ply" else vertices
    np.testing.assert_allclose(normals, outward / 70, atol=0.04)  # no true sphere
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=2e-5)
    left, right = np.flatnonzero(uv[:, 0] == 0), np.flatnonzero(uv[:, 0] == 1)
    np.testing.assert_array_equal(normals[left], normals[right])


def written_normals(path) -> np.ndarray:
    """Normals stored in the file; trimesh may compute its ``vertex_normals`` instead."""
    if path.suffix == ".obj":
        lines = path.read_text().splitlines()
        return np.array([line.split()[1:] for line in lines if line.startswith("vn ")], float)
    if path.suffix == ".ply":
        rows = trimesh.load(path, process=False).metadata["_ply_raw"]["vertex"]["data"]
        return np.stack([rows[name].ravel() for name in ("nx", "ny", "nz")], axis=1)
    glb = read_glb(path)
    return glb.array(glb.json["meshes"][0]["primitives"][0]["attributes"]["NORMAL"])


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_a_vertex_without_triangles_keeps_its_place_and_has_a_unit_normal(tmp_path, suffix):
    write_mesh(tmp_path / f"face{suffix}", VERTICES, TRIANGLES[:1])
    text = (tmp_path / f"face{suffix}").read_bytes()
    if suffix == ".obj":
        assert text.count(b"\nv ") == text.count(b"\nvn ") == 4
    assert b"nan" not in text.lower()


def test_parts_have_names_and_share_vertices(tmp_path, texture):
    parts = {"upper": TRIANGLES[:1], "lower": TRIANGLES[1:]}
    write_mesh(tmp_path / "face.obj", VERTICES, parts, UV, texture)
    lines = (tmp_path / "face.obj").read_text().splitlines()
    assert [line for line in lines if line[:2] in ("g ", "us", "f ")] == [
        "g upper", "usemtl upper", "f 1/1/1 2/2/2 3/3/3",
        "g lower", "usemtl lower", "f 1/1/1 3/3/3 4/4/4",
    ]  # fmt: skip
    assert sum(line.startswith("v ") for line in lines) == 4
    write_mesh(tmp_path / "face.glb", VERTICES, parts, UV, texture)
    scene = trimesh.load(tmp_path / "face.glb", process=False)
    assert sorted(g.visual.material.name for g in scene.geometry.values()) == ["lower", "upper"]


@pytest.mark.parametrize("suffix", [".obj", ".glb"])
def test_each_vertex_gets_its_corner_of_the_texture(tmp_path, texture, suffix):
    write_mesh(tmp_path / f"face{suffix}", VERTICES, TRIANGLES, UV, texture)
    mesh = load(tmp_path / f"face{suffix}")
    material = mesh.visual.material
    image = material.baseColorTexture if suffix == ".glb" else material.image
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), texture)
    np.testing.assert_allclose(mesh.visual.uv, UV, atol=1e-6)
    colors = mesh.visual.to_color().vertex_colors[:, :3]
    np.testing.assert_array_equal(colors, [CORNERS[i] for i in range(4)])


def test_without_a_texture_an_obj_still_has_its_coordinates(tmp_path):
    write_mesh(tmp_path / "face.obj", VERTICES, TRIANGLES, UV)
    np.testing.assert_allclose(load(tmp_path / "face.obj").visual.uv, UV, atol=1e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["face.obj"]


def test_a_glb_has_no_coordinates_that_nothing_uses(tmp_path):
    """Also in the default tests; the validator, which reports them, needs npm."""
    write_mesh(tmp_path / "face.glb", VERTICES, TRIANGLES, UV)
    (mesh,) = read_glb(tmp_path / "face.glb").json["meshes"]
    attributes = [set(part["attributes"]) for part in mesh["primitives"]]
    assert attributes == [{"POSITION", "NORMAL"}]


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_nothing_is_written_where_a_folder_has_the_name(tmp_path, texture, suffix):
    (tmp_path / f"face{suffix}").mkdir()
    with pytest.raises(IsADirectoryError, match=f"face{suffix}"):
        write_mesh(tmp_path / f"face{suffix}", VERTICES, TRIANGLES, UV, texture)
    assert [path.name for path in tmp_path.iterdir()] == [f"face{suffix}"]


@pytest.mark.parametrize("suffix", [".obj", ".ply", ".glb"])
def test_half_precision_is_not_lost_to_the_unit(tmp_path, suffix):
    vertices = np.array([[10, 0, 0], [0, 70, 0], [0, 0, 33]], np.float16)
    write_mesh(tmp_path / f"a{suffix}", vertices, [[0, 1, 2]])
    write_mesh(tmp_path / f"b{suffix}", np.float64(vertices), [[0, 1, 2]])
    first, second = (load(tmp_path / f"{name}{suffix}").vertices for name in "ab")
    np.testing.assert_array_equal(first, second)


def test_an_obj_is_put_in_place_after_its_texture(tmp_path, texture, monkeypatch):
    replace, moved = os.replace, []
    monkeypatch.setattr(os, "replace", lambda a, b: (moved.append(Path(b).name), replace(a, b)))
    write_mesh(tmp_path / "face.obj", VERTICES, TRIANGLES, UV, texture)
    assert sorted(moved) == sorted(path.name for path in tmp_path.iterdir()) and len(moved) == 3
    assert moved[-1] == "face.obj"


def test_an_obj_names_the_files_beside_it(tmp_path, texture):
    write_mesh(tmp_path / "face.obj", VERTICES, TRIANGLES, UV, texture)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "face.mtl",
        "face.obj",
        "face_texture.png",
    ]
    assert "mtllib face.mtl" in (tmp_path / "face.obj").read_text()
    assert "map_Kd face_texture.png" in (tmp_path / "face.mtl").read_text()


def test_two_meshes_in_one_folder_keep_their_own_textures(tmp_path, texture):
    for name, image in (("a", texture), ("b", texture[::-1].copy())):
        write_mesh(tmp_path / f"{name}.obj", VERTICES, TRIANGLES, UV, image)
    first = load(tmp_path / "a.obj").visual.material.image
    np.testing.assert_array_equal(np.asarray(first.convert("RGB")), texture)


def test_a_ply_carries_vertex_colors(tmp_path):
    colors = np.array([CORNERS[i] for i in range(4)], np.uint8)
    write_mesh(tmp_path / "face.ply", VERTICES, TRIANGLES, colors=colors)
    loaded = load(tmp_path / "face.ply").visual.vertex_colors[:, :3]
    np.testing.assert_array_equal(loaded, colors)


def test_an_unknown_mesh_suffix_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"\.obj, \.ply, \.glb"):
        write_mesh(tmp_path / "face.stl", VERTICES, TRIANGLES)
    assert list(tmp_path.iterdir()) == []


def test_a_mesh_beside_the_photo_of_its_name_leaves_the_photo_alone(tmp_path, texture):
    write_image(tmp_path / "face.png", texture[::2, ::2])
    write_mesh(tmp_path / "face.obj", VERTICES, TRIANGLES, UV, texture)
    np.testing.assert_array_equal(read_image(tmp_path / "face.png"), texture[::2, ::2])


@pytest.mark.parametrize(
    ("vertices", "triangles", "message"),
    [
        (VERTICES, [[0, 1, 4]], "must index the 4 vertices"),
        (VERTICES, [[0, 1, -1]], "must index the 4 vertices"),
        (VERTICES * np.nan, TRIANGLES, "finite"),
        (VERTICES, np.float32(TRIANGLES), "of float32; they must be 1 or more, of whole numbers"),
        (VERTICES[:0], TRIANGLES[:0], "triangles are 0 of"),
        (VERTICES[:, :2], TRIANGLES, r"vertices of shape \(4, 2\) and dtype float64; expected \(N"),
        (np.full((4, 3), "x"), TRIANGLES, r"vertices of .*dtype <U1; expected \(N, 3\) numbers"),
        (VERTICES, TRIANGLES[:, [0, 1, 2, 2]], r"triangles have the shape \(2, 4\); expected \(T"),
        (VERTICES, TRIANGLES.ravel(), r"triangles have the shape \(6,\); expected \(T, 3\)"),
        (VERTICES, {}, r"triangles have no part; give at least one, \(T, 3\)"),
        (
            VERTICES,
            {"a": TRIANGLES, "b": TRIANGLES[:0]},
            "of part 'b' are 0 of .*must be 1",
        ),
        (VERTICES, {"a": [[0, 1]]}, r"of part 'a' have the shape \(1, 2\); expected \(T, 3\)"),
        (
            VERTICES,
            {"a\nv 0 0 0": TRIANGLES},
            r"part 'a\\nv 0 0 0' is not a valid name; .* of one line",
        ),
        (VERTICES, {"a\u2028": TRIANGLES}, "is not a valid name; it must be text of one line"),
        (VERTICES, {"a\x07": TRIANGLES}, "is not a valid name; it must be text of one line"),
        (VERTICES, {"\udce9": TRIANGLES}, "is not a valid name; it must be text of one line"),
        (VERTICES, {" ": TRIANGLES}, "part ' ' is not a valid name; it must be text of one line"),
        (VERTICES, {3: TRIANGLES}, "part 3 is not a valid name; it must be text of one line"),
    ],
)
def test_an_invalid_mesh_is_refused(tmp_path, vertices, triangles, message):
    for suffix in (".ply", ".obj", ".glb"):
        with pytest.raises(ValueError, match=f"face{suffix}: .*{message}"):
            write_mesh(tmp_path / f"face{suffix}", vertices, triangles)
    assert list(tmp_path.iterdir()) == []


PICTURE, COLORS = np.zeros((8, 8, 3), np.uint8), np.zeros((4, 3), np.uint8)


@pytest.mark.parametrize(
    ("look", "message"),
    [
        ({"uv": UV[:3]}, r"uv of shape \(3, 2\) .*; expected \(4, 2\) numbers"),
        ({"uv": UV[:3], "texture": PICTURE}, r"uv of shape \(3, 2\) .*; expected \(4, 2\) numbers"),
        ({"uv": np.zeros((4, 3))}, r"uv of shape \(4, 3\) .*; expected \(4, 2\) numbers"),
        ({"uv": UV * np.nan, "texture": PICTURE}, "uv must be finite numbers"),
        ({"texture": PICTURE}, r"texture of shape \(8, 8, 3\) needs uv, \(4, 2\); it is None"),
        ({"uv": UV, "texture": PICTURE / 255}, r"dtype float64; expected \(H, W, 3\) uint8"),
        ({"uv": UV, "texture": PICTURE[..., 0]}, r"texture of shape \(8, 8\) .*expected \(H, W, 3"),
        ({"uv": UV, "texture": PICTURE[:0]}, r"texture of shape \(0, 8, 3\) .*expected \(H, W, 3"),
        ({"colors": COLORS[:3]}, r"colors of shape \(3, 3\) .*; expected \(4, 3\) uint8"),
        ({"colors": COLORS[:, [0, 1, 2, 2]]}, r"colors of shape \(4, 4\) .*; expected \(4, 3\)"),
        ({"colors": [[0, 0, 256]] * 4}, r"colors .* dtype int64; expected \(4, 3\) uint8"),
        ({"colors": np.int64(COLORS)}, r"colors .* dtype int64; expected \(4, 3\) uint8"),
        ({"colors": COLORS / 255}, r"colors .* dtype float64; expected \(4, 3\) uint8"),
    ],
)
@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_a_look_that_does_not_fit_is_refused(tmp_path, suffix, look, message):
    with pytest.raises(ValueError, match=f"face{suffix}: .*{message}"):
        write_mesh(tmp_path / f"face{suffix}", VERTICES, TRIANGLES, **look)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_lists_and_any_whole_numbers_write_what_arrays_do(tmp_path, texture, suffix):
    one, other = tmp_path / f"one{suffix}", tmp_path / f"other{suffix}"
    mixed = {"a": TRIANGLES[:1].astype(np.uint64), "b": TRIANGLES[1:].tolist()}
    colors = np.array([CORNERS[i] for i in range(4)], np.uint8)
    write_mesh(one, VERTICES, {"a": TRIANGLES[:1], "b": TRIANGLES[1:]}, UV, texture, colors)
    write_mesh(other, VERTICES.tolist(), mixed, UV.tolist(), texture.tolist(), colors.tolist())
    assert other.read_bytes() == one.read_bytes().replace(b"one.mtl", b"other.mtl")
