"""Requests that are answered on uvicorn's connection itself, as clients without manners send them."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.entry_points.probed import ProbedServer, wait_until
from tests.hostile import wire as hostile_wire
from tests.servers import HOST

PLAIN = {"Content-Type": "text/plain"}


@pytest.fixture(scope="module")
def server() -> Iterator[ProbedServer]:
    with ProbedServer("uvicorn") as running:
        yield running


class Wire(hostile_wire.Wire):
    """A connection, and the responses that come over it."""

    def response(self, *, body: bool = True) -> tuple[int, dict[str, str], bytes]:
        """The next response: status, headers, body."""
        answer = self.answer(method="GET" if body else "HEAD")
        assert answer.status, "the connection was closed"
        return answer.status, answer.headers, answer.body

    def chunk(self) -> bytes:
        """The next chunk of a response; empty at its end."""
        return next(self.chunks(), b"")


Wires = Callable[[ProbedServer], Wire]


@pytest.fixture
def wires() -> Iterator[Wires]:
    """Makes connections, and closes them afterwards."""
    with ExitStack() as stack:

        def make(server: ProbedServer) -> Wire:
            wire = Wire(server.port)
            stack.callback(wire.socket.close)
            return wire

        yield make


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    fields = {"Host": HOST, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} /v1/stream/{path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def append(path: str, body: bytes) -> bytes:
    return request("POST", path, body, Content_Type="text/plain")


def test_it_is_in_use(server: ProbedServer, wires: Wires) -> None:
    wire = wires(server)
    wire.send(request("GET", "nowhere"))
    assert wire.response()[0] == 404
    assert httpx.get(f"{server.base_url}/_probe").json()["direct"] > 0


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_requests_that_come_in_pieces_are_answered_in_order(server: ProbedServer, wires: Wires, size: int) -> None:
    path = server.create()
    wire = wires(server)
    data = b"".join([append(path, b"one "), append(path, b"two "), request("GET", path), append(path, b"three")])
    wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for first in range(0, len(data), size):
        wire.send(data[first : first + size])
    assert [wire.response()[0] for _ in range(2)] == [204, 204]
    assert wire.response()[2] == b"one two "
    assert wire.response()[0] == 204
    assert httpx.get(server.url(path)).content == b"one two three"


def test_a_thousand_requests_in_one_go_are_answered_one_by_one(server: ProbedServer, wires: Wires) -> None:
    path = server.create()
    wire = wires(server)
    wire.send(*(append(path, b"%d " % number) for number in range(500)))
    wire.send(*(request("GET", "no%0astream") for _ in range(500)))  # refused at once
    assert [wire.response()[0] for _ in range(500)] == [204] * 500
    assert [wire.response()[0] for _ in range(500)] == [400] * 500
    assert httpx.get(server.url(path)).content == b"".join(b"%d " % number for number in range(500))


def test_both_ways_take_turns_on_one_connection(server: ProbedServer, wires: Wires) -> None:
    path = server.create(b"x")
    wire = wires(server)
    chunked = request("POST", path, Content_Type="text/plain", Transfer_Encoding="chunked").replace(
        b"Content-Length: 0\r\n", b""
    )
    for _ in range(3):
        wire.send(append(path, b"a"))
        assert wire.response()[0] == 204
        wire.send(b"GET /_probe HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"listeners" in wire.response()[2]
        wire.send(chunked, b"1\r\nb\r\n")
        wire.send(b"0\r\n\r\n", append(path, b"c"))
        assert [wire.response()[0], wire.response()[0]] == [204, 204]
    wire.send(request("GET", path))
    assert wire.response()[2] == b"x" + b"abc" * 3


def test_a_body_that_is_never_finished_changes_nothing(server: ProbedServer, wires: Wires) -> None:
    path = server.create()
    wire = wires(server)
    wire.send(append(path, b"x" * 1000)[:-1])
    wire.socket.close()
    assert httpx.get(server.url(path)).content == b""


def test_a_client_that_leaves_before_its_answer_has_appended(server: ProbedServer, wires: Wires) -> None:
    path = server.create()
    wire = wires(server)
    wire.send(append(path, b"left"))
    wire.socket.shutdown(socket.SHUT_WR)
    wire.socket.close()
    deadline = time.monotonic() + 5
    while httpx.get(server.url(path)).content != b"left":
        assert time.monotonic() < deadline


def test_head_has_no_body_and_errors_have(server: ProbedServer, wires: Wires) -> None:
    path = server.create(b"abc")
    wire = wires(server)
    wire.send(request("HEAD", path), request("HEAD", "nowhere"), request("GET", "nowhere"))
    assert wire.response(body=False)[0] == 200
    assert wire.response(body=False)[0] == 404
    status, headers, body = wire.response()
    assert status == 404
    assert headers["content-type"] == "application/problem+json"
    assert b"no stream" in body


def test_a_host_that_is_not_ours_is_refused(server: ProbedServer, wires: Wires) -> None:
    wire = wires(server)
    wire.send(request("GET", "a", Host="evil.example"))
    assert wire.response()[0] == 400


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(wires: Wires) -> None:
    with ProbedServer("uvicorn", options=["--timeout-keep-alive", "2"]) as server:
        path = server.create()
        wire = wires(server)
        began = time.monotonic()
        while time.monotonic() - began < 3:
            last = time.monotonic()
            wire.send(append(path, b"x"))
            assert wire.response()[0] == 204
            time.sleep(0.02)
        assert wire.is_closed()
        assert 1.9 < time.monotonic() - last < 10


def test_a_reader_that_does_not_read_is_not_read_from(server: ProbedServer, wires: Wires) -> None:
    path = server.create(b"x" * 900_000)
    wire = wires(server)
    wire.socket.settimeout(2)
    before = server.memory_peak()
    with pytest.raises(TimeoutError):
        wire.send(request("GET", path) * 100_000)
    assert server.memory_peak() - before < 64 * 1024 * 1024
    wire.socket.settimeout(10)
    assert wire.response()[2] == b"x" * 900_000


def test_a_long_poll_is_answered_and_the_connection_goes_on(server: ProbedServer, wires: Wires) -> None:
    path = server.create(b"x")
    wire = wires(server)
    wire.send(request("GET", f"{path}?offset=now&live=long-poll"), request("GET", path))
    wait_until(lambda: server.probe().places == 1, 20, "the long-poll waits")
    server.append(path, b"news")
    assert wire.response()[2] == b"news"
    assert wire.response()[2] == b"xnews"


def test_events_come_in_chunks_and_the_connection_goes_on(server: ProbedServer, wires: Wires) -> None:
    path = server.create(b"old")
    wire = wires(server)
    wire.send(request("GET", f"{path}?offset=-1&live=sse"), request("GET", path))
    status, headers, _ = wire.response(body=False)
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert b"data:old\n" in wire.chunk()
    server.append(path, b"new")
    assert b"data:new\n" in wire.chunk()
    server.append(path, b"last", Stream_Closed="true")
    last = wire.chunk()
    assert b"data:last\n" in last
    assert b'"streamClosed":true' in last
    assert wire.chunk() == b""
    assert wire.response()[2] == b"oldnewlast"


def test_the_access_log_is_written() -> None:
    with ProbedServer("uvicorn", options=["--log-level", "info"]) as server:
        path = server.create()
        httpx.get(server.url(path), params={"offset": "-1"})
        log = server.log_tail()
    assert re.search(rf'127\.0\.0\.1:\d+ - "GET /v1/stream/{path}\?offset=-1 HTTP/1\.1" 200', log)
