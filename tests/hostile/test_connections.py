"""Connections that are asked for more than they are read from, or for nothing at all."""

import select
import time
from contextlib import ExitStack

import pytest

from tests.entry_points.probed import MIB, memory_of, wait_until
from tests.hostile.entry_points import EntryPoint
from tests.hostile.wire import Wire, head

OURS = ("uvicorn-direct", "uvicorn-routed", "uvicorn-urls")
GROWTH = 60 * MIB
FLOOD_GROWTH = 30 * MIB
"""For floods, of which a server that heaps requests up takes tens of thousands a second."""
KEEP_ALIVE_SECONDS = 5  # uvicorn's

PLAIN = ""
NOT_PLAIN = "TE: x"  # has the fast path leave a request to uvicorn


def flood(wire: Wire, request: bytes, *, size: int, seconds: float) -> None:
    """Send requests one behind the other, and read what is answered, until so much is sent or the time is over."""
    data = request * 1024
    wire.socket.setblocking(False)
    until, sent = time.monotonic() + seconds, 0
    while sent < size and time.monotonic() < until:
        readable, writable, _ = select.select([wire.socket], [wire.socket], [], 0.1)
        if readable:
            assert wire.socket.recv(1 << 20), f"hung up after {sent} bytes"
        if writable:
            sent += wire.socket.send(data[sent % len(data) :])


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("line", [PLAIN, NOT_PLAIN])
def test_requests_of_a_client_that_does_not_wait_for_answers_are_not_heaped_up(name: str, line: str) -> None:
    with EntryPoint(name) as server, ExitStack() as stack:
        pid = server.probe().pid
        server.probe()  # connections are ours from the second one on, where streams are not alone
        before = memory_of(pid, "VmRSS")
        elsewhere = head("GET", "a", line).replace(b"/v1/stream/a", b"/elsewhere")
        for request in (elsewhere, head("GET", "a?offset=-1", line), head("GET", "a?offset=now&live=long-poll", line)):
            # Servers read by powers of two: none of these ends inside a request.
            fill = 256 - len(request) - len(b"X-Y: \r\n")
            request = request.replace(b"\r\n\r\n", b"\r\nX-Y: " + b"z" * fill + b"\r\n\r\n")
            flood(stack.enter_context(Wire(server.port)), request, size=16 * MIB, seconds=2)
        assert memory_of(pid, "VmHWM") - before < FLOOD_GROWTH


@pytest.mark.parametrize("name", OURS)
def test_requests_that_come_together_are_answered_in_order(name: str) -> None:
    with EntryPoint(name) as server:
        server.probe()
        paths = [server.create(bytes([65 + number])) for number in range(5)]
        requests = [(number % 5, (number * 7) % 3) for number in range(600)]
        data = b"".join(
            head("GET", f"{paths[which]}?offset=-1", (PLAIN, NOT_PLAIN, "Cookie: " + "c" * 3000)[kind])
            for which, kind in requests
        )
        with Wire(server.port) as wire:
            wire.send(data)
            answers = [wire.answer(method="GET").body for _ in requests]
        assert answers == [bytes([65 + which]) for which, _ in requests]


@pytest.mark.parametrize("name", OURS)
def test_what_is_no_request_keeps_no_connection(name: str) -> None:
    with EntryPoint(name, RECEIVE_TIMEOUT=1) as server, ExitStack() as stack:
        server.probe()
        for number in range(12):
            wire = stack.enter_context(Wire(server.port))
            if number % 3:
                wire.send(head("GET", "a", NOT_PLAIN if number % 2 else PLAIN))
                assert wire.answer().status == 404
            wire.send(b"\r\n" * (1 + number))
        wait_until(lambda: server.probe(collect=True).connections <= 1, KEEP_ALIVE_SECONDS + 10, "all are closed")


LONG = {  # a head that no other is like, by its number
    "headers": lambda number: head("GET", "a", *[f"{number:x}x{each:x}:{each}" for each in range(900)]),
    "counted headers": lambda number: head(
        "POST", "a", "Content-Length: 0", f"Producer-Seq: {number}", *[f"{number:x}x{each:x}:" for each in range(900)]
    ),
    "query": lambda number: head("GET", f"a?offset=-1&{number}={'%F0%9F%98%80' * 5 + 'x' * 50_000}"),
    "cursor": lambda number: head("GET", f"a?offset=now&live=sse&cursor={number}%F0%9F%98%80{'x' * 50_000}"),
    "cookies": lambda number: head("GET", "a", f"Cookie: sessionid={number}; a={'x' * 50_000}"),
    "addresses": lambda number: head("GET", "a", f"X-Forwarded-For: {number}, {'x' * 50_000}"),
}


@pytest.mark.parametrize("name", ["uvicorn-direct", "uvicorn-routed"])
@pytest.mark.parametrize("permission", ["AllowAll", "ModelPermissions"])
def test_what_is_remembered_of_requests_is_little(name: str, permission: str) -> None:
    with EntryPoint(name, PERMISSION_CLASSES=f"django_durable_streams.permissions.{permission}") as server:
        pid = server.probe().pid
        before = memory_of(pid, "VmRSS")
        for make in LONG.values():
            with Wire(server.port) as wire:
                for number in range(400):
                    wire.send(make(number))  # type: ignore[no-untyped-call]
                    assert 200 < wire.answer(method="GET").status < 500
        assert memory_of(pid, "VmRSS") - before < GROWTH
