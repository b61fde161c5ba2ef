"""The command ``convert``, end to end, on known faces."""

import json
import re

import numpy as np
import pytest
import trimesh

from keras_scnn.convert import main
from keras_scnn.face_models.correspondence import make_correspondence
from keras_scnn.parameters import FaceParameters
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.converted import landmark_option
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


def test_weights_are_taken_by_their_names(open_face, target, tmp_path):
    """The keys of a JSON object have no order."""
    result, _ = write_result(tmp_path / "results", open_face)
    found = []
    for name in ("as written", "reversed"):
        out = tmp_path / name
        assert main([str(result), "--to", str(target[1]), "--out", str(out)]) == 0
        found.append(json.loads((out / "face.json").read_text())["expression"])
        content = json.loads(result.read_text())
        content["expression"] = dict(reversed(content["expression"].items()))
        result.write_text(json.dumps(content))
    assert found[0] == found[1]


def test_the_embedded_model_is_a_name_wherever_the_command_runs(open_face, tmp_path, monkeypatch):
    result, _ = write_result(tmp_path / "results", open_face)
    for place in (tmp_path, tmp_path / "results"):
        monkeypatch.chdir(place)
        words = [str(result), "--to", "open_face", "--out", str(tmp_path / "out")]
        assert main(words) == 0
        numbers = json.loads((tmp_path / "out" / "face.json").read_text())
        assert numbers["photos"] == [str(result)]


def test_a_correspondence_of_a_file_is_used(open_face, target, tmp_path, capsys):
    model, path = target
    make_correspondence(open_face, model, dense=False).save(tmp_path / "points.npz")
    result, _ = write_result(tmp_path / "results", open_face)
    few = ["--correspondence", str(tmp_path / "points.npz"), "--out", str(tmp_path / "out")]
    assert main([str(result), "--to", str(path), *few]) == 0
    assert re.search(r": residual [\d.]+ mm\n", capsys.readouterr().out)
    wrong = ["--correspondence", str(path), "--out", str(tmp_path / "other")]
    assert main([str(result), "--to", str(path), *wrong]) == 2
    assert str(path) in capsys.readouterr().err and not (tmp_path / "other").exists()


OTHERS = "its expressions are not those of 'open_face'"
# A change to a valid result, and the reason reported for it.
CHANGES = {
    "of another model": (
        {"face_model": "flame"},
        "it is for the face model 'flame', not 'open_face'; give that model with --from",
    ),
    "too short": ({"identity": [0.0] * 5}, "identity has the shape (5,); it must be (80,)"),
    "ragged": ({"identity": [[1, 2], [3]]}, "identity has the shape (2,); it must be (80,)"),
    "a table": ({"identity": {"a": 1}}, "identity has the shape (); it must be (80,)"),
    "words": ({"identity": ["a"] * 80}, "identity has values that are not numbers"),
    "numbers as words": ({"identity": ["1.5"] * 80}, "identity has values that are not numbers"),
    "holes": ({"identity": [None] * 80}, "identity has values that are not numbers"),
    "not finite": ({"identity": [float("nan")] * 80}, "identity has values that are not finite"),
    "no pose": ({"pose": [1]}, "it has no pose.image_from_model"),
    "a small pose": (
        {"pose": {"image_from_model": [[1, 2], [3, 4]]}},
        "pose.image_from_model has the shape (2, 2); it must be (3, 4)",
    ),
    "of other expressions": ({"expression": {"smile": 1.0}}, OTHERS),
    "expressions without names": ({"expression": [0.0] * 52}, OTHERS),
}
TEXTS = {
    "no result": ('{"a": 1}', "it has no face_model"),
    "a list": ("[1, 2]", "it has no face_model"),
    "text": ("hello", "it is not valid JSON from line 1, column 1 on"),
    "cut off": ('{\n"face_model": "op', "it is not valid JSON from line 2, column 15 on"),
}


