import json
import re
import struct

import numpy as np
import pytest

pytest.importorskip("kserve", reason="extra 'serve' is not installed")
from keras_scnn.serving.server import require_kserve  # noqa: E402
from keras_scnn.serving.tensors import (  # noqa: E402
    encode_response,
    read_binary,
    read_tensor,
)

require_kserve()
from kserve import InferInput, InferRequest  # noqa: E402
from kserve.errors import InvalidInput  # noqa: E402
from kserve.protocol.infer_type import RequestedOutput  # noqa: E402


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("UINT8", [0.7, 0.2], "input image: UINT8 needs whole numbers"),
        ("UINT8", [90.7, 12], "whole numbers"),
        ("UINT8", ["90", "12"], "whole numbers"),
        ("UINT8", [True, False], "whole numbers"),
        ("UINT8", [None, 3], "whole numbers"),
        ("INT32", [150.9, 20.9], "INT32 needs whole numbers"),
        ("UINT8", [256, 0], "256 out of bounds"),
        ("FP32", ["1", "2"], "FP32 needs numbers"),
        ("FP64", [True, False], "FP64 needs numbers"),
        ("FP32", [1, 2, 3], "cannot reshape"),
        ("FP32", [[1, 2], [3]], "inhomogeneous"),
        ("SOUND", [1, 2], "unknown datatype 'SOUND'; image is UINT8, photo BYTES and box"),
    ],
)
def test_data_that_does_not_match_its_datatype_is_refused(datatype, data, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_tensor(InferInput("image", [2], datatype, data))


@pytest.mark.parametrize(
    ("datatype", "data", "dtype"),
    [
        ("UINT8", [0, 255], np.uint8),
        ("UINT8", [[0], [255]], np.uint8),
        ("INT64", [-1, 1 << 40], np.int64),
        ("UINT64", [1, 1 << 40], np.uint64),
        ("FP32", [1, 2.5], np.float32),
        ("BYTES", ["a", "b"], np.object_),
    ],
)
def test_data_are_read_as_they_are(datatype, data, dtype):
    values = read_tensor(InferInput("a", [2], datatype, data))
    assert values.dtype == dtype and values.tolist() == np.ravel(np.array(data, dtype)).tolist()
    assert read_tensor(InferInput("a", [0], datatype, [])).shape == (0,)


def body(*parts: bytes, **inputs) -> tuple[bytes, str]:
    head = json.dumps({"inputs": [{"name": name, **one} for name, one in inputs.items()]}).encode()
    return head + b"".join(parts), str(len(head))


def raw(size, datatype: str = "FP32", shape=(2,)) -> dict:
    return {"datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def test_raw_bytes_are_read_in_the_order_of_their_inputs():
    text = struct.pack("<I", 3) + b"abc"
    in_json = {"datatype": "INT32", "shape": [2], "data": [5, 6]}
    floats = np.float32([1.5, -2])
    parts = text, floats.tobytes()
    request = read_binary(*body(*parts, a=raw(7, "BYTES", [1]), b=in_json, c=raw(8)), "scnn")
    a, b, c = (read_tensor(one) for one in request.inputs)
    assert a.tolist() == [b"abc"] and b.tolist() == [5, 6] and c.tolist() == [1.5, -2]
    assert request.model_name == "scnn"
    half = np.float16([1.5, -2])
    (tensor,) = read_binary(*body(half.tobytes(), a=raw(4, "FP16")), "scnn").inputs
    assert read_tensor(tensor).tolist() == [1.5, -2]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        (body(bytes(11), a=raw(8)), "3 bytes come after those of the inputs"),
        (body(bytes(7), a=raw(8)), "input a: binary_data_size is 8, and 7 bytes are left"),
        (body(bytes(8), a=raw(-1)), "binary_data_size is -1"),
        (body(bytes(8), a=raw("8")), "binary_data_size is '8'"),
        (body(bytes(8), a=raw(8.0)), "binary_data_size is 8.0"),
        (body(bytes(8), a=raw(True)), "binary_data_size is True"),
        (body(bytes(8), a={"datatype": "FP32", "shape": [2]}), "inputs.0.data: Field required"),
        (body(bytes(8), a={**raw(8), "shape": ["x"]}), "inputs.0.shape.0: Input should be"),
        ((b"[]", "2"), "valid dictionary"),
        ((b"{}", "2"), "inputs: Field required"),
        ((b"{}", None), "the header Inference-Header-Content-Length"),
        ((b"{}", "3"), "Inference-Header-Content-Length is 3; the body has 2 bytes"),
        ((b"{}", "-1"), "Inference-Header-Content-Length is -1"),
        ((b"{}", "²"), "Inference-Header-Content-Length is ²"),
    ],
)
def test_sizes_that_do_not_fit_the_body_are_refused(sent, message):
    with pytest.raises(InvalidInput, match=re.escape(message)) as caught:
        read_binary(*sent, "scnn")
    assert "bytes: Input" not in caught.value.reason


def test_raw_text_of_a_wrong_length_is_named():
    (tensor,) = read_binary(*body(struct.pack("<I", 9) + b"a", a=raw(5, "BYTES", [1])), "").inputs
    with pytest.raises(ValueError, match="input a: raw BYTES are a length in 4 bytes"):
        read_tensor(tensor)


OUTPUTS = {"scale": np.float32([0.1, 2]), "photo_index": np.int32([0, 3])}


@pytest.mark.parametrize(
    ("wanted", "every", "raw_names"),
    [
        ({}, None, []),
        ({}, True, ["scale", "photo_index"]),
        ({"scale": True}, None, ["scale"]),
        ({"scale": False}, True, ["photo_index"]),
    ],
)
def test_outputs_are_raw_bytes_where_that_is_wanted(wanted, every, raw_names):
    asked = [RequestedOutput(name, {"binary_data": value}) for name, value in wanted.items()]
    parameters = None if every is None else {"binary_data_output": every}
    request = InferRequest("scnn", [], parameters=parameters, request_outputs=asked)
    encoded = encode_response(request, OUTPUTS, "7", "1.0")
    answer, length = encoded.body, encoded.json_size
    head = json.loads(answer[:length])
    assert (head["id"], head["model_name"], head["model_version"]) == ("7", "scnn", "1.0")
    assert [one["name"] for one in head["outputs"]] == list(OUTPUTS)
    at = length
    for tensor in head["outputs"]:
        value = OUTPUTS[tensor["name"]]
        assert tensor["shape"] == [2]
        assert tensor["datatype"] == {"scale": "FP32", "photo_index": "INT32"}[tensor["name"]]
        if tensor["name"] not in raw_names:
            np.testing.assert_array_equal(np.array(tensor["data"], value.dtype), value)
            continue
        size = tensor["parameters"]["binary_data_size"]
        assert "data" not in tensor
        np.testing.assert_array_equal(np.frombuffer(answer[at : at + size], value.dtype), value)
        at += size
    assert at == (len(answer) if raw_names else None)
