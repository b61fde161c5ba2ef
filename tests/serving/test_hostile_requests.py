"""Requests made to be expensive or to break the server, sent to a real one over loopback."""

import base64
import contextlib
import http.client
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration
CROP = np.full((120, 120, 3), 90).tolist()
SPARE_MB = 400  # more than before, at the most: a photo of 50 million pixels is 150 MB
GIVEN = int(os.environ.get("KERAS_SCNN_HOSTILE_REQUESTS", "120"))  # mutated requests


class Server:
    """A server process: its address, its memory, and requests to it."""

    def __init__(self):
        pytest.importorskip("kserve", reason="extra 'serve' is not installed")
        command = ["-m", "keras_scnn.serve", "--port", "0", "--max-body-mb", "8", "--threads", "4"]
        self.run = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._errors: list[str] = []
        reader = threading.Thread(target=lambda: self._errors.append(self.run.stderr.read()))
        reader.start()
        lines = (re.search(r"at http://([\d.]+):(\d+)/", line) for line in self.run.stdout)
        outputs = next((match for match in lines if match), None)
        if outputs is None:
            pytest.fail(f"the server did not start:\n{self._errors}")
        self.place = outputs[1], int(outputs[2])
        self.end = lambda: (self.run.terminate(), self.run.wait(40), reader.join())

    @property
    def errors(self) -> str:
        return "".join(self._errors)

    def memory_mb(self, key: str) -> float:
        text = Path(f"/proc/{self.run.pid}/status").read_text()
        return int(re.search(rf"{key}:\s*(\d+) kB", text)[1]) / 1000

    def post(self, body, path="/v1/models/scnn:predict", **headers) -> tuple[int, str]:
        """Status and text of the answer; the body is bytes or something for JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        url = f"http://{self.place[0]}:{self.place[1]}{path}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, headers), timeout=60
            ) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def get(self, path: str) -> int:
        """Status of the answer."""
        with contextlib.closing(http.client.HTTPConnection(*self.place, timeout=60)) as one:
            one.request("GET", path)
            return one.getresponse().status


@pytest.fixture(scope="module")
def server():
    one = Server()
    assert one.post({"instances": [CROP]})[0] == 200
    yield one
    one.end()
    at = one.errors.find("Traceback")
    assert at < 0, one.errors[at : at + 6000]


def encoded(size, kind="PNG", color=(90, 90, 90)) -> dict:
    file = io.BytesIO()
    PIL.Image.new("RGB", size, color).save(file, kind)
    return {"b64": base64.b64encode(file.getvalue()).decode()}


def bitmap(width: int, height: int) -> dict:
    """One bit per pixel: a small file with very many pixels."""
    file = io.BytesIO()
    PIL.Image.new("1", (width, height)).save(file, "PNG")
    return {"b64": base64.b64encode(file.getvalue()).decode()}


SMALL = encoded((64, 64))
GRAY = encoded((3000, 3000))


def crop_with(value) -> list:
    return [[[value, 0, 0], *CROP[0][1:]], *CROP[1:]]


EXPENSIVE = {
    "a huge box": [{**SMALL, "box": [-1e6, -1e6, 1e6, 1e6]}],
    "a box beyond numbers": [{**SMALL, "box": [0, 0, 1e308, 1e308]}],
    "a box of a long number": [{**SMALL, "box": [0, 0, 10**400, 10**400]}],
    "a box beside the photo": [{**SMALL, "box": [100, 100, 150, 150]}],
    "a box above the photo": [{**SMALL, "box": [0, -50, 50, 0]}],
    "a box in text": [{**SMALL, "box": ["0", "0", "5", "5"]}],
    "a box of Booleans": [{**SMALL, "box": [False, False, True, True]}],
    "a box in boxes": [{**SMALL, "box": [[[[0]]] * 1000] * 4}],
    "one row of very many pixels": [bitmap(40_000_000, 1)],
    "a box about one row": [{**bitmap(32_000, 1), "box": [0, -250_000, 500_000, 250_000]}],
    "a box about one column": [{**bitmap(1, 32_000), "box": [-250_000, 0, 250_000, 500_000]}],
    "too many pixels": [bitmap(8000, 8000)],
    "many large photos": [bitmap(7000, 7000)] * 100,
    "many photos with boxes": [{**GRAY, "box": [0, 0, 3000, 3000]}] * 200,
    "10,000 instances": [SMALL] * 10_000,
    "a long text among numbers": [crop_with("x" * 4_000_000)],
    "a long number among numbers": [crop_with(10**4000)],
    "a table among numbers": [crop_with({"a": 1})],
    "none among numbers": [crop_with(None)],
    "fractions": [crop_with(0.5)],
    "nested deeply": json.loads("[" * 200 + "]" * 200),
    "an EPS": [{"b64": base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%EOF").decode()}],
    "no photo": [{"b64": ""}],
    "photo in photo": [{"photo": {"photo": SMALL}}],
    "nothing": [None],
}


@pytest.mark.parametrize("what", EXPENSIVE)
def test_an_expensive_request_is_refused_with_one_line_and_little_memory(server, what):
    body = json.dumps({"instances": EXPENSIVE[what]}).encode()
    before, start = server.memory_mb("VmRSS"), time.monotonic()
    status, text = server.post(body)
    assert status in (400, 413), text
    assert len(text) < 600 and "/site-packages" not in text and "keras_scnn/" not in text
    assert time.monotonic() - start < 10
    assert server.memory_mb("VmHWM") - before < SPARE_MB + 11 * len(body) / 1e6


def v2(**inputs) -> dict:
    return {"inputs": [{"name": name, **value} for name, value in inputs.items()]}


PHOTO = {"shape": [1], "datatype": "BYTES", "data": [SMALL["b64"]]}
ODD = {
    "no JSON": (b"{", "/v1/models/scnn:predict", {}),
    "100,000 brackets": (b"[" * 100_000, "/v1/models/scnn:predict", {}),
    "brackets for v2": (b"[" * 100_000, "/v2/models/scnn/infer", {}),
    "bytes": (bytes(range(256)), "/v1/models/scnn:predict", {"Content-Type": "image/png"}),
    "no text": (b'{"instances": ["\xff"]}', "/v1/models/scnn:predict", {}),
    "a cloud event": (b"{}", "/v1/models/scnn:predict", {"ce-id": "1", "ce-specversion": "9"}),
    "an event in JSON": (
        b'{"specversion": "1.0", "id": 3, "source": [], "type": {}, "data": 3, "time": "x"}',
        "/v1/models/scnn:predict", {"Content-Type": "application/cloudevents+json"},
    ),
    "explain": (b'{"instances": [1]}', "/v1/models/scnn:explain", {}),
    "another model": (b"{}", "/v1/models/" + "x" * 5000 + ":predict", {}),
    "v2 without data": (b'{"inputs": [{"name": "photo"}]}', "/v2/models/scnn/infer", {}),
    "v2 of nothing": (b"null", "/v2/models/scnn/infer", {}),
    "v2 length": (b"{}", "/v2/models/scnn/infer", {
        "Inference-Header-Content-Length": "x", "Content-Type": "application/octet-stream"}),
    "v2 long length": (b"{}", "/v2/models/scnn/infer", {
        "Inference-Header-Content-Length": "9" * 30, "Content-Type": "application/octet-stream"}),
    "v2 negative length": (b"{}", "/v2/models/scnn/infer", {
        "Inference-Header-Content-Length": "-9", "Content-Type": "application/octet-stream"}),
    "v2 shape": (json.dumps(v2(photo={**PHOTO, "shape": [1 << 62]})).encode(),
                 "/v2/models/scnn/infer", {}),
    "v2 negative": (json.dumps(v2(photo={**PHOTO, "shape": [-3]})).encode(),
                    "/v2/models/scnn/infer", {}),
    "v2 many": (json.dumps(v2(photo={"shape": [9000], "datatype": "BYTES", "data": ["a"] * 9000})
                           ).encode(), "/v2/models/scnn/infer", {}),
    "v2 many inputs": (json.dumps({"inputs": [{"name": str(i), **PHOTO} for i in range(5000)]}
                                  ).encode(), "/v2/models/scnn/infer", {}),
    "v2 numbers": (json.dumps(v2(photo={"shape": [1], "datatype": "FP32", "data": [1]})).encode(),
                   "/v2/models/scnn/infer", {}),
    "v2 box": (json.dumps(v2(photo=PHOTO, box={
        "shape": [1, 4], "datatype": "FP32", "data": [0, 0, 1e38, 1e38]})).encode(),
        "/v2/models/scnn/infer", {}),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_an_odd_request_is_the_clients_error(server, what):
    body, path, headers = ODD[what]
    status, text = server.post(body, path, **headers)
    assert 400 <= status < 500 or status == 501, text
    assert "site-packages" not in text and "Traceback" not in text


def many(before: bytes, item: bytes, after: bytes) -> bytes:
    """A body of almost 8 MB that repeats an item."""
    return before + (item + b",") * (7_900_000 // (len(item) + 1)) + item + after


IN_V2 = b'{"inputs":[{"name":"a","datatype":"FP32","shape":[1],"data":['
PREDICT, INFER = "/v1/models/scnn:predict", "/v2/models/scnn/infer"
REPEATED = {  # path, body and the reason of the refusal
    "lists": (PREDICT, many(b'{"instances":[', b"[]", b"]}"), "times '[' in a JSON body"),
    "objects": (PREDICT, many(b'{"instances":[', b"{}", b"]}"), "times '{' in a JSON body"),
    "spaced lists": (PREDICT, many(b'{"instances":[', b"[]     ", b"]}"), "987,501 instances"),
    "numbers": (PREDICT, many(b'{"instances":[', b"999", b"]}"), "1,975,001 instances"),
    "texts": (PREDICT, many(b'{"instances":[', b'"a"', b"]}"), "times '\\\"' in a JSON body"),
    "inputs": (INFER, many(b'{"inputs":[', b"{}", b"]}"), "times '{' in a JSON body"),
    "numbers as inputs": (INFER, many(b'{"inputs":[', b"0", b"]}"), "3,950,001 inputs; give"),
    "outputs": (INFER, many(b'{"inputs":[],"outputs":[', b"{}", b"]}"), "times '{' in a JSON body"),
    "numbers as outputs": (
        INFER, many(b'{"inputs":[],"outputs":[', b"0", b"]}"), "outputs has the length 3,950,001"
    ),
    "a shape": (
        INFER, many(b'{"inputs":[{"shape":[', b"0.5", b"]}]}"), "shape has the length 1,975,001"
    ),
    "data": (INFER, many(IN_V2, b"0", b"]}]}"), "input a: cannot reshape array of size 3950001"),
    "spaced lists as data": (
        INFER, many(IN_V2, b"[]     ", b"]}]}"), "input a: cannot reshape array of size 0"
    ),
    "long texts": (INFER, many(IN_V2, b'"%s"' % (b"x" * 8000), b"]}]}"), "FP32 needs numbers"),
    "a long text": (
        INFER, IN_V2 + b'"%s"' % (b"x" * 7_000_000) + b',"a"' * 1000 + b"]}]}", "FP32 needs numbers"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REPEATED)
def test_a_body_that_repeats_an_item_takes_little_memory_and_stops_nobody(server, what):
    path, body, reason = REPEATED[what]
    before = server.memory_mb("VmRSS")
    with ThreadPoolExecutor(1) as pool:
        answer, waits = pool.submit(server.post, body, path), [0.0]
        while not answer.done():
            start = time.monotonic()
            assert server.get("/v2/health/live") == 200
            waits.append(time.monotonic() - start)
            time.sleep(0.01)
    status, text = answer.result()
    assert status in (400, 422)
    assert reason in text
    assert server.memory_mb("VmHWM") - before < SPARE_MB + 11 * len(body) / 1e6
    assert max(waits) < 2


def test_mutated_requests_are_answered_or_refused(server):
    rng = random.Random(0)
    first = json.dumps({"instances": [{**SMALL, "box": [0, 0, 40, 40]}, SMALL]})
    second = json.dumps({**v2(photo=PHOTO), "outputs": [{"name": "landmarks"}]})
    statuses = []
    for number in range(GIVEN):
        path = "/v2/models/scnn/infer" if number % 2 else "/v1/models/scnn:predict"
        body = bytearray((second if number % 2 else first).encode())
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(body))
            if rng.random() < 0.5:
                at = rng.choice([i for i, c in enumerate(body) if c in b'{}[]",:0123456789'])
            odd = [b"", b"[", b"}", b'"', b"-", b"1e999", b"null", b"\xff", b"9" * 40]
            body[at : at + rng.randint(0, 2)] = rng.choice([*odd, bytes([body[at]])])
        statuses.append(server.post(bytes(body), path)[0])
    assert set(statuses) <= {200, 400, 413, 422}, sorted(set(statuses))
    assert server.post({"instances": [CROP]})[0] == 200


def test_a_small_request_does_not_wait_for_large_ones(server):
    heavy = {"instances": [GRAY] * 5}
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(server.post, heavy) for _ in range(3)]
        time.sleep(1)
        times = []
        for _ in range(5):
            start = time.monotonic()
            assert server.post({"instances": [CROP]})[0] == 200
            times.append(time.monotonic() - start)
        assert not all(one.done() for one in running), "the large requests were too small"
        assert [one.result()[0] for one in running] == [200] * 3
    assert np.median(times) < 2


@pytest.mark.parametrize("path", ["/", "/v1/models/scnn", "/v2/health/ready", "/metrics"])
def test_head_is_answered_like_get_without_a_body(server, path):
    connection = http.client.HTTPConnection(*server.place, timeout=60)
    for method in ("HEAD", "GET"):  # one connection: a body's bytes would be read as an answer
        connection.request(method, path)
        answer = connection.getresponse()
        assert answer.status == 200
        assert bool(answer.read()) == (method == "GET")
    connection.close()


def test_idle_and_half_sent_connections_shut_nobody_out_and_are_closed(server):
    beginnings = [b"", b"POST /v1/models/scnn:predict HTTP/1.1\r\nHost: a\r\n"]
    body = b"POST /v1/models/scnn:predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n{"
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.create_connection(server.place)) for _ in range(100)]
        half = [stack.enter_context(socket.create_connection(server.place)) for _ in range(20)]
        for number, connection in enumerate(idle):
            connection.sendall(beginnings[number % 2])
        for connection in half:
            connection.sendall(body)
        assert server.post({"instances": [CROP]})[0] == 200
        end = time.monotonic() + 20
        for connection in idle + half:
            connection.settimeout(max(end - time.monotonic(), 0.1))
        assert all(connection.recv(100) == b"" for connection in idle)
        assert all(b" 408 " in connection.recv(100) for connection in half)


def test_memory_is_released(server):
    """The last test: the memory of a large request is not kept."""
    heavy = {"instances": [bitmap(7000, 7000)]}
    for _ in range(2):
        server.post(heavy)
    before = server.memory_mb("VmRSS")
    for _ in range(4):
        server.post(heavy)
    assert server.memory_mb("VmRSS") - before < 100
