"""The command that reconstructs photos."""

import dataclasses
import errno
import json
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import trimesh
from skimage import data

from keras_scnn.geometry.camera import compose
from keras_scnn.io import read_image, write_image
from keras_scnn.meshes.parts import face_parts
from keras_scnn.models import Preset, build_branch, build_encoder, load_preset, save_preset
from keras_scnn.parameters import ParameterLayout, ParameterSpace, Whitening
from keras_scnn.photos.detection import LargestFaceDetector
from keras_scnn.reconstruct import main
from keras_scnn.reconstruction import files
from keras_scnn.reconstruction.comparison import compare_photos
from keras_scnn.reconstruction.options import parse_options
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.serving.predictor import PresetPredictor
from keras_scnn.storage import short_name

pytestmark = pytest.mark.usefixtures("in_keras")

SIZE = 120  # px of the crops


@pytest.fixture(scope="module")
def preset_folder(tmp_path_factory, open_face):
    """A preset with random weights, whose faces nearly are the mean face, filling the crop."""
    layout = ParameterLayout(open_face.n_identity, open_face.n_expression)
    branch = build_branch(build_encoder("mobilenet_0.5", SIZE), layout, feature_size=8)
    mean = np.zeros(layout.size)
    low, high = (edge(open_face.landmarks(), axis=0) for edge in (np.min, np.max))
    scale = SIZE / np.linalg.norm((high - low)[:2])
    center = (SIZE - 1) / 2 - scale * (low + high) / 2 * [1, -1, 1]
    mean[layout.pose] = compose(np.eye(3), scale, center).ravel()
    whitening = Whitening(mean, np.full(layout.size, 1e-3))
    folder = tmp_path_factory.mktemp("preset")
    save_preset(folder, Preset(branch, ParameterSpace(open_face, whitening), "mobilenet_0.5"))
    return folder


def test_a_preset_folder_reconstructs_a_real_photo_in_three_lines(preset_folder):
    reconstructor = Reconstructor.from_preset(preset_folder)
    (face,) = reconstructor(data.astronaut())
    assert face.features.shape == (8,)
    # Such a network puts a frontal mean face in the middle of the box; the face is found there.
    np.testing.assert_allclose(face.euler_degrees, 0, atol=1)
    assert 150 < face.landmarks[:, 0].mean() < 300 and 60 < face.landmarks[:, 1].mean() < 200
    assert face.box.score > 0.6


@pytest.mark.parametrize("suffix", ["obj", "ply", "glb"])
def test_the_command_writes_mesh_numbers_and_overlay(tmp_path, preset_folder, open_face, suffix):
    write_image(tmp_path / "anna b.png", data.astronaut())
    out = tmp_path / "out"
    options = ["--out", str(out), "--preset", str(preset_folder), "--format", suffix, "--draw"]
    assert main([str(tmp_path / "anna b.png"), *options]) == 0
    # OBJ readers take a space for a name's end.
    beside = {"anna_b-4cdffd9d.mtl", "anna_b-4cdffd9d_texture.png"} if suffix == "obj" else set()
    files = {f"anna b.{suffix}", "anna b.json", "anna b_overlay.png", "anna b_views.png"}
    assert {path.name for path in out.iterdir()} == files | beside
    mesh = trimesh.load(out / f"anna b.{suffix}", process=False, force="mesh")
    height = 1000 * np.ptp(mesh.vertices[:, 2 if suffix == "ply" else 1])
    assert len(mesh.faces) == sum(map(len, face_parts(open_face).values()))
    assert height == pytest.approx(np.ptp(open_face.mean[:, 1]), rel=0.02)
    changed = (read_image(out / "anna b_overlay.png") != data.astronaut()).any(axis=-1)
    # Drawn over the face (a quarter of the crop at least), and nowhere far from it.
    assert changed[60:200, 155:295].mean() > 0.25 and not changed[300:].any()
    outputs = json.loads((out / "anna b.json").read_text())
    assert np.shape(outputs["landmarks"]) == (68, 3)
    assert np.shape(outputs["pose"]["image_from_model"]) == (3, 4)
    assert set(outputs["pose"]["euler_degrees"]) == {"pitch", "yaw", "roll"}
    assert len(outputs["expression"]) == open_face.n_expression


