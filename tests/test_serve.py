import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from skimage import data

from keras_scnn.data.synthesis.rendered_people import SyntheticConfig, render_person
from keras_scnn.models.inference import open_network, predict
from keras_scnn.photos.cropping import FaceBox
from keras_scnn.reconstruction.reconstructor import Reconstructor
from keras_scnn.serve import main
from keras_scnn.serving.gate import Gate
from keras_scnn.serving.predictor import PresetPredictor
from keras_scnn.storage.images import decode_image

ROOT = Path(__file__).resolve().parents[1]
MAX_BODY = 4_000_000
BOX = [150.0, 20.0, 300.0, 170.0]


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, "JPEG", quality=95)
    return file.getvalue()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


PHOTO = encoded(data.astronaut()[:300])
WALL = encoded(np.full((200, 200, 3), 90, np.uint8))


@pytest.fixture(scope="module")
def server():
    """The base address of a server process, which must end cleanly on SIGTERM."""
    pytest.importorskip("kserve", reason="extra 'serve' is not installed")
    command = ["-m", "keras_scnn.serve", "--port", "0", "--max-body-mb", str(MAX_BODY / 1e6)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, *command],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    # Standard error is read all the time: a full pipe would stop the server.
    with ThreadPoolExecutor(1) as pool:
        errors = pool.submit(run.stderr.read)
        address = next(
            (m for line in run.stdout if (m := re.search(r"at (http://\S+)/v1/", line))), 0
        )
        if not address:
            pytest.fail(f"the server did not start:\n{errors.result()[-2000:]}")
        yield address.group(1)
        try:
            statuses = stop(run, address.group(1))
            assert run.wait(timeout=40) == 0, errors.result()[-2000:]
            assert statuses == [200] * len(statuses), "a request was not answered"
            assert "Traceback" not in errors.result() and "Warning:" not in errors.result()
        finally:
            run.kill()
            run.stdout.close()


def stop(run: subprocess.Popen, server: str) -> list[int]:
    """SIGTERM while requests are on their way; their statuses."""
    address, photo = f"{server}/v1/models/scnn:predict", {"instances": [{"b64": b64(PHOTO)}] * 8}
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(call, address, photo) for _ in range(4)]
        time.sleep(0.3)
        assert not all(one.done() for one in asked)
        run.send_signal(signal.SIGTERM)
        return [one.result()[0] for one in asked]


@pytest.fixture(scope="module")
def reconstructor() -> Reconstructor:
    return Reconstructor.from_preset()


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """(24, 120, 120, 3) uint8 synthetic faces."""
    people = [render_person(SyntheticConfig(photos=6), person)[0] for person in range(4)]
    return np.concatenate(people)


def call(address: str, body=None, **headers) -> tuple[int, dict]:
    """Status and JSON of an answer; the body is bytes or something for JSON."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    headers = {"Content-Type": "application/json"} | {
        key.replace("_", "-"): value for key, value in headers.items()
    }
    request = urllib.request.Request(address, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def predictions(server: str, instances: list) -> list[dict]:
    status, predicted = call(f"{server}/v1/models/scnn:predict", {"instances": instances})
    assert status == 200, predicted
    return predicted["predictions"]


def check_outputs(outputs: dict, face) -> None:
    """Compare with a ``Reconstruction``, in single precision and pixels of the photo."""
    np.testing.assert_allclose(outputs["parameters"], face.parameters.to_vector(), atol=2e-2)
    np.testing.assert_allclose(outputs["euler_degrees"], face.euler_degrees, atol=2e-2)
    np.testing.assert_allclose(outputs["landmarks"], face.landmarks, atol=2e-2)


@pytest.mark.integration
def test_many_requests_at_once_each_get_the_outputs_of_their_crops(server, crops):
    expected = predict_crops(crops)
    parts = np.split(np.arange(len(crops)), 12)
    with ThreadPoolExecutor(12) as pool:
        asked = [[crops[i].tolist() for i in part] for part in parts]
        answers = list(pool.map(lambda one: predictions(server, one), asked))
    rows = [row for answer in answers for row in answer]
    for name, value in expected.items():
        values = np.array([row[name] for row in rows])
        np.testing.assert_allclose(values, value, atol=2e-2, rtol=1e-4, err_msg=name)


def predict_crops(crops: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of the network that the server runs too, without a server."""
    preset, network = open_network("mobile")
    predicted = predict(preset, crops, network)
    expression = preset.face_model.clip_expression(predicted.parameters.expression)
    points = preset.face_model.landmarks(predicted.parameters.identity, expression)
    pose = predicted.parameters.pose
    return {
        "parameters": np.concatenate(
            [pose.reshape(-1, 12), predicted.parameters.identity, expression], axis=1
        ),
        "euler_degrees": np.degrees(predicted.euler),
        "landmarks": np.einsum("mij,mnj->mni", pose[:, :, :3], points) + pose[:, None, :, 3],
    }