@pytest.mark.parametrize("kind", [*CHANGES, *TEXTS])
def test_a_bad_file_is_named_and_the_others_are_converted(
    open_face, target, tmp_path, capsys, kind
):
    good, _ = write_result(tmp_path, open_face, name="good")
    if kind in CHANGES:
        change, reason = CHANGES[kind]
        text = json.dumps(json.loads(good.read_text()) | change)
    else:
        text, reason = TEXTS[kind]
    bad = tmp_path / "bad.json"
    bad.write_text(text)
    out = tmp_path / "out"
    assert main([str(bad), str(good), "--to", str(target[1]), "--out", str(out)]) == 1
    what = "not a result of keras-scnn reconstruct, or damaged"
    assert capsys.readouterr().err == f"failed: {bad}: {what}: {reason}\n"
    assert [path.name for path in out.iterdir()] == ["good.json"]


class Pickled:
    """Code that NumPy would run if it unpickled the object."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return self.path.touch, ()


NPZ = "not a readable .npz file, or damaged: "
DAMAGES = {  # kind: reason, of a model and of a correspondence
    "cut off": (NPZ + "it is not a zip archive, or its end is missing",) * 2,
    "text": (NPZ + "it is not a zip archive, or its end is missing",) * 2,
    "other arrays": ("expected 'keras_scnn.", "expected 'keras_scnn."),
    "an array less": ("needs the arrays identity_basis", "source_weights missing"),
    "other shapes": (
        "identity_basis has the shape (1, 3, 80); it must be (3716, 3, 80)",
        "(68, 3), (1, 3)); they must be (M,), (M, 3) and (M, 3)",
    ),
    "a list as version": ("version of the shape (2,); expected", "version of the shape (2,); exp"),
    "objects": (NPZ + "uv.npy holds object; only numbers and text are read",)
    + (NPZ + "source_weights.npy holds object; only numbers and text are read",),
}


def write_damaged(path, kind, name, folder):
    """A copy of an .npz file whose array of that name is damaged; what unpickling would make."""
    content, arrays = path.read_bytes(), dict(np.load(path, allow_pickle=False))
    changes = {
        "other shapes": {name: arrays[name][:1]},
        "a list as version": {"version": np.array([1, 2])},
        "objects": {name: np.array([Pickled(folder / "unpickled")], object)},
    }
    damaged = folder / "damaged.npz"
    if kind in ("cut off", "text"):
        damaged.write_bytes(content[: len(content) // 2] if kind == "cut off" else b"hello")
        return damaged
    if kind == "other arrays":
        arrays = {"a": np.zeros(3)}
    elif kind == "an array less":
        del arrays[name]
    np.savez(damaged, **arrays | changes.get(kind, {}))
    return damaged


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("which", ["model", "correspondence"])
def test_a_damaged_npz_file_is_one_clear_line_and_never_unpickled(
    open_face, target, tmp_path, capsys, kind, which
):
    result, _ = write_result(tmp_path / "results", open_face)
    options = [str(result), "--out", str(tmp_path / "out"), "--to"]
    if which == "model":
        name = "uv" if kind == "objects" else "identity_basis"
        damaged = write_damaged(target[1], kind, name, tmp_path)
        options += [str(damaged)]
    else:
        make_correspondence(open_face, target[0], dense=False).save(tmp_path / "points.npz")
        damaged = write_damaged(tmp_path / "points.npz", kind, "source_weights", tmp_path)
        options += [str(target[1]), "--correspondence", str(damaged)]
    assert main(options) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {damaged}: ") and len(error.splitlines()) == 1
    assert DAMAGES[kind][which == "correspondence"] in error
    assert not (tmp_path / "out").exists() and not (tmp_path / "unpickled").exists()


def test_a_landmark_file_serves_a_model_without_landmarks(open_face, tmp_path):
    """The open face model in FLAME's file: meters; 300 shapes, of which it has 80; expressions."""
    others = np.zeros((open_face.n_vertices, 3, 300 - open_face.n_identity))
    bases = [open_face.identity_basis, others, open_face.expression_basis]
    bases = np.concatenate(bases, axis=-1)
    arrays = {"v_template": open_face.mean / 1000, "shapedirs": bases / 1000}
    np.savez(tmp_path / "flame.npz", **arrays, f=open_face.triangles)
    points = tmp_path / "points.txt"
    points.write_text("\n".join(map(str, open_face.landmark_indices)), encoding="utf-8-sig")
    result, face = write_result(tmp_path / "results", open_face)
    options = ["--to", str(tmp_path / "flame.npz"), "--landmarks", str(points)]
    assert main([str(result), *options, "--out", str(tmp_path / "out")]) == 0
    numbers = json.loads((tmp_path / "out" / "face.json").read_text())
    assert numbers["face_model"] == "flame" and numbers["residual_mm"] < 0.01
    identity, expression = numbers["identity"], list(numbers["expression"].values())
    np.testing.assert_allclose(identity[:80], face.parameters.identity, atol=0.02)
    np.testing.assert_allclose(expression, face.parameters.expression, atol=0.02)


