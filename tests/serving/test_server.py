"""The application in this process, with a predictor of known answers."""

import asyncio
import base64
import io
import json
import logging
import socket
import struct
import threading
import time
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from keras_scnn.photos.cropping import FaceBox
from keras_scnn.serving.bodies import parsing
from keras_scnn.serving.journal import Journal, Metrics
from keras_scnn.serving.predictor import PresetPredictor, model_version

pytestmark = pytest.mark.filterwarnings(
    "ignore:ORJSONResponse is deprecated"  # KServe 0.21 answers with FastAPI's old class
)
pytest.importorskip("kserve", reason="extra 'serve' is not installed")
from keras_scnn.serving.server import build_server, require_kserve, shown  # noqa: E402

require_kserve()
import httpx  # noqa: E402
from prometheus_client.parser import text_string_to_metric_families  # noqa: E402

MAX_BODY, PREDICT, INFER = 200_000, "/v1/models/scnn:predict", "/v2/models/scnn/infer"


class Fake:
    """Finds a face in each bright photo."""

    input_size = 4
    shapes = {"parameters": (12,)}

    def crops(self, crops):
        return {"parameters": np.zeros((len(crops), 12), np.float32)}

    def boxes(self, images, boxes):
        return self.crops(boxes)

    def faces(self, image):
        if image.max() == 13:
            raise RuntimeError("it fails")
        if image.mean() < 128:
            return None
        return self.crops([0]), (FaceBox(1, 2, 9, 10, 0.75),)


class Served:
    """Requests to an application, and the lines of its log."""

    def __init__(self):
        self.lines = []
        server = build_server(Fake(), "scnn", MAX_BODY, 2, version="1.2+abc", log=self.lines.append)
        self._app = server.config.app

    def ask(self, method: str, path: str, **options) -> httpx.Response:
        async def once():
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await client.request(method, path, **options)

        return asyncio.run(once())

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def post(self, body: bytes, kind: str, path: str = PREDICT) -> httpx.Response:
        return self.ask("POST", path, content=body, headers={"Content-Type": kind})

    def post_json(self, body: dict, path: str = PREDICT) -> httpx.Response:
        return self.ask("POST", path, json=body)

    def messages(self, path: str, messages: list[dict]) -> None:
        """Post the messages of ASGI in which a body arrives."""

        async def receive():
            return messages.pop(0)

        async def send(_):
            pass

        kind = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": path, "headers": kind}
        asyncio.run(self._app({**scope, "query_string": b""}, receive, send))

    def metric(self, sample: str, **labels) -> float:
        """Sum of the samples with these labels."""
        families = text_string_to_metric_families(self.get("/metrics").text)
        samples = (s for family in families for s in family.samples if s.name == sample)
        return sum(s.value for s in samples if labels.items() <= s.labels.items())


@pytest.fixture
def served() -> Served:
    return Served()


