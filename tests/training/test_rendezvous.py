"""The check of ranks before training: missing, duplicate and different ones are reported."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_scnn.training.rendezvous import parse_address, rendezvous

FACTS = {"versions": "keras 3", "code": "abc", "settings": "1", "data": "d"}


@pytest.fixture
def coordinator():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def come(coordinator, *ranks, seconds=4.0):
    """The problem reported to each (rank, hosts, facts); '' for none."""

    def one(arguments):
        rank, hosts, facts = arguments
        try:
            rendezvous(rank, hosts, coordinator, facts, seconds)
        except (OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""

    with ThreadPoolExecutor(len(ranks)) as pool:
        return list(pool.map(one, ranks))


def test_processes_with_equal_settings_are_accepted(coordinator):
    assert come(coordinator, *((rank, 4, FACTS) for rank in range(4))) == [""] * 4


@pytest.mark.parametrize(
    ("name", "said"),
    [("versions", "in versions"), ("code", "in code"), ("data", "in data")],
)
def test_all_processes_get_the_difference(coordinator, name, said):
    other = {**FACTS, name: "x"}
    heard = come(coordinator, (0, 2, FACTS), (1, 2, other))
    assert heard[0] == heard[1]
    assert (
        f"ValueError: rank 1 differs from rank 0 {said} ({name}: x, rank 0 {FACTS[name]})"
        in heard[0]
    )


def test_two_processes_of_one_rank_are_reported_to_all(coordinator):
    heard = come(coordinator, (0, 3, FACTS), (1, 3, FACTS), (1, 3, FACTS))
    assert set(heard) == {"ValueError: two processes have rank 1: give each of the 3 its own"}


def test_another_number_of_hosts_is_named(coordinator):
    heard = come(coordinator, (0, 2, FACTS), (1, 3, FACTS))
    assert set(heard) == {"ValueError: rank 1 was started with --hosts 3, rank 0 with 2"}


def test_a_rank_that_does_not_connect_is_named_in_time(coordinator):
    start = time.monotonic()
    heard = come(coordinator, (0, 4, FACTS), (2, 4, FACTS), seconds=1.0)
    assert set(heard) == {"TimeoutError: rank 1, 3 of 4 missing after 1 s: start all ranks"}
    assert time.monotonic() - start < 3


def test_a_coordinator_that_does_not_listen_is_named_in_time(coordinator):
    (heard,) = come(coordinator, (1, 2, FACTS), seconds=0.5)
    assert heard.startswith(f"TimeoutError: no rank 0 at {coordinator}: start it there")
    (heard,) = come("no-such-host.invalid:5000", (1, 2, FACTS), seconds=3)
    assert "the host of the coordinator" in heard or "no rank 0" in heard


def test_an_unknown_host_name_is_an_error_of_the_settings(monkeypatch):
    """Not a TimeoutError, after which a launcher would try again."""

    def unknown(*arguments, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    (heard,) = come("nobody:5000", (1, 2, FACTS))
    assert heard.startswith("ValueError: the host of the coordinator 'nobody:5000' is unknown")


def test_the_error_of_one_reaches_all(coordinator):
    heard = come(coordinator, (0, 2, FACTS), (1, 2, {"problem": "records: damaged"}))
    assert set(heard) == {"ValueError: rank 1: records: damaged"}
    heard = come(coordinator, (0, 2, {"problem": "no data"}), (1, 2, FACTS), seconds=1.0)
    assert set(heard) == {"ValueError: rank 0: no data"}


def test_a_port_in_use_is_named(coordinator):
    with socket.create_server(("", int(coordinator.rpartition(":")[2]))):
        (heard,) = come(coordinator, (0, 2, FACTS))
        assert "cannot be opened" in heard and "another rank 0" in heard


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.0\r\n\r\n", b"\xff\xfe\n", b"[1]\n", b"{}\n", b""]
)
def test_other_programs_that_connect_are_ignored(coordinator, noise, monkeypatch):
    monkeypatch.setattr("keras_scnn.training.rendezvous.PATIENCE", 0.2)

    def stranger(_):
        for _ in range(50):
            try:
                with socket.create_connection(parse_address(coordinator), timeout=1) as one:
                    one.sendall(noise)
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError("nobody listened")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(come, coordinator, (0, 2, FACTS))
        pool.submit(stranger, None).result(5)  # rank 0 alone listens
        assert come(coordinator, (1, 2, FACTS)) == [""]
        assert first.result(5) == [""]


def test_another_program_at_the_port_is_reported(coordinator):
    with (
        socket.create_server(parse_address(coordinator)) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(lambda: server.accept()[0].sendall(b"SSH-2.0\n"))
        (heard,) = come(coordinator, (1, 2, FACTS))
    assert heard.startswith(f"ValueError: no rank 0 listens at {coordinator}")


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", "host:", ":80", "host:0", "host:70000", "host:x"),
        *("::1:80", "[]:80", "[host]:80", "[::1]"),
    ],
)
def test_an_address_is_host_and_port(text):
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "place"), [("node0:80", ("node0", 80)), ("[::1]:29500", ("::1", 29500))]
)
def test_an_ipv6_address_is_in_brackets(text, place):
    assert parse_address(text) == place


def test_ranks_connect_to_an_ipv6_address(ipv6):
    with socket.socket(socket.AF_INET6) as one:
        one.bind(("::1", 0))
        port = one.getsockname()[1]
    assert come(f"[::1]:{port}", *((rank, 2, FACTS) for rank in range(2))) == ["", ""]