def test_landmarks_are_read_from_the_models_own_file(open_face, tmp_path, capsys):
    """GNM's head_sparse_68.txt and FLAME's landmark_embedding.npy, as their tests write them."""
    arrays = {"template_vertex_positions": open_face.mean / 1000, "triangles": open_face.triangles}
    names = {"vertex_identity_basis": "identity_basis", "expression_basis": "expression_basis"}
    arrays |= {key: np.moveaxis(getattr(open_face, of), -1, 0) / 1000 for key, of in names.items()}
    np.savez(tmp_path / "gnm.npz", **arrays)
    points = tmp_path / "head_sparse_68.txt"
    rows = [f"{v} 1.000 {v} 0.000 0 0.000" for v in open_face.landmark_indices]
    points.write_text("\n".join(rows), encoding="utf-8-sig")
    result, _ = write_result(tmp_path / "results", open_face)
    arguments = [str(result), "--to", str(tmp_path / "gnm.npz"), "--out", str(tmp_path / "out")]
    assert main([*arguments, "--landmarks", str(points)]) == 0
    numbers = json.loads((tmp_path / "out" / "face.json").read_text())
    assert numbers["face_model"] == "gnm_head" and numbers["residual_mm"] < 0.01
    embedding = tmp_path / "landmark_embedding.npy"
    np.save(embedding, {"full_lmk_faces_idx": np.zeros((1, 68), int)})
    assert main([*arguments, "--landmarks", str(embedding)]) == 2  # FLAME's, for GNM
    assert f"give 68 vertex numbers instead of {embedding}" in capsys.readouterr().err
    assert landmark_option(embedding) == {"landmark_embedding": embedding}


def test_input_files_are_never_overwritten(open_face, target, tmp_path, capsys):
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


@pytest.mark.parametrize(
    "name, problem", [("nowhere.txt", "no such file"), ("", "is a folder")], ids=("none", "folder")
)
def test_a_file_of_landmarks_that_is_none_says_what_it_should_be(
    open_face, target, tmp_path, capsys, name, problem
):
    result, _ = write_result(tmp_path, open_face)
    points = tmp_path / name
    options = ["--landmarks", str(points), "--out", str(tmp_path / "out")]
    assert main([str(result), "--to", str(target[1]), *options]) == 2
    expected = f"error: {points}: {problem}; expected a text file of 68 vertex numbers\n"
    assert capsys.readouterr().err == expected


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
    assert "has landmarks of its own; leave out --landmarks" in capsys.readouterr().err


@pytest.mark.parametrize("kind", TEXTS)
def test_a_file_that_fails_leaves_no_earlier_result_of_it(open_face, target, tmp_path, kind):
    bad, _ = write_result(tmp_path / "results", open_face, name="bad")
    write_result(tmp_path / "results", open_face, name="good")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "results"), "--to", str(target[1]), "--out", str(out)]
    assert main([*arguments, "--format", "ply"]) == 0
    (out / "bad.txt").write_text("of the user")
    bad.write_text(TEXTS[kind][0])
    assert main([*arguments, "--format", "ply"]) == 1
    assert {path.name for path in out.iterdir()} == {"good.json", "good.ply", "bad.txt"}


def test_results_of_a_folder_of_photos_are_named(tmp_path, capsys):
    (tmp_path / "faces").mkdir()
    (tmp_path / "plan.json").write_text("{}")
    assert main([str(tmp_path), "--to", "open_face", "--out", str(tmp_path / "out")]) == 2
    assert "results of a folder of photos or of a video, in Parquet" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