@pytest.mark.integration
def test_photos_with_and_without_a_box(server, reconstructor):
    photo = {"b64": b64(PHOTO)}
    somebody, nobody = predictions(server, [photo, {"b64": b64(WALL)}])
    # One after the other: what shares a batch may differ in the last bits.
    (boxed,) = predictions(server, [{**photo, "box": BOX}])
    (named,) = predictions(server, [{"photo": photo, "box": BOX}])
    image = decode_image(PHOTO)
    (face,) = reconstructor(image)
    (predicted,) = somebody["faces"]
    check_outputs(predicted, face)
    np.testing.assert_allclose(predicted["box"], face.box.as_array(), atol=2e-2)
    assert predicted["score"] == pytest.approx(face.box.score, abs=1e-5)
    assert nobody == {"faces": []}
    (face,) = reconstructor.reconstruct_boxes(image, [FaceBox(*BOX)], passes=1)
    check_outputs(boxed, face)
    assert named == boxed


def infer(server: str, body, **headers) -> tuple[int, dict]:
    return call(f"{server}/v2/models/scnn/infer", body, **headers)


def tensors(predicted: dict) -> dict[str, np.ndarray]:
    return {one["name"]: np.reshape(one["data"], one["shape"]) for one in predicted["outputs"]}


@pytest.mark.integration
def test_the_v2_protocol_gives_the_same_predictions(server, crops):
    image = {"name": "image", "shape": [2, 120, 120, 3], "datatype": "UINT8"}
    flat = crops[:2].ravel()
    status, predicted = infer(server, {"id": "7", "inputs": [{**image, "data": flat.tolist()}]})
    assert status == 200 and predicted["id"] == "7" and predicted["model_name"] == "scnn"
    expected = predictions(server, crops[:2].tolist())
    for name, value in tensors(predicted).items():
        np.testing.assert_allclose(value, [row[name] for row in expected], atol=1e-2)
    binary = {**image, "parameters": {"binary_data_size": flat.size}}
    wanted = [{"name": "landmarks"}]
    header = json.dumps({"inputs": [binary], "outputs": wanted}).encode()
    kind = {"Content_Type": "application/octet-stream"}
    size = {"Inference_Header_Content_Length": str(len(header))}
    status, predicted = infer(server, header + flat.tobytes(), **kind, **size)
    assert status == 200 and list(tensors(predicted)) == ["landmarks"]
    landmarks = [row["landmarks"] for row in expected]
    np.testing.assert_allclose(tensors(predicted)["landmarks"], landmarks, atol=1e-2)
    assert infer(server, header + flat.tobytes()[:99], **kind, **size)[0] == 400


@pytest.mark.integration
def test_photos_in_the_v2_protocol(server, reconstructor):
    texts = [b64(PHOTO), b64(WALL), b64(PHOTO)]
    photo = {"name": "photo", "shape": [3], "datatype": "BYTES", "data": texts}
    status, predicted = infer(server, {"inputs": [photo]})
    assert status == 200, predicted
    named = tensors(predicted)
    assert named["photo_index"].tolist() == [0, 2]
    (face,) = reconstructor(decode_image(PHOTO))
    for i in range(2):
        check_outputs({name: value[i] for name, value in named.items()}, face)
    box = {"name": "box", "shape": [3, 4], "datatype": "FP32", "data": BOX * 3}
    status, predicted = infer(server, {"inputs": [photo, box]})
    assert status == 200 and tensors(predicted)["landmarks"].shape == (3, 68, 3)
    wall = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [b64(WALL)]}
    status, predicted = infer(server, {"inputs": [wall]})
    assert status == 200 and tensors(predicted)["landmarks"].shape == (0, 68, 3)


