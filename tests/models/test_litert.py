import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.export import network
from keras_scnn.export.first_use import ensure_network
from keras_scnn.export.network import network_drift
from keras_scnn.export.verify import LIMITS
from keras_scnn.models import litert, load_preset, presets, read_preset
from keras_scnn.models.inference import BatchedNetwork, open_network, predict
from keras_scnn.models.litert import FILE, LiteNetwork, lite_file, place_for_lite_file
from keras_scnn.models.presets import FOLDER, SETTINGS, list_presets
from keras_scnn.photos.cropping import crop_face
from keras_scnn.photos.detection import FaceDetector, LargestFaceDetector
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.storage.tflite import read_lite_file, with_metadata

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Rendered faces, and a real one at several places and sizes: (30, 120, 120, 3) uint8."""
    rendered = [render_person(SyntheticConfig(photos=5), person)[0] for person in range(4)]
    photo = data.astronaut()
    box = LargestFaceDetector()(photo)
    moved = [
        dataclasses.replace(box, x0=box.x0 + dx, x1=box.x1 + dx + grow, y1=box.y1 + grow)
        for dx in (-8, -3, 0, 4, 9)
        for grow in (0, 20)
    ]
    return np.concatenate([*rendered, [crop_face(photo, one).image for one in moved]])


@pytest.mark.integration
@pytest.mark.parametrize("name", list_presets())
def test_the_packages_presets_give_the_same_faces_in_litert_and_in_keras(name, crops):
    if not (FOLDER / name / FILE).is_file():
        pytest.skip(f"{name} has no {FILE}: it is made on first use")
    preset, network = open_network(name)
    assert isinstance(network, LiteNetwork)
    drift = network_drift(load_preset(name), network, crops)
    limits = dataclasses.asdict(LIMITS["float16"])
    assert set(drift) >= {"landmark_px", "vertex_mm"}
    assert ("feature_degrees" in drift) == (preset.feature_size > 0)
    assert not {key: value for key, value in drift.items() if value > limits[key]}


@pytest.mark.parametrize("name", list_presets())
def test_a_preset_read_without_keras_is_the_one_loaded_with_it(name):
    data = read_preset(name)
    try:
        preset = load_preset(name)
    except FileNotFoundError as error:  # of a recognizer's package
        pytest.skip(str(error))
    for field in ("encoder", "input_size", "feature_size", "metadata", "layout"):
        assert getattr(data, field) == getattr(preset, field), field
    np.testing.assert_array_equal(data.space.whitening.scale, preset.space.whitening.scale)
    np.testing.assert_array_equal(
        data.face_model.landmark_offsets, preset.face_model.landmark_offsets
    )
    if preset.within_person_covariance is None:
        assert data.within_person_covariance is None
    else:
        np.testing.assert_array_equal(
            data.within_person_covariance, preset.within_person_covariance
        )


def test_a_preset_without_its_network_needs_one(crops):
    with pytest.raises(ValueError, match="pass the argument network too"):
        predict(read_preset("mobile"), crops)


def test_threads_do_not_mix_their_faces(crops):
    network = LiteNetwork(FOLDER / "mobile" / FILE)
    alone = [network(crop[None])["parameters"][0] for crop in crops]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: network(crops[i : i + 1]), np.tile(range(30), 4)))
    for i, outputs in enumerate(together):
        np.testing.assert_array_equal(outputs["parameters"][0], alone[i % 30])


def test_a_network_can_be_sent_to_other_processes():
    """As multiprocessing, Spark and Dask do; each process opens its own interpreters."""
    photo, first = data.astronaut()[:300], Reconstructor.from_preset("mobile", FaceDetector())
    other = pickle.loads(pickle.dumps(first))  # noqa: S301
    for one, same in zip(first(photo), other(photo), strict=True):
        np.testing.assert_array_equal(one.vertices, same.vertices)
        np.testing.assert_array_equal(one.landmarks, same.landmarks)


def test_a_file_of_other_weights_or_settings_is_not_used(tmp_path):
    folder = shutil.copytree(FOLDER / "aflw-mobilenet-0.5", tmp_path / "copy")
    assert lite_file(folder) == folder / FILE
    settings = json.loads((folder / SETTINGS).read_text())
    settings["metadata"]["note"] = "changes nothing"
    (folder / SETTINGS).write_text(json.dumps(settings))
    assert lite_file(folder) == folder / FILE
    (folder / SETTINGS).write_text(json.dumps({**settings, "mirrored": True}))
    assert lite_file(folder) is None
    assert isinstance(open_network(folder)[1], BatchedNetwork)


def test_a_damaged_or_foreign_file_is_not_used(tmp_path):
    folder = shutil.copytree(FOLDER / "aflw-mobilenet-0.5", tmp_path / "copy")
    for content in (b"", b"nonsense" * 9, (folder / FILE).read_bytes()[:5000]):
        (folder / FILE).write_bytes(content)
        assert lite_file(folder) is None
        with pytest.raises(ValueError, match=FILE):
            LiteNetwork(folder / FILE)
    with pytest.raises(FileNotFoundError, match="nothing.tflite: no such file; expected a .tflite"):
        LiteNetwork(tmp_path / "nothing.tflite")
    with pytest.raises(IsADirectoryError, match="copy: is a folder; expected a .tflite file"):
        LiteNetwork(folder)


def test_a_file_with_a_flipped_byte_of_its_weights_is_not_used(tmp_path):
    folder = shutil.copytree(FOLDER / "aflw-mobilenet-0.5", tmp_path / "copy")
    content, metadata = read_lite_file(folder / FILE)
    content = bytearray(with_metadata(content, metadata))
    (folder / FILE).write_bytes(content)
    assert lite_file(folder) == folder / FILE
    content[len(content) // 2] ^= 1
    (folder / FILE).write_bytes(content)
    assert lite_file(folder) is None
    with pytest.raises(ValueError, match=f"{FILE}: .*its checksum does not match"):
        LiteNetwork(folder / FILE)


@pytest.mark.integration
def test_a_photo_gets_the_same_face_as_from_keras():
    photo = data.astronaut()
    face = Reconstructor.from_preset("mobile").largest(photo)
    expected = Reconstructor(load_preset("mobile")).largest(photo)
    apart = np.linalg.norm((face.landmarks - expected.landmarks)[:, :2], axis=-1)
    width = expected.box.width / 120  # px of the photo in a px of the crop
    assert apart.mean() < LIMITS["float16"].landmark_px * width
    assert np.abs(face.vertices - expected.vertices).max() < LIMITS["float16"].vertex_p99_mm


@pytest.mark.integration
@pytest.mark.parametrize("command", ["reconstruct", "compare"])
def test_the_commands_import_neither_keras_nor_tensorflow_and_print_the_same(tmp_path, command):
    cv2.imwrite(str(tmp_path / "a.png"), data.astronaut()[:300, ..., ::-1])
    photos = ["a.png"] if command == "reconstruct" else ["a.png", "a.png"]
    code = (
        "import sys; from keras_scnn.__main__ import main;"
        f"status = main({[command, *photos, '--out', 'out']});"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(("1 face of 1 photo", "written: "))


@pytest.fixture
def flip_averaged(tmp_path) -> Path:
    """A preset folder without a LiteRT file, whose outputs are averaged over crop and mirror."""
    folder = shutil.copytree(FOLDER / "aflw-mobilenet-0.5", tmp_path / "copy")
    (folder / FILE).unlink()
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({**settings, "mirrored": True}))
    return folder


@pytest.mark.integration
def test_a_network_is_made_on_first_use_and_kept(flip_averaged, crops, capsys):
    """For flip-averaged presets too, with the same faces as Keras."""
    ensure_network(flip_averaged)
    assert "copy/network.tflite once" in capsys.readouterr().err
    _, lite = open_network(flip_averaged)
    assert isinstance(lite, LiteNetwork)
    preset = load_preset(flip_averaged)
    assert preset.is_flip_averaged
    drift = network_drift(preset, lite, crops)
    limits = dataclasses.asdict(LIMITS["float16"])
    assert not {key: value for key, value in drift.items() if value > limits[key]}
    ensure_network(flip_averaged)
    assert capsys.readouterr().err == ""


def test_a_failed_conversion_is_one_line_and_keras_is_used(flip_averaged, monkeypatch, capsys):
    def refused(*_):
        raise OSError("no room")

    monkeypatch.setattr(network, "write_network", refused)
    ensure_network(flip_averaged)
    reason = "not made; the network runs in Keras: no room"
    assert capsys.readouterr().err.splitlines()[1:] == [reason]
    assert isinstance(open_network(flip_averaged)[1], BatchedNetwork)


def test_files_for_presets_of_the_package_are_in_the_users_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(litert, "FOLDER", tmp_path)
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    folder = shutil.copytree(FOLDER / "aflw-mobilenet-0.5", tmp_path / "small")
    place = place_for_lite_file("small")
    assert place.parent == tmp_path / "cache" / "keras_scnn" / "networks"
    place.parent.mkdir(parents=True)
    (folder / FILE).rename(place)
    assert lite_file("small") == place
    place.write_bytes(b"damaged")
    assert lite_file("small") is None


def test_files_for_presets_that_cannot_be_written_are_in_the_users_cache(
    flip_averaged, tmp_path, monkeypatch, capsys
):
    """Nothing is converted where it could not be kept: every start would convert it again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cached = tmp_path / "cache" / "keras_scnn" / "networks"
    assert place_for_lite_file(flip_averaged) == flip_averaged / FILE
    monkeypatch.setattr("os.access", lambda path, mode: "copy" not in str(path))  # also for root
    assert place_for_lite_file(flip_averaged).parent == cached
    monkeypatch.setattr("os.access", lambda path, mode: False)
    monkeypatch.setattr(network, "write_network", lambda *_: pytest.fail("it was converted"))
    ensure_network(flip_averaged)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("not made; the network runs in Keras: ")
    assert f"{cached}: cannot be written" in line


def test_an_unfinished_run_is_not_converted(flip_averaged, capsys):
    (flip_averaged / "state.json").write_text('{"done": false}')
    ensure_network(flip_averaged)
    assert capsys.readouterr().err == "" and lite_file(flip_averaged) is None


@pytest.mark.parametrize("text", ["{", "[1]", "7"])
def test_a_damaged_state_of_a_run_is_named(text, flip_averaged):
    (flip_averaged / "state.json").write_text(text)
    with pytest.raises(ValueError, match="state.json: not the state of a run"):
        ensure_network(flip_averaged)
