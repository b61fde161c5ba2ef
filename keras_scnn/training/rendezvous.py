"""The check before a run of several processes that all ranks are there, with the same settings.

Rank 0 listens on the port that JAX's coordinator will use; the others send one line of JSON and
receive one. A problem is thus reported on every rank within a bounded time, before JAX starts,
whose own messages do not name the cause.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from typing import Any

LONGEST, PATIENCE = 65536, 5.0  # bytes of a line; seconds to send it after connecting
RETRY = 0.3  # seconds between attempts to connect


def rendezvous(
    rank: int, hosts: int, coordinator: str, facts: dict[str, str], seconds: float
) -> None:
    """Return once all ranks have connected, each once, with the same facts.

    Args:
        rank: of this process, 0 to hosts - 1.
        hosts: number of processes.
        coordinator: 'HOST:PORT' of rank 0.
        facts: what must be the same in all, as text; a 'problem' among them ends all.
        seconds: how long to wait for the others.

    Raises:
        ValueError: two of the connected processes have the same rank, or their facts differ; or
            the coordinator's host name is unknown, or another program uses its port.
        TimeoutError: a rank did not connect in time.
        OSError: the port is in use.
    """
    deadline = time.monotonic() + seconds
    if rank:
        problem = _answer(rank, hosts, coordinator, facts, deadline)
    else:
        problem = _listen(hosts, coordinator, facts, deadline, seconds)
    if problem:
        raise ValueError(problem)


def parse_address(coordinator: str) -> tuple[str, int]:
    """('host', port) of 'HOST:PORT', in which an IPv6 address is in brackets.

    Raises:
        ValueError: it has another form.
    """
    host, _, port = coordinator.rpartition(":")
    is_ipv6 = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_ipv6 else host
    is_host = bool(host) and (":" in host) == is_ipv6
    if not is_host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(
            f"coordinator is '{coordinator}'; it must be HOST:PORT of rank 0, an IPv6 address in "
            "brackets"
        )
    return host, int(port)


def _listen(hosts, coordinator, facts, deadline, seconds) -> str:
    """The problem, '' for none, after sending it to all connected ranks.

    Raises:
        OSError: the port is in use. TimeoutError: a rank did not connect in time.
    """
    (host, port), problem, is_late = parse_address(coordinator), "", False
    connected = {0: {"hosts": hosts, "facts": facts}}
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with contextlib.ExitStack() as stack:
        try:
            listening = socket.create_server(("", port), family=family, backlog=hosts)
            server = stack.enter_context(listening)
        except OSError as error:
            raise OSError(
                f"coordinator: port {port} cannot be opened ({error.strerror}): "
                "is another rank 0 or another run on this machine? Choose another port"
            ) from error
        connections = []
        while len(connected) < hosts and not problem:
            if (left := deadline - time.monotonic()) <= 0:
                absent = ", ".join(str(r) for r in range(hosts) if r not in connected)
                problem = f"rank {absent} of {hosts} missing after {seconds:g} s: start all ranks"
                is_late = True
                break
            server.settimeout(left)
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # another program
                connection = stack.enter_context(server.accept()[0])
                one = _receive(connection)
                connections.append(connection)
                problem = _add_rank(one, connected, hosts)
        if "problem" in facts:
            problem, is_late = f"rank 0: {facts['problem']}", False
        for connection in connections:
            _send(connection, {"problem": problem, "late": is_late})
    if is_late:
        raise TimeoutError(problem)
    return problem


def _add_rank(one: dict, connected: dict[int, dict], hosts: int) -> str:
    """Add a rank to the connected ones; return its problem, '' for none."""
    rank, theirs = int(one["rank"]), dict(one["facts"])
    if one["hosts"] != hosts:
        return f"rank {rank} was started with --hosts {one['hosts']}, rank 0 with {hosts}"
    if rank in connected or not 0 < rank < hosts:
        return f"two processes have rank {rank}: give each of the {hosts} its own"
    if "problem" in theirs:
        return f"rank {rank}: {theirs['problem']}"
    mine = connected[0]["facts"]
    different = [name for name in mine if mine[name] != theirs.get(name)]
    if different and "problem" not in mine:
        name = different[0]
        pair = f"{theirs.get(name)}, rank 0 {mine[name]}"
        return f"rank {rank} differs from rank 0 in {' and '.join(different)} ({name}: {pair})"
    connected[rank] = one
    return ""


def _answer(rank, hosts, coordinator, facts, deadline) -> str:
    """The problem that rank 0 reports, '' for none; or raise a TimeoutError."""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(parse_address(coordinator), timeout=PATIENCE) as one:
                _send(one, {"rank": rank, "hosts": hosts, "facts": facts})
                one.settimeout(max(deadline - time.monotonic(), 0) + PATIENCE)
                heard = _receive(one)
                problem, is_late = str(heard["problem"]), bool(heard.get("late"))
        except ConnectionError:
            pass  # rank 0 does not listen yet
        except (OSError, ValueError, KeyError) as error:
            if isinstance(error, socket.gaierror):
                return f"the host of the coordinator '{coordinator}' is unknown ({error})"
            if isinstance(error, ValueError):
                return f"no rank 0 listens at {coordinator}: another program uses this port"
        else:
            if is_late:
                raise TimeoutError(problem)
            return problem
        time.sleep(RETRY)
    what = "start it there with --rank 0, or check the network"
    raise TimeoutError(f"no rank 0 at {coordinator}: {what}")


def _send(connection: socket.socket, what: dict) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(json.dumps(what).encode() + b"\n")


def _receive(connection: socket.socket) -> dict[str, Any]:
    """One line of JSON.

    Raises:
        ConnectionError: the other end closed. ValueError: it sent something else.
    """
    if connection.gettimeout() is None:
        connection.settimeout(PATIENCE)
    with connection.makefile("rb") as file:
        line = file.readline(LONGEST)
    if not line:
        raise ConnectionResetError("closed")
    try:
        content = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(str(error)) from error
    if not isinstance(content, dict):
        raise ValueError("no table")
    return content
