"""The command ``convert``, end to end, on faces that are known."""

import json

import numpy as np
import pytest
import trimesh

from keras_scnn.convert import main
from keras_scnn.face_models.correspondence import make_correspondence
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.faces import Reconstruction


def write_result(folder, model, seed=0, name="face"):
    """A file as ``reconstruct`` writes it, and the face in it."""
    rng = np.random.default_rng(seed)
    pose = np.column_stack([0.8 * np.eye(3), [60, 50, 0]])
    weights = rng.uniform(0, 0.5, model.n_expression)
    parameters = FaceParameters(pose, rng.normal(size=model.n_identity), weights)
    face = Reconstruction(model, parameters, FaceBox(0, 0, 100, 100))
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"photos": ["face.jpg"], **face.to_json(), "files": []}))
    return path, face


@pytest.fixture(scope="module")
def target(open_face, tmp_path_factory):
    """The open face model under another name, in another basis of the same people."""
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(open_face.n_identity,) * 2))[0]
    model = open_face.replace(name="turned", identity_basis=open_face.identity_basis @ turn)
    path = tmp_path_factory.mktemp("model") / "turned.npz"
    model.save(path)
    return model, path


def test_a_result_becomes_the_same_face_in_another_models_parameters(open_face, target, tmp_path):
    model, path = target
    result, face = write_result(tmp_path / "results", open_face)
    arguments = [str(tmp_path / "results"), "--to", str(path), "--format", "ply"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    numbers = json.loads((tmp_path / "out" / "face.json").read_text())
    assert (numbers["face_model"], numbers["converted_from"]) == ("turned", "open_face")
    assert numbers["residual_mm"] < 0.01 and numbers["photos"] == [str(result), str(path)]
    expression = np.array(list(numbers["expression"].values()))
    mesh = model.vertices(np.array(numbers["identity"]), expression)
    pose = np.array(numbers["pose"]["image_from_model"])
    original = face.model.vertices(face.parameters.identity, face.parameters.expression)
    image = original @ face.parameters.pose[:, :3].T + face.parameters.pose[:, 3]
    np.testing.assert_allclose(mesh @ pose[:, :3].T + pose[:, 3], image, atol=0.05)  # px
    written = trimesh.load(tmp_path / "out" / "face.ply", process=False)
    np.testing.assert_allclose(written.extents[0], np.ptp(mesh[:, 0]) / 1000, rtol=1e-4)  # m


def test_a_correspondence_of_a_file_is_used(open_face, target, tmp_path, capsys):
    model, path = target
    make_correspondence(open_face, model, dense=False).save(tmp_path / "points.npz")
    result, _ = write_result(tmp_path / "results", open_face)
    few = ["--correspondence", str(tmp_path / "points.npz"), "--out", str(tmp_path / "out")]
    assert main([str(result), "--to", str(path), *few]) == 0
    assert "mm remain" in capsys.readouterr().out
    wrong = ["--correspondence", str(path), "--out", str(tmp_path / "other")]
    assert main([str(result), "--to", str(path), *wrong]) == 2
    assert str(path) in capsys.readouterr().err and not (tmp_path / "other").exists()


def damaged(content, name):
    if name == "of another model":
        return {**content, "face_model": "flame"}
    if name == "no result":
        return {"a": 1}
    if name == "too short":
        return {**content, "identity": content["identity"][:5]}
    if name == "not finite":
        return {**content, "identity": [float("nan")] * len(content["identity"])}
    return {**content, "expression": {"smile": 1.0}}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("of another model", "'flame', not 'open_face'; give that model with --from"),
        ("no result", "not a result of keras-scnn reconstruct"),
        ("too short", "identity has the shape (5,)"),
        ("not finite", "not finite"),
        ("of other expressions", "its expressions are not those of 'open_face'"),
    ],
)
def test_a_bad_file_is_named_and_the_others_come_out(
    open_face, target, tmp_path, capsys, name, reason
):
    good, _ = write_result(tmp_path, open_face, name="good")
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(damaged(json.loads(good.read_text()), name)))
    out = tmp_path / "out"
    assert main([str(bad), str(good), "--to", str(target[1]), "--out", str(out)]) == 1
    error = capsys.readouterr().err
    assert str(bad) in error and reason in error and len(error.splitlines()) == 1
    assert [path.name for path in out.iterdir()] == ["good.json"]


def test_what_was_read_is_never_written_over(open_face, target, tmp_path, capsys):
    result, _ = write_result(tmp_path, open_face)
    before = result.read_bytes()
    assert main([str(result), "--to", str(target[1]), "--out", str(tmp_path)]) == 1
    assert "would overwrite" in capsys.readouterr().err and result.read_bytes() == before


@pytest.mark.parametrize("text", ["1 2 3", "one, two", "1.5 " * 68])
def test_landmarks_are_68_whole_numbers(open_face, target, tmp_path, capsys, text):
    result, _ = write_result(tmp_path, open_face)
    points = tmp_path / "points.txt"
    points.write_text(text)
    options = ["--landmarks", str(points), "--out", str(tmp_path / "out")]
    assert main([str(result), "--to", str(target[1]), *options]) == 2
    assert str(points) in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_second_target_does_not_replace_the_results_of_the_first(
    open_face, target, tmp_path, capsys
):
    result, _ = write_result(tmp_path / "results", open_face)
    out, other = tmp_path / "out", tmp_path / "other.npz"
    assert main([str(result), "--to", str(target[1]), "--out", str(out), "--format", "obj"]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    target[0].replace(name="other").save(other)
    assert main([str(result), "--to", str(other), "--out", str(out)]) == 1
    assert f"would overwrite those of {result}" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # The same again replaces what it wrote.
    assert main([str(result), "--to", str(target[1]), "--out", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == ["face.json"]


def test_a_failed_mesh_leaves_the_earlier_result(open_face, target, tmp_path, monkeypatch):
    result, _ = write_result(tmp_path / "results", open_face)
    arguments = [str(result), "--to", str(target[1]), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--format", "ply"]) == 0

    def full(*arguments):
        raise OSError("no space left on device")

    monkeypatch.setattr("keras_scnn.reconstruction.converted.write_mesh", full)
    assert main([*arguments, "--format", "ply"]) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"face.json", "face.ply"}


def test_a_model_with_landmarks_takes_no_others(open_face, target, tmp_path, capsys):
    result, _ = write_result(tmp_path / "results", open_face)
    points = tmp_path / "points.txt"
    points.write_text(" ".join(map(str, open_face.landmark_indices)))
    options = ["--landmarks", str(points), "--out", str(tmp_path / "out")]
    assert main([str(result), "--to", str(target[1]), *options]) == 2
    assert "leave out --landmarks" in capsys.readouterr().err