def test_the_command_writes_the_parts_that_are_asked_for(tmp_path, preset_folder, open_face):
    write_image(tmp_path / "anna.png", data.astronaut())
    arguments = [str(tmp_path / "anna.png"), "--out", str(tmp_path), "--preset", str(preset_folder)]
    options = ["--format", "ply", "--unit", "mm", "--parts", "skin, eyes", "--neutral"]
    assert main([*arguments, *options]) == 0
    mesh = trimesh.load(tmp_path / "anna.ply", process=False)
    assert len(mesh.faces) == sum(map(len, face_parts(open_face, ("skin", "eyes")).values()))
    assert b"comment unit: mm\n" in (tmp_path / "anna.ply").read_bytes()[:200]
    identity = json.loads((tmp_path / "anna.json").read_text())["identity"]
    expected = open_face.vertices(np.array(identity))
    np.testing.assert_allclose(np.ptp(mesh.vertices[:, 2]), np.ptp(expected[:, 1]), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "glb", "--unit", "mm"], "GLB is always in meters, not in 'mm'"),
        (["--parts", "skin,eye"], "unknown part 'eye' (did you mean 'eyes'?); choose from skin"),
        (["--parts", ""], "unknown part ''"),
        (["--unit", "inch"], "'inch' is not one of mm, cm, m"),
        (["--baked", "--albedo"], "--albedo: not allowed with argument --baked"),
    ],
)
def test_mesh_options_that_do_not_fit_are_named_before_the_work(tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        main(["missing.jpg", "--out", str(tmp_path / "out"), *options])
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.integration
def test_baked_is_the_photo_with_its_light(tmp_path, preset_folder):
    write_image(tmp_path / "anna.png", data.astronaut())
    arguments = [str(tmp_path / "anna.png"), "--largest", "--preset", str(preset_folder)]
    pictures = []
    for options in (["--albedo"], ["--baked"]):
        assert main([*arguments, "--out", str(tmp_path / "out"), *options]) == 0
        pictures.append(read_image(tmp_path / "out" / "anna_texture.png").astype(int))
    assert np.abs(pictures[1] - pictures[0]).mean() > 2
    assert not parse_options([*arguments, "--out", str(tmp_path)], "").mesh_options.baked


def test_a_part_that_the_presets_model_lacks_is_named_before_the_photos(
    tmp_path, preset_folder, open_face, capsys, monkeypatch
):
    preset = load_preset(preset_folder)
    space = dataclasses.replace(preset.space, face_model=open_face.replace(regions=None))
    bare = dataclasses.replace(preset, space=space)
    monkeypatch.setattr(Reconstructor, "from_preset", lambda *_: Reconstructor(bare))
    arguments = ["missing.jpg", "--out", str(tmp_path / "out"), "--parts", "teeth"]
    assert main(arguments) == 2
    assert "unknown part 'teeth'; choose from skin" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
def test_two_faces_of_a_photo_are_numbered(tmp_path, preset_folder):
    write_image(tmp_path / "pair.png", np.hstack([data.astronaut(), data.astronaut()[:, ::-1]]))
    arguments = [str(tmp_path / "pair.png"), "--out", str(tmp_path), "--format", "ply"]
    assert main([*arguments, "--preset", str(preset_folder)]) == 0
    assert {p.stem for p in tmp_path.glob("*.ply")} == {"pair_0", "pair_1"}


def test_only_the_largest_face_on_request(tmp_path):
    small = cv2.resize(data.astronaut()[:, ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    photo = np.hstack([data.astronaut(), np.pad(small, ((0, 256), (0, 0), (0, 0)))])
    write_image(tmp_path / "pair.png", photo)
    arguments = [str(tmp_path / "pair.png"), "--out", str(tmp_path)]
    assert main([*arguments, "--largest", "--format", "ply"]) == 0
    assert [p.stem for p in tmp_path.glob("*.ply")] == ["pair"]
    x0, _, x1, _ = json.loads((tmp_path / "pair.json").read_text())["box"]
    assert 180 < (x0 + x1) / 2 < 270


@pytest.mark.integration
def test_the_least_score_of_a_face(tmp_path, capsys):
    write_image(tmp_path / "a.png", data.astronaut())
    arguments = [str(tmp_path / "a.png"), "--out", str(tmp_path)]
    assert main([*arguments, "--min-score", "0.99"]) == 1
    assert main([*arguments, "--min-score", "0.99", "--largest"]) == 1
    assert capsys.readouterr().err.count("a.png: no face found") == 2
    assert main([*arguments, "--min-score", "0.7"]) == 0


@pytest.mark.parametrize(
    ("photo", "options", "message"),
    [
        ("a.png", ["--min-score", "1.5"], "--min-score is 1.5; it must lie between 0 and 1"),
        ("a.png", ["--min-score", "nan"], "--min-score is nan; it must lie between 0 and 1"),
        (".", ["--min-score", "0.5"], "--min-score works on single photos and one video, not on"),
        (".", ["--largest"], "--largest works on single photos, not on a folder"),
        ("a.png", ["--crops"], "--crops works on one folder, not on single photos"),
        ("a.mp4", ["--largest"], "--largest works on single photos, not on a video"),
        ("a.mp4", ["--unit", "cm"], "--unit works on single photos and one folder, not on a vi"),
        ("a.mp4", ["--format", "ply"], "--format ply has no animation; a video gives GLB"),
        (".", ["--crops", "--no-tiles"], "--no-tiles has no effect with --crops"),
        ("crops", ["--crops"], "crops: no such file or folder"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, capsys, photo, options, message):
    with pytest.raises(SystemExit):
        main([str(tmp_path / photo), "--out", str(tmp_path / "out"), *options])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_batch_gives_the_good_photos_and_lists_the_bad(tmp_path, preset_folder, capsys):
    write_image(tmp_path / "good.png", data.astronaut())
    write_image(tmp_path / "empty.png", np.full((200, 200, 3), 90, np.uint8))
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    names = ["empty.png", "broken.jpg", "good.png", "missing.png"]
    photos = [str(tmp_path / name) for name in names]
    out = tmp_path / "out"
    assert main([*photos, "--out", str(out), "--preset", str(preset_folder)]) == 1
    listed = capsys.readouterr().err
    assert "empty.png: no face found" in listed
    assert "broken.jpg: not a readable image" in listed
    assert "missing.png: no such photo" in listed
    assert "good.png:" not in listed
    assert (out / "good.obj").is_file() and not list(out.glob("*.partial*"))


def test_a_photo_given_twice_counts_once(tmp_path, preset_folder, capsys, monkeypatch):
    write_image(tmp_path / "a.png", data.astronaut())
    photos = [str(tmp_path / "a.png"), f"{tmp_path}/./a.png", str(tmp_path / "a.png")]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    photos += ["a.png", "sub/../a.png"]
    assert main([*photos, "--out", str(tmp_path / "out"), "--preset", str(preset_folder)]) == 0
    assert "1 face of 1 photo written" in capsys.readouterr().out


def test_nothing_is_left_where_every_photo_failed(tmp_path, preset_folder):
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    out = tmp_path / "new" / "out"
    arguments = ["--out", str(out), "--preset", str(preset_folder)]
    assert main([str(tmp_path / "broken.jpg"), *arguments]) == 1
    assert not out.parent.exists()


def test_photos_of_one_name_do_not_overwrite_each_other(tmp_path, preset_folder, capsys):
    photos = [tmp_path / "a" / "anna.png", tmp_path / "b" / "anna.png"]
    for photo in photos:
        photo.parent.mkdir()
        write_image(photo, data.astronaut())
    options = ["--out", str(tmp_path / "out"), "--preset", str(preset_folder)]
    assert main([*map(str, photos), *options]) == 1
    refused = f"{photos[1]}: its results would overwrite those of {photos[0]}"
    assert refused in capsys.readouterr().err
    assert (tmp_path / "out" / "anna.obj").is_file()


def test_a_photo_with_as_long_a_name_as_there_may_be_has_results_too(tmp_path, preset_folder):
    photo = tmp_path / f"{'顔' * 83}.png"  # 253 bytes, of 255
    write_image(photo, data.astronaut())
    for draw in ([], ["--draw"]):  # the second run replaces the first one's results
        options = ["--out", str(tmp_path / "out"), "--preset", str(preset_folder), *draw]
        assert main([str(photo), *options]) == 0
    (note,) = (tmp_path / "out").glob("*.json")
    assert note.stem == short_name(photo.stem)
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {note.name, *json.loads(note.read_text())["files"]} and len(written) == 6


def test_a_preset_that_is_not_there_is_named(tmp_path, capsys):
    assert main(["a.jpg", "--out", str(tmp_path), "--preset", "nothing"]) == 2
    assert "no preset 'nothing'" in capsys.readouterr().err


@pytest.mark.integration
def test_results_of_an_earlier_run_are_removed(tmp_path, preset_folder, capsys):
    photo, out = tmp_path / "anna.png", tmp_path / "out"
    arguments = [str(photo), "--out", str(out), "--preset", str(preset_folder), "--format", "ply"]
    face = data.astronaut()
    write_image(photo, np.hstack([face, face[:, ::-1]]))
    assert main([*arguments, "--draw"]) == 0
    assert {p.stem for p in out.glob("*.ply")} == {"anna_0", "anna_1"}
    write_image(photo, face)  # fewer faces, and no views now
    assert main(arguments) == 0
    assert {p.name for p in out.iterdir()} == {"anna.ply", "anna.json", "anna_overlay.png"}
    write_image(photo, np.full((200, 200, 3), 90, np.uint8))
    assert main(arguments) == 1
    assert "no face found" in capsys.readouterr().err and not list(out.iterdir())


@pytest.mark.parametrize("damage", ["missing", "damaged", "full disk"])
def test_a_photo_that_cannot_be_read_or_written_keeps_its_earlier_results(
    tmp_path, preset_folder, monkeypatch, damage
):
    photo, out = tmp_path / "anna.png", tmp_path / "out"
    arguments = [str(photo), "--out", str(out), "--preset", str(preset_folder), "--format", "ply"]
    write_image(photo, data.astronaut())
    assert main(arguments) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 3
    if damage == "missing":
        photo.unlink()
    elif damage == "damaged":
        photo.write_bytes(photo.read_bytes()[:1000])
    else:
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(files, "write_face", Mock(side_effect=full))
    assert main(arguments) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.integration
def test_an_input_photo_is_not_overwritten(tmp_path, preset_folder, capsys):
    photos = [tmp_path / "anna.png", tmp_path / "anna_overlay.png"]
    for photo in photos:
        write_image(photo, data.astronaut())
    before = photos[1].read_bytes()
    for given in (photos, photos[:1]):  # even if it is not an input of this run
        options = ["--out", str(tmp_path), "--preset", str(preset_folder)]
        assert main([*map(str, given), *options]) == 1
        assert "anna.png: its results would overwrite" in capsys.readouterr().err
        assert photos[1].read_bytes() == before
        assert not (tmp_path / "anna.json").exists()


def test_an_output_that_is_a_file_is_named_before_the_work(tmp_path, capsys):
    (tmp_path / "out").touch()
    assert main(["missing.jpg", "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / 'out'}: is a file; the results need a folder" in capsys.readouterr().err


@pytest.mark.parametrize("name, what", [("people", "a folder; give one"), ("a.MOV", "a video")])
def test_inputs_that_are_not_photos_are_reported_before_the_work(tmp_path, capsys, name, what):
    (tmp_path / "people").mkdir()
    assert main(["a.jpg", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 2
    assert f"{tmp_path / name} is {what}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.integration
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_pixels_of_a_reduced_photo_are_reported_and_right(tmp_path, monkeypatch, suffix):
    """Pixels in the JSON, scaled by ``photo_reduced_by``, are those of the unreduced photo."""
    photo = tmp_path / f"a.{suffix}"
    write_image(photo, data.astronaut())
    found = {}
    for limit in (512 * 512, 512 * 512 - 1):
        for name in ("MAX_WHOLE_PIXELS", "MAX_PIXELS"):
            monkeypatch.setattr(f"keras_scnn.storage.images.{name}", limit)
        main([str(photo), "--largest", "--preset", "mobile", "--out", str(tmp_path / str(limit))])
        face = json.loads((tmp_path / str(limit) / "a.json").read_text())
        factor = face["photo_reduced_by"]
        assert face["photo_size"] == [512 // factor, 512 // factor]
        found[factor] = (np.array(face["landmarks"])[:, :2] + 0.5) * factor - 0.5
    assert set(found) == {1, 2}
    apart = np.linalg.norm(found[1] - found[2], axis=1)
    assert apart.mean() < 1.5  # the face is 150 px wide


def test_all_interfaces_agree_on_a_photo_without_a_confirmed_face(tmp_path, capsys):
    """A color wheel, in which BlazeFace sees a face that nothing confirms."""
    pytest.importorskip("pyarrow", reason="extra 'batch' is not installed")
    wheel = data.colorwheel()
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", wheel)
    reconstructor = Reconstructor.from_preset("mobile")
    assert reconstructor(wheel) == []
    assert PresetPredictor.from_preset("mobile").faces(wheel) is None
    for photos, out in (("photos/a.png", "one"), ("photos", "folder")):
        words = [str(tmp_path / photos), "--out", str(tmp_path / out), "--preset", "mobile"]
        assert main(words) == 1
    assert "a.png: no face found" in capsys.readouterr().err
    assert "a.png,no face found" in (tmp_path / "folder" / "failed.csv").read_text()
    # If a photo is known to show a person, the unconfirmed face is used, as with its own score.
    unconfirmed = LargestFaceDetector()(wheel)
    words = [str(tmp_path / "photos" / "a.png"), "--out", str(tmp_path / "largest"), "--largest"]
    for score in ([], ["--min-score", "0.6"]):
        assert main([*words, *score]) == 0
        written = json.loads((tmp_path / "largest" / "a.json").read_text())
        assert written["score"] == unconfirmed.score
    assert main([*words, "--min-score", f"{unconfirmed.score + 0.01}"]) == 1
    assert reconstructor.largest(wheel).box.score == unconfirmed.score
    assert compare_photos(reconstructor, (wheel, wheel)).distance_mm == 0


@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "out"), ValueError("no")])
def test_a_photo_that_fails_is_named_whatever_the_error_says(tmp_path, monkeypatch, capsys, error):
    def fails(*_):
        raise error

    monkeypatch.setattr(files, "reconstruct_file", fails)
    photos = [str(tmp_path / name) for name in ("a.png", "b.png")]
    assert main([*photos, "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [f"failed: {photo}: {error}" for photo in photos] == lines[-2:]