@pytest.mark.integration
def test_health(server):
    for path in ("/", "/v2/health/live", "/v2/health/ready", "/v1/models/scnn", "/v2/models/scnn"):
        assert call(server + path)[0] == 200, path
    assert call(f"{server}/v2/models/scnn/ready")[1] == {"name": "scnn", "ready": True}


CROP = np.zeros((120, 120, 3), int)
WRONG = {
    "no JSON": (b"{", "Unrecognized request format"),
    "a list": ([1], "must be a JSON object"),
    "no instances": ({"inputs": [1]}, 'expected \\"instances\\"'),
    "empty": ({"instances": []}, '"instances" must be a non-empty list'),
    "signature": ({"instances": [1], "signature_name": "x"}, "signature_name is 'x'"),
    "number": ({"instances": [3]}, "instances[0]: a crop is nested lists"),
    "shape": ({"instances": [CROP.tolist(), [[1]]]}, "instances[1]: a crop must be 120 lists"),
    "ragged": ({"instances": [[[1], [1, 2]]]}, "a crop must be 120 lists"),
    "range": ({"instances": [(CROP + 256).tolist()]}, "whole numbers from 0 to 255"),
    "fractions": ({"instances": [(CROP + 0.5).tolist()]}, "whole numbers from 0 to 255"),
    "base64": ({"instances": [{"b64": "!!"}]}, "instances[0]: not base64"),
    "no text": ({"instances": [{"b64": 3}]}, "base64 text, not int"),
    "bad JPEG": ({"instances": [{"b64": b64(b"nope")}]}, "not a readable image"),
    "cut JPEG": ({"instances": [{"b64": b64(PHOTO[:5000])}]}, "truncated"),
    "long box": ({"instances": [{"b64": b64(PHOTO), "box": [0, 0, 5, 9]}]}, "needs a square"),
    "wide box": (
        {"instances": [{"b64": b64(PHOTO), "box": [0, 0, 9000, 9000]}]}, "the photo only 512"
    ),
    "no box": ({"instances": [{"b64": b64(PHOTO), "box": "here"}]}, "four numbers"),
    "NaN box": (
        {"instances": [{"b64": b64(PHOTO), "box": [0, 0, 5, -5]}]}, "finite edges with x1 > x0"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.integration
def test_a_wrong_request_gets_an_error_that_names_the_fault(server, what):
    body, reason = WRONG[what]
    status, predicted = call(f"{server}/v1/models/scnn:predict", body)
    assert status == 400
    assert reason.replace("\\", "") in predicted["error"]


@pytest.mark.integration
def test_a_photo_of_very_many_pixels_is_not_decoded(server):
    file = io.BytesIO()
    PIL.Image.new("1", (9000, 9000)).save(file, "PNG")
    body = {"instances": [{"b64": b64(file.getvalue())}]}
    status, predicted = call(f"{server}/v1/models/scnn:predict", body)
    assert status == 400 and "9000 x 9000 px" in predicted["error"]


@pytest.mark.parametrize(
    "inputs",
    [
        [],
        [{"name": "image"}],
        [{"name": "other", "shape": [1], "datatype": "FP32", "data": [1]}],
        [{"name": "image", "shape": [1, 120, 120, 3], "datatype": "UINT8", "data": [1, 2]}],
        [{"name": "image", "shape": [1], "datatype": "UINT8", "data": [999]}],
        [{"name": "image", "shape": [1], "datatype": "UINT8", "data": ["x"]}],
        [{"name": "image", "shape": [1], "datatype": "SOUND", "data": [1]}],
        [{"name": "photo", "shape": [1], "datatype": "BYTES", "data": ["!!"]}],
        [{"name": "photo", "shape": [0], "datatype": "BYTES", "data": []}],
    ],
)
@pytest.mark.integration
def test_a_wrong_v2_request_is_a_client_error(server, inputs):
    status, predicted = infer(server, {"inputs": inputs})
    assert 400 <= status < 500 and predicted


@pytest.mark.integration
def test_other_models_large_bodies_and_other_kinds(server):
    address = f"{server}/v1/models/scnn:predict"
    status, predicted = call(f"{server}/v1/models/nobody:predict", {"instances": [CROP.tolist()]})
    assert status == 404 and "nobody" in predicted["error"]
    status, predicted = call(address, b" " * (MAX_BODY + 1))
    assert status == 413 and "larger than 4,000,000 bytes" in predicted["error"]
    assert call(address, b"text", Content_Type="text/plain")[0] == 400
    # Clients cannot unload the model.
    assert call(f"{server}/v2/repository/models/scnn/unload", b"")[0] == 403
    assert call(f"{server}/v1/models/scnn")[0] == 200


def test_the_documented_json_is_json():
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    assert len(blocks) >= 5 and all(isinstance(json.loads(block), dict) for block in blocks)


def test_the_documented_answer_is_that_of_mobile():
    """To the digits given there; the photo is that of the page."""
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "serving.md").read_text(), re.DOTALL)
    (block,) = [b for b in blocks if "12 + K + L numbers" in b]
    (documented,) = json.loads(block)["predictions"][0]["faces"]
    predictor = PresetPredictor.from_preset("mobile")
    outputs, (box,) = predictor.faces(data.astronaut())
    found = {name: np.ravel(array) for name, array in outputs.items()}
    found |= {"box": box.as_array(), "score": np.array([box.score])}
    assert set(documented) == set(found)
    for name, values in documented.items():
        numbers = [float(number) for number in re.findall(r"-?\d+\.\d+", json.dumps(values))]
        assert numbers
        tolerance = 1e-3 if name != "landmarks" else 1e-2
        np.testing.assert_allclose(found[name][: len(numbers)], numbers, rtol=5e-3, atol=tolerance)