def photo(value: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    PIL.Image.new("RGB", (32, 16), (value,) * 3).save(file, kind)
    return file.getvalue()


LARGE_PHOTO = photo(200) + b"{" * 3000  # as often as in a photo of 700 kB


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_photo_as_body_gets_what_it_gets_in_json(served, kind):
    data = photo(200, kind.upper())
    answer = served.post(data, f"image/{kind}")
    assert answer.status_code == 200
    (prediction,) = answer.json()["predictions"]
    (face,) = prediction["faces"]
    assert face["box"] == [1, 2, 9, 10] and face["score"] == 0.75
    text = base64.b64encode(data).decode()
    in_json = served.post_json({"instances": [{"b64": text}]})
    assert in_json.json() == answer.json()


@pytest.mark.parametrize(
    ("body", "kind", "status", "reason"),
    [
        (b"", "image/jpeg", 400, "the body: not a readable image"),
        (b"nope", "image/png", 400, "the body: not a readable image"),
        (photo(200)[:60], "image/png", 400, "the body: not a readable image"),
        (photo(200), "text/plain", 400, "must be a JSON object"),
        (photo(200), "text/plain", 400, "or a photo, with one such as image/jpeg"),
        (photo(200), "application/json", 400, "Unrecognized request format"),
        (LARGE_PHOTO, "application/json", 400, "Unrecognized request format"),
        (LARGE_PHOTO, "application/octet-stream", 400, "or a photo, with one such as image/jpeg"),
        (LARGE_PHOTO, "application/octet-stream", 400, "Unrecognized request format"),
        (LARGE_PHOTO, "application/x-www-form-urlencoded", 400, "must be a JSON object"),
        (bytes(MAX_BODY + 1), "image/jpeg", 413, "larger than 200,000 bytes"),
    ],
)
def test_a_body_that_is_no_photo_gets_its_error(served, body, kind, status, reason):
    answer = served.post(body, kind)
    assert answer.status_code == status and reason in answer.json()["error"]


def test_a_photo_as_body_has_the_limits_of_one_in_json(served):
    file = io.BytesIO()
    PIL.Image.new("1", (9000, 9000)).save(file, "PNG")
    answer = served.post(file.getvalue(), "image/png")
    assert answer.status_code == 400 and "9000 x 9000 px" in answer.json()["error"]


def test_a_photo_for_v2_is_the_clients_error(served):
    assert served.post(photo(200), "image/png", INFER).status_code == 400


def test_each_request_has_one_line_without_its_photo(served):
    data = photo(200)
    served.post(data, "image/png", PREDICT + "?secret=1")
    served.post(b"nope", "image/png")
    served.get("/v1/models/" + "x" * 999)
    served.post(photo(13), "image/png")
    served.post(b"", "text/plain", "/v2/repository/models/scnn/unload")
    entries = [json.loads(line) for line in served.lines]
    assert [e["status"] for e in entries] == [200, 400, 404, 503, 403]
    assert [e["faces"] for e in entries] == [1, None, None, None, None]
    first = entries[0]
    assert set(first) == {
        "time", "client", "method", "path", "status", "ms", "queue_ms", "bytes", "faces"
    }  # fmt: skip
    assert (first["method"], first["path"], first["bytes"]) == ("POST", PREDICT, len(data))
    assert first["client"] == "127.0.0.1" and first["ms"] >= first["queue_ms"] >= 0
    assert all("\n" not in line and len(line) < 500 for line in served.lines)


def test_requests_are_answered_even_if_the_log_cannot_be_written():
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    def full(line: str) -> None:
        raise OSError(28, "No space left on device")

    sent, metrics = [], Metrics()

    async def send(message):
        sent.append(message["status"])

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(Journal(answer, metrics, full)(scope, None, send))
    assert sent == [200]
    assert metrics.registry.get_sample_value(
        "scnn_requests_total", {"kind": "other", "status": "200"}
    ) == 1  # fmt: skip


def test_metrics_count_answers_faces_and_refusals(served):
    for value in (200, 201, 3):
        served.post(photo(value), "image/png")
    served.post_json({"instances": [np.zeros((4, 4, 3), int).tolist()] * 3})
    served.post(b"nope", "image/png")
    served.post(bytes(MAX_BODY + 1), "image/png")
    served.post(photo(13), "image/png")
    text = {"shape": [2], "name": "photo", "datatype": "BYTES"}
    text["data"] = [base64.b64encode(photo(v)).decode() for v in (200, 3)]
    served.post_json({"inputs": [text]}, INFER)
    metric = served.metric
    assert metric("scnn_requests_total", kind="predict", status="200") == 4
    assert metric("scnn_requests_total", kind="infer", status="200") == 1
    assert metric("scnn_requests_total", kind="predict", status="400") == 1
    assert metric("scnn_requests_total", status="413") == 1
    assert metric("scnn_requests_total", status="503") == 1
    assert metric("scnn_faces_total") == 2 + 3 + 1
    assert metric("scnn_requests_without_face_total") == 1
    assert metric("scnn_refusals_total", reason="invalid") == 1
    assert metric("scnn_refusals_total", reason="large") == 1
    assert metric("scnn_refusals_total") == 2
    assert metric("scnn_queue_seconds_count") == 7  # the one that was too large never waited
    assert metric("scnn_request_seconds_count", kind="predict") == 7
    assert metric("scnn_model_info", version="1.2+abc", name="scnn") == 1
    assert metric("request_predict_seconds_count") > 0  # KServe's own are there too


def test_a_client_that_leaves_during_its_body_sent_no_invalid_request(served):
    begun = {"type": "http.request", "body": b'{"instan', "more_body": True}
    served.messages(PREDICT, [begun, {"type": "http.disconnect"}])
    assert served.metric("scnn_requests_total", kind="predict", status="499") == 1
    assert served.metric("scnn_refusals_total", reason="left") == 1
    assert served.metric("scnn_refusals_total") == 1
    assert json.loads(served.lines[0])["status"] == 499


def test_large_requests_leave_half_of_the_threads_to_small_ones(monkeypatch):
    monkeypatch.setattr("keras_scnn.serving.requests.LARGE_PIXELS", 500)  # a photo has 512
    at_once, most, lock = [0], [0], threading.Lock()

    class Slow(Fake):
        def faces(self, image):
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            time.sleep(0.05)
            with lock:
                at_once[0] -= 1

    app = build_server(Slow(), "scnn", MAX_BODY, 4).config.app

    async def several() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            data, headers = photo(200), {"Content-Type": "image/png"}
            return await asyncio.gather(
                *(client.post(PREDICT, content=data, headers=headers) for _ in range(6))
            )

    assert {answer.status_code for answer in asyncio.run(several())} == {200}
    assert most == [2]


@pytest.mark.parametrize("path", [PREDICT, "/v1/models/nobody:predict", INFER])
def test_an_error_of_a_client_has_no_traceback_in_the_log(served, path):
    from kserve.logging import logger

    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    logger.addHandler(handler)
    try:
        assert served.post(b"nope", "image/png", path).status_code in (400, 404)
    finally:
        logger.removeHandler(handler)
    assert records == []


def test_labels_do_not_grow_with_what_clients_ask_for(served):
    for number in range(20):
        served.get(f"/nowhere/{number}")
    assert served.metric("scnn_requests_total", kind="other", status="404") == 20


def test_batch_sizes_of_the_network_are_reported():
    sizes = []
    predictor = PresetPredictor.from_preset("mobile", on_batch=sizes.append)
    predictor.crops(np.zeros((3, 120, 120, 3), np.uint8))
    predictor.crops(np.zeros((1, 120, 120, 3), np.uint8))
    predictor.close()
    assert sizes == [3, 1]
    with pytest.raises(RuntimeError, match="the predictor was closed"):
        predictor.crops(np.zeros((1, 120, 120, 3), np.uint8))
    with pytest.raises(RuntimeError, match="the predictor was closed"):
        predictor.faces(np.zeros((120, 120, 3), np.uint8))


@pytest.mark.parametrize("shape", [(1, 60, 60, 3), (1, 240, 240, 3), (0, 120, 120, 3)])
def test_a_predictor_refuses_crops_of_another_size(shape):
    predictor = PresetPredictor.from_preset("mobile")
    with pytest.raises(ValueError, match="120, 120, 3"):
        predictor.crops(np.zeros(shape, np.uint8))
    predictor.close()


def test_the_version_is_served(served):
    metadata = served.get("/v2/models/scnn").json()
    assert metadata["versions"] == ["1.2+abc"] and metadata["platform"] == "keras_scnn"
    crop = {"name": "image", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": [0] * 48}
    answer = served.post_json({"inputs": [crop]}, INFER).json()
    assert answer["model_version"] == "1.2+abc"
    assert model_version("mobile") != model_version("accurate")


def test_the_page_of_the_interface(served):
    page = served.get("/docs")
    assert page.status_code == 200 and "/openapi.json" in page.text
    schema = served.get("/openapi.json").json()
    body = schema["paths"]["/v1/models/{model_name}:predict"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "image/jpeg", "image/png", "image/webp"}
    body = schema["paths"]["/v2/models/{model_name}/infer"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/octet-stream"}
    assert not [path for path in schema["paths"] if "repository" in path]
    operations = [one for methods in schema["paths"].values() for one in methods.values()]
    names = {one["name"] for operation in operations for one in operation.get("parameters", [])}
    assert names == {"model_name"}  # no "model_version"
    examples = [one for operation in operations for one in operation.get("parameters", [])]
    assert {one["example"] for one in examples} == {"scnn"}
    assert not [path for path in schema["paths"] if "version}" in path]
    assert served.get("/openapi.json").json() == schema


def test_a_server_that_is_stopped_before_it_runs_ends():
    server = build_server(Fake(), "scnn", MAX_BODY, 2)
    server.stop()
    listening = socket.create_server(("127.0.0.1", 0))
    running = threading.Thread(target=server.run, args=([listening],), daemon=True)
    running.start()
    running.join(10)
    listening.close()
    assert not running.is_alive()


def test_two_servers_in_one_process_share_nothing(served):
    other = Served()
    other.post(photo(200), "image/png")
    assert served.metric("scnn_faces_total") == 0 and other.metric("scnn_faces_total") == 1


def sent_as_tensor(data: bytes, length: int | None = None) -> tuple[bytes, dict[str, str]]:
    """A photo as the bytes of the v2 protocol's binary data, and the headers of that."""
    length = len(data) if length is None else length
    sent = struct.pack("<I", length) + data
    parameters = {"binary_data_size": len(sent)}
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "parameters": parameters}
    head = json.dumps({"inputs": [tensor]}).encode()
    kind = {"Content-Type": "application/octet-stream"}
    return head + sent, kind | {"Inference-Header-Content-Length": str(len(head))}


@pytest.mark.parametrize(
    ("path", "body", "headers", "hint"),
    [
        (PREDICT, photo(200, "JPEG"), {"Content-Type": kind}, "or a photo, with one such as image/")
        for kind in ("application/octet-stream", "application/json", "text/plain", "")
    ]
    + [
        (INFER, *sent_as_tensor(photo(200, "JPEG")), "a photo is base64 text"),
        (INFER, *sent_as_tensor(photo(200, "JPEG"), 1 << 30), "a photo is base64 text"),
        (INFER, *sent_as_tensor(b"no base64"), "photo[0]: not base64"),
        (
            INFER,
            photo(200, "JPEG"),
            {"Content-Type": "application/octet-stream"},
            "a photo is base64 text",
        ),
    ],
)
def test_a_photo_sent_in_another_way_gets_a_message_with_the_right_one(
    served, path, body, headers, hint
):
    answer = served.ask("POST", path, content=body, headers=headers)
    assert answer.status_code == 400 and hint in answer.json()["error"]
    assert "\\x" not in answer.text and "JFIF" not in answer.text


@pytest.mark.parametrize(
    "kind",
    ["application/json; charset=utf-8", "application/json;charset=UTF-8", "Application/JSON"],
)
@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_the_content_type_of_json_may_have_a_charset_and_capitals(served, kind, path):
    text = base64.b64encode(photo(200)).decode()
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [text]}
    body = {"instances": [{"b64": text}]} if path == PREDICT else {"inputs": [tensor]}
    answer = served.post(json.dumps(body).encode(), kind, path)
    assert answer.status_code == 200
    assert answer.json().keys() & {"predictions", "outputs"}


def test_the_id_of_a_v2_request_comes_back_and_few_inputs_are_taken(served):
    crop = {"name": "image", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": [0] * 48}
    assert served.post_json({"id": "a-7", "inputs": [crop]}, INFER).json()["id"] == "a-7"
    ids = {served.post_json({"inputs": [crop]}, INFER).json()["id"] for _ in range(2)}
    assert len(ids) == 2 and "" not in ids
    many = [{**crop, "name": str(i)} for i in range(9)]
    assert "9 inputs; give 'image'" in served.post_json({"inputs": many}, INFER).json()["error"]


def test_two_inputs_of_one_name_are_refused(served):
    text = base64.b64encode(photo(200)).decode()
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [text]}
    answer = served.post_json({"inputs": [tensor, tensor]}, INFER)
    assert answer.status_code == 400 and "['photo'] are given more than once" in answer.text


def test_an_unknown_output_is_refused_before_a_face_is_computed(served, monkeypatch):
    monkeypatch.delattr(Fake, "crops")
    monkeypatch.delattr(Fake, "faces")
    text = base64.b64encode(photo(200)).decode()
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [text]}
    answer = served.post_json({"inputs": [tensor], "outputs": [{"name": "depth"}]}, INFER)
    assert answer.status_code == 400
    assert "['depth'] are not known; known: photo_index, box, score, parameters" in answer.text


