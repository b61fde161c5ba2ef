"""The HTTP server: KServe's REST protocols before a ``Predictor``, with limits."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_scnn.serving.predictor import Outputs, Predictor
from keras_scnn.serving.requests import answer_instances, answer_tensors

DATATYPES = {"float32": "FP32", "int32": "INT32"}
MAX_CONNECTIONS = 64  # more get 503
DRAINED = 4  # times the largest body
# Anybody could take the model away through these.
CLOSED = "/v2/repository/"


def require_kserve() -> None:
    """Import KServe, or raise an ImportError that says what to install."""
    words, sys.argv = sys.argv, sys.argv[:1]  # it reads the command line when it is imported
    try:
        import kserve.model_server  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"serving needs KServe ({error}): pip install 'keras_scnn[serve]'"
        ) from error
    finally:
        sys.argv = words


class BodyLimit:
    """ASGI middleware: 413 for bodies that are too large, 403 for what is closed.

    Args:
        app: what it stands before.
        max_bytes: of a body, whether its length is announced or not.
    """

    def __init__(self, app: Any, max_bytes: int):
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """One connection, as ASGI has it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"].startswith(CLOSED):
            await _refuse(send, 403, "models cannot be loaded or unloaded here")
        elif (body := await self._read(scope, receive)) is None:
            await _refuse(send, 413, f"the body is larger than {self._max_bytes:,} bytes")
        else:
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, scope: dict, receive: Any) -> bytes | None:
        header = dict(scope["headers"]).get(b"content-length", b"0")
        fits = header.isdigit() and int(header) <= self._max_bytes
        body, size, more = bytearray(), 0, True
        # What is too large is read for a while, and dropped: a client hears the answer only once
        # it has sent its body.
        while more and size <= DRAINED * self._max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                break
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            fits = fits and size <= self._max_bytes
            if fits:
                body += part
        return bytes(body) if fits else None


def _replay(body: bytes, receive: Any) -> Any:
    """The body as one message, then whatever comes."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> dict:
        return left.pop() if left else await receive()

    return next_message


async def _refuse(send: Any, status: int, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def kserve_model(name: str, predictor: Predictor, threads: int) -> Any:
    """A ``kserve.Model`` that answers both protocols with a predictor."""
    import kserve
    from kserve.errors import InvalidInput

    pool = ThreadPoolExecutor(threads, "request")

    class ScnnModel(kserve.Model):
        async def predict(self, payload, headers=None, response_headers=None):
            tensors = isinstance(payload, kserve.InferRequest)
            answer = _answer_request if tensors else answer_instances
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(pool, answer, payload, predictor)
            except ValueError as error:
                raise InvalidInput(str(error)) from error

        def get_input_types(self):
            size = predictor.input_size
            return [
                {"name": "image", "datatype": "UINT8", "shape": [-1, size, size, 3]},
                {"name": "photo", "datatype": "BYTES", "shape": [-1]},
                {"name": "box", "datatype": "FP32", "shape": [-1, 4]},
            ]

        def get_output_types(self):
            shapes = predictor.shapes.items()
            return [{"name": k, "datatype": "FP32", "shape": [-1, *shape]} for k, shape in shapes]

    model = ScnnModel(name)
    model.load()
    return model


def _answer_request(request: Any, predictor: Predictor) -> Any:
    """A v2 request to a v2 response."""
    import uuid

    from kserve import InferOutput, InferResponse

    outputs = answer_tensors({one.name: _tensor(one) for one in request.inputs}, predictor)
    wanted = [output.name for output in request.request_outputs or []] or list(outputs)
    if unknown := set(wanted) - set(outputs):
        raise ValueError(f"outputs {sorted(unknown)} are not known; known: {', '.join(outputs)}")
    tensors = [_infer_output(InferOutput, name, outputs) for name in wanted]
    return InferResponse(request.id or str(uuid.uuid4()), request.model_name, tensors)


def _infer_output(kind: Any, name: str, outputs: Outputs) -> Any:
    value = outputs[name]
    return kind(name, list(value.shape), DATATYPES[value.dtype.name], value.ravel().tolist())


def _tensor(tensor: Any) -> np.ndarray:
    """An input tensor; JSON may have its data flat or nested."""
    try:
        return tensor.as_numpy()
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"input {tensor.name}: {error}") from error


def build_server(predictor: Predictor, name: str, max_bytes: int, threads: int) -> Any:
    """A ``kserve`` REST server with one model; its ``run`` takes the sockets to listen at."""
    from kserve import ModelRepository
    from kserve.errors import InferenceError, InvalidInput
    from kserve.logging import logger
    from kserve.model_server import app
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer

    class Plane(DataPlane):
        def decode(self, *args, **options):
            try:
                return super().decode(*args, **options)
            except InvalidInput:
                raise
            except (AttributeError, InferenceError, KeyError, TypeError, ValueError) as error:
                raise InvalidInput(f"Unrecognized request format: {error!r}") from error

    models = ModelRepository()
    models.update(kserve_model(name, predictor, threads))
    extension = ModelRepositoryExtension(models)
    server = RESTServer("kserve.model_server:app", Plane(models), extension, http_port=0)
    server.config.limit_concurrency = MAX_CONNECTIONS
    app.add_middleware(BodyLimit, max_bytes=max_bytes)
    logger.addFilter(_is_no_client_error)
    return server


def _is_no_client_error(record: logging.LogRecord) -> bool:
    """KServe logs a traceback of every error; what is wrong with a request, its client is told."""
    from kserve.errors import InvalidInput, ModelNotFound

    return not (record.exc_info and isinstance(record.exc_info[1], InvalidInput | ModelNotFound))
