"""Files in Blender: its importers with default settings, and the script of docs/artists.md."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_faces import face_of
from skimage import data

PAGE = Path(__file__).resolve().parents[2] / "docs" / "artists.md"
BLENDER_PYTHON = os.environ.get("BLENDER_PYTHON", "")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not BLENDER_PYTHON, reason="BLENDER_PYTHON: a Python that has bpy (PyPI)"),
]

LOOK = """
import json, sys, bpy
read = {".obj": bpy.ops.wm.obj_import, ".ply": bpy.ops.wm.ply_import}
bpy.ops.wm.read_factory_settings(use_empty=True)
read.get(sys.argv[1][-4:], bpy.ops.import_scene.gltf)(filepath=sys.argv[1])
result = {}
for item in bpy.data.objects:
    if item.type == "MESH":
        keys = item.data.shape_keys.key_blocks if item.data.shape_keys else []
        result[item.name] = {
            "vertices": [list(item.matrix_world @ v.co) for v in item.data.vertices],
            "smooth": all(p.use_smooth for p in item.data.polygons),
            "own_normals": item.data.has_custom_normals,
            "keys": [k.name for k in keys],
            "values": [k.value for k in keys],
            "place": list(item.matrix_world.translation),
        }
print("RESULT" + json.dumps(result))
"""


def run(script: str, *words: str, cwd: Path) -> str:
    """The output of a script in Blender, without the tests' packages in its path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [BLENDER_PYTHON, "-c", script, *words]
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_a_head_is_upright_of_natural_size_smooth_and_faces_the_viewer(open_face, tmp_path, suffix):
    face = face_of(open_face)
    face.write_mesh(tmp_path / f"a.{suffix}", data.astronaut())
    lines = run(LOOK, f"a.{suffix}", cwd=tmp_path).splitlines()
    meshes = json.loads(next(s for s in lines if s.startswith("RESULT")).removeprefix("RESULT"))
    assert set(meshes) == ({"head", "eye_left", "eye_right"} if suffix == "glb" else {"a"})
    assert all(mesh["smooth"] and mesh["own_normals"] for mesh in meshes.values())
    x, y, z = np.concatenate([mesh["vertices"] for mesh in meshes.values()]).T
    vertices = face.neutral_vertices if suffix == "glb" else face.vertices
    # Blender's front view looks along +y, with x to the right and z up; the nose tip is the origin.
    for found, expected in ((x, vertices[:, 0]), (-y, vertices[:, 2]), (z, vertices[:, 1])):
        bounds = np.array([found.min(), found.max()]) * 1000
        np.testing.assert_allclose(bounds, [expected.min(), expected.max()], atol=0.01)  # mm
    if suffix == "glb":
        assert meshes["head"]["keys"] == ["Basis", *open_face.expression_names]
        np.testing.assert_allclose(
            meshes["head"]["values"][1:], face.parameters.expression, atol=1e-6
        )
        assert meshes["eye_left"]["place"][0] > 0.02 > -0.02 > meshes["eye_right"]["place"][0]


def test_the_script_for_artists_runs(open_face, tmp_path):
    (script,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (tmp_path / "faces").mkdir()
    face_of(open_face).write_mesh(tmp_path / "faces" / "photo.glb", data.astronaut())
    values = "keys['jawOpen'].value, keys['mouthSmileLeft'].value, eyes[0].rotation_euler.z"
    asked = f"bpy.context.scene.frame_set(24)\nprint('RESULT', *(round(v, 3) for v in ({values})))"
    assert "RESULT 0.0 1.0 -0.3" in run(f"{script}\n{asked}", cwd=tmp_path)
    assert (tmp_path / "faces" / "photo.blend").stat().st_size > 100_000