def test_only_the_requested_outputs_are_returned_in_their_order(served):
    text = base64.b64encode(photo(200)).decode()
    tensor = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [text]}
    for names in (["score", "photo_index"], []):
        asked = {"inputs": [tensor], "outputs": [{"name": name} for name in names]}
        outputs = served.post_json(asked, INFER).json()["outputs"]
        every = ["photo_index", "box", "score", "parameters"]
        assert [one["name"] for one in outputs] == (names or every)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v3/models", 404), ("GET", INFER, 405), ("DELETE", "/v2/health/live", 405)],
)
def test_a_wrong_address_or_method_gets_an_error_like_all_others(served, method, path, status):
    answer = served.ask(method, path)
    assert answer.status_code == status and answer.json().keys() == {"error"}


def test_a_compressed_body_is_refused_with_the_reason(served):
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    answer = served.ask("POST", PREDICT, content=photo(200), headers=headers)
    assert answer.status_code == 415 and "without Content-Encoding" in answer.json()["error"]
    assert answer.headers["Content-Length"] == str(len(answer.content))
    assert served.metric("scnn_refusals_total", reason="encoded") == 1
    headers["Content-Encoding"] = "identity"
    answer = served.ask("POST", PREDICT, content=photo(200), headers=headers)
    assert answer.status_code == 200


