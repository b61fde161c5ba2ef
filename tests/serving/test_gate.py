import asyncio

import pytest

from keras_scnn.serving import gate
from keras_scnn.serving.gate import Gate, with_deadline
from keras_scnn.serving.server import shown


class Client:
    """One request to an ASGI application: parts of a body, or seconds to wait."""

    def __init__(self, *parts, path: str = "/", headers=()):
        self.parts, self.sent = list(parts), []
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers)}

    async def receive(self):
        part = self.parts.pop(0)
        if isinstance(part, float):
            await asyncio.sleep(part)
            part = b""
        return {"type": "http.request", "body": part, "more_body": bool(self.parts)}

    async def send(self, message):
        self.sent.append(message.get("status", message.get("body")))


async def echo(scope, receive, send):
    await send({"status": 200})
    await send({"body": (await receive())["body"]})


def ask(gate: Gate, client: Client) -> list:
    asyncio.run(gate(client.scope, client.receive, client.send))
    return client.sent


def test_a_body_is_passed_on_whole():
    assert ask(Gate(echo, 100), Client(b"a" * 60, b"b" * 40)) == [200, b"a" * 60 + b"b" * 40]


@pytest.mark.parametrize("parts", [(1.0, b"a"), (b"a", 1.0, b"b")])
def test_a_body_that_does_not_arrive_gets_408(parts):
    assert ask(Gate(echo, 100, part_s=0.05), Client(*parts))[0] == 408


def test_a_body_that_drips_gets_408():
    drips = [part for _ in range(50) for part in (b"a", 0.02)]
    assert ask(Gate(echo, 1000, part_s=0.5, body_s=0.2), Client(*drips))[0] == 408


@pytest.mark.parametrize("length", [b"-1", b"x", b"9" * 30, b"101"])
def test_a_length_that_is_invalid_or_too_large_gets_413(length):
    client = Client(b"a", headers=[(b"content-length", length)])
    assert ask(Gate(echo, 100), client)[0] == 413


def test_a_body_without_end_is_read_for_a_while_only():
    client = Client(*[b"a" * 60] * 20)
    assert ask(Gate(echo, 100), client)[0] == 413
    assert 100 * gate.DRAINED < 60 * (20 - len(client.parts)) <= 100 * gate.DRAINED + 60


def test_head_is_answered_like_get():
    async def method(scope, receive, send):
        await send({"body": scope["method"]})

    client = Client(b"")
    client.scope["method"] = "HEAD"
    assert ask(Gate(method, 100), client) == ["GET"]
    assert client.scope["method"] == "HEAD"  # of the journal


def test_a_request_that_a_server_no_longer_waits_for_gets_503():
    async def never(*_):
        await asyncio.sleep(60)

    async def cancelled(client: Client) -> None:
        asked = asyncio.ensure_future(Gate(never, 100)(client.scope, client.receive, client.send))
        await asyncio.sleep(0.05)
        asked.cancel()
        await asked

    client = Client(b"a")
    asyncio.run(cancelled(client))
    assert client.sent == [503, b'{"error": "the server is shutting down; try again"}']


def test_the_bytes_and_number_of_all_requests_are_bounded_and_released(monkeypatch):
    monkeypatch.setattr(gate, "HELD_BODIES", 2)
    monkeypatch.setattr(gate, "MAX_REQUESTS", 4)
    waiting = asyncio.Event()

    async def slow(scope, receive, send):
        await waiting.wait()
        await send({"status": 200})

    async def run():
        one = Gate(slow, 100)
        large = [Client(b"a" * 100) for _ in range(3)]
        small = [Client(b"") for _ in range(3)]
        tasks = []
        for client in (*large, *small):
            tasks.append(asyncio.create_task(one(client.scope, client.receive, client.send)))
            await asyncio.sleep(0.01)
        refused = [client.sent[:1] for client in (*large, *small)]
        waiting.set()
        await asyncio.gather(*tasks)
        after = Client(b"a" * 100)
        await one(after.scope, after.receive, after.send)
        return refused, after.sent

    refused, after = asyncio.run(run())
    assert refused == [[], [], [503], [], [], [503]]  # bytes; then requests
    assert after == [200]


def test_health_and_metrics_are_answered_however_many_requests_wait(monkeypatch):
    monkeypatch.setattr(gate, "MAX_REQUESTS", 1)
    waiting = asyncio.Event()

    async def answer(scope, receive, send):
        if scope["path"] == "/slow":
            await waiting.wait()
        await send({"status": 200})

    async def run():
        one = Gate(answer, 100)
        slow, post, get, head = (Client(b"", path=path) for path in ("/slow", "/", "/", "/"))
        get.scope["method"], head.scope["method"] = "GET", "HEAD"
        task = asyncio.create_task(one(slow.scope, slow.receive, slow.send))
        await asyncio.sleep(0.01)
        for client in (post, get, head):
            await one(client.scope, client.receive, client.send)
        waiting.set()
        await task
        return [client.sent[0] for client in (slow, post, get, head)]

    assert asyncio.run(run()) == [200, 503, 200, 200]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_request_without_body_must_have_none(method):
    client = Client(b"a" * 50, b"b" * 50)
    client.scope["method"] = method
    assert ask(Gate(echo, 100), client)[0] == 413
    assert len(client.parts) == 1  # no more of it is read


def test_a_connection_is_closed_if_no_head_arrives_in_time():
    class Protocol:
        cycle, loop = None, None

        def connection_made(self, transport):
            self.transport, self.loop = transport, asyncio.get_running_loop()

        def data_received(self, data):
            self.cycle = type("Cycle", (), {"response_complete": data == b"answered"})()

        def connection_lost(self, exc):
            pass

    class Transport:
        closed = False

        def set_write_buffer_limits(self, high):
            pass

        def close(self):
            self.closed = True

    async def run(*data):
        protocol, transport = with_deadline(Protocol, head_s=0.05)(), Transport()
        protocol.connection_made(transport)
        for part in data:
            protocol.data_received(part)
        await asyncio.sleep(0.15)
        protocol.connection_lost(None)
        return transport.closed

    assert asyncio.run(run())
    assert asyncio.run(run(b"answered"))
    assert not asyncio.run(run(b"a request that is worked on"))


def test_messages_show_no_paths_of_this_machine():
    text = "cannot open '/usr/lib/python3/site-packages/PIL/a.py':\nno " + "x" * 900
    assert shown(text).startswith("cannot open '...': no x") and len(shown(text)) <= 303
    assert shown("5 px/mm and 1/2") == "5 px/mm and 1/2"