def test_a_body_of_unknown_length_is_limited_too():
    sent, predicted = [], [b"a" * 60, b"b" * 60, b"c" * 10]
    parts = [{"type": "http.request", "body": p, "more_body": p[:1] != b"c"} for p in predicted]

    async def app(scope, receive, send):
        sent.append((await receive())["body"])

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message.get("status", message.get("body")))

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    asyncio.run(Gate(app, max_bytes=100)(scope, receive, send))
    assert sent == [413, b'{"error": "the body is larger than 100 bytes"}']
    parts[:] = [{"type": "http.request", "body": b"x" * 100}]
    sent.clear()
    asyncio.run(Gate(app, max_bytes=100)(scope, receive, send))
    assert sent == [b"x" * 100]


def test_without_kserve_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "kserve", None)
    monkeypatch.setitem(sys.modules, "kserve.model_server", None)
    assert main(["--port", "0"]) == 2
    assert "pip install '.[serve]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing"], "no preset 'nothing'"),
        (["--port", "99999"], "port"),
        (["--threads", "0"], "--threads is 0; it must be above 0"),
        (["--max-body-mb", "nan"], "--max-body-mb is nan; it must be above 0, and finite"),
        (["--max-body-mb", "inf"], "--max-body-mb is inf"),
        (["--max-body-mb", "1e-7"], "--max-body-mb is 1e-07; it must be 0.001 or more"),
        (["--host", "nowhere.invalid"], "--host nowhere.invalid --port 0: "),
        (["--name", "a/b"], "--name is 'a/b'"),
        (["--name", ".."], "--name is '..'"),
    ],
)
def test_wrong_options_are_named(capsys, options, message):
    pytest.importorskip("kserve", reason="extra 'serve' is not installed")
    with contextlib.suppress(SystemExit):  # of the parser
        assert main([*options, *([] if "--port" in options else ["--port", "0"])]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("host", "shown"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1")])
def test_the_printed_address_is_valid(monkeypatch, capsys, request, host, shown):
    if host == "::1":
        request.getfixturevalue("ipv6")
    pytest.importorskip("kserve", reason="extra 'serve' is not installed")
    ends_at_once = SimpleNamespace(run=lambda sockets: sockets[0].close())
    monkeypatch.setattr("keras_scnn.serving.server.build_server", lambda *_: ends_at_once)
    assert main(["--host", host, "--port", "0"]) == 0
    (address,) = re.findall(r"at (http://\S+)/v1/models/scnn", capsys.readouterr().out)
    place = urllib.parse.urlsplit(address)
    assert place.netloc == f"{shown}:{place.port}" and place.hostname == host and place.port > 0
