"""Middleware in front of the application: limits on bodies, connections and waiting times."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any

from keras_scnn.serving.journal import current_record

# Anybody could unload the model through these.
CLOSED = "/v2/repository/"
DRAINED = 4  # times the largest body: how much of a larger one is read before it is refused
MAX_CONNECTIONS = 512
MAX_REQUESTS = 64  # with bodies, being processed or waiting; more get 503
HELD_BODIES = 8  # times the largest body: what all requests together may hold
# Seconds: for a request's head, from the opening of its connection or the previous answer; between
# two parts of a body; for a whole body.
HEAD_S, PART_S, BODY_S = 10.0, 10.0, 60.0
ANSWER_S = 60.0  # for an answer to be read
UNREAD_BYTES = 256_000_000  # of all answers that wait to be read
MAX_HEAD = 65_536  # bytes of a request's head
MAX_PENDING = 8  # requests of one connection that wait for the answer to an earlier one
WITHOUT_BODY = ("GET", "HEAD")
# Labels of the metrics.
REASONS = {403: "closed", 408: "slow", 413: "large", 415: "encoded", 499: "left", 503: "busy"}


class Refused(Exception):
    """A request that is answered before the application sees it: status, and the reason."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


class Gate:
    """ASGI middleware: 403 for what is closed; 408, 413, 415 and 503 for bodies beyond the limits.

    Args:
        app: the application behind it.
        max_bytes: of a body, whether its length is announced or not.
        part_s: seconds between two parts of a body. body_s: for all of it.
    """

    def __init__(self, app: Any, max_bytes: int, part_s: float = PART_S, body_s: float = BODY_S):
        self._app, self._max_bytes = app, max_bytes
        self._part_s, self._body_s = part_s, body_s
        self._requests, self._held = 0, 0

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        """Handle one request, by the interface of ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Others ask for health and metrics: a busy server must not seem to be dead.
        counted = scope["method"] not in WITHOUT_BODY
        self._requests += counted
        body = bytearray()
        try:
            if scope["path"].startswith(CLOSED):
                raise Refused(403, "models cannot be loaded or unloaded here")
            if counted and self._requests > MAX_REQUESTS:
                raise Refused(503, "too many requests at once; try again")
            encoding = dict(scope["headers"]).get(b"content-encoding", b"").strip().lower()
            if encoding not in (b"", b"identity"):
                raise Refused(415, "send the body without Content-Encoding: it is not decompressed")
            await self._read(scope, receive, body)
            if scope["method"] == "HEAD":  # answered like GET; uvicorn leaves out the body
                scope = {**scope, "method": "GET"}
            await self._app(scope, _replay(body, receive), send)
        except Refused as error:
            current_record().refused = REASONS[error.status]
            await _refuse(send, error)
        except asyncio.CancelledError:  # the server shuts down and no longer waits
            with contextlib.suppress(RuntimeError):  # the answer had begun
                await _refuse(send, Refused(503, "the server is shutting down; try again"))
        finally:
            self._requests -= counted
            self._held -= len(body)

    async def _read(self, scope: dict, receive: Any, body: bytearray) -> None:
        """Read the body into ``body``; its bytes count among those that all requests hold."""
        most = 0 if scope["method"] in WITHOUT_BODY else self._max_bytes
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        fits = announced.isdigit() and len(announced) < 16 and int(announced) <= most
        size, more, end = 0, True, time.monotonic() + self._body_s
        # A body that is too large is read for a while, and dropped: a client reads the answer only
        # after it has sent its body. That of a GET or HEAD request is refused at its first part.
        while more and size <= DRAINED * most:
            message = await self._next(receive, end)
            if message["type"] == "http.disconnect":  # nobody gets this answer; it is counted
                raise Refused(499, "the client left before its body was complete")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            fits = fits and size <= most
            if fits:
                self._hold(len(part))
                body += part
        if not fits:
            larger = f"the body is larger than {most:,} bytes"
            raise Refused(413, larger if most else "a GET or HEAD request must have no body")

    async def _next(self, receive: Any, end: float) -> dict:
        left = min(self._part_s, end - time.monotonic())
        try:
            return await asyncio.wait_for(receive(), max(left, 0.01))
        except asyncio.TimeoutError as error:
            raise Refused(408, "the body arrived too slowly") from error

    def _hold(self, count: int) -> None:
        if self._held + count > HELD_BODIES * self._max_bytes:
            raise Refused(503, "too many large requests at once; try again")
        self._held += count


def _replay(body: bytearray, receive: Any) -> Any:
    """A ``receive`` that gives the body as one message, then passes on what follows."""
    left = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def next_message() -> dict:
        return left.pop() if left else await receive()

    return next_message


async def _refuse(send: Any, error: Refused) -> None:
    body = json.dumps({"error": error.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))  # else chunks, even in HTTP/1.0
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_Protocol: Any = object  # placeholder for uvicorn's class, the next in the MRO


class _Limits(_Protocol):
    """The methods of ``with_deadline``'s class.

    Of uvicorn's attributes, ``cycle`` is the request that was sent last, and ``pipeline`` those
    that wait for the answer to an earlier one.
    """

    head_s: float
    answer_s: float
    unread_bytes: int
    unread: dict[Any, asyncio.TimerHandle]  # connections with unread bytes, oldest first
    _timer: asyncio.TimerHandle | None = None
    _head = 0  # bytes received since the last body or request
    _fields = 0  # bytes of the URL and the headers of a request
    _running: Any = None  # the request that is answered

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # pause_writing() at the first unread byte
        self._watch()

    def data_received(self, data):
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD:
            self.transport.abort()
        self._watch()

    def on_message_begin(self):
        if len(self.pipeline) >= MAX_PENDING:
            self.transport.abort()
            raise ConnectionAbortedError("too many requests before their turn")
        self._fields = 0
        super().on_message_begin()

    def on_url(self, url):
        self._count_fields(len(url))
        super().on_url(url)

    def on_header(self, name, value):
        self._count_fields(len(name) + len(value))
        super().on_header(name, value)

    def _count_fields(self, count):
        """Of a head that ends in the same read as it began, ``_head`` counts nothing."""
        self._fields += count
        if self._fields > MAX_HEAD:
            self.transport.abort()
            raise ConnectionAbortedError("the head is too large")

    def on_body(self, body):
        self._head = 0
        super().on_body(body)

    def on_message_complete(self):
        self._head = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle, app):
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc):
        self._stop()
        self._forget()
        if self._running is not None:  # uvicorn marks only ``cycle``
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def pause_writing(self):
        super().pause_writing()
        self.unread[self] = self.loop.call_later(self.answer_s, self.transport.abort)
        sizes = {one: one.transport.get_write_buffer_size() for one in self.unread}
        for oldest in [*self.unread][:-1]:
            if sum(sizes.values()) > self.unread_bytes:
                del sizes[oldest]
                oldest._forget()
                oldest.transport.abort()

    def resume_writing(self):
        super().resume_writing()
        self._forget()

    def _forget(self):
        if self in self.unread:
            self.unread.pop(self).cancel()

    def _watch(self):
        """Start the timer if a head is awaited and none runs; stop it at a request."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_s, self._end)

    def _stop(self):
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self):
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


def with_deadline(
    protocol: Any,
    head_s: float = HEAD_S,
    answer_s: float = ANSWER_S,
    unread_bytes: int = UNREAD_BYTES,
) -> Any:
    """A protocol of uvicorn that ends connections whose clients leave too much unfinished.

    uvicorn alone waits forever for the first request, for the rest of one that was begun, and for
    answers to be read, also once it closes the connection. It limits neither the length of a head
    nor the number of requests that are sent before their turn.

    Args:
        protocol: uvicorn's class for HTTP on httptools.
        head_s: seconds for a head.
        answer_s: for an answer to be read.
        unread_bytes: of the answers on all connections; beyond that, those that have waited
            longest to be read are given up.
    """
    limits = {"head_s": head_s, "answer_s": answer_s, "unread_bytes": unread_bytes, "unread": {}}
    return type("Deadline", (_Limits, protocol), limits)
