"""The HTTP server: KServe's REST protocols before a ``Predictor``, with limits."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_scnn.serving.gate import HEAD_S, MAX_CONNECTIONS, Gate, with_deadline
from keras_scnn.serving.predictor import Outputs, Predictor
from keras_scnn.serving.requests import (
    Request,
    outputs,
    predictions,
    read_inputs,
    read_instances,
)

DATATYPES = {"float32": "FP32", "int32": "INT32"}
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
MAX_INPUTS, MAX_TEXT = 8, 300
PATHS = re.compile(r"(?:/[\w.~+-]+){2,}/?|[A-Za-z]:\\[^\s']*")


def require_kserve() -> None:
    """Import KServe, or raise an ImportError that says what to install."""
    words, sys.argv = sys.argv, sys.argv[:1]  # it reads the command line when it is imported
    try:
        import kserve.model_server  # noqa: F401
    except ImportError as error:
        raise ImportError(f"serving needs KServe ({error}): pip install '.[serve]'") from error
    finally:
        sys.argv = words


def kserve_model(name: str, predictor: Predictor, threads: int) -> Any:
    """A ``kserve.Model`` that answers both protocols with a predictor."""
    import kserve
    from kserve.errors import InvalidInput

    # Large requests have few threads of their own: a small one does not wait for them.
    small = ThreadPoolExecutor(threads, "request")
    large = ThreadPoolExecutor(max(1, threads // 2), "large-request")

    class ScnnModel(kserve.Model):
        async def predict(self, payload, headers=None, response_headers=None):
            loop, size = asyncio.get_running_loop(), predictor.input_size
            try:
                asked = await loop.run_in_executor(small, _read, payload, size)
                pool = large if asked.is_large else small
                return await loop.run_in_executor(pool, _answer, payload, asked, predictor)
            except ValueError as error:
                raise InvalidInput(shown(str(error))) from error

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


def _read(payload: Any, size: int) -> Request:
    """Look over a request of either protocol; its body is let go of where nobody needs it."""
    if isinstance(payload, dict):
        request = read_instances(payload, size)
        payload.clear()
        return request
    if not hasattr(payload, "inputs"):
        return read_instances(payload, size)
    if len(payload.inputs) > MAX_INPUTS:
        raise ValueError(f"{len(payload.inputs)} inputs; give 'image', or 'photo' and 'box'")
    return read_inputs({one.name: _tensor(one) for one in payload.inputs}, size)


def _answer(payload: Any, asked: Request, predictor: Predictor) -> Any:
    """The answer of the request's protocol."""
    if not hasattr(payload, "inputs"):
        return predictions(asked, predictor)
    import uuid

    from kserve import InferOutput, InferResponse

    given = outputs(asked, predictor)
    wanted = list(dict.fromkeys(one.name for one in payload.request_outputs or [])) or list(given)
    if unknown := set(wanted) - set(given):
        raise ValueError(f"outputs {sorted(unknown)} are not known; known: {', '.join(given)}")
    tensors = [_infer_output(InferOutput, name, given) for name in wanted]
    return InferResponse(payload.id or str(uuid.uuid4()), payload.model_name, tensors)


def shown(text: str) -> str:
    """A message for a client: one line, without names of places on this machine."""
    text = PATHS.sub("...", " ".join(text.split()))
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


def _infer_output(kind: Any, name: str, outputs: Outputs) -> Any:
    value = outputs[name]
    return kind(name, list(value.shape), DATATYPES[value.dtype.name], value.ravel().tolist())


def _tensor(tensor: Any) -> np.ndarray:
    """An input tensor; JSON may have its data flat or nested."""
    if min(tensor.shape, default=0) < 0:
        raise ValueError(f"input {tensor.name}: the shape is {tensor.shape}")
    try:
        return tensor.as_numpy()
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"input {tensor.name}: {error}") from error


def give_freed_memory_back() -> None:
    """Let glibc hand blocks of 1 MiB and more back to the system as soon as they are freed.

    Left to itself it keeps those of each thread's largest photo.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)


def build_server(predictor: Predictor, name: str, max_bytes: int, threads: int) -> Any:
    """A ``kserve`` REST server with one model; its ``run`` takes the sockets to listen at."""
    from fastapi.exceptions import RequestValidationError
    from kserve import ModelRepository
    from kserve.logging import logger
    from kserve.model_server import app
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    class Plane(DataPlane):
        def decode(self, *args, **options):
            return _as_invalid(super().decode, *args, **options)

        def encode(self, *args, **options):
            return _as_invalid(super().encode, *args, **options)

    class Server(RESTServer):
        def _add_exception_handlers(self, app):
            super()._add_exception_handlers(app)
            app.add_exception_handler(Exception, _failed)
            app.add_exception_handler(RequestValidationError, _not_valid)

    models = ModelRepository()
    models.update(kserve_model(name, predictor, threads))
    extension = ModelRepositoryExtension(models)
    server = Server("kserve.model_server:app", Plane(models), extension, http_port=0)
    server.config.limit_concurrency = MAX_CONNECTIONS
    server.config.timeout_keep_alive = int(HEAD_S)
    server.config.http = with_deadline(AutoHTTPProtocol)
    app.add_middleware(Gate, max_bytes=max_bytes)
    logger.addFilter(_is_no_client_error)
    return server


def _as_invalid(translate: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """KServe's translation of bodies raises nearly any type for a wrong one."""
    from kserve.errors import InvalidInput

    try:
        return translate(*args, **options)
    except InvalidInput as error:
        raise InvalidInput(shown(error.reason)) from error
    except Exception as error:
        why = shown(f"{type(error).__name__}: {error}")
        raise InvalidInput(f"Unrecognized request format: {why}") from error


async def _failed(_request: Any, _error: Exception) -> Any:
    """The answer to a request that the server failed at; uvicorn logs the traceback."""
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": "the server could not answer; its log says why"}, 503)


async def _not_valid(_request: Any, error: Any) -> Any:
    """422 for a v2 request of a wrong form; FastAPI's own answer repeats the request, or fails."""
    from fastapi.responses import JSONResponse

    problems = [(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors()[:3]]
    why = shown("; ".join(f"{place}: {what}" for place, what in problems))
    return JSONResponse({"error": why}, 422)


def _is_no_client_error(record: logging.LogRecord) -> bool:
    """KServe logs a traceback of every error; a client's error is answered, not logged."""
    from kserve.errors import InvalidInput, ModelNotFound

    kinds = (InvalidInput, ModelNotFound, NotImplementedError)  # the last one for ":explain"
    return not (record.exc_info and isinstance(record.exc_info[1], kinds))
