"""A bundle describes itself: its JSON against the files, the package's numbers and the runtime."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

import keras_scnn
from keras_scnn.export import pipeline
from keras_scnn.export.__main__ import main
from keras_scnn.export.artifacts import Subject
from keras_scnn.export.bundle import write_bundle
from keras_scnn.export.crops import Crops
from keras_scnn.models.presets import preset_digest
from keras_scnn.photos import blazeface
from keras_scnn.photos.detection import FaceDetector
from keras_scnn.storage.tflite import open_interpreter, read_lite_file


@pytest.fixture(scope="module")
def written(small, tmp_path_factory) -> Path:
    """A small preset's bundle; its network is converted once for all tests of exports."""
    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    crops = Crops(small.crops, None, "crops")
    conversions = {True: small.converted()}
    subject = Subject(small.preset, "small", crops, crops, digest="123", conversions=conversions)
    write_bundle(folder, subject, "float32")
    return folder


@pytest.fixture(scope="module")
def content(written) -> dict:
    return json.loads((written / "bundle.json").read_text())


def test_it_lists_its_files_with_their_digests(written, content):
    names = {path.name for path in written.iterdir()} - {"bundle.json"}
    assert content["files"].keys() == names
    assert names == {
        "detector.tflite",
        "facemesh.tflite",
        "network.tflite",
        "triangles.bin",
        "uv.bin",
    }
    for name, about in content["files"].items():
        data = (written / name).read_bytes()
        assert about == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert (content["format"], content["version"]) == ("keras_scnn.bundle", 1)
    assert (content["preset"], content["digest"]) == ("small", "123")


@pytest.mark.parametrize("network", ["detector", "check", "network"])
def test_tensors_are_those_of_the_file(written, content, network):
    about = content[network]
    interpreter = open_interpreter((written / about["file"]).read_bytes())
    if signature := about.get("signature"):
        runner = interpreter.get_signature_runner(signature)
        (name, tensor), *others = runner.get_input_details().items()
        outputs = runner.get_output_details()
    else:
        tensor, *others = interpreter.get_input_details()
        name, outputs = tensor["name"], {d["name"]: d for d in interpreter.get_output_details()}
    shape, dtype = tensor["shape"].tolist(), np.dtype(tensor["dtype"]).name
    described = about["input"]
    assert (name, shape, dtype) == (described["name"], [1, *described["shape"]], described["dtype"])
    assert not others
    shapes = {name: output["shape"].tolist() for name, output in outputs.items()}
    if network == "check":  # its points are not used
        assert shapes[about["score"]] == [1, 1, 1, 1]
        return
    assert shapes == {name: [1, *output["shape"]] for name, output in about["outputs"].items()}


def test_anchors_by_its_rule_are_the_detectors(content):
    size, centers = content["detector"]["input"]["shape"][0], []
    for layer in content["detector"]["anchors"]["layers"]:
        cells = size // layer["stride"]
        for row, column in np.ndindex(cells, cells):
            center = (np.array([column, row]) + 0.5) * layer["stride"]
            centers += layer["per_cell"] * [center / size]
    np.testing.assert_allclose(centers, blazeface.anchors(), atol=1e-12)


def test_the_detectors_input_is_what_the_detector_gives_it(content, monkeypatch):
    seen, detector = [], FaceDetector(tiles=False)
    interpreter = detector._interpreter()
    set_tensor = interpreter.set_tensor

    def seeing(index, value):
        seen.append(value.copy())
        set_tensor(index, value)

    monkeypatch.setattr(interpreter, "set_tensor", seeing)
    photo = np.arange(128 * 128 * 3, dtype=np.uint8).reshape(128, 128, 3)
    detector.detect(photo)
    about = content["detector"]["input"]
    np.testing.assert_allclose(seen[0][0], photo * about["multiply"] + about["add"], atol=1e-6)


def test_the_mesh_is_the_face_models(written, content, small):
    model, mesh = small.preset.face_model, content["mesh"]
    triangles = np.fromfile(written / mesh["triangles"]["file"], "<u4")
    np.testing.assert_array_equal(triangles.reshape(mesh["triangles"]["shape"]), model.triangles)
    uv = np.fromfile(written / mesh["uv"]["file"], "<f4").reshape(mesh["uv"]["shape"])
    np.testing.assert_array_equal(uv, model.uv)
    assert content["network"]["outputs"][mesh["vertices"]["output"]]["shape"] == [len(uv), 3]


def test_parameters_have_names_and_places(content, small):
    about, layout = content["network"]["parameters"], small.preset.layout
    low, high = about["slices"]["expression"]
    assert (low, high) == (layout.expression.start, layout.expression.stop)
    assert about["expression"] == list(small.preset.face_model.expression_names)
    assert high == content["network"]["outputs"]["parameters"]["shape"][0]


def test_its_crop_is_that_of_the_networks_own_metadata(written, content):
    metadata = read_lite_file(written / "network.tflite")[1]
    assert content["crop"] == metadata["crop"] and content["license"] == metadata["license"]


def test_every_rule_of_the_detector_is_one_of_the_package(monkeypatch):
    """A number that the package changes changes in the bundle, too."""
    before = json.dumps([pipeline.describe_detector(), pipeline.describe_crop(120)])
    rules = {
        "detection": ["CLEAR_SCORE", "CONFIRM_ZOOM", "MIN_SCORE", "PADDED_ZOOM", "SURE_SCORE"],
        "blazeface": ["SAME_FACE_IOU", "NESTED_SHARE"],
        "cropping": ["DETECTOR_SHIFT", "DETECTOR_SCALE", "MIN_TURN", "MAX_RESIZE"],
    }
    for module, names in rules.items():
        for name in names:
            with monkeypatch.context() as patch:
                patch.setattr(getattr(pipeline, module), name, 0.123456789)
                after = json.dumps([pipeline.describe_detector(), pipeline.describe_crop(120)])
            assert after != before and "0.123456789" in after, name


def test_a_model_without_texture_coordinates_has_no_file_of_them(small, tmp_path, monkeypatch):
    monkeypatch.setitem(small.preset.face_model.__dict__, "uv", None)
    crops = Crops(small.crops, None, "crops")
    subject = Subject(small.preset, "small", crops, crops, conversions={True: small.converted()})
    write_bundle(tmp_path / "bundle", subject, "float32")
    assert not (tmp_path / "bundle" / "uv.bin").exists()
    content = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert content["mesh"]["uv"] is None and "uv.bin" not in content["files"]


@pytest.mark.integration
def test_a_bundle_is_exported_verified_and_from_python(small, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_scnn.export.crops.PEOPLE", 1)
    monkeypatch.setattr("keras_scnn.export.crops.PHOTOS", 4)
    (path,) = checks = keras_scnn.export_preset(small.folder, tmp_path, ["bundle"])
    assert path == tmp_path / "small-float32-bundle" and not checks[path].broken
    assert checks[path].milliseconds.keys() == {"1", "2"}  # of threads: LiteRT ran its network
    assert checks[path].bytes == sum(file.stat().st_size for file in path.iterdir())
    content = json.loads((path / "bundle.json").read_text())
    assert content["digest"] == preset_digest(small.folder)
    report = json.loads((tmp_path / "small-float32-bundle.json").read_text())
    assert report["metadata"]["outputs"]["vertices"]["shape"] == [3716, 3]


def test_a_file_in_a_bundles_place_is_one_clear_error(small, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    arguments = [str(small.folder), "--to", "bundle", "--out", str(tmp_path / "file")]
    assert main(arguments) == 2
    assert "file: is a file; the results need a folder" in capsys.readouterr().err
