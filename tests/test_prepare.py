import csv
import dataclasses
import os
import shutil

import numpy as np
import pytest
from annotated_faces import write_pts
from skimage import data

from keras_scnn.data.records import load_records
from keras_scnn.data.sources.choices import deciding_settings
from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.io import write_image
from keras_scnn.models import load_preset
from keras_scnn.parameters import ParameterLayout
from keras_scnn.prepare import main, parse
from keras_scnn.protocols.records import evaluate_records


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Six renderings of two synthetic people with .pts files, and a seventh without."""
    folder = tmp_path_factory.mktemp("photos")
    config = SyntheticConfig(photos=3, size=200, yaw_degrees=20)
    for person in range(2):
        crops, _, landmarks = render_person(config, person)
        for i, (crop, points) in enumerate(zip(crops, landmarks, strict=True)):
            write_image(folder / f"{person}_{i}.png", crop)
            write_pts(folder / f"{person}_{i}.pts", points)
    write_image(folder / "lonely.png", crop)
    return folder


def test_a_folder_of_photos_becomes_records(tmp_path, photos, capsys):
    out = tmp_path / "records"
    command = ["pts", str(photos), "--out", str(out), "--offsets", "", "--workers", "1"]
    assert main(command) == 1, "one photo was left out"
    printed = capsys.readouterr()
    assert f"6 photos in {out}" in printed.out
    assert "left out: lonely" in printed.err
    with (out / "left_out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["name", "reason"] and rows[1][0].startswith("lonely") and len(rows) == 2
    records = load_records(out)
    assert records.images.shape == (6, 120, 120, 3)
    assert records.config["command"].startswith("python -m keras_scnn.prepare pts ")
    # evaluate and train accept the records.
    results = evaluate_records(load_preset("aflw-mobilenet-0.5"), _two_people(records))
    assert 0 < results.landmarks.faces_percent < 30


def test_photos_are_listed_too_if_all_are_left_out(tmp_path, capsys):
    folder, out = tmp_path / "photos", tmp_path / "records"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(b"no photo")
        write_pts(folder / name.replace("png", "pts"), np.random.default_rng(0).random((68, 2)))
    assert main(["pts", str(folder), "--out", str(out), "--offsets", "", "--workers", "1"]) == 2
    with (out / "left_out.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [name for name, _ in rows] == ["name", "a.png", "b.png"]
    error = capsys.readouterr().err
    assert "left out: b.png: " in error and f"{out}: no records to write: 2 left out" in error
    assert not (out / "manifest.json").exists()


def test_a_photo_whose_name_is_no_utf8_is_listed(tmp_path, photos, capfd):
    name = b"na\xefve.png"
    with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
        file.write(b"no photo")
    for path in photos.glob("0_*"):
        shutil.copy(path, tmp_path)
    out = tmp_path / "records"
    assert main(["pts", str(tmp_path), "--out", str(out), "--offsets", "", "--workers", "1"]) == 1
    assert f"3 photos in {out}" in capfd.readouterr().out
    assert (out / "left_out.csv").read_bytes().splitlines()[1].startswith(name + b",")


def _two_people(records):
    return dataclasses.replace(records, identity=np.array([0, 0, 0, 1, 1, 1], np.int32))


def test_a_source_without_a_landmark_basis_saves_none(tmp_path, photos):
    out = tmp_path / "records"
    command = ["pts", str(photos), "--out", str(out), "--offsets", "", "--workers", "1"]
    assert main(command) == 1, "one photo was left out"
    assert (out / "manifest.json").is_file() and not (out / "bfm_landmarks68.npz").exists()


def test_a_face_model_among_the_photos_is_not_passed_over(tmp_path, photos, capsys):
    shutil.copytree(photos, tmp_path / "photos")
    model = tmp_path / "photos" / "model.npz"
    load_preset("aflw-mobilenet-0.5").face_model.save(model)
    (tmp_path / "photos" / "notes.txt").touch()
    command = ["pts", str(model.parent), "--face-model", str(model), "--offsets", ""]
    main([*command, "--out", str(tmp_path / "records"), "--workers", "1"])
    assert "1 file passed over: notes.txt" in capsys.readouterr().err


def test_crop_size_and_offsets_are_used(tmp_path, photos):
    command = ["pts", str(photos), "--crop-size", "64", "--workers", "1", "--out"]
    for name, more in (("with", []), ("without", ["--offsets", ""])):
        main([*command, str(tmp_path / name), *more])
    one, two = (load_records(tmp_path / name) for name in ("with", "without"))
    assert one.images.shape == (6, 64, 64, 3)
    assert np.abs(one.config["landmark_offsets"]).max() > 1
    assert np.abs(two.config["landmark_offsets"]).max() == 0
    assert np.abs(one.parameters - two.parameters).max() > 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--offsets", "nothing"], "no preset 'nothing'"),
        (["--face-model", "nothing.npz"], "nothing.npz"),
    ],
)
def test_wrong_settings_are_named(tmp_path, photos, capsys, options, message):
    assert main(["pts", str(photos), "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--crop-size", "4"], "--crop-size is 4; it must be 16 or more"),
        (["--turned", "-1"], "--turned is -1; it must be 0 or more"),
        (["--workers", "0"], "--workers is 0; it must be 1 or more"),
    ],
)
def test_settings_out_of_range_are_refused_before_anything_is_read(capsys, options, message):
    with pytest.raises(SystemExit):
        main(["pts", "nowhere", "--out", "nowhere", *options])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "option", "message"),
    [
        ("people", ["--count", "5"], "--count is for blends, blinks, not for people"),
        ("people", ["--part", "train"], "--part is for aflw, not for people"),
        ("aflw", ["--authors-identity"], "--authors-identity is for 300w-lp, tfds-300w-lp, not"),
        ("pts", ["--components", "10", "5"], "--components is for 300w-lp, not for pts"),
        ("pts", ["--held-out", "3"], "--held-out is for blends, blinks, not for pts"),
        ("cfp", ["--basis", "x.npz"], "--basis is for 300w-lp, tfds-300w-lp, not for cfp"),
        ("tfds-300w-lp", ["--bfm-info", "x.mat"], "--bfm-info is for 300w-lp, not for tfds"),
        ("aflw2000", ["--bfm-expression", "x.mat"], "--bfm-expression is for 300w-lp, not for"),
        ("blends", ["--offsets", ""], "--offsets is for 300w-lp, aflw2000, people"),
    ],
)
def test_options_of_other_sources_are_refused(capsys, source, option, message):
    assert main([source, "nowhere", "--out", "nowhere", *option]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--face-model", "mine.npz", "--offsets", "mobile"], "--offsets is 'mobile', but a"),
        (["--components", "20", "5"], "--components has no effect without --bfm-expression and"),
    ],
)
def test_options_without_effect_beside_the_others_are_refused(capsys, options, message):
    assert main(["300w-lp", "nowhere", "--out", "nowhere", *options]) == 2
    assert message in capsys.readouterr().err


def test_records_that_blends_are_made_of_count_with_spaces_about_the_commas(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    folders = f"{tmp_path / 'one'}, {tmp_path / 'two'}"
    settings = deciding_settings(parse(["blends", folders, "--out", "x"]))
    assert len(set(settings["of_manifests"])) == 2


def test_a_data_set_that_is_not_there_is_named(tmp_path, capsys):
    for source in ("pts", "300w-lp", "aflw2000", "aflw"):
        folder = tmp_path / "nothing"
        assert main([source, str(folder), "--out", str(tmp_path / "out")]) == 2
        assert str(folder) in capsys.readouterr().err


@pytest.mark.integration
def test_a_people_folder_becomes_records(tmp_path, capsys):
    photo = data.astronaut()
    for person in ("ann", "eve"):
        (tmp_path / "people" / person).mkdir(parents=True)
        for i in range(3):
            shifted = np.roll(photo, 12 * i, axis=1)[: 400 + 20 * i]
            write_image(tmp_path / "people" / person / f"{i}.png", shifted)
    write_image(tmp_path / "people" / "eve" / "wall.png", np.full((200, 200, 3), 90, np.uint8))
    out = tmp_path / "records"
    command = ["people", str(tmp_path / "people"), "--out", str(out), "--workers", "1"]
    assert main(command) == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("left out: ")]
    assert line.startswith("left out: eve/wall.png: no face found")
    records = load_records(out)
    np.testing.assert_array_equal(records.identity, [0, 0, 0, 1, 1, 1])
    layout = ParameterLayout(80, 52)
    identity = records.parameters[:, layout.identity]
    np.testing.assert_array_equal(identity[:3], np.tile(identity[0], (3, 1)))
    # The face is at its place in each of the shifted photos: the crops show the same.
    tip = records.landmarks[:, 30, :2]
    np.testing.assert_allclose(tip, np.tile(tip[0], (6, 1)), atol=3)
    assert records.embedding is None


@pytest.mark.parametrize("options", [[], ["--authors-identity"]])
def test_300w_lp_becomes_records_that_know_mirror_images(tmp_path, shared_data, options):
    fixture = shared_data / "300w-lp-fixture"
    basis = ["--basis", str(fixture / "bfm_landmarks68.npz")]
    out = tmp_path / "records"
    assert main(["300w-lp", str(fixture), "--out", str(out), *basis, *options]) == 0
    records = load_records(out)
    assert len(records) == 10 and (records.mirror >= 0).any()
    by_name = dict(zip(records.name.tolist(), range(10), strict=True))
    for name, i in by_name.items():
        twin = by_name.get(name.replace("/", "_Flip/", 1))
        if twin is not None:
            assert records.mirror[i] == records.identity[twin]
    # The standard crop: its side is the diagonal of the landmarks' box.
    extent = np.ptp(records.landmarks[..., :2], axis=1)
    np.testing.assert_allclose(np.linalg.norm(extent, axis=1), 120, rtol=0.01)
