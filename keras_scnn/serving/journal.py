"""The record of each request: a line of JSON in the access log, and Prometheus metrics."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

MAX_PATH = 200  # characters of a path in the log
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)


@dataclass(eq=False)
class Record:
    """The record of a request, filled in by the code that answers it.

    Attributes:
        status: of the answer; 503 until one begins, as the client gets if there is none.
        received: bytes of the body received.
        faces: number of faces in the answer; None if there was an error, or none were asked for.
        queue_s: seconds that its work waited for a thread, in total.
        refused: why the gate refused it; None if it did not.
    """

    status: int = 503
    received: int = 0
    faces: int | None = None
    queue_s: float = 0.0
    refused: str | None = None


_record: ContextVar[Record] = ContextVar("record")


def current_record() -> Record:
    """The record of the current request; outside of a ``Journal``, one that nobody reads."""
    return _record.get(Record())


class Metrics:
    """The metrics of a server, in a registry of its own, with KServe's and those of the process.

    Attributes:
        registry: of ``prometheus_client``.
    """

    def __init__(self):
        from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Info

        self.registry = CollectorRegistry()
        self.registry.register(REGISTRY)
        into: dict[str, Any] = {"registry": self.registry}
        self.model = Info("scnn_model", "The model that is served", **into)
        self._requests = Counter("scnn_requests", "Requests answered", ["kind", "status"], **into)
        self._seconds = Histogram(
            "scnn_request_seconds", "From request to answer", ["kind"], buckets=SECONDS, **into
        )
        self._queue = Histogram(
            "scnn_queue_seconds", "Wait for a free thread", buckets=SECONDS, **into
        )
        self._faces = Counter("scnn_faces", "Faces in answers", **into)
        self._none = Counter("scnn_requests_without_face", "Answers without a face", **into)
        self._refusals = Counter("scnn_refusals", "Requests refused", ["reason"], **into)
        self._batches = Histogram(
            "scnn_batch_faces", "Crops per run of the network", buckets=BATCHES, **into
        )

    def batch(self, count: int) -> None:
        """Count a run of the network on ``count`` crops."""
        self._batches.observe(count)

    def request(self, path: str, record: Record, seconds: float) -> None:
        """Count a request that was answered."""
        # There are few labels, whatever paths clients ask for.
        kind = next((k for k in ("predict", "infer") if path.endswith((f":{k}", f"/{k}"))), "other")
        self._requests.labels(kind, record.status).inc()
        self._seconds.labels(kind).observe(seconds)
        if reason := record.refused or ("invalid" if record.status in (400, 422) else None):
            self._refusals.labels(reason).inc()
        if record.queue_s:
            self._queue.observe(record.queue_s)
        if record.faces is not None:
            self._faces.inc(record.faces)
            self._none.inc(record.faces == 0)


class Journal:
    """The outermost ASGI middleware: counts each request and writes its line.

    Args:
        app: the application inside it.
        metrics: to count into.
        write: called with each line, without a line break; None: no access log.
    """

    def __init__(self, app: Any, metrics: Metrics, write: Callable[[str], object] | None = None):
        self._app, self._metrics, self._write = app, metrics, write

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Handle one request, by the interface of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record, start = Record(), time.perf_counter()
        _record.set(record)

        async def counted_receive() -> dict:
            message = await receive()
            record.received += len(message.get("body", b""))
            return message

        async def noted_send(message: dict) -> None:
            # KServe sends an HTTPStatus, whose text is its name until Python 3.10.
            record.status = int(message.get("status", record.status))
            await send(message)

        try:
            await self._app(scope, counted_receive, noted_send)
        finally:
            seconds = time.perf_counter() - start
            self._metrics.request(scope["path"], record, seconds)
            if self._write is not None:
                with contextlib.suppress(OSError):  # disk full, or no reader: keep serving
                    self._write(_line(scope, record, seconds))


def _line(scope: dict, record: Record, seconds: float) -> str:
    """The access log's line; of the request it has only the method, and the path without query."""
    client = scope.get("client")
    entry = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "client": client[0] if client else None,
        "method": scope["method"],
        "path": scope["path"][:MAX_PATH],
        "status": record.status,
        "ms": round(1000 * seconds, 1),
        "queue_ms": round(1000 * record.queue_s, 1),
        "bytes": record.received,
        "faces": record.faces,
    }
    return json.dumps(entry)
