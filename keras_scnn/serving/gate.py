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
MAX_REQUESTS = 64  # being processed or waiting; more get 503
HELD_BODIES = 8  # times the largest body: what all requests together may hold
# Seconds: for a request's head, from the opening of its connection or the previous answer; between
# two parts of a body; for a whole body.
HEAD_S, PART_S, BODY_S = 10.0, 10.0, 60.0
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
        self._requests += 1
        body = bytearray()
        try:
            if scope["path"].startswith(CLOSED):
                raise Refused(403, "models cannot be loaded or unloaded here")
            if self._requests > MAX_REQUESTS:
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
            self._requests -= 1
            self._held -= len(body)

    async def _read(self, scope: dict, receive: Any, body: bytearray) -> None:
        """Read the body into ``body``; its bytes count among those that all requests hold."""
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        fits = announced.isdigit() and len(announced) < 16 and int(announced) <= self._max_bytes
        size, more, end = 0, True, time.monotonic() + self._body_s
        # A body that is too large is read for a while, and dropped: a client reads the answer only
        # after it has sent its body.
        while more and size <= DRAINED * self._max_bytes:
            message = await self._next(receive, end)
            if message["type"] == "http.disconnect":  # nobody gets this answer; it is counted
                raise Refused(499, "the client left before its body was complete")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            fits = fits and size <= self._max_bytes
            if fits:
                self._hold(len(part))
                body += part
        if not fits:
            raise Refused(413, f"the body is larger than {self._max_bytes:,} bytes")

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


def with_deadline(protocol: Any, head_s: float = HEAD_S) -> Any:
    """A protocol of uvicorn that closes a connection if no request's head arrives in time.

    uvicorn alone waits forever for the first request, and for the rest of one that was begun.

    Args:
        protocol: uvicorn's class for HTTP.
        head_s: seconds for a head.
    """

    class Deadline(protocol):
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport):
            super().connection_made(transport)
            self._watch()

        def data_received(self, data):
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc):
            self._stop()
            super().connection_lost(exc)

        def _watch(self):
            """Start the timer if a head is awaited and none runs; stop it at a request."""
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop()
            elif self._timer is None:
                self._timer = self.loop.call_later(head_s, self._end)

        def _stop(self):
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _end(self):
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Deadline
