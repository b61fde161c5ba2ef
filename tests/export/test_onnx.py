import json
import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

import onnxruntime

from keras_scnn.export.exported_model import output_table
from keras_scnn.export.onnx import write_onnx
from keras_scnn.export.runtimes import open_artifact


@pytest.fixture(scope="module")
def path(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "small.onnx"
    write_onnx(path, small.preset, True, "small", "the card")
    return path


@pytest.fixture(scope="module")
def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.integration
@pytest.mark.parametrize("count", [1, 5])
def test_any_batch_gives_the_predictions_of_keras(session, small, count):
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"image": small.crops[:count]}), strict=True))
    expected = {name: value[:count] for name, value in small.expected.items()}
    assert outputs.keys() == expected.keys()
    for name, value in expected.items():
        atol = {"vertices": 1e-3, "landmarks": 2e-4, "euler_degrees": 1e-2}.get(name, 5e-5)
        np.testing.assert_allclose(outputs[name], value, atol=atol, err_msg=name)


@pytest.mark.integration
def test_tensors_are_named_and_shaped(session, small):
    (image,) = session.get_inputs()
    assert (image.name, image.type) == ("image", "tensor(uint8)")
    assert image.shape == ["batch", 64, 64, 3]
    result = {output.name: tuple(output.shape[1:]) for output in session.get_outputs()}
    assert result == {k: o.shape for k, o in output_table(small.preset, True).items()}


@pytest.mark.integration
def test_the_metadata_travels_with_the_file(session):
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["keras_scnn"])
    assert metadata["preset"] == "small"
    assert metadata["card"] == "the card"


def test_a_missing_converter_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(ImportError, match="pip install '..onnx.'"):
        write_onnx(tmp_path / "x.onnx", small.preset)
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_a_missing_runtime_is_named(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match="pip install '..onnx.'"):
        open_artifact(path)


@pytest.mark.integration
def test_a_damaged_file_is_named(path, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="bad.onnx: ONNX Runtime cannot open it"):
        open_artifact(tmp_path / "bad.onnx")
