"""The HTTP server: KServe's REST protocols in front of a ``Predictor``, with limits."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from keras_scnn.serving.bodies import parsing
from keras_scnn.serving.gate import HEAD_S, MAX_CONNECTIONS, Gate, with_deadline
from keras_scnn.serving.journal import Journal, Metrics, Record, current_record
from keras_scnn.serving.openapi import ABOUT, describe_bodies
from keras_scnn.serving.predictor import Predictor
from keras_scnn.serving.requests import (
    BODY,
    V2_BODY,
    Request,
    output_names,
    outputs,
    predictions,
    read_inputs,
    read_instances,
    read_photo,
)
from keras_scnn.serving.tensors import (
    FOUND_FACE_TYPES,
    LENGTH,
    Encoded,
    content_type,
    encode_response,
    read_body,
    read_tensor,
)

M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
NO_POST = ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
INFER = "/v2/models/{model_name}/infer"
MAX_TEXT = 300
PATHS = re.compile(r"(?:/[\w.~+-]+){2,}/?|[A-Za-z]:\\[^\s']*")
# Bytes as Python prints them, also if cut off.
BYTES = re.compile(r"""(?<!['"\w])b(?:'(?:[^'\\]|\\.)*\\?'?|"(?:[^"\\]|\\.)*\\?"?)""")


@dataclass(frozen=True)
class RawPhoto:
    """A body that is an encoded photo."""

    data: bytes


def require_kserve() -> None:
    """Import KServe, or raise an ImportError that says what to install."""
    words, sys.argv = sys.argv, sys.argv[:1]  # it reads the command line when it is imported
    try:
        import kserve.model_server  # noqa: F401
    except ImportError as error:
        raise ImportError(f"serving needs KServe ({error}): pip install '.[serve]'") from error
    finally:
        sys.argv = words
    # KServe 0.21 answers with this class of FastAPI, which warns at each request.
    warnings.filterwarnings("ignore", "ORJSONResponse is deprecated")


def kserve_model(name: str, predictor: Predictor, threads: int, version: str) -> Any:
    """A ``kserve.Model`` that answers both protocols with a predictor."""
    import kserve
    from kserve.errors import InvalidInput

    # Large requests have threads of their own, so that small ones do not wait for them.
    small = ThreadPoolExecutor(threads, "request")
    large = ThreadPoolExecutor(max(1, threads // 2), "large-request")

    class ScnnModel(kserve.Model):
        async def predict(self, payload, headers=None, response_headers=None):
            """The answer in the request's protocol; InvalidInput if the request is wrong."""
            record = current_record()
            try:
                form, request = await _in(small, record, _read, payload, predictor.input_size)
                pool = large if request.is_large else small
                work = form, request, predictor, version
                answer, count = await _in(pool, record, _answer, *work)
            except InvalidInput:
                raise
            except ValueError as error:
                raise InvalidInput(shown(str(error))) from error
            record.faces = count
            return answer

        def get_input_types(self):
            size = predictor.input_size
            return [
                {"name": "image", "datatype": "UINT8", "shape": [-1, size, size, 3]},
                {"name": "photo", "datatype": "BYTES", "shape": [-1]},
                {"name": "box", "datatype": "FP32", "shape": [-1, 4]},
            ]

        def get_output_types(self):
            shapes = predictor.shapes.items()
            rows = [{"name": k, "datatype": "FP32", "shape": [-1, *shape]} for k, shape in shapes]
            return FOUND_FACE_TYPES + rows

    model = ScnnModel(name)
    model.load()
    return model


async def _in(pool: ThreadPoolExecutor, record: Record, work: Callable, *arguments: Any) -> Any:
    """The result of ``work`` in a thread of a pool; the wait for it is added to ``queue_s``."""
    start = time.perf_counter()

    def begin() -> Any:
        record.queue_s += time.perf_counter() - start
        return work(*arguments)

    return await asyncio.get_running_loop().run_in_executor(pool, begin)


def _read(parse: Callable[[], Any], size: int) -> tuple[Any, Request]:
    """Parse a body of either protocol: the v2 protocol's form, or None, and the request."""
    payload = parse()
    if isinstance(payload, RawPhoto):
        return None, read_photo(payload.data)
    if not hasattr(payload, "inputs"):
        return None, read_instances(payload, size)
    names = [one.name for one in payload.inputs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"inputs {twice} are given more than once")
    request = read_inputs({one.name: read_tensor(one) for one in payload.inputs}, size)
    payload.inputs = []  # release their data
    return payload, request


def _wanted(form: Any, request: Request, predictor: Predictor) -> list[str]:
    """Names of the outputs that a v2 request asks for; all if it names none.

    Raises:
        ValueError: there are no such outputs.
    """
    known = output_names(request, predictor)
    wanted = list(dict.fromkeys(one.name for one in form.request_outputs or [])) or list(known)
    if unknown := set(wanted) - set(known):
        raise ValueError(f"outputs {sorted(unknown)} are not known; known: {', '.join(known)}")
    return wanted


def _answer(form: Any, request: Request, predictor: Predictor, version: str) -> tuple[Any, int]:
    """The answer in the request's protocol, and its number of faces."""
    if form is None:
        answer = predictions(request, predictor)
        return answer, sum(len(row.get("faces", [row])) for row in answer["predictions"])
    import uuid

    wanted = _wanted(form, request, predictor)
    given = outputs(request, predictor)
    asked = {name: given[name] for name in wanted}
    encoded = encode_response(form, asked, form.id or str(uuid.uuid4()), version)
    return encoded, len(given["parameters"])


def shown(text: str) -> str:
    """A message for a client: one line, without paths of this machine or raw bytes."""
    text = " ".join(text[: 10 * MAX_TEXT].split())  # it may contain a whole body
    text = PATHS.sub("...", BYTES.sub("...", text))
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def give_freed_memory_back() -> None:
    """Let glibc return blocks of 1 MiB and more to the system as soon as they are freed.

    By default it keeps those of each thread's largest photo.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def build_server(
    predictor: Predictor,
    name: str,
    max_bytes: int,
    threads: int,
    version: str = "",
    metrics: Metrics | None = None,
    log: Callable[[str], object] | None = None,
) -> Any:
    """A ``kserve`` REST server with one model; ``run`` takes the sockets to listen on.

    ``stop`` ends ``run``.

    Args:
        predictor: answers the requests.
        name: of the model, in URLs.
        max_bytes: largest body.
        threads: number of small requests processed at the same time.
        version: of the model; "" for none.
        metrics: to count into; None for new ones.
        log: called with each line of the access log; None: no access log.
    """
    from fastapi import FastAPI
    from kserve import ModelRepository
    from kserve.logging import logger
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    metrics = metrics or Metrics()
    metrics.model.info({"name": name, "version": version})
    models = ModelRepository()
    models.update(kserve_model(name, predictor, threads, version))
    app = FastAPI(title=name, version=version or "unknown", description=ABOUT, redoc_url=None)
    app.add_middleware(Gate, max_bytes=max_bytes)
    plane, kind = _plane(models, version), _server_class(app, metrics)
    server = kind(Journal(app, metrics, log), plane, ModelRepositoryExtension(models), http_port=0)
    server.config.limit_concurrency = MAX_CONNECTIONS
    server.config.timeout_keep_alive = int(HEAD_S)
    server.config.http = with_deadline(HttpToolsProtocol)
    server.config.lifespan = "off"  # not used; its task logs a traceback if cancelled
    describe_bodies(app, name)
    logger.addFilter(_is_no_client_error)
    return server


def _plane(models: Any, version: str) -> Any:
    """KServe's data plane, between HTTP and the model, extended to photos as bodies."""
    from kserve.protocol.dataplane import DataPlane

    class Plane(DataPlane):
        def decode(self, body, headers, **options):
            """A function that parses the body, for a thread, and attributes that it fills in."""
            attributes: dict = {}
            if "model_name" in options:
                return partial(_parse_v2, body, headers, options["model_name"]), attributes
            return partial(_parse_v1, super().decode, body, headers, attributes), attributes

        def encode(self, model_name, response, headers, req_attributes):
            if isinstance(response, Encoded):
                return response.body, _headers_of(response)
            with _as_invalid():
                given = _with_plain_type(headers or {})
                return super().encode(model_name, response, given, req_attributes)

        def metadata(self):
            return super().metadata() | {"extensions": ["binary_tensor_data"]}

        async def model_metadata(self, model_name):
            known = {"platform": "keras_scnn"} | ({"versions": [version]} if version else {})
            return await super().model_metadata(model_name) | known

    return Plane(models)


def _headers_of(answer: Encoded) -> dict[str, str]:
    is_json, size = answer.json_size is None, str(answer.json_size)
    kind = "application/json" if is_json else "application/octet-stream"
    # Without the body's length it would be sent in chunks, even in HTTP/1.0. In lower case, the
    # endpoint would drop these headers.
    headers = {"Content-Type": kind, "Content-Length": str(len(answer.body))}
    return headers if is_json else headers | {LENGTH: size}


def _parse_v1(decode: Callable, body: bytes, headers: dict, attributes: dict) -> Any:
    """A photo, or the content of JSON or of a CloudEvent, whose attributes are filled in."""
    kind = content_type(headers)
    if kind.startswith("image/"):
        return RawPhoto(body)
    with _as_invalid(BODY), parsing(body):
        payload, found = decode(body, _with_plain_type(headers))
    attributes.update(found)
    return payload


def _with_plain_type(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers for KServe, which compares the whole content type, parameters included."""
    kind = content_type(headers)
    return {**headers, "content-type": kind} if kind else {**headers}


def _parse_v2(body: bytes, headers: dict, model: str) -> Any:
    with _as_invalid(V2_BODY):
        return read_body(body, headers, model)


def _infer_endpoint(plane: Any) -> Callable:
    """The endpoint of ``INFER``; KServe's own parses bodies before their limits are checked."""
    from fastapi.responses import Response
    from kserve.protocol.rest.v2_endpoints import V2Endpoints

    endpoints = V2Endpoints(plane)

    async def infer(request: Any) -> Any:
        raw = Response()
        del raw.headers["content-length"]  # of no body
        given = request.path_params  # names of the model and perhaps of its version
        return await endpoints.infer(request, raw, request_body=await request.body(), **given)

    return infer


def _server_class(app: Any, metrics: Metrics) -> Any:
    """KServe's server, with its routes in ``app`` instead of the application that it shares."""
    from fastapi.responses import Response
    from kserve.errors import InvalidInput
    from kserve.protocol.rest.server import RESTServer
    from prometheus_client.exposition import choose_encoder

    async def show(request: Any) -> Any:
        encode, kind = choose_encoder(request.headers.get("accept"))
        return Response(encode(metrics.registry), headers={"content-type": kind})

    class Server(RESTServer):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            app.add_route("/metrics", show, include_in_schema=False)  # before KServe's
            for verb in ("predict", "explain"):  # else KServe looks for a model "NAME:predict"
                place = f"/v1/models/{{model_name}}:{verb}"
                app.add_route(place, _post_only, NO_POST, include_in_schema=False)
            infer = _infer_endpoint(self.dataplane)
            for place in (INFER, INFER.replace("/infer", "/versions/{model_version}/infer")):
                app.add_route(place, infer, ["POST"], include_in_schema=False)
            self._register_endpoints(app)
            self._add_exception_handlers(app)
            app.add_exception_handler(Exception, _failed)
            app.add_exception_handler(InvalidInput, _invalid)
            for status in (404, 405):
                app.add_exception_handler(status, _no_such_address)

        def create_application(self):
            """Nothing to do: ``__init__`` has completed the application."""

        def stop(self):
            """End ``run``, even one yet to begin, once open requests are answered."""
            self._server.should_exit = True

    return Server


@contextlib.contextmanager
def _as_invalid(hint: str = "") -> Iterator[None]:
    """Raise an InvalidInput for any error: for a wrong body KServe raises errors of many types.

    Args:
        hint: the right form, which KServe's errors do not mention.
    """
    from kserve.errors import InvalidInput

    end = f"; {hint}" if hint else ""
    try:
        yield
    except InvalidInput as error:
        error.reason = f"{shown(error.reason)}{end}"
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise InvalidInput(f"Unrecognized request format: {shown(why)}{end}") from error


async def _failed(_request: Any, _error: Exception) -> Any:
    """The answer to a request at which the server failed; uvicorn logs the traceback."""
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": "the server could not answer; its log says why"}, 503)


async def _post_only(_request: Any) -> Any:
    from fastapi import HTTPException

    raise HTTPException(405, headers={"Allow": "POST"})


async def _no_such_address(_request: Any, error: Any) -> Any:
    """404 or 405 in the form of all other errors; FastAPI's own one differs."""
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _invalid(_request: Any, error: Any) -> Any:
    """400, or 422 for malformed JSON of the v2 protocol."""
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": error.reason}, getattr(error, "status", 400))


def _is_no_client_error(record: logging.LogRecord) -> bool:
    """A log filter: KServe logs a traceback of every error; a client's is answered, not logged."""
    from kserve.errors import ModelNotFound

    kinds = (ModelNotFound, NotImplementedError)  # the last one for ":explain"
    return not (record.exc_info and isinstance(record.exc_info[1], kinds))