def test_base64_as_raw_bytes_is_a_photo(served):
    body, headers = sent_as_tensor(base64.b64encode(photo(200)))
    assert served.ask("POST", INFER, content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xe0 '", b'\xff"', b"'\"\xff", bytes(200)])
def test_raw_bytes_are_never_shown(data):
    assert shown("the body has ['a', 'b', 'c']") == "the body has ['a', 'b', 'c']"
    assert shown(f"Failed to encode {data!r} by UTF-8") == "Failed to encode ... by UTF-8"
    assert shown(f"Failed to encode {data!r}"[:24]) == "Failed to encode ..."


@pytest.mark.parametrize("data", [[0.7] * 48, ["9"] * 48, [True] * 48])
def test_fractions_and_text_are_no_pixels_in_v2_either(served, data):
    crop = {"name": "image", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": data}
    answer = served.post_json({"inputs": [crop]}, INFER)
    assert answer.status_code == 400
    assert answer.json() == {"error": "input image: UINT8 needs whole numbers"}


@pytest.mark.parametrize("shape", [[0, 4, 4, 3], [4, 4, 3], [1, 4, 4, 1]])
def test_the_shape_of_crops_is_named(served, shape):
    data = [0] * int(np.prod(shape))
    crop = {"name": "image", "shape": shape, "datatype": "UINT8", "data": data}
    error = served.post_json({"inputs": [crop]}, INFER).json()["error"]
    assert error == f"image has the shape {tuple(shape)}; it must be (B, 4, 4, 3), B above 0"


def test_raw_bytes_are_answered_as_raw_bytes(served):
    crop = {"name": "image", "shape": [2, 4, 4, 3], "datatype": "UINT8"}
    crop["parameters"] = {"binary_data_size": 96}
    wanted = [{"name": "parameters", "parameters": {"binary_data": True}}]
    head = json.dumps({"inputs": [crop], "outputs": wanted}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = served.ask("POST", INFER, content=head + bytes(96), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Length"] == str(len(answer.content))
    length = int(answer.headers["Inference-Header-Content-Length"])
    (tensor,) = json.loads(answer.content[:length])["outputs"]
    assert tensor["shape"] == [2, 12] and tensor["parameters"]["binary_data_size"] == 96
    assert answer.content[length:] == bytes(96)
    answer = served.ask("POST", INFER, content=head + bytes(99), headers=headers)
    assert answer.status_code == 400 and "3 bytes come after" in answer.json()["error"]
    headers["Content-Type"] = "application/json"
    answer = served.ask("POST", INFER, content=head + bytes(96), headers=headers)
    assert answer.status_code == 422
    assert "need Content-Type: application/octet-stream" in answer.json()["error"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_v2_json_of_another_type_gets_the_right_one(served, kind):
    answer = served.post(b'{"inputs": []}', kind, INFER)
    assert answer.status_code == 400
    assert "must be JSON, with Content-Type: application/json" in answer.json()["error"]


def test_the_metadata_lists_all_outputs_and_extensions(served):
    outputs = served.get("/v2/models/scnn").json()["outputs"]
    assert outputs == [
        {"name": "photo_index", "datatype": "INT32", "shape": [-1]},
        {"name": "box", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "score", "datatype": "FP32", "shape": [-1]},
        {"name": "parameters", "datatype": "FP32", "shape": [-1, 12]},
    ]
    assert served.get("/v2").json()["extensions"] == ["binary_tensor_data"]


@pytest.mark.parametrize("verb", ["predict", "explain"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_addresses_that_need_post_say_so(served, method, verb):
    answer = served.ask(method, f"/v1/models/scnn:{verb}")
    assert answer.status_code == 405 and answer.headers["Allow"] == "POST"


def json_length(body: bytes) -> dict[str, str]:
    """Headers of a body in which raw bytes may follow the JSON; none do."""
    kind = {"Content-Type": "application/octet-stream"}
    return kind | {"Inference-Header-Content-Length": str(len(body))}


TENSOR = b'"name":"image","datatype":"UINT8","data":[0]'
MANY = {
    "objects as inputs": (b'{"inputs":[' + b"{}," * 60_000 + b"{}]}", "times '{'"),
    "numbers as inputs": (b'{"inputs":[' + b"0," * 60_000 + b"0]}", "60,001 inputs"),
    "lists as inputs": (b'{"inputs":[' + b"[]," * 60_000 + b"0]}", "times '['"),
    "outputs": (b'{"inputs":[],"outputs":[' + b"0," * 60_000 + b"0]}", "outputs has the length"),
    "parameters": (
        b'{"inputs":[],"parameters":{%s}}' % b",".join(b'"%d":[]' % i for i in range(2000)),
        "parameters has the length 2,000; at most 64",
    ),
    "parameters of an output": (
        b'{"inputs":[],"outputs":[{"name":"a","parameters":{%s}}]}'
        % b",".join(b'"%d":[]' % i for i in range(2000)),
        "parameters has the length 2,000",
    ),
    "a shape": (
        b'{"inputs":[{"shape":[' + b"0.5," * 40_000 + b"1]," + TENSOR + b"}]}",
        "shape has",
    ),
    "texts": (b'{"inputs":[],"x":[' + b'"a",' * 40_000 + b"0]}", "times '\"'"),
    "an ID": (b'{"inputs":[],"id":"%s"}' % (b"x" * 90_000), "id has the length 90,000"),
}  # fmt: skip


@pytest.mark.parametrize("headers", [lambda _: {"Content-Type": "application/json"}, json_length])
@pytest.mark.parametrize("what", MANY)
def test_what_a_v2_request_may_contain_is_limited_before_it_is_validated(served, what, headers):
    body, reason = MANY[what]
    answer = served.ask("POST", INFER, content=body, headers=headers(body))
    assert answer.status_code == 400 and reason in answer.json()["error"]


@pytest.mark.parametrize("body", [b'{"instances":[' + b"[]," * 60_000 + b"[]]}", b"[" * 100_000])
def test_a_v1_body_of_implausibly_many_brackets_is_not_parsed(served, body):
    answer = served.post(body, "application/json")
    assert answer.status_code == 400 and "at most" in answer.json()["error"]
    assert f"times '[' in a JSON body of {len(body):,} bytes" in answer.json()["error"]


@pytest.mark.parametrize("end", ["", "; charset=UTF-8"])
@pytest.mark.parametrize("in_json", [True, False])
def test_a_cloud_event_is_answered_with_one(served, in_json, end):
    data = {"instances": [{"b64": base64.b64encode(photo(200)).decode()}]}
    event = {"id": "7", "source": "a", "type": "b", "specversion": "1.0"}
    body = {**event, "time": "2026-01-01T00:00:00Z", "data": data} if in_json else data
    kind = f"application/{'cloudevents+' if in_json else ''}json"
    headers = {} if in_json else {f"ce-{name}": value for name, value in event.items()}
    headers |= {"Content-Type": kind + end}
    answer = served.ask("POST", PREDICT, content=json.dumps(body).encode(), headers=headers)
    assert answer.status_code == 200 and answer.headers["Content-Type"] == kind
    kinds = [answer.json().get("type"), answer.headers.get("ce-type")]
    assert set(kinds) == {None, "io.kserve.inference.response"}
    content = answer.json()["data"] if in_json else answer.json()
    assert content["predictions"][0]["faces"][0]["score"] == 0.75


def test_as_many_crops_as_are_accepted_are_never_too_many_brackets():
    crop = np.zeros((120, 120, 3), int).tolist()
    body = json.dumps({"instances": [crop] * 256}, separators=(",", ":")).encode()
    with parsing(body):
        pass


def test_a_url_with_a_version_does_not_parse_the_body(served):
    place = "/v2/models/scnn/versions/1/infer"
    assert served.post(MANY["numbers as inputs"][0], "application/json", place).status_code == 501


@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_json_is_parsed_in_a_thread(served, path, monkeypatch):
    import orjson

    threads = []
    for module in (json, orjson):
        plain = module.loads

        def recorded(*arguments, _plain=plain, **options):
            threads.append(threading.current_thread())
            return _plain(*arguments, **options)

        monkeypatch.setattr(module, "loads", recorded)
    assert served.post(b'{"a": 1}', "application/json", path).status_code in (400, 422)
    monkeypatch.undo()
    assert threads and threading.main_thread() not in threads


def test_a_long_text_among_numbers_takes_little_memory(served):
    data = ["x" * 100_000, *"a" * 1000]
    tensor = {"name": "box", "shape": [1001], "datatype": "FP32", "data": data}
    served.post_json({"inputs": [tensor]}, INFER)
    tracemalloc.start()
    answer = served.post_json({"inputs": [tensor]}, INFER)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert answer.json() == {"error": "input box: FP32 needs numbers"}
    assert most < 10e6


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"{", "not JSON: unexpected end"),
        (b"null", "valid dictionary"),
        (b'{"inputs": [{"name": "photo"}]}', "inputs.0.shape: Field required; inputs.0.datatype"),
        (b'{"inputs": [{"shape": ["x"],' + TENSOR + b"}]}", "inputs.0.shape.0: Input should be"),
    ],
)
@pytest.mark.parametrize("headers", [lambda _: {"Content-Type": "application/json"}, json_length])
def test_malformed_v2_json_gets_422_and_names_only_parts_of_the_request(
    served, body, reason, headers
):
    answer = served.ask("POST", INFER, content=body, headers=headers(body))
    assert answer.status_code == 422
    assert reason in answer.json()["error"]
    assert "body" not in answer.text and "InferenceRequest." not in answer.text


def test_the_page_of_the_interface_describes_errors_as_they_are(served):
    schema = served.get("/openapi.json").json()
    answers = {path: one for path, methods in schema["paths"].items() for one in methods.values()}
    with_422 = [path for path, one in answers.items() if "422" in one["responses"]]
    assert with_422 == ["/v2/models/{model_name}/infer"]
    assert not [name for name in schema["components"]["schemas"] if "Validation" in name]
    shown = [
        one["responses"][status]["content"]["application/json"]["schema"]["example"]["error"]
        for path, one in answers.items()
        for status in ("400", "422")
        if "content" in one["responses"].get(status, {})
    ]
    assert [text.partition(":")[0] for text in shown] == [
        "instances[0]", "2 inputs; give 'image', or 'photo' and 'box'", "inputs.0.data",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["v1", "v1 faces", "v2", "v2 raw bytes", "v2 faces"])
def test_numbers_that_are_not_finite_are_no_answer(served, monkeypatch, value, what):
    """JSON has none; null would pass for an answer."""
    found = {"parameters": np.full((1, 12), value, np.float32)}
    monkeypatch.setattr(Fake, "crops", lambda self, crops: found)
    crop = {"name": "image", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": [0] * 48}
    bright = base64.b64encode(photo(200)).decode()
    form = {"name": "photo", "shape": [1], "datatype": "BYTES", "data": [bright]}
    body, place = {
        "v1": ({"instances": [np.zeros((4, 4, 3), int).tolist()]}, PREDICT),
        "v1 faces": ({"instances": [{"b64": bright}]}, PREDICT),
        "v2": ({"inputs": [crop]}, INFER),
        "v2 raw bytes": ({"inputs": [crop], "parameters": {"binary_data_output": True}}, INFER),
        "v2 faces": ({"inputs": [form]}, INFER),
    }[what]
    answer = served.post_json(body, place)
    assert answer.status_code == 503, answer.text
    assert answer.json() == {"error": "the server could not answer; its log says why"}


def test_answers_of_v2_are_encoded_in_a_thread(served, monkeypatch):
    import orjson

    threads, plain = [], orjson.dumps

    def recorded(*arguments, **options):
        threads.append(threading.current_thread())
        return plain(*arguments, **options)

    monkeypatch.setattr(orjson, "dumps", recorded)
    crop = {"name": "image", "shape": [1, 4, 4, 3], "datatype": "UINT8", "data": [0] * 48}
    assert served.post_json({"inputs": [crop]}, INFER).json()["outputs"][0]["data"] == [0.0] * 12
    monkeypatch.undo()
    assert threads and threading.main_thread() not in threads
