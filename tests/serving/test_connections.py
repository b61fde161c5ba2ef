"""The limits of connections, by uvicorn and sockets in this process."""

import asyncio
import contextlib
import logging
import socket

import pytest

from keras_scnn.serving import gate
from keras_scnn.serving.gate import with_deadline

uvicorn = pytest.importorskip("uvicorn", reason="extra 'serve' is not installed")
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: E402

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 30_000_000  # more than the system keeps for a connection


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Run a client against an application: ``run(app, client, **limits)``."""

    async def both(app, client, limits):
        protocol = with_deadline(HttpToolsProtocol, **limits)
        config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            serving = asyncio.create_task(server.serve([listening]))
            while not server.started:
                await asyncio.sleep(0.01)
            try:
                return await client(listening.getsockname(), server.server_state.connections)
            finally:
                server.force_exit = server.should_exit = True
                await serving

    def finish(app, client, **limits):
        loop = pytest.importorskip(request.param).new_event_loop()
        with contextlib.closing(loop):
            return loop.run_until_complete(both(app, client, limits))

    return finish


def answering(count: int, calls: list | None = None, wait: asyncio.Event | None = None):
    """An application whose answers have so many bytes."""

    async def app(scope, receive, send):
        size = 0
        while (message := await receive()).get("more_body"):
            size += len(message["body"])
        if calls is not None:
            calls.append(size + len(message.get("body", b"")))
        if wait is not None:
            await wait.wait()
        length = [(b"content-length", str(count).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": bytes(count)})

    return app


async def until(condition) -> bool:
    for _ in range(300):
        if condition():
            return True
        await asyncio.sleep(0.01)
    return False


@pytest.mark.parametrize("end", [b"", b"Connection: close\r\n"])
def test_a_connection_whose_answer_is_not_read_is_ended(run, end):
    async def client(place, connections):
        _, writer = await asyncio.open_connection(*place, limit=1000)
        writer.write(GET[:-2] + end + b"\r\n")
        assert await until(lambda: connections)
        ended = await until(lambda: not connections)
        writer.close()
        return ended

    assert run(answering(LARGE), client, answer_s=0.3)


def test_an_answer_that_is_read_is_complete(run):
    async def client(place, _):
        reader, writer = await asyncio.open_connection(*place, limit=1000)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(LARGE) == bytes(LARGE)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(LARGE) == bytes(LARGE)
        writer.close()

    run(answering(LARGE), client, answer_s=5)


def test_the_bytes_of_all_unread_answers_are_limited(run):
    async def client(place, connections):
        pairs = []
        for _ in range(4):
            pairs.append(await asyncio.open_connection(*place, limit=1000))
            reader, writer = pairs[-1]
            writer.write(GET)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
        await until(lambda: len(connections) == 1)
        left = len(connections)
        assert await reader.readexactly(LARGE) == bytes(LARGE)
        for _, writer in pairs:
            writer.close()
        return left

    assert run(answering(LARGE), client, unread_bytes=LARGE - 1) == 1


def test_a_few_requests_may_be_sent_before_their_turn(run):
    async def client(place, _):
        reader, writer = await asyncio.open_connection(*place)
        writer.write(GET * (1 + gate.MAX_PENDING))
        for _ in range(1 + gate.MAX_PENDING):
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(10)
        writer.close()

    run(answering(10), client)


def test_many_requests_before_their_turn_end_the_connection_without_a_traceback(run, caplog):
    calls: list[int] = []

    async def client(place, connections):
        reader, writer = await asyncio.open_connection(*place)
        writer.write(GET)
        assert await until(lambda: calls)
        writer.write(GET * 1000)
        assert await until(lambda: not connections)
        wait.set()
        await asyncio.sleep(0.1)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()

    wait = asyncio.Event()
    with caplog.at_level(logging.WARNING):
        run(answering(10, calls, wait), client)
    assert len(calls) == 1
    assert [one.getMessage() for one in caplog.records] == ["Invalid HTTP request received."]


def test_a_client_that_leaves_before_its_turn_leaves_no_traceback(run, caplog):
    async def slow(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        for more in (True, True, True, True, False):
            await asyncio.sleep(0.02)
            await send({"type": "http.response.body", "body": b"a", "more_body": more})

    async def client(place, connections):
        _, writer = await asyncio.open_connection(*place)
        writer.write(GET * 5)
        assert await until(lambda: connections)
        writer.transport.abort()
        assert await until(lambda: not connections)
        await asyncio.sleep(0.1)

    with caplog.at_level(logging.WARNING):
        run(slow, client)
    assert not caplog.records


@pytest.mark.parametrize(
    "begin",
    [
        b"GET / HTTP/1.1\r\nX: ",
        b"GET /",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ",
        GET + b"GET / HTTP/1.1\r\nX: ",
    ],
)
def test_a_head_without_end_ends_the_connection(run, begin):
    async def client(place, connections):
        _, writer = await asyncio.open_connection(*place)
        writer.write(begin)
        for _ in range(20):
            if not writer.is_closing():
                writer.write(b"a" * 10_000)
            await asyncio.sleep(0.01)
        ended = await until(lambda: not connections)
        writer.transport.abort()
        return ended

    assert run(answering(10), client)


@pytest.mark.parametrize("size, is_answered", [(64_000, True), (66_000, False)])
@pytest.mark.parametrize("field", [b"GET /%s HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nX: %s\r\n\r\n"])
def test_a_head_is_limited_also_if_it_comes_at_once(run, field, size, is_answered):
    """Its end reset the count before the limit was checked."""

    async def client(place, connections):
        reader, writer = await asyncio.open_connection(*place)
        for _ in range(1 + is_answered):  # each request has the whole limit
            writer.write(field % (b"a" * size))
            line = b""
            with contextlib.suppress(ConnectionError):
                line = await reader.readline()
            assert line == (b"HTTP/1.1 200 OK\r\n" if is_answered else b"")
            if is_answered:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(10)
        assert await until(lambda: bool(connections) == is_answered)
        writer.close()

    run(answering(10), client)


def test_a_body_does_not_count_as_head(run):
    calls: list[int] = []
    chunks = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 50_000
    length = b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000)

    async def client(place, _):
        reader, writer = await asyncio.open_connection(*place)
        for sent in (chunks + b"0\r\n\r\n", length):
            for at in range(0, len(sent), 20_000):
                writer.write(sent[at : at + 20_000])
                await asyncio.sleep(0.001)
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(10)
        writer.close()

    run(answering(10, calls), client)
    assert calls == [50_000, 300_000]
