"""What is recorded of each request: a line of JSON in the access log, and Prometheus metrics."""

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
        status: 503 until an answer begins: what a client gets where there is none.
        received: bytes of the body that came.
        faces: in the answer; None where the request was not for faces, or had an error.
        queue_s: seconds that its parts waited for a thread.
        refused: why the gate did not let it in; None where it did.
    """

    status: int = 503
    received: int = 0
    faces: int | None = None
    queue_s: float = 0.0
    refused: str | None = None


_record: ContextVar[Record] = ContextVar("record")


def current_record() -> Record:
    """Of the request that is being answered; outside of a ``Journal`` one that nobody reads."""
    return _record.get(Record())


class Metrics:
    """Counts of a server, beside KServe's and those of the process, in a registry of their own.

    Attributes:
        registry: of ``prometheus_client``.
    """

    def __init__(self):
        from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Info

        self.registry = CollectorRegistry()
        self.registry.register(REGISTRY)
        into: dict[str, Any] = {"registry": self.registry}
        self.model = Info("scnn_model", "The model that is served", **into)
        self._requests = Counter("scnn_requests", "Answers", ["kind", "status"], **into)
        self._seconds = Histogram(
            "scnn_request_seconds", "From request to answer", ["kind"], buckets=SECONDS, **into
        )
        self._queue = Histogram(
            "scnn_queue_seconds", "Until a thread is free", buckets=SECONDS, **into
        )
        self._faces = Counter("scnn_faces", "Faces that were answered", **into)
        self._none = Counter("scnn_requests_without_face", "Answers of no face", **into)
        self._refusals = Counter("scnn_refusals", "Requests refused", ["reason"], **into)
        self._batches = Histogram(
            "scnn_batch_faces", "Crops in a run of the network", buckets=BATCHES, **into
        )

    def batch(self, count: int) -> None:
        """Count a run of the network on so many crops."""
        self._batches.observe(count)

    def request(self, path: str, record: Record, seconds: float) -> None:
        """Count a request that was answered."""
        # Labels are few, whatever clients ask for.
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
    """ASGI middleware, the outermost: each request is counted and has its line.

    Args:
        app: the application inside of it.
        metrics: to count into.
        write: takes each line, without its end; None: there is no access log.
    """

    def __init__(self, app: Any, metrics: Metrics, write: Callable[[str], object] | None = None):
        self._app, self._metrics, self._write = app, metrics, write

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """One request, as ASGI has it."""
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
            record.status = message.get("status", record.status)
            await send(message)

        try:
            await self._app(scope, counted_receive, noted_send)
        finally:
            seconds = time.perf_counter() - start
            self._metrics.request(scope["path"], record, seconds)
            if self._write is not None:
                with contextlib.suppress(OSError):  # a full disk, or nobody reads: it still serves
                    self._write(_line(scope, record, seconds))


def _line(scope: dict, record: Record, seconds: float) -> str:
    """Nothing of what was sent is in it but the method and the path, without its query."""
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
